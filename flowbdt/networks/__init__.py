"""Diffusion networks behind the sampler library: backbones, objectives, training, and a field.

The home of torch; ``import flowbdt`` never comes here. Names are loaded when first used.
"""

from __future__ import annotations

import importlib
from typing import Any

from ..errors import MissingExtra

try:
    from . import calo_unet  # noqa: F401  (enters itself in BACKBONES)
except ImportError as error:
    raise MissingExtra.of("torch", error, "cfm") from error

_HOME = {
    "BACKBONES": "backbones",
    "Denoiser": "denoiser",
    "NetworkField": "network_field",
    "Objective": "objective",
    "LEVELS": "noise_levels",
    "WEIGHTS": "loss_weights",
    "Trainer": "trainer",
    "TrainingConfig": "trainer",
    "reconstruct": "weight_averages",
    "save_network": "network_files",
    "load_network": "network_files",
    "TableNetwork": "pretrained",
    "pretrained_network": "pretrained",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'flowbdt.networks' has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
