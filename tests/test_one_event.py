"""From a model file to its first event: few imports, mapped arrays, the same events."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from conftest import QUICK

from flowbdt import EventTable, FlowBDT, open_sampler
from flowbdt.errors import DataWarning, FormatError, InputError
from flowbdt.generation.one_event import PackedFlow
from flowbdt.generation.packed.array_file import ALIGNMENT, file_bytes, texts
from flowbdt.generation.packed.model_arrays import model_bytes
from flowbdt.training import run_directory

N = 40
COND = np.array([[0.3, -1.0], [np.nan, 0.5]])[np.arange(N) % 5 // 4]


@pytest.fixture(scope="module")
def fitted():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 3))
    x[:, 1] = np.exp(x[:, 1])
    cond = rng.normal(size=(400, 2))
    cond[::9, 0] = np.nan
    data = EventTable.of(x, list("abc"), cond=cond)
    return FlowBDT(
        preset="fast",
        n_steps=3,
        preconditioner={"name": "mixture", "n_components": 3},
        booster=QUICK,
        rejection=True,
        relations=[],
        random_state=1,
    ).fit(data)


@pytest.fixture
def file(fitted, tmp_path):
    fitted.save(tmp_path / "model.flow")
    return tmp_path / "model.flow"


def events(sampler):
    return np.array([sampler.one(cond).copy() for cond in COND])


def test_events_of_a_file_are_those_of_the_model(fitted, file):
    whole = fitted.sample(cond=COND, random_state=4).x
    assert isinstance(open_sampler(file)._flow, PackedFlow)
    assert np.array_equal(events(open_sampler(file, random_state=4)), whole)


CHECK = """
import json, sys
import flowbdt
sampler = flowbdt.open_sampler(sys.argv[1], random_state=4)
events = [sampler.one([0.3, -1.0]).tolist() for _ in range(3)]
heavy = {"xgboost", "sklearn", "scipy", "pandas", "h5py"} & set(sys.modules)
print(json.dumps([events, sorted(heavy)]))
"""


def test_a_process_imports_nothing_heavy(file):
    done = subprocess.run(
        [sys.executable, "-c", CHECK, str(file)], capture_output=True, text=True, check=True
    )
    found, heavy = json.loads(done.stdout)
    assert heavy == []
    assert np.array_equal(found, events(open_sampler(file, random_state=4))[:3])


def test_files_without_packed_arrays_and_folders_of_others_give_the_same(fitted, file, tmp_path):
    (tmp_path / "old.flow").write_bytes(fitted.archive_)
    assert run_directory.Archive(tmp_path / "old.flow").mapped(run_directory.PACKED) is None
    old = events(open_sampler(tmp_path / "old.flow", random_state=4))
    assert np.array_equal(old, events(open_sampler(file, random_state=4)))


def test_a_file_with_packed_arrays_is_a_model_file(fitted, file):
    again = FlowBDT.load(file)
    assert again.archive_ == fitted.archive_
    again.save(file.with_name("again.flow"))
    assert file.with_name("again.flow").read_bytes() == file.read_bytes()


def test_packed_arrays_begin_with_a_line_of_the_cache(file):
    memory = run_directory.Archive(file).mapped(run_directory.PACKED)
    assert np.frombuffer(memory, np.uint8).ctypes.data % ALIGNMENT == 0


def test_damaged_arrays_are_refused(file):
    content = bytearray(file.read_bytes())
    with zipfile.ZipFile(file) as archive:
        info = archive.getinfo(run_directory.PACKED)
    content[info.header_offset + info.file_size // 2] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(FormatError, match="damaged"):
        open_sampler(file)


@pytest.mark.parametrize("format_of_before", [True, False])
def test_arrays_of_another_format_or_model_are_not_used(fitted, file, format_of_before):
    content = file_bytes({"text.about": texts(["1", "digest", "another model"])})
    if format_of_before:
        content = model_bytes(fitted)
        content = content[:8] + b"\2" + content[9:]
    file.write_bytes(run_directory.with_packed(fitted.archive_, content))
    assert PackedFlow.of(run_directory.Archive(file)) is None
    assert len(events(open_sampler(file, random_state=4))) == N


@pytest.mark.parametrize("packing", [b"", b"another", b"\2\0\0\0\0\0\0\0[]", b"\xff" * 100])
def test_arrays_that_another_release_packed_otherwise_are_not_used(fitted, tmp_path, packing):
    path = tmp_path / "model.flow"
    path.write_bytes(run_directory.with_packed(fitted.archive_, packing))
    assert PackedFlow.of(run_directory.Archive(path)) is None


def test_one_event_that_is_lost_or_undefined_is_told(fitted):
    sampler = fitted.sampler(random_state=1)
    event = sampler._event
    event.run = lambda: 1
    with pytest.warns(DataWarning, match="undefined in event 0"):
        sampler.one([0.0, 0.0])
    event.run = lambda: -1
    with pytest.warns(DataWarning, match="not finite"), pytest.raises(InputError, match="event 1"):
        sampler.one([0.0, 0.0])
