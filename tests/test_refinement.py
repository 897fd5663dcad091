"""The parts of the refinement study: columns, scores, voxels that get given features."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.refinement.columns import pack, unpack
from experiments.refinement.library import Library
from experiments.refinement.methods import COPIES, Prepared, _mirrored, resampled
from experiments.refinement.scores import NormalScores
from experiments.refinement.voxels import move, tilt
from flowbdt.physics import Showers, toy_showers
from flowbdt.physics.calorimeter.scores.features import Features, high_level_features


@pytest.fixture(scope="module")
def features() -> Features:
    return high_level_features(toy_showers("photons", 400, seed=3))


def test_features_come_back_from_their_columns(features):
    columns = pack(features)
    again = unpack(columns, features.e_inc, features.geometry)
    assert len(columns) == 26
    for name, values in features.arrays().items():
        # a width of 0 is the root of a rounding error of radii squared
        np.testing.assert_allclose(getattr(again, name), values, rtol=1e-6, atol=2e-4, err_msg=name)


def test_any_scores_give_features_that_a_shower_can_have(features):
    scores = NormalScores(pack(features), features.e_inc)
    wild = 3 * np.random.default_rng(0).standard_normal((features.n, 26))
    made = unpack(scores.inverse(wild, features.e_inc), features.e_inc, features.geometry)
    assert ((made.e_layer == 0) | (made.e_layer >= 1)).all()
    angled = list(features.geometry.with_angles)
    squares = made.r[:, angled] ** 2 + made.width_r[:, angled] ** 2
    both = made.eta**2 + made.phi**2 + made.width_eta**2 + made.width_phi**2
    np.testing.assert_allclose(both, squares, rtol=1e-9, atol=1e-9)
    assert (made.r[made.e_layer == 0] == 0).all()


def test_scores_are_normal_and_come_back(features):
    columns = pack(features)
    scores = NormalScores(columns, features.e_inc)
    z = scores.forward(columns, features.e_inc, np.random.default_rng(1))
    error = 1 / np.sqrt(features.n)
    assert (np.abs(z.mean(axis=0)) < 5 * error).all()
    assert (np.abs(z.std(axis=0) - 1) < 5 * error).all()
    again = scores.inverse(z, features.e_inc)
    for name in ("n0", "n1", "n4"):
        known = ~np.isnan(columns[name])
        np.testing.assert_array_equal(again[name][known], columns[name][known])
    zero = columns["f4"] == 0
    assert zero.any()
    assert (again["f4"][zero] == 0).all()
    assert (again["f4"][~zero] > 0).all()


def test_smoothing_keeps_a_smooth_law_and_reduces_its_scatter():
    energies = np.repeat(2.0 ** np.arange(8, 20), 100)
    width = 0.3 / (1 + np.log2(energies / 256))

    def columns(seed):
        normal = np.random.default_rng(seed).standard_normal(len(energies))
        return {"t": np.exp(width * normal)}

    z = np.zeros((len(energies), 1))
    medians = {
        smooth: np.array(
            [
                np.log(NormalScores(columns(seed), energies, smooth).inverse(z, energies)["t"])
                for seed in range(20)
            ]
        )
        for smooth in ("", "t")
    }
    # a parabola through five equal points keeps 17/35 of the variance in the middle
    inner = slice(200, 1000, 100)
    scatter = {k: (found / width)[:, inner].std() for k, found in medians.items()}
    error = 1 / np.sqrt(2 * 20 * 8)
    assert abs(scatter["t"] / scatter[""] - np.sqrt(17 / 35)) < 5 * error
    errors = medians["t"].std(axis=0) / np.sqrt(20)
    assert (np.abs(medians["t"].mean(axis=0)) < 5 * np.maximum(errors, 1e-4)).all()


def test_tilt_reaches_the_moments_and_changes_nothing_without_need():
    rng = np.random.default_rng(0)
    start = rng.random((5, 30))
    start /= start.sum(axis=1, keepdims=True)
    x = np.linspace(0, 4, 30)
    powers = np.column_stack([np.ones(30), x, x**2])
    own = start @ powers
    np.testing.assert_allclose(tilt(start, powers, own), start, atol=1e-9)
    wanted = own.copy()
    wanted[:, 1] += 0.3
    wanted[:, 2] += 1.2
    np.testing.assert_allclose(
        (tilt(start, powers, wanted) @ powers)[:, 1], wanted[:, 1], rtol=0.01
    )


def test_the_tilt_is_the_closest_in_relative_entropy():
    """The exponential family: its logarithm over the start is a line in x."""
    start = np.full((1, 11), 1 / 11)
    x = np.arange(11.0)
    powers = np.column_stack([np.ones(11), x])
    found = tilt(start, powers, np.array([[1.0, 7.0]]))
    np.testing.assert_allclose(np.diff(np.log(found[0]), 2), 0.0, atol=1e-9)
    assert found[0] @ x == pytest.approx(7.0, abs=0.02)


def test_showers_get_the_energies_and_centres_that_are_wanted():
    known, wanted = toy_showers("photons", 300, 1), toy_showers("photons", 60, 2)
    features = high_level_features(wanted)
    voxels = move(Library(known)(features), features)
    made = high_level_features(Showers.of(wanted.energies, voxels, wanted.geometry))
    np.testing.assert_allclose(made.e_layer, features.e_layer, rtol=1e-4, atol=1e-3)
    assert np.abs(made.sparsity - features.sparsity).mean() < 0.1
    off = np.abs(made.r - features.r)
    assert np.median(off) < 0.01 * np.median(features.r)


def test_the_library_turns_showers_in_steps_of_a_sector():
    shower = toy_showers("photons", 1, 1)
    library = Library(shower)
    assert library.features.n == 20
    centre = np.hypot(library.features.eta, library.features.phi)
    np.testing.assert_allclose(centre, np.tile(centre[:1], (20, 1)), rtol=1e-9)
    again = library(high_level_features(shower))[0]
    np.testing.assert_array_equal(again[0].astype(np.float32), shower.above().voxels[0])


def test_mirrored_copies_change_signs_of_whole_showers_only():
    names = ["t", "x1", "y1", "x2", "y2"]
    scores = np.random.default_rng(0).standard_normal((500, 5))
    made = _mirrored(scores, names, np.random.default_rng(1))
    signs = made / scores
    np.testing.assert_array_equal(np.abs(signs), 1.0)
    assert (signs[:, 0] == 1).all()
    np.testing.assert_array_equal(signs[:, 1:3], signs[:, 3:5])
    assert (np.abs(signs[:, 1:3].mean(axis=0)) < 5 / np.sqrt(500)).all()


def test_training_pairs_come_in_copies():
    cheap, detailed = toy_showers("photons", 40, 1, cheap=True), toy_showers("photons", 40, 1)
    prepared = Prepared(cheap, detailed, seed=0)
    assert prepared.detailed_scores.shape == (40 * COPIES, 26) == prepared.cheap_scores.shape
    np.testing.assert_array_equal(prepared.energies[:40], cheap.energies)


def test_resampled_showers_are_training_showers_of_the_same_energy():
    cheap, detailed = toy_showers("photons", 60, 1, cheap=True), toy_showers("photons", 60, 1)
    made = resampled(Prepared(cheap, detailed, seed=0), cheap, 1, {})
    np.testing.assert_array_equal(made.energies, cheap.energies)

    def rows(showers):
        return {(e, v.tobytes()) for e, v in zip(showers.energies, showers.voxels, strict=True)}

    assert rows(made) <= rows(detailed.above())
