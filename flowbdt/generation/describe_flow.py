"""A trained flow in words: settings, columns, what each step and classifier learned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..config import NONE
from ..training.explained_variance import explained
from .trained_flow import Flow


def describe_flow(flow: Flow, name: str = "flow") -> list[str]:
    """Return lines of text; ``name`` begins the first one."""
    settings, plan, steps = dict(flow.settings), flow.plan, flow.manifest["steps"]
    booster, shares = settings.pop("booster"), [explained(step) for step in steps]
    settings.pop("transforms", None)
    rules = {name: settings.pop(name) for name in NONE if settings.get(name)}
    lines = [
        f"{name}, digest {plan['digest'][:12]}",
        *(
            [f"ensemble of {len(flow.members)} replicas; what follows is of the first"]
            * bool(flow.members)
        ),
        f"{plan['n_train']} training and {plan['n_valid']} validation events;"
        f" {flow.n_evaluations} evaluations per trajectory{describe_rejection(flow)}",
        "",
        "settings:  " + ", ".join(f"{k}={v}" for k, v in settings.items()),
        "booster:   " + ", ".join(f"{k}={v}" for k, v in booster.items()),
        *(["held, declared or as the training rows show it:"] if rules else []),
        *described_rules(rules),
        "made with: " + ", ".join(f"{k} {v}" for k, v in plan["made_with"].items()),
        "",
        f"closed form: {flow.preconditioner.describe()}",
        *_first_line(flow.columns.get("first")),
        "",
        "columns:",
        *(f"  {line}" for line in flow.transform.describe()),
        "",
        "step     time   trees   train rmse   validation rmse   trees explain",
        *map(_step_line, steps, shares),
    ]
    idle = ", ".join(
        f"{step['time']:.3g}" for step, share in zip(steps, shares, strict=True) if share <= 0
    )
    if idle:
        lines += ["", f"the trees add nothing to the closed form at t = {idle}"]
    if flow.draws_columns:
        lines += ["", "drawn by a classifier   rounds   log loss   without trees"]
        lines += map(_classifier_line, flow.manifest["classifiers"])
    return lines


def described_rules(settings: Mapping[str, Any]) -> list[str]:
    """Return lines of particles, relations and cuts, each with what switches them off."""
    lines = []
    for name, value in settings.items():
        texts = (
            [*value]
            if name != "particles"
            else [
                f"{particle} ({', '.join(f'{k} {v}' for k, v in spec.items())})"
                for particle, spec in value.items()
            ]
        )
        lines.append(f"  {name}: {'; '.join(texts)}   (none with {name}={NONE[name]})")
    return lines


def describe_rejection(flow: Flow) -> str:
    """Return what rejection and cuts cost, in words; nothing if there are none."""
    words = []
    if flow.ratio is not None:
        words.append(f"{flow.ratio.acceptance:.0%} of them accepted by {flow.ratio.n_trees} trees")
    if len(flow.cuts):
        words.append(f"{flow.required:.1%} meet require {flow.cuts.text}")
    elif flow.required < 1.0:
        far = "with a computed column far beyond its training range, drawn anew"
        words.append(f"{1 - flow.required:.2%} {far}")
    return f" ({', '.join(words)})" if words else ""


def _first_line(name: str | None) -> list[str]:
    if name is None:
        return []
    return [f"a mixture for each value of {name}: no trees of the steps, no rejection beside it"]


def _classifier_line(one: dict[str, Any]) -> str:
    return (
        f"{one['name'][:22]:22s} {one['trees']:8d} {one['log_loss']:10.4f}"
        f" {one['log_loss_without_trees']:15.4f}"
    )


def _step_line(step: dict[str, Any], share: float) -> str:
    valid = float("nan") if step["valid_rmse"] is None else step["valid_rmse"]
    return (
        f"{step['step']:4d} {step['time']:8.4f} {step['trees']:7d} {step['train_rmse']:12.5f}"
        f" {valid:17.5f} {share:14.3%}"
    )
