"""`write_report`: scores as JSON, figures, and one HTML page that holds everything."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...atomic_files import write_bytes, write_json
from ...errors import MissingExtra
from ...tables.event_table import EventTable
from ..evaluate import Evaluation
from . import classifier_curves, figures, html, style
from .figures import demo_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["demo_figure", "write_report"]


def write_report(
    evaluation: Evaluation,
    real: Any,
    generated: Any,
    folder: str | Path,
    training: Any = None,
    *,
    title: str = "Real against generated events",
    max_columns: int = 48,
) -> Path:
    """Write ``report.json``, figures (PNG and PDF) and a self-contained ``report.html``.

    Parameters
    ----------
    evaluation : Evaluation, from `flowbdt.evaluate`
    real, generated, training : the tables it was made of (EventTable, DataFrame or array)
    folder : where to write; made if absent. Files of the same name are replaced.
    title : str, heading of the page
    max_columns : int, of wider tables only the columns worst in separation power are drawn

    Returns
    -------
    Path of ``report.html``; it opens without network, on a phone as on a desk.

    Raises
    ------
    MissingExtra if matplotlib is not installed; ``report.json`` has been written by then.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "report.json", evaluation.to_json())
    truth = EventTable.of(real)
    made = EventTable.of(generated).select(truth.names)
    seen = None if training is None else EventTable.of(training).select(truth.names)
    drawn = truth.names
    if len(drawn) > max_columns:
        drawn = tuple(evaluation.worst_columns("separation", max_columns)) or drawn[:max_columns]
    try:
        images = _figures(folder, truth, made, seen, drawn) | _curves(folder, evaluation)
    except MissingExtra as error:
        raise MissingExtra(f"{error} (the scores are in {folder / 'report.json'})") from error
    write_bytes(folder / "report.html", html.page(evaluation, images, title).encode())
    return folder / "report.html"


def _figures(
    folder: Path,
    real: EventTable,
    generated: EventTable,
    training: EventTable | None,
    drawn: tuple[str, ...],
) -> dict[str, bytes]:
    """Draw and write all figures; return the PNG files by caption."""
    images = {}
    with style.drawing():
        pages = figures.column_pages(real.select(drawn), generated, training)
        for number, figure in enumerate(pages, start=1):
            first = (number - 1) * figures.PER_PAGE
            names = ", ".join(drawn[first : first + figures.PER_PAGE])
            caption = (
                f"Columns {names}: shares and ratios to real; bands are statistical errors,"
                " triangles mark ratios outside the panel; no ratio where real has 11 events or"
                " fewer"
            )
            images[caption] = _write(figure, folder, f"columns_{number:02d}")
        if len(real.names) > 1:
            figure = figures.correlation_figure(real, generated, training)
            caption = "Differences of Pearson correlations, raw columns"
            images[caption] = _write(figure, folder, "correlations")
    return images


def _curves(folder: Path, evaluation: Evaluation) -> dict[str, bytes]:
    """Draw and write the curves of the classifiers, if there were some."""
    results = classifier_curves.judged({"generated": evaluation})
    if not results:
        return {}
    with style.drawing():
        return {
            classifier_curves.CAPTION: _write(
                classifier_curves.judge_figure(results), folder, "classifiers"
            )
        }


def _write(figure: Figure, folder: Path, name: str) -> bytes:
    for kind in ("png", "pdf"):
        figures.save(figure, folder / f"{name}.{kind}")
    return (folder / f"{name}.png").read_bytes()
