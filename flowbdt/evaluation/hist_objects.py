"""Histograms of samples as objects of `hist`, for other tools of the field; needs hist."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError, MissingExtra
from ..tables import checks
from ..tables.event_table import EventTable, with_same_codes
from .model_errors import bin_errors
from .report.figures import column_edges

if TYPE_CHECKING:
    from hist import Hist

TAKEN = ("sample", "weight", "threads")
"""Names of arguments that axes of `hist` cannot have."""


def to_hist(
    samples: Mapping[str, Any],
    columns: Sequence[str] | None = None,
    edges: Mapping[str, Sequence[float]] | None = None,
    replicas: Mapping[str, np.ndarray] | None = None,
) -> dict[str, Hist]:
    """Return a histogram of each column, with all samples side by side.

    Parameters
    ----------
    samples : EventTable or other table by the name of the sample, such as ``{"real": test,
        "generated": new}``; all must have the columns of the first
    columns : names of columns; None for all of the first sample
    edges : increasing edges (b + 1,) of bins by column, in its unit. By default those of the
        figures of a report, from the first sample: unit bins for few integers, else 40 bins over
        nearly all of its events
    replicas : which replica of an ensemble made each event (n,), as of `FlowBDT.replicas_of`, by
        the name of the sample: variances of bins within the edges then have the model's, too

    Returns
    -------
    dict of hist.Hist by column, with the axes ``dataset`` and the column (categories are texts).
    Bins hold sums of event weights (1 where there are none), and sums of their squares as
    variances; values beyond the edges are in the flow bins, missing ones in none. A column called
    "sample", "weight" or "threads" has "_" added to the name of its axis.

    Raises
    ------
    InputError
        If there is no sample, a column is unknown or missing in a sample, edges do not increase, or
        replicas are of no sample, or not one for each of its events.
    MissingExtra
        If hist is not installed.

    Examples
    --------
    ``to_hist({"real": test, "generated": new})["mass"][{"dataset": "real"}]`` is a histogram that
    uproot writes to a ROOT file, and ``.plot()`` draws.
    """
    try:
        import hist
    except ImportError as error:
        raise MissingExtra.of("hist", error, "root") from error
    if not samples:
        raise InputError("there must be at least one sample to fill histograms with, got none")
    tables = {str(name): EventTable.of(table, missing=True) for name, table in samples.items()}
    first = next(iter(tables.values()))
    columns, edges = first.names if columns is None else tuple(columns), dict(edges or {})
    checks.known_columns((*columns, *edges), first.names, "the first sample")
    for name, table in tables.items():
        checks.known_columns(columns, table.names, f"the sample {name!r}")
    for name, numbers in (replicas or {}).items():
        if name not in tables or np.shape(numbers) != (tables[name].n,):
            raise InputError(
                f"replicas must be the number of a replica for each event of a sample, got"
                f" {np.shape(numbers)} for {name!r}"
            )
    tables = dict(zip(tables, with_same_codes(list(tables.values())), strict=True))
    first = next(iter(tables.values()))
    texts = first.categories
    datasets = hist.axis.StrCategory(list(tables), name="dataset")
    result = {}
    for column in columns:
        axis = _axis(first, column, texts.get(column), edges.get(column))
        filled = hist.Hist(datasets, axis, storage=hist.storage.Weight())
        for name, table in tables.items():
            values = table.column(column)
            there = ~np.isnan(values)
            weight = np.ones(table.n) if table.weight is None else table.weight
            given: Any = values[there]
            if column in texts:
                given = np.asarray(texts[column])[given.astype(np.int64)]
            filled.fill(name, given, weight=weight[there])
            if replicas and name in replicas:
                bins = np.arange(axis.size + 1) - 0.5 if column in texts else axis.edges
                errors = bin_errors(values, replicas[name], bins, weight)
                own = filled.view(flow=False)["variance"][list(tables).index(name)]
                own += (errors.model * weight.sum()) ** 2
        result[column] = filled
    return result


def _axis(
    first: EventTable, column: str, texts: Sequence[str] | None, edges: Sequence[float] | None
) -> Any:
    import hist

    unit = first.unit(column)
    about: dict[str, Any] = {
        "name": f"{column}_" if column in (*TAKEN, "dataset") else column,
        "label": f"{column} [{unit}]" if unit else column,
    }
    if texts is not None:
        if edges is not None:
            raise InputError(f"column {column!r} has categories, which have no edges of bins")
        return hist.axis.StrCategory(list(texts), **about)
    if edges is None:
        values = first.column(column)
        drawn = column_edges(values[~np.isnan(values)])
        edges = [*drawn[:-1], np.nextafter(drawn[-1], np.inf)]  # the largest value is within
    steps = np.diff(np.asarray(edges, dtype=np.float64))
    if len(steps) == 0 or not (steps > 0).all():
        raise InputError(f"edges of {column!r} must be increasing, at least two, got {edges}")
    return hist.axis.Variable(list(edges), **about)
