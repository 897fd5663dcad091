"""The study of jet observables: its errors, its bars, and the published numbers it quotes."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from experiments.jetnet_hlv import settings, study, summary
from flowbdt import EventTable
from flowbdt.physics.jets.jetnet_files import HLV_COLUMNS


def entry(value: float, error: float = 0.01, floor: float = 0.1) -> list[float]:
    return [value, error, floor, 0.005]


def a_run(separation: float, auc: float = 0.53) -> dict:
    columns = {c: entry(separation, 0.02) for c in HLV_COLUMNS}
    return {
        "whole": {"separation": entry(separation), "auc_gb": entry(auc), "auc_mlp": entry(auc)},
        "columns": {"separation": columns, "wasserstein": columns},
        "relations": {"tau21": {"largest": 0.0, "mean": 0.0, "w1": 0.0, "w1_error": 0.0}},
        "train_cpu_s": 1.0,
        "us_per_event": 12.0,
        "evaluations": 9.0,
    }


def test_published_tables_have_all_twelve_observables():
    assert set(settings.TALK) == set(settings.RECOMPUTED) == set(HLV_COLUMNS)


def test_error_of_a_mean_is_the_larger_of_spread_and_single_error():
    assert summary.mean([entry(1.0, 0.5), entry(1.0, 0.3)])[:2] == [1.0, 0.4]
    value, error, floor, _ = summary.mean([entry(1.0), entry(2.0), entry(3.0)])
    assert (value, floor) == (2.0, pytest.approx(0.1))
    assert error == pytest.approx(1.0 / np.sqrt(3))


def test_distance_is_in_combined_errors():
    assert summary.better(entry(1.0, 3.0), entry(11.0, 4.0)) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("ours", "reference", "expected"),
    [
        (a_run(0.14), a_run(0.3), ["yes", "yes", "yes", "yes"]),
        (a_run(0.16), a_run(0.3), ["no", "yes", "yes", "yes"]),
        (a_run(0.14), a_run(0.18), ["yes", "no", "yes", "yes"]),
        (a_run(0.14, auc=0.56), a_run(0.3), ["yes", "yes", "no", "no"]),
    ],
)
def test_bars_tell_what_was_reached(ours, reference, expected):
    runs = {"jets | balanced | 1": ours, "jets | reference | 1": reference}
    rows = summary.bars(summary.summaries(runs))
    assert [row["reached"] for row in rows] == expected


def test_jets_of_small_radius_have_a_bar_of_their_own():
    runs = {"jets | balanced | 1": a_run(0.14), "r04 | balanced | 1": a_run(0.14, auc=0.56)}
    rows = summary.bars(summary.summaries(runs))
    assert [r["reached"] for r in rows if r["bar"].startswith("r04")] == ["yes", "yes"]


def test_page_has_published_columns_beside_ours():
    runs = {"jets | balanced | 1": a_run(0.14), "jets | Euler | 1": a_run(0.2)}
    page = summary.page(summary.summaries(runs))
    assert "0.726 / 0.026" in page
    assert "| Euler | 9 |" in page


def test_consistency_measures_both_sides_of_a_relation():
    rng = np.random.default_rng(1)
    columns = {name: rng.uniform(1.0, 2.0, 400) for name in HLV_COLUMNS}
    columns["tau21"] = 0.25 + columns["tau2"] / columns["tau1"]
    columns["tau32"] = columns["tau3"] / columns["tau2"]
    found = study.consistency(EventTable.of(np.column_stack(list(columns.values())), HLV_COLUMNS))
    assert found["tau21"]["w1"] == pytest.approx(0.25)
    assert found["tau32"]["largest"] < 1e-12


def test_every_nested_solver_asks_only_for_times_of_the_shared_grid():
    from flowbdt.flow.parametrisations import FlowMatching
    from flowbdt.flow.schedules import SCHEDULES
    from flowbdt.flow.solvers import SOLVERS, evaluations

    for spec in settings.SOLVERS.values():
        grid = SCHEDULES.build("uniform")(spec["n_steps"])
        times = np.array(evaluations(SOLVERS.build(spec["solver"]), grid, FlowMatching()))
        assert np.allclose(times * settings.GRID_STEPS, np.round(times * settings.GRID_STEPS))


def test_observables_of_a_jetnet_file_are_read_by_the_study(tmp_path):
    pytest.importorskip("fastjet", reason="clustering needs the extra 'jets'")
    import h5py

    from experiments.jetnet_hlv.make import make
    from flowbdt.physics import JetNetHLV

    rng = np.random.default_rng(3)
    particles = np.zeros((40, 30, 4), np.float32)
    particles[:, :10, :2] = rng.normal(0.0, 0.2, (40, 10, 2))
    particles[:, :10, 2], particles[:, :10, 3] = 0.1, 1.0
    particles[0, 1:] = 0.0  # one particle: no ratio
    with h5py.File(tmp_path / "t.hdf5", "w") as handle:
        handle["particle_features"] = particles
        handle["jet_features"] = np.column_stack([np.full((40, 1), 1000.0), np.zeros((40, 3))])
    target, lost = make(tmp_path / "t.hdf5")
    assert (target.name, lost) == ("t_hlv12.h5", 1)
    table = JetNetHLV(tmp_path, train_rows=20).load("all")
    assert table.n == 39
    assert table.unit("mass") == "GeV"
    assert all(v["largest"] < 1e-6 for v in study.consistency(table).values())
