"""One page about several runs: figures, checklist, and nothing that needs a network."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from conftest import run

from flowbdt.evaluation import evaluate
from flowbdt.report import checklist, curves, style
from flowbdt.report.together import write_together
from flowbdt.seeding import stream
from flowbdt.significance import differences
from flowbdt.table import EventTable

pytest.importorskip("matplotlib", reason="figures need the extra 'plot'")

STEPS = [
    {
        **{"step": i, "time": i / 4, "trees": 3 + i, "train_rmse": 1.0},
        **{"valid_rmse": 0.9, "valid_rmse_without_trees": 1.0},
    }
    for i in range(4)
]


def normal(key: int, shift: float = 0.0) -> EventTable:
    x = stream(4, "test-together", key).normal(size=(400, 3)) + shift
    return EventTable.of(x, ["mass", "pt", "x<1>"], units={"mass": "GeV"})


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page about two samples, one of them from a run, and its folder."""
    real, training = normal(0), normal(1)
    samples = {"good": normal(2), "a & b": normal(3, 0.5)}
    wanted = {"separation": {"n_bootstrap": 10}, "correlation_max": {"n_bootstrap": 10}}
    judged = {
        name: evaluate(real, table, training=training, metrics=wanted)
        for name, table in samples.items()
    }
    told = {"steps": STEPS, "settings": {"n_steps": 4}, "digest": "abc", "events seen": {}}
    points = [curves.Point(4, 10.0, 2.0, 0.1), curves.Point(8, 20.0, 1.0, 0.1)]
    path = write_together(
        tmp_path_factory.mktemp("page"),
        judged,
        differences(judged),
        samples=samples,
        real=real,
        training=training,
        runs={"good": told},
        quality={"good": points},
    )
    return path


def test_the_page_needs_nothing_else(page):
    text = page.read_text()
    assert not re.search(r'(src|href)="(?!data:|#)', text)
    assert "<script" not in text


def test_names_are_escaped_and_verdicts_told(page):
    text = page.read_text()
    assert "a &amp; b" in text
    assert "a & b" not in text
    assert "good is better" in text


def test_every_answered_item_has_a_place_in_the_page(page):
    text = page.read_text()
    anchors = set(re.findall(r'href="#(\w+)"', text))
    assert {"scores", "quality", "columns", "losses", "settings", "definitions"} <= anchors
    for anchor in anchors:
        assert f'id="{anchor}"' in text


def test_figures_are_vectors_in_files_of_their_own(page):
    for name in ("losses_01", "quality_01", "columns_01", "corners_01", "correlations_02"):
        assert (page.parent / f"{name}.svg").read_bytes().startswith(b"<?xml")
        assert (page.parent / f"{name}.pdf").read_bytes().startswith(b"%PDF")


def test_numbers_of_the_page_are_kept(page):
    content = json.loads((page.parent / "together.json").read_text())
    assert set(content["entries"]) == {"good", "a & b"}
    assert content["quality"]["good"][1]["n_evaluations"] == 8


def test_a_bare_page_says_what_is_missing():
    bare = checklist.Holds(floors=False, histograms=False, curves=False, losses=False)
    missing = [asked for asked, anchor, _ in checklist.items(bare) if anchor is None]
    assert any("against the number of evaluations" in asked for asked in missing)
    full = checklist.Holds(floors=True, histograms=True, curves=True, losses=True)
    assert sum(anchor is None for _, anchor, _ in checklist.items(full)) < len(missing)


def test_what_trees_explain_is_drawn_from_the_losses():
    with style.drawing():
        figure = curves.steps_figure({"a": STEPS})
    explained = figure.axes[1].lines[0].get_ydata()
    np.testing.assert_allclose(explained, 100 * (1 - 0.81))
    np.testing.assert_array_equal(figure.axes[2].lines[0].get_ydata(), [3, 4, 5, 6])


def test_contours_hold_their_share_of_the_events():
    table = EventTable.of(stream(1, "test-contours").normal(size=(20_000, 2)))
    edges = [np.linspace(-4, 4, 81)] * 2
    counts, *_ = np.histogram2d(*table.x.T, bins=edges)
    levels = curves.levels(counts.T)
    for level, mass in zip(levels, curves.MASSES[::-1], strict=True):
        inside = counts[counts >= level].sum() / counts.sum()
        assert abs(inside - mass) < 5 * np.sqrt(mass * (1 - mass) / 20_000) + 0.01


@pytest.mark.slow
def test_command_writes_a_page_about_runs(folder, jets):
    quick = ["preset=fast", "n_steps=4", "preconditioner=gaussian", "booster.n_estimators=3"]
    sets = [w for text in (*quick, "random_state=1") for w in ("--set", text)]
    assert run("fit", "jets.h5", "-o", "one", *sets) == 0
    assert run("fit", "jets.h5", "-o", "two", *sets, "--set", "n_steps=2") == 0
    judged = ["--real", "jets.h5", "--training", "jets.h5", "--quick", "--evaluations", 2, 4]
    assert run("report", "one", "two", "-o", "page", *judged) == 0
    text = (folder / "page/report.html").read_text()
    assert "two - one" in text
    content = json.loads((folder / "page/together.json").read_text())
    assert [point["n_evaluations"] for point in content["quality"]["one"]] == [4]
