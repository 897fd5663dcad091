"""Read and write tables by file ending: .h5, .hdf5, .npz, .npy, .csv, .parquet.

Start with `read_table` and `write_table`; `iter_blocks` and `TableWriter` do the same for tables
that do not fit in memory. ``hdf5.py`` and ``flat.py`` know the formats, ``columns.py`` what they
have in common.
"""

from __future__ import annotations

from .read import ENDINGS, iter_blocks, read_attributes, read_conditions, read_table
from .read_blocks import condition_blocks, count_rows
from .write import TableWriter, write_table

__all__ = [
    "ENDINGS",
    "TableWriter",
    "condition_blocks",
    "count_rows",
    "iter_blocks",
    "read_attributes",
    "read_conditions",
    "read_table",
    "write_table",
]
