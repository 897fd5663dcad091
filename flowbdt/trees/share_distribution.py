"""Conditional distribution of a share between 0 and 1, by boosted trees.

Exactly 0 and exactly 1 have probabilities, from a boosted classifier. The shares between are
described in three steps, each a few trees: location and scale of their logit; one tree with the
quantiles within each of its leaves; boosted trees that bend the distribution of the leaf. Sampling
inverts these steps from one uniform number. Without the classifier, as in older models and where
there are few ends, the leaves have the probabilities of the ends, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Self

import msgspec
import numpy as np

from ..atomic_files import stored_array
from ..errors import ConfigError, FormatError, InputError
from ..typed_settings import AtLeastOne, AtLeastZero, check_settings
from . import ubjson
from .binned_rows import binned
from .boosted_trees import load_booster
from .check_trees import CheckedBooster
from .tree_arrays import read_booster
from .xgboost_on_demand import xgb

CLIP = 1e-9
"""Least distance of a share between 0 and 1 from either."""

LOGIT_CLIP = 1e-4
"""The same in the fit of the location."""

MEAN_LOG_NORMAL = -0.635
"""Mean of log |z| of a standard normal number z: from log deviations to standard deviations."""

RAREST = 1e-7
"""Probability of an end that no row has; 0 has no logit."""

FEWEST = 200
"""Least number of shares between 0 and 1 for location and scale."""

TREES = {"tree_method": "hist", "verbosity": 1}
VECTOR = {"multi_strategy": "multi_output_tree"}


@dataclass(frozen=True)
class DistributionSettings:
    """Numbers and depths of the trees."""

    location_trees: AtLeastZero = 60  # for the location; half as many for the scale; 0: neither
    depth: AtLeastZero = 5  # of the tree with the quantiles
    least_rows: AtLeastOne = 80  # of its leaves
    knots: Annotated[int, msgspec.Meta(ge=2)] = 33  # quantiles per leaf
    cdf_trees: AtLeastZero = 40  # that bend the distribution
    cdf_depth: AtLeastZero = 4
    cdf_rate: Annotated[float, msgspec.Meta(gt=0, lt=1e9)] = 0.1
    cdf_knots: AtLeastOne = 15
    end_trees: AtLeastZero = 40  # for the probabilities of 0 and 1; 0: those of the leaves

    @classmethod
    def of(cls, changes: Mapping[str, Any]) -> Self:
        """Return settings with changes. Raises ConfigError for an unknown or impossible one."""
        return cls(**check_settings(changes, cls, "setting of a distribution"))


class ConditionalDistribution:
    """Distribution of a share in [0, 1] under features.

    Quantiles within leaves: Meinshausen, J. Mach. Learn. Res. 7 (2006) 983. That trees on the
    indicators ``share <= q`` minimise the continuous ranked probability score: Gneiting, Raftery,
    J. Am. Stat. Assoc. 102 (2007) 359, section 4.2.
    """

    def __init__(self, settings: DistributionSettings) -> None:
        self.settings = settings
        self._boosters: dict[str, xgb.Booster] = {}
        self.n_inputs: int | None = None  # of a stored one

    def fit(self, inputs: np.ndarray, share: np.ndarray, *, seed: int, n_threads: int = 1) -> Self:
        """Learn from features (n, k), NaN = missing, and shares (n,). Raises InputError.

        The result does not depend on ``n_threads``.
        """
        inputs = np.ascontiguousarray(inputs, dtype=np.float32)
        share = np.asarray(share, dtype=np.float64)
        if len(inputs) != len(share) or not ((share >= 0) & (share <= 1)).all():
            raise InputError("shares must be numbers from 0 to 1, one per row of the features")
        self._options = {"nthread": n_threads, "seed": seed}
        self._boosters = {}
        inner = self._fit_ends(inputs, share)
        inputs, share = inputs[inner], share[inner]
        self._fit_location(inputs, share)
        scaled = self._scaled(inputs, share)
        leaf = self._fit_tree(inputs, scaled)
        self._fit_leaves(leaf, scaled)
        if self.settings.cdf_trees and len(share) >= 2 * self.settings.least_rows:
            uniform = np.random.default_rng(seed).random(len(share))
            self._fit_bend(inputs, self._rank(leaf, scaled, uniform))
        self.set_threads(1)
        return self

    def _table(self, inputs: np.ndarray, label: np.ndarray, max_bin: int) -> xgb.QuantileDMatrix:
        n_threads = self._options["nthread"]
        return binned(inputs, label, max_bin=max_bin, nthread=n_threads)

    def _train(
        self, name: str, table: xgb.QuantileDMatrix, trees: int, **options: Any
    ) -> xgb.Booster:
        self._boosters[name] = xgb.train(TREES | self._options | options, table, trees)
        return self._boosters[name]

    def _fit_ends(self, inputs: np.ndarray, share: np.ndarray) -> np.ndarray:
        """Learn the probabilities of 0 and 1; return the rows that the rest learns from."""
        ends = np.column_stack([share <= 0, share >= 1])
        inner, least = np.asarray(~ends.any(axis=1)), 2 * self.settings.least_rows
        few = min(int(inner.sum()), int((~inner).sum())) < least
        if few or not self.settings.end_trees:
            return np.ones(len(share), dtype=bool)
        # hardly regularised: where no row has an end its probability must be able to vanish, and
        # it is asked for hundreds of times a shower
        loose = {"min_child_weight": 0.5, "reg_lambda": 0.01}
        shape = {"max_bin": 256, "max_depth": 4, "learning_rate": 0.3, **loose}
        table = self._table(inputs, np.clip(ends, RAREST, 1, dtype=np.float32), 256)
        binary = {**VECTOR, "objective": "binary:logistic"}
        self._train("ends", table, self.settings.end_trees, **binary, **shape)
        return inner

    def _end_chances(self, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the probabilities of 0 and 1, (n,) each, that leaves do not have."""
        from scipy.special import expit

        if "ends" not in self._boosters:
            return np.zeros(len(inputs)), np.zeros(len(inputs))
        margin = self._boosters["ends"].inplace_predict(inputs, predict_type="margin")
        zero, one = expit(margin.astype(np.float64)).T
        return zero, one

    def _fit_location(self, inputs: np.ndarray, share: np.ndarray) -> None:
        inner = (share > 0) & (share < 1)
        trees = self.settings.location_trees
        if not trees or inner.sum() < FEWEST:
            return
        shape = {"learning_rate": 0.1, "max_bin": 128}
        x, y = inputs[inner], _logit(share[inner])
        table = self._table(x, y, 128)
        location = self._train("location", table, trees, **shape, max_depth=5, min_child_weight=20)
        away = np.log(np.abs(y - location.inplace_predict(x)) + 1e-3) - MEAN_LOG_NORMAL
        table.set_label(away)
        self._train("scale", table, max(trees // 2, 1), **shape, max_depth=4, min_child_weight=50)

    def _moments(self, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        location, scale = (self._boosters[name] for name in ("location", "scale"))
        return location.inplace_predict(inputs), np.exp(scale.inplace_predict(inputs))

    def _scaled(self, inputs: np.ndarray, share: np.ndarray) -> np.ndarray:
        """Return shares whose logit has its location and scale removed; 0 and 1 stay."""
        from scipy.special import ndtr

        inner = (share > 0) & (share < 1)
        result = np.array(share, dtype=np.float64)
        if "location" in self._boosters and inner.any():
            location, scale = self._moments(inputs[inner])
            result[inner] = _inside(ndtr((_logit(share[inner]) - location) / scale))
        return result

    def _unscaled(self, inputs: np.ndarray, scaled: np.ndarray) -> np.ndarray:
        from scipy.special import expit, ndtri

        inner = (scaled > 0) & (scaled < 1)
        if "location" in self._boosters and inner.any():
            location, scale = self._moments(inputs[inner])
            scaled[inner] = _inside(expit(location + scale * ndtri(scaled[inner])))
        return scaled

    def _fit_tree(self, inputs: np.ndarray, scaled: np.ndarray) -> np.ndarray:
        """Grow the tree whose leaves hold quantiles; return the leaf of every row."""
        inner = scaled[(scaled > 0) & (scaled < 1)]
        levels = (np.arange(30) + 0.5) / 30
        cuts = np.unique(np.quantile(inner, levels)) if len(inner) > 30 else np.array([0.5])
        label = np.column_stack([scaled <= 0, *(scaled <= cut for cut in cuts), scaled < 1])
        table = self._table(inputs, label.astype(np.float32), 128)
        shape = {"max_bin": 128, "max_depth": self.settings.depth, "learning_rate": 1.0}
        rows = {"min_child_weight": self.settings.least_rows, "reg_lambda": 0.0}
        tree = self._train("tree", table, 1, **VECTOR, **shape, **rows)
        leaves = tree.predict(table, pred_leaf=True).astype(np.int64).ravel()
        self._numbers = np.unique(leaves)
        return np.searchsorted(self._numbers, leaves)

    def _fit_leaves(self, leaf: np.ndarray, scaled: np.ndarray) -> None:
        """Store the probabilities of 0 and 1, and the quantiles between, of each leaf."""
        levels = np.linspace(0, 1, self.settings.knots)
        self._ends = np.zeros((len(self._numbers), 2))
        self._knots = np.tile(levels, (len(self._numbers), 1))
        order = np.lexsort((scaled, leaf))
        bounds = np.searchsorted(leaf[order], np.arange(len(self._numbers) + 1))
        for number in range(len(self._numbers)):
            values = scaled[order[bounds[number] : bounds[number + 1]]]
            zeros, ones = (values <= 0).sum(), (values >= 1).sum()
            self._ends[number] = zeros / len(values), ones / len(values)
            inner = values[zeros : len(values) - ones]
            if len(inner):
                self._knots[number] = np.interp(
                    levels, (np.arange(len(inner)) + 0.5) / len(inner), inner
                )

    def _rank(self, leaf: np.ndarray, scaled: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """Return cumulative probabilities in the leaves, (n,); those of the ends at random."""
        zero, one = self._ends[leaf].T
        rank = zero + (1 - zero - one) * _place(self._knots[leaf], scaled)
        rank = np.where(scaled <= 0, zero * uniform, rank)
        return np.where(scaled >= 1, 1 - one * uniform, rank)

    def _fit_bend(self, inputs: np.ndarray, rank: np.ndarray) -> None:
        """Boost the probability of a rank up to each of a few levels, less the level itself."""
        levels, settings = self._levels(), self.settings
        label = (rank[:, None] <= levels).astype(np.float32) - levels.astype(np.float32)
        shape = {"max_bin": 64, "max_depth": settings.cdf_depth, "min_child_weight": 50}
        rate = {"learning_rate": settings.cdf_rate, "base_score": 0.0}
        table = self._table(inputs, label, 64)
        self._train("bend", table, settings.cdf_trees, **VECTOR, **shape, **rate)

    def _levels(self) -> np.ndarray:
        n = self.settings.cdf_knots
        return np.arange(1, n + 1) / (n + 1)

    def _unbent(self, inputs: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """Return ranks within the leaf, (n,), from uniform numbers."""
        if "bend" not in self._boosters:
            return uniform
        less = self._boosters["bend"].inplace_predict(inputs).reshape(len(inputs), -1)
        less = np.clip(np.maximum.accumulate(less + self._levels(), axis=1), 0, 1)
        return _place(np.column_stack([np.zeros(len(less)), less, np.ones(len(less))]), uniform)

    def sample(self, inputs: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """Return shares (n,) at features (n, k) from uniform numbers (n,).

        Rows are independent; a share grows with its uniform number.
        """
        inputs = np.ascontiguousarray(inputs, dtype=np.float32)
        zero, one = self._end_chances(inputs)
        share = np.where(uniform < zero, 0.0, 1.0)
        inner = (uniform >= zero) & ((one <= 0) | (uniform < 1 - one))
        if inner.any():
            ranks = (uniform - zero) / np.maximum(1 - zero - one, 1e-12)
            share[inner] = self._sample_inner(inputs[inner], ranks[inner])
        return share

    def _sample_inner(self, inputs: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """Return the shares that the classifier of the ends leaves to the rest, (n,)."""
        tree = self._boosters["tree"]
        table = xgb.DMatrix(inputs, nthread=1)
        leaves = tree.predict(table, pred_leaf=True).astype(np.int64).ravel()
        leaf = np.searchsorted(self._numbers, leaves)
        rank = self._unbent(inputs, uniform)
        zero, one = self._ends[leaf].T
        last = self._knots.shape[1] - 1
        at = np.clip((rank - zero) / np.maximum(1 - zero - one, 1e-12), 0, 1) * last
        low = np.minimum(at.astype(np.int64), last - 1)
        below, above = self._knots[leaf, low], self._knots[leaf, low + 1]
        scaled = _inside(below + (at - low) * (above - below))
        scaled[rank < zero] = 0.0
        scaled[(one > 0) & (rank >= 1 - one)] = 1.0
        return self._unscaled(inputs, scaled)

    def set_threads(self, n_threads: int) -> None:
        """Set how many threads `sample` uses; the result does not depend on it."""
        for booster in self._boosters.values():
            booster.set_param({"nthread": n_threads})

    @property
    def n_parameters(self) -> int:
        """Number of learned numbers: feature and threshold per node, leaf values, quantiles."""
        trees = [flow_parameters(bytes(b.save_raw("ubj"))) for b in self._boosters.values()]
        return sum(trees, self._knots.size + self._ends.size)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return all that was learned as plain arrays by name."""
        arrays = {
            f"booster_{name}": np.frombuffer(booster.save_raw("ubj"), dtype=np.uint8)
            for name, booster in self._boosters.items()
        }
        settings = np.array(list(asdict(self.settings).values()), dtype=np.float64)
        leaves = {"numbers": self._numbers, "ends": self._ends, "knots": self._knots}
        return {**arrays, **leaves, "settings": settings}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        """Restore what `to_arrays` returned. Raises FormatError for anything else."""
        names = list(DistributionSettings.__dataclass_fields__)
        older = len(arrays.get("settings", ())) == len(names) - 1  # without a classifier of ends
        numbers = stored_array(arrays, "settings", (len(names) - older,)).tolist() + [0] * older
        settings = {
            k: v if k == "cdf_rate" else int(v) for k, v in zip(names, numbers, strict=True)
        }
        try:
            restored = cls(DistributionSettings.of(settings))
        except ConfigError as error:
            raise FormatError(f"a stored distribution is damaged: {error}") from error
        stored = {}
        for name in arrays.keys() - {"settings", "numbers", "ends", "knots"}:
            content = stored_array(arrays, name, (None,), "u").tobytes()
            key = name.removeprefix("booster_")
            restored._boosters[key], stored[key] = load_booster(content)
        restored._check_boosters(stored)
        restored.n_inputs = stored["tree"].n_inputs
        leaves = len(stored_array(arrays, "numbers", (None,), "i", 0))
        restored._numbers = arrays["numbers"]
        restored._ends = stored_array(arrays, "ends", (leaves, 2), low=0, high=1)
        shape = (leaves, restored.settings.knots)
        restored._knots = stored_array(arrays, "knots", shape, low=0, high=1)
        nodes = stored["tree"].nodes
        ends = set() if nodes is None else set(np.flatnonzero(nodes.left < 0).tolist())
        rising = (np.diff(restored._numbers) > 0).all() and (np.diff(restored._knots) >= 0).all()
        if not rising or set(restored._numbers.tolist()) != ends:
            raise FormatError("leaves and quantiles of a stored distribution do not fit together")
        restored.set_threads(1)
        return restored

    def _check_boosters(self, stored: Mapping[str, CheckedBooster]) -> None:
        """Raise FormatError unless the boosters are those of one distribution."""
        names, widths = set(stored), {k: booster.n_outputs for k, booster in stored.items()}
        known = {"tree", "location", "scale", "bend", "ends"}
        whole = "tree" in names <= known and ("location" in names) == ("scale" in names)
        if whole:
            one = stored["tree"].nodes is not None and len(stored["tree"].outputs) == 1
            bend = widths.get("bend", self.settings.cdf_knots) == self.settings.cdf_knots
            moments = {widths.get("location", 1), widths.get("scale", 1)} == {1}
            moments = moments and widths.get("ends", 2) == 2
            alike = len({booster.n_inputs for booster in stored.values()}) == 1
        if not (whole and one and bend and moments and alike):
            raise FormatError(
                f"a stored distribution has boosters {sorted(names)} of {widths} outputs, which do"
                " not fit together"
            )


def flow_parameters(content: bytes) -> int:
    """Return the number of numbers in boosters: two per node, and the values of leaves."""
    trees = [tree for one in ubjson.unpacked(content) for tree in read_booster(one).trees]
    inner = [int((tree.left >= 0).sum()) for tree in trees]
    return sum(2 * n + (n + 1) * t.leaves.shape[1] for n, t in zip(inner, trees, strict=True))


def _place(curve: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Return where values (n,) lie along rising curves (n, k), from 0 to 1 by linear steps."""
    last, rows = curve.shape[1] - 1, np.arange(len(value))
    at = np.clip((curve <= value[:, None]).sum(axis=1) - 1, 0, last - 1)
    low, high = curve[rows, at], curve[rows, at + 1]
    return (at + np.clip((value - low) / np.maximum(high - low, 1e-30), 0, 1)) / last


def _logit(share: np.ndarray) -> np.ndarray:
    clipped = _inside(share, LOGIT_CLIP)
    return np.asarray(np.log(clipped / (1 - clipped)))


def _inside(share: np.ndarray, least: float = CLIP) -> np.ndarray:
    return np.clip(share, least, 1 - least)
