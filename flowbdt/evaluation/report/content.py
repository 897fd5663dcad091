"""What a page about several runs, samples and reports is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...tables.event_table import EventTable
from ..differences import Difference
from ..evaluate import Evaluation
from .curves import Point
from .published import Published


@dataclass(frozen=True)
class Content:
    """Everything that `write_together` shows.

    Parameters
    ----------
    evaluations : name of the entry -> scores
    differences : between them
    samples : name -> events, where known
    real, training : tables with the columns of the samples, or None
    runs : name -> what is known of its run: ``steps`` (of a manifest), ``settings``, ``digest``,
        ``events seen``, ``times``, and ``us_per_event`` where it was measured
    quality : name -> score at several numbers of evaluations
    missing : what of ``quality`` was asked for and is not there, and why
    published : figures of others
    files : name of a sample, "real" or "training" -> name of its file
    digests : the same -> SHA-256 of the file
    """

    evaluations: Mapping[str, Evaluation]
    differences: Sequence[Difference] = ()
    samples: Mapping[str, EventTable] = field(default_factory=dict)
    real: EventTable | None = None
    training: EventTable | None = None
    runs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    quality: Mapping[str, Sequence[Point]] = field(default_factory=dict)
    missing: Sequence[str] = ()
    published: Sequence[Published] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the numbers of the page as JSON can hold them."""
        return {
            "format": 1,
            "entries": {name: e.to_json() for name, e in self.evaluations.items()},
            "differences": [d.to_json() for d in self.differences],
            "quality": {
                name: [vars(point) for point in line] for name, line in self.quality.items()
            },
            "missing": list(self.missing),
            "published": [vars(one) for one in self.published],
            "digests": dict(self.digests),
        }

    def tables(self) -> dict[str, EventTable]:
        """Return all tables of events that are known: real, training, entries."""
        known = {"real": self.real, "training": self.training}
        return {**{k: t for k, t in known.items() if t is not None}, **self.samples}

    def made(self, name: str) -> dict[str, Any]:
        """Return how the events of an entry were made, as far as it is known."""
        return dict(self.evaluations[name].settings.get("generated") or {})

    def distinct_runs(self) -> dict[str, Mapping[str, Any]]:
        """Return the runs, each once: entries may be samples of one run by several samplers."""
        known: dict[str, str] = {}
        for name, run in self.runs.items():
            known.setdefault(str(run["digest"]), name)
        return {name: self.runs[name] for name in known.values()}

    def run_of(self, name: str) -> Mapping[str, Any]:
        """Return what is known of the run of an entry; of events in a file by its digest."""
        digest = self.made(name).get("run_digest")
        same = [run for run in self.runs.values() if digest and run.get("digest") == digest]
        return self.runs.get(name) or next(iter(same), {})
