"""The package's metadata agree with each other: one version, one list of dependencies."""

from __future__ import annotations

import configparser
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

import flowbdt

ROOT = Path(__file__).parents[1]
# Names that conda-forge gives to what PyPI calls otherwise.
CONDA_NAMES = {
    "py-xgboost": "xgboost",
    "pytorch": "torch",
    "matplotlib-base": "matplotlib",
    "python-htcondor": "htcondor",
}


def _requirement(text: str) -> tuple[str, str]:
    match = re.fullmatch(r"([A-Za-z0-9_.-]+?)\s*([<>=!~][^;]*)?(;.*)?", text.strip())
    assert match is not None, text
    return match[1].lower(), (match[2] or "").replace(" ", "")


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _setup() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def _setup_requirements() -> dict[str, str]:
    setup = _setup()
    lines = _lines(setup["options"]["install_requires"])
    for extra, text in setup["options.extras_require"].items():
        lines += [] if extra == "all" else _lines(text)
    return dict(_requirement(line) for line in lines)


def test_conda_environment_has_the_packages_and_ranges_of_setup_cfg():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    conda = dict(_requirement(item) for item in environment if isinstance(item, str))
    pip = dict(_requirement(item) for part in environment[-1:] for item in part["pip"])
    assert conda.pop("python") == _setup()["options"]["python_requires"]
    conda.pop("pip")
    found = {CONDA_NAMES.get(name, name): span for name, span in conda.items()} | pip
    assert found == _setup_requirements()


def test_constraints_pin_only_direct_dependencies_within_their_ranges():
    packaging = pytest.importorskip("packaging.specifiers")
    ranges = _setup_requirements()
    lines = [
        line for line in _lines((ROOT / "constraints.txt").read_text()) if not line.startswith("#")
    ]
    pins = dict(_requirement(line) for line in lines)
    assert pins.pop("nvidia-nccl-cu12").startswith("==")  # comes with XGBoost, hundreds of MB
    assert set(ranges) - set(pins) <= {"optuna"}
    for name, pin in pins.items():
        assert pin.startswith("=="), name
        assert packaging.SpecifierSet(ranges[name]).contains(pin[2:]), name


def test_extra_all_names_every_other_extra():
    extras = _setup()["options.extras_require"]
    (line,) = _lines(extras["all"])
    assert set(line[len("flowbdt[") : -1].split(",")) == set(extras) - {"all"}


def test_no_extra_is_lost_in_a_build():
    """Setuptools drops an option called `root` in a virtual environment."""
    built = importlib.metadata.metadata("flowbdt").get_all("Provides-Extra") or []
    assert set(built) == set(_setup()["options.extras_require"])


def test_page_on_installation_names_every_extra():
    page = (ROOT / "docs" / "install.md").read_text()
    named = {
        name for row in re.findall(r"^\| (`.*?) \|", page, re.M) for name in row.split("`")[1::2]
    }
    assert named == set(_setup()["options.extras_require"]) - {"all"}


def test_version_is_written_in_one_place():
    version = flowbdt.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    files = [ROOT / "setup.cfg", ROOT / "pyproject.toml", ROOT / "CITATION.cff"]
    files += (ROOT / "flowbdt").rglob("*.py")
    pattern = re.compile(rf"""version(?:__)?\W+{re.escape(version)}(?![\d.])""")
    assert [path.name for path in files if pattern.search(path.read_text())] == ["__init__.py"]


def test_changelog_describes_the_current_version():
    assert f"## {flowbdt.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_pyproject_only_names_the_build_system():
    assert len((ROOT / "pyproject.toml").read_text().splitlines()) <= 4


def test_citation_is_valid_yaml_with_the_fields_that_the_format_needs():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["license"] == _setup()["metadata"]["license"]


def test_licence_is_mit():
    assert (ROOT / "LICENSE").read_text().startswith("MIT License")


WITHOUT_CORE = """
import sys, warnings
import numpy as np, flowbdt
from flowbdt.errors import SlowWarning
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for _ in range(2):
        events = flowbdt.FlowBDT.load(sys.argv[1]).sample(20, random_state=1).x
    sampler = flowbdt.open_sampler(sys.argv[1], random_state=1)
    one = sampler.one()
print(flowbdt.__file__)
print(*(w.message for w in caught if issubclass(w.category, SlowWarning)), sep="\\n")
np.save(sys.argv[2], [*events, one])
"""


@pytest.mark.slow
def test_an_installation_without_a_compiler_generates_by_xgboost_and_says_so_once(tmp_path):
    source, home = tmp_path / "source", tmp_path / "home"
    built = shutil.ignore_patterns("*.so", "__pycache__")
    shutil.copytree(ROOT / "flowbdt", source / "flowbdt", ignore=built)
    for name in ("setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation"]
    env = {**os.environ, "CC": "false", "CXX": "false", "PYTHONPATH": str(home)}
    done = subprocess.run(
        [*install, "--target", str(home), str(source)], env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    model = ROOT / "tests" / "assets" / "model_v5.flowbdt"
    command = [sys.executable, "-c", WITHOUT_CORE, str(model), str(tmp_path / "events.npy")]
    done = subprocess.run(
        command, env=env, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    place, said = done.stdout.splitlines()
    assert place.startswith(str(home))
    assert "core was not built: install a C++17 compiler" in said
    *events, one = np.load(tmp_path / "events.npy")
    expected = np.load(model.with_name("model_v5_events.npy"))
    np.testing.assert_allclose(events, expected, rtol=1e-6)
    np.testing.assert_allclose(one, expected[0], rtol=1e-6)
