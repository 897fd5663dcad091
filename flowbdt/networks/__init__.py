"""Diffusion networks behind the sampler library: backbones, objectives, training, and a field.

The only home of torch besides `flowbdt.flow.torchcfm_reference`; ``import flowbdt`` never comes here. Names are
loaded when first used.
"""

from __future__ import annotations

import importlib
from typing import Any

from ..errors import MissingExtra

try:
    import torch  # noqa: F401
except ImportError as error:
    raise MissingExtra.of("torch", error, "cfm") from error

_HOME = {
    "BACKBONES": "backbones",
    "Denoiser": "denoiser",
    "NetworkField": "field",
    "Objective": "objective",
    "LEVELS": "levels",
    "WEIGHTS": "weights",
    "Trainer": "train",
    "TrainingConfig": "train",
    "reconstruct": "ema",
    "save_network": "state",
    "load_network": "state",
    "TableNetwork": "pretrained",
    "pretrained_network": "pretrained",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'flowbdt.networks' has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
