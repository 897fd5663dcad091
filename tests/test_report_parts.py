"""Parts of a page: curves of judges, published figures, ticks, tables, the PDF."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import run

from flowbdt.errors import ConfigError
from flowbdt.evaluation.metrics import METRICS, Result, classifier_auc
from flowbdt.evaluation.metrics.classifier import POINTS, Curve, mean_curve, recognised
from flowbdt.evaluation.report import (
    classifier_curves,
    curves,
    figures,
    render,
    score_tables,
    sections,
    style,
)
from flowbdt.evaluation.report.published import Published, read_published
from flowbdt.evaluation.report.sample_figures import sample_figures
from flowbdt.seeding import stream
from flowbdt.tables.event_table import EventTable

pytest.importorskip("matplotlib", reason="figures need the extra 'plot'")


def scores(n: int, shift: float, key: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores of a judge that sees a normal column shifted by ``shift``; labels; weights."""
    rng = stream(5, "test-report-parts", key)
    x = np.concatenate([rng.normal(size=n), rng.normal(size=n) + shift])
    return x, np.repeat([0, 1], n), np.ones(2 * n)


# ---- curves of judges


def test_a_curve_follows_the_closed_form_of_two_normals():
    from scipy.stats import norm

    n = 20_000
    curve = recognised(*scores(n, 1.0))
    t = np.linspace(0, 1, POINTS)
    expected = norm.cdf(norm.ppf(t) + 1.0)
    assert np.abs(curve - expected).max() < 5 / np.sqrt(n)


def test_equal_scores_lie_on_the_diagonal():
    curve = recognised(np.zeros(40), np.repeat([0, 1], 20), np.ones(40))
    np.testing.assert_allclose(curve, np.linspace(0, 1, POINTS))


def test_weights_count_as_repeated_events():
    x, y, _ = scores(50, 1.0)
    twice = recognised(np.append(x, x[:10]), np.append(y, y[:10]), np.ones(110))
    weighted = recognised(x, y, np.where(np.arange(100) < 10, 2.0, 1.0))
    np.testing.assert_allclose(weighted, twice)


def test_error_of_a_curve_is_the_spread_of_repeated_samples():
    n, repeats = 400, 60
    many = [recognised(*scores(n, 1.0, key)) for key in range(repeats)]
    _, y, weight = scores(n, 1.0)
    for curve in many[:3]:
        claimed = mean_curve(curve[None, None], y, weight, 1.0).error[10:80:10]
        spread = np.std(many, axis=0, ddof=1)[10:80:10]
        np.testing.assert_allclose(claimed, spread, rtol=5 / np.sqrt(2 * repeats))


def test_area_under_the_kept_curve_is_the_auc():
    class Judge:
        """Takes the first column as its verdict."""

        def fit(self, x: Any, y: Any) -> None:
            pass

        def predict_proba(self, x: np.ndarray) -> np.ndarray:
            return np.column_stack([-x[:, 0], x[:, 0]])

    rng = stream(6, "test-report-parts")
    result = classifier_auc(
        rng.normal(size=(800, 1)), rng.normal(size=(800, 1)) + 1, lambda s: Judge()
    )
    curve = Curve.of(result.settings)
    assert curve is not None
    assert np.trapezoid(curve.recognised, curve.mistakes) == pytest.approx(result.value, abs=2e-3)
    floor = result.with_floor(result)
    assert Curve.of(floor.settings, "floor_roc").at(0.5) == curve.at(0.5)


def test_old_results_without_curves_are_read_and_left_out():
    old = {"name": "auc_gb", "value": 0.5, "error": 0.1, "n": 10, "floor": None}
    result = Result(**{**old, "floor_error": None, "column": None, "unit": ""})
    assert Curve.of(result.settings) is None
    assert Curve.of(result.settings, "floor_roc") is None


def judged(value: float) -> Result:
    t = np.linspace(0, 1, POINTS)
    curve = Curve(t**0.5 if value > 0.6 else t, np.full(POINTS, 0.01))
    floor = Curve(t, np.full(POINTS, 0.02))
    kept = {"roc": curve.to_json(), "floor_roc": floor.to_json()}
    return Result("auc_gb", value, 0.01, 100, floor=0.5, floor_error=0.01, settings=kept)


def test_figure_of_judges_has_every_entry_the_floor_and_the_diagonal():
    with style.drawing():
        figure = classifier_curves.judge_figure(
            {"auc_gb": {"one": judged(0.7), "two": judged(0.5)}}
        )
    upper, lower = figure.axes
    assert len(upper.lines) == len(lower.lines) == 4
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["one", "two", classifier_curves.FLOOR]
    t = np.linspace(0, 1, POINTS)
    np.testing.assert_allclose(lower.lines[0].get_ydata(), t**0.5 - t, atol=1e-4)


def test_an_entry_looks_the_same_to_every_judge():
    """The first of two entries is older and lacks the curve of one judge."""
    results = {"auc_gb": {"two": judged(0.5)}, "auc_mlp": {"one": judged(0.7), "two": judged(0.5)}}
    with style.drawing():
        figure = classifier_curves.judge_figure(results)
    first, _, second, _ = figure.axes
    colors = [[line.get_color() for line in axes.lines] for axes in (first, second)]
    assert colors[0][0] in colors[1][:2]
    legend = figure.legends[0]
    handles = dict(zip(legend.get_texts(), legend.get_lines(), strict=True))
    found = {text.get_text(): line.get_color() for text, line in handles.items()}
    assert found["two"] == colors[0][0] != found["one"]


def test_judges_of_the_protocol_are_described():
    classifiers = {
        name for name in METRICS.names() if METRICS.get(name).kind in ("classifier", "residual")
    }
    assert set(classifier_curves.STRENGTH) == classifiers


# ---- published figures


def test_the_shipped_figures_are_those_of_the_study():
    path = Path(__file__).parents[1] / "experiments/jetnet_hlv/published.yaml"
    known = {(one.score, one.source.split(", ")[-1]): one for one in read_published(path)}
    auc = next(one for (score, _), one in known.items() if score == "auc_mlp")
    assert (auc.value, auc.error) == (0.9994, 0.0002)
    mass = known["separation/mass", "revision notes"]
    assert (mass.value, mass.floor, mass.events) == (0.335, 0.029, 177945)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("- {score: auc_gb, value: 0.9}", "entry 1: source must be there"),
        ("- {score: auc_gb, value: high, source: a}", "'value' must be a number, got 'high'"),
        ("- {score: auc_gb, value: .nan, source: a}", "must be a finite number"),
        ("- {score: auc_gb, value: true, source: a}", "entry 1, 'value' must be a number"),
        ("- {score: auc_gb, value: 1, source: a, auther: b}", "entry 1, 'auther'.* Known: error"),
        ("- {score: auc_gb, value: 1, source: a, error: -1}", "'error' must be .* at least 0"),
        ("- {score: auc_gb, value: 1, source: a, events: 0}", "'events' must be .* at least 1"),
        ("- {score: auc_gb, value: 1, source: a, events: 1.5}", "'events' must be a whole number"),
        ("- {score: auc_gb, value: 1, source: 2024}", "'source' must be text, got 2024"),
        ("- auc_gb", "expected a mapping"),
        ("score: auc_gb", "must be a YAML list"),
        ("", "must be a YAML list"),
        ("[", "cannot read published figures"),
    ],
)
def test_a_bad_file_of_published_figures_says_what_is_wrong(tmp_path, text, told):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(ConfigError, match=told):
        read_published(tmp_path / "bad.yaml")


def test_published_figures_are_checked_before_any_work(folder, capsys):
    assert run("report", "no-such-run", "-o", "page", "--published", "absent.yaml") == 1
    assert "cannot read published figures from absent.yaml" in capsys.readouterr().err
    assert not (folder / "page").exists()


def test_a_published_figure_knows_metric_and_column():
    assert Published("separation/mass", 0.1, "a").key == ("separation", "mass")
    assert Published("auc_gb", 0.9, "a").key == ("auc_gb", None)


# ---- figures and tables


@pytest.mark.parametrize(
    ("low", "high"), [(3.0, 70.0), (0.31, 0.47), (1e-3, 1.0), (9.0, 11.0), (0.08, 5.0)]
)
def test_ticks_are_few_and_inside(low, high):
    ticks = style.round_numbers(low, high)
    assert 2 <= len(ticks) <= 8
    assert min(ticks) >= low
    assert max(ticks) <= high


def test_evaluations_are_ticks_where_they_were_asked():
    points = [curves.Point(n, 2.0 * n, 1.0 / n, 0.01) for n in (4, 9, 16)]
    with style.drawing():
        figure = curves.quality_figure({"a": points}, (0.05, 0.01))
    np.testing.assert_array_equal(figure.axes[0].get_xticks(), [4, 9, 16])
    assert len(figure.axes[0].get_xticks(minor=True)) == 0


def test_titles_of_correlations_name_the_entry_and_nothing_is_clipped():
    x = stream(7, "test-report-parts").normal(size=(300, 12))
    table = EventTable.of(x, [f"a rather long name {i}" for i in range(12)])
    with style.drawing():
        figure = figures.correlation_figure(table, table, table, "mine")
        box = figure.get_tightbbox()
    assert figure.axes[0].get_title() == "mine - real"
    width, height = figure.get_size_inches()
    assert box.x0 >= 0
    assert box.y0 >= 0
    assert box.x1 <= width
    assert box.y1 <= height


@pytest.mark.parametrize("count", [1, 4, 9])
def test_legends_of_many_long_names_stay_inside(count):
    table = EventTable.of(stream(8, "test-report-parts").normal(size=(100, 2)))
    samples = {f"a sample of a long name, solver and steps, {i}": table for i in range(count)}
    with style.drawing():
        (figure,) = figures.column_pages(table, samples, table)
        legend = figure.legends[0].get_window_extent()
        top = max(axes.get_window_extent().y1 for axes in figure.axes)
    assert legend.x0 >= 0
    assert legend.x1 <= figure.bbox.x1
    assert legend.y0 >= top


def test_a_sample_far_from_the_real_events_has_no_contours_and_no_harm_is_done():
    real = EventTable.of(stream(9, "test-report-parts").normal(size=(100, 2)))
    far = EventTable.of(np.asarray(real.x) + 1e6)
    with style.drawing():
        figure = curves.corner_figure(real, {"far": far}, real.names)
    assert len(figure.axes) == 4
    rising = curves.levels(np.zeros((4, 4)))
    assert rising[0] < rising[1]


TABLE = EventTable.of(stream(10, "test-report-parts").normal(size=(100, 3)))
STEP = {"time": 0.5, "valid_rmse": 0.9, "trees": 3, "valid_rmse_without_trees": 1.0}
POINT = curves.Point(4, 1.0, 1.0, 0.1)
JUDGED = {"auc_gb": {"one": judged(0.7)}}


@pytest.mark.parametrize(
    ("draw", "shape"),
    [
        (lambda axes: sample_figures("columns", TABLE, TABLE, axes)[0], (3, 2)),
        (lambda axes: sample_figures("corner", TABLE, TABLE, axes)[0], (3, 3)),
        (lambda axes: sample_figures("pairs", TABLE, TABLE, axes)[0], (2, 3)),
        (lambda axes: figures.correlation_figure(TABLE, TABLE, TABLE, axes=axes), (1, 2)),
        (lambda axes: curves.steps_figure({"a": [STEP]}, axes), (1, 3)),
        (
            lambda axes: curves.quality_figure({"a": [POINT]}, None, axes),
            (1, 2),
        ),
        (
            lambda axes: classifier_curves.judge_figure(JUDGED, axes),
            (1, 2),
        ),
    ],
)
def test_every_figure_is_drawn_into_axes_that_are_given(draw, shape):
    figure = style.new_figure(8.0, 8.0)
    grid = figure.subplots(*shape, squeeze=False)
    with style.drawing():
        assert draw(grid) is figure
        drawn = [axes for axes in grid.flat if axes.axison]
        assert all(axes.has_data() for axes in drawn)
        assert len(drawn) >= 2
        with pytest.raises(ConfigError, match="axes must be"):
            draw(grid[0, 0])
    with pytest.raises(ConfigError, match="unknown kind of plot"):
        sample_figures("pie", TABLE, TABLE)


def test_the_diagonal_of_pairs_counts_weights():
    x = np.repeat([[0.0, 0.0], [1.0, 1.0]], 50, axis=0) + 0.01 * np.arange(100)[:, None]
    real = EventTable.of(x, weight=np.repeat([3.0, 1.0], 50))
    with style.drawing():
        figure = curves.corner_figure(real, {}, real.names)
    values, edges, _ = figure.axes[0].patches[0].get_data()
    low = values[edges[1:] < 0.75] @ np.diff(edges)[edges[1:] < 0.75]
    assert low == pytest.approx(0.75, abs=0.02)  # without weights a half


def test_a_condition_that_nobody_knows_is_told_in_the_table_of_columns():
    x = stream(9, "test-report-parts").normal(size=(100, 1))
    real = EventTable.of(x, cond=np.full((100, 1), np.nan))
    assert sections.column_numbers(real, "c0") == ("condition", *("none known",) * 4)


def test_cells_are_escaped_and_far_ones_bold():
    table = render.PageTable(("a<b",), [[render.Cell("1 ± 2", far=True, note="<")]], caption="&")
    text = render.render("report.html", title="", lead=[], notes=[], legend="", images=[],
                         settings=[], tables=[table])  # fmt: skip
    assert '<th scope="col">a&lt;b</th>' in text
    assert '<td class="far">1 ±&nbsp;2 <span class="note">&lt;</span></td>' in text
    assert "<caption>&amp;</caption>" in text


def test_a_relation_that_holds_better_than_in_real_events_is_not_far():
    result = Result("relation", 1e-9, 1e-10, 100, floor=1e-7, floor_error=1e-10, column="z")
    assert not score_tables.is_far(result)
    assert score_tables.is_far(Result("auc_gb", 0.4, 0.01, 100, floor=0.5, floor_error=0.01))
