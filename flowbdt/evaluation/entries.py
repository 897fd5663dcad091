"""Several runs, samples or reports together: each becomes an evaluation under a name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from os.path import exists, isdir  # False for names that no system could have
from pathlib import Path
from typing import Any

from .. import atomic_files
from ..errors import ConfigError, GridError, InputError
from ..flow.schedule_search import steps_within
from ..flow.solvers import SOLVERS, evaluations
from ..generation.trained_flow import Flow
from ..registry import spec_name
from ..tables.event_table import EventTable
from ..tables.formats import read_attributes, read_table
from ..tables.formulas.expressions import Observables, declared
from ..training import run_directory
from .differences import Difference, differences, with_paired_separations
from .evaluate import Evaluation, cut_samples, evaluate
from .goodness_of_fit import GoodnessOfFit, goodness_of_fit
from .report.curves import Point
from .score_events import generate_like
from .score_samplers import Bench

REPORT = "report.json"


@dataclass(frozen=True)
class Entry:
    """One entry of a comparison: its scores, and where known its events, its run and its cost.

    ``of`` is the file or folder it was read from, as `names_of` calls it; ``sampler`` that of the
    run, None for that of its training; ``us_per_event`` CPU microseconds per kept event.
    """

    name: str
    evaluation: Evaluation
    events: EventTable | None = None
    run: run_directory.Source | None = None
    of: str = ""
    sampler: Mapping[str, Any] | None = None
    us_per_event: float | None = None


@dataclass(frozen=True)
class Truth:
    """Events to judge by. Without ``training`` the floor comes from halves of the real ones.

    ``observables`` and ``particles`` as for `evaluate`, for all entries alike.
    """

    real: EventTable
    training: EventTable | None
    seed: int = 0
    quick: bool = False
    observables: Sequence[str] | None = None
    particles: Mapping[str, Any] | None = None

    def like(self, events: EventTable) -> tuple[EventTable, EventTable | None]:
        """Return real and training events with the columns of others."""
        return self.real.like(events), self.training and self.training.like(events)

    @cached_property
    def derived(self) -> Observables:
        """The observables of every entry."""
        return declared(self.observables, self.particles)[0]

    @classmethod
    def for_entries(
        cls,
        paths: Sequence[str],
        real: EventTable,
        training: EventTable | None,
        observables: Sequence[str] | None = None,
        particles: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> Truth:
        """Return the truth with what the runs among entries declare, where nothing else is said.

        Raises ConfigError if runs declare observables or particles of one name differently.
        """
        found: dict[str, dict[str, Any]] = {"observable": {}, "particle": {}}
        for path in filter(is_run, map(Path, paths)):
            known = run_directory.read_plan(run_directory.open_run(path))["fingerprint"]["settings"]
            declared_there = known.get("observables") or ()
            texts = {text.partition("=")[0].strip(): text for text in declared_there}
            specs = {"particle": known.get("particles") or {}}
            specs |= {"observable": texts} if observables is None else {}
            for kind, one in specs.items():
                for name, spec in one.items():
                    if name not in (particles or {}) and found[kind].setdefault(name, spec) != spec:
                        raise ConfigError(
                            f"runs declare the {kind} {name!r} differently: {spec!r} of {path},"
                            f" before {found[kind][name]!r}; say which with --{kind}"
                        )
        if observables is None and particles is None:
            observables = list(found["observable"].values())
        particles = {**found["particle"], **(particles or {})} or None
        return cls(real, training, observables=observables, particles=particles, **settings)


def names_of(paths: Sequence[str | Path]) -> list[str]:
    """Return short names of paths: the last part, or as many parts as tell them apart."""
    parts = [Path(path).resolve().parts for path in paths]
    for count in range(1, max(len(p) for p in parts) + 1):
        names = ["/".join(p[-count:]) for p in parts]
        if len(set(names)) == len(names):
            return names
    raise ConfigError(f"something is named twice: {', '.join(map(str, paths))}")


def read_entry(
    name: str, path: Path, truth: Truth | None, sampler: Mapping[str, Any] | None = None
) -> Entry:
    """Return a report as it is, a sample or a run judged now.

    Raises ConfigError if something must be judged and there are no real events for it.
    """
    if exists(path / REPORT):
        return Entry(name, Evaluation.from_json(atomic_files.read_json(path / REPORT)))
    if truth is None:
        raise ConfigError(f"{path} is no report; to judge it now say by what: --real FILE")
    if not is_run(path):
        events = read_table(path)
        return Entry(name, _judged(events, truth, read_attributes(path)), events)
    source = run_directory.open_run(path)
    flow = Flow(source, sampler=sampler)
    real = truth.real.as_conditions(flow.condition_names)
    made = generate_like(flow, real, truth.seed, real.n)
    scores = _judged(made.table, truth, flow.record(truth.seed), flow.settings.get("relations", ()))
    return Entry(
        *(name, scores, made.table, source), sampler=sampler, us_per_event=made.us_per_event
    )


def is_run(path: Path) -> bool:
    """Return whether a path is a run folder or a model file, and neither report nor events."""
    return (isdir(path) and not exists(path / REPORT)) or path.suffix == ".flowbdt"


def _judged(
    events: EventTable, truth: Truth, record: dict[str, Any], relations: Sequence[str] = ()
) -> Evaluation:
    real, training = truth.like(events)
    options: dict[str, Any] = {
        name: getattr(truth, name) for name in ("observables", "particles", "seed", "quick")
    }
    options["relations"] = relations
    return evaluate(real, events, training=training, provenance=record, **options)


def usable_samplers(
    paths: Sequence[str], samplers: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, list[Mapping[str, Any]]], list[str]]:
    """Return for each path that is a run the samplers that it can do, and why not the others."""
    usable: dict[str, list[Mapping[str, Any]]] = {}
    left_out: list[str] = []
    for name, path in zip(names_of(paths), paths, strict=True):
        usable[path] = []
        for spec in samplers if is_run(Path(path)) else ():
            try:
                Flow(run_directory.open_run(Path(path)), sampler=spec, compiled=False)
                usable[path].append(spec)
            except (GridError, ConfigError) as error:
                left_out.append(f"{name} ({sampler_name(spec)}): {error}")
    return usable, left_out


def read_entries(
    paths: Sequence[str],
    truth: Truth | None,
    samplers: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
) -> list[Entry]:
    """Return all entries under names that tell them apart, runs with their samplers as well."""
    entries = []
    for name, path in zip(names_of(paths), map(Path, paths), strict=True):
        entries.append(replace(read_entry(name, path, truth), of=name))
        _check_columns(entries)
        for sampler in (samplers or {}).get(str(path), ()):
            entry = read_entry(f"{name} ({sampler_name(sampler)})", path, truth, sampler)
            entries.append(replace(entry, of=name))
    return entries


def _check_columns(entries: Sequence[Entry]) -> None:
    """Refuse events with other columns than those of the entries before."""
    columns = [(e.name, sorted(e.events.names)) for e in entries if e.events is not None]
    if columns and columns[0][1] != columns[-1][1]:
        (first, known), (last, others) = columns[0], columns[-1]
        raise InputError(
            f"{first} has the columns {', '.join(known)}, but {last} has {', '.join(others)}:"
            " scores of other columns cannot be compared; name files and runs with the same ones"
        )


def sampler_name(spec: Mapping[str, Any]) -> str:
    """Return what a sampler is called: ``heun, n_steps 4``."""
    solver = spec.get("solver")
    name = "" if solver is None else spec_name(solver)
    if isinstance(solver, Mapping):
        name += "".join(f" {k} {v}" for k, v in solver.items() if k != "name")
    rest = {k: v for k, v in spec.items() if k != "solver"}
    rest |= {k: f"{v[0]:g}..{v[-1]:g}" for k, v in rest.items() if isinstance(v, list) and v}
    return ", ".join(filter(None, [name, *(f"{k} {v}" for k, v in rest.items())]))


def samples_of(
    entries: Sequence[Entry], truth: Truth | None
) -> tuple[dict[str, EventTable], EventTable | None, EventTable | None]:
    """Return the events that are known, and real and training events with their columns."""
    samples = {entry.name: entry.events for entry in entries if entry.events is not None}
    if truth is None or not samples:
        return {}, None, None
    real, training = truth.like(next(iter(samples.values())))
    add = truth.derived.added_to
    return {k: add(t) for k, t in samples.items()}, add(real), training and add(training)


def held_against_each_other(entries: Sequence[Entry], truth: Truth | None) -> list[Difference]:
    """Return all differences, paired as far as can be.

    Separations are paired where the scores come from the same real events: those, and as many
    generated ones, are cut as the evaluation cut them, for errors grow as events become fewer.
    """
    result = differences({entry.name: entry.evaluation for entry in entries})
    if truth is None:
        return result
    groups: dict[str, tuple[EventTable, dict[str, EventTable]]] = {}
    for entry in entries:
        if entry.events is not None:
            real, training = truth.like(entry.events)
            cut = cut_samples(real, entry.events, training, truth.seed, truth.derived)
            same = f"{cut.real.n} {sorted(cut.real.categories.items())}"
            groups.setdefault(same, (cut.real, {}))[1][entry.name] = cut.generated
    for real, samples in groups.values():
        result = with_paired_separations(result, real, samples, truth.seed)
    return result


def fits(
    entries: Sequence[Entry], truth: Truth | None, by: str | None = None
) -> dict[str, GoodnessOfFit]:
    """Return the test of every entry's events against the real ones; reports have no events."""
    samples, real, _ = samples_of(entries, truth)
    assert truth is not None
    return {
        name: goodness_of_fit(real, table, by=by, seed=truth.seed)
        for name, table in samples.items()
    }


def described(entry: Entry) -> dict[str, Any]:
    """Return what a report shows of the run of an entry: steps, settings, digest, events, cost."""
    if entry.run is None:
        return {}
    manifest = atomic_files.parse_json(entry.run.read("manifest.json"), "manifest.json")
    plan = run_directory.read_plan(entry.run)
    return {
        "steps": manifest["steps"],
        "settings": {**plan["fingerprint"]["settings"], "grid": plan["grid"]},
        "digest": plan["digest"],
        "events seen": {"training": plan["n_train"], "validation": plan["n_valid"]},
        "times": plan["grid"]["times"],
        "us_per_event": entry.us_per_event,
    }


def quality_points(
    entries: Sequence[Entry], truth: Truth | None, numbers: Sequence[int]
) -> tuple[dict[str, list[Point]], list[str]]:
    """Return the mean separation of each run and solver at the numbers of evaluations.

    Also what cannot be had of it, with the reason.
    """
    curves: dict[str, list[Point]] = {}
    missing: list[str] = []
    if truth is None or not numbers:
        return curves, missing
    for entry in entries:
        if entry.run is None:
            missing.append(f"{entry.name}: events and scores only, no run to try other samplers on")
            continue
        try:
            bench = _bench(entry, entry.run, truth)
        except ConfigError as error:  # such as a run that starts from source events
            missing.append(f"{entry.name}: {error}")
            continue
        name, spec = _solver_of(entry, bench)
        if name in curves:  # two samplers that differ in the number of steps only
            continue
        curves[name] = []
        reasons: dict[str, list[str]] = {}
        for number in sorted(set(numbers)):
            point = _point(bench, spec, number)
            if isinstance(point, Point):
                curves[name].append(point)
            else:
                reasons.setdefault(point, []).append(str(number))
        missing += [f"{name} at {', '.join(those)}: {why}" for why, those in reasons.items()]
    return curves, missing


def _bench(entry: Entry, run: run_directory.Source, truth: Truth) -> Bench:
    """Return a bench for samplers of a run, with as many events as its floor has."""
    real = truth.real if entry.events is None else truth.real.like(entry.events)
    few = real.take(slice(0, entry.evaluation.sizes["compared"]))
    return Bench(run, few, "separation", seed=truth.seed, n_threads=1)


def _solver_of(entry: Entry, bench: Bench) -> tuple[str, dict[str, Any]]:
    """Return solver and spacing of an entry, and a name for them."""
    chosen = {k: v for k, v in (entry.sampler or {}).items() if k in ("solver", "spacing")}
    spec = {**{k: bench.flow.settings[k] for k in ("solver", "spacing")}, **chosen}
    if isinstance(spec["spacing"], list):  # boundaries of one number of steps
        spec["spacing"] = "uniform"
        chosen.pop("spacing", None)
    return f"{entry.of} ({sampler_name({'solver': spec['solver'], **chosen})})", spec


def _point(bench: Bench, spec: Mapping[str, Any], number: int) -> Point | str:
    """Return the score of a solver within so many evaluations, or the reason why there is none."""
    solver = SOLVERS.build(spec["solver"])
    try:
        steps = steps_within(solver, number, bench.convention, spec["spacing"])
        sampler = {**spec, "n_steps": steps, "interpolate": True}
        result = bench.result(sampler)
    except GridError:
        first, last = bench.flow.grid.times[[0, -1]]
        return f"it would need times outside of those trained, t = {first:.4g} to {last:.4g}"
    except ConfigError as error:
        return str(error)
    made = len(evaluations(solver, bench.boundaries(sampler), bench.convention))
    micros = 1e6 * bench.cpu_s / bench.real.n
    return Point(made, micros, result.value, result.error, bench.real.n)
