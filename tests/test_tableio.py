"""Table files: what is written is read, bytes repeat, and broken files say what is wrong."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from conftest import importorskip_format, mixed_table

from flowbdt.errors import InputError, RunError
from flowbdt.tables.event_table import EventTable, cast
from flowbdt.tables.formats import (
    FORMATS,
    TableWriter,
    iter_blocks,
    read_attributes,
    read_conditions,
    read_table,
    write_table,
)
from flowbdt.tables.formats.base import StoredColumns
from flowbdt.tables.formats.csv import Csv
from flowbdt.tables.formats.hdf5 import CHUNK

ATTRIBUTES = {"run": "abc", "seed": 7, "evaluations": [30, 31], "cpu": 0.1, "ok": True, "x": None}


def _assert_same(got: EventTable, expected: EventTable) -> None:
    assert got.names == expected.names
    assert got.units == expected.units
    assert got.dtypes == expected.dtypes
    assert got.cond_names == expected.cond_names
    assert got.categories == expected.categories
    np.testing.assert_array_equal(got.x, expected.x)
    np.testing.assert_array_equal(got.cond, expected.cond)
    np.testing.assert_array_equal(got.weight, expected.weight)


@pytest.fixture(params=FORMATS.names())
def path(request, tmp_path) -> Path:
    importorskip_format(request.param)
    return tmp_path / f"table{request.param}"


def test_what_is_written_is_read(path):
    table = mixed_table()
    write_table(path, table, ATTRIBUTES)
    _assert_same(read_table(path), table)
    assert read_attributes(path) == ATTRIBUTES


def test_equal_tables_give_equal_bytes(path):
    write_table(path, mixed_table(), ATTRIBUTES)
    first = path.read_bytes()
    write_table(path, mixed_table(), ATTRIBUTES)
    assert path.read_bytes() == first
    write_table(path, mixed_table(seed=1), ATTRIBUTES)
    assert path.read_bytes() != first


def test_hdf5_bytes_are_the_same_in_another_process_at_another_time(tmp_path):
    code = (
        "import sys, time, numpy as np\n"
        "from flowbdt.tables.event_table import EventTable\n"
        "from flowbdt.tables.formats import write_table\n"
        "time.sleep(1.1)\n"
        "table = EventTable.of(np.arange(12.0).reshape(4, 3), units={'x0': 'GeV'})\n"
        "write_table(sys.argv[1], table, {'b': 1, 'a': [1]})\n"
    )
    contents = []
    for name in ("1.h5", "2.h5"):
        subprocess.run([sys.executable, "-c", code, str(tmp_path / name)], check=True)
        contents.append((tmp_path / name).read_bytes())
    assert contents[0] == contents[1]


def test_blocks_appended_give_the_file_written_at_once(path):
    table = mixed_table(60)
    write_table(path, table, ATTRIBUTES)
    once = path.read_bytes()
    with TableWriter(path, ATTRIBUTES) as writer:
        for start in range(0, 60, 7):
            writer.append(table.take(slice(start, start + 7)))
        assert writer.n_rows == 60
    assert path.read_bytes() == once


def test_hdf5_bytes_do_not_depend_on_the_size_of_the_blocks(tmp_path):
    n = 2 * CHUNK + 100
    table = EventTable.of(np.random.default_rng(0).normal(size=(n, 2)))
    write_table(tmp_path / "once.h5", table)
    with TableWriter(tmp_path / "blocks.h5") as writer:
        for start in range(0, n, 5000):
            writer.append(table.take(slice(start, start + 5000)))
    assert (tmp_path / "blocks.h5").read_bytes() == (tmp_path / "once.h5").read_bytes()
    np.testing.assert_array_equal(read_table(tmp_path / "once.h5").x, table.x)


def test_streaming_memory_does_not_grow_with_the_number_of_rows(tmp_path):
    block = EventTable.of(np.random.default_rng(0).normal(size=(CHUNK, 4)))
    read_table_once = tmp_path / "warm.h5"
    write_table(read_table_once, block)  # imports done before measuring

    def peak(n_blocks: int) -> int:
        tracemalloc.start()
        with TableWriter(tmp_path / "large.h5") as writer:
            for _ in range(n_blocks):
                writer.append(block)
        result = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return result

    few, many = peak(3), peak(12)
    assert many < few + 0.5 * block.x.nbytes


def _write_blocks(path: Path, *blocks: EventTable) -> None:
    with TableWriter(path) as writer:
        for block in blocks:
            writer.append(block)


def test_texts_missing_in_the_first_block_are_refused_in_a_stream(tmp_path):
    blocks = [EventTable.of(pd.DataFrame({"kind": [kind]})) for kind in ("pion", "muon")]
    with pytest.raises(InputError, match="muon"):
        _write_blocks(tmp_path / "t.h5", *blocks)
    assert list(tmp_path.iterdir()) == []


def test_blocks_that_number_texts_differently_are_written_with_their_texts(path):
    first = EventTable.of(pd.DataFrame({"kind": ["b", "a"]}))
    second = EventTable.of(pd.DataFrame({"kind": ["b"]}))
    _write_blocks(path, first, second)
    assert list(read_table(path).typed("kind")) == ["b", "a", "b"]


def test_failed_block_leaves_the_old_file_and_no_other(path):
    write_table(path, mixed_table(5))
    before = {item.name: item.read_bytes() for item in path.parent.iterdir()}

    def fail() -> None:
        with TableWriter(path) as writer:
            writer.append(mixed_table(6))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert {item.name: item.read_bytes() for item in path.parent.iterdir()} == before


def test_blocks_with_other_columns_are_refused(path):
    blocks = [EventTable.of(np.zeros((2, 1)), [name]) for name in ("a", "b")]
    with pytest.raises(InputError, match="equal columns"):
        _write_blocks(path, *blocks)
    assert not path.exists()


def test_writer_without_tables_says_so(path):
    with pytest.raises(InputError, match="nothing was appended"):
        _write_blocks(path)
    assert not path.exists()


def test_folder_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(RunError, match="folder"):
        write_table(tmp_path / "no" / "t.h5", mixed_table())


def test_column_called_weight_beside_weights_is_refused(path):
    table = EventTable.of(np.ones((2, 1)), ["weight"], weight=[1.0, 2.0])
    with pytest.raises(InputError, match="repeated: weight"):
        write_table(path, table)


def test_hdf5_refuses_names_and_attributes_that_it_cannot_hold(tmp_path):
    path = tmp_path / "t.h5"
    with pytest.raises(InputError, match="without '/'"):
        write_table(path, EventTable.of(np.ones((2, 1)), ["a/b"]))
    with pytest.raises(InputError, match="digest"):
        write_table(path, mixed_table(), {"config": "x" * 70_000})
    with pytest.raises(InputError, match="taken"):
        write_table(path, mixed_table(), {"column_order": 1})
    assert list(tmp_path.iterdir()) == []


# ---- reading: choice of columns and rows


def test_columns_conditions_and_weights_are_found_by_name(path):
    x = np.arange(12.0).reshape(3, 4)
    write_table(path, EventTable.of(x, ["a", "b", "c", "d"]))
    table = read_table(path, ["c", "a"], conditions=["d"], weight="b", units={"a": "GeV"})
    np.testing.assert_array_equal(table.x, x[:, [2, 0]])
    np.testing.assert_array_equal(table.cond, x[:, [3]])
    np.testing.assert_array_equal(table.weight, x[:, 1])
    assert table.units == ("", "GeV")
    assert read_table(path, conditions=["b"]).names == ("a", "c", "d")


def test_stored_roles_hold_unless_the_caller_says_otherwise(path):
    write_table(path, mixed_table())
    assert read_table(path, ["pt"]).cond_names == ("side", "e")
    table = read_table(path, ["pt", "weight"], conditions=["mass"])
    assert table.cond_names == ("mass",)
    assert table.names == ("pt", "weight")
    assert table.weight is None


@pytest.mark.parametrize("rows", [(10, 20), [10, 20], slice(10, 20)])
def test_rows_are_a_part_of_the_table(path, rows):
    table = mixed_table()
    write_table(path, table)
    _assert_same(read_table(path, rows=rows), table.take(slice(10, 20)))


@pytest.mark.parametrize("rows", [(0, 51), (5, 5), (-3, 4), slice(0, 10, 2), (1, 2, 3)])
def test_rows_outside_the_file_are_refused(path, rows):
    write_table(path, mixed_table(50))
    with pytest.raises(InputError, match="rows must be"):
        read_table(path, rows=rows)


def test_blocks_read_in_order_are_the_table(path):
    table = mixed_table(50)
    write_table(path, table)
    blocks = list(iter_blocks(path, 20))
    assert [block.n for block in blocks] == [20, 20, 10]
    _assert_same(EventTable.concatenate(blocks), table)
    with pytest.raises(InputError, match="at least 1"):
        next(iter_blocks(path, 0))


def test_block_of_zero_weights_is_read_but_a_table_of_them_refused(tmp_path):
    with h5py.File(tmp_path / "t.h5", "w") as handle:
        handle["x"], handle["w"] = np.arange(4.0), np.array([0.0, 0.0, 1.0, 2.0])
        handle["zero"] = np.zeros(4)
    blocks = list(iter_blocks(tmp_path / "t.h5", 2, ["x"], weight="w"))
    assert [block.weight.sum() for block in blocks] == [0.0, 3.0]
    with pytest.raises(InputError, match="all be zero"):
        read_table(tmp_path / "t.h5", ["x"], weight="zero")


def test_conditions_may_have_gaps(path):
    table = mixed_table()
    write_table(path, table)
    cond = read_conditions(path)
    assert cond.names == ("side", "e")
    np.testing.assert_array_equal(cond.x, table.cond)
    assert cond.categories["side"] == ("l", "r")


def test_conditions_of_a_plain_csv_are_all_its_columns(tmp_path):
    (tmp_path / "c.csv").write_text("energy,side\n1.5,l\n,r\n2.5,\n")
    cond = read_conditions(tmp_path / "c.csv")
    np.testing.assert_array_equal(cond.x, [[1.5, 0.0], [np.nan, 1.0], [2.5, np.nan]])
    model_input = EventTable.of(np.zeros((3, 1)), cond=cond)
    assert model_input.categories["side"] == ("l", "r")


# ---- foreign files


def test_foreign_hdf5_comes_in_alphabetical_order_with_its_units(tmp_path):
    with h5py.File(tmp_path / "t.hdf5", "w") as handle:
        handle["pt"], handle["eta"] = np.arange(3.0), np.arange(3, dtype=">i4")
        handle["kind"] = np.array(["b", "a", "b"], dtype=object)
        handle["pt"].attrs["units"] = np.bytes_("MeV")
    table = read_table(tmp_path / "t.hdf5")
    assert table.names == ("eta", "kind", "pt")
    assert table.units == ("", "", "MeV")
    assert table.dtypes == ("int32", "int64", "float64")
    assert list(table.typed("kind")) == ["b", "a", "b"]


def test_npz_with_x_and_names_is_a_table(tmp_path):
    x = np.arange(6.0).reshape(3, 2)
    np.savez(tmp_path / "t.npz", x=x, names=["pt", "eta"])
    table = read_table(tmp_path / "t.npz")
    assert table.names == ("pt", "eta")
    np.testing.assert_array_equal(table.x, x)


def test_plain_and_structured_npy_are_tables(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(6, dtype=np.float32).reshape(3, 2))
    assert read_table(tmp_path / "a.npy").names == ("x0", "x1")
    assert read_table(tmp_path / "a.npy").dtypes == ("float32", "float32")
    records = np.array([(1.5, "a"), (2.5, "b")], dtype=[("pt", "f4"), ("kind", "U3")])
    np.save(tmp_path / "b.npy", records)
    assert list(read_table(tmp_path / "b.npy").typed("kind")) == ["a", "b"]


def test_csv_bytes_are_those_of_pandas(tmp_path):
    rng = np.random.default_rng(0)
    x = np.column_stack([rng.normal(size=(40, 3)) * 10.0 ** rng.integers(-9, 9, (40, 3))] * 2)
    x[::7, 0], x[::5, 1] = np.nan, -np.inf
    x[:, 3:5] = rng.integers(0, 3, (40, 2))
    names, texts = ("a", 'b "x", c', "c", "d", "e", "f"), ('q"o', "with, comma", "line\nbreak")
    dtypes = ("float64", "float64", "float32", "int64", "int64", "bool")
    stored = StoredColumns(
        {name: cast(column, dtype) for name, column, dtype in zip(names, x.T, dtypes, strict=True)},
        categories={"e": texts},
    )
    Csv().write_values(tmp_path / "ours.csv", stored)
    frame = stored.to_frame(categories_as_texts=True)
    frame.to_csv(tmp_path / "theirs.csv", index=False, lineterminator="\n")
    assert (tmp_path / "ours.csv").read_bytes() == (tmp_path / "theirs.csv").read_bytes()


def test_csv_floats_survive_exactly(tmp_path):
    values = np.array([0.1, 1 / 3, 1e-300, 12345678.123456789])
    write_table(tmp_path / "t.csv", EventTable.of(values[:, None]))
    np.testing.assert_array_equal(read_table(tmp_path / "t.csv").x[:, 0], values)
