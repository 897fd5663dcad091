"""Arrows between modules point one way, and the import is light."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import flowbdt

ROOT = Path(flowbdt.__file__).parent

LEVELS = [
    {"errors", "checks", "seeding", "registry", "files"},
    {"table", "tableio", "split", "conditions", "config", "timegrid", "transforms",
     "relations", "paths", "conventions", "schedules", "gridsearch", "couplings", "fields",
     "predictions", "sampling", "given",
     "preconditioners", "inputs", "solvers",
     "datasets", "metrics", "observables", "data", "cost"},
    {"regressors", "cfm", "diffusion", "compiled"},
    {"store", "training", "execution"},
    {"generation", "draws", "streams", "attempts", "quick", "stepmodel", "latency", "parts",
     "rejection", "model", "foresight", "hybrid", "showers"},
    {"comparison", "evaluation", "report", "demo", "commands", "jobs", "watch", "tuning",
     "significance", "several", "cli_tuning", "cli_data", "cli_export", "cli_calo",
     "export", "distillation", "distilled", "cli_distil",
     "cliparts", "cli"},
]  # fmt: skip
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}

HOMES = {
    "xgboost": {
        f"regressors/{name}.py" for name in ("xgb", "boosting", "tables", "ratio", "distribution")
    },
    "torch": {"cfm.py", "metrics/deep_classifier.py"}
    | {f"diffusion/{path.name}" for path in (ROOT / "diffusion").glob("*.py")},
    "torchcfm": {"cfm.py"},
    "numba": {"compiled/numba.py"},
    "onnx": {"export/onnx_graph.py"},
    "onnxruntime": set(),
    "optuna": {"tuning/proposals.py"},
    "distributed": set(),  # by name only, in execution/dask.py
    "dask_jobqueue": set(),
    "htcondor2": set(),  # by name only, in execution/htcondor/pool.py
    "matplotlib": {f"report/{path.name}" for path in (ROOT / "report").glob("*.py")},
}


def modules() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Full dotted names of what a file imports, at any depth."""
    package = ["flowbdt", *path.relative_to(ROOT).parts[:-1]]
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            prefix = ".".join([*base, *([node.module] if node.module else [])])
            names |= {prefix} | {f"{prefix}.{alias.name}" for alias in node.names}
    return names


def home(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_no_import_points_to_a_higher_level(path):
    if home(path) in ("__init__", "__main__"):
        return
    own = LEVEL[home(path)]
    for name in imported(path):
        parts = name.split(".")
        if parts[0] == "flowbdt" and len(parts) > 1 and parts[1] in LEVEL:
            assert LEVEL[parts[1]] <= own, f"{path} imports {name} from a higher level"


def test_every_module_has_a_level():
    assert {home(path) for path in modules()} - {"__init__", "__main__"} <= set(LEVEL)


@pytest.mark.parametrize("library", sorted(HOMES))
def test_heavy_libraries_live_in_one_place(library):
    found = {
        str(path.relative_to(ROOT))
        for path in modules()
        if any(name.split(".")[0] == library for name in imported(path))
    }
    assert found <= HOMES[library]


def test_training_never_imports_execution():
    for path in (ROOT / "training").glob("*.py"):
        assert not any("flowbdt.training.executors" in name for name in imported(path)), path


def test_no_pickle_anywhere():
    for path in modules():
        assert not {"pickle", "joblib.dump", "joblib.load"} & imported(path), path


def test_import_is_light_and_fast():
    code = (
        "import sys, time; t = time.process_time(); import flowbdt;"
        "import json; print(json.dumps([time.process_time() - t, sorted(sys.modules)]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, loaded = json.loads(done.stdout)
    heavy = {"torch", "optuna", "matplotlib", "xgboost", "h5py", "sklearn", "scipy", "pandas"}
    assert not heavy & set(loaded)
    assert seconds < 1.0


def test_every_public_name_exists():
    for name in flowbdt.__all__:
        assert getattr(flowbdt, name) is not None
    assert set(dir(flowbdt)) >= set(flowbdt.__all__)
