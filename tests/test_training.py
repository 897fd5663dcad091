"""Plan, worker, resume: the same bytes however a run came to its end."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import PLAIN

from flowbdt import atomic_files
from flowbdt.config import ModelConfig
from flowbdt.errors import ConfigError, FormatError, InputError, RunError
from flowbdt.flow.closed_form import PRECONDITIONERS
from flowbdt.flow.couplings import COUPLINGS
from flowbdt.flow.paths import PATHS
from flowbdt.flow.step_inputs import StepInputs
from flowbdt.generation.fit_run import fit_run
from flowbdt.model import FlowBDT
from flowbdt.tables.event_table import EventTable
from flowbdt.tables.formats import write_table
from flowbdt.tables.transforms import JointTransform
from flowbdt.training import run_directory
from flowbdt.training.noisy_pairs import LatentEvents, NoisyPairs, TimeStep
from flowbdt.training.plan import Inputs, check_config, make_plan
from flowbdt.training.run_directory import RunDirectory, task_name
from flowbdt.training.train_step import run_task, training_pairs


def inputs(table, booster=None, seed=5, **settings):
    noise = {**PLAIN["noise"], "n_repeats": 2, **settings.pop("noise", {})}
    config = ModelConfig(
        **{"n_steps": 3, "booster": booster or {}, **PLAIN, **settings, "noise": noise}
    )
    return Inputs(table, config, seed)


def models(folder, n=3):
    return [RunDirectory(folder).read(run_directory.model_name(step)) for step in range(n)]


def plain_inputs(m):
    """Trees that see the point only, with nothing known in closed form."""
    nothing = PRECONDITIONERS.build("none").fit(np.zeros((1, m)), seed=0)
    joint = JointTransform("none").fit(np.zeros((1, m)))
    return StepInputs(nothing.at(PATHS.build("linear"), 0.4), joint, ["latent"])


def pairs(repeats=3, n=5000, **changes):
    rng = np.random.default_rng(0)
    events = LatentEvents(rng.normal(size=(n, 2)).astype("f4"), np.arange(n))
    settings = {"n_repeats": repeats, "seed": 1, "purpose": "train", **changes}
    return NoisyPairs(
        events,
        PATHS.build("linear"),
        COUPLINGS.build("independent"),
        TimeStep(2, 0.4, 0.5),
        inputs=plain_inputs(2),
        **settings,
    )


def test_two_passes_over_the_batches_are_equal():
    """XGBoost reads its data four or five times; with new noise each time it learns nothing."""
    source = pairs()
    for first, second in zip(source, source, strict=True):
        assert np.array_equal(first.inputs, second.inputs)
        assert np.array_equal(first.target, second.target)


def test_target_and_point_belong_together():
    # x_t = t x1 + (1 - t) x0 and u = x1 - x0, so x_t + (1 - t) u = x1
    source = pairs()
    rebuilt = np.concatenate([b.inputs + 0.6 * b.target for b in source])
    data = np.tile(source.events.z, (3, 1))
    assert np.allclose(rebuilt, data, atol=1e-5)


def test_every_event_is_used_in_every_repetition_with_other_noise():
    batches = list(pairs(repeats=2))
    assert sum(len(b.inputs) for b in batches) == 10_000
    first, second = np.split(np.concatenate([b.target for b in batches]), 2)
    assert not np.isclose(first, second).all(axis=1).any()


def test_blocks_of_noise_are_not_copies():
    """A peer restarted its generator in every batch: batches became copies of each other."""
    one, two = list(pairs(repeats=1))[:2]
    data = pairs().events.z
    x0 = [data[:900] - one.target[:900], data[4096:4996] - two.target[:900]]
    correlation = np.corrcoef(x0[0].ravel(), x0[1].ravel())[0, 1]
    assert abs(correlation) < 5 / np.sqrt(1800)


def test_training_and_validation_share_no_event(tmp_path, jets, quick_booster):
    run = RunDirectory(tmp_path / "run")
    plan = make_plan(inputs(jets, quick_booster, validation_fraction=0.3), run)
    train, valid = training_pairs(run, run.read_json(run_directory.task_name(0)))
    rows = set(train.events.rows), set(valid.events.rows)
    assert not rows[0] & rows[1]
    assert len(rows[0]) == plan["n_train"]
    assert len(rows[1]) == plan["n_valid"] > 0
    assert plan["n_train"] + plan["n_valid"] == jets.n


def test_transforms_are_fitted_on_training_rows_only(tmp_path, jets, quick_booster):
    run = RunDirectory(tmp_path / "a")
    make_plan(inputs(jets, quick_booster, validation_fraction=0.3), run)
    valid = np.asarray(run.array("valid"))
    x = jets.x.copy()
    x[np.flatnonzero(valid)[0], 0] = 1000.0
    other = RunDirectory(tmp_path / "b")
    make_plan(inputs(EventTable.of(x, jets.names), quick_booster, validation_fraction=0.3), other)
    assert run.read("transform.json") == other.read("transform.json")


def test_trained_times_are_what_the_solver_asks(jets, quick_booster):
    for solver, n in [("euler", 4), ("heun", 5), ("midpoint", 8), ("rk4", 9)]:
        grid = check_config(inputs(jets, quick_booster, solver=solver, n_steps=4).config)
        assert len(grid.times) == n, solver


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"solver": "eulr"}, "Did you mean 'euler'"),
        ({"path": {"name": "linear", "sgma": 1}}, "sigma"),
        ({"coupling": "none"}, "independent"),
        ({"noise": {"target": "mean"}}, "euler"),
        ({"noise": {"target": "score"}}, "velocity"),
        ({"noise": {"n_repeats": 0}}, "n_repeats"),
        ({"n_steps": 0}, "n_steps"),
        ({"validation_fraction": 1.0}, "validation_fraction"),
        ({"booster": {"max_dept": 3}}, "max_depth"),
        ({"booster": {"tree_method": "exact"}}, "fixed"),
        ({"booster": {"n_estimators": -1}}, "n_estimators"),
        ({"booster": {"early_stopping_rounds": 5}, "validation_fraction": 0.0}, "validation"),
    ],
)
def test_bad_settings_are_refused_before_any_work(settings, message):
    with pytest.raises(ConfigError, match=message):
        check_config(ModelConfig(**settings))


def test_given_coupling_needs_a_source(tmp_path, jets, quick_booster):
    with pytest.raises(InputError, match="source"):
        make_plan(inputs(jets, quick_booster, coupling="given"), RunDirectory(tmp_path / "run"))


def test_a_table_of_constants_is_refused(tmp_path, quick_booster):
    table = EventTable.of(np.ones((20, 2)))
    with pytest.warns(UserWarning, match="one value"), pytest.raises(InputError, match="constant"):
        make_plan(inputs(table, quick_booster), RunDirectory(tmp_path / "run"))


def test_an_existing_file_is_not_a_finished_step(tmp_path, jets, quick_booster):
    """A peer took any existing model file as done: a killed job passed for a result."""
    run = fit_run(inputs(jets, quick_booster), tmp_path / "run")
    good = run.read(run_directory.model_name(1))
    run.file(run_directory.model_name(1)).write_bytes(good[:50])
    assert run.missing_steps() == [1]
    run.file(run_directory.model_name(1)).write_bytes(good)
    assert run.missing_steps() == []
    report = run.read_json(run_directory.report_name(2))
    run.write_json(
        run_directory.report_name(2), {**report, "task_digest": "of another configuration"}
    )
    assert run.missing_steps() == [2]


def test_a_second_run_in_the_same_folder_needs_resume(tmp_path, jets, quick_booster):
    fit_run(inputs(jets, quick_booster), tmp_path / "run")
    with pytest.raises(RunError, match="resume"):
        fit_run(inputs(jets, quick_booster), tmp_path / "run")


def test_resume_with_another_configuration_is_refused(tmp_path, jets, quick_booster):
    fit_run(inputs(jets, quick_booster), tmp_path / "run")
    with pytest.raises(RunError, match="settings"):
        fit_run(inputs(jets, quick_booster, noise={"n_repeats": 3}), tmp_path / "run", resume=True)
    with pytest.raises(RunError, match="events"):
        fit_run(inputs(jets.take(slice(0, 250)), quick_booster), tmp_path / "run", resume=True)


def test_a_folder_with_other_files_is_refused(tmp_path, jets, quick_booster):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RunError, match="thesis.tex"):
        fit_run(inputs(jets, quick_booster), tmp_path)


def test_changed_tables_are_refused_by_the_worker(tmp_path, jets, quick_booster):
    run = RunDirectory(tmp_path / "run")
    make_plan(inputs(jets, quick_booster), run)
    atomic_files.write_array(run.file("table/z.npy"), np.zeros((300, 3), "f4"))
    with pytest.raises(FormatError, match=r"z\.npy"):
        run_task(run.path, 0)


def test_thread_count_does_not_change_the_models(tmp_path, jets, quick_booster):
    one, two = RunDirectory(tmp_path / "one"), RunDirectory(tmp_path / "two")
    for run, threads in ((one, 1), (two, 2)):
        make_plan(inputs(jets, quick_booster), run)
        run_task(run.path, 1, n_threads=threads)
    assert one.read(run_directory.model_name(1)) == two.read(run_directory.model_name(1))


def test_thread_count_does_not_change_what_is_told_of_a_run(tmp_path):
    """XGBoost adds up losses in as many parts as there are threads."""
    write_table(
        tmp_path / "a.npy", EventTable.of(np.random.default_rng(0).lognormal(size=(20_000, 6)))
    )
    settings = ["preset=fast", "n_steps=3", "booster.n_estimators=5", "preconditioner=none"]
    chosen = [word for text in (*settings, "random_state=1") for word in ("--set", text)]
    command = [sys.executable, "-m", "flowbdt.cli", "fit", "a.npy", *chosen]
    for threads in ("1", "2"):  # set from outside: it must be there before OpenMP is loaded
        environment = {**os.environ, "OMP_NUM_THREADS": threads}
        subprocess.run([*command, "-o", threads], cwd=tmp_path, env=environment, check=True)
    one, two = (RunDirectory(tmp_path / threads) for threads in ("1", "2"))
    assert one.read("manifest.json") == two.read("manifest.json")


@pytest.mark.parametrize("name", ["gaussian", "mixture"])
def test_trees_learn_only_what_the_closed_form_leaves(tmp_path, name):
    """On a Gaussian the closed form is exact, so nothing but noise is left for the trees."""
    rng = np.random.default_rng(0)
    table = EventTable.of(rng.multivariate_normal([1, -2], [[1, 0.9], [0.9, 1]], 3000))
    settings = {"booster": {"n_estimators": 1, "learning_rate": 1e-6}, "n_steps": 6}
    plain = fit_run(inputs(table, **settings), tmp_path / "plain")
    spec = {"name": name, "n_components": 1} if name == "mixture" else name
    run = fit_run(inputs(table, **settings, preconditioner=spec), tmp_path / name)
    late = [r.report(5)["valid_rmse"] for r in (plain, run)]
    assert late[1] < 0.9 * late[0]
    new = FlowBDT.load(run.path).sample(20_000, random_state=1)
    found = np.corrcoef(new.x.T)[0, 1]
    assert found == pytest.approx(np.corrcoef(table.x.T)[0, 1], abs=0.02)


def test_views_decide_what_trees_see(tmp_path, jets, quick_booster):
    settings = {"preconditioner": {"name": "mixture", "n_components": 2}, "relations": []}
    widths = {}
    for views in (["latent"], ["latent", "columns"], ["end_point"], ["latent", "components"]):
        run = RunDirectory(tmp_path / "-".join(views))
        make_plan(inputs(jets, quick_booster, inputs=views, **settings), run)
        train, _ = training_pairs(run, run.read_json(run_directory.task_name(1)))
        widths["-".join(views)] = next(iter(train)).inputs.shape[1]
    m = RunDirectory(tmp_path / "latent").plan()["n_latent"]
    assert list(widths.values()) == [m, m + 4, m, m + 2]
    with pytest.raises(ConfigError, match="end_point"):
        check_config(ModelConfig(inputs=["raw"]))


def test_rounding_errors_at_pure_noise_are_nothing_to_split_on(tmp_path, jets, quick_booster):
    """The end point is the same for every point there; its last bits depend on the processor."""
    config = ModelConfig(
        booster=quick_booster,
        n_steps=2,
        noise={"n_repeats": 1},
        inputs=["end_point"],
        preconditioner="mixture",
    )
    run = RunDirectory(tmp_path / "run")
    make_plan(Inputs(jets, config, 1), run)
    seen = [
        np.vstack(
            [batch.inputs for batch in training_pairs(run, run.read_json(task_name(step)))[0]]
        )
        for step in range(2)
    ]
    assert not seen[0].any()
    assert seen[1].std(axis=0).min() > 0


def test_a_preconditioner_of_another_run_is_refused_by_the_worker(tmp_path, jets, quick_booster):
    run = RunDirectory(tmp_path / "run")
    make_plan(inputs(jets, quick_booster, preconditioner="gaussian"), run)
    run.file("preconditioner.npz").write_bytes(b"other")
    with pytest.raises(FormatError, match=r"preconditioner\.npz"):
        run_task(run.path, 0)


def test_blas_threads_do_not_change_the_plan(tmp_path):
    """Sums of matrix products come in another order on more threads."""
    table = EventTable.of(np.random.default_rng(0).normal(size=(15_000, 12)))
    write_table(tmp_path / "t.h5", table)
    code = (
        "import sys\n"
        "from flowbdt import read_table; from flowbdt.config import ModelConfig\n"
        "from flowbdt.training.run_directory import RunDirectory\n"
        "from flowbdt.training.plan import *\n"
        "config = ModelConfig(n_steps=1, preconditioner='gaussian')\n"
        "run = RunDirectory(sys.argv[2])\n"
        "print(make_plan(Inputs(read_table(sys.argv[1]), config, 1), run)['digest'])"
    )
    digests = set()
    for threads in ("1", "2"):
        arguments = [str(tmp_path / "t.h5"), str(tmp_path / threads)]
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env={**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
        )
        digests.add(done.stdout.strip())
    assert len(digests) == 1


def test_events_of_weight_zero_are_left_out(tmp_path, jets, quick_booster):
    weight = np.where(np.arange(300) % 2, 1.0, 0.0)
    table = EventTable.of(jets, weight=weight)
    run = RunDirectory(tmp_path / "run")
    make_plan(inputs(table, quick_booster, noise={"candidates": 50}), run)
    train, valid = training_pairs(run, run.read_json(run_directory.task_name(1)))
    for source in (train, valid):
        assert (np.asarray(source.events.rows) % 2 == 1).all()
        assert all(np.isfinite(batch.target).all() for batch in source)


def test_mean_target_is_learned_by_euler(tmp_path, jets, quick_booster):
    settings = {"path": "trigonometric", "solver": "euler", "noise": {"target": "mean"}}
    run = fit_run(inputs(jets, quick_booster, **settings), tmp_path / "run")
    plain = fit_run(
        inputs(jets, quick_booster, **{**settings, "noise": {"target": "velocity"}}), tmp_path / "b"
    )
    assert run.read(run_directory.model_name(0)) != plain.read(run_directory.model_name(0))


def test_torchcfm_trains_the_same_velocities(tmp_path, jets, quick_booster):
    pytest.importorskip("torchcfm", reason="compares with torchcfm, an extra")
    settings = {"noise": {"n_repeats": 20, "flow_matcher": "torchcfm"}}
    ours = fit_run(inputs(jets, quick_booster, noise={"n_repeats": 20}), tmp_path / "ours")
    for coupling in ("independent", "minibatch_ot"):
        config = {**settings, "coupling": coupling}
        theirs = fit_run(inputs(jets, quick_booster, **config), tmp_path / coupling)
        for step in range(3):
            assert theirs.report(step)["valid_rmse"] < 1.1 * ours.report(step)["valid_rmse"]


def test_report_has_what_a_reader_needs(tmp_path, jets, quick_booster):
    run = fit_run(inputs(jets, quick_booster), tmp_path / "run")
    report = run.read_json(run_directory.report_name(0))
    assert report["trees"] == quick_booster["n_estimators"]
    assert 0 < report["train_rmse"] < 2
    assert 0 < report["valid_rmse"] < 2
    assert report["cpu_seconds"] >= 0
    assert report["peak_mib"] > 0


def test_leftovers_of_killed_writers_are_removed(tmp_path, jets, quick_booster):
    run = RunDirectory(tmp_path / "run")
    make_plan(inputs(jets, quick_booster), run)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    parts = {}
    for pid in (dead.pid, os.getpid()):
        parts[pid] = run.file(f"steps/.part-{atomic_files._host()}-{pid}-0-0000.ubj")
        parts[pid].write_bytes(b"half")
    fit_run(inputs(jets, quick_booster), run.path, resume=True)
    assert not parts[dead.pid].exists()
    assert parts[os.getpid()].exists()  # somebody still writes it


@pytest.mark.slow
def test_killed_at_random_moments_a_run_resumes_to_the_same_bytes(tmp_path):
    """kill -9 of `flowbdt fit`, three times at random moments, then --resume."""
    rng = np.random.default_rng(1)
    write_table(tmp_path / "t.h5", EventTable.of(rng.normal(size=(20_000, 5))))
    base = [sys.executable, "-m", "flowbdt.cli", "fit", str(tmp_path / "t.h5"), "-q", "--executor"]
    base += [
        "serial",
        "--set",
        "n_steps=6",
        "--set",
        "random_state=3",
        "--set",
        "noise.n_repeats=2",
    ]
    base += ["--set", "booster.n_estimators=20", "--set", "preset=fast"]
    start = time.monotonic()
    subprocess.run([*base, "-o", str(tmp_path / "whole")], check=True)
    duration = time.monotonic() - start
    moments = random.Random(4)
    for _ in range(3):
        command = [*base, "-o", str(tmp_path / "cut"), "--resume"]
        process = subprocess.Popen(command, start_new_session=True)
        time.sleep(moments.uniform(0.2, 0.9) * duration)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run([*base, "-o", str(tmp_path / "cut"), "--resume"], check=True)
    assert models(tmp_path / "cut", 6) == models(tmp_path / "whole", 6)
    manifest = json.loads((tmp_path / "cut" / "manifest.json").read_text())
    assert manifest["status"] == "complete"
    assert not list((tmp_path / "cut").rglob(".part-*"))
