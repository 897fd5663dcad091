"""Ours beside the recipes of others: a few energies, the same showers to learn and to judge."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from experiments.calochallenge import judge, plain, recipe
from experiments.calochallenge.rings import ring_showers
from flowbdt.atomic_files import write_json
from flowbdt.evaluation.metrics import correlation_matrix
from flowbdt.evaluation.metrics.classifier import log_posteriors
from flowbdt.evaluation.report import style
from flowbdt.evaluation.report.render import write_figure
from flowbdt.physics.calorimeter import report
from flowbdt.physics.calorimeter.geometry import Geometry
from flowbdt.physics.calorimeter.model import ShowerModel
from flowbdt.physics.calorimeter.scores.evaluate_showers import ShowerEvaluation, shower_histograms
from flowbdt.physics.calorimeter.scores.features import high_level_features
from flowbdt.physics.calorimeter.scores.shower_judges import logarithmic_inputs, low_level_inputs
from flowbdt.physics.calorimeter.shower_files import Showers, read_showers, write_showers

N_ENERGIES = 3

OURS, CALOFOREST, FLOWBDT = "ours", "CaloForest's recipe", "plain flowBDT recipe"

Figures = dict[str, Any]
Maker = Callable[[], tuple[Showers, Figures]]


@dataclass(frozen=True)
class Comparison:
    """Showers of a few energies, as voxels or as rings.

    Parameters
    ----------
    train, test : Showers, voxels
    rings : whether recipes learn and all are judged on energies of rings, which is 50 times cheaper
    python : interpreter with forest_diffusion_mo, or None: CaloForest's recipe is left out
    smoke : bool
    """

    train: Showers
    test: Showers
    rings: bool
    python: Path | None
    smoke: bool

    def run(self, model: ShowerModel, folder: Path | None) -> dict[str, Figures]:
        """Return the figures of all; write the histograms if there is a folder."""
        train, test = self._shown(self.train), self._shown(self.test)
        cost: dict[str, Figures] = {OURS: {}}
        made = {OURS: self._shown(model.sample(self.test.energies, random_state=3))}
        for name, make in self._recipes(train, test.energies).items():
            made[name], cost[name] = _kept(folder, name, make, train.geometry)
        figures = {
            name: {**judge.judged(test, new, self.smoke), **cost[name]}
            for name, new in made.items()
        }
        inputs = {name: logarithmic_inputs(low_level_inputs(new)) for name, new in made.items()}
        for one in log_posteriors(logarithmic_inputs(low_level_inputs(test)), inputs, n_runs=2):
            figures[str(one.column)] |= {
                "log_posterior": one.value,
                "log_posterior_error": one.error,
            }
        figures["floor"] = judge.judged(test, train, self.smoke)
        if folder is not None and not self.smoke:
            draw({"reference": test, **made}, folder)
        return figures

    def _recipes(self, train: Showers, energies: np.ndarray) -> dict[str, Maker]:
        """Return what trains a recipe and generates showers of the energies."""
        theirs, flow = (recipe.SMOKE, plain.SMOKE) if self.smoke else (recipe.CUT, plain.REFERENCE)
        makers: dict[str, Maker] = {FLOWBDT: partial(plain.generated, train, energies, flow)}
        if self.python is not None:
            given = (train, energies, self.python, theirs)
            makers[CALOFOREST] = partial(recipe.caloforest, *given)
        return makers

    def _shown(self, showers: Showers) -> Showers:
        return ring_showers(showers) if self.rings else showers


def _kept(
    folder: Path | None, name: str, make: Maker, geometry: Geometry
) -> tuple[Showers, Figures]:
    """Return the showers and the cost of a recipe, from the folder where they are there."""
    if folder is None:
        return make()
    file = folder / f"{''.join(c for c in name.lower() if c.isalpha())}.hdf5"
    notes = file.with_suffix(".json")
    if not notes.exists():
        showers, cost = make()
        folder.mkdir(parents=True, exist_ok=True)
        write_showers(file, showers)
        write_json(notes, cost)
    return read_showers(file, geometry), json.loads(notes.read_text())


def few_energies(train: Showers, test: Showers) -> tuple[Showers, Showers]:
    """Return the showers of the lowest, the middle and the highest energy."""
    known = np.unique(train.energies)
    energies = known[np.linspace(0, len(known) - 1, N_ENERGIES).astype(int)]
    first, second = (part.take(np.isin(part.energies, energies)) for part in (train, test))
    return first, second


def draw(samples: dict[str, Showers], folder: Path) -> None:
    """Write the histograms of all samples and the differences of their correlations."""
    features = {name: high_level_features(one) for name, one in samples.items()}
    evaluation = ShowerEvaluation(
        [],
        shower_histograms(samples),
        {name: one.n for name, one in samples.items()},
        {name: correlation_matrix(one.e_layer) for name, one in features.items()},
        next(iter(samples.values())).geometry.numbers,
    )
    folder.mkdir(parents=True, exist_ok=True)
    with style.drawing():
        for name, caption, figure in report.shower_figures(evaluation):
            write_figure(figure, folder, name, caption, "png")
