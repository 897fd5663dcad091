"""Calibration of posteriors: ranks of the truth among draws, and coverage of intervals."""

from __future__ import annotations

import math

import numpy as np

from ...errors import InputError
from ...seeding import stream
from .base import Result


def posterior_ranks(truth: np.ndarray, draws: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return the rank of the truth among draws of its posterior, as a share between 0 and 1.

    If truth and draws come from the same distribution, event by event, the shares are uniform.
    The truth takes a random place among draws equal to it and within the step between two draws,
    so that they are uniform for integers and atoms, and for few draws, too.

    Parameters
    ----------
    truth : ndarray (n,), any unit
    draws : ndarray (n, k), draws for each event, in the same unit

    Raises
    ------
    InputError
        If the shapes do not fit or a value is not finite.

    References
    ----------
    S. Talts et al., "Validating Bayesian Inference Algorithms with Simulation-Based Calibration",
    arXiv 1804.06788, theorem 1; the random places are ours.
    """
    truth, draws = np.asarray(truth, dtype=float), np.asarray(draws, dtype=float)
    if truth.ndim != 1 or draws.ndim != 2 or len(draws) != len(truth) or not draws.size:
        raise InputError(
            f"truth must have shape (n,) and draws (n, k), got {truth.shape} and {draws.shape}"
        )
    if not (np.isfinite(truth).all() and np.isfinite(draws).all()):
        raise InputError("truth and draws must be finite")
    below = (draws < truth[:, None]).sum(axis=1)
    equal = (draws == truth[:, None]).sum(axis=1)
    place = stream(seed, "posterior-ranks").random(len(truth)) * (equal + 1)
    return (below + place) / (draws.shape[1] + 1)


def coverage(truth: np.ndarray, draws: np.ndarray, *, level: float = 0.68, seed: int = 0) -> Result:
    """Return the share of events whose truth is inside the central interval of its posterior.

    ``truth`` and ``draws`` as in `posterior_ranks`; ``level``, between 0 and 1, is the share that
    is claimed and the floor of the result.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> result = coverage(rng.normal(size=4000), rng.normal(size=(4000, 30)))
    >>> abs(result.value - 0.68) < 5 * result.error
    True
    """
    if not 0.0 < level < 1.0:
        raise InputError(f"level must be between 0 and 1, got {level}")
    ranks = posterior_ranks(truth, draws, seed)
    value = float(np.mean(np.abs(ranks - 0.5) < level / 2))
    n = len(ranks)
    # never certain: at least as uncertain as with one event on the other side
    error = math.sqrt(max(value * (1.0 - value), 1.0 / n) / n)
    settings = {"level": level, "draws": int(np.shape(draws)[1]), "seed": seed}
    return Result("coverage", value, error, n, floor=level, floor_error=0.0, settings=settings)
