"""Scores of generated jets as the JetNet papers define them, with errors and floors.

Samples are arrays (n, P, 3 or 4) in JetNet's layout: etarel, phirel, ptrel, mask. Energy flow
polynomials are those of ptrel.

References
----------
R. Kansal et al., "Particle Cloud Generation with Message Passing Generative Adversarial Networks",
arXiv:2106.11535, section 5 (W1 scores, coverage, MMD); R. Kansal et al., "Evaluating generative
models in high energy physics", arXiv:2211.10295, section III (FPD, KPD).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...errors import InputError, MissingExtra
from ...evaluation.metrics.base import Result, norm_error
from ...evaluation.metrics.joint import frechet_distance, kernel_distance, smaller_size
from ...evaluation.metrics.marginal import wasserstein
from ...registry import Registry
from ...seeding import stream
from .constituents import Constituents, wrapped
from .energy_flow_polynomials import FOUR_OF_FOUR, energy_flow_polynomials, prime_polynomials

FEATURES = ("etarel", "phirel", "ptrel")


JET_METRICS: Registry[Callable[..., Result]] = Registry("jet metric")
"""Name -> function of two samples of jets; options by keyword."""


@JET_METRICS.register("w1_mass")
def w1_mass(
    real: np.ndarray, generated: np.ndarray, *, n_bootstrap: int = 20, seed: int = 0
) -> Result:
    """Return W1-M: Wasserstein-1 of the jet mass over the jet's transverse momentum.

    All jets are used once, so that the floor is that of the sample sizes; jetnet's ``w1m`` draws
    jets with replacement instead, which raises floor and score alike.
    """
    masses = [Constituents.of(jets).mass() for jets in (real, generated)]
    return _renamed(wasserstein(*masses, raw=True, n_bootstrap=n_bootstrap, seed=seed), "w1_mass")


@JET_METRICS.register("w1_pt")
def w1_pt(
    real: np.ndarray, generated: np.ndarray, *, n_bootstrap: int = 20, seed: int = 0
) -> Result:
    """Return the same of the transverse momentum of all particles together."""
    pt = [Constituents.of(jets).transverse_momentum() for jets in (real, generated)]
    return _renamed(wasserstein(*pt, raw=True, n_bootstrap=n_bootstrap, seed=seed), "w1_pt")


@JET_METRICS.register("w1_particles")
def w1_particles(
    real: np.ndarray, generated: np.ndarray, *, n_bootstrap: int = 20, seed: int = 0
) -> Result:
    """Return W1-P: the mean over etarel, phirel and ptrel of all particles of all jets.

    ``settings["features"]`` has each with its error. Errors come from resampling whole jets:
    the particles of a jet are no independent events.
    """
    samples = [Constituents.of(jets) for jets in (real, generated)]
    columns = [[part.eta[part.mask], part.phi[part.mask], part.pt[part.mask]] for part in samples]
    rows = [np.nonzero(part.mask)[0] for part in samples]
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
    """Return W1-EFP: the mean over the five connected polynomials of 4 vertices and 4 edges.

    ``settings["polynomials"]`` has each with its error.
    """
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
def fpd(real: np.ndarray, generated: np.ndarray, **options: Any) -> Result:
    """Return the Fréchet physics distance of the 36 polynomials; see `frechet_distance`."""
    return frechet_distance(_polynomials(real), _polynomials(generated), **options)


@JET_METRICS.register("kpd")
def kpd(real: np.ndarray, generated: np.ndarray, **options: Any) -> Result:
    """Return the kernel physics distance of the 36 polynomials; see `kernel_distance`."""
    return kernel_distance(_polynomials(real), _polynomials(generated), **options)


def coverage_and_mmd(
    real: np.ndarray, generated: np.ndarray, *, size: int = 100, n_batches: int = 10, seed: int = 0
) -> tuple[Result, Result]:
    """Return COV and MMD from the same energy mover's distances, in batches of ``size`` jets.

    COV is the share of real jets that are the nearest to some generated jet, MMD the mean
    distance of a real jet to the nearest generated one; means over batches with their standard
    errors. Real jets do not reach a coverage of 1 either: see the floor. Needs the extra ``jets``.

    Raises
    ------
    InputError
        If there are fewer than two batches.
    MissingExtra
        If POT is not installed.
    """
    if n_batches < 2:
        raise InputError(f"n_batches must be at least 2 for an error, got {n_batches}")
    samples = [Constituents.of(jets) for jets in (real, generated)]
    rng, values = stream(seed, "metric-emd"), np.empty((n_batches, 2))
    for i in range(n_batches):
        parts = [sample.take(rng.choice(len(sample), size)) for sample in samples]
        distances = energy_distances(parts[1], parts[0])  # generated, real
        values[i] = len(np.unique(distances.argmin(axis=1))) / size, distances.min(axis=0).mean()
    settings, n = (
        {"size": size, "n_batches": n_batches, "seed": seed},
        smaller_size(real, generated),
    )
    means, errors = values.mean(axis=0), values.std(axis=0, ddof=1) / np.sqrt(n_batches)
    first, second = (
        Result(name, float(means[i]), float(errors[i]), n, settings=settings)
        for i, name in enumerate(("coverage", "mmd"))
    )
    return first, second


@JET_METRICS.register("coverage")
def coverage(real: np.ndarray, generated: np.ndarray, **options: int) -> Result:
    """Return COV; see `coverage_and_mmd`."""
    return coverage_and_mmd(real, generated, **options)[0]


@JET_METRICS.register("mmd")
def mmd(real: np.ndarray, generated: np.ndarray, **options: int) -> Result:
    """Return MMD; see `coverage_and_mmd`."""
    return coverage_and_mmd(real, generated, **options)[1]


def jet_scores(
    real: np.ndarray,
    generated: np.ndarray,
    floor: np.ndarray | None = None,
    names: Sequence[str] | None = None,
    options: dict[str, dict[str, Any]] | None = None,
) -> dict[str, Result]:
    """Return several scores, each beside that of real against independent real jets.

    Parameters
    ----------
    real, generated : ndarray (n, P, 3 or 4), jets
    floor : other real jets, as many as generated ones; None for no floor
    names : of `JET_METRICS`; None for all
    options : name -> keyword arguments
    """
    found = {}
    for name in JET_METRICS.names() if names is None else names:
        given = (options or {}).get(name, {})
        found[name] = JET_METRICS.get(name)(real, generated, **given)
        if floor is not None:
            found[name] = found[name].with_floor(JET_METRICS.get(name)(real, floor, **given))
    return found


def _polynomials(jets: np.ndarray) -> np.ndarray:
    return energy_flow_polynomials(Constituents.of(jets))


def _renamed(result: Result, name: str) -> Result:
    return Result(name, result.value, result.error, result.n, settings=result.settings)


def _by_jets(
    values: tuple[np.ndarray, np.ndarray],
    rows: tuple[np.ndarray, np.ndarray],
    n_bootstrap: int,
    seed: int,
) -> list[float]:
    """Return W1 of particles and its error from resampled jets; ``rows`` are the particles' jets.

    The error is integrated at 2,000 points.
    """
    both = np.concatenate(values)
    order = np.argsort(both, kind="stable")
    gaps = np.diff(both[order])
    n_first, n_jets = len(values[0]), [int(part[-1]) + 1 for part in rows]
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
        parts = [np.where(is_real, count, 0.0), np.where(is_real, 0.0, count)]
        sums = [np.cumsum(part) for part in parts]
        noise.append(sum(s[points] / max(abs(s[-1]), 1e-300) for s in sums) - base)
    error = norm_error(base, np.array(noise), lambda d: float(np.abs(d) @ steps))
    return [distance, error]


def load() -> Any:
    """Return the module ``ot``. Raises MissingExtra with the install command."""
    try:
        import ot
    except ImportError as error:
        raise MissingExtra.of("POT", error, "jets") from error
    return ot


def energy_distances(first: Constituents, second: Constituents) -> np.ndarray:
    """Return all distances (n, m) between n and m jets, in the unit of pt.

    The least sum over i, j of f_ij dR_ij, f the transverse momentum that is moved, plus the
    difference of the sums of transverse momenta: what one jet has more goes to a particle of its
    own at distance 1. 0.3 ms per pair of jets of 30 particles.
    """
    emd2 = load().lp.emd2
    result = np.empty((len(first), len(second)))
    sums = [part.pt.sum(axis=1) for part in (first, second)]
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
