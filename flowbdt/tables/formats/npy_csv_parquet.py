"""Tables in .npz, .npy, .csv and .parquet: read and written whole.

.npz and .parquet carry units, categories and attributes themselves (array ``__flowbdt__`` with
JSON, and the file metadata); .csv and .npy have a file beside them, ``.json`` added to the name.
"""

from __future__ import annotations

import contextlib
import csv
import json
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...atomic_files import json_bytes, read_json, to_plain, write_json
from ...errors import FormatError, InputError, MissingExtra
from ..checks import unique_names
from .columns import Columns, same_length

if TYPE_CHECKING:
    import pandas as pd

META = "__flowbdt__"
COUNTED = 65536
"""Rows of a .csv file that are counted together."""
_MISSING = ["", "nan", "NaN", "NA"]


def beside(path: Path) -> Path:
    """Return the name of the file with units and attributes beside a .csv or .npy file."""
    return path.with_name(path.name + ".json")


def read_meta(path: Path) -> dict[str, Any]:
    """Return units, categories, roles, types and attributes stored with a file; {} if none."""
    ending = path.suffix.lower()
    if ending == ".npz":
        return _npz_meta(_npz_arrays(path))
    if ending == ".parquet":
        return dict(_parquet_frame(path).attrs.get("flowbdt", {}))
    return dict(read_json(beside(path))) if beside(path).is_file() else {}


def _read_npz(path: Path) -> Columns:
    arrays = _npz_arrays(path)
    meta = _npz_meta(arrays)
    arrays.pop(META, None)
    if "x" in arrays and arrays["x"].ndim == 2 and set(arrays) <= {"x", "names"}:
        names = arrays.get("names")
        return Columns(_split_matrix(arrays["x"], None if names is None else list(names), path))
    return Columns.with_meta(arrays, meta)


def _npz_arrays(path: Path) -> dict[str, np.ndarray]:
    loaded = _load(path)
    if isinstance(loaded, np.ndarray):
        raise FormatError(f"{path} must be a .npz archive, but holds one array: call it .npy")
    return loaded


def _npz_meta(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    return json.loads(arrays[META].tobytes()) if META in arrays else {}


def _read_npy(path: Path) -> Columns:
    return _npy_columns(_load(path), path)


def mapped(path: Path) -> Columns:
    """Return the columns of a .npy file as they lie on disk, of another as its reader does."""
    if path.suffix.lower() != ".npy":
        return READERS[path.suffix.lower()](path)
    try:
        return _npy_columns(np.load(path, mmap_mode="r", allow_pickle=False), path)
    except (ValueError, OSError, EOFError):
        return _read_npy(path)  # says what is wrong with it


def _npy_columns(array: np.ndarray | dict[str, np.ndarray], path: Path) -> Columns:
    if not isinstance(array, np.ndarray):
        raise FormatError(f"{path} must be one .npy array, but is a .npz archive: call it .npz")
    if array.dtype.names is not None:
        arrays = {name: array[name] for name in array.dtype.names}
    else:
        arrays = _split_matrix(array, None, path)
    return Columns.with_meta(arrays, read_meta(path))


def _split_matrix(x: np.ndarray, names: list[Any] | None, path: Path) -> dict[str, np.ndarray]:
    if x.ndim != 2 or x.dtype.kind not in "biuf":
        raise InputError(
            f"{path} must hold a 2-d array of real numbers (events, columns), got"
            f" {x.ndim} dimension(s) of {x.dtype}; write text columns as .csv, or as one array"
            " per column in .npz"
        )
    known = [f"x{i}" for i in range(x.shape[1])] if names is None else names
    checked = unique_names(known, x.shape[1], str(path))
    return {name: x[:, i] for i, name in enumerate(checked)}


def _load(path: Path) -> np.ndarray | dict[str, np.ndarray]:
    """Return the array of a .npy, or the arrays of a .npz file."""
    try:
        with open(path, "rb") as handle:
            loaded = np.load(handle, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded
            return {name: part for name, part in loaded.items() if isinstance(part, np.ndarray)}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> FormatError:
    if "allow_pickle" in str(error) or "pickle" in str(error):
        return FormatError(
            f"{path} holds Python objects or no array at all; only plain arrays are read: save"
            " numbers, or texts as numpy strings"
        )
    return FormatError(
        f"{path} is not a readable {path.suffix} file ({error}); it may be truncated or of another"
        " format: copy or make it again"
    )


def _read_csv(path: Path) -> Columns:
    (columns,) = _csv_blocks(path, None)
    return columns


def _csv_blocks(path: Path, block_rows: int | None) -> Iterator[Columns]:
    """Yield the rows in blocks, or at once."""
    header = _csv_header(path)
    meta = read_meta(path)
    dtypes = meta.get("dtypes", {})
    for frame in _csv_frames(path, block_rows):
        arrays = {name: _restored(frame[name], dtypes.get(name)) for name in header}
        yield Columns.with_meta(arrays, meta)


def _restored(column: pd.Series, dtype: str | None) -> np.ndarray:
    """Return the values in the type written, where these are numbers that it can hold."""
    values = column.to_numpy()
    if dtype is None or values.dtype.kind not in "biuf" or np.isnan(values).any():
        return values
    restored = values.astype(dtype)
    # a description of another version of the file must not round what stands in this one
    return restored if np.allclose(restored, values, rtol=1e-6, atol=0) else values


def _csv_header(path: Path) -> tuple[str, ...]:
    try:
        with open(path, newline="", encoding="utf-8-sig") as handle:
            header = next(csv.reader(handle, skipinitialspace=True), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise _unreadable(path, error) from error
    if len(header) == 1 and (";" in header[0] or "\t" in header[0]):
        raise InputError(f"{path} must separate columns by commas, got the line {header[0]!r}")
    if not header or any(_is_number(name) for name in header):
        got = header or "an empty line"
        raise InputError(f"{path} must name the columns in its first line, got {got}")
    return unique_names(header, len(header), str(path))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


@contextlib.contextmanager
def _as_format_errors(path: Path) -> Iterator[None]:
    """Turn what pandas says of a broken .csv file into FormatError."""
    import pandas as pd

    try:
        with warnings.catch_warnings():
            # With index_col=False pandas only warns when it drops fields of rows that are too long.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            # Deprecated since pandas 3.1, needed for exact floats before; both are supported.
            warnings.filterwarnings("ignore", "The 'float_precision' argument is deprecated")
            yield
    except (pd.errors.ParserError, pd.errors.ParserWarning, UnicodeDecodeError) as error:
        raise FormatError(
            f"{path} is not a table ({str(error).strip()}): every line needs as many fields as the"
            " first; correct the file"
        ) from error


def _csv_frames(path: Path, block_rows: int | None) -> Iterator[pd.DataFrame]:
    import pandas as pd

    with _as_format_errors(path):
        found: Any = pd.read_csv(
            path,
            index_col=False,
            encoding="utf-8-sig",
            float_precision="round_trip",
            keep_default_na=False,
            low_memory=False,
            na_values=_MISSING,
            skipinitialspace=True,
            chunksize=block_rows,
        )
    if block_rows is None:
        yield found
        return
    with found:
        while True:
            with _as_format_errors(path):  # not around the yield: others' warnings are not ours
                frame = next(found, None)
            if frame is None:
                return
            yield frame


def _read_parquet(path: Path) -> Columns:
    frame = _parquet_frame(path)
    names = unique_names(list(frame.columns), frame.shape[1], str(path))
    arrays = {name: frame.iloc[:, i].to_numpy() for i, name in enumerate(names)}
    return Columns.with_meta(arrays, frame.attrs.get("flowbdt", {}))


def _parquet_blocks(path: Path, block_rows: int) -> Iterator[Columns]:
    """Yield the rows in blocks; a row group of the file is in memory at a time."""
    _need_pyarrow(path)
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            stored = (file.schema_arrow.metadata or {}).get(b"PANDAS_ATTRS", b"{}")
            meta = json.loads(stored).get("flowbdt", {})
            for batch in file.iter_batches(block_rows):
                names = unique_names(batch.schema.names, batch.num_columns, str(path))
                arrays = [batch.column(i).to_pandas().to_numpy() for i in range(len(names))]
                yield Columns.with_meta(dict(zip(names, arrays, strict=True)), meta)
    except (ValueError, OSError) as error:  # pyarrow's errors derive from these
        raise _unreadable(path, error) from error


def row_count(path: Path) -> int:
    """Return how many rows a file has, without having all of it in memory where that can be."""
    ending = path.suffix.lower()
    if ending == ".csv":
        _csv_header(path)
        return sum(len(frame) for frame in _csv_frames(path, COUNTED))
    if ending == ".parquet":
        return _parquet_rows(path)
    arrays = mapped(path).arrays
    return same_length({name: array.shape for name, array in arrays.items()}, path)


def _parquet_rows(path: Path) -> int:
    _need_pyarrow(path)
    import pyarrow.parquet as pq

    try:
        return int(pq.read_metadata(path).num_rows)
    except (ValueError, OSError) as error:
        raise _unreadable(path, error) from error


def _parquet_frame(path: Path) -> pd.DataFrame:
    import pandas as pd

    _need_pyarrow(path)
    try:
        return pd.read_parquet(path, engine="pyarrow")
    except (ValueError, OSError) as error:  # pyarrow's errors derive from these
        raise _unreadable(path, error) from error


def _need_pyarrow(path: Path) -> None:
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise MissingExtra(
            f"{path}: .parquet files need pyarrow: pip install 'flowbdt[data]', or use .h5"
        ) from error


READERS: dict[str, Callable[[Path], Columns]] = {
    ".npz": _read_npz,
    ".npy": _read_npy,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}


BLOCKS: dict[str, Callable[[Path, int], Iterator[Columns]]] = {
    ".csv": _csv_blocks,
    ".parquet": _parquet_blocks,
}
"""Formats that are read in blocks; of the others all is read, a .npy file only mapped."""


def write(part: Path, path: Path, columns: Columns, attributes: Mapping[str, Any]) -> None:
    """Write ``columns`` to ``part``, which becomes ``path``; what it cannot hold goes beside."""
    meta = to_plain(columns.meta(attributes))
    ending = path.suffix.lower()
    if ending == ".npz":
        _write_npz(part, columns, meta)
    elif ending == ".parquet":
        _write_parquet(part, columns, meta)
    else:
        (_write_csv if ending == ".csv" else _write_npy)(part, columns)
        write_json(beside(path), meta)


def _write_npz(part: Path, columns: Columns, meta: Mapping[str, Any]) -> None:
    # np.savez takes names as keyword arguments, so a column called "file" would break it.
    arrays = {**columns.arrays, META: np.frombuffer(json_bytes(meta), dtype=np.uint8)}
    with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, values in arrays.items():
            # A plain ZipInfo is dated 1980: equal tables give equal bytes.
            entry = zipfile.ZipInfo(f"{name}.npy")
            entry.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(entry, "w", force_zip64=True) as handle:
                np.lib.format.write_array(handle, np.asarray(values), allow_pickle=False)


def _write_npy(part: Path, columns: Columns) -> None:
    dtype = [(name, values.dtype) for name, values in columns.arrays.items()]
    array = np.empty(len(next(iter(columns.arrays.values()))), dtype=dtype)
    for name, values in columns.arrays.items():
        array[name] = values
    with open(part, "wb") as handle:
        np.save(handle, array, allow_pickle=False)


def _write_csv(part: Path, columns: Columns) -> None:
    _frame(columns).to_csv(part, index=False, lineterminator="\n")


def _write_parquet(part: Path, columns: Columns, meta: Mapping[str, Any]) -> None:
    _need_pyarrow(part)
    frame = _frame(columns)
    frame.attrs["flowbdt"] = meta
    frame.to_parquet(part, engine="pyarrow", index=False)


def _frame(columns: Columns) -> pd.DataFrame:
    """Return the columns as people read them: categories as texts, missing ones as None."""
    import pandas as pd

    arrays = dict(columns.arrays)
    for name, texts in columns.categories.items():
        lookup = np.array([*texts, None], dtype=object)
        codes = np.nan_to_num(arrays[name].astype(np.float64), nan=len(texts))
        arrays[name] = lookup[codes.astype(np.int64)]
    return pd.DataFrame(arrays)
