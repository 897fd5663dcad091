"""Search of settings and of samplers: what suits a table, within a budget, with the evidence."""

from .finish_study import Tuned
from .tune_sampler import TunedSampler, tune_sampler
from .tune_settings import tune

__all__ = ["Tuned", "TunedSampler", "tune", "tune_sampler"]
