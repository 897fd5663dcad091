"""Choose, on small tables, the category that is drawn first, with a mixture for each value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..config import ModelConfig
from ..flow.closed_form.mixture import standard
from ..flow.closed_form.mixture_per_value import (
    LARGEST_SHRINKAGE,
    N_FOLDS,
    USUAL,
    Complexity,
    held_out,
    search,
)
from ..tables.event_table import EventTable
from ..tables.transforms import TableTransform

MOST_ROWS = 1_000
MOST_VALUES = 20
FEWEST_ROWS = 8
"""Rows of a small table, values that the column may have, and rows for each of them on average.
With 2,000 rows of MAGIC or Z to ee trees of the steps and rejection are as near to other rows, and
a boosted judge has .64 and .63 where it has .75 and .78 with a label first."""

SURE = 1.0
ROWS_PER_COLUMN = 5
"""Standard errors by which Gaussians for its values must gain in held-out density, or fewer rows
for each number: too few to learn trees or a rejection, which do harm there."""


@dataclass(frozen=True)
class Label:
    """The column that comes first, the complexity of its mixtures, and what these tell about it.

    The latter is what log density of held-out rows gains, or loses, with a Gaussian for each value.
    """

    name: str
    complexity: Complexity
    information: float

    def describe(self) -> str:
        """Return one line."""
        return (
            f"a mixture for each value of {self.name}: log density per held-out row"
            f" {self.information:+.2f} against one Gaussian for all; no trees of the steps and"
            " no rejection are learned beside it"
        )


def may_choose(config: ModelConfig, table: EventTable) -> bool:
    """Return if a column may come first: where closed form and trees are left to the preset."""
    usual = ModelConfig(preset=config.preset, particles={}).resolved(table.n, len(table.names))
    names = ("preconditioner", "booster", "rejection", "coupling", "observables")
    left = all(getattr(config, name) == getattr(usual, name) for name in names)
    plain = table.weight is None and table.cond is None and not np.isnan(table.x).any()
    return left and plain and table.n <= MOST_ROWS


def choose_label(
    table: EventTable,
    transform: TableTransform,
    fitted: Callable[[str], TableTransform],
    seed: int,
) -> Label | None:
    """Return the column of a table that comes first, None for none, as where columns are equal.

    ``transform`` is that without such a column, ``fitted`` returns that with one.
    """
    skeleton, n = transform.skeleton, table.n
    names = [
        name
        for k, (name, values) in enumerate(zip(skeleton.names, skeleton.values, strict=True))
        if name in table.names
        and name in (transform.order[:1] or skeleton.names)
        and (name in table.categories or len(values) == 2)
        and 2 <= len(values) <= min(MOST_VALUES, n // FEWEST_ROWS)
        and not skeleton.follows(k)
    ]
    equal = any(isinstance(s, dict) and s.get("equal") for s in transform.transform_spec().values())
    if not names or equal or not transform.n_latent or n < 2 * N_FOLDS:
        return None
    transform = fitted(names[0])
    z = transform.forward(table)
    shift, scale = standard(z, np.ones(n))
    y = (z - shift) / scale
    codes = dict(zip(transform.skeleton.names, transform.codes(table).T, strict=True))

    def density(codes: np.ndarray) -> np.ndarray:
        """Return the log density (n,) of held-out rows by a Gaussian for each code."""
        rough = (Complexity(1, shrinkage) for shrinkage in (USUAL, LARGEST_SHRINKAGE))
        tried = [held_out(y, codes, int(codes.max()) + 1, each, seed) for each in rough]
        return max(tried, key=np.mean)

    one, information, sure = density(np.zeros(n, dtype=np.int64)), {}, {}
    for name in names:
        log_shares = np.log(np.bincount(codes[name]) / n)[codes[name]]
        gain = density(codes[name]) - log_shares - one
        information[name] = float(gain.mean())
        sure[name] = information[name] > SURE * gain.std() / np.sqrt(n)
    name = max(names, key=information.__getitem__)
    if not sure[name] and n >= ROWS_PER_COLUMN * transform.n_latent:
        return None
    complexity = search(y, codes[name], int(codes[name].max()) + 1, seed)
    return Label(name, complexity, information[name])
