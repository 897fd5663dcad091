"""The closed-form velocity against integrals, limits and other closed forms; and the fit."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from scipy import stats

from flowbdt.errors import ConfigError, InputError
from flowbdt.fields import ExactGaussian, FunctionField
from flowbdt.paths import PATHS, Path
from flowbdt.preconditioners import PRECONDITIONERS, kernels
from flowbdt.preconditioners.covariances import Full, LowRank
from flowbdt.preconditioners.em import Mixture, Rows, Settings, expectation, maximisation, start
from flowbdt.preconditioners.mixture import GaussianPreconditioner, MixturePreconditioner
from flowbdt.preconditioners.prepared import Layout, Motion, PreparedMixture
from flowbdt.solvers import SOLVERS, integrate

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
    mixture = Mixture(np.log(weights), np.asarray(means, float), Full(np.asarray(covs, float)))
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
        np.testing.assert_allclose(prepared.posterior_mean(x[None])[0], end, rtol=1e-9, atol=1e-9)


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
    share = prepare(LINEAR, 1.0).weights(x)
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
        prepared.weights(x, np.array([[1.4]]))[0], likelihood / likelihood.sum(), rtol=1e-12
    )
    np.testing.assert_allclose(prepared.weights(x)[0], WEIGHTS, rtol=1e-12)


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
        fitted.at(LINEAR, 0.0).posterior_mean(x0[:50]), 2.0 * x0[:50] + 1.0, atol=0.02
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
                    PreparedMixture(Mixture(np.log(WEIGHTS), means, c), layout, motion).features(
                        x, cond
                    )
                )
                for c in (low, Full(low.dense()))
            ]
            np.testing.assert_allclose(answers[0], answers[1], rtol=1e-8, atol=1e-9)


def test_log_density_is_that_of_scipy() -> None:
    x, _ = draw(20, 1)
    expected = sum(
        w * stats.multivariate_normal(m, c).pdf(x)
        for w, m, c in zip(WEIGHTS, MEANS, COVS, strict=True)
    )
    mixture = Mixture(np.log(WEIGHTS), MEANS, Full(COVS))
    rows = Rows.of(x, np.ones(20))
    np.testing.assert_allclose(mixture.log_density(rows), np.log(expected), rtol=1e-12)


def test_low_rank_estimate_recovers_a_factor_model() -> None:
    rng = np.random.default_rng(9)
    exact = LowRank(rng.normal(size=(1, 12, 2)), rng.uniform(0.2, 1.0, size=(1, 12)))
    found = LowRank.estimate(exact.dense(), 2)
    for _ in range(100):
        found = LowRank.estimate(exact.dense(), 2, found)
    np.testing.assert_allclose(found.dense(), exact.dense(), atol=1e-3)


@pytest.mark.parametrize("kind", [Full, LowRank])
def test_no_iteration_lowers_the_likelihood(kind: Any) -> None:
    x, _ = draw(600, 2)
    x = np.hstack([x, x @ [[0.5], [1.0]] + np.random.default_rng(3).normal(size=(600, 1))])
    x[::5, 2] = np.nan
    rows = Rows.of(x, np.ones(600))
    settings = Settings(kind, rank=1, shrinkage=0.0)
    mixture, found = start(rows, 4, settings, np.random.default_rng(0)), []
    for _ in range(25):
        weighted, likelihood = expectation(mixture, rows)
        mixture = maximisation(weighted, rows, settings, mixture)
        found.append(likelihood)
    assert found[-1] > found[0] + 0.02
    assert np.diff(found).min() > -1e-5  # the floor of the variances is no part of the likelihood


def test_fit_finds_a_known_mixture() -> None:
    n = 20_000
    x, k = draw(n, 3)
    fitted = MixturePreconditioner(n_components=3).fit(x, seed=0).mixture
    order = [int(np.argmin(((fitted.means - m) ** 2).sum(axis=1))) for m in MEANS]
    assert sorted(order) == [0, 1, 2]
    for number, j in enumerate(order):
        own = x[k == number]
        # not to know the component costs precision: at most twice the error of knowing it
        error = 2 * own.std(axis=0) / np.sqrt(len(own))
        assert (np.abs(fitted.means[j] - MEANS[number]) < 5 * error).all()
        share = 2 * np.sqrt(WEIGHTS[number] * (1 - WEIGHTS[number]) / n)
        assert abs(np.exp(fitted.log_weights[j]) - WEIGHTS[number]) < 5 * share


def test_weight_two_is_two_copies() -> None:
    x, _ = draw(3000, 4)
    weight = np.where(np.arange(3000) < 1000, 2.0, 1.0)
    options: dict[str, Any] = {"n_components": 3, "shrinkage": 0.0}
    weighted = MixturePreconditioner(**options).fit(x, seed=0, weight=weight)
    copies = MixturePreconditioner(**options).fit(np.vstack([x, x[:1000]]), seed=0)
    plain = MixturePreconditioner(**options).fit(x, seed=0)
    at = [fit.at(LINEAR, 0.8).velocity(x[:200]) for fit in (weighted, copies, plain)]
    # other starts, the same maximum: up to where the iterations stop
    assert np.abs(at[0] - at[1]).max() < 0.03
    assert np.abs(at[0] - at[2]).max() > 0.06


def test_weight_zero_is_no_event_and_the_unit_of_weights_is_free() -> None:
    x, _ = draw(500, 5)
    weight = np.random.default_rng(1).uniform(0.5, 2.0, 500)
    junk = np.vstack([x, np.full((50, 2), 1e3)])
    reference = MixturePreconditioner(3).fit(x, seed=0, weight=weight)
    padded = MixturePreconditioner(3).fit(junk, seed=0, weight=np.r_[weight, np.zeros(50)])
    assert padded.to_bytes() == reference.to_bytes()
    scaled = MixturePreconditioner(3).fit(x, seed=0, weight=1024.0 * weight)
    assert scaled.to_bytes() == reference.to_bytes()


def test_gaps_that_depend_on_the_data_do_not_bias_the_fit() -> None:
    """c is unknown where z > 0. The mean of the known ones is far off; the fit is not."""
    n, rng = 20_000, np.random.default_rng(11)
    z = rng.normal(size=(n, 1))
    c = 3.0 + z + 0.5 * rng.normal(size=(n, 1))
    cond = np.where(z > 0, np.nan, c)
    fitted = GaussianPreconditioner().fit(z, seed=0, cond=cond).mixture
    error = 5 * 1.2 / np.sqrt(n / 2)  # half of the conditions are known
    assert abs(fitted.means[0, 1] - 3.0) < 2 * error
    assert abs(np.nanmean(cond) - 3.0) > 10 * error
    np.testing.assert_allclose(
        fitted.covariances.dense()[0], np.array([[1.0, 1.0], [1.0, 1.25]]), atol=2 * error
    )


def test_a_label_as_condition_selects_its_events() -> None:
    rng = np.random.default_rng(12)
    label = rng.integers(0, 3, size=6000).astype(float)
    z = np.array([-3.0, 0.0, 2.0])[label.astype(int), None] + 0.5 * rng.normal(size=(6000, 1))
    prepared = MixturePreconditioner().fit(z, seed=0, cond=label[:, None]).at(LINEAR, 0.0)
    for value in (0.0, 1.0, 2.0):
        own = z[label == value]
        mean = prepared.posterior_mean(np.zeros((1, 1)), np.array([[value]]))[0, 0]
        assert abs(mean - own.mean()) < 5 * own.std() / np.sqrt(len(own))


def test_auto_takes_one_gaussian_for_gaussian_data_and_more_for_clusters() -> None:
    x = np.random.default_rng(13).normal(size=(3000, 3))
    assert MixturePreconditioner().fit(x, seed=0).mixture.n_components == 1
    clusters = x * 0.2 + np.eye(3)[np.arange(3000) % 3] * 4.0
    fitted = MixturePreconditioner().fit(clusters, seed=0)
    assert fitted.mixture.n_components >= 3
    assert "log-likelihood per held-out row" in fitted.describe()


def test_the_number_of_threads_does_not_change_the_fit() -> None:
    code = (
        "import numpy as np, hashlib; from flowbdt.preconditioners import PRECONDITIONERS as P;"
        "z = np.random.default_rng(0).normal(size=(30_000, 9));"
        "spec = {'name': 'mixture', 'n_components': 2, 'max_iter': 2};"
        "print(hashlib.sha256(P.build(spec).fit(z, seed=0).to_bytes()).hexdigest())"
    )
    found = set()
    for threads in ("1", "2"):
        limits = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads)
        run = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, **limits},
            capture_output=True,
            text=True,
            check=True,
        )
        found.add(run.stdout)
    assert len(found) == 1


def test_auto_uses_low_rank_for_many_columns() -> None:
    z = np.random.default_rng(14).normal(size=(100, 70))
    assert MixturePreconditioner(1).fit(z, seed=0).mixture.covariances.kind == "low_rank"
    assert MixturePreconditioner(1).fit(z[:, :8], seed=0).mixture.covariances.kind == "full"


def test_at_most_max_rows_are_used() -> None:
    x, _ = draw(500, 6)
    fitted = MixturePreconditioner(1, max_rows=100).fit(x, seed=0)
    assert "fitted to 100 rows" in fitted.describe()
    assert np.isfinite(fitted.at(LINEAR, 0.5).velocity(x)).all()


def test_units_of_columns_and_conditions_do_not_matter() -> None:
    x, _ = draw(1000, 7)
    cond = x[:, :1] + 1.0
    plain = MixturePreconditioner(3).fit(x, seed=0, cond=cond).at(LINEAR, 1.0)
    scaled = MixturePreconditioner(3).fit(1e3 * x, seed=0, cond=1e-4 * cond).at(LINEAR, 1.0)
    np.testing.assert_allclose(
        scaled.velocity(1e3 * x, 1e-4 * cond), 1e3 * plain.velocity(x, cond), rtol=1e-6, atol=1e-6
    )


def test_softmax_of_very_unlikely_points_is_finite() -> None:
    weights = kernels.softmax(np.array([[-1e9, -1e9 - 1.0], [-1e300, -1.0]]))
    np.testing.assert_allclose(weights, [[1 / (1 + np.exp(-1)), 1 / (1 + np.e)], [0, 1]], rtol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"n_components": 0},
        {"n_components": "many"},
        {"n_components": True},
        {"covariance": "round"},
        {"rank": 0},
        {"shrinkage": -1.0},
        {"shrinkage": float("nan")},
        {"max_iter": 0},
        {"max_rows": 1.5},
        {"colour": "red"},
    ],
    ids=str,
)
def test_wrong_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        PRECONDITIONERS.build({"name": "mixture", **options})


def test_wrong_tables_are_refused() -> None:
    z, fit = np.zeros((4, 2)), MixturePreconditioner(1).fit
    with pytest.raises(InputError, match=r"\(n, m\)"):
        fit(z[0], seed=0)
    with pytest.raises(InputError, match="finite"):
        fit(np.full((4, 2), np.nan), seed=0)
    with pytest.raises(InputError, match="shape of z"):
        fit(z, seed=0, source=z[:, :1])
    with pytest.raises(InputError, match="infinities"):
        fit(z, seed=0, cond=np.full((4, 1), np.inf))
    with pytest.raises(InputError, match="weights"):
        fit(z, seed=0, weight=np.ones(3))
    prepared = fit(z, seed=0, cond=z[:, :1]).at(LINEAR, 0.5)
    with pytest.raises(InputError, match="conditions must have shape"):
        prepared.velocity(z, z)
