"""The papers of the methods that a run uses, as BibTeX.

Docstrings name the sources of what they describe; ``papers.txt`` has what is printed of each.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib import resources
from inspect import isclass
from typing import Any

from ..errors import ConfigError
from ..flow.couplings import COUPLINGS
from ..flow.paths import PATHS
from ..flow.schedules import SCHEDULES
from ..registry import spec_name
from ..training.pair_variants import mean_end_point
from ..trees.density_ratio import DensityRatio
from .trained_flow import Flow

TREES = "1603.02754"
ALWAYS = ("2404.18219", "2309.09968", "2210.02747", TREES)
"""Flow matching with boosted trees, in particle physics and before; flow matching; the trees."""

OWN = """\
@software{flowbdt,
  author = {{flowBDT developers}},
  title  = {flowBDT: gradient-boosted flow matching},
  note   = {version VERSION}
}"""


def sources_of(*entries: Any) -> list[str]:
    """Return the arXiv numbers that docstrings name: of classes with their methods, functions,
    modules."""
    documented = [one for e in entries for one in (e, *(vars(e).values() if isclass(e) else ()))]
    text = "\n".join(one.__doc__ or "" for one in documented)
    return list(dict.fromkeys(re.findall(r"arXiv:?\s*(\d{4}\.\d{4,5})", text)))


def sources(flow: Flow) -> list[str]:
    """Return the arXiv numbers of what a trained flow uses, without repetitions."""
    settings = flow.settings
    learned = (column.transform for column in flow.transform.columns)
    entries: list[Any] = [
        type(flow.sampler.solver),
        *(type(one) for one in learned if one is not None),
    ]
    for name, registry in (("path", PATHS), ("coupling", COUPLINGS), ("spacing", SCHEDULES)):
        spec = settings[name]
        if not isinstance(spec, list):  # times by themselves
            entries.append(registry.get(spec_name(spec)))
    entries += [DensityRatio] if flow.ratio is not None else []
    entries += [mean_end_point] if settings["noise"]["candidates"] else []
    return list(dict.fromkeys([*ALWAYS, *sources_of(*entries)]))


def known_papers() -> dict[str, tuple[str, str, str]]:
    """Return year, authors and title by arXiv number."""
    text = resources.files(__package__).joinpath("papers.txt").read_text(encoding="utf-8")
    rows = (line.split(" | ") for line in text.splitlines())
    return {number: (year, authors, title) for number, year, authors, title in rows}


def bibtex(numbers: Iterable[str], version: str) -> str:
    """Return entries for flowBDT and for papers. Raises ConfigError for one that is not known."""
    papers, entries = known_papers(), [OWN.replace("VERSION", version)]
    for number in numbers:
        if number not in papers:
            raise ConfigError(f"papers.txt lacks arXiv {number}, the source of a method")
        year, authors, title = papers[number]
        entries.append(
            f"@article{{arXiv:{number},\n  author = {{{authors}}},\n  title  = {{{{{title}}}}},\n"
            f"  year   = {{{year}}},\n  eprint = {{{number}}},\n  archivePrefix = {{arXiv}}\n}}"
        )
    return "\n\n".join(entries)
