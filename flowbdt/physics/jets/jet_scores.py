"""Scores of generated jets as the JetNet papers define them, with errors and floors.

Samples are arrays (n, P, 3 or 4) in JetNet's layout: etarel, phirel, ptrel, mask; energy flow
polynomials are taken of ptrel.

References
----------
R. Kansal et al., "Particle Cloud Generation with Message Passing Generative Adversarial Networks",
arXiv:2106.11535, section 5 (W1 scores, coverage, MMD); R. Kansal et al., "Evaluating generative
models in high energy physics", arXiv:2211.10295, section III (FPD, KPD).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ...errors import InputError, MissingExtra
from ...evaluation.metrics.base import Result, norm_error
from ...evaluation.metrics.joint import frechet_distance, kernel_distance, smaller_size
from ...evaluation.metrics.marginal import wasserstein
from ...registry import Registry
from ...seeding import stream
from ...tables.formulas.particles import wrapped
from .constituents import (
    FOUR_OF_FOUR,
    Constituents,
    energy_flow_polynomials,
    prime_polynomials,
)

FEATURES = ("etarel", "phirel", "ptrel")

JET_METRICS: Registry[Callable[..., Result]] = Registry("jet metric")
"""Name -> function of two samples of jets; options by keyword."""


def _w1_of_jets(
    name: str,
    observable: Callable[[Constituents], np.ndarray],
    samples: Sequence[np.ndarray],
    n_bootstrap: int,
    seed: int,
) -> Result:
    values = [observable(Constituents.of(jets)) for jets in samples]
    return replace(wasserstein(*values, raw=True, n_bootstrap=n_bootstrap, seed=seed), name=name)


@JET_METRICS.register("w1_mass")
def w1_mass(
    real: np.ndarray, generated: np.ndarray, *, n_bootstrap: int = 20, seed: int = 0
) -> Result:
    """Return W1-M: Wasserstein-1 of the jet mass over the jet's transverse momentum.

    All jets are used once, so that the floor is that of the sample sizes; jetnet's ``w1m`` draws
    jets with replacement instead, which raises floor and score alike.
    """
    return _w1_of_jets("w1_mass", Constituents.mass, (real, generated), n_bootstrap, seed)


@JET_METRICS.register("w1_pt")
def w1_pt(
    real: np.ndarray, generated: np.ndarray, *, n_bootstrap: int = 20, seed: int = 0
) -> Result:
    """Return Wasserstein-1 of the transverse momentum of all particles together."""
    pt = Constituents.transverse_momentum
    return _w1_of_jets("w1_pt", pt, (real, generated), n_bootstrap, seed)


@JET_METRICS.register("w1_particles")
def w1_particles(
    real: np.ndarray, generated: np.ndarray, *, n_bootstrap: int = 20, seed: int = 0
) -> Result:
    """Return W1-P: the mean over etarel, phirel and ptrel of all particles of all jets.

    ``settings["features"]`` has each with its error. Errors come from resampling whole jets:
    the particles of a jet are no independent events.
    """
    samples = [Constituents.of(jets) for jets in (real, generated)]
    columns = [[one.eta[one.mask], one.phi[one.mask], one.pt[one.mask]] for one in samples]
    rows = [np.nonzero(one.mask)[0] for one in samples]
    features = [
        _by_jets((columns[0][i], columns[1][i]), (rows[0], rows[1]), n_bootstrap, seed)
        for i in range(3)
    ]
    value = float(np.mean([pair[0] for pair in features]))
    error = float(np.mean([pair[1] for pair in features]))  # one set of jets: fully correlated
    settings = {"features": dict(zip(FEATURES, features, strict=True)), "seed": seed}
    settings["n_bootstrap"] = n_bootstrap
    return Result("w1_particles", value, error, smaller_size(real, generated), settings=settings)


@JET_METRICS.register("w1_efp")
def w1_efp(
    real: np.ndarray, generated: np.ndarray, *, n_bootstrap: int = 20, seed: int = 0
) -> Result:
    """Return W1-EFP: the mean over the five connected polynomials of 4 vertices and 4 edges."""
    values = [prime_polynomials(Constituents.of(jets)) for jets in (real, generated)]
    results = [
        wasserstein(values[0][g], values[1][g], raw=True, n_bootstrap=n_bootstrap, seed=seed)
        for g in FOUR_OF_FOUR
    ]
    each = {g: [r.value, r.error] for g, r in zip(FOUR_OF_FOUR, results, strict=True)}
    value, error = (float(np.mean([pair[i] for pair in each.values()])) for i in (0, 1))
    settings = {"polynomials": each, "n_bootstrap": n_bootstrap, "seed": seed}
    return Result("w1_efp", value, error, smaller_size(real, generated), settings=settings)


@JET_METRICS.register("fpd")
def polynomial_fpd(real: np.ndarray, generated: np.ndarray, **options: Any) -> Result:
    """Return the Fréchet physics distance of the 36 polynomials; see `frechet_distance`."""
    return frechet_distance(_polynomials(real), _polynomials(generated), **options)


@JET_METRICS.register("kpd")
def polynomial_kpd(real: np.ndarray, generated: np.ndarray, **options: Any) -> Result:
    """Return the kernel physics distance of the 36 polynomials; see `kernel_distance`."""
    return kernel_distance(_polynomials(real), _polynomials(generated), **options)


def coverage_and_mmd(
    real: np.ndarray, generated: np.ndarray, *, size: int = 100, n_batches: int = 10, seed: int = 0
) -> tuple[Result, Result]:
    """Return COV and MMD from the same energy mover's distances, in batches of ``size`` jets.

    COV is the share of real jets that are the nearest to some generated jet, MMD the mean
    distance of a real jet to the nearest generated one; means over batches with their standard
    errors. Real jets do not reach a coverage of 1 either, as the floor shows. Needs the extra
    ``jets``.

    Raises InputError if there are fewer than two batches; MissingExtra if POT is not installed.
    """
    if n_batches < 2:
        raise InputError(f"n_batches must be at least 2 for an error, got {n_batches}")
    samples = [Constituents.of(jets) for jets in (real, generated)]
    rng, values = stream(seed, "metric-emd"), np.empty((n_batches, 2))
    for i in range(n_batches):
        batch = [sample.take(rng.choice(len(sample), size)) for sample in samples]
        distances = energy_distances(batch[1], batch[0])  # generated, real
        values[i] = len(np.unique(distances.argmin(axis=1))) / size, distances.min(axis=0).mean()
    settings = {"size": size, "n_batches": n_batches, "seed": seed}
    n = smaller_size(real, generated)
    means, errors = values.mean(axis=0), values.std(axis=0, ddof=1) / np.sqrt(n_batches)
    first, second = (
        Result(name, float(means[i]), float(errors[i]), n, settings=settings)
        for i, name in enumerate(("coverage", "mmd"))
    )
    return first, second


@JET_METRICS.register("coverage")
def emd_coverage(real: np.ndarray, generated: np.ndarray, **options: int) -> Result:
    """Return COV; see `coverage_and_mmd`."""
    return coverage_and_mmd(real, generated, **options)[0]


@JET_METRICS.register("mmd")
def emd_mmd(real: np.ndarray, generated: np.ndarray, **options: int) -> Result:
    """Return MMD; see `coverage_and_mmd`."""
    return coverage_and_mmd(real, generated, **options)[1]


def jet_scores(
    real: np.ndarray,
    generated: np.ndarray,
    floor: np.ndarray | None = None,
    names: Sequence[str] | None = None,
    options: dict[str, dict[str, Any]] | None = None,
) -> dict[str, Result]:
    """Return scores of jets (n, P, 3 or 4), each beside that of real against independent real jets.

    ``floor`` are these, as many as generated ones, or None; ``names`` are of `JET_METRICS` (None:
    all), and ``options`` maps a name to keyword arguments.
    """
    scores = {}
    for name in JET_METRICS.names() if names is None else names:
        metric = functools.partial(JET_METRICS.get(name), real, **(options or {}).get(name, {}))
        scores[name] = metric(generated)
        if floor is not None:
            scores[name] = scores[name].with_floor(metric(floor))
    return scores


def _polynomials(jets: np.ndarray) -> np.ndarray:
    return energy_flow_polynomials(Constituents.of(jets))


def _by_jets(
    values: tuple[np.ndarray, np.ndarray],
    rows: tuple[np.ndarray, np.ndarray],
    n_bootstrap: int,
    seed: int,
) -> list[float]:
    """Return W1 of particles, and its error from resampled jets (at 2,000 points)."""
    both = np.concatenate(values)
    order = np.argsort(both, kind="stable")
    gaps = np.diff(both[order])
    n_first, n_jets = len(values[0]), [int(jets[-1]) + 1 for jets in rows]
    is_real = order < n_first
    jet = np.concatenate([rows[0], rows[1] + n_jets[0]])[order]
    share = np.where(is_real, 1.0 / n_first, -1.0 / (len(both) - n_first))
    distance = float(np.abs(np.cumsum(share)[:-1]) @ gaps)
    points = np.unique(np.linspace(0, len(gaps), min(len(gaps), 2000) + 1).astype(int))
    steps, points = np.add.reduceat(gaps, points[:-1]), points[:-1]
    base = np.cumsum(share)[points]
    rng, noise = stream(seed, "metric-jets"), []
    for _ in range(n_bootstrap):
        count = share * rng.poisson(1.0, sum(n_jets))[jet]
        sums = [np.cumsum(np.where(which, count, 0.0)) for which in (is_real, ~is_real)]
        noise.append(sum(s[points] / max(abs(s[-1]), 1e-300) for s in sums) - base)
    error = norm_error(base, np.array(noise), lambda d: float(np.abs(d) @ steps))
    return [distance, error]


def energy_distances(first: Constituents, second: Constituents) -> np.ndarray:
    """Return all distances (n, m) between n and m jets, in the unit of pt.

    The least sum over i, j of f_ij dR_ij, f the transverse momentum that is moved, plus the
    difference of the sums of transverse momenta: the excess of one jet goes to an extra particle at
    distance 1. 0.3 ms per pair of jets of 30 particles. Raises MissingExtra without POT.
    """
    try:
        import ot
    except ImportError as error:
        raise MissingExtra.of("POT", error, "jets") from error
    emd2, result = ot.lp.emd2, np.empty((len(first), len(second)))
    sums = [jets.pt.sum(axis=1) for jets in (first, second)]
    for i in range(len(first)):
        a = np.append(first.pt[i], 0.0)
        for j in range(len(second)):
            b = np.append(second.pt[j], 0.0)
            excess = sums[0][i] - sums[1][j]
            a[-1], b[-1] = max(-excess, 0.0), max(excess, 0.0)
            cost = np.ones((len(a), len(b)))
            d_eta = first.eta[i][:, None] - second.eta[j]
            cost[:-1, :-1] = np.hypot(d_eta, wrapped(first.phi[i][:, None] - second.phi[j]))
            cost[-1, -1] = 0.0
            result[i, j] = a.sum() * emd2(a / a.sum(), b / b.sum(), cost)
    return result
