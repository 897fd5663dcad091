"""Tables in .parquet, with units, categories and attributes in the file's metadata."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import FlowbdtError, MissingExtra
from ..checks import unique_names
from ..original_types import category_numbers
from .base import (
    FORMATS,
    StoredColumns,
    WholeFormat,
    checked_description,
    rows_from,
    unreadable,
)

if TYPE_CHECKING:
    import pandas as pd

KEY = "flowbdt"
"""Name of the description among the attributes that pandas stores."""


@FORMATS.register(".parquet")
class Parquet(WholeFormat):
    """A Parquet file as pandas writes it; needs pyarrow."""

    def read(self, path: Path) -> StoredColumns:
        import pandas as pd

        with _reading(path):
            frame = pd.read_parquet(path, engine="pyarrow")
            if frame.index.names != [None]:  # an index with a name is a column like others
                frame = frame.reset_index()
            names = unique_names(list(frame.columns), frame.shape[1], str(path))
            arrays = {name: _values(frame.iloc[:, i]) for i, name in enumerate(names)}
        return _described(arrays, frame.attrs.get(KEY), path)

    def blocks(
        self, path: Path, block_rows: int, first: int = 0, names: Sequence[str] = ()
    ) -> Iterator[StoredColumns]:
        return rows_from(self._read_blocks(path, block_rows), first)

    def _read_blocks(self, path: Path, block_rows: int) -> Iterator[StoredColumns]:
        """Yield the rows in blocks; a row group of the file is in memory at a time."""
        with _reading(path):
            from pyarrow.parquet import ParquetFile

            with ParquetFile(path) as file:
                stored = (file.schema_arrow.metadata or {}).get(b"PANDAS_ATTRS", b"{}")
                description = json.loads(stored).get(KEY)
                for batch in file.iter_batches(block_rows):
                    names = unique_names(batch.schema.names, batch.num_columns, str(path))
                    arrays = [_values(column.to_pandas()) for column in batch.columns]
                    yield _described(dict(zip(names, arrays, strict=True)), description, path)

    def count_rows(self, path: Path) -> int:
        with _reading(path):
            from pyarrow.parquet import read_metadata

            return int(read_metadata(path).num_rows)

    def write(self, part: Path, path: Path, columns: StoredColumns) -> None:
        _need_pyarrow(path)
        frame = columns.to_frame()
        for name, dtype in frame.dtypes.items():  # none of which Parquet knows
            if str(dtype).startswith(("Sparse", "float128")):
                frame[name] = frame[name].to_numpy(np.float64)
        frame.attrs[KEY] = columns.description
        frame.to_parquet(part, engine="pyarrow", index=False)


def _values(column: pd.Series) -> Any:
    """Return a column as it came: categories and pandas' own types are no numpy arrays."""
    import pandas as pd

    if isinstance(column.dtype, np.dtype):
        return column.to_numpy()
    if isinstance(column.dtype, pd.StringDtype):  # pandas looks at their bytes too late
        column.array.__arrow_array__().validate(full=True)
    return column.array


def _described(arrays: dict[str, Any], description: Any, path: Path) -> StoredColumns:
    import pandas as pd

    described = checked_description(description or {}, path)
    for name, texts in described.get("categories", {}).items():
        values = arrays.get(name)
        numbers = category_numbers(texts)
        if isinstance(values, np.ndarray) and values.dtype.kind in "iuf" and numbers is not None:
            codes = pd.Index(numbers).get_indexer(values)  # Parquet keeps categories of texts only
            arrays[name] = np.where(np.isnan(values), np.nan, codes)
    return StoredColumns.described(arrays, described)


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn pyarrow's errors about a broken file into FormatError."""
    _need_pyarrow(path)
    try:
        yield
    except FlowbdtError:
        raise
    except (
        ValueError,
        OSError,
        LookupError,
        TypeError,
        AttributeError,
        NotImplementedError,
    ) as error:
        # pyarrow's errors derive from these
        raise unreadable(path, error) from error


def _need_pyarrow(path: Path) -> None:
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise MissingExtra.of(f"pyarrow, which reads and writes {path},", error, "data") from error
