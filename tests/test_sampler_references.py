"""Samplers step by step against diffusers, and against published formulas written out here."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from exact_gaussian import ExactGaussian

from flowbdt.flow.fields import FunctionField
from flowbdt.flow.parametrisations import FlowMatching, VariancePreserving
from flowbdt.flow.paths import Linear
from flowbdt.flow.solvers import SOLVERS, integrate

LINE = FlowMatching()
X0 = np.random.default_rng(5).normal(size=(6, 2))
MEANS, WIDTHS = np.array([[1.0, -1.0], [-1.5, 0.5]]), np.array([0.3, 0.5])


def denoiser(x: np.ndarray, sigma: float) -> np.ndarray:
    """E[x1 | x1 + sigma noise = x] for two round Gaussians of equal weight."""
    variance = WIDTHS + sigma**2
    away = x[:, None, :] - MEANS
    log = -0.5 * (away**2).sum(axis=-1) / variance - np.log(variance)
    share = np.exp(log - log.max(axis=1, keepdims=True))
    share /= share.sum(axis=1, keepdims=True)
    points = MEANS + (WIDTHS / variance)[:, None] * away
    return np.asarray((share[..., None] * points).sum(axis=1))


def _velocity(t: float, x: np.ndarray, cond: Any) -> np.ndarray:
    return np.asarray((denoiser(x / t, (1.0 - t) / t) - x) / (1.0 - t))


FIELD = FunctionField(_velocity, path=Linear())


def ours(spec: Any, sigmas: np.ndarray, n_steps: int) -> np.ndarray:
    """Return x / alpha after some steps from sigmas[0] times X0."""
    times = [LINE.clock(float(sigma)) for sigma in sigmas[: n_steps + 1]]
    x = integrate(SOLVERS.build(spec), FIELD, X0 * (sigmas[0] * times[0]), times).x
    return np.asarray(x / times[-1])


def _reference(scheduler: Any, n_steps: int, scaled: bool) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return noise ratios and the points x / alpha after each step of a scheduler.

    ``scaled``: its points are variance preserving, else x / alpha themselves.
    """
    torch = pytest.importorskip("torch", reason="torch is not installed (extra 'cfm')")
    scheduler.set_timesteps(n_steps)
    scheduler.sigmas = scheduler.sigmas.double()  # its own tables are in single precision
    sigmas = scheduler.sigmas.numpy()

    def alpha(sigma: float) -> float:
        return 1.0 / math.sqrt(1.0 + sigma**2) if scaled else 1.0

    x = torch.tensor(X0 * sigmas[0] * alpha(sigmas[0]))
    points, seen = [], []
    for t in scheduler.timesteps:
        i = scheduler.step_index or 0
        sigma = float(sigmas[i])
        value = torch.tensor(denoiser(x.double().numpy() / alpha(sigma), sigma))
        x = scheduler.step(value, t, x).prev_sample
        after = float(sigmas[scheduler.step_index])
        seen.append(after)
        points.append(x.double().numpy() / alpha(after))
    return np.array([sigmas[0], *seen]), points


def _diffusers(name: str, **options: Any) -> Any:
    module = pytest.importorskip(
        "diffusers", reason="diffusers is not installed (extra 'reference')"
    )
    return getattr(module, name)(num_train_timesteps=1000, prediction_type="sample", **options)


MULTISTEP = [
    ("dpm_solver_pp_2m", {"solver_order": 2}),
    (
        {"name": "dpm_solver_pp_2m", "quadrature": "exact"},
        {"solver_order": 2, "solver_type": "heun"},
    ),
    (
        {"name": "dpm_solver_pp_3m", "quadrature": "published", "warm_start": False},
        {"solver_order": 3},
    ),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("spec", "options"), MULTISTEP, ids=["2M", "2M heun", "3M"])
def test_dpm_solver_pp_equals_diffusers(spec: Any, options: dict[str, Any]) -> None:
    scheduler = _diffusers(
        "DPMSolverMultistepScheduler", use_karras_sigmas=True, lower_order_final=False, **options
    )
    sigmas, points = _reference(scheduler, 20, scaled=True)
    for n, point in enumerate(points, start=1):
        _assert_close(ours(spec, sigmas, n), point)


def _dpm_solver_pp_3m_sde(sigmas: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """SDE-DPM-Solver++ of third order with eta 1, in the form of Crowson 2022, k-diffusion.

    The second step is that of order 2 with the midpoint form, as in the authors' code.
    """
    x, past = X0 * sigmas[0], list[tuple[float, np.ndarray]]()
    for sigma, after in itertools.pairwise(sigmas.tolist()):
        value, h = denoiser(x, sigma), math.log(sigma / after)
        phi1 = -math.expm1(-2 * h)
        phi2 = 1 - phi1 / (2 * h)
        x = math.exp(-2 * h) * x + phi1 * value
        if past:
            r0, slope = past[0][0] / h, (value - past[0][1]) / (past[0][0] / h)
            if len(past) == 1:
                x = x + 0.5 * phi1 * slope
            else:
                r1 = past[1][0] / h
                bend = (slope - (past[0][1] - past[1][1]) / r1) / (r0 + r1)
                slope += bend * r0
                x = x + phi2 * slope - (phi2 / (2 * h) - 0.5) * bend
        x = x + after * math.sqrt(-math.expm1(-2 * h)) * rng.normal(size=x.shape)
        past = [(h, value), *past[:1]]
    return x


def test_dpm_solver_pp_3m_sde_is_the_published_one() -> None:
    sigmas, rng = np.geomspace(20.0, 0.1, 9), np.random.default_rng(4)
    times = [LINE.clock(sigma) for sigma in sigmas.tolist()]
    solver = SOLVERS.build("dpm_solver_pp_3m_sde")
    found = integrate(solver, FIELD, X0 * (sigmas[0] * times[0]), times, rng=rng).x / times[-1]
    expected = _dpm_solver_pp_3m_sde(sigmas, np.random.default_rng(4))
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("degree", [1, 2, 3])
@pytest.mark.parametrize("variant", ["bh1", "bh2"])
def test_unipc_equals_diffusers(degree: int, variant: str) -> None:
    scheduler = _diffusers(
        "UniPCMultistepScheduler",
        use_karras_sigmas=True,
        solver_order=degree,
        solver_type=variant,
    )
    sigmas, points = _reference(scheduler, 20, scaled=True)
    spec = {"name": "unipc", "degree": degree, "variant": variant, "warm_start": False}
    for n, point in enumerate(points[:-degree], start=1):  # it lowers the order of the last ones
        _assert_close(ours(spec, sigmas, n), point)


@pytest.mark.filterwarnings("ignore")
def test_deis_in_log_snr_equals_diffusers() -> None:
    scheduler = _diffusers(
        "DEISMultistepScheduler", use_karras_sigmas=True, solver_order=3, lower_order_final=False
    )
    sigmas, points = _reference(scheduler, 20, scaled=True)
    spec = {"name": "deis", "degree": 3, "variable": "log_snr", "warm_start": False}
    for n, point in enumerate(points[:-1], start=1):
        _assert_close(ours(spec, sigmas, n), point)


@pytest.mark.filterwarnings("ignore")
def test_lms_equals_diffusers() -> None:
    scheduler = _diffusers("LMSDiscreteScheduler", use_karras_sigmas=True)
    sigmas, points = _reference(scheduler, 20, scaled=False)
    for n, point in enumerate(points, start=1):
        _assert_close(ours({"name": "lms", "warm_start": False}, sigmas, n), point)


@pytest.mark.filterwarnings("ignore")
def test_heun_in_sigma_equals_diffusers() -> None:
    scheduler = _diffusers("HeunDiscreteScheduler", use_karras_sigmas=True)
    sigmas, points = _reference(scheduler, 12, scaled=False)
    # it returns a point after each of its two evaluations; whole steps are every second one
    whole = np.array([sigmas[0], *sigmas[2::2], 0.0])
    for n, point in enumerate([*points[1::2], points[-1]], start=1):
        _assert_close(ours("edm", whole, n), point)


def _assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    assert np.abs(found - expected).max() < 1e-6 * max(1.0, np.abs(expected).max())


def _march(step: Callable[..., Any], sigmas: np.ndarray) -> np.ndarray:
    """Run a published step, written for x = x1 + sigma noise, over noise ratios."""
    x, state = X0 * sigmas[0], None
    for now, after in itertools.pairwise(sigmas):
        x, state = step(x, now, after, state)
    return x


def published_2m(x: np.ndarray, now: float, after: float, state: Any) -> Any:
    """DPM-Solver++(2M), arXiv 2211.01095 algorithm 2, with alpha = 1."""
    d, h = denoiser(x, now), math.log(now / after)
    slope = d
    if state is not None:
        before, h_before = state
        r = h_before / h
        slope = (1.0 + 0.5 / r) * d - 0.5 / r * before
    return after / now * x - math.expm1(-h) * slope, (d, h)


def published_2s(x: np.ndarray, now: float, after: float, state: Any) -> Any:
    """DPM-Solver++(2S), algorithm 1 with r = 1/2."""
    h, middle = math.log(now / after), math.sqrt(now * after)
    u = middle / now * x - math.expm1(-0.5 * h) * denoiser(x, now)
    return after / now * x - math.expm1(-h) * denoiser(u, middle), None


def published_dpm_3(x: np.ndarray, now: float, after: float, state: Any) -> Any:
    """DPM-Solver-3, arXiv 2206.00927 algorithm 2, with alpha = 1."""
    h, r1, r2 = math.log(now / after), 1 / 3, 2 / 3
    s1, s2 = now * math.exp(-r1 * h), now * math.exp(-r2 * h)

    def noise(point: np.ndarray, sigma: float) -> np.ndarray:
        return np.asarray((point - denoiser(point, sigma)) / sigma)

    e = noise(x, now)
    u1 = x - s1 * math.expm1(r1 * h) * e
    d1 = noise(u1, s1) - e
    grown = math.expm1(r2 * h)
    u2 = x - s2 * grown * e - s2 * r2 / r1 * (grown / (r2 * h) - 1.0) * d1
    d2 = noise(u2, s2) - e
    grown = math.expm1(h)
    return x - after * grown * e - after / r2 * (grown / h - 1.0) * d2, None


def published_heun(x: np.ndarray, now: float, after: float, state: Any) -> Any:
    """Algorithm 1 of arXiv 2206.00364 with sigma(t) = t."""
    slope = (x - denoiser(x, now)) / now
    ahead = x + (after - now) * slope
    return x + 0.5 * (after - now) * (slope + (ahead - denoiser(ahead, after)) / after), None


@pytest.mark.parametrize(
    ("spec", "step"),
    [
        ("dpm_solver_pp_2m", published_2m),
        ("dpm_solver_pp_2s", published_2s),
        ("dpm_solver_3", published_dpm_3),
        ("edm", published_heun),
    ],
    ids=["2M", "2S", "DPM-3", "Heun"],
)
def test_published_formulas_in_another_convention_give_the_same_points(
    spec: str, step: Callable[..., Any]
) -> None:
    """They are written for x = x1 + sigma noise; ours run on the straight line."""
    sigmas = np.geomspace(20.0, 0.05, 9)
    np.testing.assert_allclose(ours(spec, sigmas, 8), _march(step, sigmas), rtol=1e-11)


@pytest.mark.parametrize(
    "name", ["ddim", "lms", "dpm_solver_2", "dpm_solver_pp_3m", "unipc", "edm"]
)
def test_samplers_do_not_depend_on_the_path(name: str) -> None:
    """On the quarter circle the same noise ratios give the same events."""
    from flowbdt.flow.curved_paths import Trigonometric
    from flowbdt.flow.parametrisations import PathConvention

    mean, cov = np.array([0.5, -1.0]), np.array([[1.5, 0.4], [0.4, 0.5]])
    sigmas = np.geomspace(20.0, 0.05, 9)
    found = []
    for path in (Linear(), Trigonometric()):
        convention = PathConvention(path)
        times = [convention.clock(float(sigma)) for sigma in sigmas]
        alpha = [convention.scales(t)[0] for t in (times[0], times[-1])]
        x0 = X0 * sigmas[0] * alpha[0]
        x = integrate(SOLVERS.build(name), ExactGaussian(mean, cov, path), x0, times).x
        found.append(x / alpha[1])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-9)


def test_vp_clock_is_that_of_the_published_process() -> None:
    """exp(-(beta_d u^2 / 2 + beta_min u)) is the share of the data in the variance."""
    process = VariancePreserving()
    alpha, sigma = process.scales(0.3)
    assert alpha**2 == pytest.approx(math.exp(-(19.9 * 0.045 + 0.03)))
    assert alpha**2 + sigma**2 == pytest.approx(1.0)
