"""Separation powers of the CaloChallenge, with its binnings to the digit."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ....errors import InputError
from ....evaluation.metrics.base import Result
from ....evaluation.metrics.marginal import separation_error
from ..geometry import Geometry
from ..shower_files import Showers
from .features import Features, blocks, high_level_features


@dataclass(frozen=True)
class Histogram:
    """Numbers of entries of samples in the official bins."""

    name: str  # as the column of its separation power
    edges: np.ndarray  # (b + 1,)
    counts: dict[str, np.ndarray]  # by sample, (b,); the first is the reference
    entries: dict[str, int]  # by sample, with those outside the bins

    def separation(self, **options: Any) -> Result:
        """Return the separation power of the first two samples, see `official_separation`."""
        real, generated, *_ = self.counts.values()
        return official_separation(real, generated, name=self.name, **options)


CENTRES = ("eta", "phi", "width_eta", "width_phi", "r", "width_r")
PER_LAYER = ("e_layer", *CENTRES, "sparsity")
"""Features that have a histogram per layer, in the order of `separations`."""

FAR_LAYERS: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("eta", "phi", "width_eta", "width_phi"), (12, 13)),
    **dict.fromkeys(("r", "width_r"), (12, 13, 14)),
}
"""Hadronic layers of dataset 1, whose voxels reach further out."""

RANGES = {
    # feature: (low, high) of dataset 1, of its far layers, of datasets 2 and 3; mm
    "eta": ((-100.0, 100.0), (-500.0, 500.0), (-30.0, 30.0)),
    "phi": ((-100.0, 100.0), (-500.0, 500.0), (-30.0, 30.0)),
    "width_eta": ((0.0, 100.0), (0.0, 400.0), (0.0, 30.0)),
    "width_phi": ((0.0, 100.0), (0.0, 400.0), (0.0, 30.0)),
    "r": ((0.0, 500.0), (0.0, 1500.0), (0.0, 42.0)),
    "width_r": ((0.0, 500.0), (0.0, 1500.0), (0.0, 20.0)),
}


def binning(name: str, geometry: Geometry, layer: int = 0, largest: float = 0.0) -> np.ndarray:
    """Return the official edges of the histogram "etot_einc", "voxel", or one of `PER_LAYER`.

    Bins of energies begin at the geometry's ``min_energy`` and end at the ``largest`` reference
    value [MeV]; ``layer`` is the detector's number. Raises InputError if there is no such
    histogram.
    """
    if name == "etot_einc":
        return np.linspace(0.5, 1.5, 101)
    if name in ("e_layer", "voxel"):
        n_edges = 40 if name == "e_layer" else 50
        last = largest if largest > geometry.min_energy else 2 * geometry.min_energy
        return np.logspace(np.log10(geometry.min_energy), np.log10(last), n_edges)
    if name == "sparsity":
        return np.linspace(0.0, 1.0, 21)
    if name not in RANGES:
        raise InputError(
            f"there is no official histogram {name!r}; known: etot_einc, voxel, "
            + ", ".join(PER_LAYER)
        )
    near, far, regular = RANGES[name]
    if geometry.dataset != 1:
        return np.linspace(*regular, 101)
    return np.linspace(*(far if layer in FAR_LAYERS[name] else near), 101)


def official_separation(
    real: np.ndarray,
    generated: np.ndarray,
    *,
    name: str = "separation",
    n_bootstrap: int = 100,
    seed: int = 0,
) -> Result:
    """Return the official separation power of two histograms, numbers of entries (b,) in the bins.

    ``S = 1/2 sum_b (p_b - q_b)^2 / (p_b + q_b + 1e-16)``, p and q normalised to the entries inside
    the bins: 0 for equal histograms, 1 for disjoint ones, not times 100. The error is that of
    Poisson numbers of entries, too small for voxels, as those of one shower depend on each other.
    With entries in one sample only the value is 1, with none at all 0; the official code has no
    number.

    ``settings["expected_floor"]`` is the mean for two samples of one distribution, ``(B - 1)/4 (1/N
    + 1/M)`` with B bins that have entries (derived here). The definition: CaloChallenge/homepage,
    code/evaluate_plotting_helper.py; S. Diefenbacher et al., arXiv:2009.03796, eq. 15.
    """
    counts = [np.asarray(part, dtype=np.float64) for part in (real, generated)]
    sizes = counts[0].sum(), counts[1].sum()
    n = int(min(sizes))
    settings = {"entries": [int(size) for size in sizes], "bins": len(counts[0])}
    if n == 0:
        value = float(max(sizes) > 0)
        return Result("separation", value, 0.0, 0, column=name, settings=settings)
    p, q = counts[0] / sizes[0], counts[1] / sizes[1]
    value = float(0.5 * ((p - q) ** 2 / (p + q + 1e-16)).sum())
    occupied = int(np.count_nonzero(p + q))
    floor = 0.25 * (occupied - 1) * (1 / sizes[0] + 1 / sizes[1])
    error = separation_error(p, q, sizes, 100 * floor, n_bootstrap, seed) / 100
    settings |= {"occupied": occupied, "expected_floor": float(floor), "seed": seed}
    return Result("separation", value, error, n, column=name, settings=settings)


def separations(
    reference: Iterable[Showers],
    generated: Iterable[Showers],
    *,
    threshold: float | None = None,
    n_bootstrap: int = 100,
    seed: int = 0,
) -> list[Result]:
    """Return the separation power of every official histogram: 30 for photons, 46 for pions.

    Columns are "etot_einc", "e_layer_0", ..., "sparsity_12", "voxel"; their plain mean is the "mean
    of all" of the published tables. Raises InputError without showers, or if the geometries differ.
    """
    samples = {"reference": reference, "generated": generated}
    features = {k: high_level_features(one, threshold) for k, one in samples.items()}
    geometries = [one.geometry for one in features.values()]
    if geometries[0] != geometries[1]:
        raise InputError(
            "reference and generated showers must have one geometry, got"
            f" {geometries[0].name} and {geometries[1].name}"
        )
    found = [*feature_histograms(features), voxel_histogram(samples, geometries[0], threshold)]
    return [one.separation(n_bootstrap=n_bootstrap, seed=seed) for one in found]


def separations_by_energy(
    reference: Features, generated: Features, n_bootstrap: int = 100, seed: int = 0
) -> list[Result]:
    """Return the separation power of Etot/Einc for each of the 15 energies of dataset 1.

    Energies 2^8 to 2^22 MeV, each up to the next; 20 bins from 0.4 to 1.4, for photons from the
    fifth energy on from 0.9 to 1.1. Energies that the reference lacks are left out.
    """
    found = energy_histograms({"reference": reference, "generated": generated})
    return [
        one.separation(n_bootstrap=n_bootstrap, seed=seed)
        for one in found
        if one.counts["reference"].any()
    ]


def feature_histograms(features: Mapping[str, Features]) -> Iterator[Histogram]:
    """Yield the histograms of all features of samples, the first of which is the reference."""
    reference = next(iter(features.values()))
    edges = binning("etot_einc", reference.geometry)
    yield _filled("etot_einc", edges, features, _response)
    for name in PER_LAYER:
        for column, layer in enumerate(reference.layers_of(name)):
            pick = functools.partial(_column, name=name, column=column)
            edges = binning(name, reference.geometry, layer, float(pick(reference).max()))
            yield _filled(f"{name}_{layer}", edges, features, pick)


def energy_histograms(features: Mapping[str, Features]) -> Iterator[Histogram]:
    """Yield the histograms of Etot/Einc at each energy of dataset 1 that the reference has."""
    reference = next(iter(features.values()))
    for k in range(15):
        low = 2.0 ** (8 + k)
        narrow = k > 3 and reference.geometry.particle == "photon"
        edges = np.linspace(0.9, 1.1, 21) if narrow else np.linspace(0.4, 1.4, 21)
        pick = functools.partial(_response, low=low, high=2 * low)
        if len(pick(reference)):
            yield _filled(f"etot_einc_{low:.0f}", edges, features, pick)


def _response(features: Features, low: float = -np.inf, high: float = np.inf) -> np.ndarray:
    rows = (features.e_inc >= low) & (features.e_inc < high)
    return features.e_tot[rows] / features.e_inc[rows]


def _column(features: Features, name: str, column: int) -> np.ndarray:
    return np.asarray(getattr(features, name)[:, column])


def _filled(
    name: str,
    edges: np.ndarray,
    features: Mapping[str, Features],
    pick: Callable[[Features], np.ndarray],
) -> Histogram:
    values = {sample: pick(one) for sample, one in features.items()}
    counts = {sample: np.histogram(x, edges)[0] for sample, x in values.items()}
    return Histogram(name, edges, counts, {sample: len(x) for sample, x in values.items()})


def voxel_histogram(
    samples: Mapping[str, Iterable[Showers]], geometry: Geometry, threshold: float | None = None
) -> Histogram:
    """Return the histogram of all voxels; the reference is read twice, for its largest one."""
    first = next(iter(samples.values()))
    largest = max(float(block.voxels.max(initial=0.0)) for block in blocks(first))
    edges = binning("voxel", geometry, largest=largest)
    counts, entries = {}, {}
    for name, showers in samples.items():
        counts[name], entries[name] = np.zeros(len(edges) - 1, dtype=int), 0
        for block in blocks(showers):
            voxels = block.above(threshold).voxels
            counts[name] += np.histogram(voxels, edges)[0]
            entries[name] += int((voxels > 0).sum())
    return Histogram("voxel", edges, counts, entries)
