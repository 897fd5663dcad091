"""The files that the README names as the method: they exist, are few lines, and read in order."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
LONGEST = {
    "flow/paths.py": 150,
    "training/noisy_pairs.py": 150,
    "flow/step_inputs.py": 110,
    "flow/closed_form/mixture_on_path.py": 140,
    "training/train_step.py": 130,
    "flow/solvers/runge_kutta.py": 100,
    "generation/generate_rows.py": 150,
}
"""The list in its order, and the most lines that each file may have."""


def listed() -> list[str]:
    (sentence,) = re.findall(r"Read (`[^.]*?\.py`.*?) in this order", README, flags=re.DOTALL)
    return re.findall(r"`([^`]+\.py)`", sentence)


README = (ROOT / "README.md").read_text()


def test_the_readme_lists_the_files_of_the_method() -> None:
    assert listed() == list(LONGEST)


def test_the_documentation_lists_the_same_files() -> None:
    # read, not imported: mkdocs is no requirement of the tests
    tree = ast.parse((ROOT / "docs" / "hooks.py").read_text())
    (method,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "METHOD"
    )
    assert list(method) == listed()


def test_the_method_can_be_read_in_an_hour() -> None:
    lines = {name: len((ROOT / "flowbdt" / name).read_text().splitlines()) for name in listed()}
    assert sum(lines.values()) <= 900, lines
    assert {name: n for name, n in lines.items() if n > LONGEST[name]} == {}
