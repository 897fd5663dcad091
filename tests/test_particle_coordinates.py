"""Particles learned in coordinates of their own: mass shell, ranges, relations, the turn in phi."""

import json

import numpy as np
import pandas as pd
import pytest

from flowbdt import EventTable, FlowBDT, TableTransform, evaluate
from flowbdt.config import ModelConfig
from flowbdt.errors import ConfigError, DataWarning, FormatError, InputError
from flowbdt.generation.one_event import open_sampler
from flowbdt.physics import ZToEE
from flowbdt.tables.coordinates.learned_columns import Coordinates
from flowbdt.tables.coordinates.particle_coordinates import particle_coordinates
from flowbdt.tables.formulas.expressions import Cuts
from flowbdt.tables.formulas.particles import check_azimuths, proposed_particles, read_particles

POLAR = {
    name: {"pt": f"pt{i}", "eta": f"eta{i}", "phi": f"phi{i}", "mass": 0.1}
    for i, name in ((1, "a"), (2, "b"))
}
CARTESIAN = {
    name: {k: f"{k}{i}" for k in ("E", "px", "py", "pz")} for i, name in ((1, "a"), (2, "b"))
}
SMALL = {"preset": "fast", "n_steps": 2, "booster": {"n_estimators": 3}, "random_state": 1}


def pairs(n: int = 900, seed: int = 0) -> pd.DataFrame:
    """Two particles nearly back to back, of which the common turn is uniform."""
    rng = np.random.default_rng(seed)
    phi = rng.uniform(-np.pi, np.pi, n)
    other = np.angle(np.exp(1j * (phi + rng.normal(np.pi, 0.4, n))))
    pt, ratio = 25 + rng.exponential(10.0, n), rng.lognormal(0, 0.2, n)
    eta = rng.uniform(-2.5, 2.5, (2, n))
    columns = {"pt1": pt, "eta1": eta[0], "phi1": phi, "pt2": pt * ratio, "eta2": eta[1]}
    return pd.DataFrame({**columns, "phi2": other, "q": rng.integers(0, 2, n)})


def cartesian(frame: pd.DataFrame, masses: dict[str, np.ndarray | float]) -> pd.DataFrame:
    columns = {}
    for i in "12":
        pt, eta, phi = (frame[name + i] for name in ("pt", "eta", "phi"))
        columns |= {"E" + i: np.hypot(pt * np.cosh(eta), masses[i]), "px" + i: pt * np.cos(phi)}
        columns |= {"py" + i: pt * np.sin(phi), "pz" + i: pt * np.sinh(eta)}
    return pd.DataFrame(columns)


def mass_of(frame: pd.DataFrame, particles: dict, *names: str) -> np.ndarray:
    known = read_particles(particles)
    momenta = sum(known[name].momenta(frame) for name in names)
    square = momenta[:, 0] ** 2 - (momenta[:, 1:] ** 2).sum(axis=1)
    return np.sign(square) * np.sqrt(np.abs(square))


@pytest.fixture(scope="module")
def fitted() -> tuple[FlowBDT, pd.DataFrame]:
    frame = pairs()
    frame["M"] = mass_of(frame, POLAR, "a", "b")
    frame = frame.astype({"phi1": np.float32, "phi2": np.float32})
    frame["M"] = mass_of(frame, POLAR, "a", "b")
    cuts = ["pt1 > 25", "M > 10", "abs(eta1) < 2.5"]
    settings = {"relations": ["M = mass(a, b)"], "require": cuts}
    return FlowBDT(**SMALL, **settings, particles=POLAR, rejection=True).fit(frame), frame


def test_relations_ranges_and_types_of_events_are_exact(fitted, tmp_path):
    model, frame = fitted
    new = model.sample(600, random_state=2)
    assert (new.dtypes == frame.dtypes).all()
    assert np.abs(new["M"] / mass_of(new, POLAR, "a", "b") - 1).max() < 1e-6
    assert new[["phi1", "phi2"]].abs().max().max() <= np.pi
    assert new["pt1"].min() > 25
    assert new["M"].min() > 10
    assert new["eta1"].abs().max() < 2.5
    assert model.sample(300, random_state=2).equals(new[:300])
    assert np.array_equal(model.sampler(random_state=2, first=7).one(), new.iloc[7].astype(float))
    model.save(tmp_path / "m.flowbdt")
    assert FlowBDT.load(tmp_path / "m.flowbdt").sample(600, random_state=2).equals(new)


def test_the_turn_is_uniform_and_the_angle_between_particles_is_learned(fitted):
    model, frame = fitted
    new = model.sample(2000, random_state=3)
    assert np.histogram(new["phi1"], 8, (-np.pi, np.pi))[0].min() > 190
    away = [np.abs(np.angle(np.exp(1j * (f.phi1 - f.phi2)))) for f in (new, frame)]
    assert abs(np.mean(away[0]) - np.mean(away[1])) < 0.05
    assert (
        "phi1: not learned, drawn evenly as the common turn of phi2" in model.transform_.describe()
    )


@pytest.mark.parametrize("heavy", [False, True])
def test_energies_and_momenta_stay_on_the_mass_shell(heavy):
    frame, rng = pairs(), np.random.default_rng(1)
    masses = {i: rng.lognormal(1, 0.2, len(frame)) if heavy else 0.1 for i in "12"}
    table = cartesian(frame, masses)
    new = (
        FlowBDT(**SMALL, particles=CARTESIAN, observables=[]).fit(table).sample(400, random_state=2)
    )
    for name, i in (("a", "1"), ("b", "2")):
        mass, real = mass_of(new, CARTESIAN, name), np.broadcast_to(masses[i], len(frame))
        assert mass.min() > 0.5 * real.min()
        assert mass.max() < 2 * real.max()
        if not heavy:
            assert np.abs(mass - 0.1).max() < 1e-3  # of a difference of squares of energies


def test_learned_columns_give_a_table_back_and_are_stored():
    table = EventTable.of(pairs())
    chosen, turn = particle_coordinates(table, POLAR)
    assert chosen.names == ("b_deltaphi",)
    assert turn.angles.keys() == {"phi1", "phi2"}
    transform = TableTransform(coordinates=chosen, turn=turn).fit(table)
    back = transform.inverse(transform.forward(table))
    back = transform.turned(back, table.column("phi1"))
    assert np.abs(back - table.x).max() < 1e-9
    assert transform.names == table.names
    assert "phi1" not in "".join(transform.latent_names)
    stored = json.loads(json.dumps(transform.to_json()))
    again = TableTransform.from_json(stored)
    z = transform.forward(table)
    assert np.array_equal(again.inverse(z), transform.inverse(z))
    with pytest.raises(FormatError, match="turn is of other columns"):
        TableTransform.from_json({**stored, "turn": {**stored["turn"], "angles": {"x": 0.0}}})


@pytest.mark.parametrize("way", ["uneven", "a column follows it"])
def test_a_turn_that_is_no_symmetry_is_learned(way):
    frame = pairs(2000)
    if way == "uneven":
        frame = frame[(frame.phi1 > 0) | (frame.index % 2 == 0)]
    else:
        frame["q"] = frame.phi1 + np.random.default_rng(3).normal(0, 1, len(frame)) > 0
    chosen, turn = particle_coordinates(EventTable.of(frame.reset_index(drop=True)), POLAR)
    assert chosen.names == ("b_deltaphi",)
    assert not turn


def resonance(n: int = 1500, background: float = 0.0) -> pd.DataFrame:
    """Two electrons of 91 GeV (width 3), or of any mass from 40 to 150, above 20 GeV."""
    rng = np.random.default_rng(5)
    frame = pairs(n)
    mass = rng.normal(91, 3, n)
    mass = np.where(rng.random(n) < background, rng.uniform(40, 150, n), mass)
    opening = np.cosh(frame.eta1 - frame.eta2) - np.cos(frame.phi1 - frame.phi2)
    frame["pt2"] = mass**2 / (2 * frame.pt1 * opening)
    return frame[frame.pt2 > 20].reset_index(drop=True)


@pytest.mark.parametrize("components", ["polar", "decimals", "cartesian"])
def test_a_resonance_is_learned_by_its_mass(components):
    frame, particles, cut = resonance(), POLAR, "pt2 > 20"
    if components == "decimals":
        frame[["pt1", "pt2"]] = frame[["pt1", "pt2"]].round(3)
    if components == "cartesian":
        frame, particles, cut = cartesian(frame, {"1": 0.1, "2": 0.1}), CARTESIAN, "pt(b) > 20"
    table = EventTable.of(frame)
    cuts = Cuts.parse([cut], None, read_particles(particles))
    chosen, turn = particle_coordinates(table, particles, cuts=cuts)
    assert "a_b_mass" in chosen.names
    assert "b_pt" not in chosen.names
    transform = TableTransform(coordinates=chosen, turn=turn).fit(table)
    back = transform.inverse(transform.forward(table))
    back = transform.turned(back, turn.angle(table.by_name()))
    np.testing.assert_allclose(back, table.x, rtol=1e-9, atol=1e-9)
    model = FlowBDT(**SMALL, particles=particles, require=[cut], rejection=True).fit(frame)
    new = model.sample(800, random_state=2)
    widths = [
        np.diff(np.quantile(mass_of(f, particles, "a", "b"), [0.16, 0.84])) for f in (new, frame)
    ]
    assert 0.9 < widths[0] / widths[1] < 1.1
    if components == "decimals":
        assert (new.pt2 == new.pt2.round(3)).all()


@pytest.mark.slow
def test_real_electron_pairs_have_the_mass_of_their_own_four_vectors():
    """As nobody declared anything, with the mass as a column: what a physicist draws first."""
    frame = ZToEE().load().to_frame()
    smooth = [name for name in frame if name[:2] in ("pt", "et", "ph")]
    frame[smooth] = frame[smooth].astype(float)
    particles = proposed_particles(tuple(frame))
    frame["M"] = mass_of(frame, particles, *particles)
    train, test = frame[:9400], frame[9400:]
    new = FlowBDT(random_state=1).fit(train).sample(9400)
    mass = mass_of(new, particles, *particles)
    assert np.abs(new["M"] / mass - 1).max() < 1e-4
    assert ((mass > 60) & (mass < 120)).all()
    near = [((m > 86) & (m < 96)).mean() for m in (mass, test["M"])]
    away = [(np.cos(each["phi1"] - each["phi2"]) < np.cos(2.8)).mean() for each in (new, test)]
    assert abs(near[0] - near[1]) < 0.02
    assert abs(away[0] - away[1]) < 0.02
    assert new[["pt1", "pt2"]].min().min() > 25


def test_other_pairs_and_edges_that_would_be_lost_keep_their_momenta():
    near = pairs(1500)  # balanced in pT, no resonance
    free = near.assign(pt2=np.random.default_rng(1).permutation(near.pt1))
    for frame, cut in ((near, "pt2 > 1"), (free, "pt2 > 1"), (resonance(), "pt2 > 2")):
        chosen, _ = particle_coordinates(EventTable.of(frame), POLAR, cuts=Cuts.parse([cut]))
        assert chosen.names == ("b_deltaphi",)
    mixed = EventTable.of(resonance(background=0.4))
    chosen, _ = particle_coordinates(mixed, POLAR, cuts=Cuts.parse(["pt2 > 20"]))
    assert "a_b_mass" in chosen.names


def test_azimuths_from_zero_on_keep_their_range_in_single_events_too(tmp_path):
    frame = pairs().drop(columns="q")
    frame[["phi1", "phi2"]] %= 2 * np.pi
    model = FlowBDT(**SMALL, particles=POLAR, rejection=True, require=[]).fit(frame)
    new = model.sample(300, random_state=1)
    model.save(tmp_path / "m.flowbdt")
    packed = open_sampler(tmp_path / "m.flowbdt", random_state=1)
    for sampler in (model.sampler(random_state=1), packed):
        assert sampler._event is not None  # one call of the core
        assert np.array_equal([sampler.one().copy() for _ in range(20)], new[:20])
    assert new[["phi1", "phi2"]].min().min() >= 0
    assert np.pi < new[["phi1", "phi2"]].max().min() <= 2 * np.pi


def test_a_particle_may_be_missing_as_a_whole_only():
    frame = pairs()
    gone = np.random.default_rng(1).random(len(frame)) < 0.3
    frame.loc[gone, ["pt2", "eta2", "phi2"]] = np.nan
    new = FlowBDT(**SMALL, particles=POLAR).fit(frame).sample(1000, random_state=1)
    missing = new[["pt2", "eta2", "phi2"]].isna()
    assert (missing.sum(axis=1) % 3 == 0).all()
    assert abs(missing["pt2"].mean() - 0.3) < 0.05
    frame.loc[0, "eta2"], frame.loc[0, "pt2"] = 1.0, np.nan
    table = EventTable.of(frame, missing=True)
    with pytest.warns(DataWarning, match="'b' is learned .* known in some rows where others"):
        chosen, turn = particle_coordinates(table, POLAR)
    assert not len(chosen)
    assert not turn  # phi2, as it stands, follows phi1


def test_given_azimuths_are_kept_or_refused(fitted):
    model, _ = fitted
    new = model.sample(20, given={"phi1": [1.0], "phi2": [-2.0]}, random_state=1)
    assert (new["phi1"] == 1).all()
    assert (new["phi2"] == -2).all()
    assert np.abs(new["M"] / mass_of(new, POLAR, "a", "b") - 1).max() < 1e-6
    alone = model.sample(300, given={"phi2": [1.0]}, random_state=1)  # any event is turned to it
    assert (alone["phi2"] == 1).all()
    away, drawn = (np.cos(f.phi1 - f.phi2).mean() for f in (alone, model.sample(300)))
    assert abs(away - drawn) < 0.05
    assert np.abs(alone["M"] / mass_of(alone, POLAR, "a", "b") - 1).max() < 1e-6
    with pytest.warns(DataWarning, match="'phi2' in 5 of 5 .* -3.14159 to 3.14159"):
        model.sample(5, given={"phi1": [1.0], "phi2": [180.0]})


def test_an_azimuth_without_that_of_the_first_needs_other_angles_unknown():
    frame = pairs()
    frame["phi3"] = np.angle(np.exp(1j * (frame.phi1 + 1 + frame.eta1 / 3)))
    three = {**POLAR, "c": {"pt": "pt2", "eta": "eta2", "phi": "phi3", "mass": 0}}
    three["c"] |= {"pt": "pt3", "eta": "eta3"}
    frame[["pt3", "eta3"]] = frame[["pt2", "eta1"]] + 0.5
    model = FlowBDT(**SMALL, particles=three).fit(frame)
    with pytest.raises(InputError, match="'phi2' is given without 'phi1' .* coordinates='columns'"):
        model.sample(given={"phi2": [1.0], "phi3": [0.0]})


def test_azimuths_in_degrees_are_refused():
    frame = pairs()
    frame[["phi1", "phi2"]] = np.degrees(frame[["phi1", "phi2"]]) % 360
    said = "'a': angles are in radians, but 'phi1' goes from"
    with pytest.raises(InputError, match=said):
        FlowBDT(**SMALL, particles=POLAR).fit(frame)
    with pytest.raises(InputError, match=said):
        evaluate(frame, frame, particles=POLAR, metrics=["separation"])
    padded = pairs()
    padded.loc[padded.index % 3 > 0, ["phi2", "pt2"]] = -99.0, 0.0
    check_azimuths(read_particles(POLAR), padded)


def test_columns_equal_to_what_coordinates_compute_stay_so():
    frame, rng = pairs(), np.random.default_rng(1)
    frame["copy"] = frame.phi2
    frame["part"] = np.where(rng.random(len(frame)) < 0.3, frame.phi2, 9.0)
    new = FlowBDT(**SMALL, particles=POLAR).fit(frame).sample(400, random_state=1)
    assert (new["copy"] == new["phi2"]).all()
    assert ((new["part"] == new["phi2"]) | (new["part"] == 9)).all()
    assert 0.2 < (new["part"] == 9).mean() < 1


def test_few_pseudorapidities_and_names_that_are_taken_are_no_obstacle():
    frame, rng = pairs(), np.random.default_rng(1)
    frame = frame[["pt1", "eta1", "phi1"]].assign(mass=rng.gamma(4, 1, len(frame)))
    particles = {"a": {**POLAR["a"], "E": "E1"}}
    del particles["a"]["mass"]
    table = frame.assign(E1=np.hypot(frame.pt1 * np.cosh(frame.eta1), frame.mass), x=2 * frame.mass)
    known = {"a_mass": frame.mass.to_numpy()}  # the name of a learned column, too
    model = FlowBDT(**SMALL, particles=particles, relations=["x = a_mass * 2"], relative=None)
    model.fit(table.drop(columns="mass"), cond=known)
    new = model.sample(900, cond=known, random_state=1)
    assert np.allclose(new["x"], table["x"])
    few = frame.assign(eta1=frame.eta1.round())
    few["E1"] = np.hypot(few.pt1 * np.cosh(few.eta1), few.mass)
    table = EventTable.of(few.drop(columns="mass"))
    with pytest.warns(DataWarning, match="'eta1' has integral values"):
        chosen, _ = particle_coordinates(table, particles)
    assert not len(chosen)


def test_what_is_declared_otherwise_stays_as_it_is():
    table = EventTable.of(pairs())
    for left in (["phi2"], ["phi1"]):
        assert not len(particle_coordinates(table, POLAR, left)[0])
    assert "coordinates" not in ModelConfig().digestible()
    assert ModelConfig(particles=POLAR).digestible()["coordinates"] == "particles"
    small = FlowBDT(**SMALL, particles=POLAR, observables=[], coordinates="columns").fit(table)
    plain = FlowBDT(**SMALL, particles=None).fit(table)
    assert np.array_equal(small.sample(50, random_state=1).x, plain.sample(50, random_state=1).x)
    with pytest.raises(ConfigError, match="coordinates"):
        FlowBDT(coordinates="polar").fit(table)


@pytest.mark.parametrize(
    ("learned", "relations", "said"),
    [
        (["pt1 = eta1 + 1"], [], "'pt1' is taken"),
        (["r = hypot(pt1, x)"], [], "unknown column 'x'"),
        (["r = pt1 / pt2"], ["r = pt1"], "must compute a column of the table"),
        (["r = pt1 / pt2"], ["pt1 = r * pt2", "pt2 = pt1 / r"], "circle"),
    ],
)
def test_contradictory_coordinates_are_refused(learned, relations, said):
    with pytest.raises(ConfigError, match=said):
        Coordinates.parse(learned, relations, EventTable.of(pairs(10)).names)


def test_coordinates_that_do_not_give_a_table_back_are_refused():
    frame = pairs()
    table = EventTable.of(frame.assign(same=frame["pt1"]))
    wrong = Coordinates.parse(["r = pt1 / pt2"], ["pt1 = r + pt2"], table.names)
    with pytest.raises(InputError, match="does not hold"):
        TableTransform(coordinates=wrong).fit(table)
    right = Coordinates.parse(["r = pt1 / pt2"], ["pt1 = r * pt2"], table.names)
    with pytest.raises(ConfigError, match="computed by a relation"):
        TableTransform(relations=["pt1 = same + 0"], coordinates=right).fit(table)
