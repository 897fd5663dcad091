"""Probabilities of the values of a discrete column, by boosted trees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from ..errors import FormatError
from ..seeding import derive, row_uniform
from ..tables.checks import relative_or_ones
from .binned_rows import binned
from .boosted_trees import BoosterOnDemand
from .check_trees import CheckedBooster, checked_booster
from .xgboost_on_demand import xgb

PARAMETERS = {
    "objective": "multi:softprob",
    "multi_strategy": "multi_output_tree",
    "tree_method": "hist",
    "base_score": 0.0,  # trees learn what is left of the frequencies
    "verbosity": 1,
}
LITTLE_WORK = 8_000
"""Up to so many rows times values every fold is held out once, not one only, and depths are tried:
beyond, 1,800 rows of ten discrete columns among 24 would take 200 CPU s, now 20."""
MOST_SUMS, LEAST_BINS = 1_024, 256
"""Edges such as that of the barrel at |eta| = 1.48, in a gap with few rows, need fine bins: with
256, 0.4% of the generated barrel electrons lie beyond 1.5, with 512 0.2% (of the real ones 0.12%).
Columns of more values gain little (default 0.006 in log probability) for a fifth more time."""
FOLDS = 5
MORE = 1.05
"""All rows bear so many more rounds than those without a fold."""


@dataclass(frozen=True)
class Growth:
    """How trees are grown: depths to choose from, most rounds, and rounds without a gain."""

    depths: tuple[int, ...]
    most_rounds: int
    patience: int
    parameters: dict[str, float]

    def slower(self, rate: float) -> Growth:
        """Return the same with another learning rate, and as many more rounds as it needs."""
        rounds = max(round(self.parameters["learning_rate"] / rate * self.most_rounds), 1)
        parameters = self.parameters | {"learning_rate": rate}
        return Growth(self.depths, rounds, self.patience, parameters)

    def bins(self, n_values: int) -> int:
        """Return how many bins numbers have: fewer where each bin has sums of many values."""
        return int(min(self.parameters["max_bin"], max(MOST_SUMS // n_values, LEAST_BINS)))


SMALL = Growth(
    (2, 4, 6),
    400,
    15,
    {
        "learning_rate": 0.1,
        "reg_lambda": 1.0,
        "subsample": 0.7,
        "colsample_bynode": 0.5,
        "min_child_weight": 0.1,  # of p (1 - p): the usual 1 is 40 rows where a value is rare
        "max_bin": 256,
    },
)
"""Small tables ask for their own depth: 2 on congress, 6 on tic-tac-toe and car."""

LARGE = Growth(
    (3,),
    180,
    10,
    {"learning_rate": 0.25, "reg_lambda": 2.0, "min_child_weight": 0.1, "max_bin": 512},
)
"""Compared with a rate of 0.3, the usual least weight of a leaf, a patience of 6 and 512 bins for
all columns, the log probability of the discrete columns of 5,000 unseen rows is higher by 0.022 +-
0.004 a row on adult and by 0.055 +- 0.010 on default, in about the same time, with a fifth to two
fifths more trees. A rate of 0.2 with a patience of 12 has 0.028 and 0.090, for a third more trees.
Subsampling of rows or columns and other depths are worse."""


class ValueClassifier(BoosterOnDemand):
    """Classifier of the values of one column: log frequencies plus the trees of a booster.

    The trees are grown on all rows. How many there are is found by cross-validation, each fold
    being judged by trees that were grown on the others.
    """

    def __init__(self, stored: xgb.Booster | bytes, log_frequencies: np.ndarray) -> None:
        super().__init__(stored)
        self.log_frequencies = log_frequencies
        self.summary: dict[str, Any] = {}
        self.n_inputs: int | None = None  # of a stored classifier

    @classmethod
    def fit(
        cls,
        inputs: np.ndarray,
        codes: np.ndarray,
        n_values: int,
        weight: np.ndarray | None,
        *,
        seed: int,
        n_threads: int,
        grows: bool = True,
        rate: float | None = None,
    ) -> Self:
        """Learn codes (n,) from inputs (n, p), float32; the result does not depend on threads.

        ``weight`` (n,) are event weights, of which only the ratios matter. Without ``grows`` there
        are frequencies only. ``rate`` is the learning rate in a large table.
        """
        weight = relative_or_ones(weight, len(codes))
        shares = np.bincount(codes, weight, n_values) + 1e-3
        log_frequencies = np.log(shares / shares.sum()).astype(np.float32)
        settings = {**PARAMETERS, "num_class": n_values, "seed": seed, "nthread": n_threads}
        fold = (row_uniform(len(codes), derive(seed, "folds")) * FOLDS).astype(int)
        small = len(codes) * n_values <= LITTLE_WORK
        growth = SMALL if small else LARGE if rate is None else LARGE.slower(rate)
        bins = growth.bins(n_values)
        rows = _Rows(inputs, codes, weight, log_frequencies, bins)
        folds = [fold == k for k in range(FOLDS if small else 1)]
        folds = [held for held in folds if weight[held].any() and weight[~held].any()]
        settings |= growth.parameters | {"max_bin": bins}
        without = _mean([rows.loss_without_trees(held) for held in folds])
        trials = [_Trial(settings, 0, without)]
        if grows:
            tables = [_Fold.of(rows, held) for held in folds]
            trials = [_Trial.of(tables, growth, settings | {"max_depth": d}) for d in growth.depths]
        best = min(trials, key=lambda trial: trial.log_loss)
        booster = xgb.train(best.settings, rows.table(), best.rounds, verbose_eval=False)
        booster.set_attr(log_frequencies=" ".join(map(repr, rows.log_frequencies.tolist())))
        result = cls(booster, rows.log_frequencies)
        result.summary = {
            "trees": best.rounds,
            "log_loss_without_trees": without,
            "log_loss": best.log_loss,
        }
        return result

    def trees(self, inputs: np.ndarray) -> np.ndarray:
        """Return what trees add to the log frequencies, (n, K) or flat, float32."""
        return np.asarray(self.booster.inplace_predict(inputs, predict_type="margin"))

    @classmethod
    def from_bytes(cls, content: bytes, stored: CheckedBooster | None = None) -> Self:
        """Restore from UBJSON whose hash was checked, and maybe read. Raises FormatError."""
        stored = checked_booster(content) if stored is None else stored
        try:
            texts = stored.attributes["log_frequencies"].split()
            log_frequencies = np.array(texts, dtype=np.float32)
        except (KeyError, ValueError) as error:
            raise FormatError(f"a stored classifier lacks frequencies ({error})") from None
        whole = np.isfinite(log_frequencies).all() and len(log_frequencies) == stored.n_outputs
        if stored.objective != PARAMETERS["objective"] or not whole:
            raise FormatError(
                "a stored classifier of a column has another objective or other frequencies than"
                " outputs; learn it again"
            )
        classifier = cls(content, log_frequencies)
        classifier.n_inputs = stored.n_inputs
        return classifier


@dataclass(frozen=True, eq=False)
class _Rows:
    """Rows of a training: inputs (n, p), codes (n,), weights (n,), log frequencies (K,); bins."""

    inputs: np.ndarray
    codes: np.ndarray
    weight: np.ndarray
    log_frequencies: np.ndarray
    max_bin: int

    def table(
        self, rows: Any = slice(None), ref: xgb.QuantileDMatrix | None = None
    ) -> xgb.QuantileDMatrix:
        """Return some rows, binned as ``ref``; trees start from the log frequencies."""
        options = {"weight": self.weight[rows], "ref": ref, "max_bin": self.max_bin}
        matrix = binned(self.inputs[rows], self.codes[rows], **options)
        matrix.set_base_margin(np.tile(self.log_frequencies, (matrix.num_row(), 1)))
        return matrix

    def loss_without_trees(self, rows: np.ndarray) -> float:
        """Return the log loss of the frequencies in some rows."""
        log_shares = self.log_frequencies[self.codes[rows]]
        return float(-np.average(log_shares, weights=self.weight[rows]))


@dataclass(frozen=True, eq=False)
class _Fold:
    """Binned rows without a fold and of it, and the log loss of the frequencies in it."""

    train: xgb.QuantileDMatrix
    held: xgb.QuantileDMatrix
    loss_without_trees: float

    @classmethod
    def of(cls, rows: _Rows, held: np.ndarray) -> Self:
        train = rows.table(~held)
        return cls(train, rows.table(held, train), rows.loss_without_trees(held))


@dataclass(frozen=True)
class _Trial:
    """Settings, with the rounds that suit all rows and the log loss in the folds held out."""

    settings: dict[str, Any]
    rounds: int
    log_loss: float

    @classmethod
    def of(cls, folds: Sequence[_Fold], growth: Growth, settings: dict[str, Any]) -> Self:
        """Grow trees without each fold until they do not gain in it; none where they never do."""
        rounds, losses = [], []
        for fold in folds:
            booster = xgb.train(
                settings,
                fold.train,
                growth.most_rounds,
                evals=[(fold.held, "valid")],
                early_stopping_rounds=growth.patience,
                verbose_eval=False,
            )
            gains = booster.best_score < fold.loss_without_trees
            rounds.append(booster.best_iteration + 1 if gains else 0)
            losses.append(min(booster.best_score, fold.loss_without_trees))
        return cls(settings, round(MORE * _mean(rounds)), _mean(losses))


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else 0.0


def probabilities(margins: np.ndarray, allowed: np.ndarray | None) -> np.ndarray:
    """Return probabilities (n, K) from log odds (n, K); 0 for values that are not allowed.

    Where none is allowed, all are.
    """
    margins = margins.astype(np.float64)
    if allowed is not None:
        some = allowed.any(axis=1, keepdims=True)
        margins = np.where(allowed | ~some, margins, -np.inf)
    shares = np.exp(margins - margins.max(axis=1, keepdims=True))
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))
