"""ROC curves of the classifier tests, as a figure, a table and sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...errors import plural
from ..evaluate import Evaluation
from ..metrics import METRICS, Result, uncertain
from ..metrics.classifier import Curve
from . import style
from .render import PageTable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MISTAKES = 0.1
"""Share of real events taken for generated at which words tell what a judge recognises."""

STRENGTH = {
    "auc_gb": "gradient boosting: 200 trees of depth 5, learning rate 0.1",
    "auc_residual": "gradient boosting on columns and on what boosted trees, fitted to training"
    " events in two halves, leave of each column given all others",
    "auc_mlp": "neural network: standardised columns, hidden layers of 128 and 64, at most 60"
    " epochs, stopped early",
}
"""How the judges of `evaluate` are made."""

FLOOR = "floor: truth against truth"

CAPTION = (
    "Curves of the classifiers: share of generated events recognised against share of real events"
    " mistaken for generated (1 - rejection); below, their difference, 0 for a judge that guesses."
    " Means over splits and model seeds; bands are standard errors"
)


def judged(evaluations: Mapping[str, Evaluation]) -> dict[str, dict[str, Result]]:
    """Return judge -> entry -> result, of those that keep a curve."""
    judges: dict[str, dict[str, Result]] = {}
    for name, evaluation in evaluations.items():
        for result in evaluation.results:
            if Curve.of(result.settings) is not None:
                judges.setdefault(result.name, {})[name] = result
    return judges


def short(judge: str) -> str:
    """Return what a judge is called: a metric without what it measures."""
    return METRICS.get(judge).label.removeprefix("AUC, ")


def judge_figure(results: Mapping[str, Mapping[str, Result]], axes: Any = None) -> Figure:
    """Return the curves of all judges, with the diagonal, the floor, and the differences to it.

    ``results`` come from `judged`; ``axes`` are two for each judge. Call it inside `style.drawing`.
    """
    cells = style.Cells(columns=len(results), width=4.1, height=4.4, between=0.22)
    names = dict.fromkeys(name for entries in results.values() for name in entries)
    looks = dict(zip(names, style.lines(), strict=False))  # the same in every panel
    figure, panels = style.ratio_panels(len(results), cells, [*names, FLOOR], axes)
    handles: dict[str, Any] = {}
    for (judge, entries), (upper, lower) in zip(results.items(), panels, strict=True):
        handles |= _curves(upper, lower, entries, looks)
        upper.set_title(short(judge), pad=4, y=0.02, loc="right", x=0.97)
        style.quiet_ticks(upper)
        lower.set_xlabel("real events mistaken for generated")
    style.name_rows(panels, cells.columns, "generated events recognised", "above diagonal")
    style.legend_above(figure, handles, within=None if axes is None else panels[0][0])
    return figure


def _curves(
    upper: Axes, lower: Axes, entries: Mapping[str, Result], looks: Mapping[str, tuple[str, Any]]
) -> dict[str, Any]:
    drawn = [(name, Curve.of(result.settings), *looks[name]) for name, result in entries.items()]
    floor = Curve.of(next(iter(entries.values())).settings, "floor_roc")
    drawn.append((FLOOR, floor, style.TRAINING, style.TRAINING_DASHES))
    handles = {}
    for name, curve, color, dashes in drawn:
        if curve is None:
            continue
        for axes, y in ((lower, curve.recognised - curve.mistakes), (upper, curve.recognised)):
            low, high = y - curve.error, y + curve.error
            axes.fill_between(curve.mistakes, low, high, color=color, alpha=0.25, lw=0)
            (handles[name],) = axes.plot(curve.mistakes, y, color=color, ls=dashes, lw=1.4)
    upper.plot([0, 1], [0, 1], color=style.REAL, lw=0.7)
    lower.axhline(0.0, color=style.REAL, lw=0.7)
    upper.set(xlim=(0, 1), ylim=(0, 1.02), yticks=[0.2, 0.4, 0.6, 0.8, 1.0])
    lower.margins(y=0.15)
    lower.locator_params(axis="y", nbins=4, prune="upper")
    return handles


def recognised_tables(evaluations: Mapping[str, Evaluation]) -> list[PageTable]:
    """Return a table of the events recognised where a share of the real ones is mistaken."""
    rows = []
    for judge, results in judged(evaluations).items():
        floor = next(iter(results.values()))
        cells = [_share(results[n].settings) if n in results else "-" for n in evaluations]
        rows.append([short(judge), *cells, _share(floor.settings, "floor_roc")])
    text = f"Generated events recognised, where {MISTAKES:.0%} of the real ones are mistaken [%]"
    return [PageTable(("judge", *evaluations, "floor"), rows, text)] if rows else []


def _share(settings: Mapping[str, Any], key: str = "roc") -> str:
    curve = Curve.of(settings, key)
    return "-" if curve is None else uncertain(*(100 * number for number in curve.at(MISTAKES)))


def words(evaluations: Mapping[str, Evaluation]) -> list[str]:
    """Return in sentences how strong the judges are."""
    lines = []
    for judge, entries in judged(evaluations).items():
        one = next(iter(entries.values()))
        tests = one.settings.get("test_share", 0.3)
        splits, models = (one.settings.get(f"n_{k}_seeds", 1) for k in ("split", "model"))
        made = STRENGTH.get(judge, judge)
        lines.append(
            f"{made[:1].upper()}{made[1:]}; trained on {2 * (1 - tests) * one.n:,.0f} events, half"
            f" of them real, and tested on {2 * tests * one.n:,.0f};"
            f" {plural(splits, 'split')}, {plural(models, 'model seed')} each"
        )
    if lines:
        lines.append(
            "a judge recognises what it can learn from so many events: a stronger one, or one with"
            " more events, may recognise more, so that an AUC is a lower limit"
        )
    return lines
