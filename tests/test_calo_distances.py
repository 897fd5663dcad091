"""FPD, KPD, neighbours and log posteriors of showers, each against a plain computation."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from flowbdt.errors import InputError
from flowbdt.evaluation.metrics.classifier import log_posteriors
from flowbdt.evaluation.metrics.joint import frechet_distance, kernel_distance
from flowbdt.evaluation.metrics.neighbours import expected_coverage, neighbour_scores
from flowbdt.physics import toy_showers
from flowbdt.physics.calorimeter.scores.features import high_level_features
from flowbdt.physics.calorimeter.scores.shower_judges import (
    high_level_inputs,
    neighbour_inputs,
    shower_fpd,
    shower_kpd,
)

# ---- FPD and KPD


def features(seed, n=300, cheap=False):
    return high_level_features(toy_showers("photons", n, seed, cheap))


def scaled(real, new):
    x, y = high_level_inputs(real), high_level_inputs(new)
    largest = np.abs(x).max(axis=0)
    largest[largest == 0] = 1.0
    return x / largest, y / largest


def plain_frechet(x, y):
    """|m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)) by the matrix root itself."""
    from scipy.linalg import sqrtm

    first, second = (np.cov(part, rowvar=False) for part in (x, y))
    shift = x.mean(axis=0) - y.mean(axis=0)
    return shift @ shift + np.trace(first + second - 2 * np.real(sqrtm(first @ second)))


def test_fpd_is_the_line_through_frechet_distances_followed_to_infinity():
    real, new = features(1), features(2, cheap=True)
    x, y = scaled(real, new)
    sizes = (1 / np.linspace(1 / 150, 1 / 300, 10)).astype(int)
    rng, means = np.random.default_rng(42), []
    for size in sizes:
        draws = []
        for _ in range(3):
            first = x[rng.choice(len(x), size=size)]
            draws.append(plain_frechet(first, y[rng.choice(len(y), size=size)]))
        means.append(np.mean(draws))
    slope, intercept = np.polyfit(1 / sizes, means, 1)
    result = shower_fpd(real, new, min_samples=150, max_samples=300, n_batches=3)
    assert slope >= 0
    assert result.value == pytest.approx(intercept, rel=1e-4)


def test_kpd_is_the_median_of_the_unbiased_discrepancies_of_draws():
    real, new = features(1, 60), features(2, 50, cheap=True)
    x, y = scaled(real, new)
    values = []
    for i in range(3):
        rng = np.random.default_rng(42 + 1000 * i)
        a, b = (part[rng.choice(len(part), size=20)] for part in (x, y))
        parts = [0.0, 0.0, 0.0]
        for j in range(20):
            for k in range(20):
                parts[2] += (a[j] @ b[k] / 30 + 1) ** 4 / 400
                if j != k:
                    parts[0] += (a[j] @ a[k] / 30 + 1) ** 4 / 380
                    parts[1] += (b[j] @ b[k] / 30 + 1) ** 4 / 380
        values.append(parts[0] + parts[1] - 2 * parts[2])
    result = shower_kpd(real, new, batch_size=20, n_batches=3)
    assert result.value == pytest.approx(np.median(values), rel=1e-9)


def test_the_official_settings_are_the_default(monkeypatch):
    from flowbdt.physics.calorimeter.scores import shower_judges

    asked = []
    for name in ("frechet_distance", "kernel_distance"):
        monkeypatch.setattr(shower_judges, name, lambda *_, **options: asked.append(options))
    shower_fpd(features(1, 5), features(2, 5))
    shower_kpd(features(1, 5), features(2, 5))
    assert asked == [{"min_samples": 10_000}, {"batch_size": 10_000}]
    limits = [frechet_distance.__kwdefaults__, kernel_distance.__kwdefaults__]
    assert [limits[0]["max_samples"], limits[0]["n_points"], limits[0]["n_batches"]] == [
        50_000, 10, 20
    ]  # fmt: skip
    assert limits[1]["n_batches"] == 10


def test_fpd_agrees_with_jetnet():
    """`jetnet.evaluation.fpd` 0.2.5 with min_samples=10000 on these numbers, run once."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(1500, 6)) * np.arange(1, 7)
    y = rng.normal(size=(1300, 6)) * np.arange(1, 7) * 1.05 + 0.1
    result = frechet_distance(x, y, min_samples=10_000)
    assert result.value == pytest.approx(0.0048820144943725755, rel=1e-6)
    assert result.error == pytest.approx(8.148237609469807e-05, rel=1e-4)


# ---- precision, recall, density, coverage


def plain_neighbours(real, new, k):
    """As the definitions say, pair by pair."""

    def distance(a, b):
        return math.dist(a, b)

    def radii(x):
        return [sorted(distance(a, b) for b in x)[k] for a in x]  # the nearest is itself

    real_radius, new_radius = radii(real), radii(new)
    inside = [sum(distance(a, b) < r for a, r in zip(real, real_radius, strict=True)) for b in new]
    return {
        "precision": np.mean([n > 0 for n in inside]),
        "recall": np.mean(
            [any(distance(a, b) < r for b, r in zip(new, new_radius, strict=True)) for a in real]
        ),
        "density": np.mean(inside) / k,
        "coverage": np.mean(
            [
                any(distance(a, b) < r for b in new)
                for a, r in zip(real, real_radius, strict=True)
            ]
        ),
    }  # fmt: skip


@pytest.mark.parametrize("block", [16_000_000, 100])
@pytest.mark.parametrize("k", [1, 5])
def test_neighbour_scores_are_those_of_the_definitions(k, block, monkeypatch):
    from flowbdt.evaluation.metrics import neighbours

    monkeypatch.setattr(neighbours, "BLOCK", block)
    rng = np.random.default_rng(k)
    real, new = rng.normal(size=(40, 3)), 0.8 * rng.normal(size=(30, 3)) + 0.3
    found = {one.name: one.value for one in neighbour_scores(real, new, k)}
    assert found == pytest.approx(plain_neighbours(real, new, k))


def test_two_samples_of_one_distribution_have_the_predicted_density_and_coverage():
    n, m, k, repeats = 60, 40, 3, 40
    rng = np.random.default_rng(0)
    found = [
        {r.name: r.value for r in neighbour_scores(*(rng.normal(size=(s, 2)) for s in (n, m)), k)}
        for _ in range(repeats)
    ]
    for name, expected in (("density", 1.0), ("coverage", expected_coverage(n, m, k))):
        values = [one[name] for one in found]
        error = np.std(values, ddof=1) / math.sqrt(repeats)
        assert abs(np.mean(values) - expected) < 5 * error


def test_coverage_of_one_event_by_one_other_is_a_matter_of_ranks():
    """With k = n - 1 all own events are nearer unless a new one comes before the last."""
    assert expected_coverage(2, 1, 1) == pytest.approx(0.5)
    assert expected_coverage(3, 1, 2) == pytest.approx(1 - 2 / 3 * 1 / 2)


def test_copies_are_covered_and_what_is_far_away_is_not():
    real = np.random.default_rng(1).normal(size=(50, 4))
    same = {one.name: one.value for one in neighbour_scores(real, real)}
    assert (same["precision"], same["recall"], same["coverage"]) == (1.0, 1.0, 1.0)
    far = {one.name: one.value for one in neighbour_scores(real, real + 100)}
    assert set(far.values()) == {0.0}
    assert all(one.error > 0 for one in neighbour_scores(real, real + 100))


def test_neighbours_of_showers_are_sought_in_logarithms_with_a_tenth_of_an_mev_for_nothing():
    showers = toy_showers("photons", 4, seed=1)
    x = neighbour_inputs(showers)
    expected = np.where(showers.voxels < 1, 0.1, showers.voxels.astype(np.float64))
    np.testing.assert_allclose(x, np.log10(expected), rtol=1e-6)


def test_too_few_events_for_k_neighbours_are_refused():
    x = np.zeros((5, 2))
    with pytest.raises(InputError, match="k = 5"):
        neighbour_scores(x, x)
    with pytest.raises(InputError, match="at least 1"):
        neighbour_scores(x, x, k=0)


# ---- several generators


def make_lda(seed):
    return LinearDiscriminantAnalysis()


def test_log_posteriors_of_shifted_gaussians_have_their_closed_form():
    """With equal covariances the posterior of a generator is a softmax of linear functions."""
    rng, n = np.random.default_rng(3), 4000
    means = {"near": 0.2, "far": 1.0, "farther": -1.5}
    samples = {name: rng.normal(size=(n, 2)) + shift for name, shift in means.items()}
    truth = rng.normal(size=(n, 2))
    density = np.stack([-0.5 * ((truth - shift) ** 2).sum(axis=1) for shift in means.values()])
    exact = density - np.log(np.exp(density).sum(axis=0))
    results = log_posteriors(truth, samples, make_lda, n_runs=2)
    assert [one.column for one in results] == list(means)
    for one, row in zip(results, exact, strict=True):
        # coefficients of the judge have errors of about 1 / sqrt(n), too
        assert abs(one.value - row.mean()) < 5 * (one.error + 1 / math.sqrt(n))
        assert one.settings["own"] > one.settings["blind"] - 0.05
    assert results[0].value > results[1].value > results[2].value


def test_equal_generators_get_the_log_posterior_of_a_blind_judge():
    rng = np.random.default_rng(4)
    samples = {name: rng.normal(size=(2000, 2)) for name in "ab"}
    for one in log_posteriors(rng.normal(size=(2000, 2)), samples, make_lda):
        assert one.settings["blind"] == pytest.approx(-math.log(2))
        assert one.value == pytest.approx(-math.log(2), abs=0.01)


def test_a_single_generator_and_small_samples_are_refused():
    x = np.zeros((30, 2))
    with pytest.raises(InputError, match="two or more"):
        log_posteriors(x, {"a": x}, make_lda)
    with pytest.raises(InputError, match="at least 20"):
        log_posteriors(x, {"a": x, "b": x[:5]}, make_lda)


def test_two_halves_of_a_sample_are_at_the_floor_in_everything():
    showers = toy_showers("photons", 600, seed=9)
    halves = showers.take(slice(0, 300)), showers.take(slice(300, None))
    far = replace(halves[1], voxels=np.roll(halves[1].voxels, 7, axis=1))
    first, second, other = (high_level_features(one) for one in (*halves, far))
    few = {"batch_size": 200, "n_batches": 5}
    near = shower_kpd(first, second, **few)
    assert abs(near.value) < 5 * near.error
    assert shower_kpd(first, other, **few).value > near.value + 5 * near.error
    found = {r.name: r for r in neighbour_scores(*(neighbour_inputs(one) for one in halves))}
    expected = found["coverage"].settings["expected_floor"]
    assert abs(found["coverage"].value - expected) < 5 * found["coverage"].error
    assert abs(found["density"].value - 1) < 5 * found["density"].error
