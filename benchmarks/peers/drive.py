"""Train one model on rows from a file and generate events: one job of ``benchmarks/peers.py``.

    python drive.py JOB.json

Runs in the interpreter of the peers, which need not have flowbdt, or in ours for our own models.
The job says ``package``, ``settings``, ``rows`` (npy), ``n_events``, ``cap`` (CPU seconds),
``out`` (npy) and ``figures`` (JSON), which is written again after every phase: what was measured
before a stop is kept.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import common
import numpy as np

Generator = Callable[[int], np.ndarray]
Trainer = Callable[[np.ndarray], Generator]

ALSO = ("xgboost", "xgboost-cpu", "lightgbm", "numpy", "scikit-learn")
"""Packages whose version may matter, besides the peer's own."""


def forest_diffusion(settings: dict[str, Any]) -> Trainer:
    """Return the trainer of ForestDiffusion (arXiv 2309.09968)."""
    from ForestDiffusion.diffusion_with_trees_class import ForestDiffusionModel

    def train(rows: np.ndarray) -> Generator:
        return ForestDiffusionModel(rows, **{"n_jobs": 1, **settings}).generate  # it fits here

    return train


def forest_diffusion_mo(settings: dict[str, Any]) -> Trainer:
    """Return the trainer of forest_diffusion_mo (arXiv 2408.16046); models pass through files."""
    from forest_diffusion_mo import ForestModel

    hypers = {"n_jobs": 1, **settings.pop("xgb_hypers", {})}
    place = tempfile.mkdtemp(dir=".")  # the folder of the job, which our caller removes

    def train(rows: np.ndarray) -> Generator:
        model = ForestModel(place, xgb_hypers=hypers, **{"n_jobs": 1, **settings})
        model.train(model.preprocess(rows))
        return lambda n: model.generate(n, n_jobs=1)

    return train


def treeffuser(settings: dict[str, Any]) -> Trainer:
    """Return the trainer of treeffuser (arXiv 2406.07658), given one constant input.

    No seed at generation: with one, the starting noise and that of the first step are equal.
    """
    from treeffuser import Treeffuser

    def train(rows: np.ndarray) -> Generator:
        model = Treeffuser(**{"n_jobs": 1, "seed": 1, **settings})
        model.fit(np.zeros((len(rows), 1)), rows)
        return lambda n: model.sample(np.zeros((n, 1)), n_samples=1)[0]

    return train


def flowbdt(settings: dict[str, Any]) -> Trainer:
    """Return the trainer of a model of quality.py: its ``name``, and settings over its own."""
    import quality

    name = settings.pop("name")
    names = quality.load(None)[0].names

    def train(rows: np.ndarray) -> Generator:
        table = quality.EventTable.of(rows.astype(np.float32), names)  # as the table has them
        model = quality.build(name, repeats=20).set_params(**settings).fit(table)
        return lambda n: model.sample(n, random_state=2).select(names).x

    return train


PACKAGES: dict[str, Callable[[dict[str, Any]], Trainer]] = {
    "ForestDiffusion": forest_diffusion,
    "forest_diffusion_mo": forest_diffusion_mo,
    "treeffuser": treeffuser,
    "flowbdt": flowbdt,
}


def cpu_seconds() -> float:
    """Return user and system time of this process and the children it has waited for."""
    own, children = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def versions(package: str) -> dict[str, str]:
    """Return the installed versions of the package and of what it stands on."""
    found = {d.metadata["Name"]: d.version for d in metadata.distributions()}
    wanted = {name.lower().replace("_", "-") for name in (package, *ALSO)}
    return {k: v for k, v in found.items() if k and k.lower().replace("_", "-") in wanted}


def limit(cap: float) -> None:
    """Let the kernel end this process after ``cap`` more CPU seconds (signal SIGXCPU)."""
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(cpu_seconds() + cap) + 1, hard))


def run(job: dict[str, Any], save: Callable[[dict[str, Any]], None]) -> None:
    """Train and generate; call ``save`` with the figures so far after every phase."""
    package = job["package"]
    rows = np.load(job["rows"]).astype(np.float64)
    trainer = PACKAGES[package](dict(job["settings"]))
    figures: dict[str, Any] = {"phase": "training", "versions": versions(package)}
    save(figures)
    limit(job["cap"])
    common.reset_peak()
    start_mib, start = common.peak_mib(), cpu_seconds()
    generate = trainer(rows)
    figures |= {"train_cpu_s": cpu_seconds() - start, "peak_mib": common.peak_mib() - start_mib}
    save(figures | {"phase": "generation"})
    if job["n_events"]:
        generate(10)  # some load their models only now
        limit(job["cap"])
        start = cpu_seconds()
        events = generate(job["n_events"])
        figures["us_per_event"] = 1e6 * (cpu_seconds() - start) / job["n_events"]
        np.save(job["out"], np.asarray(events, dtype=np.float64))
    save(figures | {"phase": "done"})


def main() -> None:
    """Run the job whose file is the only argument."""
    job = json.loads(Path(sys.argv[1]).read_text())

    def save(figures: dict[str, Any]) -> None:
        Path(job["figures"]).write_text(json.dumps(figures))

    run(job, save)


if __name__ == "__main__":
    main()
