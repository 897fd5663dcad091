"""A training in one file: weights, averages, optimiser, losses; as arrays and JSON."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .. import files
from .backbones import build_backbone
from .state import load_weights, network_header, pack, read, weights_of

if TYPE_CHECKING:
    from .train import Trainer

KIND = "checkpoint"


def _under(prefix: str, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}/{name}": value for name, value in values.items()}


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    start = f"{prefix}/"
    return {name[len(start) :]: v for name, v in tensors.items() if name.startswith(start)}


def save(path: str | Path, trainer: Trainer) -> None:
    """Write a trainer's state, whole or not at all."""
    tensors = _under("network", weights_of(trainer.denoiser))
    tensors |= _under("extra", trainer.extra.state_dict())
    if trainer.ema is not None:
        tensors |= _under("ema", trainer.ema.values)
    if trainer.best is not None:
        tensors |= _under("best", trainer.best)
    for i, power in enumerate(trainer.powers):
        tensors |= _under(f"power{i}", power.values)
    for i, entry in enumerate(trainer.stored):
        tensors |= _under(f"stored{i}", entry["values"])
    for i, state in trainer.optimiser.state_dict()["state"].items():
        tensors |= _under(f"optimiser{i}", state)
    tensors["losses"] = torch.tensor(trainer.losses, dtype=torch.float64)
    header = {
        **network_header(trainer.denoiser),
        "kind": KIND,
        **trainer.settings(),
        "history": trainer.history,
        "stored": [[entry["sigma_rel"], entry["step"]] for entry in trainer.stored],
        "data_digest": trainer.data_digest,
    }
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    files.write_bytes(target, pack(header, tensors))


def resume(kind: type[Trainer], path: str | Path) -> Trainer:
    """Return a trainer as it was saved."""
    from .objective import Objective
    from .train import TrainingConfig

    header, tensors = read(path, KIND)
    config = TrainingConfig(**header["training"])
    trainer = kind(build_backbone(header["backbone"]), Objective(**header["objective"]), config)
    load_weights(trainer.denoiser, _below("network", tensors), str(path))
    trainer.extra.load_state_dict(_below("extra", tensors))
    averages = [("ema", trainer.ema), *((f"power{i}", p) for i, p in enumerate(trainer.powers))]
    for name, average in averages:
        if average is not None:
            for key, value in _below(name, tensors).items():
                average.values[key].copy_(value)
    trainer.stored = [
        {"sigma_rel": width, "step": step, "values": _on(trainer, f"stored{i}", tensors)}
        for i, (width, step) in enumerate(header["stored"])
    ]
    trainer.best = _on(trainer, "best", tensors) or None
    _restore_optimiser(trainer, tensors)
    trainer.losses = tensors["losses"].tolist()
    trainer.history, trainer.data_digest = header["history"], header["data_digest"]
    return trainer


def _on(trainer: Trainer, prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.to(trainer.device) for name, value in _below(prefix, tensors).items()}


def _restore_optimiser(trainer: Trainer, tensors: Mapping[str, Tensor]) -> None:
    state: dict[str, Any] = trainer.optimiser.state_dict()
    for group in state["param_groups"]:
        for i in group["params"]:
            saved = _below(f"optimiser{i}", tensors)
            if saved:
                state["state"][i] = saved
    trainer.optimiser.load_state_dict(state)
