"""One strict configuration: dataclass in the middle, YAML in and out, overrides checked.

The fields of `ModelConfig` are the parameters of `FlowBDT`, under the same names. `RunConfig`
adds which columns of a file to use, for the command line.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import yaml

from .atomic_files import to_plain
from .errors import ConfigError
from .registry import spec_name, unknown

Spec = str | dict[str, Any]
"""A plug-in: its name, or a mapping with 'name' and its parameters."""

BOOSTER_DEFAULTS: dict[str, Any] = {
    "n_estimators": 100,
    "max_depth": 6,
    "learning_rate": 0.1,
    "reg_lambda": 1.0,
    "reg_alpha": 0.0,
    "max_bin": 64,  # 256 cost four times the memory of histograms and gained nothing
    "multi_strategy": "multi_output_tree",
    "outputs_per_group": 0,  # ours: columns that share a booster; 0: all
    "split_outputs": 0,  # ours: columns, drawn for each tree, that decide its splits; 0: all
    "early_stopping_rounds": 0,
}
"""What a step's booster gets unless told otherwise, under XGBoost's own names where it has one."""

VALUES_PER_STEP = 1_200_000
"""Events times columns times repetitions that a step learns from by default: small tables need
more repetitions of the noise, large ones bring their own variety, wide ones cost more per event."""

WIDE_VALUES_PER_STEP = 3_600_000
"""The same above `MANY_COLUMNS`, where trees are cheap: on 5,000 x 368 voxels one, two and three
repetitions explained 0.38, 0.81 and 0.99% of the variance in 16, 28 and 43 CPU seconds."""

MOST_REPEATS = 20
"""More copies of an event teach nothing new about the others."""

MANY_COLUMNS = 64
"""Above this many columns histograms, which grow with inputs x outputs x bins, decide the cost."""

WIDE_BOOSTER: dict[str, Any] = {
    "max_bin": 32,
    "max_depth": 3,
    "outputs_per_group": 4,
    "split_outputs": 1,
}
"""For tables of many columns. A tree that serves all columns serves none: on 5,000 x 368 voxels
such trees added nothing to the mixture, those of four columns 0.4% of the variance, in half the
time and a twentieth of the memory. Depth 4 and 64 bins gained nothing, fewer columns cost time."""

PRESETS: dict[str, dict[str, Any]] = {
    # a few seconds per 25,000 x 9 values, and few operations per generated event
    "fast": {
        "n_steps": 8,
        "preconditioner": {"name": "mixture", "n_components": 40},
        "noise": "fresh",
        "n_repeats": 1,
        "candidates": 0,
        "rejection": False,
        "booster": {"n_estimators": 20, "max_depth": 4, "early_stopping_rounds": 5},
    },
    # 16 steps cost twice as much and gained nothing; rejection costs a few seconds and gains most
    "balanced": {
        "n_steps": 8,
        "preconditioner": "mixture",
        "noise": "repeats",
        "candidates": 2000,
        "rejection": True,
        "booster": {"n_estimators": 60, "max_depth": 6, "early_stopping_rounds": 10},
    },
    # 400 components instead of those of the highest likelihood, about 80, gained nothing
    "best": {
        "n_steps": 16,
        "preconditioner": "mixture",
        "noise": "repeats",
        "candidates": 4000,
        "rejection": True,
        "booster": {"n_estimators": 200, "max_depth": 6, "early_stopping_rounds": 20},
    },
}
"""Settings that go together; what is given explicitly wins over them."""

BOOSTER_ALIASES = {
    "eta": "learning_rate",
    "lambda": "reg_lambda",
    "alpha": "reg_alpha",
    "gamma": "min_split_loss",
    "n_trees": "n_estimators",
}
"""XGBoost's second names; one of each pair, or a default would contradict what was asked."""


@dataclass(frozen=True)
class ModelConfig:
    """Everything that decides what is learned; the comment of each field says what it is for.

    Equal configuration, table and seed give equal models, byte for byte; `executor` says only
    where the work is done and, like the column choice of `RunConfig`, is no part of the digest.
    """

    preset: str = "balanced"  # 'fast', 'balanced' or 'best': fills in what is null below
    n_steps: int | None = None  # steps the solver takes from noise to data
    solver: Spec = "adams_bashforth_3"  # integration method
    spacing: str | dict[str, Any] | list[float] = "uniform"  # of the steps in time
    path: Spec = "linear"  # from noise to data
    coupling: Spec = "independent"  # which noise goes with which event
    flow_matcher: str = "numpy"  # closed forms of this package, or 'torchcfm'
    target: str = "velocity"  # 'velocity' at the time, or 'mean' over the coming interval
    candidates: int | None = None  # events that a target is averaged over; 0: none
    noise: str | None = None  # 'repeats': one draw for all trees; 'fresh': new ones on the way
    n_repeats: int | None = None  # copies of each event in a draw, each with other noise
    refresh: int = 10  # with noise='fresh': trees between two draws, at least
    preconditioner: Spec | None = None  # closed-form velocity that trees add to
    rejection: bool | None = None  # a classifier throws out events that do not look real
    inputs: list[str] | None = None  # what trees see of a point
    booster: dict[str, Any] = field(default_factory=dict)  # XGBoost parameters by their names
    transforms: Spec = "auto"  # per column and jointly
    relations: list[str] = field(default_factory=list)  # such as 'tau21 = tau2 / tau1'
    validation_fraction: float = 0.1  # events split off before any noise is drawn
    executor: Spec = "serial"  # where steps are trained
    random_state: int | None = None  # seed; None draws one and records it

    def resolved(self, n_rows: int = 25_000, n_columns: int = 10) -> Self:
        """Return the configuration with nothing left open: explicit, else preset, else by size.

        Parameters
        ----------
        n_rows, n_columns : size of the table that is trained on

        Raises
        ------
        ConfigError
            If the preset is unknown or a booster parameter is given under two names.
        """
        if self.preset not in PRESETS:
            raise unknown("preset", self.preset, PRESETS)
        wide = n_columns > MANY_COLUMNS
        values = WIDE_VALUES_PER_STEP if wide else VALUES_PER_STEP
        by_size: dict[str, Any] = {
            "n_repeats": min(max(round(values / max(n_rows * n_columns, 1)), 1), MOST_REPEATS),
            "inputs": ["latent"] if wide else ["latent", "columns", "end_point"],
        }
        chosen = {**by_size, **PRESETS[self.preset]}
        if spec_name(self.coupling) == "given":
            chosen["rejection"] = False  # a given event has one outcome only, none to take instead
        given = _one_name_each(self.booster)
        booster = {**BOOSTER_DEFAULTS, **chosen.pop("booster"), **(WIDE_BOOSTER if wide else {})}
        booster.update(given)
        if booster["multi_strategy"] != "multi_output_tree" and "split_outputs" not in given:
            booster["split_outputs"] = 0  # these trees have one output each
        if not self.validation_fraction and "early_stopping_rounds" not in given:
            booster["early_stopping_rounds"] = 0  # nothing to watch
        open_fields = {k: v for k, v in chosen.items() if getattr(self, k) is None}
        return dataclasses.replace(self, **open_fields, booster=booster)

    def digestible(self) -> dict[str, Any]:
        """Return what decides the bytes of the result; call it on a `resolved` configuration."""
        names = [f.name for f in dataclasses.fields(ModelConfig)]
        return {name: getattr(self, name) for name in names if name not in ("executor", "preset")}

    def to_yaml(self) -> str:
        """Return the configuration as YAML."""
        settings = {"format": 1, **to_plain(dataclasses.asdict(self))}
        return yaml.safe_dump(settings, sort_keys=False)


def _one_name_each(booster: Mapping[str, Any]) -> dict[str, Any]:
    """Return booster parameters under XGBoost's first names."""
    given = {BOOSTER_ALIASES.get(name, name): value for name, value in booster.items()}
    if len(given) < len(booster):
        raise ConfigError(f"a booster parameter is given under two names: {dict(booster)}")
    return given


@dataclass(frozen=True)
class RunConfig(ModelConfig):
    """`ModelConfig` plus the columns of the file: the whole of a `flowbdt fit`."""

    columns: list[str] | None = None  # to learn; None means all that are not used otherwise
    conditions: list[str] = field(default_factory=list)  # columns given at generation
    weight: str | None = None  # column of event weights

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any]) -> Self:
        """Build from plain data. Raises ConfigError for an unknown name or a wrong type."""
        return cls(**checked_settings(cls, settings))

    @classmethod
    def from_yaml(cls, path: str | Path) -> Self:
        """Read a YAML file. Raises ConfigError that names the file."""
        try:
            settings = yaml.safe_load(Path(path).read_text()) or {}
        except (OSError, yaml.YAMLError) as error:
            raise ConfigError(f"cannot read configuration {path}: {error}") from error
        if not isinstance(settings, dict):
            raise ConfigError(f"configuration {path} must be 'name: value' lines, got {settings!r}")
        settings.pop("format", None)
        return cls.from_mapping(settings)

    def with_overrides(self, assignments: Sequence[str]) -> Self:
        """Return a copy with every ``name=value`` or ``a.b=value`` applied and checked."""
        settings = dataclasses.asdict(self)
        for assignment in assignments:
            _assign(settings, assignment)
        return type(self).from_mapping(settings)


def checked_settings(owner: type, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Check names and types of settings against the fields of a dataclass."""
    hints = typing.get_type_hints(owner)
    for name in settings:
        if name not in hints:
            raise unknown("setting", name, hints)
    return {name: _typed(name, value, hints[name]) for name, value in settings.items()}


def _typed(name: str, value: Any, hint: Any) -> Any:
    """Return ``value`` if it fits the annotation; a whole or textual number may become a float."""
    options = typing.get_args(hint) if _is_union(hint) else (hint,)
    if any(_fits(value, option) for option in options):
        return value
    if float in options and not isinstance(value, bool):
        try:  # YAML 1.1 reads 1e-3 as text
            return float(value)
        except (TypeError, ValueError):
            pass
    wanted = " or ".join(_readable(option) for option in options)
    raise ConfigError(f"setting {name!r} must be {wanted}, got {value!r}")


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def _fits(value: Any, option: Any) -> bool:
    kind = typing.get_origin(option) or option
    if kind is Any:
        return True
    if kind in (int, float) and isinstance(value, bool):
        return False
    if kind is list and isinstance(value, list):
        (item,) = typing.get_args(option) or (Any,)
        return all(_fits(entry, item) or (item is float and _fits(entry, int)) for entry in value)
    return isinstance(value, kind)


def _readable(option: Any) -> str:
    kinds = {int: "a whole number", float: "a number", str: "text", type(None): "null"}
    kind = typing.get_origin(option) or option
    return kinds.get(kind, {list: "a list", dict: "a mapping"}.get(kind, str(kind)))


def _assign(settings: dict[str, Any], assignment: str) -> None:
    """Apply one ``a.b=value`` to nested settings; the value is read as YAML."""
    name, equals, text = assignment.partition("=")
    if not equals or not name:
        raise ConfigError(f"an override is written name=value, got {assignment!r}")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"cannot read the value of {assignment!r}: {error}") from error
    head, _, key = name.strip().partition(".")
    if head not in settings:
        raise unknown("setting", head, settings)
    if not key:
        settings[head] = value
        return
    inner = settings[head]
    if isinstance(inner, str):  # solver=heun becomes a mapping when a parameter is set
        inner = {"*": inner} if head == "transforms" else {"name": inner}
    if not isinstance(inner, dict):
        raise ConfigError(f"setting {head!r} has no parts, so {name!r} cannot be set")
    settings[head] = {**inner, key: value}
