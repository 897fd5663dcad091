"""Which way of unfolding comes nearest to the truth, and whose uncertainties can be believed?

    python -m experiments.unfolding [--smoke] [--data FOLDER] [--seeds 3] [-o FOLDER]

FOLDER of ``--data`` has ``omnifold/Pythia26_Zjet_pTZ-200GeV_0.npz`` and ``Nature_...``; without
it the events are made up. Every run is kept in ``runs.json`` of the output folder, and one that
is there already is not repeated.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from experiments import common
from experiments.unfolding import scores
from experiments.unfolding.classical import (
    PUBLISHED,
    Trees,
    bayes_weights,
    iterated_posteriors,
    omnifold,
)
from experiments.unfolding.figures import draw
from experiments.unfolding.flows import FLOWS, UnfoldingFlow
from experiments.unfolding.network import UnfoldingNetwork
from experiments.unfolding.samples import OBSERVABLES, Samples, samples
from experiments.unfolding.summary import summary, tables
from flowbdt import EventTable

TOLD, DIFFUSION = "noise, told", "diffusion, told"
N_DRAWS = 4
CALIBRATED, CALIBRATION_DRAWS = 4000, 60
ITERATIONS = {"omnifold": 5, "posteriors": 3}

Result = dict[str, dict[str, Any]]
"""method -> "closure", "cross", "coverage", ... -> scores."""


class Study:
    """The events and what all methods are judged by."""

    def __init__(self, events: Samples, smoke: bool, edges: list[np.ndarray]) -> None:
        self.events, self.smoke, self.edges = events, smoke, edges
        self.data: dict[str, EventTable] = {"closure": events.test, "cross": events.nature}

    def weighted(self, x: np.ndarray, weight: np.ndarray, where: str) -> dict[str, Any]:
        """Score weighted events of the simulation."""
        return scores.score(self.data[where].x, x, weight, None, self.edges)

    def drawn(
        self, draws: np.ndarray, where: str, seed: int, weight: np.ndarray | None = None
    ) -> dict[str, Any]:
        """Score draws (k, n, 6) made from the detector level of the data."""
        return scores.score_draws(self.data[where].x, draws, weight, self.edges, seed)

    def references(self) -> Result:
        """Return floors, and what is not unfolded at all: data as seen, and the simulation."""
        events = self.events
        all_truth = {
            "closure": np.vstack([events.train.x, events.test.x]),
            "cross": np.vstack([events.nature.x, events.spare.x]),
        }
        ones = np.ones(events.train.n)
        found: Result = {"floor": {}, "detector level": {}, "simulation": {}, "truth": {}}
        for where, data in self.data.items():
            assert data.cond is not None
            found["floor"][where] = scores.floors(all_truth[where], data.n)
            found["detector level"][where] = self.drawn(data.cond[None], where, 0)
            found["simulation"][where] = self.weighted(events.train.x, ones, where)
            found["truth"][where] = self.drawn(data.x[None], where, 0)
        return found


def by_weights(study: Study, seed: int) -> Result:
    """Iterative Bayesian unfolding and OmniFold, two ways."""
    gen, sim = study.events.train.x, study.events.train.cond
    ways = {
        "OmniFold, published stop": (PUBLISHED, True),
        "OmniFold, all trees": (Trees(), False),
    }
    found: Result = {"Bayes in bins": {}, **{name: {} for name in ways}}
    for where, data in study.data.items():
        weight = bayes_weights(gen, sim, data.cond)
        found["Bayes in bins"][where] = study.weighted(gen, weight, where)
        for name, (trees, from_start) in ways.items():
            n = 2 if study.smoke else ITERATIONS["omnifold"]
            weights = omnifold(
                gen, sim, data.cond, n, trees, from_start=from_start, seed=100 * seed
            )
            found[name][where] = study.weighted(gen, weights[-1], where)
    return found


def with_posterior(study: Study, seed: int) -> Result:
    """The flow from noise with the detector level as condition, and all that reuses its draws."""
    flow, name = UnfoldingFlow(FLOWS["noise, told"], study.events.train, seed, study.smoke), TOLD
    found, prior, draws = _posteriors(study, flow, name, seed)
    found[f"{name}, no rejection"] = {
        where: study.drawn(flow.draw(data, 1, 10 * seed + 3, rejection=False), where, seed)
        for where, data in study.data.items()
    }
    found["true prior"] = {"cross": _true_prior(study, draws["cross"], prior, seed)}
    found[name]["acceptance"] = flow.model.acceptance_
    return found


def by_network(study: Study, seed: int) -> Result:
    """The same with a diffusion network instead of trees."""
    network = UnfoldingNetwork(study.events.train, seed, study.smoke)
    return _posteriors(study, network, DIFFUSION, seed)[0]


def _posteriors(
    study: Study, flow: UnfoldingFlow | UnfoldingNetwork, name: str, seed: int
) -> tuple[Result, np.ndarray, dict[str, np.ndarray]]:
    """Score the draws of a flow, also iterated; return the prior's draws and the data's, too."""
    train, all_draws = study.events.train, {}
    prior = flow.draw(train, 2, 10 * seed + 1).reshape(2 * train.n, -1)
    found: Result = {name: {}, f"{name}, iterated": {}}
    for where, data in study.data.items():
        draws = all_draws[where] = flow.draw(data, N_DRAWS, 10 * seed + 2)
        n = 1 if study.smoke else ITERATIONS["posteriors"]
        weights = iterated_posteriors(draws, prior, n, Trees(), 100 * seed)
        found[name][where] = study.drawn(draws, where, seed)
        found[f"{name}, iterated"][where] = study.drawn(draws, where, seed, weights[-1])
    few = study.events.test.take(slice(0, 100 if study.smoke else CALIBRATED))
    many = flow.draw(few, 10 if study.smoke else CALIBRATION_DRAWS, 10 * seed + 4)
    found[name]["coverage"] = scores.calibration(few.x, many)
    found[name]["atoms"] = _atoms(few.x, many)
    return found, prior, all_draws


def _true_prior(study: Study, draws: np.ndarray, prior: np.ndarray, seed: int) -> dict[str, Any]:
    """Score posteriors whose prior is that of the data's own truth: no method can know it.

    What it leaves is due to the response: the same particle level is seen differently.
    """
    spare = study.events.spare.x
    ratio = Trees(150).ratio(spare, prior, np.ones(len(spare)), np.ones(len(prior)), seed)
    change = ratio(draws.reshape(-1, draws.shape[2])).reshape(draws.shape[:2])
    return study.drawn(draws, "cross", seed, change / change.mean(axis=0))


def _atoms(truth: np.ndarray, draws: np.ndarray) -> dict[str, float]:
    """Return shares of jets without groomed mass, and of those where only one column says so."""
    rho, z_g = OBSERVABLES.index("ln_rho"), OBSERVABLES.index("z_g")
    low = truth[:, rho].min()
    flat = draws.reshape(-1, draws.shape[2])
    mixed = (flat[:, rho] <= low) != (flat[:, z_g] == 0)
    whole = flat[:, OBSERVABLES.index("multiplicity")]
    return {
        "truth": float(np.mean(truth[:, z_g] == 0)),
        "drawn": float(np.mean(flat[:, z_g] == 0)),
        "one column only": float(mixed.mean()),
        "multiplicity not whole": float(np.mean(whole != np.rint(whole))),
    }


def one_answer(name: str) -> Callable[[Study, int], Result]:
    """Return the job of a flow that gives one answer per jet, or knows nothing of it."""

    def job(study: Study, seed: int) -> Result:
        flow = UnfoldingFlow(FLOWS[name], study.events.train, seed, study.smoke)
        found = {}
        for where, data in study.data.items():
            draws = flow.draw(data, 1, 10 * seed + 2)
            blind = name == "noise"  # its events belong to none of the data's
            ones = np.ones(data.n)
            found[where] = (
                study.weighted(draws[0], ones, where) if blind else study.drawn(draws, where, seed)
            )
        return {name: found}

    return job


JOBS: dict[str, Callable[[Study, int], Result]] = {
    "weights": by_weights,
    TOLD: with_posterior,
    **{name: one_answer(name) for name in FLOWS if name != TOLD},
    DIFFUSION: by_network,
}


def wanted(options: argparse.Namespace) -> dict[str, Callable[[Study, int], Result]]:
    """Return the jobs to do by name and seed, all of a seed before the next seed."""
    names = options.jobs.split(";") if options.jobs else list(JOBS)
    todo = {"references | 1": lambda study, seed: study.references()}
    for seed in range(1, 2 if options.smoke else options.seeds + 1):
        todo |= {f"{name} | {seed}": JOBS[name] for name in names}
    return todo


def run(options: argparse.Namespace, edges: list[np.ndarray]) -> dict[str, Result]:
    """Do what is not done yet; return all runs, by job and seed. A seed has its own split."""
    runs: dict[str, Result] = common.kept(options.output, {})
    for key, job in wanted(options).items():
        if key in runs:
            continue
        start, seed = time.process_time(), int(key.split(" | ")[1])
        events = samples(options.data, options.smoke, seed - 1)
        runs[key] = job(Study(events, options.smoke, edges), seed)
        print(key, f"{time.process_time() - start:.0f} CPU s", flush=True)
        common.keep(runs, options.output)
    return runs


def main() -> None:
    """Run, print the tables, draw."""
    parser = common.parser((__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="repetitions (%(default)s)")
    parser.add_argument("--jobs", help=f"some of {'; '.join(JOBS)}, separated by semicolons")
    options = parser.parse_args()
    first = samples(options.data, options.smoke)
    edges = scores.shown_edges([first.train.x, first.nature.x])
    runs = run(options, edges)
    figures = summary(runs)
    for title, lines in tables(figures).items():
        if lines:
            print(f"\n{title}\n\n{common.markdown(lines)}")
    if options.output is not None and not options.smoke:
        draw(runs, edges, options.output)
    common.finish(figures, options.output, "unfolding")


if __name__ == "__main__":
    main()
