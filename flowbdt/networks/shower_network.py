"""`ShowerNetwork`: calorimeter showers by a network, at layer energies drawn from trees."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from .. import atomic_files, seeding
from ..errors import FormatError, InputError, reading
from ..flow.solvers import integrate
from ..flow.time_grid import Sampler, TimeGrid
from ..physics.calorimeter.geometry import Geometry
from ..physics.calorimeter.model.layer_energies import LayerEnergies
from ..physics.calorimeter.shower_files import Showers
from ..seeding import RowNoise, stream
from .backbones import Backbone, build_backbone
from .denoiser import Denoiser
from .network_field import NetworkField
from .network_files import (
    SHOWER_NETWORK,
    network_header,
    pack_network,
    read_network,
    rebuilt,
    weights_of,
)
from .trainer import Trainer, TrainingConfig
from .voxel_coordinates import VoxelCoordinates, conditions, turned

SAMPLER: dict[str, Any] = {
    "solver": "unipc",
    "spacing": {"name": "edm", "sigma_min": 0.02, "sigma_max": 80.0, "rho": 7.0},
    "n_steps": 20,
}

BACKBONE: dict[str, Any] = {
    "widths": [64, 64, 64],
    "n_blocks": 1,
    "fold": "all",
    "angle": False,
    "inverse": "mean",
}
"""Settings of a U-net for CPUs: convolutions in alpha only, with layers and rings as channels; the
same at any turn about the axis, as no angle is shown."""

BATCH = 256
"""Showers that the network sees at once: more are slower, they leave the cache."""


class ShowerNetwork:
    """A trained network of voxels, its coordinates, and trees for the layer energies.

    Parameters
    ----------
    energies : layer energies at any incident energy
    coordinates : of the voxels
    denoiser : from `conditions` and noisy coordinates
    data_digest : SHA-256 of the coordinates that were trained on
    """

    def __init__(
        self,
        energies: LayerEnergies,
        coordinates: VoxelCoordinates,
        denoiser: Denoiser,
        data_digest: str,
    ) -> None:
        self.energies, self.coordinates, self.denoiser = energies, coordinates, denoiser
        self.data_digest, self.field = data_digest, NetworkField(denoiser, batch_size=BATCH)

    def sampler(self, spec: Mapping[str, Any] | None = None) -> Sampler:
        """Return solver and boundaries; what ``spec`` leaves out is that of `SAMPLER`."""
        return Sampler.of(spec, SAMPLER, self.sampler_grid(), self.field.convention)

    def sampler_grid(self) -> TimeGrid:
        """Return the times of `SAMPLER`."""
        return TimeGrid.build(**SAMPLER, convention=self.field.convention)

    def sample_blocks(
        self, energies: Any, *, sampler: Mapping[str, Any] | None = None, random_state: Any = None
    ) -> Iterator[Showers]:
        """Yield blocks of one new shower for each incident energy [MeV], in order.

        A shower does not depend on those after it. Raises InputError if an energy is not positive
        and finite; ConfigError for an unknown sampler.
        """
        energies = np.asarray(energies, dtype=np.float64).reshape(-1)
        if not len(energies) or not ((energies > 0) & np.isfinite(energies)).all():
            raise InputError("incident energies must be positive and finite, in MeV, at least one")
        seed, chosen = seeding.resolve(random_state), self.sampler(sampler)
        layers = self.energies.sample(energies, seed)
        for _, low, high in seeding.block_ranges(len(energies)):
            rows = np.arange(low, high)
            x = self.points(chosen, rows, seed, conditions(energies[rows], layers[rows]))
            yield self.coordinates.inverse(x, energies[rows], layers[rows])

    def points(self, sampler: Sampler, rows: np.ndarray, seed: int, cond: np.ndarray) -> np.ndarray:
        """Return coordinates (k, voxels) of showers by their numbers and conditions."""
        noise = RowNoise(seed, "sample", rows, once=True)
        x0 = noise.standard_normal((len(rows), self.coordinates.geometry.n_voxels))
        rng = RowNoise(seed, "solver", rows)
        end = integrate(sampler.solver, self.field, x0, sampler.boundaries, cond, rng=rng).x
        return np.asarray(end)

    def save(self, path: str | Path) -> None:
        """Write the model as one file without pickle, whole or not at all."""
        state = self.energies.state()
        arrays = {"order": state["order"], "flow": state["flow"]}
        arrays |= {f"marginals/{name}": value for name, value in state["marginals"].items()}
        tensors = {f"energies/{name}": torch.tensor(value) for name, value in arrays.items()}
        shape = self.coordinates
        tensors |= {f"coordinates/{n}": torch.tensor(v) for n, v in shape.arrays().items()}
        header = network_header(self.denoiser) | {"kind": SHOWER_NETWORK}
        stored = {"detector": shape.detector, "threshold": shape.threshold}
        header |= {"coordinates": stored, "data_digest": self.data_digest}
        content = pack_network(header, weights_of(self.denoiser) | tensors)
        atomic_files.write_bytes(path, content)

    @classmethod
    def load(cls, path: str | Path, device: str = "cpu") -> Self:
        """Read a file. Raises FormatError if it is truncated, foreign, or of another format."""
        header, tensors = read_network(path, SHOWER_NETWORK)
        parts = {name: _taken(tensors, f"{name}/") for name in ("energies", "coordinates")}
        denoiser = rebuilt(header, tensors, str(path))
        with reading(str(path)):
            coordinates = VoxelCoordinates.restore(
                **header["coordinates"], arrays=parts["coordinates"]
            )
            arrays = parts["energies"]
            marginals = _taken(arrays, "marginals/")
            state = {**arrays, "marginals": marginals}
            energies = LayerEnergies.restore(state, coordinates.threshold)
            n = len(coordinates.geometry.layers)
            conditioned = header["backbone"].get("n_conditions", 0)
            if (len(energies.order), conditioned) != (n, 1 + n):
                raise FormatError("its network is not one of the layers of its geometry")
        return cls(energies, coordinates, denoiser.to(device).eval(), header["data_digest"])


def _taken(arrays: dict[str, Any], prefix: str) -> dict[str, Any]:
    """Take arrays with a prefix out of others; return them without it."""
    names = [name for name in arrays if name.startswith(prefix)]
    return {name.removeprefix(prefix): np.asarray(arrays.pop(name)) for name in names}


def shower_backbone(shape: Geometry, spec: Mapping[str, Any]) -> Backbone:
    """Return an untrained network of voxels, by default `BACKBONE`; ``spec`` changes settings.

    Raises ConfigError for a network that does not know voxels.
    """
    name = spec.get("name", "cylinder_unet")
    given: dict[str, Any] = {"name": name, "n_conditions": 1 + len(shape.layers)}
    if name == "cylinder_unet":
        regular = [len(shape.layers), shape.layers[0].n_alpha, shape.layers[0].n_r]
        given |= {**BACKBONE, "geometry": shape.name if shape.dataset == 1 else regular}
    else:
        given |= {"n_columns": shape.n_voxels}
    return build_backbone({**given, **spec})


def shower_trainer(
    train: Showers, backbone: Mapping[str, Any], objective: Any, config: TrainingConfig
) -> Trainer:
    """Return a training that has not begun, its first weights from the seed of ``config``."""
    torch.manual_seed(config.seed)
    return Trainer(shower_backbone(train.geometry, backbone), objective, config)


def training_coordinates(train: Showers, seed: int) -> VoxelCoordinates:
    """Return the coordinates that a training with a seed learns from showers."""
    return VoxelCoordinates.of(train, stream(seed, "shower-coordinates"))


def training_inputs(
    train: Showers, seed: int, turns: int
) -> tuple[VoxelCoordinates, np.ndarray, np.ndarray]:
    """Return coordinates learned from showers above the threshold, and theirs with conditions.

    Arrays (turns n, voxels) and (turns n, 1 + layers): ``turns`` copies of each of n showers,
    turned and mirrored about the axis at random.
    """
    coordinates = training_coordinates(train, seed)
    streams = [stream(seed, "shower-turns", i) for i in range(turns)]
    copies = [_inputs(coordinates, turned(train, rng), rng) for rng in streams]
    x, cond = (np.concatenate(parts) for parts in zip(*copies, strict=True))
    return coordinates, x, cond


def _inputs(
    coordinates: VoxelCoordinates, showers: Showers, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    layers = showers.geometry.layer_energies(showers.voxels)
    return coordinates.forward(showers, rng), conditions(showers.energies, layers)


def train_shower_network(
    train: Showers,
    trainer: Trainer,
    *,
    flow: Mapping[str, Any] | None = None,
    weights: str | float = "ema",
    turns: int = 1,
    valid: Showers | None = None,
    folder: str | Path | None = None,
    checkpoint_every: int | None = None,
    stop_at: int | None = None,
) -> ShowerNetwork:
    """Train, or go on with a training, and return the network with trees for the layer energies.

    Raises InputError if there are too few showers, or a training goes on with others.

    Parameters
    ----------
    train : showers, of which voxels below the official threshold count as empty
    trainer : of `shower_trainer`, or one to resume
    flow : settings of `FlowBDT` for the layer energies
    weights : averaged how, see `Trainer.network`
    turns : copies of each shower, turned and mirrored about the axis at random
    valid, folder, checkpoint_every, stop_at : see `Trainer.fit`; ``valid`` are other showers
    """
    train, seed = train.above(), trainer.config.seed
    coordinates, x, cond = training_inputs(train, seed, turns)
    checked = None
    if valid is not None:
        checked = _inputs(coordinates, valid.above(), stream(seed, "shower-valid"))
    given: Any = {"folder": folder, "checkpoint_every": checkpoint_every, "stop_at": stop_at}
    trainer.fit(x, cond, valid=checked, **given)
    layers = train.geometry.layer_energies(train.voxels)
    energies = LayerEnergies(flow or {})
    energies.fit(train.energies, layers, coordinates.threshold, seed)
    return ShowerNetwork(energies, coordinates, trainer.network(weights), str(trainer.data_digest))
