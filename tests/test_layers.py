"""Imports between packages point one way, no files import each other in a circle."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import flowbdt

ROOT = Path(flowbdt.__file__).parent
GROUND = ("errors", "registry", "seeding", "atomic_files", "typed_settings", "config")
PACKAGES = (
    "tables", "flow", "trees", "training", "generation", "model", "evaluation", "tuning",
    "physics", "networks", "cli",
)  # fmt: skip
"""From the bottom to the top: each may import from itself, from those before it, and the ground."""
WHEN_CALLED = {("model", "evaluation")}
"""`FlowBDT.evaluate` and `FlowBDT.plot` import what draws and judges when they are called."""

LIBRARIES = {
    "xgboost": ("trees/",),
    "torch": (
        "networks/", "flow/torchcfm_reference.py",
        "physics/calorimeter/scores/official_classifier.py",
    ),
    "uproot": ("tables/formats/root.py",),
    "hist": ("evaluation/hist_objects.py",),
    "torchcfm": ("flow/torchcfm_reference.py",),
    "numba": (),
    "onnx": ("generation/export/onnx_graph.py",),
    "onnxruntime": (),
    "optuna": ("tuning/proposals.py",),
    "distributed": (),  # by name only, in training/executors/dask.py
    "dask_jobqueue": (),
    "matplotlib": ("evaluation/report/", "physics/calorimeter/report.py"),
    "click": ("cli/",),
    "jinja2": ("evaluation/report/",),
    "markupsafe": ("evaluation/report/",),
}  # fmt: skip


def module_name(path: Path) -> str:
    parts = ("flowbdt", *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}


def _only_for_types(tree: ast.Module) -> set[ast.AST]:
    guarded = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    ]
    return {inner for node in guarded for inner in ast.walk(node)}


def imported(name: str) -> Iterator[str]:
    """Dotted names of all that a file imports when it runs, inside functions too."""
    path = FILES[name]
    package = (name if path.name == "__init__.py" else name.rpartition(".")[0]).split(".")
    tree = ast.parse(path.read_text())
    skipped = _only_for_types(tree)
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            prefix = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                full = f"{prefix}.{alias.name}"
                yield full if full in FILES else prefix


IMPORTS = {name: {other for other in imported(name) if other != name} for name in FILES}
ARROWS = {name: {o for o in others if o in FILES} for name, others in IMPORTS.items()}


def level(name: str) -> int:
    home = name.split(".")[1] if "." in name else ""
    return 1 + PACKAGES.index(home) if home in PACKAGES else 0


def upward_arrows() -> list[str]:
    return [
        f"{name} imports {other}"
        for name, others in IMPORTS.items()
        for other in others
        if other in FILES
        and level(other) > level(name)
        and (name.split(".")[1], other.split(".")[1]) not in WHEN_CALLED
    ]


def circles() -> list[list[str]]:
    """Groups of files that reach each other by imports (Tarjan's strongly connected components)."""
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        number[name] = lowest[name] = len(number)
        stack.append(name)
        for other in sorted(ARROWS[name]):
            if other not in number:
                visit(other)
                lowest[name] = min(lowest[name], lowest[other])
            elif other in stack:
                lowest[name] = min(lowest[name], number[other])
        if lowest[name] == number[name]:
            group = stack[stack.index(name) :]
            del stack[-len(group) :]
            if len(group) > 1:
                found.append(sorted(group))

    for name in FILES:
        if name not in number:
            visit(name)
    return found


def test_every_file_has_a_place():
    homes = {name.split(".")[1] for name in FILES if "." in name}
    assert homes == {*GROUND, *PACKAGES}
    assert len(list(ROOT.glob("*.py"))) <= 8


def test_no_import_points_upwards():
    found = upward_arrows()
    print(f"\n{len(found)} upward arrows in {len(FILES)} files")
    assert not found, "\n".join(found)


def test_no_files_import_each_other_in_a_circle():
    found = circles()
    print(f"\n{len(found)} circles in {len(FILES)} files")
    assert not found, "\n".join(" <-> ".join(group) for group in found)


@pytest.mark.parametrize("library", sorted(LIBRARIES))
def test_heavy_libraries_live_in_one_place(library):
    for name, others in IMPORTS.items():
        if any(other.split(".")[0] == library for other in others):
            place = str(FILES[name].relative_to(ROOT))
            assert place.startswith(LIBRARIES[library] or ("nowhere",)), (
                f"{place} imports {library}"
            )


def test_no_pickle_anywhere():
    for name, others in IMPORTS.items():
        assert not {"pickle", "joblib.dump", "joblib.load"} & others, name


@pytest.mark.parametrize("given", [None, "ACTIVE"])
def test_import_is_light_fast_and_lets_threads_wait_asleep_unless_told_otherwise(given):
    code = (
        "import sys, time; t = time.process_time(); import flowbdt;"
        "import json, os; waits = os.environ['OMP_WAIT_POLICY'];"
        "print(json.dumps([time.process_time() - t, sorted(sys.modules), waits]))"
    )
    known = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    known |= {"OMP_WAIT_POLICY": given} if given else {}
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=known)
    seconds, loaded, waits = json.loads(done.stdout)
    assert waits == (given or "PASSIVE")  # threads that spin burn the time of others
    heavy = {"torch", "optuna", "matplotlib", "xgboost", "h5py", "sklearn", "scipy", "pandas"}
    heavy |= {"uproot", "awkward", "hist"}
    assert not heavy & set(loaded)
    assert seconds < 1.0


def test_every_public_name_exists():
    for name in flowbdt.__all__:
        assert getattr(flowbdt, name) is not None
    assert set(dir(flowbdt)) >= set(flowbdt.__all__)
