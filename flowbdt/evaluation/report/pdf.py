"""The page as one PDF: scores, settings and limits as text, then all figures as vectors."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...atomic_files import atomic
from ..differences import text as compared
from . import classifier_curves, sections, style
from .content import Content
from .published import WORDS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAPER = (8.27, 11.69)
"""A4, in inches."""
LINES = 74
"""Of a page of text."""
WIDTH = 100
"""Letters of a line of text; wider tables are set in smaller letters."""


def write_book(
    path: Path, title: str, content: Content, drawn: Mapping[str, Sequence[tuple[str, Figure]]]
) -> None:
    """Write text and figures, captions below, one figure a page; inside `style.drawing`.

    Parameters
    ----------
    path : of the PDF
    title : heading
    content : what the page is about
    drawn : section -> captions and figures
    """
    from matplotlib.backends.backend_pdf import PdfPages

    with atomic(path) as part, PdfPages(part, metadata={"CreationDate": None}) as book:
        for lines in _pages(title, content):
            book.savefig(_text_page(lines))
        for figures in drawn.values():
            for caption, figure in figures:
                width, height = figure.get_size_inches()
                said = textwrap.fill(caption, int(12 * width))
                figure.text(0.2 / width, -0.1 / height, said, va="top", fontsize=8.5)
                book.savefig(figure, bbox_inches="tight", pad_inches=0.3)


def _pages(title: str, content: Content) -> Iterator[list[str]]:
    """Yield the lines of each page of text; tables and words never share one."""
    first = next(iter(content.evaluations.values()))
    head = [title, "=" * len(title), "", *_wrapped(first.headline()), ""]
    names = _short(list(content.evaluations))
    numbered = [f"{short}: {name}" for name, short in names.items() if short != name]
    judged = {names[name]: evaluation for name, evaluation in content.evaluations.items()}
    found = [replace(d, first=names[d.first], second=names[d.second]) for d in content.differences]
    tables = compared(judged, found).splitlines()
    yield from _cut([*head, *numbered, "", *tables])
    yield from _cut([*_settings(content), "", *_words(content)])


def _short(names: list[str]) -> dict[str, str]:
    """Return names that fit into a table beside each other: numbers where they are long."""
    if sum(len(name) + 16 for name in names) <= 60:
        return {name: name for name in names}
    return {name: f"entry {i}" for i, name in enumerate(names, start=1)}


def _cut(lines: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(lines), LINES):
        yield lines[start : start + LINES]


def _settings(content: Content) -> Iterator[str]:
    yield from ("Settings", "--------", "")
    for name in content.evaluations:
        yield from (*_wrapped(f"{name}: {sections.settings_line(content, name)}"), "")


def _words(content: Content) -> Iterator[str]:
    parts: dict[str, list[str]] = {
        "What the scores mean": [f"{k}: {v}" for k, v in sections.DEFINITIONS],
        "Judges": classifier_curves.words(content.evaluations),
        "Limits": sections.limits(content),
    }
    if content.missing:
        parts["Not in the figure of quality"] = list(content.missing)
    if content.published:
        told = [f"{p.score} {p.text()}, {p.source}. {p.note}" for p in content.published]
        parts["Published figures"] = [WORDS, *told]
    for heading, lines in parts.items():
        yield from (heading, "-" * len(heading), "")
        for line in lines:
            yield from _wrapped(f"- {line}")
        yield ""


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent="  ")


def _text_page(lines: Sequence[str]) -> Figure:
    """Return a page of letters of one width, small enough for its longest line."""
    figure = style.new_figure(*PAPER)
    longest = max(WIDTH, *(len(line) for line in lines))
    look: dict[str, Any] = {"family": "monospace", "va": "top", "parse_math": False}
    size = 7.9 * WIDTH / longest
    figure.text(0.08, 0.95, "\n".join(lines), fontsize=size, linespacing=1.35, **look)
    return figure
