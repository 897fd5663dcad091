"""The official classifier: its size, its split, and what it can tell apart."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from flowbdt.errors import InputError, MissingExtra
from flowbdt.physics.calorimeter.scores import official_classifier as module
from flowbdt.physics.calorimeter.scores.official_classifier import Network, deep_classifier_auc

SMALL = Network(hidden=16, epochs=8, batch=50, learning_rate=5e-3, device="cpu")


def samples(shift, n=400, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 3)), rng.normal(size=(n, 3)) + shift


@pytest.mark.parametrize(("n_inputs", "size"), [(369, 9_152_513), (30, 8_458_241), (46, 8_491_009)])
def test_the_network_has_the_published_number_of_parameters(n_inputs, size):
    torch = pytest.importorskip("torch")
    with torch.device("meta"):
        model = module.build_network(torch, n_inputs, Network())
    assert sum(p.numel() for p in model.parameters()) == size


def test_default_settings_are_the_official_ones():
    network = Network()
    assert (network.hidden, network.epochs, network.batch) == (2048, 50, 1000)
    assert (network.learning_rate, network.double) == (2e-4, True)


def test_a_shift_is_seen_with_its_closed_form_and_equal_samples_are_not():
    """A shift of the mean by s gives at best Phi(|s| / sqrt 2)."""
    pytest.importorskip("torch")
    from scipy.stats import norm

    far = deep_classifier_auc(*samples(1.0), network=SMALL, seed=1)
    best = norm.cdf(np.sqrt(3) / np.sqrt(2))
    assert best - 0.08 < far.value < best + 5 * far.error
    assert far.settings["jsd"] > 0.2
    near = deep_classifier_auc(*samples(0.0), network=SMALL, seed=1)
    assert abs(near.value - 0.5) < 5 * near.error


def test_the_seed_decides_and_the_global_state_stays():
    torch = pytest.importorskip("torch")
    before = torch.random.get_rng_state()
    first = deep_classifier_auc(*samples(0.5), network=SMALL, seed=3, n_runs=2)
    again = deep_classifier_auc(*samples(0.5), network=SMALL, seed=3, n_runs=2)
    assert first.value == again.value
    assert first.error == pytest.approx(np.std(first.settings["aucs"]))
    assert torch.equal(before, torch.random.get_rng_state())


def test_parts_are_80_to_20_to_21_and_disjoint():
    real, new = np.arange(121.0)[:, None], np.arange(1000.0, 1242.0)[:, None]
    parts = module._split(real, new, np.random.default_rng(0))
    assert [int((y == 1).sum()) for _, y in parts] == [80, 20, 21]
    assert [int((y == 0).sum()) for _, y in parts] == [160, 40, 42]
    assert len(np.unique(np.concatenate([x for x, _ in parts]))) == 121 + 242
    assert all(((x[:, 0] < 500) == (y == 1)).all() for x, y in parts)


def test_few_showers_and_a_missing_torch_are_refused(monkeypatch):
    pytest.importorskip("torch")
    with pytest.raises(InputError, match="at least 30"):
        deep_classifier_auc(*samples(0.0, n=20), network=SMALL)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtra, match="pip install"):
        deep_classifier_auc(*samples(0.0), network=SMALL)
