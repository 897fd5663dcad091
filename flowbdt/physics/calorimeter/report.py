"""Reports of calorimeter showers: the histograms of the challenge with ratios, all scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...evaluation.metrics import Result
from ...evaluation.report import figures, style, write_scores_page
from ...evaluation.report.figures import Shape
from ...evaluation.report.render import PageTable
from ...evaluation.report.score_tables import beside_floor
from .scores.evaluate_showers import ShowerEvaluation
from .scores.histograms import Histogram

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CELLS = style.Cells(
    columns=5, width=2.55, height=2.7, left=0.62, right=0.12, bottom=0.48, gap=0.59, between=0.28
)

GROUPS = {
    "response": (("etot_einc", "voxel"), "Total over incident energy, and all voxels"),
    "response_by_energy": (("etot_einc_",), "Total over incident energy at each energy"),
    "energies": (("e_layer",), "Energy of each layer"),
    "centres": (("eta", "phi", "r"), "Centre of energy of each layer"),
    "widths": (("width_eta", "width_phi", "width_r"), "Width of each layer"),
    "sparsity": (("sparsity",), "Share of empty voxels of each layer"),
}
"""Figure -> features that it shows, and its caption."""

LABELS = {
    "etot_einc": r"$E_\mathrm{tot} / E_\mathrm{inc}$",
    "etot_einc_": r"$E_\mathrm{tot} / E_\mathrm{inc}$ at {layer} MeV",
    "voxel": "energy of a voxel [MeV]",
    "e_layer": r"energy of layer {layer} [MeV]",
    "eta": r"centre in $\eta$, layer {layer} [mm]",
    "phi": r"centre in $\phi$, layer {layer} [mm]",
    "r": r"centre in $r$, layer {layer} [mm]",
    "width_eta": r"width in $\eta$, layer {layer} [mm]",
    "width_phi": r"width in $\phi$, layer {layer} [mm]",
    "width_r": r"width in $r$, layer {layer} [mm]",
    "sparsity": "empty voxels, layer {layer}",
}

SCORES = {
    "separation_mean": "mean separation of all histograms",
    "separation": "separation",
    "separation_by_energy": "separation of Etot/Einc at one energy",
    "layer_correlation": "largest error of a correlation of layer energies",
    "fpd": "Fréchet physics distance",
    "kpd": "kernel physics distance",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
    "auc_high_fast": "AUC, high level, fast judge",
    "auc_low_fast": "AUC, low level, fast judge",
    "auc_high_official": "AUC, high level, official network",
    "auc_low_official": "AUC, low level, official network",
    "memorisation": "memorisation (0.5: none)",
}

LEGEND = (
    "Floor: the same score for simulated showers against other simulated showers. Separation powers"
    " run from 0 to 1, with the official bins; entries outside of them are left out. The fast"
    " judges are not the official network. Excess is (value - floor) in combined standard errors."
)

MOST = 12
"""Layers that are drawn; of more, every n-th."""


def write_shower_report(
    evaluation: ShowerEvaluation, folder: str | Path, *, title: str, notes: Sequence[str] = ()
) -> Path:
    """Write ``report.json``, figures (PNG and PDF), ``report.html`` in one file; return its path.

    The folder is made if absent, files of the same name are replaced; ``notes`` are what should be
    read first. Raises MissingExtra without matplotlib or jinja2, when ``report.json`` has been
    written; RunError if the folder cannot be written.
    """
    return write_scores_page(
        folder,
        title,
        shower_numbers(evaluation, notes),
        lambda: shower_figures(evaluation),
        lead=notes,
        notes=(),
        legend=LEGEND,
        tables=_tables(evaluation.results),
        settings=(),
    )


def shower_numbers(evaluation: ShowerEvaluation, notes: Sequence[str] = ()) -> dict[str, Any]:
    """Return scores, sizes and histograms as JSON can hold them."""
    return {
        "format": 1,
        "showers": evaluation.sizes,
        "notes": list(notes),
        "results": [result.to_json() for result in evaluation.results],
        "histograms": {
            one.name: {
                "edges": one.edges.tolist(),
                "counts": {name: counts.tolist() for name, counts in one.counts.items()},
                "entries": one.entries,
            }
            for one in evaluation.histograms
        },
    }


def shower_figures(evaluation: ShowerEvaluation) -> Iterator[tuple[str, str, Figure]]:
    """Yield name, caption and figure of each group. Call it inside `style.drawing`."""
    for name, (features, caption) in GROUPS.items():
        shown = _shown(evaluation.histograms, features, evaluation.layers)
        if shown:
            text = (
                f"{caption}: shares of entries in the bins and ratios to the reference, with"
                " statistical errors (of independent entries); triangles mark ratios outside"
                " the panel"
            )
            yield name, text, histogram_page(shown)
    if len(evaluation.correlations) > 1:
        text = "Pearson correlations of layer energies: differences from the reference"
        yield "correlations", text, correlation_page(evaluation.correlations, evaluation.layers)


def _shown(
    histograms: Sequence[Histogram], features: Sequence[str], layers: Sequence[int]
) -> list[Histogram]:
    step = max(1, -(-len(layers) // MOST))
    drawn = {f"_{number}" for number in layers[::step]}
    names = {f"{feature}{end}" for feature in features for end in (*drawn, "")}
    by_energy = tuple(feature for feature in features if feature.endswith("_"))
    return [one for one in histograms if one.name in names or one.name.startswith(by_energy)]


def histogram_page(shown: Sequence[Histogram]) -> Figure:
    """Return histograms above their ratios to the first sample. Call it inside `style.drawing`."""
    figure, panels = style.ratio_panels(len(shown), CELLS, list(shown[0].counts))
    handles: dict[str, Any] = {}
    for one, (upper, lower) in zip(shown, panels, strict=True):
        handles = _panel(upper, lower, one)
    style.name_rows(panels, CELLS.columns, "entries per bin [%]", "ratio")
    style.legend_above(figure, handles)
    return figure


def _panel(upper: Axes, lower: Axes, one: Histogram) -> dict[str, Any]:
    """Draw one histogram; return the legend entries."""
    shapes = {name: _shape(one, name) for name in one.counts}
    names = list(shapes)
    truth = shapes.pop(names[0])
    handles = {names[0]: figures.draw_real(upper, truth)}
    lines = dict(zip([n for n in shapes if n != "training"], style.lines(), strict=False))
    lines["training"] = (style.TRAINING, style.TRAINING_DASHES)
    for name, shape in shapes.items():
        handles[name] = figures.line(upper, shape, *lines[name])
    figures.scale(upper, truth, list(shapes.values()))
    drawn = [(shape, *lines[name]) for name, shape in shapes.items()]
    figures.ratios(lower, truth, drawn)
    style.quiet_ticks(upper)
    if one.edges[0] > 0 and one.edges[-1] > 50 * one.edges[0]:
        upper.set_xscale("log")
    upper.set_xlim(*_range(one, truth))
    feature = next(f for f in sorted(LABELS, key=len, reverse=True) if one.name.startswith(f))
    lower.set_xlabel(LABELS[feature].replace("{layer}", one.name.rsplit("_", 1)[-1]))
    return handles


def _shape(one: Histogram, name: str) -> Shape:
    """Return shares of the entries inside the bins; empty layers are outside in every sample."""
    counts = one.counts[name].astype(np.float64)
    scale = max(counts.sum(), 1.0) / 100.0
    return Shape(one.edges, counts / scale, np.sqrt(counts) / scale, outside=0.0)


def _range(one: Histogram, truth: Shape) -> tuple[float, float]:
    """Return the range that holds nearly all entries of any sample, and a bin on each side."""
    share = np.max([_shape(one, name).share for name in one.counts], axis=0)
    filled = np.flatnonzero(share > 0.02)
    if not len(filled):
        return float(truth.edges[0]), float(truth.edges[-1])
    first, last = max(filled[0] - 1, 0), min(filled[-1] + 2, len(truth.edges) - 1)
    return float(truth.edges[first]), float(truth.edges[last])


def correlation_page(matrices: Mapping[str, np.ndarray], layers: Sequence[int]) -> Figure:
    """Return differences of correlation matrices from the first one."""
    names = list(matrices)
    differences = {
        f"{name} - {names[0]}": matrices[name] - matrices[names[0]] for name in names[1:]
    }
    return figures.matrices(differences, [f"layer {number}" for number in layers])


def shower_score_label(result: Result) -> str:
    """Return the name of a score in tables."""
    text = SCORES.get(result.name, result.name)
    if result.column is None:
        return text
    if result.name == "separation":
        return f"separation of {result.column}"
    return result.column if result.name == "separation_by_energy" else f"{text} ({result.column})"


def _tables(results: Sequence[Result]) -> Iterator[PageTable]:
    whole = [one for one in results if not one.name.startswith("separation") or not one.column]
    yield _beside_floor(whole, "All showers")
    for name in ("separation", "separation_by_energy"):
        if rows := [one for one in results if one.name == name]:
            yield _beside_floor(rows, SCORES[name].capitalize())


def _beside_floor(rows: Sequence[Result], caption: str) -> PageTable:
    return beside_floor([(shower_score_label(one), one) for one in rows], "score", caption)


def score_summary(evaluation: ShowerEvaluation) -> str:
    """Return the scores of all showers as lines of text, value and floor."""
    rows = [one for one in evaluation.results if not one.name.startswith("separation")]
    rows = [evaluation.get("separation_mean"), evaluation.get("separation", "etot_einc"), *rows]
    width = max(len(shower_score_label(one)) for one in rows)
    lines = [
        f"{shower_score_label(one):{width}}  {one.text():>20}  floor {one.floor_text()}"
        for one in rows
    ]
    return "\n".join(lines)
