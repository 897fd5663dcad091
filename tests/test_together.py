"""One page about several runs: figures, checklist, and nothing that needs a network."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from conftest import run

from flowbdt.evaluation.differences import differences
from flowbdt.evaluation.evaluate import Evaluation, evaluate
from flowbdt.evaluation.metrics import Result, uncertain
from flowbdt.evaluation.metrics.classifier import Curve
from flowbdt.evaluation.report import Content, curves, style, write_together
from flowbdt.evaluation.report.curves import Point
from flowbdt.evaluation.report.published import Published
from flowbdt.evaluation.report.write_pages import floor_of_separation
from flowbdt.seeding import stream
from flowbdt.tables.event_table import EventTable

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


def with_judge(evaluation: Evaluation, value: float) -> Evaluation:
    """Add a score of a judge whose curve is a parabola over the diagonal."""
    t = np.linspace(0.0, 1.0, 101)
    curve = Curve(t + 6 * (value - 0.5) * t * (1 - t), np.full(101, 0.01)).to_json()
    floor = Curve(t, np.full(101, 0.01)).to_json()
    settings = {"roc": curve, "floor_roc": floor, "n_split_seeds": 3, "n_model_seeds": 1}
    judged = Result("auc_gb", value, 0.01, 400, floor=0.5, floor_error=0.01, settings=settings)
    return replace(evaluation, results=(*evaluation.results, judged))


def of_run(evaluation: Evaluation) -> Evaluation:
    """Add how the events were made."""
    made = {
        **{"solver": "heun", "solver_parameters": {}, "spacing": "uniform", "n_steps": 4},
        **{"n_evaluations": 8, "acceptance": 0.5, "seed": 3, "run_digest": "abcdef0123456789"},
    }
    return replace(evaluation, settings={**evaluation.settings, "generated": made})


def everything() -> Content:
    """Two samples, one of them from a run, with all that a page can have."""
    real, training = normal(0), normal(1)
    samples = {"good": normal(2), "a & b": normal(3, 0.5)}
    wanted = {"separation": {"n_bootstrap": 10}, "correlation_max": {"n_bootstrap": 10}}
    judged = {
        name: evaluate(real, table, training=training, metrics=wanted)
        for name, table in samples.items()
    }
    judged = {
        "good": of_run(with_judge(judged["good"], 0.51)),
        "a & b": with_judge(judged["a & b"], 0.7),
    }
    told = {
        **{"steps": STEPS, "settings": {"n_steps": 4, "relations": ["pt = mass"]}},
        **{"digest": "abcdef0123456789", "events seen": {}, "times": [0.0, 0.25, 0.5, 0.75]},
    }
    return Content(
        evaluations=judged,
        differences=differences(judged),
        samples=samples,
        real=real,
        training=training,
        runs={"good": told},
        quality={"good": [Point(4, 10.0, 2.0, 0.1, 400), Point(8, 20.0, 1.0, 0.1, 400)]},
        missing=["good at 16: it would ask for times beyond"],
        published=(Published("auc_gb", 0.9, "somebody", events=1000), Published("xyz", 1.0, "who")),
        files={"real": "real.h5"},
        digests={"real": "0123456789abcdef" * 4},
    )


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page, and all files beside it."""
    return write_together(tmp_path_factory.mktemp("page"), everything())


def test_the_page_needs_nothing_else(page):
    text = page.read_text()
    assert not re.search(r'(src|href)="(?!data:|#)', text)
    assert "<script" not in text


def test_names_are_escaped_and_verdicts_told(page):
    text = page.read_text()
    assert "a &amp; b" in text
    assert "a & b" not in text
    assert "good is better" in text


def test_every_item_is_answered_by_a_place_in_the_page(page):
    text = page.read_text()
    anchors = re.findall(r'href="#(\w+)"', text)
    assert {"scores", "quality", "columns", "losses", "published", "judges"} <= set(anchors)
    for anchor in set(anchors):
        assert text.count(f'id="{anchor}"') == 1
    assert len(re.findall(r'href="#\w+">yes</a>', text)) == 10


def test_scores_and_differences_are_tables(page):
    text = page.read_text().replace("&nbsp;", " ")
    for evaluation in everything().evaluations.values():
        for result in evaluation.results:
            assert result.text() in text
            assert result.floor_text() in text
    assert '<td class="far">0.700 ± 0.010' in text
    assert '<td>0.510 ± 0.010 <span class="note">(+0.7)</span></td>' in text
    assert text.count('<div class="scroll"') == text.count("<table>")


def test_settings_stand_open_in_the_page(page):
    text = re.sub(r"<details>.*?</details>", "", page.read_text(), flags=re.DOTALL)
    for told in ("heun, spacing uniform; 4 steps", "16.0 per kept event", "keeps 50.0%", "seed 3"):
        assert told in text
    assert "trained at t = 0, 0.25, 0.5, 0.75; run abcdef012345" in text


def test_data_are_described(page):
    text = page.read_text()
    assert "<td>real.h5</td>" in text.replace(' class="text"', "")
    assert "<td>0123456789abcdef</td>" in text
    assert "hold exactly: pt = mass." in text
    mass = everything().real.column("mass")
    assert f"<td>GeV</td><td>{uncertain(mass.mean(), mass.std() / 20)}</td>" in text.replace(
        "&nbsp;", " "
    )


def test_points_that_cannot_be_had_are_named_under_the_figure(page):
    assert "good at 16: it would ask for times beyond" in page.read_text()


def test_published_figures_stand_beside_ours(page):
    text = page.read_text().replace("&nbsp;", " ")
    row = next(line for line in text.splitlines() if ">0.9<" in line)
    assert ">0.9</td><td>-</td><td>1,000</td><td>0.510 ± 0.010</td><td>0.700 ± 0.010</td>" in row
    assert "<caption>somebody</caption>" in text
    assert "1 published figure without one of ours" in text


def test_the_pdf_has_text_and_all_figures(page):
    content = (page.parent / "report.pdf").read_bytes()
    figures = len(list(page.parent.glob("*_0?.pdf")))
    assert content.count(b"/Type /Page ") >= figures + 2


def test_one_run_by_several_samplers_has_one_line_of_losses():
    run = everything().runs["good"]
    both = replace(everything(), runs={"good": run, "good (heun)": run})
    assert list(both.distinct_runs()) == ["good"]


def test_floor_of_the_quality_figure_is_that_of_its_number_of_events():
    content = everything()
    floor = content.evaluations["good"].get("separation").floor
    assert floor_of_separation(content, 400)[0] == pytest.approx(floor)
    assert floor_of_separation(content, 200)[0] == pytest.approx(2 * floor)


def test_a_page_of_reports_alone_says_what_it_lacks(tmp_path):
    judged = {"a": everything().evaluations["a & b"]}
    text = write_together(tmp_path, Content(judged)).read_text()
    assert text.count("not in this page") == 4
    assert "not recorded how the events were made" in text


def test_figures_are_vectors_in_files_of_their_own(page):
    for name in (
        "losses_01",
        "quality_01",
        "columns_01",
        "corners_01",
        "judges_01",
        "correlations_02",
    ):
        assert (page.parent / f"{name}.svg").read_bytes().startswith(b"<?xml")
        assert (page.parent / f"{name}.pdf").read_bytes().startswith(b"%PDF")


def test_numbers_of_the_page_are_kept(page):
    content = json.loads((page.parent / "together.json").read_text())
    assert set(content["entries"]) == {"good", "a & b"}
    assert content["quality"]["good"][1]["n_evaluations"] == 8


def test_a_bare_page_says_what_is_missing(page, tmp_path):
    bare = write_together(tmp_path, Content({"a": everything().evaluations["a & b"]}))
    question = "against the number of evaluations"
    missing, full = (
        [line for line in one.read_text().splitlines() if "<td" in line and question in line]
        for one in (bare, page)
    )
    assert "not in this page" in missing[0]
    assert "--evaluations" in missing[0]
    assert '<a href="#quality">yes</a>' in full[0]


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


def test_samplers_are_refused_before_anything_is_judged(folder, capsys):
    assert run("report", "jets.h5", "--sampler", "{solver: heun}", "-o", "page") == 1
    assert "--sampler needs a run" in capsys.readouterr().err


@pytest.mark.slow
def test_command_writes_a_page_about_runs(folder, jets):
    quick = ["preset=fast", "n_steps=4", "preconditioner=gaussian", "booster.n_estimators=3"]
    sets = [w for text in (*quick, "random_state=1") for w in ("--set", text)]
    assert run("fit", "jets.h5", "-o", "one", *sets) == 0
    assert run("fit", "jets.h5", "-o", "two", *sets, "--set", "n_steps=2") == 0
    (folder / "public.yaml").write_text("- {score: auc_gb, value: 0.9, source: somebody}")
    judged = ["--real", "jets.h5", "--training", "jets.h5", "--quick", "--evaluations", 2, 4]
    more = ["--sampler", "{solver: euler, n_steps: 2}", "--published", "public.yaml"]
    more += ["--sampler", "{solver: heun}"]  # asks for t = 1, which was not trained
    assert run("report", "one", "two", "-o", "page", *judged, *more) == 0
    text = (folder / "page/report.html").read_text()
    assert "two - one" in text
    assert "two (euler, n_steps 2)" in text
    assert "not in this page<" not in text
    for anchor in re.findall(r'href="#(\w+)"', text):
        assert f'id="{anchor}"' in text
    content = json.loads((folder / "page/together.json").read_text())
    solvers = {name: e["settings"]["generated"] for name, e in content["entries"].items()}
    assert solvers["one (euler, n_steps 2)"]["solver"] == "euler"
    assert solvers["one (euler, n_steps 2)"]["n_steps"] == 2
    assert solvers["one"]["n_steps"] == 4
    assert [reason.split(":")[0] for reason in content["left_out"]] == ["one (heun)", "two (heun)"]
    assert "not in this page: one (heun): no step model" in " ".join(text.split())
    euler = content["quality"]["one (euler)"]
    told = [m.split(" at ")[1].split(":")[0] for m in content["missing"] if "(euler)" in m]
    missing = {int(n) for numbers in told for n in numbers.split(", ")}
    assert {p["n_evaluations"] for p in euler} | missing == {2, 4}
