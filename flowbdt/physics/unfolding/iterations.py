"""How many iterations: too few keep the simulation's spectrum, too many follow the data's noise."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from .inputs import UnfoldingInputs
from .odds import folds
from .unfolded import folded_chi2

if TYPE_CHECKING:
    from .omnifold import OmniFold

MOST_ITERATIONS = 8
"""That cross-validation tries."""
MORE = 2
"""Iterations are taken for each of those that predict best: these leave as much of the prior as
they keep out noise, so that intervals cover too little (M. Kuusela and V. M. Panaretos, Ann. Appl.
Stat. 9 (2015) 1671, doi:10.1214/15-AOAS857, on smoothing that is chosen to predict)."""
DATA_FOLDS = 2


@dataclass(frozen=True)
class Tradeoff:
    """What a number of iterations gains and costs.

    Parameters
    ----------
    iterations : 1, 2, ...
    held_out : chi2 per bin, mean of the columns, of data that were not unfolded against what was
        unfolded from the others, folded back
    unfolded : the same of the data that were unfolded
    worth : how many events of weight 1 the unfolded weights are worth, over their number
    change : root mean square change of the log weights by this iteration
    """

    iterations: int
    held_out: float
    unfolded: float
    worth: float
    change: float


def tradeoffs(omnifold: OmniFold, most: int = MOST_ITERATIONS) -> tuple[int, list[Tradeoff]]:
    """Choose a number of iterations by cross-validation over two halves of the data.

    Each half is unfolded and folded back, and held against the other half. `MORE` times the number
    with the least chi2 is taken.

    Returns
    -------
    the number taken, and a `Tradeoff` for 1 to ``most``
    """
    inputs, found = omnifold.inputs, []
    half = folds(inputs.data.n, DATA_FOLDS, omnifold.settings.seed, "halves of the data")
    for k in range(DATA_FOLDS):
        rest = inputs.reweighted(data=DATA_FOLDS * (half != k).astype(float))
        held = DATA_FOLDS * (half == k) * inputs.data_weight
        rows, before = [], _prior(inputs)
        for state in islice(omnifold.iterations(rest), most):
            log_weight = np.log(state.weight[inputs.both])
            rows.append(
                (
                    float(np.mean(list(folded_chi2(inputs, state.weight, held).values()))),
                    float(np.mean(list(folded_chi2(rest, state.weight).values()))),
                    _worth(state.weight[inputs.pass_truth]),
                    float((log_weight - before).std()),
                )
            )
            before = log_weight
        found.append(rows)
    mean = np.mean(found, axis=0)
    table = [Tradeoff(i + 1, *map(float, row)) for i, row in enumerate(mean)]
    return MORE * min(table, key=lambda row: row.held_out).iterations, table


def _prior(inputs: UnfoldingInputs) -> np.ndarray:
    return np.log(np.maximum(inputs.weight[inputs.both], np.finfo(float).tiny))


def _worth(weight: np.ndarray) -> float:
    return float(weight.sum() ** 2 / (weight**2).sum() / max(np.count_nonzero(weight), 1))
