"""Trees and another field on one trajectory: relays, piecewise fields, Restart by trees."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from conftest import PLAIN, QUICK
from exact_gaussian import ExactGaussian

from flowbdt.errors import ConfigError, GridError, InputError
from flowbdt.flow.fields import FunctionField
from flowbdt.flow.paths import Linear
from flowbdt.flow.solvers import SOLVERS, evaluation_times, integrate
from flowbdt.networks.hybrid import (
    Corrector,
    Leg,
    PiecewiseField,
    Relay,
    Restarted,
    choose_handover,
    choose_restart_interval,
    compare_fields,
    handover,
    restart_by_trees,
    shared_steps,
    stretch,
    train_trees,
    tree_field,
    warm_start,
)

MEAN, COV = np.array([1.0, -1.0]), np.array([[1.5, 0.4], [0.4, 0.5]])
EXACT = ExactGaussian(MEAN, COV, Linear())
SETTINGS = {**PLAIN, "booster": QUICK, "random_state": 1, "transforms": "standard"}
SETTINGS["noise"] = {**PLAIN["noise"], "n_repeats": 4}


def noise(n: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 2))


def assert_gaussian(x: np.ndarray) -> None:
    """Mean and covariance within 5 standard errors."""
    n = len(x)
    assert (np.abs(x.mean(axis=0) - MEAN) < 5 * np.sqrt(np.diag(COV) / n)).all()
    error = np.sqrt((np.outer(np.diag(COV), np.diag(COV)) + COV**2) / n)
    assert (np.abs(np.cov(x.T) - COV) < 5 * error).all()


class Known(ExactGaussian):
    """The exact field at some times only, as trees are."""

    def __init__(self, times):
        super().__init__(MEAN, COV, Linear())
        self.times = np.asarray(times)

    def __call__(self, t, x, cond=None):
        self.require([t])
        return super().__call__(t, x, cond)


def test_a_stretch_is_a_part_of_its_schedule():
    np.testing.assert_allclose(stretch("uniform", 4, 0.2, 1.0), [0.2, 0.4, 0.6, 0.8, 1.0])
    fine = stretch({"name": "power", "exponent": 2.0}, 8, 0.0, 1.0)
    part = stretch({"name": "power", "exponent": 2.0}, 4, float(fine[4]), 1.0)
    np.testing.assert_allclose(part, fine[4:], atol=1e-5)
    edm = stretch("edm", 6, 0.0, 0.9)
    assert (edm[0], edm[-1]) == (0.0, 0.9)
    assert (np.diff(edm) > 0).all()


def test_steps_are_shared_by_length():
    assert shared_steps([0.0, 0.5, 1.0], 8) == [4, 4]
    assert shared_steps([0.0, 0.75, 1.0], 8) == [6, 2]
    assert shared_steps([0.0, 0.99, 1.0], 4) == [3, 1]
    with pytest.raises(ConfigError, match="at least 3"):
        shared_steps([0.0, 0.3, 0.6, 1.0], 2)


@pytest.mark.parametrize("order", [("trees", "network"), ("network", "trees")])
def test_legs_that_meet_at_a_handover_are_one_integration(order):
    """Either order of one field: the handover has no effect."""
    relay = Relay(handover(EXACT, EXACT, 0.5, names=order, n_steps=(3, 3)))
    x0 = noise(30)
    found = relay.run(x0)
    whole = integrate(SOLVERS.build("heun"), EXACT, x0, np.linspace(0.0, 1.0, 7))
    np.testing.assert_allclose(found.x, whole.x, rtol=1e-12)
    assert found.n_evaluations == relay.n_evaluations == dict.fromkeys(order, 6)


def test_each_leg_asks_its_own_field():
    up, down = FunctionField(lambda t, x, c: x * 0 + 1.0), FunctionField(lambda t, x, c: x * 0 - 1)
    end = Relay(handover(up, down, 0.75)).run(np.zeros((2, 1))).x
    np.testing.assert_allclose(end, 0.5)


def test_legs_with_a_gap_are_refused():
    legs = [Leg("a", EXACT, "euler", [0.0, 0.4]), Leg("b", EXACT, "euler", [0.5, 1.0])]
    with pytest.raises(ConfigError, match="let them meet"):
        Relay(legs)
    with pytest.raises(ConfigError, match="rise"):
        Leg("a", EXACT, "euler", [1.0, 0.0])
    silent = FunctionField(lambda t, x, c: x)
    with pytest.raises(ConfigError, match="path"):
        Relay([Leg("a", EXACT, "euler", [0.0, 0.4]), Leg("b", silent, "euler", [0.3, 1.0])])


def test_trees_are_asked_at_their_times_only():
    grid = stretch("uniform", 3, 0.0, 0.6)
    known = Known(evaluation_times(SOLVERS.build("midpoint"), grid))
    legs = [Leg("trees", known, "midpoint", grid), Leg("network", EXACT, "heun", [0.6, 1.0])]
    assert np.isfinite(Relay(legs).run(noise(5)).x).all()
    with pytest.raises(GridError):
        Relay([Leg("trees", known, "heun", grid), *legs[1:]]).run(noise(5))


def test_restart_by_trees_asks_the_network_once_per_level():
    lines = {Restarted(0.1, 0.6, k=3, steps=4): EXACT, Restarted(1.0, 2.0, k=2, steps=2): EXACT}
    relay = Relay(restart_by_trees(EXACT, lines, n_steps=9, tree_solver="euler"))
    assert relay.n_evaluations == {"network": 18, "trees": 3 * 4 + 2 * 2}
    times = [leg.boundaries for leg in relay.legs if leg.name == "network"]
    for before, after in itertools.pairwise(times):
        assert before[-1] == after[0]  # no level twice
    assert (times[0][0], times[-1][-1]) == (0.0, 1.0)


def test_restart_by_trees_keeps_the_distribution():
    line = Restarted(0.2, 1.0, k=2, steps=30)
    descent = line.times()
    ratios = (1 - descent[[0, -1]]) / descent[[0, -1]]
    np.testing.assert_allclose(ratios, [1.0, 0.2])
    known = Known(evaluation_times(SOLVERS.build("heun"), descent))
    relay = Relay(restart_by_trees(EXACT, {line: known}, n_steps=60))
    x0 = noise(6000)
    found = relay.run(x0, rng=np.random.default_rng(3)).x
    assert_gaussian(found)
    plain = integrate(SOLVERS.build("heun"), EXACT, x0, np.linspace(0, 1, 61)).x
    assert np.abs(found - plain).mean() > 0.05  # noise was really added


def test_restart_repairs_what_the_network_got_wrong_above():
    """A network that is wrong above the interval: good trees inside it bring points back."""
    wrong = PiecewiseField(
        [FunctionField(lambda t, x, c: EXACT(t, x) + 1.0, path=Linear()), EXACT], [0.4]
    )
    x0, rng = noise(4000), np.random.default_rng(3)
    line = Restarted(0.3, 3.0, k=4, steps=20)
    repaired = Relay(restart_by_trees(wrong, {line: EXACT}, n_steps=20)).run(x0, rng=rng).x
    plain = integrate(SOLVERS.build("heun"), wrong, x0, np.linspace(0, 1, 21)).x
    shift = [float(np.abs(x.mean(axis=0) - MEAN).max()) for x in (plain, repaired)]
    assert shift[1] < 0.25 * shift[0]


def test_warm_start_climbs_and_lets_the_network_finish():
    shifted = ExactGaussian(MEAN + 0.3, COV, Linear())
    trees = Leg("trees", shifted, "heun", np.linspace(0, 1, 21))
    relay = Relay(warm_start(trees, EXACT, 0.3, n_steps=12))
    assert relay.n_evaluations == {"trees": 40, "network": 24}
    found = relay.run(noise(8000), rng=np.random.default_rng(4)).x
    # flows of Gaussians are affine, so they carry means to means
    start = 0.3 * (MEAN + 0.3)[None]
    expected = integrate(SOLVERS.build("heun"), EXACT, start, relay.legs[1].boundaries).x[0]
    assert (np.abs(found.mean(axis=0) - expected) < 5 * np.sqrt(np.diag(COV) / 8000)).all()
    assert (np.abs(expected - MEAN) < 0.2).all()  # of the 0.3 that the trees were wrong


def test_pieces_serve_any_solver_in_one_go():
    pieces = PiecewiseField([EXACT, EXACT, EXACT], [0.3, 0.7])
    x0, grid = noise(10), np.linspace(0.0, 1.0, 11)
    for name in ("heun", "dpm_solver_pp_2m", "edm"):
        solver = SOLVERS.build(name)
        expected = integrate(solver, EXACT, x0, grid)
        np.testing.assert_allclose(integrate(solver, pieces, x0, grid).x, expected.x)
    assert min(pieces.n_evaluations) > 0


def test_a_handover_belongs_to_the_later_piece():
    one, two = (FunctionField(lambda t, x, c, v=v: x * 0 + v) for v in (1.0, 2.0))
    pieces = PiecewiseField([one, two], [0.5])
    asked = [float(pieces(t, np.zeros((1, 1)))[0, 0]) for t in (0.0, 0.4999, 0.5, 0.50001, 1.0)]
    assert asked == [1.0, 1.0, 2.0, 2.0, 2.0]
    assert pieces.n_evaluations == [2, 3]


def test_pieces_check_times_before_the_start():
    pieces = PiecewiseField([Known([0.0, 0.25]), EXACT], [0.5])
    heun = SOLVERS.build("heun")
    assert np.isfinite(integrate(heun, pieces, noise(3), [0.0, 0.25, 0.5, 0.8, 1.0]).x).all()
    with pytest.raises(GridError):
        integrate(heun, pieces, noise(3), [0.0, 0.3, 0.5, 1.0])
    with pytest.raises(GridError):
        integrate(SOLVERS.build("dormand_prince_adaptive"), pieces, noise(3), [0.0, 1.0])
    with pytest.raises(ConfigError, match="handovers"):
        PiecewiseField([EXACT, EXACT], [])


def test_comparison_finds_where_a_field_is_as_good():
    """The second half of the times is spoilt; the handover is the last good one."""
    late = FunctionField(lambda t, x, c: EXACT(t, x) + (0.3 if t > 0.45 else 0.0), path=Linear())
    z = MEAN + noise(4000, 5) @ np.linalg.cholesky(COV).T
    times = np.linspace(0.1, 0.9, 9)
    found = compare_fields(late, EXACT, z, times, seed=1)
    assert found.first_above() == pytest.approx(0.4)
    assert found.first_below() == 1.0
    np.testing.assert_allclose(found.ratios, (1 - times) / times)
    spoilt = times > 0.45
    np.testing.assert_allclose(found.difference[spoilt], 0.09, atol=5 * found.error[spoilt].max())
    early = FunctionField(lambda t, x, c: EXACT(t, x) + (0.3 if t < 0.45 else 0.0), path=Linear())
    assert compare_fields(early, EXACT, z, times).first_below() == pytest.approx(0.5)
    assert compare_fields(early, EXACT, z, times).first_above() == 0.0
    assert compare_fields(EXACT, EXACT, z, times).first_above() == pytest.approx(0.9)


def test_handover_and_interval_are_chosen_where_the_first_field_is_good():
    z = MEAN + noise(4000, 5) @ np.linalg.cholesky(COV).T
    grid = np.arange(17) / 16
    good = FunctionField(lambda t, x, c: EXACT(t, x) + 0.4 * (t < 0.7), times=grid, path=Linear())
    assert choose_handover(good, EXACT, z) == 0.0
    assert choose_handover(good, EXACT, z, below=True) == 0.75
    found = compare_fields(good, EXACT, z, grid[1:-1])
    low, high = choose_restart_interval(found)
    assert low == pytest.approx(1 / 7)  # t = 14 / 16; the next one is 1 / 15 < 0.1
    assert high == pytest.approx(1 / 3)  # t = 12 / 16
    never = FunctionField(lambda t, x, c: EXACT(t, x) + 0.4, times=grid, path=Linear())
    assert choose_handover(never, EXACT, z, below=True) == 1.0
    assert choose_restart_interval(compare_fields(never, EXACT, z, grid[1:-1])) is None


def test_trees_are_trained_for_just_the_times_of_a_leg():
    x = MEAN + noise(300, 6) @ np.linalg.cholesky(COV).T
    line = Restarted(0.2, 1.0, steps=2)
    model = train_trees(x, "heun", line.times(), **SETTINGS)
    field = tree_field(model)
    np.testing.assert_allclose(field.times, evaluation_times(SOLVERS.build("heun"), line.times()))
    relay = Relay(restart_by_trees(EXACT, {line: field}, n_steps=4))
    table = relay.sample(model, 50, random_state=3)
    assert table.x.shape == (50, 2)
    again = relay.sample(model, 20, random_state=3)
    np.testing.assert_array_equal(table.x[:20], again.x)


def test_corrector_learns_what_few_steps_get_wrong():
    x0, heun = noise(3000), SOLVERS.build("heun")
    few, many = (integrate(heun, EXACT, x0, np.linspace(0, 1, n)).x for n in (2, 21))
    booster = {"n_estimators": 40, "max_depth": 4}
    corrector = Corrector(booster).fit(x0[:2000], few[:2000], many[:2000])
    legs = [Leg("network", EXACT, "heun", [0.0, 1.0])]
    found = Relay(legs, corrector).run(x0[2000:])
    errors = [float(np.mean((x - many[2000:]) ** 2)) for x in (few[2000:], found.x)]
    assert errors[1] < 0.2 * errors[0]
    assert found.n_evaluations == {"network": 2}
    with pytest.raises(ConfigError, match="fit"):
        Corrector()(x0, few)
    with pytest.raises(InputError, match="same"):
        Corrector().fit(x0, few[:5], many)
