"""Layer energies at any incident energy: quantiles that depend on it, and a small flow.

The distribution of a column narrows and moves with the incident energy, by orders of magnitude.
`EnergyMarginals` makes it standard normal at every energy; the flow then learns how the columns
depend on each other.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from .... import seeding
from ....atomic_files import parse_json, stored_array
from ....errors import FormatError
from ....model import FlowBDT
from ....training import run_directory
from ....trees.share_distribution import flow_parameters
from .energy_division import left_energy, share

FLOW: dict[str, Any] = {
    "preset": "balanced",
    "transforms": {"*": "identity", "joint": "standardise"},
}
"""Settings of the flow: its columns are standard normal already, at every energy."""

INNER = np.linspace(-2.6, 2.6, 41)
"""Standard normal numbers whose quantiles are those of the training values."""

REACH = 4.0
"""Beyond these levels quantiles continue in straight lines, up to this many deviations."""

LEVELS = np.concatenate([[-REACH], INNER, [REACH]])
MOST_NODES = 20
FEWEST = 10

BLOCK = 4096
"""Showers whose curves are in memory together."""


class LayerEnergies:
    """Distribution of the layer energies, and so of the shower's, at any incident energy.

    The columns are the logarithm of total over incident energy, and layer by layer, those of least
    energy first, the share of the remaining energy. ``flow`` has settings of `FlowBDT` beside
    `FLOW`.
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
            shares = share(layers[:, position], np.where(left > 0, left, 1.0), self.threshold)
            shares = np.where(left > 0, shares, 0.0)
            columns.append(_log(shares) - _log(1 - shares))
            left = np.where(shares >= 1, 0.0, left - layers[:, position])
        return np.column_stack(columns)

    def sample(self, energies: np.ndarray, seed: int) -> np.ndarray:
        """Return layer energies (n, layers), MeV, at incident energies (n,), MeV."""
        noise = seeding.RowNoise(seed, "shower-total", np.arange(len(energies)), once=True)
        total_z = noise.standard_normal((len(energies),))
        # one normal number in a thousand is beyond the training: not looked at
        cond = _conditions(energies, total_z)
        rest = self.model.sample(cond=cond, outside=None, random_state=seed)
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
            layers[:, position] = left_energy(expit(values[:, column]), left, self.threshold)
            left = left - layers[:, position]
        layers[:, self.order[-1]] = left
        return layers

    @property
    def n_parameters(self) -> int:
        """Learned numbers: quantiles, closed form, trees, rejection classifier."""
        archive = run_directory.Archive("layer energies", self.model.archive_)
        manifest = parse_json(archive.read("manifest.json"), "manifest.json")
        rejection = [n for n in manifest["files"] if n == run_directory.REJECTION]
        trees = sum(flow_parameters(archive.read(n)) for n in [*manifest["models"], *rejection])
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
        restored.order = stored_array(state, "order", (None,), "i", 0)
        n = len(restored.order)
        restored.marginals = EnergyMarginals.from_arrays(state["marginals"], n)
        flow = stored_array(state, "flow", (None,), "u")
        if sorted(restored.order) != list(range(n)) or len(state) != 3:
            raise FormatError("the order of the layer energies is damaged")
        with tempfile.TemporaryDirectory(prefix="flowbdt-") as folder:
            path = Path(folder) / "flow"
            path.write_bytes(flow.tobytes())
            restored.model = FlowBDT.load(path)
        trained = restored.model.flow()
        if (trained.n_columns, len(trained.condition_names)) != (n - 1, 2) or trained.from_source:
            raise FormatError("the flow of the layer energies is that of another table")
        return restored


def _conditions(energies: np.ndarray, total_z: np.ndarray) -> np.ndarray:
    return np.column_stack([np.log(energies), total_z])


def _log(x: np.ndarray) -> np.ndarray:
    """Return the logarithm, minus infinity of 0."""
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(x))


class EnergyMarginals:
    """Distribution of each column at any incident energy, as a map to standard normal numbers.

    A value of minus or plus infinity is an end, with a probability that depends on the energy.
    Between the energies of the training, medians, logarithms of the width and quantiles in units
    of the width are interpolated in the logarithm of the energy.
    """

    def fit(self, energies: np.ndarray, values: np.ndarray) -> Self:
        """Learn from incident energies (n,) and values (n, m), infinite at the ends."""
        self._nodes, groups = _nodes(np.log(energies))
        shape = (len(self._nodes), values.shape[1])
        self._ends = np.zeros((*shape, 2))
        self._quantiles = np.zeros((*shape, 2 + len(LEVELS)))
        for column in range(values.shape[1]):
            everywhere = values[np.isfinite(values[:, column]), column]
            for node, rows in enumerate(groups):
                near = values[rows, column]
                low, high = (near == -np.inf), (near == np.inf)
                self._ends[node, column] = low.mean(), high.mean()
                inner = near[~low & ~high]
                if len(inner) < FEWEST:
                    inner = everywhere
                self._quantiles[node, column] = _described(inner)
        return self

    def forward(
        self, energies: np.ndarray, values: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """Return standard normal numbers (n, m); ends are spread over their interval by ``rng``."""
        from scipy.special import ndtr

        chance = rng.random(values.shape)
        result = np.empty(values.shape)
        for column in range(values.shape[1]):
            ends, curve = self._at(energies, column)
            x = values[:, column]
            inner = np.isfinite(x)
            z = np.zeros(len(x))
            z[inner] = _placed(curve[inner], x[inner])
            low, high = ends.T
            rank = low + (1 - low - high) * ndtr(z)
            rank = np.where(x == -np.inf, low * chance[:, column], rank)
            rank = np.where(x == np.inf, 1 - high * chance[:, column], rank)
            result[:, column] = _normal(rank)
        return result

    def inverse(self, energies: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Return values (n, m) from standard normal numbers."""
        rows = [slice(first, first + BLOCK) for first in range(0, len(z), BLOCK)]
        blocks = [self._inverse(energies[block], z[block]) for block in rows]
        return np.concatenate(blocks) if blocks else np.empty(z.shape)

    def _inverse(self, energies: np.ndarray, z: np.ndarray) -> np.ndarray:
        from scipy.special import ndtr

        ends, curve = self._at(energies)
        low, high = ends[..., 0], ends[..., 1]
        rank = ndtr(z)
        inner = (rank - low) / np.maximum(1 - low - high, 1e-12)
        x = _read(curve, _normal(inner))
        x[rank < low] = -np.inf
        x[(high > 0) & (rank >= 1 - high)] = np.inf
        return x

    def _at(
        self, energies: np.ndarray, columns: int | slice = slice(None)
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return probabilities of the ends (n, m, 2) and quantiles (n, m, levels), m columns."""
        at = np.interp(np.log(energies), self._nodes, np.arange(len(self._nodes)))
        low = np.minimum(at.astype(np.int64), max(len(self._nodes) - 2, 0))
        high = np.minimum(low + 1, len(self._nodes) - 1)
        learned = self._ends[:, columns], self._quantiles[:, columns]
        weight = (at - low).reshape(-1, *[1] * (learned[0].ndim - 1))
        ends, curve = ((1 - weight) * table[low] + weight * table[high] for table in learned)
        return ends, curve[..., :1] + np.exp(curve[..., 1:2]) * curve[..., 2:]

    @property
    def energy_range(self) -> tuple[float, float]:
        """Lowest and highest energy of a node; the distribution is constant beyond them."""
        return float(np.exp(self._nodes[0])), float(np.exp(self._nodes[-1]))

    @property
    def n_parameters(self) -> int:
        """Number of learned numbers."""
        return int(self._nodes.size + self._ends.size + self._quantiles.size)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return what was learned by name."""
        return {"nodes": self._nodes, "ends": self._ends, "quantiles": self._quantiles}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], m: int) -> Self:
        """Restore what `to_arrays` returned for m columns. Raises FormatError."""
        restored = cls()
        nodes = restored._nodes = stored_array(arrays, "nodes", (None,), low=-600, high=600)
        shape = (len(nodes), m)
        restored._ends = stored_array(arrays, "ends", (*shape, 2), low=0, high=1)
        restored._quantiles = stored_array(arrays, "quantiles", (*shape, 2 + len(LEVELS)))
        widths, whole = restored._quantiles[..., 1], restored._ends.sum(axis=-1) <= 1 + 1e-9
        good = len(nodes) and (np.diff(nodes) > 0).all() and (np.abs(widths) < 300).all()
        if not good or not whole.all() or len(arrays) != 3:
            raise FormatError("the quantiles of the layer energies are damaged")
        return restored


def _nodes(log: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return log energies, rising, and the rows from which each node learns."""
    different = np.unique(log)
    if len(different) <= 2 * MOST_NODES:
        return different, [np.flatnonzero(log == value) for value in different]
    order = np.argsort(log, kind="stable")
    groups = np.array_split(order, min(MOST_NODES, max(len(log) // 50, 1)))
    nodes = np.array([log[rows].mean() for rows in groups])
    nodes[0], nodes[-1] = log.min(), log.max()  # all training energies are within the range
    return nodes, groups


def _described(values: np.ndarray) -> np.ndarray:
    """Return median, log width, and quantiles in units of the width beyond the median."""
    from scipy.special import ndtr

    if not len(values):
        return np.zeros(2 + len(LEVELS))
    ranks = (np.arange(len(values)) + 0.5) / len(values)
    quantiles = np.interp(ndtr(INNER), ranks, np.sort(values))
    middle = quantiles[len(INNER) // 2]
    width = max(quantiles[-9] - quantiles[8], 1e-9 * max(abs(middle), 1.0))
    beyond = (REACH - INNER[-1]) / (INNER[3] - INNER[0])
    low = quantiles[0] - beyond * (quantiles[3] - quantiles[0])
    high = quantiles[-1] + beyond * (quantiles[-1] - quantiles[-4])
    curve = np.concatenate([[low], quantiles, [high]])
    return np.concatenate([[middle, np.log(width)], (curve - middle) / width])


def _read(curve: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Return the quantile at z (...) of each curve (..., levels), z within the levels."""
    low = np.minimum(np.searchsorted(LEVELS, z, side="right") - 1, len(LEVELS) - 2)
    below = np.take_along_axis(curve, low[..., None], axis=-1)[..., 0]
    above = np.take_along_axis(curve, low[..., None] + 1, axis=-1)[..., 0]
    weight = (z - LEVELS[low]) / (LEVELS[low + 1] - LEVELS[low])
    return np.asarray((1 - weight) * below + weight * above)


def _placed(curve: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return z at which each row's quantile is x: the inverse of `_read`."""
    low = np.clip((curve <= x[:, None]).sum(axis=1) - 1, 0, len(LEVELS) - 2)
    rows = np.arange(len(x))
    below, above = curve[rows, low], curve[rows, low + 1]
    weight = np.clip((x - below) / np.maximum(above - below, 1e-300), 0, 1)
    return np.asarray((1 - weight) * LEVELS[low] + weight * LEVELS[low + 1])


def _normal(rank: np.ndarray) -> np.ndarray:
    from scipy.special import ndtri

    within = np.minimum(np.maximum(rank, 1e-12), 1 - 1e-12)
    return np.minimum(np.maximum(ndtri(within), -REACH), REACH)
