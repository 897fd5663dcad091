"""Other ways to make events for ``generation.py``: onnxruntime, and packages with their own trees.

The packages live in an environment of their own, see ``peers.py``; each is a process that generates
when it is told to (``peers/generate.py``) and says what CPU time it took.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from flowbdt.errors import MissingExtra
from flowbdt.flow.step_inputs import StepInputs
from flowbdt.generation.export.onnx_graph import Graph
from flowbdt.generation.export.onnx_steps import GraphSteps
from flowbdt.generation.packed.pack_steps import SolverProgram
from flowbdt.trees.tree_arrays import forests

HERE = Path(__file__).resolve().parent


class Package(NamedTuple):
    """A package, its settings, how many rows its one booster is fitted to, and most events."""

    name: str
    settings: dict[str, Any]
    rows: int
    most: int


PACKAGES = {
    # its defaults
    12: Package(
        "ForestDiffusion",
        {"n_t": 50, "duplicate_K": 100, "n_estimators": 100, "max_depth": 7},
        100,
        500,
    ),
    # as published for calorimeter showers (arXiv 2408.16046, table 9)
    368: Package(
        "forest_diffusion_mo",
        {
            "n_t": 100,
            "duplicate_K": 20,
            "multi_output": False,
            "xgb_hypers": {
                "n_estimators": 20,
                "max_depth": 7,
                "learning_rate": 1.5,
                "reg_lambda": 1.0,
                "max_bin": 16,  # ours, for a fit in seconds: where cuts lie does not cost anything
            },
        },
        50,
        500,
    ),
}


def by_onnxruntime(
    contents: Sequence[bytes], inputs: Sequence[StepInputs], found: SolverProgram, columns: int
) -> Callable[[np.ndarray], np.ndarray] | None:
    """Return a flow as one ONNX graph run on one thread, or None without onnxruntime."""
    try:
        import onnxruntime

        graph = Graph()
    except (ImportError, MissingExtra):
        return None
    steps = GraphSteps(graph, lambda s: inputs[s], lambda s: forests(contents[s])[0])
    end = steps.carry(found, range(len(contents)), graph.input("noise", columns))
    graph.output("points", end, columns)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        graph.to_bytes("", {}, ""), options, providers=["CPUExecutionProvider"]
    )
    return lambda x: session.run(None, {"noise": x})[0]


class Peer:
    """A process of the peers' interpreter that generates with one package.

    Parameters
    ----------
    python : the interpreter
    package : Package
    rows : ndarray (n, d), training rows, of which some are used
    place : folder for the files that are handed over
    """

    def __init__(self, python: Path, package: Package, rows: np.ndarray, place: Path) -> None:
        table = place / f"{package.name}.npy"
        np.save(table, rows[: package.rows])
        job = {"package": package.name, "settings": package.settings, "rows": str(table)}
        path = place / f"{package.name}.json"
        path.write_text(json.dumps(job))
        self._process = subprocess.Popen(
            [str(python), str(HERE / "peers" / "generate.py"), str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=dict(os.environ, OMP_NUM_THREADS="1"),
        )
        self.fit_seconds = self._answer(package.name)
        self._name = package.name

    def _answer(self, name: str) -> float:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{name} ended with status {self._process.wait()} and no answer")
        return float(line)

    def microseconds(self, n: int) -> float:
        """Return the CPU microseconds of each of n events that it generates now."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{n}\n")
        self._process.stdin.flush()
        return self._answer(self._name)

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def photons(folder: Path, energy: float = 65_536.0) -> np.ndarray:
    """Return the showers (n, 368) in MeV of one incident energy of the CaloChallenge's photons."""
    import h5py

    with h5py.File(folder / "dataset_1_photons_1.hdf5") as file:
        rows = np.flatnonzero(file["incident_energies"][:, 0] == energy)
        return np.asarray(file["showers"][rows], dtype=np.float64)
