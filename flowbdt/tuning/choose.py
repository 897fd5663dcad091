"""Which trial wins: the front of what cannot be bettered, the last few judged anew, one chosen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from .judge import COSTS

FINALISTS = 4
"""So many, beside the start, are judged on events that played no part before."""


def front(values: Mapping[int, Sequence[float]]) -> list[int]:
    """Return the trials that no other one beats in one objective without losing in another."""
    return sorted(
        number
        for number, mine in values.items()
        if not any(_beats(other, mine) for other in values.values())
    )


def _beats(first: Sequence[float], second: Sequence[float]) -> bool:
    pairs = list(zip(first, second, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def costs_of(
    reports: Mapping[int, Mapping[str, Any]], objectives: Sequence[str]
) -> dict[int, float]:
    """Return the cost of each trial: the first objective that is one, else 0 for all."""
    name = next((n for n in objectives if n in COSTS), None)
    return {i: 0.0 if name is None else float(r["costs"][name]) for i, r in reports.items()}


def finalists(reports: Mapping[int, Mapping[str, Any]], objectives: Sequence[str]) -> list[int]:
    """Return the trials worth a second look; the start is one of them if it is complete.

    Of those within one standard error of the best score the cheapest, and the best itself: scores
    are noisy, and the best of many noisy ones owes much to luck (one-standard-error rule: Breiman,
    Friedman, Olshen, Stone, "Classification and regression trees", 1984, section 3.4.3).
    """
    if not reports:
        return []
    name, cost = objectives[0], costs_of(reports, objectives)
    score = {i: float(r["scores"][name]["value"]) for i, r in reports.items()}
    best = min(score, key=lambda i: (score[i], i))
    reach = score[best] + float(reports[best]["scores"][name]["error"])
    close = [i for i in reports if score[i] <= reach]
    known = {i: (score[i], cost[i]) for i in close}
    ranked = sorted(front(known), key=lambda i: (cost[i], score[i]))
    chosen = [*ranked[: FINALISTS - 1], best]
    return sorted({*chosen, *([0] if 0 in reports else [])})


def together(first: Mapping[str, float], second: Mapping[str, float]) -> tuple[float, float]:
    """Return the mean of two scores of other events, weighted by their errors, and its error."""
    weights = [1.0 / max(float(part["error"]), 1e-12) ** 2 for part in (first, second)]
    total = sum(weights)
    value = (weights[0] * first["value"] + weights[1] * second["value"]) / total
    return float(value), math.sqrt(1.0 / total)


def winner(
    finals: Mapping[int, Mapping[str, Any]],
    reports: Mapping[int, Mapping[str, Any]],
    objectives: Sequence[str],
) -> int:
    """Return the cheapest finalist that is within one standard error of the best, to every judge.

    Scores of a finalist: that of the search, on the events of the selection and on those nobody
    looked at; and that of a second judge, whom the search never asked (``second``, where there is
    one), so that nobody wins who pleases one judge only.
    """
    name, cost = objectives[0], costs_of(reports, objectives)
    known = {i: together(reports[i]["scores"][name], finals[i]["scores"][name]) for i in finals}
    close = _within_one_error(known)
    seconds = {i: final["second"] for i, final in finals.items() if final.get("second")}
    if len(seconds) == len(finals):
        other = {i: (float(s["value"]), float(s["error"])) for i, s in seconds.items()}
        both = [i for i in close if i in _within_one_error(other)]
        close = both or [min(close, key=lambda i: other[i])]
    return min(close, key=lambda i: (cost[i], known[i][0], i))


def _within_one_error(known: Mapping[int, tuple[float, float]]) -> list[int]:
    best = min(known, key=lambda i: known[i][0])
    return [i for i in known if known[i][0] <= sum(known[best])]
