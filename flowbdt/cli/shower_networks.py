"""Commands for networks of calorimeter showers: train one, generate with it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from ..errors import ConfigError
from . import options
from .options import say

SHOWERS = "HDF5 file in the layout of the CaloChallenge"
NETWORK = "network.npz"

device = click.option(
    "--device",
    type=click.Choice(("auto", "cpu", "cuda")),
    default="auto",
    help="Where the network runs.",
)


@click.group("showers")
def showers_group() -> None:
    """Train a network on calorimeter showers, and generate."""


@showers_group.command("train-network")
@click.argument("showers", type=options.PATH, help=f"Showers to learn: {SHOWERS}.")
@options.output("RUN", "Folder for network, checkpoint and log.", required=True)
@options.mapping("--backbone", "{widths: [64, 64, 64]}", "Settings of the network")
@click.option("--objective", default="edm", metavar="NAME", help="Loss and prediction.")
@options.mapping("--training", "{n_steps: 2000, batch_size: 256}", "Settings of the training")
@options.mapping("--flow", "{preset: fast}", "Settings of the trees of the layer energies")
@click.option(
    "--weights",
    default="ema",
    metavar="WHICH",
    help="Of the network that is kept: ema, newest, best, or a width such as 0.1.",
)
@options.integer("--turns", default=1, help="Copies of a shower, turned about the axis at random.")
@options.file("--valid", help="Other showers, for the loss in the log.")
@options.integer("--checkpoint-every", metavar="STEPS", help="By default at the end only.")
@options.integer("--stop-at", metavar="STEP", help="Stop early; --resume goes on.")
@device
@options.seed()
@options.flag("--resume", "Go on from the checkpoint in RUN, with the same showers.")
@options.printing
def train_network_command(
    showers: Path,
    output: Path,
    backbone: dict[str, Any] | None,
    objective: str,
    training: dict[str, Any] | None,
    weights: str,
    valid: Path | None,
    device: str,
    seed: int,
    resume: bool,
    **given: Any,
) -> None:
    """Train a network on calorimeter showers."""
    from ..atomic_files import make_folder
    from ..networks.shower_network import shower_trainer, train_shower_network
    from ..networks.trainer import Trainer, TrainingConfig
    from ..physics.calorimeter.shower_files import read_showers
    from ..typed_settings import check_settings

    which: str | float = float(weights) if weights.replace(".", "", 1).isdigit() else weights
    real = read_showers(showers)
    other = None if valid is None else read_showers(valid, real.geometry)
    make_folder(output)  # an error now, not after the work
    if resume:
        names = ("backbone", "objective", "training", "device", "seed")
        options.refuse_given("the checkpoint has the settings of its training", *names)
        trainer = Trainer.resume(output / "checkpoint.npz")
    else:
        if (output / "checkpoint.npz").exists():
            raise ConfigError(f"{output} has a checkpoint: --resume goes on with it")
        settings = {"device": device, "seed": seed, **(training or {})}
        config = TrainingConfig(**check_settings(settings, TrainingConfig, "training setting"))
        trainer = shower_trainer(real, backbone or {}, objective, config)
    start = time.perf_counter()
    network = train_shower_network(
        real, trainer, valid=other, folder=output, weights=which, **given
    )
    network.save(output / NETWORK)
    done = f"{trainer.step} of {trainer.config.n_steps} steps, {time.perf_counter() - start:.0f} s"
    say(
        f"complete: {output}, {done}   next: flowbdt showers generate {output} {showers} -o new.h5",
        run=output,
        steps=trainer.step,
    )


@showers_group.command("generate")
@click.argument("run", type=options.PATH, help="Folder of a training, or its network file.")
@click.argument("energies", type=options.PATH, help=f"Incident energies: {SHOWERS}.")
@options.output("FILE", "HDF5 file to write.", required=True)
@options.sampler("Another solver, n_steps or spacing")
@device
@options.seed()
@options.printing
def generate_showers_command(
    run: Path, energies: Path, output: Path, sampler: dict[str, Any] | None, device: str, seed: int
) -> None:
    """Generate one shower for each incident energy of a file."""
    from ..networks.shower_network import ShowerNetwork
    from ..networks.trainer import chosen_device
    from ..physics.calorimeter.shower_files import read_energies, write_showers

    path = network_file(run) or run
    network = ShowerNetwork.load(path, str(chosen_device(device)))
    incident, start = read_energies(energies), time.perf_counter()

    def made() -> Iterator[Any]:
        yield from network.sample_blocks(incident, sampler=sampler, random_state=seed)

    write_showers(output, made(), {"network": network.data_digest, "seed": seed})
    seconds = time.perf_counter() - start
    say(
        f"{output}: {len(incident)} showers, {1e3 * seconds / len(incident):.3g} ms/shower",
        file=output,
        showers=len(incident),
        seconds=seconds,
    )


def network_file(run: Path) -> Path | None:
    """Return the network of a folder, or a file of one by its ending; None for other runs."""
    inside = run / NETWORK
    return inside if inside.exists() else run if run.suffix == ".npz" else None


def tune_network(
    path: Path, showers: Path, *, metric: str, seed: int, evaluations: Any, n_trials: int, **on: Any
) -> Any:
    """Return tuned samplers of a network; half of the showers are searched on."""
    from ..evaluation.score_events import SCORES
    from ..networks.shower_bench import ShowerBench
    from ..networks.shower_network import ShowerNetwork
    from ..physics.calorimeter.shower_files import read_showers
    from ..registry import unknown
    from ..seeding import split_mask
    from ..tuning.tune_sampler import search_samplers

    if metric not in SCORES:
        raise unknown("score", metric, SCORES)
    network, real = ShowerNetwork.load(path), read_showers(showers)
    half = split_mask(real.n, 0.5, seed)
    benches = [ShowerBench(network, real.take(mask), metric, seed=seed) for mask in (half, ~half)]
    return search_samplers(benches, evaluations, n_trials, **on)
