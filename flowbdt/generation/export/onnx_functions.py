"""Terms of expressions in a graph, in double precision.

onnxruntime has sine, cosine, exponential and logarithm in double, the arc tangent in single
precision, and the others not at all.
"""

from __future__ import annotations

import numpy as np

from ..packed import arrays
from .onnx_graph import Graph, Tensor

TURN = 2 * np.pi

OPERATORS = (
    *("", "", "Add", "Sub", "Mul", "Div", "Pow", "Neg"),
    *("Log", "Exp", "Sqrt", "Abs", "Min", "Max", "", "Sin", "Cos"),
)
"""By the codes of terms; what has a node of its own."""

SMALL = 0.3
"""Below it the difference of two exponentials would lose digits of the hyperbolic sine."""

LARGE = 20.0
"""From here on the hyperbolic tangent is 1."""


def of_one(graph: Graph, code: int, x: Tensor) -> Tensor:
    """Return a term of one value."""
    if code < len(OPERATORS) and OPERATORS[code]:
        return graph.node(OPERATORS[code], x)
    match code:
        case arrays.WRAP:
            return whole_turn(graph, x, -np.pi)
        case arrays.TAN:
            return graph.node("Sin", x) / graph.node("Cos", x)
        case arrays.SINH:
            return _sinh(graph, x)
        case arrays.COSH:
            return _cosh(graph, x)
        case arrays.TANH:
            near = x.clip(-LARGE, LARGE)
            return _sinh(graph, near) / _cosh(graph, near)
        case arrays.ARCSINH:
            return _arcsinh(graph, x)
        case arrays.RINT:
            return graph.node("Round", x)
        case arrays.SIGNED_ROOT:
            root = graph.node("Sqrt", x.abs())
            return graph.where(x < 0.0, -root, root)
    return graph.node("Equal", x, 0.0).cast(np.float64)  # not


def of_two(graph: Graph, code: int, a: Tensor, b: Tensor) -> Tensor:
    """Return a term of two values; conditions are 1 where they hold, else 0."""
    match code:
        case arrays.ARCTAN2:
            return wrapped_angle(graph, b, a)
        case arrays.HYPOT:
            return graph.node("Sqrt", a * a + b * b)
        case arrays.LESS:
            return (a < b).cast(np.float64)
        case arrays.LESS_EQUAL:
            return (a <= b).cast(np.float64)
        case arrays.EQUAL:
            return graph.node("Equal", a, b).cast(np.float64)
        case arrays.AND:
            return a * b
        case arrays.OR:
            return graph.node("Max", a, b)
    value = graph.node(OPERATORS[code], a, b)
    if code < arrays.MINIMUM:
        return value
    return graph.where(a.is_nan() | b.is_nan(), np.nan, value)  # where one of them is, both are


def whole_turn(graph: Graph, angle: Tensor, low: float) -> Tensor:
    """Return angles moved by whole turns to those from ``low`` on."""
    above = angle - low
    return (angle - graph.node("Floor", above / TURN) * TURN).clip(low, np.nextafter(low + TURN, 0))


def direction(graph: Graph, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cosine and the sine of the angles of vectors; 0 of those that vanish."""
    radius = graph.node("Sqrt", x * x + y * y)
    radius = graph.where(radius <= 0.0, 1.0, radius)
    return x / radius, y / radius


def wrapped_angle(graph: Graph, x: Tensor, y: Tensor) -> Tensor:
    """Return the angles of vectors, in [-pi, pi]; 0 of those that vanish.

    That in single precision is corrected by the sine of what it is off, which is small, so that the
    cube of it does not matter.
    """
    along, across = direction(graph, x, y)
    # of the half angle: between -90 and 90 degrees, so no quadrants are needed
    forward = graph.node("Max", along + 1.0, 1e-30)
    rough = graph.node("Atan", (across / forward).cast(np.float32)).cast(np.float64) * 2.0
    rough = graph.where(along <= -1.0, np.pi, rough)
    sine, cosine = graph.node("Sin", rough), graph.node("Cos", rough)
    return rough + (across * cosine - along * sine)


def _cosh(graph: Graph, x: Tensor) -> Tensor:
    large = graph.node("Exp", x.abs())
    return large * 0.5 + graph.node("Div", 0.5, large)


def _sinh(graph: Graph, x: Tensor) -> Tensor:
    square = x * x
    series = square / 110.0 + 1.0
    for product in (72.0, 42.0, 20.0, 6.0):  # of neighbouring numbers: the Taylor series
        series = series * square / product + 1.0
    large = graph.node("Exp", x.abs())
    far = large * 0.5 - graph.node("Div", 0.5, large)
    return graph.where(x.abs() < SMALL, x * series, graph.where(x < 0.0, -far, far))


def _arcsinh(graph: Graph, x: Tensor) -> Tensor:
    """By log(1 + u), in which rounding is divided out: Goldberg, ACM Comput. Surv. 23, 1991."""
    size = x.abs()
    u = size + size * size / (graph.node("Sqrt", size * size + 1.0) + 1.0)
    one_more = u + 1.0
    gained = one_more - 1.0
    lost = graph.where(gained <= 0.0, 1.0, gained)
    value = graph.where(gained <= 0.0, u, graph.node("Log", one_more) * u / lost)
    return graph.where(x < 0.0, -value, value)
