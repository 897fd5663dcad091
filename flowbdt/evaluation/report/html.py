"""The report as one HTML page that needs nothing else: styles and images are inside."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape

from ..evaluate import Evaluation
from . import score_tables

CSS = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 70rem; color: #1c1c1c; background: #fff;
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.5rem; margin: .5rem 0; }
h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; border-bottom: 1px solid #ccc; }
p, li { max-width: 50rem; }
.tables { display: flex; flex-wrap: wrap; gap: 1rem 3rem; align-items: flex-start; }
.scroll { overflow-x: auto; max-width: 100%; }
.scroll + .scroll { margin-top: 1.2rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem; }
caption { text-align: left; font-weight: 600; padding: .4rem 0; }
th, td { padding: .22rem .7rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid #e4e4e4; }
th { font-weight: 600; border-bottom: 2px solid #888; white-space: normal; max-width: 11rem;
  vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; }
td.far { font-weight: 700; }
.note { font-weight: 400; font-size: .85em; color: #555; white-space: nowrap; }
figure { margin: 1rem 0; overflow-x: auto; }
img { max-width: 100%; height: auto; display: block; }
figcaption, .small { font-size: .88rem; color: #444; }
.notes { border-left: 4px solid #d55e00; padding: .3rem .8rem; background: #fdf4ee; }
dl { display: grid; grid-template-columns: fit-content(17rem) 1fr; gap: .1rem 1rem;
  font-size: .9rem; }
dt { font-weight: 600; } dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 40rem) { body { padding: .6rem; font-size: .95rem; }
  th, td { padding: .2rem .35rem; } table { font-size: .82rem; }
  td { white-space: normal; } td:last-child { white-space: nowrap; }
  img { max-width: none; width: 44rem; }
  dl { grid-template-columns: 1fr; } }
td.text, th.text { text-align: left; white-space: normal; min-width: 14rem; max-width: 30rem; }
td:first-child { white-space: normal; min-width: 6rem; }
@media (max-width: 40rem) { td.text, th.text { min-width: 8rem; } }
nav { max-width: 50rem; line-height: 1.8; }
details { margin: .5rem 0; } summary { cursor: pointer; font-weight: 600; }
pre { overflow-x: auto; font-size: .8rem; line-height: 1.35; background: #f7f7f7; padding: .6rem; }
@media print { .scroll { overflow: visible; } figure, tr { break-inside: avoid; }
  pre { white-space: pre-wrap; } summary { list-style: none; }
  details::details-content { content-visibility: visible; display: block; height: auto; }
  details > * { display: block !important; } }
"""

LEGEND = (
    "Every score stands beside its floor: the same score for real events against independent real"
    " events of the same number. A perfect generator reaches the floor, not zero. Errors are"
    " standard errors. Excess is (value - floor) in combined standard errors; from 3 on it is bold."
)


def page(evaluation: Evaluation, images: Mapping[str, bytes], title: str) -> str:
    """Return the page; ``images`` are PNG files by caption."""
    body = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{escape(evaluation.headline())}.</p>",
        _notes(evaluation),
        "<h2>Scores</h2>",
        f'<p class="small">{escape(LEGEND)}</p>',
        f'<div class="tables">{"".join(_tables(evaluation))}</div>',
        "<h2>Figures</h2>" if images else "",
        *(figure(caption, content) for caption, content in images.items()),
        "<h2>How to get these numbers again</h2>",
        _settings(evaluation),
    ]
    return document(title, body)


def document(title: str, body: Sequence[str], css: str = "") -> str:
    """Return a whole page of parts; ``css`` comes after the styles of all pages."""
    head = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{CSS}{css}</style>\n</head>\n<body>\n"
    )
    return head + "\n".join(part for part in body if part) + "\n</body>\n</html>\n"


def _notes(evaluation: Evaluation) -> str:
    lines = "".join(f"<div>{escape(note)}</div>" for note in evaluation.notes)
    return f'<div class="notes">{lines}</div>' if lines else ""


def _tables(evaluation: Evaluation) -> list[str]:
    """Return one table of single scores and one per column metric."""
    whole = [r for r in evaluation.results if r.column is None]
    named = [(score_tables.label(r), r) for r in whole]
    parts = [score_tables.beside_floor(named, "score", "Whole table")] if whole else []
    for name in dict.fromkeys(r.name for r in evaluation.results if r.column is not None):
        rows = [r for r in evaluation.results if r.name == name and r.column is not None]
        text = score_tables.label(rows[0])
        parts.append(score_tables.beside_floor([(str(r.column), r) for r in rows], "column", text))
    return parts


def figure(caption: str, content: bytes, kind: str = "png") -> str:
    """Return an image, PNG or SVG (``kind`` "svg+xml"), inside the page, with its caption."""
    data = base64.b64encode(content).decode()
    return (
        f'<figure><img alt="{escape(caption)}" src="data:image/{kind};base64,{data}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _settings(evaluation: Evaluation) -> str:
    items = {
        "events handed in": ", ".join(f"{k} {v:,}" for k, v in evaluation.sizes.items()),
        "seed": str(evaluation.seed),
        "quick": str(evaluation.settings.get("quick")),
        "relations": ", ".join(evaluation.settings.get("relations", [])) or "none",
        "versions": ", ".join(f"{k} {v}" for k, v in evaluation.versions.items()),
        "all numbers and settings": "report.json beside this page",
    }
    return listed(list(items.items()))


def listed(pairs: Sequence[tuple[str, str]]) -> str:
    """Return terms and what they mean."""
    rows = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in pairs)
    return f"<dl>{rows}</dl>"
