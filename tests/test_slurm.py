"""Slurm, played by a fake: same bytes, what fails is named, resuming sends only what is missing."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from conftest import PLAIN, QUICK, make_jets
from conftest import run as command

from flowbdt.config import ModelConfig
from flowbdt.errors import ConfigError, IncompleteRun, RunError
from flowbdt.tables.formats import write_table
from flowbdt.training import run_directory
from flowbdt.training.collect import train
from flowbdt.training.executors import EXECUTORS, STEPS, slurm
from flowbdt.training.executors.submission_records import Place
from flowbdt.training.plan import Inputs, make_plan
from flowbdt.training.run_directory import RunDirectory

FAKE = Path(__file__).parent / "fake_slurm.py"


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A fake Slurm in PATH; returns the folder of its state."""
    programs, state = tmp_path / "bin", tmp_path / "state"
    programs.mkdir()
    state.mkdir()
    (state / "accounting").touch()
    for name in ("sbatch", "squeue", "sacct", "scancel"):
        words = f'exec {sys.executable} -S {FAKE} {name} "$@"'
        (programs / name).write_text(f"#!/bin/sh\n{words}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_SLURM", str(state))
    monkeypatch.setattr(slurm.Submissions, "poll_s", 0.4)
    return state


def executor(**settings):
    return EXECUTORS.build({"name": "slurm", "poll_s": 0.4, **settings})


def planned(folder, n_steps=2):
    config = ModelConfig(
        **{**PLAIN, "noise": {**PLAIN["noise"], "n_repeats": 2}}, n_steps=n_steps, booster=QUICK
    )
    run = RunDirectory(folder)
    make_plan(Inputs(make_jets(), config, 5), run)
    return run


def models(run):
    return [run.read(run_directory.model_name(step)) for step in range(2)]


def sent(run):
    """What each job of each submission does."""
    records = [json.loads(p.read_text()) for p in sorted(run.path.glob("slurm/*/submission.json"))]
    return [[r.get("members", {}).get(job, [job]) for job in r["jobs"]] for r in records]


@pytest.mark.parametrize("accounting", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_same_bytes_and_a_failed_task_is_named_and_only_it_is_sent_again(
    tmp_path, cluster, accounting
):
    if not accounting:
        (cluster / "accounting").unlink()
    serial = planned(tmp_path / "serial")
    train(serial, EXECUTORS.build("serial"))
    run = planned(tmp_path / 'it\'s a "run" for $5')
    in_the_way = run.file(run_directory.model_name(1)) / "x"
    in_the_way.mkdir(parents=True)
    error = r"1 of 2 steps are missing: 1\. Step 1 failed: exit status 1: step 1 failed.*0001\.err"
    with pytest.raises(IncompleteRun, match=error):
        train(run, executor(steps_per_job=2, submit={"partition": "short"}))
    assert sent(run) == [[["step-0", "step-1"]], [["step-1"]]]
    in_the_way.rmdir()
    in_the_way.parent.rmdir()
    train(run, executor())
    assert models(run) == models(serial)
    assert sent(run)[2:] == [[["step-1"]]]


def test_a_job_that_lacks_memory_gets_twice_as_much_and_is_given_up_at_last(
    tmp_path, cluster, monkeypatch
):
    monkeypatch.setenv("FAKE_NEEDS", "900")
    run = planned(tmp_path / "run", 1)
    (report,) = executor(request_memory=100, max_retries=2).run(run, [0])
    assert report["error"] == slurm.REASONS["OUT_OF_MEMORY"]
    requested = [text.split("--mem=")[1].split("M")[0] for text in scripts(run)]
    assert requested == ["100", "200", "400"]


def scripts(run):
    return [path.read_text() for path in sorted(run.path.glob("slurm/*/step.sh"))]


def test_a_killed_task_is_named(tmp_path, cluster):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nkill -9 $$\n")
    python.chmod(0o755)
    run = planned(tmp_path / "run", 2)
    reports = list(executor(python=str(python), steps_per_job=1).run(run, [0, 1]))
    assert sorted(r["step"] for r in reports) == [0, 1]
    assert {r["error"] for r in reports} == {"exit status 137: Killed"}


class Told(slurm.Workload):
    """A queue and an accounting that say what the test says."""

    queue, accounting, commands = "", "", []

    @staticmethod
    def _run(words, folder=None):
        Told.commands.append(words)
        if words[0] == "sbatch" and any("dependency" in word for word in words):
            raise RunError("no more jobs for you")
        return {"squeue": Told.queue, "sacct": Told.accounting}.get(words[0], "77;cluster\n")


@pytest.fixture
def told(monkeypatch):
    monkeypatch.setattr(slurm.Workload, "_run", staticmethod(Told._run))
    monkeypatch.setattr(slurm.Workload, "connect", classmethod(lambda cls: cls()))
    monkeypatch.setattr(Told, "commands", [])
    return Told


def followed(tmp_path, n, **record):
    run = RunDirectory(tmp_path).create()
    jobs = [f"step-{i}" for i in range(n)]
    run.file("slurm/0001").mkdir(parents=True)
    content = {"format": 1, "mark": "m", "dag": False, "jobs": jobs, **record}
    run.write_json("slurm/0001/submission.json", content)
    return slurm.Submissions(run)


def test_states_come_from_queue_and_accounting(tmp_path, told, monkeypatch):
    rows = ["3|77|RUNNING|node7|None", "4|77|PENDING||JobHeldUser", "5|77|PENDING||Resources"]
    monkeypatch.setattr(Told, "queue", "".join(f"flowbdt-step-m|{row}\n" for row in rows))
    ended = ["77_0|COMPLETED|0:0", "77_1|TIMEOUT|0:15", "77_[2]|CANCELLED by 5|0:0", "77_6|NEW||"]
    monkeypatch.setattr(Told, "accounting", "\n".join(ended))
    submissions = followed(tmp_path, 7, arrays={"step": 77})
    assert len(submissions.update()) == 7
    jobs = submissions.jobs()
    states = [jobs[f"step-{i}"].state for i in range(7)]
    assert states[:6] == ["done", "failed", "failed", "running", "held", "queued"]
    assert (jobs["step-3"].machine, jobs["step-3"].number) == ("node7", "77_3")
    assert "scontrol release 77_4" in jobs["step-4"].advice
    assert "executor.submit={time" in jobs["step-1"].reason
    assert jobs["step-2"].removed
    monkeypatch.setattr(Told, "queue", "")
    monkeypatch.setattr(Told, "accounting", "")
    assert submissions.update() == []  # the accounting may be late
    assert {job.state for job in submissions.compare(Told())} == {"lost"}


def test_a_submission_that_was_cut_short_is_found_by_its_name(tmp_path, told, monkeypatch):
    monkeypatch.setattr(Told, "queue", "flowbdt-step-m|0|91|PENDING||Priority\n")
    submissions = followed(tmp_path, 1)
    submissions.update()
    assert submissions.jobs()["step-0"].job == (91, 0)
    assert submissions.how_to_remove(submissions.all[0]) == "scancel --name=flowbdt-step-m"


def test_thousands_of_jobs_are_several_arrays(tmp_path):
    arrays = slurm.arrays([*(f"step-{i}" for i in range(2500)), "collect"])
    assert {name: len(jobs) for name, jobs in arrays.items()} == {
        **{"step": 1000, "step2": 1000, "step3": 500},
        "collect": 1,
    }


def test_what_was_sent_is_removed_if_the_rest_is_refused(tmp_path, told):
    run = planned(tmp_path / "run", 2)
    backend, submissions = executor(), slurm.Submissions(run)
    place = submissions.place()
    stages = [backend.stage(backend.submissions(run), [0, 1], STEPS, place)]
    stages.append(backend.single("collect", ["collect", "."], place))
    with pytest.raises(RunError, match=r"no more jobs for you\. Nothing was submitted"):
        submissions.submit(place, stages, backend, Told(), as_dag=True)
    assert told.commands[-1] == ["scancel", "77"]
    assert slurm.Submissions(run).all == []


def test_the_script_has_what_the_settings_say():
    place = Place(Path("/data/run"), "slurm/0001", "m")
    options = {"time": "01:00:00", "comment": "two words", "exclusive": True}
    backend = executor(python="/opt/my env/python", at_once=5, env={"A": "it's"}, submit=options)
    text = slurm.script("step", [("logs/0000", "step", ".", "0+1")] * 3, 300, backend, place)
    head = text.split("case")[0].splitlines()
    assert head == [
        *("#!/bin/sh", "# flowbdt: step", "#SBATCH --job-name=flowbdt-step-m"),
        *("#SBATCH --array=0-2%5", "#SBATCH --output=slurm/0001/step-%a.log"),
        *("#SBATCH --open-mode=append", "#SBATCH --requeue", "#SBATCH --cpus-per-task=1"),
        *("#SBATCH --mem=300M", "#SBATCH --time=01:00:00", '#SBATCH --comment="two words"'),
        *("#SBATCH --exclusive", "export PYTHONUNBUFFERED=1", "export A='it'\"'\"'s'"),
    ]
    assert "2) set -- logs/0000 step . 0+1 ;;" in text
    assert "'/opt/my env/python' -P -m flowbdt.cli" in text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"submit": {"mem": "2G"}}, r"executor\.request_memory=2000"),
        ({"submit": {"+x": 1}}, "long name"),
        ({"submit": {"comment": 'a "b"'}}, "without quotes"),
        ({"env": {"A B": 1}}, "environment variable"),
        ({"at_once": 0}, "at_once"),
        ({"transfer": True}, "transfer"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        executor(**settings)


def test_without_slurm_the_message_says_where_to_submit(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RunError, match=r"sbatch is not in PATH.*submits to your Slurm"):
        slurm.Workload.connect()


@pytest.mark.slow
def test_steps_sample_and_what_joins_them_follow_each_other(tmp_path, cluster, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_table("jets.h5", make_jets())
    settings = [f"booster.{k}={v}" for k, v in QUICK.items()]
    settings += ["preset=fast", "n_steps=2", "preconditioner=none", "random_state=1"]
    words = [word for text in settings for word in ("--set", text)]
    assert command("fit", "jets.h5", "-o", "here", *words) == 0
    assert command("generate", "here", "-n", 500, "--seed", 3, "-o", "one.h5") == 0
    assert command("plan", "jets.h5", "-o", "run", *words) == 0
    submit = ["submit", "run", "--executor", "slurm", "--dag", "--generate", 500, "--seed", 3]
    assert command(*submit, "--parts", 2, "-o", "many.h5", "--dry-run") == 0
    assert not (tmp_path / "run" / "slurm").exists()
    assert command(*submit, "--parts", 2, "-o", "many.h5") == 0
    assert command("watch", "run") == 0
    assert Path("many.h5").read_bytes() == Path("one.h5").read_bytes()
    assert command("submit", "run", "--executor", "slurm") == 0  # nothing is missing
    assert len(sent(RunDirectory("run"))) == 1
