"""Jobs on a real HTCondor pool: same bytes as on one machine, whatever happens on the way.

The pool: the program that FLOWBDT_TEST_POOL names, which knows ``up``, ``down`` and ``run``, or the
one that condor_submit on this machine submits to.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path

import documented
import numpy as np
import pandas as pd
import pytest
from conftest import QUICK

import flowbdt
from flowbdt.physics import bundled
from flowbdt.tables.formats import write_table
from flowbdt.training import run_directory
from flowbdt.training.executors import EXECUTORS
from flowbdt.training.run_directory import RunDirectory

pytestmark = pytest.mark.cluster

TIMEOUT_S = 240
POLICY = "use POLICY: HOLD_IF_MEMORY_EXCEEDED\n"
SETTINGS = {
    "preset": "fast",
    "preconditioner": {"name": "mixture", "n_components": 3},
    "noise": {"candidates": 100, "n_repeats": 1},
    "random_state": 5,
    "relations": list(bundled().relations),
}
"""All that a step does, in small."""


def pool_variables() -> dict[str, str]:
    """What the environment needs to reach the pool; skips where there is none."""
    program = os.environ.get("FLOWBDT_TEST_POOL")
    if program is None:
        if shutil.which("condor_submit") is None:
            pytest.skip("no pool: FLOWBDT_TEST_POOL is not set and there is no condor_submit")
        return {}
    policy = Path(tempfile.gettempdir()) / f"flowbdt-pool-{os.getuid()}.conf"
    policy.write_text(POLICY)
    own = Path(tempfile.gettempdir()) / f"flowbdt-pool-{os.getuid()}"
    environ = {"HTCONDOR_POOL_DIR": str(own), "HTCONDOR_POOL_CPUS": "2", **os.environ}
    environ |= {"HTCONDOR_POOL_CONFIG": str(policy)}
    up = subprocess.run([program, "up"], env=environ, capture_output=True, text=True, check=False)
    if up.returncode:
        pytest.skip(f"no pool can start here: {up.stderr.strip()}")
    ask = [program, "run", "printenv", "CONDOR_CONFIG", "PATH"]
    said = subprocess.run(ask, env=environ, capture_output=True, text=True, check=True)
    config, path = said.stdout.splitlines()
    return {"CONDOR_CONFIG": config, "PATH": path, "HTCONDOR_POOL_DIR": str(own)}


@pytest.fixture(scope="module")
def pool():
    with pytest.MonkeyPatch.context() as patch:
        for name, value in pool_variables().items():
            patch.setenv(name, value)
        yield
        if "FLOWBDT_TEST_POOL" in os.environ:
            subprocess.run([os.environ["FLOWBDT_TEST_POOL"], "down"], check=False)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "jets.h5"
    write_table(path, bundled().load("train").take(slice(0, 400)))
    return path


def flowbdt_command(*arguments):
    return [sys.executable, "-m", "flowbdt.cli", *map(str, arguments)]


def command(*arguments, check=True):
    done = subprocess.run(
        flowbdt_command(*arguments),
        capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    assert not check or done.returncode == 0, done.stderr
    return done


def settings(n_steps, **more):
    values = {**SETTINGS, "n_steps": n_steps, **more}
    values |= {f"booster.{name}": value for name, value in QUICK.items()}
    return [word for k, v in values.items() for word in ("--set", f"{k}={json.dumps(v)}")]


def files_of(folder, n):
    """Everything that must be equal: every model, and the manifest."""
    run = RunDirectory(folder)
    names = [run_directory.model_name(step) for step in range(n)]
    return {name: run.read(name) for name in [*names, "manifest.json"]}


@pytest.fixture(scope="module")
def serial(table, tmp_path_factory):
    """Folder of a serial run of 20 steps."""
    folder = tmp_path_factory.mktemp("serial") / "run"
    command("fit", table, "-o", folder, *settings(20))
    return folder


def copy_without(run, folder, missing):
    """A copy of a finished run from which some steps are missing again."""
    shutil.copytree(run, folder)
    for step in missing:
        (folder / run_directory.model_name(step)).unlink()
    (folder / "manifest.json").unlink()
    return folder


@pytest.mark.parametrize("transfer", [False, True])
def test_twenty_jobs_write_the_bytes_of_a_serial_run(pool, table, serial, tmp_path, transfer):
    folder = tmp_path / 'it\'s a "run"'
    words = ["--executor", "htcondor", "--set", f"executor.transfer={transfer}".lower()]
    words += ["--set", f"executor.steps_per_job={'null' if transfer else 1}"]
    command("fit", table, "-o", folder, *settings(20), *words)
    assert files_of(folder, 20) == files_of(serial, 20)
    record = json.loads((folder / "condor/0001/submission.json").read_text())
    assert len(record["jobs"]) == (1 if transfer else 20)  # 20 short steps, or a job for each
    assert not list(folder.glob("incoming/steps/*"))


def test_classifiers_of_columns_are_jobs_too_and_a_lost_one_is_done_again(pool, tmp_path):
    rng = np.random.default_rng(0)
    kind = rng.choice(["electron", "muon", "tau"], 500)
    energy = rng.lognormal(3, 0.5, 500) * np.where(kind == "tau", 2.0, 1.0)
    hits = rng.poisson(2 + energy / 20)
    frame = pd.DataFrame({"energy": energy, "kind": kind, "hits": hits, "many": hits > 3})
    frame.to_csv(tmp_path / "t.csv", index=False)
    words = settings(2, relations=[], rejection=True)
    command("fit", tmp_path / "t.csv", "-o", tmp_path / "serial", *words)
    n_jobs = RunDirectory(tmp_path / "serial").n_steps()
    assert n_jobs == 2 + 3
    on_pool = ["--executor", "htcondor", "--set", "executor.transfer=true"]
    command("fit", tmp_path / "t.csv", "-o", tmp_path / "pool", *words, *on_pool)
    again = copy_without(tmp_path / "serial", tmp_path / "again", [1, 3])
    command("fit", "-o", again, "--resume", "--executor", "htcondor")
    expected = files_of(tmp_path / "serial", n_jobs)
    for folder in (tmp_path / "pool", again):
        assert files_of(folder, n_jobs) == expected
        name = run_directory.REJECTION
        assert (folder / name).read_bytes() == (tmp_path / "serial" / name).read_bytes()


@pytest.mark.parametrize("executor", ["joblib", "dask"])
def test_executors_of_one_machine_write_the_same(table, serial, tmp_path, executor):
    if executor == "dask":
        pytest.importorskip("distributed", reason="executor dask is an extra")
    words = ["--executor", executor, "--set", "executor.n_jobs=2"]
    command("fit", table, "-o", tmp_path / "run", *settings(20), *words)
    assert files_of(tmp_path / "run", 20) == files_of(serial, 20)


@pytest.mark.parametrize("executor", ["htcondor", "dask"])
def test_replicas_of_an_ensemble_are_those_of_one_machine(request, table, tmp_path, executor):
    """Also after a step was lost."""
    words = ["--executor", executor]
    if executor == "dask":
        pytest.importorskip("distributed", reason="executor dask is an extra")
        words += ["--set", "executor.n_jobs=2"]
    else:
        request.getfixturevalue("pool")
        words += ["--set", "executor.transfer=true"]
    here, there = tmp_path / "here", tmp_path / "there"
    command("fit", table, "-o", here, "--replicas", 2, *settings(3))
    command("fit", table, "-o", there, "--replicas", 2, *settings(3), *words)
    copies = [here / "replica_0", here / "replica_1"]
    expected = [files_of(copy, 3) for copy in copies]
    assert expected[0] != expected[1]
    assert [files_of(there / copy.name, 3) for copy in copies] == expected
    (there / "replica_1" / run_directory.model_name(2)).unlink()
    (there / "replica_1" / "manifest.json").unlink()
    command("fit", "-o", there, "--resume", *words[:2])
    assert files_of(there / "replica_1", 3) == expected[1]


def test_dask_starts_its_workers_as_jobs_of_the_pool(pool, serial, tmp_path):
    pytest.importorskip("dask_jobqueue", reason="executor dask is an extra")
    run = RunDirectory(copy_without(serial, tmp_path / "run", [0, 9, 19]))
    cluster = {"name": "htcondor", "memory": "800MB", "disk": "100MB"}
    executor = EXECUTORS.build({"name": "dask", "cluster": cluster, "n_jobs": 1})
    reports = list(executor.run(run, run.missing_steps()))
    assert sorted(report["step"] for report in reports) == [0, 9, 19]
    command("collect", run.path)
    assert files_of(run.path, 20) == files_of(serial, 20)


def test_a_dag_writes_the_bytes_of_a_serial_run(pool, table, serial, tmp_path):
    folder = tmp_path / "a run"
    command("plan", table, "-o", folder, *settings(20))
    command("submit", folder, "--dag", "--set", "executor.transfer=true")
    said = command("watch", folder).stdout
    assert "done 21" in said
    assert files_of(folder, 20) == files_of(serial, 20)
    (log,) = folder.glob("condor/*/collect.out")
    assert "complete" in log.read_text()  # the DAG itself closed the run


@pytest.mark.parametrize("transfer", [False, True])
def test_a_dag_trains_generates_and_merges_to_the_bytes_of_one_machine(
    pool, serial, tmp_path, transfer
):
    folder = copy_without(serial, tmp_path / "run", [0, 19])
    new = {name: tmp_path / f"{name}.h5" for name in ("one machine", "many")}
    words = ["--generate", 20_000, "--seed", 3, "--parts", 3, "-o", new["many"]]
    words += ["--set", f"executor.transfer={transfer}".lower()]
    command("submit", folder, "--dag", *words)
    assert "done 7" in command("watch", folder).stdout  # 2 steps, collect, 3 parts, merge
    command("generate", serial, "-n", 20_000, "--seed", 3, "-o", new["one machine"])
    assert new["many"].read_bytes() == new["one machine"].read_bytes()


def test_a_large_sample_is_generated_by_jobs(pool, serial, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(serial, folder)
    words = ["--generate", 12_000, "--parts", 2, "-o", tmp_path / "many.h5"]
    said = command("submit", folder, *words).stdout
    assert said.startswith("2 jobs submitted")
    assert "12000 events from 2 parts" in command("watch", folder).stdout
    command("generate", serial, "-n", 12_000, "-o", tmp_path / "one.h5")
    assert (tmp_path / "many.h5").read_bytes() == (tmp_path / "one.h5").read_bytes()
    again = command("submit", folder, *words)
    assert "nothing to submit" in again.stdout


def test_only_missing_steps_are_submitted_and_late_materialisation_works(pool, serial, tmp_path):
    run = RunDirectory(copy_without(serial, tmp_path / "run", [3, 8, 15]))
    executor = EXECUTORS.build({"name": "htcondor", "max_materialize": 1, "steps_per_job": 1})
    reports = list(executor.run(run, run.missing_steps()))
    assert sorted(report["step"] for report in reports) == [3, 8, 15]
    command("collect", run.path)
    assert files_of(run.path, 20) == files_of(serial, 20)
    assert "max_materialize = 1" in (run.path / "condor/0001/step.sub").read_text()


WHEEL = "flowbdt-0-py3-none-any.whl"


def make_wheel(folder):
    """The package as a wheel, changed so that its reports tell it from the installed one."""
    root = Path(flowbdt.__file__).parent
    with zipfile.ZipFile(folder / WHEEL, "w") as wheel:
        for path in root.rglob("*.py"):
            text = path.read_text().replace('"pid": os.getpid()', '"pid": -1')
            wheel.writestr(str(path.relative_to(root.parent)), text)
    return folder / WHEEL


def make_environment(folder):
    """A packed environment whose Python is this one, and says so."""
    python = folder / "python"
    python.write_text(f'#!/bin/sh\necho unpacked >&2\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    with tarfile.open(folder / "my environment.tar.gz", "w:gz") as archive:
        archive.add(python, "bin/python")
    return folder / "my environment.tar.gz"


@pytest.mark.parametrize("transfer", [False, True])
@pytest.mark.parametrize("make", [make_wheel, make_environment])
def test_a_job_brings_its_environment(pool, serial, tmp_path, make, transfer):
    run = RunDirectory(copy_without(serial, tmp_path / "run", [4]))
    pack = make(tmp_path)
    executor = EXECUTORS.build({"name": "htcondor", "pack": str(pack), "transfer": transfer})
    (report,) = executor.run(run, [4])
    assert "error" not in report, report
    used = {
        "make_wheel": report["worker"]["pid"] == -1,
        "make_environment": "unpacked" in (run.path / "logs/0004.err").read_text(),
    }
    assert used[make.__name__]
    assert run.read(run_directory.model_name(4)) == RunDirectory(serial).read(
        run_directory.model_name(4)
    )


WRAPPER = """\
#!/bin/sh
# Step 5 fails twice, step 7 says who it is, step 9 takes much memory at first.
for n; do :; done
echo $n >> {state}/started
[ -z "$HOME" ] || echo HOME >> {state}/surprises
[ "$OMP_NUM_THREADS" = 1 ] || echo OMP >> {state}/surprises
case $n in
5) [ "$(grep -cx 5 {state}/started)" -gt 2 ] || exit 1 ;;
7) echo $$ > {state}/pid.part && mv {state}/pid.part {state}/pid ;;
9) {python} -c 'x = bytearray(900 << 20); import time; time.sleep(12)' || exit 1 ;;
esac
exec {python} "$@"
"""


def wrapper(folder):
    state = folder / "state"
    state.mkdir()
    path = folder / "python.sh"
    path.write_text(WRAPPER.format(state=state, python=sys.executable))
    path.chmod(0o755)
    return path, state


def eventually(condition, what):
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, f"waited too long for {what}"
        time.sleep(0.05)


def finished(folder):
    """When each finished step was finished, and by which process."""
    reports = (json.loads(path.read_text()) for path in folder.glob("steps/[!.]*.report.json"))
    return {report["step"]: report["worker"] for report in reports}


KILLER = """\
#!/bin/sh
# Run a program; one that does several steps is killed once the model of step 7 is there.
case "$*" in
*+*) ;;
*) exec PYTHON "$@" ;;
esac
PYTHON "$@" &
while kill -0 $! && [ ! -e steps/0007.ubj ]; do sleep 0.05; done
kill -9 $!
exit 1
"""


@pytest.mark.parametrize("transfer", [False, True])
def test_a_killed_job_of_several_steps_loses_none_that_is_done(pool, serial, tmp_path, transfer):
    python = tmp_path / "python"
    python.write_text(KILLER.replace("PYTHON", sys.executable))
    python.chmod(0o755)
    run = RunDirectory(copy_without(serial, tmp_path / "run", [3, 5, 7, 9]))
    spec = {"name": "htcondor", "python": str(python), "steps_per_job": 4, "max_retries": 1}
    executor = EXECUTORS.build({**spec, "transfer": transfer})
    reports = list(executor.run(run, run.missing_steps()))
    assert sorted(report["step"] for report in reports) == [3, 5, 7, 9]
    assert not [report for report in reports if "error" in report]
    records = [json.loads(path.read_text()) for path in run.path.glob("condor/*/submission.json")]
    jobs = sorted(job for record in records for job in record["jobs"])
    assert jobs in (["step-3"], ["step-3", "step-9"], ["step-3", "step-7", "step-9"])
    command("collect", run.path)
    assert files_of(run.path, 20) == files_of(serial, 20)


def test_nothing_is_lost_or_done_twice_whatever_happens(pool, table, tmp_path):
    """One job killed, one held for memory, one failing twice, and the submitter killed."""
    from flowbdt.training.executors.htcondor.submissions import Pool

    python, state = wrapper(tmp_path)
    folder = tmp_path / "run"
    command("fit", table, "-o", tmp_path / "serial", *settings(40))
    words = ["--executor", "htcondor", "--set", f"executor.python={python}"]
    words += ["--set", "executor.submit={job_max_vacate_time: 1}"]
    words += ["--set", "executor.steps_per_job=1"]
    start = flowbdt_command("fit", table, "-o", folder, *settings(40), *words)
    first = subprocess.Popen(start, stderr=subprocess.DEVNULL)
    eventually((state / "pid").exists, "step 7 to start")
    os.kill(int((state / "pid").read_text()), signal.SIGKILL)
    eventually(lambda: len(finished(folder)) >= 15, "15 finished steps")
    first.kill()
    first.wait()
    before = finished(folder)
    command("fit", "-o", folder, "--resume", *words)
    assert files_of(folder, 40) == files_of(tmp_path / "serial", 40)
    after = finished(folder)
    assert {step: after[step] for step in before} == before
    starts = [int(line) for line in (state / "started").read_text().split()]
    often = {step: starts.count(step) for step in range(40) if starts.count(step) != 1}
    assert {5, 7} <= set(often) <= {5, 7, 9}
    assert (often[5], often[7]) == (3, 2)
    assert len(list(folder.glob("condor/*"))) == 1  # the second call took over the first's jobs
    log = (folder / "condor/0001/events.log").read_text()
    if "FLOWBDT_TEST_POOL" in os.environ:  # others may have no policy for memory
        assert "Subcode 102" in log
        assert often[9] >= 2
    assert not (state / "surprises").exists()
    record = json.loads((folder / "condor/0001/submission.json").read_text())
    assert Pool.connect().queued(record["mark"]) == set()


def test_a_step_that_always_fails_is_named_and_the_others_are_kept(pool, serial, tmp_path):
    folder = copy_without(serial, tmp_path / "run", [2, 6])
    in_the_way = folder / run_directory.model_name(2) / "x"
    in_the_way.mkdir(parents=True)
    words = ["--executor", "htcondor", "--set", "executor.max_retries=1"]
    done = command("fit", "-o", folder, "--resume", *words, check=False)
    assert done.returncode == 1
    assert (
        "1 of 20 steps are missing: 2. Step 2 failed: exit status 1: step 2 failed" in done.stderr
    )
    assert "0002.ubj" in done.stderr
    assert str(folder / "logs/0002.err") in done.stderr
    assert (folder / run_directory.model_name(6)).exists()
    again = done.stderr.split("go on with: flowbdt ")[1].split()
    shutil.rmtree(in_the_way.parent)
    command(*again)
    assert files_of(folder, 20) == files_of(serial, 20)


def test_jobs_that_vanish_from_the_queue_are_submitted_again(pool, serial, tmp_path):
    """Removed by an administrator, or a queue that was lost with its machine."""
    run = RunDirectory(copy_without(serial, tmp_path / "run", [1, 2]))
    executor = EXECUTORS.build({"name": "htcondor", "submit": {"requirements": "False"}})
    waiting = executor.run(run, [1])
    with contextlib.closing(waiting):
        command("submit", run.path, "--set", "executor.submit={requirements: 'False'}")
    (record,) = run.path.glob("condor/*/submission.json")
    mark = json.loads(record.read_text())["mark"]
    refused = command("submit", run.path, check=False)
    assert refused.returncode == 1
    assert "has jobs in the queue already" in refused.stderr
    subprocess.run(["condor_rm", "-constraint", f'FlowbdtSubmission == "{mark}"'], check=True)
    done = command("watch", run.path, check=False)
    assert done.returncode == 1
    assert "removed from the queue" in done.stdout
    command("fit", "-o", run.path, "--resume", "--executor", "htcondor")
    assert files_of(run.path, 20) == files_of(serial, 20)


@pytest.mark.parametrize("transfer", [False, True])
def test_a_study_on_the_pool_is_that_of_one_machine(pool, table, tmp_path, transfer):
    pytest.importorskip("optuna", reason="tuning needs the extra 'tune'")
    study = ["--trials", 3, "--parallel", 2, "--objectives", "auc_gb", *settings(3)]
    words = ["--executor", "htcondor", "--set", f"executor.transfer={transfer}".lower()]
    command("tune", table, "-o", tmp_path / "pool", *study, *words)
    command("tune", table, "-o", tmp_path / "here", *study)
    found = [
        [(row["params"], row["scores"]) for row in json.loads(path.read_text())["trials"]]
        for path in (tmp_path / name / "trials.json" for name in ("pool", "here"))
    ]
    assert found[0] == found[1]
    assert len(found[0]) == 3
    outcomes = [files_of(tmp_path / name / "best", 3) for name in ("pool", "here")]
    assert outcomes[0] == outcomes[1]


KILLED_ONCE = """\
#!/bin/sh
# Run a program; the first of all is killed.
if mkdir FOLDER; then kill -9 $$; fi
exec PYTHON "$@"
"""


def test_a_response_chain_with_a_killed_job_is_that_of_one_machine(pool, tmp_path):
    ak = pytest.importorskip("awkward")
    from flowbdt.physics.response import ResponseChain

    rng, n = np.random.default_rng(0), 300
    number = rng.poisson(3, n)
    pt = ak.unflatten(rng.uniform(30, 70, number.sum()), number)
    index = ak.local_index(pt)[ak.unflatten(rng.random(number.sum()) < 0.8, number)]
    jets = {"Jet_pt": pt[index] * 1.1, "Jet_genJetIdx": index}
    events = {"nPU": rng.poisson(9, n), "GenJet_pt": pt, **jets, "MET_sumEt": rng.normal(size=n)}
    spec = {
        "collections": {"Jet": {"parent": "GenJet", "index": "Jet_genJetIdx", "fakes": False}},
        "event": {"MET": {"conditions": ["ht = sum(Jet_pt)"]}},
        "model": {"preset": "fast", "n_steps": 2, "booster": QUICK},
    }
    python = tmp_path / "python"
    text = KILLED_ONCE.replace("PYTHON", sys.executable)
    python.write_text(text.replace("FOLDER", str(tmp_path / "killed")))
    python.chmod(0o755)
    on_pool = {"name": "htcondor", "python": str(python)}
    for name, executor in (("here", "serial"), ("there", on_pool)):
        model = ResponseChain(spec, executor=executor, random_state=1)
        model.fit(events, folder=tmp_path / name)
    assert (tmp_path / "killed").exists()
    stages = {path.name for path in (tmp_path / "here/stages").iterdir()}
    assert stages == {"Jet.number", "Jet", "MET"}
    for stage in stages:
        folders = [tmp_path / name / "stages" / stage for name in ("here", "there")]
        first, second = (files_of(one, RunDirectory(one).n_steps()) for one in folders)
        assert first == second


def test_the_job_on_a_pool_runs_from_start_to_end(pool, table, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("jets.h5", "test.h5"):
        shutil.copy(table, name)
    _, section = documented.PAGE_OF_JOBS.read_text().split("## On an HTCondor pool")
    (block,) = documented.blocks_of(section)
    assert all(documented.run_line(line, pool=True) for line in block.lines())
    assert Path("pool_new.h5").exists()
    assert list(Path("pool").glob("**/report/report.html"))
