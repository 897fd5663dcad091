"""Expected memory and CPU time of training, from the sizes of the table, before it starts.

Histograms decide in high dimension: every open node of a tree keeps one sum of gradients for each
input, bin and output on which splits are sought. Rows decide in low dimension.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataWarning
from ..trees.base import kept_bytes
from .mixture_cost import MixtureCost
from .noise_draws import n_turns, trees_per_draw, valid_repeats

if TYPE_CHECKING:
    from .executors.base import Executor
    from .plan import Inputs

MIB = 2**20

PROCESS_MIB = 240.0
"""An interpreter with everything loaded that a step needs."""

HISTOGRAM_BYTES = 16
"""Sums of first and second derivative, in float64."""

NANOSECONDS = {
    "histogram": 0.9,  # a row added to a histogram, per input, output, and level of the tree
    "search": 24.0,  # a bin looked at, per input, output and node
    "outputs": 15.0,  # gradient, margin and leaf of a row, per output
    "moves": 5.0,  # a row sent down one level of a tree
    "bins": 20.0,  # a number made and binned
    "trees": 5e5,  # a tree started and ended
    "rounds": 5e6,  # a round of one group of outputs, with the loss of its validation rows
}
"""CPU time of one unit of each kind of work, on one core of a present server (`benchmarks/cost.py`
fits them to measured steps; the small ones are known to a factor of a few)."""


@dataclass(frozen=True)
class Cost:
    """Cost of training one step at most: early stopping may end it sooner.

    ``breakdown`` has the uses of its peak memory, in MiB; ``work`` the units of `NANOSECONDS`.
    """

    breakdown: dict[str, float]
    work: dict[str, float]

    @property
    def memory_mib(self) -> float:
        """Peak memory."""
        return sum(self.breakdown.values())

    @property
    def cpu_seconds(self) -> float:
        """CPU time on one core."""
        return sum(NANOSECONDS[name] * count for name, count in self.work.items()) * 1e-9


def estimate(
    booster: Mapping[str, Any], n_rows: int, n_inputs: int, n_outputs: int, n_valid: int = 0
) -> Cost:
    """Return the cost of training one step at most, on one thread.

    ``booster`` comes from a resolved configuration; rows count the repetitions of the noise, inputs
    the conditions. `benchmarks/cost.py` compares it with measurements. Not in it: the closed-form
    velocity, and trees that a row passes again when its noise is redrawn.
    """
    leaves = min(int(booster.get("max_leaves", 0)) or n_rows, n_rows)
    depth = int(booster.get("max_depth", 6)) or max(leaves.bit_length(), 1)  # 0: no limit
    bins = int(booster.get("max_bin", 256))
    vector = booster.get("multi_strategy") == "multi_output_tree"
    width = max(min(int(booster.get("outputs_per_group", 0)) or n_outputs, n_outputs), 1)
    few = int(booster.get("split_outputs", 0))
    sought = (few if 0 < few < width else width) if vector else 1  # outputs that choose a split
    leaf = width if vector else 1
    rounds = int(booster["n_estimators"]) * -(-n_outputs // width)
    trees = rounds * width // leaf
    nodes = max(min(2 ** min(depth, 60), leaves) - 1, 1)  # a leaf needs a row
    levels = 1 + max(depth - 1, 0) / 2  # of two siblings one is the difference
    rows = n_rows + n_valid
    work = {
        "histogram": trees * levels * n_rows * n_inputs * sought,
        "search": trees * nodes * n_inputs * bins * sought,
        "outputs": trees * rows * leaf,
        "moves": trees * rows * depth,
        "bins": rows * n_inputs,
        "trees": trees,
        "rounds": rounds,
    }
    # margin and gradient; vector leaves: transposed; few: Python's margin, label, gradient
    per_output = 4 + 8 + 8 * vector + 12 * (vector and sought < width)
    size = {
        "process": PROCESS_MIB * MIB,
        "labels": 4 * rows * n_outputs,
        "gradients": n_rows * (width * per_output + 16 * sought) + 4 * n_valid * width,
        "bins": 2 * rows * n_inputs,
        "histograms": nodes * n_inputs * bins * sought * HISTOGRAM_BYTES,
        "trees": trees * 2 * nodes * (4 * leaf + 64),
    }
    # gone before there are gradients
    kept = min(4 * n_rows * n_inputs, kept_bytes(n_rows, width))
    size["inputs"] = max(kept - size["gradients"], 0)
    return Cost({name: n / MIB for name, n in size.items()}, work)


STEP_S = 0.1
"""CPU time of a step beside its work: to check its files, and to write."""

USUAL_TREES, ROWS_PER_TREE = 7, 2500
"""A step gains from so many trees, and one more for so many rows, about, before early stopping ends
it: from 6 (10,000 smooth rows of 12 columns) to 20 (5,000 of MAGIC or Z to ee) beside patience."""


def step_cost(plan: Mapping[str, Any], rounds: int | None = None) -> Cost:
    """Return the cost of one step of a plan: of ``rounds`` of trees, or at most."""
    fingerprint = plan["fingerprint"]
    settings = fingerprint["settings"]
    noise, views, spec = (settings[name] for name in ("noise", "inputs", "preconditioner"))
    points = sum(view in views for view in ("latent", "columns", "end_point"))
    named = isinstance(spec, Mapping) and "components" in views
    components = int(spec.get("n_components", 0)) if named else 0
    booster = settings["booster"]
    return estimate(
        booster if rounds is None else {**booster, "n_estimators": rounds},
        plan["n_train"] // n_turns(noise, plan["n_train"]) * noise["n_repeats"],
        points * plan["n_latent"] + len(fingerprint["columns"]["conditions"]) + components,
        plan["n_latent"],
        plan["n_valid"] * valid_repeats(noise, plan["n_valid"]),
    )


def step_seconds(plan: Mapping[str, Any]) -> tuple[float, float]:
    """Return the CPU seconds of one step: those to expect, as early stopping ends most, and most.

    With the velocity of the closed form, for every draw of the noise.
    """
    settings = plan["fingerprint"]["settings"]
    noise, booster, mixture = settings["noise"], settings["booster"], MixtureCost.of(plan)
    most = 0 if plan["fingerprint"]["columns"].get("first") else int(booster["n_estimators"])
    patience = int(booster.get("early_stopping_rounds", 0)) if plan["n_valid"] else 0
    usual = patience + USUAL_TREES + plan["n_train"] // ROWS_PER_TREE if patience else most

    def seconds(rounds: int) -> float:
        turns = n_turns(noise, plan["n_train"])
        per_draw = trees_per_draw(noise, int(booster["n_estimators"]), turns)
        draws = max(-(-rounds // per_draw), 1) if per_draw else 1
        drawn = plan["n_train"] // turns * noise["n_repeats"]
        rows = draws * drawn + plan["n_valid"] * valid_repeats(noise, plan["n_valid"])
        closed = 0.0 if mixture is None else mixture.velocity(plan["n_latent"])
        binned = 3 * plan["n_latent"] * NANOSECONDS["bins"] * 1e-9 * (draws - 1) * drawn
        return STEP_S + step_cost(plan, rounds).cpu_seconds + rows * closed + binned

    return seconds(min(usual, most)), seconds(most)


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


def outline(
    inputs: Inputs,
    n_latent: int,
    n_values: Mapping[str, int] | None = None,
    first: str | None = None,
) -> dict[str, Any]:
    """Return the sizes that `plan.json` will have, for settled inputs that are not planned yet.

    ``n_values``: of columns that classifiers draw, in order, how many values each can have;
    ``first``: the one with a mixture for each value.
    """
    n_values = dict(n_values or {})
    settings = inputs.config.digestible()
    n_valid = round(inputs.table.n * inputs.config.validation_fraction)
    columns = {
        "conditions": inputs.table.cond_names,
        "classified": list(n_values),
        "first": first,
    }
    return {
        "fingerprint": {"settings": settings, "columns": columns},
        "n_train": inputs.table.n - n_valid,
        "n_valid": n_valid,
        "n_latent": n_latent,
        "n_values": n_values,
        "rejection": inputs.config.rejection and first is None,
    }


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
    free = re.search(r"MemAvailable:\s*(\d+)", _text(root / "proc/meminfo"))
    limits = [int(free[1]) / 1024] if free else []
    limit, used = (
        _text(root / f"sys/fs/cgroup/memory.{name}").strip() for name in ("max", "current")
    )
    if limit.isdigit() and used.isdigit():
        limits.append((int(limit) - int(used)) / MIB)
    return min(limits, default=None)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
