"""Generate with a peer on request, and say what it took: one process of ``generation.py``.

    python generate.py JOB.json

Runs in the interpreter of the peers. The job says ``package``, ``settings`` and ``rows`` (npy).
One booster is fitted, at one time, and used at all the others: the cost of an event does not depend
on what the trees learned, and all times would take days. Then every line on stdin is a number of
events, and every line on stdout the CPU microseconds that each of them took, loading not counted.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Generator = Callable[[int], np.ndarray]

MIDDLE = 0.5
"""The time at which the booster is fitted."""


def forest_diffusion(rows: np.ndarray, settings: dict[str, Any]) -> Generator:
    """Return a ForestDiffusion model (arXiv 2309.09968) that generates."""
    from ForestDiffusion.diffusion_with_trees_class import ForestDiffusionModel

    n_t = settings.pop("n_t")
    # with one time only it is trained at eps; generation with a flow does not look at eps
    model = ForestDiffusionModel(rows, n_t=1, eps=MIDDLE, n_jobs=1, nthread=1, **settings)
    model.n_t, model.regr = n_t, [each * n_t for each in model.regr]
    return model.generate


def forest_diffusion_mo(rows: np.ndarray, settings: dict[str, Any]) -> Generator:
    """Return a forest_diffusion_mo model (arXiv 2408.16046) that generates."""
    from forest_diffusion_mo import ForestModel

    n_t, hypers = settings.pop("n_t"), {"n_jobs": 1, **settings.pop("xgb_hypers")}
    with tempfile.TemporaryDirectory() as place:
        model = ForestModel(
            place, n_t=1, eps=MIDDLE, n_jobs=1, xgb_hypers=hypers, diffusion_type="flow", **settings
        )
        model.train(model.preprocess(rows))
        model.load_models()
    model.n_t, model.eps, model.regr = n_t, 0.0, [each * n_t for each in model.regr]
    return lambda n: model.generate(n, n_jobs=1)


PACKAGES: dict[str, Callable[[np.ndarray, dict[str, Any]], Generator]] = {
    "ForestDiffusion": forest_diffusion,
    "forest_diffusion_mo": forest_diffusion_mo,
}


def main() -> None:
    """Fit, then answer until stdin ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the packages print is no answer
    job = json.loads(Path(sys.argv[1]).read_text())
    began = time.process_time()
    generate = PACKAGES[job["package"]](np.load(job["rows"]).astype(np.float64), job["settings"])
    generate(1)
    print(time.process_time() - began, file=answers, flush=True)
    for line in sys.stdin:
        n, began = int(line), time.process_time()
        if not np.isfinite(generate(n)).all():
            raise SystemExit("events that are not finite")
        print(1e6 * (time.process_time() - began) / n, file=answers, flush=True)


if __name__ == "__main__":
    main()
