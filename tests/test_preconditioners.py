"""The closed-form velocity against integrals, limits and other closed forms; and the fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from exact_gaussian import ExactGaussian
from scipy import stats

from flowbdt.flow.closed_form.conditioning import Full, Layout, LowRank
from flowbdt.flow.closed_form.expectation_maximisation import GaussianMixture
from flowbdt.flow.closed_form.mixture import GaussianPreconditioner
from flowbdt.flow.closed_form.mixture_on_path import Motion, PreparedMixture
from flowbdt.flow.fields import FunctionField
from flowbdt.flow.paths import PATHS, Path
from flowbdt.flow.solvers import SOLVERS, integrate

LINEAR = PATHS.build("linear")
SPECS = [*PATHS.names(), *({"name": name, "sigma": 0.3} for name in PATHS.names())]
WEIGHTS = np.array([0.5, 0.3, 0.2])
MEANS = np.array([[1.0, 0.5], [-1.0, 1.0], [0.2, -1.5]])
COVS = np.array([[[0.3, 0.1], [0.1, 0.2]], [[0.1, 0.0], [0.0, 0.5]], [[0.2, -0.1], [-0.1, 0.3]]])


@pytest.fixture(params=SPECS, ids=str)
def path(request: pytest.FixtureRequest) -> Path:
    return PATHS.build(request.param)


def known(weights: Any, means: Any, covs: Any, layout: Layout) -> Any:
    """A mixture whose parameters are known, as a function of (path, t, t_next)."""
    mixture = GaussianMixture(
        np.log(weights), np.asarray(means, float), Full(np.asarray(covs, float))
    )
    return lambda path, t, t_next=None: PreparedMixture(mixture, layout, Motion.of(path, t, t_next))


def draw(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Events of the known mixture and their component."""
    rng = np.random.default_rng(seed)
    k = rng.choice(3, size=n, p=WEIGHTS)
    noise = rng.normal(size=(n, 2))
    return MEANS[k] + np.einsum("nij,nj->ni", np.linalg.cholesky(COVS)[k], noise), k


def by_integration(
    path: Path, t: float, t_next: float | None, x: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Velocity and mean end point at x (2,) as sums over a fine grid of end points."""
    axis = np.linspace(-6.0, 6.0, 401)
    x1 = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    density = sum(
        w * stats.multivariate_normal(m, c).pdf(x1)
        for w, m, c in zip(WEIGHTS, MEANS, COVS, strict=True)
    )
    (a, b), c = path.scales(t), path.noise_scale(t)
    variance = b**2 + c**2
    density = density * np.exp(-0.5 * ((x - a * x1) ** 2).sum(axis=1) / variance)
    rest = (x - a * x1) / variance
    x0, noise = b * rest, c * rest  # their expectation given x_t and x1
    if t_next is None:
        u = path.target(x0, x1, t, x)
    else:
        u = path.mean_target(x0, x1, t, t_next, noise)
    share = density / density.sum()
    return share @ u, share @ x1


def test_gaussian_equals_the_exact_gaussian_field(path: Path) -> None:
    z = np.random.default_rng(0).normal(size=(300, 3)) @ [[2, 1, 0], [0, 0.5, 1], [0, 0, 0.1]] + 1.0
    fitted = GaussianPreconditioner().fit(z, seed=0)
    exact = ExactGaussian(fitted.mixture.means[0], fitted.mixture.covariances.dense()[0], path)
    for t in (0.0, 0.2, 0.7, 1.0):
        np.testing.assert_allclose(
            fitted.at(path, t).velocity(z), exact(t, z), rtol=1e-9, atol=1e-9
        )


def test_gaussian_has_mean_and_covariance_of_the_rows() -> None:
    z = np.random.default_rng(0).normal(size=(500, 3)) @ [[2, 1, 0], [0, 0.5, 1], [0, 0, 0.1]] + 1.0
    mixture = GaussianPreconditioner(shrinkage=0.0).fit(z, seed=0).mixture
    np.testing.assert_allclose(mixture.means[0], z.mean(axis=0), rtol=1e-12)
    expected = np.cov(z.T, bias=True)
    np.testing.assert_allclose(mixture.covariances.dense()[0], expected, atol=2e-6 * expected.max())


@pytest.mark.parametrize("t", [0.15, 0.5, 0.8])
def test_velocity_and_posterior_mean_equal_numerical_integration(path: Path, t: float) -> None:
    prepared = known(WEIGHTS, MEANS, COVS, Layout(2, 0, False))(path, t)
    for x in np.array([[0.0, 0.0], [1.2, -0.7], [-1.0, 2.0]]):
        v, end = by_integration(path, t, None, x)
        np.testing.assert_allclose(prepared.velocity(x[None])[0], v, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(prepared.features(x[None])[1][0, :2], end, rtol=1e-9, atol=1e-9)


def test_velocity_over_an_interval_is_the_expected_mean_target(path: Path) -> None:
    prepared = known(WEIGHTS, MEANS, COVS, Layout(2, 0, False))(path, 0.4, 0.6)
    x = np.array([0.3, -0.4])
    v, _ = by_integration(path, 0.4, 0.6, x)
    np.testing.assert_allclose(prepared.velocity(x[None])[0], v, rtol=1e-9)


def test_velocity_moves_the_distribution_function(path: Path) -> None:
    """In one dimension v p = -dF/dt, with F the distribution function of x_t."""
    means, sds = np.array([-1.0, 0.8]), np.array([0.3, 0.6])
    x = np.linspace(-2.0, 2.0, 9)

    share = np.array([0.35, 0.65])

    def scaled(t: float) -> tuple[np.ndarray, np.ndarray]:
        a, b = path.scales(t)
        width = np.sqrt((a * sds) ** 2 + b**2 + path.noise_scale(t) ** 2)
        return (x[:, None] - a * means) / width, width

    prepare = known(share, means[:, None], sds[:, None, None] ** 2, Layout(1, 0, False))
    for t in (0.2, 0.5, 0.85):
        step = 1e-5
        after, before = (stats.norm.cdf(scaled(t + d)[0]) @ share for d in (step, -step))
        away, width = scaled(t)
        expected = -(after - before) / (2 * step) / ((stats.norm.pdf(away) / width) @ share)
        v = prepare(path, t).velocity(x[:, None])[:, 0]
        np.testing.assert_allclose(v, expected, rtol=1e-6, atol=1e-6)


def test_the_flow_of_a_known_mixture_ends_at_that_mixture() -> None:
    n, prepare = 20_000, known(WEIGHTS, MEANS, COVS, Layout(2, 0, False))
    field = FunctionField(lambda t, x, cond: prepare(LINEAR, t).velocity(x))
    x0 = np.random.default_rng(4).normal(size=(n, 2))
    x = integrate(SOLVERS.build("rk4"), field, x0, np.linspace(0, 1, 33)).x
    mean = WEIGHTS @ MEANS
    second = np.einsum("k,kij->ij", WEIGHTS, COVS + MEANS[:, :, None] * MEANS[:, None, :])
    assert (np.abs(x.mean(axis=0) - mean) < 5 * x.std(axis=0) / np.sqrt(n)).all()
    products = x[:, :, None] * x[:, None, :]
    assert (np.abs(products.mean(axis=0) - second) < 5 * products.std(axis=0) / np.sqrt(n)).all()
    share = prepare(LINEAR, 1.0).features(x)[1][:, 2:]
    assert (np.abs(share.mean(axis=0) - WEIGHTS) < 5 * share.std(axis=0) / np.sqrt(n)).all()


JOINT_MEAN = np.array([0.5, -1.0, 2.0, 10.0])
ROOT = np.array([[1.0, 0, 0, 0], [0.4, 0.8, 0, 0], [0.7, -0.3, 0.5, 0], [2.0, 1.0, -1.0, 3.0]])
JOINT_COV = ROOT @ ROOT.T


def conditional(known_columns: list[int], c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of the first two variables given the others that are known."""
    points = [0, 1]
    gain = JOINT_COV[np.ix_(points, known_columns)] @ np.linalg.inv(
        JOINT_COV[np.ix_(known_columns, known_columns)]
    )
    mean = JOINT_MEAN[points] + gain @ (c - JOINT_MEAN[known_columns])
    return mean, JOINT_COV[np.ix_(points, points)] - gain @ JOINT_COV[np.ix_(known_columns, points)]


@pytest.mark.parametrize("known_columns", [[2, 3], [2], [3], []])
def test_conditions_condition_exactly_and_gaps_are_integrated_over(
    path: Path, known_columns: list[int]
) -> None:
    prepare = known([1.0], JOINT_MEAN[None], JOINT_COV[None], Layout(2, 2, False))
    x = np.random.default_rng(5).normal(size=(4, 2))
    cond = np.full((4, 2), np.nan)
    values = np.array([1.3, 14.0])
    picked = [column - 2 for column in known_columns]
    cond[:, picked] = values[picked]
    exact = ExactGaussian(*conditional(known_columns, values[picked]), path)
    for t in (0.0, 0.4, 1.0):
        v = prepare(path, t).velocity(x, cond)
        np.testing.assert_allclose(v, exact(t, x), rtol=1e-9, atol=1e-9)


def test_a_condition_reweights_the_components() -> None:
    """At t = 0 the point says nothing, so the weights are those given the condition alone."""
    means = np.hstack([MEANS, [[0.0], [1.0], [2.0]]])
    covs = np.array([np.block([[c, np.zeros((2, 1))], [np.zeros((1, 2)), 0.5]]) for c in COVS])
    prepared = known(WEIGHTS, means, covs, Layout(2, 1, False))(LINEAR, 0.0)
    likelihood = WEIGHTS * stats.norm.pdf(1.4, [0.0, 1.0, 2.0], np.sqrt(0.5))
    x = np.zeros((1, 2))
    np.testing.assert_allclose(
        prepared.features(x, np.array([[1.4]]))[1][0, 2:], likelihood / likelihood.sum(), rtol=1e-12
    )
    np.testing.assert_allclose(prepared.features(x)[1][0, 2:], WEIGHTS, rtol=1e-12)


def test_no_conditions_means_unknown_conditions() -> None:
    prepared = known([1.0], JOINT_MEAN[None], JOINT_COV[None], Layout(2, 2, False))(LINEAR, 0.4)
    x = np.random.default_rng(5).normal(size=(4, 2))
    np.testing.assert_array_equal(
        prepared.velocity(x), prepared.velocity(x, np.full((4, 2), np.nan))
    )


def test_a_condition_that_is_never_known_changes_nothing() -> None:
    x, _ = draw(300, 8)
    plain = GaussianPreconditioner().fit(x, seed=0).at(LINEAR, 0.5)
    never = GaussianPreconditioner().fit(x, seed=0, cond=np.full((300, 1), np.nan)).at(LINEAR, 0.5)
    np.testing.assert_allclose(never.velocity(x), plain.velocity(x), rtol=1e-9, atol=1e-9)
    assert np.isfinite(never.velocity(x, np.ones((300, 1)))).all()


def test_rows_of_different_gaps_do_not_mix() -> None:
    prepared = known([1.0], JOINT_MEAN[None], JOINT_COV[None], Layout(2, 2, False))(LINEAR, 0.4)
    x = np.random.default_rng(5).normal(size=(3, 2))
    cond = np.array([[1.0, np.nan], [np.nan, 12.0], [1.0, np.nan]])
    rows = [prepared.velocity(x[i : i + 1], cond[i : i + 1])[0] for i in range(3)]
    np.testing.assert_array_equal(prepared.velocity(x, cond), rows)


def test_given_pairs_leave_nothing_linear_to_learn(path: Path) -> None:
    """With normal pairs (x0, x1) the velocity is linear: what is left does not depend on x_t."""
    n, rng = 50_000, np.random.default_rng(6)
    joint = JOINT_MEAN + rng.normal(size=(n, 4)) @ ROOT.T
    x0, x1, noise = joint[:, :2], joint[:, 2:], rng.normal(size=(n, 2))
    prepare = known([1.0], JOINT_MEAN[None], JOINT_COV[None], Layout(2, 0, True))
    for t in (0.2, 0.5, 0.9):
        x_t = path.location(x0, x1, t, noise)
        v, end = prepare(path, t).features(x_t)
        for rest in (path.target(x0, x1, t, x_t) - v, x1 - end):
            assert (np.abs(rest.mean(axis=0)) < 5 * rest.std(axis=0) / np.sqrt(n)).all()
            products = rest[:, :, None] * (x_t - x_t.mean(axis=0))[:, None, :]
            assert (np.abs(products.mean(axis=0)) < 5 * products.std(axis=0) / np.sqrt(n)).all()


def test_a_source_is_fitted_together_with_the_data() -> None:
    rng = np.random.default_rng(7)
    x0 = rng.normal(size=(2000, 2))
    fitted = GaussianPreconditioner().fit(2.0 * x0 + 1.0, seed=0, source=x0)
    # x1 is known from x0, so at t = 0 the end point is too; exact but for shrinkage and floor
    np.testing.assert_allclose(
        fitted.at(LINEAR, 0.0).features(x0[:50])[1], 2.0 * x0[:50] + 1.0, atol=0.02
    )


def test_low_rank_answers_as_the_full_matrices_do(path: Path) -> None:
    rng = np.random.default_rng(8)
    means, factors = rng.normal(size=(3, 7)), rng.normal(size=(3, 7, 2))
    low = LowRank(factors, rng.uniform(0.1, 1.0, size=(3, 7)))
    x, cond = rng.normal(size=(10, 3)), rng.normal(size=(10, 1))
    cond[::3] = np.nan
    layout = Layout(3, 1, True)
    for t in (0.0, 0.4, 1.0):
        for t_next in (None, 0.5):
            motion = Motion.of(path, t, t_next)
            answers = [
                np.hstack(
                    PreparedMixture(
                        GaussianMixture(np.log(WEIGHTS), means, c), layout, motion
                    ).features(x, cond)
                )
                for c in (low, Full(low.dense()))
            ]
            np.testing.assert_allclose(answers[0], answers[1], rtol=1e-8, atol=1e-9)
