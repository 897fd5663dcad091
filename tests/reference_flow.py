"""Flow matching with boosted trees, the whole method, in numpy and XGBoost.

We want new events that follow the distribution of a table x1 of real events (n, m). Take noise x0,
standard normal, and join each event to a noise point by a straight line:

    x_t = t x1 + (1 - t) x0,    velocity  u = x1 - x0,    t = 0 is noise, t = 1 is data.

Many lines pass near a point x at time t. Their mean velocity v(t, x) = E[u | x_t = x] carries the
whole noise distribution to the data distribution: integrate dx/dt = v(t, x) from 0 to 1. That mean
is what a regression of u on x_t learns (Lipman et al., arXiv 2210.02747), here with one booster of
multi-output trees for each time at which the solver needs v (arXiv 2404.18219).

The package adds to this: column transforms, a closed-form velocity of which trees learn the
remainder, better solvers, rejection, speed. `FlowBDT` with all of that switched off gives the same
events as this file (`test_reference_flow.py`), to the precision of single-precision trees. All
randomness is keyed by (seed, purpose, keys), so both can draw the same numbers.
"""

from __future__ import annotations

import numpy as np
import xgboost as xgb

from flowbdt.seeding import derive, stream

SOLVERS = {"euler": (0.0,), "midpoint": (0.0, 0.5)}
"""Where in a step, as a share of it, each solver evaluates the velocity."""


def times(solver: str, n_steps: int) -> np.ndarray:
    """Return the times that need a booster: every evaluation of every step, rising."""
    starts = np.arange(n_steps) / n_steps
    return np.sort(np.concatenate([starts + share / n_steps for share in SOLVERS[solver]]))


def noisy_pairs(
    x1: np.ndarray, t: float, n_repeats: int, seed: int, step: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return points x_t and velocities u, (n_repeats n, m): each event with several noise points.

    One draw of noise per event would be learned by heart. Repeating the table with fresh noise
    shows the trees many lines through the same event. The noise of a repetition is a random
    permutation of normal rows, that is, paired with the events at random. (n < 4096 here; larger
    tables are drawn in blocks of 4096 rows, each with a key of its own.)
    """
    points, velocities = [], []
    for repeat in range(n_repeats):
        rng = stream(seed, "train", step, repeat, 0)
        x0 = rng.standard_normal(x1.shape, dtype=np.float32)
        x0 = x0[rng.permutation(len(x0))]
        points.append(t * x1 + (1.0 - t) * x0)
        velocities.append(x1 - x0)
    return np.concatenate(points), np.concatenate(velocities)


def fit(
    x: np.ndarray,
    cond: np.ndarray | None = None,
    *,
    solver: str = "euler",
    n_steps: int = 8,
    n_repeats: int = 4,
    n_trees: int = 20,
    seed: int = 0,
    **parameters: float,
) -> list[xgb.Booster]:
    """Train one booster per time on events x (n, m); conditions (n, c) are further inputs."""
    x1 = x.astype(np.float32)
    boosters = []
    for step, t in enumerate(times(solver, n_steps)):
        x_t, u = noisy_pairs(x1, float(t), n_repeats, seed, step)
        inputs = x_t if cond is None else np.hstack([x_t, np.tile(cond, (n_repeats, 1))])
        table = xgb.QuantileDMatrix(inputs.astype(np.float32), u.astype(np.float32), max_bin=256)
        settings = {
            "objective": "reg:squarederror",  # its minimum is the mean velocity
            "tree_method": "hist",
            "multi_strategy": "multi_output_tree",  # one tree gives all m velocities
            "max_bin": 256,
            "seed": derive(seed, "booster", step),
            **parameters,
        }
        boosters.append(xgb.train(settings, table, n_trees))
    return boosters


def velocity(booster: xgb.Booster, x: np.ndarray, cond: np.ndarray | None) -> np.ndarray:
    """Return the learned mean velocity (n, m) at points x (n, m)."""
    inputs = x if cond is None else np.hstack([x, cond])
    return booster.inplace_predict(inputs.astype(np.float32)).reshape(x.shape).astype(np.float64)


def sample(
    boosters: list[xgb.Booster],
    n: int,
    m: int,
    cond: np.ndarray | None = None,
    *,
    solver: str = "euler",
    seed: int = 0,
) -> np.ndarray:
    """Return new events (n, m): noise, carried from t = 0 to t = 1 by the learned velocity."""
    x = stream(seed, "sample", 0).standard_normal((n, m))
    n_steps = len(boosters) // len(SOLVERS[solver])
    h, learned = 1.0 / n_steps, iter(boosters)
    for _ in range(n_steps):
        v = velocity(next(learned), x, cond)
        if solver == "midpoint":  # go half a step, and take the velocity there for the whole step
            v = velocity(next(learned), x + 0.5 * h * v, cond)
        x = x + h * v
    return x
