"""The tables of the study: what was measured, and what was published."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments import common
from experiments.calochallenge import published

SCORES = {
    "separation_etot": "separation of Etot/Einc x 1000",
    "separation_mean": "mean separation x 1000",
    "auc_high": "AUC, high level",
    "auc_low": "AUC, low level",
    "fpd": "FPD x 1000",
    "kpd": "KPD x 1000",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
    "layer_correlation": "largest correlation error",
    "memorisation": "memorisation (0.5: none)",
    "log_posterior": "log posterior",
}

THOUSANDS = ("separation_etot", "separation_mean", "fpd", "kpd")

COSTS = {
    "train_cpu_s": "training, CPU s",
    "peak_mib": "peak memory above the start, MiB",
    "n_parameters": "numbers learned",
    "ms_bulk": "CPU ms per shower, in bulk",
    "ms_one": "CPU ms per shower, one by one",
}


def measured(samples: Mapping[str, Mapping[str, Any]]) -> str:
    """Return scores with errors and costs, a column for each sample."""
    rows = []
    for key, text in {**SCORES, **COSTS}.items():
        cells = {name: _cell(key, values) for name, values in samples.items()}
        if any(cells.values()):
            rows.append({"": text, **cells})
    return common.markdown(rows)


def _cell(key: str, values: Mapping[str, Any]) -> str:
    if key not in values:
        return ""
    if key in COSTS:
        return f"{values[key]:.4g}"
    scale = 1000 if key in THOUSANDS else 1
    error = scale * float(values.get(f"{key}_error", 0.0))
    text = f"{scale * float(values[key]):.3f}"
    return f"{text} ± {error:.3f}" if error else text


def submissions(kind: str) -> str:
    """Return the published results as they were stored."""
    cells = [["" if c is None else str(c) for c in row] for row in published.TABLES[kind]]
    rows = [dict(zip(published.COLUMNS, row, strict=True)) for row in cells]
    return "Published, at 121,000 showers:\n\n" + common.markdown(rows)
