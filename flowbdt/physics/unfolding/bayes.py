"""Iterative Bayesian unfolding in bins as a reference, and the bottom-line test."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from ...errors import ConfigError
from .acceptance import first_scale
from .inputs import UnfoldingInputs
from .uncertainties import UnfoldingErrors
from .unfolded import checked_edges, folded, spectrum, truth_table


def iterate_bayes(
    response: np.ndarray,
    data: np.ndarray,
    n_iterations: int,
    efficiency: np.ndarray | None = None,
    prior: np.ndarray | None = None,
) -> np.ndarray:
    """Return the truth histogram (t,) after some iterations of Bayes' theorem in bins.

    Parameters
    ----------
    response : ndarray (r, t), simulated events by bin at detector and at truth level
    data : ndarray (r,), events of the data by bin at detector level, without fakes and background
    efficiency : ndarray (t,), share of a truth bin that is seen; 1 by default
    prior : ndarray (t,), simulated truth; by default what is seen over its efficiency

    References
    ----------
    G. D'Agostini, "A multidimensional unfolding method based on Bayes' theorem", Nucl. Instrum.
    Meth. A 362 (1995) 487, eqs. 3 and 4.
    """
    seen = response.sum(axis=0)
    eff = np.ones_like(seen) if efficiency is None else efficiency
    likelihood = np.divide(response * eff, seen, out=np.zeros_like(response), where=seen > 0)
    truth = np.divide(seen, eff, out=np.zeros_like(seen), where=eff > 0) if prior is None else prior
    truth = truth * (data.sum() / (eff @ truth))
    for _ in range(n_iterations):
        expected = likelihood @ truth
        ratio = np.divide(data, expected, out=np.zeros_like(expected), where=expected > 0)
        pulled = truth * (likelihood.T @ ratio)
        truth = np.divide(pulled, eff, out=np.zeros_like(pulled), where=eff > 0)
    return truth


class Counts(NamedTuple):
    """Events in bins: r of detector level, t of truth, the first and last of what lies beyond."""

    data: np.ndarray
    """(r,)"""
    joint: np.ndarray
    """(r, t), simulated events that pass both levels"""
    truth: np.ndarray
    """(t,), simulated events that pass truth level"""
    fakes: np.ndarray
    """(r,)"""
    background: np.ndarray
    """(r,)"""

    @classmethod
    def of(
        cls, inputs: UnfoldingInputs, truth: str, truth_edges: Any, reco: str, reco_edges: Any
    ) -> Counts:
        """Count events of one column at each level."""
        x, y, w = inputs.truth.column(truth), inputs.reco.column(reco), inputs.weight
        true, seen = (
            np.concatenate([[-np.inf], checked_edges(edges), [np.inf]])
            for edges in (truth_edges, reco_edges)
        )
        both, passes, fakes = inputs.both, inputs.pass_truth, inputs.fakes
        other, nothing = inputs.background, np.zeros(len(seen) - 1)
        return cls(
            spectrum(inputs.data.column(reco), inputs.data_weight, seen),
            np.histogram2d(y[both], x[both], (seen, true), weights=w[both])[0],
            spectrum(x[passes], w[passes], true),
            spectrum(y[fakes], w[fakes], seen),
            nothing if other is None else spectrum(other.column(reco), other.weight, seen),
        )

    def unfolded(self, n_iterations: int) -> np.ndarray:
        """Return the truth histogram (t,) by `iterate_bayes`; fakes keep their share."""
        data, total, seen = self.data - self.background, self.truth, self.joint.sum(axis=0)
        efficiency = np.divide(seen, total, out=np.zeros_like(total), where=total > 0)
        data = data - data.sum() / (seen.sum() + self.fakes.sum()) * self.fakes
        return iterate_bayes(self.joint, np.maximum(data, 0.0), n_iterations, efficiency, total)


def bayes_spectrum(
    inputs: UnfoldingInputs,
    truth: str,
    truth_edges: Any,
    reco: str,
    reco_edges: Any,
    n_iterations: int = 4,
) -> np.ndarray:
    """Return one unfolded column in bins (t,), by itself; fakes keep their share.

    Events beyond the edges have bins of their own at both levels.
    """
    counts = Counts.of(inputs, truth, truth_edges, reco, reco_edges)
    return counts.unfolded(n_iterations)[1:-1]


class BottomLine(NamedTuple):
    """chi2 of a model at both levels, and the numbers of bins; see `bottom_line`."""

    detector: float
    detector_bins: int
    truth: float
    truth_bins: int


def bottom_line(
    errors: UnfoldingErrors,
    truth: str,
    truth_edges: Any,
    reco: str,
    reco_edges: Any,
    model: np.ndarray | None = None,
) -> BottomLine:
    """Hold a model against the data at detector level, and against the result at truth level.

    Unfolding adds no information: a chi2 at truth level well above that at detector level says that
    the errors after unfolding are too small or that the result is biased.

    Parameters
    ----------
    model : weights (n,) of the simulated events, by default the simulation's own; scaled to the
        data

    Raises
    ------
    ConfigError
        If there are not at least three more replicas of the data than bins: their covariance has
        no inverse then. The inverse is corrected for the number of replicas (J. Hartlap et al.,
        astro-ph/0608064).
    """
    result, inputs = errors.result, errors.result.inputs
    n_replicas, bins = len(errors.weights.get("data", ())), len(checked_edges(truth_edges)) - 1
    if n_replicas < bins + 3:
        raise ConfigError(
            f"the covariance of {bins} bins needs at least {bins + 3} replicas of the data, got"
            f" {n_replicas}: unfold with more replicas, or use wider bins"
        )
    weight = inputs.weight if model is None else model
    weight = weight * first_scale(replace(inputs, weight=weight), "share")
    back, edges = folded(inputs, weight), checked_edges(reco_edges)
    data = inputs.data.column(reco)
    count = spectrum(data, inputs.data_weight, edges)
    variance = spectrum(data, inputs.data_weight**2, edges)
    expected = spectrum(back.column(reco), back.weight, edges)
    detector = np.sum((count - expected) ** 2 / np.maximum(variance, 1e-300))
    table = truth_table(inputs, weight)
    shift = result.histogram(truth, truth_edges) - spectrum(
        table.column(truth), table.weight, truth_edges
    )
    covariance = errors.covariance(truth, truth_edges, ["data"])
    hartlap = (n_replicas - bins - 2) / (n_replicas - 1)
    found = hartlap * shift @ np.linalg.solve(covariance, shift)
    return BottomLine(float(detector), len(edges) - 1, float(found), bins)
