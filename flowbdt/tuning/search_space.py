"""The parameters that `tune` searches: limits by the size of the table, around a start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

from msgspec import Meta

from ..config import MANY_COLUMNS, RunConfig
from ..errors import ConfigError
from ..registry import unknown
from ..typed_settings import AtLeastOne, check_stored, check_value

START = "that of the start"
"""Label of the setting of the start where it is none of the options of a choice."""


@dataclass(frozen=True)
class Choice:
    """Options by label; ``default`` is the label of the start."""

    options: dict[str, Any]
    default: str

    def value(self, label: Any) -> Any:
        """Return the setting behind a label."""
        return self.options[label]


@dataclass(frozen=True)
class Span:
    """Numbers from ``low`` to ``high``, whole or not, searched evenly or in the logarithm."""

    low: float
    high: float
    default: float
    log: bool = False
    whole: bool = True

    def value(self, number: Any) -> Any:
        """Return the setting: the number, of its kind."""
        return int(number) if self.whole else float(number)


Parameter = Choice | Span
Space = dict[str, Parameter]


def from_json(content: Mapping[str, Any]) -> Space:
    """Rebuild a space from its parameters as mappings. Raises FormatError if one is damaged."""
    kinds = {name: Choice if "options" in p else Span for name, p in content.items()}
    for name, kind in kinds.items():
        check_stored(content[name], kind, f"space of {name}")
    return {name: kind(**content[name]) for name, kind in kinds.items()}


VIEWS = {"latent": ["latent"], "all": ["latent", "columns", "end_point"]}
SPACINGS: dict[str, Any] = {
    "uniform": "uniform",
    "cosine": "cosine",
    "warped": {"name": "warped", "start": 1.2, "end": 1.2},
}
COORDINATES: dict[str, Any] = {
    "auto": "auto",
    "not whitened": {"joint": "standardise"},
    "ranks": {"*": "rank"},
}
BOOSTER = {"n_estimators", "max_depth", "learning_rate", "reg_lambda", "max_bin"}
BOOSTER |= {"outputs_per_group"}
"""Parameters that are settings of the booster."""

NOISE = {"noise": "name", "candidates": "candidates"}
"""Parameter -> setting of the noise that it decides."""

SETTINGS = {
    **{name: name for name in ("n_steps", "rejection", "spacing", "inputs")},
    "closed_form": "preconditioner",
    "coordinates": "transforms",
}
"""Parameter -> other setting that it decides."""

SEARCHED = (*BOOSTER, *NOISE, *SETTINGS, "repeats")
"""Every parameter that some space has."""

REPEATS = {"1/4": 0.25, "1/2": 0.5, "as many": 1.0, "twice": 2.0}
"""Copies of an event in a draw, as a share of those that the start has at the same size."""


def model_space(base: RunConfig, n_rows: int, n_columns: int, n_conditions: int = 0) -> Space:
    """Return the parameters of a search around ``base``, for a table of the size trials learn from.

    Few rows: shallower and fewer trees, fewer Gaussians. Many columns: shallow trees for few
    columns each, few bins. With conditions targets are not averaged, so candidates play no role.
    What is 0 at the start (``reg_lambda``, say) stays so: a search by factors cannot hold it, and
    the first trial has to be the start.
    """
    start = base.resolved(n_rows, n_columns)
    space = {**_training(start, n_rows, n_columns), **_boosting(start, n_rows, n_columns)}
    if n_conditions:
        del space["candidates"]
    return space


MIXTURE_OF = "mixture of "
"""Prefix of options with a number of Gaussians, which is for the events trials learn from."""


def _training(start: RunConfig, n_rows: int, n_columns: int) -> Space:
    most = n_rows // (4 * max(n_columns, 10))
    counts = [k for k in (10, 20, 40, 80, 160) if k <= most]
    sizes = {f"{MIXTURE_OF}{k}": {"name": "mixture", "n_components": k} for k in counts}
    forms = {"mixture": "mixture", **sizes, "gaussian": "gaussian"}
    inputs = VIEWS if n_columns <= MANY_COLUMNS else {"latent": ["latent"]}
    space: Space = {
        "n_steps": _span(3, 16, start.n_steps or 3),
        "spacing": _named(SPACINGS, start.spacing),
        "noise": _plain(["repeats", "fresh"], start.noise["name"]),
        "repeats": Choice(dict(REPEATS), "as many"),
        "candidates": _plain([0, 500, 2000, 4000], start.noise["candidates"]),
        "closed_form": _named(forms, start.preconditioner),
        "rejection": _plain([False, True], start.rejection),
        "inputs": _named(inputs, start.inputs),
        "coordinates": _named(COORDINATES, start.transforms),
    }
    if isinstance(start.spacing, list):  # the number of steps belongs to it
        del space["n_steps"], space["spacing"]
    return space


def _boosting(start: RunConfig, n_rows: int, n_columns: int) -> Space:
    wide = n_columns > MANY_COLUMNS
    deepest = 4 if wide else 6 if n_rows < 5_000 else 8 if n_rows < 200_000 else 10
    most = 100 if n_rows < 5_000 else 200 if n_rows < 200_000 else 400
    bins = [16, 32, 64] if wide else [32, 64, 128]
    booster = start.booster
    space: Space = {
        "n_estimators": _span(2, most, booster["n_estimators"], log=True),
        "max_depth": _span(2, deepest, booster["max_depth"]),
        "learning_rate": _span(0.03, 0.5, booster["learning_rate"], log=True, whole=False),
        "reg_lambda": _span(0.1, 100.0, booster["reg_lambda"], log=True, whole=False),
        "max_bin": _plain(bins, booster["max_bin"]),
    }
    if wide:
        space["outputs_per_group"] = _plain([1, 4, 16], booster["outputs_per_group"])
    return {name: p for name, p in space.items() if isinstance(p, Choice) or p.default > 0}


def _span(low: float, high: float, default: Any, log: bool = False, whole: bool = True) -> Span:
    """Return a span that holds its default."""
    return Span(min(low, default), max(high, default), default, log, whole)


def _plain(options: list[Any], default: Any) -> Choice:
    values = options if default in options else [*options, default]
    return Choice({str(value): value for value in values}, str(default))


def _named(options: Mapping[str, Any], default: Any) -> Choice:
    label = next((name for name, value in options.items() if value == default), None)
    if label is not None:
        return Choice(dict(options), label)
    return Choice({START: default, **options}, START)


def narrowed(space: Space, limits: Mapping[str, Any]) -> Space:
    """Return the space with the limits that a user sets.

    ``limits``: parameter -> a list of values, a mapping with ``low`` and ``high``, or one value
    that is not to change. Raises ConfigError if a parameter is unknown or not searched from this
    start, or a limit does not fit it.
    """
    result = dict(space)
    for name, limit in limits.items():
        if name not in space and name in SEARCHED:
            raise ConfigError(f"{name!r} is not searched from this start, which decides it")
        if name not in space:
            raise unknown("parameter of the search", name, space)
        result[name] = _narrowed(name, space[name], limit)
    return result


def _narrowed(name: str, parameter: Parameter, limit: Any) -> Parameter:
    if isinstance(parameter, Choice):
        labels = [str(option) for option in (limit if isinstance(limit, list) else [limit])]
        for label in labels:
            if label not in parameter.options:
                raise unknown(f"option of {name!r}", label, parameter.options)
        if not labels:
            raise ConfigError(f"no option of {name!r} is left; name one or more")
        first = parameter.default if parameter.default in labels else labels[0]
        return Choice({label: parameter.options[label] for label in labels}, first)
    pair = [limit.get("low"), limit.get("high")] if isinstance(limit, Mapping) else limit
    kind: Any = list[AtLeastOne] if parameter.whole else list[Annotated[float, Meta(gt=0, le=1e9)]]
    numbers = check_value(
        pair if isinstance(pair, list) else [pair, pair],
        Annotated[kind, Meta(min_length=1)],
        f"limits of {name!r}, [low, high] or one number,",
    )
    low, high = min(numbers), max(numbers)
    return replace(parameter, low=low, high=high, default=min(max(parameter.default, low), high))


def defaults(space: Space) -> dict[str, Any]:
    """Return the parameters of the start."""
    return {name: parameter.default for name, parameter in space.items()}


def config_of(
    params: Mapping[str, Any], space: Space, base: RunConfig, n_rows: int, n_columns: int
) -> RunConfig:
    """Return the configuration of some parameters, on a table of this size."""
    values = {name: space[name].value(chosen) for name, chosen in params.items()}
    repeats = base.resolved(n_rows, n_columns).noise["n_repeats"]
    chosen = {setting: values[name] for name, setting in SETTINGS.items() if name in values}
    noise = {setting: values[name] for name, setting in NOISE.items() if name in values}
    if values.get("repeats", 1.0) != 1.0:
        noise["n_repeats"] = max(1, round(repeats * values["repeats"]))
    booster = {**base.booster, **{name: values[name] for name in BOOSTER if name in values}}
    return replace(base, **chosen, booster=booster, noise={**base.noise, **noise})


def first_tries(space: Space) -> list[dict[str, Any]]:
    """Return the parameters of the first trials: the start, then cheaper ones.

    Trees, steps, copies, Gaussians and averaged targets usually cost most for their gain.
    """
    start = defaults(space)
    changes: list[dict[str, Any]] = [
        {},
        {"n_estimators": 0.33},
        {"n_estimators": 0.05, "repeats": "1/4", "max_depth": 0.5},
        {"n_estimators": 0.2, "n_steps": 0.6, "repeats": "1/2"},
        {"closed_form": "mixture of 40", "n_estimators": 0.33, "candidates": "500"},
        {"noise": "fresh", "repeats": "1/4", "candidates": "0", "max_depth": 0.66},
    ]
    tries = [{**start, **_possible(space, change)} for change in changes]
    return [one for i, one in enumerate(tries) if one not in tries[:i]]


def _possible(space: Space, change: Mapping[str, Any]) -> dict[str, Any]:
    """Return a change within the space: labels as they are, numbers as shares of the start."""
    result: dict[str, Any] = {}
    for name, value in change.items():
        parameter = space.get(name)
        if isinstance(parameter, Choice) and value in parameter.options:
            result[name] = value
        elif isinstance(parameter, Span) and not isinstance(value, str):
            number = min(max(parameter.default * value, parameter.low), parameter.high)
            result[name] = max(round(number), int(parameter.low)) if parameter.whole else number
    return result
