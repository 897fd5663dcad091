"""Classifier two-sample tests: AUC and ROC curve of a judge of generated against real events.

Metrics stand below the regressors, so the gradient-boosting judge is handed in as a maker of
classifiers (`flowbdt.trees.boosted_trees.make_classifier`); the neural one is here.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import InputError
from ...seeding import derive, stream
from .base import (
    METRICS,
    Metric,
    Result,
    auc_error,
    checked_events,
    effective_size,
    placements,
    same_width,
)

MakeClassifier = Callable[[int], Any]
"""Seed -> classifier with ``fit(x, y, sample_weight=None)`` and ``predict_proba(x)``."""


class MlpJudge:
    """Standardised columns into a multilayer perceptron that stops early.

    Defaults are those of the protocol: hidden layers of 128 and 64, at most 60 epochs, a tenth
    of the training events to decide when to stop.
    """

    def __init__(self, seed: int, hidden: Sequence[int] = (128, 64), max_iter: int = 60) -> None:
        self.seed, self.hidden, self.max_iter = seed, tuple(hidden), max_iter

    def fit(
        self, x: np.ndarray, y: np.ndarray, sample_weight: np.ndarray | None = None
    ) -> MlpJudge:
        """Fit on events (n, d), labels (n,) of 0 and 1, and optional weights (n,)."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.neural_network import MLPClassifier
        from sklearn.preprocessing import StandardScaler

        weight = {} if sample_weight is None else {"sample_weight": sample_weight}
        self.scaler_ = StandardScaler().fit(x, **weight)
        self.network_ = MLPClassifier(
            self.hidden, early_stopping=True, max_iter=self.max_iter, random_state=self.seed
        )
        with warnings.catch_warnings():  # the number of epochs is part of the protocol
            warnings.simplefilter("ignore", ConvergenceWarning)
            self.network_.fit(self.scaler_.transform(x), y, **weight)
        return self

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        """Return probabilities (n, 2)."""
        return self.network_.predict_proba(self.scaler_.transform(x))


def make_mlp(seed: int, hidden: Sequence[int] = (128, 64), max_iter: int = 60) -> MlpJudge:
    """Return the neural judge for one model seed."""
    return MlpJudge(seed, hidden, max_iter)


def classifier_auc(
    real: np.ndarray,
    generated: np.ndarray,
    make_classifier: MakeClassifier,
    *,
    weight_real: np.ndarray | None = None,
    weight_generated: np.ndarray | None = None,
    n_model_seeds: int = 3,
    n_split_seeds: int = 3,
    test_share: float = 0.3,
    partners: np.ndarray | None = None,
    seed: int = 0,
    name: str = "auc",
) -> Result:
    """Return the area under the ROC curve of a classifier, generated against real events.

    0.5: the classifier cannot tell them apart; 1: it always can. Fitted on 70% of the events,
    measured on the other 30%, stratified; the mean over model seeds x split seeds.

    Parameters
    ----------
    make_classifier : seed -> classifier with ``fit`` and ``predict_proba``
    weight_real, weight_generated : scaled so that both classes have the same total weight
        negative ones count in the measurement; classifiers are fitted with the non-negative ones of
        `flowbdt.trees.signed_weights` in their place
    n_model_seeds, n_split_seeds : repetitions
    partners : None, or numbers (n_real + n_generated,), int, equal for events that are both
        trained on or both tested, see `partners_of`
    test_share : share of the events kept for the measurement

    Returns
    -------
    Result whose error combines the finite test samples (DeLong; test samples of different
    splits overlap, so their errors are correlated by ``test_share``) and the spread over model
    seeds. ``settings["standard_error"]`` is the plain standard error over the repetitions, which
    is smaller because all of them share the events. ``settings["aucs"]`` has one row per split,
    ``settings["roc"]`` the mean curve, see `Curve`. InputError if a class has fewer than 10 events.
    """
    x, y, weight = _labelled(real, generated, weight_real, weight_generated)
    unit = weight_real is None and weight_generated is None
    fitted = _of_fit(x, y, weight, seed)
    aucs = np.empty((n_split_seeds, n_model_seeds))
    errors, curves = np.empty_like(aucs), np.empty((*aucs.shape, POINTS))
    for i in range(n_split_seeds):
        train, test = _split(y, partners, test_share, derive(seed, "judge-split", i))
        for j in range(n_model_seeds):
            judge = make_classifier(derive(seed, "judge-model", j))
            if j and not getattr(judge, "draws", True):  # another seed would give the same trees
                aucs[i, j], errors[i, j], curves[i, j] = aucs[i, 0], errors[i, 0], curves[i, 0]
                continue
            judge.fit(x[train], y[train], **({} if unit else {"sample_weight": fitted[train]}))
            scores = judge.predict_proba(x[test])[:, 1]
            aucs[i, j], errors[i, j] = _auc(scores, y[test], weight[test])
            curves[i, j] = recognised(scores, y[test], weight[test])
    settings = {
        "n_model_seeds": n_model_seeds,
        "n_split_seeds": n_split_seeds,
        "test_share": test_share,
        "aucs": aucs.round(5).tolist(),
        "roc": mean_curve(curves, y, weight, test_share).to_json(),
        "standard_error": float(aucs.std(ddof=1) / math.sqrt(aucs.size)) if aucs.size > 1 else None,
        "seed": seed,
    }
    n = min(len(real), len(generated))
    error = _combined_error(aucs, errors, test_share)
    return Result(name, float(aucs.mean()), error, n, settings=settings)


def partners_of(real: np.ndarray | None, generated: np.ndarray | None) -> np.ndarray | None:
    """Return numbers (n + k,), int64, shared by a real and the generated events made in its place.

    Events are such where their conditions (n, c) and (k, c) are equal; None if there are none. A
    classifier that trains on one of them and is tested on the other knows its conditions again as
    those of the other class: between two samples of one distribution it ends below 0.5, and a
    model that is wrong may look perfect.
    """
    if real is None or generated is None:
        return None
    import pandas as pd

    both = pd.DataFrame(np.concatenate([real, generated]))
    groups = both.groupby(list(both), dropna=False, sort=False)
    group, rank = groups.ngroup().to_numpy(), groups.cumcount().to_numpy()  # real ones first
    n_real = np.bincount(group[: len(real)], minlength=group.max() + 1)[group]
    rank = np.where(n_real > 0, rank % np.maximum(n_real, 1), rank)
    _, numbers = np.unique(np.stack([group, rank], axis=1), axis=0, return_inverse=True)
    return numbers if numbers.max() + 1 < len(both) else None


def _split(
    y: np.ndarray, partners: np.ndarray | None, test_share: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows to train on and those to test."""
    from sklearn.model_selection import train_test_split

    if partners is None:
        train, test = train_test_split(
            np.arange(len(y)), test_size=test_share, stratify=y, random_state=seed
        )
        return train, test
    groups = np.arange(partners.max() + 1)
    train, test = train_test_split(groups, test_size=test_share, random_state=seed)
    order = stream(seed, "partners").permutation(len(y))
    tested = np.isin(partners[order], test)
    return order[~tested], order[tested]


def _labelled(
    real: np.ndarray,
    generated: np.ndarray,
    weight_real: np.ndarray | None,
    weight_generated: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return events, labels (1 = generated) and weights that sum up to the number of events."""
    real, weight_real = checked_events(real, weight_real, 2, "real", signed=True)
    generated, weight_generated = checked_events(
        generated, weight_generated, 2, "generated", signed=True
    )
    same_width(real, generated)
    if min(len(real), len(generated)) < 10:
        raise InputError(
            f"a classifier test needs at least 10 events per sample, got {len(real)} real and"
            f" {len(generated)} generated"
        )
    x = np.concatenate([real, generated])
    y = np.repeat([0, 1], [len(real), len(generated)])
    scales = [len(w) / w.sum() for w in (weight_real, weight_generated)]
    weight = np.concatenate([weight_real * scales[0], weight_generated * scales[1]])
    return x, y, weight


def _of_fit(x: np.ndarray, y: np.ndarray, weight: np.ndarray, seed: int) -> np.ndarray:
    """Return the weights (n,) that classifiers are fitted with: not negative, class by class."""
    if not (weight < 0).any():
        return weight
    from ...trees.signed_weights import positive_weights

    fitted = weight.copy()
    for label in (0, 1):
        rows = y == label
        fitted[rows] = positive_weights(x[rows], weight[rows], seed=seed).weight
    return fitted


def _auc(scores: np.ndarray, y: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    from sklearn.metrics import roc_auc_score

    one = y == 1
    if (weight < 0).any():
        place = placements(scores[one], scores[~one], weight[~one])
        auc = np.average(place, weights=weight[one])
    else:
        auc = roc_auc_score(y, scores, sample_weight=weight)
    return float(auc), auc_error(scores[one], scores[~one], weight[one], weight[~one])


def _combined_error(aucs: np.ndarray, errors: np.ndarray, overlap: float) -> float:
    n_split, n_model = aucs.shape
    sampling = float((errors**2).mean()) * (1 + (n_split - 1) * overlap) / n_split
    model = float(aucs.var(axis=1, ddof=1).mean()) / aucs.size if n_model > 1 else 0.0
    return math.sqrt(sampling + model)


# ---- ROC curves

POINTS = 101
"""Shares of mistakes, from 0 to 1, at which a curve is kept."""


@dataclass(frozen=True)
class Curve:
    """A mean curve over splits and seeds, with its standard error (p,).

    ``recognised`` (p,) is the share of the generated events that the judge calls generated where it
    calls ``mistakes`` of the real ones so, too.
    """

    recognised: np.ndarray
    error: np.ndarray

    @property
    def mistakes(self) -> np.ndarray:
        """Share of the real events (p,), equally spaced from 0 to 1."""
        return np.linspace(0.0, 1.0, len(self.recognised))

    def at(self, mistakes: float) -> tuple[float, float]:
        """Return what is recognised at a share of mistakes, and its error."""
        recognised, error = (
            float(np.interp(mistakes, self.mistakes, y)) for y in (self.recognised, self.error)
        )
        return recognised, error

    @classmethod
    def of(cls, settings: Mapping[str, Any], key: str = "roc") -> Curve | None:
        """Return the curve that the settings of a result keep; None if they keep none.

        ``key`` is "roc", or "floor_roc" for that of the floor.
        """
        kept = settings.get(key)
        if not kept:
            return None
        return cls(np.asarray(kept["recognised"], float), np.asarray(kept["error"], float))

    def to_json(self) -> dict[str, list[float]]:
        """Return the curve as settings keep it, four decimals."""
        return {
            "recognised": self.recognised.round(4).tolist(),
            "error": self.error.round(4).tolist(),
        }


def recognised(scores: np.ndarray, y: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return the share (p,) of class 1 above cuts that keep 0, 1/100 ... 1 of class 0."""
    from sklearn.metrics import roc_curve

    false, true, _ = roc_curve(y, scores, sample_weight=weight)
    # negative weights let a share fall again
    return np.interp(np.linspace(0.0, 1.0, POINTS), np.maximum.accumulate(false), true)


def _slope(curve: np.ndarray, t: np.ndarray, reach: float = 0.05) -> np.ndarray:
    """Return the slope over twice ``reach``: single points would show the noise of few events."""
    low, high = np.maximum(t - reach, 0.0), np.minimum(t + reach, 1.0)
    return (np.interp(high, t, curve) - np.interp(low, t, curve)) / (high - low)


def mean_curve(curves: np.ndarray, y: np.ndarray, weight: np.ndarray, test_share: float) -> Curve:
    """Return the mean of curves (splits, models, p) and its standard error.

    ``y`` and ``weight`` (n,) are of all events, of which each split tests ``test_share``.

    The variance of a share R at a fixed share t of mistakes is R (1 - R) / n_1 + R'(t)^2 t (1 - t)
    / n_0 with n the effective numbers tested of each class. Splits overlap, so that their errors
    are correlated by ``test_share``; the spread over model seeds is added, as for the area.

    References
    ----------
    Hsieh, Turnbull, "Nonparametric and semiparametric estimation of the ROC curve", Annals of
    Statistics 24 (1996) 25, theorem 2.2.
    """
    s, m, p = curves.shape
    mean, t = curves.mean(axis=(0, 1)), np.linspace(0.0, 1.0, p)
    real, generated = (test_share * effective_size(weight[y == c]) for c in (0, 1))
    sampling = mean * (1 - mean) / generated + _slope(mean, t) ** 2 * t * (1 - t) / real
    models = curves.var(axis=1, ddof=1).mean(axis=0) / (s * m) if m > 1 else 0.0
    return Curve(mean, np.sqrt(sampling * (1 + (s - 1) * test_share) / s + models))


METRICS.register("auc_gb")(
    Metric(classifier_auc, "classifier", 0.5, "AUC, gradient boosting", {"n_model_seeds": 1}, True)
)
METRICS.register("auc_mlp")(
    Metric(classifier_auc, "classifier", 0.5, "AUC, neural network", {"n_model_seeds": 1}, True)
)


# ---- each column from all others

MOST_CLASSES, MOST_CATEGORIES = 8, 50
"""Distinct values up to which a column of numbers, or of categories, is predicted by a classifier:
the codes of categories have no order that trees could learn as numbers."""

MOST_EXPLAINED = 10_000
"""Rows of each table that `lost` looks at."""

MakeColumnModel = Callable[[int, int], Any]
"""Number of classes (0: numbers) and seed -> model with ``fit(x, y, weight)`` and ``predict``."""


@dataclass(frozen=True)
class Predicted:
    """What models of each column, given all others, leave of rows (n, d).

    ``residual`` (n, d): the difference of a number, the log loss of a discrete value. ``loss`` and
    ``base`` (n, d): squared difference or log loss, of the model and of the column's mean or
    frequencies.
    """

    residual: np.ndarray
    loss: np.ndarray
    base: np.ndarray

    def explained(self, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the share of the loss (d,) that the models explain, R2 of numbers, and its error.

        The error is that of a ratio of means. 0 of a constant column.
        """
        share = weight / weight.sum()
        base = share @ self.base
        safe = np.where(base > 0, base, 1.0)
        ratio = np.where(base > 0, (share @ self.loss) / safe, 1.0)
        scatter = (self.loss - ratio * self.base) / safe
        return 1.0 - ratio, np.sqrt((share**2) @ scatter**2)


def predict_columns(
    known: np.ndarray,
    weight: np.ndarray,
    others: Sequence[np.ndarray],
    discrete: Sequence[np.ndarray | None],
    make_model: MakeColumnModel,
    seed: int,
) -> list[Predicted]:
    """Return what models of two halves of rows (n, d) leave of them and of other rows (k, d).

    A row of the first gets the model of the other half, others one of the two at random, so that
    all are treated alike. ``discrete`` has the values of discrete columns.
    """
    tables = [known, *others]
    halves = [
        stream(seed, "residual-half", i).permutation(len(table)) % 2
        for i, table in enumerate(tables)
    ]
    left = [Predicted(*(np.zeros(table.shape) for _ in range(3))) for table in tables]
    for j, values in enumerate(discrete):
        if known.shape[1] == 1 or np.ptp(known[:, j]) == 0:
            continue
        columns = [np.delete(table, j, axis=1) for table in tables]
        for half in (0, 1):
            mine = halves[0] == half
            y, w = known[mine, j], weight[mine]
            model = make_model(0 if values is None else len(values), derive(seed, "column", j))
            target = y if values is None else np.searchsorted(values, y)
            model.fit(columns[0][mine], target, w)
            for i, table in enumerate(tables):
                rows = halves[i] == (1 - half if i == 0 else half)
                found, truth = model.predict(columns[i][rows]), table[rows, j]
                left[i].base[rows, j], left[i].loss[rows, j], left[i].residual[rows, j] = _losses(
                    found, truth, y, w, values
                )
    return left


def _losses(
    found: np.ndarray, truth: np.ndarray, y: np.ndarray, w: np.ndarray, values: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return loss without and with a model, and residual, of rows whose column is ``truth``."""
    if values is None:
        residual = truth - found
        return (truth - np.average(y, weights=w)) ** 2, residual**2, residual
    code = np.searchsorted(values, truth).clip(0, len(values) - 1)
    counts = np.bincount(np.searchsorted(values, y), weights=w, minlength=len(values)) + 0.5
    frequency = counts / counts.sum()
    probability = np.where(values[code] == truth, found[np.arange(len(code)), code], 0.0)
    loss = -np.log(np.maximum(probability, SMALLEST))
    return -np.log(frequency[code]), loss, loss


def few_values(*tables: np.ndarray, categories: Collection[int] = ()) -> list[np.ndarray | None]:
    """Return the values of each column that has at most `MOST_CLASSES`, None of the others.

    `MOST_CATEGORIES` of those whose places are ``categories``.
    """
    columns = [
        np.unique(np.concatenate(parts)) for parts in zip(*(t.T for t in tables), strict=True)
    ]
    most = [MOST_CATEGORIES if j in categories else MOST_CLASSES for j in range(len(columns))]
    return [v if len(v) <= limit else None for v, limit in zip(columns, most, strict=True)]


def residual_auc(
    real: np.ndarray,
    generated: np.ndarray,
    training: np.ndarray,
    make_classifier: MakeClassifier,
    make_model: MakeColumnModel,
    *,
    weight_real: np.ndarray | None = None,
    weight_generated: np.ndarray | None = None,
    weight_training: np.ndarray | None = None,
    beside: Sequence[np.ndarray] | None = None,
    categories: Collection[int] = (),
    n_model_seeds: int = 1,
    n_split_seeds: int = 2,
    test_share: float = 0.3,
    partners: np.ndarray | None = None,
    seed: int = 0,
) -> list[Result]:
    """Return the AUC of a classifier of columns and residuals, and that of training events.

    Residuals are against models of each column given all others, of training events (m, d) in two
    halves, see `predict_columns`. A relation between columns that generated events keep less
    narrowly shows there, where the columns hide it. ``beside`` has further columns of the real,
    generated and training events that the classifier sees, ``categories`` the places of columns
    that are codes.
    """
    weight = np.ones(len(training)) if weight_training is None else weight_training
    known = few_values(training, real, generated, categories=categories)
    left = predict_columns(training, weight, [real, generated], known, make_model, seed)
    tables = [training, real, generated]
    seen = [np.hstack([t, p.residual]) for t, p in zip(tables, left, strict=True)]
    if beside is not None:
        more = (beside[2], *beside[:2])
        seen = [np.hstack([s, np.asarray(b)]) for s, b in zip(seen, more, strict=True)]
    options: dict[str, Any] = {
        "n_model_seeds": n_model_seeds,
        "n_split_seeds": n_split_seeds,
        "test_share": test_share,
        "seed": seed,
        "name": "auc_residual",
    }
    samples = [(seen[2], weight_generated, partners), (seen[0], weight_training, None)]
    return [
        classifier_auc(
            *(seen[1], sample, make_classifier),
            weight_real=weight_real,
            weight_generated=of_sample,
            partners=those,
            **options,
        )
        for sample, of_sample, those in samples
    ]


def lost(
    real: np.ndarray,
    generated: np.ndarray,
    training: np.ndarray | None,
    make_model: MakeColumnModel,
    *,
    weight_real: np.ndarray | None = None,
    weight_generated: np.ndarray | None = None,
    weight_training: np.ndarray | None = None,
    categories: Collection[int] = (),
    seed: int = 0,
) -> list[Result]:
    """Return, for every column, how far generated events differ in what the others tell about it.

    The value is the absolute difference of R2 (of a discrete column: the share of its log loss)
    that models of the column given all others explain, of real and of generated events, each held
    against the other half of its own kind; ``settings`` has both as ``real`` and ``generated``.
    The floor is that of real against training events. At most `MOST_EXPLAINED` rows of each count.
    """
    tables = {"real": real, "generated": generated, "training": training}
    weights = {"real": weight_real, "generated": weight_generated, "training": weight_training}
    checked = {
        name: [a[:MOST_EXPLAINED] for a in checked_events(x, weights[name], 2, name)]
        for name, x in tables.items()
        if x is not None
    }
    known = few_values(*(x for x, _ in checked.values()), categories=categories)
    shares = {
        name: predict_columns(x, w, [], known, make_model, seed)[0].explained(w)
        for name, (x, w) in checked.items()
    }

    def result(name: str, j: int) -> Result:
        (found, error), (truth, of_truth) = shares[name], shares["real"]
        value, n = abs(float(truth[j] - found[j])), min(len(checked[k][0]) for k in (name, "real"))
        numbers = {"real": float(truth[j]), name: float(found[j])}
        return Result("lost", value, math.hypot(error[j], of_truth[j]), n, settings=numbers)

    columns = range(checked["real"][0].shape[1])
    if training is None:
        return [result("generated", j) for j in columns]
    return [result("generated", j).with_floor(result("training", j)) for j in columns]


METRICS.register("auc_residual")(
    Metric(residual_auc, "residual", 0.5, "AUC, boosting with residuals", {"n_split_seeds": 1})
)
METRICS.register("lost")(
    Metric(lost, "lost", 0.0, "what is lost: difference of R2 given the others")
)


# ---- one classifier of many generators

SMALLEST = 1e-6
"""Probabilities are not taken below, as one event must not decide."""

HELD_OUT = 0.3


def log_posteriors(
    reference: np.ndarray,
    samples: Mapping[str, np.ndarray],
    make_classifier: MakeClassifier = make_mlp,
    *,
    n_runs: int = 3,
    seed: int = 0,
) -> list[Result]:
    """Return for every generator the log posterior of the reference under a classifier of all.

    A classifier learns to tell from which generator an event comes, from as many events of each as
    the smallest sample has. The score of a generator is the mean over the reference (n, d) of the
    logarithm of its probability: the nearer to 0, the more the simulation looks like this generator
    rather than the others. One that cannot tell generators apart gives ``-log(number of
    generators)``, which is ``settings["blind"]``; ``settings["own"]`` is the score on held-out
    events of the generator itself. No floor: the scores depend on who takes part, and on the
    classifier (the published one is not known). Errors are from the finite reference and the spread
    over ``n_runs`` classifiers, each trained on other 70% of the samples.

    Raises InputError for fewer than two generators, fewer than 20 events of one, or other columns.

    References
    ----------
    S. H. Lim et al., arXiv:2211.11765 (multi-model classifier); arXiv:2410.21611 (the challenge).
    """
    names = list(samples)
    if len(names) < 2:
        raise InputError(f"log posteriors compare two or more generators, got {len(names)}")
    real, _ = checked_events(reference, None, 2, "reference")
    events = [checked_events(samples[name], None, 2, name)[0] for name in names]
    for one in events:
        same_width(real, one)
    size = min(len(one) for one in events)
    if size < 20:
        raise InputError(f"each generator needs at least 20 events, the smallest has {size}")
    truth, own, errors = [], [], []
    for run in range(n_runs):
        judge, held_out = _trained(events, size, make_classifier, derive(seed, "posterior", run))
        logs = _logs(judge, real)
        truth.append(logs.mean(axis=0))
        errors.append(logs.std(axis=0) / math.sqrt(len(real)))
        own.append([_logs(judge, part)[:, i].mean() for i, part in enumerate(held_out)])
    spread = np.std(truth, axis=0, ddof=1) / math.sqrt(n_runs) if n_runs > 1 else 0.0
    error = np.hypot(np.mean(errors, axis=0), spread)
    settings = {"generators": names, "blind": -math.log(len(names)), "n_runs": n_runs, "seed": seed}
    columns = zip(names, np.mean(truth, axis=0), error, np.mean(own, axis=0), strict=True)
    return [
        Result(
            *("log_posterior", float(value), float(spread), len(real)),
            column=name,
            settings={**settings, "own": float(mine)},
        )
        for name, value, spread, mine in columns
    ]


def _trained(
    events: list[np.ndarray], size: int, make_classifier: MakeClassifier, seed: int
) -> tuple[object, list[np.ndarray]]:
    """Return a classifier of the generators and held-out events of each."""
    rng = stream(seed, "posterior-split")
    cut = max(1, round(HELD_OUT * size))
    shuffled = [one[rng.permutation(len(one))[:size]] for one in events]
    x = np.concatenate([one[cut:] for one in shuffled])
    y = np.repeat(np.arange(len(events)), size - cut)
    order = rng.permutation(len(y))
    judge = make_classifier(derive(seed, "posterior-model"))
    judge.fit(x[order], y[order])
    return judge, [one[:cut] for one in shuffled]


def _logs(judge: object, x: np.ndarray) -> np.ndarray:
    """Return log probabilities (n, generators)."""
    found = judge.predict_proba(x)  # type: ignore[attr-defined]
    return np.log(np.clip(np.asarray(found, dtype=np.float64), SMALLEST, 1.0))
