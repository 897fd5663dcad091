"""An unfolded result: events with weights, their histograms, the response, and the way back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import InputError
from ...evaluation.metrics import quantile_edges
from ...tables import checks
from ...tables.event_table import EventTable
from .inputs import UnfoldingInputs
from .method import Settings

if TYPE_CHECKING:
    from hist import Hist

N_BINS = 20
"""Of a comparison at detector level, of equal contents in the simulation."""

Edges = Mapping[str, Sequence[float]]


@dataclass(frozen=True, eq=False)
class Unfolded:
    """Unfolded events.

    Parameters
    ----------
    settings : Settings, with the name of the method
    table : EventTable at truth level with weights that add up to the events of the data, within
        the truth level's selection; one row may stand for any number of events
    simulation_weight : ndarray (n,), what the simulated events are worth after unfolding, fakes
        included: for the response and the way back to detector level
    inputs : UnfoldingInputs
    record : plain values: iterations, trees, shares
    state : arrays that the method would need again, for replicas
    """

    settings: Settings
    table: EventTable
    simulation_weight: np.ndarray
    inputs: UnfoldingInputs
    record: dict[str, Any] = field(default_factory=dict)
    state: Mapping[str, np.ndarray] = field(default_factory=dict)

    def histogram(self, column: str, edges: Any) -> np.ndarray:
        """Return the unfolded events in bins of a column, (b,).

        Edges (b + 1,) increase. Raises InputError if they do not, or the column is unknown.
        """
        return spectrum(self.table.column(column), self.table.weight, edges)

    def to_hist(
        self, columns: Sequence[str] | None = None, edges: Edges | None = None
    ) -> dict[str, Hist]:
        """Return histograms "unfolded" and "simulation" of `hist` by column, see `to_hist`.

        The simulation has as many events. Variances are those of the weights alone: take errors
        from `flowbdt.physics.unfolding.unfolding_errors`.
        """
        from ...evaluation.hist_objects import to_hist

        before = truth_table(self.inputs, self.inputs.weight)
        assert before.weight is not None
        assert self.table.weight is not None
        weight = before.weight * (self.table.weight.sum() / before.weight.sum())
        samples = {"unfolded": self.table, "simulation": replace(before, weight=weight)}
        return to_hist(samples, columns, edges)

    def response(
        self, truth: str, truth_edges: Any, reco: str, reco_edges: Any
    ) -> dict[str, np.ndarray]:
        """Return the response in bins, with the unfolded weights within each bin.

        Returns
        -------
        dict with "response" (r, t): probability of a truth event of bin t to be seen in bin r;
        "efficiency" (t,): to be seen at all; "fakes" (r,): events expected at detector level that
        pass no truth level. Events beyond the edges are seen, but in no bin.
        """
        inputs, w = self.inputs, self.simulation_weight
        both, passes, is_fake = inputs.both, inputs.pass_truth, inputs.fakes
        x, y = inputs.truth.column(truth), inputs.reco.column(reco)
        true, seen = checked_edges(truth_edges), checked_edges(reco_edges)
        joint = np.histogram2d(y[both], x[both], (seen, true), weights=w[both])[0]
        total = np.histogram(x[passes], true, weights=w[passes])[0]
        selected = np.histogram(x[both], true, weights=w[both])[0]
        safe = np.where(total > 0, total, 1.0)
        return {
            "response": joint / safe,
            "efficiency": selected / safe,
            "fakes": np.histogram(y[is_fake], seen, weights=w[is_fake])[0],
        }

    def folded_back(self) -> EventTable:
        """Return what the result makes expect at detector level, fakes and background included.

        Simulated events with unfolded weights: compare it with the data.
        """
        return folded(self.inputs, self.simulation_weight)

    def closure(self) -> dict[str, float]:
        """Return chi2 per bin of data against `folded_back`, by column, in 20 bins.

        1 is expected of the simulation's own size; much less says that noise was followed.
        """
        return folded_chi2(self.inputs, self.simulation_weight)


def truth_table(inputs: UnfoldingInputs, weight: np.ndarray) -> EventTable:
    """Return simulated events that pass truth level, with their weights of (n,)."""
    passes = inputs.pass_truth
    return replace(inputs.truth.take(passes), weight=weight[passes])


def folded(inputs: UnfoldingInputs, weight: np.ndarray) -> EventTable:
    """Return simulated events at detector level with weights of (n,), and background."""
    seen = replace(inputs.reco.take(inputs.pass_reco), weight=weight[inputs.pass_reco])
    if inputs.background is None:
        return seen
    return replace(
        seen,
        x=np.concatenate([seen.x, inputs.background.x]),
        weight=np.concatenate([weight[inputs.pass_reco], inputs.background_weight]),
    )


def folded_chi2(
    inputs: UnfoldingInputs, weight: np.ndarray, data_weight: np.ndarray | None = None
) -> dict[str, float]:
    """Return chi2 per bin of data against simulated events with weights (n,), by column."""
    expected, found = folded(inputs, weight), {}
    assert expected.weight is not None
    data_weight = inputs.data_weight if data_weight is None else data_weight
    for i, name in enumerate(inputs.reco.names):
        edges = quantile_edges(inputs.data.x[:, i], N_BINS)
        mean, own = _counts(expected.x[:, i], expected.weight, edges)
        count, variance = _counts(inputs.data.x[:, i], data_weight, edges)
        error = np.where(variance > 0, variance + own, np.inf)
        found[name] = float(np.mean((count - mean) ** 2 / error))
    return found


def _counts(x: np.ndarray, weight: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    at = np.searchsorted(edges[1:-1], x, side="right")  # what is beyond is in the outermost bins
    n = len(edges) - 1
    return np.bincount(at, weight, n), np.bincount(at, weight**2, n)


def checked_edges(edges: Any) -> np.ndarray:
    """Return edges (b + 1,) that increase. Raises InputError if they do not."""
    found = np.asarray(edges, dtype=np.float64)
    if found.ndim != 1 or len(found) < 2 or not (np.diff(found) > 0).all():
        raise InputError(f"edges must be increasing numbers, at least two, got {edges}")
    return found


def spectrum(x: np.ndarray, weight: np.ndarray | None, edges: Any) -> np.ndarray:
    """Return events (n,) with weights in bins, (b,)."""
    return np.histogram(x, checked_edges(edges), weights=weight)[0]


def check_columns(edges: Edges, table: EventTable) -> None:
    """Refuse bins of columns that are not at truth level, and edges that do not increase."""
    checks.known_columns(list(edges), table.names, "truth")
    for values in edges.values():
        checked_edges(values)
