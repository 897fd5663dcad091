"""Files that cannot be read or written: what is wrong, and what to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from conftest import importorskip_format, mixed_table

from flowbdt import atomic_files
from flowbdt.errors import FormatError, InputError, MissingExtra, RunError
from flowbdt.tables.event_table import EventTable
from flowbdt.tables.formats import FORMATS, TableWriter, read_table, write_table


@pytest.fixture(params=FORMATS.names())
def path(request, tmp_path) -> Path:
    importorskip_format(request.param)
    return tmp_path / f"table{request.param}"


# ---- errors


def _h5(path: Path, **columns: np.ndarray) -> None:
    with h5py.File(path, "w") as handle:
        for name, values in columns.items():
            handle[name] = values


def _bad_files(folder: Path) -> dict[str, tuple[type, str]]:
    """Write one broken file of each kind; return what is expected of each."""
    whole = folder / "whole.h5"
    write_table(whole, EventTable.of(np.random.default_rng(0).normal(size=(4000, 3))))
    (folder / "truncated.h5").write_bytes(whole.read_bytes()[:20_000])
    (folder / "foreign.h5").write_text("not HDF5 at all, but long enough to look at")
    (folder / "nothing.h5").write_bytes(b"")
    (folder / "table.txt").write_text("a b")
    _h5(folder / "ragged.h5", a=np.zeros(3), b=np.zeros(4))
    _h5(folder / "matrix.h5", showers=np.zeros((3, 4)))
    _h5(folder / "jets.h5", jet_features=np.zeros((3, 4)))
    _h5(folder / "none.h5")
    _h5(folder / "rows.h5", a=np.zeros(0))
    _h5(folder / "nan.h5", a=np.array([1.0, np.nan, 3.0]))
    with h5py.File(folder / "group.h5", "w") as handle:
        handle["inner/a"] = np.zeros(3)
    with h5py.File(folder / "future.h5", "w") as handle:
        handle.attrs["flowbdt_table"] = 99
    with h5py.File(folder / "codes.h5", "w") as handle:
        handle["kind"] = np.array([0, 5])
        handle["kind"].attrs["categories"] = ["a", "b"]
    np.save(folder / "text.npy", np.array([["a", "b"]]))
    np.save(folder / "cube.npy", np.zeros((2, 2, 2)))
    np.save(folder / "object.npy", np.array([{}, None]), allow_pickle=True)
    (folder / "cut.npy").write_bytes((folder / "cube.npy").read_bytes()[:-9])
    np.savez(folder / "ragged.npz", a=np.zeros(3), b=np.zeros(4))
    np.savez(folder / "wide.npz", a=np.zeros((3, 2)), b=np.zeros(3))
    np.savez(folder / "names.npz", x=np.zeros((3, 2)), names=["a"])
    (folder / "cut.npz").write_bytes((folder / "ragged.npz").read_bytes()[:100])
    (folder / "renamed.npy").write_bytes((folder / "ragged.npz").read_bytes())
    (folder / "renamed.npz").write_bytes((folder / "cube.npy").read_bytes())
    (folder / "long.csv").write_text("a,b\n1,2\n3,4,5\n")
    (folder / "longer.csv").write_text("a,b\n1,2,3\n3,4,5\n")
    (folder / "short.csv").write_text("a,b\n1,2\n3\n")
    (folder / "mixed.csv").write_text("a,b\n1,2\n3,oops\n")
    (folder / "header.csv").write_text("a,b\n")
    (folder / "headless.csv").write_text("1.5,2.5\n3,4\n")
    (folder / "twice.csv").write_text("a,a\n1,2\n")
    (folder / "semicolon.csv").write_text("a;b\n1;2\n")
    (folder / "binary.csv").write_bytes(b"a,b\n\xff\xfe,1\n")
    (folder / "texts.csv").write_text("a\n" + "".join(f"v{i}\n" for i in range(1001)))
    (folder / "broken.parquet").write_bytes(b"PAR1 and no more")
    return {
        "truncated.h5": (FormatError, "truncated"),
        "foreign.h5": (FormatError, "not a readable .h5"),
        "nothing.h5": (FormatError, "empty"),
        "missing.h5": (InputError, "is not a file"),
        "table.txt": (InputError, "Known: .csv, .h5"),
        "ragged.h5": (InputError, "a 3, b 4"),
        "matrix.h5": (InputError, r"shape \(n,\), got \(3, 4\)"),
        "jets.h5": (InputError, "read_jetnet"),
        "none.h5": (InputError, "no column"),
        "rows.h5": (InputError, "no rows"),
        "nan.h5": (InputError, "'a' has NaN or infinity in 1 row .first: row 1"),
        "group.h5": (InputError, "'inner' is a group"),
        "future.h5": (FormatError, "update"),
        "codes.h5": (FormatError, "0 to 1"),
        "text.npy": (InputError, "2-d array of real numbers"),
        "cube.npy": (InputError, "got 3 dimension"),
        "object.npy": (FormatError, "Python objects"),
        "cut.npy": (FormatError, "truncated"),
        "ragged.npz": (InputError, "a 3, b 4"),
        "wide.npz": (InputError, r"'a' must have shape \(n,\)"),
        "names.npz": (InputError, "2 columns need as many names, got 1"),
        "cut.npz": (FormatError, "truncated"),
        "renamed.npy": (FormatError, "call it .npz"),
        "renamed.npz": (FormatError, "call it .npy"),
        "long.csv": (FormatError, "line 3"),
        "longer.csv": (FormatError, "as many fields"),
        "short.csv": (InputError, "'b' has NaN"),
        "mixed.csv": (InputError, "row 1 has 'oops'"),
        "header.csv": (InputError, "no rows"),
        "headless.csv": (InputError, "first line"),
        "twice.csv": (InputError, "repeated: a"),
        "semicolon.csv": (InputError, "commas"),
        "binary.csv": (FormatError, "not a"),
        "texts.csv": (InputError, "more than 1000"),
        "broken.parquet": (FormatError, "not a readable"),
    }


def test_broken_files_say_what_is_wrong(tmp_path):
    for name, (kind, text) in _bad_files(tmp_path).items():
        if name.endswith(".parquet"):
            pytest.importorskip("pyarrow")
        with pytest.raises(kind, match=text) as caught:
            read_table(tmp_path / name)
        assert name in str(caught.value)


def test_unknown_column_names_the_nearest_and_the_file(path):
    write_table(path, EventTable.of(np.zeros((2, 2)), ["mass", "pt"]))
    for ask in ({"columns": ["mas"]}, {"conditions": ["mas"]}, {"weight": "mas"}):
        with pytest.raises(InputError, match="Did you mean 'mass'") as caught:
            read_table(path, **ask)
        assert path.name in str(caught.value)
    with pytest.raises(InputError, match="mas"):
        read_table(path, units={"mas": "GeV"})


def test_one_column_in_two_roles_is_refused(path):
    write_table(path, EventTable.of(np.zeros((2, 2)), ["mass", "pt"]))
    with pytest.raises(InputError, match="repeated: pt"):
        read_table(path, ["pt"], conditions=["pt"])
    with pytest.raises(InputError, match="no column is left"):
        read_table(path, conditions=["pt", "mass"])
    with pytest.raises(InputError, match="must be a list"):
        read_table(path, "pt")


def test_text_weights_are_refused(tmp_path):
    (tmp_path / "t.csv").write_text("a,w\n1,heavy\n2,light\n")
    with pytest.raises(InputError, match="must be numbers"):
        read_table(tmp_path / "t.csv", weight="w")


def test_missing_pyarrow_names_the_install_command(tmp_path, monkeypatch):
    table = mixed_table()  # before: texts of pandas may need pyarrow
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"pip install 'flowbdt\[data\]'"):
        write_table(tmp_path / "t.parquet", table)
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    with pytest.raises(MissingExtra, match="pyarrow"):
        read_table(tmp_path / "t.parquet")


def _write_blocks(path: Path, table: EventTable) -> None:
    with TableWriter(path) as writer:
        for low in range(0, table.n, 8000):
            writer.append(table.take(slice(low, low + 8000)))


@pytest.mark.parametrize("limit", [700, 40_000, 150_000])
def test_a_disk_that_fills_up_is_one_clear_error(path, limit):
    """As little may be written to any file; Python ignores the signal for it."""
    resource = pytest.importorskip("resource")
    write_table(path, mixed_table())
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    table = EventTable.of(np.random.default_rng(0).normal(size=(40_000, 3)))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
    try:
        with pytest.raises(RunError, match="could not write .*free space"):
            _write_blocks(path, table)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before


@pytest.mark.parametrize("missing", [1, 100, 400])
def test_the_end_of_an_array_is_not_lost_on_a_full_disk(tmp_path, missing):
    """numpy itself keeps the last bytes in a buffer and does not tell that they were lost."""
    resource = pytest.importorskip("resource")
    array = np.zeros((530, 2))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (array.nbytes + 128 - missing, limits[1]))
    try:
        with pytest.raises(RunError, match="could not write"):
            atomic_files.write_array(tmp_path / "x.npy", array)
        with pytest.raises(RunError, match="could not write"):
            write_table(tmp_path / "t.npy", EventTable.of(array))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []
    atomic_files.write_array(tmp_path / "x.npy", array)
    np.save(tmp_path / "same.npy", array)
    assert (tmp_path / "x.npy").read_bytes() == (tmp_path / "same.npy").read_bytes()


def test_full_disk_leaves_no_half_written_file(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic_files.os, "fsync", full)
    with pytest.raises(RunError, match="free space"):
        write_table(tmp_path / "t.h5", mixed_table())
    assert list(tmp_path.iterdir()) == []


def test_importing_does_not_load_the_file_libraries():
    code = (
        "import sys, flowbdt.tables.formats, flowbdt.physics.datasets\n"
        "heavy = ('h5py', 'pandas', 'pyarrow', 'torch', 'uproot', 'xgboost')\n"
        "print([m for m in heavy if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_a_parquet_file_with_damaged_texts_is_named(tmp_path):
    pytest.importorskip("pyarrow")
    path = tmp_path / "t.parquet"
    frame = pd.DataFrame({"kind": ["pion", "muon"] * 5, "x": np.arange(10.0)})
    frame.to_parquet(path, compression=None)
    path.write_bytes(path.read_bytes().replace(b"pion", b"pi\xffn"))
    with pytest.raises(FormatError, match=r"t\.parquet is not a readable.*UTF"):
        read_table(path)
