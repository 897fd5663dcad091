"""Observables with ratio panels, correlations, tau21 against its parts, scores per observable."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from experiments.jetnet_hlv import settings
from experiments.jetnet_hlv.study import DRAWN, Tables
from flowbdt import EventTable
from flowbdt.evaluation.report import style
from flowbdt.evaluation.report.figures import Shape, correlation_figure
from flowbdt.physics.jets.jetnet_files import HLV_COLUMNS

LINES = {
    "training (truth on truth)": (style.TRAINING, (0, (4, 2))),
    settings.REFERENCE_NAME: ("#009e73", (0, (1, 1))),
    settings.DEFAULT: (style.GENERATED, "-"),
}
TITLES = {
    settings.REFERENCE_NAME: "reference recipe, K = 5, Euler",
    settings.MIDPOINT: "reference recipe, K = 5, midpoint",
    settings.NEURAL: "small neural flow",
}
REACH = 0.35
"""Ratios are drawn from 1 - REACH to 1 + REACH: the reference goes beyond, the default does not."""


def draw(scores: dict[str, Any], tables: Tables, folder: Path) -> None:
    """Draw everything there are events or scores for; needs matplotlib."""
    with style.drawing():
        for data, (train, test) in tables.items():
            made = _events(folder, data, train)
            if not made:
                continue
            others = {"training (truth on truth)": train, **made}
            _save(observables(test, others), folder / f"{data}_observables.png")
            if settings.DEFAULT in made:
                figure = correlation_figure(test, made[settings.DEFAULT], train, settings.DEFAULT)
                _save(figure, folder / f"{data}_correlations.png")
            if data == "jets":
                _save(consistency(test, made), folder / "jets_tau21.png")
        _save(per_observable(scores["jets"]), folder / "jets_scores.png")


def _events(folder: Path, data: str, like: EventTable) -> dict[str, EventTable]:
    """Return the events that the first seed of the study kept, by model."""
    found = {}
    for name in DRAWN:
        file = folder / "events" / f"{data}_{name}.npy"
        if file.exists():
            found[name] = EventTable.of(np.load(file, allow_pickle=False), like.names)
    return found


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path)


def observables(real: EventTable, others: dict[str, EventTable]) -> Any:
    """Return all columns, four in a row: shares above, ratios to real below, bands of errors."""
    columns, rows = 4, -(-len(real.names) // 4)
    figure = style.new_figure(12.6, 2.75 * rows + 0.5)
    outer = figure.add_gridspec(
        rows, columns, left=0.055, right=0.985, bottom=0.05, top=0.955, wspace=0.2, hspace=0.33
    )
    handles: dict[str, Any] = {}
    for i, name in enumerate(real.names):
        cell = outer[divmod(i, columns)].subgridspec(2, 1, height_ratios=(2.2, 1), hspace=0.0)
        upper = figure.add_subplot(cell[0])
        lower = figure.add_subplot(cell[1], sharex=upper)
        handles = _column(upper, lower, name, real, others)
        if i % columns == 0:
            upper.set_ylabel("events per bin [%]")
            lower.set_ylabel("ratio to real")
    labels = [TITLES.get(name, name) for name in handles]
    figure.legend(list(handles.values()), labels, loc="upper center", ncols=len(labels))
    return figure


def _column(
    upper: Any, lower: Any, name: str, real: EventTable, others: dict[str, EventTable]
) -> dict[str, Any]:
    edges = zoomed(real.column(name))
    truth = Shape.of(real.column(name), None, edges)
    shapes = {n: Shape.of(table.column(name), None, edges) for n, table in others.items()}
    handles = {"real": upper.stairs(truth.share, edges, fill=True, color="#dedede")}
    upper.stairs(truth.share, edges, color=style.REAL, lw=0.8)
    for key, shape in shapes.items():
        color, dashes = LINES[key]
        handles[key] = upper.stairs(shape.share, edges, color=color, lw=1.2, linestyle=dashes)
        _band(upper, shape.share, shape.error, edges, color)
    _ratios(lower, truth, shapes)
    upper.set_xlim(edges[0], edges[-1])
    upper.set_ylim(0.0, 1.15 * max(truth.share.max(), *(s.share.max() for s in shapes.values())))
    upper.locator_params(axis="y", nbins=5, prune="lower")
    style.quiet_ticks(upper)
    lower.locator_params(axis="x", nbins=5)
    lower.set_xlabel(style.label(name, real.unit(name)), labelpad=1.0)
    return handles


def zoomed(values: np.ndarray) -> np.ndarray:
    """Return bin edges over all but 0.8% of the events; from 0 where that is near."""
    low, high = np.quantile(values, [0.002, 0.994])
    return np.linspace(0.0 if 0 <= low < 0.1 * high else low, high, 41)


def _ratios(axes: Any, truth: Shape, shapes: dict[str, Shape]) -> None:
    """Draw shapes over truth where it has 25 events and more; triangles beyond the panel."""
    known = truth.error < 0.2 * truth.share
    safe = np.where(known, truth.share, 1.0)
    _band(
        axes, np.ones(len(safe)), np.where(known, truth.error / safe, 0.0), truth.edges, "#808080"
    )
    axes.axhline(1.0, color=style.REAL, lw=0.6)
    centres = (truth.edges[:-1] + truth.edges[1:]) / 2
    for key, shape in shapes.items():
        color, dashes = LINES[key]
        ratio = np.where(known, shape.share / safe, np.nan)
        _band(axes, ratio, np.where(known, shape.error / safe, np.nan), truth.edges, color)
        axes.stairs(ratio, truth.edges, color=color, lw=1.1, linestyle=dashes, baseline=None)
        for mark, beyond, y in (
            ("^", ratio > 1 + REACH, 1 + 0.9 * REACH),
            ("v", ratio < 1 - REACH, 1 - 0.9 * REACH),
        ):
            axes.plot(centres[beyond], np.full(beyond.sum(), y), mark, color=color, ms=2.5)
    axes.set_ylim(1 - REACH, 1 + REACH)
    axes.set_yticks([0.8, 1.0, 1.2])


def _band(axes: Any, middle: np.ndarray, error: np.ndarray, edges: np.ndarray, color: str) -> None:
    axes.stairs(
        middle + error, edges, baseline=middle - error, fill=True, color=color, alpha=0.25, lw=0
    )


def consistency(real: EventTable, made: dict[str, EventTable]) -> Any:
    """Return histograms of tau21 and tau32 over the ratio of the columns they are made of."""
    figure = style.new_figure(8.4, 3.0, "constrained")
    edges = np.linspace(0.695, 1.305, 62)
    for i, (target, above, below) in enumerate(
        (("tau21", "tau2", "tau1"), ("tau32", "tau3", "tau2"))
    ):
        axes = figure.add_subplot(1, 2, i + 1)
        for key, table in {"real": real, **made}.items():
            ratio = table.column(target) * table.column(below) / table.column(above)
            shape = Shape.of(ratio, None, edges)
            color, dashes = LINES.get(key, (style.REAL, "-"))
            text = f"{TITLES.get(key, key)}: {100 * shape.outside:.1f}% outside"
            fill: dict[str, Any] = {"fill": True, "alpha": 0.25} if key == "real" else {"lw": 1.3}
            axes.stairs(shape.share, edges, color=color, linestyle=dashes, label=text, **fill)
        axes.set_yscale("log")
        axes.set_ylim(2e-3, 1e4)
        parts = f"({style.label(above)} / {style.label(below)})"
        axes.set_xlabel(f"{style.label(target)} / {parts}")
        axes.set_ylabel("events per bin [%]")
        axes.legend(loc="upper right", fontsize=7.5)
    return figure


def per_observable(jets: dict[str, Any]) -> Any:
    """Return separation and W1 of every observable: models left, solvers right, floor as band."""
    figure = style.new_figure(12.6, 7.2, "constrained")
    groups = [
        [n for n in jets if n not in settings.ALL_SOLVERS],
        [n for n in settings.ALL_SOLVERS if n in jets],
    ]
    labels = {"separation": r"separation power $\times$ 100", "wasserstein": "$W_1$ / width"}
    groups = [names for names in groups if names]
    for row, (metric, label) in enumerate(labels.items()):
        for column, names in enumerate(groups):
            axes = figure.add_subplot(2, len(groups), len(groups) * row + column + 1)
            _scores(axes, jets, names, metric)
            axes.set(yscale="log", ylabel=label, xlim=(-0.6, len(HLV_COLUMNS) - 0.4))
            axes.set_xticks(range(len(HLV_COLUMNS)), [style.label(c) for c in HLV_COLUMNS])
            axes.tick_params(axis="x", length=0)
            if row == 0:
                axes.set_title(("models", "solvers, without rejection")[column])
                axes.set_ylim(max(axes.get_ylim()[0], LOWEST), axes.get_ylim()[1] * 5)
                _legend(axes)
    return figure


LOWEST = 0.003
"""Of the separation axis; published values below, which no finite sample can show, are left out."""

MARKS = "osD^v<>Pp"
COLOURS = (
    *("#d55e00", "#009e73", "#0072b2", "#cc79a7", "#e69f00"),
    *("#56b4e9", "#3b3b3b", "#8c6d31", "#7570b3"),
)


def _legend(axes: Any) -> None:
    """Write models first, then what they are held against."""
    handles, labels = axes.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda i: labels[i].startswith(("floor", "published")))
    chosen = [handles[i] for i in order], [labels[i] for i in order]
    axes.legend(*chosen, ncols=3, fontsize=7.0, loc="upper center")


def _scores(axes: Any, jets: dict[str, Any], names: list[str], metric: str) -> None:
    x = np.arange(len(HLV_COLUMNS))
    floor = np.array([jets[names[0]]["columns"][metric][c][2:] for c in HLV_COLUMNS])
    edges = np.arange(len(x) + 1) - 0.5
    low, high = np.maximum(floor[:, 0] - floor[:, 1], 1e-4), floor.sum(axis=1)
    axes.stairs(high, edges, baseline=low, fill=True, color=style.BAND, label="floor, ± error")
    for i, name in enumerate(names):
        entries = np.array([jets[name]["columns"][metric][c] for c in HLV_COLUMNS])
        place = x + 0.7 * ((i + 0.5) / len(names) - 0.5)
        kind = {"fmt": MARKS[i % len(MARKS)], "color": COLOURS[i % len(COLOURS)], "ms": 4.0}
        text = TITLES.get(name, name)
        axes.errorbar(place, entries[:, 0], entries[:, 1], lw=1.0, capsize=1.5, label=text, **kind)
    if metric == "separation" and settings.DEFAULT in names:
        for values, text, mark in (
            ([settings.TALK[c][0] for c in HLV_COLUMNS], "published, talk", "x"),
            ([settings.RECOMPUTED[c][0] for c in HLV_COLUMNS], "published, recomputed", "+"),
        ):
            axes.plot(x, values, mark, color="black", ms=5.5, label=f"{text} (public jets)")
