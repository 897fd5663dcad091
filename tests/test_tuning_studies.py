"""Whole searches of settings: what they leave, resuming, failures, budgets, commands."""

from __future__ import annotations

import csv
import json
import platform
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from conftest import run
from tuning_cases import BASE, table, tune

from flowbdt import FlowBDT
from flowbdt.errors import ConfigError, FormatError, IncompleteRun, RunError
from flowbdt.seeding import stream
from flowbdt.tables.event_table import EventTable
from flowbdt.tables.formats import write_table
from flowbdt.training.run_directory import FORMAT, RunDirectory
from flowbdt.training.train_step import run_task
from flowbdt.tuning import search_space
from flowbdt.tuning.proposals import PastTrial, propose
from flowbdt.tuning.stop_early import race


def test_a_study_leaves_a_run_a_table_of_trials_and_the_evidence(tmp_path):
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
    plan = done.run.plan()
    assert plan["n_train"] + plan["n_valid"] == 600  # the winner has learned from all events
    kept = json.loads((done.run.path / "tuning/outcome.json").read_text())
    assert kept["winner"] == done.winner


def test_a_killed_study_goes_on_as_if_nothing_had_happened(tmp_path, monkeypatch):
    """Killed in the middle of a step of the second trial, and between two trials."""
    from flowbdt.tuning import stop_early as racing

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
    cut = tune(None, tmp_path / "cut")  # to as many trials as were asked for before
    for one, other in zip(whole.trials, cut.trials, strict=True):
        assert one["params"] == other["params"]
        assert one["scores"] == other["scores"]
    assert cut.winner == whole.winner
    assert len(calls) == sum(len(row["losses"]) for row in cut.trials) + 2  # nothing done twice
    assert not list((tmp_path / "cut").rglob("*.db"))  # task files and reports are the record


def test_proposals_follow_from_the_trials_that_ended():
    """The first ones are fixed; after a reload, and whatever failed before, they are the same."""
    pytest.importorskip("optuna", reason="tuning needs the extra 'tune'")
    space = search_space.model_space(BASE, 3000, 4)
    first = search_space.first_tries(space)
    options = {"seed": 3, "first": first, "n_objectives": 2}
    past, rng = [], stream(1, "test-proposals")
    for number in range(16):
        params = propose(space, past, number, **options)
        assert number >= len(first) or params == first[number]
        values = None if number % 5 == 4 else rng.random(2).tolist()
        past.append(PastTrial(params, values))
    reloaded = [PastTrial(*json.loads(json.dumps(one))) for one in past]
    again = propose(space, reloaded, 16, **options)
    assert again == propose(space, past, 16, **options)
    assert again != propose(space, past, 17, **options)
    assert again != propose(space, past, 16, **{**options, "seed": 4})
    assert set(again) == set(space)


def test_damaged_files_of_a_study_are_named(tmp_path):
    study = tmp_path / "s"
    tune(table(), study, base=BASE, n_trials=1, objectives=["separation"])
    for name, size in (("table/x.npy", 3000), ("table/x.npy", 5), ("study.json", 200)):
        content = (study / name).read_bytes()
        (study / name).write_bytes(content[:size])
        with pytest.raises(FormatError, match=f"{name} is (damaged|not readable)"):
            tune(None, study, n_trials=2)
        (study / name).write_bytes(content)
    for name, entry, value, told in (
        ("study.json", "n_fit", "many", "entry n_fit"),
        ("study.json", "space", {"max_depth": {"low": "deep"}}, "space of max_depth: entry low"),
        ("trials/0000.json", "params", [], "entry params"),
        ("trials/0000.json", "params", {"max_depth": 2}, "not what its digest says"),
    ):
        content = RunDirectory(study).read_json(name)
        RunDirectory(study).write_json(name, {**content, entry: value})
        with pytest.raises(FormatError, match=told):
            tune(None, study, n_trials=2)
        RunDirectory(study).write_json(name, content)
    (study / "table/x.npy").unlink()
    with pytest.raises(FormatError, match="x.npy is missing"):
        tune(None, study, n_trials=2)


def test_a_table_of_categories_alone_can_be_searched(tmp_path):
    rng = stream(1, "test-tuning")
    first = rng.choice(["a", "b", "c"], 400)
    frame = pd.DataFrame({"first": first, "same": np.where(rng.random(400) < 0.8, first, "a")})
    done = tune(EventTable.of(frame), tmp_path / "s", base=BASE, n_trials=2, objectives=["auc_gb"])
    assert [row["state"] for row in done.trials] == ["complete", "complete"]


def test_trials_that_failed_are_told_of_and_the_rest_goes_on(tmp_path, monkeypatch):
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


def test_a_start_that_fails_ends_the_study_and_is_tried_again(tmp_path, monkeypatch):
    from flowbdt.tuning import trial

    def fails(*_, **__):
        raise ValueError("no luck")

    with monkeypatch.context() as unlucky:
        unlucky.setattr(trial, "race", fails)
        with pytest.raises(IncompleteRun, match="no luck"):
            tune(table(), tmp_path / "s", base=BASE, n_trials=1, objectives=["separation"])
    again = tune(None, tmp_path / "s")
    assert [row["state"] for row in again.trials] == ["complete"]


@pytest.mark.parametrize(("budget_s", "waiting", "folds", "room"), [
    (None, 0, None, True), (400, 0, None, True), (400, 30, None, False), (50, 0, None, False),
    (75, 0, None, False), (75, 0, 4, True), (75, 1, 4, False),
])  # fmt: skip
def test_a_budget_leaves_room_for_what_comes_after(monkeypatch, budget_s, waiting, folds, room):
    """Three trials of 10 s were done, the start took 20 s: judging the last few takes longer.

    With four folds the start's 20 s are those of four models, and what comes after makes one.
    """
    from flowbdt.tuning import tune_settings

    reports = {0: {"cpu_seconds": 20.0}, 1: {"cpu_seconds": 5.0}, 2: {"cpu_seconds": 5.0}}
    monkeypatch.setattr(tune_settings, "finished", lambda study: reports)
    monkeypatch.setattr(tune_settings, "numbers", lambda study: [0, 1, 2])
    searching = tune_settings.SettingsSearch.__new__(tune_settings.SettingsSearch)
    searching.study, searching.setup = None, {"folds": folds}
    assert searching._room(100, budget_s, waiting) is room
    assert not searching._room(3, budget_s, waiting)


@pytest.mark.parametrize(("done", "todo", "batches"), [
    (0, [], [[0], [1, 2, 3], [4, 5, 6], [7]]),
    (4, [2, 3], [[2, 3], [4, 5, 6], [7]]),  # killed while the batch was done
    (3, [1, 2], [[1, 2, 3], [4, 5, 6], [7]]),  # killed while it was proposed
    (1, [0], [[0], [1, 2, 3], [4, 5, 6], [7]]),
])  # fmt: skip
def test_batches_end_where_they_would_have_without_an_interruption(
    monkeypatch, done, todo, batches
):
    """Else trials would be proposed before those of the batch before are known."""
    from flowbdt.tuning import tune_settings

    planned, ran = list(range(done)), []

    def propose():
        planned.append(len(planned))
        return planned[-1]

    monkeypatch.setattr(tune_settings, "numbers", lambda study: planned)
    searching = tune_settings.SettingsSearch.__new__(tune_settings.SettingsSearch)
    searching.study = None
    searching._begun, searching._propose, searching._do = lambda: list(todo), propose, ran.append
    searching.go_on(8, None, 3)
    assert ran == batches


def test_conditions_and_weights_come_through(tmp_path):
    plain = table()
    weighted = EventTable.of(plain.x, cond=plain.x[:, :1] > 1, weight=np.linspace(0.5, 1.5, 600))
    done = tune(weighted, tmp_path / "s", base=BASE, n_trials=2)
    assert done.run.plan()["fingerprint"]["columns"]["conditions"] == ["c0"]
    again = {"base": BASE, "n_trials": 2, "resume": True}
    assert tune(weighted, tmp_path / "s", **again).winner == done.winner
    for other in (
        replace(weighted, weight=weighted.weight[::-1]),
        replace(weighted, weight=None),
        replace(weighted, cond=1.0 - weighted.cond),
        replace(weighted, names=("b", "a")),
    ):
        with pytest.raises(RunError, match="another table"):
            tune(other, tmp_path / "s", **again)


def test_columns_that_classifiers_draw_come_through(tmp_path):
    plain = table(300)
    kind = np.where(plain.x[:, 0] > np.median(plain.x[:, 0]), "b", "a")
    first = plain.names[0]
    mixed = EventTable.of({**plain.by_name(), "kind": kind})
    base = replace(BASE, require=[f"kind == 'a' or {first} > {plain.x[:, 0].min() - 1}"])
    done = tune(mixed, tmp_path / "s", base=base, n_trials=1, objectives=["separation"])
    new = FlowBDT.load(done.run.path).sample(100, random_state=1)
    assert new.categories["kind"] == ("a", "b")
    assert set(new.column("kind")) <= {0.0, 1.0}


def test_files_that_are_read_again_say_their_format(tmp_path):
    """Those of a later release are refused, not misread."""
    study = RunDirectory(tmp_path / "s")
    tune(table(), study.path, base=BASE, n_trials=1, objectives=["separation"])
    for name in ("finals/0000-guard.json", "best.json", "until.json", "study.json"):
        content = study.read_json(name)
        assert content["format"] == FORMAT
        study.write_json(name, {**content, "format": FORMAT + 1})
        with pytest.raises(FormatError, match=name):
            tune(None, study.path, n_trials=None if name == "until.json" else 1)
        study.write_json(name, content)


def test_another_study_is_refused(tmp_path):
    tune(table(), tmp_path / "s", base=BASE, n_trials=1)
    with pytest.raises(RunError, match="--resume"):
        tune(table(), tmp_path / "s", base=BASE, n_trials=1)
    with pytest.raises(RunError, match="another table"):
        tune(table(500), tmp_path / "s", base=BASE, n_trials=1, resume=True)
    with pytest.raises(ConfigError, match="holds no study"):
        tune(None, tmp_path / "empty")
    with pytest.raises(ConfigError, match="200 events"):
        tune(table(20), tmp_path / "t", base=BASE)


def test_a_study_goes_on_as_it_was_begun_and_never_as_another(tmp_path):
    begun = {
        "base": BASE,
        "objectives": ["separation"],
        "search": {"max_depth": [2, 3]},
        "max_cost": 3.0,
    }
    tune(table(), tmp_path / "s", n_trials=1, **begun)
    others = {
        "settings": {"base": replace(BASE, n_steps=4)},
        "objectives": {"objectives": ["auc_gb"]},
        "limits of the search": {"search": {"max_depth": 2}},
        "max_cost": {"max_cost": 2.0},
        "folds": {"folds": 3},
    }
    for told, other in others.items():
        with pytest.raises(RunError, match=f"other {told};"):
            tune(None, tmp_path / "s", n_trials=1, **other)
    again = {**begun, "base": replace(BASE, random_state=None, executor="joblib")}
    assert len(tune(None, tmp_path / "s", n_trials=1, **again).trials) == 1


def test_commands_tune_and_trial(tmp_path, monkeypatch, capsys):
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
    assert run("tune", "-o", "s", "--resume", "--trials", 3, "--folds", 2) == 1
    assert "other folds" in capsys.readouterr().err
    assert run("tune", "t.h5", "-o", "w", "--folds", 1) == 1
    assert "whole number of at least 2" in capsys.readouterr().err
    assert run("tune", "t.h5", "-o", "u", "--from", "s/best", "--trials", 1) == 0
    assert run("tune", "-o", "v") == 1
    assert run("tune", "t.h5", "-o", "v", "--search", "[2, 5]") == 1
    assert "must be a mapping" in capsys.readouterr().err
    assert run("generate", "s/best", "-n", 20, "-o", "new.h5") == 0


def test_command_resumes_a_table_with_the_columns_and_the_executor_of_the_study(
    tmp_path, monkeypatch
):
    from flowbdt.tuning import finish_study

    opinion = {"name": finish_study.SECOND, "value": 0.5, "error": 0.1}
    monkeypatch.setattr(finish_study, "_second_opinion", lambda *_: opinion)
    monkeypatch.chdir(tmp_path)
    write_table("t.csv", table())
    words = ["preset=fast", "n_steps=2", "preconditioner=gaussian", "columns=[b]"]
    words = [w for text in words for w in ("--set", text)]
    one = ["--trials", 1, "--objectives", "separation", "-q"]
    executor = ["--executor", "joblib", "--set", "executor.n_jobs=1"]
    assert run("tune", "t.csv", "-o", "s", *one, *words, *executor) == 0
    kept = RunDirectory("s").read_json("study.json")["base"]["executor"]
    assert kept == {"name": "joblib", "n_jobs": 1}
    assert run("tune", "t.csv", "-o", "s", "--resume", *one) == 0
    assert run("tune", "-o", "s", "--resume", *one, "--set", "executor.n_jobs=2") == 0
    assert run("tune", "-o", "s", "--resume", *one, "--set", "n_steps=3") == 1
    assert run("tune", "t.csv", "-o", "u", "--executor", "joblib", *one) == 0
    assert RunDirectory("u").read_json("study.json")["base"]["executor"] == "joblib"


def test_two_processes_do_not_tune_in_one_folder(tmp_path):
    from flowbdt import atomic_files

    with (
        atomic_files.locked(tmp_path / "s"),
        pytest.raises(RunError, match="another process is writing"),
    ):
        tune(table(), tmp_path / "s", base=BASE, n_trials=1)
    assert not (tmp_path / "s").exists()


def test_what_a_killed_process_left_is_cleared(tmp_path):
    (tmp_path / "s").mkdir()
    left = tmp_path / f"s/.part-{platform.node().replace('-', '_')}-999999999-abc-x.json"
    left.touch()
    with pytest.raises(ConfigError, match="folds"):
        tune(table(), tmp_path / "s", base=BASE, n_trials=1, folds=1)
    assert not left.exists()
