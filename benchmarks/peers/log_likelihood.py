"""Log-likelihood of held-out rows by another package; run by its own interpreter, see density.py.

    python log_likelihood.py {utrees,arfpy} TABLES.npz FIGURES.json

TABLES has ``train``, ``test`` (n, d) and ``discrete`` (d,), bool.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np


def utrees(train: np.ndarray, test: np.ndarray, discrete: np.ndarray) -> dict:
    from utrees import UnmaskingTrees

    start = time.process_time()
    kinds = ["categorical" if one else "continuous" for one in discrete]
    model = UnmaskingTrees(random_state=0, xgboost_kwargs={"n_jobs": 1}, cast_float32=False)
    model.fit(train, quantize_cols=kinds)
    fitted = time.process_time()
    return {"log": model.score_samples(test), "fit": fitted - start, "end": time.process_time()}


def arfpy(train: np.ndarray, test: np.ndarray, discrete: np.ndarray) -> dict:
    """The package has no density; this is its estimate from leaves (arXiv 2205.09435, eq. 1)."""
    import pandas as pd
    from arfpy import arf
    from scipy.stats import truncnorm

    assert not discrete.any()
    setattr(np, "in1d", np.isin)  # noqa: B010 (it uses this, which newer numpy lacks)
    start = time.process_time()
    frame = pd.DataFrame(train).add_prefix("x")
    model = arf.arf(x=frame, verbose=False, n_jobs=1, random_state=0)
    model.forde()
    fitted = time.process_time()
    params, cover = model.params, model.bnds.drop_duplicates(["tree", "nodeid"])
    cover = cover.set_index(["tree", "nodeid"])["cvg"]
    leaves = model.clf.apply(pd.DataFrame(test).add_prefix("x"))
    total = np.zeros(len(test))
    names = list(frame.columns)
    for tree in range(leaves.shape[1]):
        table = params[params["tree"] == tree].set_index(["nodeid", "variable"])
        for leaf in np.unique(leaves[:, tree]):
            if (tree, leaf) not in cover.index:
                continue
            rows, part = leaves[:, tree] == leaf, table.loc[leaf].loc[names]
            sd = np.maximum(part["sd"].to_numpy(), 1e-12)
            mean = part["mean"].to_numpy()
            a, b = ((part[end].to_numpy() - mean) / sd for end in ("min", "max"))
            logs = truncnorm.logpdf(test[rows], a, b, loc=mean, scale=sd).sum(axis=1)
            total[rows] += cover[tree, leaf] * np.exp(logs) / leaves.shape[1]
    with np.errstate(divide="ignore"):
        return {"log": np.log(total), "fit": fitted - start, "end": time.process_time()}


def main() -> None:
    """Write mean, error and CPU seconds of fit and score."""
    package, tables, out = sys.argv[1:]
    with np.load(tables) as stored:
        args = stored["train"], stored["test"], stored["discrete"]
    begin = time.process_time()
    result = {"utrees": utrees, "arfpy": arfpy}[package](*args)
    logs = np.asarray(result["log"])
    figures = {
        "fit_cpu_s": result["fit"],
        "score_cpu_s": result["end"] - begin - result["fit"],
        "log": [float(one) if np.isfinite(one) else None for one in logs],
    }
    with open(out, "w") as file:
        json.dump(figures, file)


if __name__ == "__main__":
    main()
