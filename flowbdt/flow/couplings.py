"""Couplings: the assignment of noise rows x0 to events x1.

A coupling only reorders the rows of x0. x1, its conditions and weights keep their order, and no
row is repeated or dropped, so both marginals are exactly those handed in.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import msgspec
import numpy as np

from ..errors import DataWarning, InputError
from ..registry import Registry
from ..typed_settings import check_fields

COUPLINGS: Registry[Coupling] = Registry("coupling")


class Coupling(ABC):
    """Pairs x0 with x1."""

    needs_source: ClassVar[bool] = False
    """True if x0 is a source table (row i belongs to event i) and not noise."""

    def __post_init__(self) -> None:
        check_fields(self, "coupling setting")

    @abstractmethod
    def pair(self, x0: np.ndarray, x1: np.ndarray, cond: Any, rng: np.random.Generator) -> Any:
        """Return the rows of x0 (n, m) in the order in which they belong to x1 (n, m).

        ``cond`` (n, c) or None are the conditions of x1; NaN equals NaN. Nothing but ``rng`` is
        random. Raises InputError if x0 and x1 differ in shape.
        """


def _same_shape(x0: np.ndarray, x1: np.ndarray) -> None:
    if x0.shape != x1.shape:
        raise InputError(
            f"x0 and x1 must have the same shape (events, columns), got {x0.shape} and {x1.shape}"
        )


@COUPLINGS.register("independent")
class Independent(Coupling):
    """Pair at random: x0 is independent of x1, whatever the order of the rows."""

    def pair(self, x0: np.ndarray, x1: np.ndarray, cond: Any, rng: np.random.Generator) -> Any:
        _same_shape(x0, x1)
        return x0[rng.permutation(len(x0))]


@COUPLINGS.register("given")
class SourceCoupling(Coupling):
    """Keep the pairs as they came: data-to-data flows, for instance detector to particle level."""

    needs_source: ClassVar[bool] = True

    def pair(self, x0: np.ndarray, x1: np.ndarray, cond: Any, rng: np.random.Generator) -> Any:
        _same_shape(x0, x1)
        return x0


@COUPLINGS.register("teacher")
@dataclass(eq=False)
class Teacher(SourceCoupling):
    """Keep the pairs that the trained run ``digest`` makes of noise: `flowbdt.tuning.distil`."""

    needs_source: ClassVar[bool] = False

    digest: str = ""

    def pair(self, x0: np.ndarray, x1: np.ndarray, cond: Any, rng: np.random.Generator) -> Any:
        # in double precision, so that the target, x1 - x0, is not rounded
        return super().pair(x0, x1, cond, rng).astype(np.float64)


@COUPLINGS.register("minibatch_ot")
@dataclass(eq=False)
class MinibatchOT(Coupling):
    """Pair so that the summed squared distance within random batches is smallest.

    Paths cross less, and fewer solver steps are needed. An exact assignment is used: drawing
    pairs from the transport plan, as torchcfm does, repeats some events and drops others (its
    issue 142).

    Cost: n times batch_size distances, and about n times batch_size^2 operations.

    Source: Tong et al. 2024, arXiv 2302.00482, section 3.3; Pooladian et al. 2023, arXiv
    2304.14772.

    Parameters
    ----------
    batch_size : int, at least 2; events per assignment
    by_condition : bool
        Pair only among events whose conditions are equal. Pairing blind to the conditions moves
        some of the condition into x0: generation, which draws x0 independently of the condition,
        then starts from the wrong points (torchcfm issue 117). With continuous conditions no two
        events are equal: the pairing is independent, with a DataWarning.
    """

    batch_size: Annotated[int, msgspec.Meta(ge=2)] = 256
    by_condition: bool = True

    def pair(self, x0: np.ndarray, x1: np.ndarray, cond: Any, rng: np.random.Generator) -> Any:
        _same_shape(x0, x1)
        paired = np.array(x0)
        for rows in self.groups(len(x0), cond):
            # random batches: in a sorted table neighbours are alike and would fight for one x0
            shuffled = rng.permutation(rows)
            n_batches = -(-len(rows) // self.batch_size)
            for batch in np.array_split(shuffled, max(n_batches, 1)):
                paired[batch] = x0[batch][assign(x0[batch], x1[batch])]
        return paired

    def groups(self, n: int, cond: np.ndarray | None) -> list[np.ndarray]:
        """Return the rows of each group that may be paired among itself."""
        if cond is None or not self.by_condition or n == 0:
            return [np.arange(n)]
        groups = equal_rows(cond)
        if 2 * len(groups) > n > 1:
            warnings.warn(
                f"minibatch_ot pairs among events of equal conditions, but {n} events have"
                f" {len(groups)} different conditions: the pairing is close to independent;"
                " use the coupling 'independent', or by_condition=False if the condition hardly"
                " matters",
                DataWarning,
                stacklevel=3,
            )
        return groups


def equal_rows(cond: np.ndarray) -> list[np.ndarray]:
    """Return the row numbers of each group of equal rows of cond (n, c); NaN equals NaN."""
    cond = np.asarray(cond, dtype=np.float64)
    missing = np.isnan(cond)
    keys = np.hstack([np.where(missing, 0.0, cond), missing])
    _, group = np.unique(keys, axis=0, return_inverse=True)
    group = group.reshape(-1)
    order = np.argsort(group, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(group[order])) + 1)


def assign(x0: np.ndarray, x1: np.ndarray) -> np.ndarray:
    """Return the permutation p (n,) of least summed squared distance of x0[p] to x1.

    Exact (scipy's linear_sum_assignment); cost n^3 at worst.

    Examples
    --------
    >>> assign(np.array([[0.0], [5.0]]), np.array([[6.0], [1.0]])).tolist()
    [1, 0]
    """
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    if x1.shape[1] == 0:
        return np.arange(len(x1))
    return linear_sum_assignment(cdist(x1, x0, "sqeuclidean"))[1]
