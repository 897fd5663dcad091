"""Learn, once a run's steps are trained, which generated events to reject, and count cuts.

Real training events and events that the run generates go through the same classifier in the
units of the table, conditions included: what is learned is the ratio of their densities, see
`trees.density_ratio`. Test events are not used.
"""

from __future__ import annotations

import time
import warnings
from dataclasses import replace

import numpy as np

from .. import atomic_files
from ..errors import ConfigError, DataWarning, FormatError
from ..seeding import BLOCK, derive, split_mask
from ..training import run_directory
from ..training.run_directory import RunDirectory
from ..training.stored_run import RejectionReport
from ..training.threads import checked_threads, one_thread_of_blas
from ..trees.density_ratio import DensityRatio
from ..typed_settings import check_stored
from .event_selection import at_rows
from .native.engine import why_not
from .trained_flow import Flow

GENERATED_PER_EVENT, OF_REPLICA = 4, 1
STEPS, MANY = 2.0, 4_000
"""Trees are grown again in so much larger steps: the flow knows the rows kept apart to find their
number, and makes events nearer to them than to new ones, so that the gain ends too early. Twice as
many trees gain no more. Only from so many rows on, as the fewest for which judges saw it: of 1,500
the mass of a resonance gets narrower than the real one. Not with conditions, where widths of the
response are right as it is."""

FEWEST_GENERATED = 8_192
MOST_GENERATED = 400_000
MOST_VALUES = 4_000_000
"""Generated events cost little; some for each real one make their share of the noise small, and
more than four gained nothing. One is enough in a replica of an ensemble, whose classifiers differ
more from each other by the events that count, or where ``rejection_events`` says so; trees are not
grown again on all events then. Events of many columns cost more: no more than so many latent values
are generated."""

MOST_REAL = 400_000
"""Real events used, about, of a larger table: a keyed choice."""


COUNTED = 8_192
"""Generated events of which the share that meets cuts and reach is taken."""

FEW_KEPT = 0.05
"""Share of generated events that a rejection keeps below which it says so."""

LEAST_SHARE = 0.01
"""Of generated events that must meet them."""


def learn_rejection(run: RunDirectory, n_threads: int | None = None) -> None:
    """Finish a trained run: write its classifier, and which share meets cuts and reach of columns.

    Does nothing where it has none of them, and learns no classifier if it has the one that belongs
    to its present models. Raises ConfigError if too few generated events meet them.
    """
    manifest = run.read_json("manifest.json")
    if (share := _share_kept(run)) is not None:
        manifest["required"] = share
        run.write_json("manifest.json", manifest)
    if not run.plan().get("rejection"):
        return
    key = atomic_files.digest({name: manifest[name] for name in ("digest", "models")})
    if not _is_learned(run, key):
        _learn(run, key, checked_threads(n_threads))
    name = run_directory.REJECTION
    manifest["files"][name] = atomic_files.digest_file(run.file(name))
    run.write_json("manifest.json", manifest)


def _share_kept(run: RunDirectory) -> float | None:
    """Return the share of generated events that meet cuts and reach; None without. ConfigError."""
    # not compiled: the number must not depend on whether the core was built
    flow = Flow(run, 1, rejects=False, requires=False, compiled=False)
    reach, cuts = flow.transform.reach(), flow.declared_cuts
    if not len(cuts) and reach is None:
        return None
    seed, cond = derive(int(flow.settings["random_state"]), "cuts"), run.array("cond")
    if cond is not None:
        cond = flow.condition_scaling.inverse(np.asarray(cond)[np.arange(COUNTED) % len(cond)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # told of those that are generated in earnest
        events = np.vstack([block.x for block in flow.blocks((0, COUNTED), seed, cond, None)])
    kept = replace(flow.generator, reach=reach).is_near(flow.transform.without_turn(events))
    if len(cuts):
        kept &= cuts.hold(flow.generator.by_name(events, cond))
    share, what = float(kept.mean()), f"require {cuts.text}" if len(cuts) else "the training range"
    if share < LEAST_SHARE:
        raise ConfigError(
            f"{what} leaves {share:.2%} of the events that this model generates, although all"
            f" training rows meet it; to draw others in place of the rest, {LEAST_SHARE:.0%} is"
            " needed. Try more steps, a relation, or a weaker cut"
        )
    return share


def _is_learned(run: RunDirectory, key: str) -> bool:
    try:
        report = run.read_json(run_directory.REJECTION_REPORT)
        check_stored(report, RejectionReport, run_directory.REJECTION_REPORT)
        present = atomic_files.digest_file(run.file(run_directory.REJECTION))
        return bool(report["model_sha256"] == present and report["key"] == key)
    except (FormatError, OSError):
        return False


def _learn(run: RunDirectory, key: str, n_threads: int) -> None:
    """Generate, fit and write: the classifier first, the report, which makes it count, last."""
    start = time.process_time()
    # by the core where it was built, an eighth of the time: some event in 100,000 may then lie past
    # a cut of a tree, as it may by numpy on another processor
    flow = Flow(run, n_threads, rejects=False, compiled=why_not() is None)
    seed = derive(int(flow.settings["random_state"]), "rejection")
    z, codes, cond, weight = _events(run, seed)
    cond = None if cond is None else flow.condition_scaling.inverse(cond)
    with one_thread_of_blas():  # as in generation: sums in one order only
        rows = [slice(low, low + BLOCK) for low in range(0, len(z), BLOCK)]
        blocks = [flow.transform.inverse(z[r], at_rows(codes, r), at_rows(cond, r)) for r in rows]
    real = flow.generator.classifier_inputs(np.vstack(blocks), cond)
    booster = flow.settings["booster"]
    usual = OF_REPLICA if run.is_replica else GENERATED_PER_EVENT
    per_event = booster.get("rejection_events", usual)
    steps = STEPS if cond is None and len(z) >= MANY else 1.0
    generated, others = (
        _generated(flow, cond, len(z), per_event, derive(seed, purpose))
        for purpose in ("events", "matching")
    )
    ratio = DensityRatio.fit(
        *(real, generated, weight),
        conditional=cond is not None,
        seed=seed,
        n_threads=n_threads,
        rate=booster.get("rejection_rate"),
        again=steps if per_event > 1 else 0.0,
    ).matched(real, others, weight, seed=seed, n_threads=n_threads)
    if ratio.acceptance < FEW_KEPT:
        warnings.warn(
            f"the rejection keeps {ratio.acceptance:.1%} of the generated events, as few are like"
            " training events: generating takes as much longer. Try more steps or trees, or"
            " rejection=False",
            DataWarning,
            stacklevel=2,
        )
    content = ratio.to_bytes()
    atomic_files.write_bytes(run.file(run_directory.REJECTION), content)
    report = {
        "format": run_directory.FORMAT,
        "key": key,
        "model_sha256": atomic_files.digest_bytes(content),
        "trees": ratio.n_trees,
        "acceptance": ratio.acceptance,
        "real": len(real),
        "generated": len(generated) + len(others),
        "cpu_seconds": time.process_time() - start,
    }
    run.write_json(run_directory.REJECTION_REPORT, report)


def _events(
    run: RunDirectory, seed: int
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """Return latent training events (n, m), codes, conditions and weights; those of weight 0 not.

    A student has those of its teacher.
    """
    names = run_directory.REAL if run.array("real") is not None else ("z", "cond", "weight")
    latent, cond, weight = (run.array(name) for name in names)
    codes = run.array("codes")
    if latent is None:
        raise FormatError(f"{run.path} has no table/z.npy; plan the run anew in an empty folder")
    rows = np.arange(len(latent)) if weight is None else np.flatnonzero(weight > 0)
    if len(rows) > MOST_REAL:
        rows = rows[split_mask(len(rows), MOST_REAL / len(rows), seed)]
    take = [None if a is None else np.asarray(a)[rows] for a in (codes, cond, weight)]
    codes = None if take[0] is None else take[0].astype(np.int64)
    return np.asarray(latent)[rows].astype(np.float64), codes, take[1], take[2]


def n_generated(n_real: int, n_latent: int, per_event: int = GENERATED_PER_EVENT) -> int:
    """Return the number of events that are generated to learn from."""
    most = min(MOST_GENERATED, MOST_VALUES // max(n_latent, 1))
    return max(min(per_event * n_real, most), FEWEST_GENERATED)


def _generated(
    flow: Flow, cond: np.ndarray | None, n_real: int, per_event: int, seed: int
) -> np.ndarray:
    """Return generated events, each condition of the real ones about equally often."""
    n = n_generated(n_real, flow.n_latent, per_event)
    repeated = None if cond is None else np.asarray(cond)[np.arange(n) % len(cond)]
    blocks = flow.blocks((0, n), seed, repeated, None)
    return flow.generator.classifier_inputs(np.vstack([block.x for block in blocks]), repeated)
