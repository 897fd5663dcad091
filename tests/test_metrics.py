"""Metrics against closed forms, and their errors against the spread of repetitions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from flowbdt.errors import InputError
from flowbdt.evaluation.metrics import (
    Result,
    classifier_auc,
    correlation_distance,
    correlation_matrix,
    largest_correlation_error,
    make_mlp,
    memorisation,
    quantile_edges,
    relation_deviation,
    separation_power,
    uncertain,
    wasserstein,
)
from flowbdt.evaluation.metrics.base import METRICS, auc_error
from flowbdt.evaluation.metrics.classifier import MlpJudge
from flowbdt.tables.formulas.relations import Relation
from flowbdt.trees.boosted_trees import make_classifier


def logistic(seed: int) -> LogisticRegression:
    return LogisticRegression(random_state=seed)


def tiny_mlp(seed: int) -> MlpJudge:
    return make_mlp(seed, hidden=(16,), max_iter=30)


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


# ---- separation power


def test_separation_of_disjoint_samples_is_100() -> None:
    result = separation_power(normal(1, 500), normal(2, 500) + 100, edges=np.array([-9, 50, 200]))
    assert result.value == pytest.approx(100.0)


def test_separation_matches_its_formula_on_given_edges() -> None:
    real = np.repeat([0.5, 1.5], [30, 10])  # shares 3/4, 1/4
    generated = np.repeat([0.5, 1.5], [10, 10])  # shares 1/2, 1/2
    result = separation_power(real, generated, edges=np.array([0.0, 1.0, 2.0]))
    assert result.value == pytest.approx(50 * (0.25**2 / 1.25 + 0.25**2 / 0.75))


def test_events_outside_given_edges_count_in_the_outer_bins() -> None:
    inside, outside = np.array([0.5, 1.5]), np.array([-7.0, 99.0])
    assert separation_power(inside, outside, edges=np.array([0.0, 1.0, 2.0])).value == 0.0


def test_quantile_bins_hold_equal_shares() -> None:
    x = normal(1, 1000)
    counts = np.histogram(x, quantile_edges(x, 50))[0]
    assert len(counts) == 50
    assert np.abs(counts - 20).max() <= 1


def test_repeated_values_merge_bins() -> None:
    assert len(quantile_edges(np.repeat([0.0, 1.0], 100), 50)) - 1 <= 3


def test_separation_floor_is_bins_over_twice_the_events() -> None:
    n, repeats = 2000, 60
    results = [separation_power(normal(2 * i, n), normal(2 * i + 1, n)) for i in range(repeats)]
    values = np.array([result.value for result in results])
    expected = 100 * 49 / (2 * n)
    assert results[0].settings["expected_floor"] == pytest.approx(expected)
    assert abs(values.mean() - expected) < 5 * values.std(ddof=1) / np.sqrt(repeats)


@pytest.mark.parametrize("shift", [0.0, 0.15])
@pytest.mark.parametrize("metric", [separation_power, wasserstein])
def test_error_is_the_spread_of_independent_repetitions(metric, shift: float) -> None:  # type: ignore[no-untyped-def]
    repeats = 60
    results = [
        metric(normal(2 * i, 1000), normal(2 * i + 1, 1000) + shift, seed=i) for i in range(repeats)
    ]
    spread = np.std([result.value for result in results], ddof=1)
    claimed = np.array([result.error for result in results])
    tolerance = 5 * np.hypot(spread / np.sqrt(2 * repeats), claimed.std() / np.sqrt(repeats))
    assert abs(claimed.mean() - spread) < tolerance


# ---- Wasserstein-1


def test_wasserstein_of_a_shift_is_the_shift() -> None:
    x = 3.0 * normal(1, 400)
    result = wasserstein(x, x + 1.5, raw=True)
    assert result.value == pytest.approx(1.5)
    assert wasserstein(x, x + 1.5).value == pytest.approx(1.5 / x.std())
    assert result.settings["standardised"] == pytest.approx(1.5 / x.std())


def test_wasserstein_agrees_with_scipy_on_weighted_samples() -> None:
    from scipy.stats import wasserstein_distance

    rng = np.random.default_rng(4)
    a, b, u, v = rng.normal(size=300), rng.exponential(size=200), rng.random(300), rng.random(200)
    ours = wasserstein(a, b, weight_real=u, weight_generated=v, raw=True).value
    assert ours == pytest.approx(wasserstein_distance(a, b, u, v))


# ---- correlations


def test_correlation_matrix_agrees_with_numpy() -> None:
    x = normal(1, 200, 3) @ normal(2, 3, 3)
    np.testing.assert_allclose(correlation_matrix(x), np.corrcoef(x.T), atol=1e-12)


def test_constant_column_correlates_with_nothing() -> None:
    x = np.column_stack([normal(1, 100), np.full(100, 0.1)])
    np.testing.assert_array_equal(correlation_matrix(x), np.eye(2))


def test_correlation_errors_of_a_flipped_column_in_closed_form() -> None:
    x = np.column_stack([normal(1, 300), normal(2, 300)])
    x[:, 1] = 0.8 * x[:, 0] + 0.6 * x[:, 1]
    r = np.corrcoef(x.T)[0, 1]
    flipped = x * [1.0, -1.0]
    assert largest_correlation_error(x, flipped).value == pytest.approx(2 * r)
    assert correlation_distance(x, flipped).value == pytest.approx(2 * r * np.sqrt(2))
    assert sorted(largest_correlation_error(x, flipped).settings["pair"]) == [0, 1]


def test_correlation_error_covers_the_spread_of_repetitions() -> None:
    results = [
        correlation_distance(normal(2 * i, 400, 4), normal(2 * i + 1, 400, 4), seed=i)
        for i in range(60)
    ]
    spread = np.std([r.value for r in results], ddof=1)
    claimed = np.array([r.error for r in results])
    tolerance = 5 * np.hypot(spread / np.sqrt(120), claimed.std() / np.sqrt(60))
    assert abs(claimed.mean() - spread) < tolerance


# ---- classifier two-sample tests


@pytest.mark.parametrize("make", [logistic, tiny_mlp])
def test_classifier_cannot_tell_equal_distributions_apart(make) -> None:  # type: ignore[no-untyped-def]
    result = classifier_auc(normal(1, 600, 3), normal(2, 600, 3), make, n_model_seeds=2)
    assert abs(result.value - 0.5) < 5 * result.error
    assert 0.0 < result.error < 0.05


@pytest.mark.parametrize("make", [logistic, tiny_mlp])
def test_classifier_tells_disjoint_samples_apart(make) -> None:  # type: ignore[no-untyped-def]
    result = classifier_auc(normal(1, 900, 2), normal(2, 900, 2) + 20, make, n_model_seeds=1)
    assert result.value > 0.999
    assert result.error > 0.0


def test_auc_of_a_shift_is_its_closed_form() -> None:
    """For unit normals a distance s apart the best AUC is Phi(s / sqrt 2)."""
    from scipy.stats import norm

    result = classifier_auc(normal(1, 4000, 1), normal(2, 4000, 1) + 1.0, logistic, n_model_seeds=1)
    assert abs(result.value - norm.cdf(1 / np.sqrt(2))) < 5 * result.error


def test_auc_error_is_the_spread_of_independent_samples() -> None:
    repeats = 80
    results = [
        classifier_auc(
            normal(2 * i, 300, 1), normal(2 * i + 1, 300, 1) + 1.0, logistic, n_model_seeds=1
        )
        for i in range(repeats)
    ]
    spread = np.std([r.value for r in results], ddof=1)
    claimed = np.mean([r.error for r in results])
    assert abs(claimed - spread) < 5 * spread / np.sqrt(2 * repeats)


def test_weights_that_undo_a_distortion_hide_it_from_the_classifier() -> None:
    real, generated = normal(1, 4000, 1), normal(2, 4000, 1) + 0.5
    undo = np.exp(0.5**2 / 2 - 0.5 * generated[:, 0])  # ratio of the two densities
    weighted = classifier_auc(real, generated, logistic, weight_generated=undo, n_model_seeds=1)
    plain = classifier_auc(real, generated, logistic, n_model_seeds=1)
    assert plain.value > 0.55
    assert abs(weighted.value - 0.5) < 5 * weighted.error


def test_auc_repetitions_are_recorded_by_split_and_model() -> None:
    result = classifier_auc(
        normal(1, 60, 2), normal(2, 60, 2), tiny_mlp, n_model_seeds=3, n_split_seeds=2
    )
    aucs = np.array(result.settings["aucs"])
    assert aucs.shape == (2, 3)
    assert result.value == pytest.approx(aucs.mean(), abs=1e-5)
    assert result.settings["standard_error"] == pytest.approx(
        aucs.std(ddof=1) / np.sqrt(6), abs=1e-5
    )
    assert aucs.std() > 0


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_trees_that_draw_nothing_are_fitted_once_for_all_model_seeds(share: float) -> None:
    made = []

    def trees(seed: int) -> Any:
        made.append(make_classifier(seed, n_trees=3, subsample=share))
        return made[-1]

    result = classifier_auc(
        normal(1, 60, 2), normal(2, 60, 2) + 0.5, trees, n_model_seeds=3, n_split_seeds=2
    )
    fitted = [judge for judge in made if hasattr(judge, "booster")]
    assert len(fitted) == (2 if share == 1.0 else 6)
    aucs = np.array(result.settings["aucs"])
    assert (np.ptp(aucs, axis=1) == 0).all() == (share == 1.0)
    if share == 1.0:  # the same as if each were fitted
        each = classifier_auc(
            normal(1, 60, 2), normal(2, 60, 2) + 0.5, lambda _: trees(7), n_model_seeds=1,
            n_split_seeds=2,
        )  # fmt: skip
        assert [row[0] for row in each.settings["aucs"]] == aucs[:, 0].tolist()


def test_judge_settings_are_those_of_the_protocol() -> None:
    judge = make_mlp(3).fit(normal(1, 60, 2), np.repeat([0, 1], 30))
    network = judge.network_
    assert (network.hidden_layer_sizes, network.max_iter) == ((128, 64), 60)
    assert network.early_stopping
    assert network.random_state == 3


def test_auc_error_of_integer_scores_counts_ties_half() -> None:
    ones = np.ones(50)
    assert auc_error(ones, ones, ones, ones) == pytest.approx(
        0.01
    )  # all placements 1/2: resolution


def test_too_few_events_for_a_classifier_are_refused() -> None:
    with pytest.raises(InputError, match="at least 10 events"):
        classifier_auc(normal(1, 5, 2), normal(2, 50, 2), logistic)


# ---- memorisation


def test_copies_of_training_events_are_found() -> None:
    training = normal(1, 500, 3)
    result = memorisation(normal(2, 200, 3), training[:200], training)
    assert result.value == 1.0
    assert result.error > 0


def test_independent_events_are_no_copies() -> None:
    result = memorisation(normal(2, 800, 3), normal(3, 800, 3), normal(1, 500, 3))
    assert abs(result.value - 0.5) < 5 * result.error


def test_events_far_outside_lie_below_one_half() -> None:
    assert memorisation(normal(2, 200, 2), normal(3, 200, 2) + 50, normal(1, 200, 2)).value < 0.01


def test_memorisation_does_not_depend_on_units() -> None:
    real, generated, training = normal(2, 100, 2), normal(3, 100, 2), normal(1, 300, 2)
    scale = np.array([1e6, 1e-3])
    plain = memorisation(real, generated, training)
    scaled = memorisation(real * scale, generated * scale, training * scale)
    assert scaled.value == pytest.approx(plain.value, abs=1e-6)


def test_memorisation_looks_up_no_more_events_than_asked() -> None:
    result = memorisation(normal(2, 300, 2), normal(3, 300, 2), normal(1, 300, 2), max_events=100)
    assert result.n == 100


# ---- relations


def test_relation_deviation_is_relative() -> None:
    columns = {"x": np.array([1.0, 2.0, 4.0]), "y": np.array([2.0, 4.0, 8.8])}
    result = relation_deviation(columns, Relation.parse("y = 2 * x"))
    assert result.value == pytest.approx(0.8 / 8.8)
    assert result.column == "y"


def test_exact_relation_deviates_by_zero() -> None:
    columns = {"x": normal(1, 50), "y": normal(2, 50)}
    columns["z"] = columns["x"] / columns["y"]
    result = relation_deviation(columns, Relation.parse("z = x / y"))
    assert (result.value, result.error) == (0.0, 0.0)


def test_relation_that_cannot_be_computed_counts_as_two() -> None:
    columns = {"x": np.array([1.0, 1.0]), "y": np.array([0.0, 1.0]), "z": np.array([1.0, 1.0])}
    assert relation_deviation(columns, Relation.parse("z = x / y")).value == 2.0


def test_error_of_a_maximum_is_that_of_a_bootstrap() -> None:
    y = np.abs(normal(1, 200)) + 1
    columns = {"x": np.ones(200), "y": y}
    claimed = relation_deviation(columns, Relation.parse("y = x")).error
    deviation = (y - 1) / y
    rng = np.random.default_rng(2)
    maxima = deviation[rng.integers(0, 200, (4000, 200))].max(axis=1)
    assert claimed == pytest.approx(maxima.std(), rel=5 / np.sqrt(4000))


# ---- results


def test_result_survives_json() -> None:
    import json

    result = separation_power(normal(1, 100), normal(2, 100)).with_floor(
        separation_power(normal(1, 100), normal(3, 100))
    )
    assert Result(**json.loads(json.dumps(result.to_json()))) == result


def test_excess_counts_combined_standard_errors() -> None:
    assert Result("m", 5.0, 3.0, 10, floor=0.0, floor_error=4.0).excess == pytest.approx(1.0)
    assert Result("m", 5.0, 3.0, 10).excess is None
    assert Result("relation", 6e-8, 1e-9, 10, floor=7e-8, floor_error=1e-9).excess is None
    assert Result("relation", 0.1, 3e-9, 10, floor=7e-8, floor_error=4e-9).excess > 1e6


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (0.09823, 0.0058, "0.0982 ± 0.0058"),
        (1234.5, 21.0, "1234 ± 21"),
        (3.21e-7, 1.2e-8, "3.21e-07 ± 1.2e-08"),
        (0.0, 0.0, "0 ± 0"),
    ],
)
def test_numbers_are_written_to_two_digits_of_the_error(
    value: float, error: float, text: str
) -> None:
    assert uncertain(value, error) == text


def test_registry_lists_the_metrics_and_their_options() -> None:
    assert "separation" in METRICS.names()
    assert METRICS.get("separation").options() == ["n_bins", "edges", "n_bootstrap"]


@pytest.mark.parametrize("unit", [1e-320, 1e-200, 1e-46, 1e39, 1e200, 1e300])
def test_the_unit_of_weights_changes_no_score(unit: float) -> None:
    """Sums and squares of weights may neither overflow nor vanish."""
    real, made = normal(1, 300, 2), normal(2, 300, 2) + 0.3
    weight = np.random.default_rng(3).integers(1, 5, 300).astype(float)
    for name in ("separation", "wasserstein", "correlation_distance", "auc_gb"):
        metric = METRICS.get(name)
        x, y = (real[:, 0], made[:, 0]) if metric.kind == "column" else (real, made)
        arguments = (x, y, logistic) if metric.kind == "classifier" else (x, y)
        plain, scaled = (
            metric(*arguments, weight_real=w, weight_generated=w) for w in (weight, weight * unit)
        )
        assert scaled.value == pytest.approx(plain.value, rel=1e-3), name
        assert scaled.error == pytest.approx(plain.error, rel=1e-3), name
