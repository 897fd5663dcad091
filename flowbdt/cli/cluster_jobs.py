"""Commands for jobs: plan a run, do single jobs, submit, collect."""

from __future__ import annotations

import contextlib
import itertools
import os
import shlex
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import ConfigError, FlowbdtError, InputError, RunError, plural
from . import options
from .fit_runs import planning, read_config, read_with_found
from .generate_events import sampling
from .options import NUMBER, TABLES, say, show

if TYPE_CHECKING:
    from ..generation.sample_jobs import SampleJobs
    from ..training.executors import BatchExecutor, Executor, JobKind
    from ..training.executors.submission_records import Place
    from ..training.run_directory import RunDirectory

sample_argument = click.argument("sample", help="Name of the file of the sample, without ending.")


def quoted(path: Path | str) -> str:
    """Return a path as it is typed in a shell."""
    return shlex.quote(str(path))


def open_planned(path: Path) -> RunDirectory:
    """Open a planned run. Raises ConfigError if it is none."""
    from ..training.run_directory import RunDirectory

    run = RunDirectory(path)
    if not run.is_planned():
        raise _no_planned_run(run.path)
    return run


def _no_planned_run(path: Path) -> ConfigError:
    from ..training.run_directory import ENSEMBLE

    if (path / ENSEMBLE).exists():
        return ConfigError(
            f"{path} is an ensemble: name one of its runs, such as {path / 'replica_0'}, or go on"
            f" with all: flowbdt fit -o {quoted(path)} --resume"
        )
    return ConfigError(
        f"{path} holds no planned run; start with: flowbdt plan TABLE -o {quoted(path)}"
    )


@click.command()
@planning
@options.printing
def plan_command(
    table: Path | None, output: Path | None, config: Path | None, **changes: Any
) -> None:
    """Write a run folder with one task per step."""
    from ..training.plan import make_plan
    from ..training.run_directory import RunDirectory, n_jobs

    inputs = read_with_found(table, read_config(config, **changes))
    if output is None:
        raise InputError("say where the run goes: flowbdt plan TABLE -o RUN")
    n_steps = n_jobs(make_plan(inputs, RunDirectory(output)))
    folder = quoted(output)
    say(
        f"{output}: {n_steps} tasks, 0 to {n_steps - 1}. Train one anywhere with: flowbdt step"
        f" {folder} 0   all on a cluster: flowbdt submit {folder}   all here: flowbdt fit -o"
        f" {folder} --resume",
        run=output,
        tasks=n_steps,
    )


@click.command()
@options.planned
@click.argument(
    "steps",
    nargs=-1,
    required=True,
    type=options.joined_numbers,
    metavar="STEP...",
    help="From 0.",
)
@options.threads
@options.flag("--files", "Only print what to copy to train elsewhere, and what to bring back.")
@options.printing
def step_command(run: Path, steps: Sequence[list[int]], n_threads: int | None, files: bool) -> None:
    """Train steps of a planned run, here and now.

    One that fails does not stop the others.
    """
    from ..atomic_files import make_folder
    from ..training.executors import STEPS
    from ..training.numbered_jobs import name_of

    numbers = list(itertools.chain.from_iterable(steps))
    if files:
        folder, names = open_planned(run), [name_of(number) for number in numbers]
        copied = sorted({file for name in names for file in STEPS.inputs(folder, name)})
        brought = [file for name in names for file in STEPS.result(name)]
        lines = [f"copy {file}" for file in copied] + [f"bring {file}" for file in brought]
        show("\n".join(lines), copy=copied, bring=brought)
        return
    for number in numbers:
        _check_task(run, number)
    make_folder(run / "steps")  # a batch job brings it back, whatever is in it
    failures = []
    for number in numbers:
        try:
            report = do_job(STEPS, run, number, n_threads)
        except RunError as error:
            failures.append(str(error))
            continue
        if report is None:
            say(f"step {number} is done already", steps=[])
            continue
        say(
            f"step {number}: {_learned(report)}, {report['seconds']:.1f} s,"
            f" {report['peak_mib']:.0f} MiB",
            steps=[report],
        )
    if failures:
        raise RunError("; ".join(failures))


def _learned(report: Mapping[str, Any]) -> str:
    """Return what a job has learned: a velocity, or the classifier of a column."""
    if "column" in report:
        return f"{report['name']}, {report['trees']} rounds, log loss {report['log_loss']:.4g}"
    loss = report["train_rmse"] if report["valid_rmse"] is None else report["valid_rmse"]
    return f"t = {report['time']:.4g}, {report['trees']} trees, rmse {loss:.5g}"


def _check_task(path: Path, number: int) -> None:
    from ..training.run_directory import task_name

    names = (task.stem for task in path.glob("tasks/[0-9]*.json"))
    known = sorted(int(name) for name in names if name.isdecimal())
    if not known:
        raise _no_planned_run(path)
    if not (path / task_name(number)).exists():
        raise ConfigError(f"{path} has no task {number}; it has {known[0]} to {known[-1]}")


def do_job(work: JobKind, path: Path, number: int, n_threads: int | None) -> dict[str, Any] | None:
    """Do one job in the folder of a run, or in one that holds a copy of the files it needs.

    Returns its report; None if it was done before. Raises RunError with the number and the reason;
    an unforeseen error also leaves its traceback on standard error.
    """
    from ..training.executors.base import reason
    from ..training.run_directory import RunDirectory
    from ..training.threads import checked_threads

    if work.report(RunDirectory(path), number) is not None:
        return None
    try:
        return work.do(str(path), number, checked_threads(n_threads))
    except Exception as error:
        if not isinstance(error, (FlowbdtError, MemoryError)):
            traceback.print_exc()
        raise RunError(f"{work.noun} {number} failed: {reason(error)}") from error


@click.command()
@options.planned
@options.printing
def collect_command(run: Path) -> None:
    """Check all steps of a run and close it."""
    say(close_run(run), run=run)


def close_run(path: Path) -> str:
    """Check and close a run, with what is learned after the steps; return what to do next.

    Raises IncompleteRun if steps are missing.
    """
    from ..generation.learn_rejection import learn_rejection
    from ..training.collect import collect_steps

    run = open_planned(path)
    collect_steps(run)
    learn_rejection(run)
    return f"complete: {path}   next: flowbdt generate {quoted(path)} -n 100000 -o new.h5"


@click.command()
@options.planned
@sample_argument
@click.argument("number", type=NUMBER, metavar="PART", help="Number, from 0.")
@options.threads
@options.printing
def part_command(run: Path, sample: str, number: int, n_threads: int | None) -> None:
    """Generate one part of a submitted sample."""
    from ..generation.sample_jobs import SampleJobs

    report = do_job(SampleJobs(sample), run, number, n_threads)
    say(
        f"part {number} of {sample} is done already"
        if report is None
        else f"part {number} of {sample}: {report['rows']} events, {report['seconds']:.1f} s",
        part=report,
    )


@click.command()
@options.planned
@sample_argument
@options.printing
def merge_command(run: Path, sample: str) -> None:
    """Join the parts of a sample in one file."""
    from ..generation.sample_jobs import SampleJobs, assemble_sample

    folder, jobs = open_planned(run), SampleJobs(sample)
    say(assemble_sample(folder, jobs), samples=[jobs.plan(folder)["output"]])


@click.command()
@options.planned
@options.assignments("A setting of the executor, e.g. executor.request_memory=2000; repeatable.")
@options.executor
@options.flag("--dag", "Submit one DAG: steps, collect, then generate and evaluate.")
@options.flag("--dry-run", "Print everything that would be submitted.")
@options.integer("--generate", "events", help="Generate N events with the trained run, in parts.")
@options.output("FILE", f"File of the generated events: {TABLES}.")
@options.integer("--parts", help="Jobs to generate in; by default one per 250,000 events.")
@sampling
@options.file("--evaluate", "real", metavar="REAL", help="Real events to judge the new ones by.")
@options.file("--training", help="Events trained on, for the floor of --evaluate.")
@options.printing
def submit_command(
    run: Path,
    executor: str | None,
    settings: Sequence[str],
    dag: bool,
    dry_run: bool,
    events: int | None,
    output: Path | None,
    cond: Path | None,
    source: Path | None,
    real: Path | None,
    training: Path | None,
    **sampling: Any,
) -> None:
    """Send the missing jobs of a run to HTCondor or Slurm.

    Another executor can only generate events. It does so here, before the command returns.
    """
    from ..atomic_files import check_target
    from ..generation.sample_jobs import assemble_sample, plan_sample
    from ..tables.formats import read_conditions, read_table
    from ..training.executors import BatchExecutor

    planned = open_planned(run)
    backend = _planned_executor(run, executor or "htcondor", settings)
    if (events is None) != (output is None):
        raise ConfigError("--generate N and -o FILE go together: how many events, and where to")
    if events is None:
        options.refuse_given(
            "only --generate N makes events",
            *("cond", "source", "parts", "seed", "outside", "sampler"),
        )
    if real is not None and not (dag and events):
        raise ConfigError("--evaluate judges what --generate makes, and comes after it: add --dag")
    if training is not None and real is None:
        raise ConfigError("--training gives the floor of --evaluate REAL: add the real events")
    if events and not dag and not planned.file("manifest.json").exists():
        raise ConfigError(f"{run} is not complete: train it first, or let --dag do both in order")
    if not isinstance(backend, BatchExecutor) and (events is None or dag or dry_run):
        raise ConfigError(
            "'flowbdt submit' sends jobs to HTCondor or Slurm and returns; to train with the"
            f" executor {executor!r}: flowbdt fit -o {quoted(run)} --resume --executor {executor}"
        )
    if output is not None:
        check_target(output)
    sampling.update(cond=cond and read_conditions(cond), source=source and read_table(source))
    judged = [] if real is None or output is None else [str(real.resolve()), str(output.resolve())]
    judged += [] if training is None else ["--training", str(training.resolve())]
    sample = None
    with _links(planned) if dry_run else contextlib.nullcontext(planned) as seen:
        if events is not None and output is not None:
            sample = plan_sample(seen, output, events, **sampling)
        if isinstance(backend, BatchExecutor):
            stages = partial(_stages, seen, backend, sample, judged, dag)
            _submit(planned, backend, stages, dag, dry_run)
    if sample is not None and not isinstance(backend, BatchExecutor):
        for report in backend.run(planned, sample.missing(planned), sample):
            if "error" in report:
                click.echo(f"part {report['part']} failed: {report['error']}", err=True)
        say(assemble_sample(planned, sample), samples=[output])


@contextlib.contextmanager
def _links(run: RunDirectory) -> Iterator[RunDirectory]:
    """Yield a folder of links to the files of a run; what is written there is forgotten."""
    from ..training.run_directory import RunDirectory

    with tempfile.TemporaryDirectory(prefix="flowbdt-") as folder:
        shutil.copytree(run.path.resolve(), folder, copy_function=os.symlink, dirs_exist_ok=True)
        yield RunDirectory(folder)


def _planned_executor(run: Path, name: str, settings: Sequence[str]) -> Executor:
    """Return an executor for a planned run. Raises ConfigError for a setting of anything else."""
    from ..training.executors import EXECUTORS

    recorded = run / "config.yaml"
    other = [text for text in settings if not text.startswith("executor")]
    if other:
        raise ConfigError(
            f"{run} is planned; only settings of the executor can change: {other[0]!r}"
        )
    config = read_config(recorded if recorded.exists() else None, name, settings, folder=run)
    return EXECUTORS.build(config.executor)


def _submit(
    run: RunDirectory,
    executor: BatchExecutor,
    stages: Callable[[Place], list[Any]],
    dag: bool,
    dry_run: bool,
) -> None:
    """Submit, or with ``dry_run`` show the files that would be submitted."""
    from ..training.executors.submission_records import Place

    submissions = executor.submissions(run)
    if dry_run:
        place = Place(run.path.resolve(), submissions.next_folder(), "dry-run")
        texts = submissions.written(stages(place), executor, place, dag)
        files = {f"{place.folder}/{name}": text for name, text in texts.items()}
        say("\n".join(f"# ---- {name}\n{text}" for name, text in files.items()), files=files)
        return
    queue = submissions.queue.connect()
    submissions.compare(queue)
    live = next(submissions.live(), None)
    if live is not None:
        raise RunError(
            f"{run.path} has jobs in the queue already; follow them with: flowbdt watch"
            f" {quoted(run.path)}, or give them up with: {submissions.how_to_remove(live)}"
        )
    place = submissions.place()
    todo = stages(place)
    if not any(stage.batches for stage in todo) and not dag:
        close = f"flowbdt collect {quoted(run.path)} closes the run"
        say(f"nothing to submit: all is there; {close}", jobs={})
        return
    sent = submissions.submit(place, todo, executor, queue, as_dag=dag)
    n_numbers = sum(len(job.members) for job in sent.jobs.values())
    several = f" ({n_numbers} steps)" if n_numbers > len(sent.jobs) else ""
    say(
        f"{plural(len(sent.jobs), 'job')} submitted{several}, {sent.title};"
        f" follow them with: flowbdt watch {quoted(run.path)}",
        jobs={name: job.members for name, job in sent.jobs.items()},
        title=sent.title,
    )


def _stages(
    run: RunDirectory,
    executor: BatchExecutor,
    sample: SampleJobs | None,
    judged: Sequence[str],
    dag: bool,
    place: Place,
) -> list[Any]:
    """Return what is missing, in order: steps, then what comes after them."""
    from ..training.executors import STEPS

    def one(*words: str) -> Any:
        return executor.single(words[0], list(words), place)

    submissions = executor.submissions(run)
    missing = [] if sample and not dag else run.missing_steps()
    stages = [executor.stage(submissions, missing, STEPS, place)] if missing else []
    stages += [one("collect", ".")] if dag else []
    if sample is not None:
        parts = sample.missing(run)
        stages += [executor.stage(submissions, parts, sample, place)] if parts else []
        stages += [one("merge", ".", sample.sample)] if dag else []
        if judged:
            stages.append(one("evaluate", *judged, "-o", sample.file("report")))
    return stages
