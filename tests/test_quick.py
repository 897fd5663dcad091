"""From a model file to its first event: few imports, mapped arrays, the same events."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import QUICK

from flowbdt import EventTable, FlowBDT, open_sampler
from flowbdt.errors import DataWarning, FormatError, InputError
from flowbdt.generation.compiled import kept_machine_code
from flowbdt.generation.packed import packed_model
from flowbdt.training import run_directory

pytest.importorskip("numba")

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


def test_packed_content_comes_back_as_it_was():
    content = {
        "tuple": (1, True, 0.5, np.arange(5, dtype=np.uint16), np.zeros((0, 3))),
        "none": None,
        "names": ["a", "b"],
    }
    found = packed_model.mapped_content(memoryview(packed_model.content_bytes(content)))
    number, truth, real, array, empty = found["tuple"]
    assert (number, truth, real) == (1, True, 0.5)
    assert array.dtype == np.uint16
    assert array.tolist() == [0, 1, 2, 3, 4]
    assert not array.flags.writeable
    assert empty.shape == (0, 3)
    assert (found["none"], found["names"]) == (None, ["a", "b"])


def test_events_of_a_file_are_those_of_the_model(fitted, file):
    whole = fitted.sample(cond=COND, random_state=4).x
    by_numba_then_kept = events(open_sampler(file, random_state=4))
    kept = events(open_sampler(file, random_state=4))
    assert np.array_equal(by_numba_then_kept, whole)
    assert np.array_equal(kept, whole)


CHECK = """
import json, sys
import flowbdt
sampler = flowbdt.open_sampler(sys.argv[1], random_state=4)
events = [sampler.one([0.3, -1.0]).tolist() for _ in range(3)]
heavy = {"numba", "xgboost", "sklearn", "scipy", "pandas", "h5py"} & set(sys.modules)
print(json.dumps([events, sorted(heavy)]))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="kept code is for Linux")
def test_a_second_process_imports_nothing_heavy(file):
    for _ in range(2):
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
    assert np.frombuffer(memory, np.uint8).ctypes.data % packed_model.LINE == 0


def test_damaged_arrays_are_refused(file):
    content = bytearray(file.read_bytes())
    with zipfile.ZipFile(file) as archive:
        info = archive.getinfo(run_directory.PACKED)
    content[info.header_offset + info.file_size // 2] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(FormatError, match="damaged"):
        open_sampler(file)


def test_arrays_of_another_format_or_model_are_not_used(fitted, file, monkeypatch):
    monkeypatch.setattr(packed_model, "FORMAT", 99)
    assert packed_model.PackedFlow.of(run_directory.Archive(file)) is None
    assert len(events(open_sampler(file, random_state=4))) == N


def test_code_of_other_sources_or_another_processor_is_not_loaded(file, tmp_path, monkeypatch):
    monkeypatch.setattr(kept_machine_code, "folder", lambda: tmp_path / "code")
    (tmp_path / "code").mkdir()
    first = events(open_sampler(file, random_state=4))
    sampler = open_sampler(file, random_state=4)
    assert sampler._flow.prepare(*sampler.memory)
    assert np.array_equal(events(sampler), first)
    monkeypatch.setattr(kept_machine_code, "key", lambda: "another")
    assert not open_sampler(file, random_state=4)._flow.prepare(*sampler.memory)


@pytest.mark.parametrize("packing", [b"", b"another", b"\2\0\0\0\0\0\0\0[]", b"\xff" * 100])
def test_arrays_that_another_release_packed_otherwise_are_not_used(fitted, tmp_path, packing):
    path = tmp_path / "model.flow"
    path.write_bytes(run_directory.with_packed(fitted.archive_, packing))
    assert packed_model.PackedFlow.of(run_directory.Archive(path)) is None


@pytest.fixture
def kept(file, tmp_path, monkeypatch):
    """The files of machine code that a first sampler leaves in a folder of its own."""
    monkeypatch.setattr(kept_machine_code, "folder", lambda: tmp_path / "code")
    events(open_sampler(file, random_state=4))
    found = sorted((tmp_path / "code").iterdir())
    assert [path.name.split("-")[:2] for path in found] == [
        ["native", name] for name in ("predict", "restore", "walk")
    ]
    return found


def is_loaded(file):
    sampler = open_sampler(file, random_state=4)
    return sampler._flow.prepare(*sampler.memory)


@pytest.mark.parametrize("place", [-100, 9, 40])
def test_damaged_code_is_not_loaded(file, kept, place):
    assert is_loaded(file)
    for path in kept:
        content = bytearray(path.read_bytes())
        content[place] ^= 1
        path.write_bytes(bytes(content))
    assert not is_loaded(file)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="kept code is for Linux")
@pytest.mark.parametrize("mode", [0o664, 0o646])
def test_code_that_others_could_have_written_is_not_loaded(file, kept, mode):
    assert is_loaded(file)
    kept[0].chmod(mode)
    assert not is_loaded(file)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="kept code is for Linux")
def test_code_of_another_user_is_not_loaded(file, kept, monkeypatch):
    owned = SimpleNamespace(**vars(os))
    owned.fstat = lambda _: SimpleNamespace(st_uid=os.geteuid() + 4242, st_mode=0o644)
    monkeypatch.setattr(kept_machine_code, "os", owned)
    assert not is_loaded(file)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="kept code is for Linux")
def test_code_is_kept_where_a_generous_mask_would_let_others_write(file, tmp_path, monkeypatch):
    monkeypatch.setattr(kept_machine_code, "folder", lambda: tmp_path / "code")
    before = os.umask(0)
    try:
        events(open_sampler(file, random_state=4))
    finally:
        os.umask(before)
    assert is_loaded(file)


def test_keeping_code_is_tried_once_for_each_function(file, tmp_path, monkeypatch):
    monkeypatch.setattr(kept_machine_code, "folder", lambda: tmp_path / "code")
    tried = []
    monkeypatch.setattr(
        kept_machine_code, "keep_code", lambda _, __, name: bool(tried.append(name))
    )
    events(open_sampler(file, random_state=4))
    assert sorted(tried) == ["predict", "restore", "walk"]


def test_code_for_arguments_of_another_kind_is_not_used_for_these():
    loop = packed_model.Loop("walk")
    loop._kind, loop._code = kept_machine_code.argument_kind((np.zeros((1, 2)),)), object()
    assert loop.prepare(np.zeros((1, 2)))
    assert not loop.prepare(np.zeros((1, 2), np.float32))


def test_where_nothing_can_be_written_events_come_all_the_same(file, tmp_path, monkeypatch):
    first = events(open_sampler(file, random_state=4))
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(kept_machine_code, "folder", lambda: tmp_path / "file" / "nowhere")
    assert np.array_equal(events(open_sampler(file, random_state=4)), first)


def test_one_event_that_is_lost_or_undefined_is_told(fitted):
    sampler = fitted.sampler(random_state=1)
    flow = sampler._flow
    generator = flow.generator

    class Lost:
        def step_one(self, x, cond):
            x[:] = np.nan

    class Undefined:
        def inverse(self, z, cond, x):
            return 1

    flow.__dict__["generator"] = replace(generator, compiled_inverse=Undefined())
    with pytest.warns(DataWarning, match="undefined in event 0"):
        sampler.one([0.0, 0.0])
    flow.__dict__["generator"] = replace(generator, compiled_flow=Lost())
    with pytest.warns(DataWarning, match="not finite"), pytest.raises(InputError, match="event 1"):
        sampler.one([0.0, 0.0])
    flow.__dict__["generator"] = generator


def test_opening_a_flow_does_not_import_numba(file):
    """It takes half a second, and showing or exporting a run needs none of it."""
    code = (
        "import sys; from flowbdt import FlowBDT; flow = FlowBDT.load(sys.argv[1]).flow();"
        " assert 'numba' not in sys.modules; assert flow.compiled; assert 'numba' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(file)], check=True)
