"""The end of a study: finalists judged anew, one chosen, fitted to all events, and kept."""

from __future__ import annotations

import functools
import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .. import atomic_files, seeding
from ..errors import RunError
from ..evaluation.metrics.base import uncertain
from ..evaluation.score_events import COSTS, OPTIONS, generate_like, score_objectives
from ..generation.fit_run import fit_run
from ..generation.trained_flow import Flow
from ..tables.event_table import EventTable
from ..training.numbered_jobs import name_of
from ..training.plan import Inputs
from ..training.run_directory import RunDirectory
from .study import read_setup, read_state, shares_of, study_table, write_state
from .trial import TRIALS, trial_config, trial_model
from .trial_table import finished, result_text, scores_text, write_trials

SECOND = "auc_mlp"
"""Score of the second judge, which the search does not use and finalists have to pass."""

FINALISTS = 4
"""So many, beside the start, are judged on the guard events."""
MOST_LOOKS = 16
"""The second judge scores no more trials than these, the cheapest of the good ones."""
SHOWN = 12
"""At most so many trials of the front are listed."""

Reports = Mapping[int, Mapping[str, Any]]


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


def _costs(reports: Reports, objectives: Sequence[str]) -> dict[int, float]:
    """Return the cost of each trial: the first objective that is one, else 0 for all."""
    name = next((n for n in objectives if n in COSTS), None)
    return {i: 0.0 if name is None else float(r["costs"][name]) for i, r in reports.items()}


def finalists(
    reports: Reports,
    objectives: Sequence[str],
    second: Callable[[int], Mapping[str, Any]] | None = None,
) -> list[int]:
    """Return the trials to judge on the guard events; the start is one of them if it is complete.

    The best one, and of those within one standard error of it the cheapest ones that a second judge
    scores as well as the start: ``second`` gives its score of a trial, as a dict with ``value`` and
    ``error``. Cheap trials often satisfy the first judge only.

    References
    ----------
    One-standard-error rule, as the best of many noisy scores owes much to luck: Breiman, Friedman,
    Olshen, Stone, "Classification and regression trees", 1984, section 3.4.3.
    """
    if not reports:
        return []
    cost = _costs(reports, objectives)
    score = {i: float(r["scores"][objectives[0]]["value"]) for i, r in reports.items()}
    best = min(score, key=lambda i: (score[i], i))
    reach = score[best] + float(reports[best]["scores"][objectives[0]]["error"])
    near = sorted((i for i in reports if score[i] <= reach), key=lambda i: (cost[i], score[i], i))
    start = 0 if 0 in reports else best
    chosen = {best, *({0} & set(reports))}
    if second is None:
        ranked = sorted(
            front({i: (score[i], cost[i]) for i in near}), key=lambda i: (cost[i], score[i])
        )
        return sorted(chosen | set(ranked[: FINALISTS - 1]))
    limit = sum(float(second(start)[key]) for key in ("value", "error"))
    passed = (i for i in near[:MOST_LOOKS] if i != start and float(second(i)["value"]) <= limit)
    return sorted(chosen | set(itertools.islice(passed, FINALISTS - 1)))


def mean_score(first: Mapping[str, float], second: Mapping[str, float]) -> tuple[float, float]:
    """Return the mean of two scores of other events, weighted by their errors, and its error."""
    weights = [1.0 / max(float(score["error"]), 1e-12) ** 2 for score in (first, second)]
    total = sum(weights)
    value = (weights[0] * first["value"] + weights[1] * second["value"]) / total
    return float(value), math.sqrt(1.0 / total)


def winner(finals: Reports, reports: Reports, objectives: Sequence[str]) -> int:
    """Return the cheapest finalist that is within one standard error of the best, to every judge.

    Scores of a finalist: that of the search, on selection and guard events together; and that of
    the second judge (``second``, where there is one), so that no trial wins by one judge only.
    """
    name, cost = objectives[0], _costs(reports, objectives)
    known = {i: mean_score(reports[i]["scores"][name], finals[i]["scores"][name]) for i in finals}
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


@dataclass(frozen=True)
class Tuned:
    """A finished study.

    Parameters
    ----------
    run : the winner, fitted to all events: a run as `flowbdt fit` makes it
    winner : number of its trial; 0 is the start
    front : trials that no other one beats in all objectives
    trials : number, state, parameters, scores and costs of each trial
    finals : number -> scores on the guard events
    cpu_seconds : spent on trials and finalists
    """

    run: RunDirectory
    winner: int
    front: list[int]
    trials: list[dict[str, Any]]
    finals: dict[int, dict[str, Any]]
    cpu_seconds: float

    def text(self, objectives: Sequence[str]) -> str:
        """Return the number of trials, the front, the finalists and the winner, in lines."""
        states = [row["state"] for row in self.trials]
        counts = ", ".join(f"{states.count(s)} {s}" for s in dict.fromkeys(states))
        rows = {row["number"]: row for row in self.trials}
        folds = max(len(row.get("folds", [])) for row in self.trials)
        events = f"means over {folds} folds" if folds else "selection events"
        finals = (f"  trial {n}: {_final_text(final)}" for n, final in self.finals.items())
        return "\n".join([
            f"{len(states)} trials ({counts}), {self.cpu_seconds:.4g} CPU seconds",
            "",
            f"not beaten in {' and '.join(objectives)} together ({events}):",
            *(f"  trial {n}: {result_text(rows[n])}" for n in self.front[:SHOWN]),
            "",
            "finalists, on events that played no part in the search:",
            *finals,
            "",
            self._winner_text(rows, objectives[0]),
        ])  # fmt: skip

    def _winner_text(self, rows: Reports, score: str) -> str:
        if self.winner == 0:
            return "the settings to start from won: no cheaper ones are as good within the errors"
        both = {
            n: mean_score(rows[n]["scores"][score], self.finals[n]["scores"][score])
            for n in (0, self.winner)
            if n in self.finals
        }
        scores = "; ".join(
            f"trial {n}: {score} {uncertain(*v)}, {rows[n]['costs']['train_s']:.3g} CPU s"
            for n, v in both.items()
        )
        params, start = rows[self.winner]["params"], rows[0]["params"]
        changed = {name: v for name, v in params.items() if v != start.get(name)}
        short = {k: f"{v:.3g}" if isinstance(v, float) else v for k, v in changed.items()}
        listed = ", ".join(f"{name}={value}" for name, value in short.items())
        return f"winner: trial {self.winner} with {listed}\n  all judged events: {scores}"


def _final_text(final: Mapping[str, Any]) -> str:
    scores = dict(final["scores"])
    if second := final.get("second"):
        scores[f"second judge, with the selection, {second['name']}"] = second
    return scores_text(scores)


def finish(study: RunDirectory, executor: Any) -> Tuned:
    """Judge the finalists on the guard events, choose, and fit the winner to all events.

    Raises RunError if no trial came to an end.
    """
    setup = read_setup(study)
    reports = {n: r for n, r in finished(study).items() if r["state"] == "complete"}
    if not reports:
        raise RunError(f"{study.path}: no trial came to an end; see {study.file('trials.csv')}")
    objectives = setup["objectives"]
    second = functools.partial(_second_opinion, study, setup)
    chosen = finalists(reports, objectives, None if SECOND in objectives else second)
    finals = {n: _judged(study, setup, n) for n in chosen}
    won = winner(finals, reports, objectives)
    rows = write_trials(study, setup)
    run = _refit(study, setup, won, executor)
    spent = sum(float(row.get("cpu_seconds", 0.0)) for row in rows)
    looks = (read_state(study, f"finals/{p.name}") for p in study.file("finals").glob("*.json"))
    spent += sum(float(look["cpu_seconds"]) for look in looks)
    best = front({n: r["values"] for n, r in reports.items()})
    outcome = {
        "format": 1, "winner": won, "front": best, "finals": finals, "objectives": objectives,
        "cpu_seconds": spent, "params": rows[won]["params"], "shares": setup["shares"],
        "folds": setup.get("folds"),
    }  # fmt: skip
    atomic_files.write_json(study.file("outcome.json"), outcome)
    run.file("tuning").mkdir(exist_ok=True)
    for name in ("study.json", "trials.json", "trials.csv", "outcome.json"):
        atomic_files.write_bytes(run.file(f"tuning/{name}"), study.read(name))
    return Tuned(run, won, best, rows, finals, spent)


def _judged(study: RunDirectory, setup: dict[str, Any], number: int) -> dict[str, Any]:
    """Return the scores of a finalist on the guard events, with those of the second judge."""
    names = [name for name in setup["objectives"] if name not in COSTS]

    def make() -> dict[str, Any]:
        real, made = _events(study, setup, number, "guard")
        scores = score_objectives(real, made, names, setup["seed"], 1)
        second = None if SECOND in names else _second_score(setup, real, made)
        return {"scores": {n: score.to_json() for n, score in scores.items()}, "second": second}

    final = _once(study, f"finals/{name_of(number)}-guard.json", number, make)
    if final["second"] is None:
        return final
    on_selection = _second_opinion(study, setup, number)
    value, error = mean_score(on_selection, final["second"])
    return {**final, "second": {**final["second"], "value": value, "error": error}}


def _second_opinion(study: RunDirectory, setup: dict[str, Any], number: int) -> dict[str, Any]:
    """Return the second judge's score of a trial, on the events of the selection."""

    def make() -> dict[str, Any]:
        return _second_score(setup, *_events(study, setup, number, "selection"))

    return _once(study, f"finals/{name_of(number)}-selection.json", number, make)


def _second_score(setup: dict[str, Any], real: EventTable, made: EventTable) -> dict[str, Any]:
    options = {**OPTIONS, "classifier": {"n_model_seeds": 1, "n_split_seeds": 2}}
    made = made.take(slice(0, real.n))
    scores = score_objectives(real, made, [SECOND], setup["seed"], 1, options)
    return scores[SECOND].to_json()


def _events(
    study: RunDirectory, setup: dict[str, Any], number: int, share: str
) -> tuple[EventTable, EventTable]:
    """Return the real events of a share, and as many as `score_events` wants of a trial's model.

    With folds the model is that of the first one, and its selection the events of that fold.
    """
    table = study_table(study, setup)
    shares = shares_of(setup, table)
    real = table.take(shares.guard if share == "guard" else shares.held(0))
    seed = seeding.derive(setup["seed"], f"tune-{share}")
    return real, generate_like(Flow(trial_model(study, number), 1), real, seed).table


def _once(
    study: RunDirectory, name: str, number: int, make: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """Return a judgement of the model of a trial: made and written once, then read."""
    sha256 = (TRIALS.report(study, number) or {})["model_sha256"]
    known = read_state(study, name)
    if known and known["model_sha256"] == sha256:
        return known
    start = time.process_time()
    content = {"model_sha256": sha256, **make()}
    content["cpu_seconds"] = time.process_time() - start
    study.file("finals").mkdir(exist_ok=True)
    write_state(study, name, content)
    return read_state(study, name)


def _refit(study: RunDirectory, setup: dict[str, Any], number: int, executor: Any) -> RunDirectory:
    """Fit the settings of a trial to all events; a folder of another winner is moved aside."""
    table, params = study_table(study, setup), TRIALS.task(study, number)["params"]
    config = replace(trial_config(setup, params, table.n), executor=executor)
    folder = study.file("best")
    mark = read_state(study, "best.json")
    if folder.exists() and mark and mark["trial"] != number:
        count = len(list(study.path.glob("best-of-earlier-*")))
        folder.rename(study.file(f"best-of-earlier-{count + 1}"))
    write_state(study, "best.json", {"trial": number})
    return fit_run(Inputs(table, config, setup["seed"]), folder, resume=True)
