"""Draw the discrete columns of generated events, one after the other, from classifiers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..errors import ConfigError
from ..flow.closed_form.mixture import MixturePreconditioner
from ..seeding import RowNoise, drawn, row_numbers, stream
from ..tables.conditions import ColumnScaling
from ..tables.transforms import TableTransform
from ..training.train_classifier import classifier_inputs, known_inputs
from ..trees.check_trees import checked_booster
from ..trees.classifiers import ValueClassifier, probabilities
from ..trees.tree_arrays import Forest, forests
from .native.core import Discrete
from .native.engine import native_trees, warn_slow
from .packed.array_file import Arrays
from .packed.pack_discrete import discrete_arrays, drawn_arrays

GOLDEN = (5**0.5 - 1) / 2


class DiscreteColumns:
    """Draws codes given numeric columns, conditions and the codes before.

    Parameters
    ----------
    transform, scaling : of the run, the latter of columns and conditions
    classifiers : one for each column of the skeleton, in its order
    log_odds : functions that evaluate their trees, (n, p) float32 -> (n, K) float32
    first : the closed form, if it has a mixture for each value of the first column: that tells the
        values at a latent point, and not a classifier
    at_once : all classifiers compiled to one pass, for rows of which nothing is known, or None
    """

    def __init__(
        self,
        transform: TableTransform,
        scaling: ColumnScaling,
        classifiers: Sequence[ValueClassifier],
        log_odds: Sequence[Callable[[np.ndarray], np.ndarray]],
        first: MixturePreconditioner | None = None,
        at_once: Discrete | None = None,
    ) -> None:
        self._transform, n_columns = transform, len(transform.names)
        self._columns, self._conditions = scaling[:n_columns], scaling[n_columns:]
        self._classifiers, self._log_odds, self._first = classifiers, log_odds, first
        self._at_once = at_once

    def packed(self) -> Arrays:
        """Return how the columns of single events are drawn, for a file. Raises ConfigError."""
        transform, n_known = self._transform, len(self._conditions.centre)
        if self._first is not None:
            raise ConfigError(
                f"the closed form knows the values of {transform.skeleton.names[0]!r}, which an"
                " export does not; fit with preconditioner='gaussian'"
            )
        if transform.has_copies:
            raise ConfigError(
                "a column always equals another or has one value; leave it out, or fit with the"
                " transform 'rank' for it"
            )
        trees = [forests(classifier.to_bytes())[0] for classifier in self._classifiers]
        frequencies = [classifier.log_frequencies for classifier in self._classifiers]
        parts = transform, self._columns, frequencies, trees, n_known + len(transform.coordinates)
        return {**discrete_arrays(*parts, "classifiers"), **drawn_arrays(transform)}

    @property
    def is_compiled(self) -> bool:
        """True if all codes of rows of which nothing is known are drawn in one compiled pass."""
        return self._at_once is not None

    @property
    def keeps_shares(self) -> bool:
        """True if `wanted` says which values the first column shall have."""
        return self._first is not None

    def wanted(self, seed: int, rows: np.ndarray) -> np.ndarray:
        """Return the codes (n,) that the first column shall have in events of these row numbers.

        Its shares are nearly kept in any run of rows: fractions of multiples of the golden ratio
        are spread evenly.
        """
        assert self._first is not None
        turns = (stream(seed, "wanted").random() + rows * GOLDEN) % 1.0
        return drawn(np.tile(self._first.shares_of_values, (len(rows), 1)), turns)

    def columns(
        self,
        latent: np.ndarray,
        cond: np.ndarray | None,
        seed: int,
        rows: np.ndarray,
        attempt: int,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return columns (n, d), discrete ones left open, and codes (n, q) of events.

        ``latent`` (n, m) are their latent columns before the joint transform, ``rows`` (n,) their
        numbers; ``cond`` (n, c) is in the units of the table.
        """
        if self.is_compiled:
            x = self._transform.columns_of(latent, cond)
            return x, self.codes(x, cond, seed, rows, attempt)
        known = np.full((len(latent), len(self._classifiers)), -1)
        return self.columns_given(None, latent, cond, seed, rows, attempt, known)[:2]

    def codes(
        self, x: np.ndarray, cond: np.ndarray | None, seed: int, rows: np.ndarray, attempt: int
    ) -> np.ndarray:
        """Return the codes (n, q) of events of which the numeric columns, x (n, d), are known."""
        assert self._at_once is not None
        keys = [(k, attempt) for k in range(len(self._classifiers))]
        uniform = row_numbers(seed, "classify", rows, keys)
        return self._at_once.draw(x.copy(), self._known(x, cond), uniform)

    def columns_given(
        self,
        smooth: np.ndarray | None,
        latent: np.ndarray,
        cond: np.ndarray | None,
        seed: int,
        rows: np.ndarray,
        attempt: int,
        known: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the same of which some are known, and the log of their probability (n,).

        ``smooth`` (n, d) has known columns, NaN elsewhere, ``known`` (n, q) is -1 where a code is
        unknown. Values that exclude a later known one are not drawn; the probability is that of
        the known codes and of not having drawn such.
        """
        codes, log_weight = np.zeros(known.shape, dtype=np.int64), np.zeros(len(latent))
        transform, rule = self._transform, np.arange(len(latent))
        values = _filled(smooth, transform.columns_of(latent, cond))
        skeleton, x, inputs = transform.skeleton, values.copy(), self._known(values, cond)
        for k in range(len(self._classifiers)):
            if k or self._first is None:
                shares = self._shares(k, x, inputs, codes, skeleton.allows(codes, k))
            else:
                points = transform.joint.forward(latent)
                shares = probabilities(self._first.log_probabilities(points), None)
            is_known, fits = known[:, k] >= 0, skeleton.fits(known, k)
            uniform = RowNoise(seed, "classify", rows, (k, attempt), once=True).random()
            with np.errstate(divide="ignore"):
                log_weight += np.where(is_known, np.log(shares[rule, known[:, k]]), 0.0)
                if fits is not None:
                    left = np.where(fits, shares, 0.0)
                    total = left.sum(axis=1)
                    log_weight += np.where(is_known, 0.0, np.log(total))
                    possible = total > 0
                    shares[possible] = left[possible] / total[possible, None]
            codes[:, k] = np.where(is_known, known[:, k], drawn(shares, uniform))
            if not k and self._first is not None and self._first.margins is not None:
                bent = self._first.margins.bent(latent, codes[:, 0])
                values = _filled(smooth, transform.columns_of(bent, cond))
                x, inputs = values.copy(), self._known(values, cond)
            transform.enter_kinds(x, codes, k)
        return values, codes, log_weight

    def log_probability(
        self, x: np.ndarray, cond: np.ndarray | None, codes: np.ndarray
    ) -> np.ndarray:
        """Return the log of the probability (n,) of codes (n, q), by the classifiers.

        ``x`` (n, d) are columns, discrete ones open. What the closed form tells is left out.
        """
        x, result, inputs = x.copy(), np.zeros(len(x)), self._known(x, cond)
        for k in range(len(self._classifiers)):
            if k or self._first is None:
                allowed = self._transform.skeleton.allows(codes, k)
                shares = self._shares(k, x, inputs, codes, allowed)
                with np.errstate(divide="ignore"):
                    result += np.log(shares[np.arange(len(x)), codes[:, k]])
            self._transform.enter_kinds(x, codes, k)
        return result

    def completed(
        self,
        x: np.ndarray,
        codes: np.ndarray,
        seed: int,
        rows: np.ndarray,
        cond: np.ndarray | None,
        fills: bool = False,
    ) -> np.ndarray:
        """Return all columns (n, d) of events, from numeric ones (n, d) and codes (n, q).

        What is missing is NaN, or with ``fills`` has a value.
        """
        x = x.copy()
        if fills:
            codes = self.filled(x, cond, codes, seed, rows)
        self._transform.complete(x, codes, cond, gaps=not fills)
        return x

    def filled(
        self,
        x: np.ndarray,
        cond: np.ndarray | None,
        codes: np.ndarray,
        seed: int,
        rows: np.ndarray,
    ) -> np.ndarray:
        """Return the codes (n, q) of events with others in place of those of a missing value."""
        x, codes, skeleton = x.copy(), codes.copy(), self._transform.skeleton
        inputs = self._known(x, cond)
        for k in range(len(self._classifiers)):
            gaps = np.flatnonzero(skeleton.are_missing(codes, k))
            if len(gaps):
                some, allowed = codes[gaps], skeleton.fills(codes[gaps], k)
                shares = self._shares(k, x[gaps], inputs[gaps], some, allowed)
                uniform = RowNoise(seed, "fill", rows[gaps], (k,), once=True).random()
                codes[gaps, k] = drawn(shares, uniform)
            self._transform.enter_kinds(x, codes, k)
        return codes

    def _known(self, x: np.ndarray, cond: np.ndarray | None) -> np.ndarray:
        """Return what classifiers see of events (n, d) beside numeric columns and codes, (n, k)."""
        scaled = None if cond is None else self._conditions.forward(cond)
        return known_inputs(self._transform, x, scaled, cond)

    def _shares(
        self,
        k: int,
        x: np.ndarray,
        known: np.ndarray,
        codes: np.ndarray,
        allowed: np.ndarray | None,
    ) -> np.ndarray:
        """Return the probabilities (n, K) of the values of column k."""
        inputs = classifier_inputs(self._transform, self._columns, x, known, codes[:, :k])
        margins = self._log_odds[k](inputs).reshape(len(x), -1)
        return probabilities(margins + self._classifiers[k].log_frequencies, allowed)


def _filled(given: np.ndarray | None, values: np.ndarray) -> np.ndarray:
    """Return given values (n, d), others where they are NaN."""
    return values if given is None else np.where(np.isnan(given), values, given)


def log_odds_of(
    content: bytes, compiled: bool, n_threads: int
) -> tuple[ValueClassifier, Callable[[np.ndarray], np.ndarray], list[Forest] | None]:
    """Return a stored classifier, the function that evaluates its trees, and what is compiled."""
    stored = checked_booster(content)
    classifier = ValueClassifier.from_bytes(content, stored)
    if compiled:
        try:
            trees, n_inputs = forests(stored)
            return classifier, native_trees(trees, n_inputs).predict, trees
        except ConfigError as error:
            warn_slow(str(error))
    classifier.set_threads(n_threads)
    return classifier, classifier.trees, None
