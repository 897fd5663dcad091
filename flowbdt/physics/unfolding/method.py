"""What every method of unfolding does: weigh rows of a table at truth level."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...errors import ConfigError
from ...tables.event_table import EventTable
from .inputs import UnfoldingInputs
from .odds import Trees

FAKES = ("share", "rate")


@dataclass(frozen=True)
class Settings:
    """How to unfold: see `flowbdt.physics.unfolding.unfold`."""

    method: str = "omnifold"
    fakes: str = "share"
    seed: int = 0
    trees: Trees = field(default_factory=Trees)
    n_draws: int = 16
    flow: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.fakes not in FAKES:
            raise ConfigError(f"fakes must be one of {', '.join(FAKES)}, got {self.fakes!r}")


@dataclass(frozen=True, eq=False)
class Weighed:
    """Weights of the rows (N,) and of the simulated events (n,), and plain values to record."""

    rows: np.ndarray
    simulation: np.ndarray
    record: dict[str, Any]


class Method(ABC):
    """A method, with all that does not depend on weights made once.

    Parameters
    ----------
    state : arrays that an earlier instance for the same events had, so that they are not made anew
    """

    least_iterations = 1

    def __init__(
        self,
        inputs: UnfoldingInputs,
        settings: Settings,
        n_threads: int = 1,
        state: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        self.inputs, self.settings, self.n_threads = inputs, settings, n_threads
        self.state: Mapping[str, np.ndarray] = state or {}
        self._prepare()

    @abstractmethod
    def _prepare(self) -> None:
        """Make what does not depend on weights, but for the state that is there already."""

    @property
    @abstractmethod
    def rows(self) -> EventTable:
        """The rows (N, t) at truth level that are weighed."""

    @abstractmethod
    def weigh(self, inputs: UnfoldingInputs, n_iterations: int) -> Weighed:
        """Unfold the same events with the weights of ``inputs``."""

    def choose(self) -> tuple[int, list[dict[str, float]]]:
        """Return a number of iterations, and what each number gains and costs, if known."""
        return self.least_iterations, []
