"""Tables that are written in pieces: whatever interrupts them, they end in the same bytes."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pandas as pd
import pytest

from flowbdt import EventTable, read_table, write_table
from flowbdt.errors import FormatError, InputError, RunError
from flowbdt.tables.formats import ResumableWriter, TableWriter, hdf5, resumable
from flowbdt.tables.formats.committed import PAGE, CommittedFile

# The file that can be cut off


def filled(path, pieces=((0, b"head"), (PAGE + 3, b"tail")), size=0):
    handle = open(path, "w+b" if not size else "r+b", buffering=0)  # noqa: SIM115
    file = CommittedFile(handle, size)
    for at, content in pieces:
        file.seek(at)
        file.write(content)
    return handle, file


def test_what_is_not_committed_leaves_the_file_as_it_was(tmp_path):
    handle, file = filled(tmp_path / "a")
    file.apply(file.commit())
    before = (tmp_path / "a").read_bytes()
    for at, content in ((0, b"HEAD"), (PAGE - 2, b"across"), (len(before) - 1, b"Lmore")):
        file.seek(at)
        file.write(content)
    assert (tmp_path / "a").read_bytes()[: len(before)] == before
    file.seek(0)
    assert file.read(PAGE * 3)[:4] == b"HEAD"  # but whoever writes it reads what it wrote
    file.apply(file.commit())
    after = (tmp_path / "a").read_bytes()
    handle.close()
    assert after == b"HEAD" + bytes(PAGE - 6) + b"across" + before[PAGE + 4 : -1] + b"Lmore"


def test_a_commit_can_be_applied_again(tmp_path):
    handle, file = filled(tmp_path / "a")
    file.apply(file.commit())
    file.seek(1)
    file.write(b"EAD")
    record = file.commit()
    for _ in range(2):
        file.apply(record)
        assert (tmp_path / "a").read_bytes()[:4] == b"hEAD"
    handle.close()


def test_a_file_that_lost_committed_bytes_is_refused(tmp_path):
    handle, file = filled(tmp_path / "a")
    record = file.commit()
    handle.truncate(10)
    with pytest.raises(FormatError, match="shorter"):
        file.apply(record)
    handle.close()


# The table that several processes write


def tables(n=1000):
    rng = np.random.default_rng(0)
    x = np.column_stack([rng.normal(size=n), np.arange(n) % 7])
    table = EventTable.of(pd.DataFrame({"x": x[:, 0], "k": x[:, 1].astype(int)}))
    return [table.take(slice(low, low + 90)) for low in range(0, n, 90)]


def append_missing(writer):
    low = 0
    for table in tables():
        writer.append(table.take(slice(min(max(writer.n_rows - low, 0), table.n), None)))
        low += table.n


class Torn:
    """A file that shows what would be on the disk if each of its writes were the last one."""

    def __init__(self, handle, snapshot):
        self._handle, self._snapshot = handle, snapshot

    def __getattr__(self, name):
        return getattr(self._handle, name)

    def write(self, content):
        half = len(content) // 2
        self._handle.write(content[:half])
        self._snapshot()
        return half + self._handle.write(content[half:])


def test_a_table_cut_off_at_any_write_ends_in_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(hdf5, "CHUNK", 64)
    monkeypatch.setattr(hdf5, "SEGMENT", 256)
    with TableWriter(tmp_path / "whole.h5", {"a": 1}) as writer:
        for table in tables():
            writer.append(table)
    whole = (tmp_path / "whole.h5").read_bytes()
    (tmp_path / "now").mkdir()
    names = ("t.h5.partial", "t.h5.partial.json")

    def snapshot():
        to = tmp_path / f"cut{len(list(tmp_path.glob('cut*'))):04d}"
        to.mkdir()
        for name in names:
            if (tmp_path / "now" / name).exists():
                shutil.copy(tmp_path / "now" / name, to)

    begin = CommittedFile.__init__
    with monkeypatch.context() as patch:
        patch.setattr(
            CommittedFile, "__init__", lambda self, f, size=0: begin(self, Torn(f, snapshot), size)
        )
        with ResumableWriter(tmp_path / "now" / "t.h5", {"a": 1}, {"seed": 1}) as writer:
            append_missing(writer)
    assert (tmp_path / "now" / "t.h5").read_bytes() == whole
    cuts, kept = sorted(tmp_path.glob("cut*")), set()
    assert len(cuts) > 50
    for cut in cuts[::3]:
        with ResumableWriter(cut / "t.h5", {"a": 1}, {"seed": 1}, resume=True) as writer:
            kept.add(writer.n_rows)
            append_missing(writer)
        assert (cut / "t.h5").read_bytes() == whole, cut
        assert not any((cut / name).exists() for name in names)
    assert kept >= {0, 128, 256, 896}


def begun(folder, identity=None, rows=4):
    """Leave a table as an error in the middle does."""

    def stopped():
        with ResumableWriter(folder / "t.h5", {}, identity or {"n": 3}) as writer:
            for table in tables()[:rows]:
                writer.append(table)
            raise KeyError

    with pytest.raises(KeyError):
        stopped()


def test_only_what_the_same_sample_left_is_continued(tmp_path, monkeypatch):
    monkeypatch.setattr(hdf5, "CHUNK", 64)
    monkeypatch.setattr(hdf5, "SEGMENT", 1)
    begun(tmp_path)
    with pytest.raises(RunError, match="--resume"):
        ResumableWriter(tmp_path / "t.h5", {}, {"n": 3}).__enter__()
    with pytest.raises(RunError, match=r"another n \(3 then, 4 now\)"):
        ResumableWriter(tmp_path / "t.h5", {}, {"n": 4}, resume=True).__enter__()
    with ResumableWriter(tmp_path / "t.h5", {}, {"n": 3}, resume=True) as writer:
        assert writer.n_rows == 320
        with pytest.raises(RunError, match="another process"):
            ResumableWriter(tmp_path / "t.h5", {}, {"n": 3}, resume=True).__enter__()
        append_missing(writer)
    assert read_table(tmp_path / "t.h5").n == 1000


def test_a_record_of_another_format_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(hdf5, "CHUNK", 64)
    monkeypatch.setattr(hdf5, "SEGMENT", 1)
    begun(tmp_path)
    record = tmp_path / "t.h5.partial.json"
    record.write_text(record.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(FormatError, match="format 2"):
        ResumableWriter(tmp_path / "t.h5", {}, {"n": 3}, resume=True).__enter__()


def test_nothing_is_left_of_what_was_stopped_before_its_first_commit(tmp_path):
    begun(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_record_of_a_finished_table_says_nothing_about_the_next_one(tmp_path):
    """It stays behind if its process is killed between its last two steps."""
    record = tmp_path / "t.h5.partial.json"
    record.write_text('{"format": 1, "identity": {"n": 2}, "rows": 7, "size": 9, "pages": {}}')
    begun(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_table_that_another_process_has_just_finished_stays(tmp_path, monkeypatch):
    """It is renamed after we opened it and before we have the lock."""

    def finished_meanwhile(handle):
        (tmp_path / "t.h5.partial").write_text("finished")
        os.replace(tmp_path / "t.h5.partial", tmp_path / "t.h5")
        return True

    monkeypatch.setattr(resumable, "locked", finished_meanwhile)
    with pytest.raises(RunError, match="another process"):
        ResumableWriter(tmp_path / "t.h5", {}, {}).__enter__()
    assert (tmp_path / "t.h5").read_text() == "finished"


@pytest.mark.parametrize("rows", [512, 1000])
def test_a_table_stopped_before_its_last_step_ends_in_the_same_bytes(tmp_path, monkeypatch, rows):
    monkeypatch.setattr(hdf5, "CHUNK", 64)
    monkeypatch.setattr(hdf5, "SEGMENT", 256)
    x = EventTable.concatenate(tables()).take(slice(0, rows))
    write_table(tmp_path / "whole.h5", x)

    def fill():
        with ResumableWriter(tmp_path / "t.h5", {}, {}, resume=True) as writer:
            if writer.n_rows == 0:
                writer.append(x)
            return writer.n_rows

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(resumable.ResumableWriter, "_rename", stop)
        with pytest.raises(KeyboardInterrupt):
            fill()
    assert fill() == rows
    assert (tmp_path / "t.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()
    assert len(list(tmp_path.iterdir())) == 2


def test_a_table_that_cannot_begin_leaves_nothing(tmp_path):
    with pytest.raises(InputError, match="column_order"):
        ResumableWriter(tmp_path / "t.h5", {"column_order": 1}, {}).__enter__()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(RunError, match="make it first"):
        ResumableWriter(tmp_path / "missing" / "t.h5", {}, {}).__enter__()


def test_only_hdf5_can_be_continued(tmp_path):
    with pytest.raises(InputError, match=r"\.h5"):
        ResumableWriter(tmp_path / "t.csv", {}, {}, resume=True)
