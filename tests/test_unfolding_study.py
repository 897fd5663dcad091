"""The methods of the unfolding study against closed forms, its scores and pseudo-experiments."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.unfolding import closure, pseudo_experiments, scores
from experiments.unfolding.classical import (
    Trees,
    bayes_weights,
    iterated_posteriors,
    omnifold,
)
from experiments.unfolding.samples import Coordinates, made_up
from experiments.unfolding.summary import against
from flowbdt.physics.jets.omnifold_files import NO_GROOMED_MASS, SIX

N, SHIFT, SMEAR = 6000, 0.5, 0.5
TREES = Trees(n_trees=40, max_depth=2)


def pairs(mean: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Truth N(mean, 1) and what a detector of resolution SMEAR sees of it, (n, 1) each."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(mean, 1.0, (N, 1))
    return truth, truth + rng.normal(0.0, SMEAR, (N, 1))


def weighted_mean(x: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """Return the mean and its standard error, that of the data's mean included."""
    mean = np.average(x, weights=weight)
    size = weight.sum() ** 2 / (weight**2).sum()
    return float(mean), float(np.sqrt(1 / size + (1 + SMEAR**2) / N))


def test_omnifold_finds_a_shifted_gaussian():
    (gen, sim), (_, data) = pairs(0.0, 1), pairs(SHIFT, 2)
    weight = omnifold(gen, sim, data, 4, TREES, from_start=False, seed=3)[-1]
    mean, error = weighted_mean(gen[:, 0], weight)
    assert abs(mean - SHIFT) < 5 * error
    assert abs(gen.mean() - SHIFT) > 5 * error  # there was something to do


def test_omnifold_leaves_equal_samples_as_they_are():
    (gen, sim), (_, data) = pairs(0.0, 1), pairs(0.0, 2)
    for from_start in (True, False):
        weight = omnifold(gen, sim, data, 2, TREES, from_start=from_start, seed=3)[-1]
        mean, error = weighted_mean(gen[:, 0], weight)
        assert abs(mean) < 5 * error


def test_bayes_in_bins_finds_a_shifted_gaussian():
    (gen, sim), (_, data) = pairs(0.0, 1), pairs(SHIFT, 2)
    weight = bayes_weights(gen, sim, data, n_iterations=8)[:, 0]
    mean, error = weighted_mean(gen[:, 0], weight)
    assert abs(mean - SHIFT) < 5 * error


def test_changed_prior_moves_exact_posteriors_to_the_truth():
    (gen, _), (_, data) = pairs(0.0, 1), pairs(SHIFT, 2)
    gain = 1 / (1 + SMEAR**2)  # posterior of the prior N(0, 1)
    noise = np.random.default_rng(5).normal(0, np.sqrt(1 - gain), (4, N, 1))
    draws = gain * data[None] + noise
    weights = iterated_posteriors(draws, gen, 3, TREES, 7)
    means = [np.average(draws[:, :, 0], weights=w) for w in (np.ones((4, N)), *weights)]
    error = np.sqrt((1 + SMEAR**2 + (1 - gain)) / N)
    assert abs(means[0] - gain * SHIFT) < 5 * error
    assert abs(means[-1] - SHIFT) < 5 * error
    np.testing.assert_allclose(weights[-1].mean(axis=0), 1.0)


def test_early_stop_keeps_trees_few_where_there_is_nothing_to_learn():
    rng = np.random.default_rng(1)
    x, y, ones = rng.normal(size=(2000, 2)), rng.normal(size=(2000, 2)), np.ones(2000)
    trees = Trees(n_trees=300, max_depth=4, least_weight=1.0)
    free = trees.ratio(x, y, ones, ones, 1)(x)
    stopped = Trees(300, 4, least_weight=1.0, patience=5).ratio(x, y, ones, ones, 1)(x)
    assert np.log(stopped).std() < 0.5 * np.log(free).std()


# ---- coordinates


def test_empty_jets_are_empty_in_both_columns_after_the_way_back():
    table = made_up(500, 1, 0.0)
    coordinates = Coordinates(table, 1)
    learned = coordinates.events(table)
    empty = table.column("ln_rho") == NO_GROOMED_MASS
    assert empty.any()
    assert (learned.column("z_g") > 0).all()
    np.testing.assert_array_equal(coordinates.back(learned.x), table.x)


def test_transport_uses_every_jet_once_and_moves_them_less():
    table = made_up(600, 2, 0.0)
    coordinates = Coordinates(table, 1)
    start, moved = coordinates.detector(table), coordinates.transported(table)
    np.testing.assert_allclose(np.sort(moved.column("width")), np.sort(start.column("width")))
    far = np.abs(start.column("width") - table.column("width")).mean()
    assert np.abs(moved.column("width") - table.column("width")).mean() < far


# ---- scores


def test_distance_of_a_shift_is_the_shift_in_widths():
    x = np.random.default_rng(1).normal(0, 2.0, 1000)
    ones = np.ones(1000)
    assert scores.Distance(x, x + 0.3)(ones, ones) == pytest.approx(0.3 / x.std())
    assert scores.Distance(x, x)(ones, ones) == 0


def test_weights_act_as_repeated_events():
    rng = np.random.default_rng(2)
    x, y, counts = rng.normal(size=300), rng.normal(size=200), rng.integers(0, 4, 200)
    repeated = np.repeat(y, counts)
    ones = np.ones(300)
    for found, expected in (
        (
            scores.Distance(x, y)(ones, counts.astype(float)),
            scores.Distance(x, repeated)(ones, np.ones(len(repeated))),
        ),
        (
            scores.separation(x, y, counts.astype(float)),
            scores.separation(x, repeated, np.ones(len(repeated))),
        ),
    ):
        assert found == pytest.approx(expected)


def test_floor_of_the_separation_is_that_of_counting():
    truth = np.random.default_rng(3).normal(size=(20_000, 6))
    mean, _ = scores.floors(truth, 5000)["separation"]
    expected = 100 * (scores.N_BINS - 1) / (2 * 5000)
    one = expected * np.sqrt(2 / (scores.N_BINS - 1))  # scatter of a chi-squared of 49
    assert np.abs(np.mean(mean) - expected) < 5 * one / np.sqrt(6 * scores.N_FLOORS / 2)


def test_one_draw_per_event_follows_the_weights():
    weight = np.vstack([np.full(9000, 3.0), np.zeros(9000), np.ones(9000)])
    chosen = scores.chosen_draw(weight, 1)
    assert not (chosen == 1).any()
    assert abs((chosen == 0).mean() - 0.75) < 5 * np.sqrt(0.75 * 0.25 / 9000)


def test_difference_of_methods_is_taken_replica_by_replica():
    noise = np.random.default_rng(4).normal(size=(40, 6))
    ours = [{"cross": {"w1": [1.0] * 6, "replicas": (1 + noise).tolist()}}]
    theirs = [{"cross": {"w1": [3.0] * 6, "replicas": (3 + noise).tolist()}}]
    found = against(ours, theirs)
    np.testing.assert_allclose(found["difference"], -2.0)
    np.testing.assert_allclose(found["error"], 0.0, atol=1e-12)


def test_made_up_jets_have_the_columns_of_the_real_ones():
    table = made_up(300, 1, 0.0)
    assert table.names == SIX
    assert table.cond.shape == (300, 6)
    multiplicity = table.column("multiplicity")
    np.testing.assert_array_equal(multiplicity, np.rint(multiplicity))


def test_pseudo_experiments_draw_what_they_say():
    inputs = pseudo_experiments.inputs(800, 1)
    selected = inputs.data.n * (1 - pseudo_experiments.BACKGROUND)
    assert inputs.background_weight.sum() == pytest.approx(inputs.data.n - selected, rel=0.2)
    share = inputs.fakes.sum() / inputs.pass_reco.sum()
    assert share == pytest.approx(pseudo_experiments.FAKES, rel=0.15)
    truth = inputs.truth.x[inputs.pass_truth, 0]
    at = np.abs(truth) < 0.1
    assert inputs.pass_reco[inputs.pass_truth][at].mean() == pytest.approx(0.9, abs=0.06)
    assert pseudo_experiments.expected(1000).sum() < 1000


def test_flags_lose_and_invent_a_tenth():
    table = made_up(4000, 1, 0.0)
    quantiles = np.argsort(np.argsort(table.column("mass"))) / 4000
    true, seen = closure.flags(table, quantiles, 1)
    assert (~seen).mean() == pytest.approx(closure.LOST, abs=0.02)
    assert (~true)[seen].mean() == pytest.approx(closure.FAKES, abs=0.02)
    assert (true | seen).all()
