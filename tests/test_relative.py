"""Columns learned relative to conditions: exact inverses, circles, choices, refusals."""

from __future__ import annotations

import numpy as np
import pytest

from flowbdt import EventTable, FlowBDT
from flowbdt.cli.main import main
from flowbdt.errors import ConfigError, DataWarning, InputError
from flowbdt.generation.one_event import open_sampler
from flowbdt.generation.packed.model_arrays import model_bytes
from flowbdt.tables.coordinates.relative import (
    Relative,
    choose_relative,
    followed_conditions,
    read_relative,
)
from flowbdt.tables.formulas.particles import wrapped

SMALL = {
    "preset": "fast",
    "n_steps": 2,
    "booster": {"n_estimators": 2},
    "rejection": True,
    "random_state": 1,
}


def answers(n=1200, centre=0.0, seed=0):
    """A momentum, a position and an angle near their conditions, and a column of its own."""
    rng = np.random.default_rng(seed)
    pt, y = np.exp(rng.normal(5.0, 0.5, n)), rng.normal(size=n)
    phi = rng.uniform(-np.pi, np.pi, n) + centre
    made = {
        "pt": (pt * rng.normal(1.0, 0.05, n)).astype(np.float32),
        "y": y + 0.01 * rng.normal(size=n),
        "phi": wrapped(phi + 0.01 * rng.normal(size=n) - centre) + centre,
        "m": rng.gamma(3.0, 5.0, n),
    }
    return EventTable.of(made, cond={"true_pt": pt, "true_y": y, "true_phi": phi})


def chosen(table, skip=()):
    return {one.column: f"{one.kind} {one.condition}" for one in choose_relative(table, skip)}


CHOSEN = {"pt": "ratio true_pt", "y": "difference true_y", "phi": "angle true_phi"}


@pytest.mark.parametrize("centre", [0.0, np.pi])
def test_answers_are_paired_with_what_they_answer_to(centre):
    table = answers(centre=centre)
    assert chosen(table) == chosen(table.take(slice(0, 400))) == CHOSEN
    assert chosen(table, ["pt", "phi"]) == {"y": CHOSEN["y"]}


def test_the_rejection_sees_what_is_learned_and_what_follows_a_condition(model):
    given = answers()
    wide = given.cond[:, 1] + 0.6 * np.random.default_rng(1).normal(size=given.n)
    table = given.with_columns(("wide",), wide[:, None])
    assert "wide" not in chosen(table)
    assert [one.name for one in followed_conditions(table, CHOSEN)] == ["wide minus true_y"]
    assert model.flow().observables.names == (
        *("pt over true_pt", "y minus true_y", "phi minus true_phi"),
    )
    small = {**SMALL, "booster": {"n_estimators": 1}, "n_steps": 1}
    seen = [
        FlowBDT(**small, relative=r).fit(table).flow().observables.names for r in ("auto", None)
    ]
    assert seen == [(*model.flow().observables.names, "wide minus true_y"), ()]


@pytest.mark.parametrize("n", [350, 1500])
def test_noise_has_no_pairs(n):
    rng, found = np.random.default_rng(1), []
    for _ in range(10):
        a, phi = rng.lognormal(size=n) + 1.0, rng.uniform(-np.pi, np.pi, n)
        made = {
            "x": rng.lognormal(size=n),
            "wide": a * rng.normal(size=n),
            "u": rng.random(n),
            "turn": rng.uniform(-np.pi, np.pi, n),
        }
        table = EventTable.of(made, cond={"a": a, "phi": phi})
        found += [*choose_relative(table), *followed_conditions(table, [])]
    assert found == []


def test_columns_that_would_lose_something_stay_as_they_are():
    rng = np.random.default_rng(2)
    n = 3000
    pt, y = np.exp(rng.normal(4.0, 0.6, n)), rng.normal(size=n)
    answer = pt * rng.normal(1.0, 0.1, n)
    above, near = answer > 25, y + 0.1 * rng.normal(size=n)
    pt, y, answer, near = pt[above], y[above], answer[above], near[above]
    lost = np.where(rng.random(len(pt)) < 0.05, 0.0, near)
    columns = {"zeros": lost, "whole": np.round(100 * near), "same": near, "again": near}
    assert chosen(EventTable.of(columns, cond={"y": y})) == {}
    assert chosen(EventTable.of({"near": near}, cond={"y": y})) == {"near": "difference y"}
    assert chosen(EventTable.of({"near": near}, cond={"y": np.where(y > 2, np.nan, y)})) == {}
    assert chosen(EventTable.of({"near": near}, cond={"y": y}).take(slice(0, 250))) == {}


def test_sharp_ends_are_kept_by_what_is_relative():
    """A momentum from 25, a position from -1.5 to 1.5 [detector]: no event is drawn anew."""
    rng = np.random.default_rng(2)
    pt, y = np.exp(rng.normal(4.0, 0.6, 4000)), rng.normal(size=4000)
    made = np.stack([pt * rng.normal(1.0, 0.03, 4000), y + 0.02 * rng.normal(size=4000)])
    kept = (made[0] > 25) & (np.abs(made[1]) < 1.5)
    made, cond = made[:, kept].astype(np.float32), {"pt": pt[kept], "y": y[kept]}
    table = EventTable.of({"sim_pt": made[0], "sim_y": made[1]}, cond=cond)
    assert chosen(table) == {"sim_pt": "ratio pt", "sim_y": "difference y"}
    transform = (model := FlowBDT(**SMALL).fit(table)).transform_
    back = transform.inverse(transform.forward(table), None, table.cond)
    np.testing.assert_allclose(back, table.x, rtol=1e-6, atol=1e-6)
    new = model.sample(cond=table.cond, random_state=1)
    assert (new.x.min(axis=0) >= table.x.min(axis=0)).all()
    assert (new.x.max(axis=0) <= [np.inf, table.x[:, 1].max()]).all()
    low = model.sample(50, cond=np.tile([20.0, 1.5], (50, 1)), random_state=1)  # hardly any pass
    assert low.column("sim_pt").min() >= made[0].min()


def test_a_denominator_near_zero_is_not_taken():
    rng = np.random.default_rng(3)
    known = rng.exponential(size=2000)
    table = EventTable.of({"x": known * rng.lognormal(0.0, 0.05, 2000)}, cond={"known": known})
    assert "ratio" not in chosen(table).get("x", "")


@pytest.mark.parametrize("centre", [0.0, np.pi])
def test_an_angle_comes_back_in_its_range_over_the_ends(centre):
    ends = np.array([-np.pi, -3.1, 0.0, 3.1, np.pi - 1e-12]) + centre
    table = EventTable.of({"phi": ends}, cond={"known": ends[::-1].copy()})
    (one,) = read_relative({"phi": "angle known"}, table)
    learned = one.of(ends, ends[::-1])
    assert np.abs(learned).max() <= np.pi
    np.testing.assert_allclose(one.total(learned, ends[::-1]), ends, atol=1e-14)
    np.testing.assert_allclose(one.of(np.array([3.1]), np.array([-3.1])), [6.2 - 2 * np.pi])


def test_the_upper_end_of_a_turn_may_be_a_value():
    phi = np.array([np.pi, -3.0, 1.0])
    (one,) = read_relative({"phi": "angle t"}, EventTable.of({"phi": phi}, cond={"t": phi / 2}))
    np.testing.assert_allclose(one.total(one.of(phi, phi / 2), phi / 2), phi, atol=1e-14)


def test_angles_of_rounded_files_are_angles():
    phi = np.array([-3.1416015625, -1.0, 3.140625])  # half a turn is 3.14159265
    (one,) = read_relative({"phi": "angle t"}, EventTable.of({"phi": phi}, cond={"t": phi / 2}))
    assert one.kind == "angle"


@pytest.fixture(scope="module")
def model():
    return FlowBDT(**SMALL).fit(answers())


def test_discrete_columns_see_what_is_learned():
    """The sign of a small difference of two large numbers, which trees see in bins."""
    rng = np.random.default_rng(0)
    start = 1.7e9 + rng.uniform(0, 1000, 1500)
    late = rng.normal(0, 5, 1500)
    events = {"stop": start + late, "after": (late > 0).astype(int), "other": rng.normal(size=1500)}
    model = FlowBDT(preset="fast", n_steps=2, random_state=1).fit(events, cond={"start": start})
    assert "stop minus start" in " ".join(model.transform_.describe())  # not: stop = start
    new = model.sample(cond={"start": start}, random_state=2)
    assert np.mean((new["stop"] > start) == (new["after"] == 1)) > 0.97
    discrete = model.flow().generator.discrete
    latent = np.random.default_rng(1).normal(size=(1500, 2))
    of_rows = start[:, None], 5, np.arange(1500), 1
    codes = discrete.columns(latent, *of_rows)[1]
    one_by_one = discrete.columns_given(None, latent, *of_rows, np.full(codes.shape, -1))[1]
    assert np.array_equal(codes, one_by_one)


def test_what_was_chosen_is_described_and_can_be_switched_off(model):
    text = "\n".join(model.transform_.describe())
    assert "pt: not learned, computed as pt = `pt over true_pt` * true_pt" in text
    assert "learned as `phi minus true_phi` = deltaphi(phi, true_phi)" in text
    plain = FlowBDT(**{**SMALL, "rejection": False}, relative=None).fit(answers())
    assert not len(plain.transform_.coordinates)


def test_generated_answers_are_narrow_on_the_whole_circle(model):
    test = answers(seed=5)
    events = model.sample(cond=test.cond, random_state=2)
    pt, _, phi = test.cond.T
    angle = wrapped(events.column("phi") - phi)
    for made, real in (
        (events.column("pt") / pt, test.column("pt") / pt),
        (angle, wrapped(test.column("phi") - phi)),
    ):
        low, high = (np.subtract(*np.quantile(values, [0.84, 0.16])) for values in (made, real))
        assert low == pytest.approx(high, rel=0.2)
    assert np.abs(events.column("phi")).max() <= np.pi
    assert events.dtypes[0] == "float32"


def test_stored_models_and_single_events_are_the_same(model, tmp_path):
    cond = answers(seed=5).cond[:30]
    events = model.sample(cond=cond, random_state=2).x
    model.save(tmp_path / "m.flowbdt")
    np.testing.assert_array_equal(
        FlowBDT.load(tmp_path / "m.flowbdt").sample(cond=cond, random_state=2).x, events
    )
    for sampler in (
        model.sampler(random_state=2),
        open_sampler(tmp_path / "m.flowbdt", random_state=2),
    ):
        np.testing.assert_array_equal([sampler.one(row).copy() for row in cond], events)
    (plain,) = model.flow(compiled=False).sample_blocks(seed=2, cond=cond)
    np.testing.assert_allclose(plain.x, events, rtol=1e-6)
    assert model_bytes(model)  # arithmetic and angles can be exported


def test_a_difference_may_have_a_condition_as_its_unit():
    rng = np.random.default_rng(0)
    t, phi = rng.normal(size=1500), rng.uniform(-np.pi, np.pi, 1500)
    width = np.exp(rng.uniform(-5, 0, 1500))
    made = {"y": t + width * rng.normal(size=1500)}
    made["phi"] = wrapped(phi + width * rng.normal(size=1500))
    given = {"t": t, "phi0": phi, "width": width}
    relative = {"y": "difference t in width", "phi": "angle phi0 in width"}
    model = FlowBDT(preset="fast", n_steps=2, relative=relative, random_state=1)
    model.fit(made, cond=given)
    assert "y = `y minus t in width` * width + t" in "\n".join(model.transform_.describe())
    new = model.sample(cond=given, random_state=2)
    pulls = np.array([(new["y"] - t) / width, wrapped(new["phi"] - phi) / width])
    for part in (width < 0.03, width > 0.3):
        assert (pulls[:, part].std(axis=1) < 1.2).all()
        assert (pulls[0, part].std() > 0.8).all()
    table = EventTable.of(made, cond={**given, "width": width - 0.1})
    with pytest.raises(InputError, match=r"unit must be above 0.* 'width' is not"):
        read_relative(relative, table)
    with pytest.raises(ConfigError, match="condition 'length'"):
        read_relative({"y": "difference t in length"}, table)


def test_given_answers_come_back(model):
    test = answers(seed=6).take(slice(0, 20))
    given = {"pt": test.column("pt"), "phi": test.column("phi")}
    events = model.sample(given=given, cond=test.cond, random_state=1)
    np.testing.assert_array_equal(events.column("phi"), test.column("phi"))
    assert np.abs(events.column("y") - test.cond[:, 1]).max() < 1.0


def test_pairings_as_set_are_learned_and_small_tables_have_them_too():
    rng = np.random.default_rng(4)
    table = answers(200)
    relative = {"y": "difference true_y", "phi": "difference true_phi", "m": "ratio true_pt"}
    events = FlowBDT(**SMALL, relative=relative).fit(table).sample(cond=table.cond, random_state=1)
    assert np.abs(events.column("y") - table.cond[:, 1]).max() < 0.2
    assert np.abs(wrapped(events.column("phi") - table.cond[:, 2])).max() < 0.2
    counts = EventTable.of({"n": rng.integers(0, 5, 200)}, cond={"k": rng.integers(0, 3, 200)})
    made = FlowBDT(**SMALL, relative={"n": "difference k"}).fit(counts).sample(cond=counts.cond)
    assert made.dtypes == counts.dtypes
    assert (made.x == np.round(made.x)).all()


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ({"pq": "ratio true_pt"}, ConfigError, "unknown column 'pq'. Known: m, phi, pt, r, y"),
        ({"pt": "ratio true_p"}, ConfigError, "unknown condition 'true_p'. Did you mean 'true_pt'"),
        ({"pt": "share true_pt"}, ConfigError, "unknown kind of relative 'pt': 'share'"),
        ({"pt": "ratio"}, ConfigError, "must be a text such as 'ratio gen_pt'"),
        ("ratio", ConfigError, "must be 'auto', None or a mapping"),
        ({"pt": "ratio zero"}, InputError, r"nowhere 0 .* in 1 row \(0.50%\) \(first: row 3\)"),
        ({"pt": "ratio true_y"}, InputError, "has one sign"),
        ({"pt": "angle true_phi"}, ConfigError, "an angle is in radians"),
        ({"y": "difference gap"}, InputError, r"missing in 1 row \(0.50%\)"),
        (
            {"r": "ratio true_pt"},
            ConfigError,
            "'r' is computed by a relation, and cannot be learned",
        ),
        ({"y": "difference true_y"}, ConfigError, "is of the particle 'jet'"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_training(spec, error, message):
    table = answers(200)
    zero, gap = np.ones(200), np.ones(200)
    zero[3], gap[4] = 0.0, np.nan
    columns = {**table.by_name(), "r": 2 * table.column("m")}
    cond = {name: columns.pop(name) for name in table.cond_names} | {"zero": zero, "gap": gap}
    particle = {"jet": {"pt": "pt", "eta": "y", "phi": "phi", "mass": 0}}
    settings = {"relations": ["r = 2 * m"], "particles": particle, "relative": spec}
    with pytest.raises(error, match=message):
        FlowBDT(**SMALL, **settings).fit(EventTable.of(columns, cond=cond))


def test_what_is_nowhere_negative_stays_so():
    known = np.random.default_rng(0).exponential(size=300)
    mass = np.abs(known + 0.5 * np.random.default_rng(1).normal(size=300))
    table = EventTable.of({"mass": mass}, cond={"known": known})
    events = FlowBDT(**SMALL, relative={"mass": "difference known"}).fit(table)
    made = events.sample(cond=table.cond, random_state=1).column("mass")
    assert made.min() >= 0
    assert np.std(made - known) < 0.7


def test_names_that_are_no_variables_are_quoted():
    assert Relative("jet pt", "ratio", "class").texts == (
        "`jet pt over class` = `jet pt` / `class`",
        "`jet pt` = `jet pt over class` * `class`",
    )


def test_conditions_far_away_are_told(model):
    with pytest.warns(DataWarning, match="'true_pt' in 1 of 1 events"):
        model.sample(cond={"true_pt": [1e5], "true_y": [0.0], "true_phi": [0.0]}, random_state=1)
    with pytest.warns(DataWarning, match="'true_pt' missing .* without 'true_pt' events lack 'pt'"):
        model.sample(cond={"true_pt": [np.nan], "true_y": [0.0], "true_phi": [0.0]}, random_state=1)


def test_a_ratio_may_be_missing_with_its_condition():
    known = np.where(np.arange(300) % 3 == 0, np.nan, np.linspace(-2, -1, 300))
    table = EventTable.of({"x": known * 2}, cond={"c": known}, missing=True)
    assert read_relative({"x": "ratio c"}, table)[0].kind == "ratio"
    known[4] *= -1
    table = EventTable.of({"x": known * 2}, cond={"c": known}, missing=True)
    with pytest.raises(InputError, match="not so in 1 row .* row 4"):
        read_relative({"x": "ratio c"}, table)


def test_the_command_line_says_what_is_chosen(tmp_path, capsys):
    table = answers()
    np.savez(tmp_path / "t.npz", **table.by_name())
    given = [
        str(tmp_path / "t.npz"),
        "--dry-run",
        "--set",
        "conditions=[true_pt, true_y, true_phi]",
    ]
    assert main(["fit", *given]) == 0
    assert "computed as y = `y minus true_y` + true_y" in capsys.readouterr().out
    assert main(["fit", *given, "--set", "relative={pt: ratio true_pt}"]) == 0
    said = capsys.readouterr().out
    assert "`pt over true_pt` * true_pt" in said
    assert "minus" not in said
