"""ROOT files: trees as tables, collections there and back, damage and odd branches."""

from __future__ import annotations

import sys
import time
import tracemalloc

import numpy as np
import pytest
from conftest import run

from flowbdt.errors import FormatError, InputError, MissingExtra
from flowbdt.tables.event_collections import branch_counters, read_collections, write_collections
from flowbdt.tables.event_table import EventTable
from flowbdt.tables.formats import (
    TableWriter,
    condition_blocks,
    count_rows,
    iter_blocks,
    read_like,
    read_table,
    root,
    write_table,
)

uproot = pytest.importorskip("uproot", reason="uproot is not installed (extra 'root')")
ak = pytest.importorskip("awkward")

NUMBERS = (
    "bool",
    "float32",
    "float64",
    *(f"{u}int{n}" for u in ("", "u") for n in (8, 16, 32, 64)),
)
N = 60


def numbers(n=N):
    """Return a column of every type of numbers."""
    rng = np.random.default_rng(1)
    return {f"a_{kind}": rng.integers(0, 2, n).astype(kind) for kind in NUMBERS}


def events(n=N, seed=2):
    """Return flat, fixed and jagged branches of every type, and texts, two collections."""
    rng = np.random.default_rng(seed)
    counts = {"Jet": rng.poisson(2.0, n), "Hit": rng.poisson(1.0, n)}
    arrays = {"MET": rng.normal(size=n), **numbers(n), "nJet": counts["Jet"].astype("i4")}
    for kind in NUMBERS:
        for name, count in counts.items():
            values = rng.integers(0, 100, count.sum()).astype(kind)
            arrays[f"{name}_{kind}"] = ak.unflatten(values, count)
    arrays["vertex"] = ak.from_numpy(rng.normal(size=(n, 3)).astype("f4"))
    arrays["trigger"] = ak.Array([["low", "high, é"][i % 2] for i in range(n)])
    return ak.zip(arrays, depth_limit=1)


@pytest.fixture
def path(tmp_path):
    write_collections(tmp_path / "events.root", events())
    return tmp_path / "events.root"


# ---- the tree


def test_a_tree_is_named_after_a_colon(tmp_path):
    path = tmp_path / "odd.v1.root"
    with uproot.recreate(path) as file:
        file.mktree("low/deep/Events", {"x": "f8"}).extend({"x": np.arange(3.0)})
        file["note"] = "no tree"
    assert read_table(path).n == 3
    with uproot.update(path) as file:
        file.mktree("Runs", {"run": "i4"}).extend({"run": np.arange(2, dtype="i4")})
        file.mktree("Runs", {"run": "i4"}).extend({"run": np.arange(5, dtype="i4")})
    assert read_table(f"{path}:low/deep/Events").names == ("x",)
    assert [count_rows(f"{path}:{name}") for name in ("Runs", "Runs;1", "Runs;2")] == [5, 2, 5]
    assert [block.n for block in iter_blocks(f"{path}:Runs", 3)] == [3, 2]
    with pytest.raises(InputError, match=r"several trees: name one.*v1\.root:Runs"):
        read_table(path)
    with pytest.raises(InputError, match="Did you mean 'Runs'"):
        read_table(f"{path}:Run")
    with pytest.raises(InputError, match=r"none\.root is not a file"):
        read_table(tmp_path / "none.root:Runs")
    with pytest.raises(InputError, match="files are written whole"):
        write_table(f"{path}:Runs", EventTable.of(np.ones((2, 1))))


def test_files_without_trees_or_rows_say_so(tmp_path):
    path = tmp_path / "t.root"
    with uproot.recreate(path) as file:
        file["h"] = np.histogram([1.0])
    with pytest.raises(InputError, match=r"no tree .*it has h;1 \(TH1D\)"):
        read_table(path)
    with uproot.recreate(path) as file:
        file.mktree("Events", {"x": "f8"})
    for read in (read_table, count_rows):
        with pytest.raises(InputError, match="no rows"):
            read(path)
    assert list(read_collections(path)) == []


def test_missing_uproot_names_the_install_command(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "uproot", None)
    for call in (read_table, lambda p: write_table(p, EventTable.of(np.ones((2, 1))))):
        with pytest.raises(MissingExtra, match=r"pip install 'flowbdt\[root\]'"):
            call(path)


# ---- columns


@pytest.mark.parametrize("kind", ["TTree", "RNTuple"])
def test_columns_keep_their_types(tmp_path, kind):
    path, columns = tmp_path / "t.root", {"k": np.array(["b", "a"] * (N // 2)), **numbers()}
    with uproot.recreate(path) as file:
        if kind == "TTree":
            columns["k"] = ak.Array(columns["k"].tolist())
            types = {name: getattr(v, "dtype", "string") for name, v in columns.items()}
            types["k"] = columns["k"].type.content
            file.mktree("T", types).extend(columns)
        else:
            file.mkrntuple("T", columns)
    table = read_table(path)
    assert set(table.names) == set(columns)
    assert list(table.typed("k"))[:2] == ["b", "a"]
    for name, values in numbers().items():
        assert table.typed(name).dtype == values.dtype
        np.testing.assert_array_equal(table.typed(name), values)


def test_objects_are_columns_by_number(path):
    rows = events()
    table = read_table(path, ["MET", "nJet", "Jet_float32_[01]", "Jet_int16_1"], missing=True)
    assert table.names == ("MET", "nJet", "Jet_float32_0", "Jet_float32_1", "Jet_int16_1")
    assert table.dtypes[2:] == ("float32", "float32", "int16")
    for name, index in (("Jet_float32", 0), ("Jet_float32", 1), ("Jet_int16", 1)):
        padded = ak.fill_none(ak.pad_none(rows[name], 2)[:, index], np.nan)
        np.testing.assert_array_equal(table.column(f"{name}_{index}"), ak.to_numpy(padded))
    assert str(table.to_frame()["Jet_int16_1"].dtype) == "Int16"
    blocks = list(iter_blocks(path, 17, ["vertex_*"], conditions=["Jet_float32_0"]))
    assert blocks[0].names == ("vertex_0", "vertex_1", "vertex_2")
    vertices = np.concatenate([block.x for block in blocks])
    np.testing.assert_array_equal(vertices, ak.to_numpy(rows.vertex))
    names = ("Jet_float32_0", "MET")
    (cond,) = condition_blocks(path, N, names=names)
    assert cond.names == names
    assert read_like(path, table.take(slice(0, 2)).select(["MET", "nJet"])).n == N


def test_branches_of_several_values_are_refused_with_what_to_do(path):
    for columns in (None, ["Jet_*"], ["MET", "Jet_int8"]):
        with pytest.raises(
            InputError, match=r"as the columns .*_0, .*'_\*_\[0-3\]'|'\w+_\*_\[0-3\]'"
        ):
            read_table(path, columns)
    with pytest.raises(InputError, match="vertex.*3 values per event"):
        read_table(path, ["vertex"])
    with pytest.raises(InputError, match=r"unknown column.*'vertex_3'"):
        read_table(path, ["vertex_3"])
    with pytest.raises(InputError, match="nothing to learn"):
        read_table(path, ["Jet_float32_99"], missing=True)
    with pytest.raises(InputError, match="Did you mean 'MET'"):
        read_table(path, ["MEt"])


def test_branches_that_are_no_columns_are_named(tmp_path):
    path = tmp_path / "t.root"
    with uproot.recreate(path) as file:
        deep, pair = ak.Array([[[1.0]], []]), np.zeros(2, [("a", "f4"), ("b", "i4")])
        file.mkrntuple("T", {"deep": deep, "pair": pair, "x": np.ones(2)})
    assert read_table(path, ["x", "pair.b"]).dtypes == ("float64", "int32")
    with pytest.raises(InputError, match="'deep' is of a type that is no number"):
        read_table(path)
    (block,) = read_collections(path)
    assert block.deep.to_list() == [[[1.0]], []]
    assert branch_counters(path) == {}
    with pytest.raises(InputError, match="'deep' cannot be written"):
        write_collections(tmp_path / "u.root", block)
    assert not (tmp_path / "u.root").exists()


# ---- damage


def test_damaged_files_give_one_clear_error(path):
    whole, expected = path.read_bytes(), read_table(path, ["MET", "a_*"]).x
    rng = np.random.default_rng(3)
    for _ in range(25):
        damaged = bytearray(whole)
        at = int(rng.integers(len(whole) - 8))
        if rng.random() < 0.3:
            damaged = damaged[:at]
        else:
            damaged[at : at + 8] = rng.bytes(8)
        path.write_bytes(damaged)
        try:
            found = read_table(path, ["MET", "a_*"]).x
        except (FormatError, InputError) as error:
            told = str(error)
        else:
            told = path.name if found.shape == expected.shape else "other events"
        assert path.name in told
        assert len(told) < 2000


# ---- writing


def test_bytes_depend_on_the_rows_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(root, "BASKET", 16)
    table, contents = EventTable.of(np.random.default_rng(0).normal(size=(50, 2))), set()
    for number, size in enumerate((50, 7, 16)):
        with TableWriter(tmp_path / f"{number}.root", {"seed": 1}) as writer:
            for low in range(0, 50, size):
                writer.append(table.take(slice(low, low + size)))
        contents.add((tmp_path / f"{number}.root").read_bytes())
        time.sleep(0.6)
    assert len(contents) == 1
    np.testing.assert_array_equal(read_table(tmp_path / "0.root").x, table.x)
    for number, size in enumerate((N, 7)):
        write_collections(
            tmp_path / f"c{number}.root", (events()[i : i + size] for i in range(0, N, size))
        )
    assert (tmp_path / "c0.root").read_bytes() == (tmp_path / "c1.root").read_bytes()
    write_table(tmp_path / "other.root", table.take(slice(1, 50)))
    keys = {uproot.open(tmp_path / f"{name}.root").file.hex_uuid for name in ("0", "c0", "other")}
    assert len(keys) == 3  # by which uproot tells files apart


def test_memory_of_a_growing_tree_is_that_of_a_basket(tmp_path, monkeypatch):
    monkeypatch.setattr(root, "BASKET", 200)
    block = {"Jet_pt": ak.unflatten(np.ones(5_000), np.full(100, 50)), "MET": np.ones(100)}
    tree, sizes = root.GrowingTree(tmp_path / "x.root", {"Jet_pt": "nJet"}), []
    tracemalloc.start()
    for _ in range(2):
        for _ in range(20):
            tree.extend(block, 100)
        sizes.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    tree.close()
    assert sizes[1] - sizes[0] < 10 * 5_000 * 8  # half of what was added in between


def test_commands_take_and_make_root_files(path, monkeypatch, quick_classifiers):
    monkeypatch.chdir(path.parent)
    small = ("preset=fast", "n_steps=2", "preconditioner={name: mixture, n_components: 2}",
             "booster.n_estimators=2", "rejection=false")  # fmt: skip
    settings = [word for text in small for word in ("--set", text)]
    write_collections("events.root", events(200))
    columns = ("--columns", "MET,nJet", "--columns", "Jet_float32_[01]")
    assert run("fit", "events.root:Events", "-o", "run", "-q", *columns, *settings) == 0
    assert run("generate", "run", "-n", 100, "-o", "new.root", "-q", "--no-compile") == 0
    new = read_table("new.root", missing=True)
    assert new.dtypes == ("float64", "int32", "float32", "float32")
    gone = np.isnan(new.x[:, 2:])
    np.testing.assert_array_equal(gone, new.x[:, [1]] <= [0, 1])


# ---- collections


def test_collections_come_back_as_they_were(path):
    rows = events()
    found = ak.concatenate(list(read_collections(path, block_rows=13)))
    tree = uproot.open(path)["Events"]
    assert [name for name in rows.fields if name not in tree] == []
    assert set(tree.keys()) - set(rows.fields) == {"nHit"}
    for name in rows.fields:
        assert ak.array_equal(rows[name], found[name], dtype_exact=True), name
    counters = branch_counters(path)
    assert counters == {f"{c}_{kind}": f"n{c}" for kind in NUMBERS for c in ("Jet", "Hit")}
    again = path.with_name("again.root")
    write_collections(again, read_collections(path), counters)
    other = uproot.open(again)["Events"]
    assert other.typenames() == tree.typenames()
    assert [b.title for b in other.branches] == [b.title for b in tree.branches]
    (some,) = read_collections(path, ["Jet_int8", "M*"])
    assert some.fields == ["MET", "nJet", "Jet_int8"]


def test_an_rntuple_has_the_same_events_and_the_bytes_of_its_rows(path, monkeypatch):
    monkeypatch.setattr(root, "BASKET", 16)
    files = [path.with_name(f"{size}.root") for size in (N, 7)]
    for file, size in zip(files, (N, 7), strict=True):
        write_collections(file, (events()[i : i + size] for i in range(0, N, size)), rntuple=True)
        time.sleep(0.6)
    assert files[0].read_bytes() == files[1].read_bytes()
    with uproot.open(files[0]) as file:
        assert file.classnames()["Events;1"] == "ROOT::RNTuple"
    expected = ak.concatenate(list(read_collections(path)))
    found = ak.concatenate(list(read_collections(files[0], block_rows=13)))
    assert {*found.fields} == {*expected.fields}
    for name in expected.fields:
        assert ak.array_equal(expected[name], found[name], dtype_exact=True), name


def test_collections_that_do_not_agree_are_refused(tmp_path):
    def write(counters=None, **arrays):
        write_collections(tmp_path / "t.root", ak.zip(arrays, depth_limit=1), counters)

    two, three = [[1.0], [2.0]], [[1.0], [2.0, 3.0]]
    with pytest.raises(
        InputError, match="'J_y', counted by 'nJ', has 2 values in event 1.*'J_x' has 1"
    ):
        write(J_x=two, J_y=three)
    with pytest.raises(InputError, match="2 values in event 1, where 'nJ' is 1"):
        write(J_y=three, nJ=np.ones(2, "i4"))
    with pytest.raises(InputError, match="var . unknown"):
        write(x=[[], []])
    with pytest.raises(InputError, match="nothing to write"):
        write_collections(tmp_path / "t.root", [])
    with pytest.raises(InputError, match="others have no collections"):
        write_collections(tmp_path / "t.h5", ak.zip({"x": [1.0]}))
    with pytest.raises(InputError, match=r"no branch called 'x\[2\]'"):
        write(**{"x[2]": [1.0]})
    assert list(tmp_path.iterdir()) == []
    write({"J_x": "n", "J_y": "m"}, J_x=two, J_y=three)
    with pytest.raises(InputError, match=r"unknown branch .*Did you mean 'J_"):
        list(read_collections(tmp_path / "t.root", ["J_"]))
