"""Ctrl-C, SIGTERM and forks: what was begun ends at once, whole, and with nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import QUICK

from flowbdt.tables.event_table import EventTable
from flowbdt.tables.formats import write_table
from flowbdt.trees.base import Batch
from flowbdt.trees.boosted_trees import BoostedTrees


@pytest.fixture(autouse=True)
def interruptible():
    """Ctrl-C counts, here and in children, also where the shell had it ignored (``pytest &``)."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


PARAMETERS = {**QUICK, "multi_strategy": "multi_output_tree"}


class Rows:
    """Four batches a pass; ``happens`` is called before batch number ``when`` of all passes."""

    n_rows, n_outputs = 400, 2

    def __init__(self, when=None, happens=None):
        self.when, self.happens, self.made = when, happens, 0

    def __iter__(self):
        for block in range(4):
            if self.made == self.when:
                self.happens()
            self.made += 1
            x = np.random.default_rng(block).normal(size=(100, 3)).astype("f4")
            yield Batch(x, np.sin(x[:, :2]), None)


def fitted(rows):
    return BoostedTrees(PARAMETERS).fit(rows, None, seed=1, n_threads=1).to_bytes()


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


def failing(error):
    def happens():
        raise error

    return happens


@pytest.fixture(params=["all passes", "first pass"])
def passes(request, monkeypatch):
    """Batches are made anew in every pass, or kept from the first."""
    if request.param == "all passes":
        monkeypatch.setattr("flowbdt.trees.grow_trees.kept_bytes", lambda *sizes: 0)
        return range(0, 16, 3)
    return range(4)


def test_ctrl_c_in_a_batch_ends_the_fit(passes):
    """It came in a callback from C and was dropped there; the fit went on with part of the rows."""
    for when in passes:
        with pytest.raises(KeyboardInterrupt):
            fitted(Rows(when, interrupt))


@pytest.mark.parametrize("error", [SystemExit(3), MemoryError("full"), OSError("gone")])
def test_whatever_a_batch_raises_is_raised(error, passes):
    for when in passes:
        with pytest.raises(type(error)) as caught:
            fitted(Rows(when, failing(error)))
        assert caught.value is error


def test_ctrl_c_comes_before_other_errors():
    def happens():
        interrupt()
        raise OSError("gone")

    with pytest.raises(KeyboardInterrupt):
        fitted(Rows(2, happens))


def test_a_handler_that_raises_nothing_changes_nothing(passes):
    arrived = []
    before = signal.signal(signal.SIGUSR1, lambda *_: arrived.append(1))
    try:
        for when in passes:
            rows = Rows(when, lambda: os.kill(os.getpid(), signal.SIGUSR1))
            assert fitted(rows) == fitted(Rows())
        assert len(arrived) == len(passes)
    finally:
        signal.signal(signal.SIGUSR1, before)


FORKED = """
import os, sys
os.environ["OMP_NUM_THREADS"] = "2"
import multiprocessing, numpy as np
from flowbdt import FlowBDT
x = np.random.default_rng(0).normal(size=(500, 2))
def again(_):
    settings = {"n_steps": 2, "booster": {"n_estimators": 3}, "preconditioner": "none"}
    model = FlowBDT(preset="fast", **settings, rejection=False, random_state=1).fit(x)
    return model.sample(5, random_state=1, compiled=False)
before = again(0)
with multiprocessing.get_context("fork").Pool(2) as pool:
    forked = pool.map_async(again, [0, 1]).get(timeout=60)
assert all((one == before).all() for one in forked)
"""


def test_a_forked_process_fits_and_samples_as_its_parent_does():
    """XGBoost's threads do not come along: it waited for them for ever."""
    subprocess.run([sys.executable, "-c", FORKED], check=True, timeout=120)


DROPPED = """
import contextlib, ctypes, os, signal, sys, time
import click
from flowbdt.cli import main as program

@click.command()
def waiting():
    \"\"\"Send a signal where Python drops exceptions, then go on.\"\"\"
    end = lambda: os.kill(os.getpid(), int(os.environ["NUMBER"]))
    if os.environ["WHERE"] == "callback":
        ctypes.CFUNCTYPE(None)(end)()
    else:
        with contextlib.suppress(BaseException):
            end()
    if "FAIL" in os.environ:
        raise RuntimeError("no compiled object yet")
    time.sleep(30)

program.flowbdt.add_command(waiting)
sys.exit(program.main(["waiting"]))
"""


@pytest.mark.parametrize("fails", [{}, {"FAIL": "1"}])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("where", ["callback", "cleared"])
def test_an_end_that_a_library_drops_is_an_end(number, status, fails, where):
    """Where it is lost, as in a callback from C, it is sent once more."""
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", DROPPED],
        env={**os.environ, "NUMBER": str(int(number)), "WHERE": where, **fails},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr.count("\n")) == (status, 1), done.stderr
    assert time.monotonic() - begin < 25


LONG = ["--set", "n_steps=2", "--set", "preconditioner=none", "--set", "rejection=false"]
SLOW = [*LONG, "--set", "booster.n_estimators=30000", "--set", "booster.early_stopping_rounds=0"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a table and a run."""
    folder = tmp_path_factory.mktemp("signals")
    x = np.random.default_rng(0).normal(size=(2_000, 3))
    write_table(folder / "x.h5", EventTable.of(x))
    command = ["fit", "x.h5", "-o", "run", *LONG, "--set", "booster.n_estimators=5"]
    subprocess.run([sys.executable, "-m", "flowbdt.cli", *command], cwd=folder, check=True)
    return folder


def processes(session: int) -> list[str]:
    """Return the programs of a session that run."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, own = (path / "stat").read_text().rsplit(") ", 1)[1].split()[:4]
            if int(own) == session and state != "Z":
                found.append((path / "cmdline").read_text())
        except OSError:
            pass
    return found


def ended(folder, words, ready, number, *, group=False):
    """Run a command in a session of its own until ``ready()``, then send it a signal."""
    temporary = folder / "tmp"
    temporary.mkdir(exist_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "flowbdt.cli", *words],
        cwd=folder,
        env={**os.environ, "TMPDIR": str(temporary), "OMP_NUM_THREADS": "2"},
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        until = time.monotonic() + 60
        while not ready(process.pid):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < until
            time.sleep(0.05)
        time.sleep(0.5)
        (os.killpg if group else os.kill)(process.pid, number)
        _, error = process.communicate(timeout=60)
        until = time.monotonic() + 10
        while processes(process.pid) and time.monotonic() < until:
            time.sleep(0.1)
        assert processes(process.pid) == []
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
    shared = [f for f in Path("/dev/shm").glob("*") if f"{process.pid}" in f.name.split("-")]
    assert [*temporary.iterdir(), *folder.rglob(".part-*"), *shared] == []
    return process.returncode, error


linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@linux
@pytest.mark.parametrize(
    ("number", "status", "message"),
    [
        (signal.SIGINT, 130, "flowbdt: interrupted; what was finished is kept\n"),
        (signal.SIGTERM, 143, "flowbdt: ended by SIGTERM; what was finished is kept\n"),
    ],
)
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_signal_ends_fit_with_all_its_processes(trained, tmp_path, number, status, message, jobs):
    executor = [] if jobs == 1 else ["--executor", "joblib", "--set", f"executor.n_jobs={jobs}"]
    run = tmp_path / "run"
    words = ["fit", str(trained / "x.h5"), "-o", str(run), *SLOW, *executor]

    def ready(pid):
        return (run / "plan.json").exists() and len(processes(pid)) >= jobs

    assert ended(tmp_path, words, ready, number, group=jobs > 1) == (status, message)


@linux
@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["generate", "run", "-n", "20_000_000", "-o", "new.h5"],
        ["generate", "run", "-n", "20_000_000", "-o", "new.csv", "--no-compile"],
        ["evaluate", "x.h5", "x.h5", "-o", "scores"],
        ["tune", "x.h5", "-o", "study", "--trials", "30", "--executor", "joblib"],
    ],
    ids=lambda words: words[0],
)
def test_sigterm_ends_long_commands(trained, words):
    begin = time.monotonic()
    code, error = ended(trained, words, lambda _: time.monotonic() > begin + 6, signal.SIGTERM)
    assert code == 143, error
    assert error.endswith("flowbdt: ended by SIGTERM; what was finished is kept\n")
    assert "Traceback" not in error
