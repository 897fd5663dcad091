"""Whole public tables by the protocol of TabSyn, TabDiff and TabPC, beside their figures.

    python benchmarks/whole_tables.py --data FOLDER [--quick] [--sdmetrics PATH]
                                      [--tables adult,magic] [--models fast,fast+rejection]

FOLDER as for ``mixed_tables.py``. The protocol is that of arXiv 2310.09656, 2410.20626 and
2603.23016: 90% of the rows to train, as many generated, the *training* rows as reference.
*C2ST* is the AUC of XGBoost with its defaults and native categories, at least .5, mean of three
folds (their score is 2 - 2 AUC); *C2ST test* the same against the held-out 10%, with as many
generated rows. *MLE* is the AUC, on the held-out rows, of XGBoost that learns the label from
generated rows, the best of 36 settings by a ninth of these rows. *DCR* comes from another fit, to
half of the rows: the share of generated rows that are nearer to that half than to the other one, by
L1 distance, numbers in units of their range, categories one-hot (.5: nothing is copied). *Shape*
and *trend* are those of sdmetrics in an environment of its own, whose interpreter ``--sdmetrics``
names:

    python3 -m venv benchmarks/.sdmetrics && benchmarks/.sdmetrics/bin/pip install sdmetrics

The model ``training rows`` stands for a perfect copy. ``--quick``: 2,000 rows, two settings.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
import warnings
from itertools import product
from pathlib import Path
from typing import Any

import common
import numpy as np
import pandas as pd
from mixed_tables import MODELS, read
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.neighbors import NearestNeighbors
from xgboost import XGBClassifier

from flowbdt import FlowBDT

CODES = ("SEX", "EDUCATION", "MARRIAGE", "PAY_0", *(f"PAY_{i}" for i in range(2, 7)))
"""Integers that the protocol takes for categories, with the label."""

PUBLISHED: dict[str, dict[str, dict[str, float]]] = {
    "adult": {
        "TabDiff": {"C2ST": 0.580, "MLE": 0.913, "DCR": 0.549},
        "TabSyn": {"C2ST": 0.603, "MLE": 0.910},
        "TabPC": {"C2ST": 0.572, "MLE": 0.916, "DCR": 0.543},
    },
    "default": {
        "TabDiff": {"C2ST": 0.704, "MLE": 0.763, "DCR": 0.522},
        "TabSyn": {"C2ST": 0.799, "MLE": 0.759},
        "TabPC": {"C2ST": 0.869, "MLE": 0.744, "DCR": 0.507},
    },
    "magic": {
        "TabDiff": {"C2ST": 0.613, "MLE": 0.936, "DCR": 0.501},
        "TabSyn": {"C2ST": 0.620, "MLE": 0.937},
        "TabPC": {"C2ST": 0.570, "MLE": 0.932, "DCR": 0.530},
    },
}
"""As the authors of TabPC ran all three (arXiv 2603.23016)."""

GRID = tuple(product((10, 50, 100), (1, 10), (5, 10, 20), (0.0, 1.0)))
HERE = Path(__file__).resolve().parent


def typed(frame: pd.DataFrame, known: pd.DataFrame, label: str) -> pd.DataFrame:
    """Return a table with texts, codes and the label as categories of the table ``known``."""
    columns: dict[Any, Any] = {}
    for name in known:
        if name == label or name in CODES or known[name].dtype.kind not in "iuf":
            values = sorted(set(known[name].astype(str)))
            columns[name] = pd.Categorical(frame[name].astype(str), values)
        else:
            columns[name] = frame[name].astype(float)
    return pd.DataFrame(columns)


def c2st(real: pd.DataFrame, new: pd.DataFrame) -> float:
    """Return the AUC of XGBoost's defaults between two tables, mean of three folds."""
    x = pd.concat([real, new], ignore_index=True)
    y = np.repeat([1, 0], [len(real), len(new)])
    found = []
    for learn, judge in StratifiedKFold(3, shuffle=True, random_state=0).split(x, y):
        model = XGBClassifier(enable_categorical=True, n_jobs=1).fit(x.iloc[learn], y[learn])
        found.append(max(0.5, roc_auc_score(y[judge], model.predict_proba(x.iloc[judge])[:, 1])))
    return float(np.mean(found))


def usefulness(new: pd.DataFrame, test: pd.DataFrame, label: str, n_settings: int) -> float:
    """Return the AUC on test rows of the best of some settings, learned from generated rows."""
    x, y = new.drop(columns=label), new[label].cat.codes.to_numpy()
    order = np.random.default_rng(0).permutation(len(x))
    choose, learn = order[: len(x) // 9], order[len(x) // 9 :]
    best, found = -1.0, 0.5
    for rounds, child, depth, gamma in GRID[:: len(GRID) // n_settings]:
        model = XGBClassifier(
            n_estimators=rounds,
            min_child_weight=child,
            max_depth=depth,
            gamma=gamma,
            enable_categorical=True,
            n_jobs=1,
        ).fit(x.iloc[learn], y[learn])
        score = roc_auc_score(y[choose], model.predict_proba(x.iloc[choose])[:, 1])
        if score > best:
            guess = model.predict_proba(test.drop(columns=label))[:, 1]
            best, found = score, float(roc_auc_score(test[label].cat.codes, guess))
    return found


def nearer_to_training(train: pd.DataFrame, other: pd.DataFrame, new: pd.DataFrame) -> float:
    """Return the share of rows that are nearer to training rows than to others, ties halved."""
    numbers = list(train.select_dtypes("number"))
    width = (train[numbers].max() - train[numbers].min()).replace(0, 1)

    def axes(frame: pd.DataFrame) -> np.ndarray:
        scaled = frame.assign(**(frame[numbers] / width))
        return pd.get_dummies(scaled, dtype=float).to_numpy(np.float32)

    to_train, to_other = (
        NearestNeighbors(n_neighbors=1, metric="manhattan", algorithm="brute")
        .fit(axes(rows))
        .kneighbors(axes(new))[0][:, 0]
        for rows in (train, other)
    )
    return float((to_train < to_other).mean() + 0.5 * (to_train == to_other).mean())


def sdmetrics(python: str, real: pd.DataFrame, new: pd.DataFrame) -> dict[str, float]:
    """Return shape and trend, by sdmetrics in the environment of an interpreter."""
    with tempfile.TemporaryDirectory() as folder:
        numeric = {name: real[name].dtype.kind == "f" for name in real}
        for name, frame in (("real", real), ("new", new)):
            frame.to_csv(Path(folder) / f"{name}.csv", index=False)
        (Path(folder) / "numeric.json").write_text(json.dumps(numeric))
        command = [python, str(HERE / "peers" / "sdmetrics_scores.py"), folder]
        return dict(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))


def generated(model: str, train: pd.DataFrame, n: int) -> tuple[pd.DataFrame, dict[str, float]]:
    """Return rows of a fitted model, and the CPU seconds of its training."""
    if model == "training rows":
        return train.iloc[:n], {}
    start = time.process_time()
    fitted = FlowBDT(
        **MODELS[model], executor={"name": "serial", "n_threads": 1}, random_state=1
    ).fit(train)
    figures = {"train_cpu_s": time.process_time() - start}
    start = time.process_time()
    new = fitted.sample(n, random_state=2)
    return new, figures | {"us_per_row": 1e6 * (time.process_time() - start) / n}


def run(name: str, model: str, folder: str, python: str | None, quick: bool) -> dict[str, Any]:
    """Fit twice, generate, and score one model of one table."""
    warnings.simplefilter("ignore")  # of rare values and constants: nothing is set by hand
    frame = read(name, Path(folder)).iloc[: 2000 if quick else None]
    label = frame.columns[-1]
    size = round(0.9 * len(frame))
    new, figures = generated(model, frame.iloc[:size], size)
    train, test, new = (typed(f, frame, label) for f in (frame[:size], frame[size:], new))
    figures["C2ST"] = c2st(train, new)
    figures["C2ST test"] = c2st(test, new.iloc[: len(test)])
    figures["MLE"] = usefulness(new, test, label, 2 if quick else len(GRID))
    half = len(frame) // 2
    again, _ = generated(model, frame.iloc[:half], half)
    halves = (frame[:half], frame[half : 2 * half], again)
    figures["DCR"] = nearer_to_training(*(typed(f, frame, label) for f in halves))
    if python:
        figures |= sdmetrics(python, train, new)
    return {"table": name, "model": model} | figures


def main() -> None:
    """Print a line for each table and model, then the published ones."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="2,000 rows, two settings of MLE")
    parser.add_argument("--data", metavar="FOLDER", required=True)
    parser.add_argument("--sdmetrics", metavar="PATH", help="an interpreter that has sdmetrics")
    parser.add_argument("--tables", default=",".join(PUBLISHED), help="%(default)s")
    parser.add_argument("--models", default="fast,fast+rejection,balanced", help="%(default)s")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name in options.tables.split(","):
        for model in ("training rows", *options.models.split(",")):
            arguments = (name, model, options.data, options.sdmetrics, options.quick)
            rows.append(common.in_fresh_process(run, *arguments))
            print(common.table(rows[-1:]), flush=True)
        rows += [{"table": name, "model": k} | v for k, v in PUBLISHED[name].items()]
    print(common.table(rows))
    common.finish({"rows": rows})


if __name__ == "__main__":
    main()
