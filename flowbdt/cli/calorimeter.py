"""``flowbdt calo``: calorimeter showers in the files of the CaloChallenge."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .options import add_command, add_group, add_seed, count, say, seed


def add_calo(commands: Any) -> None:
    """Add the group to the parser of all commands."""
    actions = add_group(
        commands, "calo", "judge calorimeter showers by the metrics of the CaloChallenge"
    )
    judge = add_command(
        actions, "evaluate", run_evaluate, "judge generated showers against a reference"
    )
    judge.add_argument("reference", metavar="REFERENCE", help=".hdf5 with showers, not trained on")
    judge.add_argument("generated", metavar="GENERATED", help=".hdf5 with generated showers")
    judge.add_argument(
        *("-o", "--output"),
        type=Path,
        default=Path("calo-report"),
        metavar="REPORT",
        help="folder (%(default)s)",
    )
    judge.add_argument(
        "--training",
        metavar="FILE",
        help="showers that were trained on: gives the floor and the memorisation check; without it"
        " the floor comes from two halves of REFERENCE",
    )
    judge.add_argument(
        "--official", action="store_true", help="train the official network, too: hours on a CPU"
    )
    judge.add_argument("--runs", type=count, default=1, help="of it; published: 10 (%(default)s)")
    judge.add_argument("--epochs", type=count, default=50, help="of it (%(default)s)")
    judge.add_argument(
        "--neighbours",
        type=seed,
        default=20_000,
        metavar="N",
        help="showers of each file for precision, recall, density, coverage; 0: all, as in the"
        " official evaluation (%(default)s)",
    )
    judge.add_argument("--quick", action="store_true", help="one split of each judge, few replicas")
    add_seed(judge)


def run_evaluate(options: argparse.Namespace) -> None:
    """flowbdt calo evaluate."""
    from ..atomic_files import make_folder
    from ..physics.calorimeter.report import score_summary, write_shower_report
    from ..physics.calorimeter.scores.evaluate_showers import evaluate_showers
    from ..physics.calorimeter.shower_files import ShowerFile, read_showers

    files = [ShowerFile(options.reference), ShowerFile(options.generated)]
    reference, generated = (one.read() for one in files)
    make_folder(options.output)  # what is wrong with it should not be found out after hours
    training = read_showers(options.training) if options.training else None
    evaluation = evaluate_showers(
        reference, generated, _protocol(options, reference.geometry.n_voxels), training
    )
    sizes = ", ".join(f"{n:,} {name}" for name, n in evaluation.sizes.items())
    notes = [
        f"{reference.geometry.name}; showers: {sizes}. Voxels below"
        f" {reference.geometry.min_energy:g} MeV count as empty.",
        "Floor from training showers."
        if training is not None
        else "Floor from two halves of the reference: half as many showers each.",
        "Floors of separations are scaled to the numbers compared.",
    ]
    path = write_shower_report(evaluation, options.output, title="Showers", notes=notes)
    say(options, f"{score_summary(evaluation)}\n\n{path}")


LOW_VALUES = 70_000_000
"""Voxels of a sample for low-level judges: all showers of dataset 1, 10,802 of dataset 2."""


def _protocol(options: argparse.Namespace, n_voxels: int) -> Any:
    from ..evaluation.metrics.classifier import make_mlp
    from ..physics.calorimeter.scores.evaluate_showers import Protocol
    from ..trees.boosted_trees import make_classifier

    return Protocol(
        judges={"mlp": make_mlp, "gb": make_classifier},
        official=_official(options) if options.official else None,
        n_repeats=1 if options.quick else 3,
        most_neighbours=options.neighbours,
        most_low=LOW_VALUES // n_voxels,
        n_bootstrap=20 if options.quick else 100,
        seed=options.seed,
    )


def _official(options: argparse.Namespace) -> Any:
    from ..physics.calorimeter.scores.official_classifier import Network, deep_classifier_auc

    def judge(reference: Any, generated: Any, name: str) -> Any:
        return deep_classifier_auc(
            reference,
            generated,
            network=Network(epochs=options.epochs),
            n_runs=options.runs,
            seed=options.seed,
            name=name,
        )

    return judge
