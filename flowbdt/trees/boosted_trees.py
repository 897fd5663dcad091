"""The velocity at one time by XGBoost: parameters, fit and bytes."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import msgspec
import numpy as np

from ..atomic_files import digest, digest_array
from ..errors import ConfigError, FormatError
from ..typed_settings import AtLeastOne, AtLeastZero, NotNegative, check_settings
from . import ubjson
from .base import BatchSource
from .binned_rows import binned
from .check_trees import CheckedBooster, checked_booster
from .xgboost_on_demand import xgb

if TYPE_CHECKING:
    from .grow_trees import Draws, Group, Table

Int32 = msgspec.Meta(le=2**31 - 1)
Count = Annotated[AtLeastZero, Int32]
Share = Annotated[float, msgspec.Meta(gt=0, le=1)]
Chance = Annotated[float, msgspec.Meta(ge=0, le=1)]
Penalty = Annotated[NotNegative, msgspec.Meta(le=1e38)]  # of XGBoost's single precision


class BoosterParameters:
    """Parameters of a booster and their types; other parameters of XGBoost have no use here.

    Which of them go together is for XGBoost to say, see `check_parameters`.
    """

    n_estimators: Count
    early_stopping_rounds: Count
    outputs_per_group: Count
    split_outputs: Count
    classifier_rate: Share
    rejection_rate: Share
    rejection_events: Annotated[AtLeastOne, Int32]

    booster: Literal["gbtree", "dart"]
    multi_strategy: Literal["multi_output_tree", "one_output_per_tree"]
    device: Literal["cpu", "cuda", "gpu"]
    learning_rate: Annotated[float, msgspec.Meta(ge=1e-30, lt=2)]  # from 2 on, boosting diverges
    max_depth: Count
    max_leaves: Count
    grow_policy: Literal["depthwise", "lossguide"]
    min_split_loss: Penalty
    min_child_weight: Penalty
    max_delta_step: Penalty
    reg_lambda: Penalty
    reg_alpha: Penalty
    subsample: Share
    sampling_method: Literal["uniform", "gradient_based"]
    colsample_bytree: Share
    colsample_bylevel: Share
    colsample_bynode: Share
    num_parallel_tree: Annotated[AtLeastOne, Int32]
    base_score: Annotated[float, msgspec.Meta(ge=-1e38, le=1e38)]
    max_bin: Annotated[int, msgspec.Meta(ge=2, le=2**31 - 1)]
    max_cached_hist_node: Annotated[AtLeastOne, Int32]
    # of dart
    sample_type: Literal["uniform", "weighted"]
    normalize_type: Literal["tree", "forest"]
    rate_drop: Chance
    one_drop: bool
    skip_drop: Chance


FLOWBDT_PARAMETERS = (
    *("n_estimators", "early_stopping_rounds", "outputs_per_group", "split_outputs"),
    *("classifier_rate", "rejection_rate", "rejection_events"),  # of classifiers beside the steps
)
"""Parameters that XGBoost does not get."""

SET_BY_FLOWBDT = {
    **dict.fromkeys(("seed", "random_state"), "random_state decides the seed"),
    **dict.fromkeys(("nthread", "n_jobs"), "the executor decides the threads"),
    **dict.fromkeys(("eval_metric", "scale_pos_weight"), "the squared error is minimised"),
    **dict.fromkeys(
        ("monotone_constraints", "interaction_constraints"),
        "trees see points between noise and events, not columns, so constraints on their inputs say"
        " nothing about events",
    ),
}
"""Parameters of XGBoost that are not free, and why."""

FIXED_PARAMETERS = {
    "tree_method": "hist",
    "objective": "reg:squarederror",
    "validate_parameters": True,
    "verbosity": 1,
}


class BoostedTrees:
    """Velocity at one time by boosted trees (XGBoost ``hist``), with vector leaves by default.

    In high dimension one tree for all outputs serves none of them well, and its histograms are
    large. Then groups of neighbouring outputs can get one booster each, which see every input.
    The result does not depend on ``n_threads``; `flowbdt.training.expected_cost` knows the memory.

    Parameters
    ----------
    parameters : mapping of XGBoost parameters by XGBoost's names, and

        - ``n_estimators``: trees of each group of outputs; 0 for the closed form alone;
        - ``early_stopping_rounds`` (0: off; needs validation rows), for each group by itself;
        - ``outputs_per_group`` (0: all in one): at most this many outputs share a booster;
        - ``split_outputs`` (0: all of the group): on how many outputs, drawn for each tree, its
          splits are sought; leaf values come from the gradient of all. Vector leaves only.
    """

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        self.parameters = dict(parameters)
        self.summary: dict[str, Any] = {}
        self.shape: tuple[int, int] | None = None  # inputs and outputs, of stored trees
        self._boosters: list[xgb.Booster] = []

    def fit(
        self,
        train: BatchSource,
        valid: BatchSource | None,
        *,
        seed: int,
        n_threads: int,
        refresh: int = 0,
    ) -> Self:
        """Boost; with early stopping, keep the trees up to and including the best round.

        With ``refresh`` above 0 the training noise, but not that of ``valid``, is redrawn after at
        least that many rounds; the interval grows with the number of trees (`grow_trees.GROWTH`).
        """
        from .grow_trees import Draws, Group, Table, ranges

        ours = {name: int(self.parameters.get(name, 0)) for name in FLOWBDT_PARAMETERS}
        settings = _of_xgboost(self.parameters) | {"seed": seed, "nthread": n_threads}
        if not ours["n_estimators"]:
            settings["base_score"] = 0.0
        max_bin = int(settings.get("max_bin", 256))
        outputs = ranges(train.n_outputs, ours["outputs_per_group"])
        options = max(group.stop - group.start for group in outputs), max_bin, n_threads
        draws = Draws(train, refresh, *options)
        bins = draws.table.matrix
        checked = None if valid is None else Table(valid, *options, bins=bins)
        without_trees = None if checked is None else checked.loss_without_trees()
        del bins  # its memory is needed when the noise is redrawn
        groups = [
            Group(number, group, settings, ours["split_outputs"], ours["early_stopping_rounds"])
            for number, group in enumerate(outputs)
        ]
        _grow(groups, draws, checked, ours["n_estimators"])
        self._boosters = [group.booster for group in groups]
        self.summary = {
            "trees": sum(booster.num_boosted_rounds() for booster in self._boosters),
            "draws": draws.n_draws,
            "train_rmse": _together(groups, "train_rmse"),
            "valid_rmse": None if checked is None else _together(groups, "valid_rmse"),
            "valid_rmse_without_trees": without_trees,
        }
        return self

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        """Return velocities (n, m) float32 for inputs (n, m + c) float32."""
        groups = [b.inplace_predict(inputs).reshape(len(inputs), -1) for b in self._boosters]
        return groups[0] if len(groups) == 1 else np.concatenate(groups, axis=1)

    def set_threads(self, n_threads: int) -> None:
        """Set how many threads `predict` uses; the result does not depend on it."""
        for booster in self._boosters:
            booster.set_param({"nthread": n_threads})

    def to_bytes(self) -> bytes:
        """Return UBJSON: the booster's object, or an array with each group's as bytes."""
        return ubjson.packed([bytes(booster.save_raw("ubj")) for booster in self._boosters])

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Restore from bytes. Raises FormatError if they are not what `to_bytes` returns."""
        model, widths = cls({}), []
        for one in ubjson.unpacked(content):
            booster, stored = load_booster(one)
            model._boosters.append(booster)
            widths.append((stored.n_inputs, stored.n_outputs))
        if len({n_inputs for n_inputs, _ in widths}) != 1:
            raise FormatError("groups of outputs differ in their inputs; train this step again")
        model.shape = widths[0][0], sum(width for _, width in widths)
        return model


def _grow(groups: list[Group], draws: Draws, checked: Table | None, n_rounds: int) -> None:
    """Grow all groups on one draw of noise before the next one is made."""
    first, active = 0, groups
    while active:
        if first:
            draws.redraw()
        rounds = range(first, draws.until(first, n_rounds))
        for group in active:
            group.grow(draws.table, checked, rounds, n_rounds)
        active = [group for group in active if not group.finished]
        first = rounds.stop


def _together(groups: list[Group], loss: str) -> float:
    """Return the loss over all outputs from those of the groups."""
    widths = [group.outputs.stop - group.outputs.start for group in groups]
    squares = [getattr(group, loss) ** 2 for group in groups]
    return float(np.sqrt(np.average(squares, weights=widths)))


def _of_xgboost(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters that XGBoost gets, with those that are fixed."""
    return {k: v for k, v in parameters.items() if k not in FLOWBDT_PARAMETERS} | FIXED_PARAMETERS


def load_booster(content: bytes) -> tuple[xgb.Booster, CheckedBooster]:
    """Return a booster from UBJSON, and what was checked of it before XGBoost saw a byte.

    XGBoost ends the process on some damaged models and reads others without a word. Raises
    FormatError.
    """
    checked = checked_booster(content)
    try:
        return xgb.Booster(model_file=bytearray(content)), checked
    except (xgb.core.XGBoostError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise FormatError(f"not an XGBoost model ({reason}); train it again") from error


class BoosterOnDemand:
    """A booster, or the UBJSON of one, which is read when it is first asked for.

    Where the compiled core evaluates the trees, XGBoost need not even be imported.
    """

    def __init__(self, stored: xgb.Booster | bytes) -> None:
        self._stored, self._n_threads = stored, 0

    @functools.cached_property
    def booster(self) -> xgb.Booster:
        """The booster. Raises FormatError if it is damaged, or XGBoost refuses it."""
        if not isinstance(self._stored, bytes):
            return self._stored
        booster, _ = load_booster(self._stored)
        if self._n_threads:
            booster.set_param({"nthread": self._n_threads})
        return booster

    def set_threads(self, n_threads: int) -> None:
        """Set how many threads the booster uses; the result does not depend on it."""
        self._n_threads = n_threads
        if "booster" in vars(self) or not isinstance(self._stored, bytes):
            self.booster.set_param({"nthread": n_threads})

    def to_bytes(self) -> bytes:
        """Return trees and attributes as UBJSON."""
        if isinstance(self._stored, bytes):
            return self._stored
        return bytes(self._stored.save_raw("ubj"))


def check_parameters(parameters: Mapping[str, Any]) -> None:
    """Refuse parameters that are unknown, of a wrong kind or contradictory, before any long work.

    XGBoost boosts one round on four rows to tell the contradictions. Raises ConfigError with what
    was expected and what came.
    """
    for name in parameters:
        if name in FIXED_PARAMETERS:
            raise ConfigError(f"booster parameter {name!r} is fixed to {FIXED_PARAMETERS[name]!r}")
        if name in SET_BY_FLOWBDT:
            raise ConfigError(f"leave booster parameter {name!r} out: {SET_BY_FLOWBDT[name]}")
    parameters = check_settings(parameters, BoosterParameters, "booster parameter")
    vector = parameters.get("multi_strategy") == "multi_output_tree"
    if parameters.get("split_outputs") and not vector:
        raise ConfigError(
            "booster parameter 'split_outputs' is for trees that share their splits between"
            " outputs: set multi_strategy='multi_output_tree', or split_outputs to 0"
        )
    tiny = binned(np.eye(4, dtype=np.float32), label=np.eye(4, 2, dtype=np.float32))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            xgb.train(_of_xgboost(parameters) | {"max_bin": 256}, tiny, 1)
        except (xgb.core.XGBoostError, ValueError, TypeError) as error:
            reason = str(error).strip().splitlines()[0].split(": ", 1)[-1]  # without the stack
            reason = reason.removeprefix("Check failed: ")
            raise ConfigError(
                f"XGBoost refuses these booster parameters together: {reason}; change one of"
                f" {parameters}"
            ) from error
    for message in [str(w.message) for w in caught if "are not used" in str(w.message)]:
        names = ", ".join(repr(name) for name in parameters if f'"{name}"' in message)
        raise ConfigError(f"with the other booster parameters, XGBoost does not use {names}")


class Classifier:
    """Boosted trees that tell rows of classes 0, 1, ... apart; ``settings`` by XGBoost's names."""

    def __init__(self, n_trees: int, seed: int, **settings: Any) -> None:
        self.n_trees = n_trees
        self._settings = {"tree_method": "hist", "seed": seed, **settings}

    @property
    def draws(self) -> bool:
        """Whether the fit depends on the seed: only a share of rows or columns is drawn by it."""
        shares = ("subsample", "colsample_bytree", "colsample_bylevel", "colsample_bynode")
        return any(self._settings.get(name, 1) != 1 for name in shares)

    def fit(self, x: np.ndarray, y: np.ndarray, sample_weight: np.ndarray | None = None) -> Self:
        """Fit on rows (n, k), classes (n,) and weights (n,)."""
        n_classes = int(y.max()) + 1
        several = {"objective": "multi:softprob", "num_class": n_classes}
        task = several if n_classes > 2 else {"objective": "binary:logistic"}
        table = binned(x, y, weight=sample_weight, nthread=self._settings["nthread"])
        self.booster = xgb.train(task | self._settings, table, self.n_trees)
        return self

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        """Return the probabilities (n, classes) of rows (n, k)."""
        found = self.booster.inplace_predict(x)
        return found if found.ndim == 2 else np.stack([1 - found, found], axis=1)


def make_classifier(
    seed: int, n_threads: int = 1, n_trees: int = 200, **changes: Any
) -> Classifier:
    """Return the boosted classifier of the two-sample test: 200 trees, depth 5, rate 0.1."""
    settings = {"max_depth": 5, "learning_rate": 0.1, "nthread": n_threads, **changes}
    return Classifier(n_trees, seed, **settings)


_FITTED: dict[str, xgb.Booster] = {}
"""Boosters of columns fitted in this process: two metrics, and all samples judged beside one truth,
want the same ones."""
MOST_FITTED = 150


class ColumnModel:
    """Boosted trees that predict a column (n,) from others (n, k): 60 of depth 5, rate 0.15.

    ``n_classes`` is the number of values of a discrete column, whose codes are predicted; 0 for
    numbers. Of many values there are fewer rounds, of a tree for each, with up to twice the rate.
    """

    def __init__(self, n_classes: int, seed: int, n_threads: int = 1) -> None:
        self.n_classes, self._rounds = n_classes, 60 // max(n_classes // 3, 1)
        row = 2.0 / max(n_classes, 2)  # its curvature, about, in the tree of each value
        self._settings: dict[str, Any] = {
            "objective": "multi:softprob" if n_classes else "reg:squarederror",
            **({"num_class": n_classes} if n_classes else {}),
            "max_depth": 5,
            "learning_rate": min(0.15 * 60 / self._rounds, 0.3),
            "reg_lambda": 30.0 * row,
            "min_child_weight": 10.0 * row,
            "subsample": 0.7,
            "max_bin": 64,
            "seed": seed % 2**31,
            "nthread": n_threads,
        }

    def fit(self, x: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None) -> Self:
        """Fit on rows (n, k), numbers or codes (n,) and weights (n,)."""
        self._mean, self._scale = 0.0, 1.0
        if not self.n_classes:  # in single precision large numbers would lose their digits
            self._mean, self._scale = float(y.mean()), float(y.std()) or 1.0
        hashes = [None if a is None else digest_array(a) for a in (x, y, weight)]
        key = digest([{k: v for k, v in self._settings.items() if k != "nthread"}, hashes])
        booster = _FITTED.pop(key, None)
        if booster is None:
            table = binned(_single(x), (y - self._mean) / self._scale, weight=weight, max_bin=64)
            booster = xgb.train(self._settings, table, self._rounds)
        self._booster = _FITTED[key] = booster  # the latest comes last
        if len(_FITTED) > MOST_FITTED:
            del _FITTED[next(iter(_FITTED))]
        return self

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Return predicted numbers (n,), or probabilities (n, n_classes), float64."""
        found = self._booster.inplace_predict(_single(x)).astype(np.float64)
        return found if self.n_classes else found * self._scale + self._mean


def _single(x: np.ndarray) -> np.ndarray:
    largest = np.finfo(np.float32).max
    return x.clip(-largest, largest).astype(np.float32)
