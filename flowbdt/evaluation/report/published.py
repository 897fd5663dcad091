"""Figures that others have published: read from YAML, and shown beside ours."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import yaml

from ...errors import ConfigError, plural
from ...typed_settings import AtLeastOne, check_settings
from ..differences import label_of, side_by_side
from ..evaluate import Evaluation
from ..metrics import Result, uncertain
from .render import PageTable, Row

EXAMPLE = "- {score: auc_mlp, value: 0.9994, error: 0.0002, source: 'arXiv 2404.18219'}"

WORDS = (
    "Published figures come from other events, other numbers of events and other judges: a"
    " classifier with more layers or events finds more, and a separation power depends on the bins"
    " and falls with the number of events down to its floor. They are comparable to ours only"
    " roughly; only entries of this page are comparable with each other."
)


@dataclass(frozen=True)
class Published:
    """One figure of somebody else, in the unit of the metric.

    ``score`` is the name of the metric as in a report, such as ``auc_mlp``; of one column
    ``separation/mass``. Any other name is welcome, but has no figure of ours beside it. ``floor``
    is the same score of truth against truth, ``source`` where to look the figure up.
    """

    score: str
    value: float
    source: str
    error: Annotated[float, msgspec.Meta(ge=0)] | None = None
    floor: float | None = None
    events: AtLeastOne | None = None
    note: str = ""

    @property
    def key(self) -> tuple[str, str | None]:
        """Metric and column."""
        metric, _, column = self.score.partition("/")
        return metric, column or None

    def text(self) -> str:
        """Return the value, with its error if it has one."""
        return f"{self.value:g}" if self.error is None else uncertain(self.value, self.error)


def read_published(path: str | Path) -> tuple[Published, ...]:
    """Read figures from a YAML list. Raises ConfigError that names the file or the wrong entry."""
    try:
        content = yaml.safe_load(Path(path).read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read published figures from {path}: {error}") from error
    if not isinstance(content, list) or not content:
        raise ConfigError(
            f"{path} must be a YAML list of published figures, such as\n  {EXAMPLE}\n"
            f"got {type(content).__name__}"
        )
    return tuple(_entry(one, f"{path}, entry {i}") for i, one in enumerate(content, start=1))


def _entry(one: Any, where: str) -> Published:
    if not isinstance(one, Mapping):
        raise ConfigError(f"{where}: expected a mapping such as {EXAMPLE[2:]}, got {one!r}")
    known = {str(key): value for key, value in one.items() if value is not None}
    settings = check_settings(known, Published, f"field of {where},")
    if missing := [key for key in ("score", "value", "source") if key not in known]:
        raise ConfigError(f"{where}: {', '.join(missing)} must be there; got {dict(one)}")
    if not all(math.isfinite(v) for v in settings.values() if isinstance(v, float)):
        raise ConfigError(f"{where}: every number must be finite, got {dict(one)}")
    return Published(**settings)


def published_tables(
    published: Sequence[Published], evaluations: Mapping[str, Evaluation]
) -> Iterator[tuple[PageTable, list[str]]]:
    """Yield published figures by source with ours beside them, and the notes on each table."""
    ours = side_by_side(evaluations)
    for source in dict.fromkeys(one.source for one in published):
        known = [one for one in published if one.source == source and one.key in ours]
        if known:
            rows = [_row(one, ours[one.key], list(evaluations)) for one in known]
            table = PageTable((*HEAD, *evaluations, "our floor"), rows, caption=source, words=[0])
            yield table, list(dict.fromkeys(one.note for one in known if one.note))
    other = [one for one in published if one.key not in ours]
    if other:
        rows = [(one.score, one.text(), one.source, one.note) for one in other]
        title = f"{plural(len(other), 'published figure')} without one of ours"
        yield (
            PageTable(("score", "published", "source", "note"), rows, words=[2, 3], folded=title),
            [],
        )


HEAD = ("score", "published", "published floor", "published events")


def _row(one: Published, results: Mapping[str, Result], names: Sequence[str]) -> Row:
    metric, column = one.key
    name = label_of(metric) + ("" if column is None else f", {column}")
    floor = "-" if one.floor is None else f"{one.floor:g}"
    events = "-" if one.events is None else f"{one.events:,}"
    values = [results[n].text() if n in results else "-" for n in names]
    return (name, one.text(), floor, events, *values, next(iter(results.values())).floor_text())
