"""Expected CPU time and memory of a whole fit, before it starts.

What is repeated until held-out rows gain no more, the data decide: iterations of the closed form,
trees of the steps, rounds of the rejection. So there are two times, the one to expect and the most.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..training.classifier_cost import classifier_costs
from ..training.expected_cost import MIB, PROCESS_MIB, step_cost, step_seconds
from ..training.mixture_cost import MixtureCost, n_inputs
from ..trees import density_ratio as ratio
from . import learn_rejection as rejection

START_S = 3.0
"""CPU time to import everything, read a small table and find relations."""

VALUE_NS = 1_300.0
"""CPU time of a number of the table until it is latent."""

TABLE_COPIES = 10
"""Numbers in float64 for each of a table: as read, latent and standardised, masks, parts of it."""

USUAL_ROUNDS, ROWS_PER_ROUND = 100, 250
"""The rejection gains from so many rounds of trees, and one more for so many rows, about: 3 on
adult, 80 on 10,000 smooth rows, 270 on 5,000 of California or of default of credit cards."""

RATIO_NS = (55.0, 5.5)
EVENT_NS = 20.0
"""CPU time of a row that passes a tree of the rejection, and more for each of its inputs; and that
of a latent column in a step of a generated event, beside the closed form, in the core."""


@dataclass(frozen=True)
class Part:
    """One part of a fit: CPU seconds to expect and at most, and its peak memory in MiB."""

    name: str
    seconds: float
    most: float
    mib: float


def fit_parts(plan: Mapping[str, Any], n_steps: int) -> list[Part]:
    """Return the parts of a fit; ``plan`` as of `expected_cost.outline`."""
    n_rows = plan["n_train"] + plan["n_valid"]
    tables = TABLE_COPIES * 8 * n_rows * n_inputs(plan) / MIB
    mixture, m = MixtureCost.of(plan), plan["n_latent"]
    usual, most, mib = (0.0, 0.0, 0.0) if mixture is None else mixture.fit()
    base = PROCESS_MIB + tables
    first = START_S + 1e-9 * VALUE_NS * n_rows * n_inputs(plan)
    parts = [Part("closed form", first + usual, first + most, base + mib)]
    if m:
        seconds = [n_steps * one for one in step_seconds(plan)]
        parts.append(Part("steps", seconds[0], seconds[1], tables + step_cost(plan).memory_mib))
    if plan.get("n_values"):
        usuals, mosts, peaks = zip(*classifier_costs(plan), strict=True)
        parts.append(Part("classifiers", sum(usuals), sum(mosts), tables + max(peaks)))
    if not plan.get("rejection"):
        return parts
    each = 0.0 if mixture is None else mixture.core_velocity(m)
    booster = plan["fingerprint"]["settings"]["booster"]
    per_event = booster.get("rejection_events", rejection.GENERATED_PER_EVENT)
    real, generated = min(n_rows, rejection.MOST_REAL), rejection.n_generated(n_rows, m, per_event)
    flow = 2 * generated * n_steps * (each + 1e-9 * EVENT_NS * m)
    trees, depth = ratio.trees_of_round(real)
    row_s = 1e-9 * (RATIO_NS[0] + RATIO_NS[1] * n_inputs(plan)) * trees * depth / ratio.DEPTH
    rounds = min(USUAL_ROUNDS + n_rows // ROWS_PER_ROUND, ratio.MOST_ROUNDS)
    times = 1 + (per_event > 1 and real < ratio.FEW)
    usual, most = (
        flow + row_s * (times * n + ratio.PATIENCE) * (real + generated)
        for n in (rounds, ratio.MOST_ROUNDS)
    )
    numbers = (real + generated) * n_inputs(plan)  # in float64 thrice, in float32 five times
    return [*parts, Part("rejection", usual, most, base + 44 * numbers / MIB)]


def describe_fit(plan: Mapping[str, Any], n_steps: int) -> str:
    """Return lines: CPU time and memory of each part of a fit, and of all."""
    parts = fit_parts(plan, n_steps)
    whole = [sum(part.seconds for part in parts), sum(part.most for part in parts)]
    peak = max(part.mib for part in parts)
    lines = [
        f"# expected: {_duration(whole[0])} of CPU time in all, at most {_duration(whole[1])}, and"
        f" up to {peak:.0f} MiB; on one core, with {step_cost(plan).memory_mib:.0f} MiB per step"
        " where steps are jobs"
    ]
    lines += [
        f"#   {part.name}: {_duration(part.seconds)}, at most {_duration(part.most)},"
        f" {part.mib:.0f} MiB"
        for part in parts
    ]
    return "\n".join(lines)


def _duration(seconds: float) -> str:
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
