"""The card of a model in Markdown: what people said of it, what it knows by itself, its scores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .describe_flow import describe_flow
from .trained_flow import Flow

NOT_SAID = "not stated"
TURNS = ("turns with the event", "")
"""In place of a range, which is known only of events that are turned back."""

SAID = {
    "description": "Description",
    "intended_use": "Intended use",
    "limits": "Limits",
}
"""Entries of a card with a heading of their own."""


def model_card(flow: Flow, name: str = "flowBDT model") -> str:
    """Return the card of a trained flow, Markdown text; what nobody stated is said to be so."""
    card = flow.plan.get("card") or {}
    facts = {
        "Author": card.get("author"),
        "Licence": card.get("licence"),
        "Table": card.get("table"),
        "Hash of the table's file (sha256)": card.get("sha256"),
        "Origin of the table": card.get("origin"),
        "Events": f"{flow.plan['n_train']} to train, {flow.plan['n_valid']} to stop early",
        "Digest of the run": flow.plan["digest"],
    }
    parts = [f"# {card.get('title') or name}"]
    parts += [_table(("", ""), ((k, v or NOT_SAID) for k, v in facts.items()))]
    for key, title in SAID.items():
        parts += [f"## {title}", card.get(key) or f"{NOT_SAID.capitalize()}."]
    parts += ["## Columns", _columns(flow), _beyond(flow), "## Scores", _scores(card)]
    return "\n\n".join([*parts, "## How it was made", _fenced(describe_flow(flow, name))]) + "\n"


def _columns(flow: Flow) -> str:
    ranges, turn = flow.condition_ranges, flow.transform.turn
    turned = {*turn.angles, *(name for pair in turn.vectors for name in pair)}
    known = zip(flow.transform.columns, flow.columns["units"], strict=True)
    rows = [(c.name, "learned", c.low, c.high, unit or "") for c, unit in known]
    conditions = zip(ranges.names, ranges.low, ranges.high, strict=True)
    rows += [(name, "condition", low, high, "") for name, low, high in conditions]
    shown = (
        (name, what, *(TURNS if name in turned else _range(name, low, high, flow.categories)), unit)
        for name, what, low, high, unit in rows
    )
    return _table(("column", "", "least", "largest", "unit"), shown)


def _range(name: str, low: float, high: float, categories: Mapping[str, Any]) -> tuple[str, str]:
    if name in categories:
        return ", ".join(map(str, categories[name])), ""
    return f"{low:.6g}", f"{high:.6g}"


def _beyond(flow: Flow) -> str:
    """Return what the model cannot know."""
    text = "It knows no events beyond these ranges"
    if not flow.condition_names:
        return f"{text}."
    return f"{text}; for conditions outside of them its events are those of the nearest known ones."


def _scores(card: Mapping[str, Any]) -> str:
    if not card.get("scores"):
        return f"{NOT_SAID.capitalize()}."
    names = ("metric", "column", "value", "error", "floor")
    rows = (
        [f"{v:.4g}" if isinstance(v := one.get(name), float) else v or "" for name in names]
        for one in card["scores"]
    )
    return _table(names, rows) + "\n\nThe floor is what real events score against other real ones."


def _table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(c) for c in line) + " |" for line in lines)


def _cell(value: Any) -> str:
    return " ".join(str(value).replace("|", "\\|").split())


def _fenced(lines: Iterable[str]) -> str:
    return "\n".join(["```text", *lines, "```"])
