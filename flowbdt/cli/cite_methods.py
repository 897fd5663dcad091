"""The command that prints the papers behind a result."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from ..errors import ConfigError
from . import options
from .options import show


@click.command()
@click.argument(
    "run",
    type=options.PATH,
    help="Run or model; response chain, network of showers, unfolding, or refined table.",
)
@options.printing
def cite_command(run: Path) -> None:
    """Print BibTeX of the papers whose methods a run used."""
    from .. import __version__
    from ..generation.cited_papers import bibtex

    numbers = list(dict.fromkeys(_sources(run)))
    show(bibtex(numbers, __version__), arxiv=numbers, version=__version__)


def _sources(run: Path) -> list[str]:
    """Return the arXiv numbers of what was used, some of them more than once."""
    from ..generation.cited_papers import sources
    from ..generation.trained_flow import Flow
    from ..physics.response.chain import is_chain
    from ..tables.formats import FORMATS
    from ..tables.formats.base import split_path
    from ..training.run_directory import open_run
    from .shower_networks import network_file

    if (run / "unfolding.json").exists():
        return _of_unfolding(run / "unfolding.json")
    if is_chain(run):
        return _of_chain(run)
    if (network := network_file(run)) is not None:
        return _of_network(network)
    if split_path(run)[0].suffix in FORMATS.names():
        return _of_table(run)
    return sources(Flow(open_run(run), compiled=False))


def _of_unfolding(file: Path) -> list[str]:
    from ..atomic_files import read_json
    from ..generation.cited_papers import ALWAYS, TREES, sources_of
    from ..physics.unfolding.omnifold import OmniFold
    from ..physics.unfolding.unfold import METHODS

    method = METHODS[read_json(file)["unfolding"]["method"]]
    by = [TREES] if method is OmniFold else ALWAYS
    return [*sources_of(sys.modules[method.__module__], method), *by]


def _of_chain(run: Path) -> list[str]:
    from ..generation.cited_papers import sources, sources_of
    from ..generation.export.lamarr import ExportedRejection
    from ..physics.response.chain import ResponseChain
    from ..physics.response.exported_stages import exported_stages
    from ..trees.density_ratio import DensityRatio

    found = []
    for stage in exported_stages(ResponseChain.load(run)):
        if isinstance(stage, ExportedRejection):
            found += sources_of(DensityRatio)
        elif stage.flow is not None:
            found += sources(stage.flow)
    return [*sources_of(ResponseChain), *found]


def _of_network(file: Path) -> list[str]:
    from ..generation.cited_papers import sources_of
    from ..networks.shower_network import ShowerNetwork

    network = ShowerNetwork.load(file)
    used = {type(one): None for one in network.denoiser.modules()}
    return sources_of(*used, type(network.sampler().solver))


def _of_table(file: Path) -> list[str]:
    """Return the sources of a refinement. Raises ConfigError for a table that says of none."""
    from ..generation.cited_papers import ALWAYS, TREES, sources_of
    from ..physics.refinement import REFINERS
    from ..tables.formats import read_attributes

    refined = read_attributes(file).get("refined")
    if not isinstance(refined, dict):
        raise ConfigError(f"{file} is no refined table; name the run that made its events")
    method = REFINERS.get(refined["method"])
    return [*sources_of(method), *([TREES] if refined["method"] == "weights" else ALWAYS)]
