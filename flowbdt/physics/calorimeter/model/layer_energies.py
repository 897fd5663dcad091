"""Layer energies given the incident energy: a small flow, continuous in the energy."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from .... import seeding
from ....model import FlowBDT
from ....training import run_directory
from ....trees.share_distribution import flow_parameters
from .energy_division import left_energy, share
from .energy_marginals import EnergyMarginals

FLOW: dict[str, Any] = {
    "preset": "balanced",
    "transforms": {"*": "identity", "joint": "standardise"},
}
"""Settings of the flow: its columns are standard normal already, at every energy."""


class LayerEnergies:
    """Energy of every layer, and so of the shower, given the incident energy.

    The columns are the logarithm of total over incident energy, and layer by layer, those of least
    energy first, the share of what is left. Each becomes a standard normal number at every energy
    (`EnergyMarginals`); the flow learns how they depend on each other.

    Parameters
    ----------
    flow : settings of `FlowBDT` that differ from `FLOW`
    """

    def __init__(self, flow: Mapping[str, Any]) -> None:
        self.flow = {**FLOW, **flow}

    def fit(self, energies: np.ndarray, layers: np.ndarray, threshold: float, seed: int) -> Self:
        """Learn from incident energies (n,) and layer energies (n, layers), MeV."""
        self.threshold = threshold
        self.order = np.argsort(layers.mean(axis=0), kind="stable")
        values = self._values(energies, layers)
        self.marginals = EnergyMarginals().fit(energies, values)
        z = self.marginals.forward(energies, values, seeding.stream(seed, "shower-ends"))
        self.model = FlowBDT(**{**self.flow, "random_state": seeding.derive(seed, "shower-flow")})
        self.model.fit(z[:, 1:], cond=_conditions(energies, z[:, 0]))
        return self

    def _values(self, energies: np.ndarray, layers: np.ndarray) -> np.ndarray:
        """Return the columns (n, layers), infinite where a share is 0 or 1 or nothing is left."""
        total = layers.sum(axis=1)
        columns = [_log(total / energies)]
        left = total.copy()
        for position in self.order[:-1]:
            parts = share(layers[:, position], np.where(left > 0, left, 1.0), self.threshold)
            parts = np.where(left > 0, parts, 0.0)
            columns.append(_log(parts) - _log(1 - parts))
            left = np.where(parts >= 1, 0.0, left - layers[:, position])
        return np.column_stack(columns)

    def sample(self, energies: np.ndarray, seed: int) -> np.ndarray:
        """Return layer energies (n, layers), MeV, at incident energies (n,), MeV."""
        noise = seeding.RowNoise(seed, "shower-total", np.arange(len(energies)), once=True)
        total_z = noise.standard_normal((len(energies),))
        rest = self.model.sample(cond=_conditions(energies, total_z), random_state=seed)
        z = np.column_stack([total_z, np.asarray(rest, dtype=np.float64)])
        return self.decoded(energies, z)

    def decoded(self, energies: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Return layer energies (n, layers), MeV, from as many standard normal numbers."""
        from scipy.special import expit

        values = self.marginals.inverse(energies, z)
        total = energies * np.exp(np.minimum(values[:, 0], 20.0))
        left = np.where(total > 0, np.maximum(total, self.threshold), 0.0)
        layers = np.zeros((len(energies), len(self.order)))
        for column, position in enumerate(self.order[:-1], start=1):
            part = left_energy(expit(values[:, column]), left, self.threshold)
            layers[:, position] = part
            left = left - part
        layers[:, self.order[-1]] = left
        return layers

    @property
    def n_parameters(self) -> int:
        """Numbers that were learned: quantiles, closed form, trees, classifier of the rejection."""
        archive = run_directory.Archive("layer energies", self.model.archive_)
        manifest = run_directory.parse_json(archive.read("manifest.json"), "manifest.json")
        names = [
            *manifest["models"],
            *(n for n in manifest["files"] if n == run_directory.REJECTION),
        ]
        trees = sum(flow_parameters(archive.read(name)) for name in names)
        with np.load(io.BytesIO(archive.read("preconditioner.npz")), allow_pickle=False) as form:
            numbers = sum(form[k].size for k in form.files if k not in ("name", "format", "search"))
        return self.marginals.n_parameters + trees + numbers

    def state(self) -> dict[str, Any]:
        """Return what was learned as arrays by name."""
        with tempfile.TemporaryDirectory(prefix="flowbdt-") as folder:
            path = Path(folder) / "flow"
            self.model.save(path)
            flow = np.frombuffer(path.read_bytes(), dtype=np.uint8)
        return {"order": self.order, "flow": flow, "marginals": self.marginals.to_arrays()}

    @classmethod
    def restore(cls, state: Mapping[str, Any], threshold: float) -> Self:
        """Take back what `state` returned."""
        restored = cls({})
        restored.threshold = threshold
        restored.order = state["order"]
        restored.marginals = EnergyMarginals.from_arrays(state["marginals"])
        with tempfile.TemporaryDirectory(prefix="flowbdt-") as folder:
            path = Path(folder) / "flow"
            path.write_bytes(state["flow"].tobytes())
            restored.model = FlowBDT.load(path)
        return restored


def _conditions(energies: np.ndarray, total_z: np.ndarray) -> np.ndarray:
    return np.column_stack([np.log(energies), total_z])


def _log(x: np.ndarray) -> np.ndarray:
    """Return the logarithm, minus infinity of 0."""
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(x))
