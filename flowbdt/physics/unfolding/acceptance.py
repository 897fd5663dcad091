"""Fakes and background over signal, and efficiency, of rows that were not simulated."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...errors import ConfigError
from .inputs import UnfoldingInputs
from .method import Settings
from .odds import CrossFittedOdds, folds


def first_scale(inputs: UnfoldingInputs, fakes: str) -> float:
    """Return the factor of the simulated signal's weights that makes them add up to the data.

    Raises ConfigError if fakes that keep their rate leave no data for the signal.
    """
    selected = inputs.data_weight.sum() - inputs.background_weight.sum()
    signal, false = (inputs.weight[rows].sum() for rows in (inputs.both, inputs.fakes))
    if fakes == "share":
        return float(selected / (signal + false))
    if selected <= false:
        raise ConfigError(
            f"with fakes='rate' the simulated fakes add up to {false:g} events, and {selected:g} of"
            " the data are no background: scale the simulation's weights to the data's luminosity,"
            " or say fakes='share'"
        )
    return float((selected - false) / signal)


@dataclass(frozen=True, eq=False)
class Acceptance:
    """Densities at given rows, (m,) of detector level and (N,) of truth, in the simulation.

    Parameters
    ----------
    fakes, background : ndarray (m,), over that of the simulated signal
    efficiency : ndarray (N,)
    """

    fakes: np.ndarray
    background: np.ndarray
    efficiency: np.ndarray

    @classmethod
    def of(
        cls,
        inputs: UnfoldingInputs,
        settings: Settings,
        truth: np.ndarray,
        truth_fold: np.ndarray,
        n_threads: int,
    ) -> Acceptance:
        """Learn them by classifiers; ``truth`` (N, t) are the rows whose efficiency is asked."""
        trees, seed = settings.trees, settings.seed
        scale = first_scale(inputs, settings.fakes)
        both, passes, n = inputs.both, inputs.pass_truth, inputs.n
        fold = folds(n, trees.n_folds, seed, "folds of the simulation")
        at = inputs.data.x, folds(inputs.data.n, trees.n_folds, seed, "folds of the data")

        def ratio(
            upper: np.ndarray,
            lower: np.ndarray,
            x: np.ndarray,
            of: np.ndarray,
            rows: tuple[np.ndarray, np.ndarray],
        ) -> np.ndarray:
            """Return the ratio of densities, with their norms, at rows."""
            odds = CrossFittedOdds(x, of, trees, seed, n_threads)
            odds.fit(upper, lower)
            return np.exp(odds.predict(*rows)) * (upper.sum() / lower.sum())

        signal = scale * inputs.weight * both
        fakes = background = np.zeros(inputs.data.n)
        efficiency = np.ones(len(truth))
        seen = inputs.pass_reco
        if inputs.fakes.any():
            weight = inputs.weight * inputs.fakes * (scale if settings.fakes == "share" else 1.0)
            fakes = ratio(weight[seen], signal[seen], inputs.reco.x[seen], fold[seen], at)
        if inputs.background is not None:
            k = inputs.background.n
            x = np.concatenate([inputs.reco.x[both], inputs.background.x])
            of = np.append(fold[both], folds(k, trees.n_folds, seed, "folds of the background"))
            upper = np.append(np.zeros(both.sum()), inputs.background_weight)
            background = ratio(upper, np.append(signal[both], np.zeros(k)), x, of, at)
        if (passes & ~seen).any():
            w = inputs.weight[passes]
            missed, found = w * ~seen[passes], w * seen[passes]
            rows = truth, truth_fold
            lost = ratio(missed, found, inputs.truth.x[passes], fold[passes], rows)
            efficiency = 1 / (1 + lost)
        return cls(fakes, background, efficiency)
