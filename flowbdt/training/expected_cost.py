"""Expected memory and CPU time of training, from the sizes of the table, before it starts.

Histograms decide in high dimension: every open node of a tree keeps one sum of gradients for each
input, bin and output on which splits are sought. Rows decide in low dimension.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataWarning
from .train_step import valid_repeats

if TYPE_CHECKING:
    from .executors.base import Executor
    from .plan import Inputs

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

    ``breakdown`` has the uses of the memory, in MiB; they add up to ``memory_mib``.
    """

    memory_mib: float
    cpu_seconds: float
    breakdown: dict[str, float] = field(default_factory=dict)


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
    """Return the cost of training one step at most, on one thread.

    ``booster`` comes from a resolved configuration; rows count the repetitions of the noise, inputs
    the conditions. `benchmarks/cost.py` compares it with measurements. Not in it: the closed-form
    velocity, and trees that a row passes again when its noise is redrawn.
    """
    work = work_units(booster, n_rows, n_inputs, n_outputs, n_valid)
    seconds = sum(NANOSECONDS[name] * count for name, count in work.items()) * 1e-9
    memory = memory_breakdown(booster, n_rows, n_inputs, n_outputs, n_valid)
    return Cost(sum(memory.values()), seconds, memory)


def work_units(
    booster: Mapping[str, Any], n_rows: int, n_inputs: int, n_outputs: int, n_valid: int = 0
) -> dict[str, float]:
    """Return the amount of each kind of work in `NANOSECONDS`; see `estimate`."""
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


def memory_breakdown(
    booster: Mapping[str, Any], n_rows: int, n_inputs: int, n_outputs: int, n_valid: int = 0
) -> dict[str, float]:
    """Return the uses of a step's memory, in MiB; see `estimate`."""
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


def step_cost(plan: Mapping[str, Any]) -> Cost:
    """Return the cost of one step of a plan, at most."""
    settings = plan["fingerprint"]["settings"]
    noise = settings["noise"]
    return estimate(
        settings["booster"],
        plan["n_train"] * noise["n_repeats"],
        _n_inputs(plan),
        plan["n_latent"],
        plan["n_valid"] * valid_repeats(noise),
    )


def _n_inputs(plan: Mapping[str, Any]) -> int:
    """Return the number of inputs of the trees, at most."""
    views = plan["fingerprint"]["settings"]["inputs"]
    points = sum(view in views for view in ("latent", "columns", "end_point"))
    conditions = len(plan["fingerprint"]["columns"]["conditions"])
    spec = plan["fingerprint"]["settings"]["preconditioner"]
    named = isinstance(spec, Mapping) and "components" in views
    components = int(spec.get("n_components", 0)) if named else 0
    return points * int(plan["n_latent"]) + conditions + components


FULL = 0.9
"""Share of the available memory above which a machine counts as filled."""

ADVICE = {
    "histograms": "lower booster.max_bin or booster.max_depth, or set booster.outputs_per_group",
    "gradients": "lower noise.n_repeats, set noise.name=fresh, or set booster.outputs_per_group",
    "labels": "lower noise.n_repeats or set noise.name=fresh",
    "bins": "lower noise.n_repeats or set noise.name=fresh",
    "trees": "lower booster.n_estimators or booster.max_depth",
}
"""Remedy for each use of memory that can grow large."""


def outline(inputs: Inputs, n_latent: int) -> dict[str, Any]:
    """Return the sizes that `plan.json` will have, for settled inputs that are not planned yet."""
    settings = inputs.config.digestible()
    n_valid = round(inputs.table.n * inputs.config.validation_fraction)
    columns = {"conditions": inputs.table.cond_names}
    return {
        "fingerprint": {"settings": settings, "columns": columns},
        "n_train": inputs.table.n - n_valid,
        "n_valid": n_valid,
        "n_latent": n_latent,
    }


def describe_cost(plan: Mapping[str, Any], n_steps: int) -> str:
    """Return one line: memory and CPU time of a step, and CPU time of all."""
    step = step_cost(plan)
    return (
        f"# expected: at most {step.memory_mib:.0f} MiB and {_duration(step.cpu_seconds)} of CPU"
        f" time per step, {_duration(n_steps * step.cpu_seconds)} in all, on one core and without"
        " the closed-form velocity"
    )


def _duration(seconds: float) -> str:
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def warn_if_full(plan: Mapping[str, Any], executor: Executor) -> None:
    """Warn (`DataWarning`) if the steps that run here at once may fill the memory of the machine.

    Says nothing where steps run elsewhere, or where the available memory is not known.
    """
    at_once, available = executor.jobs_here, available_mib()
    step = step_cost(plan)
    if available is None or at_once * step.memory_mib <= FULL * available:
        return
    jobs = f" in each of {at_once} jobs at once" if at_once > 1 else ""
    largest = max(ADVICE, key=lambda use: step.breakdown[use])
    fewer = "use fewer n_jobs, " if at_once > 1 else ""
    warnings.warn(
        f"a step may take {step.memory_mib:.0f} MiB{jobs}, and {available:.0f} MiB are free here;"
        f" most of it is for {largest}: {fewer}{ADVICE[largest]}",
        DataWarning,
        stacklevel=2,
    )


def available_mib(root: Path = Path("/")) -> float | None:
    """Return the free memory of the machine, or of this job's share of it; None if not known."""
    limits = [_machine_mib(root / "proc/meminfo"), _share_mib(root / "sys/fs/cgroup")]
    return min((limit for limit in limits if limit is not None), default=None)


def _machine_mib(meminfo: Path) -> float | None:
    for line in _text(meminfo).splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) / 1024
    return None


def _share_mib(group: Path) -> float | None:
    limit, used = _text(group / "memory.max").strip(), _text(group / "memory.current").strip()
    return (int(limit) - int(used)) / MIB if limit.isdigit() and used.isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
