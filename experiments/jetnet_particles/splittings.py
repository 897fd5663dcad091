"""Jets as trees of two-body splittings, and back; numpy only, all jets at once.

Massless particles are merged pairwise (kT or Cambridge/Aachen, four-momenta added) until one is
left. A jet of N particles is then its total momentum and N - 1 splittings of a parent into two
children: how many particles each has, their masses, and two angles in the parent's rest frame.
The counting is exact: 4 + (N - 2) masses + 2 (N - 1) angles = 3 N. Whatever the values, children
add up to their parent, so the jet's momentum, mass and multiplicity are those it started from.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np

from flowbdt.physics.jets.constituents import Constituents
from flowbdt.tables.formulas.particles import invariant_mass, rapidity, wrapped

ROWS = 1_000
LEAST_MASS = 2e-6
"""Least mass over energy of a pair: stored angles are rounded, rest frames need a mass."""

BEAM = np.array([0.0, 0.0, 1.0])


@dataclass(frozen=True)
class History:
    """Merges of n jets of up to P particles.

    nodes : (n, 2 P - 1, 4) momenta, particles first; children : (n, P - 1, 2) numbers of nodes,
    -1 where there was no merge; counts, parent : (n, 2 P - 1), parent -1 for the root
    """

    nodes: np.ndarray
    children: np.ndarray
    counts: np.ndarray
    parent: np.ndarray


def distances(one: tuple[np.ndarray, ...], other: tuple[np.ndarray, ...], kt: bool) -> np.ndarray:
    """Return the distance of pseudojets given as (pt, y, phi): min(pt)^2 dR^2, or dR^2."""
    square = (one[1] - other[1]) ** 2 + wrapped(one[2] - other[2]) ** 2
    return square * np.minimum(one[0], other[0]) ** 2 if kt else square


def place(momenta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return transverse momentum, rapidity and azimuth of four-momenta (..., 4)."""
    pt = np.hypot(momenta[..., 1], momenta[..., 2])
    return pt, rapidity(momenta), np.arctan2(momenta[..., 2], momenta[..., 1])


def cluster(jets: Constituents, kt: bool = True) -> History:
    """Merge the nearest two pseudojets of every jet until one is left."""
    parts = [_cluster(jets.take(slice(i, i + ROWS)), kt) for i in range(0, len(jets), ROWS)]
    return History(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(History)))


def _cluster(jets: Constituents, kt: bool) -> History:
    n, slots = jets.mask.shape
    now, number = jets.momenta.copy(), np.tile(np.arange(slots), (n, 1))
    nodes = np.zeros((n, 2 * slots - 1, 4))
    nodes[:, :slots] = now
    children = np.full((n, slots - 1, 2), -1)
    counts = np.zeros((n, 2 * slots - 1), dtype=int)
    counts[:, :slots] = jets.mask
    parent = np.full_like(counts, -1)
    where = place(now)
    d = distances(tuple(a[:, :, None] for a in where), tuple(a[:, None] for a in where), kt)
    d[:, np.arange(slots), np.arange(slots)] = np.inf
    d[~(jets.mask[:, :, None] & jets.mask[:, None, :])] = np.inf
    left = jets.mask.sum(axis=1)
    for k in range(slots - 1):
        live = np.flatnonzero(left > k + 1)
        if not len(live):
            break
        i, j = np.divmod(d[live].reshape(len(live), -1).argmin(axis=1), slots)
        new = slots + k
        pair = np.stack([number[live, i], number[live, j]], axis=1)
        children[live, k] = pair
        parent[live[:, None], pair] = new
        counts[live, new] = counts[live[:, None], pair].sum(axis=1)
        now[live, i] += now[live, j]
        nodes[live, new], number[live, i] = now[live, i], new
        d[live, j] = d[live, :, j] = np.inf
        moved = place(now[live, i])
        for array, value in zip(where, moved, strict=True):
            array[live, i] = value
        row = distances(tuple(v[:, None] for v in moved), tuple(a[live] for a in where), kt)
        row[np.isinf(d[live, i])] = np.inf
        d[live, i] = d[live, :, i] = row
    return History(nodes, children, counts, parent)


@dataclass(frozen=True)
class Parents:
    """Momenta that split, one row each.

    jet : (k,) row of the jet; momentum (k, 4); mass, count (k,); sibling, sibling_mass,
    sibling_count : what it was split off from, zero for a whole jet; depth (k,); softest (k,) the
    least transverse momentum of a particle of the jet; jet_mass (k,)
    """

    jet: np.ndarray
    momentum: np.ndarray
    mass: np.ndarray
    count: np.ndarray
    sibling: np.ndarray
    sibling_mass: np.ndarray
    sibling_count: np.ndarray
    depth: np.ndarray
    softest: np.ndarray
    jet_mass: np.ndarray

    def __len__(self) -> int:
        return len(self.jet)

    def take(self, rows: np.ndarray) -> Self:
        """Return some rows."""
        return replace(self, **{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    @staticmethod
    def join(parts: list[Parents]) -> Parents:
        """Return the rows of several one after the other."""
        names = [f.name for f in fields(Parents)]
        return Parents(*(np.concatenate([getattr(p, name) for p in parts]) for name in names))

    @property
    def pt(self) -> np.ndarray:
        """Transverse momentum."""
        return np.hypot(self.momentum[:, 1], self.momentum[:, 2])

    @property
    def reference(self) -> np.ndarray:
        """Direction (k, 3) that the azimuth is counted from: the sibling, or the beam."""
        root = (self.depth == 0)[:, None]
        return np.where(root, BEAM, self.sibling[:, 1:])

    def conditions(self) -> np.ndarray:
        """Return what a splitting depends on (k, 11)."""
        pt, sibling = place(self.momentum), place(self.sibling)
        apart = np.hypot(pt[1] - sibling[1], wrapped(pt[2] - sibling[2]))
        share = np.where(self.sibling_count > 1, self.sibling_mass, 1e-6) / self.mass
        columns = (
            _log(pt[0]),
            _log(self.mass / pt[0]),
            self.count,
            _log(pt[0] / (self.count * self.softest)),
            _log(self.softest),
            _log(apart),
            _log(sibling[0] / pt[0]),
            np.maximum(_log(share), -12.0),
            _log(self.jet_mass),
            self.sibling_count,
            np.minimum(self.depth, 8),
        )
        return np.column_stack(columns)


@dataclass(frozen=True)
class Splits:
    """Two children for each of k parents.

    counts : (k, 2); masses : (k, 2); cosine, azimuth : (k,) direction of the first child in the
    parent's rest frame, about the parent's direction of flight
    """

    counts: np.ndarray
    masses: np.ndarray
    cosine: np.ndarray
    azimuth: np.ndarray

    @property
    def kind(self) -> np.ndarray:
        """Number of children (k,) that are no single particles."""
        return (self.counts > 1).sum(axis=1)


def _log(x: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(x, 1e-12))


def frame(parents: Parents) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return three unit vectors (k, 3); the third is the direction of flight."""
    flight = parents.momentum[:, 1:]
    third = flight / np.linalg.norm(flight, axis=1, keepdims=True)
    first = parents.reference - (parents.reference * third).sum(axis=1, keepdims=True) * third
    first = first / np.maximum(np.linalg.norm(first, axis=1, keepdims=True), 1e-300)
    return first, np.cross(third, first), third


def read_splits(jets: Constituents, kt: bool = True) -> tuple[Parents, Splits]:
    """Return all splittings of jets, in no special order; the first child is the heavier one."""
    history = cluster(jets, kt)
    nodes, counts, parent = history.nodes, history.counts, history.parent
    slots = jets.mask.shape[1]
    masses = np.where(counts > 1, np.maximum(invariant_mass(nodes), LEAST_MASS * nodes[..., 0]), 0)
    row, merge = np.nonzero(history.children[:, :, 0] >= 0)
    node = slots + merge
    pair = history.children[row, merge]
    size = np.where(masses[row[:, None], pair] > 0, 1e3, 0) + masses[row[:, None], pair]
    size = np.where(size > 0, size, -1 / nodes[row[:, None], pair, 0])  # particles: the faster one
    pair = np.where((size[:, 1] > size[:, 0])[:, None], pair[:, ::-1], pair)
    sibling, depth = _family(history, row, pair, node)
    root = parent[row, node] < 0
    beside = np.where(root, 0, sibling[row, node])
    whole = np.zeros(len(jets))
    whole[row[root]] = masses[row[root], node[root]]
    alone = ~root
    parents = Parents(
        jet=row,
        momentum=nodes[row, node],
        mass=masses[row, node],
        count=counts[row, node],
        sibling=nodes[row, beside] * alone[:, None],
        sibling_mass=masses[row, beside] * alone,
        sibling_count=counts[row, beside] * alone,
        depth=depth[row, node],
        softest=np.where(jets.mask, jets.pt, np.inf).min(axis=1)[row],
        jet_mass=whole[row],
    )
    cosine, azimuth = _angles(parents, nodes[row, pair[:, 0]])
    picked = (row[:, None], pair)
    return parents, Splits(counts[picked], masses[picked], cosine, azimuth)


def _family(
    history: History, row: np.ndarray, pair: np.ndarray, node: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return sibling and number of splittings above of every node."""
    sibling = np.full_like(history.parent, -1)
    sibling[row[:, None], pair] = pair[:, ::-1]
    depth = np.zeros_like(sibling)
    for number in np.unique(node)[::-1]:
        rows = node == number
        depth[row[rows, None], pair[rows]] = depth[row[rows], number][:, None] + 1
    return sibling, depth


def _angles(parents: Parents, child: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return cosine and azimuth (k,) of a child's momentum (k, 4) in the parent's rest frame."""
    axes = frame(parents)
    x, y, z = ((child[:, 1:] * axis).sum(axis=1) for axis in axes)
    flight = np.linalg.norm(parents.momentum[:, 1:], axis=1)
    energy = np.hypot(flight, parents.mass)
    z = (energy * z - flight * child[:, 0]) / parents.mass
    size = np.sqrt(x**2 + y**2 + z**2)
    return z / np.maximum(size, 1e-300), np.arctan2(y, x)


def rest_momentum(mass: np.ndarray, children: np.ndarray) -> np.ndarray:
    """Return the momentum (k,) of two children of masses (k, 2) in the rest frame."""
    both, apart = children.sum(axis=1), children[:, 0] - children[:, 1]
    square = (mass**2 - both**2) * (mass**2 - apart**2)
    return np.sqrt(np.maximum(square, 0.0)) / (2 * mass)


def decay(parents: Parents, splits: Splits) -> tuple[np.ndarray, np.ndarray]:
    """Return the momenta (k, 4) of both children."""
    axes = frame(parents)
    flight = np.linalg.norm(parents.momentum[:, 1:], axis=1)
    energy = np.hypot(flight, parents.mass)
    size = rest_momentum(parents.mass, splits.masses)
    across = size * np.sqrt(np.maximum(1 - splits.cosine**2, 0.0))
    x, y = across * np.cos(splits.azimuth), across * np.sin(splits.azimuth)
    own = np.hypot(size, splits.masses[:, 0])
    z = (energy * size * splits.cosine + flight * own) / parents.mass
    parts = zip((x, y, z), axes, strict=True)
    space = sum((value[:, None] * axis for value, axis in parts), np.zeros((len(x), 3)))
    first = np.column_stack([np.sqrt((space**2).sum(axis=1) + splits.masses[:, 0] ** 2), space])
    # the second is what is left in space, and on its mass shell: the energies add up to rounding
    rest = parents.momentum[:, 1:] - space
    second = np.column_stack([np.sqrt((rest**2).sum(axis=1) + splits.masses[:, 1] ** 2), rest])
    return first, second


def children_of(parents: Parents, splits: Splits) -> tuple[Parents, np.ndarray, np.ndarray]:
    """Return the children that split further, and momenta and jets of the particles."""
    momenta = decay(parents, splits)
    further, particles, jets = [], [], []
    for i in (0, 1):
        alone = splits.counts[:, i] == 1
        particles.append(momenta[i][alone])
        jets.append(parents.jet[alone])
        more = ~alone
        further.append(
            Parents(
                jet=parents.jet[more],
                momentum=momenta[i][more],
                mass=splits.masses[more, i],
                count=splits.counts[more, i],
                sibling=momenta[1 - i][more],
                sibling_mass=splits.masses[more, 1 - i],
                sibling_count=splits.counts[more, 1 - i],
                depth=parents.depth[more] + 1,
                softest=parents.softest[more],
                jet_mass=parents.jet_mass[more],
            )
        )
    return Parents.join(further), np.concatenate(particles), np.concatenate(jets)
