"""What a study tells a person: a line per trial, then the front and the winner."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..evaluation.metrics.base import uncertain
from . import choose_winner
from .finish_study import Tuned
from .tune_sampler import TunedSampler

SHOWN = 12
"""At most so many trials of the front are listed."""


def trial_line(report: Mapping[str, Any]) -> str:
    """Return one line about a trial that ended."""
    if "error" in report:
        return f"trial {report['trial']} failed: {report['error']}"
    if report["state"] == "pruned":
        return f"trial {report['trial']} given up: {report['reason']}"
    costs = report["costs"]
    return (
        f"trial {report['trial']}: {_scores(report['scores'])},"
        f" training {costs['train_s']:.3g} CPU s, {costs['us_per_event']:.3g} us per event"
    )


def _scores(scores: Mapping[str, Mapping[str, Any]]) -> str:
    return ", ".join(f"{n} {uncertain(s['value'], s['error'])}" for n, s in scores.items())


def summary(tuned: Tuned, objectives: list[str]) -> str:
    """Return what was tried, the front, the finalists and the winner, in lines."""
    states = [row["state"] for row in tuned.trials]
    counts = ", ".join(f"{states.count(s)} {s}" for s in dict.fromkeys(states))
    rows = {row["number"]: row for row in tuned.trials}
    lines = [f"{len(states)} trials ({counts}), {tuned.cpu_seconds:.4g} CPU seconds", ""]
    folds = max(len(row.get("folds", [])) for row in tuned.trials)
    judged = f"means over {folds} folds" if folds else "selection events"
    lines.append(f"not beaten in {' and '.join(objectives)} together ({judged}):")
    lines += [f"  {_row(rows[n])}" for n in tuned.front[:SHOWN]]
    lines += ["", "finalists, on events that played no part in the search:"]
    lines += [f"  trial {n}: {_final(final)}" for n, final in tuned.finals.items()]
    lines += ["", _verdict(tuned, rows, objectives[0])]
    return "\n".join(lines)


def _final(final: Mapping[str, Any]) -> str:
    second = final.get("second")
    told = {} if second is None else {f"second judge, with the selection, {second['name']}": second}
    return _scores({**final["scores"], **told})


def _row(row: Mapping[str, Any]) -> str:
    return (
        f"trial {row['number']}: {_scores(row['scores'])}, {row['costs']['train_s']:.3g} CPU s,"
        f" {row['costs']['us_per_event']:.3g} us per event"
    )


def _verdict(tuned: Tuned, rows: Mapping[int, Mapping[str, Any]], score: str) -> str:
    if tuned.winner == 0:
        return "the settings to start from won: nothing cheaper is as good, as far as can be seen"
    both = {
        n: choose_winner.together(rows[n]["scores"][score], tuned.finals[n]["scores"][score])
        for n in (0, tuned.winner)
        if n in tuned.finals
    }
    parts = [f"trial {n}: {score} {uncertain(*v)}, {rows[n]['costs']['train_s']:.3g} CPU s"
             for n, v in both.items()]  # fmt: skip
    changed = {k: v for k, v in rows[tuned.winner]["params"].items()
               if v != rows[0]["params"].get(k)}  # fmt: skip
    told = ", ".join(f"{k}={_short(v)}" for k, v in changed.items())
    return f"winner: trial {tuned.winner} with {told}\n  all judged events: {'; '.join(parts)}"


def sampler_lines(found: TunedSampler, metric: str) -> str:
    """Return what was found for one budget, and how to use it."""
    before, after = found.scores["guard"]["start"], found.scores["guard"]["tuned"]
    told = f"{found.evaluations} evaluations: {metric} {before:.4g} -> {after:.4g}"
    if found.difference is not None:
        told += f", difference {uncertain(found.difference.value, found.difference.error)}"
    told += f" on events that played no part ({found.tried} samplers tried)"
    if not found.tuned:
        return f"{told}\n  kept as it was: nothing found is better on these events"
    return "\n  ".join([
        told,
        f"generate: --sampler '{json.dumps(found.way)}'",
        "fit:      " + " ".join(f"--set '{text}'" for text in found.fit),
    ])  # fmt: skip


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
