"""Conditional distribution of a share between 0 and 1, by boosted trees.

Exactly 0 and exactly 1 have probabilities. The shares between are described in three steps, each a
few trees: location and scale of their logit; one tree with the quantiles within each of its leaves,
ends included; boosted trees that bend the distribution of the leaf. Sampling inverts these steps
from one uniform number.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Self

import msgspec
import numpy as np
import xgboost as xgb

from ..errors import InputError
from ..typed_settings import AtLeastOne, AtLeastZero, check_settings
from .binned_rows import binned
from .boosted_trees import BoostedTrees

CLIP = 1e-9
"""Least distance of a share between 0 and 1 from either."""

LOGIT_CLIP = 1e-4
"""The same in the fit of the location."""

MEAN_LOG_NORMAL = -0.635
"""Mean of log |z| of a standard normal number z: from log deviations to standard deviations."""

FEWEST = 200
"""Least number of shares between 0 and 1 for location and scale."""

TREES = {"tree_method": "hist", "verbosity": 1}
VECTOR = {**TREES, "multi_strategy": "multi_output_tree"}


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

    @classmethod
    def of(cls, changes: Mapping[str, Any]) -> Self:
        """Return settings with changes. Raises ConfigError for an unknown or impossible one."""
        return cls(**check_settings(changes, cls, "setting of a distribution"))


class ConditionalDistribution:
    """Distribution of a share in [0, 1] under features.

    Parameters
    ----------
    settings : DistributionSettings

    References
    ----------
    Quantiles within leaves: Meinshausen, J. Mach. Learn. Res. 7 (2006) 983. That trees on the
    indicators ``share <= q`` minimise the continuous ranked probability score: Gneiting, Raftery,
    J. Am. Stat. Assoc. 102 (2007) 359, section 4.2.
    """

    def __init__(self, settings: DistributionSettings) -> None:
        self.settings = settings
        self._boosters: dict[str, xgb.Booster] = {}

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
        self._fit_location(inputs, share)
        scaled = self._scaled(inputs, share)
        leaf = self._fit_tree(inputs, scaled)
        self._fit_leaves(leaf, scaled)
        if self.settings.cdf_trees and len(share) >= 2 * self.settings.least_rows:
            uniform = np.random.default_rng(seed).random(len(share))
            self._fit_bend(inputs, self._rank(leaf, scaled, uniform))
        self.set_threads(1)
        return self

    def _train(self, name: str, table: xgb.QuantileDMatrix, trees: int, **options: Any) -> Any:
        settings = {**self._options, **options}
        self._boosters[name] = xgb.train(settings, table, trees)
        return self._boosters[name]

    def _fit_location(self, inputs: np.ndarray, share: np.ndarray) -> None:
        inner = (share > 0) & (share < 1)
        trees = self.settings.location_trees
        if not trees or inner.sum() < FEWEST:
            return
        shape = {**TREES, "learning_rate": 0.1, "max_bin": 128}
        x, y = inputs[inner], _logit(share[inner])
        table = binned(x, y, max_bin=128, nthread=self._options["nthread"])
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
        table = binned(
            inputs, label.astype(np.float32), max_bin=128, nthread=self._options["nthread"]
        )
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
        inner = 1 - zero - one
        knots = self._knots[leaf]
        last = knots.shape[1] - 1
        at = np.clip((knots <= scaled[:, None]).sum(axis=1) - 1, 0, last - 1)
        rows = np.arange(len(leaf))
        low, high = knots[rows, at], knots[rows, at + 1]
        within = np.clip((scaled - low) / np.maximum(high - low, 1e-30), 0, 1)
        rank = zero + inner * (at + within) / last
        rank = np.where(scaled <= 0, zero * uniform, rank)
        return np.where(scaled >= 1, 1 - one * uniform, rank)

    def _fit_bend(self, inputs: np.ndarray, rank: np.ndarray) -> None:
        """Boost the probability of a rank up to each of a few levels, less the level itself."""
        levels = self._levels()
        label = (rank[:, None] <= levels).astype(np.float32) - levels.astype(np.float32)
        table = binned(inputs, label, max_bin=64, nthread=self._options["nthread"])
        settings = self.settings
        shape = {"max_bin": 64, "max_depth": settings.cdf_depth, "min_child_weight": 50}
        rate = {"learning_rate": settings.cdf_rate, "base_score": 0.0}
        self._train("bend", table, settings.cdf_trees, **VECTOR, **shape, **rate)

    def _levels(self) -> np.ndarray:
        n = self.settings.cdf_knots
        return (np.arange(n) + 1) / (n + 1)

    def _unbent(self, inputs: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """Return ranks within the leaf, (n,), from uniform numbers."""
        if "bend" not in self._boosters:
            return uniform
        n = self.settings.cdf_knots
        less = self._boosters["bend"].inplace_predict(inputs).reshape(len(inputs), n)
        less = np.clip(np.maximum.accumulate(less + self._levels(), axis=1), 0, 1)
        curve = np.column_stack([np.zeros(len(less)), less, np.ones(len(less))])
        at = np.clip((curve <= uniform[:, None]).sum(axis=1) - 1, 0, n)
        rows = np.arange(len(less))
        low, high = curve[rows, at], curve[rows, at + 1]
        return (at + np.clip((uniform - low) / np.maximum(high - low, 1e-12), 0, 1)) / (n + 1)

    def sample(self, inputs: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """Return shares (n,) at features (n, k) from uniform numbers (n,).

        Rows are independent; a share grows with its uniform number.
        """
        inputs = np.ascontiguousarray(inputs, dtype=np.float32)
        if not len(inputs):
            return np.zeros(0)
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
        trees = sum(tree_parameters(booster) for booster in self._boosters.values())
        return int(self._knots.size + self._ends.size + trees)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return all that was learned as plain arrays by name."""
        arrays = {
            f"booster_{name}": np.frombuffer(bytes(booster.save_raw("ubj")), dtype=np.uint8)
            for name, booster in self._boosters.items()
        }
        settings = np.array(list(asdict(self.settings).values()), dtype=np.float64)
        leaves = {"numbers": self._numbers, "ends": self._ends, "knots": self._knots}
        return {**arrays, **leaves, "settings": settings}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        """Restore what `to_arrays` returned."""
        names = DistributionSettings.__dataclass_fields__
        settings: dict[str, Any] = dict(zip(names, arrays["settings"].tolist(), strict=True))
        whole = {k: v if k == "cdf_rate" else int(v) for k, v in settings.items()}
        restored = cls(DistributionSettings(**whole))
        for name, content in arrays.items():
            if name.startswith("booster_"):
                booster = xgb.Booster(model_file=bytearray(content.tobytes()))
                restored._boosters[name.removeprefix("booster_")] = booster
        restored._numbers = arrays["numbers"]
        restored._ends, restored._knots = arrays["ends"], arrays["knots"]
        restored.set_threads(1)
        return restored


def tree_parameters(booster: xgb.Booster) -> int:
    """Return the number of numbers in a booster: two per node, and the values of leaves."""
    learner = json.loads(booster.save_config())["learner"]
    trees = booster.get_dump()
    outputs = int(learner["learner_model_param"]["num_target"])
    # one tree for all outputs, or one for each in every round
    width = outputs if len(trees) == booster.num_boosted_rounds() else 1
    nodes = sum(len(tree.splitlines()) for tree in trees)
    leaves = (nodes + len(trees)) // 2
    return 2 * (nodes - leaves) + width * leaves


def flow_parameters(content: bytes) -> int:
    """Return the number of numbers in a step's model, from `BoostedTrees.to_bytes`."""
    return sum(tree_parameters(booster) for booster in BoostedTrees.from_bytes(content)._boosters)


def _logit(share: np.ndarray) -> np.ndarray:
    clipped = np.clip(share, LOGIT_CLIP, 1 - LOGIT_CLIP)
    return np.asarray(np.log(clipped / (1 - clipped)))


def _inside(share: np.ndarray) -> np.ndarray:
    return np.clip(share, CLIP, 1 - CLIP)
