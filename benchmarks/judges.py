"""The judges judged: floors on real tables, power against 1% distortions, cost.

    python benchmarks/judges.py --data FOLDER [--rows 1500] [--tables zee,adult] [--cost 5000,20]

FOLDER holds ``tables/NAME.csv.gz``. Rows in a random order with seed 0, three parts of at most
``--rows``: real, training and other real events in place of generated ones, which no judge should
tell. ``excess`` is the distance from the floor in combined errors, the ``smeared`` ones with noise
of 1% of its standard deviation on the number that the others tell best (that of the largest R2 in
a linear regression). Z to ee has M, the mass of its electrons, beside them. ``cost`` measures the
judge with residuals on independent normal columns.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import common
import numpy as np
from mixed_tables import read

from flowbdt import EventTable, evaluate

TABLES = (
    *("adult", "airfoil_self_noise", "blood_transfusion", "california", "car"),
    *("concrete_compression", "connectionist_bench_vowel", "default", "tictactoe", "zee"),
)
JUDGES = {"auc_gb": {"n_model_seeds": 1, "n_split_seeds": 2}, "auc_residual": {}}
SMEAR = 0.01
COLUMNS_OF_ZEE = [f"{name}{i}" for i in (1, 2) for name in ("pt", "eta", "phi", "Q", "type")]


def rows_of(name: str, folder: Path) -> EventTable:
    """Return a table of the benchmark; texts are categories."""
    frame = read(name, folder)
    if name == "zee":
        frame = frame[COLUMNS_OF_ZEE].copy()
        opening = np.cosh(frame.eta1 - frame.eta2) - np.cos(frame.phi1 - frame.phi2)
        frame["M"] = np.sqrt(2 * frame.pt1 * frame.pt2 * opening)
    return EventTable.of(frame.dropna())


def smeared(table: EventTable, seed: int) -> EventTable:
    """Return a table with noise on the column that the others tell best."""
    numbers = [
        i
        for i, name in enumerate(table.names)
        if name not in table.categories and len(np.unique(table.x[:, i])) > 8
    ]
    if not numbers:
        return table
    z = (table.x - table.x.mean(axis=0)) / np.maximum(table.x.std(axis=0), 1e-12)
    left = []
    for i in numbers:
        others = np.delete(z, i, axis=1)
        weights = np.linalg.lstsq(others, z[:, i], rcond=None)[0]
        left.append((z[:, i] - others @ weights).std())
    worst = numbers[int(np.argmin(left))]
    x = table.x.copy()
    noise = np.random.default_rng(seed).normal(size=table.n)
    x[:, worst] += SMEAR * x[:, worst].std() * noise
    return EventTable(x, table.names, table.units, table.dtypes, categories=table.categories)


def judged(name: str, folder: Path, rows: int) -> dict[str, Any]:
    """Return floors and power on one table."""
    table = rows_of(name, folder)
    n = min(rows, table.n // 3)
    real, training, other = (table.take(slice(i * n, (i + 1) * n)) for i in range(3))
    row: dict[str, Any] = {"table": name, "rows": n, "columns": len(table.names)}
    for what, made in (("real", other), ("smeared", smeared(other, 1))):
        if what == "smeared" and made is other:
            continue
        scores = evaluate(real, made, training=training, metrics=JUDGES)
        for judge in JUDGES:
            result = scores.get(judge)
            row[f"{judge[4:]}, {what}"] = result.text()
            row[f"excess, {what}, {judge[4:]}"] = result.excess
    return row


def cost(rows: int, columns: int) -> dict[str, Any]:
    """Return the CPU seconds of the judge with residuals."""
    samples = np.random.default_rng(0).normal(size=(3, rows, columns))

    def run() -> float:
        made = evaluate(samples[0], samples[1], training=samples[2], metrics=["auc_residual"])
        return float(made.get("auc_residual").value)

    done = common.measured(run)
    return {"rows": rows, "columns": columns, "auc": done["result"], "cpu_s": done["cpu_s"]}


def main() -> None:
    """Print floors and power, or the cost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--rows", type=int, default=1500)
    parser.add_argument("--tables", default=",".join(TABLES))
    parser.add_argument("--cost", metavar="ROWS,COLUMNS")
    parser.add_argument("--quick", action="store_true", help="500 rows of each table")
    options = parser.parse_args()
    if options.cost:
        rows = [cost(*map(int, options.cost.split(",")))]
    elif options.data is None:
        parser.error("--data is needed")
    else:
        n_rows = 500 if options.quick else options.rows
        rows = [judged(name, options.data, n_rows) for name in options.tables.split(",")]
    print(common.table(rows))
    common.finish({"rows": rows})


if __name__ == "__main__":
    main()
