"""Log-likelihood of held-out rows, beside other densities, in the same run.

    python benchmarks/density.py --data FOLDER [--python PATH] [--rows 5000] [--test 1000]
                                 [--tables jets,magic] [--limit 600]
                                 [--models flowbdt,reference,utrees,arfpy,kde]

FOLDER has ``jetnet/t_hlv12.h5``, ``real/magic04.data``, ``real/tables/zee.csv.gz`` and
``omnifold/Nature_Zjet_pTZ-200GeV_0.npz``. Of each table the columns without repeated values are
taken; ``magic+`` and ``zee+`` have discrete ones, too, which count by their probabilities. Rows in
a random order with seed 0, the first to train, the next to test. Means are in nats per row,
in the units of the columns, with their errors; -inf are counted apart, and left out of the mean.
CPU seconds are of one thread, fit and score. ``flowbdt`` is ``FlowBDT(preset='fast',
density=True)``, ``reference`` its closed form alone, ``kde`` a Gaussian kernel in units of the
standard deviations, the bandwidth by cross-validation. ``arfpy`` has no density of rows: it is
computed from its leaves. A peer that is not done after ``--limit`` CPU seconds is stopped, and has
no figures. The others stand in an environment of their own:

    python3 -m venv benchmarks/.peers
    benchmarks/.peers/bin/pip install utrees arfpy 'scikit-learn<1.7'
"""

from __future__ import annotations

import argparse
import json
import resource
import signal
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
import h5py
import numpy as np
import pandas as pd

from flowbdt import FlowBDT
from flowbdt.generation.density import Reference

HERE = Path(__file__).resolve().parent
JETS = ["d12", "d23", "ecf2", "ecf3", "mass", "pt", "tau1", "tau2", "tau3"]
MAGIC = ["c0", "c1", "c5", "c6", "c7", "c8", "c9"]
ZEE = ["pt1", "eta1", "phi1", "pt2", "eta2", "phi2"]


def _jets(folder: Path) -> pd.DataFrame:
    with h5py.File(folder / "jetnet" / "t_hlv12.h5") as file:
        return pd.DataFrame({name: file[name][:].astype(float) for name in JETS})


def _magic(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "real" / "magic04.data", header=None).add_prefix("c")


def _zee(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "real" / "tables" / "zee.csv.gz", skipinitialspace=True)


def _zjets(folder: Path) -> pd.DataFrame:
    with np.load(folder / "omnifold" / "Nature_Zjet_pTZ-200GeV_0.npz") as file:
        names = ("lhas", "widths", "ang2s", "tau2s")
        columns = {name: file[f"gen_{name}"] for name in names}
        columns |= {"pt": file["gen_jets"][:, 0], "mass": file["gen_jets"][:, 3]}
        return pd.DataFrame(columns | {"z_pt": file["gen_Zs"][:, 0]}).astype(float)


TABLES: dict[str, Callable[[Path], pd.DataFrame]] = {
    "jets": _jets,
    "magic": lambda folder: _magic(folder)[MAGIC],
    "zee": lambda folder: _zee(folder)[ZEE],
    "zjets": _zjets,
    "magic+": lambda folder: _magic(folder)[[*MAGIC, "c10"]],
    "zee+": lambda folder: _zee(folder)[[*ZEE, "Q1", "type1", "Q2", "type2"]],
}


def flowbdt(train: pd.DataFrame, test: pd.DataFrame) -> dict[str, Any]:
    """Fit and score with the density; the closed form alone as ``reference``."""
    start = time.process_time()
    model = FlowBDT(preset="fast", density=True, random_state=1).fit(train)
    fitted = time.process_time()
    logs, errors = model.score_samples(test, return_error=True)
    figures = {"fit_cpu_s": fitted - start, "score_cpu_s": time.process_time() - fitted}
    return {**figures, "log": logs, "norm_error": float(np.median(errors))}


def reference(train: pd.DataFrame, test: pd.DataFrame) -> dict[str, Any]:
    """The same without the ratio."""
    start = time.process_time()
    model = FlowBDT(preset="fast", rejection=False, random_state=1).fit(train)
    fitted = time.process_time()
    x = model.flow().aligned(test)[0]
    logs = Reference(model.flow()).log_density(x, None)[0]
    end = time.process_time()
    return {"fit_cpu_s": fitted - start, "score_cpu_s": end - fitted, "log": logs}


def kde(train: pd.DataFrame, test: pd.DataFrame) -> dict[str, Any]:
    """Kernel density of standardised columns."""
    from sklearn.model_selection import GridSearchCV
    from sklearn.neighbors import KernelDensity

    start = time.process_time()
    scale = train.std().to_numpy()
    grid = {"bandwidth": np.geomspace(0.05, 1, 9)}
    model = GridSearchCV(KernelDensity(), grid, cv=3).fit(train / scale)
    fitted = time.process_time()
    logs = model.best_estimator_.score_samples(test / scale) - np.log(scale).sum()
    end = time.process_time()
    return {"fit_cpu_s": fitted - start, "score_cpu_s": end - fitted, "log": logs}


OURS = {"flowbdt": flowbdt, "reference": reference, "kde": kde}
MODELS = (*OURS, "utrees", "arfpy")


def run(
    name: str, model: str, folder: str, n_rows: int, n_test: int, python: str, limit: int
) -> dict[str, Any]:
    """Fit one model to one table and score the test rows; peers in at most so many CPU seconds."""
    warnings.simplefilter("ignore")
    frame = TABLES[name](Path(folder)).dropna().sample(frac=1, random_state=0)
    train, test = frame[:n_rows], frame[n_rows : n_rows + n_test]
    if model in OURS:
        figures = OURS[model](train, test)
    else:
        texts = [c for c in train if train[c].dtype.kind not in "iuf"]
        known = {c: sorted(set(train[c])) for c in texts}
        coded = [
            part.assign(**{str(c): pd.Categorical(part[c], known[c]).codes for c in texts})
            for part in (train, test)
        ]
        discrete = np.array([train[c].nunique() < 20 for c in train])
        with tempfile.TemporaryDirectory() as place:
            rows, out = Path(place) / "rows.npz", Path(place) / "out.json"
            np.savez(
                rows,
                train=coded[0].to_numpy(float),
                test=coded[1].to_numpy(float),
                discrete=discrete,
            )
            driver = str(HERE / "peers" / "log_likelihood.py")
            done = subprocess.run(
                [python, "-W", "ignore", driver, model, str(rows), str(out)],
                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (limit, limit)),
            )
            if done.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
                return {"table": name, "model": model, "nats": f"none after {limit} CPU s"}
            done.check_returncode()
            figures = json.loads(out.read_text())
    logs = np.array(figures.pop("log"), dtype=float)
    finite = logs[np.isfinite(logs)]
    mean, error = finite.mean(), finite.std() / np.sqrt(len(finite))
    lost = len(logs) - len(finite)
    told = {"table": name, "model": model, "nats": mean, "error": error, "lost": lost}
    return told | figures


def main() -> None:
    """Print a line for each table and model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", metavar="FOLDER", required=True)
    parser.add_argument("--rows", type=int, default=5000, help="to train")
    parser.add_argument("--test", type=int, default=1000, help="to test")
    parser.add_argument("--tables", default=",".join(TABLES), help="%(default)s")
    parser.add_argument("--models", default=",".join(MODELS), help="%(default)s")
    parser.add_argument("--limit", type=int, default=600, help="CPU seconds of a peer")
    parser.add_argument("--python", default=str(HERE / ".peers" / "bin" / "python"))
    options = parser.parse_args()
    rows = []
    for name in options.tables.split(","):
        for model in options.models.split(","):
            if name.endswith("+") and model in ("kde", "arfpy"):
                continue
            sizes, peer = (options.rows, options.test), (options.python, options.limit)
            rows.append(common.in_fresh_process(run, name, model, options.data, *sizes, *peer))
            print(common.table(rows[-1:]), flush=True)
    print(common.table(rows))


if __name__ == "__main__":
    main()
