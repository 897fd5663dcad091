"""Scores of jets against closed forms and against the values of the jetnet package."""

from __future__ import annotations

import builtins
import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from flowbdt.errors import DataWarning, InputError, MissingExtra
from flowbdt.evaluation.metrics.joint import frechet_distance, kernel_distance
from flowbdt.physics.jets import Constituents
from flowbdt.physics.jets.jet_scores import (
    JET_METRICS,
    emd_coverage,
    emd_mmd,
    energy_distances,
    jet_scores,
    polynomial_fpd,
    w1_efp,
    w1_mass,
    w1_particles,
    w1_pt,
)

ASSETS = Path(__file__).parent / "assets"
SMALL_FPD = {"min_samples": 500, "max_samples": 2000, "n_batches": 4, "n_points": 5}
SMALL = {
    "fpd": SMALL_FPD,
    "kpd": {"batch_size": 100, "n_batches": 3},
    "coverage": {"size": 12, "n_batches": 2},
    "mmd": {"size": 12, "n_batches": 2},
}


@pytest.fixture(scope="module")
def references() -> dict[str, list]:
    return json.loads((ASSETS / "jets.json").read_text())


def features(seed: int, n: int = 2000) -> np.ndarray:
    """Return the columns that the references were made with."""
    rng = np.random.default_rng(seed)
    return np.exp(0.3 * rng.normal(size=(n, 4)) @ (np.eye(4) + 0.2 * seed))


def jets(seed: int, n: int = 400, stretch: float = 1.0) -> np.ndarray:
    """Return jets of 5 or 6 particles whose angles are stretched."""
    rng = np.random.default_rng(seed)
    x = np.zeros((n, 6, 4))
    x[..., :2] = rng.normal(0.0, 0.1 * stretch, (n, 6, 2))
    x[..., 2] = rng.dirichlet(np.ones(6), n)
    x[..., 3] = 1
    x[::2, 5] = 0
    return x


def options(name: str) -> dict[str, int]:
    return SMALL.get(name, {"n_bootstrap": 5})


@pytest.fixture(params=JET_METRICS.names())
def name(request: pytest.FixtureRequest) -> str:
    if request.param in ("coverage", "mmd"):
        pytest.importorskip("ot")
    return request.param


# ---- what every score does


def test_every_score_sees_stretched_jets(name: str) -> None:
    if name in ("w1_pt", "coverage"):
        pytest.skip("hardly changed by angles")
    same = JET_METRICS.get(name)(jets(1), jets(2), **options(name))
    far = JET_METRICS.get(name)(jets(1), jets(2, stretch=2.0), **options(name))
    assert far.value > same.value + 5 * same.error


def test_every_score_is_finite_named_and_repeatable(name: str) -> None:
    first, again = (JET_METRICS.get(name)(jets(1), jets(2), **options(name)) for _ in range(2))
    assert first == again
    assert first.name == name
    assert np.isfinite([first.value, first.error]).all()
    assert first.n == 400
    json.dumps(first.to_json())


def test_no_score_depends_on_the_order_of_particles(name: str) -> None:
    other = jets(2)
    one = JET_METRICS.get(name)(jets(1), other, **options(name))
    mixed = JET_METRICS.get(name)(jets(1), other[:, ::-1], **options(name))
    assert mixed.value == pytest.approx(one.value, rel=1e-4, abs=1e-12)  # the fit's precision


@pytest.mark.parametrize("function", [w1_mass, w1_pt, w1_particles, w1_efp])
def test_distances_of_a_sample_to_itself_vanish(function) -> None:
    assert function(jets(1), jets(1), n_bootstrap=3).value == pytest.approx(0.0, abs=1e-15)


# ---- Wasserstein scores


def test_scaled_momenta_move_mass_and_momentum_by_a_known_distance() -> None:
    real = jets(1)
    wide = real * [1.0, 1.0, 1.1, 1.0]
    sample = Constituents.of(real)
    assert w1_mass(real, wide).value == pytest.approx(0.1 * sample.mass().mean(), rel=1e-9)
    expected = 0.1 * sample.transverse_momentum().mean()
    assert w1_pt(real, wide).value == pytest.approx(expected, rel=1e-9)


def test_particle_score_is_the_mean_of_three_exact_distances() -> None:
    real, generated = jets(1), jets(2, n=300, stretch=1.3)
    parts = [
        wasserstein_distance(
            real[..., i][real[..., 3] > 0], generated[..., i][generated[..., 3] > 0]
        )
        for i in range(3)
    ]
    result = w1_particles(real, generated, n_bootstrap=3)
    assert result.value == pytest.approx(np.mean(parts), rel=1e-9)
    features = [value for value, _ in result.settings["features"].values()]
    assert features == pytest.approx(parts, rel=1e-9)


def test_error_of_the_particle_score_counts_jets_not_particles() -> None:
    # all particles of a jet at one place: as many independent values as jets
    def clumps(seed: int) -> np.ndarray:
        x = jets(seed, n=300)
        x[..., 0] = np.random.default_rng(seed).normal(0.5, 0.1, 300)[:, None]
        return x

    results = [w1_particles(clumps(2 * i), clumps(2 * i + 1), seed=i) for i in range(40)]
    values, errors = np.array([r.settings["features"]["etarel"] for r in results]).T
    spread = values.std(ddof=1)
    assert abs(np.mean(errors) / spread - 1) < 5 / np.sqrt(2 * len(values))


def test_polynomial_score_of_scaled_momenta_is_known() -> None:
    # four vertices: the polynomials grow with the fourth power, all by the same factor
    real = jets(1)
    result = w1_efp(real, real * [1.0, 1.0, 1.1, 1.0], n_bootstrap=3)
    more = w1_efp(real, real * [1.0, 1.0, 1.2, 1.0], n_bootstrap=3)
    assert more.value / result.value == pytest.approx((1.2**4 - 1) / (1.1**4 - 1), rel=1e-9)


# ---- FPD and KPD


def test_fpd_equals_that_of_jetnet(references: dict[str, list]) -> None:
    result = frechet_distance(features(1), features(2), **SMALL_FPD)
    assert [result.value, result.error] == pytest.approx(references["fpd"], rel=1e-6)


def test_kpd_equals_that_of_jetnet(references: dict[str, list]) -> None:
    result = kernel_distance(features(1), features(2), batch_size=300)
    assert [result.value, result.error] == pytest.approx(references["kpd"], rel=1e-6)


def test_fpd_of_shifted_gaussians_is_the_square_of_the_shift() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(2, 20_000, 3))
    shift = 0.5
    unit = np.abs(x).max(axis=0)
    result = frechet_distance(x, y + np.array([shift, 0.0, 0.0]), **SMALL_FPD)
    # the squared shift and its sampling error, plus what two equal covariances leave
    sampling = 2 * shift * np.sqrt(2 / 20_000) / unit[0] ** 2
    assert abs(result.value - (shift / unit[0]) ** 2) < 5 * np.hypot(sampling, result.error)


def test_fpd_holds_for_columns_that_depend_on_each_other() -> None:
    x = features(1)
    doubled = np.hstack([x, x[:, :1]])
    assert frechet_distance(doubled, doubled, **SMALL_FPD).value < 0.01


def test_kpd_of_equal_laws_is_unbiased() -> None:
    rng = np.random.default_rng(4)
    values = [
        kernel_distance(*rng.normal(size=(2, 500, 2)), batch_size=200, n_batches=3).value
        for _ in range(40)
    ]
    assert abs(np.mean(values)) < 5 * np.std(values, ddof=1) / np.sqrt(len(values))


def test_different_columns_are_refused() -> None:
    with pytest.raises(InputError, match="same columns"):
        frechet_distance(features(1), features(2)[:, :3], **SMALL_FPD)


def test_columns_that_are_nearly_empty_in_the_reference_are_warned_of():
    real = features(1).copy()
    real[:, 0] *= 1e-12
    with pytest.warns(DataWarning, match="1 columns of the generated events reach"):
        kernel_distance(real, features(2), batch_size=50, n_batches=2)


# ---- energy mover's distance


def test_distance_of_single_particles_is_what_must_be_moved() -> None:
    pytest.importorskip("ot")
    one = Constituents.of(np.array([[[0.0, 0.0, 2.0]]]))
    other = Constituents.of(np.array([[[0.3, 0.4, 2.0]], [[0.3, 0.4, 2.5]]]))
    np.testing.assert_allclose(energy_distances(one, other), [[2 * 0.5, 2 * 0.5 + 0.5]])


def test_distances_equal_those_of_energyflow(references: dict[str, list]) -> None:
    pytest.importorskip("ot")
    stored = Constituents.of(np.load(ASSETS / "jets.npz")["jets"])
    found = energy_distances(stored.take(slice(0, 10)), stored.take(slice(10, 20)))
    np.testing.assert_allclose(found, references["emds"], rtol=1e-6)


def test_coverage_of_a_collapsed_generator_is_small() -> None:
    pytest.importorskip("ot")
    collapsed = np.repeat(jets(5)[:1], 50, axis=0)
    result = emd_coverage(jets(1), collapsed, size=20, n_batches=3)
    assert result.value == pytest.approx(1 / 20)
    assert emd_mmd(jets(1), collapsed, size=20, n_batches=3).value > 0


def test_missing_transport_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def without(module: str, *args: object, **given: object) -> object:
        if module == "ot":
            raise ImportError("no module named ot")
        return real_import(module, *args, **given)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtra, match=r"pip install 'flowbdt\[jets\]'"):
        emd_coverage(jets(1), jets(2))


# ---- several at once


def test_floors_stand_beside_the_scores() -> None:
    found = jet_scores(jets(1), jets(2), jets(3), ["w1_mass", "fpd"], SMALL)
    assert set(found) == {"w1_mass", "fpd"}
    assert found["fpd"].floor == pytest.approx(polynomial_fpd(jets(1), jets(3), **SMALL_FPD).value)
    assert found["w1_mass"].excess is not None
