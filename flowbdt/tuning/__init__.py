"""Search of settings and of samplers: what suits a table, within a budget, with the evidence."""

from .finish import Tuned
from .sampler import TunedSampler, tune_sampler
from .search import tune

__all__ = ["Tuned", "TunedSampler", "tune", "tune_sampler"]
