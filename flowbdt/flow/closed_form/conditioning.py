"""Conditioning jointly normal variables, for all components of a mixture and many events at once.

The variables y of component k are normal. A `Problem` names linear functions of them: inputs r,
which are known, and outputs u, which are wanted. A kernel has everything worked out that does
not depend on r, so that an event costs two matrix products and one softmax.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

CHUNK = 64
"""Rows of one matrix product. Always this many, the last ones filled up: the product is then the
same operation for every event, and the result of a row does not depend on the others."""


@dataclass(frozen=True)
class Layout:
    """Order of the variables: m of x0 (if it is a source event), m of x1, n_cond conditions."""

    m: int
    n_cond: int
    has_source: bool

    @property
    def n_points(self) -> int:
        return self.m * (1 + self.has_source)

    @property
    def p(self) -> int:
        return self.n_points + self.n_cond

    def combination(self, data: float, source: float) -> np.ndarray:
        """Return the matrix (m, p) of ``data x1 + source x0``."""
        unit, none = np.eye(self.m), np.zeros((self.m, self.n_cond))
        blocks = [source * unit] if self.has_source else []
        return np.hstack([*blocks, data * unit, none])


@dataclass(frozen=True)
class Problem:
    """Inputs ``r = inputs @ y + noise`` and outputs ``u = outputs @ y + the same noise scaled``.

    The first m of the R inputs are the point, the others are conditions; the number O of outputs is
    0 or a multiple of m. ``inputs`` (R, p), ``outputs`` (O, p); ``noise`` (R,) are the variances of
    the noise, independent of y; ``shared`` (O,) the covariances of the noise of output i with that
    of input ``i % m``.
    """

    inputs: np.ndarray
    noise: np.ndarray
    outputs: np.ndarray
    shared: np.ndarray
    m: int


def density_problem(observed: np.ndarray) -> Problem:
    """Return the problem without outputs and noise for the variables ``observed`` (p,), bool."""
    inputs = np.eye(len(observed))[observed]
    nothing = np.zeros((0, len(observed)))
    return Problem(inputs, np.zeros(len(inputs)), nothing, np.zeros(0), len(inputs))


class Kernel(ABC):
    """Conditional means of a mixture for one `Problem`.

    ``centre`` (R,) is subtracted from r first, so that nothing large cancels. ``stack`` (R + 1,
    I K) takes (r - centre, 1) to I inner variables of every component. ``constant`` (K,) is the
    part of the log density that does not depend on r. ``gain`` (I K, O) takes the weighted inner
    variables to the outputs; ``base`` (K, O) are those where the inner variables vanish.
    """

    centre: np.ndarray
    stack: np.ndarray
    constant: np.ndarray
    gain: np.ndarray
    base: np.ndarray

    @abstractmethod
    def _log_joint(self, chunk: np.ndarray, inner: np.ndarray) -> np.ndarray:
        """Return log(weight k) + log p_k(r), (n, K), from the inner variables (n, I, K)."""

    def _outputs(
        self, chunk: np.ndarray, inner: np.ndarray, weights: np.ndarray, wanted: slice
    ) -> np.ndarray:
        """Return the weighted outputs (n, O'); ``inner`` is changed."""
        inner *= weights[:, None, :]
        mixed = inner.reshape(len(chunk), len(self.gain)) @ self.gain[:, wanted]
        return mixed + weights @ self.base[:, wanted]

    def _chunks(self, r: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        padded = np.zeros((CHUNK, r.shape[1] + 1))
        padded[:, -1] = 1.0
        for low in range(0, len(r), CHUNK):
            part = r[low : low + CHUNK]
            np.subtract(part, self.centre, out=padded[: len(part), :-1])
            yield slice(low, low + len(part)), padded

    def _inner(self, chunk: np.ndarray) -> np.ndarray:
        n_components = len(self.constant)
        shape = (len(chunk), self.stack.shape[1] // n_components, n_components)
        return (chunk @ self.stack).reshape(shape)

    def log_joint(self, r: np.ndarray) -> np.ndarray:
        """Return log(weight k) + log p_k(r) for events r (n, R), as (n, K)."""
        result = np.empty((len(r), len(self.constant)))
        for rows, chunk in self._chunks(r):
            result[rows] = self._log_joint(chunk, self._inner(chunk))[: rows.stop - rows.start]
        return result

    def answer(self, r: np.ndarray, wanted: slice) -> tuple[np.ndarray, np.ndarray]:
        """Return E[outputs | r] (n, O') and the posterior weights of the components (n, K)."""
        width = wanted.stop - wanted.start
        result, posterior = np.empty((len(r), width)), np.empty((len(r), len(self.constant)))
        for rows, chunk in self._chunks(r):
            inner, n = self._inner(chunk), rows.stop - rows.start
            weights = softmax(self._log_joint(chunk, inner))
            posterior[rows] = weights[:n]
            result[rows] = self._outputs(chunk, inner, weights, wanted)[:n]
        return result, posterior


def softmax(log_joint: np.ndarray) -> np.ndarray:
    """Return ``exp`` of each row (n, K) divided by its sum; the argument is used up."""
    log_joint -= log_joint.max(axis=1, keepdims=True)
    np.exp(log_joint, out=log_joint)
    log_joint /= log_joint.sum(axis=1, keepdims=True)
    return log_joint


def log_sum_exp(log_joint: np.ndarray) -> np.ndarray:
    """Return the logarithm of the sum of ``exp`` over each row (n, K), as (n,)."""
    largest = log_joint.max(axis=1)
    return largest + np.log(np.exp(log_joint - largest[:, None]).sum(axis=1))


def _stacked(matrices: np.ndarray) -> np.ndarray:
    """Return (K, I, R) as (R, I K): component fastest, so that sums over I run along K."""
    k, i, r = matrices.shape
    return np.ascontiguousarray(matrices.transpose(2, 1, 0).reshape(r, i * k))


def _affine(matrices: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """Return the stack of ``matrices (r - shift)``: one more row for the constant term."""
    offset = -np.einsum("kir,kr->ik", matrices, shifts).reshape(1, -1)
    return np.vstack([_stacked(matrices), offset])


class FullKernel(Kernel):
    """The kernel of full covariance matrices.

    With C the covariance of r, L its Cholesky factor, B that of outputs and r: the inner
    variables are ``w = L^-1 (r - mean)``, the density has ``|w|^2``, and
    ``E[u | r] = mean_u + (B L^-T) w``.
    """

    def __init__(
        self, log_weights: np.ndarray, means: np.ndarray, cov: np.ndarray, problem: Problem
    ) -> None:
        mean = means @ problem.inputs.T
        self.centre = np.exp(log_weights) @ mean
        spread = cov @ problem.inputs.T
        root = np.linalg.cholesky(problem.inputs @ spread + np.diag(problem.noise))
        whiten = np.linalg.inv(root)
        self.stack = _affine(whiten, mean - self.centre)
        diagonal = np.diagonal(root, axis1=1, axis2=2)
        size = len(problem.noise)
        self.constant = log_weights - np.log(diagonal).sum(axis=1) - 0.5 * size * np.log(2 * np.pi)
        cross = problem.outputs @ spread
        rows = np.arange(len(problem.shared))
        if len(rows):
            cross[:, rows, rows % problem.m] += problem.shared
        self.gain = _stacked((cross @ whiten.swapaxes(1, 2)).swapaxes(1, 2)).T
        self.base = means @ problem.outputs.T

    def _log_joint(self, chunk: np.ndarray, inner: np.ndarray) -> np.ndarray:
        return self.constant - 0.5 * np.square(inner).sum(axis=1)


class LowRankKernel(Kernel):
    """The kernel of matrices ``F F^T + D``, D diagonal, by Woodbury's identity.

    With ``M = 1 + F^T D^-1 F = R R^T``, the inner variables are ``f = R^-1 F^T D^-1 e``,
    ``e = r - mean``; ``e^T C^-1 e = e^T D^-1 e - |f|^2``, and with the diagonal part Q of the
    covariance of outputs and r, ``E[u | r] = mean_u + Q D^-1 e + (F_u - Q D^-1 F) R^-T f``.
    """

    def __init__(
        self, log_weights: np.ndarray, means: np.ndarray, cov: LowRank, problem: Problem
    ) -> None:
        mean = means @ problem.inputs.T
        self.centre = np.exp(log_weights) @ mean
        factors = problem.inputs @ cov.factors
        diagonal = cov.diagonals @ (problem.inputs**2).T + problem.noise
        scaled = factors / diagonal[:, :, None]
        unit = np.eye(factors.shape[2])
        root = np.linalg.cholesky(unit + factors.swapaxes(1, 2) @ scaled)
        back = np.linalg.inv(root)
        shift = mean - self.centre
        self.stack = _affine(back @ scaled.swapaxes(1, 2), shift)
        self.quadratic = np.ascontiguousarray((1.0 / diagonal).T)
        self.linear = np.ascontiguousarray((-2.0 * shift / diagonal).T)
        determinant = np.log(diagonal).sum(axis=1)
        determinant += 2.0 * np.log(np.diagonal(root, axis1=1, axis2=2)).sum(axis=1)
        square = (shift**2 / diagonal).sum(axis=1)
        size = len(problem.noise)
        self.constant = log_weights - 0.5 * (square + determinant + size * np.log(2 * np.pi))
        partner = np.arange(len(problem.shared)) % max(problem.m, 1)
        products = problem.outputs * problem.inputs[partner]
        ratio = (cov.diagonals @ products.T + problem.shared) / diagonal[:, partner]
        rest = problem.outputs @ cov.factors - ratio[:, :, None] * factors[:, partner]
        self.gain = _stacked((rest @ back.swapaxes(1, 2)).swapaxes(1, 2)).T
        self.base = means @ problem.outputs.T - ratio * shift[:, partner]
        self.ratio, self._partner = ratio, partner

    def _log_joint(self, chunk: np.ndarray, inner: np.ndarray) -> np.ndarray:
        e = chunk[:, :-1]
        square = np.square(e) @ self.quadratic + e @ self.linear
        return self.constant - 0.5 * (square - np.square(inner).sum(axis=1))

    def _outputs(
        self, chunk: np.ndarray, inner: np.ndarray, weights: np.ndarray, wanted: slice
    ) -> np.ndarray:
        direct = chunk[:, self._partner[wanted]] * (weights @ self.ratio[:, wanted])
        return super()._outputs(chunk, inner, weights, wanted) + direct


FLOOR = 1e-6
"""Smallest variance of a standardised variable: keeps constant and collinear columns invertible."""

FACTOR_UPDATES = 5
"""Updates of the factors per scatter matrix; each raises the likelihood."""


class Covariances(ABC):
    """K covariance matrices of p variables; `vars` are the arrays that a file stores."""

    kind: ClassVar[str]

    @classmethod
    @abstractmethod
    def estimate(cls, scatter: np.ndarray, rank: int, previous: Any = None) -> Covariances:
        """Return the matrices that fit the mean products ``scatter`` (K, p, p) best.

        ``previous`` are the matrices of the iteration before, or None.
        """

    def take(self, kept: np.ndarray) -> Self:
        """Return those of the components ``kept`` (K,), bool."""
        return type(self)(**{name: array[kept] for name, array in vars(self).items()})

    @abstractmethod
    def scaled(self, scale: np.ndarray) -> Covariances:
        """Return the matrices of the variables multiplied by ``scale`` (p,)."""

    @abstractmethod
    def dense(self) -> np.ndarray:
        """Return all matrices, (K, p, p)."""

    @abstractmethod
    def kernel(self, log_weights: np.ndarray, means: np.ndarray, problem: Problem) -> Kernel:
        """Return what answers ``problem`` for these components; ``means`` are (K, p)."""


@dataclass(frozen=True)
class Full(Covariances):
    """Any positive definite matrices, ``covariances`` (K, p, p), float64."""

    covariances: np.ndarray
    kind: ClassVar[str] = "full"

    @classmethod
    def estimate(cls, scatter: np.ndarray, rank: int, previous: Any = None) -> Full:
        return cls(scatter + FLOOR * np.eye(scatter.shape[-1]))

    def scaled(self, scale: np.ndarray) -> Full:
        return Full(self.covariances * np.outer(scale, scale))

    def dense(self) -> np.ndarray:
        return self.covariances

    def kernel(self, log_weights: np.ndarray, means: np.ndarray, problem: Problem) -> FullKernel:
        return FullKernel(log_weights, means, self.covariances, problem)


@dataclass(frozen=True)
class LowRank(Covariances):
    """``factors factors^T + diag(diagonals)``: (K, p, q) and (K, p), float64.

    For hundreds of columns: K p q numbers instead of K p^2, and as much less work per event.

    Source: Ghahramani, Hinton 1996, "The EM algorithm for mixtures of factor analyzers" (Toronto
    CRG-TR-96-1), section 2.
    """

    factors: np.ndarray
    diagonals: np.ndarray
    kind: ClassVar[str] = "low_rank"

    @classmethod
    def estimate(cls, scatter: np.ndarray, rank: int, previous: Any = None) -> LowRank:
        if previous is None:
            starts = [_principal_factors(matrix, rank) for matrix in scatter]
        else:
            starts = list(zip(previous.factors, previous.diagonals, strict=True))
        pairs = [_factorise(*pair) for pair in zip(scatter, starts, strict=True)]
        return cls(*(np.stack(each) for each in zip(*pairs, strict=True)))

    def scaled(self, scale: np.ndarray) -> LowRank:
        return LowRank(self.factors * scale[:, None], self.diagonals * scale**2)

    def dense(self) -> np.ndarray:
        product = self.factors @ self.factors.swapaxes(1, 2)
        return product + self.diagonals[:, :, None] * np.eye(self.diagonals.shape[1])

    def kernel(self, log_weights: np.ndarray, means: np.ndarray, problem: Problem) -> LowRankKernel:
        return LowRankKernel(log_weights, means, self, problem)


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
