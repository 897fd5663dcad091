"""Every study has a README and a smoke form that ends in JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STUDIES = sorted(p.parent.name for p in (ROOT / "experiments").glob("*/__main__.py"))


def test_there_are_studies():
    assert STUDIES


@pytest.mark.parametrize("name", STUDIES)
def test_each_study_has_a_readme_with_question_and_command(name):
    text = (ROOT / "experiments" / name / "README.md").read_text()
    assert f"python -m experiments.{name}" in text
    assert "?" in text


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_smoke_form_runs_and_ends_in_json(name, tmp_path):
    command = [sys.executable, "-W", "error", "-m", f"experiments.{name}", "--smoke"]
    done = subprocess.run([*command, "-o", str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])
    assert (tmp_path / f"{name}.json").exists()


@pytest.mark.slow
def test_a_training_of_showers_is_judged_at_its_marks_and_not_twice(tmp_path):
    command = [sys.executable, "-W", "error", "-m", "experiments.calo_samplers.trainings"]
    command += ["--smoke", "-o", str(tmp_path), "--minutes", "1e-6", "--widths", "0.1"]
    command += ["--turns", "1", "--showers", "60", "--backbone", '{"widths": [8, 8]}']
    first, again = (
        subprocess.run(command, cwd=ROOT, capture_output=True, text=True) for _ in range(2)
    )
    assert first.returncode == again.returncode == 0, first.stderr + again.stderr
    found = json.loads(first.stdout.splitlines()[-1])
    assert list(found["lines"]) == ["1e-06 minutes", "end", "width 0.1"]
    assert json.loads(again.stdout.splitlines()[-1])["lines"] == found["lines"]
    assert {"at_1e-06.npz", "network_end.npz"} <= {path.name for path in tmp_path.iterdir()}
