"""Search of settings: proposals, trials as jobs, giving up early, the choice, resuming."""

from __future__ import annotations

import csv
import json
import re

import numpy as np
import pytest
from conftest import run

from flowbdt import FlowBDT
from flowbdt.config import ModelConfig, RunConfig
from flowbdt.errors import ConfigError, FormatError, IncompleteRun, RunError
from flowbdt.metrics.base import effective_size
from flowbdt.seeding import stream
from flowbdt.store import FORMAT, RunDirectory
from flowbdt.table import EventTable
from flowbdt.tableio import write_table
from flowbdt.training.plan import Inputs, check_config, make_plan
from flowbdt.training.worker import run_task
from flowbdt.tuning import choose, judge, space
from flowbdt.tuning.race import HeldOutLoss, Limits, order, race

BASE = RunConfig(
    preset="fast",
    n_steps=3,
    preconditioner="gaussian",
    booster={"n_estimators": 4, "max_depth": 2, "max_bin": 32},
    random_state=5,
)


def table(n: int = 600) -> EventTable:
    """Two clumps in two columns."""
    rng = stream(1, "test-tuning")
    x = rng.normal(size=(n, 2)) + 3.0 * (rng.random((n, 1)) < 0.4)
    return EventTable.of(x, ["a", "b"])


@pytest.fixture
def tune():
    pytest.importorskip("optuna", reason="tuning needs the extra 'tune'")
    from flowbdt.tuning import tune

    return tune


# ---- the space


@pytest.mark.parametrize(
    ("rows", "columns"), [(500, 3), (25_000, 12), (1_000_000, 12), (5_000, 99)]
)
def test_every_corner_of_a_space_is_a_valid_configuration(rows, columns):
    known = space.model_space(RunConfig(), rows, columns)
    rng = stream(0, "test-corners")
    for _ in range(20):
        params = {}
        for name, p in known.items():
            ends = list(p.options) if isinstance(p, space.Choice) else [p.low, p.high]
            params[name] = ends[int(rng.integers(len(ends)))]
        check_config(space.settings(params, known, RunConfig(), rows, columns))


@pytest.mark.parametrize("preset", ["fast", "balanced", "best"])
def test_the_start_of_a_space_is_what_was_given(preset):
    base = RunConfig(preset=preset, booster={"subsample": 0.7})
    known = space.model_space(base, 25_000, 12)
    found = space.settings(space.defaults(known), known, base, 25_000, 12)
    assert found.resolved(25_000, 12).digestible() == base.resolved(25_000, 12).digestible()


def test_what_a_space_does_not_know_stays_an_option():
    base = RunConfig(
        spacing=[0.0, 0.3, 1.0],
        transforms={"a": "log"},
        preconditioner={"name": "mixture", "n_components": 33},
    )
    known = space.model_space(base, 25_000, 12)
    found = space.settings(space.defaults(known), known, base, 25_000, 12)
    assert (found.spacing, found.transforms) == (base.spacing, base.transforms)
    assert found.preconditioner == base.preconditioner
    assert "n_steps" not in known  # it belongs to the list of boundaries


def test_large_and_wide_tables_have_other_limits():
    small, large, wide = (
        space.model_space(RunConfig(), *size) for size in ((1_000, 5), (10**6, 5), (10**4, 200))
    )
    assert small["max_depth"].high < large["max_depth"].high
    assert small["n_estimators"].high < large["n_estimators"].high
    assert wide["max_depth"].high <= 4
    assert "outputs_per_group" in wide


def test_first_tries_begin_with_the_start_and_stay_within_the_space():
    known = space.model_space(RunConfig(), 25_000, 12)
    tries = space.first_tries(known)
    assert tries[0] == space.defaults(known)
    assert len(tries) >= 4
    for params in tries:
        for name, value in params.items():
            p = known[name]
            inside = value in p.options if isinstance(p, space.Choice) else p.low <= value <= p.high
            assert inside, (name, value)


def test_wishes_narrow_the_space():
    known = space.model_space(RunConfig(), 25_000, 12)
    found = space.narrowed(known, {"max_depth": [2, 4], "n_steps": 8, "noise": "fresh"})
    assert (found["max_depth"].low, found["max_depth"].high) == (2, 4)
    assert (found["n_steps"].low, found["n_steps"].high) == (8, 8)
    assert list(found["noise"].options) == ["fresh"]
    with pytest.raises(ConfigError, match="max_depth"):
        space.narrowed(known, {"max_deep": 3})
    with pytest.raises(ConfigError, match="repeats"):
        space.narrowed(known, {"noise": "loud"})
    with pytest.raises(ConfigError, match=r"\[low, high\]"):
        space.narrowed(known, {"max_depth": "deep"})


@pytest.mark.parametrize(("wish", "told"), [
    ({"learning_rate": [0, 0.5]}, "above 0"),
    ({"reg_lambda": -1}, "above 0"),
    ({"max_depth": [2, 4.5]}, "whole"),
    ({"n_estimators": [0, 10]}, "from 1"),
    ({"n_steps": {"low": 0, "high": 4}}, "from 1"),
    ({"noise": []}, "one or more"),
])  # fmt: skip
def test_limits_that_cannot_be_searched_leave_nothing_behind(tune, tmp_path, wish, told):
    with pytest.raises(ConfigError, match=told):
        tune(table(), tmp_path / "s", base=BASE, n_trials=1, search=wish)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("name", ["reg_lambda", "learning_rate"])
def test_what_is_zero_at_the_start_stays_zero(name):
    """The first trial is the start, which no search by factors holds."""
    base = RunConfig(booster={name: 0.0})
    known = space.model_space(base, 25_000, 12)
    assert name not in known
    assert space.settings(space.defaults(known), known, base, 25_000, 12).booster[name] == 0.0
    with pytest.raises(ConfigError, match="not searched from this start"):
        space.narrowed(known, {name: [0.1, 0.2]})


def test_spaces_survive_json():
    known = space.model_space(RunConfig(), 25_000, 12)
    content = json.loads(json.dumps({name: p.to_json() for name, p in known.items()}))
    assert space.from_json(content) == known


# ---- parts and scores


def test_parts_are_disjoint_and_whole():
    parts = [judge.in_part(10_000, 3, part) for part in judge.SHARES]
    assert (np.sum(parts, axis=0) == 1).all()
    for mask, share in zip(parts, judge.SHARES.values(), strict=True):
        assert abs(mask.mean() - share) < 5 * np.sqrt(share * (1 - share) / 10_000)


def test_an_objective_must_say_how_good_events_are():
    assert judge.check_objectives(["train_s", "separation"]) == ["separation", "train_s"]
    with pytest.raises(ConfigError, match="how good"):
        judge.check_objectives(["train_s"])
    with pytest.raises(ConfigError, match="auc_gb"):
        judge.check_objectives(["auc"])


def test_scores_see_a_shift():
    rng = stream(2, "test-scores")
    real, same, other = (EventTable.of(rng.normal(size=(1500, 2)) + s) for s in (0, 0, 1))
    names = ["auc_gb", "separation", "fpd"]
    near, far = (judge.scores(real, made, names, 1, 1) for made in (same, other))
    assert abs(near["auc_gb"].value - 0.5) < 5 * near["auc_gb"].error
    for name in names:
        assert far[name].value > near[name].value + 5 * far[name].error


def test_a_perfect_conditional_generator_is_not_told_from_weighted_events():
    """Two classes, one with weight 9: x is drawn from the truth at the conditions handed out."""
    rng = stream(3, "test-weighted-conditions")
    cond = (np.arange(1500) % 2)[:, None].astype(float)
    weight = np.where(cond[:, 0] > 0, 9.0, 1.0)
    real = EventTable.of(rng.normal(size=(1500, 1)) + 2.0 * cond, cond=cond, weight=weight)

    class Truth:
        def sample_blocks(self, n, *, seed, cond):
            x = rng.normal(size=(n, 1)) + 2.0 * cond.x
            yield EventTable.of(x, cond=cond.x)

    made = judge.generated(Truth(), real, 1).table
    np.testing.assert_array_equal(made.weight, np.tile(weight, judge.PER_REAL))
    found = judge.scores(real, made, ["auc_gb", "separation"], 1, 1)
    assert abs(found["auc_gb"].value - 0.5) < 5 * found["auc_gb"].error
    sizes = [effective_size(part.weight) for part in (real, made)]
    floor = 25.0 * 49 * sum(1.0 / size for size in sizes)  # of noise alone, in 50 bins
    assert abs(found["separation"].value - floor) < 5 * found["separation"].error
    plain = judge.generated(Truth(), EventTable.of(real.x, cond=cond), 1).table
    assert plain.weight is None


# ---- giving up


@pytest.fixture
def make(tmp_path):
    def make(name="run", **settings) -> RunDirectory:
        fields = {
            f: getattr(BASE, f)
            for f in ModelConfig.__dataclass_fields__
            if f not in ("executor", "random_state")
        }
        config = ModelConfig(**{**fields, "random_state": 1, **settings})
        directory = RunDirectory(tmp_path / name)
        make_plan(Inputs(table(), config, 1), directory)
        return directory

    return make


def test_loss_without_trees_is_that_of_the_closed_form(make):
    """A tree that learns nothing adds the mean of what is left, which is next to nothing."""
    directory = make(booster={"n_estimators": 1, "learning_rate": 1e-9, "early_stopping_rounds": 0})
    loss = HeldOutLoss(directory, table(500), None, 1)
    run_task(directory.path, 1)
    assert loss(1) == pytest.approx(1.0, abs=2e-3)


def test_a_closed_form_that_misses_the_clumps_has_the_larger_loss(make):
    good, plain = make("good", preconditioner="mixture"), make("plain", preconditioner="none")
    closed_form = good.read("preconditioner.npz")
    losses = []
    for directory in (good, plain):
        run_task(directory.path, 2)
        losses.append(HeldOutLoss(directory, table(500), closed_form, 1)(2))
    assert losses[1] > losses[0] + 0.02


def test_steps_that_tell_most_come_first():
    assert sorted(order(8)) == list(range(8))
    assert order(8)[:3] == [4, 6, 7]
    assert order(1) == [0]


def test_a_trial_that_is_plainly_worse_dies_after_a_few_steps(make):
    directory = make(n_steps=8)
    limits = Limits(((0.0, 0.9), (1.0, 0.9)), 0.02, None)
    raced = race(directory, table(300), None, limits, seed=1, n_threads=1)
    assert "held-out loss" in raced.stopped
    assert len(raced.losses) == 2
    kind = Limits(((0.0, 0.9), (1.0, 0.9)), 0.5, None)
    raced = race(directory, table(300), None, kind, seed=1, n_threads=1)
    assert raced.stopped is None
    assert len(raced.losses) == 8


def test_a_trial_that_costs_too_much_dies(make):
    raced = race(make(), table(300), None, Limits((), 0.02, 1e-6), seed=1, n_threads=1)
    assert re.search(r"more than 1e-06", raced.stopped)


# ---- the choice


def report(value, cost, error=0.01):
    score = {"auc_gb": {"value": value, "error": error}}
    return {"scores": score, "costs": {"train_s": cost}, "values": [value, cost]}


def test_the_front_is_what_no_other_beats():
    assert choose.front({0: [1, 5], 1: [2, 2], 2: [3, 3], 3: [5, 1], 4: [1, 6]}) == [0, 1, 3]


def test_the_cheapest_of_those_as_good_as_the_best_wins():
    reports = {0: report(0.53, 50), 1: report(0.532, 20), 2: report(0.60, 1), 3: report(0.528, 70)}
    names = ["auc_gb", "train_s"]
    assert choose.finalists(reports, names) == [0, 1, 3]  # 2 is far worse
    finals = {i: reports[i] for i in (0, 1, 3)}
    assert choose.winner(finals, reports, names) == 1
    finals[1] = report(0.58, 20)  # the events nobody looked at say otherwise
    assert choose.winner(finals, reports, names) == 0


def test_nobody_wins_who_pleases_one_judge_only():
    reports = {0: report(0.53, 50), 1: report(0.53, 20)}
    names = ["auc_gb", "train_s"]
    finals = {0: {**reports[0], "second": {"value": 0.52, "error": 0.01}}}
    finals[1] = {**reports[1], "second": {"value": 0.57, "error": 0.01}}
    assert choose.winner(finals, reports, names) == 0
    finals[1]["second"]["value"] = 0.525
    assert choose.winner(finals, reports, names) == 1


def test_two_scores_of_equal_errors_average():
    value, error = choose.together({"value": 1.0, "error": 0.2}, {"value": 2.0, "error": 0.2})
    assert value == pytest.approx(1.5)
    assert error == pytest.approx(0.2 / np.sqrt(2))


# ---- whole studies


def test_a_study_leaves_a_run_a_table_of_trials_and_the_evidence(tune, tmp_path):
    told = []
    done = tune(table(), tmp_path / "s", base=BASE, n_trials=4, on_trial=told.append)
    assert [r["trial"] for r in told] == [0, 1, 2, 3]
    new = FlowBDT.load(done.run.path).sample(50, random_state=1)
    assert np.isfinite(np.asarray(new.x)).all()
    assert len(done.trials) == 4
    assert set(done.front) <= {0, 1, 2, 3}
    rows = list(csv.DictReader((done.run.path / "tuning/trials.csv").read_text().splitlines()))
    assert [row["number"] for row in rows] == list("0123")
    assert float(rows[0]["train_s"]) > 0
    plan = done.run.read_json("plan.json")
    assert plan["n_train"] + plan["n_valid"] == 600  # the winner has learned from all events
    kept = json.loads((done.run.path / "tuning/outcome.json").read_text())
    assert kept["winner"] == done.winner


def test_a_killed_study_goes_on_as_if_nothing_had_happened(tune, tmp_path, monkeypatch):
    """Killed in the middle of a step of the second trial, and between two trials."""
    from flowbdt.tuning import race as racing

    settings = {"base": BASE, "n_trials": 4, "objectives": ["auc_gb"]}
    whole = tune(table(), tmp_path / "whole", **settings)
    calls = []

    def killed(*arguments):
        calls.append(arguments)
        if len(calls) in (6, 13):
            raise KeyboardInterrupt
        return run_task(*arguments)

    monkeypatch.setattr(racing, "run_task", killed)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            tune(table(), tmp_path / "cut", resume=True, **settings)
    cut = tune(None, tmp_path / "cut", n_trials=4)
    for one, other in zip(whole.trials, cut.trials, strict=True):
        assert one["params"] == other["params"]
        assert one["scores"] == other["scores"]
    assert cut.winner == whole.winner
    assert len(calls) == sum(len(row["losses"]) for row in cut.trials) + 2  # nothing done twice


def test_a_lost_database_is_built_anew_from_the_trials(tune, tmp_path):
    before = tune(table(), tmp_path / "s", base=BASE, n_trials=2)
    (tmp_path / "s/optuna.db").unlink()
    after = tune(None, tmp_path / "s", n_trials=3)
    assert [row["params"] for row in after.trials[:2]] == [row["params"] for row in before.trials]
    assert len(after.trials) == 3


def test_trials_run_in_other_processes(tune, tmp_path):
    settings = {"base": BASE, "n_trials": 3, "objectives": ["auc_gb"], "parallel": 2}
    serial = tune(table(), tmp_path / "a", **settings)
    executor = {"name": "joblib", "n_jobs": 2}
    parallel = tune(table(), tmp_path / "b", executor=executor, **settings)
    assert [r["scores"] for r in serial.trials] == [r["scores"] for r in parallel.trials]


def test_trials_that_failed_are_told_of_and_the_rest_goes_on(tune, tmp_path, monkeypatch):
    from flowbdt.tuning import trial

    def fails(*arguments, **options):
        if fails.count in (1,):
            fails.count += 1
            raise ValueError("no luck")
        fails.count += 1
        return race(*arguments, **options)

    fails.count = 0
    monkeypatch.setattr(trial, "race", fails)
    done = tune(table(), tmp_path / "s", base=BASE, n_trials=3)
    assert [row["state"] for row in done.trials] == ["complete", "failed", "complete"]
    assert "no luck" in done.trials[1]["reason"]


def test_a_start_that_fails_ends_the_study(tune, tmp_path, monkeypatch):
    from flowbdt.tuning import trial

    def fails(*_, **__):
        raise ValueError("no luck")

    monkeypatch.setattr(trial, "race", fails)
    with pytest.raises(IncompleteRun, match="no luck"):
        tune(table(), tmp_path / "s", base=BASE, n_trials=3)


@pytest.mark.parametrize(("budget_s", "waiting", "room"), [
    (None, 0, True), (400, 0, True), (400, 30, False), (50, 0, False),
])  # fmt: skip
def test_a_budget_leaves_room_for_what_comes_after(monkeypatch, budget_s, waiting, room):
    """Three trials of 10 s were done, the start took 20 s: judging the last few takes longer."""
    from flowbdt.tuning import search

    reports = {0: {"cpu_seconds": 20.0}, 1: {"cpu_seconds": 5.0}, 2: {"cpu_seconds": 5.0}}
    monkeypatch.setattr(search, "finished", lambda study: reports)

    class Three:
        def count(self):
            return 3

    searching = search.Search.__new__(search.Search)
    searching.study, searching.proposals = None, Three()
    assert searching._room(100, budget_s, waiting) is room
    assert not searching._room(3, budget_s, waiting)


def test_conditions_and_weights_come_through(tune, tmp_path):
    plain = table()
    weighted = EventTable.of(plain.x, cond=plain.x[:, :1] > 1, weight=np.linspace(0.5, 1.5, 600))
    done = tune(weighted, tmp_path / "s", base=BASE, n_trials=2)
    assert done.run.read_json("plan.json")["fingerprint"]["columns"]["conditions"] == ["c0"]


def test_files_that_are_read_again_say_their_format(tune, tmp_path):
    """Those of a later release are refused, not misread."""
    study = RunDirectory(tmp_path / "s")
    tune(table(), study.path, base=BASE, n_trials=1, objectives=["separation"])
    for name in ("finals/0000.json", "best.json", "references/index.json"):
        content = study.read_json(name)
        assert content["format"] == FORMAT
        study.write_json(name, {**content, "format": FORMAT + 1})
        with pytest.raises(FormatError, match=name):
            tune(None, study.path, n_trials=2 if "references" in name else 1)
        study.write_json(name, content)


def test_another_study_is_refused(tune, tmp_path):
    tune(table(), tmp_path / "s", base=BASE, n_trials=1)
    with pytest.raises(RunError, match="--resume"):
        tune(table(), tmp_path / "s", base=BASE, n_trials=1)
    with pytest.raises(RunError, match="another table"):
        tune(table(500), tmp_path / "s", base=BASE, n_trials=1, resume=True)
    with pytest.raises(ConfigError, match="holds no study"):
        tune(None, tmp_path / "empty")
    with pytest.raises(ConfigError, match="200 events"):
        tune(table(20), tmp_path / "t", base=BASE)


def test_commands_tune_and_trial(tune, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_table("t.h5", table())
    quick = ["preset=fast", "n_steps=3", "preconditioner=gaussian", "booster.n_estimators=4"]
    words = [w for text in (*quick, "random_state=1") for w in ("--set", text)]
    limits = "{max_depth: [2, 3], closed_form: gaussian, n_estimators: [2, 6]}"
    assert run("tune", "t.h5", "-o", "s", "--trials", 2, "--search", limits, *words) == 0
    said = capsys.readouterr().out
    assert "not beaten in auc_gb and train_s" in said
    assert "complete: s/best" in said
    assert run("trial", "s", 1) == 0
    assert "done already" in capsys.readouterr().out
    assert run("trial", "s", 7) == 1
    assert run("tune", "-o", "s", "--resume", "--trials", 3, "-q") == 0
    assert run("tune", "t.h5", "-o", "u", "--from", "s/best", "--trials", 1) == 0
    assert run("tune", "-o", "v") == 1
    assert run("generate", "s/best", "-n", 20, "-o", "new.h5") == 0
