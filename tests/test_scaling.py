"""The simulation of many slots: closed forms, and overheads from a real log."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LOG = ROOT / "tests" / "assets" / "condor" / "events.log"


@pytest.fixture
def scaling(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("scaling")


@pytest.mark.parametrize(("slots", "expected"), [(1, 40.0), (2, 20.0), (3, 16.0), (10, 4.0)])
def test_equal_jobs_without_overhead_take_as_many_rounds_as_they_need(scaling, slots, expected):
    assert scaling.makespan([4.0] * 10, slots, scaling.Overhead(0.0, 0.0)) == expected


def test_starting_costs_once_per_job_and_submission_one_after_the_other(scaling):
    # each of 3 jobs on one slot: 2 s to start, 4 s of work; the first is submitted after 1 s
    assert scaling.makespan([4.0] * 3, 1, scaling.Overhead(1.0, 2.0)) == 1.0 + 3 * 6.0
    # with a slot for each, the last one is submitted after 3 s
    assert scaling.makespan([4.0] * 3, 5, scaling.Overhead(1.0, 2.0)) == 3.0 + 6.0


def test_slots_are_matched_in_cycles_and_killed_jobs_begin_again(scaling):
    pool = scaling.Overhead(0.0, 1.0, cycle_s=60.0, mib_per_s=10.0)
    # both slots begin at 60 s, start in 1 s and read 2 x 5 MiB in 1 s; then one after the other
    assert scaling.makespan([10.0] * 4, 2, pool, read_mib=5.0) == 60.0 + 2 * 12.0
    often = scaling.Overhead(0.0, 1.0, killed=2)
    assert scaling.makespan([10.0] * 2, 1, often) == 11.0 + 6.0 + 11.0


@pytest.mark.parametrize(("preset", "rows", "pays"), [("fast", 10_000, 0), ("balanced", 10**6, 2)])
def test_a_pool_pays_for_large_runs_only(scaling, preset, rows, pays):
    found = scaling.whole_run(preset, rows, 12, 8, scaling.on_pool(scaling.Overhead()))
    assert found["pays_beside_cores"] >= pays
    assert (found["jobs"] == 1) == (preset == "fast")
    assert pays or found["pays_beside_cores"] == 0
    assert found["best_pool_s"] >= found["serial_s"] + found["step_s"]


def test_more_slots_are_never_slower(scaling):
    seconds = [3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0] * 20
    spans = [scaling.makespan(seconds, slots, scaling.Overhead()) for slots in scaling.SLOTS]
    assert spans == sorted(spans, reverse=True)
    assert spans[-1] >= max(seconds)


def test_overheads_are_read_from_a_real_log(scaling, tmp_path):
    log = tmp_path / "condor" / "0001" / "events.log"
    log.parent.mkdir(parents=True)
    shutil.copy(LOG, log)
    (tmp_path / "steps").mkdir()
    for step in range(5):
        report = tmp_path / "steps" / f"{step:04d}.report.json"
        report.write_text(json.dumps({"seconds": 0.25}))
    overhead = scaling.overhead_of(log)
    assert overhead.submit_s == scaling.Overhead().submit_s  # all within the same second
    # five jobs ended; one of them slept for 12 s in its last attempt, the others for none
    assert 0.0 < overhead.start_s < 12.0
    assert overhead.source == "7 jobs of a pool; submission too quick to measure"


def test_memory_of_a_process_counts_its_children(scaling):
    import os
    import subprocess
    import sys

    if not Path("/proc/self/smaps_rollup").exists():
        pytest.skip("needs Linux")
    command = [sys.executable, "-c", "input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as child:
        found = scaling.tree_mib(os.getpid())
        assert child.pid in found
        child.communicate(b"\n")
    assert found[os.getpid()] > 1.0
