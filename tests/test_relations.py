"""Exact relations: reading, evaluating, ordering, checking."""

from __future__ import annotations

import numpy as np
import pytest

from flowbdt.errors import ConfigError, InputError
from flowbdt.evaluation.evaluate import evaluate
from flowbdt.tables.event_table import EventTable
from flowbdt.tables.relations import Relation, order_relations

COLUMNS = {"a": np.array([4.0, 9.0]), "b": np.array([2.0, -3.0])}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("t = a + b * 2", [8.0, 3.0]),
        ("t = (a - b) / 2", [1.0, 6.0]),
        ("t = a ** 0.5", [2.0, 3.0]),
        ("t = -b", [-2.0, 3.0]),
        ("t = sqrt(a) + abs(b)", [4.0, 6.0]),
        ("t = log(exp(b))", [2.0, -3.0]),
        ("t = minimum(a, b) + maximum(b, 0)", [4.0, -3.0]),
        ("t = 2 ** 3 ** 1 * b", [16.0, -24.0]),
    ],
)
def test_expression_has_its_arithmetic_value(text, expected):
    np.testing.assert_allclose(Relation.parse(text).evaluate(COLUMNS), expected, rtol=1e-14)


def test_relation_knows_its_target_and_sources():
    relation = Relation.parse("tau21 = tau2 / tau1 + 0 * tau2")
    assert (relation.target, relation.sources) == ("tau21", ("tau1", "tau2"))


@pytest.mark.parametrize(
    "text",
    [
        "t = __import__('os')",
        "t = a.real",
        "t = a[0]",
        "t = [a]",
        "t = a if b else a",
        "t = lambda: a",
        "t = sum(a)",
        "t = sqrt(a, b)",
        "t = a % b",
        "t = a < b",
        "t = 'a'",
        "t = True * a",
        "t += a",
        "t = u = a",
        "t, u = a",
        "t = a; u = b",
        "a + b",
        "t = a +",
        "t = 3",
        "t = t + a",
        "",
        "t = a" + " + a" * 400,
        "t = " + "(" * 300 + "a" + ")" * 300,
    ],
)
def test_anything_but_plain_arithmetic_is_refused(text):
    with pytest.raises(ConfigError, match="relation"):
        Relation.parse(text)


def test_large_powers_do_not_hang():
    assert np.isinf(Relation.parse("t = a * 9 ** 9 ** 9").evaluate(COLUMNS)).all()


def test_undefined_results_are_not_finite_and_silent():
    values = Relation.parse("t = log(b) / (a - 9)").evaluate(COLUMNS)
    assert not np.isfinite(values[1])


def test_relations_are_ordered_by_need():
    ordered = order_relations(["z = y + x", "y = 2 * x", "w = z - y"], ["w", "x", "y", "z"])
    assert [relation.target for relation in ordered] == ["y", "z", "w"]


def test_a_circle_of_relations_is_refused():
    with pytest.raises(ConfigError, match="circle.*x = y"):
        order_relations(["x = y + z", "y = 2 * x"], ["x", "y", "z"])


def test_two_relations_for_one_column_are_refused():
    with pytest.raises(ConfigError, match="target of two relations"):
        order_relations(["z = x", "z = y"], ["x", "y", "z"])


@pytest.mark.parametrize("text", ["zz = x", "z = xx + y"])
def test_unknown_columns_are_refused_with_the_known_ones(text):
    with pytest.raises(ConfigError, match="Known: x, y, z"):
        order_relations([text], ["x", "y", "z"])


def table(ratio_error: float = 0.0) -> EventTable:
    rng = np.random.default_rng(0)
    x, y = rng.uniform(1, 2, 50), rng.uniform(1, 2, 50)
    ratio = y / x
    ratio[7] *= 1 + ratio_error
    return EventTable.of(np.column_stack([x, y, ratio]), ["x", "y", "r"])


def test_check_returns_the_largest_deviation():
    deviation = Relation.parse("r = y / x").check(table(5e-5))
    assert deviation == pytest.approx(5e-5, rel=1e-3)


def test_check_names_relation_row_and_deviation():
    with pytest.raises(InputError, match=r"'r = y / x' does not hold: in row 7.*0\.001"):
        Relation.parse("r = y / x").check(table(1e-3))


def test_check_refuses_rows_where_the_relation_is_undefined():
    bad = EventTable.of(np.array([[1.0, 1.0, 1.0], [0.0, 1.0, 0.0]]), ["x", "y", "r"])
    with pytest.raises(InputError, match="undefined in 1 row .first: row 1."):
        Relation.parse("r = y / x").check(bad)


def test_a_relation_of_a_condition_is_refused_in_these_words():
    with pytest.raises(ConfigError, match="'b' is a condition"):
        order_relations(["a = b / c"], ["a", "c"], ["b"])


def test_evaluation_names_a_column_of_a_relation_that_is_not_there_before_any_metric():
    rows = np.random.default_rng(0).normal(size=(2, 50, 2))
    with pytest.raises(ConfigError, match=r"unknown column 'y'.*Known: x0, x1"):
        evaluate(rows[0], rows[1], relations=["x0 = y + x1"])
