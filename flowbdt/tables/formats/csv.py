"""Tables in .csv: text with the column names in the first line, categories as their texts."""

from __future__ import annotations

import contextlib
import csv
import itertools
import re
import warnings
from collections.abc import Collection, Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import DataWarning, FormatError, InputError
from ..checks import unique_names
from .base import FORMATS, PlainFormat, StoredColumns, rows_from, unreadable

if TYPE_CHECKING:
    import pandas as pd

COUNTED = 65536
"""Rows that are counted together."""
WRITTEN = 8192
"""Rows that are written together."""
LOOKED_AT = 1000
"""Lines that are searched for numbers with leading zeros."""
MISSING = ["nan", "NaN", "NA"]
"""Words for a missing number, beside the empty field; among texts they are texts."""


@FORMATS.register(".csv")
class Csv(PlainFormat):
    """Fields separated by commas."""

    def read(self, path: Path) -> StoredColumns:
        (columns,) = self._read_blocks(path, None)
        return columns

    def blocks(
        self, path: Path, block_rows: int, first: int = 0, names: Sequence[str] = ()
    ) -> Iterator[StoredColumns]:
        return rows_from(self._read_blocks(path, block_rows), first)

    def _read_blocks(self, path: Path, block_rows: int | None) -> Iterator[StoredColumns]:
        description = self.description(path)
        dtypes, known = description.get("dtypes", {}), description.get("categories", {})
        header, ours = _header(path, dtypes)
        texts = {name: "" in known.get(name, ()) for name in (*self.texts, *known)}
        if not ours:
            _warn_of_leading_zeros(path, header, texts)
        for frame in _frames(path, header, ours, block_rows, texts):
            columns = {name: frame.iloc[:, i] for i, name in enumerate(header)}
            columns |= {n: _numbers(c, n, path) for n, c in columns.items() if n not in texts}
            arrays = {name: _restored(c, dtypes.get(name)) for name, c in columns.items()}
            yield StoredColumns.described(arrays, description)

    def count_rows(self, path: Path) -> int:
        frames = _frames(path, *_header(path, self.description(path).get("dtypes", {})), COUNTED)
        return sum(map(len, frames))

    def write_values(self, part: Path, columns: StoredColumns) -> None:
        for name, texts in columns.categories.items():
            if "" in texts and np.isnan(columns.arrays[name]).any():
                raise InputError(
                    f"{name!r} has missing entries and the category '', which a .csv file"
                    " cannot tell apart: rename the category, or write .h5 or .parquet"
                )
        words = (
            *columns.arrays,
            *(text for texts in columns.categories.values() for text in texts),
        )
        # Python quotes "\r" only where it ends lines
        quote_all = any("\r" in word for word in words)
        typed = any(
            kind != "bytes"
            for name, kind in columns.originals.items()
            if name not in columns.categories
        )
        if not (quote_all or typed):
            _write_rows(part, columns)
            return
        frame = columns.to_frame(categories_as_texts=True)
        quoting: Any = csv.QUOTE_NONNUMERIC if quote_all else csv.QUOTE_MINIMAL
        frame.to_csv(part, index=False, lineterminator="\n", quoting=quoting)


def _write_rows(part: Path, columns: StoredColumns) -> None:
    """Write the bytes that pandas writes, without it: its import takes longer than small files."""
    with open(part, "w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(columns.arrays)
        for low in range(0, max(map(len, columns.arrays.values()), default=0), WRITTEN):
            fields = (
                _fields(values[low : low + WRITTEN], columns.categories.get(name))
                for name, values in columns.arrays.items()
            )
            writer.writerows(zip(*fields, strict=True))


def _fields(values: np.ndarray, texts: Sequence[str] | None) -> list[Any]:
    """Return the fields of a column: numbers with the fewest digits that tell them."""
    if texts is not None:
        codes = np.nan_to_num(values.astype(np.float64), nan=-1).astype(np.int64)
        return [texts[code] if code >= 0 else "" for code in codes.tolist()]
    if values.dtype.kind != "f":
        return values.tolist()
    return np.where(np.isnan(values), "", values.astype(str)).tolist()


def _numbers(column: pd.Series, name: str, path: Path) -> pd.Series:
    """Return a column with `MISSING` words among numbers as numbers, others as they are."""
    import pandas as pd

    words = column.isin(MISSING)
    if column.dtype.kind in "biuf" or not words.any():
        return column
    rest = column[~words & column.notna()]
    truth = {"True": 1.0, "TRUE": 1.0, "true": 1.0, "False": 0.0, "FALSE": 0.0, "false": 0.0}
    if rest.isin(truth).all() or pd.to_numeric(rest, errors="coerce").notna().all():
        values = rest.map(lambda text: truth.get(text, text)).astype(np.float64)
        return values.reindex(column.index)
    warnings.warn(
        f"{path}: column {name!r} has the text {column[words].iloc[0]!r}, which is read as one of"
        " its categories; where the value is missing, leave the field empty",
        DataWarning,
        stacklevel=2,
    )
    return column


def _restored(column: pd.Series, dtype: str | None) -> np.ndarray:
    """Return the values in the type written, where these are numbers that it can hold."""
    values = column.to_numpy()
    if dtype is None or values.dtype.kind not in "biuf" or np.isnan(values).any():
        return values
    restored = values.astype(dtype)
    # a description of another version of the file must not round what stands in this one
    return restored if np.allclose(restored, values, rtol=1e-6, atol=0) else values


def _header(path: Path, described: Collection[str]) -> tuple[tuple[str, ...], bool]:
    """Return the names of the columns, and if the file is one of ours, whose blanks count."""
    for ours in (True, False):
        try:
            with open(path, newline="", encoding="utf-8-sig") as handle:
                lines = csv.reader(handle, skipinitialspace=not ours)
                header, first = next(lines, []), next(lines, [])
        except (UnicodeDecodeError, csv.Error) as error:
            raise unreadable(path, error) from error
        if ours and described and sorted(header) == sorted(described):
            return tuple(header), True
    if len(header) == 1 and any(
        mark in header[0].strip() and (mark in ";\t" or mark in "".join(first).strip())
        for mark in ";\t|: "
    ):
        raise InputError(f"{path} must separate columns by commas, got the line {header[0]!r}")
    if header and not all(name.strip() for name in header):
        number = 1 + [name.strip() for name in header].index("")
        raise InputError(
            f"{path}: column {number} of {len(header)} has no name: if it is the index that pandas"
            " writes, use to_csv(..., index=False); if lines end in a comma, remove it; else name"
            " the column"
        )
    if not header or any(_is_number(name) for name in header):
        got = header or "an empty line"
        raise InputError(f"{path} must name the columns in its first line, got {got}")
    return unique_names([name.strip() for name in header], len(header), str(path)), False


def _warn_of_leading_zeros(path: Path, header: Sequence[str], texts: Container[str]) -> None:
    """Warn of identifiers such as 00501, in the first lines, that become other texts as numbers."""
    rows: list[list[str]] = []
    with (
        open(path, newline="", encoding="utf-8-sig", errors="replace") as handle,
        contextlib.suppress(csv.Error),  # pandas says more
    ):
        lines = csv.reader(handle, skipinitialspace=True)
        rows = [fields for fields in itertools.islice(lines, 1, LOOKED_AT) if fields]
    for name, fields in zip(header, zip(*rows, strict=False), strict=False):
        zeros = [field for field in fields if re.fullmatch(r"0\d+", field)]
        if zeros and name not in texts and all(map(_is_number, filter(None, fields))):
            warnings.warn(
                f"{path}: {name!r} is read as numbers, so that {zeros[0]} comes back as"
                f" {int(zeros[0])}; for a column of texts, store the table as .parquet",
                DataWarning,
                stacklevel=2,
            )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _frames(
    path: Path,
    header: Sequence[str],
    ours: bool,
    block_rows: int | None,
    texts: Mapping[str, bool] = {},
) -> Iterator[pd.DataFrame]:
    """Yield the rows of a file in blocks; the columns ``texts`` are read as they stand.

    Empty fields are missing, but for texts where they are said to be a text, too.
    """
    import pandas as pd

    with _as_format_errors(path):
        reader: Any = pd.read_csv(
            path,
            index_col=False,
            encoding="utf-8-sig",
            float_precision="round_trip",
            header=0,
            names=list(header),
            dtype={name: str for name in header if name in texts},
            keep_default_na=False,
            low_memory=False,
            na_values={name: [] if texts.get(name) else [""] for name in header},
            skipinitialspace=not ours,
            chunksize=block_rows,
        )
    if block_rows is None:
        yield reader
        return
    with reader:
        while True:
            with _as_format_errors(path):  # not around the yield: others' warnings are not ours
                frame = next(reader, None)
            if frame is None:
                return
            yield frame


@contextlib.contextmanager
def _as_format_errors(path: Path) -> Iterator[None]:
    """Turn pandas' errors and warnings about a broken file into FormatError."""
    import pandas as pd

    try:
        with warnings.catch_warnings():
            # With index_col=False pandas only warns when it drops fields of rows that are too long.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            # Deprecated since pandas 3.1, needed for exact floats before; both are supported.
            warnings.filterwarnings("ignore", "The 'float_precision' argument is deprecated")
            yield
    except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
        raise FormatError(
            f"{path} is not a table ({str(error).strip()}): every line needs as many fields as the"
            " first; correct the file"
        ) from error
    except (ValueError, OverflowError) as error:
        raise FormatError(f"{path} is not a table ({error}): save it as UTF-8 text") from error
