"""How training scales: two cores measured, whole runs on 1 to 1,000 slots simulated.

    python benchmarks/scaling.py [--quick] [-o FOLDER]

Measured: the throughput (steps per second) of ``joblib`` with two processes against that of two
serial fits started at the same time, each in a process of its own, which is the most that two cores
can give; with and without the time that interpreters take to start. And the memory of the two
workers against that of the table plus twice a serial fit, with the parent, which only waits, beside
it.

Simulated: whole runs of the presets, from the table to the closed run, with the costs that
`flowbdt fit --dry-run` expects: the closed form and the rejection on the submit machine, the steps
as jobs of at least 15 s, which are handed to slots in order, first free slot first. Overheads:
seconds to submit one job (the scheduler takes one after the other), to wait for the cycle in which
a pool matches jobs with slots (which a slot does not leave while there are jobs), to start a job
(interpreter, imports), to read the run's files while other jobs do, and jobs that are killed in the
middle and begin again. To start and to submit: measured where FLOWBDT_POOL_EVENTS names the event
log of a finished submission; else, and the others, typical values.
"""

from __future__ import annotations

import argparse
import dataclasses
import heapq
import json
import math
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
from flowbdt.generation.fit_cost import fit_parts
from flowbdt.tables.event_table import EventTable
from flowbdt.training.executors import EXECUTORS
from flowbdt.training.executors.htcondor import event_log
from flowbdt.training.numbered_jobs import StepJobs
from flowbdt.training.plan import Inputs, make_plan
from flowbdt.training.run_directory import RunDirectory

N_COLUMNS = 12
SLOTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 1000)
RUNS = [
    *((preset, n, 12, 8) for preset in ("fast", "balanced") for n in (10**4, 10**5, 10**6)),
    ("balanced", 10_000, 60, 8),
    ("balanced", 100_000, 60, 8),
    ("balanced", 100_000, 60, 32),
    ("fast", 5_000, 368, 8),
]
"""Preset, rows, columns and steps."""

CORES = (1, 2, 4, 8)
"""Of one machine, with which the pool is compared."""

RESOLUTION_S = 5.0
"""Event logs tell whole seconds; shorter spans say little."""


@dataclass(frozen=True)
class Overhead:
    """Seconds per job: to submit it, one after the other, and to start it on its slot.

    ``cycle_s`` between two matchings of jobs with slots that are new to the run; ``killed``: one in
    so many jobs is killed half way; ``mib_per_s``: what the file system gives to all jobs together.
    """

    submit_s: float = 0.01
    start_s: float = 5.0
    source: str = "typical values"
    cycle_s: float = 0.0
    killed: int = 0
    mib_per_s: float = 0.0


def on_pool(overhead: Overhead) -> Overhead:
    """Return overheads with HTCondor's default cycle, lost machines, and one file server."""
    return dataclasses.replace(overhead, cycle_s=60.0, killed=50, mib_per_s=100.0)


def makespan(
    seconds: Sequence[float], slots: int, overhead: Overhead, read_mib: float = 0.0
) -> float:
    """Return the time until the last of the jobs has ended, handed out in order.

    Parameters
    ----------
    seconds : duration of each job
    slots : jobs that run at a time
    read_mib : what a job reads before it begins
    """
    slots = min(slots, len(seconds))
    free = [(0.0, False)] * slots  # when, and whether the slot is the run's already
    reads = read_mib * slots / overhead.mib_per_s if overhead.mib_per_s else 0.0
    start = overhead.start_s + reads
    for number, duration in enumerate(seconds):
        submitted = (number + 1) * overhead.submit_s
        moment, claimed = heapq.heappop(free)
        begin = max(moment, submitted)
        if not claimed and overhead.cycle_s:
            begin = overhead.cycle_s * (math.floor(begin / overhead.cycle_s) + 1)
        if overhead.killed and number % overhead.killed == overhead.killed // 2:
            begin += start + duration / 2
        heapq.heappush(free, (begin + start + duration, True))
    return max(moment for moment, _ in free)


class Steps(StepJobs):
    """Steps that take so many seconds as the run says, which is only a number here."""

    def seconds(self, run: Any) -> float:
        return float(run)


def whole_run(
    preset: str, n_rows: int, n_columns: int, n_steps: int, overhead: Overhead
) -> dict[str, Any]:
    """Return the seconds of a whole run: on cores of one machine, and on slots of a pool."""
    settled = ModelConfig(preset=preset, n_steps=n_steps).resolved(n_rows, n_columns)
    n_valid = n_rows // 10
    plan = {
        "fingerprint": {"settings": settled.digestible(), "columns": {"conditions": []}},
        **{"n_train": n_rows - n_valid, "n_valid": n_valid, "n_latent": n_columns},
        "rejection": settled.rejection,
    }
    parts = {part.name: part.seconds for part in fit_parts(plan, n_steps)}
    step_s, serial_s = parts["steps"] / n_steps, sum(parts.values()) - parts["steps"]
    batches: Any = Steps().batches(step_s, range(n_steps), None)  # type: ignore[arg-type]
    jobs = [len(batch) * step_s for batch in batches]
    read_mib = 4 * n_rows * n_columns / 2**20  # latent events, float32
    pool = [serial_s + makespan(jobs, slots, overhead, read_mib) for slots in SLOTS]
    # threads within the closed form and the rejection gain little on tables of this size
    here = [serial_s + makespan([step_s] * n_steps, n, Overhead(0.0, 0.0)) for n in CORES]
    pays = [n for n, seconds in zip(CORES, here, strict=True) if min(pool) < seconds]
    return {
        "run": f"{preset}, {n_rows:,} x {n_columns}, {n_steps} steps",
        "serial_s": serial_s,
        "step_s": step_s,
        "jobs": len(jobs),
        **{f"{n} cores": seconds for n, seconds in zip(CORES, here, strict=True)},
        "pool": pool,
        "best_pool_s": min(pool),
        "pays_beside_cores": max(pays, default=0),
    }


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
    axes.set_ylabel("from the table to the closed run (s)")
    axes.set_title(
        f"simulated; {overhead.start_s:.3g} s to start a job, matched every"
        f" {overhead.cycle_s:.3g} s; dotted: perfect scaling",
        fontsize=9,
    )
    axes.legend(fontsize=7)
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
    overhead = on_pool(overhead)
    runs = [whole_run(*run, overhead) for run in RUNS]
    print(f"one machine, two processes, {size[0]} events x {N_COLUMNS} columns, {size[1]} steps")
    print(common.table([{"figure": k, "": v} for k, v in figures.items() if k != "step_s"]))
    print(f"\nsimulated seconds of whole runs; overheads: {overhead}")
    print(common.table([{k: v for k, v in run.items() if k != "pool"} for run in runs]))
    draw({run["run"]: run["pool"] for run in runs}, overhead, options.output / "scaling.png")
    common.finish({**figures, "slots": SLOTS, "runs": runs, "overhead": vars(overhead)})


if __name__ == "__main__":
    main()
