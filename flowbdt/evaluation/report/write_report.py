"""`write_together`: several runs, samples and reports on one page that holds everything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from ...atomic_files import make_folder, write_bytes, write_json
from ...tables.event_table import EventTable
from . import (
    classifier_curves,
    curves,
    figures,
    html,
    pdf,
    published,
    referee_checklist,
    score_tables,
    sections,
    style,
)
from .content import Content

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Content", "write_together"]

MOST_COLUMNS = 24

Drawn = dict[str, list[tuple[str, "Figure"]]]
"""Section -> captions and figures."""
Images = Mapping[str, list[tuple[str, bytes]]]
"""Section -> captions and SVG files."""


def write_together(
    folder: str | Path, content: Content, *, title: str = "Generated events, side by side"
) -> Path:
    """Write figures (SVG and PDF), ``together.json``, ``report.pdf`` and a page with all of it.

    Parameters
    ----------
    folder : where to write; made if absent
    content : what is shown
    title : heading of the page

    Returns
    -------
    Path of ``report.html``, which needs nothing else

    Raises
    ------
    MissingExtra
        If matplotlib is not installed; ``together.json`` has been written by then.
    RunError
        If the folder cannot be made or written.
    """
    folder = make_folder(folder)
    write_json(folder / "together.json", content.to_json())
    with style.drawing():
        drawn = _drawn(content)
        images = {
            section: [
                (caption, _written(figure, folder, f"{section}_{number:02d}"))
                for number, (caption, figure) in enumerate(found, start=1)
            ]
            for section, found in drawn.items()
        }
        pdf.write_book(folder / "report.pdf", title, content, drawn)
    body = [part for part in _body(content, images, title) if part]
    write_bytes(folder / "report.html", html.document(title, body).encode())
    return folder / "report.html"


def _written(figure: Figure, folder: Path, name: str) -> bytes:
    for kind in ("svg", "pdf"):
        figures.save(figure, folder / f"{name}.{kind}")
    return (folder / f"{name}.svg").read_bytes()


def _drawn(content: Content) -> Drawn:
    """Return all figures there are numbers for, in the order of the page."""
    made: Drawn = {}
    if results := classifier_curves.judged(content.evaluations):
        made["judges"] = [(classifier_curves.CAPTION, classifier_curves.judge_figure(results))]
    if any(content.quality.values()):
        made["quality"] = [_quality(content)]
    if content.real is not None and content.samples:
        made |= _of_events(content.real, content)
    if steps := {name: run["steps"] for name, run in content.distinct_runs().items()}:
        caption = (
            "Losses and trees of every step: root mean square error of the velocity on validation"
            " events (training events where there are none), share of the loss that trees explain,"
            " number of trees"
        )
        made["losses"] = [(caption, curves.steps_figure(steps))]
    return made


def _quality(content: Content) -> tuple[str, Figure]:
    points = {name: line for name, line in content.quality.items() if line}
    n = max(point.n_events for line in points.values() for point in line)
    caption = (
        f"Mean separation power of all columns against cost, {n:,} generated events each, without"
        " rejection and from the same noise, times between step models interpolated; bars are"
        " standard errors. Times are those of step after step, without the single compiled pass of"
        " a generation"
    )
    floor = _floor(content, n)
    caption += ". The band is truth against truth with its error" if floor else ""
    return caption, curves.quality_figure(points, floor)


def _floor(content: Content, n: int) -> tuple[float, float] | None:
    """Return the floor of the mean separation at ``n`` events: it falls as one over them."""
    for evaluation in content.evaluations.values():
        for r in evaluation.results:
            if (r.name, r.column) == ("separation", None) and r.floor is not None:
                scale = r.n / n if n else 1.0
                return scale * r.floor, scale * (r.floor_error or 0.0)
    return None


def _of_events(real: EventTable, content: Content) -> Drawn:
    samples, training = content.samples, content.training
    shown = real.select(real.names[:MOST_COLUMNS])
    caption = (
        "Shares of events and ratios to real; bands are statistical errors, triangles mark ratios"
        " outside the panel; no ratio where real has 11 events or fewer"
    )
    if len(real.names) > MOST_COLUMNS:
        caption += f"; the first {MOST_COLUMNS} of {len(real.names)} columns"
    pages = figures.column_pages(shown, samples, training)
    made: Drawn = {"columns": [(caption, page) for page in pages]}
    if len(real.names) > 1:
        caption = (
            "Pairs of columns: contours hold 39% and 86% of the events, as one and two standard"
            " deviations of a normal distribution do; diagonal: densities"
        )
        if len(real.names) > curves.MOST_CORNERS:
            caption += f"; the first {curves.MOST_CORNERS} of {len(real.names)} columns"
        made["corners"] = [(caption, curves.corner_figure(real, samples, real.names))]
        made["correlations"] = [
            (
                sections.correlation_caption(name, min(real.n, table.n)),
                figures.correlation_figure(real, table, training, name),
            )
            for name, table in samples.items()
        ]
    return made


HEADINGS = {
    "settings": "Exact settings",
    "data": "Data",
    "scores": "Scores, and which differences are real",
    "definitions": "What the scores mean",
    "published": "Beside published numbers",
    "judges": "Classifiers",
    "memorisation": "Memorisation",
    "quality": "Quality against cost",
    "columns": "Columns",
    "corners": "Pairs of columns",
    "correlations": "Correlations",
    "losses": "Losses",
    "limits": "Limits",
    "checklist": "What referees ask for",
}
"""Of the sections by their anchors, in the order of the page."""


def _body(content: Content, images: Images, title: str) -> Iterator[str]:
    parts = {anchor: found for anchor, found in _sections(content, images).items() if found}
    first = next(iter(content.evaluations.values()))
    yield f"<h1>{escape(title)}</h1>"
    yield f"<p>Entries: {escape('; '.join(content.evaluations))}.</p>"
    yield f"<p>{escape(first.headline())}.</p>"
    links = (f'<a href="#{anchor}">{escape(HEADINGS[anchor])}</a>' for anchor in parts)
    yield f"<nav>{' &middot; '.join(links)}</nav>"
    for anchor, found in parts.items():
        yield f'<h2 id="{anchor}">{escape(HEADINGS[anchor])}</h2>'
        yield from found


def _sections(content: Content, images: Images) -> dict[str, list[str]]:
    """Return the parts of every section; of those there is nothing for, none."""
    judged = content.evaluations
    shown = {
        anchor: [html.figure(*one, "svg+xml") for one in images.get(anchor, [])]
        for anchor in HEADINGS
    }
    told = classifier_curves.words(judged)
    side_by_side = f'<div class="tables">{"".join(score_tables.scores(judged))}</div>'
    missing = f"<p>Not in the figure: {escape('; '.join(content.missing))}.</p>"
    parts = {
        "settings": sections.settings(content),
        "data": sections.data(content),
        "scores": [side_by_side, *score_tables.differences(content.differences)],
        "definitions": [html.listed(sections.DEFINITIONS)],
        "published": published.section(content.published, judged) if content.published else [],
        "judges": [classifier_curves.recognised(judged), sections.bullets(told)] if told else [],
        "memorisation": sections.memorisation(content),
        "quality": [missing] if content.missing else [],
        "losses": [html.listed(sections.LOSSES), *sections.steps(content)],
        "limits": [sections.bullets(sections.limits(content))],
        "checklist": [referee_checklist.table(_holds(content, images))],
    }
    return {anchor: [*shown[anchor], *parts.get(anchor, [])] for anchor in HEADINGS}


def _holds(content: Content, images: Images) -> referee_checklist.Holds:
    results = [r for evaluation in content.evaluations.values() for r in evaluation.results]
    return referee_checklist.Holds(
        floors=any(r.floor is not None for r in results),
        histograms="columns" in images,
        curves="quality" in images,
        losses="losses" in images,
        public=bool(content.published),
    )
