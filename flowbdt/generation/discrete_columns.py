"""Draw the discrete columns of generated events, one after the other, from classifiers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..errors import ConfigError
from ..seeding import RowNoise
from ..tables.conditions import ColumnScaling
from ..tables.transforms import TableTransform
from ..training.train_classifier import classifier_inputs
from ..trees.classifiers import ValueClassifier, drawn, probabilities
from ..trees.tree_arrays import forests
from .compiled.engine import CompiledTrees, warn_slow


class DiscreteColumns:
    """Draws codes given numeric columns, conditions and the codes before.

    Parameters
    ----------
    transform, scaling : of the run, the latter of columns and conditions
    classifiers : one for each column of the skeleton, in its order
    log_odds : functions that evaluate their trees, (n, p) float32 -> (n, K) float32
    """

    def __init__(
        self,
        transform: TableTransform,
        scaling: ColumnScaling,
        classifiers: Sequence[ValueClassifier],
        log_odds: Sequence[Callable[[np.ndarray], np.ndarray]],
    ) -> None:
        self._transform, n_columns = transform, len(transform.names)
        self._columns, self._conditions = scaling[:n_columns], scaling[n_columns:]
        self._classifiers, self._log_odds = classifiers, log_odds

    def codes(
        self, x: np.ndarray, cond: np.ndarray | None, seed: int, rows: np.ndarray, attempt: int
    ) -> np.ndarray:
        """Return codes (n, q), int, for the numeric columns of events (n, d) of these row numbers.

        ``cond`` (n, c) is in the units of the table.
        """
        known = np.full((len(x), len(self._classifiers)), -1)
        return self.codes_given(x, cond, seed, rows, attempt, known)[0]

    def codes_given(
        self,
        x: np.ndarray,
        cond: np.ndarray | None,
        seed: int,
        rows: np.ndarray,
        attempt: int,
        known: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return codes (n, q) of which some are known, and the log of their probability (n,).

        ``known`` (n, q) is -1 where a code is unknown. Values that exclude a later known one are
        not drawn; the probability is that of the known codes and of not having drawn such.
        """
        scaled = None if cond is None else self._conditions.forward(cond)
        codes, log_weight = np.zeros(known.shape, dtype=np.int64), np.zeros(len(x))
        skeleton, rule = self._transform.skeleton, np.arange(len(x))
        for k, classifier in enumerate(self._classifiers):
            inputs = classifier_inputs(self._transform, self._columns, x, scaled, codes[:, :k])
            margins = self._log_odds[k](inputs).reshape(len(x), -1) + classifier.log_frequencies
            shares = probabilities(margins, skeleton.allows(codes, k))
            is_known, fits = known[:, k] >= 0, skeleton.fits(known, k)
            uniform = RowNoise(seed, "classify", rows, (k, attempt), once=True).random()
            with np.errstate(divide="ignore"):
                if fits is not None:
                    left = np.where(fits, shares, 0.0)
                    total = left.sum(axis=1)
                    log_weight += np.where(is_known, 0.0, np.log(total))
                    possible = total > 0
                    shares[possible] = left[possible] / total[possible, None]
                log_weight += np.where(is_known, np.log(shares[rule, known[:, k]]), 0.0)
            codes[:, k] = np.where(is_known, known[:, k], drawn(shares, uniform))
        return codes, log_weight


def log_odds_of(
    content: bytes, compiled: bool, n_threads: int
) -> tuple[ValueClassifier, Callable[[np.ndarray], np.ndarray]]:
    """Return a stored classifier, and the function that evaluates its trees, compiled or not."""
    classifier = ValueClassifier.from_bytes(content)
    if compiled:
        try:
            return classifier, CompiledTrees(*forests(content)).predict
        except ConfigError as error:
            warn_slow(str(error))
    classifier.booster.set_param({"nthread": n_threads})
    return classifier, classifier.trees
