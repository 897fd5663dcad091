"""What training one step will take: memory and CPU time from the sizes of the table.

Histograms decide in high dimension: every open node of a tree keeps one sum of gradients for each
input, bin and output on which splits are sought. Rows decide in low dimension.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MIB = 2**20

PROCESS_MIB = 220.0
"""An interpreter with everything loaded that a step needs."""

HISTOGRAM_BYTES = 16
"""Sums of first and second derivative, in float64."""

KEPT_BYTES = 2**25
"""At most this much of the inputs is kept as numbers while the bins are made."""

NANOSECONDS = {
    "histogram": 0.9,  # a row added to a histogram, per input, output, and level of the tree
    "search": 24.0,  # a bin looked at, per input, output and node
    "outputs": 15.0,  # gradient, margin and leaf of a row, per output
    "moves": 5.0,  # a row sent down one level of a tree
    "bins": 20.0,  # a number made and binned
    "trees": 5e5,  # a tree started and ended
}
"""CPU time of one unit of each kind of work, on one core of a present server (`benchmarks/cost.py`
fits them to measured steps; the small ones are known to a factor of a few)."""


@dataclass(frozen=True)
class Cost:
    """Peak memory and CPU time of training one step, at most: early stopping may end it sooner.

    ``parts`` says what the memory is for, in MiB; they add up to ``memory_mib``.
    """

    memory_mib: float
    cpu_seconds: float
    parts: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class _Shape:
    """Sizes of the trees of one step."""

    depth: int
    nodes: int  # that are searched for a split in one tree
    bins: int
    width: int  # outputs of one booster
    sought: int  # outputs on which one tree seeks its splits
    trees: int  # in all, at most

    @classmethod
    def of(cls, booster: Mapping[str, Any], n_rows: int, n_outputs: int) -> _Shape:
        depth = int(booster.get("max_depth", 6))
        width = int(booster.get("outputs_per_group", 0)) or n_outputs
        width = min(width, n_outputs)
        groups = -(-n_outputs // width)
        vector = booster.get("multi_strategy") == "multi_output_tree"
        few = int(booster.get("split_outputs", 0))
        return cls(
            depth=depth,
            nodes=max(min(2**depth - 1, n_rows - 1), 1),  # a split needs two rows
            bins=int(booster.get("max_bin", 256)),
            width=width,
            sought=(few if 0 < few < width else width) if vector else 1,
            trees=int(booster["n_estimators"]) * groups * (1 if vector else width),
        )


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

    Notes
    -----
    `benchmarks/cost.py` holds it against measurements. Not in it: the closed-form velocity of the
    rows, and trees that a row must pass again when its noise is redrawn.
    """
    work = work_units(booster, n_rows, n_inputs, n_outputs, n_valid)
    seconds = sum(NANOSECONDS[name] * count for name, count in work.items()) * 1e-9
    parts = memory_parts(booster, n_rows, n_inputs, n_outputs, n_valid)
    return Cost(sum(parts.values()), seconds, parts)


def work_units(
    booster: Mapping[str, Any], n_rows: int, n_inputs: int, n_outputs: int, n_valid: int = 0
) -> dict[str, float]:
    """Return how much of each kind of work in `NANOSECONDS` a step takes; see `estimate`."""
    shape = _Shape.of(booster, n_rows, n_outputs)
    vector = booster.get("multi_strategy") == "multi_output_tree"
    levels = 1 + max(shape.depth - 1, 0) / 2  # of two siblings one is the difference
    rows = n_rows + n_valid
    return {
        "histogram": shape.trees * levels * n_rows * n_inputs * shape.sought,
        "search": shape.trees * shape.nodes * n_inputs * shape.bins * shape.sought,
        "outputs": shape.trees * rows * (shape.width if vector else 1),
        "moves": shape.trees * rows * shape.depth,
        "bins": rows * n_inputs,
        "trees": shape.trees,
    }


def memory_parts(
    booster: Mapping[str, Any], n_rows: int, n_inputs: int, n_outputs: int, n_valid: int = 0
) -> dict[str, float]:
    """Return what the memory of a step is for, in MiB; see `estimate`."""
    shape = _Shape.of(booster, n_rows, n_outputs)
    vector = booster.get("multi_strategy") == "multi_output_tree"
    few = shape.sought < shape.width and vector
    # margin and gradient; vector leaves: transposed; few: Python's margin, label, gradient
    per_output = 4 + 8 + 8 * vector + 12 * few
    rows = n_rows + n_valid
    size = {
        "labels": 4 * rows * n_outputs,
        "gradients": n_rows * (shape.width * per_output + 16 * shape.sought)
        + 4 * n_valid * shape.width,
        "bins": 2 * rows * n_inputs,
        "inputs": min(4 * rows * n_inputs, KEPT_BYTES),
        "histograms": shape.nodes * n_inputs * shape.bins * shape.sought * HISTOGRAM_BYTES,
        "trees": shape.trees * 2 * shape.nodes * (4 * (shape.width if vector else 1) + 64),
    }
    return {"process": PROCESS_MIB, **{name: b / MIB for name, b in size.items()}}
