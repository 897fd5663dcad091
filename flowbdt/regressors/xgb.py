"""The only file that imports xgboost: one multi-output booster per time."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

import numpy as np
import xgboost as xgb

from ..errors import ConfigError, FormatError
from .base import REGRESSORS, BatchSource, StepRegressor

OWN_PARAMETERS = ("n_estimators", "early_stopping_rounds")
"""Read by us, not handed to the booster."""

OURS_TO_SET = ("seed", "random_state", "nthread", "n_jobs", "eval_metric")

FIXED_PARAMETERS = {
    "tree_method": "hist",
    "objective": "reg:squarederror",
    "validate_parameters": True,
    "verbosity": 1,
}


GROWTH = 20
"""After k trees, noise is redrawn after k / 20 more rounds or later. New points need the prediction
of all k trees, so a constant interval would cost time quadratic in the number of trees."""


KEPT_BYTES = 2**25
"""Inputs up to 32 MiB are kept while the bins are made."""


class _Passes(xgb.DataIter):
    """Hands a BatchSource to XGBoost; the labels are gathered and set once, see `_matrix`.

    XGBoost passes over the rows four times and more. A closed-form velocity makes a batch dear, so
    inputs made in the first pass are kept for the others, up to `KEPT_BYTES`; of a larger table
    every pass makes the batches anew, so that memory does not grow with the repetitions of noise.
    """

    def __init__(self, source: BatchSource) -> None:
        self._source = source
        self._kept: list[tuple[np.ndarray, np.ndarray | None]] = []
        self.label = np.empty((source.n_rows, source.n_outputs), dtype=np.float32)
        super().__init__()

    def reset(self) -> None:
        self._batches = iter(self._kept) if self._kept else self._made()

    def _made(self) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        row, size, kept = 0, 0, []
        for batch in self._source:
            self.label[row : row + len(batch.target)] = batch.target
            row += len(batch.target)
            size += batch.inputs.nbytes
            kept.append((batch.inputs, batch.weight))
            if size > KEPT_BYTES:
                kept.clear()
            yield batch.inputs, batch.weight
        self._kept = kept if size <= KEPT_BYTES else []

    def released_label(self) -> np.ndarray:
        """Return the labels and forget all rows.

        XGBoost's iterator holds itself in a circle, so what it holds would otherwise stay until
        Python happens to look for circles.
        """
        label = self.label
        self._kept, self.label = [], label[:0]
        self._batches = iter(())
        return label

    def next(self, input_data: Callable[..., None]) -> bool:
        inputs, weight = next(self._batches, (None, None))
        if inputs is None:
            return False
        input_data(data=inputs, weight=weight)
        return True


def _matrix(
    source: BatchSource, max_bin: int, n_threads: int, ref: xgb.QuantileDMatrix | None = None
) -> xgb.QuantileDMatrix:
    """Return the binned table. The float inputs are gone before gradients take more room.

    Labels are set in one piece: handed in by batches, XGBoost's growing buffer would end up to
    twice as large as they are.
    """
    passes = _Passes(source)
    matrix = xgb.QuantileDMatrix(passes, max_bin=max_bin, ref=ref, nthread=n_threads)
    matrix.set_label(passes.released_label())
    return matrix


class _Draws:
    """The training table, one draw of noise at a time; all draws share the bins of the first."""

    def __init__(self, source: BatchSource, refresh: int, max_bin: int, n_threads: int) -> None:
        self._source, self._refresh = source, refresh
        self._options = (max_bin, n_threads)
        self._next, self.n_draws = refresh, 1
        self.matrix = _matrix(source, *self._options)
        if refresh:  # one row keeps the bins while the table itself makes room for the next
            row = next(iter(source)).inputs[:1]
            self._bins = xgb.QuantileDMatrix(
                row, ref=self.matrix, max_bin=max_bin, nthread=n_threads
            )

    def at(self, trees: int) -> xgb.QuantileDMatrix:
        """Return the table to grow the next tree on when there are ``trees`` already."""
        if self._refresh and trees >= self._next:
            del self.matrix  # its memory is needed for the next
            source = self._source.redrawn(self.n_draws)
            self.matrix = _matrix(source, *self._options, ref=self._bins)
            self._next = trees + max(self._refresh, trees // GROWTH)
            self.n_draws += 1
        return self.matrix


def _boost(
    settings: dict[str, Any],
    draws: _Draws,
    n_rounds: int,
    checked: xgb.QuantileDMatrix | None,
    patience: int,
) -> xgb.Booster:
    """Grow trees; with ``patience``, up to and including the best round on ``checked``.

    One booster goes on from draw to draw. On a table new to it XGBoost starts from its own
    prediction of all trees so far (from the bins: equal to that from the numbers), and adds tree
    by tree after that. `xgboost.train` with ``xgb_model`` would copy the model at every draw.
    """
    booster = xgb.Booster(settings, [draws.matrix])
    best, best_round = np.inf, 0
    for k in range(n_rounds):
        booster.update(draws.at(k), k)
        if not patience or checked is None:
            continue
        loss = _rmse(booster, checked)
        if loss < best:
            best, best_round = loss, k
        elif k - best_round >= patience:
            break
    return booster[: best_round + 1] if patience and checked is not None else booster


@REGRESSORS.register("xgboost")
class BoostedTrees(StepRegressor):
    """Vector-leaf boosted trees (XGBoost ``hist``), or one tree per output if asked.

    Parameters
    ----------
    parameters : mapping of XGBoost parameters by XGBoost's names, plus ``n_estimators`` (trees)
        and ``early_stopping_rounds`` (0: off; needs validation rows)

    Notes
    -----
    The result does not depend on ``n_threads``. Memory: label and margin 4 bytes, gradient 8 and,
    for vector leaves, its transposed copy 8, each per row and output; bins 1 byte (up to 256 of
    them) per row and input, kept in two orders. With new draws of noise the rows are those of one
    draw.
    """

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        self.parameters = dict(parameters)
        self.summary = {}
        self._booster: xgb.Booster | None = None

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

        With ``refresh`` above 0 the training noise is redrawn after at least that many rounds; the
        interval grows with the number of trees (`GROWTH`).
        """
        settings = {k: v for k, v in self.parameters.items() if k not in OWN_PARAMETERS}
        settings.update(FIXED_PARAMETERS, seed=seed, nthread=n_threads)
        max_bin = int(settings.get("max_bin", 256))
        draws = _Draws(train, refresh, max_bin, n_threads)
        checked = None if valid is None else _matrix(valid, max_bin, n_threads, ref=draws.matrix)
        patience = int(self.parameters.get("early_stopping_rounds", 0))
        n_rounds = int(self.parameters["n_estimators"])
        booster = _boost(settings, draws, n_rounds, checked, patience)
        self._booster = booster
        self.summary = {
            "trees": booster.num_boosted_rounds(),
            "draws": draws.n_draws,
            "train_rmse": _rmse(booster, draws.matrix),
            "valid_rmse": None if checked is None else _rmse(booster, checked),
        }
        return self

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        """Return velocities (n, m), float32."""
        if self._booster is None:
            raise RuntimeError("the regressor has not been fitted")  # our own mistake, not a user's
        return self._booster.inplace_predict(inputs).reshape(len(inputs), -1)

    def set_threads(self, n_threads: int) -> None:
        """Set how many threads `predict` uses; the result does not depend on it."""
        if self._booster is not None:
            self._booster.set_param({"nthread": n_threads})

    def to_bytes(self) -> bytes:
        """Return the booster as UBJSON."""
        if self._booster is None:
            raise RuntimeError("the regressor has not been fitted")
        return bytes(self._booster.save_raw("ubj"))

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Restore a booster from UBJSON whose hash was checked (`store.read_model`).

        XGBoost 3.2 ends the process on some truncated models and reads others without a word, so
        the hash is the real guard; here only what is plainly no UBJSON object is turned away.
        Raises FormatError.
        """
        model = cls({})
        if content[:1] != b"{" or content[-1:] != b"}":
            raise FormatError("not a whole XGBoost model in UBJSON; train this step again")
        try:
            model._booster = xgb.Booster(model_file=bytearray(content))
        except (xgb.core.XGBoostError, ValueError) as error:
            first = str(error).strip().splitlines()[0]
            raise FormatError(
                f"not a whole XGBoost model in UBJSON ({first}); train this step again"
            ) from error
        return model


def _rmse(booster: xgb.Booster, matrix: xgb.QuantileDMatrix) -> float:
    return float(booster.eval(matrix).split(":")[-1])


def check_parameters(parameters: Mapping[str, Any]) -> None:
    """Refuse parameters that XGBoost does not know or accept, before any long work.

    XGBoost itself is asked, by boosting one round on four rows: no list of ours can go stale.

    Raises
    ------
    ConfigError
        If a name is unknown (with the nearest known one), fixed by us, or a value is refused.
    """
    for name in parameters:
        if name in FIXED_PARAMETERS:
            raise ConfigError(f"booster parameter {name!r} is fixed to {FIXED_PARAMETERS[name]!r}")
        if name in OURS_TO_SET:
            raise ConfigError(
                f"booster parameter {name!r} is set by flowBDT: the seed from random_state, threads"
                " by the executor, the metric is the squared error that is minimised"
            )
    for name, least in (("n_estimators", 1), ("early_stopping_rounds", 0), ("max_bin", 2)):
        value = parameters.get(name, least)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ConfigError(
                f"booster parameter {name!r} must be a whole number of at least {least}, got"
                f" {value!r}"
            )
    settings = {k: v for k, v in parameters.items() if k not in OWN_PARAMETERS}
    tiny = xgb.QuantileDMatrix(np.eye(4, dtype=np.float32), label=np.eye(4, 2, dtype=np.float32))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            xgb.train({**settings, **FIXED_PARAMETERS, "max_bin": 256}, tiny, 1)
        except xgb.core.XGBoostError as error:
            reason = _reason(error)
            raise ConfigError(f"XGBoost refuses the booster parameters: {reason}") from error
    unused = [str(w.message) for w in caught if "are not used" in str(w.message)]
    if unused:
        raise ConfigError(_unknown_parameters(unused[0], settings))


def _reason(error: Exception) -> str:
    """Return the sentence of an XGBoost error that a person can use, without its stack."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0].split(": ", 1)[-1] if lines else "no reason given"
    return text.removeprefix("Check failed: ")


def _unknown_parameters(message: str, settings: Mapping[str, Any]) -> str:
    known = [*xgb.XGBRegressor().get_params(), "eta", "lambda", "alpha", "gamma", *OWN_PARAMETERS]
    parts = []
    for name in settings:
        if f'"{name}"' in message:
            close = difflib.get_close_matches(name, known, n=1)
            parts.append(f"{name!r}" + (f" (did you mean {close[0]!r}?)" if close else ""))
    return f"XGBoost does not know the booster parameters {', '.join(parts)}"


def make_classifier(seed: int, n_threads: int = 1) -> xgb.XGBClassifier:
    """Return the boosted classifier of the two-sample test: 200 trees, depth 5, rate 0.1."""
    return xgb.XGBClassifier(
        n_estimators=200,
        max_depth=5,
        learning_rate=0.1,
        tree_method="hist",
        n_jobs=n_threads,
        random_state=seed,
    )
