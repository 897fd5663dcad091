"""Energy flow polynomials of degree at most 4, all jets at once.

A polynomial is a multigraph: a factor z_i for each vertex, dR_ij for each edge, summed over all
particles for every vertex (Komiske, Metodiev, Thaler, arXiv:1712.07124, eq. 1.2). All connected
graphs of up to four edges follow from a few sums over neighbours and one matrix product, so that
no graph costs more than P^3.
"""

from __future__ import annotations

from itertools import combinations_with_replacement

import numpy as np

from .constituents import Constituents

EFP_DEGREES = {0: 1, 1: 1, 2: 2, 3: 5, 4: 12}
"""Edges -> connected graphs."""

ROWS = 2_000
"""Jets at a time: some tens of MB for 30 particles."""


def prime_polynomials(jets: Constituents) -> dict[str, np.ndarray]:
    """Return every connected graph of at most four edges: description -> values (n,).

    Weights are the transverse momenta as they are, not divided by their sum; angles are dR.
    Names say what is joined: ``a-b`` an edge, ``a=b`` a double one, ``a#b`` a triple one.
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
    """Return all 36 polynomials of at most four edges (n, 36), products of graphs included.

    The features recommended for FPD and KPD (arXiv:2211.10295, section IV).
    """
    primes = list(prime_polynomials(jets).values())
    degrees = [d for d, count in EFP_DEGREES.items() for _ in range(count)]
    columns = [primes[0]]
    for count in range(1, 5):
        for chosen in combinations_with_replacement(range(1, len(primes)), count):
            if sum(degrees[i] for i in chosen) <= 4:
                columns.append(np.prod([primes[i] for i in chosen], axis=0))
    return np.column_stack(columns)
