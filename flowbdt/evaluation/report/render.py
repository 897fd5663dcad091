"""Pages from templates: tables and images become HTML that needs no other file."""

from __future__ import annotations

import base64
import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ...atomic_files import write_bytes
from ...errors import MissingExtra
from . import figures

if TYPE_CHECKING:
    from jinja2 import Environment
    from matplotlib.figure import Figure


class Cell(NamedTuple):
    """Text of a cell. ``far``: bold; ``note``: smaller, behind."""

    text: str
    far: bool = False
    note: str = ""


Row = Sequence[str | Cell]


@dataclass(frozen=True)
class PageTable:
    """A table that scrolls by itself where the screen is narrow; first cells name their rows.

    ``words`` are the numbers of the columns, from 0, that hold sentences: set left, broken into
    lines; ``folded`` is a title that a click opens, empty for a table that is open.
    """

    head: Sequence[str]
    rows: Sequence[Row]
    caption: str = ""
    words: Sequence[int] = ()
    folded: str = ""

    @property
    def heads(self) -> list[Cell]:
        """The names of the columns as cells."""
        return [Cell(name) for name in self.head]

    @property
    def cells(self) -> list[list[Cell]]:
        """All rows as cells."""
        return [[c if isinstance(c, Cell) else Cell(c) for c in row] for row in self.rows]


class Image(NamedTuple):
    """A figure as a page shows it: PNG, or SVG (``kind`` "svg+xml")."""

    caption: str
    content: bytes
    kind: str = "png"

    @property
    def base64(self) -> str:
        """The file in letters."""
        return base64.b64encode(self.content).decode()


def write_figure(
    figure: Figure, folder: Path, name: str, caption: str, kind: str, pdf: bool = True
) -> Image:
    """Write a figure as ``kind`` ("png" or "svg"), which is returned, and by default as PDF."""
    for ending in (kind, "pdf") if pdf else (kind,):
        figures.save(figure, folder / f"{name}.{ending}")
    content = (folder / f"{name}.{kind}").read_bytes()
    return Image(caption, content, "svg+xml" if kind == "svg" else kind)


def write_page(folder: Path, template: str, title: str, **values: Any) -> Path:
    """Write ``report.html`` from a template; return its path."""
    write_bytes(folder / "report.html", render(template, title=title, **values).encode())
    return folder / "report.html"


def render(template: str, **values: Any) -> str:
    """Fill a template. Raises MissingExtra if jinja2 is not installed."""
    return page_templates().get_template(template).render(**values)


@functools.cache
def page_templates() -> Environment:
    """Return the templates of this package; HTML is escaped."""
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
    except ImportError as error:
        raise MissingExtra.of("jinja2", error, "plot") from error
    made = Environment(
        loader=PackageLoader(__package__),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["number"] = number
    return made


def number(text: str) -> str:
    """Escape; a narrow screen may break before the sign of an error, not after it or in 1e-9."""
    from markupsafe import Markup, escape  # comes with jinja2

    kept = re.sub(r"(?<=\de)-(?=\d)", "&#8209;", str(escape(text)))
    return Markup(kept.replace("± ", "±&nbsp;"))
