"""`evaluate`: floors of the same size, aligned columns, repeatable numbers."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.stats import norm

from flowbdt.errors import ConfigError, InputError
from flowbdt.evaluation import score_events
from flowbdt.evaluation.differences import differences
from flowbdt.evaluation.evaluate import Evaluation, evaluate
from flowbdt.evaluation.metrics import METRICS, Metric, Result
from flowbdt.evaluation.metrics.classifier import partners_of
from flowbdt.evaluation.report.score_tables import profile_table, what_is_lost
from flowbdt.tables.event_table import EventTable
from flowbdt.trees import boosted_trees

FAST = ["separation", "wasserstein", "correlation_max", "correlation_distance"]
NAMES = ["a", "b", "c"]


def table(seed: int, n: int = 300, shift: float = 0.0) -> EventTable:
    x = np.random.default_rng(seed).normal(size=(n, 3))
    x[:, 0] += shift
    x[:, 2] = x[:, 0] * x[:, 1]
    return EventTable.of(x, NAMES)


def test_floor_compares_real_with_training() -> None:
    real, training = table(1), table(2)
    result = evaluate(real, table(3), training=training, metrics=FAST)
    direct = METRICS.get("separation")(real.column("a"), training.column("a"), seed=0)
    assert result.get("separation", "a").floor == direct.value
    assert result.get("separation", "a").floor_error == direct.error


def test_floor_and_value_agree_when_generated_is_the_training_table() -> None:
    training = table(2)
    for result in evaluate(table(1), training, training=training, metrics=FAST).results:
        assert result.value == pytest.approx(result.floor, abs=1e-12)


def test_everything_is_compared_at_one_size() -> None:
    result = evaluate(table(1, 300), table(3, 200), training=table(2, 250), metrics=FAST)
    assert {r.n for r in result.results} == {200}
    assert result.sizes == {"real": 300, "generated": 200, "training": 250, "compared": 200}
    assert "cut at random" in result.notes[0]


def test_without_training_real_is_cut_into_halves() -> None:
    result = evaluate(table(1, 300), table(3, 300), metrics=FAST)
    assert result.sizes["compared"] == 150
    assert "one half of real on the other" in result.floor
    assert "halves" in result.notes[0]
    assert (result.get("correlation_max").floor or 0.0) > 0


def test_memorisation_needs_training_events() -> None:
    with pytest.raises(ConfigError, match="needs the training events"):
        evaluate(table(1), table(2), metrics=["memorisation"])


def test_memorised_events_stand_out_of_their_floor() -> None:
    training = table(2)
    found = evaluate(table(1), training, training=training, metrics=["memorisation"])
    result = found.get("memorisation")
    assert result.value == 1.0
    assert result.floor is not None
    assert result.floor_error is not None
    assert abs(result.floor - 0.5) < 5 * result.floor_error
    assert result.n == 150


def test_default_runs_every_metric_that_applies() -> None:
    result = evaluate(
        table(1, 120), table(3, 120), training=table(2, 120), relations=["c = a * b"], quick=True
    )
    others = {
        "pairs",
        "profiles",
        "tags",
    }  # of columns of few values, and conditions: there are none
    assert {r.name for r in result.results} == set(METRICS.names()) - others
    assert all(r.floor is not None and np.isfinite(r.error) for r in result.results)
    assert len(result.get("auc_mlp").settings["aucs"]) == 3
    assert set(result.cpu_seconds or {}) == set(METRICS.names())


def test_both_judges_see_a_large_shift() -> None:
    wanted = {name: {"n_model_seeds": 1, "n_split_seeds": 1} for name in ("auc_gb", "auc_mlp")}
    result = evaluate(table(1), table(3, shift=6.0), training=table(2), metrics=wanted)
    for name in wanted:
        score = result.get(name)
        assert score.value > 0.95
        assert score.floor is not None
        assert score.floor < 0.7


def test_generated_columns_may_come_in_another_order() -> None:
    generated = table(3)
    turned = generated.select(["c", "a", "b"])
    one = evaluate(table(1), generated, training=table(2), metrics=FAST)
    two = evaluate(table(1), turned, training=table(2), metrics=FAST)
    assert one.to_json() == two.to_json()


def test_missing_column_is_named() -> None:
    with pytest.raises(InputError, match="missing: c"):
        evaluate(table(1), table(2).select(["a", "b"]), metrics=FAST)


def test_plain_arrays_and_frames_are_accepted() -> None:
    real, generated = table(1), table(2)
    arrays = evaluate(real.x, generated.x, metrics=["separation"])
    assert [r.column for r in arrays.results] == [None, "x0", "x1", "x2"]
    frames = evaluate(real.to_frame(), generated.to_frame(), metrics=["separation"])
    assert frames.get("separation").value == arrays.get("separation").value


def test_mean_over_columns_is_their_mean() -> None:
    result = evaluate(table(1), table(2), metrics=["separation"])
    columns = [result.get("separation", name) for name in NAMES]
    assert result.get("separation").value == pytest.approx(np.mean([r.value for r in columns]))
    error = np.sqrt(sum(r.error**2 for r in columns)) / 3
    assert result.get("separation").error == pytest.approx(error)


def test_weights_are_used_in_every_comparison() -> None:
    """Generated events of another shape, with weights that keep only the good half."""
    good, bad = table(3, 150), table(4, 150, shift=9.0)
    mixed = EventTable.concatenate([good, bad])
    weighted = EventTable.of(mixed, weight=np.repeat([1.0, 0.0], 150))
    plain = evaluate(table(1), mixed, training=table(2), metrics=FAST)
    better = evaluate(table(1), weighted, training=table(2), metrics=FAST)
    for name in FAST:
        assert better.get(name).value < 0.7 * plain.get(name).value


def test_shared_conditions_count_as_columns_of_joint_metrics() -> None:
    def with_cond(seed: int, sign: float) -> EventTable:
        events = table(seed)
        return EventTable.of(events, cond=sign * events.x[:, :1])

    wrong = evaluate(
        with_cond(1, 1.0), with_cond(3, -1.0), training=with_cond(2, 1.0), metrics=FAST
    )
    assert wrong.get("correlation_max").value > 1.9
    assert (
        wrong.get("separation").value
        == evaluate(table(1), table(3), training=table(2), metrics=FAST).get("separation").value
    )


def test_two_samples_of_one_truth_at_the_same_conditions_are_not_told_apart() -> None:
    rng = np.random.default_rng(0)
    cond = rng.normal(size=(600, 2))
    given = {"c": cond[:, 0], "d": cond[:, 1]}
    real, generated, wrong = (
        EventTable.of(cond + shift + 0.01 * rng.normal(size=cond.shape), ["x", "y"], cond=given)
        for shift in (0.0, 0.0, 0.02)
    )
    options = {"auc_gb": {"n_model_seeds": 1}}
    near = evaluate(real, generated, training=real, metrics=options).get("auc_gb")
    assert abs(near.value - 0.5) < 3 * near.error  # .36 where partners are on both sides
    far = evaluate(real, wrong, training=real, metrics=options).get("auc_gb")
    assert far.value > 0.6


def test_partners_have_equal_conditions_and_each_real_event_its_share() -> None:
    real = np.array([[1.0], [1.0], [2.0], [np.nan], [3.0]])
    generated = np.array([[1.0], [1.0], [1.0], [np.nan], [4.0]])
    partners = partners_of(real, generated)
    assert partners is not None
    number = partners.tolist()
    assert number[5:8] == [number[0], number[1], number[0]]
    assert number[8] == number[3]
    assert len({*number[:5], number[9]}) == 6
    assert partners_of(real, np.array([[8.0], [9.0]])) is None
    assert partners_of(None, None) is None


def test_broken_relation_is_measured_beside_the_intact_one() -> None:
    generated = EventTable.of(table(3).x * [1.0, 1.0, 1.1], NAMES)
    result = evaluate(
        table(1), generated, training=table(2), relations=["c = a * b"], metrics=["relation"]
    ).get("relation", "c")
    assert result.value == pytest.approx(0.1 / 1.1)
    assert result.floor == 0.0


def test_options_reach_the_metric_and_unknown_ones_are_refused() -> None:
    result = evaluate(table(1), table(2), metrics={"separation": {"n_bins": 7}})
    assert result.get("separation", "a").settings["bins"] == 7
    with pytest.raises(ConfigError, match="Did you mean 'n_bins'"):
        evaluate(table(1), table(2), metrics={"separation": {"nbins": 7}})
    with pytest.raises(ConfigError, match="Did you mean 'separation'"):
        evaluate(table(1), table(2), metrics=["seperation"])


def test_too_few_events_are_refused() -> None:
    with pytest.raises(InputError, match="at least 10 rows"):
        evaluate(table(1, 12), table(2, 300))


def test_equal_input_and_seed_give_equal_json() -> None:
    first, second = (evaluate(table(1), table(2), metrics=FAST).to_json() for _ in range(2))
    assert json.dumps(first) == json.dumps(second)
    assert first["versions"]["flowbdt"]
    assert first["seed"] == 0
    assert first["sizes"]["compared"] == 150


def test_text_is_an_aligned_table_with_floors() -> None:
    result: Evaluation = evaluate(table(1), table(2), training=table(3), metrics=FAST)
    lines = result.text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("metric"))
    rows = [lines[start], *lines[start + 2 : start + 2 + len(result.results)]]
    assert len({len(row) for row in rows}) == 1
    assert all(row.count("±") == 2 for row in rows[1:])
    assert "300 real against 300 generated events" in lines[0]


def test_text_of_wide_tables_shows_the_worst_columns() -> None:
    generated = table(2, shift=1.0)
    result = evaluate(table(1), generated, training=table(3), metrics=["separation"])
    assert result.worst_columns("separation", 1) == ["a"]
    text = result.text(max_columns=1)
    assert "2 rows nearer to their floor are not shown" in text
    assert len(text.splitlines()) == len(result.text().splitlines()) - 1


def test_unknown_result_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="separation/a"):
        evaluate(table(1), table(2), metrics=["separation"]).get("separation", "zz")


def test_texts_are_compared_by_what_they_say() -> None:
    """A sample that lacks a rare text numbers the others differently."""
    import pandas as pd

    rng = np.random.default_rng(0)
    real = pd.DataFrame({"kind": rng.choice(list("abc"), 2000, p=[0.01, 0.5, 0.49])})
    new = pd.DataFrame({"kind": rng.choice(list("bc"), 2000, p=[0.505, 0.495])})
    scores = evaluate(real, new, training=real, metrics=["separation"])
    assert scores.get("separation", "kind").value < 2


def test_a_floor_is_computed_once_for_many_samples(monkeypatch):
    rng = np.random.default_rng(0)
    real, other, training = rng.normal(size=(3, 400, 2))
    options = {"training": training, "metrics": ["correlation_max"], "quick": True}
    monkeypatch.setattr(score_events, "_FLOORS", {})
    first = evaluate(real, other, **options).get("correlation_max")
    floors = dict(score_events._FLOORS)
    again = evaluate(real, training, **options).get("correlation_max")
    assert list(score_events._FLOORS) == list(floors)
    assert (again.floor, again.floor_error) == (first.floor, first.floor_error)
    elsewhere = evaluate(other, real, **options).get("correlation_max")
    assert elsewhere.floor != first.floor


def test_a_rejection_is_named_beside_the_scores():
    rng = np.random.default_rng(0)
    real, other = rng.normal(size=(2, 100, 2))
    options = {"metrics": ["separation"], "quick": True}
    plain = evaluate(real, other, provenance={"acceptance": 1.0}, **options)
    assert not any("rejection" in note for note in plain.notes)
    rejected = evaluate(real, other, provenance={"acceptance": 0.7, "seed": 3}, **options)
    assert any("kept 70%" in note for note in rejected.notes)
    assert rejected.settings["generated"] == {"acceptance": 0.7, "seed": 3}


def test_a_metric_of_a_new_kind_needs_two_registrations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(METRICS, "_entries", dict(METRICS._entries))
    monkeypatch.setattr(score_events.KINDS, "_entries", dict(score_events.KINDS._entries))

    @score_events.KINDS.register("whole number")
    def score_numbers(tables, metric, name, options):
        return [metric(tables.generated.n, **options)]

    def twice(n: int, *, factor: int = 2) -> Result:
        return Result("twice", factor * n, 0.0, n)

    METRICS.register("twice")(Metric(twice, "whole number", 0.0, "twice as many"))
    x = np.random.default_rng(0).normal(size=(40, 2))
    found = evaluate(x, x, training=x, metrics={"twice": {"factor": 3}})
    assert found.get("twice").value == 120
    assert "twice" in evaluate(x, x, training=x, metrics=["twice", "separation"]).text()


# ---- observables

ELECTRONS = {
    f"e{i}": {"pt": f"pt{i}", "eta": f"eta{i}", "phi": f"phi{i}", "mass": 0.000511} for i in (1, 2)
}


def pairs(seed: int, n: int = 1500, smear: float = 0.0) -> EventTable:
    """Two electrons of a narrow mass, whose second momentum is smeared."""
    rng = np.random.default_rng(seed)
    eta = rng.normal(0.0, 1.0, (2, n))
    phi = rng.uniform(-np.pi, np.pi, n)
    turn = rng.normal(np.pi, 0.4, n)
    pt1, mass = rng.uniform(30.0, 60.0, n), rng.normal(91.0, 1.0, n)
    pt2 = mass**2 / (2 * pt1 * (np.cosh(eta[0] - eta[1]) - np.cos(turn)))
    pt2 *= np.exp(smear * rng.normal(size=n))
    columns = [pt1, eta[0], phi, pt2, eta[1], np.angle(np.exp(1j * (phi + turn)))]
    return EventTable.of(
        np.column_stack(columns), [f"{k}{i}" for i in (1, 2) for k in ("pt", "eta", "phi")]
    )


def test_the_mass_of_a_pair_shows_what_raw_columns_hide() -> None:
    real, made, training = pairs(1), pairs(2, smear=0.1), pairs(3)
    judge = {"auc_gb": {"n_split_seeds": 1, "n_model_seeds": 1}}
    raw = evaluate(real, made, training=training, metrics=judge)
    options = {"metrics": {**judge, "separation": {}}, "particles": ELECTRONS}
    seen = evaluate(real, made, training=training, observables=["m = mass(e1, e2)"], **options)
    assert raw.get("auc_gb").value < 0.56
    assert seen.get("auc_gb").value > 0.75
    assert seen.get("auc_gb").floor == pytest.approx(0.5, abs=0.05)
    assert seen.get("separation", "m").excess > 10
    assert seen.worst_columns("separation", 1) == ["m"]
    assert seen.settings["observables"] == ["m = mass(e1, e2)"]
    assert Evaluation.from_json(json.loads(json.dumps(seen.to_json()))).settings == seen.settings
    plain = evaluate(real, made, training=training, **{**options, "metrics": FAST})
    assert {r.column for r in plain.results} >= {"pt1", "mass_e1_e2", "deltaR_e1_e2"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"observables": ["s = a + bb"]}, "unknown column 'bb'. Did you mean 'b'"),
        ({"observables": ["a = b + c"]}, "'a' is a column already"),
        (
            {
                "particles": {"p": {"px": "a", "py": "b", "pz": "d", "mass": 0}},
                "observables": ["m = mass(p)"],
            },
            "unknown column of particle 'p': 'd'",
        ),
    ],
)
def test_what_is_wrong_with_an_observable_shows_before_any_metric(options, message) -> None:
    with pytest.raises(ConfigError, match=message):
        evaluate(table(1), table(2), **options)


def test_an_observable_that_generated_events_have_no_value_of_is_told() -> None:
    real, made = (EventTable.of(np.abs(table(i).x), NAMES) for i in (1, 2))
    made.x[:6, 0] = -1.0
    with pytest.raises(InputError, match=r"in 6 rows \(2.00%\) of the generated events"):
        evaluate(real, made, observables=["l = log(a)"], metrics=FAST)


def test_observables_use_conditions() -> None:
    events = [EventTable.of(table(i).x, NAMES, cond=table(i + 9).x[:, :1]) for i in (1, 2, 3)]
    result = evaluate(events[0], events[1], observables=["d = a - c0"], metrics=FAST)
    assert result.get("separation", "d").value > 0


def test_scores_with_other_observables_are_not_compared() -> None:
    plain = evaluate(table(1), table(2), metrics=FAST)
    derived = evaluate(table(1), table(2), metrics=FAST, observables=["s = a + b"])
    with pytest.raises(ConfigError, match="judged with the observables none, second with"):
        differences({"first": plain, "second": derived})
    assert differences({"first": derived, "second": derived})


# ---- residuals


def product(seed: int, n: int = 2500, smear: float = 0.0) -> EventTable:
    """A column that is the product of two others, smeared; one that has to do with none; a sign."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 4))
    x[:, 3] = x[:, 0] * x[:, 1] + smear * rng.normal(size=n)
    return EventTable.of(np.column_stack([x, x[:, 0] > 0]), ["a", "b", "c", "ab", "sign"])


@pytest.mark.parametrize("smear", [0.0, 0.15])
def test_the_residual_judge_sees_a_relation_that_raw_columns_hide(smear) -> None:
    judges = {name: {"n_split_seeds": 1} for name in ("auc_gb", "auc_residual")}
    made = product(2, smear=smear)
    result = evaluate(product(1), made, training=product(3), metrics={**judges, "lost": {}})
    residual, raw = result.get("auc_residual"), result.get("auc_gb")
    assert residual.floor == pytest.approx(0.5, abs=0.04)
    lost = [r for r in result.results if r.name == "lost"]
    assert [r.column for r in lost] == ["a", "b", "c", "ab", "sign"]
    explained = {r.column: r.settings["real"] for r in lost}
    assert explained["ab"] > 0.85
    assert explained["sign"] > 0.9
    assert explained["c"] < 0.05
    if not smear:  # both at the floor
        assert abs(residual.excess) < 2.5
        assert max(abs(r.excess) for r in lost) < 3.5
    else:
        assert residual.value > raw.value + 0.1
        assert result.get("lost", "b").excess > 3
        assert abs(result.get("lost", "c").excess) < 3
        assert {row[0] for row in what_is_lost(lost).rows[:2]} == {"a", "b"}


def test_texts_are_categories_without_an_order_to_models_of_columns() -> None:
    texts, partner = np.array([f"text {i:02d}" for i in range(12)]), np.arange(12) * 5 % 12

    def rows(seed: int, broken: float) -> EventTable:
        rng = np.random.default_rng(seed)
        a, other = rng.integers(0, 12, (2, 600))
        b = np.where(rng.random(600) < broken, other, partner[a])
        return EventTable.of({"a": texts[a], "b": texts[b]})

    made = evaluate(rows(1, 0.0), rows(2, 0.5), training=rows(3, 0.0), metrics=["lost"])
    known = made.get("lost", "b").settings
    assert known["real"] > 0.6  # of the log loss
    assert known["generated"] < known["real"] / 2


def test_an_exact_relation_broken_by_one_percent_is_found() -> None:
    def rows(seed: int, smear: float = 0.0) -> EventTable:
        a, b, c = np.random.default_rng(seed).lognormal(sigma=0.5, size=(3, 700))
        noise = np.random.default_rng(seed + 50).normal(size=700)
        return EventTable.of({"a": a, "b": b, "c": c, "z": a * b / c * (1 + smear * noise)})

    judges = {name: {"n_split_seeds": 1, "n_model_seeds": 1} for name in ("auc_gb", "auc_residual")}
    result = evaluate(rows(1), rows(2, 0.01), training=rows(3), metrics=judges)
    raw, residual = result.get("auc_gb"), result.get("auc_residual")
    assert residual.value > max(raw.value, 0.5) + 0.05
    assert abs(residual.floor - 0.5) < 2 * residual.floor_error
    exact = evaluate(rows(1), rows(2), training=rows(3), metrics={"auc_residual": {}})
    assert exact.get("auc_residual").excess < 2


def test_tags_are_held_against_their_conditions() -> None:
    rng = np.random.default_rng(0)
    flavour = rng.random((3, 800)) < 0.4
    score = rng.normal(size=(3, 800)) + np.where(flavour, 1.5, 0.0)
    score[1] -= np.where(flavour[1], 1.0, 0.0)
    pt = rng.uniform(20, 100, (3, 800))
    tagged = rng.random((3, 800)) < np.where(np.arange(3)[:, None] == 1, 0.5, pt / 100)

    def rows(i: int) -> EventTable:
        cond = {"flavour": flavour[i].astype(float), "pt": pt[i]}
        return EventTable.of({"score": score[i], "tag": tagged[i].astype(float)}, cond=cond)

    result = evaluate(rows(0), rows(1), training=rows(2), metrics=["tags", "profiles"])
    found = result.get("tags", "score and flavour")
    area = norm.cdf(1.5 / np.sqrt(2)), norm.cdf(0.5 / np.sqrt(2))  # of two normals
    assert found.settings["real"] == pytest.approx(area[0], abs=0.04)
    assert found.settings["generated"] == pytest.approx(area[1], abs=0.05)
    assert found.excess > 5
    assert result.get("tags", "tag and pt").excess > 5
    efficiency = result.get("profiles", "tag in pt").settings
    assert efficiency["real"]["mean"] == pytest.approx([0.3, 0.5, 0.7, 0.9], abs=0.08)
    assert efficiency["generated"]["mean"] == pytest.approx([0.5] * 4, abs=0.12)
    assert profile_table(result.get("profiles", "score in pt")).rows[0][1] == "real"
    assert np.shape(efficiency["real"]["quantiles"]) == (4, 3)


def test_models_of_columns_are_fitted_once_for_both_metrics(monkeypatch) -> None:
    tables = {"training": product(30, 300), "metrics": ["auc_residual", "lost"], "quick": True}
    fits, train = [], boosted_trees.xgb.train
    monkeypatch.setattr(boosted_trees.xgb, "train", lambda *args: fits.append(0) or train(*args))
    first, second = (evaluate(product(10, 300), product(20, 300), **tables) for _ in range(2))
    of_columns, of_judges = 3 * 2 * 5, 2 * 2  # tables, halves, columns; evaluations, floors
    assert len(fits) == of_columns + of_judges
    assert first.to_json() == second.to_json()


def test_joint_counts_show_flags_that_do_not_go_together() -> None:
    rng = np.random.default_rng(0)
    one = rng.random((3, 900, 1)) < 0.5
    other, x = rng.random((3, 900, 1)) < 0.5, rng.normal(size=(3, 900, 1))
    real, training = (np.hstack([x[i], one[i], one[i]]) for i in (0, 1))
    made = np.hstack([x[2], one[2], other[2]])
    result = evaluate(real, made, training=training, metrics=["separation", "pairs"])
    assert result.get("separation", "x2").excess < 3
    pair = result.get("pairs", "x1 & x2")
    # half of the generated events are in bins without real ones: 50 (2 / 4 + 2 (1 / 4)^2 / (3 / 4))
    assert pair.value == pytest.approx(50 * (0.5 + 1 / 6), abs=4)
    assert pair.floor < 1
    assert [r.column for r in result.results if r.name == "pairs"] == ["x1 & x2"]
    assert evaluate(real[:, :1], made[:, :1], metrics=["pairs"]).results == ()


def test_profiles_show_a_response_that_does_not_follow_its_condition() -> None:
    rng = np.random.default_rng(0)
    gen = rng.uniform(20.0, 100.0, (3, 2000))
    reco = gen + rng.normal(0.0, 5.0, (3, 2000))
    reco[1] = gen[1] + 5.0 + rng.normal(0.0, 10.0, 2000)  # one width off, and twice as wide
    real, made, training = (EventTable.of({"pt": reco[i]}, cond={"gen": gen[i]}) for i in range(3))
    result = evaluate(real, made, training=training, metrics=["profiles"])
    (found,) = result.results
    assert found.column == "pt in gen"
    widths = np.array(found.settings["real"]["width"])
    # of a bin of 20 GeV by itself 6.8 GeV, more with a resolution of 5 GeV
    assert ((widths > 7.0) & (widths < 9.5)).all()
    shift = np.array(found.settings["generated"]["mean"]) - found.settings["real"]["mean"]
    assert shift == pytest.approx(np.full(4, 5.0), abs=1.2)
    wider = np.array(found.settings["generated"]["width"]) - widths
    rms = np.sqrt(np.mean(np.concatenate([shift / widths, wider / widths]) ** 2))
    assert found.value == pytest.approx(rms)
    assert found.excess > 10
    assert found.floor < 0.12
