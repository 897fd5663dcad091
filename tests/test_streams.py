"""Samples of any size: bounded memory, the same bytes however they came about, nothing lost."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import QUICK, importorskip_format, run

from flowbdt import EventTable, FlowBDT, atomic_files, read_table, seeding, write_table
from flowbdt.errors import FormatError, InputError, RunError
from flowbdt.generation import sample_files, trained_flow
from flowbdt.generation.input_rows import FileRows
from flowbdt.generation.sample_files import BlockFiles
from flowbdt.tables.formats import (
    condition_blocks,
    count_rows,
    read_attributes,
    read_conditions,
)

SETTINGS = ["preset=fast", "n_steps=3", "booster.n_estimators=4", "random_state=1"]
WORDS = [word for text in SETTINGS for word in ("--set", text)]
N = 5 * seeding.BLOCK + 300


@pytest.fixture
def small_blocks(monkeypatch):
    """Finish a block with each group of events that is generated together."""
    monkeypatch.setattr(sample_files, "BLOCK_VALUES", 1)
    monkeypatch.setattr(trained_flow, "TOGETHER", 1)


# Generation


@pytest.fixture
def trained(folder):
    assert run("fit", "jets.h5", "-o", "run", *WORDS) == 0
    return folder


def stop_after(monkeypatch, count):
    """Let generation stop after so many finished blocks, as by Ctrl-C."""
    write = BlockFiles.write

    def stopping(self, number, blocks, **about):
        write(self, number, blocks, **about)
        if number + 1 == count:
            raise KeyboardInterrupt

    monkeypatch.setattr(BlockFiles, "write", stopping)


@pytest.mark.parametrize(
    ("rejection", "way", "ending"),
    [
        ("false", [], "h5"),
        ("true", [], "root"),
        ("false", ["--no-compile"], "h5"),
        ("true", ["--no-compile"], "h5"),
    ],
)
def test_a_stopped_generation_goes_on_to_the_same_bytes(
    trained, monkeypatch, capsys, small_blocks, rejection, way, ending
):
    importorskip_format(f".{ending}")
    one, two = f"one.{ending}", f"two.{ending}"
    if rejection == "true":
        run("fit", "jets.h5", "-o", "run2", *WORDS, "--set", "rejection=true")
    name = "run2" if rejection == "true" else "run"
    words = ["generate", name, "-n", N, "--seed", 3, *way]
    assert run(*words, "-o", one) == 0
    block = ["--block", 4096]
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        assert run(*words, *block, "-o", two) == 130
    assert not Path(two).exists()
    assert run(*words, "-o", two) == 1
    assert "--resume" in capsys.readouterr().err
    assert run(*words, *block, "-o", two, "--resume") == 0
    made = capsys.readouterr().out
    assert f"({2 * seeding.BLOCK} of them were there)" in made
    assert "events/s" in made
    assert Path(one).read_bytes() == Path(two).read_bytes()
    assert not list(Path().glob("*.partial*"))
    assert not list(Path().glob(".part-*"))
    assert run(*words, "-o", two, "--resume") == 0
    assert "nothing was missing" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (["--seed", 4], "seed"),
        (["-n", N + 1], "number of events"),
        (["--sampler", "{solver: euler}"], "sampler"),
        (["--no-compile"], "sampler"),
        (["--conditions", "other.csv"], "conditions"),
    ],
)
def test_another_sample_does_not_continue_a_stopped_one(
    folder, monkeypatch, capsys, small_blocks, change, named
):
    jets = read_table("jets.h5")
    write_table("all.h5", EventTable.of(jets.x[:, :2], cond=jets.x[:, 2:3]))
    assert run("fit", "all.h5", "-o", "run", *WORDS) == 0
    for name, seed in (("cond.csv", 0), ("other.csv", 1)):
        values = np.random.default_rng(seed).uniform(
            0.02, 0.2, N if named != "number of events" else 1
        )
        pd.DataFrame({"c0": values}).to_csv(name, index=False)
    words = ["generate", "run", "--seed", 3, "-n", N, "--conditions", "cond.csv", "-o", "new.h5"]
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        assert run(*words) == 130
    assert run(*words, *change, "--resume") == 1
    assert f"another {named}" in capsys.readouterr().err
    assert run(*words, "--resume") == 0


def test_another_model_does_not_continue_a_stopped_sample(
    trained, monkeypatch, capsys, small_blocks
):
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        assert run("generate", "run", "-n", N, "-o", "new.h5") == 130
    run("fit", "jets.h5", "-o", "run2", *WORDS, "--set", "random_state=2")
    assert run("generate", "run2", "-n", N, "-o", "new.h5", "--resume") == 1
    assert "another model" in capsys.readouterr().err


KILLED = """
import os, signal, sys
from flowbdt import atomic_files
from flowbdt.cli.main import main
from flowbdt.generation import sample_files, trained_flow

sample_files.BLOCK_VALUES = trained_flow.TOGETHER = 1
target = sys.argv[1]

def killed(function):
    def wrapped(path, *arguments):
        if str(path).endswith(target):
            os.kill(os.getpid(), signal.SIGKILL)
        return function(path, *arguments)
    return wrapped

atomic_files.write_json = killed(atomic_files.write_json)
atomic_files.write_array = killed(atomic_files.write_array)
sample_files.TableWriter = killed(sample_files.TableWriter)
if target == "remove":
    sample_files.BlockFiles.remove = lambda self: os.kill(os.getpid(), signal.SIGKILL)
main(sys.argv[2:])
"""


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
@pytest.mark.parametrize(
    ("target", "kept"),
    [
        ("sample.json", 0),
        ("0000.npy", 0),
        ("0003.npy", 3 * seeding.BLOCK),
        ("0003.report.json", 3 * seeding.BLOCK),
        ("two.h5", N),
        ("remove", N),
    ],
)
def test_a_killed_process_loses_no_finished_block(trained, small_blocks, capsys, target, kept):
    words = ["generate", "run", "-n", str(N), "--seed", "3"]
    assert run(*words, "-o", "one.h5") == 0
    command = [sys.executable, "-c", KILLED, target, *words, "-o", "two.h5"]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    capsys.readouterr()
    assert run(*words, "-o", "two.h5", "--resume") == 0
    made = capsys.readouterr().out
    assert (f"({kept} of them were there)" in made) == (0 < kept < N)
    assert ("nothing was missing" in made) == (kept == N)
    assert Path("one.h5").read_bytes() == Path("two.h5").read_bytes()
    assert not Path("two.h5.partial").exists()


def half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def zeros(path):
    size = path.stat().st_size
    half(path)
    os.truncate(path, size)


def flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def foreign(path):
    path.write_text('["not a report"]')


def removed(path):
    path.unlink()


@pytest.mark.parametrize("ending", ["h5", "npy", "csv"])
def test_a_finished_file_is_compared_with_the_events_of_the_model(trained, capsys, ending):
    """Only its attributes were, so that other events passed for these."""
    words = ["generate", "run", "-n", 500, "--seed", 3, "-o", f"new.{ending}"]
    assert run(*words) == 0
    path, whole = Path(f"new.{ending}"), Path(f"new.{ending}").read_bytes()
    assert run(*words, "--resume") == 0
    assert "nothing was missing" in capsys.readouterr().out
    table = read_table(path)
    table.x[77, 0] += 1.0
    write_table(path, table, read_attributes(path))
    assert path.read_bytes() != whole
    assert run(*words, "--resume") == 0
    assert "nothing was missing" not in capsys.readouterr().out
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda plan: {**plan, "blocks": plan["blocks"][:-1]}, "not all rows in order"),
        (lambda plan: {**plan, "blocks": [[0, 10**12]]}, "not all rows in order"),
        (lambda plan: {**plan, "blocks": [[0, "x"]]}, "blocks"),
        (lambda plan: {**plan, "sample": []}, "entry sample"),
        (lambda plan: {**plan, "surprise": 1}, "surprise"),
    ],
)
def test_a_crafted_plan_of_a_sample_is_named(
    trained, monkeypatch, small_blocks, capsys, change, message
):
    words = ["generate", "run", "-n", N, "--seed", 3, "-o", "two.h5"]
    stop_after(monkeypatch, 2)
    assert run(*words) == 130
    path = Path("two.h5.partial/sample.json")
    plan = {k: v for k, v in json.loads(path.read_text()).items() if k != "digest"}
    plan = change(plan)
    path.write_text(json.dumps({**plan, "digest": atomic_files.digest(plan)}))
    assert run(*words, "--resume") == 1
    error = capsys.readouterr().err
    assert "sample.json" in error
    assert message in error


@pytest.mark.parametrize("shape", ["wider", "longer", "float32", "pickle"])
def test_a_crafted_block_of_another_form_is_named(
    trained, monkeypatch, small_blocks, capsys, shape
):
    words = ["generate", "run", "-n", N, "--seed", 3, "-o", "two.h5"]
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        assert run(*words) == 130
    path, report = Path("two.h5.partial/0001.npy"), Path("two.h5.partial/0001.report.json")
    values = np.load(path)
    kinds = {"wider": np.hstack, "longer": np.vstack}
    np.save(path, kinds[shape]([values, values]) if shape in kinds else values.astype(
        "f4" if shape == "float32" else object
    ))  # fmt: skip
    content = {**json.loads(report.read_text()), "sha256": atomic_files.digest_file(path)}
    report.write_text(json.dumps(content))
    assert run(*words, "--resume") == 1
    error = capsys.readouterr().err
    assert "0001.npy; remove it, then resume" in error
    path.unlink()
    assert run(*words, "--resume") == 0


@pytest.mark.parametrize("damage", [half, zeros, flipped, foreign, removed])
@pytest.mark.parametrize("name", ["0001.npy", "0001.report.json"])
def test_damaged_blocks_are_made_again(trained, monkeypatch, small_blocks, capsys, name, damage):
    words = ["generate", "run", "-n", N, "--seed", 3]
    assert run(*words, "-o", "one.h5") == 0
    with monkeypatch.context() as patch:
        stop_after(patch, 4)
        assert run(*words, "-o", "two.h5") == 130
    damage(Path("two.h5.partial") / name)
    capsys.readouterr()
    assert run(*words, "-o", "two.h5", "--resume") == 0
    assert f"({3 * seeding.BLOCK} of them were there)" in capsys.readouterr().out
    assert Path("one.h5").read_bytes() == Path("two.h5").read_bytes()


@pytest.mark.parametrize("damage", [half, zeros, flipped, foreign])
def test_a_damaged_plan_of_a_sample_is_named(trained, monkeypatch, small_blocks, capsys, damage):
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        assert run("generate", "run", "-n", N, "-o", "new.h5") == 130
    damage(Path("new.h5.partial/sample.json"))
    assert run("generate", "run", "-n", N, "-o", "new.h5", "--resume") == 1
    error = capsys.readouterr().err
    assert "new.h5.partial/sample.json" in error
    assert "Traceback" not in error
    assert not Path("new.h5").exists()


def test_any_damage_of_what_is_there_is_noticed(tmp_path, monkeypatch, small_blocks):
    """Truncated, flipped, filled with zeros: the same bytes in the end, or an error that helps."""
    x = np.random.default_rng(0).normal(size=(200, 2))
    model = FlowBDT(n_steps=2, preset="fast", booster={"n_estimators": 2}, random_state=1).fit(x)
    options = {"n_samples": 2 * seeding.BLOCK + 9, "random_state": 1, "compiled": False}
    model.sample_to(tmp_path / "one.npy", **options)
    with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        stop_after(patch, 2)
        model.sample_to(tmp_path / "two.npy", **options)
    begun = {path.name: path.read_bytes() for path in (tmp_path / "two.npy.partial").iterdir()}
    assert {"sample.json", "0000.npy", "0001.report.json"} <= set(begun)
    rng, named = np.random.default_rng(1), []
    for trial in range(30):
        name = sorted(begun)[rng.integers(len(begun))]
        content = bytearray(begun[name])
        at = int(rng.integers(max(1, len(content))))
        if trial % 3 == 0:
            content = content[:at]
        elif trial % 3 == 1 and content:
            content[at] ^= 1 << int(rng.integers(8))
        else:
            content[at:] = bytes(len(content) - at)
        (tmp_path / "two.npy.partial").mkdir(exist_ok=True)
        for other, whole in begun.items():
            (tmp_path / "two.npy.partial" / other).write_bytes(whole)
        (tmp_path / "two.npy.partial" / name).write_bytes(content)
        (tmp_path / "two.npy").unlink(missing_ok=True)
        try:
            model.sample_to(tmp_path / "two.npy", **options, resume=True)
        except FormatError as error:
            named.append(str(error))
        else:
            assert (tmp_path / "two.npy").read_bytes() == (tmp_path / "one.npy").read_bytes()
    assert 0 < len(named) < 12
    assert all("sample.json" in text and "to begin again" in text for text in named)


def test_blocks_of_another_sample_do_not_count(tmp_path):
    files = [BlockFiles(tmp_path / name) for name in "ab"]
    for seed, each in enumerate(files):
        each.begin({"seed": seed, "number of events": 6}, [(0, 3), (3, 6)])
        each.write(1, [EventTable.of(np.full((3, 2), float(seed)))])
    assert files[0].missing() == [0]
    for path in files[1].files(1):
        path.replace(tmp_path / "a" / path.name)
    assert files[0].missing() == [0, 1]


def test_one_process_at_a_time_makes_the_blocks_of_a_file(tmp_path):
    files = BlockFiles(tmp_path / "new.h5.partial")
    with files.locked():
        files.begin({"seed": 1, "number of events": 3}, [(0, 3)])
        with pytest.raises(RunError, match="another process"), files.locked():
            pass
        files.write(0, [EventTable.of(np.zeros((3, 2)))])
    with files.locked():
        assert files.missing() == []
        files.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_another_process_has_just_removed_is_not_used(tmp_path, monkeypatch):
    """It is removed after we opened its lock and before we hold it."""
    files = BlockFiles(tmp_path / "new.h5.partial")

    monkeypatch.setattr("fcntl.flock", lambda handle, mode: files.remove())
    with pytest.raises(RunError, match="another process"), files.locked():
        pass


def test_nothing_is_left_of_what_was_stopped_before_its_first_block(trained, monkeypatch):
    monkeypatch.setattr(sample_files, "BLOCK_VALUES", 1)
    monkeypatch.setattr(BlockFiles, "write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    assert run("generate", "run", "-n", N, "--block", 4096, "-o", "new.h5") == 130
    assert not list(Path().glob("new.h5*"))


def test_only_files_of_the_sample_are_removed(trained, small_blocks):
    (Path("new.h5.partial")).mkdir()
    Path("new.h5.partial/notes.txt").write_text("mine")
    assert run("generate", "run", "-n", N, "-o", "new.h5") == 0
    assert [path.name for path in Path("new.h5.partial").iterdir()] == ["notes.txt"]


def test_a_file_in_the_way_of_the_blocks_is_named(trained, small_blocks, capsys):
    Path("new.h5.partial").write_text("mine")
    assert run("generate", "run", "-n", N, "-o", "new.h5") == 1
    assert "new.h5.partial" in capsys.readouterr().err
    assert Path("new.h5.partial").read_text() == "mine"


def test_a_plan_of_another_format_is_refused(tmp_path):
    files = BlockFiles(tmp_path / "a")
    files.begin({"seed": 1}, [(0, 3)])
    path = tmp_path / "a" / "sample.json"
    path.write_text(path.read_text().replace('"format": 2', '"format": 3'))
    with pytest.raises(
        FormatError, match=r"sample\.json is missing, damaged, or of another format"
    ):
        files.plan()


def test_a_full_disk_keeps_finished_blocks(trained, monkeypatch, small_blocks, capsys):
    words = ["generate", "run", "-n", N, "--seed", 3]
    assert run(*words, "-o", "one.h5") == 0

    def full(*_):
        raise RunError("could not write it: no space left")

    with monkeypatch.context() as patch:
        patch.setattr(sample_files, "TableWriter", full)
        assert run(*words, "-o", "two.h5") == 1
    error = capsys.readouterr().err
    assert "no space left" in error
    assert "--resume" in error
    assert run(*words, "-o", "two.h5", "--resume") == 0
    assert f"{N} of them were there" not in capsys.readouterr().err
    assert Path("one.h5").read_bytes() == Path("two.h5").read_bytes()


@pytest.mark.parametrize("ending", ["csv", "npz"])
def test_other_files_are_resumed_too(trained, monkeypatch, small_blocks, ending):
    words = ["generate", "run", "-n", N, "--seed", 3]
    assert run(*words, "-o", f"one.{ending}") == 0
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        assert run(*words, "-o", f"two.{ending}") == 130
    assert run(*words, "-o", f"two.{ending}", "--resume") == 0
    assert Path(f"one.{ending}").read_bytes() == Path(f"two.{ending}").read_bytes()


def test_blocks_of_another_sample_are_not_removed(trained, monkeypatch, small_blocks, capsys):
    words = ["generate", "run", "-n", N, "-o", "new.h5"]
    assert run(*words, "--seed", 3) == 0
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        assert run(*words, "--seed", 4) == 130
    left = sorted(Path("new.h5.partial").iterdir())
    assert run(*words, "--seed", 3, "--resume") == 1
    assert "begun with another seed (4 then, 3 now)" in capsys.readouterr().err
    assert sorted(Path("new.h5.partial").iterdir()) == left


def test_a_small_sample_needs_no_folder(trained, monkeypatch):
    monkeypatch.setattr(BlockFiles, "begin", None)
    assert run("generate", "run", "-n", 100, "-o", "new.h5") == 0
    assert [path.name for path in Path().glob("new*")] == ["new.h5"]
    assert run("generate", "run", "-n", 10, "-o", "missing/new.h5") == 1


@pytest.fixture(scope="module")
def conditional():
    rng = np.random.default_rng(0)
    cond = pd.DataFrame({"kind": np.where(rng.random(400) < 0.5, "e", "mu"), "pt": rng.random(400)})
    cond.loc[::5, "pt"] = np.nan
    x = rng.normal(size=(400, 2)) + (cond[["kind"]] == "e").to_numpy()
    settings = {"preset": "fast", "n_steps": 2, "booster": QUICK, "random_state": 1}
    return FlowBDT(**settings).fit(EventTable.of(x, cond=cond))


def conditions(n):
    rng = np.random.default_rng(1)
    pt = np.where(rng.random(n) < 0.1, np.nan, rng.random(n))
    return pd.DataFrame({"kind": np.where(rng.random(n) < 0.3, "e", "mu"), "pt": pt})


@pytest.mark.parametrize("ending", ["h5", "csv", "parquet", "npz"])
def test_conditions_of_a_file_are_those_in_memory(conditional, tmp_path, ending):
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    given, path = conditions(N), tmp_path / f"cond.{ending}"
    if ending == "csv":
        given.to_csv(path, index=False)
    else:
        write_table(path, EventTable.of(np.zeros((N, 1)), cond=given))
    whole = conditional.sample(cond=given, random_state=2)
    blocks = list(conditional.sample_blocks(cond=path, random_state=2, block_rows=8192))
    assert [block.n for block in blocks] == [8192, 8192, N - 2 * 8192]
    new = EventTable.concatenate(blocks)
    assert np.array_equal(new.x, whole.x)
    assert np.array_equal(new.cond, whole.cond, equal_nan=True)


def test_conditions_of_a_file_are_read_twice_in_order(conditional, tmp_path, monkeypatch):
    given = conditions(20 * seeding.BLOCK)
    given.to_csv(tmp_path / "cond.csv", index=False)
    firsts, whole = [], conditional.sample(cond=given, random_state=2)
    read = FileRows.__init__

    def watched(self, path, blocks, n_rows):
        read(self, path, lambda low: firsts.append(low) or blocks(low), n_rows)

    monkeypatch.setattr(FileRows, "__init__", watched)
    new = conditional.sample(cond=tmp_path / "cond.csv", random_state=2)
    assert np.array_equal(new.x, whole.x)
    assert firsts == [0, 0]  # before the first event a look for values far from training


def test_a_whole_file_for_the_same_conditions_is_not_made_again(conditional, tmp_path, monkeypatch):
    monkeypatch.setattr(sample_files, "READ_TOGETHER", 64)
    cond, path = conditions(300), tmp_path / "new.h5"
    conditional.sample_to(path, cond=cond, random_state=3)
    before = os.stat(path).st_ino, path.read_bytes()
    conditional.sample_to(path, cond=cond, random_state=3, resume=True)
    assert (os.stat(path).st_ino, path.read_bytes()) == before
    other = cond.copy()
    other.loc[299, "pt"] = 0.125
    conditional.sample_to(path, cond=other, random_state=3, resume=True)
    assert read_table(path).cond[299, 1] == 0.125


def test_one_condition_of_a_file_is_that_of_all_events(conditional, tmp_path):
    pd.DataFrame({"kind": ["mu"], "pt": [0.25]}).to_csv(tmp_path / "one.csv", index=False)
    new = conditional.sample(100, cond=str(tmp_path / "one.csv"), random_state=2)
    assert np.array_equal(new.cond, np.tile([1.0, 0.25], (100, 1)))


def test_a_file_of_conditions_that_does_not_fit_is_refused(conditional, tmp_path):
    path = tmp_path / "cond.csv"
    conditions(20).to_csv(path, index=False)
    with pytest.raises(InputError, match="1 or 30 rows"):
        conditional.sample(30, cond=path)
    conditions(20).rename(columns={"pt": "eta"}).to_csv(path, index=False)
    with pytest.raises(InputError, match="eta"):
        conditional.sample(20, cond=path)


def test_a_column_is_text_or_number_throughout(tmp_path):
    kinds = ["e"] * 10 + [""] * 10 + ["1"] * 10
    pd.DataFrame({"kind": kinds, "pt": 1.0}).to_csv(tmp_path / "c.csv", index=False)
    with pytest.raises(InputError, match="kind"):
        list(condition_blocks(tmp_path / "c.csv", 10))


@pytest.mark.parametrize("first", [0, 7, 25])
@pytest.mark.parametrize("ending", ["h5", "csv", "parquet", "npz", "npy"])
def test_blocks_of_conditions_begin_at_any_row(tmp_path, ending, first):
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    path, given = tmp_path / f"c.{ending}", conditions(30)
    write_table(path, EventTable.of(np.zeros((30, 1)), cond=given[["pt"]]))
    found = np.vstack([block.x for block in condition_blocks(path, 11, first)])
    assert np.array_equal(found, read_conditions(path).x[first:], equal_nan=True)
    assert count_rows(path) == 30


@pytest.mark.parametrize("ending", ["h5", "csv"])
def test_given_events_of_a_file_are_those_in_memory(tmp_path, ending):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, 2))
    settings = {"preset": "fast", "n_steps": 2, "booster": QUICK, "random_state": 1}
    model = FlowBDT(coupling="given", **settings).fit(x[:300] + 1.0, source=x[:300])
    write_table(tmp_path / f"from.{ending}", EventTable.of(x))
    whole = model.sample(source=x)
    blocks = list(model.sample_blocks(source=tmp_path / f"from.{ending}", block_rows=8192))
    assert np.array_equal(np.vstack(blocks), whole)
    with pytest.raises(InputError, match="rows"):
        model.sample(N + 1, source=tmp_path / f"from.{ending}")


def test_a_file_has_the_events_of_a_sample_whatever_the_blocks(tmp_path):
    x = np.random.default_rng(0).normal(size=(300, 2))
    settings = {"preset": "fast", "n_steps": 2, "booster": QUICK, "random_state": 1}
    model = FlowBDT(**settings).fit(x)
    for name, rows in (("a", None), ("b", 1), ("c", 10**6)):
        model.sample_to(tmp_path / f"{name}.h5", N, random_state=3, block_rows=rows)
    contents = {path.read_bytes() for path in tmp_path.iterdir()}
    assert len(contents) == 1
    assert np.array_equal(read_table(tmp_path / "a.h5").x, model.sample(N, random_state=3))
    model.sample_to(tmp_path / "a.csv", 10, random_state=3)
    assert read_table(tmp_path / "a.csv").n == 10
    with pytest.raises(InputError, match="block_rows"):
        model.sample_to(tmp_path / "d.h5", 10, block_rows=0)


@pytest.mark.slow
def test_a_large_sample_needs_no_more_memory_than_a_small_one(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "benchmarks"))
    measure = importlib.import_module("stream").measure
    importlib.import_module("stream").toy_model(tmp_path / "model.flow")
    small, large = (measure(tmp_path, n, None) for n in (200_000, 2_000_000))
    assert large["peak_mib"] < 1024
    assert large["peak_mib"] < small["peak_mib"] + 64  # 2,000,000 x 12 numbers are 183 MiB
    assert measure(tmp_path, 200_000, 10_000)["digest"] == small["digest"]


def test_a_file_of_whole_events_gives_the_conditions_it_has(conditional, tmp_path):
    path = tmp_path / "events.csv"
    given = conditions(20)
    given.assign(mass=1.0, flavour="b").to_csv(path, index=False)
    new = conditional.sample(20, cond=path, random_state=2)
    assert np.array_equal(new.x, conditional.sample(20, cond=given, random_state=2).x)
