"""Conditions of any size and unit, and conditions far outside of training."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

from flowbdt import EventTable, FlowBDT, evaluate, open_sampler
from flowbdt.errors import ConfigError, DataWarning, FormatError, InputError
from flowbdt.tables.conditions import ColumnScaling, ConditionRanges, stored_scaling

N = 1500
RNG = np.random.default_rng(0)
UNIFORM = RNG.uniform(0.0, 1.0, N)
SECONDS = 1.7e9 + np.floor(101 * UNIFORM)

CONDITIONS = {
    "Unix seconds": SECONDS,
    "Unix seconds, 0 where unknown": np.where(RNG.random(N) < 0.1, 0.0, SECONDS),
    "before the epoch, microseconds": -1.7e15 + np.floor(1000 * UNIFORM),
    "a cross section in cm2": 10 ** (-47 + 2 * UNIFORM),
    "denormal": (1 + UNIFORM) * 1e-310,
    "beyond float32": (1 + UNIFORM) * 1e39,
    "nearly beyond float64": (2 * UNIFORM - 1) * 1.7e308,
    "twelve decades": 10 ** (-6 + 12 * UNIFORM),
}


def small(**settings):
    chosen = {"preset": "fast", "n_steps": 4, "booster": {"n_estimators": 10}, "random_state": 1}
    return FlowBDT(**{**chosen, **settings})


def frame(**columns):
    return pd.DataFrame(columns)


# ---- scaling


@pytest.mark.parametrize("cond", CONDITIONS.values(), ids=CONDITIONS)
def test_scaling_keeps_the_order_of_conditions_in_single_precision(cond):
    scaling = ColumnScaling.fit(cond[:, None])
    scaled = scaling.forward(cond[:, None])
    narrow = scaled.astype(np.float32)[:, 0]
    assert np.isfinite(narrow).all()
    assert len(np.unique(narrow)) > 0.99 * len(np.unique(cond))
    assert (np.diff(narrow[np.argsort(cond)]) >= 0).all()
    np.testing.assert_allclose(scaling.inverse(scaled)[:, 0], cond, rtol=1e-12)


@pytest.mark.parametrize(
    "values",
    [
        RNG.normal(size=N),
        RNG.integers(0, 4, N),
        1e5 * RNG.exponential(size=N),
        RNG.choice([-999.0, 0.1, 0.2], N),
        np.full(N, 3.8),
        np.full(N, np.nan),
        np.zeros(0),
    ],
)
def test_what_single_precision_holds_is_not_changed(values):
    x = np.array(values, dtype=np.float64)[:, None]
    scaling = ColumnScaling.fit(x)
    assert (scaling.centre == 0).all()
    assert (scaling.scale == 1).all()
    np.testing.assert_array_equal(scaling.forward(x), x)


@pytest.mark.parametrize("far", [1e300, -1e300])
def test_one_value_far_away_does_not_make_the_others_equal(far):
    cond = np.append(far, UNIFORM[1:])
    scaled = ColumnScaling.fit(cond[:, None]).forward(cond[:, None]).astype(np.float32)[:, 0]
    assert np.isfinite(scaled).all()
    assert len(np.unique(scaled)) > 0.99 * N
    assert abs(scaled[0]) > abs(scaled[1:]).max()


def test_conditions_beyond_all_numbers_of_the_scaling_stay_finite():
    scaling = ColumnScaling.fit(CONDITIONS["a cross section in cm2"][:, None])
    assert np.isfinite(scaling.forward(np.array([[1.0], [-1e300]])).astype(np.float32)).all()


@pytest.mark.parametrize("name", ["Unix seconds", "a cross section in cm2", "beyond float32"])
@pytest.mark.parametrize("preconditioner", ["none", "mixture"])
def test_conditions_of_any_unit_are_learned(name, preconditioner, tmp_path):
    """The mean of y rises from 0 to 10 with the rank of the condition, however it is sampled."""
    cond = CONDITIONS[name]
    rank = np.argsort(np.argsort(cond)) / N
    y = 10 * rank + np.random.default_rng(1).normal(size=N)
    model = small(preconditioner=preconditioner, rejection=True).fit(frame(y=y), cond=frame(t=cond))
    low, high = np.quantile(cond, [0.25, 0.75])
    means = [model.sample(400, cond=frame(t=[t]), random_state=1).y.mean() for t in (low, high)]
    assert means[0] == pytest.approx(2.5, abs=0.7)
    assert means[1] == pytest.approx(7.5, abs=0.7)
    some = frame(t=cond[:20])
    expected = model.sample(20, cond=some, random_state=3).y
    plain = model.sample(20, cond=some, random_state=3, compiled=False).y
    np.testing.assert_allclose(plain, expected, rtol=1e-5)
    model.save(tmp_path / "m")
    again = FlowBDT.load(tmp_path / "m").sample(20, cond=some, random_state=3).y
    np.testing.assert_array_equal(again, expected)
    sampler = open_sampler(tmp_path / "m", random_state=3)
    np.testing.assert_array_equal([sampler.one([t])[0] for t in some.t], expected)


@pytest.mark.parametrize(
    "change",
    [
        {"centre": [0.0]},
        {"scale": [0.0, 1.0]},
        {"centre": [0.0, "a"]},
        {"low": None},
        {"centre": [0.0, None]},
        {"unseen": [[], []]},
        {"unseen": [[0.0]]},
        {"unseen": [["a"]]},
        {"unseen": [None]},
    ],
    ids=str,
)
def test_damaged_scaling_is_refused(change):
    whole = {"centre": [0.0, 1.0], "scale": [1.0, 2.0], "low": [0.0], "high": [None]}
    columns = {"names": ["y"], "conditions": ["t"], "categories": {}}
    for unseen in ([], [[]], [[None]]):
        stored_scaling({**columns, "scaling": {**whole, "unseen": unseen}})
    with pytest.raises(FormatError, match="scaling"):
        stored_scaling({**columns, "scaling": {**whole, **change}})


# ---- weights


@pytest.mark.parametrize("unit", [1e-46, 1e-310, 1e39, 1e305])
def test_only_ratios_of_weights_matter(unit):
    x = np.random.default_rng(0).normal(size=(400, 1)) + np.repeat([[-5.0], [5.0]], 200, axis=0)
    weight = np.repeat([1.0, 3.0], 200)
    plain, other = (
        small(rejection=True).fit(x, sample_weight=w).sample(2000, random_state=1)
        for w in (weight, unit * weight)
    )
    assert (plain > 0).mean() == pytest.approx(0.75, abs=0.04)
    assert (other > 0).mean() == pytest.approx((plain > 0).mean(), abs=0.01)


@pytest.mark.parametrize("unit", [1e-310, 1e-200, 1e39, 1e300])
def test_only_ratios_of_weights_matter_to_scores(unit):
    rng = np.random.default_rng(0)
    (x, w), (y, v) = ((rng.normal(size=(300, 2)), rng.uniform(0.5, 2.0, 300)) for _ in range(2))
    plain, other = (
        evaluate(
            EventTable.of(x, weight=u * w), EventTable.of(y, weight=u * v), quick=True, seed=1,
            metrics=["separation", "wasserstein", "correlation_distance", "auc_mlp"],
        )
        for u in (1.0, unit)
    )  # fmt: skip
    for a, b in zip(plain.results, other.results, strict=True):
        np.testing.assert_allclose([b.value, b.error], [a.value, a.error], rtol=1e-6)


# ---- outside of training


PT = RNG.uniform(200.0, 300.0, 600)


@pytest.fixture(scope="module")
def by_pt():
    kind = np.where(RNG.random(600) < 0.5, "e", "mu")
    cond = frame(pt=PT, kind=kind)
    return small().fit(frame(reco=PT * RNG.normal(1.0, 0.05, 600)), cond=cond)


def at(pt, n=10):
    return frame(pt=[pt] * n, kind=["e"] * n)


def test_conditions_far_outside_of_training_are_counted(by_pt):
    far = pd.concat([at(5000.0, 3), at(250.0, 7)])
    with pytest.warns(DataWarning) as record:
        by_pt.sample(10, cond=far, random_state=1)
    assert len(record) == 1
    assert "'pt' in 3 of 10 events (trained from 200" in str(record[0].message)
    with pytest.warns(DataWarning, match="'pt' in 40000 of 40000 events") as record:
        by_pt.sample(40_000, cond=at(-1.0, 1), random_state=1)
    assert len(record) == 1


@pytest.mark.parametrize("pt", [195.0, 250.0, 309.0])
def test_conditions_at_the_edge_of_training_are_not_far(by_pt, pt):
    for outside in ("warn", "raise"):
        by_pt.sample(10, cond=at(pt), random_state=1, outside=outside)


def test_conditions_that_are_not_looked_at_give_the_same_events(by_pt):
    with pytest.warns(DataWarning, match="far outside"):
        told = by_pt.sample(10, cond=at(5000.0), random_state=1)
    quiet = by_pt.sample(10, cond=at(5000.0), random_state=1, outside=None)
    np.testing.assert_array_equal(np.asarray(told), np.asarray(quiet))


KINDS = pd.CategoricalDtype(["e", "never", "mu"])


@pytest.fixture(scope="module")
def by_kind():
    """A model whose condition ``gap`` is missing in some rows; no row has the kind 'never'."""
    kind = pd.Series(np.where(RNG.random(600) < 0.5, "e", "mu")).astype(KINDS)
    gap = np.where(RNG.random(600) < 0.2, np.nan, PT)
    cond = frame(pt=PT, kind=kind, gap=gap)
    return small().fit(frame(reco=PT * RNG.normal(1.0, 0.05, 600)), cond=cond)


def of_kind(*kinds, pt=250.0, gap=250.0):
    return frame(pt=pt, kind=pd.Categorical(kinds, KINDS.categories), gap=gap)


UNSEEN = {
    "'kind' = 'never' in 1 of 2 events": of_kind("e", "never"),
    "'kind' missing in 2 of 2 events": of_kind(None, None),
    "'pt' missing in 1 of 2 events": of_kind("e", "mu", pt=[250.0, np.nan]),
}


@pytest.mark.parametrize("outside", ["warn", "clip", "raise"])
@pytest.mark.parametrize("message", UNSEEN)
def test_categories_and_gaps_that_no_training_row_has_are_told(by_kind, tmp_path, message, outside):
    cond = UNSEEN[message]
    cond.to_csv(tmp_path / "c.csv", index=False)
    by_kind.save(tmp_path / "m")
    match = f"outside of training: {message} \\(never in training\\)"
    for model, given in ((by_kind, cond), (FlowBDT.load(tmp_path / "m"), tmp_path / "c.csv")):
        if outside == "raise":
            with pytest.raises(InputError, match=match):
                list(model.sample_blocks(2, cond=given, outside=outside))
        else:
            with pytest.warns(DataWarning, match=match) as record:
                list(model.sample_blocks(2, cond=given, outside=outside, random_state=1))
            assert len(record) == 1


def test_gaps_and_categories_as_in_training_are_not_told(by_kind):
    cond = of_kind("e", "mu", gap=np.nan)
    for outside in ("warn", "raise", "clip"):
        by_kind.sample(cond=cond, random_state=1, outside=outside)


def test_categories_without_an_event_of_any_weight_are_told():
    cond = frame(kind=["e", "mu"] * 100)
    model = small().fit(frame(y=RNG.normal(size=200)), cond=cond, sample_weight=[1.0, 0.0] * 100)
    with pytest.warns(DataWarning, match="'kind' = 'mu' in 1 of 2 events"):
        model.sample(cond=cond[:2], random_state=1)


def test_categories_that_no_training_row_has_are_kept_in_the_type_and_never_made():
    kind = pd.Series(["e", "mu"] * 300).astype(KINDS)
    made = small().fit(frame(kind=kind, pt=PT)).sample(2000, random_state=1)
    assert made.kind.dtype == KINDS
    assert set(made.kind) == {"e", "mu"}


@pytest.mark.parametrize("compiled", [True, False])
def test_a_sampler_knows_gaps_and_categories_of_training(by_kind, tmp_path, compiled):
    by_kind.save(tmp_path / "m")
    values = (
        [250.0, 0.0, np.nan],
        [250.0, 1.0, 250.0],
        [np.nan, 2.0, 250.0],
        [250.0, np.nan, 250.0],
    )
    told = ("", "'kind' = 'never' in 1", "'pt' missing in 1", "'kind' missing in 1")
    for cond, message in zip(values, told, strict=True):
        sampler = open_sampler(tmp_path / "m") if compiled else by_kind.sampler()
        with warnings.catch_warnings(record=True) as record:
            warnings.simplefilter("always", DataWarning)
            sampler.one(cond)
        assert [message in str(one.message) for one in record] == [True] * bool(message)
        for code in (3.0, -1.0, 0.5):
            with pytest.raises(InputError, match="'kind' must be the code of a category, 0 to 2"):
                sampler.one([250.0, code, 250.0])


def test_options_are_checked_in_models_without_conditions():
    model = small().fit(frame(y=PT))
    with pytest.raises(ConfigError, match="Known: clip, raise, warn"):
        model.sample(outside="ignore")
    for outside in ("warn", "clip", "raise", None):
        model.sample(outside=outside, random_state=1)


def test_conditions_outside_can_be_refused_or_moved(by_pt, tmp_path):
    with pytest.raises(InputError, match="'pt' in 10 of 10 events"):
        by_pt.sample(10, cond=at(5000.0), outside="raise")
    highest = by_pt.sample(10, cond=at(PT.max()), random_state=1)
    moved = by_pt.sample(10, cond=at(5000.0), random_state=1, outside="clip")
    pd.testing.assert_frame_equal(moved, highest)
    with pytest.raises(ConfigError, match="Known: clip, raise, warn"):
        by_pt.sample(10, cond=at(250.0), outside="ignore")
    at(5000.0).to_csv(tmp_path / "cond.csv", index=False)
    for name in ("one", "two"):
        path = tmp_path / f"{name}.h5"
        with pytest.raises(InputError, match="'pt' in 10 of 10 events"):
            by_pt.sample_to(path, cond=tmp_path / "cond.csv", outside="raise")
        by_pt.sample_to(path, cond=tmp_path / "cond.csv", outside="clip", random_state=1)
    assert (tmp_path / "one.h5").read_bytes() == (tmp_path / "two.h5").read_bytes()


def test_a_sampler_of_single_events_warns_once(by_pt, tmp_path):
    by_pt.save(tmp_path / "m")
    sampler = open_sampler(tmp_path / "m", random_state=1)
    with pytest.warns(DataWarning, match="'pt' in 1 of 1 events"):
        sampler.one([5000.0, 0.0])
    sampler.one([5000.0, 0.0])


def test_a_constant_condition_knows_no_other_value():
    ranges = ConditionRanges.of(np.full((5, 1), 3.8), ["field"], {})
    assert ranges.count_far(np.array([[np.float32(3.8)], [3.9], [0.0], [np.nan]])).tolist() == [
        2,
        1,
    ]


def test_models_without_ranges_cannot_check_them():
    _, ranges = stored_scaling({"names": ["y"], "conditions": ["t"]})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ranges.report(ranges.count_far(np.array([[1e9]])), 1, "raise")
    with pytest.raises(ConfigError, match="fit it again"):
        ranges.check("clip")


def test_the_command_line_has_the_same_options(by_pt, tmp_path, capsys):
    from flowbdt.cli.main import main

    by_pt.save(tmp_path / "m")
    at(5000.0).to_csv(tmp_path / "cond.csv", index=False)
    command = ["generate", tmp_path / "m", "--conditions", tmp_path / "cond.csv", "--seed", 1]
    command = [str(word) for word in [*command, "-q", "-o", tmp_path / "new.csv"]]
    assert main([*command, "--outside", "raise"]) == 1
    assert "'pt' in 10 of 10 events" in capsys.readouterr().err
    assert main([*command, "--outside", "clip"]) == 0
    expected = by_pt.sample(10, cond=at(PT.max()), random_state=1)
    np.testing.assert_allclose(pd.read_csv(tmp_path / "new.csv").reco, expected.reco)


def test_students_learn_conditions_of_any_unit():
    from flowbdt.tuning import distil

    y = 10 * UNIFORM + np.random.default_rng(1).normal(size=N)
    cond = frame(t=SECONDS)
    teacher = small().fit(frame(y=y), cond=cond)
    booster = {"n_estimators": 10}
    student = distil(teacher, n_pairs=3000, cond=cond, booster=booster, random_state=2)
    for share in (0.25, 0.75):
        events = student.sample(400, cond=frame(t=[1.7e9 + 100 * share]), random_state=1)
        assert events.y.mean() == pytest.approx(10 * share, abs=1.0)
