"""Log posteriors: a classifier of many generators applied to the simulation."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from ....errors import InputError
from ....evaluation.metrics.base import Result, checked_events, same_width
from ....evaluation.metrics.classifier import MakeClassifier, make_mlp
from ....seeding import derive, stream

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
