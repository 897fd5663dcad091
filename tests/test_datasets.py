"""Data sets: one contract for all, files of jets, the bundled sample as documented."""

from __future__ import annotations

import re
import runpy
import socket
from importlib import resources
from pathlib import Path

import h5py
import numpy as np
import pytest

from flowbdt.atomic_files import digest_file
from flowbdt.errors import FormatError, InputError
from flowbdt.physics import (
    DATASETS,
    Dataset,
    ZToEE,
    bundled,
    hashed_rows,
    read_jetnet,
    toy_showers,
    write_showers,
)
from flowbdt.physics.jets.jetnet_files import HLV_COLUMNS
from flowbdt.tables.formats import read_attributes, read_table
from flowbdt.tables.formulas.expressions import declared

N_JETS = 20
SCRIPT = Path(__file__).parents[1] / "experiments" / "make_bundled_sample.py"


def _write_jetnet(folder: Path, n: int = N_JETS, n_particles: int = 30) -> None:
    """Write tiny files in JetNet's layout, and a table of 12 variables that obey the relations."""
    rng = np.random.default_rng(5)
    with h5py.File(folder / "t.hdf5", "w") as handle:
        handle["jet_features"] = np.column_stack(
            [
                rng.normal(1000, 20, n),
                rng.normal(size=n),
                rng.normal(173, 5, n),
                rng.integers(3, 9, n),
            ]
        ).astype(np.float32)
        particles = rng.normal(size=(n, n_particles, 4)).astype(np.float32)
        particles[..., 3] = rng.random((n, n_particles)) < 0.7
        handle["particle_features"] = particles
    columns = {name: rng.uniform(0.1, 1.0, n) for name in HLV_COLUMNS}
    columns["tau21"] = columns["tau2"] / columns["tau1"]
    columns["tau32"] = columns["tau3"] / columns["tau2"]
    columns["d2"] = columns["ecf3"] / columns["ecf2"] ** 3
    with h5py.File(folder / "t_hlv12.h5", "w") as handle:
        for name, values in columns.items():
            handle[name] = values.astype(np.float32)


def _write_zjets(path: Path, n: int = N_JETS) -> None:
    """Write a tiny file in the layout of the OmniFold samples."""
    rng = np.random.default_rng(6)
    keys = ("lhas", "widths", "ang2s", "tau2s", "sdms", "zgs")
    arrays = {f"{level}_{key}": rng.random(n) for level in ("gen", "sim") for key in keys}
    jets = {f"{level}_jets": rng.uniform(100, 500, (n, 4)) for level in ("gen", "sim")}
    counts = {f"{level}_mults": rng.integers(2, 60, n) for level in ("gen", "sim")}
    np.savez(path, **arrays, **jets, **counts)


@pytest.fixture
def folder(tmp_path) -> Path:
    _write_jetnet(tmp_path)
    write_showers(tmp_path / "showers.hdf5", toy_showers("photons", 20))
    _write_zjets(tmp_path / "Pythia26_Zjet_pTZ-200GeV_0.npz")
    return tmp_path


@pytest.fixture(params=DATASETS.names())
def dataset(request, folder) -> Dataset:
    options = {
        "jetnet": {"folder": folder},
        "jetnet_hlv": {"folder": folder, "train_rows": 12},
        "bundled": {},
        "z_to_ee": {},
        "calochallenge": {"path": folder / "showers.hdf5"},
        "omnifold": {"folder": folder},
    }
    return DATASETS.build(
        {"name": request.param, **options.get(request.param, {"n_events": 300, "seed": 3})}
    )


# ---- the contract


def test_columns_units_and_names_are_as_declared(dataset):
    table = dataset.load("train")
    assert table.names == tuple(dataset.columns)
    assert dict(zip(table.names, table.units, strict=True)) == {
        name: dataset.units.get(name, "") for name in table.names
    }
    assert DATASETS.get(dataset.name) is type(dataset)


def test_source_and_licence_are_stated(dataset):
    assert len(dataset.source) > 20
    assert dataset.licence


def test_splits_are_disjoint_and_together_all(dataset):
    parts = [dataset.load(split).x for split in dataset.splits]
    rows = [tuple(row) for part in parts for row in part]
    assert len(set(rows)) == len(rows)
    assert set(rows) == {tuple(row) for row in dataset.load("all").x}
    assert len(rows) == dataset.load().n


def test_order_is_the_same_at_every_load(dataset):
    np.testing.assert_array_equal(dataset.load("train").x, dataset.load("train").x)


def test_unknown_split_lists_the_known(dataset):
    with pytest.raises(InputError, match="Did you mean 'train'"):
        dataset.load("trian")


def test_nothing_asks_the_network(dataset, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("a data set opened a connection")

    monkeypatch.setattr(socket, "socket", refuse)
    assert dataset.load("test").n > 0


def test_declared_relations_hold_on_the_stored_values(dataset):
    table = dataset.load("all")
    values = {name: table.column(name) for name in table.names}
    for relation in dataset.relations:
        target, formula = (side.strip() for side in relation.split("="))
        expected = eval(formula, {"__builtins__": {}}, values)
        np.testing.assert_allclose(table.column(target), expected, rtol=1e-6)


# ---- splits


def test_hashed_splits_are_disjoint_complete_and_of_the_asked_size():
    n, fractions = 20_000, {"train": 0.7, "validation": 0.1, "test": 0.2}
    parts = hashed_rows(n, fractions, seed=1)
    np.testing.assert_array_equal(np.sort(np.concatenate(list(parts.values()))), np.arange(n))
    for name, fraction in fractions.items():
        error = np.sqrt(n * fraction * (1 - fraction))
        assert abs(len(parts[name]) - n * fraction) < 5 * error
        assert (np.diff(parts[name]) > 0).all()


def test_hashed_splits_of_another_seed_are_others():
    fractions = {"a": 0.5, "b": 0.5}
    first, second = (hashed_rows(200, fractions, seed)["a"] for seed in (1, 2))
    assert set(first) != set(second)


@pytest.mark.parametrize("fractions", [{"a": 0.5}, {"a": 1.5, "b": -0.5}, {}])
def test_fractions_that_are_no_division_are_refused(fractions):
    with pytest.raises(InputError, match="add up to 1"):
        hashed_rows(10, fractions)


# ---- JetNet files


def test_jets_and_particles_are_flat_tables_in_the_order_of_the_file(folder):
    with h5py.File(folder / "t.hdf5") as handle:
        jets, particles = handle["jet_features"][:], handle["particle_features"][:]
    table = read_jetnet(folder / "t.hdf5")
    assert table.names == ("pt", "eta", "mass", "num_particles")
    assert table.units == ("GeV", "", "GeV", "")
    assert table.dtypes == ("float32", "float32", "float32", "int32")
    np.testing.assert_array_equal(table.x, jets)
    table = read_jetnet(folder / "t.hdf5", "particles", rows=(2, 6))
    assert table.names[:5] == ("etarel_0", "phirel_0", "ptrel_0", "mask_0", "etarel_1")
    assert table.unit("phirel_29") == "rad"
    np.testing.assert_array_equal(table.column("ptrel_7"), particles[2:6, 7, 2])
    np.testing.assert_array_equal(table.column("mask_29"), particles[2:6, 29, 3])
    assert table.dtypes[:4] == ("float32", "float32", "float32", "int32")


def test_other_numbers_of_particles_are_read(tmp_path):
    _write_jetnet(tmp_path, n=3, n_particles=150)
    assert len(read_jetnet(tmp_path / "t.hdf5", "particles").names) == 600


def test_particle_data_set_keeps_the_hardest_particles(tmp_path):
    _write_jetnet(tmp_path, n_particles=150)
    options = {"name": "jetnet", "folder": tmp_path, "what": "particles", "n_particles": 2}
    table = DATASETS.build(options).load()
    assert table.names == read_jetnet(tmp_path / "t.hdf5", "particles").names[:8]


def _rename_to_150(folder: Path) -> None:
    (folder / "t.hdf5").rename(folder / "t150.hdf5")


def test_files_of_150_particles_are_found_by_their_public_name(tmp_path):
    _write_jetnet(tmp_path, n=5, n_particles=150)
    _rename_to_150(tmp_path)
    jetnet = DATASETS.get("jetnet")
    assert len(jetnet(tmp_path, what="particles", n_particles=150).load().names) == 600
    few = jetnet(tmp_path, what="particles", n_particles=3).load()
    np.testing.assert_array_equal(few.x, read_jetnet(tmp_path / "t150.hdf5", "particles").x[:, :12])


def test_more_than_30_particles_ask_for_the_larger_file(tmp_path):
    _write_jetnet(tmp_path, n=5, n_particles=150)
    _rename_to_150(tmp_path)
    _write_jetnet(tmp_path, n=4)
    jetnet = DATASETS.get("jetnet")
    assert jetnet(tmp_path, what="particles", n_particles=31).load().n == 5
    assert jetnet(tmp_path, what="particles", n_particles=30).load().n == 4
    (tmp_path / "t150.hdf5").unlink()
    with pytest.raises(InputError, match="has 30 particles per jet, fewer than 31"):
        jetnet(tmp_path, what="particles", n_particles=31).load()


def test_jets_count_the_particles_that_are_kept(tmp_path):
    _write_jetnet(tmp_path, n_particles=150)
    everything = read_jetnet(tmp_path / "t.hdf5").column("num_particles")
    kept = read_jetnet(tmp_path / "t.hdf5", n_particles=5).column("num_particles")
    np.testing.assert_array_equal(kept, np.minimum(everything, 5))
    assert everything.max() > 5
    with pytest.raises(InputError, match="n_particles must be at least 1"):
        read_jetnet(tmp_path / "t.hdf5", n_particles=0)


def test_masks_that_are_no_whole_numbers_are_refused(tmp_path):
    with h5py.File(tmp_path / "t.hdf5", "w") as handle:
        handle["particle_features"] = np.full((4, 2, 4), 0.5, np.float32)
    with pytest.raises(InputError, match=r"t\.hdf5: masks and numbers of particles"):
        read_jetnet(tmp_path / "t.hdf5", "particles")


def test_damaged_particles_are_named(folder):
    with h5py.File(folder / "packed.hdf5", "w") as handle:
        data = np.random.default_rng(1).normal(size=(50, 30, 4)).astype(np.float32)
        handle.create_dataset("particle_features", data=data, compression="gzip")
    content = bytearray((folder / "packed.hdf5").read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2000] = bytes(2000)
    (folder / "packed.hdf5").write_bytes(content)
    with pytest.raises(FormatError, match="damaged"):
        read_jetnet(folder / "packed.hdf5", "particles")


def test_jetnet_files_that_are_none_say_why(folder):
    with pytest.raises(InputError, match="'jets' or 'particles'"):
        read_jetnet(folder / "t.hdf5", "partons")
    with pytest.raises(InputError, match=r"must hold 'jet_features'.*read_table"):
        read_jetnet(folder / "t_hlv12.h5")
    with pytest.raises(InputError, match="not a file"):
        read_jetnet(folder / "w.hdf5")
    with pytest.raises(InputError, match="rows must be"):
        read_jetnet(folder / "t.hdf5", rows=(0, N_JETS + 1))
    (folder / "cut.hdf5").write_bytes((folder / "t.hdf5").read_bytes()[:3000])
    with pytest.raises(FormatError, match="truncated"):
        read_jetnet(folder / "cut.hdf5")
    with h5py.File(folder / "flat.hdf5", "w") as handle:
        handle["jet_features"] = np.zeros((5, 3))
    with pytest.raises(InputError, match=r"shape \(N, 4\), got \(5, 3\)"):
        read_jetnet(folder / "flat.hdf5")
    with h5py.File(folder / "nan.hdf5", "w") as handle:
        handle["jet_features"] = np.full((5, 4), np.nan)
    with pytest.raises(InputError, match=r"nan\.hdf5.*NaN"):
        read_jetnet(folder / "nan.hdf5")


def test_missing_jetnet_file_is_not_downloaded_but_named(folder):
    with pytest.raises(InputError, match="'flowbdt data fetch' downloads"):
        DATASETS.build({"name": "jetnet_hlv", "folder": folder, "jet": "q"}).load("train")


def test_hlv_split_is_by_row_at_25000_unless_told(folder):
    hlv = DATASETS.get("jetnet_hlv")
    assert hlv(folder).train_rows == 25_000
    with pytest.raises(InputError, match="split 'test' of 'jetnet_hlv' is empty"):
        hlv(folder).load("test")
    everything = hlv(folder).load("all")
    part = hlv(folder, train_rows=12).load("test")
    np.testing.assert_array_equal(part.x, everything.x[12:])


# ---- the bundled sample


def _bundled_path() -> Path:
    return Path(str(resources.files("flowbdt.physics") / "data" / "top_jets_hlv12.h5"))


@pytest.mark.parametrize(
    ("name", "size"), [("top_jets_hlv12.h5", 1_900_000), ("z_to_ee.h5", 450_000)]
)
def test_bundled_samples_are_small_and_the_documented_ones(name, size):
    path = _bundled_path().parent / name
    assert path.stat().st_size <= size
    (_, text) = (path.parent / "README.md").read_text().split(f"## `{name}`")
    assert re.findall(r"`([0-9a-f]{64})`", text)[0] == digest_file(path)


def test_bundled_electron_pairs_meet_their_cuts_and_peak_at_the_z():
    data = ZToEE()
    table = data.load()
    mass = declared(data.observables, data.particles)[0].added_to(table).column("mee")
    assert table.n == 18_885
    assert 0.45 < np.mean((mass > 86) & (mass < 96)) < 0.55
    assert ((mass > 60) & (mass < 120)).all()
    assert all(((p > 25) & (p < 300)).all() for p in map(table.column, ("pt1", "pt2")))


def test_bundled_sample_has_rows_units_and_provenance():
    data = bundled()
    assert data.load().n == 40_000
    assert data.load("train").n == 25_000
    assert data.load("test").n == 15_000
    assert set(data.load("test").dtypes) == {"float32"}
    attributes = read_attributes(_bundled_path())
    assert attributes["relations"] == list(data.relations)
    assert {"generator", "licence", "source_sha256", "rows"} <= set(attributes)


def test_bundled_masses_and_momenta_are_those_of_boosted_tops():
    table = bundled().load()
    assert 800 < np.median(table.column("pt")) < 1100
    assert 100 < np.median(table.column("mass")) < 200
    assert np.median(table.column("tau32")) < 0.6


def test_bundled_sample_is_made_again_byte_by_byte_from_its_rows(tmp_path):
    source, first, second = tmp_path / "source.h5", tmp_path / "a.h5", tmp_path / "b.h5"
    _write_jetnet(tmp_path)
    (tmp_path / "t_hlv12.h5").rename(source)
    script = runpy.run_path(str(SCRIPT))
    for target in (first, second):
        script["main"]([str(source), str(target), "--rows", "15"])
    assert first.read_bytes() == second.read_bytes()
    table = read_table(first)
    assert table.names == HLV_COLUMNS
    assert table.unit("pt") == "GeV"
    np.testing.assert_array_equal(table.x, read_table(source, HLV_COLUMNS, rows=(0, 15)).x)
