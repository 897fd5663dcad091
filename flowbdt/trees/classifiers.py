"""Probabilities of the values of a discrete column, by boosted trees."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import xgboost as xgb

from ..errors import FormatError
from ..seeding import derive, row_uniform
from ..tables.checks import relative
from .binned_rows import binned
from .boosted_trees import load_booster

PARAMETERS = {
    "objective": "multi:softprob",
    "multi_strategy": "multi_output_tree",
    "tree_method": "hist",
    "base_score": 0.0,  # trees learn what is left of the frequencies
    "max_depth": 3,  # deeper trees gained nothing on adult, Z to ee and default
    "learning_rate": 0.2,
    "reg_lambda": 2.0,
    "max_bin": 256,  # edges such as that of the barrel at |eta| = 1.48 need fine bins
    "verbosity": 1,
}
MOST_ROUNDS = 150
PATIENCE = 6
FOLDS = 5
FEW_ROWS = 2_500
"""Up to so many rows the number of rounds is the mean over all folds; beyond, that of one."""
MORE = 1.05
"""All rows bear so many more rounds than those without the fold."""


class ValueClassifier:
    """Classifier of the values of one column: log frequencies plus the trees of a booster.

    The trees are grown on all rows. How many there are is found by cross-validation, each fold
    being judged by trees that were grown on the others.
    """

    def __init__(self, booster: xgb.Booster, log_frequencies: np.ndarray) -> None:
        self.booster, self.log_frequencies = booster, log_frequencies
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
    ) -> Self:
        """Learn codes (n,) from inputs (n, p), float32; the result does not depend on threads.

        ``weight`` (n,) are event weights, of which only the ratios matter.
        """
        weight = np.ones(len(codes)) if weight is None else relative(weight)
        shares = np.bincount(codes, weight, n_values) + 1e-3
        log_frequencies = np.log(shares / shares.sum()).astype(np.float32)
        settings = {**PARAMETERS, "num_class": n_values, "seed": seed, "nthread": n_threads}

        def table(rows: Any, ref: xgb.QuantileDMatrix | None = None) -> xgb.QuantileDMatrix:
            options = {"weight": weight[rows], "ref": ref, "max_bin": PARAMETERS["max_bin"]}
            matrix = binned(inputs[rows], codes[rows], **options)
            matrix.set_base_margin(np.tile(log_frequencies, (matrix.num_row(), 1)))
            return matrix

        fold = (row_uniform(len(codes), derive(seed, "folds")) * FOLDS).astype(int)
        rounds, losses = [], np.zeros(2)
        for k in range(FOLDS if len(codes) <= FEW_ROWS else 1):
            held = fold == k
            if not weight[held].any() or not weight[~held].any():
                continue
            train = table(~held)
            booster = xgb.train(
                settings,
                train,
                MOST_ROUNDS,
                evals=[(table(held, train), "valid")],
                early_stopping_rounds=PATIENCE,
                verbose_eval=False,
            )
            before = -np.average(log_frequencies[codes[held]], weights=weight[held])
            rounds.append(booster.best_iteration + 1 if booster.best_score < before else 0)
            losses += [before, min(booster.best_score, before)]
        n_rounds = round(MORE * float(np.mean(rounds))) if rounds else 0
        booster = xgb.train(settings, table(slice(None)), n_rounds, verbose_eval=False)
        booster.set_attr(log_frequencies=" ".join(map(repr, log_frequencies.tolist())))
        result = cls(booster, log_frequencies)
        losses /= max(len(rounds), 1)
        result.summary = {
            "trees": n_rounds,
            "log_loss_without_trees": losses[0],
            "log_loss": losses[1],
        }
        return result

    def trees(self, inputs: np.ndarray) -> np.ndarray:
        """Return what trees add to the log frequencies, (n, K) or flat, float32."""
        return np.asarray(self.booster.inplace_predict(inputs, predict_type="margin"))

    def to_bytes(self) -> bytes:
        """Return trees and frequencies as UBJSON."""
        return bytes(self.booster.save_raw("ubj"))

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Restore from UBJSON whose hash was checked. Raises FormatError."""
        booster, stored = load_booster(content)
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
        classifier = cls(booster, log_frequencies)
        classifier.n_inputs = stored.n_inputs
        return classifier


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


def drawn(shares: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Return codes (n,) with probabilities (n, K), from uniform numbers (n,)."""
    edges = np.cumsum(shares, axis=1)[:, :-1]
    last = shares.shape[1] - 1 - np.argmax(shares[:, ::-1] > 0, axis=1)  # not one of probability 0
    return np.minimum((edges <= uniform[:, None]).sum(axis=1), last)
