"""Schedules: boundaries of the steps between noise (t = 0) and data (t = 1).

A schedule in time gives boundaries t itself; one in noise levels gives noise ratios sigma / alpha
(see `flowbdt.flow.parametrisations`), which become times on whatever path is used. Published lists
begin at a large sigma_max and end with a step to 0. Here the first boundary is pure noise itself,
t = 0, in its place: sigma_max was chosen so large that nothing of the data is left there, and
starting from pure noise is then exact. The step to 0 is the last one. So every schedule covers
[0, 1] in exactly ``n_steps`` steps.

To add one: derive from `Schedule` or `NoiseSchedule`, write one method, register it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import numpy as np

from ..errors import ConfigError
from ..registry import Registry
from ..typed_settings import AtLeastOne, Positive, check_fields
from .parametrisations import Convention, FlowMatching

SCHEDULES: Registry[Schedule] = Registry("spacing")


class Schedule(ABC):
    """Boundaries in time. Subclasses are dataclasses of their settings."""

    def __post_init__(self) -> None:
        check_fields(self, "spacing setting")

    @abstractmethod
    def __call__(self, n_steps: int) -> np.ndarray:
        """Return boundaries (n_steps + 1,), rising from 0 to 1."""


class NoiseSchedule(Schedule):
    """Boundaries as noise ratios."""

    @abstractmethod
    def sigmas(self, n_steps: int) -> np.ndarray:
        """Return noise ratios (n_steps,), falling from the largest; the step to 0 follows."""

    def __call__(self, n_steps: int) -> np.ndarray:
        return self.on(n_steps, FlowMatching())

    def on(self, n_steps: int, convention: Convention) -> np.ndarray:
        """Return boundaries (n_steps + 1,) from 0 to 1 in the time of ``convention``."""
        inner = [convention.clock(float(sigma)) for sigma in self.sigmas(n_steps)[1:]]
        return np.array([0.0, *inner, 1.0])


def boundaries_of(
    schedule: Schedule, n_steps: int, convention: Convention | None = None
) -> np.ndarray:
    """Return the boundaries (n_steps + 1,) of a schedule on a path; None is the straight line."""
    if isinstance(schedule, NoiseSchedule) and convention is not None:
        return schedule.on(n_steps, convention)
    return schedule(n_steps)


def _ramp(n_steps: int) -> np.ndarray:
    """Return n_steps numbers from 0 to 1; just 0 if it is one."""
    return np.arange(n_steps) / max(n_steps - 1, 1)


@SCHEDULES.register("uniform")
class Uniform(Schedule):
    """Equal steps in time."""

    def __call__(self, n_steps: int) -> np.ndarray:
        return np.arange(n_steps + 1) / n_steps


@SCHEDULES.register("power")
@dataclass(eq=False)
class Power(Schedule):
    """Boundaries ``t = 1 - (1 - s)^exponent``, s uniform: finer near the data for exponent > 1."""

    exponent: Positive = 2.0

    def __call__(self, n_steps: int) -> np.ndarray:
        return 1.0 - (1.0 - np.arange(n_steps + 1) / n_steps) ** self.exponent


@SCHEDULES.register("warped")
@dataclass(eq=False)
class Warped(Schedule):
    """Finer at both ends: ``t = s^start / (s^start + (1 - s)^end)``, s uniform.

    ``start`` and ``end`` above 1 refine the noise and the data end; both 1 are equal steps.
    """

    start: Positive = 1.3
    end: Positive = 1.3

    def __call__(self, n_steps: int) -> np.ndarray:
        s = np.arange(n_steps + 1) / n_steps
        early, late = s**self.start, (1.0 - s) ** self.end
        return early / (early + late)


@SCHEDULES.register("cosine")
@dataclass(eq=False)
class Cosine(NoiseSchedule):
    """Equal steps in the angle whose cosine is alpha and whose sine is sigma.

    Source: Nichol, Dhariwal 2021, arXiv 2102.09672, equation 17.
    """

    offset: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.008

    def sigmas(self, n_steps: int) -> np.ndarray:
        noise_time = 1.0 - np.arange(n_steps) / n_steps
        return np.tan(0.5 * np.pi * (noise_time + self.offset) / (1.0 + self.offset))


@SCHEDULES.register("sigmoid")
@dataclass(eq=False)
class Sigmoid(NoiseSchedule):
    """alpha^2 falls along a section of a sigmoid, rescaled to reach 1 and 0.

    Source: Jabri, Fleet, Chen 2023, arXiv 2212.11972, algorithm 1 and its defaults.
    """

    start: float = -3.0
    end: float = 3.0
    temperature: Positive = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.start < self.end:
            raise ConfigError(f"start must be below end, got {self.start} and {self.end}")

    def sigmas(self, n_steps: int) -> np.ndarray:
        noise_time = 1.0 - np.arange(n_steps) / n_steps
        reach = self.start + noise_time * (self.end - self.start)
        first, last, value = (
            1.0 / (1.0 + np.exp(-u / self.temperature)) for u in (self.start, self.end, reach)
        )
        power = (last - value) / (last - first)
        return np.sqrt((1.0 - power) / np.maximum(power, 1e-300))


@SCHEDULES.register("vp")
@dataclass(eq=False)
class VP(NoiseSchedule):
    """Equal steps in the time of the variance-preserving process, down to ``smallest``.

    Source: Song et al. 2021, arXiv 2011.13456; Karras et al. 2022, arXiv 2206.00364, table 1, "VP".
    """

    beta_d: Positive = 19.9
    beta_min: Positive = 0.1
    smallest: Positive = 1e-3

    def sigmas(self, n_steps: int) -> np.ndarray:
        u = 1.0 + _ramp(n_steps) * (self.smallest - 1.0)
        return np.sqrt(np.expm1(0.5 * self.beta_d * u**2 + self.beta_min * u))


class _Levels(NoiseSchedule):
    """A largest and a smallest noise ratio."""

    sigma_min: Positive
    sigma_max: Positive

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.sigma_min < self.sigma_max:
            raise ConfigError(
                f"sigma_min must be below sigma_max, got {self.sigma_min} and {self.sigma_max}"
            )


@SCHEDULES.register("ve")
@dataclass(eq=False)
class VE(_Levels):
    """Geometric noise variances.

    Source: Song et al. 2021, arXiv 2011.13456; Karras et al. 2022, arXiv 2206.00364, table 1, "VE".
    """

    sigma_min: Positive = 0.02
    sigma_max: Positive = 100.0

    def sigmas(self, n_steps: int) -> np.ndarray:
        shrink = (self.sigma_min / self.sigma_max) ** 2
        return np.sqrt(self.sigma_max**2 * shrink ** _ramp(n_steps))


@SCHEDULES.register("edm")
@dataclass(eq=False)
class Karras(_Levels):
    """Equal steps in ``sigma^(1/rho)``.

    Source: Karras et al. 2022, arXiv 2206.00364, equation 5.
    """

    sigma_min: Positive = 0.002
    sigma_max: Positive = 80.0
    rho: Positive = 7.0

    def sigmas(self, n_steps: int) -> np.ndarray:
        high, low = self.sigma_max ** (1.0 / self.rho), self.sigma_min ** (1.0 / self.rho)
        return (high + _ramp(n_steps) * (low - high)) ** self.rho


@SCHEDULES.register("exponential")
@dataclass(eq=False)
class Exponential(_Levels):
    """The log of sigma falls as ``ramp^rho``: equal ratios for rho = 1, finer late for rho > 1.

    Source: Crowson 2022, k-diffusion, exponential and polyexponential sigmas.
    """

    sigma_min: Positive = 0.02
    sigma_max: Positive = 20.0
    rho: Positive = 1.0

    def sigmas(self, n_steps: int) -> np.ndarray:
        ramp = (1.0 - _ramp(n_steps)) ** self.rho
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** ramp


@SCHEDULES.register("lu")
class Lu(VP):
    """Equal steps in log-SNR, between the ends of the variance-preserving process.

    Source: Lu et al. 2022, arXiv 2206.00927 (uniform steps in lambda); u from 1 to 1e-3 as there.
    """

    def sigmas(self, n_steps: int) -> np.ndarray:
        high, low = super().sigmas(2)
        return np.exp(np.log(high) + _ramp(n_steps) * np.log(low / high))


AYS_SIGMAS = (700.0, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034)


@SCHEDULES.register("align_your_steps")
class AlignYourSteps(NoiseSchedule):
    """An optimised list of noise ratios, stretched to any number of steps along its logarithm.

    The default list was optimised by its authors for a video model; `flowbdt.flow.schedule_search`
    makes lists for other fields.

    Source: Sabour, Fidler, Kreis 2024, arXiv 2404.14507, appendix (Stable Video Diffusion, 10
    steps).
    """

    def __init__(self, levels: Sequence[float] = AYS_SIGMAS) -> None:
        self.levels = _falling("align_your_steps", levels, 2)

    def sigmas(self, n_steps: int) -> np.ndarray:
        known = np.linspace(0.0, 1.0, len(self.levels))
        return np.exp(np.interp(_ramp(n_steps), known, np.log(self.levels)))


@SCHEDULES.register("sigmas")
class Sigmas(NoiseSchedule):
    """Any list of noise ratios, falling; the first stands for pure noise, a step to 0 follows."""

    def __init__(self, values: Sequence[float]) -> None:
        self.values = _falling("sigmas", values, 1)

    def sigmas(self, n_steps: int) -> np.ndarray:
        if n_steps != len(self.values):
            raise ConfigError(
                f"spacing 'sigmas' lists {len(self.values)} noise ratios, that is as many steps"
                f" (the last goes to 0), but n_steps is {n_steps}"
            )
        return self.values


def _falling(owner: str, values: Any, shortest: int) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or len(array) < shortest or not (np.diff(array) < 0).all() or array[-1] <= 0:
        raise ConfigError(
            f"spacing {owner!r} needs at least {shortest} falling noise ratios above 0, got"
            f" {values!r}"
        )
    return array


@SCHEDULES.register("skip")
@dataclass(eq=False)
class Skip(Schedule):
    """Some boundaries of a finer schedule, for a model trained on many steps.

    Source: Song, Meng, Ermon 2021, arXiv 2010.02502, appendix D.2 (linear and quadratic
    subsequences).

    Parameters
    ----------
    of : number of steps of the fine schedule, at least n_steps
    base : the fine schedule, name or mapping
    exponent : 1 takes every k-th boundary, 2 more of those near the data
    """

    of: AtLeastOne = 64
    base: Any = "uniform"
    exponent: Positive = 1.0

    def chosen(self, n_steps: int) -> np.ndarray:
        """Return which boundaries (n_steps + 1,) of the fine schedule are kept."""
        if n_steps > self.of:
            raise ConfigError(f"spacing 'skip' has {self.of} steps to choose from, not {n_steps}")
        ramp = 1.0 - (1.0 - np.arange(n_steps + 1) / n_steps) ** self.exponent
        places = np.rint(self.of * ramp).astype(int)
        # where two or more coincide, push them apart, from both ends
        for i in range(1, n_steps + 1):
            places[i] = max(places[i], places[i - 1] + 1)
        for i in range(n_steps, -1, -1):
            places[i] = min(places[i], self.of - (n_steps - i))
        return places

    def __call__(self, n_steps: int) -> np.ndarray:
        return SCHEDULES.build(self.base)(self.of)[self.chosen(n_steps)]
