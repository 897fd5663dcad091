"""Which differences are real: errors that hold, pairing, and the command that compares."""

from __future__ import annotations

import json

import numpy as np
import pytest
from conftest import QUICK, run

from flowbdt.config import ModelConfig
from flowbdt.errors import ConfigError, FormatError
from flowbdt.evaluation.differences import (
    Binned,
    Difference,
    difference,
    differences,
    pairs,
    separation_differences,
    text,
    with_paired_separations,
)
from flowbdt.evaluation.entries import Entry, Truth, held_against_each_other, names_of, read_entry
from flowbdt.evaluation.evaluate import Evaluation, evaluate
from flowbdt.evaluation.metrics import Result, classifier_auc, separation_power
from flowbdt.generation.fit_run import fit_run
from flowbdt.seeding import stream
from flowbdt.tables.event_table import EventTable
from flowbdt.tables.formats import write_table
from flowbdt.training.plan import Inputs
from flowbdt.trees.boosted_trees import make_classifier

NAMES = ("A", "B")


def normal(n: int, key: int, shift: float = 0.0, d: int = 1) -> EventTable:
    return EventTable.of(stream(9, "test-significance", key).normal(size=(n, d)) + shift)


def auc(value: float, aucs: list[float], error: float = 0.004, floor: float = 0.5) -> Result:
    settings = {
        **{"n_model_seeds": 1, "n_split_seeds": len(aucs), "test_share": 0.3, "seed": 0},
        "aucs": [[a] for a in aucs],
    }
    return Result("auc_gb", value, error, 1000, floor, 0.004, settings=settings)


# ---- errors


@pytest.mark.parametrize(("shift", "same_noise"), [(0.0, False), (0.2, False), (0.1, True)])
def test_error_of_a_separation_difference_is_the_spread_of_experiments(shift, same_noise):
    values, errors = [], []
    count = 60
    for k in range(count):
        real, first = normal(600, 10 * k), normal(600, 10 * k + 1, shift)
        second = EventTable.of(first.x * 1.05) if same_noise else normal(600, 10 * k + 2, shift)
        value, error = separation_differences(
            Binned.of(real, first, 20), Binned.of(real, second, 20), same_noise=same_noise, seed=k
        )
        values.append(value[-1])
        errors.append(error[-1])
    ratio = np.std(values, ddof=1) / np.mean(errors)
    assert abs(ratio - 1.0) < 5 / np.sqrt(2 * (count - 1))


def test_separation_of_bins_is_the_metric():
    real, made = normal(500, 1, d=2), normal(400, 2, 0.3, d=2)
    expected = [separation_power(real.column(c), made.column(c)).value for c in real.names]
    np.testing.assert_allclose(Binned.of(real, made).separations(), expected, rtol=1e-12)


def test_weights_count_as_repeated_events():
    real, made = normal(300, 1), normal(300, 2)
    weight = stream(1, "test-weights").integers(1, 4, 300)
    repeated = EventTable.of(np.repeat(made.x, weight, axis=0))
    weighted = EventTable.of(made.x, weight=weight.astype(float))
    both = [Binned.of(real, table).separations() for table in (weighted, repeated)]
    np.testing.assert_allclose(*both)


@pytest.mark.parametrize(("value", "sigmas"), [(1.0, None), (0.0, 0.0)])
def test_a_difference_without_error_is_json_that_others_read(value, sigmas):
    content = Difference("fpd", None, *NAMES, value, 0.0, paired=False).to_json()
    assert json.loads(json.dumps(content, allow_nan=False))["sigmas"] == sigmas


def test_independent_scores_add_their_errors_in_quadrature():
    found = difference(Result("fpd", 1.0, 0.3, 10), Result("fpd", 2.0, 0.4, 10), NAMES)
    assert (found.value, found.error, found.paired) == (1.0, pytest.approx(0.5), False)
    assert found.real
    assert found.better == "A"


def test_scores_of_the_same_splits_are_paired_within_bounds():
    steady = difference(auc(0.53, [0.52, 0.53, 0.54]), auc(0.54, [0.53, 0.54, 0.55]), NAMES)
    assert steady.paired
    assert steady.error == pytest.approx(0.004)  # the generated halves of both variances
    wild = difference(auc(0.53, [0.52, 0.53, 0.54]), auc(0.54, [0.60, 0.50, 0.52]), NAMES)
    assert wild.error == pytest.approx(0.004 * np.sqrt(2))  # no worse than independent
    between = [0.52, 0.53, 0.54], [0.534, 0.535, 0.551]
    spread = np.var(np.subtract(*between), ddof=1) * (1 / 3 + 0.3 / 0.7)
    some = difference(auc(0.53, between[0], 0.003), auc(0.54, between[1], 0.003), NAMES)
    assert some.error == pytest.approx(np.clip(np.sqrt(spread), 0.003, 0.003 * np.sqrt(2)))


def test_other_floors_or_seeds_are_not_paired():
    first = auc(0.53, [0.52, 0.54])
    assert not difference(first, auc(0.53, [0.52, 0.54], floor=0.501), NAMES).paired
    other = auc(0.53, [0.52, 0.54])
    other.settings["seed"] = 1
    assert not difference(first, other, NAMES).paired


def test_paired_auc_error_is_the_spread_of_experiments():
    """Two equally good generators beside the same real events, judged again and again."""

    def judge(seed: int):
        return make_classifier(seed, n_trees=8, max_depth=2)

    found, count = [], 25
    for k in range(count):
        tables = [normal(300, 100 + 3 * k + i, d=2).x for i in range(3)]
        one, other = (
            classifier_auc(tables[0], x, judge, n_model_seeds=1, n_split_seeds=3)
            for x in tables[1:]
        )
        floor = Result("auc_gb", 0.5, 0.01, 300)
        found.append(difference(one.with_floor(floor), other.with_floor(floor), NAMES))
    assert all(d.paired for d in found)
    pull = np.std([d.sigmas for d in found], ddof=1)
    assert abs(pull - 1.0) < 5 / np.sqrt(2 * (count - 1))


# ---- several


def small(key: int, shift: float) -> Evaluation:
    wanted = {"separation": {"n_bootstrap": 10}, "wasserstein": {"n_bootstrap": 10}}
    made = normal(400, key, shift, d=2)
    return evaluate(normal(400, 50, d=2), made, training=normal(400, 51, d=2), metrics=wanted)


def test_a_large_shift_is_real_and_equal_samples_are_not():
    entries = {"good": small(60, 0.0), "same": small(60, 0.0), "bad": small(61, 1.0)}
    found = {(d.first, d.second): d for d in differences(entries) if d.column is None}
    assert found["good", "bad"].better == "good"
    assert not found["good", "same"].real
    shown = text(entries, differences(entries))
    assert "good is better" in shown
    assert "not told apart" in shown
    assert "of 6 differences are real" in shown
    assert "x0" in text(entries, differences(entries), columns=True)


def test_pairing_by_the_real_events_makes_errors_smaller():
    entries = {"a": small(60, 0.3), "b": small(61, 0.3)}
    samples = {"a": normal(400, 60, 0.3, d=2), "b": normal(400, 61, 0.3, d=2)}
    plain = differences(entries)
    paired = with_paired_separations(plain, normal(400, 50, d=2), samples, 1)
    for before, after in zip(plain, paired, strict=True):
        assert after.value == before.value
        assert after.paired == (after.metric == "separation")
    mean = [
        next(d for d in ds if (d.metric, d.column) == ("separation", None))
        for ds in (plain, paired)
    ]
    assert mean[1].error < 1.2 * mean[0].error


@pytest.mark.parametrize(("n_real", "n_training"), [(4_000, 400), (800, None)])
def test_errors_are_those_of_the_events_that_were_compared(n_real, n_training):
    """400 each, whatever the files hold: errors of more events would make noise real."""
    training = None if n_training is None else normal(n_training, 61)
    truth = Truth(normal(n_real, 60), training, seed=3)
    made = {name: normal(4_000, key) for name, key in (("a", 62), ("b", 63))}
    entries = []
    for name, events in made.items():
        judged = evaluate(
            truth.real, events, training=training, seed=truth.seed, metrics=["separation"]
        )
        assert judged.sizes["compared"] == 400
        entries.append(Entry(name, judged, events))
    (found,) = held_against_each_other(entries, truth)
    alike = [normal(400, key) for key in range(70, 90)]
    values = [
        separation_power(truth.real.x[:400, 0], one.x[:, 0], n_bootstrap=2).value for one in alike
    ]
    assert found.paired
    assert found.error > 0.5 * np.sqrt(2) * np.std(values, ddof=1)


def test_files_of_other_columns_are_told_apart_by_name(folder, capsys):
    write_table("one.h5", normal(40, 1))
    write_table("two.h5", normal(40, 2, d=2))
    write_table("real.h5", normal(40, 3, d=2))
    assert run("compare", "one.h5", "two.h5", "--real", "real.h5", "--quick") == 1
    assert "one.h5 has the columns x0, but two.h5 has x0, x1" in capsys.readouterr().err


def test_many_entries_are_compared_with_the_first():
    assert pairs(list("abc")) == [("a", "b"), ("a", "c"), ("b", "c")]
    assert pairs(list("abcdef")) == [("a", x) for x in "bcdef"]


def test_nothing_to_compare_is_refused():
    one = small(60, 0.0)
    with pytest.raises(ConfigError, match="two or more"):
        differences({"a": one})
    other = Evaluation((), {"compared": 1}, "", {}, 0, {})
    with pytest.raises(ConfigError, match="share no metric"):
        differences({"a": one, "b": other})


def test_evaluations_survive_json():
    one = small(60, 0.2)
    again = Evaluation.from_json(json.loads(json.dumps(one.to_json())))
    assert again.results == one.results
    with pytest.raises(FormatError, match="not a report"):
        Evaluation.from_json({"format": 1})


def test_names_are_as_short_as_tells_them_apart():
    assert names_of(["x/a", "y/b"]) == ["a", "b"]
    assert names_of(["x/a", "y/a"]) == ["x/a", "y/a"]
    with pytest.raises(ConfigError, match="twice"):
        names_of(["x/a", "x/a"])


def test_a_run_judged_at_weighted_conditions_has_their_weights(tmp_path):
    rng, weight = stream(8, "test-several"), np.linspace(0.5, 1.5, 300)
    real = EventTable.of(rng.normal(size=(300, 2)), ["a", "c"], weight=weight)
    config = ModelConfig(preset="fast", preconditioner="none", n_steps=2, booster=QUICK)
    fit_run(Inputs(real.as_conditions(["c"]), config, 1), tmp_path / "run")
    entry = read_entry("run", tmp_path / "run", Truth(real, real, quick=True))
    np.testing.assert_array_equal(entry.events.weight, weight)


def test_command_compares_reports_samples_and_runs(folder, jets, capsys):
    settings = ["preset=fast", "preconditioner=none", "n_steps=2", "noise.n_repeats=1"]
    settings += [f"booster.{name}={value}" for name, value in QUICK.items()]
    sets = [word for one in settings for word in ("--set", one)]
    assert run("fit", "jets.h5", "-o", "run", *sets, "--set", "random_state=1") == 0
    write_table("near.h5", jets)
    assert run("generate", "run", "-n", 300, "-o", "far.h5") == 0
    judged = ["--real", "jets.h5", "--training", "jets.h5", "--quick"]
    capsys.readouterr()
    assert run("compare", "near.h5", "far.h5", "run", *judged, "-o", "out.json") == 0
    said = capsys.readouterr().out
    assert "near.h5 is better" in said
    content = json.loads((folder / "out.json").read_text())
    assert set(content["entries"]) == {"near.h5", "far.h5", "run"}
    assert run("compare", "near.h5", "far.h5") == 1
    assert "--real" in capsys.readouterr().err
    (folder / "r").mkdir()
    (folder / "r/report.json").write_text(json.dumps(content["entries"]["far.h5"]))
    (folder / "s").mkdir()
    (folder / "s/report.json").write_text(json.dumps(content["entries"]["near.h5"]))
    assert run("compare", "r", "s") == 0
    assert "s is better" in capsys.readouterr().out
