"""How generated jets compare with real ones: the scores of the JetNet papers and two judges."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from flowbdt import EventTable
from flowbdt.evaluation.metrics import Result, classifier_auc, make_mlp, wasserstein
from flowbdt.evaluation.metrics.classifier import MakeClassifier
from flowbdt.physics.jets import Constituents, jet_observables
from flowbdt.physics.jets.jet_scores import coverage_and_mmd, jet_scores
from flowbdt.trees.boosted_trees import make_classifier

SCORES = ("w1_mass", "w1_pt", "w1_particles", "w1_efp", "fpd", "kpd")
HLV = ("mass", "pt", "tau1", "tau2", "tau3", "d12", "d23", "ecf2", "ecf3", "d2", "width")
CLUSTERED = ("tau1", "tau2", "tau3", "d12", "d23")


def observables(jets: np.ndarray, clustered: bool = True) -> EventTable:
    """Return the observables that the judges and the classifier of the rejection see."""
    names = [name for name in HLV if clustered or name not in CLUSTERED]
    return jet_observables(jets, names)


@dataclass(frozen=True)
class Judge:
    """Compares jets with ``real`` ones; in the smoke form briefly and without extras."""

    real: np.ndarray
    smoke: bool = False

    @cached_property
    def table(self) -> EventTable:
        """Observables of the real jets."""
        return observables(self.real, not self.smoke)

    def __call__(self, jets: np.ndarray) -> dict[str, list[float]]:
        """Return name -> value and error."""
        small = {"min_samples": 50, "max_samples": 200, "n_batches": 2, "n_points": 3}
        options: dict[str, Any] = {"kpd": {"batch_size": 50}, "fpd": small} if self.smoke else {}
        found: dict[str, Result] = jet_scores(self.real, jets, None, SCORES, options)
        if not self.smoke:
            found |= {r.name: r for r in coverage_and_mmd(self.real, jets)}
        lines = {name: [r.value, r.error] for name, r in found.items()}
        features = found["w1_particles"].settings["features"]
        table = observables(jets, not self.smoke)
        return {**lines, **{f"w1_{k}": v for k, v in features.items()}, **self._judges(table)}

    def _judges(self, made: EventTable) -> dict[str, list[float]]:
        """Return classifier AUCs on the observables and their distances in standard deviations."""
        lines = {}
        for name in self.table.names:
            result = wasserstein(self.table.column(name), made.column(name), n_bootstrap=20)
            lines[f"std {name}"] = [result.value, result.error]
        makers: dict[str, MakeClassifier] = {"auc_gb": make_classifier, "auc_mlp": make_mlp}
        for name, maker in () if self.smoke else makers.items():
            splits = 3 if name == "auc_gb" else 1
            auc = classifier_auc(self.table.x, made.x, maker, n_model_seeds=1, n_split_seeds=splits)
            lines[name] = [auc.value, auc.error]
        return lines


def sum_rule(jets: np.ndarray, total: np.ndarray | None) -> float:
    """Return the largest deviation of the particles' summed momentum from that of the jet.

    Relative to the jet's energy; infinite where a model has no jet to compare with.
    """
    if total is None:
        return float("inf")
    found = Constituents.of(jets).total
    return float((np.abs(found - total).max(axis=1) / total[:, 0]).max())
