"""`EventTable`: what it accepts, what it refuses and says, and that no step changes its input."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from flowbdt.errors import DataWarning, InputError
from flowbdt.tables.event_table import EventTable


def _table(n: int = 4) -> EventTable:
    x = np.arange(3.0 * n).reshape(n, 3)
    return EventTable.of(x, ["a", "b", "c"], units={"a": "GeV"}, cond=np.arange(n), weight=x[:, 1])


def test_frame_keeps_names_types_and_categories():
    frame = pd.DataFrame(
        {
            "pt": np.array([1.5, 2.5], dtype=np.float32),
            "n": np.array([3, 4], dtype=np.int16),
            "flag": [True, False],
            "kind": ["pion", "electron"],
        }
    )
    table = EventTable.of(frame, units={"pt": "GeV"})
    assert table.names == ("pt", "n", "flag", "kind")
    assert table.units == ("GeV", "", "", "")
    assert table.dtypes == ("float32", "int16", "bool", "int64")
    assert table.categories == {"kind": ("electron", "pion")}
    assert table.x.dtype == np.float64
    back = table.to_frame()
    pd.testing.assert_frame_equal(
        back[["pt", "n", "flag"]], frame[["pt", "n", "flag"]], check_exact=True
    )
    assert list(back["kind"]) == ["pion", "electron"]


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("Int32", "int32"),
        ("Float32", "float32"),
        ("boolean", "bool"),
        ("int64[pyarrow]", "int64"),
        ("double[pyarrow]", "float64"),
    ],
)
def test_nullable_columns_come_back_as_plain_numpy_types(dtype, expected):
    if "pyarrow" in dtype:
        pytest.importorskip("pyarrow")
    table = EventTable.of(pd.DataFrame({"v": pd.Series([1, 0, 1], dtype=dtype)}))
    assert table.dtypes == (expected,)
    assert table.typed("v").dtype == np.dtype(expected)
    np.testing.assert_array_equal(table.x[:, 0], [1.0, 0.0, 1.0])


def test_pandas_categories_keep_their_order():
    column = pd.Categorical(["high", "low"], categories=["low", "middle", "high"])
    table = EventTable.of(pd.DataFrame({"level": column}))
    assert table.categories["level"] == ("low", "middle", "high")
    np.testing.assert_array_equal(table.x[:, 0], [2.0, 0.0])


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (np.zeros(3), "2-d"),
        (np.zeros((3, 0)), "minimum of 1"),
        (np.zeros((3, 2), dtype=complex), "Complex"),
        (np.array([["a", "b"]]), "numbers"),
        (np.array([[1.0, np.nan]]), "x1"),
        (np.array([[np.inf, 1.0]]), "x0"),
        (pd.DataFrame({"v": [1.0, None]}), "'v'"),
        (pd.DataFrame({"v": ["a", None]}), "missing"),
        (pd.DataFrame({"v": pd.to_datetime(["2024-01-01"])}), "times"),
        (pd.DataFrame({"v": [1j]}), "Complex"),
        (pd.DataFrame([[1.0, 2.0]], columns=["v", "v"]), "repeated: v"),
    ],
)
def test_bad_tables_are_refused_with_a_reason(data, text):
    with pytest.raises(InputError, match=text):
        EventTable.of(data)


def test_sparse_matrix_is_refused_by_name():
    sparse = pytest.importorskip("scipy.sparse")
    with pytest.raises(InputError, match="sparse"):
        EventTable.of(sparse.csr_array(np.eye(3)))


def test_integers_that_float64_cannot_hold_are_warned_about():
    column = np.array([[2**60 + 1], [5]])
    with pytest.warns(DataWarning, match="2\\*\\*53"):
        EventTable.of(column)


def test_largest_exact_integers_are_silent():
    table = EventTable.of(np.array([[2**53], [-(2**53)]]))
    np.testing.assert_array_equal(table.typed("x0"), [2**53, -(2**53)])


def test_conditions_of_another_length_are_refused():
    with pytest.raises(InputError, match="3 events, 2 rows"):
        EventTable.of(np.zeros((3, 1)), cond=np.zeros(2))


def test_missing_conditions_are_nan_and_infinite_ones_refused():
    frame = pd.DataFrame({"kind": ["b", None, "a"], "energy": [1.0, 2.0, np.nan]})
    table = EventTable.of(np.zeros((3, 1)), cond=frame)
    np.testing.assert_array_equal(table.cond, [[1.0, 1.0], [np.nan, 2.0], [0.0, np.nan]])
    assert table.categories == {"kind": ("a", "b")}
    with pytest.raises(InputError, match="infinite"):
        EventTable.of(np.zeros((1, 1)), cond=[[np.inf]])


def test_series_of_texts_is_one_condition_with_its_name():
    table = EventTable.of(np.zeros((2, 1)), cond=pd.Series(["q", "g"], name="jet"))
    assert table.cond_names == ("jet",)
    assert table.categories == {"jet": ("g", "q")}


def test_adding_conditions_leaves_the_first_table_as_it_was():
    first = EventTable.of(pd.DataFrame({"kind": ["a", "b"]}))
    second = EventTable.of(first, cond=pd.DataFrame({"side": ["left", "right"]}))
    assert set(first.categories) == {"kind"}
    assert set(second.categories) == {"kind", "side"}


@pytest.mark.parametrize("bad", [[1.0, -1.0], [0.0, 0.0], [1.0, np.nan], [1.0, 1.0, 1.0]])
def test_impossible_weights_are_refused(bad):
    with pytest.raises(InputError, match="eight"):
        EventTable.of(np.zeros((2, 1)), weight=bad)


def test_unknown_column_lists_the_nearest_name():
    table = EventTable.of(np.zeros((2, 2)), ["mass", "pt"])
    for ask in (table.column, table.unit, lambda name: table.select([name])):
        with pytest.raises(InputError, match="Did you mean 'mass'"):
            ask("mas")


def test_select_and_take_keep_names_units_conditions_and_weights_together():
    table = _table().select(["c", "a"]).take(slice(1, 3))
    np.testing.assert_array_equal(table.x, [[5.0, 3.0], [8.0, 6.0]])
    assert table.units == ("", "GeV")
    np.testing.assert_array_equal(table.cond, [[1.0], [2.0]])
    np.testing.assert_array_equal(table.weight, [4.0, 7.0])


def test_columns_can_become_conditions():
    table = _table().as_conditions(["b"])
    assert table.names == ("a", "c")
    assert table.cond_names == ("c0", "b")
    np.testing.assert_array_equal(table.cond[:, 1], [1.0, 4.0, 7.0, 10.0])


def test_concatenating_the_parts_gives_the_whole():
    table = _table(5)
    whole = EventTable.concatenate([table.take(slice(0, 2)), table.take(slice(2, 5))])
    np.testing.assert_array_equal(whole.x, table.x)
    np.testing.assert_array_equal(whole.cond, table.cond)
    np.testing.assert_array_equal(whole.weight, table.weight)


def test_concatenating_other_units_is_refused():
    first = EventTable.of(np.zeros((1, 1)), ["e"], units={"e": "GeV"})
    second = EventTable.of(np.zeros((1, 1)), ["e"], units={"e": "MeV"})
    with pytest.raises(InputError, match="equal units"):
        EventTable.concatenate([first, second])
    with pytest.raises(InputError, match="at least one"):
        EventTable.concatenate([])


def test_concatenating_tables_that_number_their_texts_differently_keeps_the_texts():
    first = EventTable.of(pd.DataFrame({"k": ["b", "c"]}))
    second = EventTable.of(pd.DataFrame({"k": ["a", "c"]}))
    assert second.x[1, 0] == first.x[1, 0]  # "c" is code 1 in both, "a" and "b" are both 0
    whole = EventTable.concatenate([first, second])
    assert list(whole.typed("k")) == ["b", "c", "a", "c"]


def test_recoding_gives_the_codes_of_the_training_table():
    table = EventTable.of(np.zeros((3, 1)), cond=pd.DataFrame({"k": ["z", None, "b"]}))
    coded = table.recoded({"k": ("a", "b", "z")})
    np.testing.assert_array_equal(coded.cond[:, 0], [2.0, np.nan, 1.0])
    np.testing.assert_array_equal(table.cond[:, 0], [1.0, np.nan, 0.0])


def test_recoding_refuses_texts_that_training_never_saw():
    table = EventTable.of(pd.DataFrame({"k": ["a", "muon"]}))
    with pytest.raises(InputError, match="muon"):
        table.recoded({"k": ("a", "b")})
    with pytest.raises(InputError, match="numbers"):
        EventTable.of(np.zeros((2, 1)), ["k"]).recoded({"k": ("a",)})
