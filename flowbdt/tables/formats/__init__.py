"""Table files: `read_table` and `write_table` choose the format by the ending of the name.

`iter_blocks` and `TableWriter` do the same for tables larger than the memory. A format is a class
in a file of its own here, registered in `FORMATS`.
"""

from __future__ import annotations

from . import csv, hdf5, npy, parquet, root  # noqa: F401  (they enter themselves in FORMATS)
from .base import FORMATS, PlainFormat, StoredColumns, TableFormat, WholeFormat
from .table_files import (
    TableWriter,
    condition_blocks,
    count_rows,
    iter_blocks,
    read_attributes,
    read_conditions,
    read_given,
    read_like,
    read_table,
    write_table,
)

__all__ = [
    "FORMATS",
    "PlainFormat",
    "StoredColumns",
    "TableFormat",
    "TableWriter",
    "WholeFormat",
    "condition_blocks",
    "count_rows",
    "iter_blocks",
    "read_attributes",
    "read_conditions",
    "read_given",
    "read_like",
    "read_table",
    "write_table",
]
