"""Jets by a network of attention: sets of particles in, sets of particles out."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed (extra 'cfm')")

from experiments.jetnet_particles.network import AttentionNetwork, WithEvaluations
from experiments.jetnet_particles.toys import toy_jets
from experiments.jetnet_particles.variants import SMALL_ATTENTION, build

JETS = toy_jets(120, seed=3)


@pytest.fixture(scope="module")
def network() -> AttentionNetwork:
    return AttentionNetwork(**SMALL_ATTENTION).fit(JETS, lambda text: None)


def test_training_does_not_depend_on_the_order_of_particles(network: AttentionNetwork) -> None:
    """Slots of real particles come first whatever the order, and all particles count alike."""
    turned = JETS[:, ::-1].copy()
    other = AttentionNetwork(**SMALL_ATTENTION).fit(turned, lambda text: None)
    np.testing.assert_allclose(other.centre_, network.centre_)
    np.testing.assert_array_equal(other.counts_, network.counts_)


def test_generated_jets_have_the_layout_of_real_ones(network: AttentionNetwork) -> None:
    made = network.sample(60, seed=1, evaluations=4)
    assert made.shape == (60, *JETS.shape[1:])
    mask = made[..., 3] > 0
    assert set(mask.sum(axis=1)) <= set(network.counts_)
    assert len(set(mask.sum(axis=1))) > 1
    assert (made[~mask] == 0).all()
    assert (np.diff(made[..., 2], axis=1) <= 0).all()


def test_scaling_and_its_inverse_give_the_same_jets(network: AttentionNetwork) -> None:
    from experiments.jetnet_particles.network import features

    x, mask = features(JETS)
    back = network._as_jets((x - network.centre_) / network.width_, mask.sum(axis=1))
    np.testing.assert_allclose(back, JETS, atol=1e-12)


def test_a_network_is_trained_once_for_all_evaluations() -> None:
    first = build("attention network, 5 evaluations", 1, True, {})
    known = {"attention network, 5 evaluations": first}
    second = build("attention network, 20 evaluations", 1, True, known)
    assert isinstance(second, WithEvaluations)
    assert second.network is first.network
    assert (first.evaluations, second.evaluations) == (5, 20)
