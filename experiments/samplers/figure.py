"""Quality against function evaluations, all samplers in every panel, with ratios.

    python -m experiments.samplers.figure results/samplers.json -o results

draws and tabulates (`tables.md`) the numbers of a finished study again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from experiments.samplers import settings, tables

SCORES = {
    "auc_gb": "classifier AUC - 0.5",
    "separation": "mean separation power x100",
    "wasserstein": "mean $W_1$ / width",
}
"""Score -> label; of the AUC the distance from a blind classifier is drawn."""

REFERENCE = "Adams-Bashforth 2"
"""All ratios are to it, interpolated to the same cost; it runs at every number of evaluations."""

TICKS = (2, 4, 8, 16, 32, 64, 100, 200)
SMALLEST = 1e-3
MARKS = "osD^v<>Pph*X"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#3b3b3b", "#8c6d31")


def shift(name: str) -> float:
    """Return what is taken off a score before it is drawn."""
    return 0.5 if name == "auc_gb" else 0.0


def curves(lines: list[dict[str, Any]], name: str) -> dict[str, np.ndarray]:
    """Return sampler -> (k, 3) array of evaluations, value, error, in rising order."""
    found: dict[str, list[tuple[float, float, float]]] = {}
    for line in lines:
        if line.get(name) is not None:
            value, error = line[name][:2]
            label = line["sampler"] + (", own grid" if line.get("grid") == "own" else "")
            found.setdefault(label, []).append((line["evaluations"], value - shift(name), error))
    return {label: np.array(sorted(points)) for label, points in found.items()}


def floor(lines: list[dict[str, Any]], name: str) -> tuple[float, float]:
    """Return the floor of a score and its error, the mean over all lines."""
    values = np.array([line[name][2:] for line in lines if line.get(name) is not None], dtype=float)
    mean = values.mean(axis=0)
    return float(mean[0] - shift(name)), float(mean[1])


def ratio(curve: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return (k, 3) evaluations, ratio to the reference interpolated in the logs, error."""
    at = np.log(np.maximum(reference[:, 1], 1e-9))
    below = np.exp(np.interp(np.log(curve[:, 0]), np.log(reference[:, 0]), at))
    return np.column_stack([curve[:, 0], curve[:, 1] / below, curve[:, 2] / below])


def style(i: int) -> dict[str, Any]:
    """Return colour, mark and line of the i-th curve of a panel; no two are alike."""
    line = ("-", "--", ":", "-.")[(i // len(COLOURS)) % 4]
    colour, mark = COLOURS[i % len(COLOURS)], MARKS[i % len(MARKS)]
    return {"color": colour, "marker": mark, "ls": line, "ms": 3.5, "lw": 1.0, "capsize": 1.5}


def families(labels: list[str]) -> dict[str, list[str]]:
    """Return family -> samplers of it that have results, in the order of the settings."""
    known = {name: family for family, members in settings.FAMILIES.items() for name in members}
    found: dict[str, list[str]] = {family: [] for family in settings.FAMILIES}
    for label in labels:
        name = label.removesuffix(", own grid").removesuffix(", EDM grid")
        found[known[name]].append(label)
    return {family: members for family, members in found.items() if members}


def one(lines: list[dict[str, Any]], title: str, path: Path) -> None:
    """Draw one part: a column per family of samplers, all others in grey behind it."""
    from flowbdt.evaluation.report.style import drawing, new_figure

    names = [name for name in SCORES if any(line.get(name) is not None for line in lines)]
    columns = families(list(curves(lines, names[0])))
    with drawing():
        picture = new_figure(2.9 * len(columns), 2.1 * (len(names) + 1) + 1.6, "constrained")
        heights = [1.4] * len(names) + [1.0, 0.75]
        grid = picture.subplots(
            len(names) + 2,
            len(columns),
            sharex="col",
            sharey="row",
            squeeze=False,
            height_ratios=heights,
        )
        for column, (family, members) in enumerate(columns.items()):
            for row, name in enumerate(names):
                _scores(grid[row, column], lines, name, members)
            _ratios(grid[-2, column], lines, names[-1], members)
            grid[0, column].set_title(family)
            _legend(grid[-1, column], grid[0, column])
        _label(grid, names)
        picture.suptitle(title)
        picture.savefig(path)


def _scores(axes: Any, lines: list[dict[str, Any]], name: str, members: list[str]) -> None:
    found = curves(lines, name)
    low, error = floor(lines, name)
    band(axes, low, error)
    _behind(axes, {label: curve for label, curve in found.items() if label not in members})
    for i, label in enumerate(label for label in members if label in found):
        curve = found[label]
        axes.errorbar(curve[:, 0], curve[:, 1], curve[:, 2], label=label, **style(i))
    axes.set(xscale="log", yscale="log")
    axes.set_ylim(bottom=max(0.6 * (low - error), 0.8 * low, SMALLEST))


def _ratios(axes: Any, lines: list[dict[str, Any]], name: str, members: list[str]) -> None:
    found = curves(lines, name)
    if REFERENCE in found:
        found = {label: ratio(curve, found[REFERENCE]) for label, curve in found.items()}
        _behind(axes, {label: curve for label, curve in found.items() if label not in members})
        for i, label in enumerate(label for label in members if label in found):
            axes.errorbar(found[label][:, 0], found[label][:, 1], found[label][:, 2], **style(i))
    axes.axhline(1.0, color="#3b3b3b", lw=0.7)
    axes.set(xscale="log", yscale="log", xlabel="function evaluations per event")
    ticks = [t for t in TICKS if any(t in curve[:, 0] for curve in found.values())]
    axes.set_xticks(ticks, labels=[str(t) for t in ticks])
    axes.set_xticks([], minor=True)
    axes.tick_params(labelbottom=True)


def _behind(axes: Any, others: dict[str, np.ndarray]) -> None:
    for curve in others.values():
        axes.plot(curve[:, 0], curve[:, 1], color="#dddddd", lw=0.7, zorder=0.5)


def _legend(axes: Any, source: Any) -> None:
    handles, labels = source.get_legend_handles_labels()
    axes.axis("off")
    axes.legend(handles, labels, loc="upper center", fontsize="small", frameon=False)


def _label(grid: Any, names: list[str]) -> None:
    for axes, name in zip(grid[:, 0], names, strict=False):
        axes.set_ylabel(SCORES[name])
    grid[-2, 0].set_ylabel(f"{SCORES[names[-1]]}\nratio to {REFERENCE}")


def band(axes: Any, low: float, error: float) -> None:
    """Draw the floor; what is not above zero has no place on a logarithmic axis."""
    bottom, top = max(low - error, SMALLEST), max(low + error, SMALLEST)
    axes.axhspan(bottom, top, color="#c9c9c9", label="truth against truth")


def churn(lines: list[dict[str, Any]], path: Path) -> None:
    """Draw the scan of the churn: score against gamma, the growth of the noise in a step."""
    moved = [{**line, "evaluations": max(line["gamma"], 0.01)} for line in lines]
    from flowbdt.evaluation.report.style import drawing, new_figure

    names = [name for name in SCORES if any(line.get(name) is not None for line in lines)]
    with drawing():
        picture = new_figure(4.2 * len(names), 3.8, "constrained")
        for column, name in enumerate(names):
            axes = picture.add_subplot(1, len(names), column + 1)
            for i, (label, curve) in enumerate(curves(moved, name).items()):
                axes.errorbar(curve[:, 0], curve[:, 1], curve[:, 2], label=label, **style(i))
            low, error = floor(lines, name)
            band(axes, low, error)
            axes.set(xscale="log", yscale="log", ylabel=SCORES[name])
            axes.set_xlabel(r"$\gamma$ (0 drawn at 0.01; cut at $\sqrt{2} - 1$)")
        axes.legend()
        picture.savefig(path)


def draw(figures: dict[str, list[dict[str, Any]]], folder: Path) -> None:
    """Draw every part that has results, and tabulate all of them; needs matplotlib."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tables.md").write_text(tables.page(figures))
    titles = {
        "mixture": "Exact field of a mixture fitted to top jets",
        "trees": "Boosted trees on top jets",
    }
    for part, title in titles.items():
        if figures.get(part):
            one(figures[part], title, folder / f"samplers_{part}.png")
    if figures.get("churn"):
        churn(figures["churn"], folder / "samplers_churn.png")


def main() -> None:
    """Draw from a file of numbers."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("numbers", type=Path, help="samplers.json of a study")
    parser.add_argument("-o", "--output", type=Path, default=Path(), help="where to draw")
    options = parser.parse_args()
    draw(json.loads(options.numbers.read_text()), options.output)


if __name__ == "__main__":
    main()
