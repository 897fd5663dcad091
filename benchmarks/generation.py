"""What an event costs: compiled, by XGBoost in the same flow, and by the reference recipe.

    python benchmarks/generation.py [--quick] [--columns 12,368] [--model FILE]
        [--onnx 12] [--peers-python PATH [--photons FOLDER]]

One core, microseconds of CPU time per event, in batches of 1, 100 and 10,000, everything in turns
within one run so that other load meets all of them. The flow has 16 evaluations of 100 vector-leaf
trees of depth 6, on 12 and on 368 columns, trees alone and with a mixture in closed form (40 full
covariances on 12 columns, 10 of low rank on 368; fitted to the bundled jets, or to a made-up table
of 368 columns). Every step has trees of its own. They are full, all 64 leaves of each, and not
trained: every node splits the rows that reach it at a quantile of a random input, leaves are random
and small. So nothing depends on how far a training went. Reference recipe: trees of depth 4 without
closed form, 20 steps of Dormand-Prince, each of 120 evaluations by the nearest of 30 step models.
The floors are what this machine needs for six comparisons per tree and for reading one leaf of
each, at the rates of large numpy operations on arrays in the cache. ``--model`` measures the events
of a saved model as well.

onnxruntime runs the same flows where it is installed. With ``--peers-python`` (see ``peers.py``)
other packages generate in processes of their own, in turns with the rest: ForestDiffusion at its
defaults on 12 columns, forest_diffusion_mo as published for calorimeter showers on 368 (100 times,
99 Euler steps, 20 trees of depth 7 for each voxel, 20 copies; photons of one energy with
``--photons``). Each has one booster, fitted at one time to few rows, and on 368 columns with few
bins, and used at all times: the cost of an event does not depend on what its trees learned.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import common
import numpy as np
import others
import xgboost as xgb
from threadpoolctl import threadpool_limits

from flowbdt.flow.closed_form import PRECONDITIONERS
from flowbdt.flow.fields import FunctionField
from flowbdt.flow.paths import PATHS
from flowbdt.flow.solvers import SOLVERS, integrate
from flowbdt.flow.step_inputs import StepInputs
from flowbdt.generation.native.engine import NativeFlow
from flowbdt.generation.packed.array_file import file_bytes
from flowbdt.generation.packed.pack_steps import SolverProgram, solver_program, step_arrays
from flowbdt.generation.trained_flow import Flow, StepModel
from flowbdt.physics import bundled
from flowbdt.tables.transforms import JointTransform, TableTransform
from flowbdt.training import run_directory
from flowbdt.trees.boosted_trees import BoostedTrees
from flowbdt.trees.tree_arrays import forests

N_STEPS, N_TREES, DEPTH = 16, 100, 6
REFERENCE = {"steps": 20, "times": 30, "depth": 4}
BATCHES = (1, 100, 10_000)
FORMS: dict[int, dict[str, Any]] = {
    12: {"name": "mixture", "n_components": 40},
    368: {"name": "mixture", "n_components": 10},
}


class Way(NamedTuple):
    """One way to make events: points (n, m) -> CPU microseconds per event; most at a time."""

    name: str
    clock: Callable[[np.ndarray], float]
    largest: int
    rounds: int = 99


def latent(columns: int, rows: int) -> np.ndarray:
    """Return latent training rows: bundled jets, or voxels that depend on few numbers."""
    if columns == 12:
        jets = bundled().load("train")
        table = jets.take(slice(0, min(rows, jets.n)))
        return TableTransform({"joint": "standardise"}).fit(table).forward(table)
    rng = np.random.default_rng(0)
    mixed = rng.normal(size=(rows, 8)) @ rng.normal(size=(8, columns))
    x = np.tanh(mixed) + 0.3 * rng.normal(size=(rows, columns))
    return (x - x.mean(axis=0)) / x.std(axis=0)


def full_tree(seen: np.ndarray, n_outputs: int, depth: int, rng: np.random.Generator) -> str:
    """Return a tree in XGBoost's JSON, all of whose leaves have about as many rows."""
    n_leaves, n_nodes = 2**depth, 2 ** (depth + 1) - 1
    node, column = np.zeros(len(seen), dtype=int), rng.integers(0, seen.shape[1], n_nodes)
    cut, numbers = np.zeros(n_nodes), np.arange(n_nodes)
    for k in range(n_leaves - 1):
        rows = np.flatnonzero(node == k)
        x = seen[rows, column[k]]
        cut[k] = np.sort(x)[int(rng.uniform(0.4, 0.6) * len(x))]
        node[rows] = 2 * k + 1 + (x >= cut[k])
    split = numbers < n_leaves - 1
    # the second child of a leaf is the number of its vector
    right = np.where(split, 2 * numbers + 2, numbers - (n_leaves - 1))
    nothing, none = [0] * n_nodes, list[int]()
    lists = ("categories", "categories_nodes", "categories_segments", "categories_sizes")
    sizes = {"num_feature": seen.shape[1], "num_nodes": n_nodes, "size_leaf_vector": n_outputs}
    tree = {
        **dict.fromkeys(lists, none),
        **dict.fromkeys(("default_left", "split_type"), nothing),
        **dict.fromkeys(("loss_changes", "sum_hessian"), [0.0] * n_nodes),
        "base_weights": [0.0] * (n_nodes * n_outputs),
        "id": 0,
        "leaf_weights": rng.normal(scale=0.01, size=n_leaves * n_outputs).round(6).tolist(),
        "left_children": np.where(split, 2 * numbers + 1, -1).tolist(),
        "parents": np.where(numbers > 0, (numbers - 1) // 2, -1).tolist(),
        "right_children": right.tolist(),
        "split_conditions": cut.tolist(),
        "split_indices": np.where(split, column, 0).tolist(),
        "tree_param": {"num_deleted": "0", **{name: str(size) for name, size in sizes.items()}},
    }
    return json.dumps(tree)


def full_trees(z: np.ndarray, depth: int, n_models: int) -> list[bytes]:
    """Return step models, each of other trees out of a stock, in other order."""
    rng = np.random.default_rng(depth)
    seen = (0.5 * (z + rng.normal(size=z.shape))).astype(np.float32)
    stock = [full_tree(seen, z.shape[1], depth, rng) for _ in range(N_TREES * 3 // 2)]
    table = xgb.QuantileDMatrix(seen[:500], seen[:500])
    frame = xgb.train({"multi_strategy": "multi_output_tree", "max_depth": 1}, table, 1)
    parsed = json.loads(bytes(frame.save_raw("json")))
    model = parsed["learner"]["gradient_booster"]["model"]
    model |= {"trees": "HERE", "tree_info": [0] * N_TREES}
    model["iteration_indptr"] = list(range(N_TREES + 1))
    model["gbtree_model_param"]["num_trees"] = str(N_TREES)
    before, after = json.dumps(parsed).split('"HERE"')
    result = []
    for _ in range(n_models):
        chosen = rng.choice(stock, N_TREES, replace=False)
        trees = [tree.replace('"id": 0', f'"id": {i}', 1) for i, tree in enumerate(chosen)]
        content = f"{before}[{','.join(trees)}]{after}".encode()
        result.append(bytes(xgb.Booster(model_file=bytearray(content)).save_raw("ubj")))
    return result


def steps_of(z: np.ndarray, form: dict[str, Any], count: int) -> list[StepInputs]:
    """Return what the trees of each step see, and its closed form."""
    fitted, path = PRECONDITIONERS.build(form).fit(z, seed=1), PATHS.build("linear")
    joint = JointTransform("none").fit(z)
    times = (np.arange(count) + 0.5) / count
    return [StepInputs(fitted.at(path, float(t)), joint, ["latent"]) for t in times]


def by_xgboost(contents: list[bytes], inputs: list[StepInputs], solver: str, steps: int) -> Any:
    """Return a flow by XGBoost, which asks the nearest of the step models."""
    boosters = [BoostedTrees.from_bytes(content) for content in contents]
    for booster in boosters:
        booster.set_threads(1)
    models = [StepModel(*pair) for pair in zip(inputs, boosters, strict=True)]

    def velocity(t: float, x: np.ndarray, cond: Any) -> np.ndarray:
        return models[min(int(t * len(models) + 0.5), len(models) - 1)](x, cond)

    built, boundaries = SOLVERS.build(solver), np.linspace(0.0, 1.0, steps + 1)
    return lambda x: integrate(built, FunctionField(velocity), x, boundaries).x


def solver() -> SolverProgram:
    """Return the solver of the flow as plain numbers."""
    return solver_program(
        SOLVERS.build("adams_bashforth_2"), np.linspace(0.0, 1.0, N_STEPS + 1), None
    )


def compiled(contents: list[bytes], inputs: list[StepInputs]) -> Callable[[np.ndarray], np.ndarray]:
    """Return the same flow compiled."""
    found = solver()
    trees = [forests(content)[0] for content in contents]
    flow = NativeFlow(
        file_bytes(step_arrays(found, np.arange(N_STEPS), inputs, trees, 0)), lambda: inputs
    )
    nothing = np.zeros((1, 0))

    def run(x: np.ndarray) -> np.ndarray:
        if len(x) > 1:
            return flow.run(x, None)
        one = x.copy()
        flow.steps.walk(one, nothing)
        return one

    return run


def ways(columns: int, rows: int, with_onnx: bool) -> list[Way]:
    """Return all ways to make events of so many columns."""
    z = latent(columns, rows)
    several = BATCHES[-1] if columns == 12 else 1000
    few = 2000 if columns == 12 else 200
    result, contents = list[Way](), full_trees(z, DEPTH, N_STEPS)
    for name, form in (("trees", {"name": "none"}), ("mixture and trees", FORMS[columns])):
        inputs = steps_of(z, form, N_STEPS)
        theirs = by_xgboost(contents, inputs, "adams_bashforth_2", N_STEPS)
        same: dict[str, Callable[[np.ndarray], np.ndarray] | None] = {
            "compiled": compiled(contents, inputs),
            "XGBoost": theirs,
        }
        if with_onnx:
            same["onnxruntime"] = others.by_onnxruntime(contents, inputs, solver(), columns)
        x = np.random.default_rng(3).normal(size=(100, columns))
        for way, run in same.items():
            if run is None:
                continue
            if not np.allclose(run(x), theirs(x), rtol=1e-6, atol=1e-6):
                raise SystemExit(f"{name}: events of {way} are not those of XGBoost")
            result.append(Way(f"{way}, {name}", clock_of(run), several))
    contents = full_trees(z, REFERENCE["depth"], REFERENCE["times"])
    inputs = steps_of(z, {"name": "none"}, REFERENCE["times"])
    run = by_xgboost(contents, inputs, "dormand_prince", REFERENCE["steps"])
    return [*result, Way("reference recipe", clock_of(run), few)]


def clock_of(run: Callable[[np.ndarray], Any]) -> Callable[[np.ndarray], float]:
    """Return what clocks a way that runs in this process."""
    return lambda x: clocked(run, x)


def of_package(peer: others.Peer, package: others.Package) -> Way:
    """Return the way of a package; it makes its own noise."""
    return Way(package.name, lambda x: peer.microseconds(len(x)), package.most, 2)


def clocked(run: Callable[[np.ndarray], Any], x: np.ndarray) -> float:
    """Return CPU microseconds per row of one call; small batches are called several times."""
    calls = max(1, min(50, 200 // len(x)))
    began = time.process_time()
    for _ in range(calls):
        run(x)
    return 1e6 * (time.process_time() - began) / (calls * len(x))


def measured(every: list[Way], columns: int, rounds: int) -> dict[str, dict[int, float]]:
    """Return the least microseconds per event of each way and batch, taken in turns."""
    rng, best = np.random.default_rng(2), {way.name: dict[int, float]() for way in every}
    points = rng.normal(size=(BATCHES[-1], columns))
    for way in every:
        way.clock(points[:1])  # what is worked out once
    for k in range(rounds):
        for way in every:
            for batch in BATCHES if k < way.rounds else ():
                took = way.clock(points[: min(batch, way.largest)])
                best[way.name][batch] = min(took, best[way.name].get(batch, np.inf))
    return best


def floors(columns: int) -> dict[str, float]:
    """Return microseconds per event that comparisons, and reading of leaves, need at least."""
    x, n = np.random.default_rng(0).normal(size=4096).astype(np.float32), 2000
    leaves, mask = np.ones(2**17, dtype=np.float32), np.empty(4096, dtype=bool)
    best = {"comparisons": np.inf, "leaves": np.inf}
    for _ in range(20):
        began = time.process_time()
        for _ in range(n):
            np.greater_equal(x, 0.5, out=mask)
        best["comparisons"] = min(best["comparisons"], (time.process_time() - began) / (n * x.size))
        began = time.process_time()
        for _ in range(50):
            leaves.max()
        best["leaves"] = min(best["leaves"], (time.process_time() - began) / (50 * leaves.size))
    visited = N_STEPS * N_TREES
    return {
        "floor: comparisons": 1e6 * visited * DEPTH * best["comparisons"],
        "floor: reading leaves": 1e6 * visited * columns * best["leaves"],
    }


def of_model(path: Path, n: int) -> dict[str, float]:
    """Return microseconds per event of a saved model, compiled and by XGBoost, all included."""
    result = {}
    for name, wanted in (("compiled", True), ("XGBoost", False)):
        flow = Flow(run_directory.open_run(path), 1, compiled=wanted)
        next(iter(flow.sample_blocks(10, seed=1)))
        took = []
        for _ in range(3):
            began = time.process_time()
            for _ in flow.sample_blocks(n, seed=1):
                pass
            took.append(time.process_time() - began)
        result[f"us_model_{name}"] = 1e6 * min(took) / n
    return result


def figures(best: dict[str, dict[int, float]], columns: int) -> dict[str, float]:
    """Return the figures of the JSON line for one number of columns."""
    ours, mixed = best["compiled, trees"], best["compiled, mixture and trees"]
    theirs, large = best["XGBoost, trees"], BATCHES[-1]
    result = {
        f"speedup_bulk_{columns}": theirs[large] / ours[large],
        f"speedup_one_{columns}": theirs[1] / ours[1],
        f"speedup_reference_{columns}": best["reference recipe"][large] / ours[large],
    }
    if "onnxruntime, trees" in best:
        onnx = best["onnxruntime, trees"]
        result |= {f"us_onnx_bulk_{columns}": onnx[large], f"us_onnx_one_{columns}": onnx[1]}
    package = others.PACKAGES.get(columns)
    if package and package.name in best:
        took = best[package.name]
        result[f"speedup_{package.name}_bulk_{columns}"] = took[large] / mixed[large]
        result[f"speedup_{package.name}_one_{columns}"] = took[1] / mixed[1]
    if columns == 12:
        names = {"us_bulk_12": ours[large], "us_one_12": ours[1], "us_mixture_12": mixed[large]}
        return {**result, **names, "us_mixture_one_12": mixed[1]}
    return {**result, "ms_bulk_368": mixed[large] / 1e3, "ms_one_368": mixed[1] / 1e3}


def started(options: argparse.Namespace, columns: int, place: Path) -> others.Peer | None:
    """Return the process of the package for so many columns, if there is to be one."""
    package = others.PACKAGES.get(columns)
    if options.peers_python is None or package is None:
        return None
    if columns == 368 and options.photons:
        rows = others.photons(options.photons)
    else:
        rows = latent(columns, 1000)
    peer = others.Peer(options.peers_python, package, rows, place)
    print(
        f"{package.name}: one booster fitted to {package.rows} rows: {peer.fit_seconds:.0f} CPU s"
    )
    return peer


def on_columns(options: argparse.Namespace, columns: int) -> dict[str, float]:
    """Measure one number of columns, print the table, return the figures."""
    every = ways(columns, 3000 if columns == 12 else 1000, str(columns) in options.onnx.split(","))
    with tempfile.TemporaryDirectory() as place:
        peer = started(options, columns, Path(place))
        if peer is not None:
            every.append(of_package(peer, others.PACKAGES[columns]))
        best = measured(every, columns, 2 if options.quick else 6)
        if peer is not None:
            peer.close()
    base = best["compiled, trees"]
    print(f"{columns} columns, us per event and, in brackets, relative to compiled trees")
    rows: list[dict[str, Any]] = [
        {"way": name}
        | {f"batch of {b}": f"{us:.4g} ({us / base[b]:.3g})" for b, us in took.items()}
        for name, took in best.items()
    ]
    rows += [{"way": n, f"batch of {BATCHES[-1]}": us} for n, us in floors(columns).items()]
    print(common.table(rows))
    return figures(best, columns)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the same models, fewer repetitions")
    parser.add_argument("--columns", default="12,368", help="which tables (%(default)s)")
    parser.add_argument("--model", type=Path, help="a saved model, for its own cost per event")
    parser.add_argument(
        "--onnx",
        default="12",
        help="which tables in onnxruntime; 368 takes gigabytes (%(default)s)",
    )
    parser.add_argument("--peers-python", type=Path, help="interpreter that has the other packages")
    parser.add_argument("--photons", type=Path, help="folder with dataset_1_photons_1.hdf5")
    options = parser.parse_args()
    result: dict[str, float] = {}
    with threadpool_limits(1):
        for columns in (int(number) for number in options.columns.split(",")):
            result |= on_columns(options, columns)
        if options.model:
            result |= of_model(options.model, 20_000)
    common.finish(result)


if __name__ == "__main__":
    main()
