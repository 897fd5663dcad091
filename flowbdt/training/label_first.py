"""Choose, on small tables, the discrete column that is drawn first, by a mixture for each value.

Compared is the mean log density of held-out rows and their values, by cross-validation on the
training rows: of a mixture for each value against one mixture of all rows and a classifier.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..config import ModelConfig
from ..flow.closed_form.mixture import standard
from ..flow.closed_form.mixture_per_value import N_FOLDS, USUAL, Complexity, held_out, search
from ..seeding import derive
from ..tables.event_table import EventTable
from ..tables.transforms import TableTransform
from ..trees.classifiers import FEW_ROWS, ValueClassifier

MOST_VALUES = 20
FEWEST_ROWS = 8
"""Values that the column may have, and rows for each of them on average."""

CLEAR = 0.05
"""Gain in log density per row from which on a column comes first."""


@dataclass(frozen=True)
class Label:
    """The column that comes first, and the complexity of its mixtures."""

    name: str
    complexity: Complexity
    gain: float

    def describe(self) -> str:
        """Return one line."""
        return (
            f"a mixture for each value of {self.name}: log density per held-out row {self.gain:.2f}"
            " above that of one mixture and a classifier"
        )


def may_choose(config: ModelConfig, table: EventTable) -> bool:
    """Return if a column may come first: where closed form and trees are left to the preset."""
    usual = ModelConfig(preset=config.preset).resolved(table.n, len(table.names))
    names = ("preconditioner", "booster", "rejection", "coupling", "validation_fraction")
    left = all(getattr(config, name) == getattr(usual, name) for name in names)
    plain = table.weight is None and table.cond is None and not np.isnan(table.x).any()
    return left and plain and table.n <= FEW_ROWS


def choose_label(
    table: EventTable,
    transform: TableTransform,
    fitted: Callable[[str], TableTransform],
    seed: int,
) -> Label | None:
    """Return the column of a table that comes first, None for none.

    ``transform`` is that without such a column, ``fitted`` returns that with one.
    """
    skeleton = transform.skeleton
    names = [
        name
        for k, (name, values) in enumerate(zip(skeleton.names, skeleton.values, strict=True))
        if 2 <= len(values) <= MOST_VALUES
        and FEWEST_ROWS * len(values) <= table.n
        and not skeleton.follows(k)
    ]
    if not names or not transform.n_latent or table.n < 2 * N_FOLDS:
        return None
    transform = fitted(names[0])
    y, sizes = standardised(transform.forward(table)), dict(zip(*_sizes(transform), strict=True))
    codes = dict(zip(transform.skeleton.names, transform.codes(table).T, strict=True))
    nothing, rough = np.zeros(table.n, dtype=np.int64), Complexity(1, USUAL)

    def information(name: str) -> float:
        """Return what a Gaussian for each value tells about it, in held-out rows."""
        shares = np.bincount(codes[name], minlength=sizes[name]) / table.n
        return held_out(y, codes[name], sizes[name], rough, seed) - float(
            shares @ np.log(np.maximum(shares, 1e-300))
        )

    name = max(names, key=information)
    density, complexity = search(y, codes[name], sizes[name], seed)
    seen = table.x[:, transform.numeric_places].astype(np.float32)
    one = derive(seed, "label")
    classifier = ValueClassifier.fit(seen, codes[name], sizes[name], None, seed=one, n_threads=1)
    gain = density - search(y, nothing, 1, seed)[0] + classifier.summary["log_loss"]
    return Label(name, complexity, gain) if gain > CLEAR else None


def _sizes(transform: TableTransform) -> tuple[tuple[str, ...], list[int]]:
    return transform.skeleton.names, [len(values) for values in transform.skeleton.values]


def standardised(z: np.ndarray) -> np.ndarray:
    """Return latent rows (n, m) with means of 0 and variances of 1."""
    shift, scale = standard(z, np.ones(len(z)))
    return (z - shift) / scale
