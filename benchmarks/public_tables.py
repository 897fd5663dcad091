"""Small public tables by the protocol of Forest-Diffusion, with ranks among published methods.

    python benchmarks/public_tables.py --data FOLDER [--quick] [--published FOLDER]
                                       [--tables iris,car] [--models training,fast]

FOLDER holds ``NAME.csv.gz``, the label last, and ``types.json`` with the kinds of their columns.
The protocol is that of arXiv 2309.09968, section 5: 80% of the rows to train, three splits, five
tables generated after each (``--quick``: one split, one table), all as large as the training table,
label among the columns. Distances are L1 after scaling by the training rows, a category that
differs counts 1. *W* is the exact Wasserstein-1 distance to the training and to the test rows,
*coverage* the share of real rows that have a generated one within the second nearest real
neighbour (the published code takes one neighbour more than the smallest number that covers 95% of
the real rows by themselves), *F1* (macro) or *R2* the mean over a linear model, AdaBoost, a
random forest and XGBoost trained on generated and tested on real rows; F1 is 0 where a class of the
test rows is missing. *nearer* is the share of generated rows that are nearer to a training row than
to a test row, among equally many of both (.5: nothing is copied), *copies* the share that equals a
training row in every column. The model ``training`` gives the training rows themselves.

With ``--published``, a folder with the tables of the authors (``forestdiffusion_generation.csv``,
``utrees_generation.txt``), ranks among those nine methods are added, 1 the best.
"""

from __future__ import annotations

import argparse
import csv
import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import common
import numpy as np
import pandas as pd

TABLES = (
    "iris",
    "wine",
    "seeds",
    "glass",
    "ecoli",
    "car",
    "tictactoe",
    "congress",
    "concrete_compression",
    "airfoil_self_noise",
    "connectionist_bench_vowel",
    "blood_transfusion",
    "yacht_hydrodynamics",
)
PUBLISHED = {
    "GaussianCopula": "GaussianCopula",
    "TVAE": "TVAE",
    "CTGAN": "CTGAN",
    "CTABGAN": "CTAB-GAN+",
    "stasy": "STaSy",
    "TabDDPM": "TabDDPM",
    "forest_diffusion_vp_nt51_ycond": "Forest-VP",
    "forest_diffusion_flow_nt51_ycond": "Forest-Flow",
    "utrees": "UnmaskingTrees",
}
RANKED = {"W_train": 1, "W_test": 1, "coverage_train": -1, "coverage_test": -1, "utility": -1}
LABEL_IS_A_NUMBER = {"connectionist_bench_vowel"}  # so the authors scaled its eleven classes

Rows = np.ndarray[Any, np.dtype[np.float64]]
Maker = Callable[["Table", Rows, int, int], list[Rows]]


@dataclass(frozen=True)
class Table:
    """A table as numbers, the label last."""

    name: str
    rows: Rows
    columns: list[str]
    categories: list[int]  # unordered ones, the label not among them
    integers: list[int]
    is_class: bool

    @classmethod
    def read(cls, folder: Path, name: str) -> Table:
        """Read ``name`` and the kinds of its columns from a folder."""
        frame = pd.read_csv(folder / f"{name}.csv.gz")
        kinds = json.loads((folder / "types.json").read_text())[name]
        places = {column: i for i, column in enumerate(frame.columns)}
        return cls(
            name,
            frame.to_numpy(float),
            list(frame.columns),
            [places[column] for column in kinds["categorical"]],
            [places[column] for column in kinds["integer"]],
            kinds["target"] == "class",
        )

    def frame(self, rows: Rows) -> pd.DataFrame:
        """Return rows as a user would have them: categories, integers, numbers."""
        frame = pd.DataFrame(rows, columns=self.columns)
        labels = [len(self.columns) - 1] if self.is_class else []
        for i in self.categories + labels:
            frame[self.columns[i]] = pd.Categorical(rows[:, i].astype(int).astype(str))
        return frame.astype({self.columns[i]: int for i in self.integers})

    def split(self, seed: int) -> tuple[Rows, Rows]:
        """Return training and test rows, classes in equal shares."""
        from sklearn.model_selection import train_test_split

        labels = self.rows[:, -1] if self.is_class else None
        train, test = train_test_split(self.rows, test_size=0.2, random_state=seed, stratify=labels)
        return train, test

    def scaled(self, train: Rows, *parts: Rows) -> list[Rows]:
        """Return numbers by the range of the training rows, categories one-hot and halved."""
        one_hot = list(self.categories)
        if self.is_class and self.name not in LABEL_IS_A_NUMBER:
            one_hot.append(self.rows.shape[1] - 1)
        numbers = [i for i in range(self.rows.shape[1]) if i not in one_hot]
        low, high = train.min(axis=0), train.max(axis=0)
        width = np.where(high > low, high - low, 1.0)
        values = {i: np.unique(self.rows[:, i]) for i in one_hot}
        return [
            np.hstack(
                [((part - low) / width)[:, numbers]]
                + [(part[:, [i]] == values[i]) / 2 for i in one_hot]
            )
            for part in parts
        ]


def distances(a: Rows, b: Rows) -> Rows:
    """Return the L1 distance of every row of ``a`` from every row of ``b``."""
    from scipy.spatial.distance import cdist

    return cdist(a, b, "cityblock")


def wasserstein(cost: Rows) -> float:
    """Return the exact Wasserstein-1 distance of two tables from the distances of their rows."""
    import ot

    return float(ot.emd2([], [], np.ascontiguousarray(cost), numItermax=10_000_000))


def coverage(real: Rows, cost: Rows) -> float:
    """Return the share of real rows with a generated one nearer than their k-th real neighbour."""
    between = np.sort(distances(real, real), axis=1)  # the row itself comes first
    k = 1
    while (between[:, k] > 0).mean() < 0.95:
        k += 1
    return float((cost.min(axis=1) < between[:, k + 1]).mean())


def nearer_to_training(train: Rows, test: Rows, new: Rows, seed: int) -> float:
    """Return the share of rows nearer to training rows than to as many test rows, ties halved."""
    to_test = distances(new, test).min(axis=1)
    to_train = distances(new, train)
    rng = np.random.default_rng(seed)
    share = 0.0
    for _ in range(20):
        some = rng.choice(len(train), min(len(test), len(train)), replace=False)
        d = to_train[:, some].min(axis=1)
        share += ((d < to_test) + 0.5 * (d == to_test)).mean() / 20
    return float(share)


class RealAdaBoost:
    """AdaBoost of 50 stumps by their probabilities (SAMME.R), which scikit-learn had until 1.5."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.RandomState(seed)

    @staticmethod
    def log_probabilities(stump: Any, x: Rows) -> Rows:
        """Return the logarithms, each above that of the smallest double."""
        p = np.clip(stump.predict_proba(x), np.finfo(float).eps, None)
        return np.asarray(np.log(p))

    def fit(self, x: Rows, y: Rows) -> RealAdaBoost:
        """Learn classes 0, 1, ... of rows."""
        from sklearn.tree import DecisionTreeClassifier

        n_classes = int(y.max()) + 1
        signs = np.where(y[:, None] == np.arange(n_classes), 1.0, -1 / (n_classes - 1))
        weights = np.full(len(y), 1 / len(y))
        self.stumps: list[Any] = []
        while len(self.stumps) < 50:
            stump = DecisionTreeClassifier(max_depth=1, random_state=self.rng.randint(2**31 - 1))
            self.stumps.append(stump.fit(x, y, sample_weight=weights))
            if (stump.predict(x) == y).all():
                break
            margin = (signs * self.log_probabilities(stump, x)).sum(axis=1)
            weights = weights * np.exp(-(n_classes - 1) / n_classes * margin)
            if not 0 < weights.sum() < np.inf:
                break
            weights /= weights.sum()
        return self

    def predict(self, x: Rows) -> Rows:
        """Return the class that the stumps together find the most probable."""
        logs = [self.log_probabilities(stump, x) for stump in self.stumps]
        return np.asarray(sum(p - p.mean(axis=1, keepdims=True) for p in logs).argmax(axis=1))


def usefulness(table: Table, new: Rows, test: Rows, n_seeds: int) -> float:
    """Return mean F1 or R2, on the test rows, of four kinds of models that learn generated rows.

    Three things follow the versions that made the published figures, and change them: AdaBoost by
    probabilities, XGBoost from a base score of .5, a column less than categories.
    """
    import xgboost
    from sklearn import ensemble, linear_model
    from sklearn.metrics import f1_score, r2_score

    codes = {i: np.unique(np.r_[new[:, i], test[:, i]])[1:] for i in table.categories}
    numbers = [i for i in range(table.rows.shape[1] - 1) if i not in codes]
    inputs = [
        np.hstack([part[:, numbers]] + [part[:, [i]] == v for i, v in codes.items()])
        for part in (new, test)
    ]
    label: Any = new[:, -1]
    truth = test[:, -1]
    boosting: dict[str, Any] = {"reg_lambda": 0.0, "base_score": 0.5, "n_jobs": 1}
    forest: dict[str, Any] = {"max_depth": 28}
    if table.is_class:
        if not np.isin(truth, label).all():
            return 0.0
        known = np.unique(label)
        label = np.searchsorted(known, label)
        if len(known) == 1:
            return float(f1_score(truth, np.full(len(truth), known[0]), average="macro"))
        makers: list[Callable[[int], Any]] = [
            lambda _: linear_model.LogisticRegression(C=np.inf, max_iter=500),
            lambda _: xgboost.XGBClassifier(**boosting),
            RealAdaBoost,
            lambda seed: ensemble.RandomForestClassifier(random_state=seed, **forest),
        ]
    else:
        makers = [
            lambda _: linear_model.LinearRegression(),
            lambda _: xgboost.XGBRegressor(**boosting),
            lambda seed: ensemble.AdaBoostRegressor(random_state=seed),
            lambda seed: ensemble.RandomForestRegressor(random_state=seed, **forest),
        ]
    scores = []
    for make, repeats in zip(makers, (1, 1, n_seeds, n_seeds), strict=True):  # two need no seed
        found = []
        for seed in range(repeats):
            guess = make(seed).fit(inputs[0], label).predict(inputs[1])
            if table.is_class:
                found.append(f1_score(truth, known[guess], average="macro"))
            else:
                found.append(r2_score(truth, guess))
        scores.append(np.mean(found))
    return float(np.mean(scores))


def judge(table: Table, train: Rows, test: Rows, new: Rows, n_seeds: int) -> dict[str, float]:
    """Return every score of one generated table."""
    a, b, c = table.scaled(train, train, test, new)
    to_train, to_test = distances(a, c), distances(b, c)
    return {
        "W_train": wasserstein(to_train),
        "W_test": wasserstein(to_test),
        "coverage_train": coverage(a, to_train),
        "coverage_test": coverage(b, to_test),
        "utility": usefulness(table, new, test, n_seeds),
        "nearer": nearer_to_training(a, b, c, 0),
        "copies": float((to_train.min(axis=0) == 0).mean()),
    }


def training_rows(table: Table, train: Rows, seed: int, n: int) -> list[Rows]:
    """Return the training rows themselves, ``n`` times: what a perfect copy reaches."""
    return [train] * n


def flowbdt_rows(preset: str) -> Maker:
    """Return what fits a preset and generates ``n`` tables."""

    def make(table: Table, train: Rows, seed: int, n: int) -> list[Rows]:
        from flowbdt import FlowBDT

        model = FlowBDT(
            preset=preset, executor={"name": "serial", "n_threads": 1}, random_state=seed
        )
        model.fit(table.frame(train))
        return [model.sample(len(train), random_state=i).astype(float).to_numpy() for i in range(n)]

    return make


def run(
    folder: str, name: str, maker: Maker, n_splits: int, n_tables: int, n_seeds: int
) -> dict[str, float]:
    """Return the mean scores of one model on one table, and the CPU seconds of one split."""
    table = Table.read(Path(folder), name)
    scores, cpu = [], 0.0
    for seed in range(n_splits):
        train, test = table.split(seed)
        made = common.measured(maker, table, train, seed, n_tables)
        cpu += made["cpu_s"] / n_splits
        last = None
        for new in made["result"]:
            if new is not last:  # the training rows are the same every time
                scores.append(judge(table, train, test, new, n_seeds))
            last = new
    return {k: float(np.mean([s[k] for s in scores])) for k in scores[0]} | {"cpu_s": cpu}


def published(folder: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Return table -> method -> score of the published tables."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    with (folder / "forestdiffusion_generation.csv").open() as file:
        lines: list[dict[str, str]] = list(csv.DictReader(file))
    names = [k for k in lines[0] if k != "class_score"]
    for text in (folder / "utrees_generation.txt").read_text().splitlines():
        head, tail = text.split("[")[0], text.split("]")[1]
        cells = [c.strip() for c in (head.rstrip(" ,") + tail).split(",")]
        lines.append(dict(zip(names, cells, strict=False)))
    for line in lines:
        if line["method"] in PUBLISHED:
            scores = {k: float(line[k]) for k in RANKED if k != "utility"}
            scores["utility"] = float(line["F1_fake"]) + float(line["R2_fake"])  # one of them is 0
            found.setdefault(line["dataset"], {})[PUBLISHED[line["method"]]] = scores
    return found


def ranks(ours: dict[str, float], others: dict[str, dict[str, float]]) -> dict[str, float]:
    """Return our rank among ten in every score, 1 the best; a tie counts half a place."""
    found = {}
    for key, sign in RANKED.items():
        mine, theirs = sign * ours[key], [sign * o[key] for o in others.values()]
        found[f"rank {key}"] = 1 + sum((t < mine) + 0.5 * (t == mine) for t in theirs)
    return found


def summary(figures: dict[str, dict[str, float]], classes: Sequence[str]) -> dict[str, float]:
    """Return means over tables: F1 over those with classes, R2 over the others."""
    kept = {
        "F1": [f["utility"] for t, f in figures.items() if t in classes],
        "R2": [f["utility"] for t, f in figures.items() if t not in classes],
    }
    means = {k: float(np.mean(v)) for k, v in kept.items() if v}
    for key in next(iter(figures.values())):
        if key != "utility":
            means[key] = float(np.mean([f[key] for f in figures.values()]))
    return means


def main() -> None:
    """Print a table per model and the means."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one split, one generated table")
    parser.add_argument("--data", metavar="FOLDER", required=True, help="with NAME.csv.gz")
    parser.add_argument("--published", metavar="FOLDER", help="with the tables of the authors")
    parser.add_argument("--tables", default=",".join(TABLES), help="%(default)s")
    parser.add_argument("--models", default="training,fast", help="presets, and: training")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=UserWarning)
    n = (1, 1, 1) if options.quick else (3, 5, 5)
    others = published(Path(options.published)) if options.published else {}
    names = options.tables.split(",")
    classes = [t for t in names if Table.read(Path(options.data), t).is_class]
    everything = {}
    for model in options.models.split(","):
        maker = training_rows if model == "training" else flowbdt_rows(model)
        figures = {}
        for name in names:
            figures[name] = run(options.data, name, maker, *n)
            if others:
                figures[name] |= ranks(figures[name], others[name])
            print(common.table([{"model": model, "table": name} | figures[name]]), flush=True)
        everything[model] = figures | {"mean": summary(figures, classes)}
        print(common.table([{"table": k} | v for k, v in everything[model].items()]), flush=True)
    common.finish(everything)


if __name__ == "__main__":
    main()
