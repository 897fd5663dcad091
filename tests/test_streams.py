"""Samples of any size: bounded memory, the same bytes however they came about, nothing lost."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import QUICK, run

from flowbdt import EventTable, FlowBDT, read_table, seeding, write_table
from flowbdt.errors import InputError
from flowbdt.generation import sample_stream
from flowbdt.generation.input_rows import FromFile
from flowbdt.tables.formats import (
    ResumableWriter,
    condition_blocks,
    count_rows,
    hdf5,
    read_conditions,
)

SETTINGS = ["preset=fast", "n_steps=3", "booster.n_estimators=4", "random_state=1"]
WORDS = [word for text in SETTINGS for word in ("--set", text)]
N = 5 * seeding.BLOCK + 300


@pytest.fixture
def short_segments(monkeypatch):
    """Commit after each chunk of one block."""
    monkeypatch.setattr(hdf5, "CHUNK", seeding.BLOCK)
    monkeypatch.setattr(hdf5, "SEGMENT", 1)


# Generation


@pytest.fixture
def trained(folder):
    assert run("fit", "jets.h5", "-o", "run", *WORDS) == 0
    return folder


def cut_after(monkeypatch, rows):
    """Let generation stop after so many rows, as by Ctrl-C."""
    append = ResumableWriter.append

    def stopping(self, table):
        append(self, table)
        if self.n_rows >= rows:
            raise KeyboardInterrupt

    monkeypatch.setattr(ResumableWriter, "append", stopping)


@pytest.mark.parametrize("rejection", ["false", "true"])
@pytest.mark.parametrize("way", [[], ["--no-compile"]])
def test_a_stopped_generation_goes_on_to_the_same_bytes(
    trained, monkeypatch, capsys, short_segments, rejection, way
):
    if rejection == "true":
        run("fit", "jets.h5", "-o", "run2", *WORDS, "--set", "rejection=true")
    name = "run2" if rejection == "true" else "run"
    words = ["generate", name, "-n", N, "--seed", 3, *way]
    assert run(*words, "-o", "one.h5") == 0
    block = ["--block", 8192]
    with monkeypatch.context() as patch:
        cut_after(patch, 2 * seeding.BLOCK)
        assert run(*words, *block, "-o", "two.h5") == 130
    assert not Path("two.h5").exists()
    assert run(*words, "-o", "two.h5") == 1
    assert "--resume" in capsys.readouterr().err
    assert run(*words, *block, "-o", "two.h5", "--resume") == 0
    made = capsys.readouterr().out
    assert "of them were there" in made
    assert "events/s" in made
    assert Path("one.h5").read_bytes() == Path("two.h5").read_bytes()
    assert not list(Path().glob("*.partial*"))
    assert run(*words, "-o", "two.h5", "--resume") == 0
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
    folder, monkeypatch, capsys, short_segments, change, named
):
    jets = read_table("jets.h5")
    write_table("all.h5", EventTable.of(jets.x[:, :2], cond=jets.x[:, 2:3]))
    assert run("fit", "all.h5", "-o", "run", *WORDS) == 0
    for name, seed in (("cond.csv", 0), ("other.csv", 1)):
        values = np.random.default_rng(seed).normal(size=N if named != "number of events" else 1)
        pd.DataFrame({"c0": values}).to_csv(name, index=False)
    words = ["generate", "run", "--seed", 3, "-n", N, "--conditions", "cond.csv", "-o", "new.h5"]
    with monkeypatch.context() as patch:
        cut_after(patch, 2 * seeding.BLOCK)
        assert run(*words) == 130
    assert run(*words, *change, "--resume") == 1
    assert f"another {named}" in capsys.readouterr().err
    assert run(*words, "--resume") == 0


def test_another_model_does_not_continue_a_stopped_sample(
    trained, monkeypatch, capsys, short_segments
):
    with monkeypatch.context() as patch:
        cut_after(patch, 2 * seeding.BLOCK)
        assert run("generate", "run", "-n", N, "-o", "new.h5") == 130
    run("fit", "jets.h5", "-o", "run2", *WORDS, "--set", "random_state=2")
    assert run("generate", "run2", "-n", N, "-o", "new.h5", "--resume") == 1
    assert "another model" in capsys.readouterr().err


KILLED = """
import os, signal, sys
from flowbdt.tableio import hdf5, resumable
from flowbdt.cli.main import main

hdf5.CHUNK, hdf5.SEGMENT = 4096, 1
commit, count = resumable.ResumableWriter._commit, []

def stopping(self, n_rows):
    commit(self, n_rows)
    count.append(n_rows)
    if len(count) == 3:
        os.kill(os.getpid(), signal.SIGKILL)

resumable.ResumableWriter._commit = stopping
main(sys.argv[1:])
"""


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_a_killed_process_loses_only_what_it_was_working_on(trained, short_segments, capsys):
    words = ["generate", "run", "-n", str(N), "--seed", "3"]
    assert run(*words, "-o", "one.h5") == 0
    killed = subprocess.run([sys.executable, "-c", KILLED, *words, "-o", "two.h5"], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert run(*words, "-o", "two.h5", "--resume") == 0
    assert f"({3 * seeding.BLOCK} of them were there)" in capsys.readouterr().out
    assert Path("one.h5").read_bytes() == Path("two.h5").read_bytes()


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


def test_conditions_of_a_file_are_read_once_in_order(conditional, tmp_path, monkeypatch):
    given = conditions(20 * seeding.BLOCK)
    given.to_csv(tmp_path / "cond.csv", index=False)
    firsts, whole = [], conditional.sample(cond=given, random_state=2)
    read = FromFile.__init__

    def watched(self, path, blocks, n_rows):
        read(self, path, lambda low: firsts.append(low) or blocks(low), n_rows)

    monkeypatch.setattr(FromFile, "__init__", watched)
    new = conditional.sample(cond=tmp_path / "cond.csv", random_state=2)
    assert np.array_equal(new.x, whole.x)
    assert firsts == [0]


def test_a_whole_file_for_the_same_conditions_is_not_made_again(conditional, tmp_path, monkeypatch):
    monkeypatch.setattr(sample_stream, "READ_TOGETHER", 64)
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
