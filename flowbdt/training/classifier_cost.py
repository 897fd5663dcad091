"""Expected CPU time and memory of the classifiers that draw discrete columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..trees import classifiers
from .expected_cost import NANOSECONDS, Cost, estimate
from .mixture_cost import n_inputs

STARTED_S = 0.08
"""CPU time of a classifier beside its trees: to read and bin the rows, and to write."""

USUAL_ROUNDS, OF_MANY, MANY = 62, 25, 32
"""Rounds to expect, and of a column of more than so many values: medians on adult and default of
credit cards, where they go from 13 to 189."""

OF_TREES = ("histogram", "search", "outputs")
"""Work that counts: there is one group of outputs, and trees are few and small."""


def classifier_costs(plan: Mapping[str, Any]) -> list[tuple[float, float, float]]:
    """Return of each classifier the CPU seconds to expect and at most, and its peak in MiB.

    ``plan`` as of `expected_cost.outline`. Each column sees the numbers, and the codes of those
    before it. Not in it: inputs made of several columns, where such coordinates are learned.
    """
    n_rows, values = plan["n_train"] + plan["n_valid"], list(plan["n_values"].values())
    return [_one(n_rows, n_inputs(plan), values[:k], values[k]) for k in range(len(values))]


def _one(n_rows: int, n_numbers: int, seen: list[int], n: int) -> tuple[float, float, float]:
    """Return the cost of a column of ``n`` values that sees numbers and codes of columns."""
    small = n_rows * n <= classifiers.LITTLE_WORK
    growth = classifiers.SMALL if small else classifiers.LARGE
    most_bins = growth.bins(n)
    bins = most_bins * n_numbers + sum(min(k, most_bins) for k in seen)
    width = max(n_numbers + len(seen), 1)

    def grown(rounds: int, depth: int, rows: int, held: int = 0) -> Cost:
        booster = classifiers.PARAMETERS | {"n_estimators": rounds, "max_depth": depth}
        return estimate(booster | {"max_bin": max(bins // width, 2)}, rows, width, n, held)

    def seconds(rounds: int, most: int) -> float:
        held = n_rows // classifiers.FOLDS
        folds = [grown(most, depth, n_rows - held, held) for depth in growth.depths]
        folds *= classifiers.FOLDS if small else 1
        parts = [*folds, grown(rounds, growth.depths[-1], n_rows)]
        return STARTED_S + sum(NANOSECONDS[k] * p.work[k] for p in parts for k in OF_TREES) * 1e-9

    usual = min(OF_MANY if n > MANY else USUAL_ROUNDS, growth.most_rounds)
    peak = grown(growth.most_rounds, growth.depths[-1], n_rows).memory_mib
    return (
        seconds(usual, min(usual + growth.patience, growth.most_rounds)),
        seconds(growth.most_rounds, growth.most_rounds),
        peak,
    )
