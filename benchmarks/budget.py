"""Which settings meet a budget of CPU seconds: the peers, their knobs and the price of a knob."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import quality

OURS = "flowbdt"
"""The package that runs in our interpreter; all others in that of the peers."""

PROBE_TIMES = 3  # in a trial fit: start, middle and end
FEWER_TREES = 5  # a trial fit has so many times fewer trees


@dataclass(frozen=True)
class Peer:
    """What to run: settings of both modes, and which number to turn to meet a budget."""

    package: str
    published: dict[str, Any]  # the package's defaults, written out for the record
    budget: dict[str, Any]
    knob: str  # what is chosen to meet a budget; cost is linear in it
    probes: tuple[int, int]  # values of the knob in the trial fits for a budget
    far_probes: tuple[int, int]  # larger ones, to estimate published settings of fewer rows
    times: str | None  # setting with the number of times, if there are any
    trees: str  # cut if the smallest value of the knob is too expensive; dots enter dicts


_REFERENCE = {"name": "reference", **quality.MODELS["reference"]}

PEERS: dict[str, Peer] = {
    "ForestDiffusion": Peer(
        package="ForestDiffusion",
        published={"n_t": 50, "duplicate_K": 100, "n_estimators": 100, "max_depth": 7},
        # its default data iterator draws new noise at every pass: useless at duplicate_K = 1
        budget={"n_t": 20, "duplicate_K": 100, "n_estimators": 100, "max_depth": 7, "n_batch": 0},
        knob="duplicate_K",
        probes=(2, 8),
        far_probes=(8, 32),
        times="n_t",
        trees="n_estimators",
    ),
    "forest_diffusion_mo": Peer(
        package="forest_diffusion_mo",
        published={"n_t": 50, "duplicate_K": 100, "xgb_hypers": {"n_estimators": 100}},
        # with so few times its default, 'vp', is far worse than 'flow'; eps as its README advises
        budget={
            "n_t": 20,
            "duplicate_K": 100,
            "diffusion_type": "flow",
            "eps": 0.0,
            "xgb_hypers": {"n_estimators": 100},
        },
        knob="duplicate_K",
        probes=(2, 8),
        far_probes=(8, 32),
        times="n_t",
        trees="xgb_hypers.n_estimators",
    ),
    "treeffuser": Peer(
        package="treeffuser",
        published={"n_repeats": 30, "n_estimators": 3000},
        # its early stopping may spend less than the budget; with 10 repetitions it does by far
        budget={"n_repeats": 30, "n_estimators": 3000},
        knob="n_estimators",
        probes=(5, 15),
        far_probes=(5, 15),
        times=None,
        trees="n_estimators",
    ),
    "reference": Peer(
        package=OURS,
        published=_REFERENCE,
        budget=_REFERENCE | {"noise": _REFERENCE["noise"] | {"n_repeats": 100}},
        knob="noise.n_repeats",
        probes=(2, 8),
        far_probes=(8, 32),
        times="n_steps",
        trees="booster.n_estimators",
    ),
}


def put(settings: Mapping[str, Any], name: str, value: Any) -> dict[str, Any]:
    """Return a copy with one setting changed; ``a.b`` is ``b`` in the dict ``a``."""
    result = copy.deepcopy(dict(settings))
    *outer, last = name.split(".")
    inner = result
    for key in outer:
        inner = inner[key]
    inner[last] = value
    return result


def get(settings: Mapping[str, Any], name: str) -> Any:
    """Return one setting, named as in `put`."""
    value: Any = settings
    for key in name.split("."):
        value = value[key]
    return value


@dataclass(frozen=True)
class Cost:
    """CPU seconds of a full fit as ``fixed + slope * knob``."""

    fixed: float
    slope: float

    @classmethod
    def of(cls, probes: Sequence[float], seconds: Sequence[float], scale: float) -> Cost:
        """Return the line through two trial fits, ``scale`` times as expensive when full."""
        slope = (seconds[1] - seconds[0]) / (probes[1] - probes[0])
        if slope <= 0:  # too short to measure: take all of it as proportional
            slope = seconds[1] / probes[1]
        return cls(scale * max(seconds[1] - slope * probes[1], 0.0), scale * slope)

    def at(self, knob: float) -> float:
        """Return the predicted CPU seconds."""
        return self.fixed + self.slope * knob


def small(peer: Peer, settings: Mapping[str, Any]) -> tuple[dict[str, Any], float]:
    """Return the settings of a trial fit and how many times as expensive the full fit is."""
    trial, scale = dict(settings), 1.0
    if peer.times:
        scale *= get(settings, peer.times) / PROBE_TIMES
        trial = put(trial, peer.times, PROBE_TIMES)
    if peer.trees != peer.knob:
        trees = get(settings, peer.trees)
        fewer = max(1, trees // FEWER_TREES)
        trial, scale = put(trial, peer.trees, fewer), scale * trees / fewer
    return trial, scale


def choose(peer: Peer, cost: Cost, budget: float) -> dict[str, Any]:
    """Return the settings whose predicted cost is nearest below the budget."""
    knob = math.floor((budget - cost.fixed) / cost.slope)
    limit = get(peer.budget, peer.knob)
    if knob >= 1:
        return put(peer.budget, peer.knob, min(knob, limit))
    settings = put(peer.budget, peer.knob, 1)
    if peer.trees == peer.knob:
        return settings
    trees = get(peer.budget, peer.trees)
    return put(settings, peer.trees, max(1, int(trees * budget / cost.at(1))))


def predict(peer: Peer, base: Mapping[str, Any], settings: Mapping[str, Any], cost: Cost) -> float:
    """Return the CPU seconds of ``settings``; ``cost`` was measured with the trees of ``base``."""
    seconds = cost.at(get(settings, peer.knob))
    if peer.trees == peer.knob:
        return seconds
    return seconds * get(settings, peer.trees) / get(base, peer.trees)
