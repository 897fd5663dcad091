"""What the commands for jobs do: plan a run, train single steps, submit, collect."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from ..errors import ConfigError, FlowbdtError, RunError
from ..generation.learn_rejection import learn_rejection
from ..generation.sample_jobs import SampleJobs, merge, plan_sample
from ..tables.formats import read_conditions, read_table
from ..training.collect import collect, missing_steps
from ..training.executors import Executor, HTCondor, Work
from ..training.executors.base import reason
from ..training.executors.htcondor.pool import connect
from ..training.executors.htcondor.submissions import Submissions, written
from ..training.executors.htcondor.submit_files import Place, Stage, single
from ..training.executors.local import available_cpus
from ..training.executors.work import name_of
from ..training.plan import make_plan
from ..training.run_directory import RunDirectory, task_name
from ..training.step_jobs import STEPS
from .fit_and_generate import checked_executor, prepare, read_sampler


def plan(options: argparse.Namespace) -> str:
    """Write the run directory with one task per step; return what to do next."""
    inputs = prepare(options)
    run = RunDirectory(options.output)
    n_steps = len(make_plan(inputs, run)["grid"]["times"])
    folder = quoted(run.path)
    return (
        f"{run.path}: {n_steps} tasks, 0 to {n_steps - 1}. Train one anywhere with: flowbdt step"
        f" {folder} 0   all on HTCondor: flowbdt submit {folder}   all here: flowbdt fit -o"
        f" {folder} --resume"
    )


def quoted(path: Path | str) -> str:
    """Return a path as it is typed in a shell."""
    return shlex.quote(str(path))


def planned(path: str | Path) -> RunDirectory:
    """Open a planned run. Raises ConfigError if it is none."""
    run = RunDirectory(path)
    if not run.is_planned():
        raise ConfigError(
            f"{run.path} holds no planned run; start with: flowbdt plan TABLE -o {quoted(path)}"
        )
    return run


def step(path: str, steps: Sequence[int], n_threads: int | None) -> Iterator[str]:
    """Train steps one after the other; yield a line for each. See `job` for what happens."""
    for number in steps:
        _check_task(RunDirectory(path), number)
        report = job(STEPS, path, number, n_threads)
        if report is None:
            yield f"step {number} is done already"
            continue
        loss = report["train_rmse"] if report["valid_rmse"] is None else report["valid_rmse"]
        yield (
            f"step {number}: t = {report['time']:.4g}, {report['trees']} trees, rmse {loss:.5g},"
            f" {report['seconds']:.1f} s, {report['peak_mib']:.0f} MiB"
        )


def _check_task(run: RunDirectory, number: int) -> None:
    if not run.file(task_name(number)).exists():
        known = sorted(int(path.stem) for path in run.path.glob("tasks/[0-9]*.json"))
        raise ConfigError(
            f"{run.path} has no task {number}; "
            + (
                f"it has {known[0]} to {known[-1]}"
                if known
                else "it is no planned run: start with 'flowbdt plan TABLE -o RUN'"
            )
        )


def job(work: Work, path: str, number: int, n_threads: int | None) -> dict[str, Any] | None:
    """Do one job in the folder of a run, or in one that holds a copy of the files it needs.

    Returns its report; None if it was done before. When a batch system takes the machine away
    (SIGTERM), half-written files are removed and the process ends with status 143.

    Raises
    ------
    RunError
        With the number and the reason. The traceback goes to standard error if the reason is none
        that flowBDT foresees.
    """
    run = RunDirectory(path)
    if work.report(run, number) is not None:
        return None
    before = signal.signal(signal.SIGTERM, _leave)
    try:
        return work.do(path, number, n_threads or available_cpus())
    except FlowbdtError as error:
        raise RunError(f"{work.noun} {number} failed: {reason(error)}") from error
    except (Exception, MemoryError) as error:
        traceback.print_exc()
        raise RunError(f"{work.noun} {number} failed: {reason(error)}") from error
    finally:
        signal.signal(signal.SIGTERM, before)


def _leave(*_: Any) -> NoReturn:
    """Unwind the stack, so that temporary files are removed."""
    sys.exit(128 + signal.SIGTERM)


def step_files(path: str, steps: Sequence[int]) -> Iterator[str]:
    """Yield what must be copied to train steps elsewhere, and what to bring back."""
    run = planned(path)
    inputs = {name for number in steps for name in STEPS.inputs(run, name_of(number))}
    yield from (f"copy {name}" for name in sorted(inputs))
    for number in steps:
        yield from (f"bring {name}" for name in STEPS.result(name_of(number)))


def part(path: str, sample: str, number: int, n_threads: int | None) -> str:
    """Generate one part of a sample; return a line about it. See `job` for what happens."""
    report = job(SampleJobs(sample), path, number, n_threads)
    if report is None:
        return f"part {number} of {sample} is done already"
    return f"part {number} of {sample}: {report['rows']} events, {report['seconds']:.1f} s"


def merge_sample(path: Path, sample: str) -> str:
    """Put the parts of a sample together; return a line about it."""
    return merge(planned(path), SampleJobs(sample))


def collect_run(path: Path) -> str:
    """Check and close a run, with what is learned after the steps; return what to do next.

    Raises IncompleteRun if steps are missing.
    """
    run = planned(path)
    collect(run)
    learn_rejection(run)
    return f"complete: {path}   next: flowbdt generate {quoted(path)} -n 100000 -o new.h5"


def submit(options: argparse.Namespace) -> str:
    """Send what is missing to HTCondor and return, or print what would be sent.

    Generation may use any executor; others than htcondor do it here, before this returns.
    """
    run = planned(options.run)
    executor = checked_executor(options, "htcondor")
    _check_submit(options, run)
    work = _sample(options, run)
    if not isinstance(executor, HTCondor):
        return _generate_here(run, work, executor, options)
    submissions = Submissions(run)
    if options.dry_run:
        return _description(run, executor, options, submissions, work)
    pool = connect(executor.bindings)
    submissions.compare(pool)
    _refuse_second(run, submissions)
    place = submissions.place()
    stages = _stages(run, executor, options, place, work)
    if not any(stage.numbers for stage in stages) and not options.dag:
        return f"nothing to submit: all is there; flowbdt collect {quoted(run.path)} closes the run"
    sent = submissions.submit(place, stages, executor, pool, as_dag=options.dag)
    return (
        f"{len(sent.jobs)} jobs submitted, cluster {sent.record['cluster']}; follow them with:"
        f" flowbdt watch {quoted(run.path)}"
    )


def _check_submit(options: argparse.Namespace, run: RunDirectory) -> None:
    if (options.generate is None) != (options.output is None):
        raise ConfigError("--generate N and -o FILE go together: how many events, and where to")
    if options.evaluate is not None and not (options.dag and options.generate):
        raise ConfigError("--evaluate judges what --generate makes, and comes after it: add --dag")
    if options.generate and not options.dag and not run.file("manifest.json").exists():
        raise ConfigError(
            f"{run.path} is not complete: train it first, or let --dag do one after the other"
        )


def _sample(options: argparse.Namespace, run: RunDirectory) -> SampleJobs | None:
    """Return the parts of the sample that is asked for, planned; None if none is."""
    if options.generate is None:
        return None
    cond = None if options.conditions is None else read_conditions(options.conditions)
    source = None if options.source is None else read_table(options.source)
    return plan_sample(
        run,
        options.output,
        options.generate,
        seed=options.seed,
        parts=options.parts,
        cond=cond,
        source=source,
        sampler=read_sampler(options.sampler),
    )


def _generate_here(
    run: RunDirectory, work: SampleJobs | None, executor: Executor, options: argparse.Namespace
) -> str:
    if work is None or options.dag or options.dry_run:
        raise ConfigError(
            f"'flowbdt submit' sends jobs to HTCondor and returns; to train with the executor"
            f" {options.executor!r}: flowbdt fit -o {quoted(run.path)} --resume --executor"
            f" {options.executor}"
        )
    for report in executor.run(run, work.missing(run), work):
        if "error" in report:
            print(f"part {report['part']} failed: {report['error']}", file=sys.stderr)
    return merge(run, work)


def _refuse_second(run: RunDirectory, submissions: Submissions) -> None:
    live = next(submissions.live(), None)
    if live is not None:
        raise RunError(
            f"{run.path} has jobs in the queue already; follow them with: flowbdt watch"
            f" {quoted(run.path)}, or give them up with: condor_rm -constraint"
            f" 'FlowbdtSubmission == \"{live.mark}\"'"
        )


def _description(
    run: RunDirectory,
    executor: HTCondor,
    options: argparse.Namespace,
    submissions: Submissions,
    work: SampleJobs | None,
) -> str:
    place = Place(run.path.resolve(), submissions.next_folder(), "dry-run")
    texts = written(_stages(run, executor, options, place, work), executor, as_dag=options.dag)
    if executor.pack is None:
        texts.pop("job.sh")
    return "\n".join(f"# ---- {place.folder}/{name}\n{text}" for name, text in texts.items())


def _stages(
    run: RunDirectory,
    executor: HTCondor,
    options: argparse.Namespace,
    place: Place,
    work: SampleJobs | None,
) -> list[Stage]:
    """Return what is missing, in order: steps, then what comes after them."""
    stages = []
    missing = [] if work and not options.dag else missing_steps(run)
    if missing:
        stages.append(executor.stage(run, missing, STEPS, place))
    if options.dag:
        stages.append(single("collect", ["collect", "."], executor.complete(), place))
    if work is not None:
        parts = work.missing(run)
        stages += [executor.stage(run, parts, work, place)] if parts else []
        words = ["merge", ".", work.sample]
        stages += [single("merge", words, executor.complete(), place)] if options.dag else []
    if options.evaluate is not None and work is not None:
        real, new = Path(options.evaluate).resolve(), options.output.resolve()
        words = ["evaluate", str(real), str(new), "-o", work.file("report")]
        stages.append(single("evaluate", words, executor.complete(), place))
    return stages
