"""A sample generated in parts: the same bytes as in one go, and nothing lost on the way."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from conftest import run

from flowbdt import seeding
from flowbdt.errors import ConfigError, IncompleteRun, RunError
from flowbdt.generation.sample_jobs import SampleJobs, assemble_sample, job_rows, plan_sample
from flowbdt.tables.event_table import EventTable
from flowbdt.tables.formats import write_table
from flowbdt.training.run_directory import RunDirectory

QUICK = ["preset=fast", "preconditioner=none", "n_steps=3", "booster.n_estimators=5"]
SETTINGS = [word for text in (*QUICK, "random_state=1") for word in ("--set", text)]
N = 2 * seeding.BLOCK + 500


@pytest.mark.parametrize(("n", "parts"), [(1, 1), (4096, 3), (N, 2), (10_000_000, None)])
def test_parts_are_whole_blocks_and_leave_nothing_out(n, parts):
    rows = job_rows(n, parts)
    assert rows[0][0] == 0
    assert rows[-1][1] == n
    assert all(low % seeding.BLOCK == 0 and low < high for low, high in rows)
    assert [low for low, _ in rows[1:]] == [high for _, high in rows[:-1]]


@pytest.mark.parametrize("rejection", [False, True])
@pytest.mark.parametrize("executor", ["serial", "joblib"])
def test_a_merged_sample_is_that_of_one_machine(folder, executor, rejection):
    command = ["fit", "jets.h5", "-o", "run", *SETTINGS, "--set", f"rejection={rejection}".lower()]
    assert run(*command) == 0
    assert run("generate", "run", "-n", N, "--seed", 7, "-o", "one.h5") == 0
    words = ["--generate", N, "--parts", 3, "--seed", 7, "-o", "many.h5"]
    assert run("submit", "run", *words, "--executor", executor) == 0
    assert (folder / "one.h5").read_bytes() == (folder / "many.h5").read_bytes()


def test_parts_take_another_way_through_the_step_models_as_one_generation_does(folder):
    assert run("fit", "jets.h5", "-o", "run", *SETTINGS) == 0
    way = ["--sampler", "{solver: euler}", "--seed", 7]
    assert run("generate", "run", "-n", N, *way, "-o", "one.h5") == 0
    words = ["--generate", N, "--parts", 2, *way, "-o", "many.h5", "--executor", "serial"]
    assert run("submit", "run", *words) == 0
    assert (folder / "one.h5").read_bytes() == (folder / "many.h5").read_bytes()
    assert run("generate", "run", "-n", N, "--seed", 7, "-o", "own.h5") == 0
    assert (folder / "one.h5").read_bytes() != (folder / "own.h5").read_bytes()


def test_a_sampler_that_the_run_does_not_know_is_refused_before_anything_is_sent(folder, capsys):
    assert run("fit", "jets.h5", "-o", "run", *SETTINGS) == 0
    words = ["--generate", 10, "-o", "new.h5", "--sampler", "{n_steps: 7}"]
    assert run("submit", "run", *words, "--executor", "serial") != 0
    assert "0.14" in capsys.readouterr().err
    assert not (folder / "run" / "samples").exists()


def test_conditions_and_categories_come_through(folder, jets):
    frame = jets.to_frame()
    frame["kind"] = np.where(np.arange(len(frame)) % 2, "quark", "gluon")
    frame["pileup"] = np.arange(len(frame)) % 50
    table = EventTable.of(frame[["mass", "tau1", "pileup"]], cond=frame[["kind"]])
    write_table("all.h5", table)
    assert run("fit", "all.h5", "-o", "run", *SETTINGS) == 0
    kinds = pd.DataFrame({"kind": np.where(np.arange(N) % 3, "quark", "gluon")})
    kinds.to_csv("kinds.csv", index=False)
    given = ["--conditions", "kinds.csv"]
    assert run("generate", "run", *given, "-o", "one.h5") == 0
    words = ["--generate", N, "--parts", 2, "-o", "many.h5", *given, "--executor", "serial"]
    assert run("submit", "run", *words) == 0
    assert (folder / "one.h5").read_bytes() == (folder / "many.h5").read_bytes()


def test_only_missing_or_damaged_parts_are_made_again(folder, capsys):
    run("fit", "jets.h5", "-o", "run", *SETTINGS)
    trained = RunDirectory("run")
    work = plan_sample(trained, folder / "new.h5", N, seed=1, parts=3)
    assert work.missing(trained) == [0, 1, 2]
    assert run("part", "run", "new", 1) == 0
    assert run("part", "run", "new", 2) == 0
    values = trained.file("samples/new/0002.npy")
    values.write_bytes(values.read_bytes()[:-8])
    assert work.missing(trained) == [0, 2]
    with pytest.raises(IncompleteRun, match="2 of 3 parts of sample new are missing: 0, 2"):
        assemble_sample(trained, work)
    before = trained.file("samples/new/0001.npy").stat().st_mtime_ns
    for number in (0, 1, 2):
        assert run("part", "run", "new", number) == 0
    assert trained.file("samples/new/0001.npy").stat().st_mtime_ns == before
    assert run("merge", "run", "new") == 0
    assert f"{N} events from 3 parts" in capsys.readouterr().out


def test_another_sample_of_the_same_name_is_refused(folder):
    run("fit", "jets.h5", "-o", "run", *SETTINGS)
    trained = RunDirectory("run")
    plan_sample(trained, folder / "new.h5", 100, seed=1)
    plan_sample(trained, folder / "new.h5", 100, seed=1)
    with pytest.raises(RunError, match=r"another seed \(1 then, 2 now\)"):
        plan_sample(trained, folder / "new.h5", 100, seed=2)


def test_values_that_were_brought_are_checked_before_they_count(folder):
    run("fit", "jets.h5", "-o", "run", *SETTINGS)
    trained = RunDirectory("run")
    work = plan_sample(trained, folder / "new.h5", 100, seed=1)
    work.do("run", 0, 1)
    arrived = trained.file("incoming/samples/new")
    arrived.mkdir(parents=True)
    for name in work.result("0000"):
        trained.file(name).rename(trained.file(f"incoming/{name}"))
    good = trained.file("incoming/samples/new/0000.npy").read_bytes()
    trained.file("incoming/samples/new/0000.npy").write_bytes(good[:-1])
    assert work.receive(trained, 0) is None
    trained.file("incoming/samples/new/0000.npy").write_bytes(good)
    assert work.receive(trained, 0)["rows"] == 100
    assert not list(arrived.iterdir())


def test_generation_before_training_needs_a_dag(folder, capsys):
    run("plan", "jets.h5", "-o", "run", *SETTINGS)
    assert run("submit", "run", "--generate", 10, "-o", "new.h5") == 1
    assert "--dag" in capsys.readouterr().err


def test_conditions_cannot_be_read_before_the_run_is_complete(folder):
    run("plan", "jets.h5", "-o", "run", *SETTINGS, "--set", "conditions=[mass]")
    with pytest.raises(ConfigError, match="not complete"):
        plan_sample(RunDirectory("run"), folder / "new.h5", 10, seed=0)


def test_a_part_of_another_run_is_refused(folder, capsys):
    run("fit", "jets.h5", "-o", "run", *SETTINGS)
    run("fit", "jets.h5", "-o", "other", *SETTINGS, "--set", "noise.n_repeats=3")
    plan_sample(RunDirectory("run"), folder / "new.h5", 10, seed=0)
    (folder / "other" / "samples").mkdir()
    (folder / "run" / "samples" / "new").rename(folder / "other" / "samples" / "new")
    assert run("part", "other", "new", 0) == 1
    assert "planned for another run" in capsys.readouterr().err


def test_a_part_lists_what_a_job_must_copy(folder):
    run("fit", "jets.h5", "-o", "run", *SETTINGS)
    trained = RunDirectory("run")
    plan_sample(trained, folder / "new.h5", 10, seed=0)
    inputs = SampleJobs("new").inputs(trained, "0000")
    assert all(trained.file(name).exists() for name in inputs)
    assert "table" not in inputs
    assert json.loads(trained.read("samples/new/sample.json"))["sample"]["number of events"] == 10
