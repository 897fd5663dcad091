"""The cone about the jet axis that no particle of a generated jet leaves.

A sum of massless particles within an angle alpha of the axis has momentum along the axis minus
cos(alpha) times energy >= 0, and a momentum with that property splits into two of the same for any
masses below its own. The difference, the room, is shared between the children as energy is: a
splitting keeps inside where its first child takes between nothing and all of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from experiments.jetnet_particles.splittings import Parents, Splits, frame, rest_momentum
from flowbdt.physics.jets import Constituents
from flowbdt.tables.formulas.particles import wrapped

COMMON = 0.99
BEYOND = 1.05


@dataclass(frozen=True)
class Cone:
    """Directions whose angle to the jet axis has at least this cosine (eta = phi = 0 is the axis).

    cos(phi) / cosh(eta) is the cosine: for narrow jets a circle in eta and phi, and as jet
    algorithms have it, wider in eta than in phi for the others.
    """

    cosine: float

    @classmethod
    def of(cls, jets: Constituents) -> tuple[Cone, np.ndarray]:
        """Return the cone of these jets and which (n,) are inside.

        It reaches 5% beyond the widest particle of 99% of the jets; what lies farther out, some
        per mille, is there by the mass of a slow particle, which moves its eta and not its
        rapidity.
        """
        widest = widest_angle(jets)
        angle = min(BEYOND * float(np.quantile(widest, COMMON)), 3.0)
        return cls(float(np.cos(angle))), widest <= angle

    @property
    def angle(self) -> float:
        """Half the opening angle."""
        return float(np.arccos(self.cosine))

    def room(self, momentum: np.ndarray) -> np.ndarray:
        """Return momentum along the axis minus cosine times energy of momenta (..., 4)."""
        return momentum[..., 1] - self.cosine * momentum[..., 0]

    def _split(
        self, parents: Parents, masses: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return the room of the first child as a + b cos + c sin cos(azimuth from the axis).

        cos and sin are of its angle in the rest frame; a, b, c and the azimuth (k,) of the axis.
        """
        first, second, flight = frame(parents)
        speed = np.linalg.norm(parents.momentum[:, 1:], axis=1)
        energy = np.hypot(speed, parents.mass)
        size = rest_momentum(parents.mass, masses)
        own = np.hypot(size, masses[:, 0])
        a = own * (speed * flight[:, 0] - energy * self.cosine) / parents.mass
        b = size * (energy * flight[:, 0] - speed * self.cosine) / parents.mass
        c = size * np.hypot(first[:, 0], second[:, 0])
        return a, b, c, np.arctan2(second[:, 0], first[:, 0])

    def cosines(self, parents: Parents, masses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return least and largest cosine (k,) of a splitting in the rest frame that stays inside.

        In between there is an azimuth for every one.
        """
        a, b, c, _ = self._split(parents, masses)
        other = np.maximum(self.room(parents.momentum) - a, 0.0)
        tilt, length = np.arctan2(c, b), np.maximum(np.hypot(b, c), 1e-300)
        reach = np.arccos(np.clip(-np.maximum(a, 0.0) / length, -1.0, 1.0))
        reach_other = np.arccos(np.clip(-other / length, -1.0, 1.0))
        least = np.maximum(np.maximum(tilt - reach, np.pi - tilt - reach_other), 0.0)
        most = np.minimum(np.minimum(tilt + reach, np.pi - tilt + reach_other), np.pi)
        return np.cos(most), np.cos(least)

    def _arc(
        self, parents: Parents, masses: np.ndarray, cosine: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return azimuth of the axis, least and largest distance (k,) from it that stay inside."""
        a, b, c, axis = self._split(parents, masses)
        fixed = a + b * cosine
        turning = np.maximum(c * np.sqrt(np.maximum(1 - cosine**2, 0.0)), 1e-300)
        least = np.arccos(np.clip((self.room(parents.momentum) - fixed) / turning, -1.0, 1.0))
        return axis, least, np.arccos(np.clip(-fixed / turning, -1.0, 1.0))

    def spread(self, parents: Parents, splits: Splits) -> np.ndarray:
        """Return azimuths (k,) stretched from what is inside to the full circle."""
        axis, least, most = self._arc(parents, splits.masses, splits.cosine)
        angle = wrapped(splits.azimuth - axis)
        inside = np.clip((np.abs(angle) - least) / np.maximum(most - least, 1e-300), 0.0, 1.0)
        return wrapped(axis + np.copysign(np.pi * inside, angle))

    def gathered(
        self, parents: Parents, masses: np.ndarray, cosine: np.ndarray, spread: np.ndarray
    ) -> np.ndarray:
        """Return the azimuths (k,) inside: the inverse of `spread`."""
        axis, least, most = self._arc(parents, masses, cosine)
        angle = wrapped(spread - axis)
        inside = least + (most - least) * np.abs(angle) / np.pi
        return wrapped(axis + np.copysign(inside, angle))


def widest_angle(jets: Constituents) -> np.ndarray:
    """Return the largest angle (n,) of a particle to the jet axis."""
    cosine = np.cos(jets.phi) / np.cosh(jets.eta)
    return np.arccos(np.where(jets.mask, cosine, 1.0).min(axis=1))
