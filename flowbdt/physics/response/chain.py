"""`ResponseChain`: detector response as a chain of conditional models, fitted, stored, sampled."""

from __future__ import annotations

import contextlib
import io
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, Self

import msgspec
import numpy as np

from ... import atomic_files, seeding
from ...errors import ConfigError, FormatError, IncompleteRun, InputError, RunError, plural, reading
from ...generation.fit_run import fit_run
from ...generation.input_rows import at_least_one
from ...generation.trained_flow import Flow
from ...tables.event_table import EventTable
from ...training import run_directory
from ...training.collect import OnReport
from ...training.plan import Inputs, check_config, check_table
from ...training.run_directory import Archive, RunDirectory, Source
from .declaration import Declaration, Home, Stage, check_inputs, homes_of
from .events import Events, check_finite
from .generate_objects import ChainSampler, StageSampler
from .joint_rejection import JointRejection, learn_joint_rejection
from .resolution import with_found_units
from .shares import check_shares
from .stage_tables import constant_of, needed_branches, stage_table

FORMAT = 3
"""1: no rejection of all columns together, 2: no shares of rounded mantissas; chains without these
are still written so."""
CHAIN = "chain.json"
FEWEST_ROWS = 20
"""Rows that a stage is trained on, at least."""

PARENT, COPY = "parent_event", "copy"
"""Branches of generated events: number of the event they were made from, and which copy."""

BLOCK_EVENTS = 16_384
"""Events and copies generated together: what is left after some attempts costs a call each."""

OnStage = Callable[[str, int], None]
"""Called with the name of a stage and its number of rows before it is trained."""


@dataclass(frozen=True)
class TrainedStage:
    """What a chain knows of a stage: hash and rows of its table; its values if all are equal."""

    table: str
    rows: int
    constant: dict[str, tuple[float, str]] | None = None


@dataclass(frozen=True)
class ChainContent:
    """``chain.json``."""

    format: int
    seed: int
    homes: list[Home]
    stages: dict[str, TrainedStage]
    slots: dict[str, int]
    index_types: dict[str, str]
    weight: str | None = None

    @classmethod
    def read(cls, content: bytes, what: str) -> ChainContent:
        """Read the file. Raises FormatError."""
        parsed = run_directory.unsealed(atomic_files.parse_json(content, what), what)
        if parsed.get("format") not in range(1, FORMAT + 1):
            raise FormatError(
                f"{what} has format {parsed.get('format')!r}, this release reads up to {FORMAT}"
            )
        with reading(what):
            result: ChainContent = msgspec.convert(parsed, cls)
            names = [stage.name for home in result.homes for stage in home.stages]
            if sorted(names) != sorted(result.stages):
                raise FormatError("its stages are not those that it knows of")
        return result

    def describe(self) -> list[str]:
        """Return a line for each stage: its rows, what it makes, and given what."""
        lines = []
        for home in self.homes:
            for stage in home.stages:
                known = self.stages[stage.name]
                made = ", ".join(stage.columns)
                if known.constant is not None:
                    said = " and ".join(f"{k} = {v:g}" for k, (v, _) in known.constant.items())
                    lines.append(f"{stage.name}: always {said}")
                    continue
                given = ", ".join(stage.conditions) or "nothing"
                lines.append(f"{stage.name}: {plural(known.rows, 'row')}, {made} given {given}")
            if home.sort is not None:
                lines.append(f"{home.name}: in falling order of {home.sort}")
            if home.rejection is not None:
                lines.append(f"{home.name}: a rejection sees conditions and all columns together")
            if home.balance:
                lines.append(f"{home.name}: rare kinds count more, of {', '.join(home.balance)}")
            if home.dropped:
                lines.append(f"{home.name}: objects without parent are left out")
        return lines

    def to_bytes(self) -> bytes:
        """Return the file, with its own hash in it."""
        plain = atomic_files.to_plain(asdict(self))
        return atomic_files.json_bytes({**plain, run_directory.SEAL: atomic_files.digest(plain)})


@dataclass(frozen=True, eq=False)
class ChainInputs:
    """A declaration held against training events: all stages with their tables."""

    content: ChainContent
    tables: dict[str, EventTable]
    events: Events

    @classmethod
    def of(cls, declared: Declaration, data: Any, seed: int) -> ChainInputs:
        """Check everything that is known before training.

        Raises ConfigError for unknown branches, settings and circles, InputError with branch and
        entry for numbers that are not finite, places of parents that do not exist, and for stages
        with hardly any rows.
        """
        events = Events.of(data)
        if not events.n:
            raise InputError("there are no events to learn from")
        homes = homes_of(with_found_units(declared, events), events)
        branches = {b for home in homes for b in needed_branches(home, declared.weight)}
        check_finite(events, sorted(branches & set(events.names)))
        tables, stages = {}, {}
        for home in homes:
            if home.shares:
                objects = events.collections[home.name]
                check_shares(objects.columns, home.shares, objects)
            for stage in home.stages:
                with _said_of(stage):
                    config = stage.config()
                    check_config(config)
                    table = stage_table(stage, home, events, declared.weight, training=True)
                    constant = constant_of(table)
                    if constant is None:
                        tables[stage.name] = table
                    if constant is None and table.n >= FEWEST_ROWS:
                        check_table(Inputs(table, config, seed).settled())
                stages[stage.name] = TrainedStage(_digest(table, stage), table.n, constant)
            _check_rows(home, stages)
        made = {home.name: events.collections[home.name] for home in homes if not home.is_event}
        slots = {name: _slots(len(objects) / events.n) for name, objects in made.items()}
        fakes = [s.name for home in homes for s in home.stages if s.kind == "fakes"]
        slots |= {name: _slots(stages[name].rows / events.n) for name in fakes}
        index_types = {
            home.name: str(made[home.name].columns[home.index].dtype)
            if home.distance is None
            else "int32"
            for home in homes
            if home.index is not None
        }
        version = max(_format_of(home) for home in homes)
        content = ChainContent(version, seed, homes, stages, slots, index_types, declared.weight)
        return cls(content, tables, events)


@contextlib.contextmanager
def _said_of(stage: Stage) -> Iterator[None]:
    """Name the stage in what is refused."""
    try:
        yield
    except (ConfigError, InputError) as error:
        raise type(error)(f"stage {stage.name}: {error}") from error


def _format_of(home: Home) -> int:
    """Return the first format that has what there is of a collection."""
    return FORMAT if home.rounded else 1 if home.rejection is None else 2


def _slots(mean: float) -> int:
    return 2 ** max(int(np.ceil(np.log2(max(mean, 1.0)))), 0)


def _digest(table: EventTable, stage: Stage) -> str:
    arrays = [a for a in (table.x, table.cond, table.weight) if a is not None]
    settings = {**stage.settings, "executor": None}
    return atomic_files.digest([*map(atomic_files.digest_array, arrays), asdict(stage), settings])


def _check_rows(home: Home, stages: dict[str, TrainedStage]) -> None:
    for stage in home.stages:
        known = stages[stage.name]
        none_to_draw = stage.kind == "fakes" and not known.rows
        if known.rows >= FEWEST_ROWS or known.constant is not None or none_to_draw:
            continue
        hint = {
            "fakes": f"; with 'fakes: false' in {home.name} objects without parent are left out",
            "properties": ": is the index of parents, or the distance of the match, right?",
        }.get(stage.kind, "")
        raise InputError(
            f"stage {stage.name} has {plural(known.rows, 'row')} to learn from, at least"
            f" {FEWEST_ROWS} are needed{hint}"
        )


def fit_chain(
    inputs: ChainInputs,
    folder: str | PathLike[str],
    *,
    executor: Any = "serial",
    resume: bool = False,
    on_stage: OnStage | None = None,
    on_report: OnReport | None = None,
) -> None:
    """Train every stage as a run of its own in ``folder``; what is finished is kept.

    Raises RunError if the folder holds another chain, or this one without ``resume``,
    IncompleteRun if jobs failed.
    """
    path, content = Path(folder), inputs.content
    _begin(path, content, resume)
    for home in content.homes:
        for stage in home.stages:
            table = inputs.tables.get(stage.name)
            if table is None or not table.n:
                continue
            run = RunDirectory(stage_folder(path, stage.name))
            if resume and _is_complete(run):
                continue
            if on_stage is not None:
                on_stage(stage.name, table.n)
            seed = seeding.derive(content.seed, f"response {stage.name}")
            config = stage.config(executor=executor)
            try:
                fit_run(Inputs(table, config, seed), run.path, resume=resume, on_report=on_report)
            except IncompleteRun as error:
                text = f"stage {stage.name}: {error}. Then go on with the chain: flowbdt response"
                raise IncompleteRun(
                    f"{text} fit EVENTS --config CHAIN -o {path} --resume", error.reason
                ) from error
        if home.rejection is not None:
            if on_stage is not None:
                on_stage(f"{home.name}, all columns", content.stages[home.properties[0].name].rows)
            _learn_together(path, home, inputs)


def _learn_together(path: Path, home: Home, inputs: ChainInputs) -> None:
    """Learn the rejection of all columns of a collection, whose stages are trained."""
    content = inputs.content
    trained = _trained(content)
    runs = {s.name: RunDirectory(stage_folder(path, s.name)) for s in home.properties}
    flows = {name: Flow(run) for name, run in runs.items() if name in trained}
    samplers = _samplers([home], content, flows, None)
    chain = ChainSampler([home], samplers, content.slots, content.index_types, {})
    learn_joint_rejection(
        home,
        flows,
        partial(chain.drawn_properties, home),
        inputs.events,
        content.weight,
        file=rejection_file(path, home.name),
        seed=seeding.derive(content.seed, f"response {home.name} rejection"),
    )


def rejection_file(path: Path, home: str) -> Path:
    """Return the file of the rejection of all columns of a collection."""
    return path / "rejections" / f"{home}.ubj"


def _samplers(
    homes: list[Home], content: ChainContent, flows: Mapping[str, Flow], outside: str | None
) -> dict[str, StageSampler]:
    known = content.stages
    return {
        s.name: StageSampler(s, flows.get(s.name), known[s.name].constant or {}, outside)
        for home in homes
        for s in home.stages
    }


def _begin(path: Path, content: ChainContent, resume: bool) -> None:
    """Write what the chain is, or find the same there."""
    file = path / CHAIN
    if not file.exists():
        others = [p.name for p in path.iterdir() if p.name[0] != "."] if path.is_dir() else []
        if others:
            raise RunError(f"{path} holds {others[0]}, no chain of stages; choose an empty folder")
        atomic_files.make_folder(path)
        atomic_files.write_bytes(file, content.to_bytes())
        return
    if not resume:
        raise RunError(
            f"{path} holds a chain already; add --resume to continue it, or choose another folder"
        )
    there = ChainContent.read(file.read_bytes(), str(file))
    if there != content:
        known = content.stages.items()
        different = [name for name, stage in known if there.stages.get(name) != stage]
        raise RunError(
            f"{path} is another chain ({', '.join(different) or 'its seed or order'} differ): use"
            " the same events, declaration and seed to continue it, or choose another folder"
        )


def stage_folder(path: Path, stage: str) -> Path:
    """Return the run folder of a stage."""
    return path / "stages" / stage


def _is_complete(run: RunDirectory) -> bool:
    if not run.file("manifest.json").exists():
        return False
    try:
        Flow(run, compiled=False)
    except FormatError:
        return False
    return True


class ResponseChain:
    """Detector response: from generated to reconstructed events, by a chain of `FlowBDT` models.

    For each object of the input a classifier draws how many objects of the output it gives (none:
    it is lost; two: it is split), a conditional model their properties; another pair draws those
    without a parent, fakes, and models of event columns see sums over the objects made. The idea is
    that of CMS FlashSim (arXiv 2402.13684) and LHCb Lamarr.

    Parameters
    ----------
    spec : see `Declaration`: the path of a YAML file, or a mapping
    executor : as of `FlowBDT`
    random_state : seed; with an integer, equal input gives equal bytes

    Attributes
    ----------
    content_ : what the chain is: stages in order, with their columns and conditions
    seed_ : the seed that was used

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> events = {"nPU": rng.poisson(20, 200)}
    >>> events["MET_sumEt"] = rng.normal(30.0 * events["nPU"], 50.0)
    >>> settings = {"preset": "fast", "n_steps": 2}
    >>> spec = {"event": {"MET": {"conditions": ["nPU"]}}, "model": settings}
    >>> chain = ResponseChain(spec, random_state=1).fit(events)
    >>> chain.sample(events, random_state=2).fields
    ['nPU', 'MET_sumEt', 'parent_event']
    """

    def __init__(self, spec: Any, *, executor: Any = "serial", random_state: Any = None) -> None:
        self.spec = spec
        self.executor = executor
        self.random_state = random_state

    def fit(self, events: Any, *, folder: str | PathLike[str] | None = None) -> Self:
        """Learn from events that have input and output.

        Parameters
        ----------
        events : awkward array of records with a field for each branch (or collection), or mapping
            of branches to arrays
        folder : where each stage is kept as a run; a chain that was begun there is continued

        Raises
        ------
        ConfigError, InputError before training, see `ChainInputs.of`; RunError if training failed.
        """
        seed = seeding.resolve(self.random_state)
        inputs = ChainInputs.of(Declaration.of(self.spec), events, seed)
        with tempfile.TemporaryDirectory(prefix="flowbdt-") as temporary:
            path = Path(temporary) / "chain" if folder is None else Path(folder)
            resume = folder is not None and (path / CHAIN).exists()
            fit_chain(inputs, path, executor=self.executor, resume=resume)
            self._adopt(_file_content(path), "this chain")
        return self

    def _adopt(self, content: bytes, what: str) -> None:
        chain, sources, learned = _read_file(content, what)
        self.content_, self.seed_, self.archive_ = chain, chain.seed, content
        self._flows = {name: Flow(source) for name, source in sources.items()}
        homes = [home for home in chain.homes if home.rejection is not None]
        with reading(what):
            self._rejections = {
                home.name: JointRejection.read(home, self._flows, learned[home.name])
                for home in homes
            }

    def flow(self, stage: str) -> Flow:
        """Return the trained flow of a stage. Raises KeyError if there is none of this name."""
        self.check_fitted()
        return self._flows[stage]

    def rejection(self, home: str) -> JointRejection:
        """Return the rejection of all columns of a collection. Raises KeyError if it has none."""
        self.check_fitted()
        return self._rejections[home]

    def check_fitted(self) -> None:
        """Raise NotFittedError before `fit`."""
        if not hasattr(self, "archive_"):
            from sklearn.exceptions import NotFittedError

            raise NotFittedError("this chain is not fitted yet: call fit, or ResponseChain.load")

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_flows", "_rejections")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if "archive_" in state:
            self._adopt(state["archive_"], "this chain")

    def sample(
        self,
        events: Any,
        *,
        oversample: int = 1,
        first: int = 0,
        outside: str | None = "warn",
        random_state: Any = None,
    ) -> Any:
        """Generate the output of events.

        Parameters
        ----------
        events : as for `fit`; branches of the output are not needed
        oversample : outputs of each event, one after the other
        first : number of the first event: an event's output depends on its number and the seed, not
            on the events around it
        outside : for conditions far outside of the training, as of `FlowBDT.sample`
        random_state : seed

        Returns
        -------
        awkward array of records: input, output, ``parent_event``, the number of the event, and with
        ``oversample`` ``copy``

        Raises InputError if a branch is missing or not finite.
        """
        blocks = self.sample_blocks(
            [events], oversample=oversample, first=first, outside=outside, random_state=random_state
        )
        return Events.concatenate(list(blocks)).to_awkward()

    def sample_blocks(
        self,
        blocks: Iterable[Any],
        *,
        oversample: int = 1,
        first: int = 0,
        outside: str | None = "warn",
        random_state: Any = None,
    ) -> Iterator[Events]:
        """Yield what `sample` gives, block by block; ``blocks`` are events one after the other."""
        at_least_one(oversample, "oversample")
        self.check_fitted()
        if isinstance(first, bool) or not isinstance(first, int | np.integer) or first < 0:
            raise InputError(f"first must be a whole number of at least 0, got {first!r}")
        seed, sampler, low = seeding.resolve(random_state), self._sampler(outside), first
        for events in blocks:
            given = self._checked_input(events, low)
            for part in given.split(max(BLOCK_EVENTS // oversample, 1)):
                if low + part.n > sampler.most_events:
                    raise InputError(
                        f"events are numbered up to {sampler.most_events}, got {low + part.n} (the"
                        " number of the first, and all after it)"
                    )
                numbers = np.arange(low, low + part.n)
                low += part.n
                yield _copies(sampler, part, numbers, seed, oversample)
        if low == first:
            raise InputError("there are no events to generate from")
        sampler.report()

    def _sampler(self, outside: str | None) -> ChainSampler:
        content = self.content_
        if outside is not None:
            for flow in self._flows.values():
                flow.condition_ranges.check(outside)
        samplers = _samplers(content.homes, content, self._flows, outside)
        of_homes = content.slots, content.index_types, self._rejections
        return ChainSampler(content.homes, samplers, *of_homes)

    def _checked_input(self, events: Any, first: int) -> Events:
        """Return events without what the chain makes. Raises InputError if they lack a branch."""
        given, homes = Events.of(events), self.content_.homes
        made = {branch for home in homes for branch in home.made}
        columns = {name: v for name, v in given.columns.items() if name not in made}
        names = {home.name for home in homes if not home.is_event}
        collections = {name: c for name, c in given.collections.items() if name not in names}
        given = Events(given.n, columns, collections)
        check_inputs(homes, given)
        needed = {s for h in homes for st in h.stages for q in st.quantities for s in q.sources}
        check_finite(given, sorted(needed & set(given.names)), first)
        return given

    def save(self, path: str | PathLike[str]) -> None:
        """Write the chain as one file, without pickle."""
        self.check_fitted()
        atomic_files.write_bytes(Path(path), self.archive_)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Self:
        """Read a file of `save`, or the folder of a complete chain. Raises FormatError."""
        path = Path(path)
        chain = cls(None)
        if path.is_dir():
            chain._adopt(_file_content(path), str(path))
            return chain
        try:
            chain._adopt(path.read_bytes(), str(path))
        except OSError as error:
            raise FormatError(f"{path} is no readable chain: {error}") from error
        return chain


def _copies(
    sampler: ChainSampler, events: Events, numbers: np.ndarray, seed: int, oversample: int
) -> Events:
    """Return the output of events, the copies of each one after the other."""
    copies = []
    for copy in range(oversample):
        key = seed if copy == 0 else seeding.derive(seed, "copy", copy)
        marks = {PARENT: numbers}
        if oversample > 1:
            marks[COPY] = np.full(events.n, copy, dtype=np.int32)
        copies.append(sampler.generate(events, numbers, key).with_columns(marks))
    if oversample == 1:
        return copies[0]
    order = np.arange(events.n * oversample).reshape(oversample, events.n).T.ravel()
    return Events.concatenate(copies).take(order)


def is_chain(path: Path) -> bool:
    """Return whether a folder or a file holds a chain, finished or not."""
    if path.is_dir():
        return (path / CHAIN).exists()
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return CHAIN in archive.namelist()


def read_chain(folder: Path) -> ChainContent:
    """Return what the chain of a folder is, finished or not. Raises FormatError."""
    try:
        content = (folder / CHAIN).read_bytes()
    except OSError as error:
        raise FormatError(f"{folder} is no chain of stages: it has no {CHAIN} ({error})") from error
    return ChainContent.read(content, str(folder / CHAIN))


def _file_content(folder: Path) -> bytes:
    """Return a whole chain as one file: equal chains give equal bytes."""
    content = read_chain(folder)
    chain = content.to_bytes()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo(CHAIN, (1980, 1, 1, 0, 0, 0)), chain)
        for name in _trained(content):
            run = RunDirectory(stage_folder(folder, name))
            if not run.file("manifest.json").exists():
                raise FormatError(
                    f"{folder}: stage {name} is not trained, or not complete; finish the chain with"
                    f" 'flowbdt response fit EVENTS --config CHAIN -o {folder} --resume'"
                )
            model = run_directory.archive_bytes(run, run_directory.read_manifest(run))
            archive.writestr(zipfile.ZipInfo(f"{name}.flowbdt", (1980, 1, 1, 0, 0, 0)), model)
        for home in content.homes:
            if home.rejection is not None:
                learned = _learned(folder, home.name)
                archive.writestr(
                    zipfile.ZipInfo(_member(home.name), (1980, 1, 1, 0, 0, 0)), learned
                )
    return buffer.getvalue()


def _learned(folder: Path, home: str) -> bytes:
    try:
        return rejection_file(folder, home).read_bytes()
    except OSError as error:
        raise FormatError(
            f"{folder}: the rejection of {home} is not learned; finish the chain with 'flowbdt"
            f" response fit EVENTS --config CHAIN -o {folder} --resume'"
        ) from error


def _member(home: str) -> str:
    return f"{home}.rejection.ubj"


def _trained(content: ChainContent) -> list[str]:
    """Return the stages that have a model."""
    return [n for n, stage in content.stages.items() if stage.constant is None and stage.rows]


def _read_file(
    content: bytes, what: str
) -> tuple[ChainContent, dict[str, Source], dict[str, bytes]]:
    """Return what a chain is, its models by stage and its rejections by collection."""
    with reading(what), zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = archive.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise FormatError("it has compressed members, which a chain has not")
        chain = ChainContent.read(archive.read(CHAIN), f"{what}: {CHAIN}")
        sources: dict[str, Source] = {
            name: Archive(f"{what}, stage {name}", archive.read(f"{name}.flowbdt"))
            for name in _trained(chain)
        }
        with_rejection = [home.name for home in chain.homes if home.rejection is not None]
        learned = {name: archive.read(_member(name)) for name in with_rejection}
    return chain, sources, learned
