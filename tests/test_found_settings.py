"""What a fit takes from the training rows by itself: particles, relations, sharp edges."""

import numpy as np
import pandas as pd
import pytest
from test_particle_coordinates import CARTESIAN, POLAR, SMALL, cartesian, mass_of, pairs, resonance

from flowbdt import EventTable, FlowBDT
from flowbdt.config import ModelConfig
from flowbdt.physics.response.declaration import Stage
from flowbdt.tables.proposals.found_particles import found_particles
from flowbdt.training.plan import Inputs, check_table


def found(frame: pd.DataFrame, cond: pd.DataFrame | None = None, **settings) -> ModelConfig:
    table = EventTable.of(frame, cond=cond, missing=True)
    return Inputs(table, ModelConfig(**settings), 1).with_found().config


def test_particles_relations_and_edges_are_found_and_what_is_given_wins():
    frame = resonance(3500)
    massless = {name: {**spec, "mass": 0} for name, spec in POLAR.items()}
    frame["M"] = mass_of(frame, massless, "a", "b")
    config = found(frame)
    assert list(config.particles) == ["p1", "p2"]
    assert config.particles["p1"] == {"pt": "pt1", "eta": "eta1", "phi": "phi1", "mass": 0}
    assert config.relations == ["M = mass(p1, p2)"]
    assert {"pt1 > 25", "pt2 > 20"} <= set(config.require)
    assert found(frame[:1500]).require == []  # too few rows to be sure of an edge
    assert found(frame, particles={}, relations=[], require=[]) == ModelConfig().with_none_found()
    given = found(frame, particles=POLAR, require=["pt2 > 19"])
    assert given.particles == POLAR
    assert given.require == ["pt2 > 19"]
    assert given.relations == ["M = mass(a, b)"]


def test_a_fit_holds_what_it_found_and_says_so():
    frame = pairs(1000).assign(pt2=lambda f: f.pt1 - 3 * np.abs(f.eta2))
    frame["E1"] = frame.pt1 * np.cosh(frame.eta1)
    model = FlowBDT(**SMALL).fit(frame)
    settings = model.flow().settings
    assert settings["particles"]["p1"]["E"] == "E1"
    assert settings["observables"] == ["mass_p1_p2 = mass(p1, p2)", "deltaR_p1_p2 = deltaR(p1, p2)"]
    new = model.sample(500, random_state=1)
    assert np.allclose(new.E1, new.pt1 * np.cosh(new.eta1))  # by coordinates, not by a relation
    assert "phi2 = deltaphi(p2_deltaphi + phi1" in "\n".join(model.transform_.describe())
    assert "p1 (E E1, eta eta1, phi phi1, pt pt1); p2" in model.summary()
    assert "(none with particles={})" in model.summary()
    given = FlowBDT(**SMALL, **{name: settings[name] for name in ("particles", "relations")})
    assert given.fit(frame).archive_ == model.archive_


def standardised(frame: pd.DataFrame) -> pd.DataFrame:
    return (frame - frame.mean()) / frame.std()


@pytest.mark.parametrize(
    "change",
    [
        lambda f: f.assign(phi1=np.degrees(f.phi1), phi2=np.degrees(f.phi2)),
        standardised,
        lambda f: f.assign(phi1=f.eta1, phi2=f.eta2),
        lambda f: f.assign(pt1=f.pt1.where(f.q > 0, -999.0), pt2=f.pt2.where(f.q > 0)),
        lambda f: f.assign(eta1=100 * f.eta1, eta2=100 * f.eta2),
        lambda f: f.assign(E1=f.pt1, E2=1e3 * f.pt2 * np.cosh(f.eta2)),
        lambda f: f[:90],
    ],
)
def test_names_whose_numbers_do_not_fit_are_left_alone(change):
    config = found(change(pairs()))
    assert config.particles == {}
    assert config.require == []


def test_energies_are_those_of_their_own_events():
    frame = cartesian(pairs(), {"1": 0.1, "2": 0.1})
    assert found_particles(EventTable.of(frame)) == {
        f"p{i}": spec for i, spec in zip("12", CARTESIAN.values(), strict=True)
    }
    others = frame.assign(E1=frame.E1.to_numpy()[::-1])
    assert list(found_particles(EventTable.of(others))) == ["p2"]


def test_names_of_found_particles_are_free():
    frame = pairs().rename(columns={"pt1": "in_pt", "eta1": "in_eta", "phi1": "in_phi"})
    frame = frame.rename(columns={"pt2": "b-jet_pt", "eta2": "b-jet_eta", "phi2": "b-jet_phi"})
    frame = frame.rename(columns={"q": "in_"})
    config = found(frame)
    assert list(config.particles) == ["in__", "pb_jet"]
    check_table(Inputs(EventTable.of(frame), config, 1).settled())


def test_particles_that_are_missing_as_a_whole_and_conditions():
    frame = resonance(5000)
    frame.loc[::4, ["pt2", "eta2", "phi2"]] = np.nan
    config = found(frame)
    assert "isnan(pt2) or pt2 > 20" in config.require
    check_table(Inputs(EventTable.of(frame, missing=True), config, 1).settled())
    response = found(frame[["pt1", "eta1", "phi1"]], cond=frame[["q"]])
    assert response.particles == {}
    stage = Stage("Jet", "properties", "Jet", ("pt", "eta", "phi"), (), {"n_steps": 4})
    assert stage.config() == ModelConfig(n_steps=4).with_none_found()


@pytest.mark.parametrize("unit", [0.0, 1e-3, 1.0])
def test_what_is_left_of_large_numbers_is_no_rounding(unit):
    """The end of an interval is not its beginning, although it is to one part in 1e9."""
    rng = np.random.default_rng(0)
    start, lasts = 1.7e9 + rng.uniform(0, 3600, 2000), 0.2 + rng.exponential(2.0, 2000)
    if unit:
        start, lasts = (unit * np.rint(values / unit) for values in (start, lasts))
    frame = pd.DataFrame({"start": start, "stop": start + lasts})
    assert found(frame).relations == []
    assert found(frame.assign(lasts=lasts)).relations == ["lasts = abs(start - stop)"]


def test_of_columns_that_conditions_determine_one_is_learned():
    a, b = np.random.default_rng(0).normal(size=(2, 400))
    cond = pd.DataFrame({"a": a, "b": b})
    config = found(pd.DataFrame({"c": 2 * a, "d": a * b, "one": 1.0}), cond=cond)
    assert config.relations == ["c = 2 * a"]
    assert found(pd.DataFrame({"one": np.ones(400)})).relations == []
