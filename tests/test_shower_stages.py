"""Stages of the shower model: divided energies, shares, quantiles, axes, layers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtri

from flowbdt.errors import ConfigError, FormatError, InputError
from flowbdt.generation.packed.array_file import file_bytes, named
from flowbdt.generation.packed.pack_steps import pack_trees
from flowbdt.physics.calorimeter.geometry import geometry
from flowbdt.physics.calorimeter.model.compiled_voxels import CompiledVoxels
from flowbdt.physics.calorimeter.model.energy_division import (
    LayerPlan,
    Split,
    ancestors,
    cells,
    divide,
    left_energy,
    share,
    splits,
)
from flowbdt.physics.calorimeter.model.layer_energies import EnergyMarginals, _nodes
from flowbdt.physics.calorimeter.model.sectors import Frames, draw_axes, leaning, windows
from flowbdt.physics.calorimeter.model.voxel_arrays import VoxelArrays
from flowbdt.trees.share_distribution import ConditionalDistribution, DistributionSettings
from flowbdt.trees.tree_arrays import Forest

# --- divisions


@pytest.mark.parametrize("n", [1, 2, 5, 10, 16, 19])
def test_splits_lead_to_every_single_cell_once(n):
    found = splits(n)
    assert len(found) == n - 1
    single = [half for split in found for half in split.halves if half[1] - half[0] == 1]
    assert sorted(single) == ([(i, i + 1) for i in range(n)] if n > 1 else [])
    assert all((0, n) in ancestors(n)[half] for half in single)


def test_share_and_left_energy_are_inverse():
    whole = np.array([1.5, 10.0, 10.0, 10.0, 1e6])
    left = np.array([0.0, 10.0, 1.0 + 1e-5, 7.0, 999_990.0])
    back = left_energy(share(left, whole, 1.0), whole, 1.0)
    np.testing.assert_allclose(back, left, rtol=1e-8)


def test_no_half_is_between_zero_and_the_threshold():
    rng = np.random.default_rng(0)
    whole = rng.uniform(1, 6, 1000)
    left = left_energy(rng.random(1000), whole, 1.0)
    for half in (left, whole - left):
        assert ((half == 0) | (half >= 1.0)).all()


def test_divided_energies_add_up():
    rng = np.random.default_rng(0)
    whole = rng.uniform(0, 50, (40, 3)) * (rng.random((40, 3)) < 0.8)
    segments = {(0, 7): whole}
    for split in splits(7):
        divide(segments, split, rng.random(whole.shape), 0.5)
    found = cells(segments, 7)
    assert (found >= 0).all()
    np.testing.assert_allclose(found.sum(axis=-1), whole, rtol=1e-12)


# --- distributions of shares


def shares(n, seed):
    """Probability of 0 grows with the first feature, the location with the second."""
    rng = np.random.default_rng(seed)
    x = rng.random((n, 2))
    inner = 1 / (1 + np.exp(-(6 * x[:, 1] - 3 + 0.5 * rng.normal(size=n))))
    return x, np.where(rng.random(n) < 0.6 * x[:, 0], 0.0, inner)


@pytest.mark.parametrize("location", [0, 20])
def test_drawn_shares_have_the_conditional_distribution(location):
    x, y = shares(12_000, 1)
    settings = DistributionSettings(location_trees=location, cdf_trees=10)
    fitted = ConditionalDistribution(settings).fit(x, y, seed=1)
    new, _ = shares(12_000, 2)
    drawn = fitted.sample(new, np.random.default_rng(3).random(len(new)))
    for low in (0.0, 0.5):
        for column in (0, 1):
            real, fake = (
                values[(at[:, column] >= low) & (at[:, column] < low + 0.5)]
                for at, values in ((x, y), (new, drawn))
            )
            error = np.sqrt(0.5 / len(real))
            assert abs((real == 0).mean() - (fake == 0).mean()) < 5 * error
            error = np.sqrt(real.var() / len(real) + fake.var() / len(fake))
            assert abs(real.mean() - fake.mean()) < 5 * error


def test_width_follows_the_features():
    rng = np.random.default_rng(0)
    x = rng.random((6000, 1))
    width = np.where(x[:, 0] < 0.5, 0.02, 0.2)
    y = np.clip(0.5 + width * rng.normal(size=6000), 0.001, 0.999)
    fitted = ConditionalDistribution(DistributionSettings(location_trees=10)).fit(x, y, seed=1)
    drawn = fitted.sample(x, rng.random(6000))
    narrow = drawn[x[:, 0] < 0.45].std()
    assert narrow < 0.03
    assert drawn[x[:, 0] > 0.55].std() > 0.15


def test_a_share_grows_with_its_uniform_number():
    x, y = shares(3000, 1)
    fitted = ConditionalDistribution(DistributionSettings(location_trees=5)).fit(x, y, seed=1)
    uniform = np.linspace(0, 1, 200, endpoint=False)
    drawn = fitted.sample(np.full((200, 2), 0.5), uniform)
    assert (np.diff(drawn) >= 0).all()


def test_distribution_is_the_same_after_arrays_and_on_more_threads():
    x, y = shares(1000, 1)
    settings = DistributionSettings(location_trees=5, cdf_trees=3)
    one = ConditionalDistribution(settings).fit(x, y, seed=1)
    two = ConditionalDistribution(settings).fit(x, y, seed=1, n_threads=2)
    back = ConditionalDistribution.from_arrays(one.to_arrays())
    uniform = np.random.default_rng(0).random(1000)
    for other in (two, back):
        np.testing.assert_array_equal(one.sample(x, uniform), other.sample(x, uniform))
    assert back.n_parameters == one.n_parameters > 100


def test_ends_have_their_probabilities_where_these_are_small():
    rng = np.random.default_rng(0)
    x = rng.random((20_000, 1))
    chance = np.where(x[:, 0] < 0.5, 0.04, 0.001)
    y = np.where(rng.random(20_000) < chance, 0.0, rng.uniform(0.2, 0.8, 20_000))
    fitted = ConditionalDistribution(DistributionSettings(location_trees=0)).fit(x, y, seed=1)
    drawn = fitted.sample(x, rng.random(20_000))
    for side, expected in ((x[:, 0] < 0.5, 0.04), (x[:, 0] >= 0.5, 0.001)):
        error = np.sqrt(2 * expected / side.sum())
        assert abs((drawn[side] == 0).mean() - expected) < 5 * error
    assert (drawn < 1).all()


def test_distribution_without_a_classifier_of_ends_is_read():
    x, y = shares(1000, 1)
    settings = DistributionSettings(location_trees=5, cdf_trees=3, end_trees=0)
    fitted = ConditionalDistribution(settings).fit(x, y, seed=1)
    arrays = fitted.to_arrays()
    assert "booster_ends" not in arrays
    arrays["settings"] = arrays["settings"][:-1]
    uniform = np.random.default_rng(0).random(1000)
    back = ConditionalDistribution.from_arrays(arrays).sample(x, uniform)
    np.testing.assert_array_equal(back, fitted.sample(x, uniform))
    with pytest.raises(FormatError, match="settings"):
        ConditionalDistribution.from_arrays({**arrays, "settings": arrays["settings"][:-1]})


def test_few_rows_and_shares_of_one_kind_are_no_problem():
    x = np.zeros((30, 1))
    only = ConditionalDistribution(DistributionSettings()).fit(x, np.ones(30), seed=1)
    assert (only.sample(x, np.linspace(0, 0.99, 30)) == 1.0).all()


def test_shares_and_settings_are_checked():
    with pytest.raises(InputError, match="from 0 to 1"):
        ConditionalDistribution(DistributionSettings()).fit(np.zeros((1, 1)), [2.0], seed=1)
    with pytest.raises(ConfigError, match="location_trees"):
        DistributionSettings.of({"trees": 3})


@pytest.mark.parametrize("wrong", [{"knots": 1}, {"cdf_knots": 0}, {"cdf_trees": 5.5}])
def test_impossible_settings_of_a_distribution_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        DistributionSettings.of(wrong)


# --- marginals


def test_marginals_are_normal_at_every_energy_and_invert():
    rng = np.random.default_rng(0)
    energies = np.repeat([100.0, 1000.0, 10_000.0], 1500)
    values = np.log(energies)[:, None] + rng.normal(size=(4500, 1)) * (100 / energies)[:, None]
    values[rng.random(4500) < 0.3 * (energies == 100)] = -np.inf
    fitted = EnergyMarginals().fit(energies, values)
    z = fitted.forward(energies, values, rng)
    for energy in np.unique(energies):
        found = z[energies == energy]
        assert abs(found.mean()) < 5 / np.sqrt(1500)
        assert abs(found.std() - 1) < 5 / np.sqrt(3000)
    back = fitted.inverse(energies, z)
    inner = np.isfinite(values) & (np.abs(z) < 2.5) & (energies > 100)[:, None]
    np.testing.assert_allclose(back[inner], values[inner], atol=1e-6)
    np.testing.assert_array_equal(np.isfinite(back), np.isfinite(values))


def test_width_between_two_energies_is_their_geometric_mean():
    rng = np.random.default_rng(0)
    energies = np.repeat([100.0, 10_000.0], 20_000)
    width = np.where(energies == 100.0, 0.4, 0.1)
    values = 2 * np.log(energies) + width * rng.normal(size=40_000)
    fitted = EnergyMarginals().fit(energies, values[:, None])
    new = fitted.inverse(np.full(20_000, 1000.0), rng.normal(size=(20_000, 1)))
    assert abs(new.std() - 0.2) < 5 * 0.2 * np.sqrt(2 / 20_000) + 0.002
    assert abs(new.mean() - 2 * np.log(1000.0)) < 5 * 0.5 / np.sqrt(10_000)


def test_a_training_energy_is_never_outside_the_range():
    log = np.log(np.random.default_rng(0).uniform(1000.0, 9000.0, 3000))
    nodes, _ = _nodes(log)
    assert nodes[0] == log.min()
    assert nodes[-1] == log.max()
    assert (np.diff(nodes) > 0).all()


# --- axes and frames


def test_axes_recover_the_common_direction():
    rng = np.random.default_rng(0)
    truth = (rng.normal(size=(3000, 2)) @ [1, 1j]) / np.sqrt(2)
    noise = (rng.normal(size=(3000, 8, 2)) @ [1, 1j]) / np.sqrt(2)
    leanings = 0.5 * truth[:, None] + 0.3 * noise
    leanings[rng.random(leanings.shape) < 0.2] = np.nan
    drawn = draw_axes(leanings, np.ones(3000), rng)
    assert abs((np.abs(drawn) ** 2).mean() - 1) < 5 / np.sqrt(3000)
    alike = (drawn * np.conj(truth)).mean().real / (np.abs(truth) ** 2).mean()
    # of the posterior mean: information over information plus prior
    expected = 1 / (1 + 0.3**2 / (0.5**2 * 8 * 0.8))
    assert abs(alike - expected) < 5 / np.sqrt(3000)


def test_leaning_points_to_the_sector_with_the_energy():
    sectors = np.zeros((1, 8, 2))
    sectors[0, 6, 0] = 3.0
    found = leaning(sectors)
    assert np.isclose(np.angle(found[0, 0]), -np.pi + 6.5 * np.pi / 4)
    assert np.isclose(abs(found[0, 0]), 1)
    assert np.isnan(found[0, 1])


def test_few_energies_have_a_window_each_and_many_share_some():
    assert windows(np.array([1.0, 8.0, 1.0])).tolist() == [0, 1, 0]
    assert len(np.unique(windows(np.random.default_rng(0).random(1000)))) == 20


def test_frames_hold_every_sector_once_and_know_their_direction():
    frames = Frames.of(np.random.default_rng(0).random((5, 6)), 10)
    sectors = frames.sectors()
    assert (np.sort(sectors, axis=1) == np.arange(10)[None, :, None]).all()
    split = Split(0, 5, 10)
    middle = np.exp(1j * (-np.pi + (2 * np.pi / 10) * (sectors + 0.5)))
    left = middle[:, :5].mean(axis=1)
    np.testing.assert_allclose(frames.direction(split), left / abs(left), atol=1e-12)


def test_alike_layers_share_trees_and_come_in_their_order():
    layers = np.ones((4, 45))
    plan = LayerPlan.of(geometry("dataset_2"), layers)
    assert plan.groups == (tuple(range(45)),)
    assert plan.order == tuple(range(45))
    assert plan.known(7) == (6, 5)
    photons = LayerPlan.of(geometry("photons"), np.array([[1.0, 5.0, 9.0, 0.5, 0.1]]))
    assert photons.order == (2, 1, 0, 3, 4)
    assert photons.known(3) == (2, 1)


def no_trees(first=0, depth=0):
    """Return a forest without trees, whose sum is 0."""
    nodes = np.zeros((0, 1 << depth))
    return Forest(nodes, nodes, nodes, nodes[..., None], np.zeros(1, np.float32), first)


def one_division(n_known=2, **changes):
    """Return the arrays of a layer of two rings whose shares are logistic: the logit is normal."""
    steps = [[0, 0, 1, 2, -1, -1, 0]]
    fields = {
        "distributions": [[0, 1, -1, 1, 1, 0, 2, 0, -1]],
        "ends": [0.0, 0.0],
        "knots": [0.0, 1.0],
    }
    fields |= {"layers": [[2, 1, 0, 0, 0, 0]], "ring_steps": steps, "start": [0], "rings": [1, 2]}
    fields |= {"sector_steps": [], "away": [], "cells": [], "turn": []} | changes
    real = ("ends", "knots", "away", "turn")
    typed = {k: np.array(v, np.float64 if k in real else np.int64) for k, v in fields.items()}
    trees = named("trees", pack_trees([no_trees() for _ in range(3)]), n_known + 5, 1)
    return trees | named("showers", VoxelArrays(**typed), n_known, 3, 7)


def test_shares_are_normal_where_trees_add_nothing():
    p = np.concatenate([np.logspace(-8.9, -1, 50), np.linspace(0.1, 0.9, 51), [1 - 1e-8]])
    voxels = CompiledVoxels(file_bytes(one_division()), 0.0)
    n = len(p)
    shares = voxels.filled(np.zeros((n, 1, 2)), np.ones((n, 1)), np.zeros(n), p[:, None])
    np.testing.assert_allclose(np.log(shares[:, 0] / shares[:, 1]), ndtri(p), rtol=1e-9, atol=1e-12)


WRONG = [
    {"distributions": [[3, 1, -1, 1, 1, 0, 2, 0, -1]]},
    {"distributions": [[0, 2, -1, 1, 1, 0, 2, 0, -1]]},
    {"distributions": [[0, 1, -1, 1, 1, 0, 2, 0, 9]]},
    {"distributions": [[0, 1, 0, 9, 1, 0, 2, 0, -1]]},
    {"distributions": [[0, 1, -1, 1, 2, 0, 2, 0, -1]]},
    {"distributions": [[0, 1, -1, 1, 1, 0, 2, 1, -1]]},
    {"layers": [[2, 2, 0, 0, 0, 0]]},
    {"layers": [[2, 1, 1, 0, 0, 0]]},
    {"ring_steps": [[1, 0, 1, 2, -1, -1, 0]]},
    {"ring_steps": [[0, 0, 3, 2, -1, -1, 0]]},
    {"ring_steps": [[0, 0, 1, 2, -2, -1, 0]]},
    {"ring_steps": [[0, 0, 1, 2, -1, -1, 1]]},
    {"start": [3]},
    {"rings": [1, 3]},
    {"n_known": 1 << 30},
]


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_arrays_of_divisions_that_lead_out_are_refused(wrong):
    with pytest.raises(FormatError, match="do not fit together"):
        CompiledVoxels(file_bytes(one_division(**wrong)), 0.0)
