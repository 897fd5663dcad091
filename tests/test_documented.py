"""Every command line and Python block of README and docs/ runs, in the order of its page."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import parsed, run
from documented import PAGES, ROOT, examples, run_page, small, words_of

from flowbdt import EventTable, write_table
from flowbdt.physics import ZToEE, bundled, toy_showers, write_showers
from flowbdt.training.executors import EXECUTORS

SHORT = ("export", "install")
"""Pages whose commands take a second or two together."""


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """Return a folder with the tables that the pages name, and a trained run."""
    place = tmp_path_factory.mktemp("documented")
    jets = bundled().load().select(["mass", "pt", "tau1", "tau2", "tau21"])
    names = ("jets", "train", "test", "held-out", "a", "b")
    for i, name in enumerate(names):
        for ending in ("h5", "csv"):
            write_table(place / f"{name}.{ending}", jets.take(slice(300 * i, 300 * (i + 1))))
    rng = np.random.default_rng(0)
    gaps = jets.take(slice(0, 300)).to_frame()
    gaps.loc[rng.random(300) < 0.2, "pt"] = np.nan
    gaps.to_csv(place / "gaps.csv", index=False)
    ZToEE().load().take(slice(0, 1500)).to_frame().to_csv(place / "zee.csv", index=False)
    assert run("fit", place / "train.h5", "-o", place / "run", *small(["fit"])[1:]) == 0
    return place


def _root_files(world):
    ak = pytest.importorskip("awkward")
    pytest.importorskip("uproot")
    from flowbdt.tables.event_collections import write_collections

    rng = np.random.default_rng(0)
    for name in ("ttbar", "test"):
        count = rng.integers(1, 5, 400)
        branches = {
            f"Jet_{one}": ak.unflatten(rng.exponential(30, count.sum()), count)
            for one in ("pt", "eta")
        }
        branches |= {"MET_pt": rng.exponential(40.0, 400), "MET_phi": rng.uniform(-3, 3, 400)}
        write_collections(world / f"{name}.root", ak.zip(branches, depth_limit=1))


def _unfolding_files(world):
    pytest.importorskip("uproot")
    rng = np.random.default_rng(0)
    truth = np.column_stack([rng.normal(90.0, 10.0, 600), rng.exponential(20.0, 600)])
    reco = truth * rng.normal(1.0, 0.1, truth.shape)
    names = ("gen_mass", "gen_pt", "mass", "pt", "is_gen", "is_reco", "generator_weight")
    flags = (rng.random((600, 2)) < 0.9).astype(float)
    flags[:, 0] = np.maximum(flags[:, 0], 1 - flags[:, 1])
    rows = np.column_stack([truth, reco, flags, rng.uniform(0.5, 1.5, 600)])
    write_table(world / "mc.root", EventTable.of(rows, names))
    write_table(world / "data.root", EventTable.of(reco[:300], ["mass", "pt"]))
    background = np.column_stack([reco[:50], np.full(50, 0.2)])
    write_table(world / "background.root", EventTable.of(background, ["mass", "pt", "w"]))


def _response_files(world):
    pytest.importorskip("uproot")
    import awkward as ak

    from experiments.response.samples import toy
    from flowbdt.tables.event_collections import write_collections

    for seed, name in enumerate(("events", "gen", "test")):
        events, rng = toy(300, seed).to_awkward(), np.random.default_rng(seed)
        momenta = -np.sort(-rng.exponential(20.0, (300, 2)) - 5, axis=1)
        muons = {
            "pt": momenta,
            "eta": rng.normal(size=(300, 2)),
            "phi": rng.uniform(-3, 3, (300, 2)),
        }
        for name_of, values in muons.items():
            values = ak.from_regular(ak.from_numpy(values))
            events = ak.with_field(events, values, f"GenMuon_{name_of}")
            events = ak.with_field(events, values * 1.01, f"Muon_{name_of}")
        events = ak.with_field(events, ak.local_index(events["Muon_pt"]), "Muon_genMuonIdx")
        for branch in ("GenMET_pt", "MET_pt", "MET_sumEt"):
            events = ak.with_field(events, rng.exponential(40.0, 300), branch)
        for branch in ("GenMET_phi", "MET_phi"):
            events = ak.with_field(events, rng.uniform(-3, 3, 300), branch)
        write_collections(world / f"{name}.root", events)


def _electrons(world):
    for split in ("train", "test"):
        write_table(world / f"{split}.csv", ZToEE().load(split).take(slice(0, 300)))


def _showers(world):
    pytest.importorskip("torch", reason="networks need the extra 'cfm'")
    write_showers(world / "showers.hdf5", toy_showers("photons", 300, seed=1))


def _samples_to_refine(world):
    pytest.importorskip("uproot")
    rng = np.random.default_rng(0)
    for i, name in enumerate(("mc.root", "data.root", "mc.h5", "data.h5", "more_mc.h5")):
        rows = rng.normal(0.1 * i, 1.0, (400, 2))
        write_table(world / name, EventTable.of(rows, ["mass", "true_energy"]))
    start = EventTable.of(rng.normal(size=(400, 2)), ["mass", "pt"])
    write_table(world / "fast.h5", start)
    write_table(world / "full.h5", EventTable.of(1.1 * start.x + 0.1, start.names))


FILES = {
    "README": _electrons,
    "refining": _samples_to_refine,
    "observables": _electrons,
    "root": _root_files,
    "showers": _showers,
    "unfolding": _unfolding_files,
    "response": _response_files,
}
"""What makes the files that a page needs besides those of all."""


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("python", [False, pytest.param(True, marks=pytest.mark.demo)])
def test_examples_of_the_pages_run(name, python, world, tmp_path, monkeypatch):
    if not python and name not in SHORT:
        pytest.skip("runs with its examples in Python")
    if name == "extending":
        pytest.skip("tests/test_extending.py runs it: names can be registered once only")
    shutil.copytree(world, tmp_path, dirs_exist_ok=True)
    FILES.get(name, lambda _: None)(tmp_path)
    monkeypatch.chdir(tmp_path)
    run_page(PAGES[name], python)


@pytest.mark.parametrize("name", PAGES)
def test_commands_of_the_pages_are_understood(name):
    for example in examples(PAGES[name]):
        if example.language in ("shell", "console"):
            for words in filter(None, map(words_of, example.lines())):
                parsed(words)


README = PAGES["README"].read_text()


def blocks(language, name):
    return [one.text for one in examples(PAGES[name]) if one.language == language]


def test_there_are_two_install_commands_and_ci_runs_them():
    commands = [line[2:] for block in blocks("console", "README") for line in block.splitlines()]
    assert len(commands) == 2
    assert commands[0].endswith("flowbdt demo")
    assert (ROOT / commands[1].split()[-1]).exists()
    ci = (ROOT / ".ci" / "run").read_text()
    assert 'bash -c "$first"' in ci
    assert 'bash -c "$second"' in ci


def test_pictures_and_links_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).exists(), target


def test_table_of_the_page_on_clusters_has_every_setting():
    names = re.findall(
        r"^\| `(\w+)`(?:, `(\w+)`)? \|", PAGES["cluster"].read_text(), flags=re.MULTILINE
    )
    settings = {name for pair in names for name in pair if name}
    assert settings == set(EXECUTORS.parameters("htcondor")) - {"poll_s"}


def test_modules_named_in_the_readme_exist():
    for name in re.findall(r"`([a-z_/]+\.py)`", README):
        folder = ROOT if name.startswith("tests/") else ROOT / "flowbdt"
        assert (folder / name).exists(), name


@pytest.mark.demo
def test_response_page_runs_in_sqlamarr(tmp_path):
    pytest.importorskip("SQLamarr", reason="sqlamarr is not installed (Python 3.11 only)")
    (first,), (second,) = (blocks(kind, "response") for kind in ("python", "py"))
    command = [sys.executable, "-W", "error", "-c", f"{first}\n{second}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.demo
@pytest.mark.parametrize(
    "script",
    ["memory.py", "mixed_tables.py", "public_tables.py", "quality.py", "whole_tables.py", "zee.py"],
)
def test_benchmarks_have_help(script):
    command = [sys.executable, str(ROOT / "benchmarks" / script), "--help"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--quick" in done.stdout


@pytest.mark.demo
def test_memory_benchmark_ends_in_json():
    command = [sys.executable, str(ROOT / "benchmarks" / "memory.py"), "--quick"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert [row["repeats"] for row in figures["by_repeats"]] == [1, 20, 100]
