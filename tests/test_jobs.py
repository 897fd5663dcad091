"""Single steps as jobs: from their files alone, and in the face of what happens to jobs."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time

import joblib
import pytest
from conftest import PLAIN, QUICK, run
from joblib._parallel_backends import SequentialBackend

from flowbdt import atomic_files
from flowbdt.config import ModelConfig
from flowbdt.errors import ConfigError, RunError
from flowbdt.generation.fit_run import fit_run
from flowbdt.tables.formats import write_table
from flowbdt.training import run_directory
from flowbdt.training.executors import EXECUTORS
from flowbdt.training.executors.dask import _prologue
from flowbdt.training.expected_cost import step_cost
from flowbdt.training.numbered_jobs import STEPS
from flowbdt.training.plan import Inputs, make_plan
from flowbdt.training.run_directory import RunDirectory

N_STEPS = 3
COMMAND = [sys.executable, "-m", "flowbdt.cli"]


def inputs(table):
    config = ModelConfig(
        **{**PLAIN, "noise": {**PLAIN["noise"], "n_repeats": 2}}, n_steps=N_STEPS, booster=QUICK
    )
    return Inputs(table, config, 5)


@pytest.fixture
def planned(tmp_path, jets):
    run = RunDirectory(tmp_path / "run")
    make_plan(inputs(jets), run)
    return run


@pytest.fixture
def whole(tmp_path, jets):
    return fit_run(inputs(jets), tmp_path / "whole")


def test_plan_steps_and_collect_are_fit(tmp_path, jets, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_table("jets.h5", jets)
    quick = {"n_steps": 3, "booster": QUICK, "preset": "fast", "random_state": 1}
    words = [w for k, v in quick.items() for w in ("--set", f"{k}={json.dumps(v)}")]
    assert run("fit", "jets.h5", "-o", "whole", *words) == 0
    assert run("plan", "jets.h5", "-o", "my run", *words) == 0
    assert "3 tasks" in capsys.readouterr().out
    assert run("collect", "my run") == 1
    message = capsys.readouterr().err
    assert "3 of 3 steps are missing: 0, 1, 2." in message
    assert "flowbdt fit -o 'my run' --resume" in message
    assert run("step", "my run", 2, "0+1", "--threads", 1) == 0
    assert capsys.readouterr().out.count("trees") == 3
    assert run("collect", "my run") == 0
    manifests = [(tmp_path / n / "manifest.json").read_bytes() for n in ("whole", "my run")]
    assert manifests[0] == manifests[1]
    assert run("step", "my run", 1) == 0
    assert "done already" in capsys.readouterr().out


def test_a_step_needs_only_the_files_it_lists(tmp_path, planned, whole, capsys):
    """Copied to another folder, as to a node without a shared file system."""
    assert run("step", planned.path, 1, "--files") == 0
    listed = [line.split(" ", 1) for line in capsys.readouterr().out.splitlines()]
    node = tmp_path / "node"
    node.mkdir()
    for name in (name for verb, name in listed if verb == "copy"):
        (node / name).parent.mkdir(exist_ok=True)
        copy = shutil.copytree if planned.file(name).is_dir() else shutil.copy
        copy(planned.file(name), node / name)
    bare = {"OMP_NUM_THREADS": "1"}  # neither PATH nor HOME, as in a batch job
    command = [sys.executable, "-P", "-m", "flowbdt.cli", "step", ".", "1"]
    subprocess.run(command, cwd=node, env=bare, check=True, capture_output=True)
    for name in (name for verb, name in listed if verb == "bring"):
        atomic_files.move(node / name, planned.file(f"incoming/{name}"))
    assert STEPS.report(planned, 1) is None
    assert STEPS.receive(planned, 1)["step"] == 1
    assert planned.read(run_directory.model_name(1)) == whole.read(run_directory.model_name(1))


def test_what_arrives_damaged_does_not_count(planned, whole):
    for name in STEPS.result("0000"):
        shutil.copy(whole.file(name), planned.file(name))
        atomic_files.move(planned.file(name), planned.file(f"incoming/{name}"))
    model = planned.file("incoming/steps/0000.ubj")
    model.write_bytes(model.read_bytes()[:-1])
    assert STEPS.receive(planned, 0) is None
    assert planned.missing_steps() == [0, 1, 2]


@pytest.mark.parametrize("number", [3, 99])
def test_a_task_that_does_not_exist_is_named(planned, capsys, number):
    assert run("step", planned.path, number) == 1
    assert f"has no task {number}; it has 0 to 2" in capsys.readouterr().err


def test_a_failing_step_exits_with_the_reason_in_its_last_line(planned, capsys):
    task = planned.read_json(run_directory.task_name(1))
    bad = {**task, "booster": {**task["booster"], "max_depth": -1}}
    bad["digest"] = atomic_files.digest({k: v for k, v in bad.items() if k != "digest"})
    planned.write_json(run_directory.task_name(1), bad)
    assert run("step", planned.path, 1) == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("flowbdt: error: step 1 failed: ")
    assert "max_depth" in last


def test_a_failing_step_does_not_stop_the_others_of_its_job(planned, whole, capsys):
    planned.file(run_directory.task_name(1)).write_text("{}")
    assert run("step", planned.path, "0+1+2") == 1
    assert "step 1 failed" in capsys.readouterr().err.strip().splitlines()[-1]
    assert planned.missing_steps() == [1]
    assert run("step", planned.path, "0+x") == 2
    assert "a whole number from 0, or several as 3+4" in capsys.readouterr().err


def test_collect_tells_reasons_that_only_logs_know(planned, capsys):
    planned.file("logs/0000.err").write_text("...\nflowbdt: error: step 0 failed: no room\n")
    planned.file("logs/0002.log").write_text("Traceback\nMemoryError: too much\n")
    assert run("collect", planned.path) == 1
    message = capsys.readouterr().err
    assert "Step 0 failed: step 0 failed: no room (log: " in message
    assert "Step 2 failed: MemoryError: too much (log: " in message
    assert "0002.log" in message


def test_two_workers_on_one_step_do_no_harm(planned, whole):
    workers = [subprocess.Popen([*COMMAND, "step", str(planned.path), "1", "-q"]) for _ in range(3)]
    assert [worker.wait() for worker in workers] == [0, 0, 0]
    assert planned.read(run_directory.model_name(1)) == whole.read(run_directory.model_name(1))
    assert STEPS.report(planned, 1) is not None
    assert not list(planned.path.rglob(".part-*"))


def test_a_full_disk_ends_in_a_clear_message_and_leaves_nothing(planned):
    """A limit on file sizes stands for the disk: writing fails in the middle of a file."""

    def little_room():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    command = [*COMMAND, "step", str(planned.path), "0"]
    done = subprocess.run(
        command, preexec_fn=little_room, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "could not write" in done.stderr
    assert "free space" in done.stderr
    assert not list(planned.path.glob("steps/*"))
    assert not list(planned.path.rglob(".part-*"))
    assert run("step", planned.path, 0) == 0


def test_an_evicted_step_leaves_no_half_written_file(planned, whole, monkeypatch):
    """SIGTERM in the moment of writing."""
    code = (
        "import os, sys, signal\n"
        "from flowbdt.cli.main import main\n"
        "real = os.replace\n"
        "def evicted(source, target):\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    real(source, target)\n"
        "os.replace = evicted\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    command = [sys.executable, "-c", code, "step", str(planned.path), "0"]
    assert subprocess.run(command, check=False).returncode == 128 + signal.SIGTERM
    assert not list(planned.path.glob("steps/*.ubj"))
    assert not list(planned.path.rglob(".part-*"))
    assert run("step", planned.path, 0, "-q") == 0
    assert planned.read(run_directory.model_name(0)) == whole.read(run_directory.model_name(0))


def test_leftovers_of_other_machines_go_after_a_week(planned):
    parts = {}
    for age in (0.0, 8 * 24 * 3600.0):
        parts[age] = planned.file(f"steps/.part-elsewhere-1-{age}-0000.ubj")
        parts[age].write_bytes(b"half")
        moment = time.time() - age
        os.utime(parts[age], (moment, moment))
    atomic_files.remove_leftovers(planned.path)
    assert [part.exists() for part in parts.values()] == [True, False]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="could not move"):
        atomic_files.move(tmp_path / "nowhere", tmp_path / "file" / "x")


# ---- executors of other makers


class Counting(SequentialBackend):
    """A backend that a user registers."""

    calls = 0

    def submit(self, func, callback=None):
        type(self).calls += 1
        return super().submit(func, callback)

    apply_async = submit


@pytest.mark.parametrize("how", ["named", "around", "threading", "two steps a job"])
def test_joblib_uses_any_registered_backend(planned, whole, how):
    joblib.register_parallel_backend("counting", Counting)
    spec = {"name": "joblib", "n_jobs": 2}
    if how == "around":
        with joblib.parallel_config("counting"):
            reports = list(EXECUTORS.build(spec).run(planned, [0, 1, 2]))
    else:
        backend = how if how == "threading" else "counting"
        per_job = 2 if how == "two steps a job" else None
        executor = EXECUTORS.build({**spec, "backend": backend, "steps_per_job": per_job})
        reports = list(executor.run(planned, [0, 1, 2]))
    assert sorted(report["step"] for report in reports) == [0, 1, 2]
    for step in range(N_STEPS):
        assert planned.read(run_directory.model_name(step)) == whole.read(
            run_directory.model_name(step)
        )


def test_an_unknown_backend_is_named(planned):
    executor = EXECUTORS.build({"name": "joblib", "backend": "no_such"})
    with pytest.raises(ConfigError, match="no_such"):
        list(executor.run(planned, [0]))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"cluster": "slum"}, "Did you mean 'slurm'"),
        ({"cluster": {"name": "slurm"}, "address": "tcp://x:1"}, "not both"),
        ({"n_jobs": 0}, "n_jobs"),
    ],
)
def test_wrong_settings_of_dask_are_refused(spec, message):
    with pytest.raises(ConfigError, match=message):
        EXECUTORS.build({"name": "dask", **spec})


def test_dask_says_which_scheduler_does_not_answer(planned):
    pytest.importorskip("distributed", reason="executor dask is an extra")
    spec = {"name": "dask", "address": "tcp://127.0.0.1:9", "connect_s": 1}
    with pytest.raises(RunError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        list(EXECUTORS.build(spec).run(planned, [0]))


# dask-jobqueue stumbles while it clears away a cluster that never was
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_dask_without_its_parameters_says_what_lacks(planned):
    pytest.importorskip("dask_jobqueue", reason="executor dask is an extra")
    executor = EXECUTORS.build({"name": "dask", "cluster": {"name": "slurm", "memori": "1GB"}})
    with pytest.raises(ConfigError, match="slurm"):
        list(executor.run(planned, [0]))


@pytest.mark.parametrize(("value", "lines"), [(None, []), ("Haswell", ["export A=Haswell"])])
def test_workers_of_a_batch_system_get_what_decides_last_bits(monkeypatch, value, lines):
    """And nothing if there is nothing: an empty prologue is a stray semicolon to a shell."""
    monkeypatch.setattr("flowbdt.training.executors.local.LAST_BITS", ("A",))
    monkeypatch.delenv("A", raising=False)
    if value:
        monkeypatch.setenv("A", value)
    assert _prologue({}) == ({"job_script_prologue": lines} if lines else {})
    given = {"job_script_prologue": ["module load python"]}
    assert _prologue(given) == {"job_script_prologue": [*lines, "module load python"]}


class Fatal(type(STEPS)):
    """Steps of which one kills its worker."""

    def do(self, folder, number, n_threads):
        if number == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().do(folder, number, n_threads)


@pytest.mark.slow
def test_dask_processes_survive_a_step_that_kills_its_worker(planned, whole):
    pytest.importorskip("distributed", reason="executor dask is an extra")
    executor = EXECUTORS.build({"name": "dask", "n_jobs": 2, "retries": 0})
    reports = {r["step"]: r for r in executor.run(planned, [0, 1, 2], Fatal())}
    assert set(reports) == {0, 1, 2}
    assert "error" in reports[1]
    assert planned.read(run_directory.model_name(2)) == whole.read(run_directory.model_name(2))


class Lost:
    """A job of Dask whose worker died with what it had returned; nobody is left to do it anew."""

    def done(self):
        return True

    def result(self, timeout=None):
        assert timeout is not None, "it would wait for ever"
        raise TimeoutError


def test_dask_takes_reports_from_files_where_their_worker_died(planned, whole, monkeypatch):
    pytest.importorskip("distributed", reason="executor dask is an extra")
    executor = EXECUTORS.build({"name": "dask", "cluster": {"name": "local", "processes": False}})
    monkeypatch.setattr(executor, "_ended", lambda client, jobs: list(jobs))
    monkeypatch.setattr("distributed.Client.submit", lambda *_, **__: Lost())
    done, missing = executor.run(whole, [0]), executor.run(planned, [1])
    assert next(done) == whole.read_json(run_directory.report_name(0))
    assert "died before it handed over" in next(missing)["error"]


@pytest.mark.slow
def test_joblib_tells_which_steps_a_killed_worker_took_along(planned):
    executor = EXECUTORS.build({"name": "joblib", "n_jobs": 2})
    reports = {r["step"]: r for r in executor.run(planned, [0, 1, 2], Fatal())}
    assert "error" in reports[1]
    assert planned.missing_steps() == sorted(n for n, r in reports.items() if "error" in r)


def test_memory_that_jobs_ask_for_covers_what_steps_use(planned, whole):
    asked = STEPS.needs(planned).memory_mib
    assert asked > step_cost(planned.plan()).memory_mib
    peak = whole.read_json(run_directory.report_name(0))["peak_mib"]
    assert STEPS.needs(whole).memory_mib >= peak
