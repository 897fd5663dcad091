"""Strange and damaged tables are read right or refused clearly."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import strange_tables as tables
from fault_trials import Ended, child, damaged, trials

from flowbdt.errors import FlowbdtError
from flowbdt.tables.event_table import EventTable
from flowbdt.tables.formats import read_table

pytestmark = pytest.mark.faults

OTHER_VALUES = 90
"""Exit status of a child that read other values."""


def same(one: Any, other: Any, rounded: bool = False) -> bool:
    """Return whether two lists of values are equal, numbers as numbers, the rest as texts.

    ``rounded``: there was a word about rounding, as for integers beyond 2**53.
    """
    try:
        left, right = np.asarray(one, dtype=float), np.asarray(other, dtype=float)
    except (TypeError, ValueError):
        return [str(v) for v in one] == [str(v) for v in other]
    close = np.allclose(left, right, rtol=1e-15, atol=0) if rounded else False
    return left.shape == right.shape and bool(close or np.array_equal(left, right, equal_nan=True))


def judged(data: Any, values: tables.Values) -> int:
    """Read a table in a child; return its status."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            table = read_table(data) if isinstance(data, Path) else EventTable.of(data)
            frame = table.to_frame()
        except FlowbdtError as error:
            print(f"error: {error}")
            return 1
    read = {name: frame[name].tolist() for name in frame.columns}
    rounded = any("rounded" in str(warning.message) for warning in caught)
    known = {} if values is None else values
    if known and all(n in read and same(read[n], v, rounded) for n, v in known.items()):
        return 0
    print({name: column[:4] for name, column in read.items()}, table.n)
    return OTHER_VALUES


def outcome(ended: Ended) -> str:
    """Return the outcome of a read."""
    return "silent" if ended.status == OTHER_VALUES else ended.outcome()


def test_strange_tables_are_read_right_or_refused(tmp_path, request):
    with trials("strange tables", request) as counter:
        for number, case in enumerate(tables.all_cases()):
            folder = tmp_path / str(number)
            folder.mkdir()
            data = case.make(folder)
            ended = child(lambda data=data, case=case: judged(data, case.values))
            counter.add(outcome(ended), case.name, ended.text)


def test_damaged_tables_are_read_as_other_programs_do_or_refused(tmp_path, request):
    """A file without checksums may hold other values: then every program reads the same ones."""
    rng = np.random.default_rng(19)
    (tmp_path / "whole").mkdir()
    files = tables.whole_files(tmp_path / "whole")
    with trials("damaged tables", request) as counter:
        for number in range(60 * counter.scale):
            file = files[number % len(files)]
            kind = ("bit", "truncation", "zeros")[number % 3]
            path = tmp_path / f"{number}-{file.name}"
            path.write_bytes(damaged(file.read_bytes(), kind, rng))
            ended = child(lambda path=path: judged(path, tables.by_reference(path)))
            counter.add(outcome(ended), f"{kind} of {path}", ended.text)
