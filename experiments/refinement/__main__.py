"""Can a flow turn showers of a cheap simulation into detailed ones?

    python -m experiments.refinement [--smoke] [--data FOLDER] [--seeds 3] [-o FOLDER]

FOLDER of ``--data`` has ``calochallenge/refinement_photons_1.hdf5``: ``incident_energies``,
``showers_fast`` and ``showers`` [MeV], aligned by row. Without it the study makes toy showers.
Every run is kept in ``runs.json`` of the output folder; one that is there is not repeated.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from experiments import common
from experiments.refinement.figure import draw
from experiments.refinement.methods import METHODS, SMOKE, Prepared
from flowbdt.evaluation.metrics import largest_correlation_error
from flowbdt.physics import Showers, read_showers, toy_showers
from flowbdt.physics.calorimeter.scores.features import high_level_features
from flowbdt.physics.calorimeter.scores.histograms import separations
from flowbdt.physics.calorimeter.scores.shower_judges import (
    fast_auc,
    high_level_inputs,
    low_level_inputs,
)
from flowbdt.seeding import row_uniform
from flowbdt.trees.boosted_trees import make_classifier

FILE = Path("calochallenge") / "refinement_photons_1.hdf5"
N_FLOORS = 10
"""Divisions of the detailed showers into halves that the floor is the mean of."""
FAR, REDUCTION, NEAR = 10.0, 5.0, 1.5
"""More than `FAR` floors away must come closer `REDUCTION` times, the rest within `NEAR` floors."""

Scores = dict[str, float]


def pairs(data: Path | None, smoke: bool) -> tuple[Showers, Showers]:
    """Return cheap and detailed showers, row by row of one particle."""
    if data is None:
        n = 240 if smoke else 5000
        return toy_showers("photons", n, 1, cheap=True), toy_showers("photons", n, 1)
    rows = (0, 300) if smoke else None
    cheap, detailed = (
        read_showers(data / FILE, rows=rows, key=key) for key in ("showers_fast", "showers")
    )
    return cheap, detailed


def halves(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of two halves, by a hash of the row number."""
    ranked = np.argsort(row_uniform(n, seed))
    return np.sort(ranked[: n // 2]), np.sort(ranked[n // 2 :])


def floors(detailed: Showers, n_floors: int) -> dict[str, Scores]:
    """Return, per histogram, mean and spread of one half of the truth against the other."""
    found: dict[str, list[float]] = {}
    for seed in range(1, n_floors + 1):
        first, second = (detailed.take(rows) for rows in halves(detailed.n, seed))
        for result in separations(first, second, n_bootstrap=2):
            found.setdefault(str(result.column), []).append(result.value)
    return {
        name: {"floor": float(np.mean(values)), "spread": float(np.std(values))}
        for name, values in found.items()
    }


def judged(truth: Showers, new: Showers, seed: int, smoke: bool) -> Scores:
    """Return separations, the largest correlation error, and the AUC of boosted trees."""
    scores = {str(r.column): r.value for r in separations(truth, new, n_bootstrap=2)}
    real, made = high_level_features(truth), high_level_features(new)
    scores["layer_correlation"] = largest_correlation_error(
        real.e_layer, made.e_layer, n_bootstrap=2
    ).value
    if smoke:
        return scores
    options: dict[str, Any] = {"make_classifier": make_classifier, "n_model_seeds": 1}
    high = high_level_inputs(real), high_level_inputs(made)
    scores["auc_high"] = fast_auc(high[0], high[1], "high", seed=seed, **options).value
    if seed == 1:  # 369 columns: once
        low = low_level_inputs(truth), low_level_inputs(new)
        options["n_split_seeds"] = 1
        scores["auc_low"] = fast_auc(low[0], low[1], "low", seed=seed, **options).value
    return scores


def study(options: argparse.Namespace) -> tuple[dict[str, Scores], dict[str, list[Scores]]]:
    """Return floors, and the scores of each method and seed; do only what is not done yet."""
    cheap, detailed = pairs(options.data, options.smoke)
    train, test = halves(cheap.n)
    truth = detailed.take(test)
    runs: dict[str, Scores] = common.kept(options.output, {})
    n_seeds = 1 if options.smoke else options.seeds
    for seed in range(1, n_seeds + 1):
        prepared = Prepared(cheap.take(train), detailed.take(train), seed)
        for name in options.methods.split(",") if options.methods else ["cheap", *METHODS]:
            key = f"{name} | {seed}"
            if key in runs or (name == "cheap" and seed > 1):  # cheap showers have no seed
                continue
            start = time.process_time()
            new = cheap.take(test)
            if name != "cheap":
                new = METHODS[name](prepared, new, seed, SMOKE if options.smoke else {})
            seconds = time.process_time() - start
            runs[key] = {**judged(truth, new, seed, options.smoke), "cpu_s": seconds}
            print(key, json.dumps(runs[key]), flush=True)
            common.keep(runs, options.output)
    grouped: dict[str, list[Scores]] = {}
    for key, scores in runs.items():
        grouped.setdefault(key.split(" | ")[0], []).append(scores)
    return floors(detailed, 2 if options.smoke else N_FLOORS), grouped


def summary(floor: dict[str, Scores], runs: dict[str, list[Scores]]) -> dict[str, Any]:
    """Return per method: means over seeds with standard errors, and what passes the bar."""
    means: dict[str, Any] = {}
    for name, scores in runs.items():
        means[name] = {}
        for key in scores[0]:
            values = np.array([one[key] for one in scores if key in one])
            error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else None
            means[name][key] = {"mean": float(values.mean()), "error": error}
    for name in means:
        if "cheap" in means:
            means[name]["bar"] = _bar(floor, means["cheap"], means[name])
    return {"floor": floor, **means}


def _bar(floor: dict[str, Scores], cheap: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Return which histograms fail: far ones not reduced enough, near ones too far off."""
    far = [h for h in floor if cheap[h]["mean"] > FAR * floor[h]["floor"]]
    gains = {
        h: (cheap[h]["mean"] - floor[h]["floor"])
        / max(new[h]["mean"] - floor[h]["floor"], 1e-3 * floor[h]["floor"])
        for h in far
    }
    near = {h: new[h]["mean"] / floor[h]["floor"] for h in floor if h not in far}
    return {
        "far": len(far),
        "far_failed": {h: round(g, 2) for h, g in gains.items() if g < REDUCTION},
        "near": len(near),
        "near_failed": {h: round(g, 2) for h, g in near.items() if g > NEAR},
    }


def table(figures: dict[str, Any]) -> str:
    """Return the separations in units of the floor, one row per histogram, and the wide scores."""
    floor = figures["floor"]
    methods = [name for name in figures if name != "floor"]
    rows = []
    for histogram, value in floor.items():
        cells = {"histogram": histogram, "floor x1000": f"{1000 * value['floor']:.2f}"}
        for name in methods:
            found, unit = figures[name][histogram], value["floor"]
            error = "" if found["error"] is None else f" ± {found['error'] / unit:.2f}"
            cells[name] = f"{found['mean'] / unit:.2f}{error}"
        rows.append(cells)
    for key in ("layer_correlation", "auc_high", "auc_low", "cpu_s"):
        cells = {"histogram": key, "floor x1000": ""}
        for name in methods:
            if key in figures[name]:
                found = figures[name][key]
                error = "" if found["error"] is None else f" ± {found['error']:.3f}"
                cells[name] = f"{found['mean']:.3f}{error}"
        rows.append(cells)
    return common.markdown(rows)


def main() -> None:
    """Run, print the table, draw."""
    parser = common.parser((__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="repetitions (%(default)s)")
    parser.add_argument("--methods", help=f"some of cheap, {', '.join(METHODS)}, comma-separated")
    options = parser.parse_args()
    if options.methods and set(options.methods.split(",")) - {"cheap", *METHODS}:
        parser.error(f"unknown method in {options.methods}; known: cheap, {', '.join(METHODS)}")
    figures = summary(*study(options))
    print(table(figures))
    if options.output is not None and not options.smoke:
        draw(figures, options.output)
    common.finish(figures, options.output, "refinement")


if __name__ == "__main__":
    main()
