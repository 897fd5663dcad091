"""Showers by a small network: its coordinates, and what it may not change."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (extra 'cfm')")

from experiments.calochallenge.toys import toy_showers  # noqa: E402
from experiments.restart_hybrid.photons import MOST_PARAMETERS  # noqa: E402
from experiments.restart_hybrid.rings import (  # noqa: E402
    VoxelCoordinates,
    conditions,
    for_geometry,
    turned,
)
from flowbdt.physics.calorimeter.geometry import geometry  # noqa: E402
from flowbdt.physics.calorimeter.shower_files import Showers  # noqa: E402

SHOWERS = toy_showers(geometry("photons"), 200, 1).above()
LAYERS = SHOWERS.geometry.layer_energies(SHOWERS.voxels)


@pytest.fixture(scope="module")
def coordinates() -> VoxelCoordinates:
    return VoxelCoordinates(SHOWERS.geometry).fit(SHOWERS, np.random.default_rng(1))


def layer_energies(showers: Showers) -> np.ndarray:
    return showers.geometry.layer_energies(showers.voxels.astype(np.float64))


def test_coordinates_bring_a_shower_back(coordinates: VoxelCoordinates) -> None:
    """Empty voxels, too, whatever was drawn for them."""
    x = coordinates.forward(SHOWERS, np.random.default_rng(2))
    back = coordinates.inverse(x, SHOWERS.energies, LAYERS)
    np.testing.assert_allclose(back.voxels, SHOWERS.voxels, rtol=1e-4, atol=1e-4)
    assert ((back.voxels == 0) == (SHOWERS.voxels == 0)).all()
    assert (SHOWERS.voxels == 0).any()


def test_any_coordinates_give_the_layer_energies_asked_for(coordinates: VoxelCoordinates) -> None:
    x = 3.0 * np.random.default_rng(3).normal(size=SHOWERS.voxels.shape)
    made = coordinates.inverse(x, SHOWERS.energies, LAYERS)
    np.testing.assert_allclose(layer_energies(made), LAYERS, rtol=1e-5, atol=1e-3)
    softest = made.voxels[made.voxels > 0].min()
    assert softest >= min(coordinates.threshold, LAYERS[LAYERS > 0].min()) * (1 - 1e-6)


def test_coordinates_of_every_ring_are_of_width_one(coordinates: VoxelCoordinates) -> None:
    x = coordinates.forward(SHOWERS, np.random.default_rng(2))
    wide = [x[:, coordinates.ring == ring].std() for ring in np.unique(coordinates.ring)]
    np.testing.assert_allclose(wide, 1.0, atol=0.1)


def test_turning_keeps_the_rings(coordinates: VoxelCoordinates) -> None:
    """Sums of rings stay, and in each ring the same voxels, in another place."""
    other = turned(SHOWERS, np.random.default_rng(4))
    assert (other.voxels != SHOWERS.voxels).any()
    for ring in np.unique(coordinates.ring):
        at = coordinates.ring == ring
        np.testing.assert_array_equal(
            np.sort(other.voxels[:, at], axis=1), np.sort(SHOWERS.voxels[:, at], axis=1)
        )


def test_all_layers_turn_together() -> None:
    """Voxels that lie at one angle in two layers stay together."""
    shape, n = SHOWERS.geometry, 40
    voxels = np.zeros((n, shape.n_voxels), dtype=np.float32)
    several = [layer for layer in shape.layers if layer.n_alpha > 1]
    for layer in several:
        voxels[:, layer.first + 2 * layer.n_r] = 5.0
    other = turned(Showers(np.full(n, 1e3), voxels, shape), np.random.default_rng(1)).voxels
    places = [
        other[:, layer.voxels].reshape(n, layer.n_alpha, layer.n_r)[:, :, 0].argmax(axis=1)
        for layer in several
    ]
    np.testing.assert_array_equal(places[0], places[1])
    assert len(set(places[0])) > 5


def test_the_network_is_small_and_sees_conditions_and_all_rings() -> None:
    torch.manual_seed(1)
    network = for_geometry(SHOWERS.geometry)
    assert network.n_parameters() <= MOST_PARAMETERS
    torch.nn.init.normal_(network.attention.last[1].weight, std=0.1)
    x = torch.randn(3, SHOWERS.geometry.n_voxels)
    cond = torch.tensor(conditions(SHOWERS.energies[:3], LAYERS[:3]), dtype=torch.float32)
    noise = torch.zeros(3)
    answer = network(x, noise, cond)
    assert answer.shape == x.shape
    changed = cond.clone()
    changed[:, 3] += 1.0
    assert (network(x, noise, changed) != answer).any()
    moved = x.clone()
    moved[:, 0] += 1.0
    assert (network(moved, noise, cond)[:, -1] != answer[:, -1]).all()


def test_the_network_survives_its_file(tmp_path) -> None:
    from flowbdt.networks import load_network, save_network
    from flowbdt.networks.denoiser import Denoiser

    network = Denoiser(for_geometry(SHOWERS.geometry, width=8, n_heads=2, n_layers=1))
    save_network(tmp_path / "showers.npz", network)
    again = load_network(tmp_path / "showers.npz")
    assert again.backbone.settings() == network.backbone.settings()
