"""What training one step will take: memory and CPU time from the sizes of the table.

Histograms decide in high dimension: every open node of a tree keeps one sum of gradients for each
input, bin and output. Rows decide in low dimension.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MIB = 2**20

PROCESS_MIB = 220.0
"""An interpreter with everything loaded that a step needs."""

HISTOGRAM_BYTES = 16
"""Sums of gradient and second derivative, in float64."""

BUILD_NS, SEARCH_NS, ROW_NS, BIN_NS = 1.0, 6.0, 10.0, 40.0
"""One core, nanoseconds: adding a row to a histogram, per input and output; looking at a bin of a
histogram, per output; a row's gradient, margin and leaf, per output; binning a row, per input."""


@dataclass(frozen=True)
class Cost:
    """Peak memory and CPU time of training one step, at most: early stopping may end it sooner.

    ``parts`` says what the memory is for, in MiB; they add up to ``memory_mib``.
    """

    memory_mib: float
    cpu_seconds: float
    parts: dict[str, float] = field(default_factory=dict)


def estimate(
    booster: Mapping[str, Any], n_rows: int, n_inputs: int, n_outputs: int, n_valid: int = 0
) -> Cost:
    """Return what training one step costs at most, on one thread.

    Parameters
    ----------
    booster : booster settings of a resolved configuration
    n_rows : training rows, repetitions of the noise counted
    n_inputs, n_outputs : what trees see, conditions counted, and learn
    n_valid : validation rows, repetitions counted
    """
    vector = booster.get("multi_strategy") == "multi_output_tree"
    together = n_outputs if vector else 1
    nodes = _open_nodes(int(booster.get("max_depth", 6)), n_rows)
    bins = nodes * n_inputs * int(booster.get("max_bin", 256)) * together
    rows, valid = n_rows * n_outputs, n_valid * n_outputs
    parts = {
        "process": PROCESS_MIB,
        "rows": (rows * (4 + 4 + (16 if vector else 8)) + 2 * n_rows * n_inputs) / MIB,
        "validation": (valid * 8 + 2 * n_valid * n_inputs) / MIB,
        "histograms": bins * HISTOGRAM_BYTES / MIB,
    }
    levels = 1 + max(int(booster.get("max_depth", 6)) - 1, 0) / 2  # siblings by subtraction
    round_ns = levels * n_rows * n_inputs * together * BUILD_NS + bins * SEARCH_NS
    round_ns = round_ns * (n_outputs / together) + (rows + valid) * ROW_NS
    ns = int(booster["n_estimators"]) * round_ns + (n_rows + n_valid) * n_inputs * BIN_NS
    return Cost(sum(parts.values()), ns * 1e-9, parts)


def _open_nodes(depth: int, n_rows: int) -> int:
    """Return how many nodes of a tree are searched; each needs two rows to be split."""
    return max(min(2**depth - 1, n_rows - 1), 1)
