"""How training scales: two cores measured, 1 to 10,000 slots simulated.

    python benchmarks/scaling.py [--quick] [-o FOLDER]

Measured: the throughput (steps per second) of ``joblib`` with two processes against that of two
serial fits started at the same time, each in a process of its own, which is the most that two cores
can give; with and without the time that interpreters take to start. And the memory of the two
workers against that of the table plus twice a serial fit, with the parent, which only waits, beside
it.

Simulated: the time from submission to the last result on 1 to 10,000 slots, by handing the measured
steps to slots in order, first free slot first. Overheads: seconds to submit one job (the scheduler
takes one after the other) and to start one (matching, interpreter, imports): measured where
FLOWBDT_POOL_EVENTS names the event log of a finished submission, else typical values.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import common
import numpy as np

from flowbdt.config import ModelConfig
from flowbdt.tables.event_table import EventTable
from flowbdt.training.executors import EXECUTORS
from flowbdt.training.executors.htcondor import event_log
from flowbdt.training.plan import Inputs, make_plan
from flowbdt.training.run_directory import RunDirectory

N_COLUMNS = 12
SLOTS = (1, 2, 4, 10, 20, 40, 100, 200, 400, 1000, 2000, 4000, 10_000)
RUNS = {"20 steps": 20, "200 steps": 200, "10,000 steps": 10_000}


RESOLUTION_S = 5.0
"""Event logs tell whole seconds; shorter spans say little."""


@dataclass(frozen=True)
class Overhead:
    """Seconds per job: to submit it, one after the other, and to start it on its slot."""

    submit_s: float = 0.01
    start_s: float = 5.0
    source: str = "typical values"


def makespan(seconds: Sequence[float], slots: int, overhead: Overhead) -> float:
    """Return the time until the last of the jobs has ended, handed out in order.

    Parameters
    ----------
    seconds : duration of each job
    slots : jobs that run at a time
    """
    free = [0.0] * min(slots, len(seconds))
    for number, duration in enumerate(seconds):
        submitted = (number + 1) * overhead.submit_s
        begin = max(heapq.heappop(free), submitted)
        heapq.heappush(free, begin + overhead.start_s + duration)
    return max(free)


def overhead_of(log: Path) -> Overhead:
    """Return the overheads of a real submission, from its event log and the reports of its run.

    To submit: from the first job's submission to the last one's. To start: from the end of a job to
    the beginning of the next one on its slot, plus what a job takes beyond training, which is to
    start an interpreter and import.
    """
    found, _ = event_log.read_log(log)
    submits = [_seconds(event) for event in found if event.code == event_log.SUBMITTED]
    begins: dict[tuple[int, int], event_log.Event] = {}
    free: dict[str, float] = {}
    gaps, durations = [], []
    for event in found:
        job = (event.cluster, event.process)
        if event.code == event_log.EXECUTING:
            begins[job] = event
            if event.machine in free:
                gaps.append(_seconds(event) - free.pop(event.machine))
        elif event.code == event_log.TERMINATED and job in begins:
            durations.append(_seconds(event) - _seconds(begins[job]))
            free[begins[job].machine] = _seconds(event)
    reports = log.parents[2].glob("steps/*.report.json")
    training = [json.loads(path.read_text())["seconds"] for path in reports]
    start = np.mean(gaps or [0.0]) + np.mean(durations) - np.mean(training)
    source, span = f"{len(submits)} jobs of a pool", max(submits) - min(submits)
    if span < RESOLUTION_S:
        return Overhead(start_s=float(start), source=f"{source}; submission too quick to measure")
    return Overhead(span / (len(submits) - 1), float(start), source)


def _seconds(event: event_log.Event) -> float:
    return time.mktime(time.strptime(event.when[:19], "%Y-%m-%d %H:%M:%S"))


def planned(folder: Path, n_rows: int, n_steps: int) -> RunDirectory:
    """Plan a run on a table of correlated columns."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n_rows, N_COLUMNS)) @ rng.normal(size=(N_COLUMNS, N_COLUMNS))
    config = ModelConfig(
        n_steps=n_steps,
        noise={"name": "repeats", "n_repeats": 4, "candidates": 0},
        preconditioner="none",
        booster={"n_estimators": 20, "early_stopping_rounds": 0},
    )
    run = RunDirectory(folder)
    make_plan(Inputs(EventTable.of(np.exp(x / 5)), config, 1), run)
    return run


def fit(folder: str, executor: str, n_jobs: int) -> None:
    """Train what is missing of a run; what the measured processes do."""
    spec: dict[str, Any] = {"name": executor}
    spec |= {"n_jobs": n_jobs} if executor == "joblib" else {"n_threads": 1}
    run = RunDirectory(folder)
    reports = list(EXECUTORS.build(spec).run(run, run.missing_steps()))
    failed = [report for report in reports if "error" in report]
    if failed:
        raise SystemExit(f"a step failed: {failed[0]}")


def started(folder: Path, executor: str, n_jobs: int = 1) -> subprocess.Popen[bytes]:
    """Start `fit` in a process of its own."""
    command = [sys.executable, __file__, "--fit", str(folder), executor, str(n_jobs)]
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})


@dataclass(frozen=True)
class Used:
    """Seconds and CPU seconds until processes ended, and at the peak the MiB of every process."""

    seconds: float
    cpu_s: float
    mib: dict[int, float]


def timed(*processes: subprocess.Popen[bytes]) -> Used:
    """Wait for processes and return what they, and what they started, used."""
    start, cpu, peak = time.perf_counter(), _children_cpu(), [dict[int, float]()]
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.05):
            now = {pid: m for process in processes for pid, m in tree_mib(process.pid).items()}
            peak[0] = max(peak[0], now, key=lambda found: sum(found.values()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    codes = [process.wait() for process in processes]
    seconds = time.perf_counter() - start
    stop.set()
    watcher.join()
    if any(codes):
        raise SystemExit("a measured fit failed; see above")
    return Used(seconds, _children_cpu() - cpu, peak[0])


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def tree_mib(pid: int) -> dict[int, float]:
    """Return the memory of a process and of what it started (Linux).

    Pages that several use count for each in part (proportional set size), so that sums are right.
    """
    found: dict[int, float] = {}
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        line = next(text for text in rollup.splitlines() if text.startswith("Pss:"))
        found[pid] = int(line.split()[1]) / 1024
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (OSError, StopIteration):
        return found
    return found | {p: mib for child in children for p, mib in tree_mib(int(child)).items()}


def measure(place: Path, n_rows: int, n_steps: int, rounds: int) -> dict[str, Any]:
    """Return throughput and memory on two cores, and the seconds of each step.

    Both ways take turns, and the best round of each counts: other load on the machine only slows.
    """
    serial, joblib = [], []
    rates: dict[str, list[float]] = {"serial": [], "joblib": []}
    for turn in range(rounds):
        pair = [planned(place / f"{name}{turn}", n_rows, n_steps) for name in "ab"]
        serial.append(timed(*(started(run.path, "serial") for run in pair)))
        run = planned(place / f"joblib{turn}", n_rows, n_steps)
        joblib.append(timed(started(run.path, "joblib", 2)))
        rates["serial"].append(throughput(pair, n_steps))
        rates["joblib"].append(throughput([run], n_steps))
    serial_s, joblib_s = (min(found.seconds for found in way) for way in (serial, joblib))
    serial_cpu, joblib_cpu = (min(found.cpu_s for found in way) for way in (serial, joblib))
    one = planned(place / "one", n_rows, n_steps)
    (one_mib,) = timed(started(one.path, "serial")).mib.values()
    data = sum(path.stat().st_size for path in one.file("table").iterdir()) / 2**20
    workers, rest = _split(joblib[-1].mib)
    reports = [one.report(step) for step in range(n_steps)]
    return {
        "two_serial_steps_per_s": max(rates["serial"]),
        "joblib_steps_per_s": max(rates["joblib"]),
        "ratio": max(rates["joblib"]) / max(rates["serial"]),
        "ratio_with_start": serial_s / (2 * joblib_s),
        "two_serial_cpu_s_per_step": serial_cpu / (2 * n_steps),
        "joblib_cpu_s_per_step": joblib_cpu / n_steps,
        "two_workers_mib": workers,
        "allowed_mib": data + 2 * one_mib,
        "waiting_parent_mib": rest,
        "data_mib": data,
        "one_step_mib": one_mib,
        "step_s": [report["seconds"] for report in reports if report],
    }


def throughput(runs: Sequence[RunDirectory], n_steps: int) -> float:
    """Return the steps per second that two processes trained, from the first to the last report.

    Of the first two reports, one by each process, only the end is known.
    """
    reports = [run.report(step) for run in runs for step in range(n_steps)]
    times = sorted(report["worker"]["finished"] for report in reports if report)
    return (len(times) - 2) / (times[-1] - times[0])


def _split(peaks: dict[int, float]) -> tuple[float, float]:
    """Return the memory of the two largest processes and of all others: parent and trackers."""
    largest = sorted(peaks.values(), reverse=True)
    return sum(largest[:2]), sum(largest[2:])


def simulate(step_s: Sequence[float], overhead: Overhead) -> dict[str, list[float]]:
    """Return the makespan for every number of slots, by run; steps repeat the measured ones."""
    return {
        name: [makespan(np.resize(step_s, n).tolist(), slots, overhead) for slots in SLOTS]
        for name, n in RUNS.items()
    }


def draw(spans: dict[str, list[float]], overhead: Overhead, path: Path) -> None:
    """Plot makespan against slots, with the ideal of no overhead."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    for name, seconds in spans.items():
        (line,) = axes.loglog(SLOTS, seconds, marker="o", markersize=3, label=name)
        axes.loglog(SLOTS, [seconds[0] / n for n in SLOTS], ":", color=line.get_color())
    axes.set_ylim(bottom=1)
    axes.set_xlabel("slots")
    axes.set_ylabel("from submission to the last step (s)")
    axes.set_title(
        f"simulated; per job {overhead.submit_s:.3g} s to submit, {overhead.start_s:.3g} s to"
        " start;\ndotted: perfect scaling",
        fontsize=9,
    )
    axes.legend()
    figure.savefig(path, dpi=150)


def main() -> None:
    """Print measured and simulated figures; write the plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small table, fewer steps")
    parser.add_argument("-o", "--output", type=Path, default=Path(), help="folder of the plot")
    parser.add_argument("--fit", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.fit:
        fit(options.fit[0], options.fit[1], int(options.fit[2]))
        return
    size = (3_000, 6, 1) if options.quick else (10_000, 12, 2)
    log = os.environ.get("FLOWBDT_POOL_EVENTS")
    overhead = overhead_of(Path(log)) if log else Overhead()
    with tempfile.TemporaryDirectory() as place:
        figures = measure(Path(place), *size)
    spans = simulate(figures["step_s"], overhead)
    print(f"one machine, two processes, {size[0]} events x {N_COLUMNS} columns, {size[1]} steps")
    print(common.table([{"figure": k, "": v} for k, v in figures.items() if k != "step_s"]))
    print(f"\nsimulated seconds to the last step; overheads: {overhead}")
    rows = [{"slots": n, **{name: s[i] for name, s in spans.items()}} for i, n in enumerate(SLOTS)]
    print(common.table(rows))
    draw(spans, overhead, options.output / "scaling.png")
    common.finish({**figures, "slots": SLOTS, "makespan_s": spans, "overhead": vars(overhead)})


if __name__ == "__main__":
    main()
