"""Pages about one evaluation and about entries together, their figures, numbers and PDF."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...atomic_files import atomic, make_folder, write_json
from ...errors import MissingExtra
from ..differences import text as compared
from ..evaluate import Evaluation
from ..model_errors import amplification, replicas_of_sample
from ..verdict import by_excess, tables_as_judged, verdict_of
from . import classifier_curves, curves, figures, published, score_tables, sections, style
from .render import Image, render, write_figure, write_page
from .sections import Content

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEGEND = (
    "Every score stands beside its floor: the same score for real events against independent real"
    " events of the same number. A perfect generator reaches the floor, not zero. Errors are"
    " standard errors. Excess is (value - floor) in combined standard errors; from 3 on it is bold."
)

PAIRS = (
    "Pairs that differ most beyond what their columns do by themselves: shares of events, and the"
    " mean of the second in bins of the first, with its error and quantiles"
)

MARKS = (
    "bands are statistical errors, triangles mark ratios outside the panel; no ratio where real has"
    " 11 events or fewer"
)

MODEL_BANDS = "wider, paler bands have the error of the model, by the spread of its replicas, too"

Captioned = Iterator[tuple[str, "Figure"]]
"""Captions and figures."""


# ---- one evaluation


def write_report(
    evaluation: Evaluation,
    real: Any,
    generated: Any,
    folder: str | Path,
    training: Any = None,
    *,
    title: str = "Real against generated events",
    max_columns: int = 48,
    pdf: bool = True,
) -> Path:
    """Write ``report.json``, figures (PNG and PDF) and a self-contained ``report.html``.

    Parameters
    ----------
    evaluation : Evaluation, from `flowbdt.evaluate`
    real, generated, training : the tables it was made of (EventTable, DataFrame or array)
    folder : where to write; made if absent. Files of the same name are replaced.
    max_columns : so many columns are drawn, the worst first
    pdf : write each figure as PDF, too

    Returns
    -------
    Path of ``report.html``; it opens without network, on a phone as on a desk.

    Raises
    ------
    MissingExtra
        If matplotlib or jinja2 is not installed; ``report.json`` has been written by then.
    RunError
        If the folder cannot be made or written.
    """
    kept = evaluation.settings
    known = [table for table in (real, generated, training) if table is not None]
    truth, made, *others = tables_as_judged(evaluation, *known)
    other = others[0] if others else None
    drawn = by_excess(truth.names, evaluation)[:max_columns]
    verdict = verdict_of(evaluation, truth, made)
    made_how = dict(kept.get("generated") or {})
    replica = replicas_of_sample(made_how, made.n)
    worth = [] if replica is None else amplification(made, replica, tuple(drawn))

    def draw() -> Iterator[tuple[str, str, Figure]]:
        table, by_name = truth.select(drawn), {"generated": replica}
        pages = figures.column_pages(table, {"generated": made}, other, by_name)
        for number, figure in enumerate(pages, start=1):
            first = (number - 1) * figures.PER_PAGE
            names = ", ".join(drawn[first : first + figures.PER_PAGE])
            caption = f"Columns {names}: shares and ratios to real; {MARKS}"
            caption += "" if replica is None else f"; {MODEL_BANDS}"
            yield f"columns_{number:02d}", caption, figure
        if verdict.pairs:
            yield "pairs", PAIRS, figures.pair_figure(truth, {"generated": made}, verdict.pairs)
        if len(truth.names) > 1:
            caption = "Differences of Pearson correlations, raw columns"
            if len(truth.names) > figures.MOST_SHOWN:
                caption += f"; the {figures.MOST_SHOWN} columns that differ most"
            yield "correlations", caption, figures.correlation_figure(truth, made, other)
        if results := classifier_curves.judged({"generated": evaluation}):
            figure = classifier_curves.judge_figure(results)
            yield "classifiers", classifier_curves.CAPTION, figure

    return write_scores_page(
        folder,
        title,
        evaluation.to_json(),
        draw,
        pdf,
        verdict=verdict,
        lead=[f"{evaluation.headline()}."],
        notes=evaluation.notes,
        legend=LEGEND,
        tables=[*score_tables.tables_of(evaluation), *score_tables.worth_tables(worth, other)],
        settings=[
            ("events", ", ".join(f"{k} {v:,}" for k, v in evaluation.sizes.items())),
            ("seed", str(evaluation.seed)),
            ("made by", sections.made_by(made_how) if made_how else "not recorded"),
            ("quick", str(evaluation.settings.get("quick"))),
            ("relations", ", ".join(evaluation.settings.get("relations", [])) or "none"),
            ("observables", "; ".join(kept.get("observables", ())) or "none"),
            ("versions", ", ".join(f"{k} {v}" for k, v in evaluation.versions.items())),
            ("all numbers and settings", "report.json beside this page"),
        ],
    )


def write_scores_page(
    folder: str | Path,
    title: str,
    numbers: dict[str, Any],
    draw: Callable[[], Iterator[tuple[str, str, Figure]]],
    pdf: bool = True,
    **words: Any,
) -> Path:
    """Write ``numbers`` as ``report.json``, then figures (PNG and PDF) and ``report.html``.

    ``draw`` yields name of the file, caption and figure; ``words`` are for the template.
    """
    folder = make_folder(folder)
    write_json(folder / "report.json", numbers)
    try:
        with style.drawing():
            images = [
                write_figure(figure, folder, name, caption, "png", pdf)
                for name, caption, figure in draw()
            ]
        return write_page(folder, "report.html", title, images=images, **words)
    except MissingExtra as error:
        raise MissingExtra(f"{error} (the scores are in {folder / 'report.json'})") from error


# ---- entries together

MOST_COLUMNS = 24

Drawn = Mapping[str, Sequence[tuple[str, "Figure"]]]
"""Section -> captions and figures."""


def write_together(
    folder: str | Path, content: Content, *, title: str = "Generated events, side by side"
) -> Path:
    """Write figures (SVG and PDF), ``together.json``, ``report.pdf`` and a page with all of it.

    Return the path of ``report.html``, which needs nothing else; folder and errors as for
    `write_report`, with ``together.json`` for its ``report.json``.
    """
    folder = make_folder(folder)
    write_json(folder / "together.json", content.to_json())
    words = {
        "settings_lines": [(n, sections.settings_line(content, n)) for n in content.evaluations],
        "judge_words": classifier_curves.words(content.evaluations),
        "limits": sections.limits(content),
        "missing": content.missing,
    }  # the sentences that page and PDF share
    images: dict[str, list[Image]] = {}
    with style.drawing():
        drawn = {section: list(draw(content)) for section, draw in DRAWN.items()}
        for section, made in drawn.items():
            images[section] = [
                write_figure(figure, folder, f"{section}_{number:02d}", caption, "svg")
                for number, (caption, figure) in enumerate(made, start=1)
            ]
        _write_book(folder / "report.pdf", title, content, drawn, words)
    results = [r for evaluation in content.evaluations.values() for r in evaluation.results]
    return write_page(
        folder,
        "together.html",
        title,
        **words,
        images=images,
        entries=list(content.evaluations),
        headline=next(iter(content.evaluations.values())).headline(),
        records=sections.recorded(content),
        data_tables=sections.data_tables(content),
        relations=sections.relations_text(content),
        score_tables=score_tables.tables_side_by_side(content.evaluations),
        difference_tables=score_tables.difference_tables(content.differences),
        legend=score_tables.difference_legend(content.differences),
        published=list(published.published_tables(content.published, content.evaluations)),
        published_words=published.WORDS,
        judge_tables=classifier_curves.recognised_tables(content.evaluations),
        memorised=sections.memorisation_lines(content),
        step_tables=sections.step_tables(content),
        floors=any(r.floor is not None for r in results),
    )


def _judges(content: Content) -> Captioned:
    if results := classifier_curves.judged(content.evaluations):
        yield classifier_curves.CAPTION, classifier_curves.judge_figure(results)


def _quality(content: Content) -> Captioned:
    points = {name: line for name, line in content.quality.items() if line}
    if not points:
        return
    n = max(point.n_events for line in points.values() for point in line)
    floor = floor_of_separation(content, n)
    caption = (
        f"Mean separation power of all columns against cost, {n:,} generated events each, without"
        " rejection and from the same noise, times between step models interpolated; bars are"
        " standard errors. Times are those of step after step, without the single compiled pass of"
        " a generation"
    )
    caption += ". The band is truth against truth with its error" if floor else ""
    yield caption, curves.quality_figure(points, floor)


def floor_of_separation(content: Content, n: int) -> tuple[float, float] | None:
    """Return the floor of the mean separation at ``n`` events: it falls as 1/n."""
    for evaluation in content.evaluations.values():
        for r in evaluation.results:
            if (r.name, r.column) == ("separation", None) and r.floor is not None:
                scale = r.n / n if n else 1.0
                return scale * r.floor, scale * (r.floor_error or 0.0)
    return None


def _columns(content: Content) -> Captioned:
    real = content.real
    if real is None or not content.samples:
        return
    caption = f"Shares of events and ratios to real; {MARKS}"
    if len(real.names) > MOST_COLUMNS:
        caption += f"; the first {MOST_COLUMNS} of {len(real.names)} columns"
    shown = real.select(real.names[:MOST_COLUMNS])
    for page in figures.column_pages(shown, content.samples, content.training):
        yield caption, page


def _corners(content: Content) -> Captioned:
    real = content.real
    if real is None or not content.samples or len(real.names) < 2:
        return
    caption = (
        "Pairs of columns: contours hold 39% and 86% of the events, as one and two standard"
        " deviations of a normal distribution do; diagonal: densities"
    )
    if len(real.names) > curves.MOST_CORNERS:
        caption += f"; the first {curves.MOST_CORNERS} of {len(real.names)} columns"
    yield caption, curves.corner_figure(real, content.samples, real.names)


def _correlations(content: Content) -> Captioned:
    real = content.real
    for name, table in content.samples.items():
        if real is None or len(real.names) < 2:
            return
        error = 100 * np.sqrt(2.0 / min(real.n, table.n))
        caption = (
            f"Differences of Pearson correlations, raw columns: {name}. The standard error of a"
            f" number is {error:.1f} where columns are not correlated, and smaller elsewhere"
        )
        yield caption, figures.correlation_figure(real, table, content.training, name)


def _losses(content: Content) -> Captioned:
    if steps := {name: run["steps"] for name, run in content.distinct_runs().items()}:
        caption = (
            "Losses and trees of every step: root mean square error of the velocity on validation"
            " events (training events where there are none), share of the loss that trees explain,"
            " number of trees"
        )
        yield caption, curves.steps_figure(steps)


DRAWN: dict[str, Callable[[Content], Captioned]] = {
    "judges": _judges,
    "quality": _quality,
    "columns": _columns,
    "corners": _corners,
    "correlations": _correlations,
    "losses": _losses,
}
"""Section -> function that yields the figures there are numbers for, in the order of the page."""

# ---- the same as PDF

LINES = 74
"""Of a page of text."""
WIDTH = 100
"""Letters of a line of text; wider tables are set in smaller letters."""


def _write_book(
    path: Path, title: str, content: Content, drawn: Drawn, words: Mapping[str, Any]
) -> None:
    """Write text and figures as one PDF, captions below, one figure a page."""
    from matplotlib.backends.backend_pdf import PdfPages

    with atomic(path) as part, PdfPages(part, metadata={"CreationDate": None}) as book:
        for lines in _text_pages(title, content, words):
            book.savefig(_text_figure(lines))
        for caption, figure in (one for made in drawn.values() for one in made):
            width, height = figure.get_size_inches()
            below = textwrap.fill(caption, int(12 * width))
            figure.text(0.2 / width, -0.1 / height, below, va="top", fontsize=8.5)
            book.savefig(figure, bbox_inches="tight", pad_inches=0.3)


def _text_pages(title: str, content: Content, words: Mapping[str, Any]) -> Iterator[list[str]]:
    """Yield the lines of each page of text; tables and words never share one."""
    names = {name: name for name in content.evaluations}
    if sum(len(name) + 16 for name in names) > 60:  # long names do not fit beside each other
        names = {name: f"entry {i}" for i, name in enumerate(names, start=1)}
    judged = {names[name]: evaluation for name, evaluation in content.evaluations.items()}
    differences = [
        replace(d, first=names[d.first], second=names[d.second]) for d in content.differences
    ]
    headline = next(iter(content.evaluations.values())).headline()
    numbered = [f"{short}: {name}" for name, short in names.items() if short != name]
    head = [title, "=" * len(title), "", *_wrapped(headline), "", *numbered, ""]
    others = [f"{p.score} {p.text()}, {p.source}. {p.note}" for p in content.published]
    lines = [published.WORDS, *others] if others else []
    text = render("words.txt", **words, published_lines=lines)
    for block in (
        [*head, *compared(judged, differences).splitlines()],
        [line for plain in text.splitlines() for line in _wrapped(plain) or [""]],
    ):
        for start in range(0, len(block), LINES):
            yield block[start : start + LINES]


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent="  ")


def _text_figure(lines: Sequence[str]) -> Figure:
    """Return a page of letters of one width, small enough for its longest line."""
    figure = style.new_figure(8.27, 11.69)  # A4
    size = 7.9 * WIDTH / max(WIDTH, *(len(line) for line in lines))
    look: dict[str, Any] = {"family": "monospace", "va": "top", "parse_math": False}
    figure.text(0.08, 0.95, "\n".join(lines), fontsize=size, linespacing=1.35, **look)
    return figure
