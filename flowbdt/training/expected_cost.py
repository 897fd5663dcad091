"""What a run will take on this machine, told before it starts."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import DataWarning
from . import cost_model
from .executors import Joblib, Serial
from .plan import Inputs
from .step_jobs import step_cost

FULL = 0.9
"""Share of the available memory above which a machine counts as filled."""

ADVICE = {
    "histograms": "lower booster.max_bin or booster.max_depth, or set booster.outputs_per_group",
    "gradients": "lower noise.n_repeats, set noise.name=fresh, or set booster.outputs_per_group",
    "labels": "lower noise.n_repeats or set noise.name=fresh",
    "bins": "lower noise.n_repeats or set noise.name=fresh",
    "trees": "lower booster.n_estimators or booster.max_depth",
}
"""What to do about each part of `cost.Cost` that can grow large."""


def outline(inputs: Inputs, n_latent: int) -> dict[str, Any]:
    """Return what `plan.json` will say about sizes, for settled inputs that are not planned yet."""
    settings = inputs.config.digestible()
    n_valid = round(inputs.table.n * inputs.config.validation_fraction)
    columns = {"conditions": inputs.table.cond_names}
    return {
        "fingerprint": {"settings": settings, "columns": columns},
        "n_train": inputs.table.n - n_valid,
        "n_valid": n_valid,
        "n_latent": n_latent,
    }


def describe(plan: Mapping[str, Any], n_steps: int) -> str:
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


def warn_if_full(plan: Mapping[str, Any], executor: object) -> None:
    """Warn (`DataWarning`) if the steps that run here at once may fill the memory of the machine.

    Says nothing where steps run elsewhere, or where the available memory is not known.
    """
    at_once, available = _steps_at_once(executor), available_mib()
    step = step_cost(plan)
    if available is None or at_once * step.memory_mib <= FULL * available:
        return
    jobs = f" in each of {at_once} jobs at once" if at_once > 1 else ""
    largest = max(ADVICE, key=lambda part: step.parts[part])
    fewer = "use fewer n_jobs, " if at_once > 1 else ""
    warnings.warn(
        f"a step may take {step.memory_mib:.0f} MiB{jobs}, and {available:.0f} MiB are free here;"
        f" most of it is for {largest}: {fewer}{ADVICE[largest]}",
        DataWarning,
        stacklevel=2,
    )


def _steps_at_once(executor: object) -> int:
    if isinstance(executor, Joblib):
        return executor.n_jobs
    return int(isinstance(executor, Serial))


def available_mib(root: Path = Path("/")) -> float | None:
    """Return the memory that can still be had: of the machine, or of this job's share of it.

    Linux only; None where neither is known.
    """
    limits = [_machine_mib(root / "proc/meminfo"), _share_mib(root / "sys/fs/cgroup")]
    return min((limit for limit in limits if limit is not None), default=None)


def _machine_mib(meminfo: Path) -> float | None:
    for line in _text(meminfo).splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) / 1024
    return None


def _share_mib(group: Path) -> float | None:
    limit, used = _text(group / "memory.max").strip(), _text(group / "memory.current").strip()
    return (int(limit) - int(used)) / cost_model.MIB if limit.isdigit() and used.isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
