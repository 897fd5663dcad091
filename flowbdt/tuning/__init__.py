"""Search of settings and of samplers: what suits a table, within a budget, with the evidence."""

from .finish import Tuned
from .search import tune

__all__ = ["Tuned", "tune"]
