"""Diffusion networks for the samplers: backbones, objectives, training, and a field.

Needs torch, which ``import flowbdt`` does not load.
"""

from __future__ import annotations

from ..errors import MissingExtra

try:
    from . import calo_unet  # noqa: F401  (enters itself in BACKBONES)
    from .backbones import BACKBONES
    from .denoiser import Denoiser
    from .loss_weights import WEIGHTS
    from .network_field import NetworkField
    from .network_files import TableNetwork, load_network, pretrained_network, save_network
    from .objective import LEVELS, Objective
    from .trainer import Trainer, TrainingConfig
    from .weight_averages import reconstruct
except ImportError as error:
    raise MissingExtra.of("torch", error, "cfm") from error

__all__ = [
    "BACKBONES",
    "LEVELS",
    "WEIGHTS",
    "Denoiser",
    "NetworkField",
    "Objective",
    "TableNetwork",
    "Trainer",
    "TrainingConfig",
    "load_network",
    "pretrained_network",
    "reconstruct",
    "save_network",
]
