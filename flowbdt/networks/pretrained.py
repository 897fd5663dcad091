"""A network for a table in one file: its latent space with it, and one that comes along."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from .. import atomic_files, seeding
from ..flow.schedules import SCHEDULES, boundaries_of
from ..flow.solvers import SOLVERS, integrate
from ..seeding import RowNoise
from ..tables.event_table import EventTable
from ..tables.transforms import TableTransform
from .denoiser import Denoiser
from .network_field import NetworkField
from .network_files import network_header, pack, read, restored, weights_of

KIND = "table network"


@dataclass(frozen=True, eq=False)
class TableNetwork:
    """A trained network and the transform of its events.

    Parameters
    ----------
    denoiser : Denoiser, in the latent space of ``transform``
    transform : TableTransform, fitted
    names : columns, in their order
    units : theirs, "" for none
    """

    denoiser: Denoiser
    transform: TableTransform
    names: tuple[str, ...]
    units: tuple[str, ...]

    def sample(self, n: int, steps: int = 20, random_state: Any = None) -> EventTable:
        """Return n events, by UniPC with as many evaluations of the network as steps.

        Noise is keyed by row: equal seeds begin with the same events, however many are asked for.
        """
        seed, tables = seeding.resolve(random_state), []
        grid = boundaries_of(SCHEDULES.build({"name": "warped"}), steps)
        field, solver = NetworkField(self.denoiser), SOLVERS.build("unipc")
        units = dict(zip(self.names, self.units, strict=True))
        for _, low, high in seeding.block_ranges(n):
            rows = RowNoise(seed, "sample", np.arange(low, high), once=True)
            x0 = rows.standard_normal((high - low, self.transform.n_latent))
            x = self.transform.inverse(integrate(solver, field, x0, grid).x)
            tables.append(EventTable.of(x, list(self.names), units=units))
        return EventTable.concatenate(tables)

    def save(self, path: str | Path) -> None:
        """Write network and transform, whole or not at all; `load` reads them."""
        header = {**network_header(self.denoiser), "kind": KIND}
        header |= {"transform": self.transform.to_json()}
        header |= {"names": list(self.names), "units": list(self.units)}
        atomic_files.write_bytes(path, pack(header, weights_of(self.denoiser)))

    @classmethod
    def load(cls, path: str | Path) -> TableNetwork:
        """Read a file. Raises FormatError if it is truncated, foreign, or of another format."""
        header, tensors = read(path, KIND)
        denoiser = restored(header, tensors, str(path))
        transform = TableTransform.from_json(header["transform"])
        return cls(denoiser.eval(), transform, *(tuple(header[k]) for k in ("names", "units")))


def pretrained_network() -> TableNetwork:
    """Return the network that comes with the package: 12 observables of top jets.

    It learned from the training part of `flowbdt.physics.bundled`.
    """
    with resources.as_file(
        resources.files("flowbdt.physics.data") / "top_jets_network.npz"
    ) as path:
        return TableNetwork.load(path)
