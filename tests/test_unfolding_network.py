"""The diffusion network of the unfolding study: posteriors of what it is told."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed (extra 'cfm')")

from experiments.unfolding import network
from experiments.unfolding.samples import made_up
from flowbdt.physics.jets.omnifold_files import NO_GROOMED_MASS, SIX


@pytest.fixture(scope="module")
def draws() -> tuple[np.ndarray, np.ndarray]:
    """Truth (n, 6) and draws (4, n, 6) of jets that the network was not trained on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network, "WIDTH", 32)
        patch.setattr(network, "BATCHES", 150)
        patch.setattr(network, "BATCH", 256)
        patch.setattr(network, "EVALUATIONS", 6)
        flow = network.UnfoldingNetwork(made_up(1500, 1, 0.0), seed=1, smoke=False)
        test = made_up(400, 2, 0.0)
        return test.x, flow.draw(test, 4, seed=3)


def test_draws_follow_what_the_detector_saw(draws):
    """Correlation with the truth; without conditions it would be 0 within 0.05."""
    truth, made = draws
    hard = np.log(truth[:, SIX.index("mass")]), np.log(made[..., SIX.index("mass")]).mean(axis=0)
    assert np.corrcoef(*hard)[0, 1] > 0.6


def test_draws_of_one_jet_differ(draws):
    assert (draws[1].std(axis=0)[:, SIX.index("mass")] > 0).all()


def test_a_jet_without_groomed_mass_has_no_groomed_share(draws):
    _, made = draws
    empty = made[..., SIX.index("ln_rho")] <= NO_GROOMED_MASS
    assert empty.any()
    assert ((made[..., SIX.index("z_g")] == 0) == empty).all()
    whole = made[..., SIX.index("multiplicity")]
    assert (whole == np.rint(whole)).all()
