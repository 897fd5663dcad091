"""Small tables with missing values: generated rows, and what is filled in, beside other methods.

    python benchmarks/missing_values.py --data FOLDER [--quick] [--tables iris,car]

FOLDER as for ``public_tables.py``. Of the training rows (80%, three splits; ``--quick``: one) a
fifth of the values is removed at random, the label's excepted. Preset ``balanced`` is fitted to
these rows as they are. *W* to and *coverage* of the test rows, and *utility* (F1 or R2), as there,
are those of as many generated rows, with values in all places. *Error of what is filled in* is the
mean over removed values: the difference in units of the column's range in the training rows, 1
for a wrong category. ``draw`` is that of a draw, the mean of nine; ``middle`` that of the median
(most frequent category) of these nine, which is what single guesses compare with: ``forests``,
in the manner of MissForest, is scikit-learn's `IterativeImputer` with random forests, ``k-NN`` its
`KNNImputer` of five neighbours, both with numbers in units of their range and categories one-hot,
and ``median`` takes the median or the most frequent category of the column.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import common
import numpy as np
import pandas as pd
from public_tables import Rows, Table, judge

from flowbdt import FlowBDT

TABLES = ("iris", "seeds", "blood_transfusion", "car", "concrete_compression")
REMOVED = 0.2
DRAWS = 9


def with_gaps(table: Table, rows: Rows, seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Return rows with values removed, as a user would have them, and where, bool (n, d)."""
    gone = np.array(np.random.default_rng(seed).random(rows.shape) < REMOVED)
    gone[:, -1] = False
    frame = table.frame(rows)
    frame = frame.astype({table.columns[i]: "Int64" for i in table.integers})
    return frame.mask(gone), gone


def numbers(frame: pd.DataFrame) -> Rows:
    """Return a table as numbers."""
    return frame.astype(float).to_numpy()


def middle(table: Table, draws: list[Rows]) -> Rows:
    """Return the median of some draws, of a category the most frequent."""
    found = np.median(draws, axis=0)
    for i in table.categories:
        values = np.unique([each[:, i] for each in draws])
        counts = [sum(each[:, i] == value for each in draws) for value in values]
        found[:, i] = values[np.argmax(counts, axis=0)]
    return found


def error(table: Table, truth: Rows, filled: Rows, gone: np.ndarray) -> float:
    """Return the mean error of what stands in place of the removed values."""
    width = np.ptp(truth, axis=0)
    away = np.abs(filled - truth) / np.where(width > 0, width, 1.0)
    away[:, table.categories] = filled[:, table.categories] != truth[:, table.categories]
    return float(away[gone].mean())


def others(seed: int) -> Iterator[tuple[str, Callable[[Rows], Rows]]]:
    """Yield imputers of scikit-learn that fill rows of numbers, by name."""
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401 (without it, no import)
    from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer

    forest = RandomForestRegressor(100, max_features="sqrt", n_jobs=1, random_state=seed)
    rounds = {"max_iter": 5, "random_state": seed}
    yield "forests", IterativeImputer(forest, **rounds).fit_transform
    yield "k-NN", KNNImputer(n_neighbors=5).fit_transform
    yield "median", SimpleImputer(strategy="median").fit_transform


def filled_by(table: Table, rows: Rows, fill: Callable[[Rows], Rows]) -> Rows:
    """Return rows with NaN filled: numbers in units of their range, categories one-hot."""
    low, width = np.nanmin(rows, axis=0), np.nanmax(rows, axis=0) - np.nanmin(rows, axis=0)
    parts, known = [], {}
    for i, column in enumerate(rows.T):
        if i in table.categories:
            known[i] = np.unique(column[~np.isnan(column)])
            hot = (column[:, None] == known[i]).astype(float)
            parts.append(np.where(np.isnan(column)[:, None], np.nan, hot))
        else:
            parts.append(((column - low[i]) / (width[i] or 1.0))[:, None])
    filled = np.split(fill(np.hstack(parts)), np.cumsum([p.shape[1] for p in parts])[:-1], axis=1)
    back = [
        known[i][part.argmax(axis=1)] if i in known else low[i] + width[i] * part[:, 0]
        for i, part in enumerate(filled)
    ]
    result = np.stack(back, axis=1)
    result[:, table.integers] = np.rint(result[:, table.integers])
    return result


def run(name: str, folder: str, seed: int) -> dict[str, Any]:
    """Return the scores of one split of a table."""
    warnings.simplefilter("ignore")  # of rare values: nothing is set by hand
    table = Table.read(Path(folder), name)
    train, test = table.split(seed)
    frame, gone = with_gaps(table, train, seed)
    start = time.process_time()
    model = FlowBDT(executor={"name": "serial", "n_threads": 1}, random_state=seed).fit(frame)
    figures: dict[str, Any] = {"table": name, "train_cpu_s": time.process_time() - start}
    new = numbers(model.sample(len(train), missing="fill", random_state=seed))
    scores = judge(table, train, test, new, 1)
    figures |= {key: scores[key] for key in ("W_test", "coverage_test", "utility", "nearer")}
    draws = [numbers(each) for each in model.impute(frame, DRAWS, random_state=seed)]
    figures["draw"] = float(np.mean([error(table, train, each, gone) for each in draws]))
    figures["middle"] = error(table, train, middle(table, draws), gone)
    rows = np.where(gone, np.nan, train)
    for method, fill in others(seed):
        figures[method] = error(table, train, filled_by(table, rows, fill), gone)
    return figures


def main() -> None:
    """Print a line for each table: means over the splits."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one split")
    parser.add_argument("--data", metavar="FOLDER", required=True, help="with NAME.csv.gz")
    parser.add_argument("--tables", default=",".join(TABLES), help="%(default)s")
    options = parser.parse_args()
    rows = []
    for name in options.tables.split(","):
        splits = [
            common.in_fresh_process(run, name, options.data, seed)
            for seed in range(1 if options.quick else 3)
        ]
        means = {k: float(np.mean([s[k] for s in splits])) for k in splits[0] if k != "table"}
        rows.append({"table": name, **means})
        print(common.table(rows[-1:]), flush=True)
    print(common.table(rows))
    common.finish({"rows": rows})


if __name__ == "__main__":
    main()
