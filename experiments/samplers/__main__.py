"""Which sampler gives the best events for a number of evaluations of the field?

    python -m experiments.samplers [--smoke] [--data FOLDER] [--parts mixture,churn] [-o FOLDER]

Quality against the number of function evaluations, all samplers side by side. Parts: ``grids``,
samplers times schedules, by the distance from the exact end point; ``mixture``, a field whose
answer is known (a mixture of Gaussians fitted to the jets, its velocity in closed form); ``churn``,
a scan of the noise that EDM adds; ``trees``, boosted trees. FOLDER has ``jetnet/t_hlv12.h5``;
without it the jets inside the package are used. Figures need matplotlib.
"""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np

from experiments import common
from experiments.samplers import figure, settings, tables
from flowbdt import EventTable, FlowBDT, TableTransform, evaluate, integrate
from flowbdt.flow.closed_form import PRECONDITIONERS
from flowbdt.flow.fields import ClosedFormField
from flowbdt.flow.parametrisations import FlowMatching
from flowbdt.flow.paths import Linear
from flowbdt.flow.schedule_search import optimise_grid
from flowbdt.flow.schedules import SCHEDULES
from flowbdt.flow.solvers import SOLVERS
from flowbdt.physics import HLV_RELATIONS

LINE = FlowMatching()
BUDGETS = {"mixture": (2, 4, 8, 16, 32, 64, 100, 200), "trees": (4, 8, 16, 32)}
SMOKE_SAMPLERS = ("Euler = DDIM", "Adams-Bashforth 2", "UniPC-2", "DDPM", "Restart (Heun)")
FINE_STEPS = 400
"""Steps of fourth order that give the known answer."""


def judge(real: Any, new: Any, other: Any, seed: int, smoke: bool) -> dict[str, list[float]]:
    """Return score -> [value, error, floor, error of the floor].

    AUC of boosted trees, separation power x100 and Wasserstein distance in units of the column's
    width, both means over the columns.
    """
    names = ["separation", "wasserstein"] if smoke else ["auc_gb", "separation", "wasserstein"]
    verdict = evaluate(real, new, training=other, quick=True, seed=seed, metrics=names)
    whole = [r for r in verdict.results if r.column is None]
    return {r.name: [r.value, r.error, r.floor, r.floor_error] for r in whole}


class Known:
    """A mixture fitted to the jets, as a field whose answer is known."""

    def __init__(
        self, train: EventTable, n_events: int, smoke: bool, n_components: int = 5
    ) -> None:
        z = TableTransform("auto", HLV_RELATIONS).fit(train).forward(train).astype(np.float32)
        kind = {"name": "mixture", "n_components": n_components} if smoke else "mixture"
        self.field = ClosedFormField(PRECONDITIONERS.build(kind).fit(z, seed=1), Linear())
        self.smoke, rng = smoke, np.random.default_rng(11)
        self.x0 = rng.normal(size=(n_events, z.shape[1]))
        # the same noise, other noise to judge by, and more for the floor
        self.end, self.real, self.other = (
            self.exact(x) for x in (self.x0, *rng.normal(size=(2, *self.x0.shape)))
        )

    def exact(self, x0: np.ndarray) -> np.ndarray:
        """Return where the flow takes x0, by many small steps."""
        grid = SCHEDULES.build({"name": "warped"})(100 if self.smoke else FINE_STEPS)
        return np.asarray(integrate(SOLVERS.build("rk4"), self.field, x0, grid).x)

    def distance(self, solver: Any, grid: np.ndarray) -> float:
        """Return the root mean square distance from the exact end of the same noise."""
        x = integrate(solver, self.field, self.x0, grid).x
        return float(np.sqrt(np.mean((x - self.end) ** 2)))

    def run(self, spec: dict[str, Any], n_steps: int, seed: int) -> dict[str, Any]:
        """Return scores of one sampler."""
        grid = SCHEDULES.build(spec["spacing"])(n_steps)
        solver = SOLVERS.build(spec["solver"])
        rng = np.random.default_rng(100 + seed)
        done = integrate(solver, self.field, self.x0, grid, rng=rng)
        scores = {"evaluations": done.n_evaluations, "n_steps": n_steps, "settings": spec}
        if not solver.stochastic:
            scores["distance"] = float(np.sqrt(np.mean((done.x - self.end) ** 2)))
        if not np.isfinite(done.x).all():
            return {**scores, "diverged": True}
        return {**scores, **judge(self.real, done.x, self.other, seed, self.smoke)}


def mixture_part(known: Known, names: list[str], budgets: tuple[int, ...]) -> list[dict[str, Any]]:
    """Return one line per sampler and number of evaluations."""
    lines = []
    for name in names:
        spec, done = settings.SAMPLERS[name], set()
        for budget in budgets:
            n_steps = settings.steps_for(spec, budget, LINE)
            if n_steps is None or n_steps in done:
                continue
            done.add(n_steps)
            lines.append({"sampler": name, **known.run(spec, n_steps, seed=1)})
            report(lines[-1])
    return lines


def churn_part(known: Known, n_steps: int, few: bool) -> list[dict[str, Any]]:
    """Return one line per setting of EDM's churn."""
    lines = []
    for churn in settings.CHURNS[:: 3 if few else 1]:
        for low, high in settings.CHURN_RANGES[: 1 if few else None]:
            for s_noise in settings.CHURN_NOISE[: 1 if few or not churn else None]:
                solver = {"name": "edm", "s_churn": churn, "s_tmin": low, "s_tmax": high}
                spec = {"solver": {**solver, "s_noise": s_noise}, "spacing": settings.EDM}
                range_name = f"sigma {low:g} to {'inf' if high is None else format(high, 'g')}"
                name = f"{range_name}, s_noise {s_noise:g}"
                gamma = min(churn / n_steps, math.sqrt(2.0) - 1.0)
                line = {"sampler": name, "s_churn": churn, "gamma": gamma}
                lines.append({**line, **known.run(spec, n_steps, seed=1)})
                report(lines[-1])
                if not churn:
                    break
    return lines


def grids_part(known: Known, names: list[str], budgets: tuple[int, ...]) -> list[dict[str, Any]]:
    """Return the distance to the exact end point per sampler, schedule and cost.

    ``found`` is the grid that `flowbdt.flow.schedule_search` finds for this field and sampler,
    from other
    points than those it is judged by.
    """
    lines = []
    for name in names:
        solver = SOLVERS.build(settings.SAMPLERS[name]["solver"])
        if solver.stochastic or name.endswith("EDM grid"):
            continue
        for budget in budgets:
            line: dict[str, Any] = {"sampler": name, "evaluations": budget}
            for label, spacing in settings.GRIDS.items():
                spec = {"solver": settings.SAMPLERS[name]["solver"], "spacing": spacing}
                n_steps = settings.steps_for(spec, budget, LINE)
                if n_steps is not None:
                    line[label] = known.distance(solver, SCHEDULES.build(spacing)(n_steps))
                if label == "uniform" and n_steps is not None and name in settings.OWN_GRIDS:
                    start = np.random.default_rng(12).normal(size=(300, known.x0.shape[1]))
                    found = optimise_grid(known.field, solver, n_steps, start, sweeps=4)
                    line["found"] = known.distance(solver, found.boundaries)
            lines.append(line)
            best = min((v, k) for k, v in line.items() if isinstance(v, float))
            print(f"{name:>24} {budget:4d}  best {best[1]} {best[0]:.4f}", flush=True)
    return lines


def trees_part(
    train: EventTable, test: EventTable, names: list[str], options: Any
) -> list[dict[str, Any]]:
    """Return one line per sampler and number of evaluations, on shared and on own step models."""
    given = {"relations": list(HLV_RELATIONS), "rejection": False, "random_state": 1}
    given["preset"] = options.preset
    if options.smoke:
        small = {"n_estimators": 2, "max_depth": 2}
        given |= {"booster": small, "preconditioner": "gaussian"}
        given["noise"] = {"n_repeats": 1, "candidates": 0}
    fine = 8 if options.smoke else settings.FINE
    settings_fine = {"n_steps": fine, "solver": "heun"}
    shared = FlowBDT(**given, **settings_fine).fit(train)
    lines = []

    def score(name: str, kind: str, model: FlowBDT, sampler: dict[str, Any] | None) -> None:
        start = time.process_time()
        new = model.sample(test.n, sampler=sampler, random_state=101)
        cost = 1e6 * (time.process_time() - start) / test.n
        asked = model.n_evaluations_ if sampler is None else common.n_evaluations(sampler)
        line = {"sampler": name, "grid": kind, "evaluations": asked, "us_per_event": cost}
        line["settings"] = sampler or {"solver": model.solver, "spacing": model.spacing}
        lines.append({**line, **judge(test, new, train, 1, options.smoke)})
        report(lines[-1])

    budgets = (4,) if options.smoke else BUDGETS["trees"]
    for name in names:
        seen = set()
        for budget in budgets:
            sampler = settings.nested(settings.SAMPLERS[name], budget, LINE)
            if sampler is not None and sampler["n_steps"] not in seen:
                seen.add(sampler["n_steps"])
                score(name, "shared", shared, sampler)
    for name in [n for n in settings.OWN_GRIDS if n in names]:
        for budget in budgets:
            spec = settings.SAMPLERS[name]
            n_steps = settings.steps_for(spec, budget, LINE)
            if n_steps is not None:
                own = FlowBDT(**given, n_steps=n_steps, **spec).fit(train)
                score(name, "own", own, None)
    return lines


def report(line: dict[str, Any]) -> None:
    """Print one result."""
    shown = [f"{k} {line[k][0]:.4g}±{line[k][1]:.2g}" for k in figure.SCORES if k in line]
    print(f"{line['sampler']:>24} {line['evaluations']:4d}  {'  '.join(shown)}", flush=True)


def main() -> None:
    """Run the parts that were asked for."""
    parser = common.parser((__doc__ or "").splitlines()[0])
    parser.add_argument("--parts", default="grids,mixture,churn,trees", help="which (%(default)s)")
    parser.add_argument("--samplers", help="some of them, separated by semicolons")
    parser.add_argument("--events", type=int, default=20_000, help="per sample (%(default)s)")
    parser.add_argument("--preset", default="balanced", help="of the trees (%(default)s)")
    options = parser.parse_args()
    train, test = common.jets(options.data)
    n_events = 300 if options.smoke else options.events
    train, test = (
        t.take(slice(0, min(n_events, t.n))) if options.smoke else t for t in (train, test)
    )
    names = list(SMOKE_SAMPLERS if options.smoke else settings.SAMPLERS)
    names = options.samplers.split(";") if options.samplers else names
    parts, figures = options.parts.split(","), {}
    if {"mixture", "churn"} & set(parts):
        known = Known(train, n_events, options.smoke)
    if "grids" in parts:
        few = Known(train.take(slice(0, 6000)), 400, True, n_components=20)
        figures["grids"] = grids_part(few, names, (8,) if options.smoke else (8, 16))
    if "mixture" in parts:
        budgets = (2, 8) if options.smoke else BUDGETS["mixture"]
        figures["mixture"] = mixture_part(known, names, budgets)
    if "churn" in parts:
        figures["churn"] = churn_part(known, 4 if options.smoke else 18, options.smoke)
    if "trees" in parts:
        figures["trees"] = trees_part(train, test, names, options)
    print(tables.page(figures))
    if options.output is not None:
        figure.draw(figures, options.output)
    common.finish(figures, options.output, "samplers")


if __name__ == "__main__":
    main()
