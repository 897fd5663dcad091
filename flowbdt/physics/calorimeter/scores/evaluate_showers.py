"""All metrics of the CaloChallenge for one sample of showers, each beside its floor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ....errors import InputError
from ....evaluation.metrics.base import Result
from ....evaluation.metrics.classifier import MakeClassifier
from ....evaluation.metrics.memorisation import memorisation
from ....seeding import stream
from ..shower_files import Showers
from .features import high_level_features
from .histograms import (
    binning,
    energy_histograms,
    official_separation,
    separations_by_energy,
    separations_of_features,
)
from .histograms import histograms as feature_histograms
from .neighbours import neighbour_inputs, neighbour_scores
from .shower_judges import (
    correlation_matrix,
    fast_auc,
    fpd,
    high_level_inputs,
    kpd,
    largest_correlation_error,
    low_level_inputs,
)

OfficialJudge = Callable[[np.ndarray, np.ndarray, str], Result]
"""Inputs of reference and generated showers and the name of the result -> AUC."""


@dataclass(frozen=True)
class Histogram:
    """Numbers of entries of several samples in the official bins.

    Parameters
    ----------
    name : as the column of its separation power
    edges : ndarray (b + 1,)
    counts : sample -> ndarray (b,); the first is the reference
    entries : sample -> entries with those outside the bins
    """

    name: str
    edges: np.ndarray
    counts: dict[str, np.ndarray]
    entries: dict[str, int]


@dataclass(frozen=True)
class ShowerEvaluation:
    """What `evaluate_showers` found: scores, and what figures are drawn of, by sample.

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
    """How much is computed.

    Parameters
    ----------
    judges : name -> maker of classifiers for the fast AUCs
    official : the official network, or None to leave it out
    n_repeats : splits of each fast AUC
    most_neighbours : showers of each sample for precision, recall, density, coverage; 0: all, as
        the official evaluation does it, in a time that goes with the square of their number
    most_low : showers of each sample for the low-level judges; 0: all
    n_bootstrap : replicas for the errors of histograms
    distances : options of `fpd` and of `kpd`
    seed : int
    """

    judges: Mapping[str, MakeClassifier]
    official: OfficialJudge | None = None
    n_repeats: int = 3
    most_neighbours: int = 20_000
    most_low: int = 0
    n_bootstrap: int = 100
    distances: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    seed: int = 0


def evaluate_showers(
    reference: Showers,
    generated: Showers,
    protocol: Protocol,
    training: Showers | None = None,
) -> ShowerEvaluation:
    """Return every metric of generated showers against the reference, beside its floor.

    The floor is that of training showers against the reference, without them that of two halves of
    the reference. These are other numbers of showers than are compared, so the floors of
    separations, whose mean is known to go with 1/N + 1/M, are scaled to the numbers compared; the
    others stay as they are.

    Parameters
    ----------
    reference, generated : Showers of one geometry; voxels below the official threshold count as 0
    protocol : Protocol
    training : Showers the generator was trained on, or None; also for the memorisation check

    Returns
    -------
    ShowerEvaluation

    Raises
    ------
    InputError
        If geometries differ or samples are too small for a metric.
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
        {name: correlation_matrix(high_level_features(one)) for name, one in samples.items()},
        reference.geometry.numbers,
    )


def shower_histograms(samples: Mapping[str, Showers]) -> list[Histogram]:
    """Return all official histograms of several samples, the first of which is the reference.

    Those of features, of all voxels, and of Etot/Einc at each energy of dataset 1.
    """
    features = {name: high_level_features(one) for name, one in samples.items()}
    first, *others = features
    result: dict[str, Histogram] = {}
    for other in others or [first]:
        both = features[first], features[other]
        found = [*feature_histograms(*both)]
        found += energy_histograms(*both) if both[0].geometry.dataset == 1 else []
        for name, edges, real, new in found:
            counts = {first: np.histogram(real, edges)[0]}
            one = result.setdefault(name, Histogram(name, edges, counts, {first: len(real)}))
            one.counts[other] = np.histogram(new, edges)[0]
            one.entries[other] = len(new)
    result["voxel"] = _spectra(samples)
    return list(result.values())


def _spectra(samples: Mapping[str, Showers]) -> Histogram:
    """Return the histogram of all voxels."""
    first = next(iter(samples.values()))
    edges = binning("voxel", first.geometry, largest=float(first.voxels.max(initial=0.0)))
    counts = {name: np.histogram(one.voxels, edges)[0] for name, one in samples.items()}
    filled = {name: int((one.voxels > 0).sum()) for name, one in samples.items()}
    return Histogram("voxel", edges, counts, filled)


def shower_scores(reference: Showers, other: Showers, protocol: Protocol) -> list[Result]:
    """Return all scores of showers above the threshold, without floors and memorisation."""
    seed, replicas = protocol.seed, protocol.n_bootstrap
    real, new = high_level_features(reference), high_level_features(other)
    results = separations_of_features(real, new, replicas, seed)
    spectra = _spectra({"reference": reference, "other": other})
    results.append(
        official_separation(*spectra.counts.values(), name="voxel", n_bootstrap=replicas, seed=seed)
    )
    if reference.geometry.dataset == 1:
        by_energy = separations_by_energy(real, new, replicas, seed)
        results += [replace(one, name="separation_by_energy") for one in by_energy]
    results = [_mean_separation(results), *results]
    results.append(largest_correlation_error(real, new, seed=seed))
    results.append(fpd(real, new, **protocol.distances.get("fpd", {})))
    results.append(kpd(real, new, **protocol.distances.get("kpd", {})))
    results += _near(reference, other, protocol)
    inputs = {"high": [high_level_inputs(real), high_level_inputs(new)]}
    few = [_some(one, protocol.most_low, seed) for one in (reference, other)]
    inputs["low"] = [low_level_inputs(one) for one in few]
    for level, (first, second) in inputs.items():
        results += _aucs(first, second, level, protocol)
    return results


def _mean_separation(results: list[Result]) -> Result:
    """Return the plain mean over the official histograms; columns that share showers correlate."""
    each = [one for one in results if one.name == "separation"]
    error = float(np.mean([one.error for one in each]))  # fully correlated: not too small
    value = float(np.mean([one.value for one in each]))
    floors = [float(one.settings.get("expected_floor", 0.0)) for one in each]
    settings = {"histograms": len(each), "expected_floor": float(np.mean(floors))}
    return Result("separation_mean", value, error, each[0].n, settings=settings)


def _near(reference: Showers, other: Showers, protocol: Protocol) -> list[Result]:
    first, second = (
        neighbour_inputs(_some(one, protocol.most_neighbours, protocol.seed))
        for one in (reference, other)
    )
    return neighbour_scores(first, second)


def _aucs(reference: np.ndarray, other: np.ndarray, level: str, protocol: Protocol) -> list[Result]:
    options = {"n_model_seeds": 1, "n_split_seeds": protocol.n_repeats, "seed": protocol.seed}
    results = []
    for name, make in protocol.judges.items():
        found = fast_auc(reference, other, level, make, **options)
        results.append(replace(found, column=name))
    if protocol.official is not None:
        results.append(protocol.official(reference, other, f"auc_{level}_official"))
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
    inputs = [memorisation_inputs(one) for one in (reference, generated, training)]
    found = memorisation(*inputs, max_events=2000, seed=protocol.seed)
    return replace(found, floor=0.5, floor_error=0.0)


def memorisation_inputs(showers: Showers) -> np.ndarray:
    """Return log10 of E_inc [MeV] and of 1 + E / (1e-6 E_inc) of all voxels, (n, 1 + voxels)."""
    relative = showers.voxels / showers.energies[:, None]
    return np.column_stack([np.log10(showers.energies), np.log10(1 + 1e6 * relative)])
