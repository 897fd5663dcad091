"""Exact relations: reading, evaluating, ordering, checking."""

from __future__ import annotations

import numpy as np
import pytest

from flowbdt import FlowBDT
from flowbdt.config import ModelConfig
from flowbdt.errors import ConfigError, DataWarning, InputError
from flowbdt.evaluation.evaluate import evaluate
from flowbdt.generation.one_event import open_sampler
from flowbdt.tables.coordinates.learned_columns import Coordinates
from flowbdt.tables.coordinates.ordered_columns import with_differences
from flowbdt.tables.event_table import EventTable
from flowbdt.tables.formulas.expressions import Cuts, Observables, declared
from flowbdt.tables.formulas.relations import Relation, order_relations
from flowbdt.tables.proposals.found_relations import find_relations
from flowbdt.tables.proposals.proposed_cuts import proposed_cuts
from flowbdt.training.plan import Inputs

COLUMNS = {"a": np.array([4.0, 9.0]), "b": np.array([2.0, -3.0])}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("t = a + b * 2", [8.0, 3.0]),
        ("t = (a - b) / 2", [1.0, 6.0]),
        ("t = a ** 0.5", [2.0, 3.0]),
        ("t = -b", [-2.0, 3.0]),
        ("t = sqrt(a) + abs(b)", [4.0, 6.0]),
        ("t = log(exp(b))", [2.0, -3.0]),
        ("t = minimum(a, b) + maximum(b, 0)", [4.0, -3.0]),
        ("t = 2 ** 3 ** 1 * b", [16.0, -24.0]),
        ("t = hypot(a, 3) + arctan2(0, b) / arccos(-1)", [5.0, 1.0 + np.sqrt(90.0)]),
        ("t = sin(b) ** 2 + cos(b) ** 2 + tanh(b) - sinh(b) / cosh(b)", [1.0, 1.0]),
        ("t = where(b > 0, a, -b)", [4.0, 3.0]),
        ("t = (a > 5) + (b < 0)", [0.0, 2.0]),
        ("t = not (a > 5) or (b < -5)", [1.0, 0.0]),
        ("t = (a > 5) & (b < 0) | (a == 4)", [1.0, 1.0]),
        ("t = 3 < a <= 4", [1.0, 0.0]),
        ("t = ~(b != 2)", [1.0, 0.0]),
        ("t = deltaphi(a, b)", [2.0, 12.0 - 4 * np.pi]),
    ],
)
def test_expression_has_its_arithmetic_value(text, expected):
    np.testing.assert_allclose(Relation.parse(text).evaluate(COLUMNS), expected, rtol=1e-14)


def test_relation_knows_its_target_and_sources():
    relation = Relation.parse("tau21 = tau2 / tau1 + 0 * tau2")
    assert (relation.target, relation.sources) == ("tau21", ("tau1", "tau2"))


@pytest.mark.parametrize(
    "text",
    [
        "t = __import__('os')",
        "t = a.real",
        "t = a[0]",
        "t = [a]",
        "t = a if b else a",
        "t = lambda: a",
        "t = sum(a)",
        "t = sqrt(a, b)",
        "t = a % b",
        "t = a == 'x'",
        "t = a and b",
        "t = 1e999 * a",
        "t = " + "9" * 400 + " * a",
        "t = " + "-" * 950 + "a",
        "t = 'a'",
        "t = True * a",
        "t += a",
        "t = u = a",
        "t, u = a",
        "t = a; u = b",
        "a + b",
        "t = a +",
        "t = 3",
        "t = t + a",
        "",
        "t = a" + " + a" * 400,
        "t = " + "(" * 300 + "a" + ")" * 300,
        "t = " + "-" * 300 + "a",
        "t = a == " + "9" * 400,
        5,
    ],
)
def test_anything_but_an_expression_is_refused(text):
    with pytest.raises(ConfigError, match="relation"):
        Relation.parse(text)


def test_large_powers_do_not_hang():
    assert np.isinf(Relation.parse("t = a * 9 ** 9 ** 9").evaluate(COLUMNS)).all()


def test_undefined_results_are_not_finite_and_silent():
    values = Relation.parse("t = log(b) / (a - 9)").evaluate(COLUMNS)
    assert not np.isfinite(values[1])


def test_relations_are_ordered_by_need():
    ordered = order_relations(["z = y + x", "y = 2 * x", "w = z - y"], ["w", "x", "y", "z"])
    assert [relation.target for relation in ordered] == ["y", "z", "w"]


def test_a_circle_of_relations_is_refused():
    with pytest.raises(ConfigError, match="circle.*x = y"):
        order_relations(["x = y + z", "y = 2 * x"], ["x", "y", "z"])


def test_two_relations_for_one_column_are_refused():
    with pytest.raises(ConfigError, match="target of two relations"):
        order_relations(["z = x", "z = y"], ["x", "y", "z"])


@pytest.mark.parametrize("text", ["zz = x", "z = xx + y"])
def test_unknown_columns_are_refused_with_the_known_ones(text):
    with pytest.raises(ConfigError, match="Known: x, y, z"):
        order_relations([text], ["x", "y", "z"])


def table(ratio_error: float = 0.0) -> EventTable:
    rng = np.random.default_rng(0)
    x, y = rng.uniform(1, 2, 50), rng.uniform(1, 2, 50)
    ratio = y / x
    ratio[7] *= 1 + ratio_error
    return EventTable.of(np.column_stack([x, y, ratio]), ["x", "y", "r"])


def test_check_returns_the_largest_deviation():
    deviation = Relation.parse("r = y / x").check(table(5e-5))
    assert deviation == pytest.approx(5e-5, rel=1e-3)


def test_check_names_relation_row_and_deviation():
    with pytest.raises(InputError, match=r"'r = y / x' does not hold: in row 7.*0\.001"):
        Relation.parse("r = y / x").check(table(1e-3))


def test_check_refuses_rows_where_the_relation_is_undefined():
    bad = EventTable.of(np.array([[1.0, 1.0, 1.0], [0.0, 1.0, 0.0]]), ["x", "y", "r"])
    with pytest.raises(InputError, match="undefined in 1 row .50.00%. .first: row 1."):
        Relation.parse("r = y / x").check(bad)


def test_a_condition_is_no_target_and_must_be_known():
    with pytest.raises(ConfigError, match="'b' is a condition, which is given and not computed"):
        order_relations(["b = a / c"], ["a", "c"], ["b"])
    with pytest.raises(ConfigError, match="unknown column 'bb'. Did you mean 'b'"):
        order_relations(["a = bb / c"], ["a", "c"], ["b"])


@pytest.fixture(scope="module")
def of_conditions():
    """A model of x, its ratio to condition t, and an angle relative to condition phi."""
    rng = np.random.default_rng(0)
    cond = np.column_stack([rng.uniform(1.0, 2.0, 300), rng.uniform(-np.pi, np.pi, 300)])
    x, y = rng.normal(size=(2, 300))
    angle = (y - cond[:, 1] + np.pi) % (2 * np.pi) - np.pi
    columns = {"x": x, "y": y, "r": x / cond[:, 0], "angle": angle.astype(np.float32)}
    relations = ["r = x / t", "angle = deltaphi(y, phi)"]
    settings = {"n_steps": 2, "booster": {"n_estimators": 2}, "rejection": True, "random_state": 1}
    data = EventTable.of(columns, cond={"t": cond[:, 0], "phi": cond[:, 1]})
    return FlowBDT(preset="fast", relations=relations, **settings).fit(data)


def test_relations_of_conditions_hold_in_every_event(of_conditions, tmp_path):
    t, phi = np.linspace(1.0, 2.0, 40), np.linspace(-3.0, 3.0, 40)
    cond = np.column_stack([t, phi])
    events = of_conditions.sample(cond=cond, random_state=2)
    x, y, r, angle = events.x.T
    np.testing.assert_array_equal(r, x / t)
    expected = (y - phi + np.pi) % (2 * np.pi) - np.pi
    np.testing.assert_array_equal(angle, expected.astype(np.float32))
    of_conditions.save(tmp_path / "m.flowbdt")
    for sampler in (
        of_conditions.sampler(random_state=2),
        open_sampler(tmp_path / "m.flowbdt", random_state=2),
    ):
        np.testing.assert_array_equal([sampler.one(row).copy() for row in cond], events.x)
    again = FlowBDT.load(tmp_path / "m.flowbdt")
    plain = again.flow(compiled=False)
    for block in plain.sample_blocks(seed=2, cond=cond):
        np.testing.assert_allclose(block.x, events.x, rtol=1e-6)
    result = evaluate(events, events, metrics=["relation"], relations=["r = x / t"], quick=True)
    assert max(one.value for one in result.results) < 1e-12


def test_given_columns_agree_with_the_conditions(of_conditions):
    cond = np.array([[1.0, 0.5], [2.0, -3.0]])
    rows = of_conditions.sample(given={"x": np.array([1.5, 1.0])}, cond=cond, random_state=1)
    np.testing.assert_array_equal(rows.column("r"), [1.5, 0.5])
    one = {"x": np.array([1.5, 1.5]), "r": np.array([1.5, 1.5])}
    with pytest.raises(InputError, match="contradict the relation 'r = x / t': in row 1"):
        of_conditions.sample(given=one, cond=cond, random_state=1)


def test_an_unknown_condition_makes_what_follows_from_it_unknown(of_conditions):
    cond = np.array([[1.0, np.nan], [np.nan, 0.3]])
    with pytest.warns(DataWarning, match="missing in 1 of 2 events"):
        events = of_conditions.sample(cond=cond, random_state=2)
    assert np.isnan(events.x).tolist() == [[False] * 3 + [True], [False, False, True, False]]
    sampler = of_conditions.sampler(random_state=2)
    with pytest.warns(DataWarning, match="missing"):
        single = [sampler.one(row).copy() for row in cond]
    np.testing.assert_array_equal(single, events.x)


def test_a_relation_of_a_condition_of_texts_is_refused_with_its_name():
    data = EventTable.of({"x": np.arange(4.0)}, cond={"kind": np.array(["a", "b", "a", "b"])})
    with pytest.raises(ConfigError, match="column 'kind' holds categories, not numbers"):
        FlowBDT(relations=["x = 2 * kind"]).fit(data)


def test_evaluation_names_a_column_of_a_relation_that_is_not_there_before_any_metric():
    rows = np.random.default_rng(0).normal(size=(2, 50, 2))
    with pytest.raises(ConfigError, match=r"unknown column 'y'.*Known: x0, x1"):
        evaluate(rows[0], rows[1], relations=["x0 = y + x1"])


# ---- particles

ELECTRONS = {
    "e1": {"pt": "pt1", "eta": "eta1", "phi": "phi1", "mass": 0.5},
    "e2": {"energy": "E", "px": "x", "py": "y", "pz": "z"},
    "e3": {"px": "x", "py": "y", "pz": "z", "m": "m3"},
}
MOMENTA = {
    "pt1": np.array([30.0, 20.0]), "eta1": np.array([0.5, -1.0]), "phi1": np.array([3.0, 0.1]),
    "E": np.array([50.0, 10.0]), "x": np.array([-10.0, 6.0]), "y": np.array([-20.0, 0.0]),
    "z": np.array([30.0, 8.0]), "m3": np.array([0.0, 3.0]),
}  # fmt: skip


def four_momenta():
    """E, px, py, pz of the three particles, written out."""
    pt, eta, phi = (MOMENTA[k] for k in ("pt1", "eta1", "phi1"))
    p1 = np.array([pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)])
    p2 = np.array([MOMENTA[k] for k in "xyz"])
    energies = (
        np.sqrt((p1**2).sum(0) + 0.25),
        MOMENTA["E"],
        np.sqrt((p2**2).sum(0) + MOMENTA["m3"] ** 2),
    )
    return [np.array([e, *p]) for e, p in zip(energies, (p1, p2, p2), strict=True)]


def test_masses_angles_and_sums_of_particles_are_those_of_the_formulas():
    e1, e2, e3 = four_momenta()
    whole = e1 + e2
    mass = np.sqrt(whole[0] ** 2 - (whole[1:] ** 2).sum(0))
    eta = [np.arctanh(p[3] / np.sqrt((p[1:] ** 2).sum(0))) for p in (e1, e2)]
    phi = [np.arctan2(p[2], p[1]) for p in (e1, e2)]
    turn = np.angle(np.exp(1j * (phi[0] - phi[1])))
    known = {
        "mass(e1, e2)": mass,
        "mass(e1 + e2)": mass,
        "pt(e1 + e2)": np.hypot(whole[1], whole[2]),
        "pt(e1 - e2)": np.hypot(*(e1 - e2)[1:3]),
        "eta(e1)": MOMENTA["eta1"],
        "phi(e1)": MOMENTA["phi1"],
        "eta(e2)": eta[1],
        "energy(e3)": e3[0],
        "mass(e3)": MOMENTA["m3"],
        "px(e1) + py(e1) + pz(e1)": e1[1:].sum(0),
        "rapidity(e1, e2)": np.arctanh(whole[3] / whole[0]),
        "deltaphi(e1, e2)": turn,
        "deltaR(e1, e2)": np.hypot(eta[0] - eta[1], turn),
        "deltaeta(e1, e2)": eta[0] - eta[1],
    }
    observables, _ = declared([f"o{i} = {text}" for i, text in enumerate(known)], ELECTRONS)
    found = observables.values(MOMENTA)
    for text, values, expected in zip(known, found.T, known.values(), strict=True):
        np.testing.assert_allclose(values, expected, rtol=1e-9, atol=1e-6, err_msg=text)


def test_a_particle_with_less_energy_than_momentum_has_a_negative_mass():
    observables, _ = declared(["m = mass(e2)"], ELECTRONS)
    columns = {**MOMENTA, "E": np.array([10.0, 10.0])}
    assert observables.values(columns)[0, 0] == pytest.approx(-np.sqrt(1400.0 - 100.0))


def test_pairs_of_particles_are_observables_by_default():
    observables, _ = declared(None, ELECTRONS)
    assert observables.names == (
        "mass_e1_e2", "deltaR_e1_e2", "mass_e1_e3", "deltaR_e1_e3", "mass_e2_e3", "deltaR_e2_e3"
    )  # fmt: skip
    assert declared(None, None)[0].names == declared([], ELECTRONS)[0].names == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("m = mass(e1, e4)", "unknown particle 'e4'. Known: e1, e2, e3. Declare"),
        ("m = mas(e1, e2)", "unknown function 'mas'. Did you mean 'mass'"),
        ("m = e1", "is a particle, not a number"),
        ("m = 2 * e1", "'e1' in '2 \\* e1' is a particle, not a number: take a number of it"),
        ("m = mass()", "mass takes one particle or more"),
        ("m = deltaR(e1)", "deltaR takes 2 particles"),
        ("e1 = mass(e1, e2)", "the name 'e1' is taken"),
        ("m = pt1 > 3 & eta1 < 2", "set brackets"),
        ("m = mass(e1, e2", "cannot be read"),
        ("mass(e1, e2)", "must have the form"),
    ],
)
def test_what_is_wrong_with_an_observable_is_said(text, message):
    with pytest.raises(ConfigError, match=message):
        declared([text], ELECTRONS)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"pt": "pt1", "eta": "eta1", "phi": "phi1"}, "say mass: 0"),
        (
            {"pt": "pt1", "et": "eta1"},
            "unknown component of particle 'j': 'et'. Did you mean 'eta'",
        ),
        ({"pt": ["pt1"]}, "must be the name of a column or a number"),
        ({"E": "a", "energy": "b"}, "has its E twice"),
        ("pt1", "must be a mapping"),
        ({"pt": 10**400, "eta": 0, "phi": 0, "mass": 0}, "pt must be the name of a column or"),
        ({"pt": "pt1", "eta": 0, "phi": 0, "mass": np.nan}, "mass must be the name of a column or"),
        ({"pt": "pt1", "eta": 0, "phi": 0, "mass": -1}, "has a negative mass"),
    ],
)
def test_what_is_wrong_with_a_particle_is_said(spec, message):
    with pytest.raises(ConfigError, match=message):
        declared(None, {"j": spec})


@pytest.mark.parametrize("spec", ["e1", 3, [{"name": "e1"}], {"class": {}}, {3: {}}])
def test_particles_of_another_type_are_refused(spec):
    with pytest.raises(ConfigError, match="particle.*e1"):
        declared(None, spec)


@pytest.mark.parametrize("texts", [5, b"a = b", {"a": "b"}, [5]])
def test_expressions_of_another_type_are_refused(texts):
    for read in (Observables.parse, Cuts.parse):
        with pytest.raises(ConfigError, match="text"):
            read(texts)


def test_expressions_at_the_limit_of_nesting_are_evaluated():
    relation = Relation.parse("t = " + "-" * 180 + "a")
    np.testing.assert_array_equal(relation.evaluate(COLUMNS), COLUMNS["a"])


def test_names_and_texts_are_taken_as_they_are_written():
    micro, kind = "\u00b5_pt", "a`b`c"  # Python reads the sign for micro as a Greek letter
    rows = EventTable.of({micro: np.array([1.0, 3.0]), "kind": np.array([kind, "d"])})
    cuts = Cuts.parse([f"{micro} > 0 and kind == {kind!r}"]).bound(rows.names, rows.categories)
    assert cuts.hold(rows.by_name()).tolist() == [True, False]
    assert Observables.parse([f"{micro}2 = 2 * {micro}"]).names == (f"{micro}2",)


def test_names_are_held_against_the_columns():
    observables, particles = declared(["m = mass(e1, e2)", "r = m / 91"], ELECTRONS)
    observables.bound(MOMENTA, {})
    with pytest.raises(ConfigError, match="unknown column of particle 'e1': 'phi1'. Known: E"):
        observables.bound([name for name in MOMENTA if name != "phi1"], {})
    with pytest.raises(ConfigError, match="'r' is a column already"):
        observables.bound([*MOMENTA, "r"], {})
    with pytest.raises(ConfigError, match="'e1' is the name of a column and of a particle"):
        observables.bound([*MOMENTA, "e1"], {})
    with pytest.raises(ConfigError, match="unknown column 'rr'. Did you mean 'r'"):
        Cuts.parse(["rr > 1"], observables, particles).bound(MOMENTA, {})


def test_an_observable_that_is_undefined_is_told_with_the_share_of_rows():
    rows = EventTable.of(np.array([[1.0, 2.0], [0.0, 3.0], [4.0, 5.0]]), ["a", "b"])
    with pytest.raises(InputError, match=r"undefined in 1 row \(33.33%\) of it .*a = 0"):
        Observables.parse(["q = b / a"]).added_to(rows, "it")
    added = Observables.parse(["s = a + b", "t = s * 2"]).added_to(rows)
    assert added.names == ("a", "b", "s", "t")
    assert added.column("t").tolist() == [6.0, 6.0, 18.0]


def test_texts_are_compared_by_their_category_and_by_nothing_else():
    kinds = np.array(["mu", "e", "mu"])
    rows = EventTable.of({"kind": kinds, "run": np.array([3.0, 3.0, 4.0])})
    cuts = Cuts.parse(["kind == 'mu' or run != 3"]).bound(rows.names, rows.categories)
    assert cuts.hold(rows.by_name()).tolist() == [True, False, True]
    for text, message in {
        "kind == 'tau'": "unknown category of 'kind': 'tau'. Known: e, mu",
        "kind > 1": "column 'kind' holds categories, not numbers",
        "run == 'mu'": "column 'run' holds numbers",
        "run + 1": "is a number, not a condition",
        "2 > 1": "uses no column",
    }.items():
        with pytest.raises(ConfigError, match=message):
            Cuts.parse([text]).bound(rows.names, rows.categories)


def test_names_that_are_no_variables_go_in_backticks():
    rows = EventTable.of({"hours-per-week": np.array([40.0, 10.0]), "class": np.array([1.0, 2.0])})
    cuts = Cuts.parse(["`hours-per-week` > 20 and `class` == 1"]).bound(rows.names, {})
    assert cuts.hold(rows.by_name()).tolist() == [True, False]
    with pytest.raises(ConfigError, match="Set a name such as `hours-per-week` in backticks"):
        Cuts.parse(["hours-per-week > 20"]).bound(rows.names, {})
    relation = Relation.parse("`a b` = 2 * `class`")
    assert (relation.target, relation.sources) == ("a b", ("class",))


def test_a_relation_may_use_particles_and_comparisons():
    names = [*MOMENTA, "M", "high"]
    _, particles = declared(None, ELECTRONS)
    ordered = order_relations(["high = M > 70", "M = mass(e1, e2)"], names, (), particles)
    assert [r.target for r in ordered] == ["M", "high"]
    assert ordered[0].sources == ("E", "eta1", "phi1", "pt1", "x", "y", "z")


def test_a_column_that_is_a_mass_of_particles_agrees_with_them_in_every_event(tmp_path):
    rng = np.random.default_rng(0)
    columns = {f"{k}{i}": rng.normal(20.0, 3.0, 400) for i in (1, 2) for k in ("px", "py", "pz")}
    pair = {f"e{i}": {k: f"{k}{i}" for k in ("px", "py", "pz")} | {"mass": 0} for i in (1, 2)}
    mass, _ = declared(["M = mass(e1, e2)"], pair)
    table = mass.added_to(EventTable.of(columns))
    settings = {"particles": pair, "observables": [], "relations": ["M = mass(e1, e2)"]}
    model = FlowBDT(
        preset="fast", n_steps=2, booster={"n_estimators": 2}, random_state=1, **settings
    )
    model.fit(table).save(tmp_path / "m.flowbdt")
    events = FlowBDT.load(tmp_path / "m.flowbdt").sample(500, random_state=2)
    expected = mass.values(events.by_name())[:, 0]
    np.testing.assert_allclose(events.column("M"), expected, rtol=1e-12)
    assert np.array_equal(model.sample(500, random_state=2).x, events.x)


# ---- relations and cuts that nobody declared


def columns_with_relations(n: int = 600) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    a, b, c = rng.lognormal(size=(3, n))
    f, phi, other = rng.normal(size=n), rng.uniform(-3, 3, n), rng.uniform(-3, 3, n)
    return {
        "total": a + b, "a": a, "b": b, "ratio": c / a, "c": c, "d2": b / c**3, "inch": 2.54 * f,
        "f": f, "kelvin": b + 273.15, "phi": phi, "px": a * np.cos(phi), "size": np.hypot(f, c),
        "other": other, "dphi": np.abs(f), "turn": (phi - other + np.pi) % (2 * np.pi) - np.pi,
        "rest": 1 - f - other, "near": f * other * (1 + 3e-4 * rng.normal(size=n)),
        "kind": rng.integers(0, 3, n),
    }  # fmt: skip


def test_relations_that_nobody_declared_are_found_with_their_accuracy():
    columns = columns_with_relations()
    found = find_relations(EventTable.of(columns))
    exact = {one.text: one.deviation for one in found if one.exact}
    assert sorted(exact) == [
        *("c = a * ratio", "d2 = b / c ** 3", "dphi = abs(f)", "inch = 2.54 * f"),
        *("kelvin = b + 273.15", "px = a * cos(phi)", "rest = 1 - f - other"),
        *("size = hypot(c, f)", "total = b + a", "turn = deltaphi(phi, other)"),
    ]
    assert max(exact.values()) < 1e-9
    (near,) = (one for one in found if not one.exact)
    assert near.text == "near = f * other"
    assert 1e-4 < near.deviation < 2e-3
    assert not find_relations(EventTable.of(columns), given=[*exact, near.text])


def test_columns_that_follow_from_conditions_are_found():
    rng = np.random.default_rng(2)
    a, phi, own = rng.lognormal(size=500), rng.uniform(-3, 3, 500), rng.normal(size=500)
    made = {"px": a * np.cos(phi), "copy": a, "rest": own - a, "own": own, "free": rng.random(500)}
    table = EventTable.of(made, cond={"a": a, "phi": phi, "twice": 2 * a})
    assert {one.text for one in find_relations(table) if one.exact} == {
        *("copy = a", "px = a * cos(phi)", "own = a + rest")
    }
    apart = EventTable.of({"x": own, "y": made["free"]}, cond={"a": a, "b": 1 - a})
    assert not find_relations(apart)


def noise(n: int, seed: int) -> EventTable:
    rng = np.random.default_rng(seed)
    x = np.exp(rng.normal(size=(n, 18)))
    x[:, :3] = rng.integers(0, 2, (n, 3))
    x[:, 3:5] = rng.uniform(size=(n, 2)) < 2 / n
    x[0, 3:5] = x[1, 4] = 1
    x[:, 5:8] = rng.integers(0, 6, (n, 3))
    x[:, 8:11] = np.log(x[:, 8:11])
    x[:, 11:13] = np.round(x[:, 11:13], 1)
    return EventTable.of(x, [f"v{i}" for i in range(11)] + [f"j{i}_pt" for i in range(7)])


@pytest.mark.parametrize("n", [8, 20, 60, 1500])
def test_noise_shows_no_relation_and_no_cut(n):
    for seed in range(3):
        table = noise(n, seed)
        assert find_relations(table) == []
        beam = {
            f"p{i}": {"pt": f"j{i}_pt", "eta": f"v{8 + i}", "phi": 0, "mass": 0} for i in (0, 1)
        }
        assert proposed_cuts(table, beam) == []


def test_exact_relations_are_held_where_they_are_asked_for():
    table = EventTable.of(columns_with_relations(200))
    settled = Inputs(table, ModelConfig(relations="auto"), 1).settled().config
    assert "total = b + a" in settled.relations
    with pytest.raises(ConfigError, match="relations"):
        ModelConfig(relations="all")


def test_cuts_that_rows_keep_are_proposed():
    rng = np.random.default_rng(1)
    n = 4000
    pt, eta = 25 + rng.exponential(20, n), rng.normal(0, 2, (n, 2))
    kept = (np.abs(eta) < 2.5).all(axis=1)
    first, second = np.sort(rng.exponential(30, (2, n)), axis=0)[::-1]
    p = rng.normal(0, 20, (3, n))
    columns = {"pt1": pt, "eta1": eta[:, 0], "phi1": rng.uniform(-np.pi, np.pi, n)}
    columns |= {"j1_pt": first, "j2_pt": second, "E": np.sqrt((p**2).sum(axis=0) + 0.1**2)}
    columns |= {"px": p[0], "py": p[1], "pz": p[2]}
    table = EventTable.of({name: values[kept] for name, values in columns.items()})
    particles = {
        "e": {"pt": "pt1", "eta": "eta1", "phi": "phi1", "mass": 0},
        "mu": {"E": "E", "px": "px", "py": "py", "pz": "pz"},
    }
    cuts = [cut.text for cut in proposed_cuts(table, particles)]
    assert cuts == ["pt1 > 25", "abs(eta1) < 2.5", "mass(mu) >= 0", "j1_pt >= j2_pt"]
    Cuts.parse(cuts, particles=declared(None, particles)[1]).check(table)


def in_eta(values):
    """What is proposed of a particle's |eta|."""
    one = {"pt": 1.0, "eta": "eta", "phi": 0.0, "mass": 0.0}
    return [
        (cut.text, cut.reason) for cut in proposed_cuts(EventTable.of({"eta": values}), {"p": one})
    ]


def test_the_end_of_a_falling_tail_is_no_edge():
    """As steep as exp(-x^6), or as x^2 at the end; of 15 tables each at most one may err."""
    for n in (1000, 5000):
        rngs = [np.random.default_rng(seed) for seed in range(15)]
        assert sum(bool(in_eta(rng.standard_gamma(1 / 6, n) ** (1 / 6))) for rng in rngs) <= 1
        assert sum(bool(in_eta(rng.beta(1, 3, n))) for rng in rngs) <= 1
        cut = [in_eta((x := rng.normal(0, 1.5, 2 * n))[np.abs(x) < 2.5][:n]) for rng in rngs]
        assert sum("a sharp edge" in dict(found).values() for found in cut) >= 14


def test_a_cut_that_is_smeared_is_called_so():
    rng = np.random.default_rng(0)
    eta = rng.uniform(-3.5, 3.5, 40_000)
    eta = eta[np.abs(eta + 0.04 * rng.normal(size=40_000)) < 2.5]
    ((text, reason),) = in_eta(eta)
    assert reason == "a smeared edge"
    assert 2.5 < float(text.removeprefix("abs(eta) < ")) < 2.7


def test_columns_in_order_are_learned_by_their_difference():
    rng = np.random.default_rng(0)
    pt = np.sort(20 + rng.exponential(30, (3, 600)), axis=0)[::-1]
    table = EventTable.of({"j1 pt": pt[0], "eta": rng.normal(size=600), "j2": pt[1], "j3": pt[2]})
    cuts = [cut.text for cut in proposed_cuts(table)]
    assert cuts == ["`j1 pt` >= j2", "j2 >= j3"]
    model = FlowBDT(
        n_steps=2, preset="fast", booster={"n_estimators": 2}, require=cuts, random_state=1
    ).fit(table)
    new = model.sample(1000, random_state=2)
    assert model.acceptance_ == 1.0
    assert (np.diff(new.select(["j1 pt", "j2", "j3"]).x, axis=1) <= 0).all()
    assert "`j1 pt` = j2 + j1_pt_above_j2" in "\n".join(model.transform_.describe())
    kept = with_differences(Coordinates(), table, ["j2 > j3", "j3 < `j1 pt`", "j2 > eta"])
    assert kept.targets == {
        "j2": "j2 = j3 + j2_above_j3",
        "j1 pt": "`j1 pt` = j3 + j1_pt_above_j3",
    }
    assert not len(with_differences(Coordinates(), table, ["j2 > j3", "j2 > 20"], left=["j3"]))


@pytest.mark.parametrize(
    ("text", "solves"),
    [
        ("y = 2 * a - b + 1", True),
        ("y = b - a", True),
        ("y = b * a / 7", True),
        ("y = b / a", True),
        ("y = b / (3 * a)", True),
        ("y = a**2 + b", False),
        ("y = hypot(a, b)", False),
        ("y = b / (1 + a)", True),
    ],
)
def test_a_relation_is_solved_where_it_is_linear(text: str, solves: bool) -> None:
    a, b = np.random.default_rng(1).uniform(2, 5, (2, 50))
    relation = Relation.parse(text)
    columns = {"a": np.full(50, np.nan), "b": b, "y": relation.evaluate({"a": a, "b": b})}
    solved = relation.solved("a", columns)
    if solves:
        np.testing.assert_allclose(solved, a, rtol=1e-10)
    else:
        assert np.isnan(solved).all()
