"""The ratio of densities, real to generated, from a boosted classifier of the two.

A flow that was learned at a few times from finite events leaves differences that a classifier can
see. With the classifier's estimate w of the ratio, keeping an event with probability w / ceiling
removes what it sees, in all columns together.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np

from ..errors import FormatError
from ..seeding import derive, split_mask
from ..tables.checks import relative_or_ones
from .binned_rows import binned
from .boosted_trees import BoosterOnDemand
from .check_trees import checked_booster
from .xgboost_on_demand import xgb

RATE = 0.2

PARAMETERS = {
    "objective": "binary:logistic",
    "tree_method": "hist",
    "learning_rate": RATE,
    "subsample": 0.7,
    "min_child_weight": 1,  # of a weight of 1/4 per event at most: 4 events or more
    "verbosity": 1,
}
PER_ROUND, DEPTH, ROWS, MOST_DEPTH = 4, 5, 25_000, 7
"""Trees of a round, grown on different events and averaged, which makes less noise, and their depth
for so many real events. Of twice as many half of the trees do, and have as many events in a leaf
one level deeper, down to the last of these: the core compares all nodes of trees of up to 7 levels
with many events at once, and walks deeper ones event by event."""

MOST_ROUNDS = 500
PATIENCE = 25
HELD_OUT, FEW = 0.1, 100_000
"""Trees are added until a tenth of the events, kept apart, has not gained for so many rounds. Then
as many are grown on all real events, if these are few: it lowers the log loss of unseen rows as
much as the mean of five such classifiers. Smaller steps and more parallel trees lower it further,
but judges of the events that are kept saw no gain."""

MATCHING = (
    (30, {"max_depth": 4, "learning_rate": 0.2, "min_child_weight": 20}),
    (15, {"max_depth": 1, "learning_rate": 0.5, "min_child_weight": 5}),
)
"""Rounds of `DensityRatio.matched` and their settings: trees of several columns, which judges see,
then of single ones, whose spread is right in the end; those of several alone chase regions that no
generated event reaches. Weights of leaves are events that are kept. Of the former no more than a
quarter of the classifier's: where that has few, it bends little, and events should stay cheap; and
one for 300 real events: of 750 rows thirty of them learn what is the rows' own."""

CEILINGS = (0.995, *(round(0.99 - 0.01 * i, 2) for i in range(50)))
LEAST_ACCEPTANCE = 0.3
"""Events above a quantile of the ratio among generated ones are all kept: of the highest of these
quantiles at which three events in ten or more are kept. Higher ones would waste events on the few
largest ratios, which are the least known: on default and Z to ee judges see no more if so many are
kept than if one in five is. Never of less than 1: where few events are like real ones, all others
would be kept with them."""


def trees_of_round(n_real: int) -> tuple[int, int]:
    """Return the number of trees of a round, and their depth, for so many real events."""
    times = max(n_real / ROWS, 1.0)
    depth = DEPTH + int(np.log2(times))
    return max(round(PER_ROUND / times), 1), min(depth, MOST_DEPTH)


def parameters(n_real: int) -> dict[str, Any]:
    """Return XGBoost's parameters of the classifier for so many real events."""
    n_trees, depth = trees_of_round(n_real)
    return {**PARAMETERS, "num_parallel_tree": n_trees, "max_depth": depth}


class DensityRatio(BoosterOnDemand):
    """Ratio of densities real / generated from a boosted classifier, for rejection sampling.

    With equal total weights of both classes the log odds of the best classifier are
    log p_real(x) - log p_generated(x). Azadi et al., "Discriminator Rejection Sampling",
    arXiv 1810.06758, section 3.

    ``acceptance`` is the share of generated events that is kept, ``n_trees`` the number of trees.
    """

    n_inputs: int | None = None  # of a stored classifier

    def __init__(
        self, stored: xgb.Booster | bytes, ceiling: float, acceptance: float, n_trees: int
    ) -> None:
        super().__init__(stored)
        self.ceiling, self.acceptance, self.n_trees = ceiling, acceptance, n_trees
        self.log_ratio: Callable[[np.ndarray], np.ndarray] = self._log_ratio
        """(n, d) float32 -> (n,) or (n, 1) float32."""

    def _log_ratio(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(self.booster.inplace_predict(x, predict_type="margin"))

    @classmethod
    def fit(
        cls,
        real: np.ndarray,
        generated: np.ndarray,
        weight: np.ndarray | None,
        *,
        conditional: bool = False,
        seed: int,
        n_threads: int,
        rate: float | None = None,
        again: float = 1.0,
        least: float = LEAST_ACCEPTANCE,
    ) -> Self:
        """Learn to tell real (n, d) from generated (k, d) events; ``weight`` (n,) of the real ones.

        With ``conditional`` generated event i has the conditions of the real event i % n. Both are
        trained on or both kept apart then: else events kept apart would have the conditions of
        training events of the other class, and training would end too early. The trees are grown
        again on all real events, where these are few, in steps ``again`` times as large, or not at
        all with 0; ``rate`` is another learning rate than the usual one; ``least`` is the share of
        generated events to keep at least. The result does not depend on ``n_threads``.
        """
        rows, weight = (real, generated), relative_or_ones(weight, len(real))
        apart = split_mask(len(real), HELD_OUT, derive(seed, "ratio-real"))
        if conditional:
            held = apart, np.resize(apart, len(generated))
        else:
            held = apart, split_mask(len(generated), HELD_OUT, derive(seed, "ratio-generated"))
        shares = (weight, np.full(len(generated), len(real) / len(generated)))
        train = _labelled(rows, shares, [~mask for mask in held])
        valid = _labelled(rows, shares, held, ref=train)
        rate = rate or RATE
        settings = {**parameters(len(real)), "seed": seed, "nthread": n_threads}
        settings["learning_rate"] = rate
        booster = xgb.train(
            settings,
            train,
            round(MOST_ROUNDS * RATE / rate),
            evals=[(valid, "valid")],
            early_stopping_rounds=max(round(PATIENCE * RATE / rate), 1),
            verbose_eval=False,
        )
        n_rounds = booster.best_iteration + 1
        del train, valid
        if again and len(real) < FEW:
            everything = _labelled(rows, shares, (np.ones(len(real), dtype=bool), ~held[1]))
            settings["learning_rate"] = min(again * rate, 1.0)
            booster = xgb.train(settings, everything, n_rounds, verbose_eval=False)
        else:
            booster = booster[:n_rounds]
        held_out = generated[held[1]].astype(np.float32)
        log_ratio = booster.inplace_predict(held_out, predict_type="margin")
        ceiling, acceptance = _ceiling(np.exp(log_ratio.astype(np.float64)), least)
        booster.set_attr(ceiling=repr(ceiling), acceptance=repr(acceptance))
        return cls(booster, ceiling, acceptance, n_rounds * settings["num_parallel_tree"])

    def matched(
        self,
        real: np.ndarray,
        generated: np.ndarray,
        weight: np.ndarray | None,
        *,
        seed: int,
        n_threads: int,
        least: float = LEAST_ACCEPTANCE,
    ) -> Self:
        """Return the ratio with more trees, so that what is kept is spread in each column as real.

        ``real`` (n, d) and ``weight`` (n,) as for `fit`; ``generated`` (k, d) are other events than
        those of `fit`, which the classifier knows and finds too unlike real ones. The trees f
        minimise mean_generated exp(log ratio + f) - mean_real f, the exponential continued as a
        line above the ceiling (the loss of D'Agnolo and Wulzer, arXiv 1806.02350). Where they
        converge, as much of what is kept as of real events lies on either side of each cut, and
        the mean ratio is 1. The share that is kept stays about the same.
        """
        rows, real_weight = (real, generated), relative_or_ones(weight, len(real))
        margin = self.log_ratio(generated.astype(np.float32)).astype(np.float64)
        top = -np.log(_ceiling(np.exp(margin), least)[1])

        def gradient(margin: np.ndarray, table: xgb.DMatrix) -> tuple[np.ndarray, np.ndarray]:
            of_row, is_real = table.get_weight(), table.get_label() == 1
            of_made = of_row * np.where(is_real, 0, np.exp(np.minimum(margin, top)))
            return of_made - of_row * is_real, of_made

        table = _labelled(
            rows,
            (real_weight, np.ones(len(generated))),
            [np.ones(len(each), dtype=bool) for each in rows],
        )
        booster = self.booster.copy()  # one that goes on keeps its prediction of the rows
        # a booster that goes on would not begin the random numbers of its seed anew
        settings = {**parameters(len(real)), "seed": seed, "nthread": n_threads}
        booster.set_param({**settings, "seed_per_iteration": True})
        rounds = min(booster.num_boosted_rounds() // 4, len(real) // 300)
        (several, of_several), (single, of_single) = MATCHING
        for n_rounds, changes in ((min(several, rounds), of_several), (single, of_single)):
            booster.set_param(changes)
            for _ in range(n_rounds):
                booster.update(table, booster.num_boosted_rounds(), fobj=gradient)
        ceiling = float(np.exp(top))
        margin = booster.predict(table, output_margin=True)[len(real) :]
        acceptance = float(np.exp(np.minimum(margin.astype(np.float64) - top, 0)).mean())
        booster.set_attr(ceiling=repr(ceiling), acceptance=repr(acceptance))
        n_trees = booster.num_boosted_rounds() * settings["num_parallel_tree"]
        return type(self)(booster, ceiling, acceptance, n_trees)

    def keeps(self, x: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """Return which events (n, d) to keep, bool (n,), from uniform random numbers (n,)."""
        log_ratio = self.log_ratio(np.ascontiguousarray(x, dtype=np.float32)).reshape(len(x))
        return uniform * self.ceiling < np.exp(log_ratio.astype(np.float64))

    def log_weight(self, x: np.ndarray) -> np.ndarray:
        """Return the log of the chance to keep events (n, d), up to a constant, (n,) float64."""
        log_ratio = self.log_ratio(np.ascontiguousarray(x, dtype=np.float32)).reshape(len(x))
        return np.minimum(log_ratio.astype(np.float64), np.log(self.ceiling))

    def with_trees(self, log_ratio: Callable[[np.ndarray], np.ndarray]) -> Self:
        """Return the same ratio with another function that evaluates its trees."""
        other = copy.copy(self)
        other.log_ratio = log_ratio
        return other

    def note(self, **numbers: float) -> None:
        """Keep numbers by name beside the trees."""
        self.booster.set_attr(**{name: repr(value) for name, value in numbers.items()})

    def noted(self, name: str) -> float:
        """Return a number that was kept. Raises FormatError."""
        try:
            return float(self.booster.attr(name) or "")
        except ValueError:
            raise FormatError(f"a stored ratio has no number {name}; learn it again") from None

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Restore from UBJSON whose hash was checked. Raises FormatError."""
        stored = checked_booster(content)
        try:
            ceiling, acceptance = (float(stored.attributes[k]) for k in ("ceiling", "acceptance"))
        except (KeyError, ValueError) as error:
            raise FormatError(f"a stored classifier lacks its {error}") from None
        if stored.objective != PARAMETERS["objective"] or stored.n_outputs != 1:
            raise FormatError(
                "a stored classifier has another objective or more than one output; learn it again"
            )
        return cls.stored(content, ceiling, acceptance, len(stored.outputs), stored.n_inputs)

    @classmethod
    def stored(
        cls, content: bytes, ceiling: float, acceptance: float, n_trees: int, n_inputs: int
    ) -> Self:
        """Restore from UBJSON, unread, of which all this is known. Raises FormatError."""
        if not (0 < ceiling < np.inf and 0 < acceptance <= 1):
            raise FormatError(
                "a stored classifier must have a ceiling above 0 and an acceptance from 0 to 1,"
                f" not {ceiling!r} and {acceptance!r}"
            )
        ratio = cls(content, ceiling, acceptance, n_trees)
        ratio.n_inputs = n_inputs
        return ratio


def _ceiling(ratio: np.ndarray, least: float) -> tuple[float, float]:
    """Return the ratio from which on events are always kept, and the share that is kept then."""
    for quantile in CEILINGS:
        ceiling = max(float(np.quantile(ratio, quantile)), 1.0)
        acceptance = float(np.minimum(ratio / ceiling, 1.0).mean())
        if acceptance >= least or ceiling == 1.0:
            break
    return ceiling, acceptance


def _labelled(
    rows: Sequence[np.ndarray],
    weights: Sequence[np.ndarray],
    used: Sequence[np.ndarray],
    ref: xgb.QuantileDMatrix | None = None,
) -> xgb.QuantileDMatrix:
    """Return the real rows used, labelled 1, and after them the generated ones, labelled 0.

    Both kinds have the total weight of the real ones.
    """
    kept = [x[mask].astype(np.float32) for x, mask in zip(rows, used, strict=True)]
    shares = [w[mask] for w, mask in zip(weights, used, strict=True)]
    total = shares[0].sum()
    share = np.concatenate([shares[0], shares[1] * (total / shares[1].sum())])
    label = np.repeat([1.0, 0.0], [len(x) for x in kept])
    return binned(np.vstack(kept), label, weight=share, ref=ref)
