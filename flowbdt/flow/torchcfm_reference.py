"""torchcfm's matchers behind our numpy interface, for comparison and for its transport plans.

The package does not need them: `flowbdt.flow.paths` has the same formulas. torch and torchcfm are
imported when the first matcher is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import ConfigError, MissingExtra
from ..registry import unknown

MATCHERS = {
    "linear": "ConditionalFlowMatcher",
    "target": "TargetConditionalFlowMatcher",
    "trigonometric": "VariancePreservingConditionalFlowMatcher",
    "schrodinger_bridge": "SchrodingerBridgeConditionalFlowMatcher",
}
"""Name of our path -> torchcfm's class of the same formulas."""


def load_torchcfm() -> tuple[Any, Any]:
    """Return the modules torch and torchcfm. Raises MissingExtra with the install command."""
    try:
        import torch
        import torchcfm
    except ImportError as error:
        raise MissingExtra.of("torchcfm", error, "cfm") from error
    return torch, torchcfm


class TorchcfmMatcher:
    """Draw points and velocities with torchcfm, in float64, from a numpy generator.

    ``path_name`` is one of `MATCHERS`. With ``ot`` the pairs are drawn from torchcfm's exact
    transport plan of each ``batch_size`` events; as torchcfm does it, some events are repeated and
    others dropped. Raises ConfigError if the path is unknown or torchcfm refuses sigma, and
    MissingExtra if torch or torchcfm is missing.
    """

    def __init__(
        self, path_name: str, sigma: float = 0.0, ot: bool = False, batch_size: int = 256
    ) -> None:
        if path_name not in MATCHERS:
            raise unknown("path with a torchcfm matcher", path_name, MATCHERS)
        self.path_name, self.sigma, self.ot, self.batch_size = path_name, sigma, ot, batch_size
        self._torch, self._torchcfm = load_torchcfm()
        try:
            self.matcher = getattr(self._torchcfm, MATCHERS[path_name])(sigma=sigma)
        except ValueError as error:
            raise ConfigError(f"torchcfm refuses sigma of path {path_name!r}: {error}") from error

    def at(
        self, x0: np.ndarray, x1: np.ndarray, t: float, noise: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return torchcfm's x_t and u_t, both (n, m) float64, for these pairs and noise."""
        start, end, epsilon = (self._tensor(array) for array in (x0, x1, noise))
        times = self._torch.full((len(x1),), float(t), dtype=self._torch.float64)
        x_t = self.matcher.sample_xt(start, end, times, epsilon)
        u_t = self.matcher.compute_conditional_flow(start, end, times, x_t)
        return x_t.numpy(), u_t.numpy()

    def sample(
        self,
        x0: np.ndarray,
        x1: np.ndarray,
        t: float,
        rng: np.random.Generator,
        groups: Sequence[np.ndarray] | None = None,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return x_t and u_t (n, m), and the rows (n,) of x1 that they belong to.

        ``rng`` seeds a new generator of torch; torch's and numpy's global ones are not touched.
        Plans pair rows of one of ``groups`` among themselves, each row in one; by default all.
        """
        start, kept = self._pairs(x0, x1, rng, groups) if self.ot else (_rows(x0), _rows(x1))
        generator = self._torch.Generator().manual_seed(int(rng.integers(2**63 - 1)))
        noise = self._torch.randn(x1.shape, generator=generator, dtype=self._torch.float64)
        x_t, u_t = self.at(x0[start], x1[kept], t, noise.numpy())
        return x_t, u_t, kept

    def _pairs(
        self, x0: np.ndarray, x1: np.ndarray, rng: np.random.Generator, groups: Any
    ) -> tuple[np.ndarray, np.ndarray]:
        sampler = self._torchcfm.optimal_transport.OTPlanSampler(method="exact")
        drawn_rows = []
        for group in [_rows(x1)] if groups is None else groups:
            for first in range(0, len(group), self.batch_size):
                rows = group[first : first + self.batch_size]
                plan = sampler.get_map(self._tensor(x0[rows]), self._tensor(x1[rows]))
                drawn = rng.choice(plan.size, size=len(plan), p=plan.ravel() / plan.sum())
                drawn_rows.append(rows[np.stack(np.divmod(drawn, plan.shape[1]))])
        start, kept = np.concatenate(drawn_rows, axis=1)
        return start, kept

    def _tensor(self, array: np.ndarray) -> Any:
        # a copy: torch warns about read-only (memory-mapped) arrays
        return self._torch.tensor(array, dtype=self._torch.float64)


def _rows(array: np.ndarray) -> np.ndarray:
    return np.arange(len(array), dtype=np.int64)
