"""Conditional tables with targets relative to conditions and without: widths of the response.

The jet of Z + jets events through a detector given the jet as generated, and three made-up tables:
a calorimeter's response, an angle that turns with another, and columns that do not follow their
conditions. The width is half of the range from 16% to 84%, in bins of the first condition.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common import finish, in_fresh_process, table

from flowbdt import EventTable, FlowBDT, evaluate
from flowbdt.tables.formulas.particles import wrapped

BINS = 4
"""Of the first condition, of equal counts."""

COPIES = 1000
"""Of the bootstrap that gives errors of widths."""


def zjets(folder: Path) -> EventTable:
    """Return the jets of one file: pT, y, phi and m through the detector given those as generated.

    Rows without a matched jet, beyond dR = 0.4, are kept: they are in the tails of the response.
    """
    with np.load(folder / "Pythia26_Zjet_pTZ-200GeV_0.npz") as arrays:
        levels = {level: arrays[f"{level}_jets"] for level in ("sim", "gen")}
    names = ("pt", "y", "phi", "m")
    sim, gen = (
        {f"{level}_{name}": jets[:, i] for i, name in enumerate(names)}
        for level, jets in levels.items()
    )
    return EventTable.of(sim, cond=gen)


def calorimeter(n: int = 20_000) -> EventTable:
    """Return energies (resolution 10% / sqrt(E) + 1%) and a shower width given true energies."""
    rng = np.random.default_rng(1)
    true = np.exp(rng.uniform(np.log(5.0), np.log(500.0), n))
    energy = true * (1.0 + np.hypot(0.1 / np.sqrt(true), 0.01) * rng.normal(size=n))
    width = rng.gamma(4.0, 0.25, n) * (1.0 + 0.1 * np.log(true))
    return EventTable.of({"energy": energy, "width": width}, cond={"true_energy": true})


def turning(n: int = 20_000) -> EventTable:
    """Return an angle near another one, on the whole circle, with a position."""
    rng = np.random.default_rng(2)
    phi, z = rng.uniform(-np.pi, np.pi, n), rng.normal(0.0, 50.0, n)
    spread = 0.02 + 0.1 * rng.random(n) ** 4
    made = {"phi": wrapped(phi + spread * rng.normal(size=n)), "z": z + rng.normal(size=n)}
    return EventTable.of(made, cond={"true_phi": phi, "true_z": z})


def unrelated(n: int = 20_000) -> EventTable:
    """Return columns that follow their conditions not at all, or by their width only."""
    rng = np.random.default_rng(3)
    a, b = rng.lognormal(size=n) + 1.0, rng.uniform(-1.0, 1.0, n)
    made = {"x": rng.lognormal(size=n), "y": (1.0 + a) * rng.normal(size=n), "u": rng.random(n)}
    return EventTable.of(made, cond={"a": a, "b": b})


RESPONSES = {
    "zjets": {f"sim_{name}": f"gen_{name}" for name in ("pt", "y", "phi", "m")},
    "calorimeter": {"energy": "true_energy", "width": "true_energy"},
    "turning": {"phi": "true_phi", "z": "true_z"},
    "unrelated": {"x": "a", "y": "a", "u": "a"},
}
"""What each column is the answer to."""

RATIOS = ("sim_pt", "energy")
ANGLES = ("sim_phi", "phi")


def responses(events: EventTable, pairs: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Return ratios of transverse momenta and energies, differences of the others, (n,)."""
    columns, found = events.by_name(), {}
    for name, given in pairs.items():
        value, known = columns[name], columns[given]
        difference = wrapped(value - known) if name in ANGLES else value - known
        found[name] = value / known if name in RATIOS else difference
    return found


def width(values: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """Return half of the range from 16% to 84% and its error."""
    copies = values[rng.integers(0, len(values), (COPIES, len(values)))]
    low, high = np.quantile(copies, [0.16, 0.84], axis=1)
    return float(np.subtract(*np.quantile(values, [0.84, 0.16])) / 2), float(np.std(high - low) / 2)


def widths(name: str, real: EventTable, made: EventTable) -> list[dict[str, Any]]:
    """Return width, real and generated, of each response in each bin of the first condition."""
    pairs, rng = RESPONSES[name], np.random.default_rng(4)
    assert real.cond is not None
    edges = np.quantile(real.cond[:, 0], np.linspace(0, 1, BINS + 1)[1:-1])
    place = np.searchsorted(edges, real.cond[:, 0])
    truth, generated = responses(real, pairs), responses(made, pairs)
    rows = []
    for column in pairs:
        for k in range(BINS):
            (a, of_a), (b, of_b) = (width(r[column][place == k], rng) for r in (truth, generated))
            errors = abs(b - a) / np.hypot(of_a, of_b)
            close = bool(abs(b / a - 1.0) <= 0.05 or errors <= 2.0)
            row = {"table": name, "column": column, "bin": k, "real": a, "generated": b}
            rows.append({**row, "ratio": b / a, "off by errors": errors, "close": close})
    return rows


def joined(events: EventTable) -> EventTable:
    """Return the conditions as further columns: what a judge of the response must see."""
    return EventTable.of(events.by_name())


def judged(
    name: str, events: EventTable, settings: Mapping[str, Any], crossed: bool
) -> dict[str, Any]:
    """Fit half of a table, generate the other half given its conditions, and compare.

    ``crossed`` does so with either half, and compares all events at once: a difference between the
    halves by chance makes one width too large and another too small.
    """
    half, start = events.n // 2, time.process_time()
    halves = events.take(slice(0, half)), events.take(slice(half, None))
    models = [FlowBDT(random_state=1, **settings).fit(one) for one in halves[: 1 + crossed]]
    cost = time.process_time() - start
    given = halves[::-1][: 1 + crossed]
    test = EventTable.concatenate(given)
    made = EventTable.concatenate(
        [
            model.sample(one.n, cond=one.cond, random_state=2)
            for model, one in zip(models, given, strict=True)
        ]
    )
    # of other rows: a judge would know equal conditions again
    apart = [one.take(slice(i, None, 2)) for i, one in enumerate((test, made))]
    auc = evaluate(*map(joined, apart), metrics=["auc_gb"], seed=5).get("auc_gb")
    rows = widths(name, test, made) if name in RESPONSES else []
    summary = {"table": name, "auc_gb": auc.value, "error": auc.error, "fit_cpu_s": cost}
    summary["chi2 of widths"] = sum(row["off by errors"] ** 2 for row in rows)
    return {"rows": rows, "summary": summary}


def main() -> None:
    """Print the widths, and what a classifier of all columns and conditions sees."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of the Z + jets files")
    parser.add_argument("--relative", default="auto,none", help="settings to compare")
    parser.add_argument("--tables", help="some of the tables, with commas")
    parser.add_argument("--crossed", action="store_true", help="either half by the other")
    parser.add_argument("--quick", action="store_true", help="2,000 rows, preset fast")
    given = parser.parse_args()
    tables: dict[str, Callable[[], EventTable]] = {
        "calorimeter": calorimeter,
        "turning": turning,
        "unrelated": unrelated,
    }
    if given.data is not None:
        tables = {"zjets": partial(zjets, given.data), **tables}
    figures: dict[str, Any] = {}
    for relative in given.relative.split(","):
        settings: dict[str, Any] = {"relative": None if relative == "none" else "auto"}
        rows, summaries = [], []
        for name in given.tables.split(",") if given.tables else tables:
            events = tables[name]()
            if given.quick:
                events, settings["preset"] = events.take(slice(0, 2_000)), "fast"
            found = in_fresh_process(judged, name, events, settings, given.crossed)
            rows += found["rows"]
            summaries.append(found["summary"])
        print(f"relative={relative}", table(rows), table(summaries), sep="\n")
        figures[relative] = {"rows": rows, "summaries": summaries}
    finish(figures)


if __name__ == "__main__":
    main()
