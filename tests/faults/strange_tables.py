"""Strange and damaged tables, each with the values that it holds, or None if it is no table."""

from __future__ import annotations

import datetime
import decimal
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pandas as pd

Values = dict[str, list[Any]] | None


class Case(NamedTuple):
    """``make`` writes a file into a folder and returns its path, or returns a table in memory.

    ``values``: name of the column -> numbers or texts, as a reader must see them if it reads any.
    """

    name: str
    make: Callable[[Path], Any]
    values: Values


def plain(n: int = 12) -> pd.DataFrame:
    """Return numbers, whole numbers and texts."""
    rng = np.random.default_rng(5)
    return pd.DataFrame({
        "pt": rng.normal(50.0, 9.0, n),
        "hits": rng.integers(0, 5, n),
        "kind": [("muon", "pion", "None")[i % 3] for i in range(n)],
    })  # fmt: skip


def columns(frame: pd.DataFrame) -> dict[str, list[Any]]:
    """Return the columns of a frame as lists."""
    return {str(name): frame.iloc[:, i].tolist() for i, name in enumerate(frame.columns)}


def text_file(name: str, content: str | bytes, ending: str = ".csv") -> Callable[[Path], Path]:
    """Return a function that writes a file."""

    def make(folder: Path) -> Path:
        path = folder / f"{name.replace(' ', '_').replace('/', '_')}{ending}"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return make


A = {"a": [1.5, 2.5, 3.5], "b": [4.0, 5.0, 6.0]}


def csv_cases() -> Iterator[Case]:
    """Yield text files."""
    body = "a,b\n1.5,4\n2.5,5\n3.5,6\n"
    known: list[tuple[str, str | bytes, Values]] = [
        ("plain", body, A),
        ("no newline at the end", body.rstrip(), A),
        ("windows", body.replace("\n", "\r\n"), A),
        ("old mac", body.replace("\n", "\r"), A),
        ("byte order mark", b"\xef\xbb\xbf" + body.encode(), A),
        ("utf-16", body.encode("utf-16"), A),
        ("blank lines", body.replace("\n", "\n\n"), A),
        ("blanks after commas", body.replace(",", ", "), A),
        ("quoted", 'a,"b"\n"1.5","4"\n2.5,5\n3.5,6\n', A),
        ("exponents", "a,b\n1.5E0,4e0\n2.5,.5e1\n35e-1,6.\n", A),
        ("plus signs", "a,b\n+1.5,+4\n2.5,5\n3.5,6\n", A),
        ("index of pandas", ",a,b\n0,1.5,4\n1,2.5,5\n2,3.5,6\n", A),
        ("trailing commas", "a,b,\n1.5,4,\n2.5,5,\n3.5,6,\n", A),
        ("trailing commas below", "a,b\n1.5,4,\n2.5,5,\n3.5,6,\n", A),
        ("comment line", "# jets\na,b\n1.5,4\n2.5,5\n3.5,6\n", A),
        ("semicolons", body.replace(",", ";"), A),
        ("tabs", body.replace(",", "\t"), A),
        ("blanks between", body.replace(",", " "), A),
        ("bars between", body.replace(",", "|"), A),
        ("colons between", body.replace(",", ":"), A),
        ("header only", "a,b\n", None),
        ("no header", "1.5,4\n2.5,5\n3.5,6\n", None),
        ("empty", "", None),
        ("only newlines", "\n\n\n", None),
        ("only commas", ",,\n,,\n", None),
        ("names twice", "a,a\n1.5,4\n2.5,5\n", None),
        ("short row", "a,b\n1.5,4\n2.5\n3.5,6\n", None),
        ("long row", "a,b\n1.5,4\n2.5,5,9\n3.5,6\n", None),
        ("gap", "a,b\n1.5,4\n,5\n3.5,6\n", None),
        ("nan", "a,b\n1.5,4\nnan,5\n3.5,6\n", None),
        ("inf", "a,b\n1.5,4\ninf,5\n3.5,6\n", None),
        ("overflow", "a,b\n1.5,4\n1e999,5\n3.5,6\n", None),
        ("nul bytes", b"a,b\n1.5,4\n\0\0,5\n3.5,6\n", None),
        ("zeros", bytes(300), None),
        ("random bytes", np.random.default_rng(1).bytes(300), None),
        ("latin-1 name", "caf\xe9,b\n1.5,4\n".encode("latin-1"), None),
        ("open quote", 'a,b\n"1.5,4\n2.5,5\n', None),
        ("hash for nothing", "a,b\n#,4\n#,5\n#,6\n", {"a": ["#"] * 3, "b": A["b"]}),
        ("true and false", "a,b\nTrue,4\nFalse,5\nTrue,6\n", None),
        ("html", "<html><body>404 not found</body></html>\n", None),
        ("json", json.dumps({"a": [1, 2]}), None),
        ("one column", "a\n1.5\n2.5\n3.5\n", {"a": A["a"]}),
        ("unicode", "m\u00b2,\u03b7\n1.5,4\n2.5,5\n3.5,6\n", {"m\u00b2": A["a"], "\u03b7": A["b"]}),
        (
            "large whole numbers",
            "a,b\n9007199254740993,4\n9007199254740992,5\n3,6\n",
            {"a": [9007199254740993, 9007199254740992, 3], "b": A["b"]},
        ),
    ]
    for name, content, values in known:
        if name in ("true and false",):
            values = {"a": [1.0, 0.0, 1.0], "b": A["b"]}
        yield Case(f"csv: {name}", text_file(name, content), values)
    dates = "".join(
        f"2026-01-{i % 28 + 1:02d} {i % 24:02d}:{i % 60:02d}:00,{i}\n" for i in range(900)
    )
    commas = "".join(f'"{i},5",{i}\n' for i in range(900))
    yield Case("csv: decimal commas", text_file("commas", "a,b\n" + commas), None)
    yield Case("csv: dates", text_file("dates", "t,b\n" + dates), None)
    money = "".join(f"${i * 1.37:.2f},{i}\n" for i in range(900))
    yield Case("csv: money", text_file("money", "a,b\n" + money), None)
    shares = "".join(f"{i * 0.137:.3f} %,{i}\n" for i in range(900))
    yield Case("csv: percent", text_file("percent", "a,b\n" + shares), None)


def hdf5(name: str, fill: Callable[[h5py.File], Any], values: Values) -> Case:
    """Return a case with an HDF5 file."""

    def make(folder: Path) -> Path:
        path = folder / f"{name.replace(' ', '_')}.h5"
        with h5py.File(path, "w") as file:
            fill(file)
        return path

    return Case(f"hdf5: {name}", make, values)


def put(file: h5py.File, **arrays: Any) -> None:
    """Write data sets."""
    for name, array in arrays.items():
        file[name] = array


def hdf5_cases() -> Iterator[Case]:
    """Yield HDF5 files."""
    a, b = np.array(A["a"]), np.array(A["b"])
    texts = h5py.string_dtype()
    structured = np.array(list(zip(a, b, strict=True)), dtype=[("a", "f8"), ("b", "f8")])

    def linked(link: Any) -> Callable[[h5py.File], None]:
        def fill(file: h5py.File) -> None:
            put(file, a=a)
            file["b"] = link

        return fill

    yield hdf5("plain", lambda f: put(f, a=a, b=b), A)
    yield hdf5("big endian", lambda f: put(f, a=a.astype(">f8"), b=b.astype(">f4")), A)
    yield hdf5("half precision", lambda f: put(f, a=a.astype("f2"), b=b.astype("i1")), A)
    yield hdf5("fixed texts", lambda f: put(f, a=a, k=np.array([b"x", b"y", b"x"])),
               {"a": A["a"], "k": ["x", "y", "x"]})  # fmt: skip
    yield hdf5("texts", lambda f: (
        put(f, a=a), f.create_dataset("k", (3,), texts, ["x", "y", "x"])
    ), {"a": A["a"], "k": ["x", "y", "x"]})  # fmt: skip
    yield hdf5("bools", lambda f: put(f, a=a, k=np.array([True, False, True])),
               {"a": A["a"], "k": [1.0, 0.0, 1.0]})  # fmt: skip
    yield hdf5("compound", lambda f: put(f, events=structured), A)
    yield hdf5("matrix", lambda f: put(f, x=np.column_stack([a, b])), None)
    yield hdf5("group", lambda f: put(f, **{"events/a": a}), None)
    yield hdf5("nothing", lambda f: None, None)
    yield hdf5("no rows", lambda f: put(f, a=a[:0], b=b[:0]), None)
    yield hdf5("scalars", lambda f: put(f, a=1.0, b=2.0), None)
    yield hdf5("lengths differ", lambda f: put(f, a=a, b=b[:2]), None)
    yield hdf5("complex", lambda f: put(f, a=a + 1j, b=b), None)
    yield hdf5("nan", lambda f: put(f, a=np.array([1.0, np.nan, 2.0]), b=b), None)
    yield hdf5("no data space", lambda f: (put(f, a=a), f.create_dataset("b", dtype="f8")), None)
    yield hdf5("references", lambda f: (put(f, a=a), f.create_dataset(
        "b", (3,), h5py.ref_dtype, [f["a"].ref] * 3)), None)  # fmt: skip
    yield hdf5("ragged", lambda f: (put(f, a=a), f.create_dataset(
        "b", (3,), h5py.vlen_dtype(float))), None)  # fmt: skip
    yield hdf5("broken soft link", linked(h5py.SoftLink("/nowhere")), None)
    yield hdf5("broken external link", linked(h5py.ExternalLink("absent.h5", "/b")), None)
    yield hdf5(
        "format of the future", lambda f: put(f, a=a) or f.attrs.update(flowbdt_table=99), None
    )
    yield hdf5(
        "format of no kind", lambda f: put(f, a=a) or f.attrs.update(flowbdt_table="x"), None
    )
    yield hdf5("order of no columns", lambda f: (put(f, a=a, b=b), f.attrs.update(
        column_order=["nosuch", "b"])), A)  # fmt: skip
    yield hdf5("order of numbers", lambda f: (put(f, a=a, b=b), f.attrs.update(column_order=7)), A)
    yield hdf5(
        "wide integers",
        lambda f: put(f, a=np.array([2**63, 2**64 - 1, 1], "u8"), b=b),
        {"a": [2**63, 2**64 - 1, 1], "b": A["b"]},
    )
    yield hdf5("codes out of range", lambda f: (
        put(f, a=a, k=np.array([0, 1, 7])), f["k"].attrs.update(categories=["x", "y"])
    ), None)  # fmt: skip
    opaque = np.array([0, 1, 2], "M8[s]").astype(h5py.opaque_dtype("M8[s]"))
    yield hdf5("opaque dates", lambda f: f.create_dataset("a", data=opaque), None)
    for name, content in (("empty", b""), ("zeros", bytes(2048)), ("text", b"a,b\n1,2\n")):
        yield Case(f"hdf5: {name} file", text_file(name, content, ".h5"), None)


def array_file(name: str, array: Any, values: Values, **options: Any) -> Case:
    """Return a case with a .npy file."""

    def make(folder: Path) -> Path:
        path = folder / f"{name.replace(' ', '_')}.npy"
        np.save(path, array, **options)
        return path

    return Case(f"npy: {name}", make, values)


def archive(name: str, values: Values, **arrays: Any) -> Case:
    """Return a case with a .npz file."""

    def make(folder: Path) -> Path:
        path = folder / f"{name.replace(' ', '_')}.npz"
        np.savez(path, **arrays)
        return path

    return Case(f"npz: {name}", make, values)


def numpy_cases() -> Iterator[Case]:
    """Yield .npy and .npz files."""
    a, b = np.array(A["a"]), np.array(A["b"])
    both = np.column_stack([a, b])
    x01 = {"x0": A["a"], "x1": A["b"]}
    structured = np.array(list(zip(a, b, strict=True)), dtype=[("a", "f8"), ("b", "f8")])
    nested = np.zeros(3, dtype=[("a", "f8"), ("p", [("x", "f8"), ("y", "f8")])])
    vectors = np.zeros(3, dtype=[("a", "f8"), ("p", "f8", (2,))])
    yield array_file("plain", both, x01)
    yield array_file("fortran order", np.asfortranarray(both), x01)
    yield array_file("big endian", both.astype(">f8"), x01)
    yield array_file("structured", structured, A)
    yield array_file("one dimension", a, None)
    yield array_file("three dimensions", both[None], None)
    yield array_file("scalar", np.array(1.0), None)
    yield array_file("no rows", both[:0], None)
    yield array_file("no columns", both[:, :0], None)
    yield array_file("complex", both + 0j, None)
    yield array_file("objects", both.astype(object), None, allow_pickle=True)
    yield array_file("texts", np.array([["a", "b"]]), None)
    yield array_file("dates", np.zeros((3, 2), "M8[s]"), None)
    yield array_file("nested", nested, None)
    yield array_file("vectors", vectors, None)
    yield array_file("nan", np.array([[1.0, np.nan]] * 3), None)
    yield archive("plain", A, a=a, b=b)
    yield archive("matrix with names", A, x=both, names=np.array(["a", "b"]))
    yield archive("too few names", None, x=both, names=np.array(["a"]))
    yield archive("names twice", None, x=both, names=np.array(["a", "a"]))
    yield archive("lengths differ", None, a=a, b=b[:2])
    yield archive("matrices", None, a=both, b=both)
    yield archive("nothing", None)
    yield archive("objects", None, a=a.astype(object), b=b)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as odd:
        odd.writestr("a.npy", b"\x93NUMPY nonsense")
        odd.writestr("readme.txt", b"hello")
    yield Case("npz: odd members", text_file("odd", buffer.getvalue(), ".npz"), None)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as hollow:
        hollow.writestr("flowbdt.npy", b"x")
    yield Case("npz: damaged member", text_file("hollow", buffer.getvalue(), ".npz"), None)
    head = b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (%s), }"
    for name, shape in (("huge shape", b"99999999999, 2"), ("negative shape", b"-3, 2")):
        content = (head % shape).ljust(127) + b"\n" + both.tobytes()
        yield Case(f"npy: {name}", text_file(name, content, ".npy"), None)
    for ending in (".npy", ".npz"):
        yield Case(f"{ending[1:]}: text", text_file("text", b"a,b\n1,2\n", ending), None)


def parquet(name: str, frame: pd.DataFrame, values: Values) -> Case:
    """Return a case with a Parquet file."""

    def make(folder: Path) -> Path:
        path = folder / f"{name.replace(' ', '_')}.parquet"
        frame.to_parquet(path)
        return path

    return Case(f"parquet: {name}", make, values)


def parquet_cases() -> Iterator[Case]:
    """Yield Parquet files."""
    frame = pd.DataFrame(A)
    yield parquet("plain", frame, A)
    yield parquet("with an index", frame.set_index(pd.Index([7, 8, 9], name="i")), A)
    yield parquet("categories", frame.assign(k=pd.Categorical(["x", "y", "x"])),
                  {**A, "k": ["x", "y", "x"]})  # fmt: skip
    yield parquet("nullable", frame.astype("Float64"), A)
    yield parquet("nullable with a gap", pd.DataFrame({"a": pd.array([1, None, 3], "Int64")}), None)
    yield parquet("bools", frame.assign(k=[True, False, True]), {**A, "k": [1.0, 0.0, 1.0]})
    yield parquet("no rows", frame[:0], None)
    yield parquet("lists", frame.assign(k=[[1.0], [2.0, 3.0], []]), None)
    yield parquet("dates", frame.assign(k=pd.date_range("2026", periods=3)), None)
    yield parquet("spans of time", frame.assign(k=pd.to_timedelta([1, 2, 3], "s")), None)
    yield parquet("bytes", frame.assign(k=[b"\xff", b"\xfe", b"\xff"]), None)
    yield parquet("gap", frame.assign(a=[1.0, None, 2.0]), None)
    yield Case("parquet: text", text_file("text", b"a,b\n1,2\n", ".parquet"), None)
    yield Case("parquet: empty", text_file("empty", b"", ".parquet"), None)


def memory_cases() -> Iterator[Case]:
    """Yield tables in memory."""
    a, b = np.array(A["a"]), np.array(A["b"])
    frame, n = pd.DataFrame(A), 600
    rng = np.random.default_rng(4)
    x01 = {"x0": A["a"], "x1": A["b"]}
    prices = [f"{value:,.2f}" for value in rng.normal(5000, 900, n)]
    known: dict[str, tuple[Any, Values]] = {
        "frame": (frame, A),
        "array": (np.column_stack([a, b]), x01),
        "strided": (np.column_stack([a, b, a, b])[:, ::3], {"x0": A["a"], "x1": A["b"]}),
        "read only": (np.broadcast_to(a[:, None], (3, 2)), {"x0": A["a"], "x1": A["a"]}),
        "lists": ([[1.5, 4], [2.5, 5], [3.5, 6]], x01),
        "float16": (np.column_stack([a, b]).astype("f2"), x01),
        "masked, nothing hidden": (np.ma.array(np.column_stack([a, b]), mask=False), x01),
        "masked": (np.ma.array(np.column_stack([a, b]), mask=[[0, 1]] * 3), None),
        "one dimension": (a, None),
        "three dimensions": (np.zeros((2, 2, 2)), None),
        "no columns": (np.zeros((3, 0)), None),
        "complex": (np.column_stack([a, b]) + 0j, None),
        "nan": (np.array([[1.0, np.nan]]), None),
        "infinity": (np.array([[1.0, np.inf]]), None),
        "dates": (np.zeros((3, 2), "M8[s]"), None),
        "text": ("a,b", None),
        "number": (3.0, None),
        "none": (None, None),
        "function": (len, None),
        "frame of dates": (frame.assign(a=pd.date_range("2026", periods=3)), None),
        "frame of periods": (frame.assign(a=pd.period_range("2026", periods=3, freq="D")), None),
        "frame of days": (frame.assign(a=[datetime.date(2026, 1, d) for d in (1, 2, 3)]), None),
        "frame of decimals": (
            frame.assign(a=[decimal.Decimal(s) for s in ("1.5", "2.5", "3.5")]),
            A,
        ),
        "frame of lists": (frame.assign(a=[[1], [2], [3]]), None),
        "frame of dicts": (frame.assign(a=[{}, {}, {}]), None),
        "frame of sets": (frame.assign(a=[{1}, {2}, {3}]), None),
        "frame of bytes": (
            frame.assign(a=[b"x", b"y", b"x"]),
            {"a": [b"x", b"y", b"x"], "b": A["b"]},
        ),
        "frame of complex": (frame.assign(a=a + 1j), None),
        "frame with a gap": (frame.assign(a=[1.0, np.nan, 2.0]), None),
        "frame with NA": (frame.assign(a=pd.array([1, None, 2], "Int64")), None),
        "names twice": (pd.DataFrame(np.zeros((3, 2)), columns=["a", "a"]), None),
        "columns of two levels": (
            pd.DataFrame(
                np.column_stack([a, b]), columns=pd.MultiIndex.from_tuples([("p", "x"), ("p", "y")])
            ),
            {"('p', 'x')": A["a"], "('p', 'y')": A["b"]},
        ),
        "numbers as texts": (pd.DataFrame({"a": prices, "b": rng.normal(size=n)}), None),
        "a name for each event": (
            pd.DataFrame({"a": [f"event {i}" for i in range(n)], "b": rng.normal(size=n)}),
            None,
        ),
        "empty frame": (pd.DataFrame(), None),
        "sparse": (pd.DataFrame({"a": pd.arrays.SparseArray(A["a"]), "b": b}), A),
        "interval": (frame.assign(a=pd.interval_range(0, 3)), None),
    }
    for name, (table, values) in known.items():
        yield Case(f"memory: {name}", lambda _, table=table: table, values)


def all_cases() -> list[Case]:
    """Return every strange table."""
    makers = (csv_cases, hdf5_cases, numpy_cases, parquet_cases, memory_cases)
    return [case for cases in makers for case in cases()]


# ---- damage


def whole_files(folder: Path) -> list[Path]:
    """Write a plain table as every format, by other libraries and by this one."""
    from flowbdt.tables.event_table import EventTable
    from flowbdt.tables.formats import write_table

    frame = plain(60)
    endings = (".csv", ".h5", ".npy", ".npz", ".parquet", ".root")
    paths = [folder / f"plain{ending}" for ending in endings]
    for path in paths:
        write_table(path, EventTable.of(frame))
    frame.to_csv(folder / "pandas.csv")
    frame.to_parquet(folder / "pandas.parquet")
    numbers = frame[["pt", "hits"]].to_numpy(float)
    np.save(folder / "matrix.npy", numbers)
    np.savez_compressed(folder / "matrix.npz", x=numbers, names=np.array(["pt", "hits"]))
    with h5py.File(folder / "plain_h5py.h5", "w") as file:
        put(file, pt=frame.pt.to_numpy(), hits=frame.hits.to_numpy())
    return sorted(path for path in folder.iterdir() if path.suffix != ".json")


def by_reference(path: Path) -> Values:
    """Return the columns as numpy, h5py and pandas read them; None if they cannot."""
    try:
        match path.suffix:
            case ".csv":
                frame = pd.read_csv(path, skipinitialspace=True, keep_default_na=False)
                return columns(frame.loc[:, [not str(c).startswith("Unnamed") for c in frame]])
            case ".parquet":
                return columns(pd.read_parquet(path))
            case ".h5":
                with h5py.File(path) as file:
                    return {name: _decoded(file[name]) for name in file}
            case ".root":
                import uproot

                with uproot.open({str(path): "Events"}, object_cache=None) as tree:
                    return {branch.name: branch.array().to_list() for branch in tree.branches}
            case ".npy":
                with open(path, "rb") as handle:
                    array = np.load(handle)
                names = array.dtype.names
                if names is None:
                    return {f"x{i}": array[:, i].tolist() for i in range(array.shape[1])}
                return {name: array[name].tolist() for name in names}
            case _:
                with open(path, "rb") as handle:
                    loaded = dict(np.load(handle))
                if "x" in loaded and "names" in loaded:
                    named = zip(loaded["names"].tolist(), loaded["x"].T.tolist(), strict=True)
                    return {str(name): values for name, values in named}
                about = json.loads(loaded.pop("__flowbdt__", np.array([123, 125], "u1")).tobytes())
                texts = about.get("categories", {})
                return {
                    name: [texts[name][code] for code in array] if name in texts else array.tolist()
                    for name, array in loaded.items()
                    if array.ndim == 1
                }
    except Exception:
        return None


def _decoded(dataset: h5py.Dataset) -> list[Any]:
    """Return the values, texts for the codes of this program."""
    values, texts = dataset[:].tolist(), dataset.attrs.get("categories")
    return values if texts is None else [str(texts[code]) for code in values]
