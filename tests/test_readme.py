"""Every command and example of the README and of the pages in docs/ runs as it stands."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import parsed

from flowbdt.physics import bundled
from flowbdt.tables.formats import write_table
from flowbdt.training.executors import EXECUTORS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = sorted((ROOT / "docs").glob("*.md"))
RUN_HERE = ("conditions", "observables", "own_data", "response", "root", "showers", "unfolding")
"""Pages whose python examples are run here, each by itself, as a reader would."""


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def page(name: str) -> str:
    return (ROOT / "docs" / f"{name}.md").read_text()


def environment() -> dict[str, str]:
    """Let ``flowbdt`` and ``python`` be those that run this test."""
    here = str(Path(sys.executable).parent)
    return {**os.environ, "PATH": here + os.pathsep + os.environ["PATH"]}


def test_there_are_two_install_commands_and_ci_runs_them():
    commands = [line[2:] for block in blocks("console") for line in block.splitlines()]
    assert len(commands) == 2
    assert commands[0].endswith("flowbdt demo")
    assert (ROOT / commands[1].split()[-1]).exists()
    ci = (ROOT / ".ci" / "run").read_text()
    assert 'bash -c "$first"' in ci
    assert 'bash -c "$second"' in ci


def test_pictures_and_links_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).exists(), target


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_commands_of_the_pages_are_understood(path):
    text = path.read_text()
    shown = "".join([*blocks("console", text), *blocks("shell", text)]).replace("\\\n", " ")
    lines = re.findall(r"^(?:\$ )?(?:\.?v?env/bin/)?(flowbdt .*)$", shown, flags=re.MULTILINE)
    found = '"$(cat samplers/sampler_8.yaml)"'
    commands = [line.replace(found, "'{solver: heun, n_steps: 4}'") for line in lines]
    for command in commands:
        parsed(shlex.split(command)[1:])
    least = {"cluster": 10, "tuning": 5, "tutorial": 7, "conditions": 3}
    assert len(commands) >= least.get(path.stem, 0)


def test_table_of_the_page_on_clusters_has_every_setting():
    names = re.findall(r"^\| `(\w+)`(?:, `(\w+)`)? \|", page("cluster"), flags=re.MULTILINE)
    settings = {name for pair in names for name in pair if name}
    assert settings == set(EXECUTORS.parameters("htcondor")) - {"poll_s"}


def test_modules_named_in_the_readme_exist():
    for name in re.findall(r"`([a-z_/]+\.py)`", README):
        folder = ROOT if name.startswith("tests/") else ROOT / "flowbdt"
        assert (folder / name).exists(), name


@pytest.mark.demo
def test_python_example_runs(tmp_path):
    (code,) = blocks("python")
    file = tmp_path / "example.py"
    file.write_text(code)
    done = subprocess.run(
        [sys.executable, "-W", "error", file.name], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "tau21" in done.stdout
    assert (tmp_path / "jets.flowbdt").exists()


@pytest.mark.demo
def test_shell_commands_run(tmp_path):
    write_table(tmp_path / "jets.h5", bundled().load("train").take(slice(0, 5000)))
    write_table(tmp_path / "test.h5", bundled().load("test").take(slice(0, 5000)))
    (block,) = blocks("shell")
    for line in block.strip().splitlines():
        done = subprocess.run(
            shlex.split(line), cwd=tmp_path, env=environment(), capture_output=True, text=True
        )
        assert done.returncode == 0, f"{line}\n{done.stderr}"
    assert (tmp_path / "report" / "report.html").exists()


@pytest.mark.demo
def test_tutorial_runs(tmp_path):
    text = page("tutorial")
    assert "rows = 20_000" in text
    text = text.replace("rows = 20_000", "rows = 1_500").replace("-n 10000", "-n 1000")
    for language, code in re.findall(r"```(python|shell)\n(.*?)```", text, flags=re.DOTALL):
        for line in [code] if language == "python" else code.strip().splitlines():
            python = [sys.executable, "-W", "error", "-c", line]
            command = python if language == "python" else shlex.split(line)
            done = subprocess.run(
                command, cwd=tmp_path, env=environment(), capture_output=True, text=True
            )
            assert done.returncode == 0, f"{line}\n{done.stderr}"
    for report in ("report", "page"):
        assert (tmp_path / report / "report.html").exists()


@pytest.mark.demo
@pytest.mark.parametrize("name", RUN_HERE)
def test_python_examples_of_the_pages_run(name, tmp_path):
    code = "\n".join(blocks("python", page(name)))
    assert code
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.demo
def test_response_page_runs_in_sqlamarr(tmp_path):
    pytest.importorskip("SQLamarr", reason="sqlamarr is not installed (Python 3.11 only)")
    (first,), (second,) = blocks("python", page("response")), blocks("py", page("response"))
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
    import json

    command = [sys.executable, str(ROOT / "benchmarks" / "memory.py"), "--quick"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert [row["repeats"] for row in figures["by_repeats"]] == [1, 20, 100]
