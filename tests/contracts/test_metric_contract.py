"""What every registered metric must do."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from flowbdt.errors import InputError
from flowbdt.evaluation.metrics import METRICS, Metric, Result
from flowbdt.tables.formulas.relations import Relation
from flowbdt.trees.boosted_trees import ColumnModel

TRAINING = np.random.default_rng(100).normal(size=(300, 2))
RELATION = Relation.parse("b = 2 * a")

Call = Callable[..., Result]


@pytest.fixture(params=METRICS.names())
def metric(request: pytest.FixtureRequest) -> Metric:
    return METRICS.get(request.param)


def caller(metric: Metric) -> Call:
    """Give every kind the same signature: two arrays (n, 2), weights, seed."""

    def call(real: np.ndarray, generated: np.ndarray, **options: Any) -> Result:
        if metric.kind in ("column", "pairs"):
            return metric(real[:, 0], generated[:, 0], **options)
        if metric.kind == "classifier":
            return metric(real, generated, lambda seed: LogisticRegression(), **options)
        if metric.kind == "memorisation":
            return metric(real, generated, TRAINING, **options)
        if metric.kind == "relation":
            columns = {"a": real[:, 0], "b": 2 * real[:, 0] + generated[:, 0] - real[:, 0]}
            return metric(columns, RELATION, weight=options.get("weight_generated"))
        if metric.kind == "profiles":
            return metric(*real.T[:1], *generated.T[:1], real[:, 1], generated[:, 1], **options)
        if metric.kind == "tags":
            tags = (real[:, 1] > 0, generated[:, 1] > 0)
            return metric(real[:, 0], generated[:, 0], *tags, **options)
        if metric.kind == "residual":
            judge = lambda seed: LogisticRegression()  # noqa: E731
            return metric(real, generated, TRAINING, judge, ColumnModel, **options)[0]
        if metric.kind == "lost":
            return metric(real, generated, None, ColumnModel, **options)[0]
        return metric(real, generated, **options)

    return call


JUDGES = ("classifier", "residual", "lost")
"""Kinds of metrics that split events at random."""


def events(seed: int, n: int = 200) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 2))


def test_identical_samples_give_no_difference(metric: Metric) -> None:
    x = events(1)
    result = caller(metric)(x, x)
    tolerance = 5 * result.error if metric.kind in JUDGES else 1e-12
    assert abs(result.value - metric.same) <= tolerance


def test_different_samples_give_a_difference(metric: Metric) -> None:
    result = caller(metric)(events(1), events(2) * [2.0, 1.0] + events(2)[:, ::-1] + 1.0)
    assert abs(result.value - metric.same) > 0.02


def test_order_of_events_changes_nothing(metric: Metric) -> None:
    if metric.kind in (*JUDGES, "relation"):
        pytest.skip("splits go by row; relations compare within rows")
    real, generated = events(1), events(2)
    rng = np.random.default_rng(3)
    mixed = caller(metric)(rng.permutation(real), rng.permutation(generated))
    assert mixed.value == pytest.approx(caller(metric)(real, generated).value, abs=1e-12)


def test_integer_weights_equal_repeated_events(metric: Metric) -> None:
    if metric.kind in JUDGES:
        pytest.skip("copies of one event would fall on both sides of the split")
    real, generated = events(1), events(2)
    weight = np.random.default_rng(3).integers(0, 4, size=(2, len(real)))
    if metric.kind == "relation":
        weight[0] = weight[1]
    repeated = caller(metric)(
        np.repeat(real, weight[0], axis=0), np.repeat(generated, weight[1], axis=0)
    )
    weighted = caller(metric)(real, generated, weight_real=weight[0], weight_generated=weight[1])
    assert weighted.value == pytest.approx(repeated.value, abs=1e-12)


def test_every_result_has_an_error_and_fits_into_json(metric: Metric) -> None:
    result = caller(metric)(events(1), events(2))
    assert np.isfinite(result.error)
    assert result.error > 0
    assert result.n == 200
    assert json.loads(json.dumps(result.to_json()))["value"] == result.value


def test_same_seed_same_result(metric: Metric) -> None:
    assert caller(metric)(events(1), events(2)) == caller(metric)(events(1), events(2))


def test_arrays_are_left_alone(metric: Metric) -> None:
    real, generated = events(1), events(2)
    caller(metric)(real, generated)
    np.testing.assert_array_equal(real, events(1))
    np.testing.assert_array_equal(generated, events(2))


def test_nan_is_refused(metric: Metric) -> None:
    if metric.kind == "relation":
        pytest.skip("a relation that cannot be computed counts as the largest deviation")
    broken = events(2)
    broken[7, 0] = np.nan
    with pytest.raises(InputError, match="row 7"):
        caller(metric)(events(1), broken)
