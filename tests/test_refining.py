"""Corrections of a sample to a better one, where the answer is known in closed form."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import run

from flowbdt.errors import ConfigError, InputError
from flowbdt.physics.refinement import refine
from flowbdt.tables.event_table import EventTable
from flowbdt.tables.formats import read_table, write_table

FLOW = {
    "preset": "fast",
    "n_steps": 4,
    "preconditioner": "gaussian",
    "rejection": False,
    "noise": {"candidates": 0, "n_repeats": 1},
    "booster": {"n_estimators": 10},
}
N = 4000
SHIFT, SCALE = np.array([0.5, -0.4]), np.array([1.3, 0.8])


def samples(seed: int = 1):
    """Standard normal events, and independent ones shifted and scaled, with a condition that
    differs in its distribution and moves both alike."""
    rng = np.random.default_rng(seed)
    energy = rng.uniform(0, 1, N), rng.beta(2, 1, N)
    z = rng.standard_normal((2, N, 2))
    simulation = z[0] + energy[0][:, None]
    better = SHIFT + SCALE * z[1] + energy[1][:, None]
    return tuple(
        EventTable.of(np.column_stack([x, e]), ["a", "b", "energy"])
        for x, e in zip((simulation, better), energy, strict=True)
    )


def test_weights_are_the_ratio_of_densities_and_leave_the_conditions():
    simulation, better = samples()
    refined = refine(simulation, better, conditions=["energy"])
    z = simulation.x[:, :2] - simulation.x[:, 2:]
    exact = (z**2 / 2 - ((z - SHIFT) / SCALE) ** 2 / 2 - np.log(SCALE)).sum(axis=1)
    assert np.corrcoef(np.log(refined.weight), exact)[0, 1] > 0.85
    energy, weight = refined.cond[:, 0], refined.weight
    effective = weight.sum() ** 2 / (weight**2).sum()
    assert weight.sum() == pytest.approx(N)
    assert abs(np.average(energy, weights=weight) - 0.5) < 4 * 0.29 / np.sqrt(effective)
    np.testing.assert_array_equal(refined.column("a"), simulation.column("a"))
    other = refine(simulation, better, new=samples(5)[0], conditions=["energy"])
    assert np.average(other.column("a"), weights=other.weight) == pytest.approx(1.0, abs=0.1)
    free = refine(simulation, better)  # the energy is then a column as others
    assert np.average(free.column("energy"), weights=free.weight) == pytest.approx(2 / 3, abs=0.03)


def test_transport_moves_every_event_as_the_shortest_way_would():
    """Between normal distributions it is the shift and scale of each column."""
    simulation, better = samples()
    moved = refine(simulation, better, "transport", conditions=["energy"], flow=FLOW)
    energy = simulation.x[:, 2:]
    exact = SHIFT + SCALE * (simulation.x[:, :2] - energy) + energy
    off = np.sqrt(((moved.x - exact) ** 2).mean(axis=0)) / SCALE
    assert (off < 0.25).all()  # 0.6 and 0.5 before
    np.testing.assert_array_equal(moved.cond, energy)


@pytest.mark.parametrize("method", ["pairs", "conditions"])
def test_pairs_give_the_partner_given_the_event(method):
    rng = np.random.default_rng(2)
    x = rng.standard_normal((N, 1))
    partner = 1 + 0.6 * x + 0.8 * rng.standard_normal((N, 1))
    tables = [EventTable.of(values, ["a"]) for values in (x, partner)]
    refined = refine(*tables, method, flow=FLOW).x[:, 0]
    assert refined.mean() == pytest.approx(1.0, abs=0.1)
    assert refined.std() == pytest.approx(1.0, abs=0.1)
    # from noise as much is left open as there is; a flow from the event itself decides all
    expected = {"pairs": 1.0, "conditions": 0.6}[method]
    assert np.corrcoef(refined, x[:, 0])[0, 1] == pytest.approx(expected, abs=0.08)


def test_what_does_not_fit_is_refused_before_anything_is_learned():
    simulation, better = samples()
    with pytest.raises(InputError, match="4000 simulated and 10 better ones.*'weights'"):
        refine(simulation, better.take(slice(0, 10)), "pairs")
    with pytest.raises(InputError, match="energy"):
        refine(simulation.select(["a", "b"]), better)
    with pytest.raises(ConfigError, match="Did you mean 'weights'"):
        refine(simulation, better, "weight")


def test_the_command_writes_corrected_events(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    simulation, better = samples()
    write_table("mc.h5", simulation)
    write_table("data.h5", better)
    words = ["refine", "mc.h5", "data.h5", "--condition", "energy", "-o", "corrected.h5"]
    assert run(*words) == 0
    told = capsys.readouterr().out
    assert "worth" in told
    assert "flowbdt evaluate" in told
    found = read_table("corrected.h5")
    expected = refine(simulation, better, conditions=["energy"])
    np.testing.assert_array_equal(found.weight, expected.weight)
    assert run(*words, "--flow", "{n_steps: 3}") == 1
    assert "'weights' has no flow" in capsys.readouterr().err
