"""One strict configuration: dataclass in the middle, YAML in and out, overrides checked.

The fields of `ModelConfig` are the parameters of `FlowBDT`, under the same names. `RunConfig`
adds which columns of a file to use, for the command line.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import msgspec

from .atomic_files import to_plain
from .errors import ConfigError
from .registry import spec_name, unknown
from .typed_settings import AtLeastOne, AtLeastZero, check_settings

FORMAT = 2
"""Version of configuration files. 2: one setting for noise and targets."""

Spec = str | dict[str, Any]
"""A plug-in: its name, or a mapping with 'name' and its parameters."""

BOOSTER_DEFAULTS: dict[str, Any] = {
    "n_estimators": 100,
    "max_depth": 6,
    "learning_rate": 0.1,
    "reg_lambda": 1.0,
    "reg_alpha": 0.0,
    "max_bin": 32,  # 64 take up to twice the time, 256 eight times the memory, for nothing
    "multi_strategy": "multi_output_tree",
    "outputs_per_group": 0,  # ours: columns that share a booster; 0: all
    "split_outputs": 0,  # ours: columns, drawn for each tree, that decide its splits; 0: all
    "early_stopping_rounds": 0,
}
"""Defaults of a step's booster, under XGBoost's names where it has one."""

VALUES_PER_STEP = {"repeats": 1_200_000, "fresh": 250_000}
"""Events times columns times repetitions that a step learns from by default: small tables need
more repetitions of the noise, large ones bring variety, wide ones cost more per event. Fresh noise
brings variety of its own."""

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
        "noise": {"name": "fresh", "n_repeats": 1, "candidates": 0},
        "rejection": False,
        "booster": {"n_estimators": 20, "max_depth": 4, "early_stopping_rounds": 5},
    },
    # 16 steps cost twice as much and gained nothing; neither did 200 trees, nor 400 components
    # instead of those of the highest likelihood, nor, with rejection, averaged targets and trees
    # of depth 6 on all repetitions at once, at two to four times the training time; rejection
    # costs a few seconds and gains most
    "balanced": {
        "n_steps": 8,
        "preconditioner": "mixture",
        "noise": {"name": "fresh", "candidates": 0},
        "rejection": True,
        "booster": {"n_estimators": 60, "max_depth": 5, "early_stopping_rounds": 10},
    },
}
"""Settings that go together; explicit ones win over them."""

NONE: dict[str, Any] = {"particles": {}, "relations": [], "require": []}
"""Settings that 'auto' leaves to the training rows, with what says that there are none."""

DERIVED = ("observables", "particles", "coordinates", "require", "order")
"""Settings that need columns named; stored where there is any, coordinates with particles."""

MANY_ROWS, DEEPER, SHARE = 100_000, 6, 3
"""From so many rows on, trees of `balanced` are of this depth, not 5, and seek splits on one output
in so many, drawn for each: of 90,000 and 200,000 jets they explain 2% more, in less time; of 45,000
they explain 8% less."""

FRESH_VALUES = 120_000
FEWEST_TREES, MOST_TREES = 10, 30
"""Fresh noise is drawn after a tree for so many values of the table, within these bounds: many
events bring variety enough. With 30 trees for 10, 200,000 jets lose as much in 0.6 of the time."""

BOOSTER_ALIASES = {
    "eta": "learning_rate",
    "lambda": "reg_lambda",
    "alpha": "reg_alpha",
    "gamma": "min_split_loss",
    "n_trees": "n_estimators",
}
"""XGBoost's second names; one of each pair, or a default would contradict the other."""


@dataclass(frozen=True)
class Noise:
    """The setting ``noise``: the noise that events are paired with, and the targets it gives.

    Parameters
    ----------
    name : 'repeats' draws once for all trees of a step; 'fresh' draws anew every ``refresh``
        trees, which learns from ever new noise in the memory of one draw
    n_repeats : copies of each event in a draw, each with other noise; 1 or 2 do with fresh noise
    refresh : trees between two draws, at least; by default 10, to 30 for many events
    target : 'velocity' at each time, or 'mean' over the coming step (euler only)
    candidates : events that each target is averaged over (arXiv 2302.00670); 0 for none. Used
        where it is exact: independent noise, no conditions, no noise added by the path
    flow_matcher : 'numpy', or 'torchcfm' for the reference implementation
    """

    name: Literal["repeats", "fresh"]
    n_repeats: AtLeastOne
    refresh: AtLeastOne = 10
    target: Literal["velocity", "mean"] = "velocity"
    candidates: AtLeastZero = 0
    flow_matcher: Literal["numpy", "torchcfm"] = "numpy"


@dataclass(frozen=True)
class Card:
    """What a model file says about itself beside what it knows, see `flowbdt.FlowBDT.fit`."""

    title: str = ""
    author: str = ""
    licence: str = ""
    description: str = ""
    table: str = ""
    sha256: str = ""
    origin: str = ""
    intended_use: str = ""
    limits: str = ""
    scores: list[dict[str, str | float | None]] = field(default_factory=list)


@dataclass(frozen=True)
class ModelConfig:
    """Everything that decides what is learned; `FlowBDT` describes each field.

    Equal configuration, table and seed give equal models, byte for byte; `executor` says only
    where the work is done and, like the column choice of `RunConfig`, is no part of the digest.
    """

    preset: str = "balanced"
    n_steps: AtLeastOne | None = None
    solver: Spec = "adams_bashforth_3"
    spacing: str | dict[str, Any] | list[float] = "uniform"
    path: Spec = "linear"
    coupling: Spec = "independent"
    noise: dict[str, Any] = field(default_factory=dict)
    preconditioner: Spec | None = None
    rejection: bool | None = None
    inputs: list[str] | None = None
    booster: dict[str, Any] = field(default_factory=dict)
    transforms: Spec = "auto"
    relations: list[str] | Literal["auto"] = "auto"
    observables: list[str] | None = None
    particles: dict[str, dict[str, str | int | float]] | Literal["auto"] = "auto"
    coordinates: Literal["particles", "columns"] = "particles"
    require: list[str] | Literal["auto"] = "auto"
    relative: str | dict[str, str] | None = "auto"
    order: list[str] = field(default_factory=list)
    validation_fraction: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.1
    n_replicas: AtLeastOne = 1  # of an ensemble, each a run with settings of its own
    executor: Spec = "serial"
    card: dict[str, Any] = field(default_factory=dict)
    random_state: AtLeastZero | None = None

    def __post_init__(self) -> None:
        noise: Any = self.noise
        settings = {**vars(self), "noise": {"name": noise} if isinstance(noise, str) else noise}
        settings |= {name: settings[name] or none for name, none in NONE.items()}
        settings = check_settings(settings, type(self))
        settings["noise"] = check_settings(settings["noise"], Noise, "setting of noise")
        settings["card"] = check_settings(settings["card"], Card, "entry of the card")
        for name, value in settings.items():
            object.__setattr__(self, name, value)

    def resolved(self, n_rows: int = 25_000, n_columns: int = 10) -> Self:
        """Return the configuration with nothing left open: explicit, else preset, else by size.

        The size is that of the table that is trained on. Raises ConfigError if the preset is
        unknown, or a booster parameter comes under two names.
        """
        if self.preset == "best":
            raise ConfigError(
                "preset 'best' was removed: 'balanced' does as well in less time. Presets:"
                f" {', '.join(sorted(PRESETS))}"
            )
        if self.preset not in PRESETS:
            raise unknown("preset", self.preset, PRESETS)
        wide = n_columns > MANY_COLUMNS
        chosen: dict[str, Any] = {
            "inputs": ["latent"] if wide else ["latent", "columns", "end_point"],
            **PRESETS[self.preset],
        }
        if not isinstance(self.spacing, str | Mapping | None):
            chosen.pop("n_steps", None)  # times by themselves say how many
        if spec_name(self.coupling) == "given":
            chosen["rejection"] = False  # such an event has one outcome only, none to take instead
        if not self.particles:
            chosen["observables"] = []  # else pairs of particles, when a run is planned
        preset = chosen.pop("booster")
        if n_rows >= MANY_ROWS and self.preset == "balanced":
            preset = {**preset, "max_depth": DEEPER, "split_outputs": -(-n_columns // SHARE)}
        booster = self._booster(preset, wide)
        noise = {**chosen.pop("noise"), **self.noise}
        values = WIDE_VALUES_PER_STEP if wide else VALUES_PER_STEP[noise["name"]]
        repeats = min(max(round(values / max(n_rows * n_columns, 1)), 1), MOST_REPEATS)
        refresh = min(max(n_rows * n_columns // FRESH_VALUES, FEWEST_TREES), MOST_TREES)
        noise = vars(Noise(**{"n_repeats": repeats, "refresh": refresh, **noise}))
        open_fields = {k: v for k, v in chosen.items() if getattr(self, k) is None}
        return dataclasses.replace(self, **open_fields, booster=booster, noise=noise)

    def _booster(self, preset: Mapping[str, Any], wide: bool) -> dict[str, Any]:
        explicit = {BOOSTER_ALIASES.get(name, name): v for name, v in self.booster.items()}
        if len(explicit) < len(self.booster):
            raise ConfigError(f"a booster parameter stands under two names: {self.booster}")
        booster = {**BOOSTER_DEFAULTS, **preset, **(WIDE_BOOSTER if wide else {}), **explicit}
        if booster["multi_strategy"] != "multi_output_tree" and "split_outputs" not in explicit:
            booster["split_outputs"] = 0  # these trees have one output each
        if not self.validation_fraction and "early_stopping_rounds" not in explicit:
            booster["early_stopping_rounds"] = 0  # nothing to watch
        return booster

    def with_none_found(self) -> Self:
        """Return the configuration with nothing where it leaves to the rows what there is."""
        left = {name: none for name, none in NONE.items() if vars(self)[name] == "auto"}
        return dataclasses.replace(self, **left)

    @property
    def known_particles(self) -> dict[str, dict[str, str | int | float]]:
        """The particles; none as long as they are left to the rows."""
        return {} if self.particles == "auto" else self.particles

    def digestible(self) -> dict[str, Any]:
        """Return what decides the bytes of the result; call it on a `resolved` configuration.

        Of `DERIVED` only what is declared, and nothing of what is left to the table: a run without
        any has the digest of releases before.
        """
        names = [f.name for f in dataclasses.fields(ModelConfig)]
        left_out = [
            "executor",
            "card",
            "preset",
            "n_replicas",
            *(() if self.known_particles else ("coordinates",)),
        ]
        left_out += [name for name in (*NONE, "relative") if getattr(self, name) == "auto"]
        names = [name for name in names if name not in left_out]
        return {n: getattr(self, n) for n in names if n not in DERIVED or getattr(self, n)}

    def to_yaml(self) -> str:
        """Return the configuration as YAML."""
        import yaml

        return yaml.safe_dump({"format": FORMAT, **self.to_plain()}, sort_keys=False)

    def to_plain(self) -> dict[str, Any]:
        """Return the settings as JSON and YAML can hold them."""
        return dict(to_plain(dataclasses.asdict(self)))


def present_settings(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return stored settings under their present names.

    Runs of formats 1 and 2, and files of configurations of format 1, have the settings of `Noise`
    beside the others, its name as ``noise``; runs of preset 'best' name all that it decided.
    """
    settings = dict(stored)
    if isinstance(settings.get("noise"), Mapping) or "n_repeats" not in settings:
        return settings
    fields = [name for name in Noise.__dataclass_fields__ if name in settings]
    noise = {name: settings.pop(name) for name in fields} | {"name": settings["noise"]}
    if settings.get("preset") == "best":
        settings["preset"] = "balanced"
    return {**settings, "noise": noise}


@dataclass(frozen=True)
class RunConfig(ModelConfig):
    """`ModelConfig` plus the columns of the file: the whole of a `flowbdt fit`."""

    columns: list[str] | None = None  # to learn; None means all that are not used otherwise
    conditions: list[str] = field(default_factory=list)  # columns that generation needs again
    weight: str | None = None  # column of event weights

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any]) -> Self:
        """Build from plain data. Raises ConfigError for an unknown name or a wrong type."""
        for name in settings:
            if name not in cls.__dataclass_fields__:
                raise unknown("setting", name, cls.__dataclass_fields__)
        return cls(**settings)

    @classmethod
    def from_yaml(cls, path: str | Path) -> Self:
        """Read a YAML file. Raises ConfigError that names the file."""
        settings = read_yaml_file(path, "configuration")
        if not isinstance(settings, dict):
            raise ConfigError(f"configuration {path} must be 'name: value' lines, got {settings!r}")
        first_format = settings.pop("format", FORMAT) == 1
        try:
            return cls.from_mapping(present_settings(settings) if first_format else settings)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error

    def with_overrides(self, assignments: Sequence[str]) -> Self:
        """Return a copy with every ``name=value`` or ``a.b=value`` applied and checked."""
        settings = dataclasses.asdict(self)
        for assignment in assignments:
            _assign(settings, assignment)
        return type(self).from_mapping(settings)


@functools.cache
def _yaml_loader() -> Any:
    """Return a loader of YAML in which 1e-3 is a number, as in YAML 1.2."""
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    number = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+0123456789"))
    return Loader


def read_yaml_file(path: str | Path, what: str) -> Any:
    """Return a YAML file as plain values, an empty one as {}. Raises ConfigError."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {what} {path}: {error}") from error
    return read_yaml(content, f"{what} {path}") or {}


def read_yaml(content: str | bytes, what: str) -> Any:
    """Return YAML as plain values. Raises ConfigError that says what could not be read."""
    import yaml  # not at every start: the program reads it seldom

    try:
        return yaml.load(content, _yaml_loader())
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        encoding = isinstance(error, UnicodeError | yaml.reader.ReaderError)
        hint = "; a file must be UTF-8 text" if encoding and isinstance(content, bytes) else ""
        raise ConfigError(f"cannot read {what}: {error}{hint}") from error


def _assign(settings: dict[str, Any], assignment: str) -> None:
    """Apply one ``a.b=value`` to nested settings; the value is read as YAML."""
    name, equals, text = assignment.partition("=")
    if not equals or not name:
        raise ConfigError(f"an override is written name=value, got {assignment!r}")
    value = read_yaml(text, f"the value of {assignment!r}")
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
        raise ConfigError(f"setting {head!r} takes no further settings, so not {name!r}")
    settings[head] = {**inner, key: value}
