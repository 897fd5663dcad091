"""The covariance matrices of the components: full, or low rank plus diagonal.

Each kind knows how to be estimated from weighted scatter matrices and how to build the `Kernel`
that answers for linear functions of the variables.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .conditioning import FullKernel, Kernel, LowRankKernel, Problem

FLOOR = 1e-6
"""Smallest variance of a standardised variable: keeps constant and collinear columns invertible."""

FACTOR_UPDATES = 5
"""Updates of the factors per scatter matrix; each raises the likelihood."""


class Covariances(ABC):
    """K covariance matrices of p variables."""

    kind: ClassVar[str]

    @classmethod
    @abstractmethod
    def estimate(cls, scatter: np.ndarray, rank: int, previous: Any = None) -> Covariances:
        """Return the matrices that fit the mean products ``scatter`` (K, p, p) best.

        ``previous`` are the matrices of the iteration before, or None.
        """

    @abstractmethod
    def scaled(self, scale: np.ndarray) -> Covariances:
        """Return the matrices of the variables multiplied by ``scale`` (p,)."""

    @abstractmethod
    def take(self, kept: np.ndarray) -> Covariances:
        """Return those of the components ``kept``: (K,), bool, or their numbers."""

    @abstractmethod
    def dense(self) -> np.ndarray:
        """Return all matrices, (K, p, p)."""

    @abstractmethod
    def kernel(self, log_weights: np.ndarray, means: np.ndarray, problem: Problem) -> Kernel:
        """Return what answers ``problem`` for these components; ``means`` are (K, p)."""

    @abstractmethod
    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return the numbers by name."""


@dataclass(frozen=True)
class Full(Covariances):
    """Any positive definite matrices, ``matrices`` (K, p, p), float64."""

    matrices: np.ndarray
    kind: ClassVar[str] = "full"

    @classmethod
    def estimate(cls, scatter: np.ndarray, rank: int, previous: Any = None) -> Full:
        """Return the scatter matrices with the floor added."""
        return cls(scatter + FLOOR * np.eye(scatter.shape[-1]))

    def scaled(self, scale: np.ndarray) -> Full:
        """Return the matrices in other units."""
        return Full(self.matrices * np.outer(scale, scale))

    def take(self, kept: np.ndarray) -> Full:
        """Return some of the components."""
        return Full(self.matrices[kept])

    def dense(self) -> np.ndarray:
        """Return the matrices."""
        return self.matrices

    def kernel(self, log_weights: np.ndarray, means: np.ndarray, problem: Problem) -> FullKernel:
        """Return the kernel from Cholesky factors."""
        return FullKernel(log_weights, means, self.matrices, problem)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return ``covariances`` (K, p, p)."""
        return {"covariances": self.matrices}


@dataclass(frozen=True)
class LowRank(Covariances):
    """``factors factors^T + diag(diagonals)``: (K, p, q) and (K, p), float64.

    For hundreds of columns: K p q numbers instead of K p^2, and as much less work per event.

    References
    ----------
    Ghahramani, Hinton 1996, "The EM algorithm for mixtures of factor analyzers" (Toronto
    CRG-TR-96-1), section 2.
    """

    factors: np.ndarray
    diagonals: np.ndarray
    kind: ClassVar[str] = "low_rank"

    @classmethod
    def estimate(cls, scatter: np.ndarray, rank: int, previous: Any = None) -> LowRank:
        """Return factors after a few updates, from ``previous`` or from principal axes."""
        found = [
            _factorise(
                matrix,
                _principal_factors(matrix, rank)
                if previous is None
                else (previous.factors[k], previous.diagonals[k]),
            )
            for k, matrix in enumerate(scatter)
        ]
        return cls(np.stack([pair[0] for pair in found]), np.stack([pair[1] for pair in found]))

    def scaled(self, scale: np.ndarray) -> LowRank:
        """Return the matrices in other units."""
        return LowRank(self.factors * scale[:, None], self.diagonals * scale**2)

    def take(self, kept: np.ndarray) -> LowRank:
        """Return some of the components."""
        return LowRank(self.factors[kept], self.diagonals[kept])

    def dense(self) -> np.ndarray:
        """Return the matrices written out."""
        product = self.factors @ self.factors.swapaxes(1, 2)
        return product + self.diagonals[:, :, None] * np.eye(self.diagonals.shape[1])

    def kernel(self, log_weights: np.ndarray, means: np.ndarray, problem: Problem) -> LowRankKernel:
        """Return the kernel from Woodbury's identity."""
        return LowRankKernel(log_weights, means, (self.factors, self.diagonals), problem)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return ``factors`` (K, p, q) and ``diagonals`` (K, p)."""
        return {"factors": self.factors, "diagonals": self.diagonals}


def _principal_factors(matrix: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the leading principal axes as factors (p, q), and the variance they leave (p,)."""
    values, axes = np.linalg.eigh(matrix)
    rank = min(rank, len(values) - 1)
    lead = slice(len(values) - rank, None)
    rest = values[: len(values) - rank].mean()
    factors = axes[:, lead] * np.sqrt(np.maximum(values[lead] - rest, FLOOR))
    return factors, np.maximum(np.diag(matrix) - (factors**2).sum(axis=1), FLOOR)


def _factorise(
    matrix: np.ndarray, start: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Return factors and diagonal after some EM updates of factor analysis."""
    factors, diagonal = start
    unit = np.eye(factors.shape[1])
    for _ in range(FACTOR_UPDATES):
        scaled = factors / diagonal[:, None]
        gain = np.linalg.solve(unit + factors.T @ scaled, scaled.T)
        product = matrix @ gain.T
        second = unit - gain @ factors + gain @ product
        factors = np.linalg.solve(second, product.T).T
        diagonal = np.maximum(np.diag(matrix) - (factors * product).sum(axis=1), FLOOR)
    return factors, diagonal


KINDS: dict[str, type[Covariances]] = {kind.kind: kind for kind in (Full, LowRank)}


def from_arrays(arrays: dict[str, np.ndarray]) -> Covariances:
    """Return the matrices that `Covariances.to_arrays` wrote."""
    if "factors" in arrays:
        return LowRank(arrays["factors"], arrays["diagonals"])
    return Full(arrays["covariances"])
