"""Results of metrics, the registry of metrics, and statistics that they share."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from ...errors import InputError
from ...registry import Registry
from ...tables import checks


@dataclass(frozen=True)
class Result:
    """One score with its error, beside the truth-against-truth floor of the same size.

    Parameters
    ----------
    name : the metric, e.g. ``"separation"``
    value, error : the score and its standard error, in ``unit`` ("" for a pure number)
    n : events in the smaller of the two samples compared
    floor, floor_error : the same score of truth against independent truth, or None
    column : the column (or relation) it belongs to; None for the whole table
    settings : everything needed to get the number again (bins, seeds, repetitions)
    """

    name: str
    value: float
    error: float
    n: int
    floor: float | None = None
    floor_error: float | None = None
    column: str | None = None
    unit: str = ""
    settings: dict[str, Any] = field(default_factory=dict)

    def with_floor(self, floor: Result) -> Result:
        """Return this result with value and error of ``floor`` as its floor, and its curve."""
        curve = {"floor_roc": floor.settings["roc"]} if "roc" in floor.settings else {}
        settings = {**self.settings, **curve}
        return replace(self, floor=floor.value, floor_error=floor.error, settings=settings)

    @property
    def excess(self) -> float | None:
        """Distance from the floor in combined standard errors; None without a floor.

        None for a relation that holds as well as in real events, too: the floor is their rounding,
        and how far below it one is says nothing.
        """
        if self.floor is None or self.floor_error is None:
            return None
        if self.name == "relation" and self.value <= self.floor:
            return None
        error = math.hypot(self.error, self.floor_error)
        return (self.value - self.floor) / error if error > 0 else None

    def to_json(self) -> dict[str, Any]:
        """Return a dict that JSON can hold; ``Result(**content)`` rebuilds it."""
        return asdict(self)

    def text(self) -> str:
        """Return ``value ± error``."""
        return uncertain(self.value, self.error)

    def floor_text(self) -> str:
        """Return ``floor ± error``, or ``-`` without a floor."""
        if self.floor is None or self.floor_error is None:
            return "-"
        return uncertain(self.floor, self.floor_error)


@dataclass(frozen=True)
class Metric:
    """A registered metric: the function and the kind of its arguments.

    Parameters
    ----------
    kind : ``"column"`` and ``"pairs"`` take two arrays (n,), ``"table"`` two arrays (n, d),
        ``"classifier"`` two arrays (n, d) and a maker of classifiers, ``"memorisation"`` held-out,
        generated and training arrays (n, d), ``"relation"`` a dict of columns and a relation,
        ``"profiles"`` and ``"tags"`` two arrays (n,) and two of a condition, ``"residual"`` and
        ``"lost"`` real, generated and training arrays (n, d) and makers of models
    same : the expected value when both samples are the same events
    label : the name in tables of a report
    quick : options of a quick evaluation: less precise, the same meaning
    signed : True if it takes weights of both signs; others get the non-negative ones of
        `flowbdt.trees.signed_weights` in their place
    """

    function: Callable[..., Any]
    kind: str
    same: float
    label: str
    quick: dict[str, Any] = field(default_factory=dict)
    signed: bool = False

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self.function(*args, **options)

    def options(self) -> list[str]:
        """Return the options a user may set (keyword arguments but weights, partners, seed)."""
        parameters = inspect.signature(self.function).parameters.values()
        fixed = {"seed", "weight_real", "weight_generated", "weight_training", "weight", "partners"}
        return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in fixed]


METRICS: Registry[Metric] = Registry("metric")


def uncertain(value: float, error: float) -> str:
    """Return value and error, both to two significant digits of the error.

    Examples
    --------
    >>> uncertain(0.09823, 0.0058)
    '0.0982 ± 0.0058'
    >>> uncertain(3.21e-7, 1.2e-8)
    '3.21e-07 ± 1.2e-08'
    """
    if not error > 0 or not math.isfinite(value):
        return f"{value:.3g} ± {error:.2g}"
    decimals = 1 - math.floor(math.log10(error))
    if decimals > 6 or error >= 1e6:
        digits = max(0, math.floor(math.log10(max(abs(value), error))) + decimals)
        return f"{value:.{digits}e} ± {error:.1e}"
    return f"{value:.{max(decimals, 0)}f} ± {error:.{max(decimals, 0)}f}"


def checked_events(
    values: np.ndarray,
    weight: np.ndarray | None,
    ndim: int,
    what: str,
    *,
    signed: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Return events of ``ndim`` dimensions as float64 and weights (ones if None), checked."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != ndim or array.shape[0] == 0:
        shape = "(n,)" if ndim == 1 else "(n, d)"
        raise InputError(f"{what} events must have shape {shape}, n >= 1, got {array.shape}")
    flat = array.reshape(array.shape[0], -1)
    checks.finite(flat, [f"x{i}" for i in range(flat.shape[1])], f"{what} events")
    if weight is None:
        return array, np.ones(array.shape[0])
    # exactly, so that whole numbers of weight count as repeated events
    return array, checks.rescaled(checks.weights(weight, array.shape[0], signed=signed))


def norm_error(
    difference: np.ndarray, noise: np.ndarray, norm: Callable[[np.ndarray], float]
) -> float:
    """Return the standard error of ``norm(difference)`` from replicas of its noise.

    ``noise`` holds replicas (k, ...) of the difference minus the difference itself. A norm of
    replica differences would count the noise twice and make errors near the floor up to twice too
    large. So the difference is shrunk by the part of its norm that noise alone explains,
    ``s^2 = 1 - (mean norm of noise / norm)^2``, not below 0. (Derived here.)
    """
    value = norm(difference)
    typical = float(np.mean([norm(one) for one in noise]))
    shrink = math.sqrt(max(0.0, 1.0 - (typical / value) ** 2)) if value > 0 else 0.0
    return float(np.std([norm(shrink * difference + one) for one in noise], ddof=1))


def same_width(real: np.ndarray, generated: np.ndarray) -> None:
    """Refuse two samples with different numbers of columns."""
    if real.shape[1] != generated.shape[1]:
        raise InputError(
            f"both samples must have the same columns, got {real.shape[1]} (real) and"
            f" {generated.shape[1]} (generated)"
        )


def effective_size(weight: np.ndarray) -> float:
    """Return (sum w)^2 / sum w^2, the number of unit-weight events of the same precision."""
    weight = checks.relative(weight)
    return float(weight.sum() ** 2 / (weight**2).sum())


def placements(scores: np.ndarray, others: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return for every score the weighted share of ``others`` below it, ties counted half."""
    order = np.argsort(others, kind="stable")
    total = np.concatenate([[0.0], np.cumsum(weight[order])])
    sorted_others = others[order]
    below = total[np.searchsorted(sorted_others, scores, side="left")]
    up_to = total[np.searchsorted(sorted_others, scores, side="right")]
    return 0.5 * (below + up_to) / total[-1]


def auc_error(
    positive: np.ndarray,
    negative: np.ndarray,
    weight_positive: np.ndarray,
    weight_negative: np.ndarray,
) -> float:
    """Return the standard error of P(positive score > negative score) from finite samples.

    The variance of the placements of each sample in the other, over the effective sizes; at
    least one misplaced event, so that a perfect separation does not claim to be exact.

    References
    ----------
    E. R. DeLong, D. M. DeLong, D. L. Clarke-Pearson, Biometrics 44 (1988) 837, eq. 5.
    """
    variance = 0.0
    samples = [(positive, weight_positive), (negative, weight_negative)]
    for (scores, weight), other in zip(samples, samples[::-1], strict=True):
        place = placements(scores, *other)
        mean = np.average(place, weights=weight)
        spread = max(0.0, float(np.average((place - mean) ** 2, weights=weight)))
        variance += spread / effective_size(weight)
    smallest = 1.0 / (effective_size(weight_positive) + effective_size(weight_negative))
    return max(math.sqrt(variance), smallest)
