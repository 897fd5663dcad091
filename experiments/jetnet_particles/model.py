"""Generate jets splitting by splitting, with one small conditional flow per kind of splitting.

First stage: total momentum, mass, multiplicity, softest particle and first splitting of a jet, in
one table. Then every momentum splits, given its own momentum, mass and multiplicity and what it
was split off from, until only particles are left. p(jet) p(first splitting | jet) and so on: a
factorised model in which sum rules are no constraint but a way of writing events down.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import numpy as np

from experiments.jetnet_particles.cone import Cone
from experiments.jetnet_particles.splittings import (
    Parents,
    Splits,
    children_of,
    decay,
    place,
    read_splits,
    rest_momentum,
)
from flowbdt import EventTable, FlowBDT
from flowbdt.physics.jets import Constituents
from flowbdt.seeding import derive

EDGE = 1e-4
"""Shares nearer to their limits than this are moved there before the logit."""

TRIES = 8
COLUMNS = {
    0: ("share", "azimuth"),
    1: ("mass_sum", "share", "azimuth"),
    2: ("mass_sum", "mass_ratio", "share", "azimuth"),
}
"""What is generated for a splitting into 2, 1 or 0 particles and as many groups as the key says."""

JET = ("log_pt", "rapidity", "phi", "mass", "log_softest", "count")
ROOM = "cos(phi) > {!r} * cosh(rapidity) * sqrt(1 + ({!r} / (1 + exp(-mass))) ** 2)"
"""A jet has room in the cone."""

HEAVIER = 1.05
"""Largest mass over transverse momentum of a jet, relative to that of the training jets."""

ROOT = ("second", "mass_sum", "mass_ratio", "share", "azimuth")


def logit(x: np.ndarray) -> np.ndarray:
    """Return log(x / (1 - x)) with x moved away from 0 and 1."""
    x = np.clip(x, EDGE, 1 - EDGE)
    return np.log(x / (1 - x))


def expit(x: np.ndarray) -> np.ndarray:
    """Return the inverse of `logit`."""
    return 0.5 * (1 + np.tanh(0.5 * x))


def limits(parents: Parents, splits: Splits, cone: Cone) -> tuple[np.ndarray, np.ndarray]:
    """Return least and largest share (k,) of the second child in the parent's momentum.

    Shares are along the direction of flight, (E_b* - p* cos) / M, for a fast parent. They follow
    from the two masses, from the cone and, as no particle is softer than the softest, from the
    multiplicities.
    """
    size = rest_momentum(parents.mass, splits.masses)
    energy = np.hypot(size, splits.masses[:, 1])
    away, along = cone.cosines(parents, splits.masses)
    inside = (energy - size * along) / parents.mass, (energy - size * away) / parents.mass
    least = parents.softest / parents.pt
    low = np.maximum(inside[0], splits.counts[:, 1] * least)
    high = np.minimum(inside[1], 1 - splits.counts[:, 0] * least)
    high = np.where(splits.kind == 0, np.minimum(high, 0.5), high)
    narrow = high - low < 1e-6  # multiplicities ask too much: masses and cone decide
    low = np.where(narrow, inside[0], low)
    high = np.where(narrow, inside[1], high)
    return low, np.maximum(high, low + 1e-12)


def coordinates(parents: Parents, splits: Splits, cone: Cone) -> dict[str, np.ndarray]:
    """Return unbounded coordinates of splittings; those a kind does not have are placeholders."""
    total = splits.masses.sum(axis=1)
    low, high = limits(parents, splits, cone)
    size = rest_momentum(parents.mass, splits.masses)
    share = (np.hypot(size, splits.masses[:, 1]) - size * splits.cosine) / parents.mass
    return {
        "mass_sum": logit(total / parents.mass),
        "mass_ratio": logit(2 * splits.masses[:, 1] / np.where(total > 0, total, 1.0)),
        "share": logit((share - low) / (high - low)),
        "azimuth": cone.spread(parents, splits),
    }


def from_coordinates(
    parents: Parents, counts: np.ndarray, columns: dict[str, np.ndarray], cone: Cone
) -> Splits:
    """Return splittings into children of ``counts`` (k, 2) particles; inverse of `coordinates`."""
    groups = (counts > 1).sum(axis=1)
    total = np.where(groups > 0, expit(columns["mass_sum"]), 0.0) * parents.mass
    lighter = np.where(groups == 2, 0.5 * expit(columns["mass_ratio"]), 0.0) * total
    masses = np.column_stack([total - lighter, lighter])
    splits = Splits(counts, masses, np.zeros(len(total)), columns["azimuth"])
    low, high = limits(parents, splits, cone)
    share = low + expit(columns["share"]) * (high - low)
    size = rest_momentum(parents.mass, masses)
    cosine = (np.hypot(size, lighter) - share * parents.mass) / np.maximum(size, 1e-300)
    cosine = np.clip(cosine, *cone.cosines(parents, masses))
    azimuth = cone.gathered(parents, masses, cosine, columns["azimuth"])
    return Splits(counts, masses, cosine, azimuth)


def ordered(counts: np.ndarray) -> np.ndarray:
    """Return counts (k, 2) with single particles second: they have no mass."""
    turned = (counts[:, 0] == 1) & (counts[:, 1] > 1)
    return np.where(turned[:, None], counts[:, ::-1], counts)


class SplittingModel:
    """The generator. ``first`` and ``rest`` are settings of `FlowBDT` for the two stages.

    Parameters
    ----------
    kt : merge by kT, else by angle (Cambridge/Aachen)
    seed : int
    """

    def __init__(
        self, first: dict[str, Any], rest: dict[str, Any], kt: bool = True, seed: int = 0
    ) -> None:
        self.first, self.rest, self.kt, self.seed = first, rest, kt, seed

    def fit(self, jets: np.ndarray, log: Callable[[str], None] = lambda text: None) -> Self:
        """Learn from jets (n, P, 4) in JetNet's layout."""
        whole = Constituents.of(jets)
        self.cone_, inside = Cone.of(whole)
        log(f"{(~inside).sum()} of {len(jets)} jets reach beyond {self.cone_.angle:.3f}: left out")
        parents, splits = read_splits(whole.take(inside), self.kt)
        columns = coordinates(parents, splits, self.cone_)
        self.slots_ = jets.shape[1]
        root = np.flatnonzero(parents.depth == 0)
        self._fit_first(parents.take(root), splits, {k: v[root] for k, v in columns.items()}, root)
        log("first stage")
        later = parents.depth > 0
        given = self._given(parents)
        many = later & (parents.count > 2)
        self.counts_ = self._flow("counts").fit(
            EventTable.of(splits.counts[many, 1:], ("second",)), cond=given[many]
        )
        log("multiplicities")
        self.kinds_ = {}
        for kind, names in COLUMNS.items():
            rows = later & (splits.kind == kind)
            table = np.column_stack([columns[name][rows] for name in names])
            cond = np.column_stack([given[rows], splits.counts[rows, 1]])
            self.kinds_[kind] = self._flow(f"kind {kind}").fit(
                EventTable.of(table, names), cond=cond[:, : given.shape[1] + (kind > 0)]
            )
            log(f"kind {kind}")
        return self

    def _given(self, parents: Parents) -> np.ndarray:
        """Return what a splitting depends on: the parent's family and its room in the cone."""
        room = self.cone_.room(parents.momentum) / parents.momentum[:, 0]
        return np.column_stack([parents.conditions(), room])

    def _flow(self, purpose: str) -> FlowBDT:
        settings = self.first if purpose == "first" else self.rest
        angle = "circular" if purpose in ("first", "kind 0", "kind 1", "kind 2") else None
        transforms = {"azimuth": angle} if angle else "auto"
        seed = derive(self.seed, purpose)
        cuts = [ROOM.format(self.cone_.cosine, self.heaviest_)] if purpose == "first" else []
        return FlowBDT(**settings, transforms=transforms, require=cuts, random_state=seed)

    def _fit_first(
        self, roots: Parents, splits: Splits, columns: dict[str, np.ndarray], root: np.ndarray
    ) -> None:
        pt, y, phi = place(roots.momentum)
        self.heaviest_ = HEAVIER * float((roots.mass / pt).max())
        mass = logit(roots.mass / pt / self.heaviest_)
        jet = np.column_stack([np.log(pt), y, phi, mass, np.log(roots.softest), roots.count])
        groups = splits.kind[root]
        filled = dict(columns)
        for name, needed in (("mass_sum", 1), ("mass_ratio", 2)):  # placeholders look like others
            missing, known = groups < needed, np.flatnonzero(groups >= needed)
            drawn = np.random.default_rng(self.seed).choice(known, missing.sum())
            filled[name] = filled[name].copy()
            filled[name][missing] = filled[name][drawn]
        table = np.column_stack([jet, splits.counts[root, 1], *(filled[k] for k in ROOT[1:])])
        names = (*JET, *ROOT)
        varies = np.ptp(table, axis=0) > 0
        self.fixed_ = {n: float(table[0, i]) for i, n in enumerate(names) if not varies[i]}
        left = [name for name in names if name not in self.fixed_]
        self.jets_ = self._flow("first").fit(EventTable.of(table[:, varies], left))

    def sample(self, n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Return jets (n, P, 4) in JetNet's layout and their momenta (n, 4) of the first stage."""
        parents, splits = self._first(n, derive(seed, "first"))
        total = parents.momentum
        momenta, jets = [], []
        for depth in range(1, self.slots_):
            parents, particles, jet = children_of(parents, splits)
            momenta.append(particles)
            jets.append(jet)
            if not len(parents):
                break
            splits = self._split(parents, derive(seed, "depth", depth))
        return as_jets(np.concatenate(momenta), np.concatenate(jets), (n, self.slots_)), total

    def _first(self, n: int, seed: int) -> tuple[Parents, Splits]:
        table = self.jets_.sample(n, random_state=seed)
        columns = {name: np.full(n, value) for name, value in self.fixed_.items()}
        columns |= {name: table.column(name) for name in table.names}
        pt, eta_like, phi = np.exp(columns["log_pt"]), columns["rapidity"], columns["phi"]
        mass = expit(columns["mass"]) * self.heaviest_ * pt
        count = np.clip(np.rint(columns["count"]), 2, self.slots_).astype(int)
        across = np.hypot(pt, mass)
        parts = (np.cosh(eta_like) * across, pt * np.cos(phi), pt * np.sin(phi))
        momentum = np.column_stack([*parts, np.sinh(eta_like) * across])
        zero, nothing = np.zeros(n), np.zeros((n, 4))
        softest = np.minimum(np.exp(columns["log_softest"]), 0.9 * pt / count)
        parents = Parents(
            *(np.arange(n), momentum, mass, count, nothing, zero, zero.astype(int)),
            *(zero.astype(int), softest, mass),
        )
        second = np.clip(np.rint(columns["second"]), 1, count - 1).astype(int)
        counts = ordered(np.column_stack([count - second, second]))
        return parents, from_coordinates(parents, counts, columns, self.cone_)

    def _split(self, parents: Parents, seed: int) -> Splits:
        """Return a splitting for each parent; again where a particle comes out too soft."""
        result = self._draw(parents, derive(seed, "try", 0))
        for attempt in range(1, TRIES):
            bad = np.flatnonzero(too_soft(parents, result))
            if not len(bad):
                break
            new = self._draw(parents.take(bad), derive(seed, "try", attempt))
            for name in ("counts", "masses", "cosine", "azimuth"):
                getattr(result, name)[bad] = getattr(new, name)
        return result

    def _draw(self, parents: Parents, seed: int) -> Splits:
        given = self._given(parents)
        second = np.ones(len(parents), dtype=int)
        many = np.flatnonzero(parents.count > 2)
        if len(many):
            key = derive(seed, "counts")
            drawn = self.counts_.sample(cond=given[many], outside=None, random_state=key)
            most = parents.count[many] - 1
            second[many] = np.clip(np.rint(drawn.x[:, 0]), 1, most).astype(int)
        counts = ordered(np.column_stack([parents.count - second, second]))
        columns = {name: np.zeros(len(parents)) for name in COLUMNS[2]}
        groups = (counts > 1).sum(axis=1)
        for kind, names in COLUMNS.items():
            rows = np.flatnonzero(groups == kind)
            if len(rows):
                cond = np.column_stack([given[rows], counts[rows, 1]])
                table = self.kinds_[kind].sample(
                    cond=cond[:, : given.shape[1] + (kind > 0)],
                    outside=None,
                    random_state=derive(seed, "k", kind),
                )
                for name in names:
                    columns[name][rows] = table.column(name)
        return from_coordinates(parents, counts, columns, self.cone_)


def too_soft(parents: Parents, splits: Splits) -> np.ndarray:
    """Return which splittings (k,) leave a child less than its particles need, by over 1%."""
    result = np.zeros(len(parents), dtype=bool)
    for i, child in enumerate(decay(parents, splits)):
        needed = splits.counts[:, i] * parents.softest * 0.99
        result |= np.hypot(child[:, 1], child[:, 2]) < needed
    return result


def as_jets(momenta: np.ndarray, jet: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return jets (n, P, 4) by falling transverse momentum from massless particles (k, 4)."""
    pt = np.hypot(momenta[:, 1], momenta[:, 2])
    order = np.lexsort((-pt, jet))
    jet, momenta, pt = jet[order], momenta[order], pt[order]
    slot = np.arange(len(jet)) - np.searchsorted(jet, jet)
    result = np.zeros((*shape, 4))
    phi = np.arctan2(momenta[:, 2], momenta[:, 1])
    result[jet, slot] = np.column_stack([np.arcsinh(momenta[:, 3] / pt), phi, pt, np.ones(len(pt))])
    return result
