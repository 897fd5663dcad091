"""Reports: files that open anywhere, figures that draw every kind of column."""

from __future__ import annotations

import builtins
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowbdt.atomic_files import read_json
from flowbdt.errors import MissingExtra
from flowbdt.evaluation.evaluate import Evaluation, evaluate
from flowbdt.evaluation.report import demo_figure, figures, style, write_report
from flowbdt.evaluation.verdict import by_excess, tables_as_judged, verdict_of
from flowbdt.tables.event_table import EventTable

FAST = ["separation", "correlation_max"]


def table(seed: int, n: int = 200) -> EventTable:
    rng = np.random.default_rng(seed)
    x = np.column_stack(
        [
            rng.normal(900, 80, n),
            rng.exponential(size=n) ** 3,
            rng.integers(0, 6, n),
            np.full(n, 2.5),
            np.where(rng.random(n) < 0.4, 0.0, rng.random(n)),
            rng.normal(size=n),
            rng.normal(size=n),
        ]
    )
    names = ["pt", "a<b", "count", "constant", "atom", "p$q", "x_1"]
    return EventTable.of(x, names, units={"pt": "GeV"})


@pytest.fixture(scope="module")
def verdict() -> Evaluation:
    return evaluate(table(1), table(2), training=table(3), metrics=FAST)


@pytest.fixture(scope="module")
def folder(verdict: Evaluation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reports") / "deep" / "report"
    write_report(verdict, table(1), table(2), path, training=table(3))
    return path


def test_report_has_json_page_and_figures(folder: Path) -> None:
    names = {path.name for path in folder.iterdir()}
    pages = {f"{name}.{kind}" for name in ("columns_01", "columns_02", "correlations")
             for kind in ("png", "pdf")}  # fmt: skip
    assert names == {"report.json", "report.html", *pages}


def test_report_json_holds_the_evaluation(folder: Path, verdict: Evaluation) -> None:
    assert read_json(folder / "report.json") == verdict.to_json()


def test_page_needs_nothing_from_elsewhere(folder: Path) -> None:
    page = (folder / "report.html").read_text()
    assert page.count('src="data:image/png;base64,') == 3
    assert len(re.findall(r"<img", page)) == 3
    assert not re.search(r"https?://|<script|<link|@import|url\(", page)
    assert 'name="viewport"' in page


def test_page_shows_value_and_floor_of_every_result(folder: Path, verdict: Evaluation) -> None:
    page = (folder / "report.html").read_text().replace("&nbsp;", " ")
    for result in verdict.results:
        assert f"<td>{result.text()}</td><td>{result.floor_text()}</td>" in page


def test_page_escapes_names(folder: Path) -> None:
    page = (folder / "report.html").read_text()
    assert "a&lt;b" in page
    assert "a<b" not in page


def test_report_of_one_column_without_training_works(tmp_path: Path) -> None:
    real, generated = table(1).select(["pt"]), table(2).select(["pt"])
    page = write_report(
        evaluate(real, generated, metrics=["separation"]), real, generated, tmp_path
    )
    assert "halves" in page.read_text()
    assert not (tmp_path / "correlations.png").exists()


def test_of_wide_tables_only_the_worst_columns_are_drawn(tmp_path: Path) -> None:
    real, generated = table(1), table(2)
    generated.x[:, 5] += 1.0
    verdict = evaluate(real, generated, training=table(3), metrics=["separation"])
    page = write_report(verdict, real, generated, tmp_path, max_columns=1).read_text()
    assert re.findall(r"Columns ([^:]*):", page)[0] == r"p$q"
    assert not (tmp_path / "columns_02.png").exists()


def test_drawing_leaves_the_settings_of_the_user_alone(tmp_path: Path) -> None:
    import matplotlib

    with matplotlib.rc_context({"font.size": 17.0, "text.color": "red"}):
        before = dict(matplotlib.rcParams)
        with style.drawing():
            assert matplotlib.rcParams["text.color"] == "black"
        demo_figure(table(1), table(2), tmp_path / "demo.png")
        assert dict(matplotlib.rcParams) == before


def test_equal_figures_are_equal_files(tmp_path: Path) -> None:
    for kind in ("png", "svg", "pdf"):
        for name in ("one", "two"):
            demo_figure(table(1), table(2), tmp_path / f"{name}.{kind}", "AUC 0.51")
        one, two = ((tmp_path / f"{name}.{kind}").read_bytes() for name in ("one", "two"))
        assert one == two


def test_demo_figure_shows_known_columns_first_then_others() -> None:
    with style.drawing():
        samples = {"generated": table(2)}
        figure = figures.column_page(("pt", "x_1"), table(1), samples, None, title="AUC 0.51")
    labels = [axes.get_xlabel() for axes in figure.axes]
    assert r"$p_{\mathrm{T}}$ [GeV]" in labels
    assert "x_1" in labels


def test_columns_with_the_names_of_the_field_get_its_notation() -> None:
    assert style.label("tau21") == r"$\tau_{21}$"
    assert style.label("mass", "GeV") == "jet mass [GeV]"
    assert style.label("a$b") == r"a\$b"


@pytest.mark.parametrize("name", table(1).names)
def test_drawing_range_holds_nearly_all_events(name: str) -> None:
    values = table(1).column(name)
    edges = figures.column_edges(values)
    assert (np.diff(edges) > 0).all()
    shape = figures.Shape.of(values, None, edges)
    assert shape.outside < 0.02
    assert shape.share.sum() == pytest.approx(100 * (1 - shape.outside))


def test_integer_columns_are_drawn_one_bin_per_value() -> None:
    edges = figures.column_edges(np.array([0.0, 1.0, 3.0]))
    np.testing.assert_array_equal(edges, [-0.5, 0.5, 1.5, 2.5, 3.5])


def test_statistical_error_of_a_share_is_poisson() -> None:
    shape = figures.Shape.of(np.repeat([0.5, 1.5], [25, 75]), None, np.array([0.0, 1.0, 2.0]))
    np.testing.assert_allclose(shape.share, [25.0, 75.0])
    np.testing.assert_allclose(shape.error, [5.0, np.sqrt(75)])


def test_without_matplotlib_the_scores_are_still_written(
    verdict: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_import = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".")[0] == "matplotlib":
            raise ImportError("No module named 'matplotlib'")
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingExtra, match=r"pip install 'flowbdt\[plot\]'"):
        write_report(verdict, table(1), table(2), tmp_path)
    assert read_json(tmp_path / "report.json") == verdict.to_json()


def test_importing_the_report_does_not_import_matplotlib() -> None:
    code = "import sys, flowbdt.evaluation.report; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def physics(seed: int, broken: bool = False, n: int = 1500) -> EventTable:
    rng = np.random.default_rng(seed)
    a, b, kind = rng.normal(size=n), rng.normal(size=n), rng.integers(0, 3, n)
    total = a + b + (1.2 * rng.normal(size=n) if broken else 0)
    names = np.array(["muon", "a lepton with a long name", "electron"])[kind]
    return EventTable.of({"a": a, "b": b, "total": total, "kind": names})


def test_a_verdict_in_words_stands_on_top(tmp_path: Path) -> None:
    real, good, bad, other = physics(1), physics(2), physics(3, broken=True), physics(4)
    metrics = ["separation", "correlation_max", "lost"]
    made_by = {"solver": "heun", "n_steps": 8, "n_evaluations": 15, "acceptance": 0.2}
    for made, record in ((good, {}), (bad, made_by)):
        scores = evaluate(
            real, made, training=other, quick=True, metrics=metrics, provenance=record
        )
        verdict = verdict_of(scores, *tables_as_judged(scores, real, made))
        page = write_report(scores, real, made, tmp_path, training=other).read_text()
        assert verdict.headline in page.replace("&nbsp;", " ")
        if made is good:
            assert verdict.text().startswith("Not told from real within errors.")
            assert not verdict.pairs
    assert verdict.headline.startswith("Told from real")
    told = verdict.differences
    assert any(line.startswith("total given the other columns: R2 0.") for line in told)
    assert verdict.pairs[0][1] == "total"
    assert any("declare the relation" in line for line in verdict.advice)
    assert any("rejection kept 20%" in line for line in verdict.advice)
    assert "15 evaluations" in page
    assert (tmp_path / "pairs.png").exists()


def test_columns_come_worst_first_and_categories_by_name() -> None:
    real, made = physics(1), physics(2)
    scores = evaluate(real, made, training=physics(3), quick=True, metrics=["separation"])
    names = by_excess(real.names, scores)
    excess = [scores.get("separation", name).excess for name in names]
    assert excess == sorted(excess, reverse=True)
    with style.drawing():
        (figure,) = figures.column_pages(real.select(["kind"]), {"generated": made})
    texts = [label.get_text() for label in figure.axes[1].get_xticklabels()]
    assert texts[0] == "a lepton with\u2026"
    assert texts[1:] == ["electron", "muon"]


def test_a_sample_without_a_category_is_drawn_in_the_bins_of_the_others() -> None:
    real = physics(1)
    fewer = EventTable.of({"kind": np.array(["muon"] * 50 + ["electron"] * 50)})
    with style.drawing():
        (figure,) = figures.column_pages(real.select(["kind"]), {"generated": fewer})
    drawn = [patch for patch in figure.axes[0].patches if not patch.get_fill()]
    np.testing.assert_allclose(drawn[-1].get_data().values, [0.0, 50.0, 50.0])


def test_the_columns_that_differ_most_have_their_numbers_in_a_wide_table() -> None:
    x = np.random.default_rng(0).normal(size=(60, 40))
    y = x.copy()
    y[:, 39] = x[:, 0] + 0.1 * x[:, 39]
    with style.drawing():
        figure = figures.correlation_figure(EventTable.of(x), EventTable.of(y))
    panel = figure.axes[0]
    assert len(panel.texts) == figures.MOST_SHOWN * (figures.MOST_SHOWN - 1)
    assert "x39" in [label.get_text() for label in panel.get_yticklabels()]
