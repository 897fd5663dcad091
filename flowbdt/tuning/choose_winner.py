"""Which trial wins: the front of what cannot be bettered, the last few judged anew, one chosen."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..evaluation.score_events import COSTS

FINALISTS = 4
"""So many, beside the start, are judged on events that played no part before."""
MOST_LOOKS = 16
"""The second judge is asked about no more trials than these, the cheapest of the good ones."""


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


def close(reports: Mapping[int, Mapping[str, Any]], objectives: Sequence[str]) -> list[int]:
    """Return the trials within one standard error of the best score, the cheapest first.

    Scores are noisy, and the best of many noisy ones owes much to luck (one-standard-error rule:
    Breiman, Friedman, Olshen, Stone, "Classification and regression trees", 1984, section 3.4.3).
    """
    if not reports:
        return []
    cost, score = costs_of(reports, objectives), _scores(reports, objectives)
    best = min(score, key=lambda i: (score[i], i))
    reach = score[best] + float(reports[best]["scores"][objectives[0]]["error"])
    return sorted((i for i in reports if score[i] <= reach), key=lambda i: (cost[i], score[i], i))


def finalists(
    reports: Mapping[int, Mapping[str, Any]],
    objectives: Sequence[str],
    second: Callable[[int], Mapping[str, Any]] | None = None,
) -> list[int]:
    """Return the trials worth a third look; the start is one of them if it is complete.

    The best one, and of those `close` to it the cheapest that a second judge, whom the search
    never asked, likes as much as the start: ``second`` gives his score of a trial, as a dict with
    ``value`` and ``error``. Cheap trials often please the first judge only.
    """
    near = close(reports, objectives)
    if not near:
        return []
    score = _scores(reports, objectives)
    best = min(near, key=lambda i: (score[i], i))
    start = 0 if 0 in reports else best
    chosen = {best, *({0} & set(reports))}
    if second is None:
        cost = costs_of(reports, objectives)
        known = {i: (score[i], cost[i]) for i in near}
        ranked = sorted(front(known), key=lambda i: (cost[i], score[i]))
        return sorted(chosen | set(ranked[: FINALISTS - 1]))
    reach = sum(float(second(start)[key]) for key in ("value", "error"))
    liked = (i for i in near[:MOST_LOOKS] if i != start and float(second(i)["value"]) <= reach)
    return sorted(chosen | set(itertools.islice(liked, FINALISTS - 1)))


def _scores(
    reports: Mapping[int, Mapping[str, Any]], objectives: Sequence[str]
) -> dict[int, float]:
    return {i: float(r["scores"][objectives[0]]["value"]) for i, r in reports.items()}


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
    looked at; and that of a second judge (``second``, where there is one), so that nobody wins who
    pleases one judge only.
    """
    name, cost = objectives[0], costs_of(reports, objectives)
    known = {i: together(reports[i]["scores"][name], finals[i]["scores"][name]) for i in finals}
    near = _within_one_error(known)
    seconds = {i: final["second"] for i, final in finals.items() if final.get("second")}
    if len(seconds) == len(finals):
        other = {i: (float(s["value"]), float(s["error"])) for i, s in seconds.items()}
        both = [i for i in near if i in _within_one_error(other)]
        near = both or [min(near, key=lambda i: other[i])]
    return min(near, key=lambda i: (cost[i], known[i][0], i))


def _within_one_error(known: Mapping[int, tuple[float, float]]) -> list[int]:
    best = min(known, key=lambda i: known[i][0])
    return [i for i in known if known[i][0] <= sum(known[best])]
