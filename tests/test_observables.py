"""Jet observables against closed forms, against other packages, and against stored columns."""

from __future__ import annotations

import builtins
import json
from pathlib import Path

import numpy as np
import pytest

from flowbdt.errors import InputError, MissingExtra
from flowbdt.physics.jets import (
    EFP_DEGREES,
    OBSERVABLES,
    ClusteredJets,
    Constituents,
    energy_flow_polynomials,
    jet_observables,
    prime_polynomials,
)
from flowbdt.physics.jets.constituents import FOUR_OF_FOUR

ASSETS = Path(__file__).parent / "assets"
NEEDS_CLUSTERING = ("tau1", "tau2", "tau3", "d12", "d23", "rho_g", "z_g")


@pytest.fixture(scope="module")
def stored() -> dict[str, np.ndarray]:
    return dict(np.load(ASSETS / "jets.npz"))


@pytest.fixture(scope="module")
def references() -> dict[str, list]:
    return json.loads((ASSETS / "jets.json").read_text())


def jet(*particles: tuple[float, float, float], slots: int = 4) -> np.ndarray:
    """Return one jet (1, slots, 4) from (eta, phi, pt) of its particles."""
    x = np.zeros((1, slots, 4))
    x[0, : len(particles), :3] = particles
    x[0, : len(particles), 3] = 1
    return x


def two(z: float, distance: float) -> np.ndarray:
    return jet((0.0, 0.0, 1 - z), (0.0, distance, z))


def value(name: str, jets: np.ndarray, **options: float) -> float:
    return float(jet_observables(jets, [name], **options).x[0, 0])


# ---- closed forms


def test_mass_of_two_massless_particles() -> None:
    jets = jet((0.3, 0.1, 2.0), (-0.2, 0.4, 3.0))
    expected = np.sqrt(2 * 2.0 * 3.0 * (np.cosh(0.5) - np.cos(0.3)))
    assert value("mass", jets) == pytest.approx(expected, rel=1e-12)


def test_transverse_momentum_is_that_of_the_vector_sum() -> None:
    jets = jet((0.3, 0.0, 3.0), (-0.2, np.pi / 2, 4.0))
    assert value("pt", jets) == pytest.approx(5.0, rel=1e-12)


def test_correlation_functions_of_an_equilateral_triangle() -> None:
    side, height = 0.2, 0.2 * np.sqrt(3) / 2
    jets = jet((0.0, 0.0, 1.0), (side, 0.0, 1.0), (side / 2, height, 1.0))
    assert value("ecf2", jets) == pytest.approx(3 * side / 9, rel=1e-9)
    assert value("ecf3", jets) == pytest.approx(side**3 / 27, rel=1e-9)
    assert value("d2", jets) == pytest.approx(1.0, rel=1e-9)


def test_width_of_two_particles_about_their_axis() -> None:
    # at small angles the axis divides the distance as z : 1 - z
    assert value("width", two(0.25, 1e-3)) == pytest.approx(2 * 0.25 * 0.75 * 1e-3, rel=1e-5)


def test_azimuth_is_periodic() -> None:
    near, across = jet((0.0, 0.1, 1.0), (0.0, -0.1, 1.0)), jet((0.0, 3.0, 1.0), (0.0, -3.0, 1.0))
    assert value("ecf2", near) == pytest.approx(0.25 * 0.2)
    assert value("ecf2", across) == pytest.approx(0.25 * (2 * np.pi - 6.0))


@pytest.mark.parametrize("name", sorted(set(OBSERVABLES) - set(NEEDS_CLUSTERING)))
def test_a_single_particle_has_no_substructure(name: str) -> None:
    expected = {"pt": 1.0, "multiplicity": 1.0}.get(name, 0.0)
    assert value(name, jet((0.1, 0.2, 1.0))) == pytest.approx(expected, abs=1e-7)


def test_empty_slots_change_nothing() -> None:
    rng = np.random.default_rng(1)
    particles = [tuple(p) for p in np.abs(rng.normal(0.2, 0.1, (3, 3)))]
    names = [name for name in OBSERVABLES if name not in NEEDS_CLUSTERING]
    few, many = (jet_observables(jet(*particles, slots=s), names).x for s in (3, 9))
    np.testing.assert_allclose(few, many, rtol=1e-12)


# ---- clustering


def test_splitting_scale_of_two_particles() -> None:
    pytest.importorskip("fastjet")
    jets = two(0.2, 0.3)
    assert value("d12", jets, pt_scale=100.0) == pytest.approx(1.5 * 100 * 0.2 * 0.3, rel=1e-9)
    assert value("d23", jets) == 0.0


def test_subjettiness_vanishes_with_an_axis_for_each_particle() -> None:
    pytest.importorskip("fastjet")
    jets = jet((0.0, 0.0, 0.5), (0.0, 0.4, 0.3), (0.5, 0.1, 0.2))
    assert value("tau3", jets) == pytest.approx(0.0, abs=1e-9)
    assert value("tau2", jets) > 0.05
    assert value("tau3", two(0.3, 0.2)) == pytest.approx(0.0, abs=1e-9)  # fewer than three


def test_one_subjettiness_is_the_width_about_the_same_axis() -> None:
    pytest.importorskip("fastjet")
    jets = jet((0.0, 0.0, 0.5), (0.0, 0.4, 0.3), (0.5, 0.1, 0.2))
    assert value("tau1", jets) == pytest.approx(value("width", jets), rel=1e-9)


def test_soft_drop_keeps_a_hard_splitting_and_drops_a_soft_particle() -> None:
    pytest.importorskip("fastjet")
    jets = jet((0.0, 0.0, 1.0), (0.0, 0.2, 0.3), (0.6, 0.0, 0.03))
    assert value("z_g", jets) == pytest.approx(0.3 / 1.3, rel=1e-6)
    assert value("rho_g", jets) == pytest.approx(0.2 / 0.8, rel=1e-6)
    hard = jet((0.0, 0.0, 1.0), (0.0, 0.2, 0.3))
    groomed = ClusteredJets(Constituents.of(jets)).soft_drop()
    assert groomed.mass[0] == pytest.approx(value("mass", hard), rel=1e-6)


def test_soft_drop_of_a_jet_without_hard_splitting_is_zero() -> None:
    pytest.importorskip("fastjet")
    jets = jet((0.0, 0.0, 1.0), (0.0, 0.2, 0.03))
    assert value("z_g", jets) == 0.0
    assert value("rho_g", jets) == 0.0


def test_jets_of_different_multiplicity_do_not_disturb_each_other() -> None:
    pytest.importorskip("fastjet")
    apart = [two(0.3, 0.2), jet((0.1, 0.0, 1.0)), jet((0, 0, 0.5), (0, 0.4, 0.3), (0.5, 0.1, 0.2))]
    together = jet_observables(np.concatenate(apart)).x
    single = np.concatenate([jet_observables(one).x for one in apart])
    np.testing.assert_allclose(together, single, atol=1e-12)


def test_stored_columns_come_out(stored: dict[str, np.ndarray]) -> None:
    pytest.importorskip("fastjet")
    names = [name for name in OBSERVABLES if name in stored]
    assert len(names) == 10
    table = jet_observables(stored["jets"], names, pt_scale=stored["jet_pt"])
    for name in names:
        np.testing.assert_allclose(table.column(name), stored[name], rtol=1e-6, err_msg=name)
    assert table.units[table.names.index("d12")] == "GeV"


def test_mass_and_momentum_equal_those_of_jetnet(
    stored: dict[str, np.ndarray], references: dict[str, list]
) -> None:
    table = jet_observables(stored["jets"], ["mass", "pt"])
    np.testing.assert_allclose(table.column("mass"), references["mass"], rtol=1e-5)
    np.testing.assert_allclose(table.column("pt"), references["pt"], rtol=1e-6)


def test_missing_fastjet_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def without(name: str, *args: object, **options: object) -> object:
        if name == "fastjet":
            raise ImportError("no module named fastjet")
        return real_import(name, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtra, match=r"pip install 'flowbdt\[jets\]'"):
        jet_observables(two(0.2, 0.3), ["tau1"])
    assert value("multiplicity", two(0.2, 0.3)) == 2


# ---- energy flow polynomials


def test_polynomials_equal_those_of_energyflow(
    stored: dict[str, np.ndarray], references: dict[str, list]
) -> None:
    jets = Constituents.of(stored["jets"])
    ours, theirs = energy_flow_polynomials(jets), np.array(references["efps_up_to_4"])
    assert ours.shape == theirs.shape
    # the order of graphs differs: each column has its partner
    distance = np.abs(ours[:, :, None] / theirs[:, None, :] - 1).max(axis=0)
    assert distance.min(axis=0).max() < 1e-5
    assert len(set(distance.argmin(axis=1))) == 36


def test_connected_graphs_of_four_vertices_equal_those_of_energyflow(
    stored: dict[str, np.ndarray], references: dict[str, list]
) -> None:
    primes = prime_polynomials(Constituents.of(stored["jets"]))
    ours = np.sort(np.column_stack([primes[name] for name in FOUR_OF_FOUR]), axis=1)
    np.testing.assert_allclose(ours, np.sort(references["efps_4_4_prime"], axis=1), rtol=1e-5)


def test_polynomials_of_two_particles() -> None:
    primes = prime_polynomials(Constituents.of(two(0.3, 0.2)))
    pair = 2 * 0.3 * 0.7
    assert primes["a"][0] == pytest.approx(1.0)
    assert primes["a-b"][0] == pytest.approx(pair * 0.2)
    assert primes["a##b"][0] == pytest.approx(pair * 0.2**4)
    assert primes["triangle"][0] == pytest.approx(0.0, abs=1e-15)
    assert primes["a-b-c"][0] == pytest.approx(0.3 * 0.7 * 0.2**2)  # vertices may coincide
    assert len(primes) == sum(EFP_DEGREES.values())


def test_polynomials_do_not_depend_on_the_order_of_particles(
    stored: dict[str, np.ndarray],
) -> None:
    order = np.random.default_rng(0).permutation(30)
    jets, mixed = (Constituents.of(x) for x in (stored["jets"], stored["jets"][:, order]))
    np.testing.assert_allclose(
        energy_flow_polynomials(jets), energy_flow_polynomials(mixed), rtol=1e-9
    )


# ---- refusals


@pytest.mark.parametrize(
    ("jets", "message"),
    [
        (np.zeros((2, 3)), "shape"),
        (np.zeros((2, 3, 4)), "row 0 has none"),
        (np.full((1, 2, 3), -1.0), "ptrel >= 0"),
        (np.full((1, 2, 3), np.nan), "NaN"),
    ],
)
def test_unusable_jets_are_refused(jets: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Constituents.of(jets)


def test_unknown_observable_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"tau9.*tau1"):
        jet_observables(two(0.2, 0.3), ["tau9"])
