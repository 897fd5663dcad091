"""Showers of the CaloChallenge: geometry, files, toys."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from flowbdt.errors import FormatError, InputError, RunError
from flowbdt.physics import (
    CaloChallenge,
    ShowerFile,
    Showers,
    geometry,
    read_binning,
    read_showers,
    toy_showers,
    write_showers,
)
from flowbdt.physics.calorimeter import shower_files as module
from flowbdt.physics.calorimeter.geometry import SIZES, geometry_of

BOUNDS = {
    "photons": [0, 8, 168, 358, 363, 368],
    "pions": [0, 8, 108, 208, 213, 363, 523, 533],
}
NUMBERS = {"photons": (0, 1, 2, 3, 12), "pions": (0, 1, 2, 3, 12, 13, 14)}


# ---- geometry


@pytest.mark.parametrize("name", list(SIZES))
def test_each_geometry_has_the_published_number_of_voxels(name):
    assert geometry(name).n_voxels == SIZES[name]
    assert geometry_of(SIZES[name]) == geometry(name)


@pytest.mark.parametrize("name", list(BOUNDS))
def test_layers_of_dataset_1_begin_where_the_challenge_says(name):
    layers = geometry(name).layers
    assert [layer.first for layer in layers] + [layers[-1].voxels.stop] == BOUNDS[name]
    assert geometry(name).numbers == NUMBERS[name]


def test_rings_and_sectors_of_dataset_1_are_those_of_the_binning_file():
    one = geometry("photons").layers[1]
    edges = (0, 2, 4, 6, 8, 10, 12, 15, 20, 30, 40, 50, 70, 90, 120, 150, 200)
    assert one.r_edges == edges
    assert one.n_alpha == 10
    assert geometry("pions").with_angles == (1, 2, 4, 5)


def test_rings_of_datasets_2_and_3_are_equally_wide():
    np.testing.assert_allclose(np.diff(geometry("dataset_2").layers[0].r_edges), 4.65)
    np.testing.assert_allclose(np.diff(geometry("dataset_3").layers[44].r_edges), 2.325)


@pytest.mark.parametrize("name", list(SIZES))
def test_voxel_and_map_are_each_other_s_inverse(name):
    shape = geometry(name)
    for number in np.linspace(0, shape.n_voxels - 1, 50).astype(int):
        assert shape.voxel(*shape.map[number]) == number


def test_radius_runs_fastest_then_the_angle():
    layer = geometry("photons").layers[1]
    assert layer.radii[0] == layer.radii[16] == 1.0
    assert layer.radii[1] == 3.0
    assert layer.angles[0] == pytest.approx(-0.9 * np.pi)
    assert layer.angles[15] == layer.angles[0] < layer.angles[16]
    assert geometry("photons").layers[0].angles.tolist() == [0.0] * 8


def test_names_tell_layer_sector_and_ring():
    names = geometry("photons").names()
    assert names[8 + 16 * 2 + 5] == "l1_a2_r5"
    assert len(set(names)) == 368


def test_layer_energies_add_up():
    shape = geometry("pions")
    voxels = np.random.default_rng(0).random((4, 533)).astype(np.float32)
    expected = [voxels[:, a:b].astype(float).sum(1) for a, b in zip(BOUNDS["pions"], BOUNDS["pions"][1:])]  # fmt: skip # noqa: B905, E501
    np.testing.assert_allclose(shape.layer_energies(voxels), np.transpose(expected), rtol=1e-12)


@pytest.mark.parametrize("place", [(5, 0, 0), (1, 10, 0), (1, 0, 16), (-1, 0, 0)])
def test_a_voxel_that_is_not_there_is_refused(place):
    with pytest.raises(InputError, match="has"):
        geometry("photons").voxel(*place)


def test_unknown_geometries_are_refused_with_the_known():
    with pytest.raises(InputError, match="photons"):
        geometry("photon")
    with pytest.raises(InputError, match="read_binning"):
        geometry_of(369)


@pytest.mark.parametrize(
    "text",
    [
        "<Bins>",
        "<Bins></Bins>",
        '<Bins><Bin name="x"><Layer id="0" r_edges="0,2,1" n_bin_alpha="1"/></Bin></Bins>',
        '<Bins><Bin name="x"><Layer id="0" n_bin_alpha="1"/></Bin></Bins>',
        '<Bins><Bin name="x"><Layer id="0" r_edges="0" n_bin_alpha="1"/></Bin></Bins>',
    ],
)
def test_broken_binning_files_are_refused(tmp_path, text):
    (tmp_path / "b.xml").write_text(text)
    with pytest.raises(FormatError, match=r"b\.xml"):
        read_binning(tmp_path / "b.xml")


def test_a_binning_of_one_s_own_is_read(tmp_path):
    text = '<Bins><Bin name="muon"><Layer id="7" r_edges="0,1,3" n_bin_alpha="4"/></Bin></Bins>'
    (tmp_path / "b.xml").write_text(text)
    own = read_binning(tmp_path / "b.xml", "own")
    assert (own.name, own.particle, own.numbers, own.n_voxels) == ("own", "muon", (7,), 8)
    showers = Showers.of([1.0], np.ones((1, 8)), own)
    assert showers.geometry is own


# ---- showers and files


@pytest.mark.parametrize("name", ["photons", "pions", "dataset_2"])
def test_what_is_written_is_read_again(tmp_path, name):
    showers = toy_showers(name, 7, seed=2)
    write_showers(tmp_path / "s.hdf5", showers, {"made_by": "test"})
    again = read_showers(tmp_path / "s.hdf5")
    assert again.geometry == showers.geometry
    np.testing.assert_array_equal(again.voxels, showers.voxels)
    np.testing.assert_array_equal(again.energies, showers.energies)


def test_dataset_3_is_read_and_written(tmp_path):
    showers = toy_showers("dataset_3", 2, seed=1)
    write_showers(tmp_path / "s.hdf5", showers)
    assert read_showers(tmp_path / "s.hdf5").voxels.shape == (2, 40_500)


def test_files_have_the_challenge_s_layout(tmp_path):
    write_showers(tmp_path / "s.hdf5", toy_showers("photons", 3))
    with h5py.File(tmp_path / "s.hdf5") as handle:
        assert sorted(handle) == ["incident_energies", "showers"]
        assert handle["incident_energies"].shape == (3, 1)
        assert handle["showers"].shape == (3, 368)


def test_blocks_do_not_change_file_or_reading(tmp_path, monkeypatch):
    showers = toy_showers("photons", 20, seed=3)
    write_showers(tmp_path / "a.hdf5", showers)
    monkeypatch.setattr(module, "BLOCK_VALUES", 368 * 6)
    write_showers(tmp_path / "b.hdf5", showers)
    assert (tmp_path / "a.hdf5").read_bytes() == (tmp_path / "b.hdf5").read_bytes()
    parts = list(ShowerFile(tmp_path / "b.hdf5"))
    assert [part.n for part in parts] == [6, 6, 6, 2]
    np.testing.assert_array_equal(np.concatenate([p.voxels for p in parts]), showers.voxels)


def test_a_public_file_in_double_precision_is_read(tmp_path):
    showers = toy_showers("photons", 5)
    with h5py.File(tmp_path / "s.hdf5", "w") as handle:
        handle["incident_energies"] = showers.energies[:, None]
        handle["showers"] = showers.voxels.astype(np.float64)
    again = read_showers(tmp_path / "s.hdf5", rows=(1, 4))
    assert again.voxels.dtype == np.float32
    np.testing.assert_array_equal(again.voxels, showers.voxels[1:4])


def test_voxels_below_the_official_threshold_become_zero():
    voxels = np.zeros((1, 368), dtype=np.float32)
    voxels[0, :3] = 0.999, 1.0, 5.0
    assert Showers.of([256.0], voxels).above().voxels[0, :3].tolist() == [0.0, 1.0, 5.0]
    assert Showers.of([256.0], voxels).above(0.0).voxels[0, 0] == np.float32(0.999)
    assert geometry("dataset_2").min_energy == pytest.approx(15.15e-3, rel=1e-3)


@pytest.mark.parametrize(
    ("energies", "voxels"),
    [
        ([1.0], -np.ones((1, 368))),
        ([1.0], np.full((1, 368), np.nan)),
        ([1.0], np.full((1, 368), np.inf)),
        ([0.0], np.ones((1, 368))),
        ([1.0, 2.0], np.ones((1, 368))),
        ([1.0], np.ones(368)),
        ([1.0], np.ones((1, 367))),
    ],
)
def test_impossible_showers_are_refused(energies, voxels):
    with pytest.raises(InputError):
        Showers.of(energies, voxels)


def test_files_of_something_else_are_refused(tmp_path):
    with pytest.raises(InputError, match="not a file"):
        ShowerFile(tmp_path / "no.hdf5")
    (tmp_path / "t.hdf5").write_text("text")
    with pytest.raises(FormatError, match="truncated"):
        ShowerFile(tmp_path / "t.hdf5")
    with h5py.File(tmp_path / "o.hdf5", "w") as handle:
        handle["showers"] = np.ones((3, 368))
    with pytest.raises(InputError, match="incident_energies"):
        ShowerFile(tmp_path / "o.hdf5")
    write_showers(tmp_path / "p.hdf5", toy_showers("photons", 2))
    with pytest.raises(InputError, match="533"):
        ShowerFile(tmp_path / "p.hdf5", "pions")


def test_a_truncated_file_is_refused_and_a_newer_format_named(tmp_path):
    path = tmp_path / "s.hdf5"
    write_showers(path, toy_showers("photons", 50))
    (tmp_path / "cut.hdf5").write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(FormatError):
        read_showers(tmp_path / "cut.hdf5")
    with h5py.File(path, "a") as handle:
        handle.attrs["flowbdt_showers"] = 99
    with pytest.raises(FormatError, match="update"):
        ShowerFile(path)


def test_nothing_is_left_behind_when_writing_fails(tmp_path):
    with pytest.raises(InputError, match="at least one"):
        write_showers(tmp_path / "s.hdf5", [])
    with pytest.raises(InputError, match="shape"):
        write_showers(tmp_path / "s.hdf5", [toy_showers("photons", 1), toy_showers("pions", 1)])
    with pytest.raises((RunError, OSError)):
        write_showers(tmp_path / "no" / "s.hdf5", toy_showers("photons", 1))
    assert list(tmp_path.iterdir()) == []


def test_the_data_set_splits_by_row_and_keeps_the_energy_as_condition(tmp_path):
    write_showers(tmp_path / "s.hdf5", toy_showers("photons", 400, seed=5))
    dataset = CaloChallenge(tmp_path / "s.hdf5")
    train, test = dataset.load("train"), dataset.load("test")
    assert train.n + test.n == 400
    assert abs(train.n - 200) < 5 * np.sqrt(400 / 4)
    assert train.cond_names == ("incident_energy",)
    assert dataset.showers("train").n == train.n


# ---- toys


def test_toy_pairs_share_the_energy_but_not_the_showers():
    detailed, cheap = toy_showers("photons", 30, 4), toy_showers("photons", 30, 4, cheap=True)
    np.testing.assert_array_equal(detailed.energies, cheap.energies)
    assert not np.array_equal(detailed.voxels, cheap.voxels)
    other = toy_showers("photons", 30, 5)
    assert not np.array_equal(detailed.voxels, other.voxels)


def test_toys_deposit_about_the_incident_energy():
    showers = toy_showers("pions", 300, 1)
    high = showers.energies > 1e4
    ratio = showers.voxels[high].sum(axis=1) / showers.energies[high]
    assert abs(ratio.mean() - 1) < 5 * ratio.std() / np.sqrt(high.sum()) + 0.01
    with pytest.raises(InputError, match="at least 1"):
        toy_showers("pions", 0)


def test_an_unknown_split_is_not_taken_for_the_test(tmp_path):
    path = tmp_path / "dataset_1_photons_1.hdf5"
    write_showers(path, toy_showers("photons", 20, seed=1))
    with pytest.raises(InputError, match="training"):
        CaloChallenge(path).showers("training")
