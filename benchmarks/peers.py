"""Other tree-based generators beside this package: cost and quality on the same rows.

    python benchmarks/peers.py --rows 25000 --budget 600 [--data FOLDER] [--python PATH]
    python benchmarks/peers.py --rows 5000 --settings published [--cap 900]
    python benchmarks/peers.py --quick

The peers live in an environment of their own, ``benchmarks/.peers`` unless ``--python`` names
another interpreter. Each trains in a process with one thread and one job on the first ROWS jets
and generates as many events as there are to judge. Training is in CPU seconds of the process and
its children, memory is the peak above the imported process with the rows loaded. Relations
between columns are declared for our own models only: the peers have no way to.

*Budget*: two short fits with few times and trees tell the cost of one more noise repetition
(treeffuser: tree), then as many are taken as the budget allows; the other settings are in
``budget.py``. *Published*: each package's own defaults, estimated in the same way first; above
``--cap`` CPU seconds the estimate is reported instead of a fit (treeffuser's is an upper limit:
it may stop early). A process that exceeds the cap in training or generation is stopped and
reported as stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import common
import numpy as np
import quality
from budget import OURS, PEERS, Cost, Peer, choose, predict, put, small

HERE = Path(__file__).resolve().parent
DRIVER = HERE / "peers" / "drive.py"
DEFAULT_PYTHON = HERE / ".peers" / "bin" / "python"
WALL_PER_CPU = 10  # a process that waits instead of computing is stopped after cap times this
ERROR_LENGTH = 300

RATIOS = ("train_cpu_s", "peak_mib", "us_per_event", "separation_x100")
AUCS = ("auc_gb", "auc_mlp")

HOW_TO = """No interpreter with the peers at {path}.
They are no dependency of flowbdt; to measure them, make an environment for them:
    python3 -m venv benchmarks/.peers
    benchmarks/.peers/bin/pip install ForestDiffusion forest_diffusion_mo treeffuser
or name an interpreter that has them with --python PATH."""


@dataclass(frozen=True)
class Bench:
    """The rows, the sizes and the limits of one run."""

    place: Path
    rows: str
    n_events: int
    python: Path
    cap: float

    def drive(self, package: str, settings: dict[str, Any], n_events: int) -> dict[str, Any]:
        """Run one job in a process of its own; return its figures and ``status``."""
        with tempfile.TemporaryDirectory(dir=self.place) as folder:
            job: dict[str, Any] = {
                "package": package,
                "settings": settings,
                "rows": self.rows,
                "n_events": n_events,
                "cap": self.cap,
                "out": str(Path(folder) / "events.npy"),
                "figures": str(Path(folder) / "figures.json"),
            }
            (Path(folder) / "job.json").write_text(json.dumps(job))
            python = sys.executable if package == OURS else str(self.python)
            figures = self._process([python, str(DRIVER), "job.json"], folder)
            if figures["status"] == "done" and n_events:
                figures["events"] = np.load(job["out"])
            return figures

    def _process(self, command: list[str], folder: str) -> dict[str, Any]:
        environment = os.environ | dict.fromkeys(_THREADS, "1")
        before = _children_cpu()
        with open(Path(folder) / "log", "w+") as log:
            code: int | None = None
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = subprocess.call(
                    command,
                    cwd=folder,
                    env=environment,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    timeout=WALL_PER_CPU * self.cap,
                )
            log.seek(0)
            text = log.read()
        place = Path(folder) / "figures.json"
        figures = json.loads(place.read_text()) if place.exists() else {}
        figures["process_cpu_s"] = _children_cpu() - before
        figures["status"] = status(code, figures, text)
        return figures


_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "LOKY_MAX_CPU_COUNT")


def _children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def status(code: int | None, figures: Mapping[str, Any], log: str) -> str:
    """Return ``done``, or in words why there are no full figures; code None: no end in time."""
    phase = figures.get("phase", "start")
    if code == 0 and phase == "done":
        return "done"
    if code in (None, -signal.SIGXCPU):
        return f"stopped after {figures['process_cpu_s']:.0f} CPU s, in {phase}"
    last = (log.strip().splitlines() or [f"exit code {code}, no message"])[-1][:ERROR_LENGTH]
    if last.startswith(("ModuleNotFoundError", "ImportError")):
        return f"not installed: {last}"
    return f"failed in {phase}, exit code {code}: {last}"


def calibrate(
    bench: Bench, peer: Peer, settings: dict[str, Any], probes: tuple[int, int]
) -> Cost | str:
    """Return the cost as measured by two trial fits, or the status of one that did not end."""
    trial, scale = small(peer, settings)
    seconds = []
    for probe in probes:
        figures = bench.drive(peer.package, put(trial, peer.knob, probe), 0)
        if figures["status"] != "done":
            return f"trial fit: {figures['status']}"
        seconds.append(figures["train_cpu_s"])
    return Cost.of(probes, seconds, scale)


def run_peer(bench: Bench, peer: Peer, budget: float | None) -> dict[str, Any]:
    """Calibrate, choose settings (published ones if there is no budget), train and generate."""
    base, probes = (
        (peer.published, peer.far_probes) if budget is None else (peer.budget, peer.probes)
    )
    cost = calibrate(bench, peer, base, probes)
    if isinstance(cost, str):
        return {"status": cost, "settings": base}
    settings = base if budget is None else choose(peer, cost, budget)
    predicted = predict(peer, base, settings, cost)
    record = {"settings": settings, "estimated_train_cpu_s": predicted}
    if budget is None and predicted > bench.cap:
        reason = f"not run: estimated {predicted:.0f} CPU s, cap {bench.cap:.0f}"
        return record | {"status": reason}
    return record | bench.drive(peer.package, settings, bench.n_events)


def run_ours(bench: Bench, name: str) -> dict[str, Any]:
    """Train and generate with one of our models, at its own settings."""
    settings = {"name": name}
    return {"settings": settings} | bench.drive(OURS, settings, bench.n_events)


def judged(figures: dict[str, Any], real: Any, truth: Any, quick: bool) -> dict[str, Any]:
    """Return the figures with scores in place of the events; events not finite are a failure."""
    events = figures.pop("events", None)
    if events is None:
        return figures
    bad = float(np.mean(~np.isfinite(events).all(axis=1)))
    if bad:
        return figures | {"status": f"failed: {bad:.1%} of the generated events are not finite"}
    new = quality.EventTable.of(events, real.names)
    return figures | quality.judge(real, new, truth, quick)


def ratios(peer: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, float]:
    """Return peer / ours of all figures both have; of an AUC, the distances from 0.5."""
    a, b = comparable(peer), comparable(ours)
    return {key: a[key] / b[key] for key in a if b.get(key)}


def comparable(figures: Mapping[str, Any]) -> dict[str, float]:
    """Return those figures of which a ratio makes sense; AUCs as their distance from 0.5."""
    result = {key: figures[key] for key in RATIOS if key in figures}
    distances = {f"{key}_above_half": abs(figures[key] - 0.5) for key in AUCS if key in figures}
    return result | distances


def all_ratios(figures: Mapping[str, Any], ours: Sequence[str]) -> dict[str, Any]:
    """Return our model -> other -> ratios, for every other model."""
    others = [name for name in figures if name not in ours]
    return {
        name: {other: ratios(figures[other], figures[name]) for other in others} for name in ours
    }


def report(figures: Mapping[str, Any], factors: Mapping[str, Any]) -> str:
    """Return the tables: figures, settings, ratios."""
    shown = (*RATIOS[:3], "auc_gb", "auc_gb_error", "auc_mlp", "auc_mlp_error", RATIOS[3])
    rows = [
        {"model": name} | {k: f.get(k, "-") for k in shown} | {"status": f["status"]}
        for name, f in figures.items()
    ]
    first: Mapping[str, Any] = next((f for f in figures.values() if "floor_auc_gb" in f), {})
    floors = {k: first[f"floor_{k}"] for k in shown if f"floor_{k}" in first}
    lines = [common.table([*rows, {"model": "floor"} | floors]), ""]
    lines += [f"{name}: {json.dumps(f['settings'])}" for name, f in figures.items()]
    for name, others in factors.items():
        lines += ["", f"others / {name}:"]
        lines += [common.table([{"model": o} | r for o, r in others.items()])]
    return "\n".join(lines)


def interpreter(given: str | None) -> Path | None:
    """Return the peers' interpreter, or None after telling on stderr how to get one."""
    path = DEFAULT_PYTHON if given is None else Path(given).absolute()
    if path.exists():
        return path
    message = HOW_TO.format(path=path)
    if given is not None:
        sys.exit(message)
    print(message, file=sys.stderr)
    return None


def names_of(known: Iterable[str]) -> Callable[[str], list[str]]:
    """Return the reader of a comma-separated option that takes only known names."""

    def names(text: str) -> list[str]:
        chosen = [name for name in text.split(",") if name]
        for name in set(chosen) - set(known):
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return chosen

    return names


def arguments() -> argparse.Namespace:
    """Return the options, with the smaller defaults of ``--quick`` where nothing is given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, help="jets to train on (25,000; quick 1,000)")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--budget", type=float, help="CPU s of one training (600; quick 20)")
    mode.add_argument("--settings", choices=["published"], help="each package's own settings")
    parser.add_argument("--quick", action="store_true", help="small sizes, fewer classifiers")
    parser.add_argument("--events", type=int, help="to generate and judge (all; quick 2,000)")
    parser.add_argument("--cap", type=float, default=3600.0, help="CPU s per phase (%(default)g)")
    ours = [name for name in quality.MODELS if name != "reference"]
    parser.add_argument("--peers", type=names_of(PEERS), default=list(PEERS), help="(all)")
    parser.add_argument("--models", type=names_of(ours), default=ours, help="of our own (all)")
    parser.add_argument("--python", metavar="PATH", help="interpreter that has the peers")
    parser.add_argument("--data", metavar="FOLDER", help="folder with t_hlv12.h5")
    parser.add_argument("--keep", metavar="FOLDER", help="write figures here as they come")
    options = parser.parse_args()
    options.rows = options.rows or (1_000 if options.quick else 25_000)
    options.events = options.events or (2_000 if options.quick else None)
    if options.settings is None:
        options.budget = options.budget or (20.0 if options.quick else 600.0)
    return options


def measure(options: argparse.Namespace, python: Path | None, place: Path) -> dict[str, Any]:
    """Return the figures of all models asked for, in order."""
    truth, real = quality.load(options.data)
    n_events = options.events = min(options.events or real.n, real.n)
    real, sample = real.take(slice(0, n_events)), str(place / "rows.npy")
    np.save(sample, truth.take(slice(0, options.rows)).x)
    bench = Bench(place, sample, n_events, python or DEFAULT_PYTHON, options.cap)
    figures: dict[str, Any] = {}
    for name in options.peers:
        peer = PEERS[name]
        if python is None and peer.package != OURS:
            figures[name] = {"status": f"not installed: no {DEFAULT_PYTHON}", "settings": {}}
        else:
            found = run_peer(bench, peer, options.budget)
            figures[name] = judged(found, real, truth, options.quick)
        keep(options.keep, name, figures[name])
    for name in options.models:
        figures[name] = judged(run_ours(bench, name), real, truth, options.quick)
        keep(options.keep, name, figures[name])
    return figures


def keep(folder: str | None, name: str, figures: Mapping[str, Any]) -> None:
    """Write the figures of one model where ``--keep`` says."""
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / f"{name}.json").write_text(json.dumps(figures, indent=1) + "\n")


def main() -> None:
    """Print the tables and the figures."""
    options = arguments()
    asked = any(PEERS[name].package != OURS for name in options.peers)
    python = interpreter(options.python) if asked else None
    with tempfile.TemporaryDirectory() as place:
        figures = measure(options, python, Path(place))
    factors = all_ratios(figures, options.models)
    print(report(figures, factors))
    head = {k: getattr(options, k) for k in ("rows", "events", "budget", "settings", "cap")}
    common.finish(head | {"models": figures, "ratios": factors})


if __name__ == "__main__":
    main()
