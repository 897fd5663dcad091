"""Models from models: settings for a table, samplers and students of a trained run."""

from .distillation import distil
from .finish_study import Tuned
from .tune_sampler import TunedSampler, tune_sampler
from .tune_settings import tune

__all__ = ["Tuned", "TunedSampler", "distil", "tune", "tune_sampler"]
