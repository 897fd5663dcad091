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

from .errors import ConfigError
from .files import to_plain
from .registry import unknown

Spec = str | dict[str, Any]
"""A plug-in: its name, or a mapping with 'name' and its parameters."""

BOOSTER_DEFAULTS: dict[str, Any] = {
    "n_estimators": 100,
    "max_depth": 6,
    "learning_rate": 0.15,
    "reg_lambda": 1.0,
    "reg_alpha": 0.0,
    "max_bin": 128,
    "multi_strategy": "multi_output_tree",
    "early_stopping_rounds": 0,
}
"""What a step's booster gets unless told otherwise, under XGBoost's own names."""

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
    """Everything that decides what is learned. Field comments are the help texts of `--set`.

    Equal configuration, table and seed give equal models, byte for byte; `executor` says only
    where the work is done and, like the column choice of `RunConfig`, is no part of the digest.
    """

    n_steps: int = 16  # steps the solver takes from noise to data
    solver: str = "adams_bashforth_2"  # integration method
    spacing: str | dict[str, Any] | list[float] = "uniform"  # of the steps in time
    path: Spec = "linear"  # from noise to data
    coupling: Spec = "independent"  # which noise goes with which event
    flow_matcher: str = "numpy"  # closed forms of this package, or 'torchcfm'
    target: str = "velocity"  # 'velocity' at the time, or 'mean' over the coming interval
    noise: str = "repeats"  # one draw for all trees, or 'fresh': a new one every `refresh` trees
    n_repeats: int = 10  # copies of each event in a draw, each with other noise
    refresh: int = 10  # with noise='fresh': trees between two draws, at least
    booster: dict[str, Any] = field(default_factory=dict)  # XGBoost parameters by their names
    preconditioner: Spec = "none"  # closed-form velocity that trees add to
    inputs: list[str] = field(default_factory=lambda: ["latent"])  # what trees see of a point
    transforms: Spec = "auto"  # per column and jointly
    relations: list[str] = field(default_factory=list)  # such as 'tau21 = tau2 / tau1'
    validation_fraction: float = 0.1  # events split off before any noise is drawn
    executor: Spec = "serial"  # where steps are trained
    random_state: int | None = None  # seed; None draws one and records it

    def booster_parameters(self) -> dict[str, Any]:
        """Return the booster's parameters, defaults filled in, one name for each."""
        given = {BOOSTER_ALIASES.get(name, name): value for name, value in self.booster.items()}
        if len(given) < len(self.booster):
            raise ConfigError(f"a booster parameter is given under two names: {self.booster}")
        return {**BOOSTER_DEFAULTS, **given}

    def digestible(self) -> dict[str, Any]:
        """Return what decides the bytes of the result: all but the executor."""
        names = [f.name for f in dataclasses.fields(ModelConfig) if f.name != "executor"]
        settings = {name: getattr(self, name) for name in names}
        return {**settings, "booster": self.booster_parameters()}

    def to_yaml(self) -> str:
        """Return the full configuration as YAML, defaults filled in."""
        settings = {**dataclasses.asdict(self), "booster": self.booster_parameters()}
        return yaml.safe_dump({"format": 1, **to_plain(settings)}, sort_keys=False)


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
