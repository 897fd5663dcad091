"""Which contenders really differ: scores in pairs, on the same events, splits and seeds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flowbdt import EventTable
from flowbdt.atomic_files import write_json
from flowbdt.evaluation.differences import differences, with_paired_separations
from flowbdt.evaluation.evaluate import Evaluation
from flowbdt.evaluation.metrics.base import uncertain

PAIRS = (
    ("DDPM, 65", "Restart (DPM++ 2M), 10 steps"),
    ("DDPM, 65", "Restart (Heun), 6 steps"),
    ("DDPM, 200", "Restart (DPM++ 2M), 31 steps"),
    ("DDPM, 200", "Restart (Heun), 16 steps"),
    ("DDPM, 200", "Restart (DPM++ 2M), 10 steps"),
    ("Heun, 400", "UniPC, 20"),
    ("UniPC, 20", "UniPC, 8"),
    ("UniPC, 20", "UniPC, 10"),
    ("UniPC, 8", "trees to t = 0.75, UniPC 4"),
    ("UniPC, 10", "trees to t = 0.75, UniPC 4"),
    ("UniPC, 20", "trees to t = 0.75, UniPC 3"),
    ("UniPC, 20", "trees to t = 0.75, UniPC 4"),
    ("UniPC, 20", "trees to t = 0.75, UniPC 8"),
    ("UniPC, 20", "trees, noise to t = 0.85, UniPC 2"),
    ("UniPC, 20", "UniPC 4, corrected by trees"),
    ("UniPC, 8", "UniPC 8, restart by trees x1"),
    ("trees alone", "trees to t = 0.75, UniPC 4"),
    ("UniPC, 4", "UniPC 4, corrected by trees"),
)
"""Contenders that a question of the study holds against each other."""

FOLDER = "judged"


@dataclass(frozen=True)
class Sample:
    """Events of a contender, and what was found of them."""

    verdict: Evaluation
    events: EventTable


class Samples:
    """Samples by the name of their contender; kept in a folder, if there is one.

    Parameters
    ----------
    folder : of the study, or None
    names : columns of the events
    """

    def __init__(self, folder: Path | None, names: Sequence[str]) -> None:
        self.folder = None if folder is None else folder / FOLDER
        self.names, self._known = list(names), dict[str, Sample]()

    def __setitem__(self, name: str, sample: Sample) -> None:
        self._known[name] = sample
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            np.save(self.folder / f"{name}.npy", sample.events.x.astype(np.float32))
            write_json(self.folder / f"{name}.json", sample.verdict.to_json())

    def get(self, name: str) -> Sample | None:
        """Return a sample, None if there is none."""
        path = None if self.folder is None else self.folder / f"{name}.json"
        if name not in self._known and path is not None and path.exists():
            x = np.load(path.with_name(f"{name}.npy")).astype(np.float64)
            verdict = Evaluation.from_json(json.loads(path.read_text()))
            self._known[name] = Sample(verdict, EventTable.of(x, self.names))
        return self._known.get(name)


def drawn(name: str, draw: int) -> str:
    """Return the name of a contender's draw of events; the first has its own."""
    return f"{name}, draw {draw + 1}" if draw else name


def compared(samples: Samples, real: EventTable, seed: int, draw: int = 0) -> list[dict[str, str]]:
    """Return lines of a table: differences of `PAIRS`, errors of what both share left out."""
    lines = []
    for names in (tuple(drawn(name, draw) for name in pair) for pair in PAIRS):
        found = {name: one for name in names if (one := samples.get(name)) is not None}
        if len(found) < 2:
            continue
        verdicts = {name: one.verdict for name, one in found.items()}
        tables = {name: one.events for name, one in found.items()}
        overall = [d for d in differences(verdicts) if d.column is None]
        line = {"first": names[0], "second": names[1]}
        for d in with_paired_separations(overall, real, tables, seed):
            line[d.metric] = f"{uncertain(d.value, d.error)} ({d.sigmas:+.1f})"
        lines.append(line)
    return lines
