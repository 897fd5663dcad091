"""The cost model: its direction, its closeness to a measured step, and what users are told."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from flowbdt.cli.main import main
from flowbdt.config import BOOSTER_DEFAULTS, WIDE_BOOSTER, ModelConfig
from flowbdt.errors import DataWarning
from flowbdt.generation.fit_cost import fit_parts
from flowbdt.tables.event_table import EventTable
from flowbdt.tables.formats import write_table
from flowbdt.training import expected_cost, peak_memory
from flowbdt.training.executors import EXECUTORS
from flowbdt.training.expected_cost import step_cost, step_seconds
from flowbdt.training.plan import Inputs, make_plan
from flowbdt.training.run_directory import RunDirectory

SIZES = {"n_rows": 10_000, "n_inputs": 100, "n_outputs": 100, "n_valid": 1000}


@pytest.mark.parametrize("kind", ["all outputs", "groups", "a tree each"])
@pytest.mark.parametrize("larger", [*SIZES, "max_bin", "max_depth"])
def test_more_of_anything_never_costs_less(kind, larger):
    changes = {
        "all outputs": {},
        "groups": WIDE_BOOSTER,
        "a tree each": {"multi_strategy": "one_output_per_tree"},
    }
    booster, sizes = {**BOOSTER_DEFAULTS, **changes[kind]}, dict(SIZES)
    before = expected_cost.estimate(booster, **sizes)
    target = sizes if larger in sizes else booster
    target[larger] *= 2
    after = expected_cost.estimate(booster, **sizes)
    assert after.memory_mib > before.memory_mib
    assert after.cpu_seconds > before.cpu_seconds


def test_histograms_are_sums_of_two_float64_per_node_input_bin_and_output():
    booster = {**BOOSTER_DEFAULTS, "max_bin": 32, "max_depth": 4}
    parts = expected_cost.estimate(booster, 5000, 368, 368).breakdown
    assert parts["histograms"] == pytest.approx(15 * 368 * 368 * 32 * 16 / 2**20)
    few = expected_cost.estimate({**booster, "split_outputs": 10}, 5000, 368, 368).breakdown
    assert few["histograms"] == pytest.approx(parts["histograms"] * 10 / 368)


def test_parts_add_up():
    found = expected_cost.estimate(BOOSTER_DEFAULTS, **SIZES)
    assert sum(found.breakdown.values()) == pytest.approx(found.memory_mib)


MEASURE = """
import json, sys, time
import numpy as np
import flowbdt.training.train_step
import xgboost  # which is loaded at its first use
from flowbdt.trees.base import Batch
from flowbdt.trees.boosted_trees import BoostedTrees

class Rows:
    n_rows, n_outputs = {n_rows}, {n_outputs}
    def __iter__(self):
        for low in range(0, self.n_rows, 4096):
            n = min(4096, self.n_rows - low)
            x = np.random.default_rng(low).standard_normal((n, {n_inputs}), dtype=np.float32)
            yield Batch(x, np.sin(x[:, :self.n_outputs]), None)

start = time.process_time()
BoostedTrees({booster!r}).fit(Rows(), None, seed=1, n_threads=1)
seconds = time.process_time() - start
peak = next(s for s in open("/proc/self/status") if s.startswith("VmHWM"))
print(json.dumps([int(peak.split()[1]) / 1024, seconds]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
@pytest.mark.parametrize(
    ("changes", "sizes"),
    [
        ({"max_bin": 32, "max_depth": 4, "n_estimators": 1}, (3000, 200, 200)),
        ({"n_estimators": 3, "max_depth": 3}, (100_000, 12, 12)),
    ],
)
def test_memory_is_near_a_measured_peak(changes, sizes):
    """Within the factor 1.5; time, which another machine need not share, within 10."""
    booster = {**BOOSTER_DEFAULTS, **changes}
    names = dict(zip(("n_rows", "n_inputs", "n_outputs"), sizes, strict=True))
    code = MEASURE.format(booster=booster, **names)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    peak, seconds = json.loads(done.stdout)
    expected = expected_cost.estimate(booster, **names)
    assert peak / 1.5 < expected.memory_mib < peak * 1.5
    assert seconds / 10 < expected.cpu_seconds < seconds * 10


def test_outline_says_what_the_plan_will_say(tmp_path, jets):
    config = ModelConfig(relations=["tau21 = tau2 / tau1"], noise="repeats")
    inputs = Inputs(jets, config, 1).settled()
    plan = make_plan(inputs, RunDirectory(tmp_path / "run"))
    found = step_cost(expected_cost.outline(inputs, plan["n_latent"]))
    assert found.memory_mib == pytest.approx(step_cost(plan).memory_mib, rel=0.01)
    assert found.cpu_seconds == pytest.approx(step_cost(plan).cpu_seconds, rel=0.1)
    assert step_seconds(plan)[0] <= step_seconds(plan)[1]


def small_machine(monkeypatch, mib):
    monkeypatch.setattr(expected_cost, "available_mib", lambda: mib)


def plan_of(**booster):
    config = ModelConfig(booster=booster)
    inputs = Inputs(EventTable.of(np.random.default_rng(0).normal(size=(50, 3))), config, 1)
    return expected_cost.outline(inputs.settled(), 3)


def test_a_warning_comes_before_the_machine_is_filled(monkeypatch):
    small_machine(monkeypatch, 500.0)
    one, two = (EXECUTORS.build({"name": "joblib", "n_jobs": n}) for n in (1, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected_cost.warn_if_full(plan_of(), EXECUTORS.build("serial"))
        expected_cost.warn_if_full(plan_of(), one)
        expected_cost.warn_if_full(plan_of(), EXECUTORS.build("htcondor"))
    with pytest.warns(DataWarning, match="3 jobs at once, and 500 MiB are free.*fewer n_jobs"):
        expected_cost.warn_if_full(plan_of(), two)
    deep = plan_of(max_depth=14, max_bin=256)
    deep["n_train"] = 10**5
    with pytest.warns(DataWarning, match="histograms: lower booster.max_bin"):
        expected_cost.warn_if_full(deep, EXECUTORS.build("serial"))


def test_nothing_is_said_where_the_memory_is_unknown(tmp_path, monkeypatch):
    assert expected_cost.available_mib(tmp_path) is None
    small_machine(monkeypatch, None)
    expected_cost.warn_if_full(plan_of(), EXECUTORS.build("serial"))  # warnings are errors here


def test_a_share_of_the_machine_counts(tmp_path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9 kB\nMemAvailable:    4194304 kB\n")
    assert expected_cost.available_mib(tmp_path) == 4096
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "memory.current").write_text(f"{2**30}\n")
    (group / "memory.max").write_text("max\n")
    assert expected_cost.available_mib(tmp_path) == 4096
    (group / "memory.max").write_text(f"{3 * 2**30}\n")
    assert expected_cost.available_mib(tmp_path) == 2048


@pytest.mark.parametrize("option", [["--dry-run"], ["-o", "run"]])
def test_fit_and_dry_run_warn(tmp_path, monkeypatch, capsys, jets, option):
    monkeypatch.chdir(tmp_path)
    write_table("jets.h5", jets)
    small_machine(monkeypatch, 10.0)
    quick = ["--set", "preset=fast", "--set", "n_steps=1", "--set", "booster.n_estimators=1"]
    with warnings.catch_warnings():
        warnings.simplefilter("default")  # for once, no errors: the command line prints them
        assert main(["fit", "jets.h5", *option, *quick]) == 0
    assert "10 MiB are free here" in capsys.readouterr().err


def test_dry_run_prints_memory_and_time(tmp_path, monkeypatch, capsys, jets):
    monkeypatch.chdir(tmp_path)
    write_table("jets.h5", jets)
    assert main(["fit", "jets.h5", "--dry-run", "--set", "n_steps=4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("# expected"))
    assert all(words in lines[at] for words in ("MiB", "per step", "in all", "at most"))
    parts = [line.split(":")[0] for line in lines[at + 1 : at + 4]]
    assert parts == ["#   closed form", "#   steps", "#   rejection"]


@pytest.mark.parametrize(
    ("n_rows", "n_columns", "preset", "seconds", "mib"),
    [
        (10_000, 12, "fast", (4.0, 3.2), 254),
        (10_000, 12, "balanced", (5.1, 12.4, 7.7), 268),
        (25_000, 12, "fast", (5.1, 8.2), 266),
        (25_000, 12, "balanced", (6.0, 15.0, 33.0), 295),
        (10_000, 60, "fast", (14.0, 53.0), 434),
        (10_000, 60, "balanced", (36.0, 154.0, 29.0), 629),
        (3_000, 166, "balanced", (7.2, 96.0, 13.0), 351),
    ],
)
def test_a_fit_costs_about_what_was_measured(n_rows, n_columns, preset, seconds, mib):
    """Figures as of `benchmarks/cost.py --fits`, those of a busy machine divided by how much slower
    a fixed calculation was, with 64 bins up to 64 columns; how often trees and iterations repeat,
    the data decide."""
    config = ModelConfig(preset=preset, booster={} if n_columns > 64 else {"max_bin": 64})
    table = EventTable.of(np.random.default_rng(0).normal(size=(50, n_columns)))
    settled = dataclasses.replace(config.resolved(n_rows, n_columns), random_state=1)
    plan = expected_cost.outline(Inputs(table, settled, 1), n_columns)
    plan |= {"n_train": n_rows - n_rows // 10, "n_valid": n_rows // 10}
    parts = fit_parts(plan, 8)
    assert sum(part.seconds for part in parts) == pytest.approx(sum(seconds), rel=0.35)
    assert all(part.most >= part.seconds for part in parts)
    assert mib <= max(part.mib for part in parts) < 1.25 * mib


ADULT = [15, 77, 16, 16, 6, 7, 9, 40, 2, 81, 2, 5, 56]
DEFAULT = [9, *4 * [10], 12, 3, 4, 4, 3, 3, 3, 73, 9, 11, 11, 10, 9, 9, 7, 4, 2, 2]


@pytest.mark.parametrize(
    ("n_numbers", "n_values", "seconds"),
    [(2, ADULT, 8.9), (13, DEFAULT, 33.8), (16, [2, 2, 2, 2], 2.7), (10, [2], 0.52)],
)
def test_classifiers_cost_about_what_was_measured(n_numbers, n_values, seconds):
    """5,000 rows of adult, default of credit cards, Z to ee and MAGIC, on a busy machine."""
    table = EventTable.of(np.random.default_rng(0).normal(size=(5000, 2)))
    names = {f"column {i}": n for i, n in enumerate(n_values)}
    plan = expected_cost.outline(Inputs(table, ModelConfig(), 1).settled(), n_numbers, names)
    found = next(part for part in fit_parts(plan, 8) if part.name == "classifiers")
    assert found.seconds == pytest.approx(seconds, rel=0.35)
    assert found.most > found.seconds


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the peak is an upper bound")
def test_the_peak_of_a_step_is_its_own(monkeypatch):
    before = np.ones(20_000_000)
    del before
    with_it = peak_memory.peak_mib()
    peak_memory.reset_peak()
    own = peak_memory.peak_mib()
    assert own < with_it - 100
    monkeypatch.setattr(peak_memory, "STATUS", Path("nowhere"))
    monkeypatch.setattr(peak_memory, "REFERENCES", Path("nowhere/at all"))
    peak_memory.reset_peak()
    assert peak_memory.peak_mib() > 0.9 * own
