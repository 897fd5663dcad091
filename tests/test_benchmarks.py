"""The comparison with other packages: what needs none of them."""

from __future__ import annotations

import importlib
import json
import signal
import sys
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def benchmark(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module(name)


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return benchmark("peers", monkeypatch)


@pytest.fixture
def budget(peers: ModuleType) -> ModuleType:
    return importlib.import_module("budget")


@pytest.fixture
def bench(peers: ModuleType, tmp_path: Path) -> object:
    rows = np.random.default_rng(0).lognormal(size=(3000, 12))
    np.save(tmp_path / "rows.npy", rows)
    return peers.Bench(tmp_path, str(tmp_path / "rows.npy"), 10, Path(sys.executable), 60.0)


def test_ratios_are_other_over_ours_and_distances_from_half_for_an_auc(peers):
    other = {"train_cpu_s": 30.0, "us_per_event": 8.0, "auc_gb": 0.9, "separation_x100": 2.0}
    ours = {"train_cpu_s": 10.0, "us_per_event": 16.0, "auc_gb": 0.55, "separation_x100": 0.5}
    assert peers.ratios(other, ours) == pytest.approx(
        {
            "train_cpu_s": 3.0,
            "us_per_event": 0.5,
            "auc_gb_above_half": 8.0,
            "separation_x100": 4.0,
        }
    )


def test_a_model_without_figures_has_no_ratios(peers):
    assert peers.ratios({"status": "not installed"}, {"train_cpu_s": 1.0, "auc_gb": 0.6}) == {}
    assert peers.ratios({"train_cpu_s": 1.0}, {"train_cpu_s": 0.0}) == {}


def test_the_report_shows_every_model_with_its_status_settings_and_ratios(peers):
    figures = {
        "treeffuser": {"status": "stopped after 9 CPU s, in training", "settings": {"a": 1}},
        "mine": {
            "status": "done",
            "settings": {"b": 2},
            "train_cpu_s": 4.0,
            "auc_gb": 0.6,
            "floor_auc_gb": 0.501,
        },
        "reference": {"status": "done", "settings": {}, "train_cpu_s": 12.0},
    }
    factors = peers.all_ratios(figures, ["mine"])
    assert factors == {"mine": {"treeffuser": {}, "reference": {"train_cpu_s": 3.0}}}
    text = peers.report(figures, factors)
    for part in ("stopped after 9 CPU s", '{"b": 2}', "others / mine", "0.501", "floor"):
        assert part in text


def test_cost_is_the_line_through_two_trial_fits(budget):
    cost = budget.Cost.of((1, 3), (5.0, 9.0), scale=10.0)
    assert (cost.fixed, cost.slope) == (30.0, 20.0)
    assert cost.at(7) == 170.0


def test_trial_fits_too_short_to_measure_count_as_proportional(budget):
    cost = budget.Cost.of((1, 2), (5.0, 4.0), scale=1.0)
    assert (cost.fixed, cost.slope) == (0.0, 2.0)


def test_a_trial_fit_is_smaller_by_the_factor_that_its_cost_is_multiplied_with(budget):
    peer = budget.PEERS["forest_diffusion_mo"]
    trial, scale = budget.small(peer, peer.budget)
    assert (trial["n_t"], trial["xgb_hypers"]["n_estimators"]) == (3, 20)
    assert scale == pytest.approx(20 / 3 * 100 / 20)
    treeffuser = budget.PEERS["treeffuser"]
    assert budget.small(treeffuser, treeffuser.budget) == (treeffuser.budget, 1.0)


def test_the_budget_decides_the_repetitions(budget):
    peer = budget.PEERS["forest_diffusion_mo"]
    settings = budget.choose(peer, budget.Cost(10.0, 20.0), 115.0)
    assert settings["duplicate_K"] == 5
    assert settings["xgb_hypers"] == {"n_estimators": 100}


def test_trees_are_cut_if_one_repetition_is_too_expensive(budget):
    peer = budget.PEERS["forest_diffusion_mo"]
    cost = budget.Cost(100.0, 300.0)
    settings = budget.choose(peer, cost, 100.0)
    assert (settings["duplicate_K"], settings["xgb_hypers"]["n_estimators"]) == (1, 25)
    assert budget.predict(peer, peer.budget, settings, cost) == 100.0
    assert peer.budget["xgb_hypers"] == {"n_estimators": 100}  # a copy was changed


def test_the_knob_never_exceeds_the_published_value(budget):
    settings = budget.choose(budget.PEERS["treeffuser"], budget.Cost(0.0, 0.001), 600.0)
    assert settings["n_estimators"] == 3000


def test_status_says_why_there_are_no_figures(peers):
    stopped = {"phase": "training", "process_cpu_s": 12.3}
    assert peers.status(-signal.SIGXCPU, stopped, "") == "stopped after 12 CPU s, in training"
    assert peers.status(None, stopped, "") == "stopped after 12 CPU s, in training"
    assert "No module" in peers.status(1, {}, "ModuleNotFoundError: No module named 'x'")
    assert peers.status(1, stopped, "trace\nValueError: no").endswith("exit code 1: ValueError: no")
    assert peers.status(0, stopped, "").startswith("failed in training")  # ended, but not done
    assert peers.status(0, {"phase": "done"}, "noise") == "done"


def test_without_the_environment_the_message_tells_how_to_make_it(
    peers, monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(peers, "DEFAULT_PYTHON", tmp_path / "python")
    assert peers.interpreter(None) is None
    message = capsys.readouterr().err
    assert str(tmp_path) in message
    assert "python3 -m venv benchmarks/.peers" in message
    assert "pip install ForestDiffusion forest_diffusion_mo treeffuser" in message


def test_an_interpreter_that_does_not_exist_ends_the_run(peers, tmp_path):
    with pytest.raises(SystemExit, match="pip install ForestDiffusion"):
        peers.interpreter(str(tmp_path / "nowhere"))


def test_an_unknown_name_ends_the_run_with_the_known_ones(peers, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["peers.py", "--peers", "treefuser"])
    with pytest.raises(SystemExit):
        peers.main()
    assert "'treefuser' is none of ForestDiffusion, forest_diffusion_mo" in capsys.readouterr().err


def test_events_that_are_not_finite_count_as_a_failure(peers):
    figures = {"status": "done", "events": np.array([[1.0, np.nan], [1.0, 2.0]])}
    assert peers.judged(figures, None, None, True)["status"].startswith("failed: 50.0%")


@pytest.mark.slow
def test_a_peer_that_is_not_installed_is_reported(peers, budget, bench):
    missing = {**vars(budget.PEERS["treeffuser"]), "package": "forest_diffusion_mo"}
    figures = peers.run_peer(bench, budget.Peer(**missing), 5.0)
    assert figures["status"].startswith("trial fit: not installed: ModuleNotFoundError")


@pytest.mark.slow
def test_a_process_beyond_the_cap_is_stopped_and_keeps_its_phase(peers, bench):
    # imports alone may take more than a second; so much noise takes minutes
    short = peers.Bench(bench.place, bench.rows, 10, bench.python, cap=5.0)
    figures = short.drive("flowbdt", {"name": "reference", "noise": {"n_repeats": 2000}}, 10)
    assert figures["status"].startswith("stopped after")
    assert figures["status"].endswith("in training")
    assert "train_cpu_s" not in figures


@pytest.mark.slow
def test_published_settings_beyond_the_cap_give_an_estimate_and_no_fit(peers, budget, bench):
    short = peers.Bench(bench.place, bench.rows, 10, bench.python, cap=30.0)
    peer = budget.PEERS["reference"]
    huge = {**vars(peer), "published": budget.put(peer.published, "n_steps", 3000)}
    figures = peers.run_peer(short, budget.Peer(**huge), None)
    assert figures["status"].startswith("not run: estimated")
    assert figures["estimated_train_cpu_s"] > 30.0
    assert "train_cpu_s" not in figures


@pytest.mark.slow
def test_quick_run_compares_our_models_and_reports_absent_peers(
    peers, monkeypatch, tmp_path, capsys
):
    import quality

    ours = next(name for name in quality.MODELS if name != "reference")
    monkeypatch.setattr(peers, "DEFAULT_PYTHON", tmp_path / "python")
    small = ["--rows", "300", "--events", "300", "--budget", "2"]
    asked = ["--peers", "treeffuser,reference", "--models", ours]
    keep = ["--keep", str(tmp_path / "kept")]
    monkeypatch.setattr(sys, "argv", ["peers.py", "--quick", *small, *asked, *keep])
    peers.main()
    out, err = capsys.readouterr()
    assert "pip install ForestDiffusion" in err
    figures = json.loads(out.strip().splitlines()[-1])
    assert (figures["rows"], figures["events"]) == (300, 300)
    assert figures["models"]["treeffuser"]["status"].startswith("not installed")
    for name in ("reference", ours):
        found = figures["models"][name]
        assert found["status"] == "done"
        assert found["train_cpu_s"] > 0
        assert 0 <= found["auc_mlp"] <= 1
        assert json.loads((tmp_path / "kept" / f"{name}.json").read_text()) == found
    ratio = figures["ratios"][ours]["reference"]["train_cpu_s"]
    costs = [figures["models"][name]["train_cpu_s"] for name in ("reference", ours)]
    assert ratio == pytest.approx(costs[0] / costs[1])
    assert "not installed" in out.splitlines()[1]


def test_cost_of_samplers_is_split_into_field_noise_and_library(monkeypatch):
    samplers = benchmark("samplers", monkeypatch)

    def slow(x: np.ndarray, cond: None) -> np.ndarray:
        begin = time.process_time()
        while time.process_time() - begin < 2e-3:
            pass
        return -x

    model = samplers.Model(slow, 3)
    heun, ddpm = (samplers.measure(name, model, 5000, 4) for name in ("heun", "ddpm"))
    assert (heun["evaluations"], ddpm["evaluations"]) == (8, 4)
    # two blocks, so two calls per evaluation
    assert heun["field, ms"] == pytest.approx(4.0, rel=0.5)
    assert heun["noise, ms"] == 0.0 < ddpm["noise, ms"]
    assert heun["share"] == pytest.approx(heun["library, ms"] / heun["field, ms"])


@pytest.fixture
def public(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return benchmark("public_tables", monkeypatch)


@pytest.fixture
def mixed(public: ModuleType) -> object:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 2))
    kind = rng.integers(0, 3, 200)
    rows = np.c_[x, kind, (x[:, 0] + kind > 1).astype(float)]
    return public.Table("mixed", rows, ["a", "b", "kind", "label"], [2], [], True)


def test_a_category_that_differs_counts_as_the_whole_range_of_a_number(public, mixed):
    pytest.importorskip("ot")
    train = np.array([[0.0, 0, 0, 0], [10, 1, 1, 1]])
    other = np.array([[5.0, 0, 2, 0], [0, 0, 0, 1]])
    a, b = mixed.scaled(train, train, other)
    assert public.distances(a, b).tolist() == [[1.5, 1.0], [0.5 + 1 + 1 + 1, 1 + 1 + 1 + 0]]
    assert public.wasserstein(public.distances(a, b)) == pytest.approx((1.0 + 3.5) / 2)


def test_coverage_asks_for_the_second_neighbour_where_no_rows_repeat(public):
    real = np.array([[0.0], [1.0], [3.0], [7.0]])  # second neighbours at 3, 2, 3, 6
    near = np.array([[2.5], [20.0]])  # nearest at 2.5, 1.5, 0.5, 4.5
    assert public.coverage(real, public.distances(real, near)) == 1.0
    far = np.array([[4.0], [20.0]])  # nearest at 4, 3, 1, 3
    assert public.coverage(real, public.distances(real, far)) == 0.5


def test_copies_and_missing_classes_are_seen(public, mixed):
    pytest.importorskip("ot")
    train, test = mixed.split(0)
    scores = public.judge(mixed, train, test, train, 1)
    assert [scores[k] for k in ("W_train", "copies", "coverage_train")] == [0, 1, 1]
    assert scores["nearer"] > 0.55
    assert scores["utility"] > 0.85
    one_class = train[train[:, -1] == 0]
    assert public.judge(mixed, train, test, one_class, 1)["utility"] == 0


def test_real_adaboost_learns_three_classes_with_stumps(public):
    x = np.random.default_rng(0).uniform(size=(300, 2))
    y = np.digitize(x[:, 0], [0.3, 0.6])
    assert (public.RealAdaBoost(0).fit(x, y).predict(x) == y).mean() > 0.99


def test_ranks_count_ties_as_half_a_place(public):
    keys = public.RANKED
    others = {"a": dict.fromkeys(keys, 1.0), "b": dict.fromkeys(keys, 3.0)}
    found = public.ranks(dict.fromkeys(keys, 1.0), others)
    assert [found["rank W_test"], found["rank utility"]] == [1.5, 2.5]


def test_whole_tables_see_copies_shifts_and_what_is_learned(monkeypatch):
    whole = benchmark("whole_tables", monkeypatch)
    rng = np.random.default_rng(0)
    x = rng.normal(size=800)
    kind = rng.choice(["a", "b"], 800)
    label = np.where(x + (kind == "a") > 0.5, "yes", "no")
    frame = pd.DataFrame({"x": x, "kind": kind, "label": label})
    first, second = (whole.typed(part, frame, "label") for part in (frame[:400], frame[400:]))
    assert whole.c2st(first, first) == 0.5
    assert whole.c2st(first, first.assign(x=first.x + 2)) > 0.85
    assert whole.nearer_to_training(first, second, first) == 1
    assert 0.45 < whole.nearer_to_training(first, second, pd.concat([first, second])) < 0.55
    assert whole.usefulness(first, second, "label", 2) > 0.95
    wrong = first.assign(label=first.label.sample(frac=1, random_state=0).array)
    assert whole.usefulness(wrong, second, "label", 2) < 0.65
