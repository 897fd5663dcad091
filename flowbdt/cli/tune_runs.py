"""Commands that make models from models: tuned settings, tuned samplers, students."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from ..errors import ConfigError, InputError
from . import options
from .cluster_jobs import do_job, quoted
from .fit_runs import read_config, read_events
from .options import NUMBER, PATH, TABLES, bar, say, show


@click.command()
@click.argument("table", type=PATH, required=False, help=f"No test events in it: {TABLES}.")
@options.output("STUDY", "Folder of the study.", required=True)
@options.file("--config", help="YAML file with the settings to start from.")
@options.file("--from", "start", metavar="RUN", help="Start from the settings of this run.")
@options.assignments("A setting to start from, or of the executor; repeatable.")
@options.executor
@click.option(
    "--budget", "budget_s", type=options.positive_float, metavar="SECONDS", help="CPU time."
)
@options.integer("--trials", "n_trials", help="Maximum number of trials.")
@click.option(
    "--objectives",
    metavar="NAMES",
    help="Scores and costs (train_s, us_per_event) to minimise; the first score decides. By default"
    " auc_gb,train_s.",
)
@options.mapping("--search", "{max_depth: [2, 5], n_steps: 8}", "Limits of parameters")
@click.option(
    "--max-cost",
    type=options.positive_float,
    metavar="X",
    help="Give up trials that would train X times as long as the start; by default 2.",
)
@options.integer("--folds", help="Folds of the cross-validation of each trial; by default none.")
@options.integer("--parallel", help="Trials proposed together.")
@options.flag("--resume", "Continue a study as it was begun, without repeating TABLE and options.")
@options.printing
def tune_command(
    table: Path | None,
    output: Path,
    config: Path | None,
    start: Path | None,
    settings: Sequence[str],
    executor: str | None,
    objectives: str | None,
    resume: bool,
    **limits: Any,
) -> None:
    """Find good settings for a table, and fit with the best."""
    from ..config import RunConfig
    from ..training.run_directory import RunDirectory
    from ..tuning.study import read_setup
    from ..tuning.trial_table import trial_text
    from ..tuning.tune_settings import tune

    if config is not None and start is not None:
        raise click.UsageError("--config and --from exclude each other")
    if table is None and not resume:
        raise InputError("the table to learn is needed: flowbdt tune TABLE -o STUDY")
    study = RunDirectory(output)
    begun = resume and study.file("study.json").exists()
    base = RunConfig.from_mapping(read_setup(study)["base"]) if begun else None
    file = config if start is None else start / "config.yaml"
    recorded = start or (output if begun and config is None else None)
    chosen = read_config(file, executor, settings, base, recorded)
    changed = recorded or executor or any(text.startswith("executor") for text in settings)
    tuned = tune(
        None if table is None else read_events(table, chosen),
        output,
        base=chosen,
        objectives=None if objectives is None else [n.strip() for n in objectives.split(",")],
        executor=chosen.executor if changed else None,
        resume=resume,
        on_trial=lambda report: say(trial_text(report), trials=[report]),
        **limits,
    )
    best = quoted(tuned.run.path)
    show(
        f"{tuned.text(read_setup(study)['objectives'])}\n\ncomplete: {best}"
        f"   next: flowbdt generate {best} -n 100000 -o new.h5",
        run=tuned.run.path,
    )


@click.command()
@click.argument("study", type=PATH, help="Folder of the study.")
@click.argument("number", type=NUMBER, metavar="TRIAL", help="Number, from 0.")
@options.threads
@options.printing
def trial_command(study: Path, number: int, n_threads: int | None) -> None:
    """Run one trial of a tuning study, here and now."""
    from ..training.run_directory import RunDirectory
    from ..tuning.study import read_setup
    from ..tuning.trial import TRIALS
    from ..tuning.trial_table import trial_text

    read_setup(RunDirectory(study))
    result = do_job(TRIALS, study, number, n_threads)
    text = f"trial {number} is done already" if result is None else trial_text(result)
    say(text, trial=result)


@click.command(cls=options.EvaluationsCommand)
@click.argument("run", type=PATH, help="Run folder or model file; or a network of showers.")
@click.argument(
    "table", type=PATH, help=f"Events it was not trained on: {TABLES}; showers for a network."
)
@options.output("FOLDER", "Folder for the samplers.", required=True)
@options.integer(
    "--evaluations",
    metavar="N...",
    multiple=True,
    default=(8, 16, 32),
    help="Evaluations of the velocity per event; one search for each number.",
)
@click.option("--metric", default="separation", metavar="NAME", help="Score to minimise.")
@click.option("--method", hidden=True, help="Removed: samplers are searched by scores only.")
@options.integer("--trials", "n_trials", default=60, help="Number of samplers to try.")
@click.option(
    "--interpolate",
    type=click.Choice(("auto", "yes", "no")),
    default="auto",
    help="Allow times between step models; auto: if there are few models.",
)
@options.seed()
@options.printing
def tune_sampler_command(
    run: Path,
    table: Path,
    output: Path,
    metric: str,
    method: str | None,
    interpolate: str,
    **search: Any,
) -> None:
    """Find a better solver and times for a run or shower network.

    Nothing is trained.
    """
    import yaml

    from ..atomic_files import make_folder, write_bytes, write_json
    from ..tables.formats import read_table
    from ..tuning.tune_sampler import tune_sampler
    from .shower_networks import network_file, tune_network

    if method is not None:
        raise ConfigError(
            "--method is gone: tune-sampler always searches by scores of the events (--metric), as"
            " methods without a score found nothing better; leave --method out"
        )
    make_folder(output)  # an error now, not at the end
    search |= {"metric": metric, "on_budget": lambda tuned: say(tuned.text(metric))}
    if (network := network_file(run)) is not None:
        options.refuse_given("a network knows all times", "interpolate")
        results = tune_network(network, table, **search)
    else:
        allowed = {"auto": None, "yes": True, "no": False}[interpolate]
        results = tune_sampler(run, read_table(table), interpolate=allowed, **search)
    budgets = [tuned.to_json() for tuned in results]
    write_json(output / "samplers.json", {"format": 1, "budgets": budgets})
    for tuned in results:
        text = yaml.safe_dump(tuned.sampler, default_flow_style=True, sort_keys=False, width=10_000)
        write_bytes(output / f"sampler_{tuned.evaluations}.yaml", text.encode())
    folder = quoted(output)
    what = f"generate {quoted(run)} -n 100000"
    what = what if network is None else f"showers generate {quoted(run)} {quoted(table)}"
    say(
        f"complete: {folder}/samplers.json   next: flowbdt {what}"
        f' -o new.h5 --sampler "$(cat {folder}/sampler_{results[0].evaluations}.yaml)"',
        budgets=budgets,
    )


@click.command()
@click.argument("teacher", type=PATH, help="Run folder or model file.")
@options.output("RUN", "Folder of the new run.", required=True)
@options.integer("--evaluations", default=1, metavar="K", help="1: more gained nothing.")
@options.integer("-n", "--events", help="Number of events of the teacher to learn from.")
@options.file("--training", help=f"Training events of the teacher, for a rejection: {TABLES}.")
@options.file("--test", help="Held-out real events to judge both runs by.")
@options.cond
@options.weight
@options.assignments("A setting of the student, e.g. booster.n_estimators=200; repeatable.")
@options.seed()
@options.flag("--resume", "Continue an interrupted RUN.")
@options.printing
def distil_command(
    teacher: Path,
    output: Path,
    evaluations: int,
    events: int | None,
    training: Path | None,
    test: Path | None,
    cond: Path | None,
    weight: str | None,
    settings: Sequence[str],
    seed: int,
    resume: bool,
) -> None:
    """Train a copy of a run that takes one step per event."""
    from ..config import RunConfig
    from ..generation.fit_run import fit_run
    from ..generation.trained_flow import Flow
    from ..tables.event_table import like_training
    from ..tables.formats import read_conditions, read_table
    from ..training.run_directory import open_run
    from ..tuning.distillation import N_PAIRS, compare_student, student_inputs

    if evaluations != 1:
        raise ConfigError(
            f"a student has one evaluation, got {evaluations}: more gained nothing over a run of as"
            " many steps that is trained on the data, with --set n_steps"
        )
    if training is None and test is None:
        options.refuse_given("it is a column of --training and --test", "weight")
    source = open_run(teacher)
    flow = Flow(source, 1)
    real = {
        name: None if path is None else like_training(read_table(path, weight=weight), flow.columns)
        for name, path in {"training": training, "test": test}.items()
    }
    plain, changed = asdict(RunConfig()), asdict(RunConfig().with_overrides(settings))
    inputs = student_inputs(
        source,
        n_pairs=events or N_PAIRS,
        training=real["training"],
        cond=None if cond is None else read_conditions(cond),
        seed=seed,
        settings={name: value for name, value in changed.items() if value != plain[name]},
    )
    with bar(total=1, desc="training", unit="step") as progress:
        run = fit_run(inputs, output, resume=resume, on_report=lambda _: progress.update())
    scores = compare_student(flow, Flow(run, 1), cond=inputs.table.cond, seed=seed, **real)
    run.write_json("distillation.json", scores.to_json())
    text = f"{run.path}: distilled from {flow.plan['digest'][:12]}\n\n{scores.text()}"
    say(text, run=run.path, **scores.to_json())
