"""All metrics of the CaloChallenge for one sample of showers, each beside its floor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ....errors import InputError
from ....evaluation.metrics import correlation_matrix, largest_correlation_error
from ....evaluation.metrics.base import Result
from ....evaluation.metrics.classifier import MakeClassifier
from ....evaluation.metrics.neighbours import memorisation, neighbour_scores
from ....seeding import stream
from ..shower_files import Showers
from .features import high_level_features
from .histograms import (
    Histogram,
    energy_histograms,
    feature_histograms,
    separations_by_energy,
    voxel_histogram,
)
from .shower_judges import (
    fast_auc,
    high_level_inputs,
    logarithmic_inputs,
    low_level_inputs,
    neighbour_inputs,
    shower_fpd,
    shower_kpd,
)

OfficialJudge = Callable[[np.ndarray, np.ndarray, str], Result]
"""Inputs of reference and generated showers and the name of the result -> AUC."""


@dataclass(frozen=True)
class ShowerEvaluation:
    """Scores of showers, and the content of their figures by sample.

    ``correlations`` are those of layer energies (L, L), ``layers`` the detector's numbers of them.
    """

    results: list[Result]
    histograms: list[Histogram]
    sizes: dict[str, int]
    correlations: dict[str, np.ndarray] = field(default_factory=dict)
    layers: tuple[int, ...] = ()

    def get(self, name: str, column: str | None = None) -> Result:
        """Return one result. Raises InputError if it was not computed."""
        for result in self.results:
            if result.name == name and column in (None, result.column):
                return result
        known = ", ".join(dict.fromkeys(result.name for result in self.results))
        raise InputError(f"there is no result {name!r}; there are {known}")


@dataclass(frozen=True)
class Protocol:
    """Extent of an evaluation."""

    judges: Mapping[str, MakeClassifier]  # for the fast AUCs, by name
    official: OfficialJudge | None = None  # the official network, or None to leave it out
    n_repeats: int = 3  # splits of each fast AUC
    # showers of each sample for precision, recall, density, coverage; 0: all, as the official
    # evaluation does it, in a time that goes with the square of their number
    most_neighbours: int = 20_000
    most_low: int = 0  # showers of each sample for the low-level judges; 0: all
    n_bootstrap: int = 100  # replicas for the errors of histograms
    distances: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # of "fpd" and "kpd"
    seed: int = 0


def evaluate_showers(
    reference: Showers, generated: Showers, protocol: Protocol, training: Showers | None = None
) -> ShowerEvaluation:
    """Return every metric of generated showers against the reference, beside its floor.

    The floor is that of ``training`` showers, which serve the memorisation check too, against the
    reference; without them that of two halves of the reference. These are other numbers of showers
    than are compared, so the floors of separations, whose mean is known to go with 1/N + 1/M, are
    scaled to the numbers compared; the others stay as they are. Voxels below the official threshold
    count as 0.

    Raises InputError if geometries differ or samples are too small for a metric.
    """
    reference, generated = reference.above(), generated.above()
    if training is not None:
        training = training.above()
    for other in (generated, training):
        if other is not None and other.geometry != reference.geometry:
            raise InputError(
                "all showers must have one geometry, got"
                f" {reference.geometry.name} and {other.geometry.name}"
            )
    found = shower_scores(reference, generated, protocol)
    first, second = _halves(reference, protocol.seed) if training is None else (reference, training)
    floors = shower_scores(first, second, replace(protocol, official=None))
    scale = (1 / reference.n + 1 / generated.n) / (1 / first.n + 1 / second.n)
    results = _with_floors(found, floors, scale)
    if training is not None:
        results.append(_memorised(reference, generated, training, protocol))
    samples = {"reference": reference, "generated": generated}
    if training is not None:
        samples["training"] = training
    return ShowerEvaluation(
        results,
        shower_histograms(samples),
        {name: one.n for name, one in samples.items()},
        {k: correlation_matrix(high_level_features(one).e_layer) for k, one in samples.items()},
        reference.geometry.numbers,
    )


def shower_histograms(samples: Mapping[str, Showers]) -> list[Histogram]:
    """Return all official histograms of samples, the first of which is the reference."""
    features = {name: high_level_features(one) for name, one in samples.items()}
    geometry = next(iter(samples.values())).geometry
    found = [*feature_histograms(features)]
    found += energy_histograms(features) if geometry.dataset == 1 else []
    return [*found, voxel_histogram(samples, geometry)]


def shower_scores(reference: Showers, other: Showers, protocol: Protocol) -> list[Result]:
    """Return all scores of showers above the threshold, without floors and memorisation."""
    seed, replicas = protocol.seed, protocol.n_bootstrap
    real, new = high_level_features(reference), high_level_features(other)
    histograms = [
        *feature_histograms({"reference": real, "other": new}),
        voxel_histogram({"reference": reference, "other": other}, reference.geometry),
    ]
    results = [one.separation(n_bootstrap=replicas, seed=seed) for one in histograms]
    results.insert(0, _mean_separation(results))
    if reference.geometry.dataset == 1:
        by_energy = separations_by_energy(real, new, replicas, seed)
        results += [replace(one, name="separation_by_energy") for one in by_energy]
    correlation = largest_correlation_error(real.e_layer, new.e_layer, seed=seed)
    results.append(replace(correlation, name="layer_correlation"))
    results.append(shower_fpd(real, new, **protocol.distances.get("fpd", {})))
    results.append(shower_kpd(real, new, **protocol.distances.get("kpd", {})))
    near = [_some(one, protocol.most_neighbours, seed) for one in (reference, other)]
    results += neighbour_scores(neighbour_inputs(near[0]), neighbour_inputs(near[1]))
    few = (_some(one, protocol.most_low, seed) for one in (reference, other))
    results += _aucs("high", [high_level_inputs(real), high_level_inputs(new)], protocol)
    results += _aucs("low", [low_level_inputs(one) for one in few], protocol)
    return results


def _mean_separation(each: list[Result]) -> Result:
    """Return the plain mean over the official histograms; columns that share showers correlate."""
    error = float(np.mean([one.error for one in each]))  # fully correlated: not too small
    value = float(np.mean([one.value for one in each]))
    floors = [float(one.settings.get("expected_floor", 0.0)) for one in each]
    settings = {"histograms": len(each), "expected_floor": float(np.mean(floors))}
    return Result("separation_mean", value, error, each[0].n, settings=settings)


def _aucs(level: str, inputs: list[np.ndarray], protocol: Protocol) -> list[Result]:
    real, new = inputs
    options: dict[str, Any] = {"n_model_seeds": 1, "n_split_seeds": protocol.n_repeats}
    results = []
    for name, make in protocol.judges.items():
        result = fast_auc(real, new, level, make, seed=protocol.seed, **options)
        results.append(replace(result, column=name))
    if protocol.official is not None:
        results.append(protocol.official(real, new, f"auc_{level}_official"))
    return results


def _some(showers: Showers, most: int, seed: int) -> Showers:
    """Return at most ``most`` showers, drawn at random; all for 0."""
    if not most or showers.n <= most:
        return showers
    return showers.take(stream(seed, "metric-calo-some").permutation(showers.n)[:most])


def _halves(showers: Showers, seed: int) -> tuple[Showers, Showers]:
    order = stream(seed, "metric-calo-halves").permutation(showers.n)
    middle = showers.n // 2
    return showers.take(order[:middle]), showers.take(order[middle:])


def _with_floors(found: list[Result], floors: list[Result], scale: float) -> list[Result]:
    """Return results with the floors of the same name; separations and their mean are scaled."""
    known = {(one.name, one.column): one for one in floors}
    results = []
    for one in found:
        floor = known.get((one.name, one.column))
        if floor is not None:
            factor = scale if one.name.startswith("separation") else 1.0
            scaled = replace(floor, value=factor * floor.value, error=factor * floor.error)
            one = one.with_floor(scaled)
        results.append(one)
    return results


def _memorised(
    reference: Showers, generated: Showers, training: Showers, protocol: Protocol
) -> Result:
    """Return how often a generated shower is nearer to a training shower than a real one is."""
    samples = (reference, generated, training)
    inputs = [logarithmic_inputs(low_level_inputs(one)) for one in samples]
    found = memorisation(*inputs, max_events=2000, seed=protocol.seed)
    return replace(found, floor=0.5, floor_error=0.0)
