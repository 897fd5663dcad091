"""Models in files: the same events again, and clear words where a file is not whole."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import PLAIN, QUICK, mixed_table

from flowbdt import FlowBDT, atomic_files, open_sampler
from flowbdt.config import ModelConfig
from flowbdt.errors import FormatError, RunError
from flowbdt.generation.fit_run import fit_run
from flowbdt.generation.trained_flow import Flow
from flowbdt.tables.event_table import EventTable
from flowbdt.tables.formats import read_table
from flowbdt.training import run_directory
from flowbdt.training.plan import Inputs

ASSETS = Path(__file__).parent / "assets"
SMALL = {"n_steps": 3, "booster": QUICK, **PLAIN}
SMALL["noise"] = {**PLAIN["noise"], "n_repeats": 2}


def small(**settings):
    return FlowBDT(**{**SMALL, "random_state": 1, **settings})


def normal(n=300, d=2, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d))


@pytest.fixture(scope="module")
def fitted():
    return small().fit(normal())


# ---- files


def test_save_and_load_give_the_same_events(tmp_path, fitted):
    fitted.save(tmp_path / "m.flowbdt")
    again = FlowBDT.load(tmp_path / "m.flowbdt")
    assert np.array_equal(again.sample(50, random_state=6), fitted.sample(50, random_state=6))
    again.save(tmp_path / "n.flowbdt")
    assert (tmp_path / "m.flowbdt").read_bytes() == (tmp_path / "n.flowbdt").read_bytes()
    assert again.get_params()["n_steps"] == 3


def test_a_model_file_is_compressed_but_for_what_is_mapped(tmp_path, fitted):
    fitted.save(tmp_path / "m.flowbdt")
    with zipfile.ZipFile(tmp_path / "m.flowbdt") as archive:
        members = {one.filename: one for one in archive.infolist()}
        contents = {name: archive.read(name) for name in members}
    mapped = members.pop(run_directory.PACKED)
    assert mapped.compress_size == mapped.file_size
    trees = [one for name, one in members.items() if name.startswith("steps/")]
    assert sum(one.compress_size for one in trees) < sum(one.file_size for one in trees) / 2
    with zipfile.ZipFile(tmp_path / "old.flowbdt", "w") as archive:  # as files were before
        for name in members:
            archive.writestr(name, contents[name])
    old = FlowBDT.load(tmp_path / "old.flowbdt")
    assert np.array_equal(old.sample(50, random_state=6), fitted.sample(50, random_state=6))


def test_flows_of_other_options_are_kept_and_the_packed_arrays_used(tmp_path, fitted):
    fitted.save(tmp_path / "m.flowbdt")
    loaded = FlowBDT.load(tmp_path / "m.flowbdt")
    assert loaded.flow() is loaded.flow()
    single = loaded.flow(precision="single")
    assert single is loaded.flow(precision="single") is not loaded.flow()
    assert loaded.flow(sampler={"n_steps": 3}) is not loaded.flow()
    assert loaded.flow()._packed is not None
    assert np.array_equal(*(m.sample(50, random_state=3) for m in (fitted, loaded)))


def drawn():
    """A model with columns that classifiers draw, and a cut."""
    table = EventTable.of(mixed_table(200).to_frame()[["pt", "mass", "kind"]])
    table = table.take(table.column("pt") > -1)
    return small(preset="fast", require=["pt > -1"]).fit(table)


@pytest.mark.parametrize("kind", ["numbers", "drawn"])
def test_the_program_generates_from_a_file_with_few_imports(tmp_path, fitted, kind):
    fitted = drawn() if kind == "drawn" else fitted
    fitted.save(tmp_path / "m.flowbdt")
    assert FlowBDT.load(tmp_path / "m.flowbdt").flow()._packed is not None
    code = (
        "import sys; from flowbdt.cli.main import main; assert main(sys.argv[1:]) == 0;"
        "heavy = {'pandas', 'xgboost', 'sklearn', 'scipy', 'yaml', 'tqdm', 'h5py', 'concurrent'};"
        "print(*heavy & set(sys.modules))"
    )
    words = f"generate {tmp_path}/m.flowbdt -n 20 --seed 6 -q -o {tmp_path}/new.csv".split()
    command = [sys.executable, "-c", code, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
    new = read_table(tmp_path / "new.csv").to_frame()
    wanted = EventTable.of(fitted.sample(20, random_state=6)).to_frame()
    if kind == "numbers":
        assert np.array_equal(new, wanted)
    else:
        pd.testing.assert_frame_equal(new, wanted, check_dtype=False, check_categorical=False)
        (tmp_path / "old.flowbdt").write_bytes(fitted.archive_)
        old, packed = (
            open_sampler(tmp_path / f"{f}.flowbdt", random_state=6) for f in ("old", "m")
        )
        assert np.array_equal(old.one(), packed.one())


def test_load_reads_a_run_folder_as_well(tmp_path, jets):
    config = ModelConfig(**SMALL)
    fit_run(Inputs(jets, config, 1), tmp_path / "run")
    model = FlowBDT.load(tmp_path / "run")
    shutil.rmtree(tmp_path / "run")  # which is no longer needed
    assert model.sample(3, random_state=0).names == jets.names


def test_a_fresh_process_gives_the_same_events(tmp_path, fitted):
    fitted.save(tmp_path / "m.flowbdt")
    code = (
        "import sys; from flowbdt import FlowBDT;"
        "print(FlowBDT.load(sys.argv[1]).sample(20, random_state=6).tobytes().hex())"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "m.flowbdt")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == fitted.sample(20, random_state=6).tobytes().hex()


def test_truncated_and_foreign_files_are_refused(tmp_path, fitted):
    file = tmp_path / "m.flowbdt"
    fitted.save(file)
    content = file.read_bytes()
    for cut in (0, 10, len(content) // 2, len(content) - 1):
        file.write_bytes(content[:cut])
        with pytest.raises(FormatError, match=r"m\.flowbdt"):
            FlowBDT.load(file).sample(2)
    file.write_text("not a model")
    with pytest.raises(FormatError, match="truncated"):
        FlowBDT.load(file)
    with pytest.raises(FormatError, match="does not exist"):
        FlowBDT.load(tmp_path / "nowhere")


def test_a_changed_byte_in_a_step_is_noticed(tmp_path, jets):
    fit_run(Inputs(jets, ModelConfig(**SMALL), 1), tmp_path / "run")
    file = tmp_path / "run" / run_directory.model_name(1)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(FormatError, match="hash"):
        FlowBDT.load(tmp_path / "run").sample(2)


def test_a_changed_plan_is_noticed(tmp_path, jets):
    run = fit_run(Inputs(jets, ModelConfig(**SMALL), 1), tmp_path / "run")
    plan = run.plan()
    run.write_json("plan.json", {**plan, "kind": "array"})
    with pytest.raises(FormatError, match=r"plan\.json"):
        FlowBDT.load(tmp_path / "run")


def test_an_unfinished_run_is_not_a_model(tmp_path, jets):
    fit_run(Inputs(jets, ModelConfig(**SMALL), 1), tmp_path / "run")
    (tmp_path / "run" / "manifest.json").unlink()
    with pytest.raises(FormatError, match="resume"):
        FlowBDT.load(tmp_path / "run")


def test_a_newer_format_is_refused(tmp_path, jets):
    run = fit_run(Inputs(jets, ModelConfig(**SMALL), 1), tmp_path / "run")
    run.write_json("manifest.json", {**run.read_json("manifest.json"), "format": 99})
    with pytest.raises(FormatError, match="format 99"):
        FlowBDT.load(tmp_path / "run")


VERSIONS = (*range(1, run_directory.FORMAT + 1), "5_relative")
"""The last has a rejection that does not see what was learned relative to conditions."""


@pytest.mark.parametrize("version", VERSIONS)
def test_models_of_every_format_version_still_load(version):
    model = FlowBDT.load(ASSETS / f"model_v{version}.flowbdt")
    stored, d = np.load(ASSETS / f"model_v{version}_events.npy"), model.flow().n_columns
    events, cond = stored[:, :d], stored[:, d:] if stored.shape[1] > d else None
    assert np.allclose(model.sample(len(events), cond=cond, random_state=1).x, events, rtol=1e-5)


HASHES = {1: "4a303ab28c968866", 2: "51ca846f80559e46"}
"""Of 500 events in single precision, made before the package was rearranged."""


@pytest.mark.parametrize("version", HASHES)
@pytest.mark.parametrize("compiled", [False, True])
def test_models_of_every_format_version_give_the_same_bytes_as_ever(version, compiled):
    model = FlowBDT.load(ASSETS / f"model_v{version}.flowbdt")
    events = model.sample(500, random_state=3, compiled=compiled).x.astype(np.float32)
    assert hashlib.sha256(events.tobytes()).hexdigest()[:16] == HASHES[version]


def test_models_are_loaded_when_their_time_comes():
    """A peer loads every model before the first event: gigabytes, and 28 s for one shower."""
    archive = run_directory.Archive("model", small().fit(normal()).archive_)
    flow = Flow(archive, compiled=False)
    assert flow.field.n_loaded == 0
    next(flow.sample_blocks(1, seed=0))
    assert flow.field.n_loaded == len(flow.grid.times)
    assert "generator" not in vars(Flow(archive, compiled=True))


def test_disk_full_leaves_nothing_half_written(tmp_path, fitted):
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    target = tmp_path / "m.flowbdt"
    target.write_bytes(b"the older model")
    with (
        pytest.raises(RunError, match="No space left"),
        atomic_files.atomic(target),
        open("/dev/full", "wb", buffering=0) as full,
    ):
        full.write(fitted.archive_)
    assert target.read_bytes() == b"the older model"
    assert list(tmp_path.iterdir()) == [target]
