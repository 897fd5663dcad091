"""The shower model: exact sums, exact zeros, symmetry, energies in between, files."""

from __future__ import annotations

import copy
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from flowbdt.errors import DataWarning, FormatError, InputError
from flowbdt.physics.calorimeter.geometry import Geometry, stack_layers
from flowbdt.physics.calorimeter.model import ShowerModel
from flowbdt.physics.calorimeter.model.shower_rejection import learn_ratio
from flowbdt.physics.calorimeter.shower_files import Showers
from flowbdt.trees.density_ratio import DensityRatio

FLOW = {"preset": "fast", "n_steps": 3, "booster": {"n_estimators": 2, "max_depth": 2}}
FLOW |= {"preconditioner": "gaussian"}
TREES = {"location_trees": 5, "cdf_trees": 2, "least_rows": 40}
DETECTOR = Geometry(
    "toy",
    "photon",
    1,
    stack_layers([(0, (0, 10, 30), 1), (1, (0, 5, 10, 20), 6), (2, (0, 50, 90), 1)]),
    1.0,
)


def toy_showers(n, seed, energies=(500.0, 4000.0), detector=DETECTOR):
    """Deposits of about 5 MeV in random voxels, those of small radius more often."""
    rng = np.random.default_rng(seed)
    energy = rng.choice(energies, n)
    weight = 1 / (10 + np.concatenate([layer.radii for layer in detector.layers]))
    voxels = np.zeros((n, detector.n_voxels))
    for row, number in enumerate(rng.poisson(energy / 5)):
        chosen = rng.choice(len(weight), number, p=weight / weight.sum())
        np.add.at(voxels[row], chosen, rng.exponential(5.0, number))
    return Showers.of(energy, voxels.astype(np.float32), detector)


@pytest.fixture(scope="module")
def showers():
    return toy_showers(1200, 1)


@pytest.fixture(scope="module")
def model(showers):
    settings = {"flow": FLOW, "rings": TREES, "sectors": {**TREES, "depth": 4}}
    return ShowerModel(**settings, random_state=3).fit(showers)


def test_voxels_are_zero_or_above_the_threshold_and_add_up_to_the_layers(model):
    new = model.sample(np.full(300, 700.0), random_state=1)
    assert new.voxels.shape == (300, DETECTOR.n_voxels)
    assert new.voxels.dtype == np.float32
    assert ((new.voxels == 0) | (new.voxels >= 1.0)).all()
    assert (new.voxels == 0).mean() > 0.02
    layers = model.energies_.sample(np.full(300, 700.0), 1)
    np.testing.assert_allclose(DETECTOR.layer_energies(new.voxels), layers, rtol=1e-6, atol=1e-6)


def test_response_and_sparsity_are_those_of_the_training_showers(model, showers):
    new = model.sample(showers.energies, random_state=1)
    real = showers.above().voxels
    for energy in (500.0, 4000.0):
        rows = showers.energies == energy
        n = rows.sum()
        totals = [part[rows].sum(axis=1) / energy for part in (real, new.voxels)]
        error = np.sqrt(2 / n) * totals[0].std()
        assert abs(totals[0].mean() - totals[1].mean()) < 5 * error
        empty = [(part[rows] == 0).mean(axis=1) for part in (real, new.voxels)]
        error = np.sqrt(2 / n) * empty[0].std()
        assert abs(empty[0].mean() - empty[1].mean()) < 5 * error + 0.01


def test_showers_do_not_know_the_direction(model):
    new = model.sample(np.full(2000, 4000.0), random_state=1)
    layer = DETECTOR.layers[1]
    sectors = new.voxels[:, layer.voxels].reshape(2000, layer.n_alpha, layer.n_r).sum(axis=2)
    spread = sectors.std(axis=0).mean() / np.sqrt(2000)
    assert np.abs(sectors.mean(axis=0) - sectors.mean()).max() < 5 * spread


def test_energies_between_those_of_training_are_interpolated(model):
    mean = model.sample(np.full(500, 1400.0), random_state=1).voxels.sum(axis=1).mean()
    assert 0.9 * 1400 < mean < 1.1 * 1400


def test_a_shower_does_not_depend_on_how_many_follow(model):
    energies = np.full(70, 800.0)
    few, many = (model.sample(energies[:n], random_state=5).voxels for n in (10, 70))
    np.testing.assert_array_equal(few, many[:10])
    assert not np.array_equal(few, model.sample(energies[:10], random_state=6).voxels)


def test_sampler_gives_the_showers_of_sample_one_by_one(model):
    energies = np.array([500.0, 900.0, 4000.0, 700.0])
    whole = model.sample(energies, random_state=5).voxels
    sampler = model.sampler(random_state=5)
    single = np.stack([sampler.one(energy) for energy in energies])
    np.testing.assert_allclose(single, whole, rtol=1e-4)
    with pytest.raises(InputError, match="positive"):
        sampler.one(0.0)


def test_blocks_are_the_whole_sample(model):
    energies = np.full(2100, 500.0)
    blocks = list(model.sample_blocks(energies, random_state=5))
    assert len(blocks) == 2
    whole = model.sample(energies, random_state=5).voxels
    np.testing.assert_array_equal(np.concatenate([block.voxels for block in blocks]), whole)


def test_file_gives_the_same_showers(model, tmp_path):
    path = tmp_path / "model.npz"
    model.save(path)
    back = ShowerModel.load(path)
    energies = np.full(20, 900.0)
    one, two = (m.sample(energies, random_state=1).voxels for m in (model, back))
    np.testing.assert_array_equal(one, two)
    assert back.n_parameters_ == model.n_parameters_
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(FormatError, match="whole shower model"):
        ShowerModel.load(path)


def test_compiled_voxels_are_those_of_the_plain_loops(model):
    energies = np.full(150, 900.0)
    assert model._compiled is not None
    fast = model.sample(energies, random_state=1).voxels
    plain = ShowerModel.__new__(ShowerModel)
    plain.__dict__ |= {**model.__dict__, "_compiled": None}
    slow = plain.sample(energies, random_state=1).voxels
    alike = np.isclose(fast, slow, rtol=1e-5).all(axis=1)
    assert alike.mean() > 0.98  # a last digit may decide between two leaves


@pytest.fixture(scope="module")
def selecting(showers):
    """A model whose rejection was learned beside its stages."""
    settings = {"flow": FLOW, "rings": TREES, "sectors": {**TREES, "depth": 4}}
    few = showers.take(np.arange(400))
    return ShowerModel(**settings, rejection=True, random_state=3).fit(few)


def test_kept_showers_are_the_same_one_by_one_and_from_a_file(selecting, tmp_path):
    energies = np.resize([500.0, 4000.0, 1000.0], 60)
    kept = selecting.sample(energies, random_state=1)
    sampler = selecting.sampler(random_state=1)
    np.testing.assert_array_equal(kept.voxels, [sampler.one(energy) for energy in energies])
    few = selecting.sample(energies[:20], random_state=1)
    np.testing.assert_array_equal(few.voxels, kept.voxels[:20])
    every = np.vstack([block.voxels for block in selecting._candidates(energies, 1)])
    assert (every != kept.voxels).any()
    selecting.save(tmp_path / "model.npz")
    back = ShowerModel.load(tmp_path / "model.npz")
    assert back.n_parameters_ == selecting.n_parameters_
    np.testing.assert_array_equal(back.sample(energies, random_state=1).voxels, kept.voxels)


def test_rejection_keeps_showers_like_those_it_learned_from(model):
    made = model.sample(np.full(3000, 4000.0), random_state=1)
    total = made.voxels.sum(axis=1)
    narrow = made.take(np.abs(total - np.median(total)) < 0.5 * total.std())
    selecting = copy.copy(model)
    energies = np.full(4 * narrow.n, 4000.0)
    ratio = learn_ratio(narrow, lambda seed: selecting._candidates(energies, seed), 1, 1)
    selecting._restore_ratio(ratio.to_bytes())
    kept = selecting.sample(np.full(1000, 4000.0), random_state=3).voxels.sum(axis=1)
    within = (np.abs(kept - np.median(total)) < 0.5 * total.std()).mean()
    assert within > 0.9 > 0.6 > narrow.n / 3000


def test_rejection_of_another_geometry_is_refused(model):
    other = DensityRatio.fit(np.zeros((50, 2)), np.ones((50, 2)), None, seed=1, n_threads=1)
    with pytest.raises(FormatError, match="has 2 inputs"):
        model._restore_ratio(other.to_bytes())


def test_response_has_its_quantiles_at_every_energy(model, showers):
    energies = np.full(4000, 4000.0)
    new = model.energies_.sample(energies, 1).sum(axis=1) / 4000
    real = showers.take(showers.energies == 4000).above().voxels.sum(axis=1) / 4000
    assert abs(new.mean() - real.mean()) < 5 * real.std() / np.sqrt(4000) + 2e-3 * real.std()
    assert abs(new.std() / real.std() - 1) < 5 / np.sqrt(2 * 4000) + 0.02


def test_one_layer_is_refused():
    lone = Geometry("lone", "photon", 1, stack_layers([(0, (0, 1, 2), 4)]), 1.0)
    with pytest.raises(InputError, match="two layers"):
        ShowerModel().fit(toy_showers(200, 1, detector=lone))


def test_energies_are_checked(model):
    with pytest.raises(InputError, match="positive"):
        model.sample([-1.0])
    with pytest.warns(DataWarning, match="outside"):
        model.sample([1e5], random_state=1)


def test_too_few_or_empty_showers_are_refused():
    with pytest.raises(InputError, match="at least"):
        ShowerModel().fit(toy_showers(5, 1))
    empty = Showers.of(np.ones(200), np.zeros((200, DETECTOR.n_voxels)), DETECTOR)
    with pytest.raises(InputError, match="reaches"):
        ShowerModel().fit(empty)


def test_many_alike_layers_with_energies_anywhere():
    rings = (0, 10, 20, 30)
    detector = Geometry("stack", "electron", 2, stack_layers([(i, rings, 4) for i in range(9)]), 1)
    rng = np.random.default_rng(0)
    energies = np.exp(rng.uniform(6, 8, 400))
    training = toy_showers(400, 1, energies, detector)
    settings = {"flow": FLOW, "rings": TREES, "sectors": {**TREES, "depth": 4}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        model = ShowerModel(**settings, random_state=1).fit(training)
        new = model.sample(energies[:200], random_state=1)
    assert len(model._rings.models) == 2
    ratio = new.voxels.sum() / energies[:200].sum()
    assert 0.9 < ratio < 1.1


def test_compiled_voxels_may_be_made_by_several_threads_at_once(model):
    energies = np.full(400, 1000.0)
    expected = [model.sample(energies, random_state=seed).voxels for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        many = [
            pool.submit(model.sample, energies, random_state=seed)
            for _ in range(3)
            for seed in range(4)
        ]
    for number, made in enumerate(many):
        assert np.array_equal(made.result().voxels, expected[number % 4])


def test_what_is_no_shower_model_is_said_so(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros(3))
    np.savez(tmp_path / "b.npz", about=np.frombuffer(b'{"format": 1}', np.uint8))
    np.savez(tmp_path / "c.npz", about=np.frombuffer(b"[1]", np.uint8))
    for name in ("a.npy", "b.npz", "c.npz"):
        with pytest.raises(FormatError, match="whole shower model"):
            ShowerModel.load(tmp_path / name)
