"""A network of calorimeter showers, from the file of showers to the file of generated ones."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import as_json, run

from flowbdt.errors import ConfigError, FormatError, InputError
from flowbdt.physics import Showers, geometry, read_showers, toy_showers, write_showers

pytest.importorskip("torch", reason="networks need the extra 'cfm'")

from flowbdt.networks import load_network
from flowbdt.networks.backbones import build_backbone
from flowbdt.networks.shower_network import ShowerNetwork
from flowbdt.networks.voxel_coordinates import (
    VoxelCoordinates,
    conditions,
    known_energies,
    rings_of,
    turned,
)

SMALL = "{widths: [8, 8], fold: 10}"
TRAINING = "{n_steps: 4, batch_size: 60, validate_every: 2, snapshots: 2}"
FLOW = "{preset: fast, n_steps: 2, preconditioner: gaussian, booster: {n_estimators: 3}}"


@pytest.fixture(scope="module")
def showers():
    return toy_showers("photons", 240, seed=1).above()


@pytest.fixture(scope="module")
def file(showers, tmp_path_factory):
    path = tmp_path_factory.mktemp("showers") / "photons.hdf5"
    write_showers(path, showers)
    return path


def train(file, folder, *options):
    return run("showers", "train-network", file, "-o", folder, "--flow", FLOW, *options)


def refused(capsys, text, *given):
    capsys.readouterr()
    assert train(*given) == 1
    assert text in capsys.readouterr().err


NEW = ("--device", "cpu", "--backbone", SMALL, "--training", TRAINING)


@pytest.fixture(scope="module")
def trained(file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("network")
    assert train(file, folder, *NEW, "--turns", 2) == 0
    return folder


def generated(network, file, path, *options):
    assert run("showers", "generate", network, file, "-o", path, "--device", "cpu", *options) == 0
    return read_showers(path)


STEPS = ("--sampler", "{n_steps: 3}", "--seed", 3)


def test_generated_showers_have_the_energies_and_the_threshold(trained, file, showers, tmp_path):
    new = generated(trained, file, tmp_path / "new.hdf5", *STEPS)
    np.testing.assert_array_equal(new.energies, showers.energies)
    network = ShowerNetwork.load(trained / "network.npz")
    assert "2308.03876" in as_json("cite", trained)["arxiv"]  # the network of this backbone
    layers = network.energies.sample(showers.energies, 3)
    np.testing.assert_allclose(new.geometry.layer_energies(new.voxels), layers, rtol=1e-5)
    softest = np.where(new.voxels > 0, new.voxels, np.inf)
    for i, layer in enumerate(new.geometry.layers):
        rows = layers[:, i] >= network.coordinates.threshold
        assert softest[rows][:, layer.voxels].min() >= network.coordinates.threshold * (1 - 1e-6)
    sampler = network.sampler({"n_steps": 3})
    x = network.points(sampler, np.arange(240), 3, conditions(showers.energies, layers))
    again = network.coordinates.inverse(x, showers.energies, layers)
    np.testing.assert_allclose(again.voxels, new.voxels, rtol=1e-5)


def test_a_stopped_training_goes_on_to_the_same_network(trained, file, tmp_path, capsys):
    assert train(file, tmp_path, *NEW, "--turns", 2, "--stop-at", 2) == 0
    refused(capsys, "--resume", file, tmp_path, *NEW)
    refused(capsys, "--backbone", file, tmp_path, *NEW, "--resume")
    refused(capsys, "other events", file, tmp_path, "--resume")  # turned once only
    assert train(file, tmp_path, "--resume", "--turns", 2) == 0
    first, second = (ShowerNetwork.load(path / "network.npz") for path in (trained, tmp_path))
    for name, value in first.denoiser.state_dict().items():
        np.testing.assert_array_equal(value, second.denoiser.state_dict()[name])
    assert first.data_digest == second.data_digest


def test_other_averages_of_a_finished_training_need_no_further_step(trained, file, tmp_path):
    content = (trained / "checkpoint.npz").read_bytes()
    (tmp_path / "checkpoint.npz").write_bytes(content)
    assert train(file, tmp_path, "--resume", "--turns", 2, "--weights", "0.1") == 0
    assert (tmp_path / "checkpoint.npz").read_bytes() == content
    averages = [ShowerNetwork.load(path / "network.npz") for path in (trained, tmp_path)]
    states = [one.denoiser.state_dict()["backbone.unet.last.1.weight"] for one in averages]
    assert (states[0] != states[1]).any()


def test_a_shower_does_not_depend_on_those_after_it(trained, showers):
    network = ShowerNetwork.load(trained / "network.npz")
    given = {"sampler": {"solver": "ddpm", "n_steps": 3}, "random_state": 5}
    (many,) = network.sample_blocks(showers.energies[:30], **given)
    (few,) = network.sample_blocks(showers.energies[:7], **given)
    np.testing.assert_allclose(few.voxels, many.voxels[:7], rtol=1e-4)


def test_wrong_inputs_are_refused_before_the_work(trained, file, tmp_path, capsys):
    given = (file, tmp_path / "run")
    refused(capsys, "n_step", *given, "--training", "{n_step: 3}")
    refused(capsys, "n_colums", *given, "--backbone", "{name: table_mlp, n_colums: 3}")
    refused(capsys, "objective", *given, "--objective", "edn")
    network = ShowerNetwork.load(trained / "network.npz")
    with pytest.raises(InputError, match="positive"):
        next(network.sample_blocks([-1.0]))
    with pytest.raises(ConfigError, match="sampler option"):
        next(network.sample_blocks([1000.0], sampler={"steps": 3}))
    with pytest.raises(FormatError, match="shower network"):
        load_network(trained / "network.npz")
    content = (trained / "network.npz").read_bytes()
    (tmp_path / "half.npz").write_bytes(content[: len(content) // 2])
    with pytest.raises(FormatError):
        ShowerNetwork.load(tmp_path / "half.npz")


def test_coordinates_are_undone(showers):
    coordinates = VoxelCoordinates.of(showers, np.random.default_rng(1))
    layers = showers.geometry.layer_energies(showers.voxels)
    x, ring = coordinates.forward(showers, np.random.default_rng(2)), rings_of(showers.geometry)
    wide = [x[:, ring == number].std() for number in np.unique(ring)]
    np.testing.assert_allclose(wide, 1.0, atol=0.1)
    back = coordinates.inverse(x, showers.energies, layers)
    np.testing.assert_allclose(back.voxels, showers.voxels, rtol=1e-4)
    found = known_energies(conditions(showers.energies, layers))
    np.testing.assert_allclose(found[0], showers.energies)
    np.testing.assert_allclose(found[1], layers, rtol=1e-6, atol=1e-12 * showers.energies.max())


def test_turned_showers_keep_the_voxels_of_each_ring(showers):
    other, shape = turned(showers, np.random.default_rng(4)), showers.geometry
    assert (other.voxels != showers.voxels).any()
    ring = shape.map[:, 0] * 1000 + shape.map[:, 2]
    for at in (ring == number for number in np.unique(ring)):
        np.testing.assert_array_equal(
            np.sort(other.voxels[:, at], axis=1), np.sort(showers.voxels[:, at], axis=1)
        )


def test_all_layers_turn_together():
    """Voxels that lie at one angle in two layers stay together."""
    shape, n = geometry("photons"), 40
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


def test_any_coordinates_give_the_layer_energies_asked_for(showers):
    layers = showers.geometry.layer_energies(showers.voxels)
    x = 3.0 * np.random.default_rng(3).normal(size=showers.voxels.shape)
    coordinates = VoxelCoordinates.of(showers, np.random.default_rng(1))
    made = coordinates.inverse(x, showers.energies, layers)
    found = made.geometry.layer_energies(made.voxels)
    np.testing.assert_allclose(found, layers, rtol=1e-5, atol=1e-3)
    softest = made.voxels[made.voxels > 0].min()
    assert softest >= min(coordinates.threshold, layers[layers > 0].min()) * (1 - 1e-6)


@pytest.mark.parametrize("fold", [1, 4, 10])
def test_a_folded_network_turns_with_the_shower(fold):
    import torch

    torch.manual_seed(1)
    settings = {"widths": [8, 8], "n_blocks": 1, "n_conditions": 0, "angle": False}
    net = build_backbone({"name": "cylinder_unet", **settings, "fold": fold}).eval()
    x, shape = torch.randn(3, 368), geometry("photons")

    def shifted(values):
        parts = [
            values[:, one.voxels].reshape(3, one.n_alpha, one.n_r).roll(3, 1).flatten(1)
            for one in shape.layers
        ]
        return torch.cat(parts, dim=1)

    with torch.no_grad():
        here, there = (net(one, torch.zeros(3)) for one in (x, shifted(x)))
    torch.testing.assert_close(shifted(here), there, rtol=1e-3, atol=1e-4)
