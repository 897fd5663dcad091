"""An unfolding as plain values and as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...errors import plural
from ...evaluation.metrics import quantile_edges
from .inputs import UnfoldingInputs
from .iterations import MORE
from .uncertainties import UnfoldingErrors
from .unfolded import Edges, Unfolded, check_columns, spectrum, truth_table

N_BINS = 10


def chosen_bins(inputs: UnfoldingInputs, edges: Edges | None = None) -> dict[str, list[float]]:
    """Return edges of every truth column: those given, else ten quantiles of the simulation.

    Raises InputError if a column is unknown or edges do not increase.
    """
    given = edges or {}
    check_columns(given, inputs.truth)
    truth, found = inputs.truth.take(inputs.pass_truth), {}
    for name in truth.names:
        values = truth.column(name)
        inner = quantile_edges(values, N_BINS)[1:-1]
        own = np.unique([values.min(), *inner, np.nextafter(values.max(), np.inf)])
        found[name] = [float(edge) for edge in given.get(name, own)]
    return found


def as_json(
    result: Unfolded, edges: Edges, errors: UnfoldingErrors | None = None
) -> dict[str, Any]:
    """Return spectra, record and closure of a result as plain values."""
    before = truth_table(result.inputs, result.inputs.weight)
    spectra: dict[str, dict[str, Any]] = {
        name: {
            "edges": list(values),
            "unfolded": result.histogram(name, values).tolist(),
            "simulation": spectrum(before.column(name), before.weight, values).tolist(),
        }
        for name, values in edges.items()
    }
    for name, found in spectra.items():
        if errors is None:
            break
        parts = errors.table(name, edges[name])
        found["errors"] = {part: values.tolist() for part, values in parts.items()}
        found["covariance"] = errors.covariance(name, edges[name]).tolist()
    inputs = result.inputs
    return {
        "format": 1,
        "events": {
            "simulation": inputs.n,
            "misses": int((inputs.pass_truth & ~inputs.pass_reco).sum()),
            "fakes": int(inputs.fakes.sum()),
            "data": inputs.data.n,
            "background": len(inputs.background_weight),
        },
        "unfolding": result.record,
        "chi2 per bin at detector level": result.closure(),
        "spectra": spectra,
    }


def as_text(result: Unfolded, edges: Edges, errors: UnfoldingErrors | None = None) -> str:
    """Return what `as_json` has as text."""
    content = as_json(result, edges, errors)
    events, record = content["events"], content["unfolding"]
    lines = [
        f"{events['simulation']} simulated events, {events['misses']} misses,"
        f" {events['fakes']} fakes; data {events['data']}, background {events['background']}",
        f"{result.settings.method}: {plural(record['iterations'], 'iteration')}",
    ]
    if "tradeoff" in record:
        lines.append("iterations   chi2/bin of data held out   unfolded   worth   change")
        lines += [
            f"{row['iterations']:>10}   {row['held_out']:>25.3f}   {row['unfolded']:>8.3f}"
            f"   {row['worth']:>5.3f}   {row['change']:>6.4f}"
            for row in record["tradeoff"]
        ]
        lines.append(
            f"{MORE} times the number with the least chi2 is taken, to leave less of the prior;"
            " docs/unfolding.md explains the columns"
        )
        if record["iterations"] == MORE * len(record["tradeoff"]):
            lines.append("that is the largest that was tried: more iterations may be better")
    lines.append("chi2 per bin at detector level, data against the result folded back:")
    closure: Mapping[str, float] = content["chi2 per bin at detector level"]
    lines += [f"  {name}: {value:.2f}" for name, value in closure.items()]
    for name, found in content["spectra"].items():
        parts: dict[str, list[float]] = found.get("errors", {})
        lines.append(f"{name}: unfolded events in bins" + (", errors by part" if parts else ""))
        lines += [f"{'events':>42}" + "".join(f" {part:>11}" for part in parts)]
        for i, value in enumerate(found["unfolded"]):
            low, high = found["edges"][i : i + 2]
            own = "".join(f" {of_part[i]:>11.1f}" for of_part in parts.values())
            lines.append(f"  {low:>12.6g} to {high:<12.6g} {value:>11.1f}{own}")
    return "\n".join(lines)
