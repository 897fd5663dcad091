"""Names that begin with an underscore stay in their module."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import flowbdt

ROOT = Path(flowbdt.__file__).parent

OF_OTHERS = {
    "tables/formats/root.py": {"_util"},  # no public API of uproot for the times that it writes
    "training/executors/local.py": {"_backend"},  # nor in joblib
}
OF_TUPLES = {"_asdict", "_fields", "_replace"}
OF_NOTEBOOKS = {"_repr_html_"}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__") and name not in OF_TUPLES | OF_NOTEBOOKS


def own_names(tree: ast.Module) -> set[str]:
    """What a module defines, gives to itself or has as a field."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found.add(node.attr)
    return found


def foreign_names(tree: ast.Module) -> set[str]:
    """Private names that a module imports, or asks of something that it did not define."""
    own, found = own_names(tree), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            found |= {alias.name for alias in node.names if is_private(alias.name)}
        elif isinstance(node, ast.Attribute) and is_private(node.attr) and node.attr not in own:
            inherited = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            found |= set() if inherited else {node.attr}
    return found


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_no_module_uses_a_private_name_of_another(path):
    known = OF_OTHERS.get(path.relative_to(ROOT).as_posix(), set())
    assert foreign_names(ast.parse(path.read_text())) == known


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("from .a import _b", {"_b"}),
        ("import a\na._b()", {"_b"}),
        ("def f(other):\n    return other._x", {"_x"}),
        ("class A:\n    def f(self):\n        return self._inherited", set()),
        ("class A:\n    def f(self, other):\n        self._x = other._x", set()),
        ("from __future__ import annotations\nx.__doc__", set()),
    ],
)
def test_private_names_of_others_are_found(code, found):
    assert foreign_names(ast.parse(code)) == found
