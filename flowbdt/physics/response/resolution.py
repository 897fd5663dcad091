"""Centres and widths of a response, found from training events: the units of what is learned.

A condition such as ``spread = width_of(Jet_pt - GenJet_pt, GenJet_pt, abs(GenJet_eta) > 2.5)`` is
replaced, before training, by an expression of the parent that was fitted to the training events.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ...errors import ConfigError
from .declaration import CollectionPart, Declaration, Home
from .events import Events, check_finite
from .quantities import Quantity
from .stage_tables import Rows, matched_rows

CENTRE, WIDTH = "centre_of", "width_of"
EXAMPLE = f"spread = {WIDTH}(Jet_pt - GenJet_pt, GenJet_pt, abs(GenJet_eta) > 2.5)"

LOWEST, KNOTS = 0.01, (0.25, 0.5, 0.75)
"""Quantiles of the axis: the least whose logarithm is taken; where the slope changes."""

ROUNDS = 8
"""Fits, each with weights 1 / distance of the last: least squares end as the median."""

LOG_MEDIAN = -0.394
"""Median of the logarithm of the absolute value of a standard normal number."""


def with_found_units(declared: Declaration, events: Events) -> Declaration:
    """Return a declaration whose centres and widths are expressions, fitted to training events.

    Raises ConfigError if one cannot be read.
    """
    collections = {
        name: _collection(name, content, declared.conditions, events)
        for name, content in declared.collections.items()
    }
    return replace(declared, collections=collections)


def _collection(name: str, content: Any, common: Sequence[str], events: Events) -> Any:
    """Return what is declared of a collection, with what was found; as it is without such texts."""
    if not isinstance(content, Mapping):
        return content
    parts = [content, *(part for part in content.get("stages") or () if isinstance(part, Mapping))]
    asked = [text for part in parts for text in part.get("conditions") or () if _call(text)]
    if not asked:
        return content
    rows = _training_rows(name, content, asked[0], events)

    def found(part: Mapping[str, Any]) -> dict[str, Any]:
        texts = part.get("conditions")
        if not texts or not any(map(_call, texts)):
            return dict(part)
        return {**part, "conditions": _fitted(texts, common, events, rows)}

    stages = {"stages": [*map(found, parts[1:])]} if len(parts) > 1 else {}
    return found(content) | stages


def _training_rows(name: str, content: Mapping[str, Any], text: str, events: Events) -> Rows:
    known = {k: v for k, v in content.items() if k in CollectionPart.__dataclass_fields__}
    part = CollectionPart(**known)
    there = {name, str(part.parent)} <= events.collections.keys()
    if not there or (part.index is None and part.match is None):
        raise ConfigError(f"condition {text!r} needs objects with a parent, which {name} has not")
    columns = tuple(c for c in events.collections[name].columns if c != part.index)
    return matched_rows(Home(name, (), columns, part.parent, part.index, part.match), events)


def _call(text: Any) -> ast.Call | None:
    """Return the call of a text that asks for a centre or a width."""
    if not isinstance(text, str) or not (f"{CENTRE}(" in text or f"{WIDTH}(" in text):
        return None
    try:
        body = ast.parse(text.strip()).body
    except SyntaxError:
        body = []
    match body:
        case [ast.Assign(value=ast.Call(func=ast.Name(id=name)) as call)]:
            if name in (CENTRE, WIDTH) and len(call.args) > 1 and not call.keywords:
                return call
    raise ConfigError(
        f"condition {text!r} must be 'name = {CENTRE}(what, axis, ...)', or {WIDTH}, with any"
        f" number of yes or no behind, such as {EXAMPLE!r}"
    )


def _fitted(texts: Sequence[str], common: Sequence[str], events: Events, rows: Rows) -> list[str]:
    """Return conditions with an expression in place of each centre and width."""
    known, names, result = dict(rows.own), list[str](), list[str]()

    def values(text: str) -> np.ndarray:
        quantity = Quantity.parse(text, names)
        quantity.check({*events.names, *(f"n{name}" for name in events.collections)})
        check_finite(events, sorted(quantity.sources & {*events.names}))
        return np.asarray(quantity.values(events, rows.event, known), dtype=np.float64)

    for text in [*common, *texts]:
        if (call := _call(text)) is not None:
            arguments = [ast.unparse(argument) for argument in call.args]
            columns = [values(f"found = {one}") for one in arguments]
            is_width = getattr(call.func, "id", "") == WIDTH
            text = f"{text.partition('=')[0].strip()} = {_fit(columns, arguments[1:], is_width)}"
        name = Quantity.parse(text, names).name
        known[name] = values(text)
        names.append(name)
        result.append(text)
    return result[len(common) :]


def _fit(columns: Sequence[np.ndarray], texts: Sequence[str], is_width: bool) -> str:
    """Return the expression of ``columns[0]`` (n,) in an axis and yes or no, of these texts.

    A centre is linear between knots of the axis, and the logarithm of a width between those of the
    axis' logarithm; each yes adds another line.
    """
    what, axis, *yes = columns
    low, inner, t = float(f"{np.quantile(axis, LOWEST):.4g}"), texts[0], axis
    if is_width and low > 0:
        t, inner = np.log(np.maximum(axis, low)), f"log(maximum({inner}, {low:g}))"
    terms, basis = ["", inner], [np.ones_like(t), t]
    for knot in np.quantile(t, KNOTS):
        terms.append(f"maximum({inner} - {knot:.4g}, 0)")
        basis.append(np.maximum(t - float(f"{knot:.4g}"), 0.0))
    for text, column in zip(texts[1:], yes, strict=True):
        terms += [f"({text})", f"({text}) * {inner}"]
        basis += [column, column * t]
    rows = np.column_stack(basis)
    if not is_width:
        return _sum(_median(rows, what), terms)
    nonzero = what != 0
    return f"exp({_sum(_median(rows[nonzero], np.log(np.abs(what[nonzero])) - LOG_MEDIAN), terms)})"


def _median(basis: np.ndarray, what: np.ndarray) -> np.ndarray:
    """Return the factors (k,) of a basis (n, k) that give the median of ``what`` (n,)."""
    weight = np.ones((len(what), 1))
    for _ in range(ROUNDS):
        factors = np.linalg.lstsq(basis * weight, what * weight[:, 0])[0]
        distance = np.abs(what - basis @ factors)
        weight = 1 / np.sqrt(np.maximum(distance, 0.01 * np.median(distance) + 1e-30))[:, None]
    return np.asarray(factors)


def _sum(factors: np.ndarray, terms: Sequence[str]) -> str:
    """Return a sum of terms with factors of four digits."""
    signed = zip(factors, (f" * {term}" if term else "" for term in terms), strict=True)
    parts = [f" {'-' if factor < 0 else '+'} {abs(factor):.4g}{by}" for factor, by in signed]
    return "".join(parts)[1:].removeprefix("+ ")
