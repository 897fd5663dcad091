"""Metrics of the CaloChallenge against plain computations of their definitions, one by one."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from flowbdt.errors import InputError
from flowbdt.evaluation.metrics import correlation_matrix, largest_correlation_error
from flowbdt.physics import Showers, geometry, toy_showers, write_showers
from flowbdt.physics.calorimeter import shower_files as files
from flowbdt.physics.calorimeter.scores.features import high_level_features
from flowbdt.physics.calorimeter.scores.histograms import (
    binning,
    official_separation,
    separations,
    separations_by_energy,
)
from flowbdt.physics.calorimeter.scores.shower_judges import (
    fast_auc,
    high_level_inputs,
    low_level_inputs,
)
from flowbdt.physics.calorimeter.shower_files import ShowerFile

GEOMETRIES = ["photons", "pions"]


# ---- features, voxel by voxel in plain Python


def plain_layer(voxels: list[float], edges: tuple[float, ...], n_alpha: int) -> dict[str, float]:
    """Features of one layer of one shower as the definitions say, without numpy."""
    n_r = len(edges) - 1
    sums = dict.fromkeys(["e", "r", "rr", "x", "xx", "y", "yy", "filled"], 0.0)
    for alpha in range(n_alpha):
        angle = -math.pi + (alpha + 0.5) * 2 * math.pi / n_alpha
        for ring in range(n_r):
            energy = voxels[alpha * n_r + ring]
            radius = (edges[ring] + edges[ring + 1]) / 2
            x, y = radius * math.cos(angle), radius * math.sin(angle)
            for key, value in (("e", 1), ("r", radius), ("rr", radius**2), ("x", x), ("xx", x * x),
                               ("y", y), ("yy", y * y)):  # fmt: skip
                sums[key] += value * energy
            sums["filled"] += energy > 0
    found = {"e_layer": sums["e"], "sparsity": 1 - sums["filled"] / (n_r * n_alpha)}
    for key, name in (("r", "r"), ("x", "eta"), ("y", "phi")):
        centre = sums[key] / (sums["e"] + 1e-16)
        found[name] = centre
        found[f"width_{name}"] = math.sqrt(
            max(0.0, sums[key * 2] / (sums["e"] + 1e-16) - centre**2)
        )
    return found


@pytest.mark.parametrize("name", [*GEOMETRIES, "dataset_2"])
def test_features_are_those_of_the_definitions(name):
    showers = toy_showers(name, 6, seed=1)
    features = high_level_features(showers)
    cut = showers.geometry.min_energy
    for row in range(showers.n):
        kept = [float(e) if e >= np.float32(cut) else 0.0 for e in showers.voxels[row]]
        assert features.e_tot[row] == pytest.approx(math.fsum(kept), rel=1e-12)
        angled = 0
        for position, layer in enumerate(showers.geometry.layers):
            plain = plain_layer(kept[layer.voxels], layer.r_edges, layer.n_alpha)
            for key in ("e_layer", "sparsity", "r", "width_r"):
                found = getattr(features, key)[row, position]
                assert found == pytest.approx(plain[key], rel=1e-8, abs=1e-6), key
            if layer.n_alpha > 1:
                for key in ("eta", "phi", "width_eta", "width_phi"):
                    found = getattr(features, key)[row, angled]
                    assert found == pytest.approx(plain[key], rel=1e-8, abs=1e-6), key
                angled += 1


def test_a_layer_without_energy_has_centre_and_width_zero():
    voxels = np.zeros((1, 368), dtype=np.float32)
    voxels[0, 20] = 100.0
    features = high_level_features(Showers.of([256.0], voxels))
    assert features.r[0, [0, 2, 3, 4]].tolist() == [0.0] * 4
    assert features.width_r[0].tolist() == [0.0] * 5
    assert features.sparsity[0].tolist() == [1.0, 1 - 1 / 160, 1.0, 1.0, 1.0]


def test_blocks_of_a_file_give_the_features_of_all(tmp_path, monkeypatch):
    showers = toy_showers("photons", 25, seed=2)
    write_showers(tmp_path / "s.hdf5", showers)
    whole = high_level_inputs(high_level_features(showers))
    monkeypatch.setattr(files, "BLOCK_VALUES", 368 * 4)
    blocked = high_level_inputs(high_level_features(ShowerFile(tmp_path / "s.hdf5")))
    np.testing.assert_allclose(blocked, whole, rtol=1e-12, atol=1e-12)


def test_arrays_in_place_of_showers_are_refused():
    with pytest.raises(InputError, match="ShowerFile"):
        high_level_features([np.zeros((2, 368))])
    with pytest.raises(InputError, match="at least one"):
        high_level_features([])


# ---- histograms


@pytest.mark.parametrize(("name", "number"), [("photons", 30), ("pions", 46), ("dataset_2", 362)])
def test_there_are_as_many_histograms_as_published(name, number):
    """45 layers give 45 x 8 and two more."""
    showers = toy_showers(name, 4)
    results = separations(showers, showers)
    assert len({result.column for result in results}) == len(results) == number
    assert all(result.value == 0 for result in results)


def test_binnings_are_the_official_ones():
    photons, pions, two = geometry("photons"), geometry("pions"), geometry("dataset_2")
    np.testing.assert_array_equal(binning("etot_einc", photons), np.linspace(0.5, 1.5, 101))
    np.testing.assert_array_equal(binning("eta", photons, 1), np.linspace(-100, 100, 101))
    np.testing.assert_array_equal(binning("phi", pions, 12), np.linspace(-500, 500, 101))
    np.testing.assert_array_equal(binning("width_eta", pions, 13), np.linspace(0, 400, 101))
    np.testing.assert_array_equal(binning("width_phi", pions, 14), np.linspace(0, 100, 101))
    np.testing.assert_array_equal(binning("r", photons, 12), np.linspace(0, 1500, 101))
    np.testing.assert_array_equal(binning("width_r", pions, 14), np.linspace(0, 1500, 101))
    np.testing.assert_array_equal(binning("r", pions, 3), np.linspace(0, 500, 101))
    np.testing.assert_array_equal(binning("r", two, 12), np.linspace(0, 42, 101))
    np.testing.assert_array_equal(binning("width_r", two, 12), np.linspace(0, 20, 101))
    np.testing.assert_array_equal(binning("eta", two, 12), np.linspace(-30, 30, 101))
    np.testing.assert_array_equal(binning("sparsity", two, 12), np.linspace(0, 1, 21))
    layer = binning("e_layer", photons, 0, largest=5e4)
    np.testing.assert_array_equal(layer, np.logspace(0, np.log10(5e4), 40))
    assert len(binning("voxel", two, largest=5e4)) == 50
    assert binning("voxel", two, largest=5e4)[0] == pytest.approx(0.5e-3 / 0.033)
    with pytest.raises(InputError, match="sparsity"):
        binning("depth", photons)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_separations_are_those_of_the_definition(name):
    """As the official script does it: densities times bin widths, half the sum."""
    real, new = toy_showers(name, 300, seed=1), toy_showers(name, 200, seed=1, cheap=True)
    results = {r.column: r.value for r in separations(real, new, n_bootstrap=2)}
    voxels = [np.where(s.voxels < 1.0, 0.0, s.voxels.astype(np.float64)) for s in (real, new)]

    def plain(a, b, edges):
        width = np.diff(edges)
        p, q = (np.histogram(x, edges, density=True)[0] * width for x in (a, b))
        return 0.5 * sum((x - y) ** 2 / (x + y + 1e-16) for x, y in zip(p, q, strict=True))

    ratio = [v.sum(1) / s.energies for v, s in zip(voxels, (real, new), strict=True)]
    assert results["etot_einc"] == pytest.approx(plain(*ratio, np.linspace(0.5, 1.5, 101)), 1e-9)
    edges = np.logspace(0, np.log10(voxels[0].max()), 50)
    assert results["voxel"] == pytest.approx(plain(*(v.ravel() for v in voxels), edges), 1e-9)
    for position, layer in enumerate(real.geometry.layers):
        energy = [v[:, layer.voxels].sum(1) for v in voxels]
        edges = np.logspace(0, np.log10(energy[0].max()), 40)
        assert results[f"e_layer_{layer.number}"] == pytest.approx(plain(*energy, edges), 1e-9)
        radius = [(v[:, layer.voxels] @ layer.radii) / (e + 1e-16)
                  for v, e in zip(voxels, energy, strict=True)]  # fmt: skip
        edges = np.linspace(0, 1500 if layer.number in (12, 13, 14) else 500, 101)
        assert results[f"r_{layer.number}"] == pytest.approx(plain(*radius, edges), 1e-9)
        empty = [1 - (v[:, layer.voxels] > 0).mean(1) for v in voxels]
        found = results[f"sparsity_{real.geometry.numbers[position]}"]
        assert found == pytest.approx(plain(*empty, np.linspace(0, 1, 21)), 1e-9)


def test_disjoint_histograms_have_separation_one_and_equal_ones_zero():
    assert official_separation([5, 0], [0, 7]).value == pytest.approx(1.0)
    assert official_separation([5, 0], [10, 0]).value == 0.0
    assert official_separation([1, 1], [3, 1]).value == pytest.approx(0.5 * (1 / 20 + 1 / 12))


def test_empty_histograms_count_as_equal_and_one_empty_as_disjoint():
    assert official_separation([0, 0], [0, 0]).value == 0.0
    assert official_separation([0, 0], [0, 3]).value == 1.0


def test_two_halves_of_a_sample_give_the_predicted_floor():
    """(B - 1) / (2 N): each histogram, and the mean of all, within 5 standard errors."""
    showers = toy_showers("photons", 4000, seed=7)
    halves = showers.take(slice(0, 2000)), showers.take(slice(2000, None))
    results = [r for r in separations(*halves) if r.column != "voxel"]
    values = np.array([r.value for r in results])
    floors = np.array([r.settings["expected_floor"] for r in results])
    for result in results:
        n_bins, entries = result.settings["occupied"], result.settings["entries"]
        assert result.settings["expected_floor"] == pytest.approx(
            (n_bins - 1) / (2 * np.mean(entries)), rel=0.02
        )
    # a chi-squared of B - 1 degrees of freedom over 4 N or so: its spread is known
    spread = floors * np.sqrt(2 / np.array([max(r.settings["occupied"] - 1, 1) for r in results]))
    assert (np.abs(values - floors) < 5 * spread).all()
    assert abs(values.mean() - floors.mean()) < 5 * spread.max()
    assert values.mean() == pytest.approx(floors.mean(), rel=0.5)


def test_the_error_is_the_spread_over_repetitions():
    rng = np.random.default_rng(0)
    p, q = np.full(10, 0.1), np.linspace(0.05, 0.15, 10)
    results = [
        official_separation(rng.multinomial(2000, p), rng.multinomial(2000, q)) for _ in range(200)
    ]
    spread = np.std([r.value for r in results], ddof=1)
    claimed = np.mean([r.error for r in results])
    assert abs(claimed - spread) < 5 * spread / np.sqrt(2 * 200) + 0.1 * spread


def test_each_energy_has_its_own_histogram_of_the_response():
    real, new = (high_level_features(toy_showers("photons", 600, s)) for s in (1, 2))
    results = separations_by_energy(real, new)
    assert [r.column for r in results][:2] == ["etot_einc_256", "etot_einc_512"]
    assert len(results) == 15
    rows = [f.e_inc == 4096 for f in (real, new)]  # the fifth energy: narrow bins for photons
    p, q = (
        np.histogram((f.e_tot / f.e_inc)[r], np.linspace(0.9, 1.1, 21))[0]
        for f, r in zip((real, new), rows, strict=True)
    )
    p, q = p / p.sum(), q / q.sum()
    expected = 0.5 * ((p - q) ** 2 / np.where(p + q > 0, p + q, 1)).sum()
    assert results[4].value == pytest.approx(expected, rel=1e-9)


def test_geometries_cannot_be_mixed():
    with pytest.raises(InputError, match="one geometry"):
        separations(toy_showers("photons", 2), toy_showers("pions", 2))


# ---- classifiers and correlations


@pytest.mark.parametrize(("name", "high", "low"), [("photons", 30, 369), ("pions", 46, 534)])
def test_classifiers_get_the_official_inputs(name, high, low):
    showers = toy_showers(name, 5, seed=3)
    features = high_level_features(showers)
    x, n_layers = high_level_inputs(features), len(showers.geometry.layers)
    assert x.shape == (5, high)
    np.testing.assert_allclose(x[:, 0], np.log10(showers.energies))
    np.testing.assert_allclose(x[:, 1 : 1 + n_layers], np.log10(features.e_layer + 1e-8))
    np.testing.assert_allclose(x[:, -n_layers:], features.width_r / 100)
    np.testing.assert_allclose(x[:, 1 + n_layers], features.eta[:, 0] / 100)
    after_widths = 1 + n_layers + 4 * features.eta.shape[1]
    np.testing.assert_allclose(x[:, after_widths], np.log10(features.e_tot + 1e-8))
    y = low_level_inputs(showers)
    assert y.shape == (5, low)
    kept = np.where(showers.voxels < 1, 0, showers.voxels)
    np.testing.assert_allclose(y[:, 1:], kept / showers.energies[:, None])


@pytest.mark.parametrize("level", ["low", "high"])
def test_the_fast_judge_sees_a_difference_and_says_that_it_is_not_official(level):
    def inputs(seed, cheap):
        showers = toy_showers("photons", 150, seed, cheap)
        return low_level_inputs(showers) if level == "low" else (
            high_level_inputs(high_level_features(showers)))  # fmt: skip

    def make(seed):
        return LogisticRegression(max_iter=2000, C=0.01)

    options = {"n_model_seeds": 1, "n_split_seeds": 2}
    result = fast_auc(inputs(1, False), inputs(2, True), level, make, **options)
    same = fast_auc(inputs(1, False), inputs(2, False), level, make, **options)
    assert result.name == f"auc_{level}_fast"
    assert "not the official" in result.settings["judge"]
    assert result.value > 0.5 + 5 * result.error
    assert abs(same.value - 0.5) < 5 * same.error
    with pytest.raises(InputError, match="low"):
        fast_auc(inputs(1, False), inputs(2, True), "middle")


def test_correlations_are_numpy_s_with_zero_where_undefined():
    showers = toy_showers("photons", 50, seed=1)
    showers.voxels[:, 363:] = 0.0
    features = high_level_features(showers)
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = np.nan_to_num(np.corrcoef(features.e_layer.T), nan=0.0)
    np.fill_diagonal(expected, 1.0)
    np.testing.assert_allclose(correlation_matrix(features.e_layer), expected, atol=1e-12)


def test_the_largest_correlation_error_is_that_of_the_matrices():
    real, new = (high_level_features(toy_showers("photons", 80, s)) for s in (1, 2))
    result = largest_correlation_error(real.e_layer, new.e_layer)
    expected = np.abs(correlation_matrix(real.e_layer) - correlation_matrix(new.e_layer)).max()
    assert result.value == pytest.approx(expected)
    assert result.error > 0
