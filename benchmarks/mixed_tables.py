"""Public tables of numbers and categories: how well two classifiers tell generated rows from real.

    python benchmarks/mixed_tables.py --data FOLDER [--quick] [--rows 5000]
                                      [--tables adult,zee] [--models balanced,fast+rejection]

FOLDER holds ``magic04.data`` and ``tables/NAME.csv.gz`` (adult, default, california, zee). Rows in
a random order with seed 0; the first half to train, the second to judge, at most ``--rows`` each
(``--quick``: 800). Every column is learned, categories among them as texts; nothing is set by hand.
The judges are 200 boosted trees and a network of 128-64 on the raw columns, categories as codes
(a category that training has not seen is -1), means over three splits with the error of the mean.
The floor has the training rows in place of generated ones. ``closed form`` is ``balanced`` with one
tree of rate 1e-6 a step: what ``balanced`` has more is what trees of the steps add. ``proposed``
(only on demand) is ``balanced`` with what ``flowbdt init`` writes for the table. Training and
generation are CPU seconds of one thread, the latter per accepted row, models loaded.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from typing import Any

import common
import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split

from flowbdt import FlowBDT
from flowbdt.evaluation.metrics.classifier import make_mlp
from flowbdt.trees.boosted_trees import make_classifier

TABLES = ("adult", "default", "magic", "california", "zee")
NOT_LEARNED = ("ID", "Run", "Event")
SPLITS = 3

NO_TREES = {"n_estimators": 1, "learning_rate": 1e-6}
MODELS: dict[str, dict[str, Any]] = {
    "closed form": {"preset": "balanced", "booster": NO_TREES},
    "fast": {"preset": "fast"},
    "fast+rejection": {"preset": "fast", "rejection": True},
    "balanced": {"preset": "balanced"},
}

PROPOSED = "proposed"


def read(name: str, folder: Path) -> pd.DataFrame:
    """Return the rows of a table in a random order with seed 0."""
    if name == "magic":
        frame = pd.read_csv(folder / "magic04.data", header=None).add_prefix("c")
    else:
        frame = pd.read_csv(folder / "tables" / f"{name}.csv.gz", skipinitialspace=True)
    frame = frame.drop(columns=[c for c in NOT_LEARNED if c in frame])
    return frame.sample(frac=1, random_state=0).reset_index(drop=True)


def coded(frame: pd.DataFrame, training: pd.DataFrame) -> np.ndarray:
    """Return a table as numbers, texts as places among the sorted ones of the training rows."""
    columns: dict[Any, Any] = {}
    for name in training:
        if training[name].dtype.kind in "iufb":
            columns[name] = frame[name].astype(float)
        else:
            known = sorted(set(training[name].astype(str)))
            columns[name] = pd.Categorical(frame[name].astype(str), known).codes
    return pd.DataFrame(columns).to_numpy(float)


def aucs(real: np.ndarray, new: np.ndarray) -> dict[str, float]:
    """Return both areas under the ROC curve, and their errors, over the splits of the judge."""
    x, y = np.r_[real, new], np.repeat([1, 0], [len(real), len(new)])
    figures: dict[str, float] = {}
    for name, make in (("gb", make_classifier), ("mlp", make_mlp)):
        scores = []
        for seed in range(SPLITS):
            parts = train_test_split(x, y, test_size=0.3, random_state=seed, stratify=y)
            judge = make(seed).fit(parts[0], parts[2])
            scores.append(roc_auc_score(parts[3], judge.predict_proba(parts[1])[:, 1]))
        figures[name] = float(np.mean(scores))
        figures[f"{name}_error"] = float(np.std(scores, ddof=1) / np.sqrt(SPLITS))
    return figures


def run(name: str, model: str, folder: str, n_rows: int) -> dict[str, Any]:
    """Fit, generate and judge one model of one table."""
    warnings.simplefilter("ignore")  # of rare values and constants: nothing is set by hand
    frame = read(name, Path(folder))
    half = min(len(frame) // 2, n_rows)
    training, test = frame[:half], frame[half : 2 * half].reset_index(drop=True)
    real = coded(test, training)
    figures: dict[str, Any] = {"table": name, "model": model, "rows": half}
    if model == "training rows":
        return figures | aucs(real, coded(training, training))
    chosen = common.proposed(training) if model == PROPOSED else MODELS[model]
    settings = {"executor": {"name": "serial", "n_threads": 1}, "random_state": 1, **chosen}
    start = time.process_time()
    fitted = FlowBDT(**settings).fit(training)
    figures["train_cpu_s"] = time.process_time() - start
    fitted.sample(100, random_state=0)
    start = time.process_time()
    new = fitted.sample(half, random_state=2)
    figures["us_per_row"] = 1e6 * (time.process_time() - start) / half
    figures["acceptance"] = fitted.acceptance_
    return figures | aucs(real, coded(new, training))


def main() -> None:
    """Print a line for each table and model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="800 rows of each table")
    parser.add_argument("--data", metavar="FOLDER", required=True)
    parser.add_argument("--rows", type=int, default=5000, help="at most, to train and to judge")
    parser.add_argument("--tables", default=",".join(TABLES), help="%(default)s")
    parser.add_argument("--models", default=",".join(MODELS), help="%(default)s")
    options = parser.parse_args()
    rows = []
    for name in options.tables.split(","):
        for model in ("training rows", *options.models.split(",")):
            n_rows = 800 if options.quick else options.rows
            rows.append(common.in_fresh_process(run, name, model, options.data, n_rows))
            print(common.table(rows[-1:]), flush=True)
    print(common.table(rows))
    common.finish({"rows": rows})


if __name__ == "__main__":
    main()
