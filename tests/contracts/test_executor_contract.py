"""Every executor writes the same bytes, reports failures, and loses nothing."""

from __future__ import annotations

import shutil
from concurrent.futures.process import BrokenProcessPool

import pytest
from conftest import PLAIN

from flowbdt.config import ModelConfig
from flowbdt.errors import IncompleteRun
from flowbdt.training import run_directory
from flowbdt.training.collect import train
from flowbdt.training.executors import EXECUTORS
from flowbdt.training.plan import Inputs, make_plan
from flowbdt.training.run_directory import RunDirectory

SPECS = {
    "serial": {"n_threads": 1},
    "joblib": {"n_jobs": 2},
    # two workers as threads of this process: the quickest, and the hardest on limits of threads
    "dask": {"n_jobs": 2, "cluster": {"name": "local", "processes": False}},
}


def planned(folder, table, booster):
    config = ModelConfig(
        **{**PLAIN, "noise": {**PLAIN["noise"], "n_repeats": 2}}, n_steps=3, booster=booster
    )
    run = RunDirectory(folder)
    make_plan(Inputs(table, config, 5), run)
    return run


def models(run):
    return [run.read(run_directory.model_name(step)) for step in range(3)]


# batch systems, which need a cluster or a fake of one, have tests of their own
@pytest.fixture(params=[name for name in EXECUTORS.names() if name not in ("htcondor", "slurm")])
def executor(request):
    if request.param == "dask":
        pytest.importorskip("distributed", reason="executor dask is an extra")
    return EXECUTORS.build({"name": request.param, **SPECS[request.param]})


@pytest.fixture(scope="session")
def expected(tmp_path_factory):
    """What one serial thread writes."""
    from conftest import QUICK, make_jets

    run = planned(tmp_path_factory.mktemp("serial") / "run", make_jets(), QUICK)
    train(run, EXECUTORS.build(SPECS["serial"] | {"name": "serial"}))
    return models(run)


def test_bytes_do_not_depend_on_the_executor(tmp_path, jets, quick_booster, executor, expected):
    run = planned(tmp_path / "run", jets, quick_booster)
    train(run, executor)
    assert models(run) == expected


def test_a_failing_step_is_named_and_the_others_are_kept(
    tmp_path, jets, quick_booster, executor, expected
):
    run = planned(tmp_path / "run", jets, quick_booster)
    in_the_way = run.file(run_directory.model_name(1)) / "x"
    in_the_way.mkdir(parents=True)
    with pytest.raises(IncompleteRun, match=r"1 of 3 steps are missing: 1\. Step 1 failed.*log"):
        train(run, executor)
    assert in_the_way.parent.name in run.file(run_directory.log_name(1)).read_text()
    assert run.missing_steps() == [1]
    assert run.read(run_directory.model_name(2)) == expected[2]
    shutil.rmtree(in_the_way.parent)
    before = run.file(run_directory.model_name(2)).stat().st_mtime_ns
    train(run, executor)
    assert models(run) == expected
    assert run.file(run_directory.model_name(2)).stat().st_mtime_ns == before


def test_a_killed_worker_is_a_failure_of_its_steps(tmp_path, jets, quick_booster, monkeypatch):
    def die(*arguments):
        raise BrokenProcessPool("a worker was killed")

    monkeypatch.setattr("joblib.Parallel.__call__", lambda *_: map(die, [None]))
    run = planned(tmp_path / "run", jets, quick_booster)
    with pytest.raises(IncompleteRun, match=r"0, 1, 2\. Step 0 failed: BrokenProcessPool.*log"):
        train(run, EXECUTORS.build({"name": "joblib", "n_jobs": 2}))
    assert "a worker was killed" in run.file(run_directory.log_name(2)).read_text()
