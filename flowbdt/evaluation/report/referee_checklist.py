"""What a referee of a study of samplers asks for, and where a page answers it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from . import score_tables


@dataclass(frozen=True)
class Holds:
    """What a page has. ``curves``: quality at several numbers of evaluations."""

    floors: bool
    histograms: bool
    curves: bool
    losses: bool
    public: bool = False


def items(page: Holds) -> Iterator[tuple[str, str | None, str]]:
    """Yield what is asked, where it is answered (an anchor; None: not here), and how."""
    yield (
        "Cost in evaluations of the velocity, not in steps",
        "settings",
        "evaluations of every trajectory and of every kept event; a multistep start and a restart"
        " are counted",
    )
    yield (
        "Uncertainties on every number and plot",
        "scores",
        "standard errors beside every score"
        + (", bands and bars in every figure" if page.histograms or page.curves else "")
        + ("; floors, truth against truth, with theirs" if page.floors else ""),
    )
    yield (
        "All samplers together, with ratio panels, axes zoomed to the data",
        "columns" if page.histograms else None,
        "histograms of all entries in one panel each; the ratio axis follows the bins with events"
        if page.histograms
        else "needs events: name files of events or runs, and --real",
    )
    yield ("Exact settings of every entry", "settings", "every setting, boundaries and digests")
    yield (
        "Losses, weights, SNR(t) and schedules written out",
        "losses",
        "definitions with symbols"
        + (", and the losses per step in a figure and in numbers" if page.losses else ""),
    )
    yield (
        "Distance of one-dimensional histograms against the number of evaluations",
        "quality" if page.curves else None,
        "mean separation power per run and sampler, with what could not be drawn and why"
        if page.curves
        else "needs runs and numbers: --evaluations 4 8 16 32",
    )
    yield (
        "Beside public numbers",
        "published" if page.public else None,
        "published figures beside ours, with what makes them comparable only roughly"
        if page.public
        else "needs the figures: --published FILE",
    )
    yield ("Separation power defined", "definitions", "formula, bins and floor")
    yield (
        "Labels that make a plot readable alone",
        "columns" if page.histograms else None,
        "names, units, what is compared"
        if page.histograms
        else "needs events: name files of events or runs, and --real",
    )
    yield (
        "Why weights of the training loss matter, on more than one observable",
        "losses",
        "each time has a model of its own: a weight in time scales all of its loss and changes no"
        " tree, so none has to be chosen",
    )


def table(page: Holds) -> str:
    """Return the list as an HTML table."""
    rows = []
    for asked, anchor, how in items(page):
        here = (
            score_tables.Cell("yes", link=anchor)
            if anchor
            else score_tables.Cell("not in this page")
        )
        rows.append((asked, here, how))
    return score_tables.table(("asked", "answered", "how"), rows, words=[0, 1, 2])
