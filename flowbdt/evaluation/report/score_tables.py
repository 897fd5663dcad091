"""Tables of a page, the one way to make them, and those of scores and differences."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import NamedTuple

from ..differences import Difference, evaluations_of, label_of, legend, side_by_side, verdict
from ..evaluate import Evaluation
from ..metrics import Result, uncertain

FAR = 3.0
"""Standard errors above or below the floor from which a score is bold."""

MOST_ROWS = 30
"""Rows that a page shows at once; longer tables are folded."""


class Cell(NamedTuple):
    """Text of a cell. ``far``: bold; ``note``: smaller, behind; ``link``: to an anchor."""

    text: str
    far: bool = False
    note: str = ""
    link: str = ""


Row = Sequence[str | Cell]


def table(
    head: Sequence[str], rows: Sequence[Row], *, caption: str = "", words: Sequence[int] = ()
) -> str:
    """Return a table that scrolls by itself where the screen is narrow.

    Parameters
    ----------
    head : names of the columns
    rows : cells; a first cell names its row
    caption : above the table
    words : numbers of the columns, from 0, that hold sentences: set left, broken into lines
    """
    named = f"<caption>{escape(caption)}</caption>\n" if caption else ""
    lines = ["".join(_cell("td", c, i in words) for i, c in enumerate(row)) for row in rows]
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    top = "".join(_cell("th", name, i in words) for i, name in enumerate(head))
    return (
        f'<div class="scroll" tabindex="0"><table>{named}<thead><tr>{top}</tr></thead>\n<tbody>\n'
        f"{body}\n</tbody></table></div>"
    )


def _cell(tag: str, cell: str | Cell, words: bool) -> str:
    one = Cell(cell) if isinstance(cell, str) else cell
    kinds = " ".join(kind for kind, on in (("far", one.far), ("text", words)) if on)
    text = number(one.text)
    text = f'<a href="#{one.link}">{text}</a>' if one.link else text
    text += f' <span class="note">{number(one.note)}</span>' if one.note else ""
    scope = ' scope="col"' if tag == "th" else ""
    return f"<{tag}{scope}" + (f' class="{kinds}"' if kinds else "") + f">{text}</{tag}>"


def number(text: str) -> str:
    """Escape; a narrow screen may break before the sign of an error, not after it or in 1e-9."""
    return re.sub(r"(?<=\de)-(?=\d)", "&#8209;", escape(text)).replace("± ", "±&nbsp;")


def folded(title: str, content: str) -> str:
    """Return content that a click opens, and paper always."""
    return f"<details><summary>{escape(title)}</summary>{content}</details>"


def beside_floor(results: Sequence[tuple[str, Result]], first: str, caption: str) -> str:
    """Return named results of one evaluation: value, floor and excess, far ones bold."""
    rows = []
    for name, result in results:
        excess = "-" if result.excess is None else f"{result.excess:+.1f}"
        rows.append((name, result.text(), result.floor_text(), Cell(excess, far=is_far(result))))
    return table((first, "value", "floor", "excess"), rows, caption=caption)


def is_far(result: Result) -> bool:
    """Return whether a score is `FAR` from its floor, or farther, as it should not be."""
    return abs(result.excess or 0.0) >= FAR


def scores(evaluations: Mapping[str, Evaluation]) -> list[str]:
    """Return the scores of all entries side by side: whole table first, then each column's."""
    whole: list[Row] = []
    single: dict[str, list[Row]] = {}
    for (metric, column), found in side_by_side(evaluations).items():
        name = label(next(iter(found.values()))) if column is None else column
        row: Row = [name, *_entries(found, evaluations)]
        (whole if column is None else single.setdefault(metric, [])).append(row)
    head = ("score", *evaluations, "floor")
    made = [evaluations_of(one) or "-" for one in evaluations.values()]
    if any(count != "-" for count in made):
        whole.append(("evaluations of the velocity, per trajectory", *made, ""))
    parts = [table(head, whole, caption="Whole table", words=[0])] if whole else []
    for metric, rows in single.items():
        of_columns = {r.name: r for e in evaluations.values() for r in e.results if r.column}
        text = label(of_columns[metric]) + ", single columns"
        one = table(("column", *head[1:]), rows, caption=text)
        parts.append(one if len(rows) <= MOST_ROWS else folded(text, one))
    return parts


def _entries(found: Mapping[str, Result], names: Mapping[str, Evaluation]) -> Iterator[Cell]:
    """Yield the values of all entries and the floor; each its own where they differ."""
    floors = {result.floor_text() for result in found.values()}
    for name in names:
        result = found.get(name)
        if result is None:
            yield Cell("-")
            continue
        notes = [] if result.excess is None else [f"{result.excess:+.1f}"]
        if len(floors) > 1:
            notes.append(f"floor {result.floor_text()}")
        yield Cell(result.text(), is_far(result), f"({', '.join(notes)})" if notes else "")
    yield Cell(floors.pop() if len(floors) == 1 else "differ")


def label(result: Result) -> str:
    """Return the name of a score, with its unit and what it is a mean of."""
    text = _capital(label_of(result.name))
    text += " (in standard deviations of real)" if result.unit == "std" else ""
    return text + (", mean over columns" if "mean_over_columns" in result.settings else "")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def differences(found: Sequence[Difference]) -> list[str]:
    """Return the differences of the whole table with verdicts; long lists and columns folded."""
    whole = [d for d in found if d.column is None]
    single = [d for d in found if d.column is not None]
    parts = []
    if whole:
        real = [d for d in whole if d.real]
        many = len(whole) > MOST_ROWS
        shown = real if many else whole
        caption = "Differences that are real" if many else "Differences"
        parts.append(_differences(shown, caption) if shown else "")
        told = ". ".join(_capital(line) for line in legend(whole))
        parts.append(f'<p class="small">{escape(told)}.</p>')
        if many:
            parts.append(folded(f"All {len(whole)} differences", _differences(whole)))
    if single:
        text = f"{len(single)} differences of single columns, {sum(d.real for d in single)} real"
        parts.append(folded(text, _differences(single)))
    return parts


def _differences(found: Sequence[Difference], caption: str = "") -> str:
    head = ("difference", "score", "value", "in standard errors", "paired", "verdict")
    return table(head, [_difference(d) for d in found], caption=caption, words=[0, 1, 5])


def _difference(d: Difference) -> Row:
    score = label_of(d.metric) + ("" if d.column is None else f", {d.column}")
    sigmas, paired = f"{d.sigmas:+.1f}", "yes" if d.paired else "no"
    told = Cell(verdict(d), far=d.real)
    return (f"{d.second} - {d.first}", score, uncertain(d.value, d.error), sigmas, paired, told)
