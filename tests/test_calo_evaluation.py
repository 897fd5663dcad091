"""`flowbdt calo evaluate`: every score beside its floor, figures, one page."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from flowbdt.cli.main import main
from flowbdt.errors import InputError
from flowbdt.evaluation.metrics.base import Result
from flowbdt.physics import toy_showers, write_showers
from flowbdt.physics.calorimeter.report import shower_numbers, write_shower_report
from flowbdt.physics.calorimeter.scores.evaluate_showers import (
    Protocol,
    evaluate_showers,
    shower_histograms,
)
from flowbdt.physics.calorimeter.scores.histograms import separations


def judge(seed):
    return LogisticRegression(max_iter=300, C=0.01)


SMALL = {
    "n_repeats": 1,
    "n_bootstrap": 2,
    "distances": {
        "fpd": {"min_samples": 100, "max_samples": 200, "n_batches": 2},
        "kpd": {"batch_size": 50, "n_batches": 2},
    },
}


def protocol(**changes):
    return Protocol({"line": judge}, **{**SMALL, **changes})


def photons(n, seed, cheap=False):
    return toy_showers("photons", n, seed, cheap)


@pytest.fixture(scope="module")
def found():
    return evaluate_showers(
        photons(120, 1), photons(100, 2, cheap=True), protocol(), photons(90, 3)
    )


def test_every_official_metric_is_there_with_a_floor(found):
    names = {one.name for one in found.results}
    assert names == {
        "separation_mean", "separation", "separation_by_energy", "layer_correlation", "fpd", "kpd",
        "precision", "recall", "density", "coverage", "auc_high_fast", "auc_low_fast",
        "memorisation",
    }  # fmt: skip
    assert all(one.floor is not None for one in found.results)
    assert found.sizes == {"reference": 120, "generated": 100, "training": 90}


def test_separations_are_those_of_the_metric_and_the_mean_is_theirs(found):
    expected = separations(photons(120, 1), photons(100, 2, cheap=True), n_bootstrap=2)
    for one in expected:
        assert found.get("separation", one.column).value == pytest.approx(one.value)
    mean = np.mean([one.value for one in expected])
    assert found.get("separation_mean").value == pytest.approx(mean)


def test_a_bad_sample_is_far_from_the_floor_and_a_score_that_was_not_made_is_named(found):
    for name in ("separation_mean", "fpd", "auc_low_fast"):
        one = found.get(name)
        assert one.value > one.floor + 2 * (one.error + one.floor_error)
    with pytest.raises(InputError, match="fpd"):
        found.get("sinkhorn")


@pytest.mark.parametrize(("n_training", "n_generated"), [(None, 200), (800, 100)])
def test_floors_of_separations_are_scaled_to_the_numbers_compared(n_training, n_generated):
    """For samples of one distribution they go with 1/N + 1/M; halves have twice as much."""
    reference = photons(200, 4)
    training = n_training and photons(n_training, 6)
    found = evaluate_showers(reference, photons(n_generated, 5), protocol(), training)
    halves = [one for one in found.results if one.name == "separation"]
    expected = np.mean([one.settings["expected_floor"] for one in halves])
    floor = np.mean([one.floor for one in halves])
    values = np.mean([one.value for one in halves])
    assert floor == pytest.approx(expected, rel=0.4)
    assert values == pytest.approx(expected, rel=0.4)
    assert ("training" in found.sizes) == (training is not None)


def test_histograms_hold_all_samples_in_the_bins_of_the_reference():
    samples = {"reference": photons(30, 1), "a": photons(20, 2), "b": photons(10, 3)}
    found = {one.name: one for one in shower_histograms(samples)}
    for one in found.values():
        assert list(one.counts) == list(samples)
        assert all(len(counts) == len(one.edges) - 1 for counts in one.counts.values())
    assert found["etot_einc"].entries == {"reference": 30, "a": 20, "b": 10}
    ratio = samples["b"].above().voxels.sum(axis=1, dtype=float) / samples["b"].energies
    counts = np.histogram(ratio, np.linspace(0.5, 1.5, 101))[0]
    np.testing.assert_array_equal(found["etot_einc"].counts["b"], counts)


def test_the_official_judge_is_asked_once_for_each_level_and_never_for_floors():
    asked = []

    def official(reference, generated, name):
        asked.append((name, reference.shape[1], len(generated)))
        return Result(name, 0.6, 0.01, len(generated))

    small = photons(60, 1), photons(60, 2)
    found = evaluate_showers(*small, protocol(official=official))
    assert asked == [("auc_high_official", 30, 60), ("auc_low_official", 369, 60)]
    assert found.get("auc_low_official").floor is None


def test_geometries_cannot_be_mixed():
    with pytest.raises(InputError, match="one geometry"):
        evaluate_showers(photons(20, 1), toy_showers("pions", 20), protocol())


def test_the_report_is_one_page_with_all_scores_and_figures(found, tmp_path):
    page = write_shower_report(found, tmp_path, title="Showers <1>", notes=["toys & tests"])
    text = page.read_text()
    assert "Showers &lt;1&gt;" in text
    assert "toys &amp; tests" in text
    assert text.count("<img") == 7
    assert "separation of etot_einc" in text
    stored = json.loads((tmp_path / "report.json").read_text())
    assert stored == json.loads(json.dumps(shower_numbers(found, ["toys & tests"])))
    for name in ("response", "energies", "centres", "widths", "sparsity", "correlations"):
        assert (tmp_path / f"{name}.png").stat().st_size > 1000


@pytest.mark.slow
def test_the_command_judges_two_files(tmp_path, capsys):
    for name, seed in (("real", 1), ("new", 2)):
        write_showers(tmp_path / f"{name}.hdf5", photons(150, seed))
    files = [str(tmp_path / f"{name}.hdf5") for name in ("real", "new")]
    folder = tmp_path / "report"
    assert main(["calo", "evaluate", *files, "-o", str(folder), "--quick"]) == 0
    said = capsys.readouterr().out
    assert "AUC, low level, fast judge (mlp)" in said
    assert str(folder / "report.html") in said
    notes = json.loads((folder / "report.json").read_text())["notes"]
    assert "two halves" in notes[1]


def test_a_file_that_is_none_is_an_error_with_its_name(tmp_path, capsys):
    missing = str(tmp_path / "none.hdf5")
    assert main(["calo", "evaluate", missing, missing]) == 1
    assert "none.hdf5" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_an_error_before_anything_is_computed(
    tmp_path, capsys, monkeypatch
):
    showers = str(tmp_path / "real.hdf5")
    write_showers(tmp_path / "real.hdf5", photons(20, 1))
    monkeypatch.setattr(
        "flowbdt.physics.calorimeter.scores.evaluate_showers.evaluate_showers", None
    )
    assert main(["calo", "evaluate", showers, showers, "-o", f"{showers}/report"]) == 1
    assert "cannot make the folder" in capsys.readouterr().err
