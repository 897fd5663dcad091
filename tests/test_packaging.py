"""The package's metadata agree with each other: one version, one list of dependencies."""

from __future__ import annotations

import configparser
import importlib.metadata
import re
from pathlib import Path

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
    match = re.fullmatch(r"([A-Za-z0-9_.-]+?)\s*([<>=!~].*)?", text.strip())
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
