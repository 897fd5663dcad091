"""`ShowerModel`: calorimeter showers as the physics has them, from the energy to the voxels."""

from __future__ import annotations

import io
import json
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Self

import numpy as np

from .. import checks, files, seeding
from ..datasets.calochallenge import Showers
from ..datasets.calogeometry import Geometry, Layer
from ..errors import DataWarning, FormatError, InputError
from ..regressors.distribution import DistributionSettings
from .axis import draw_axes, leaning, standard_complex
from .energies import LayerEnergies
from .layers import Known, LayerPlan
from .radial import Rings
from .sectors import Sectors

FORMAT = 1

FEWEST_SHOWERS = 100

SECTORS: dict[str, Any] = {
    "location_trees": 0,  # a hundred times as many rows: one deep tree resolves the width itself
    "depth": 10,
    "least_rows": 200,
    "cdf_trees": 20,
    "cdf_depth": 5,
    "cdf_rate": 0.15,
}
"""Settings of the distributions within rings that differ from `DistributionSettings`."""

MOST_ROWS = 400_000

BLOCK_VALUES = 400_000
"""Voxels that are generated together; decides which random numbers a shower gets."""


class ShowerModel:
    """Generative model of calorimeter showers, given the incident energy.

    Three stages, each exact in what the one before it decided:

    1. layer energies given the incident energy, continuous in it: a small `FlowBDT`;
    2. energies of the rings of each layer given the layer energies;
    3. voxels of each ring given its energy, in a frame turned and mirrored at random.

    Stages 2 and 3 divide energies in two until single voxels are left. Each division is drawn from
    boosted trees (`ConditionalDistribution`) that know how likely it is that one side gets
    nothing. So voxels are exactly zero where they are, no voxel lies between zero and the
    threshold, and the sums over rings, layers and the shower come out to rounding.

    Parameters
    ----------
    threshold : float, MeV: training voxels below count as 0; None: that of the official evaluation
    flow : settings of `FlowBDT` for the layer energies, such as ``{"executor": "htcondor"}``
    rings, sectors : settings of `DistributionSettings` for stages 2 and 3
    most_rows : rows at most that a distribution learns from
    n_threads : for training; the result does not depend on it
    random_state : seed; with an integer, equal input gives equal showers

    Attributes
    ----------
    geometry_ : Geometry of the training showers
    energy_range_ : lowest and highest incident energy, MeV, between which it interpolates
    n_parameters_ : numbers that were learned

    References
    ----------
    That layer energies come first and voxels are normalised to them: Krause, Shih, "CaloFlow",
    arXiv 2106.05285, section 3.
    """

    def __init__(
        self,
        *,
        threshold: float | None = None,
        flow: Mapping[str, Any] | None = None,
        rings: Mapping[str, Any] | None = None,
        sectors: Mapping[str, Any] | None = None,
        most_rows: int = MOST_ROWS,
        n_threads: int = 1,
        random_state: Any = None,
    ) -> None:
        self.threshold = threshold
        self.flow = flow
        self.rings = rings
        self.sectors = sectors
        self.most_rows = most_rows
        self.n_threads = n_threads
        self.random_state = random_state

    def fit(self, showers: Showers) -> Self:
        """Learn from showers. Raises InputError if there are too few or they are all empty.

        Time: about two CPU minutes for 15,000 photon showers.
        """
        checks.min_rows(showers.n, FEWEST_SHOWERS, "a shower model")
        seed = seeding.resolve(self.random_state)
        self.seed_ = seed
        rings = DistributionSettings.of(self.rings or {})
        sectors = DistributionSettings.of({**SECTORS, **(self.sectors or {})})
        self.geometry_ = showers.geometry
        cut = showers.geometry.min_energy if self.threshold is None else self.threshold
        self.threshold_ = float(cut)
        used = showers.above(self.threshold_)
        layers = used.geometry.layer_energies(used.voxels)
        if not layers.any():
            raise InputError(f"no voxel of {showers.n} showers reaches {cut:g} MeV")
        plan = LayerPlan.of(used.geometry, layers)
        known = Known(plan, used.energies, layers)
        voxels = _by_layer(used)
        sums = [voxel.sum(axis=1) for voxel in voxels]
        axes = _training_axes(voxels, used.energies, seed)
        key = seeding.derive(seed, "shower-cascade")
        self._energies = LayerEnergies(self.flow or {})
        self._energies.fit(used.energies, layers, self.threshold_, seed)
        options = (self.threshold_, key, self.n_threads)
        self._rings = Rings(rings, self.most_rows).fit(known, sums, *options)
        by_position = dict(enumerate(voxels))
        self._sectors = Sectors(sectors, self.most_rows).fit(known, by_position, axes, *options)
        self._plan = plan
        return self

    @property
    def energy_range_(self) -> tuple[float, float]:
        """Lowest and highest incident energy, MeV, between which the model interpolates."""
        return self._energies.marginals.energy_range

    @property
    def n_parameters_(self) -> int:
        """Numbers that were learned: nodes, leaf values, quantiles, and the closed form."""
        models = [*self._rings.models.values(), *self._sectors.models.values()]
        return self._energies.n_parameters + sum(model.n_parameters for model in models)

    def sample(self, energies: Any, *, random_state: Any = None) -> Showers:
        """Return one new shower for each incident energy, voxels float32.

        Parameters
        ----------
        energies : array (n,) or (n, 1), MeV. Energies that were never trained on are interpolated;
            outside the training range the response stays that of its end (DataWarning)
        random_state : seed; a shower does not depend on how many are asked for after it

        Raises
        ------
        InputError
            If an energy is not positive and finite.
        """
        blocks = list(self.sample_blocks(energies, random_state=random_state))
        voxels = np.concatenate([block.voxels for block in blocks])
        joined = np.concatenate([block.energies for block in blocks])
        return Showers(joined, voxels, self.geometry_)

    def sample_blocks(self, energies: Any, *, random_state: Any = None) -> Iterator[Showers]:
        """Yield the showers of `sample` in blocks, so that all need not be in memory."""
        energies = np.asarray(energies, dtype=np.float64).reshape(-1)
        if not len(energies) or not ((energies > 0) & np.isfinite(energies)).all():
            raise InputError("give at least one incident energy; all positive and finite, in MeV")
        self._warn_outside(energies)
        seed = seeding.resolve(random_state)
        layers = self._energies.sample(energies, seed)
        known = Known(self._plan, energies, layers)
        size = int(np.clip(BLOCK_VALUES // self.geometry_.n_voxels, 32, 2048))
        for block, low, high in seeding.block_ranges(len(energies), size):
            rng = seeding.stream(seed, "shower-voxels", block)
            rows = slice(low, high)
            voxels = self._voxels(known.take(rows), rng)
            yield Showers(energies[rows], voxels, self.geometry_)

    def _warn_outside(self, energies: np.ndarray) -> None:
        low, high = self.energy_range_
        outside = int(((energies < low * (1 - 1e-6)) | (energies > high * (1 + 1e-6))).sum())
        if outside:
            warnings.warn(
                f"{outside} of {len(energies)} incident energies are outside the training range of"
                f" {low:g} to {high:g} MeV, where the response is that of its end",
                DataWarning,
                stacklevel=4,
            )

    def _voxels(self, known: Known, rng: np.random.Generator) -> np.ndarray:
        """Return voxels (n, voxels) float32 of one block; row by row, so that n changes nothing."""
        from scipy.special import ndtri

        plan, n = self._plan, len(known.energies)
        counts = [Sectors.n_numbers(plan, i) for i in range(len(plan.geometry.layers))]
        of_rings = Rings.n_numbers(plan)
        uniform = rng.random((n, 2 + of_rings + sum(counts)))
        axes = standard_complex(ndtri(np.clip(uniform[:, :2], 1e-12, 1 - 1e-12)))
        rings = self._rings.sample(known, uniform[:, 2 : 2 + of_rings])
        column = 2 + of_rings
        parts = []
        for position, (energies, count) in enumerate(zip(rings, counts, strict=True)):
            if count:
                numbers = uniform[:, column : column + count]
                energies = self._sectors.sample(known, position, energies, axes, numbers)
                column += count
            parts.append(energies.reshape(n, -1))
        return _rounded(np.concatenate(parts, axis=1), self.threshold_)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the model as one file (``.npz``, no pickle); `ShowerModel.load` reads it."""
        about = {
            "format": FORMAT,
            "seed": self.seed_,
            "threshold": self.threshold_,
            "geometry": _described(self.geometry_),
            "groups": self._plan.groups,
            "order": self._plan.order,
        }
        arrays: dict[str, Any] = {"about": np.frombuffer(files.json_bytes(about), dtype=np.uint8)}
        _flatten(arrays, "energies", self._energies.state())
        _flatten(arrays, "rings", self._rings.state())
        _flatten(arrays, "sectors", self._sectors.state())
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        files.write_bytes(Path(path), buffer.getvalue())

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Self:
        """Read a model file. Raises FormatError if it is damaged, foreign or of a newer format."""
        try:
            content = io.BytesIO(Path(path).read_bytes())
            with np.load(content, allow_pickle=False) as stored:
                arrays = {key: stored[key] for key in stored.files}
            about = json.loads(arrays.pop("about").tobytes())
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise FormatError(f"{path} is not a whole shower model ({error})") from error
        if about.get("format") != FORMAT:
            raise FormatError(
                f"{path} has format {about.get('format')}; this release reads {FORMAT}: upgrade"
            )
        model = cls(threshold=about["threshold"], random_state=about["seed"])
        model._restore(about, _nested(arrays))
        return model

    def _restore(self, about: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        self.seed_, self.threshold_ = about["seed"], about["threshold"]
        self.geometry_ = _geometry(about["geometry"])
        groups = tuple(tuple(members) for members in about["groups"])
        self._plan = LayerPlan(self.geometry_, groups, tuple(about["order"]))
        self._energies = LayerEnergies.restore(state["energies"], self.threshold_)
        settings = DistributionSettings()
        given = (self._plan, self.threshold_)
        self._rings = Rings(settings, 0).restore(state.get("rings", {}), *given)
        self._sectors = Sectors(settings, 0).restore(state.get("sectors", {}), *given)


def _by_layer(showers: Showers) -> list[np.ndarray]:
    """Return the voxels of each layer, (n, sectors, rings) float64."""
    return [
        showers.voxels[:, layer.voxels].reshape(-1, layer.n_alpha, layer.n_r).astype(np.float64)
        for layer in showers.geometry.layers
    ]


def _training_axes(voxels: list[np.ndarray], energies: np.ndarray, seed: int) -> np.ndarray:
    """Return an axis for each training shower, (n,) complex; zeros without sectors."""
    turning = [voxel for voxel in voxels if voxel.shape[1] > 1]
    if not turning:
        return np.zeros(len(energies), dtype=np.complex128)
    leanings = np.concatenate([leaning(voxel) for voxel in turning], axis=1)
    return draw_axes(leanings, energies, seeding.stream(seed, "shower-axes"))


def _rounded(voxels: np.ndarray, threshold: float) -> np.ndarray:
    """Return float32; what rounding would put below the threshold stays at it."""
    result = voxels.astype(np.float32)
    low = np.float32(threshold)
    if low < threshold:
        low = np.nextafter(low, np.float32(np.inf))
    result[(voxels > 0) & (result < low)] = low
    result[voxels < 0.5 * threshold] = 0.0
    return result


def _described(geometry: Geometry) -> dict[str, Any]:
    layers = [
        [layer.number, layer.r_edges, layer.n_alpha, layer.first] for layer in geometry.layers
    ]
    names = ("name", "particle", "dataset", "min_energy")
    return {**{name: getattr(geometry, name) for name in names}, "layers": layers}


def _geometry(about: Mapping[str, Any]) -> Geometry:
    layers = tuple(
        Layer(number, tuple(edges), n_alpha, first)
        for number, edges, n_alpha, first in about["layers"]
    )
    rest = {name: about[name] for name in ("name", "particle", "dataset", "min_energy")}
    return Geometry(**rest, layers=layers)


def _flatten(arrays: dict[str, Any], prefix: str, state: Mapping[str, Any]) -> None:
    for name, value in state.items():
        if isinstance(value, Mapping):
            _flatten(arrays, f"{prefix}/{name}", value)
        else:
            arrays[f"{prefix}/{name}"] = value


def _nested(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    state: dict[str, Any] = {}
    for key, value in arrays.items():
        *above, name = key.split("/")
        inner = state
        for part in above:
            inner = inner.setdefault(part, {})
        inner[name] = value
    return state
