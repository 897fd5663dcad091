"""What a chain is declared as, and the stages that follow from it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import msgspec

from ...config import NONE, ModelConfig, read_yaml_file
from ...errors import ConfigError, InputError
from ...registry import unknown
from ...typed_settings import check_fields
from .balance import found_kinds
from .events import Events, Objects
from .quantities import Quantity
from .shares import exact_shares, rounded_types

Kind = Literal["number", "properties", "fake number", "fakes", "event"]
Settings = dict[str, Any]
Distance = Annotated[float, msgspec.Meta(gt=0)]


MODEL: Settings = {
    "preconditioner": "gaussian",
    "booster": {
        "n_estimators": 100,
        "learning_rate": 0.3,
        "early_stopping_rounds": 10,
        "rejection_rate": 0.4,
        "rejection_events": 1,
    },
}
"""Settings of `FlowBDT` where a chain names no preset. What conditions do to a width takes many
trees. A rejection of rate 0.2 takes twice the rounds of 0.4, and trees that judge see no gain."""
NUMBER_RATE = 0.15
"""Learning rate of the classifiers of numbers. With 0.3 they end too early for efficiencies near 1:
chi2 per bin was 2.8 for 3,000 events, with 0.1 it is 1.2."""
STEPS, OF_ONE_COLUMN = 5, 3
"""Steps of the solver in stages of several columns, and of one: from 20,000 jets trees told width
and a share from real ones with 0.503 and 0.493 after 3 steps, 0.497 and 0.489 after 5, which take
1.2 to 1.5 times as long to train and 1.3 to 1.7 times to draw (errors .005)."""
FEW_COLUMNS = 3
"""Columns of a stage up to which such a chain needs no rejection: from 24,000 jets trees told three
from real ones with an area of 0.510 without and 0.498 with one (errors .0075), two with 0.519 and
0.518; six, of which five have exact values, with 0.539 and 0.517."""


@dataclass(frozen=True)
class StagePart:
    """What may be said of one stage; ``model`` are settings of `FlowBDT`."""

    columns: list[str] | None = None
    conditions: list[str] | None = None
    model: Settings = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_fields(self, "setting of a stage")


@dataclass(frozen=True)
class CollectionPart:
    """A collection of output objects, see `Declaration`."""

    parent: str | None = None
    index: str | None = None
    match: Distance | None = None
    columns: list[str] | None = None
    conditions: list[str] | None = None
    stages: list[dict[str, Any]] = field(default_factory=list)
    number: dict[str, Any] = field(default_factory=dict)
    fakes: bool | dict[str, Any] = True
    sort: str | None = None
    shares: list[list[str]] = field(default_factory=list)
    rejection: bool | list[str] = False
    balance: bool | list[str] = False
    model: Settings = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_fields(self, "setting of a collection")


@dataclass(frozen=True)
class Declaration:
    """A chain of stages as it is declared: ``chain.yaml``, or a mapping.

    Parameters
    ----------
    collections : by name of the output, such as ``Jet``, a mapping with

        ``parent``: collection of the input, such as ``GenJet``; without one all objects are drawn
        given the event alone

        ``index``: branch with the place of an object's parent in its event, -1 for none; or
        ``match``: the nearest parent in (eta, phi) if nearer than this, then ``index`` is written

        ``columns``: those to generate, by default all of the collection

        ``conditions``: of number and properties, by default all branches of the parent

        ``stages``: in place of ``columns`` a list of mappings with columns, conditions and model,
        each given the columns before

        ``number``, ``fakes``: mappings with conditions and model of objects per parent, and of
        objects without one; ``fakes: false`` leaves the latter out

        ``sort``: branch by which objects are ordered, falling; 'none', or None for what the
        training events show

        ``shares``: lists of columns that add up to one, such as energy fractions, and do so exactly
        in generated objects; of one stage, or in the order of several

        ``rejection``: True draws objects with a parent anew that a classifier of all columns
        together, beside the conditions, finds unlike real ones: what a flow for each column misses;
        or a list of what it sees besides, such as ``"answer = Jet_pt / GenJet_pt"``

        ``balance``: True counts objects of rare kinds of parents more in the training of
        properties, for processes that have many of them, see `balance`; or a list of branches and
        expressions of the parent, of few values each, in place of what the training events show

        ``model``: settings of `FlowBDT` for the properties
    event : by name, a mapping with ``columns``, ``conditions`` and ``model``: columns of the event
    conditions : branches, or expressions such as ``"ht = sum(GenJet_pt)"``, that all stages see
    weight : branch of event weights
    model : settings of `FlowBDT` for all stages; without a preset those of `MODEL` are added
    """

    collections: dict[str, dict[str, Any]] = field(default_factory=dict)
    event: dict[str, dict[str, Any]] = field(default_factory=dict)
    conditions: list[str] = field(default_factory=list)
    weight: str | None = None
    model: Settings = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_fields(self, "setting of a chain")
        if "preset" not in self.model:
            object.__setattr__(self, "model", {**MODEL, **self.model})
        if not self.collections and not self.event:
            raise ConfigError(
                "a chain needs collections or event columns to generate, such as {collections:"
                " {Jet: {parent: GenJet, index: Jet_genJetIdx}}}"
            )

    @classmethod
    def of(cls, spec: Any) -> Self:
        """Read a mapping, or a YAML file by its path. Raises ConfigError."""
        if isinstance(spec, cls):
            return spec
        where = ""
        if isinstance(spec, str | Path):
            where = f"{spec}: "
            spec = read_yaml_file(spec, "chain")
        if not isinstance(spec, Mapping):
            raise ConfigError(f"{where}a chain is a mapping, got {spec!r}")
        try:
            for name in spec:
                if name not in cls.__dataclass_fields__:
                    raise unknown("setting of a chain", name, cls.__dataclass_fields__)
            return cls(**spec)
        except ConfigError as error:
            raise ConfigError(f"{where}{error}") from error


@dataclass(frozen=True)
class Stage:
    """One model of the chain: columns given conditions.

    ``home`` is the collection or the group of event columns it belongs to; ``columns`` are
    branches, ``conditions`` texts of `Quantity`; ``settings`` are those of `FlowBDT`.
    """

    name: str
    kind: Kind
    home: str
    columns: tuple[str, ...]
    conditions: tuple[str, ...]
    settings: Settings

    def config(self, **others: Any) -> ModelConfig:
        """Return its settings with others; what they leave open is not looked for in its rows."""
        return ModelConfig(**{**NONE, **self.settings, **others})

    @cached_property
    def quantities(self) -> list[Quantity]:
        """The conditions, read; one may use the names of those before it."""
        found: list[Quantity] = []
        for text in self.conditions:
            found.append(Quantity.parse(text, [one.name for one in found]))
        return found


@dataclass(frozen=True)
class Home:
    """A collection, or a group of event columns: what is generated in one go.

    ``index`` is the branch of parents, ``distance`` that of matching where there is no such branch
    in the training events; ``dropped`` says that objects without parent are left out; ``rounded``
    are types of shares, see `shares.rounded_types`, ``balance`` kinds of parents, as texts.
    """

    name: str
    stages: tuple[Stage, ...]
    columns: tuple[str, ...]
    parent: str | None = None
    index: str | None = None
    distance: float | None = None
    sort: str | None = None
    shares: tuple[tuple[str, ...], ...] = ()
    dropped: bool = False
    rejection: tuple[str, ...] | None = None
    rounded: dict[str, str] = field(default_factory=dict)
    balance: tuple[str, ...] = ()

    @property
    def is_event(self) -> bool:
        """True of event columns."""
        return self.stages[0].kind == "event"

    @property
    def made(self) -> set[str]:
        """All branches that it makes."""
        own = {*self.columns, *([self.index] if self.index else [])}
        return own if self.is_event else own | {f"n{self.name}"}

    def stage(self, kind: Kind) -> Stage:
        """Return its stage of a kind."""
        return next(stage for stage in self.stages if stage.kind == kind)

    @property
    def properties(self) -> list[Stage]:
        """The stages of properties, in order."""
        return [stage for stage in self.stages if stage.kind == "properties"]


OF_THE_CHAIN = {"random_state": "random_state= or --seed", "executor": "executor= or --executor"}
"""Settings of `FlowBDT` that no stage has of its own, and how they are given."""


def order_name(home: str) -> str:
    """Return the name of the condition that tells several objects of one parent apart."""
    return f"{home}_order"


def homes_of(declared: Declaration, events: Events) -> list[Home]:
    """Return what is generated, in an order in which all conditions are known.

    Raises ConfigError for unknown branches and for a circle.
    """
    known = {*events.names, *(f"n{name}" for name in events.collections)}
    homes = [_collection(declared, n, part, events) for n, part in declared.collections.items()]
    homes += [_event_columns(declared, n, part, events) for n, part in declared.event.items()]
    made: dict[str, str] = {}
    for home in homes:
        for branch in sorted(home.made):
            if branch in made:
                raise ConfigError(
                    f"branch {branch!r} is made twice, by {made[branch]} and {home.name}"
                )
            made[branch] = home.name
        for text in home.rejection or ():
            Quantity.parse(text).check(known)
        for stage in home.stages:
            _check_conditions(stage, known, events.left_out)
            _check_settings(stage)
    for home in homes:
        _check_kinds(home, known - made.keys())
    if declared.weight is not None and declared.weight not in events.columns:
        raise ConfigError(str(unknown("branch of weights", declared.weight, events.columns)))
    return _in_order(homes, made)


def _check_kinds(home: Home, given: Collection[str]) -> None:
    """Raise ConfigError for kinds of what is generated: weights by these would change what is."""
    for text in home.balance:
        try:
            Quantity.parse(text).check(given)
        except ConfigError as error:
            where = f"collection {home.name}: balance is of kinds of {home.parent}, as given"
            raise ConfigError(f"{where}; {error}") from error


def _check_conditions(stage: Stage, known: Collection[str], left_out: Mapping[str, str]) -> None:
    """Raise ConfigError for unknown branches, and names that stand for something else already."""
    names: set[str] = set()
    for quantity in stage.quantities:
        for source in sorted(quantity.sources & left_out.keys()):
            raise ConfigError(f"condition {quantity.text!r}: {left_out[source]}")
        quantity.check(known)
        taken = {*names, order_name(stage.home)}
        if quantity.text.strip() != quantity.name:
            taken |= {*known}
        if quantity.name in taken or quantity.name in stage.columns:
            raise ConfigError(
                f"stage {stage.name}: condition {quantity.text!r} has the name of a branch or of"
                " another condition; choose another name"
            )
        names.add(quantity.name)


def _check_settings(stage: Stage) -> None:
    for name, how in OF_THE_CHAIN.items():
        if name in stage.settings:
            raise ConfigError(
                f"model of {stage.name}: {name!r} is one for the whole chain: give it as {how}"
            )
    for name in stage.settings:
        if name not in ModelConfig.__dataclass_fields__:
            where = f"setting of the model of {stage.name}"
            raise unknown(where, name, ModelConfig.__dataclass_fields__)
    stage.config()


def _collection(declared: Declaration, name: str, content: Any, events: Events) -> Home:
    part = _part(CollectionPart, content, f"collection {name}")
    if name not in events.collections:
        raise ConfigError(str(unknown("collection", name, events.collections)))
    own = events.collections[name].columns
    if part.parent is not None and part.parent not in events.collections:
        raise ConfigError(
            f"collection {name}: {unknown('parent', part.parent, events.collections)}"
        )
    if (part.parent is None) != (part.index is None and part.match is None):
        raise ConfigError(
            f"collection {name}: 'parent' goes with 'index', the branch that has the place of an"
            " object's parent, or with 'match', the largest distance in (eta, phi)"
        )
    if part.parent is None and not isinstance(part.balance, bool):
        raise ConfigError(f"collection {name}: balance is of kinds of the parent, which it has not")
    if part.rejection is not False and part.parent is None:
        raise ConfigError(
            f"collection {name}: a rejection of all stages is of objects with a parent; others have"
            " one stage, whose model has a setting 'rejection'"
        )
    distance, index = part.match, part.index
    if distance is not None:
        index = index or f"{name}_{part.parent[0].lower()}{part.parent[1:]}Idx"  # type: ignore[index]
        for owner, of in ((name, own), (part.parent, events.collections[str(part.parent)].columns)):
            for one in ("eta", "phi"):
                if f"{owner}_{one}" not in of:
                    raise ConfigError(f"collection {name}: match needs the branch {owner}_{one}")
    elif index is not None and index not in own:
        raise ConfigError(f"collection {name}: {unknown('index', index, own)}")
    if part.columns is not None and part.stages:
        raise ConfigError(f"collection {name}: columns are said in its stages, not beside them")
    parts = [_part(StagePart, one, f"stages of {name}") for one in part.stages]
    parts = parts or [StagePart(columns=part.columns)]
    default = [column for column in own if column != index]
    columns = tuple(c for one in parts for c in (default if one.columns is None else one.columns))
    for column in columns:
        if column not in own:
            raise ConfigError(f"collection {name}: {unknown('column', column, own)}")
    for i, column in enumerate(columns):
        if column in columns[:i]:
            raise ConfigError(f"collection {name}: column {column!r} is listed twice")
        if column == index:
            raise ConfigError(
                f"collection {name}: column {column!r} is the index of parents, which follows from"
                " the objects that are drawn; leave it out of 'columns'"
            )
    if not all(default if one.columns is None else one.columns for one in parts):
        raise ConfigError(f"collection {name}: a stage has no columns; it has {', '.join(own)}")
    _check_shares(name, part.shares, [one.columns or default for one in parts])
    common, stages = declared.conditions, []
    if part.parent is not None:
        given = part.conditions
        given = list(events.collections[part.parent].columns) if given is None else given
        number = _part(StagePart, part.number, f"number of {name}")
        seen = given if number.conditions is None else number.conditions
        settings = {**declared.model, **number.model}
        stages.append(_drawn(f"{name}.number", "number", name, (*common, *seen), settings))
        before: tuple[str, ...] = ()
        for i, one in enumerate(parts):
            title = name if len(parts) == 1 else f"{name}.{i + 1}"
            seen = given if one.conditions is None else one.conditions
            of_stage = tuple(default if one.columns is None else one.columns)
            _check_own(title, seen, own.keys() - set(before))
            told = [c for c in of_stage if not any(c == group[-1] for group in part.shares)]
            settings = _light({**declared.model, **part.model, **one.model}, told)
            settings = _with_atoms(settings, part.shares, events.collections[name], of_stage)
            conditions = _unique((*common, *seen, *before))
            stages.append(Stage(title, "properties", name, of_stage, conditions, settings))
            before += of_stage
    if part.fakes is not False or part.parent is None:
        fakes = part.fakes if isinstance(part.fakes, dict) else {}
        extra = _part(StagePart, fakes, f"fakes of {name}")
        default_seen = [] if part.parent is None else [f"n{part.parent}"]
        seen = default_seen if extra.conditions is None else extra.conditions
        conditions = _unique((*common, *seen))
        settings = {**declared.model, **extra.model}
        own_model = {k: v for k, v in part.model.items() if k != "relative"}
        number_settings = {k: v for k, v in settings.items() if k in declared.model}
        title = f"{name}.fakes" if part.parent is not None else name
        kind = "fake_number" if part.parent is not None else "number"
        stages.append(_drawn(f"{name}.{kind}", "fake number", name, conditions, number_settings))
        settings = _light({**declared.model, **own_model, **extra.model}, columns)
        settings = _with_atoms(settings, part.shares, events.collections[name], columns)
        stages.append(Stage(title, "fakes", name, columns, conditions, settings))
    sort = part.sort or falling(events, name, columns)
    if sort is not None and sort != "none" and sort not in columns:
        raise ConfigError(f"collection {name}: {unknown('sort', sort, [*columns, 'none'])}")
    return Home(
        name,
        tuple(stages),
        columns,
        part.parent,
        index,
        distance,
        None if sort == "none" else sort,
        tuple(map(tuple, part.shares)),
        part.fakes is False,
        _seen_besides(part.rejection),
        rounded_types(own, part.shares),
        _kinds(part, events),
    )


def _kinds(part: CollectionPart, events: Events) -> tuple[str, ...]:
    if not isinstance(part.balance, bool):
        return tuple(part.balance)
    found = part.balance and part.parent is not None
    return found_kinds(events.collections[str(part.parent)]) if found else ()


def _seen_besides(rejection: bool | list[str]) -> tuple[str, ...] | None:
    if isinstance(rejection, bool):
        return () if rejection else None
    return tuple(rejection)


def _check_shares(name: str, shares: list[list[str]], stages: list[list[str]]) -> None:
    stage_of = {column: i for i, columns in enumerate(stages) for column in columns}
    for group in shares:
        places = [stage_of.get(column, -1) for column in group]
        in_order = min(places, default=-1) >= 0 and places == sorted(places)
        if len(group) < 2 or not in_order or places[-1] != places[-2]:
            raise ConfigError(
                f"collection {name}: shares are two or more columns in the order of the stages, the"
                f" last two of one stage, got {group}; its columns are {', '.join(stage_of)}"
            )
    if len({c for group in shares for c in group}) < sum(map(len, shares)):
        raise ConfigError(f"collection {name}: a column stands twice in shares {shares}")


def _check_own(stage: str, texts: list[str], later: Collection[str]) -> None:
    """Raise ConfigError if conditions use columns of an object that are not made before."""
    for text in texts:
        if early := sorted(Quantity.parse(text).own & set(later)):
            raise ConfigError(
                f"stages in a circle: stage {stage} is given {early[0]} ({text!r}), which is not"
                " made before it"
            )


def _light(settings: Settings, columns: Collection[str]) -> Settings:
    """Return settings with what a stage that learns these columns needs, unless they say it.

    Few columns have no rejection, one has fewer steps.
    """
    if "preset" in settings:
        return settings
    few: Settings = {"rejection": False} if len(columns) <= FEW_COLUMNS else {}
    return {"n_steps": STEPS if len(columns) > 1 else OF_ONE_COLUMN, **few, **settings}


def _with_atoms(
    settings: Settings, groups: list[list[str]], objects: Objects, columns: Collection[str]
) -> Settings:
    """Return settings with which classifiers draw whether shares of a stage are exactly 0 or 1."""
    found = exact_shares(objects.columns, groups, columns)
    if not found or "transforms" in settings:
        return settings
    mixed = {k: {"name": "mixed", "atoms": atoms, "equal": []} for k, atoms in found.items()}
    return {**settings, "transforms": {"*": "auto", **mixed}}


def _drawn(name: str, kind: Kind, home: str, conditions: tuple[str, ...], model: Settings) -> Stage:
    """Return a stage of numbers of objects, which a classifier draws."""
    column = name.replace(".", "_")
    settings = {**model, "transforms": {column: "classified"}, "rejection": False}
    if "preset" not in settings:
        settings["booster"] = {"classifier_rate": NUMBER_RATE, **settings.get("booster", {})}
    return Stage(name, kind, home, (column,), _unique(conditions), settings)


def _event_columns(declared: Declaration, name: str, content: Any, events: Events) -> Home:
    part = _part(StagePart, content, f"event columns {name}")
    if re.fullmatch(r"\w[\w-]*", str(name)) is None:
        raise ConfigError(
            f"event columns {name!r}: a folder is named so; use letters, digits, '-' and '_'"
        )
    columns = part.columns or [one for one in events.columns if one.startswith(f"{name}_")]
    for column in columns:
        if column in events.left_out:
            raise ConfigError(f"event columns {name}: {events.left_out[column]}")
        if column not in events.columns:
            raise ConfigError(f"event columns {name}: {unknown('branch', column, events.columns)}")
    if not columns:
        raise ConfigError(f"event columns {name}: say which 'columns' to generate")
    conditions = _unique((*declared.conditions, *(part.conditions or ())))
    settings = _light({**declared.model, **part.model}, columns)
    stage = Stage(name, "event", name, tuple(columns), conditions, settings)
    return Home(name, (stage,), tuple(columns))


def _unique(texts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))


def _part(owner: type, content: Any, what: str) -> Any:
    if content is None:
        content = {}
    if not isinstance(content, Mapping):
        raise ConfigError(f"{what} is a mapping, got {content!r}")
    fields = owner.__dataclass_fields__  # type: ignore[attr-defined]
    for name in content:
        if name not in fields:
            raise ConfigError(f"{what}: {unknown('setting', name, fields)}")
    try:
        return owner(**content)
    except ConfigError as error:
        raise ConfigError(f"{what}: {error}") from error


FALLS = 0.9
"""Share of neighbours in falling order from which on a collection counts as sorted: rounding, and
corrections after sorting, leave some in another order."""


def falling(events: Events, name: str, columns: Collection[str]) -> str | None:
    """Return the column by which the objects of all events come in falling order, None for none."""
    objects = events.collections[name]
    same = objects.event[1:] == objects.event[:-1]
    best, found = FALLS, None
    for column in columns:
        values = objects.columns[column]
        if same.any() and len(set(values[:100].tolist())) > 2:
            share = float((values[1:] <= values[:-1])[same].mean())
            if share > best:
                best, found = share, column
    return found


def _in_order(homes: list[Home], made: Mapping[str, str]) -> list[Home]:
    """Return homes so that each comes after those whose branches it needs."""
    by_name = {home.name: home for home in homes}
    if len(by_name) < len(homes):
        raise ConfigError("a collection and event columns have one name: rename the latter")
    needs = {home.name: dict(_needs(home, made)) for home in homes}
    done: list[str] = []

    def visit(name: str, way: tuple[str, ...]) -> None:
        if name in way:
            circle = [*way[way.index(name) :], name]
            said = "; ".join(
                f"{a} needs {needs[a][b]} of {b}" for a, b in itertools.pairwise(circle)
            )
            raise ConfigError(f"stages in a circle: {said}. Leave one of these conditions out")
        if name not in done:
            for other in needs[name]:
                visit(other, (*way, name))
            done.append(name)

    for home in homes:
        visit(home.name, ())
    return [by_name[name] for name in done]


def _needs(home: Home, made: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the other homes that conditions need, each with the branch."""
    for stage in home.stages:
        for quantity in stage.quantities:
            for source in sorted(quantity.sources):
                own_row = source in home.columns and source in quantity.own
                if source in made and not (made[source] == home.name and own_row):
                    yield made[source], source


def inputs_of(homes: list[Home]) -> set[str]:
    """Return the branches that generation needs; counts of collections begin with "n"."""
    made = {branch for home in homes for branch in home.made}
    needed = {s for h in homes for stage in h.stages for q in stage.quantities for s in q.sources}
    return needed - made


def check_inputs(homes: list[Home], events: Events) -> None:
    """Raise InputError unless events to generate from have all branches that are needed."""
    known = {*events.names, *(f"n{name}" for name in events.collections)}
    for name in sorted(inputs_of(homes)):
        if name not in known:
            users = [
                s.name for h in homes for s in h.stages for q in s.quantities if name in q.sources
            ]
            raise InputError(
                f"{unknown('branch', name, known)} Stage {users[0]} was trained on it: give events"
                " that have all branches of the input"
            )
    for home in homes:
        if home.parent is not None and home.parent not in events.collections:
            raise InputError(str(unknown("collection", home.parent, events.collections)))
