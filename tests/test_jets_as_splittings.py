"""Jets written as splittings: exact both ways, and sum rules that hold whatever is generated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from experiments.jetnet_particles.cone import Cone, widest_angle
from experiments.jetnet_particles.flat import boosted, onto
from experiments.jetnet_particles.model import (
    SplittingModel,
    as_jets,
    coordinates,
    from_coordinates,
    ordered,
    too_soft,
)
from experiments.jetnet_particles.splittings import (
    Parents,
    Splits,
    children_of,
    cluster,
    decay,
    read_splits,
)
from experiments.jetnet_particles.toys import toy_jets
from experiments.jetnet_particles.variants import SMALL
from flowbdt.physics.jets import ClusteredJets, Constituents
from flowbdt.tables.formulas.particles import invariant_mass

ASSETS = Path(__file__).parent / "assets"


@pytest.fixture(scope="module")
def jets() -> Constituents:
    return Constituents.of(np.load(ASSETS / "jets.npz")["jets"])


@pytest.fixture(params=[True, False], ids=["kt", "angular"])
def kt(request: pytest.FixtureRequest) -> bool:
    return request.param


def any_columns(n: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    names = ("mass_sum", "mass_ratio", "share")
    columns = {name: rng.normal(0, 2, n) for name in names}
    return {**columns, "azimuth": rng.uniform(-np.pi, np.pi, n)}


def test_a_jet_of_n_particles_has_n_minus_one_splittings(kt: bool) -> None:
    toys = Constituents.of(toy_jets(50, seed=1))
    parents, splits = read_splits(toys, kt)
    np.testing.assert_array_equal(np.bincount(parents.jet), toys.multiplicity() - 1)
    assert (splits.counts.sum(axis=1) == parents.count).all()
    assert len(set(toys.multiplicity())) > 1


def test_the_history_is_the_one_of_fastjet(jets: Constituents) -> None:
    pytest.importorskip("fastjet")
    history = cluster(jets, kt=True)
    reference = ClusteredJets(jets)
    for n in (2, 3):  # the n subjets are the children of the last n - 1 merges
        axes = np.sort(reference.subjets(n)[..., 0], axis=1)
        merged = history.children[:, -(n - 1) :].reshape(len(jets), -1)
        last = jets.mask.shape[1] * 2 - 1 - (n - 1)
        open_ = [[k for k in row if k < last] for row in merged]
        ours = np.sort(np.take_along_axis(history.nodes[..., 0], np.array(open_), 1), axis=1)
        np.testing.assert_allclose(ours, axes, rtol=1e-9)


def test_children_come_back_from_masses_and_angles(jets: Constituents, kt: bool) -> None:
    parents, splits = read_splits(jets, kt)
    first, second = decay(parents, splits)
    np.testing.assert_allclose(first + second, parents.momentum, atol=1e-9)
    found = np.concatenate([first[splits.counts[:, 0] == 1], second[splits.counts[:, 1] == 1]])
    expected = jets.momenta[jets.mask]
    assert len(found) == len(expected)
    # rest frames of nearly parallel pairs lose digits: 1e-6 of the jet's momentum is left
    np.testing.assert_allclose(np.sort(found[:, 0]), np.sort(expected[:, 0]), atol=1e-6)


def test_coordinates_are_inverted(jets: Constituents, kt: bool) -> None:
    parents, splits = read_splits(jets, kt)
    cone = Cone(float(np.cos(1.01 * widest_angle(jets).max())))
    columns = coordinates(parents, splits, cone)
    again = from_coordinates(parents, splits.counts, columns, cone)
    inside = (np.abs(columns["share"]) < 9) & (splits.kind == 2)
    assert inside.mean() > 0.2
    np.testing.assert_allclose(again.masses, splits.masses, atol=1e-6)
    np.testing.assert_allclose(again.cosine[inside], splits.cosine[inside], atol=1e-5)
    turn = np.angle(np.exp(1j * (again.azimuth[inside] - splits.azimuth[inside])))
    np.testing.assert_allclose(turn, 0.0, atol=1e-4)
    assert not too_soft(parents, splits).any()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_sums_and_the_cone_hold_for_any_coordinates(seed: int) -> None:
    toys = Constituents.of(toy_jets(40, seed=seed))
    cone = Cone(float(np.cos(widest_angle(toys).max())))
    parents, _ = read_splits(toys, False)
    roots = parents.take(np.flatnonzero(parents.depth == 0))
    rng = np.random.default_rng(seed)
    now, momenta, jets = roots, [], []
    while len(now):
        second = rng.integers(1, now.count)
        counts = ordered(np.column_stack([now.count - second, second]))
        splits = from_coordinates(now, counts, any_columns(len(now), seed), cone)
        now, particles, jet = children_of(now, splits)
        momenta.append(particles)
        jets.append(jet)
    made = as_jets(np.concatenate(momenta), np.concatenate(jets), (40, 8))
    result = Constituents.of(made)
    order = np.argsort(roots.jet)
    np.testing.assert_array_equal(result.multiplicity(), roots.count[order])
    np.testing.assert_allclose(result.total, roots.momentum[order], atol=1e-9)
    np.testing.assert_allclose(result.mass(), roots.mass[order], rtol=1e-6)
    assert (np.diff(made[..., 2], axis=1) <= 0).all()
    assert 0.9 * cone.angle < widest_angle(result).max() < 1.0001 * cone.angle


def test_generated_particles_stay_in_the_cone_and_equal_seeds_give_equal_bytes() -> None:
    jets = toy_jets(150, seed=6)
    jets[0, 0, 0] = 2.5  # one in a hundred is no reason for a wider cone
    model = SplittingModel(SMALL, SMALL, kt=False, seed=1).fit(jets)
    made, total = model.sample(300, seed=2)
    angle, mass = model.cone_.angle, total[:, 0] ** 2 - (total[:, 1:] ** 2).sum(axis=1)
    assert angle < 1.1 * np.sort(widest_angle(Constituents.of(jets)))[-2] < 1.5
    assert 0.8 * angle < widest_angle(Constituents.of(made)).max() < 1.0001 * angle
    assert (np.sqrt(mass) < model.heaviest_ * np.hypot(total[:, 1], total[:, 2])).all()
    np.testing.assert_allclose(Constituents.of(made).total, total, atol=1e-9)
    assert model.sample(300, seed=2)[0].tobytes() == made.tobytes()


def test_a_decay_at_rest_angle_zero_follows_the_flight() -> None:
    zero = np.zeros(1)
    momentum = np.array([[5.0, 3.0, 0.0, 0.0]])  # mass 4
    count = np.array([2])
    parent = Parents(
        np.array([0]), momentum, np.array([4.0]), count, np.zeros((1, 4)),
        zero, zero.astype(int), zero.astype(int), np.array([0.1]), np.array([4.0]),
    )  # fmt: skip
    splits = Splits(np.array([[1, 1]]), np.zeros((1, 2)), np.ones(1), np.zeros(1))
    first, second = decay(parent, splits)
    # rest-frame energies of 2, boosted by gamma = 5/4, gamma beta = 3/4
    np.testing.assert_allclose(first[0], [4.0, 4.0, 0.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(second[0], [1.0, -1.0, 0.0, 0.0], atol=1e-12)


def test_projection_gives_momentum_and_mass_and_keeps_particles_massless() -> None:
    momenta = Constituents.of(toy_jets(30, seed=4)).momenta
    total = Constituents.of(toy_jets(30, seed=5)).total
    moved = onto(momenta, total)
    np.testing.assert_allclose(moved.sum(axis=1), total, atol=1e-9)
    assert invariant_mass(moved).max() < 1e-6


def test_boosts_undo_each_other() -> None:
    momenta = Constituents.of(toy_jets(20, seed=6)).momenta
    frame = momenta.sum(axis=1)
    at_rest = boosted(momenta, frame, inverse=True)
    assert np.abs(at_rest.sum(axis=1)[:, 1:]).max() < 1e-9
    np.testing.assert_allclose(boosted(at_rest, frame), momenta, atol=1e-9)
