"""The official classifier network, at a number of epochs that a CPU can do."""

from __future__ import annotations

import time
from typing import Any

from flowbdt.physics.calorimeter.scores.features import high_level_features
from flowbdt.physics.calorimeter.scores.official_classifier import Network, deep_classifier_auc
from flowbdt.physics.calorimeter.scores.shower_judges import high_level_inputs, low_level_inputs
from flowbdt.physics.calorimeter.shower_files import Showers


def judged(real: Showers, new: Showers, epochs: int, smoke: bool) -> dict[str, Any]:
    """Return the AUC of one training of the network at each level.

    float32 in place of the official float64, and ``epochs`` in place of 50.
    """
    network = Network(hidden=16 if smoke else 2048, epochs=epochs, double=False)
    high = [high_level_inputs(high_level_features(one)) for one in (real, new)]
    inputs = {"high": high, "low": [low_level_inputs(one) for one in (real, new)]}
    figures: dict[str, Any] = {"epochs": epochs, "float": 32}
    for level, (first, second) in inputs.items():
        start = time.process_time()
        found = deep_classifier_auc(first, second, network=network, seed=1)
        figures[f"auc_{level}"] = found.value
        figures[f"auc_{level}_error"] = found.error
        figures[f"auc_{level}_uncalibrated"] = found.settings["aucs_uncalibrated"][0]
        figures[f"cpu_s_{level}"] = time.process_time() - start
    return figures
