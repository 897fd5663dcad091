"""The unfolding study: its events, floors, pseudo-experiments and what it sums up."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.unfolding import pseudo_experiments, samples
from experiments.unfolding.__main__ import bayes, summary
from experiments.unfolding.samples import BY_HAND, CLOSURE, NATURE, PYTHIA, made_up
from flowbdt.evaluation.metrics import separation_of_shares
from flowbdt.physics.jets.omnifold_files import SIX
from flowbdt.physics.unfolding.bayes import bayes_spectrum


def test_made_up_jets_have_the_columns_of_the_real_ones():
    table = made_up(300, 1, 0.0)
    assert table.names == SIX
    assert table.cond.shape == (300, 6)
    multiplicity = table.column("multiplicity")
    np.testing.assert_array_equal(multiplicity, np.rint(multiplicity))


def test_flags_lose_and_invent_a_tenth():
    table = made_up(4000, 1, 0.0)
    true, seen = samples.flags(table, np.sort(table.column("mass")), 1)
    assert (~seen).mean() == pytest.approx(samples.LOST, abs=0.02)
    assert (~true)[seen].mean() == pytest.approx(samples.FAKES, abs=0.02)
    assert (true | seen).all()
    chance_seen, chance_true = samples.probabilities(table, np.sort(table.column("mass")))
    passes = 1 - chance_seen + chance_seen * chance_true
    assert true.mean() == pytest.approx(passes.mean(), abs=5 * (0.1 / 4000) ** 0.5)


def test_floor_of_the_separation_is_that_of_counting():
    truth = np.random.default_rng(3).normal(size=(20_000, 6))
    expected = 100 * (samples.N_BINS - 1) / (2 * 5000)
    one = expected * np.sqrt(2 / (samples.N_BINS - 1))  # scatter of a chi-squared of 49
    found = np.mean(samples.floors(truth, 5000))
    assert np.abs(found - expected) < 5 * one / np.sqrt(6 * samples.N_FLOORS / 2)
    halves = samples.floors(truth, 10_000)
    np.testing.assert_allclose(samples.floors(truth, 20_000), halves / 2)


def test_cases_differ_in_what_is_lost_and_in_the_data():
    tables = {PYTHIA: made_up(2000, 0, 0.0), NATURE: made_up(1000, 1, 0.3)}
    found = {name: samples.case(name, tables, 800, 600, 1) for name in (CLOSURE, BY_HAND, NATURE)}
    assert found[CLOSURE].inputs.both.all()
    assert found[BY_HAND].inputs.fakes.any()
    assert len(found[CLOSURE].truth) == 600 > len(found[BY_HAND].truth)
    np.testing.assert_array_equal(found[NATURE].truth, tables[NATURE].x[:600])
    for shares in found[NATURE].shares(found[NATURE].truth):
        assert shares.sum() == pytest.approx(1.0)


def test_bayes_in_bins_comes_nearer_than_what_is_not_unfolded():
    tables = {PYTHIA: made_up(16000, 0, 0.0), NATURE: made_up(100, 1, 0.3)}
    given = samples.case(CLOSURE, tables, 8000, 8000, 1)
    unfolded = bayes(given, 1, None)["Bayes in bins"]["shares"]
    truth, seen = given.shares(given.truth), given.shares(given.inputs.data.x)
    at = SIX.index("multiplicity")
    before = separation_of_shares(truth[at], seen[at])
    assert separation_of_shares(truth[at], unfolded[at]) < 0.5 * before


def test_summary_divides_by_the_floor_of_the_same_seed():
    def runs(seed, floor, off):
        truth = [[0.5, 0.5]] * 6
        moved = [[0.5 + off, 0.5 - off]] * 6
        return {
            f"A | references | {seed}": {
                "truth": {"shares": truth, "floor": [floor] * 6, "cpu_s": 0.0}
            },
            f"A | omnifold | {seed}": {"omnifold": {"shares": moved, "cpu_s": 2.0 * seed}},
        }

    found = summary(runs(1, 0.1, 0.1) | runs(2, 0.2, 0.1))["A"]["omnifold"]
    own = separation_of_shares(np.array([0.5, 0.5]), np.array([0.6, 0.4]))
    np.testing.assert_allclose(found["separation"], own)
    np.testing.assert_allclose(found["floors"], (own / 0.1 + own / 0.2) / 2)
    assert found["cpu_s"] == 3.0
    assert found["seeds"] == 2


def test_pseudo_experiments_draw_what_they_say():
    sample = pseudo_experiments.Normal(800)
    inputs = sample.inputs(1)
    selected = inputs.data.n * (1 - pseudo_experiments.BACKGROUND)
    assert inputs.background_weight.sum() == pytest.approx(inputs.data.n - selected, rel=0.2)
    share = inputs.fakes.sum() / inputs.pass_reco.sum()
    assert share == pytest.approx(pseudo_experiments.FAKES, rel=0.15)
    truth = inputs.truth.x[inputs.pass_truth, 0]
    at = np.abs(truth) < 0.1
    assert inputs.pass_reco[inputs.pass_truth][at].mean() == pytest.approx(0.9, abs=0.06)
    assert sample.expected.sum() < 800


def test_pseudo_experiments_go_on_where_they_were_stopped(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(pseudo_experiments, "N_FURTHER", 3)
    options = ["--events", "300", "--replicas", "2", "--errors", "1", "--iterations", "1", "-o"]

    def judged(n):
        monkeypatch.setattr("sys.argv", ["study", *options, str(tmp_path), "--n", str(n)])
        pseudo_experiments.main()
        lines = capsys.readouterr().out.splitlines()
        done = [line for line in lines if "CPU s" in line]
        return len(done), [line for line in lines if line not in done]

    assert judged(2)[0] == 2
    n_new, scores = judged(3)
    assert n_new == 1
    assert judged(3) == (0, scores)
    assert "coverage of 68% intervals" in scores[0]


def test_luck_is_what_fluctuates_and_has_no_mean(monkeypatch):
    monkeypatch.setattr(pseudo_experiments, "N_FURTHER", 25)
    sample = pseudo_experiments.Normal(1500)
    fine, edges = pseudo_experiments.FINE, pseudo_experiments.EDGES
    luck = sample.luck(12)
    own = [bayes_spectrum(sample.inputs(k), "truth", fine, "reco", fine, 4) for k in range(12)]
    at = np.searchsorted(fine, edges)
    found = np.add.reduceat(own, at, axis=1)[:, :-1]
    assert (found - luck).std(axis=0).mean() < 0.4 * found.std(axis=0).mean()
    assert np.abs(luck.mean(axis=0) / luck.std(axis=0)).max() < 4 * np.sqrt(1 / 12 + 1 / 25)


@pytest.mark.slow
def test_variations_move_the_result_as_the_closed_form_says(capsys):
    pseudo_experiments.judge_variations(3, 2000, 7)
    for line in capsys.readouterr().out.splitlines():
        found, error, exact = (
            np.array(text.split("[")[1].split("]")[0].split(), dtype=float)
            for text in line.replace("+-", ",").replace("exact", ",").split(",")
            if "[" in text
        )
        # three experiments know their own error badly
        assert np.corrcoef(found, exact)[0, 1] > 0.7
        assert np.abs(found - exact).max() < 0.5 * np.abs(exact).max() + 6 * error.max()
