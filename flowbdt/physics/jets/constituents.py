"""Massless constituents of jets and their closed-form observables.

Energy flow polynomials are multigraphs: a factor z_i for each vertex, dR_ij for each edge, summed
over all particles for every vertex (Komiske, Metodiev, Thaler, arXiv:1712.07124, eq. 1.2). Those of
all connected graphs of up to four edges follow from a few sums over neighbours and one matrix
product, so that no graph costs more than P^3.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import combinations_with_replacement
from typing import Self

import numpy as np

from ...errors import InputError
from ...tables import checks
from ...tables.formulas.particles import (
    azimuth,
    invariant_mass,
    rapidity,
    transverse_momentum,
    wrapped,
)


@dataclass(frozen=True)
class Constituents:
    """The massless constituents of n jets in P slots each; arrays (n, P)."""

    eta: np.ndarray  # pseudorapidity about any axis
    phi: np.ndarray  # azimuth [rad]
    pt: np.ndarray  # transverse momentum in any unit; 0 in an empty slot
    mask: np.ndarray  # bool, True for a particle

    @classmethod
    def of(cls, jets: np.ndarray, pt_scale: np.ndarray | float = 1.0) -> Self:
        """Return the constituents of jets (n, P, 3 or 4): etarel, phirel, ptrel and a mask.

        Without a mask, slots of ptrel 0 are empty. ``pt_scale`` (n,) or float multiplies ptrel,
        such as the jet's pT. Raises InputError if the shape is another, a number is not finite, a
        particle has a negative transverse momentum, or a jet has no particles.
        """
        x = np.asarray(jets, dtype=np.float64)
        if x.ndim != 3 or x.shape[2] not in (3, 4) or 0 in x.shape:
            raise InputError(
                "jets must have shape (n, P, 3) or (n, P, 4): etarel, phirel, ptrel, mask;"
                f" got {x.shape}"
            )
        flat = x.reshape(len(x), -1)
        checks.finite(flat, [f"x{i}" for i in range(flat.shape[1])], "jets")
        mask = x[..., 3] > 0.5 if x.shape[2] == 4 else x[..., 2] != 0
        if np.any(x[..., 2][mask] < 0):
            raise InputError("particles must have ptrel >= 0: set negative ones to 0 or mask them")
        if not mask.any(axis=1).all():
            empty = int(np.flatnonzero(~mask.any(axis=1))[0])
            raise InputError(f"every jet needs a particle, the jet of row {empty} has none")
        scale = np.broadcast_to(np.asarray(pt_scale, dtype=np.float64), len(x))
        eta, phi, pt = (np.where(mask, x[..., i], 0.0) for i in range(3))
        return cls(eta, phi, pt * scale[:, None], mask)

    def __len__(self) -> int:
        return len(self.pt)

    def take(self, rows: slice | np.ndarray) -> Constituents:
        """Return some of the jets."""
        return Constituents(self.eta[rows], self.phi[rows], self.pt[rows], self.mask[rows])

    @cached_property
    def momenta(self) -> np.ndarray:
        """Four-momenta (n, P, 4) as E, px, py, pz, in the unit of pt."""
        pt, eta, phi = self.pt, self.eta, self.phi
        components = (pt * np.cosh(eta), pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta))
        return np.stack(components, axis=-1)

    @cached_property
    def total(self) -> np.ndarray:
        """Four-momenta (n, 4) of the jets."""
        return self.momenta.sum(axis=1)

    @cached_property
    def share(self) -> np.ndarray:
        """Each particle's share (n, P) of the scalar sum of transverse momenta."""
        return self.pt / self.pt.sum(axis=1, keepdims=True)

    @cached_property
    def distance(self) -> np.ndarray:
        """Angular distances (n, P, P) of the particles; masses are 0, so eta is rapidity."""
        d_eta = self.eta[:, :, None] - self.eta[:, None, :]
        return np.hypot(d_eta, wrapped(self.phi[:, :, None] - self.phi[:, None, :]))

    def distance_to(self, eta: np.ndarray, phi: np.ndarray) -> np.ndarray:
        """Return distances (n, P, k) of the particles to axes (n, k)."""
        d_phi = wrapped(self.phi[:, :, None] - phi[:, None, :])
        return np.hypot(self.eta[:, :, None] - eta[:, None, :], d_phi)

    def axis(self) -> tuple[np.ndarray, np.ndarray]:
        """Return rapidity and azimuth (n,) of the jets' momenta."""
        return rapidity(self.total), azimuth(self.total)

    def mass(self) -> np.ndarray:
        """Return the invariant mass (n,) of all particles."""
        return invariant_mass(self.total)

    def transverse_momentum(self) -> np.ndarray:
        """Return the transverse momentum (n,) of the vector sum."""
        return transverse_momentum(self.total)

    def multiplicity(self) -> np.ndarray:
        """Return the number of particles (n,), int64."""
        return self.mask.sum(axis=1)

    def width(self) -> np.ndarray:
        """Return sum_i pT_i dR_i / sum_i pT_i (n,), dR_i to the axis of the vector sum."""
        y, phi = self.axis()
        return (self.share * self.distance_to(y[:, None], phi[:, None])[..., 0]).sum(axis=1)

    def ecf2(self) -> np.ndarray:
        """Return sum_{i<j} z_i z_j dR_ij (n,): Larkoski et al., arXiv:1305.0007, eq. 2."""
        return 0.5 * np.einsum("ni,nij,nj->n", self.share, self.distance, self.share, optimize=True)

    def ecf3(self) -> np.ndarray:
        """Return sum_{i<j<k} z_i z_j z_k dR_ij dR_ik dR_jk (n,); ibid., eq. 3."""
        weighted = self.distance * self.share[:, None, :]
        paths = weighted @ self.distance  # sum over k of dR_ik z_k dR_kj
        return np.einsum("nij,nij,ni->n", weighted, paths, self.share, optimize=True) / 6.0

    def d2(self) -> np.ndarray:
        """Return ecf3 / ecf2^3 (n,); 0 where ecf2 is 0. Larkoski et al., arXiv:1409.6298, eq. 3."""
        two = self.ecf2()
        safe = np.where(two > 0, two, 1.0)
        return np.where(two > 0, self.ecf3() / safe**3, 0.0)


EFP_DEGREES = {0: 1, 1: 1, 2: 2, 3: 5, 4: 12}
"""Edges -> connected graphs."""

ROWS = 2_000
"""Jets at a time: some tens of MB for 30 particles."""


def prime_polynomials(jets: Constituents) -> dict[str, np.ndarray]:
    """Return the polynomials of all connected graphs of at most four edges, name -> values (n,).

    Weights are the transverse momenta, not divided by their sum; angles are dR. In a name ``a-b``
    is an edge, ``a=b`` a double one, ``a#b`` a triple one.
    """
    blocks = [_primes(jets.take(slice(i, i + ROWS))) for i in range(0, len(jets), ROWS)]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def _primes(jets: Constituents) -> dict[str, np.ndarray]:
    z, near = jets.pt, jets.distance
    near2 = near * near
    # sums over the neighbours of each particle, with single, double, ... edges
    s1 = _neighbours(near, z)
    s2 = _neighbours(near2, z)
    s3 = _neighbours(near2 * near, z)
    along = _neighbours(near, z * s1)  # two edges away
    around = near @ (z[:, :, None] * near)  # sum over k of dR_ik z_k dR_kj
    closed = _neighbours(near * around, z)  # triangles through each particle

    def total(*factors: np.ndarray) -> np.ndarray:
        product = z
        for factor in factors:
            product = product * factor
        return product.sum(axis=1)

    return {
        "a": total(),
        "a-b": total(s1),
        "a=b": total(s2),
        "a-b-c": total(s1, s1),
        "a#b": total(s3),
        "a=b-c": total(s1, s2),
        "triangle": total(closed),
        "star of 3": total(s1, s1, s1),
        "a-b-c-d": total(s1, along),
        "a##b": total(_neighbours(near2 * near2, z)),
        "a#b-c": total(s1, s3),
        "a=b=c": total(s2, s2),
        "triangle with a double edge": total(_neighbours(near2 * around, z)),
        "square": total(_neighbours(around * around, z)),
        "triangle with a tail": total(s1, closed),
        "a=b-c-d": total(s2, along),
        "a-b=c-d": total(s1, _neighbours(near2, z * s1)),
        "star of 3 with a double edge": total(s1, s1, s2),
        "a-b-c-d-e": total(along, along),
        "star of 4": total(s1, s1, s1, s1),
        "fork": total(s1, s1, along),
    }


def _neighbours(edges: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return for each particle the sum over all others of edge times value, (n, P)."""
    return (edges @ values[:, :, None])[:, :, 0]


FOUR_OF_FOUR = (
    "square",
    "triangle with a tail",
    "a=b-c-d",
    "a-b=c-d",
    "star of 3 with a double edge",
)
"""The connected graphs of four vertices and four edges: those of the W1-EFP score."""


def energy_flow_polynomials(jets: Constituents) -> np.ndarray:
    """Return all 36 polynomials (n, 36) of at most four edges: arXiv:2211.10295, section IV."""
    primes = list(prime_polynomials(jets).values())
    degrees = [d for d, count in EFP_DEGREES.items() for _ in range(count)]
    columns = [primes[0]]
    for count in range(1, 5):
        for chosen in combinations_with_replacement(range(1, len(primes)), count):
            if sum(degrees[i] for i in chosen) <= 4:
                columns.append(np.prod([primes[i] for i in chosen], axis=0))
    return np.column_stack(columns)
