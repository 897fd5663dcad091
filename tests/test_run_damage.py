"""Damaged files of a run are noticed or repaired; settings of somebody else's run start nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import PLAIN, QUICK, make_jets, run

from flowbdt import atomic_files
from flowbdt.config import RunConfig
from flowbdt.errors import FormatError
from flowbdt.generation.fit_run import fit_run
from flowbdt.model import FlowBDT
from flowbdt.tables.formats import read_table, write_table
from flowbdt.training.collect import collect_steps
from flowbdt.training.plan import Inputs, make_plan
from flowbdt.training.run_directory import RunDirectory

KINDS = ("bit", "truncated", "zeros")


def damage(path: Path, kind: str, seed: int) -> None:
    """Flip a bit, cut off the end, or overwrite a stretch with zeros."""
    content, rng = bytearray(path.read_bytes()), np.random.default_rng(seed)
    place = int(rng.integers(len(content)))
    if kind == "bit":
        content[place] ^= 1 << int(rng.integers(8))
    elif kind == "truncated":
        del content[place:]
    else:
        content[place : place + 64] = bytes(len(content[place : place + 64]))
    path.write_bytes(content)


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    """A complete run with rejection, and its events."""
    folder = tmp_path_factory.mktemp("damage")
    write_table(folder / "jets.h5", make_jets())
    config = RunConfig(preset="fast", n_steps=2, booster=QUICK, rejection=True, **PLAIN)
    fit_run(Inputs(make_jets(), config, 1), folder / "run")
    generated = ["generate", str(folder / "run"), "-n", 50, "--seed", 1]
    assert run(*generated, "-o", folder / "x.npy") == 0
    return folder, read_table(folder / "x.npy").x


FILES = [
    "transform.json", "preconditioner.npz", "plan.json", "manifest.json", "rejection.ubj",
    "rejection.report.json", "config.yaml", "table/z.npy", "table/valid.npy", "tasks/0000.json",
    "steps/0000.ubj", "steps/0001.report.json",
]  # fmt: skip


def outcome(folder: Path, *command: str) -> np.ndarray | None:
    """Return the events of a run after a command; None if this or generating was refused."""
    if (
        run(*command, "-q") == 0
        and run("generate", "run", "-n", 50, "--seed", 1, "-o", "x.npy") == 0
    ):
        return read_table(folder / "x.npy").x
    return None


@pytest.mark.parametrize(
    "kind", ["bit", *(pytest.param(k, marks=pytest.mark.slow) for k in KINDS[1:])]
)
@pytest.mark.parametrize("name", FILES)
def test_damage_is_noticed_or_repaired(complete, tmp_path, monkeypatch, capsys, name, kind):
    """The manifest was written from what lay there, and said that it was whole."""
    source, events = complete
    for seed, command in enumerate((["collect", "run"], ["fit", "-o", "run", "--resume"])):
        folder = tmp_path / str(seed)
        shutil.copytree(source, folder)
        monkeypatch.chdir(folder)
        damage(folder / "run" / name, kind, 10 * seed + KINDS.index(kind))
        found = outcome(folder, *command)
        error = capsys.readouterr().err
        assert "Traceback" not in error
        if found is None:
            assert "flowbdt: error: " in error
        else:
            np.testing.assert_array_equal(found, events)


@pytest.mark.parametrize("name", ["transform.json", "table/z.npy", "plan.json", "tasks/0001.json"])
def test_the_same_table_repairs_a_run(complete, tmp_path, name):
    source, events = complete
    shutil.copytree(source / "run", tmp_path / "run")
    (tmp_path / "run" / name).write_bytes(b"nothing")
    report = (tmp_path / "run/steps/0000.report.json").read_bytes()
    config = RunConfig.from_yaml(tmp_path / "run/config.yaml")
    fit_run(Inputs(make_jets(), config, 1), tmp_path / "run", resume=True)
    assert (tmp_path / "run/steps/0000.report.json").read_bytes() == report
    np.testing.assert_allclose(
        FlowBDT.load(tmp_path / "run").sample(50, random_state=1).x, events, rtol=1e-6
    )


@pytest.mark.parametrize("bits", [(b"'<f4'", b"'>f4'"), (b"(300,", b"(300("), (b"descr", b"deqcr")])
def test_the_type_of_a_table_counts_not_only_its_bytes(complete, tmp_path, bits):
    """``<`` and ``>`` differ by one bit: the same bytes, and quite other numbers."""
    shutil.copytree(complete[0] / "run", tmp_path / "run")
    path = tmp_path / "run/table/z.npy"
    path.write_bytes(path.read_bytes().replace(*bits, 1))
    with pytest.raises(FormatError, match=r"table/z.npy is missing or not the one"):
        collect_steps(RunDirectory(tmp_path / "run"))


@pytest.mark.parametrize("content", ["[]", "3", '"text"', "{}", "null"])
def test_a_report_that_is_no_mapping_is_trained_anew(complete, tmp_path, monkeypatch, content):
    shutil.copytree(complete[0], tmp_path / "all")
    monkeypatch.chdir(tmp_path / "all")
    Path("run/steps/0001.report.json").write_text(content)
    assert RunDirectory("run").missing_steps() == [1]
    assert run("show", "run") == 0
    assert run("collect", "run") == 1
    assert run("fit", "-o", "run", "--resume") == 0


def rewritten(run_, name, changes, digest=False):
    """Change entries of a JSON file of a run, with the right seal, and digest where it has one."""
    content = {**run_.read_json(name), **changes}
    if digest:
        content["digest"] = atomic_files.digest({k: v for k, v in content.items() if k != "digest"})
    run_.write_json(name, content)


CRAFTED = [
    ({"seed": -1}, "entry seed"),
    ({"time": 2.0}, "entry time"),
    ({"step": 0}, "task of step 0"),
    ({"events": {"../../z": "0" * 64}}, "'../../z'"),
    ({"events": {"valid": "0" * 64}}, "table/z.npy"),
    ({"fitted": {"config.yaml": "0" * 64}}, "entry fitted"),
    ({"fitted": {"transform.json": "0" * 64}}, "preconditioner.npz"),
    ({"noise": {"name": "repeats"}}, "n_repeats"),
    ({"noise": 3}, "noise"),
    ({"path": {"name": "nowhere"}}, "Known: "),
    ({"inputs": ["nothing"]}, "nothing"),
    ({"booster": {"n_estimators": 3, "learning_rate": -1.0}}, "'learning_rate' must be a number"),
    ({"booster": {"n_estimators": [3]}}, "entry booster"),
    ({"format": "4"}, "has format '4'"),
    ({"surprise": 1}, "surprise"),
]


@pytest.mark.parametrize(("changes", "message"), CRAFTED)
def test_a_crafted_task_is_an_error_that_names_it(complete, tmp_path, changes, message, capsys):
    shutil.copytree(complete[0] / "run", tmp_path / "run")
    crafted = RunDirectory(tmp_path / "run")
    rewritten(crafted, "tasks/0001.json", changes, digest=True)
    assert run("step", tmp_path / "run", 1) == 1
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert "0001.json" in error
    assert message in error


def test_a_task_that_is_not_of_the_plan_is_written_anew(complete, tmp_path):
    """Right in itself, it trained another model without a word."""
    shutil.copytree(complete[0] / "run", tmp_path / "run")
    crafted = RunDirectory(tmp_path / "run")
    before = crafted.read("tasks/0001.json")
    rewritten(crafted, "tasks/0001.json", {"seed": 99}, digest=True)
    assert crafted.task(1)["seed"] == 99
    collect_steps(crafted)
    assert crafted.read("tasks/0001.json") == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trees": "many"}, "entry trees"),
        ({"train_rmse": None}, "entry train_rmse"),
        ({"peak_mib": -1}, "entry peak_mib"),
        ({"step": 0}, "report of another step"),
        ({"time": 0.25}, "report of another step"),
        ({"model_sha256": "x"}, "entry model_sha256"),
    ],
)
def test_a_crafted_report_is_named_and_trained_anew(complete, tmp_path, changes, message, capsys):
    shutil.copytree(complete[0] / "run", tmp_path / "run")
    crafted = RunDirectory(tmp_path / "run")
    rewritten(crafted, "steps/0001.report.json", changes)
    assert crafted.missing_steps() == [1]
    assert run("collect", tmp_path / "run") == 1
    error = capsys.readouterr().err
    assert "0001.report.json" in error
    assert message in error
    assert run("fit", "-o", tmp_path / "run", "--resume", "-q") == 0


def test_json_of_a_run_and_beside_it_is_read_alike(tmp_path):
    path = tmp_path / "x.json"
    for text in ('{"a": NaN}', '{"a": 1e999}', '{"a": -Infinity}', "[" * 100_000, "{", "\x00"):
        path.write_text(text)
        for read in (atomic_files.read_json, lambda p: RunDirectory(p.parent).read_json(p.name)):
            with pytest.raises(FormatError, match=r"x\.json is not readable JSON"):
                read(path)


def test_an_untrained_run_says_how_many_steps_are_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    config = RunConfig(preset="fast", n_steps=8, booster=QUICK, **PLAIN)
    make_plan(Inputs(make_jets(), config, 1), RunDirectory("run"))
    assert run("generate", "run", "-n", 5, "-o", "x.npy") == 1
    error = capsys.readouterr().err
    assert "8 of 8 steps missing" in error
    assert "fit -o run --resume" in error
    assert "Errno" not in error


def test_a_dry_run_leaves_nothing_that_blocks_the_real_request(
    complete, tmp_path, monkeypatch, capsys
):
    shutil.copytree(complete[0], tmp_path / "all")
    monkeypatch.chdir(tmp_path / "all")
    before = sorted(Path().rglob("*"))
    words = ["submit", "run", "-o", "new.h5", "--generate"]
    assert run(*words, 100, "--dry-run") == 0
    assert "queue number" in capsys.readouterr().out
    assert sorted(Path().rglob("*")) == before
    assert run(*words, 200, "--executor", "serial") == 0
    assert read_table("new.h5").n == 200


FOREIGN = {
    "htcondor": {"python": "/somebody/else"},
    "dask": {"address": "tcp://somebody.else:8786"},
}


@pytest.mark.parametrize("name", FOREIGN)
def test_programs_in_somebody_elses_run_are_not_used(complete, tmp_path, monkeypatch, capsys, name):
    shutil.copytree(complete[0], tmp_path / "all")
    monkeypatch.chdir(tmp_path / "all")
    Path("run/steps/0001.ubj").unlink()
    ((setting, value),) = FOREIGN[name].items()
    config = RunConfig.from_yaml("run/config.yaml")
    foreign = RunConfig(**{**vars(config), "executor": {"name": name, setting: value}})
    Path("run/config.yaml").write_text(foreign.to_yaml())
    commands = [["fit", "-o", "run", "--resume"], ["submit", "run", "--executor", name]]
    for command in commands:
        assert run(*command) == 1
        error = capsys.readouterr().err
        assert f"executor.{setting} on record: {value!r}" in error
        assert f"executor.{setting}={json.dumps(value)}" in error
    assert run("fit", "-o", "run", "--resume", "--executor", "serial") == 0


def test_a_loaded_model_does_not_bring_its_executor(complete, tmp_path):
    shutil.copytree(complete[0] / "run", tmp_path / "run")
    assert FlowBDT.load(tmp_path / "run").executor == "serial"
