"""`write_together`: several runs, samples and reports on one page that holds everything."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..evaluation import Evaluation
from ..files import write_bytes, write_json
from ..significance import Difference
from ..significance import text as side_by_side
from ..table import EventTable
from . import checklist, curves, figures, html, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_COLUMNS = 24

CSS = """
pre { overflow-x: auto; font-size: .82rem; line-height: 1.35; background: #f7f7f7; padding: .6rem; }
td.text, th.text { text-align: left; white-space: normal; min-width: 8rem; }
"""

DEFINITIONS = (
    ("Separation power x100", "50 sum over bins of (p - q)^2 / (p + q), with p and q the shares of"
     " real and generated events in 50 bins by quantiles of the real ones, outer bins open: 0 for"
     " equal histograms, 100 for disjoint ones; N against N events of the same distribution give"
     " about 100 x 49 / (2 N)."),
    ("AUC", "area under the ROC curve of a classifier of real against generated events, fitted on"
     " 70% of them and measured on the rest: 0.5 cannot tell them apart."),
    ("Floor", "the same score of real against other real events of the same number: what a perfect"
     " generator reaches."),
    ("Evaluations", "calls of the velocity for an event on its way from noise; rejected events are"
     " not counted, their share is told."),
)  # fmt: skip

LOSSES = (
    ("Path", "x_t = (1 - t) x0 + t x1 unless another is set: t = 0 is noise, t = 1 an event"),
    ("SNR(t)", "(t / (1 - t))^2 on this path"),
    ("Loss at a time t", "mean of (v(x_t) - (x1 - x0))^2 over events, noise and columns; its square"
     " root is the rmse"),
    ("Explained by trees", "1 - loss / loss without trees, on validation events: most of a loss is"
     " noise that nothing can explain"),
)  # fmt: skip


def write_together(
    folder: str | Path,
    evaluations: Mapping[str, Evaluation],
    found: Sequence[Difference],
    *,
    samples: Mapping[str, EventTable],
    real: EventTable | None,
    training: EventTable | None = None,
    runs: Mapping[str, Mapping[str, Any]],
    quality: Mapping[str, Sequence[curves.Point]],
    title: str = "Generated events, side by side",
) -> Path:
    """Write figures (SVG and PDF), ``together.json`` and a page that needs nothing else.

    Parameters
    ----------
    folder : where to write; made if absent
    evaluations : name -> scores
    found : differences between them
    samples : name -> events, where known
    real, training : tables with their columns
    runs : name -> dict with ``steps`` (of a manifest), ``settings`` and ``digest``
    quality : name -> score at several numbers of evaluations

    Returns
    -------
    Path of ``report.html``

    Raises
    ------
    MissingExtra
        If matplotlib is not installed.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "format": 1,
        "entries": {name: e.to_json() for name, e in evaluations.items()},
        "differences": [d.to_json() for d in found],
        "quality": {name: [vars(point) for point in line] for name, line in quality.items()},
    }
    write_json(folder / "together.json", content)
    images = _images(folder, evaluations, samples, real, training, runs, quality)
    body = _body(evaluations, found, runs, images, title)
    write_bytes(folder / "report.html", html.document(title, body, CSS).encode())
    return folder / "report.html"


def _images(
    folder: Path, evaluations: Mapping[str, Evaluation], samples: Mapping[str, EventTable],
    real: EventTable | None, training: EventTable | None, runs: Mapping[str, Mapping[str, Any]],
    quality: Mapping[str, Sequence[curves.Point]],
) -> dict[str, list[tuple[str, bytes]]]:  # fmt: skip
    """Draw and write all figures; return captions and SVG files by section."""
    made: dict[str, list[tuple[str, Figure]]] = {}
    with style.drawing():
        steps = {name: run["steps"] for name, run in runs.items()}
        if steps:
            caption = "Losses and trees of every step"
            made["losses"] = [(caption, curves.steps_figure(steps))]
        if quality:
            caption = "Mean separation power against cost; bars are standard errors"
            floor = _floor(evaluations)
            caption += ", the band is truth against truth" if floor else ""
            made["quality"] = [(caption, curves.quality_figure(quality, floor))]
        if real is not None and samples:
            made |= _of_events(real, samples, training)
        return {
            section: [
                (caption, _written(figure, folder, f"{section}_{number:02d}"))
                for number, (caption, figure) in enumerate(drawn, start=1)
            ]
            for section, drawn in made.items()
        }


def _of_events(
    real: EventTable, samples: Mapping[str, EventTable], training: EventTable | None
) -> dict[str, list[tuple[str, Figure]]]:
    shown = real.select(real.names[:MOST_COLUMNS])
    pages = figures.column_pages(shown, samples, training)
    caption = (
        "Shares and ratios to real; bands are statistical errors, triangles mark ratios outside the"
        " panel; no ratio where real has 11 events or fewer"
    )
    made = {"columns": [(caption, page) for page in pages]}
    if len(real.names) > 1:
        caption = "Pairs of columns: contours hold 39% and 86% of the events; diagonal: shares"
        made["corners"] = [(caption, curves.corner_figure(real, samples, real.names))]
        made["correlations"] = [
            (
                f"Differences of Pearson correlations, raw columns: {name}",
                figures.correlation_figure(real, table, training),
            )
            for name, table in samples.items()
        ]
    return made


def _floor(evaluations: Mapping[str, Evaluation]) -> tuple[float, float] | None:
    for evaluation in evaluations.values():
        for r in evaluation.results:
            if (r.name, r.column) == ("separation", None) and r.floor is not None:
                return r.floor, r.floor_error or 0.0
    return None


def _written(figure: Figure, folder: Path, name: str) -> bytes:
    for kind in ("svg", "pdf"):
        figures.save(figure, folder / f"{name}.{kind}")
    return (folder / f"{name}.svg").read_bytes()


def _body(
    evaluations: Mapping[str, Evaluation], found: Sequence[Difference],
    runs: Mapping[str, Mapping[str, Any]], images: Mapping[str, list[tuple[str, bytes]]],
    title: str,
) -> list[str]:  # fmt: skip
    first = next(iter(evaluations.values()))
    holds = checklist.Holds(
        floors=any(r.floor is not None for r in first.results),
        histograms="columns" in images,
        curves="quality" in images,
        losses="losses" in images,
    )
    return [
        f"<h1>{escape(title)}</h1>",
        f"<p>{escape(', '.join(evaluations))}. {escape(first.headline())}.</p>",
        _section("scores", "Scores, and which differences are real"),
        f"<pre>{escape(side_by_side(evaluations, found))}</pre>",
        _section("definitions", "What the scores mean"),
        _listed(DEFINITIONS),
        *_drawn(images, "quality", "Quality against cost"),
        *_drawn(images, "columns", "Columns"),
        *_drawn(images, "corners", "Pairs of columns"),
        *_drawn(images, "correlations", "Correlations"),
        _section("losses", "Losses"),
        _listed(LOSSES),
        *(_figure(*one) for one in images.get("losses", [])),
        _section("limits", "Limits"),
        _limits(evaluations),
        _section("checklist", "What referees ask for"),
        checklist.table(holds),
        _section("settings", "Exact settings"),
        *_settings(evaluations, runs),
    ]


def _section(anchor: str, title: str) -> str:
    return f'<h2 id="{anchor}">{escape(title)}</h2>'


def _drawn(
    images: Mapping[str, list[tuple[str, bytes]]], anchor: str, title: str
) -> list[str]:  # fmt: skip
    drawn = images.get(anchor, [])
    return [_section(anchor, title), *(_figure(*one) for one in drawn)] if drawn else []


def _figure(caption: str, content: bytes) -> str:
    data = base64.b64encode(content).decode()
    return (
        f'<figure><img alt="{escape(caption)}" src="data:image/svg+xml;base64,{data}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _listed(pairs: Sequence[tuple[str, str]]) -> str:
    rows = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in pairs)
    return f"<dl>{rows}</dl>"


def _limits(evaluations: Mapping[str, Evaluation]) -> str:
    """Return what a reader must know, in words."""
    notes = list(dict.fromkeys(note for e in evaluations.values() for note in e.notes))
    for name, evaluation in evaluations.items():
        far = [r for r in evaluation.results if r.column is None and (r.excess or 0.0) >= 3]
        if far:
            told = ", ".join(f"{r.name} (by {r.excess:.0f} standard errors)" for r in far)
            notes.append(f"{name} is told from real events: above the floor in {told}")
    notes.append("scores hold for samples of this size; more events show smaller differences")
    return "<ul>" + "".join(f"<li>{escape(note)}</li>" for note in notes) + "</ul>"


def _settings(
    evaluations: Mapping[str, Evaluation], runs: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    parts = []
    for name, evaluation in evaluations.items():
        known = {
            "judged with": {"seed": evaluation.seed, **evaluation.settings},
            "versions": evaluation.versions,
            "events": evaluation.sizes,
        }
        if name in runs:
            known |= {key: runs[name][key] for key in ("digest", "settings", "events seen")}
        text = json.dumps(known, indent=1, sort_keys=True, default=str)
        parts.append(
            f"<details><summary>{escape(name)}</summary><pre>{escape(text)}</pre></details>"
        )
    return parts
