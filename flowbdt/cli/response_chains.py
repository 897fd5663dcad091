"""Commands for detector response: a chain of stages, from ROOT file to ROOT file."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from . import options
from .generate_events import outside
from .options import bar, say, show, three_digits

CHAIN = click.argument("run", type=options.PATH, help="Folder or file of a chain.")
ROOT = "ROOT file with collections, such as events.root or events.root:Events"


@click.group("response")
def response_group() -> None:
    """Learn a detector's response from simulation, and apply it."""


@response_group.command("fit")
@click.argument("events", type=options.PATH, help=f"Input and output: {ROOT}.")
@options.file("--config", required=True, help="YAML file that declares the chain.")
@options.output("RUN", "Folder of the chain.", required=True)
@options.seed()
@options.executor
@options.flag("--resume", "Continue an interrupted chain.")
@options.flag("--dry-run", "Check everything, and print the stages.")
@options.printing
def fit_response_command(
    events: Path,
    config: Path,
    output: Path,
    seed: int,
    executor: str | None,
    resume: bool,
    dry_run: bool,
) -> None:
    """Learn from events with generated and reconstructed objects."""
    from ..physics.response.chain import ChainInputs, fit_chain
    from ..physics.response.declaration import Declaration

    inputs = ChainInputs.of(Declaration.of(config), read_events(events), seed)
    if dry_run:
        show("\n".join(lines := inputs.content.describe()), stages=lines)
        return
    with bar(desc="training", unit="job") as progress:
        fit_chain(
            inputs,
            output,
            executor=executor or "serial",
            resume=resume,
            on_stage=lambda name, _: progress.set_description(f"training {name}"),
            on_report=lambda _: progress.update(),
        )
    then = f"flowbdt response generate {output} gen.root -o reco.root"
    say(f"complete: {output}   next: {then}", run=output)


@response_group.command("generate")
@CHAIN
@click.argument("events", type=options.PATH, help=f"Input: {ROOT}.")
@options.output("FILE", "ROOT file to write.", required=True)
@options.integer("--oversample", default=1, help="Outputs of each event.")
@click.option(
    "--first",
    type=options.NUMBER,
    default=0,
    metavar="N",
    help="Number of the first event, if the file is part of a longer one.",
)
@options.flag("--rntuple", "Write an RNTuple in place of a TTree.")
@options.seed()
@outside
@options.printing
def generate_response_command(
    run: Path,
    events: Path,
    output: Path,
    oversample: int,
    first: int,
    rntuple: bool,
    seed: int,
    outside: str,
) -> None:
    """Make the reconstructed objects of generated events."""
    from ..physics.response.chain import BLOCK_EVENTS, ResponseChain
    from ..tables.event_collections import read_collections, write_collections

    chain, start = ResponseChain.load(run), time.perf_counter()
    blocks = read_collections(events, block_rows=BLOCK_EVENTS)
    settings: dict[str, Any] = {"oversample": oversample, "first": first, "outside": outside}
    with bar(desc="generating", unit="event", unit_scale=True) as progress:

        def made() -> Iterator[Any]:
            for block in chain.sample_blocks(blocks, random_state=seed, **settings):
                yield block.to_awkward()
                progress.update(block.n)

        n = write_collections(output, made(), rntuple=rntuple)
    seconds = time.perf_counter() - start
    text = f"{output}: {n} events, {three_digits(1e6 * seconds / n)} us/event"
    say(text, file=output, events=n, seconds=seconds)


def read_events(path: Path) -> Any:
    """Read a whole file as one awkward array."""
    from ..tables.event_collections import read_collections

    blocks = list(read_collections(path))
    import awkward as ak

    return ak.concatenate(blocks)


@response_group.command("evaluate")
@CHAIN
@click.argument("events", type=options.PATH, help=f"Not trained on, with output: {ROOT}.")
@options.output("REPORT", "Folder for the numbers.", default="response-report")
@options.mapping(
    "--bins",
    "{GenJet_pt: [15, 20, 30, 50], abs(GenJet_eta): [0, 1.3, 2.5]}",
    "Edges by branch or expression of the parent, quantiles by default",
)
@options.mapping("--tags", "{Jet_btag: GenJet_flavour == 5}", "What columns should tell")
@options.mapping(
    "--pairs", "{m_bb: Jet_btag > 0.5, m_mumu: Muon_pt > 5}", "Which two objects to take a mass of"
)
@options.quick
@options.seed()
@options.printing
def evaluate_response_command(
    run: Path,
    events: Path,
    output: Path,
    bins: dict[str, Any] | None,
    tags: dict[str, Any] | None,
    pairs: dict[str, Any] | None,
    quick: bool,
    seed: int,
) -> None:
    """Judge a chain on events that it has not seen."""
    from ..atomic_files import make_folder, write_bytes, write_json
    from ..physics.response.chain import ResponseChain
    from ..physics.response.judge_response import judge_response

    chain, real = ResponseChain.load(run), read_events(events)
    make_folder(output)  # an error now, not after the work
    asked: Any = {"bins": bins, "tags": tags, "pairs": pairs}
    scores = judge_response(chain, real, **asked, seed=seed, quick=quick)
    write_json(output / "response.json", scores.to_json())
    text = scores.text()
    write_bytes(output / "response.txt", f"{text}\n".encode())
    say(f"{text}\n\n{output / 'response.json'}", **scores.to_json(), report=output)
