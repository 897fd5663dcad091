"""A rejection over all columns of an object together, those of several stages.

A flow for each column, given those before, is cheap, but what it misses adds up along the chain. A
boosted classifier of real against generated objects, which sees conditions and all columns, tells
the ratio of their densities, as in `trees.density_ratio`: objects that are rejected are drawn anew
through all stages of properties.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ... import atomic_files, seeding
from ...errors import ConfigError, FormatError
from ...generation.learn_rejection import MOST_REAL
from ...generation.native.engine import native_trees, warn_slow, why_not
from ...generation.trained_flow import Flow
from ...training.threads import checked_threads, one_thread_of_blas
from ...trees.density_ratio import DensityRatio
from ...trees.tree_arrays import forests
from .declaration import Home, Stage
from .events import Events
from .quantities import Quantity
from .shares import as_learned
from .stage_tables import Rows, matched_rows, shares_of

FORMAT = 1
RATE = 0.4
"""Learning rate of its trees, as of the other rejections of a chain."""
ACCEPTANCE = 0.6
"""Share of objects that is kept, about, more than by other rejections: a draw costs all stages. Of
16,000 top pairs, with stages that see how the momentum was measured, trees and a network tell jets
from real ones with areas of 0.528 and 0.511 so, 0.535 and 0.534 with a ceiling of 1, 0.570 and
0.556 without rejection (errors .005)."""

Draw = Callable[[int, Events, Rows, np.ndarray], dict[str, np.ndarray]]
"""Draws columns (r,) of objects: from seed, events, rows (r,) and their numbers (r,)."""


def joint_inputs(
    home: Home, flows: Mapping[str, Flow], events: Events, rows: Rows
) -> dict[str, np.ndarray]:
    """Return what the classifier sees of objects with columns, (r,) each.

    Conditions of all stages, columns, what is learned relative to conditions, what was asked for.
    """
    seen = {name: rows.own[name] for name in home.columns}
    for stage, flow, texts in _trained(home, flows):
        names = flow.condition_names
        values = rows.conditions(events, stage, names).T if names else ()
        given = dict(zip(names, values, strict=True))
        seen |= {texts[name]: of for name, of in given.items()}
        own = {name: rows.own[name] for name in stage.columns}
        known = given | as_learned(own, shares_of(stage, home), rows.own)
        relative = flow.transform.coordinates.relative
        seen |= {name: one.numbers(known) for name, one in relative.items()}
    for text in home.rejection or ():
        seen[text] = Quantity.parse(text).values(events, rows.event, rows.own)
    return seen


def _trained(home: Home, flows: Mapping[str, Flow]) -> Iterator[tuple[Stage, Flow, dict[str, str]]]:
    """Yield the stages that have a model, with it, and the texts of its conditions by name."""
    for stage in home.properties:
        if (flow := flows.get(stage.name)) is not None:
            texts = {quantity.name: quantity.text for quantity in stage.quantities}
            yield stage, flow, {name: texts.get(name, name) for name in flow.condition_names}


@dataclass(frozen=True, eq=False)
class JointRejection:
    """Tells which objects of a collection to keep; ``flows`` by stage."""

    home: Home
    flows: Mapping[str, Flow]
    ratio: DensityRatio

    @classmethod
    def read(cls, home: Home, flows: Mapping[str, Flow], content: bytes) -> JointRejection:
        """Restore from UBJSON. Raises FormatError."""
        ratio = DensityRatio.from_bytes(content)
        if why_not() is None:
            try:
                ratio = ratio.with_trees(native_trees(*forests(content)).predict)
            except ConfigError as error:
                warn_slow(str(error))
        return cls(home, flows, ratio)

    @property
    def names(self) -> list[str]:
        """Names of what it sees, in the order of `joint_inputs`."""
        found = dict.fromkeys(self.home.columns)
        for _, flow, texts in _trained(self.home, self.flows):
            found |= dict.fromkeys([*texts.values(), *flow.transform.coordinates.relative])
        return [*(found | dict.fromkeys(self.home.rejection or ()))]

    def keeps(
        self, seed: int, attempt: int, events: Events, rows: Rows, numbers: np.ndarray
    ) -> np.ndarray:
        """Return which objects, rows (r,) with columns and these numbers (r,), to keep."""
        inputs = _matrix(joint_inputs(self.home, self.flows, events, rows))
        if self.ratio.n_inputs not in (None, inputs.shape[1]):
            raise FormatError(
                f"the rejection of {self.home.name} has {self.ratio.n_inputs} inputs, its stages"
                f" have {inputs.shape[1]}: the chain is damaged, fit it anew"
            )
        order, uniform = np.argsort(numbers), np.empty(len(numbers))
        purpose = f"response {self.home.name} accept"
        drawn = seeding.RowNoise(seed, purpose, numbers[order], (attempt,), once=True)
        uniform[order] = drawn.random()
        return self.ratio.keeps(inputs, uniform)


def learn_joint_rejection(
    home: Home,
    flows: Mapping[str, Flow],
    draw: Draw,
    events: Events,
    weight: str | None,
    *,
    file: Path,
    seed: int,
    n_threads: int | None = None,
) -> None:
    """Learn from training events and write ``file``, unless it has what belongs to these stages.

    Every real object is drawn once for the classifier, and once more for trees that match what is
    kept. The report beside the file, ``.json``, is written last.
    """
    key = atomic_files.digest([flow.manifest for flow in flows.values()])
    if _is_learned(file, key):
        return
    start, threads = time.process_time(), checked_threads(n_threads)
    rows = matched_rows(home, events)
    n = len(rows.event)
    if n > MOST_REAL:
        rows = rows.take(np.flatnonzero(seeding.split_mask(n, MOST_REAL / n, seed)))
    numbers = np.arange(len(rows.event))
    own = {name: of for name, of in rows.own.items() if name not in home.columns}
    undrawn = Rows(rows.event, own).with_fixed(home, events)
    shares = None if weight is None else events.columns[weight][rows.event]

    def made(purpose: str) -> np.ndarray:
        drawn = draw(seeding.derive(seed, purpose), events, undrawn, numbers)
        return _matrix(joint_inputs(home, flows, events, undrawn.with_own(drawn)))

    with one_thread_of_blas():  # as in generation: sums in one order only
        real = _matrix(joint_inputs(home, flows, events, rows))
        settings: Any = {"seed": seed, "n_threads": threads, "least": ACCEPTANCE}
        ratio = DensityRatio.fit(
            *(real, made("events"), shares), conditional=True, rate=RATE, again=0.0, **settings
        ).matched(real, made("matching"), shares, **settings)
    content = ratio.to_bytes()
    atomic_files.make_folder(file.parent)
    atomic_files.write_bytes(file, content)
    report = {
        "format": FORMAT,
        "key": key,
        "model_sha256": atomic_files.digest_bytes(content),
        "rows": len(numbers),
        "trees": ratio.n_trees,
        "acceptance": ratio.acceptance,
        "cpu_seconds": time.process_time() - start,
    }
    atomic_files.write_bytes(_report(file), atomic_files.json_bytes(report))


def _report(file: Path) -> Path:
    return file.with_suffix(".json")


def _is_learned(file: Path, key: str) -> bool:
    try:
        report = atomic_files.parse_json(_report(file).read_bytes(), _report(file).name)
        whole = atomic_files.digest_file(file) == report["model_sha256"]
        return bool(whole and report["key"] == key)
    except (FormatError, OSError, KeyError, TypeError):
        return False


def _matrix(inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the inputs (r, k), float32, of the classifier."""
    largest = float(np.finfo(np.float32).max)  # in place of infinite ratios, which trees refuse
    return np.column_stack(
        [np.clip(of, -largest, largest).astype(np.float32) for of in inputs.values()]
    )
