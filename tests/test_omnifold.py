"""Z + jets files: columns from the published arrays, the atom of the groomed mass, errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flowbdt.errors import FormatError, InputError
from flowbdt.physics import OmniFoldZJets, read_zjets
from flowbdt.physics.jets.omnifold_files import MORE, NO_GROOMED_MASS, SIX, zjets_files
from flowbdt.tables.transforms import TableTransform

KEYS = ("mults", "lhas", "widths", "ang2s", "tau2s", "sdms", "zgs")


def arrays(n: int, seed: int) -> dict[str, np.ndarray]:
    """Return arrays of the published names with known values; the first jet is empty."""
    rng = np.random.default_rng(seed)
    found: dict[str, np.ndarray] = {"gen_Zs": rng.normal(size=(n, 3))}
    for level in ("gen", "sim"):
        for key in KEYS:
            found[f"{level}_{key}"] = rng.uniform(0.1, 0.4, n)
        found[f"{level}_mults"] = rng.integers(2, 60, n).astype(np.int32)
        found[f"{level}_sdms"] = rng.uniform(1.0, 30.0, n)
        found[f"{level}_jets"] = rng.uniform(100.0, 500.0, (n, 4))
        for key in ("sdms", "zgs", "widths", "tau2s"):
            found[f"{level}_{key}"][0] = 0.0
    return found


@pytest.fixture
def folder(tmp_path) -> Path:
    for number in range(2):
        np.savez(tmp_path / f"Herwig_Zjet_pTZ-200GeV_{number}.npz", **arrays(30, number))
    return tmp_path


def test_columns_are_those_of_the_arrays(folder):
    raw = arrays(30, 0)
    table = read_zjets(zjets_files(folder, "Herwig", 1), (*SIX, *MORE))
    for name, key in {"width": "widths", "z_g": "zgs", "lha": "lhas", "ang2": "ang2s"}.items():
        np.testing.assert_array_equal(table.column(name), raw[f"gen_{key}"])
    np.testing.assert_array_equal(table.column("pt"), raw["gen_jets"][:, 0])
    np.testing.assert_array_equal(table.column("mass"), raw["gen_jets"][:, 3])
    np.testing.assert_array_equal(table.column("multiplicity"), raw["gen_mults"])
    np.testing.assert_allclose(
        table.column("tau21")[1:], raw["gen_tau2s"][1:] / raw["gen_widths"][1:]
    )
    expected = np.log(raw["gen_sdms"][1:] ** 2 / raw["gen_jets"][1:, 0] ** 2)
    np.testing.assert_allclose(table.column("ln_rho")[1:], expected)
    assert table.dtypes[table.names.index("multiplicity")] == "int32"
    assert table.unit("mass") == "GeV"


def test_detector_level_of_the_same_row_is_the_condition(folder):
    table = read_zjets(zjets_files(folder, "Herwig", 1))
    assert table.cond_names == tuple(f"sim_{name}" for name in SIX)
    np.testing.assert_array_equal(table.cond[:, 1], arrays(30, 0)["sim_widths"])
    assert read_zjets(zjets_files(folder, "Herwig"), SIX, ()).cond is None
    assert read_zjets(zjets_files(folder, "Herwig"), SIX, ("pt",)).cond_names == ("sim_pt",)


def test_files_follow_one_another_in_the_order_of_their_numbers(folder):
    both = OmniFoldZJets(folder, "Herwig").load()
    assert both.n == 60
    for number in range(2):
        part = read_zjets([folder / f"Herwig_Zjet_pTZ-200GeV_{number}.npz"])
        np.testing.assert_array_equal(both.x[30 * number : 30 * number + 30], part.x)
    assert OmniFoldZJets(folder, "Herwig", n_files=1).load().n == 30


def test_jets_without_groomed_mass_are_kept_as_one_value(folder):
    table = read_zjets(zjets_files(folder, "Herwig"))
    empty = table.column("ln_rho") == NO_GROOMED_MASS
    assert empty.sum() == 2
    assert (table.column("z_g")[empty] == 0).all()
    assert (table.column("tau21")[empty] == 0).all()
    assert np.isfinite(table.x).all()


def test_rounding_errors_of_a_massless_jet_are_no_mass(tmp_path):
    raw = arrays(30, 0)
    raw["gen_sdms"][:4] = [0.0, -1e-3, 1e-7, 5.0]
    np.savez(tmp_path / "Herwig_Zjet_pTZ-200GeV_0.npz", **raw)
    found = OmniFoldZJets(tmp_path, "Herwig").load().column("ln_rho")
    assert (found[:3] == NO_GROOMED_MASS).all()
    assert found[3] > NO_GROOMED_MASS


def test_the_atom_survives_the_way_to_the_latent_space_and_back(tmp_path):
    raw = arrays(3000, 0)
    raw["gen_sdms"][::50] = 0.0
    np.savez(tmp_path / "Herwig_Zjet_pTZ-200GeV_0.npz", **raw)
    table = OmniFoldZJets(tmp_path, "Herwig", SIX, ()).load()
    transform = TableTransform("auto", seed=1).fit(table)
    back = transform.inverse(transform.forward(table))[:, SIX.index("ln_rho")]
    np.testing.assert_array_equal(
        back == NO_GROOMED_MASS, table.column("ln_rho") == NO_GROOMED_MASS
    )


def test_split_is_by_row_and_as_large_as_asked(tmp_path):
    np.savez(tmp_path / "Herwig_Zjet_pTZ-200GeV_0.npz", **arrays(2000, 0))
    data = OmniFoldZJets(tmp_path, "Herwig", train_fraction=0.7)
    n = data.load("train").n
    assert n + data.load("test").n == 2000
    assert abs(n - 1400) < 5 * np.sqrt(2000 * 0.7 * 0.3)


def test_a_gap_in_the_numbers_ends_the_sample(folder):
    (folder / "Herwig_Zjet_pTZ-200GeV_0.npz").rename(folder / "Herwig_Zjet_pTZ-200GeV_2.npz")
    with pytest.raises(InputError, match="'flowbdt data fetch' downloads"):
        zjets_files(folder, "Herwig")


def test_more_files_than_there_are_is_refused(folder):
    with pytest.raises(InputError, match="3 or more"):
        zjets_files(folder, "Herwig", 3)


def test_unknown_observable_lists_the_known(folder):
    with pytest.raises(InputError, match="tau21"):
        OmniFoldZJets(folder, "Herwig", ("tau12",)).load()


def test_missing_array_is_named(folder):
    raw = arrays(30, 0)
    del raw["sim_zgs"]
    np.savez(folder / "Herwig_Zjet_pTZ-200GeV_0.npz", **raw)
    with pytest.raises(InputError, match="sim_zgs"):
        OmniFoldZJets(folder, "Herwig").load()


def test_arrays_of_different_lengths_are_refused(folder):
    raw = arrays(30, 0)
    raw["gen_widths"] = raw["gen_widths"][:-1]
    np.savez(folder / "Herwig_Zjet_pTZ-200GeV_0.npz", **raw)
    with pytest.raises(InputError, match="one entry per jet"):
        OmniFoldZJets(folder, "Herwig").load()


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut"])
def test_foreign_or_truncated_file_is_refused(folder, content):
    (folder / "Herwig_Zjet_pTZ-200GeV_0.npz").write_bytes(content)
    with pytest.raises(FormatError, match="npz"):
        OmniFoldZJets(folder, "Herwig").load()
