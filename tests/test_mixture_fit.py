"""Mixtures of Gaussians: densities, and what a fit finds."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from scipy import stats

from flowbdt.errors import ConfigError, InputError
from flowbdt.flow.closed_form import (
    PRECONDITIONERS,
    conditioning,
    expectation_maximisation,
    mixture_per_value,
)
from flowbdt.flow.closed_form.conditioning import Full, LowRank
from flowbdt.flow.closed_form.expectation_maximisation import (
    GaussianMixture,
    MixtureSettings,
    StandardisedRows,
    expectation,
    iterate,
    maximisation,
    start,
)
from flowbdt.flow.closed_form.mixture import GaussianPreconditioner, MixturePreconditioner
from flowbdt.flow.paths import PATHS

LINEAR = PATHS.build("linear")
WEIGHTS = np.array([0.5, 0.3, 0.2])
MEANS = np.array([[1.0, 0.5], [-1.0, 1.0], [0.2, -1.5]])
COVS = np.array([[[0.3, 0.1], [0.1, 0.2]], [[0.1, 0.0], [0.0, 0.5]], [[0.2, -0.1], [-0.1, 0.3]]])


def draw(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Events of the known mixture and their component."""
    rng = np.random.default_rng(seed)
    k = rng.choice(3, size=n, p=WEIGHTS)
    noise = rng.normal(size=(n, 2))
    return MEANS[k] + np.einsum("nij,nj->ni", np.linalg.cholesky(COVS)[k], noise), k


def test_log_density_is_that_of_scipy() -> None:
    x, _ = draw(20, 1)
    expected = sum(
        w * stats.multivariate_normal(m, c).pdf(x)
        for w, m, c in zip(WEIGHTS, MEANS, COVS, strict=True)
    )
    mixture = GaussianMixture(np.log(WEIGHTS), MEANS, Full(COVS))
    rows = StandardisedRows(x, np.ones(20))
    np.testing.assert_allclose(mixture.log_density(rows), np.log(expected), rtol=1e-12)


def test_low_rank_estimate_recovers_a_factor_model() -> None:
    rng = np.random.default_rng(9)
    exact = LowRank(rng.normal(size=(1, 12, 2)), rng.uniform(0.2, 1.0, size=(1, 12)))
    found = LowRank.estimate(exact.dense(), 2)
    for _ in range(100):
        found = LowRank.estimate(exact.dense(), 2, found)
    np.testing.assert_allclose(found.dense(), exact.dense(), atol=1e-3)


@pytest.mark.parametrize("kind", [Full, LowRank])
def test_no_iteration_lowers_the_likelihood(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    x, _ = draw(600, 2)
    x = np.hstack([x, x @ [[0.5], [1.0]] + np.random.default_rng(3).normal(size=(600, 1))])
    x[::5, 2] = np.nan
    rows = StandardisedRows(x, np.ones(600))
    settings = MixtureSettings(kind, rank=1, shrinkage=0.0)
    first = mixture = start(rows, 4, settings, np.random.default_rng(0))
    found = []
    for _ in range(25):
        sums, likelihood = expectation(mixture, rows)
        mixture = maximisation(sums, settings, mixture)
        found.append(likelihood)
    assert found[-1] > found[0] + 0.02
    assert np.diff(found).min() > -1e-5  # the floor of the variances is no part of the likelihood
    assert iterate(first, rows, settings, 25)[1] > found[-1] - 1e-3  # by longer strides
    expected = expectation(mixture, rows)[0]
    monkeypatch.setattr(expectation_maximisation, "WIDE", 0)  # sums over what is near
    np.testing.assert_allclose(expectation(mixture, rows)[0], expected, rtol=1e-6, atol=1e-6)


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
        mean = prepared.features(np.zeros((1, 1)), np.array([[value]]))[1][0, 0]
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
        "import numpy as np, hashlib; from flowbdt.flow.closed_form import PRECONDITIONERS as P;"
        "z = np.random.default_rng(0).normal(size=(30_000, 9));"
        "spec = {'name': 'mixture', 'n_components': 2, 'max_iter': 2};"
        "one = P.build(spec); one.n_threads = {};"
        "print(hashlib.sha256(one.fit(z, seed=0).to_bytes()).hexdigest())"
    )
    found = set()
    for threads in ("1", "2"):
        limits = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads)
        run = subprocess.run(
            [sys.executable, "-c", code.replace("{}", threads)],
            env={**os.environ, **limits},
            capture_output=True,
            text=True,
            check=True,
        )
        found.add(run.stdout)
    assert len(found) == 1


@pytest.mark.parametrize(("rows", "columns"), [(1500, 4), (4200, 50)])
def test_blocks_add_up_in_the_order_of_the_rows(rows: int, columns: int) -> None:
    y = np.random.default_rng(3).normal(size=(rows, columns))
    y[::7, 0] = np.nan
    settings = MixtureSettings(Full, 1, 2.0)
    data = [StandardisedRows(y, np.ones(rows), threads) for threads in (1, 4)]
    first = start(data[0].take(np.arange(200)), 3, settings, np.random.default_rng(0))
    one, four = (expectation(first, some) for some in data)
    np.testing.assert_array_equal(one[0], four[0])
    assert one[1] == four[1]


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
    weights = conditioning.softmax(np.array([[-1e9, -1e9 - 1.0], [-1e300, -1.0]]))
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


def test_number_of_gaussians_for_a_value_is_that_whose_draws_are_nearest_to_other_rows():
    rng = np.random.default_rng(3)
    codes = np.arange(240) % 2
    places = rng.normal(size=(2, 8, 12))  # eight places for each value
    y = places[codes, rng.integers(8, size=240)] + 0.02 * rng.normal(size=(240, 12))
    chosen = mixture_per_value.search(y, codes, 2, 1)
    assert chosen.n_components >= 8
    one = mixture_per_value.Complexity(1, 10.0)
    far = [mixture_per_value.transport(y, codes, 2, each, 1).mean() for each in (chosen, one)]
    assert far[0] < 0.7 * far[1]
    smooth = rng.normal(size=(240, 12)) + 3 * codes[:, None]
    assert mixture_per_value.search(smooth, codes, 2, 1).n_components <= 4
