"""All numbers of the study as tables, with the exact settings of every line."""

from __future__ import annotations

from typing import Any

from experiments import common
from experiments.samplers import settings

LABELS = {
    "auc_gb": "AUC boosted trees",
    "separation": "separation x100",
    "wasserstein": "W1 / width",
}


def page(parts: dict[str, list[dict[str, Any]]]) -> str:
    """Return the tables of all parts under their names, in Markdown."""
    return "\n\n".join(f"## {part}\n\n{table(lines)}" for part, lines in parts.items()) + "\n"


def table(lines: list[dict[str, Any]]) -> str:
    """Return the lines of one part; the last one is the floor."""
    if lines and "uniform" in lines[0]:
        names = ["sampler", "evaluations", *settings.GRIDS, "found"]
        return common.markdown([{n: _cell(line.get(n, "")) for n in names} for line in lines])
    rows = [_row(line) for line in lines]
    return common.markdown([*rows, _floor(lines[0])] if rows else rows)


def _row(line: dict[str, Any]) -> dict[str, str]:
    row = {"sampler": line["sampler"], "evaluations": str(line["evaluations"])}
    if "grid" in line:
        row["grid"] = line["grid"]
    for name, label in LABELS.items():
        row[label] = f"{line[name][0]:.4g} ± {line[name][1]:.2g}" if line.get(name) else ""
    return {**row, "settings": f"`{line['settings']}`"}


def _floor(line: dict[str, Any]) -> dict[str, str]:
    """Return the line of truth against truth, which is the same for all lines of a part."""
    row = dict.fromkeys(_row(line), "")
    for name, label in LABELS.items():
        row[label] = f"{line[name][2]:.4g} ± {line[name][3]:.2g}" if line.get(name) else ""
    return {**row, "sampler": "truth against truth"}


def _cell(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)
