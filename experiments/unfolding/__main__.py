"""Which way of unfolding comes nearest to the truth?

    python -m experiments.unfolding [--smoke] [--data FOLDER] [--seeds 3] [-o FOLDER]
        [--methods omnifold,bayes] [--peer PYTHON]

FOLDER of ``--data`` has ``omnifold/Pythia26_Zjet_pTZ-200GeV_0.npz`` and ``Nature_...``; without
it the events are made up. PYTHON is an interpreter that has the package ``omnifold``. Every run is
kept in ``runs.json`` of the output folder, and one that is there already is not repeated.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from experiments import common
from experiments.unfolding.figures import draw
from experiments.unfolding.samples import CASES, CLOSURE, NATURE, Case, case, sources
from flowbdt.evaluation.metrics import separation_of_shares
from flowbdt.evaluation.metrics.coverage import coverage
from flowbdt.physics.jets.omnifold_files import SIX
from flowbdt.physics.unfolding import Unfolded, unfold
from flowbdt.physics.unfolding.bayes import bayes_spectrum
from flowbdt.physics.unfolding.unfold import prepare

SMOKE: dict[str, Any] = {
    "preset": "fast",
    "n_steps": 4,
    "booster": {"n_estimators": 3, "max_depth": 2},
    "preconditioner": "gaussian",
}
LEVELS = (0.5, 0.68, 0.95)
BAYES_ITERATIONS = 5

Entry = dict[str, Any]
"""``shares`` of every observable in the bins of its truth, ``cpu_s`` and what else is known."""
Runs = dict[str, Entry]
"""By case, method and seed, joined by " | "."""


def references(given: Case, seed: int, options: argparse.Namespace) -> dict[str, Entry]:
    """Return the truth and what is not unfolded at all: data as seen, and the simulation."""
    inputs = given.inputs
    samples = {
        "truth": given.truth,
        "not unfolded": inputs.data.x,
        "the simulation's truth": inputs.truth.x[inputs.pass_truth],
    }
    found: dict[str, Entry] = {name: {"shares": given.shares(x)} for name, x in samples.items()}
    found["truth"] |= {"edges": given.edges, "floor": given.floor}
    return found


def by_tool(method: str) -> Callable[[Case, int, argparse.Namespace], dict[str, Entry]]:
    """Return the job of a method of `flowbdt.physics.unfolding`, with its defaults."""

    def job(given: Case, seed: int, options: argparse.Namespace) -> dict[str, Entry]:
        flow = SMOKE if options.smoke else {}
        result = unfold(given.inputs, method, flow=flow, random_state=seed)
        found = _scored(given, result.table.x, result.table.weight)
        found |= {key: result.record[key] for key in ("iterations", "trees")}
        if method != "posterior":
            return {method: found}
        return {method: found, "posterior, prior kept": _prior_kept(given, result)}

    return job


def _prior_kept(given: Case, result: Unfolded) -> Entry:
    """Return the same draws without a change of the prior, and how often they cover the truth."""
    inputs = given.inputs
    method = prepare(inputs, result.settings, 1, result.state)
    found = _scored(given, result.table.x, method.weigh(inputs, 0).rows)
    if len(given.truth) == inputs.data.n:  # no event is lost or fake: the truth of each is known
        draws = result.table.x.reshape(-1, inputs.data.n, len(SIX))
        found["coverage"] = {
            f"{level:g}": [
                coverage(given.truth[:, i], draws[:, :, i].T, level=level).value
                for i in range(len(SIX))
            ]
            for level in LEVELS
        }
    return found


def _scored(given: Case, x: np.ndarray, weight: np.ndarray | None) -> Entry:
    total = len(x) if weight is None else weight.sum()
    return {"shares": given.shares(x, weight), "events": total / len(given.truth)}


def bayes(given: Case, seed: int, options: argparse.Namespace) -> dict[str, Entry]:
    """Unfold each observable by itself in the bins of its truth."""
    found = []
    for name, edges in zip(SIX, given.edges, strict=True):
        seen = given.inputs.reco.names[SIX.index(name)]
        wide = np.concatenate([[edges[1] - 1e3], edges[1:-1], [edges[-2] + 1e3]])
        spectrum = bayes_spectrum(given.inputs, name, wide, seen, wide, BAYES_ITERATIONS)
        found.append(spectrum / spectrum.sum())
    return {"Bayes in bins": {"shares": found}}


def neural(given: Case, seed: int, options: argparse.Namespace) -> dict[str, Entry]:
    """Unfold by the package ``omnifold`` in an interpreter of its own."""
    inputs = given.inputs
    with tempfile.TemporaryDirectory() as folder:
        events, weights = Path(folder) / "events.npz", Path(folder) / "weights.npz"
        np.savez(
            events,
            truth=inputs.truth.x,
            reco=inputs.reco.x,
            pass_truth=inputs.pass_truth,
            pass_reco=inputs.pass_reco,
            data=inputs.data.x,
        )
        driver = str(Path(__file__).with_name("neural_omnifold.py"))
        command = [options.peer, driver, str(events), str(weights), str(seed), str(options.epochs)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        with np.load(weights) as stored:
            weight, seconds = stored["weight"], float(stored["cpu_s"])
    passes = inputs.pass_truth
    shares = given.shares(inputs.truth.x[passes], weight[passes])
    return {"networks": {"shares": shares, "cpu_s": seconds}}


JOBS: dict[str, Callable[[Case, int, argparse.Namespace], dict[str, Entry]]] = {
    "references": references,
    "bayes": bayes,
    **{name: by_tool(name) for name in ("omnifold", "posterior", "transport")},
    "networks": neural,
}


def run(options: argparse.Namespace) -> Runs:
    """Do what is not done yet; return all runs. A seed has its own split of the events."""
    runs: Runs = common.kept(options.output, {})
    n_simulated, n_data = (200, 200) if options.smoke else (options.simulated, options.events)
    for seed in range(1, 2 if options.smoke else options.seeds + 1):
        tables = None
        for name in CASES[1:] if options.smoke else options.cases.split(";"):
            for method in ["references", *options.methods.split(",")]:
                key = f"{name} | {method} | {seed}"
                if key in runs or (method == "networks" and options.peer is None):
                    continue
                tables = tables or sources(options.data, options.smoke, seed)
                given = case(name, tables, n_simulated, n_data, seed)
                start = time.process_time()
                found = JOBS[method](given, seed, options)
                seconds = time.process_time() - start
                runs[key] = {k: {"cpu_s": seconds} | entry for k, entry in found.items()}
                print(key, f"{seconds:.0f} CPU s", flush=True)
                common.keep(_plain(runs), options.output)
    return _plain(runs)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def summary(runs: Runs) -> dict[str, dict[str, Entry]]:
    """Return case -> method -> separations in floors and CPU seconds, over the seeds."""
    values: dict[str, dict[str, list[Entry]]] = {}
    for key, found in runs.items():
        name, _, seed = key.split(" | ")
        truth = runs[f"{name} | references | {seed}"]["truth"]
        for method, entry in found.items():
            pairs = zip(truth["shares"], entry["shares"], strict=True)
            own = [float(separation_of_shares(*map(np.array, pair))) for pair in pairs]
            own = truth["floor"] if method == "truth" else own
            scores = {"separation": own, "floors": np.divide(own, truth["floor"]).tolist()}
            values.setdefault(name, {}).setdefault(method, []).append(entry | scores)
    return {
        name: {method: _over_seeds(found) for method, found in methods.items()}
        for name, methods in values.items()
    }


def _over_seeds(found: list[Entry]) -> Entry:
    entry: Entry = {"seeds": len(found)}
    for key in ("separation", "floors", "cpu_s"):
        own = np.array([one[key] for one in found])
        spread = own.std(axis=0, ddof=1) / np.sqrt(len(own)) if len(own) > 1 else 0.0 * own[0]
        entry |= {key: own.mean(axis=0).tolist(), f"{key}_error": np.asarray(spread).tolist()}
    if "coverage" in found[0]:
        levels = found[0]["coverage"]
        entry["coverage"] = {
            level: np.mean([one["coverage"][level] for one in found], axis=0).tolist()
            for level in levels
        }
    return entry | {key: [one.get(key) for one in found] for key in ("iterations", "events")}


def tables(figures: dict[str, dict[str, Entry]]) -> dict[str, list[dict[str, str]]]:
    """Return title -> lines of a table."""
    found = {}
    for name, methods in figures.items():
        lines = [_line("floor", methods["truth"], "separation")]
        lines += [_line(m, entry, "floors") for m, entry in methods.items() if m != "truth"]
        found[f"{name}: separation in floors, the floor x100"] = lines
    kept = figures.get(CLOSURE, {}).get("posterior, prior kept", {})
    covered = [
        {"interval": level, **{n: f"{v:.3f}" for n, v in zip(SIX, values, strict=True)}}
        for level, values in kept.get("coverage", {}).items()
    ]
    return found | ({"coverage of single events": covered} if covered else {})


def _line(method: str, entry: Entry, key: str) -> dict[str, str]:
    cells = {"method": method}
    for name, value, error in zip(SIX, entry[key], entry[f"{key}_error"], strict=True):
        cells[name] = f"{value:.3g} ± {error:.2g}" if entry["seeds"] > 1 else f"{value:.3g}"
    return cells | {"CPU s": "" if key == "separation" else f"{entry['cpu_s']:.0f}"}


def main() -> None:
    """Run, print the tables, draw."""
    parser = common.parser((__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="repetitions (%(default)s)")
    parser.add_argument("--events", type=int, default=10_000, help="of the data (%(default)s)")
    parser.add_argument("--simulated", type=int, default=20_000, help="events (%(default)s)")
    parser.add_argument("--cases", default=";".join(CASES), help="separated by ; (%(default)s)")
    parser.add_argument("--methods", default=",".join(list(JOBS)[1:]), help="%(default)s")
    parser.add_argument("--peer", metavar="PYTHON", help="that has the package omnifold")
    parser.add_argument("--epochs", type=int, default=50, help="of the package (%(default)s)")
    options = parser.parse_args()
    runs = run(options)
    figures = summary(runs)
    for title, lines in tables(figures).items():
        print(f"\n{title}\n\n{common.markdown(lines)}")
    if options.output is not None and not options.smoke:
        draw(runs, f"{NATURE} | {{}} | 1", options.output / "unfolding.png")
    common.finish(figures, options.output, "unfolding")


if __name__ == "__main__":
    main()
