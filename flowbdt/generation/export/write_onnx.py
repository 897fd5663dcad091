"""`write_onnx`: a trained flow as one ONNX graph, from noise to events.

The graph has every evaluation of a sampler without random numbers written out: inputs of the trees,
tree ensembles, closed form, the solver's sums, and the inverse transform.
Inputs are ``noise`` (n, m), standard normal, of which the last two are a vector in the direction of
which an event is turned, where events turn, and ``conditions`` (n, c) if there are any, in the
coding of the training; outputs ``events`` (n, d) in the units of the training table and, with
rejection or computed columns, ``acceptance`` (n,): the probability with which to keep each event.
All are float64.
"""

from __future__ import annotations

import functools
import json
import operator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ... import __version__, atomic_files
from ...errors import ConfigError
from ...tables.conditions import ColumnScaling
from ...trees.density_ratio import DensityRatio
from ...trees.tree_arrays import forests
from ..packed.model_arrays import check_exportable, cut_arrays, flow_of
from ..trained_flow import Flow
from .onnx_columns import columns_of, expressions_of, turned
from .onnx_graph import Graph, Tensor
from .onnx_steps import GraphSteps, takes_unknown, tree_sum

if TYPE_CHECKING:
    from os import PathLike

    from ...model import FlowBDT

FORMAT = 1
"""Version of inputs, outputs and metadata."""

TEXT = (
    "Events from noise. noise: standard normal numbers (n, m); where events turn, the last two are"
    " the direction that they turn to. conditions: (n, c), if there are"
    " any. events: (n, d), columns and units in the metadata. acceptance: keep each event with"
    " this probability and draw the others anew, if there is such an output."
)


def write_onnx(model: FlowBDT | Flow, path: str | PathLike[str]) -> None:
    """Write a trained model as an ONNX file, which onnxruntime turns noise into events with.

    Parameters
    ----------
    model : a fitted `FlowBDT`, or a `Flow` (with another sampler, or without rejection)
    path : file to write, usually ``*.onnx``

    Raises
    ------
    MissingExtra if onnx is not installed; NotFittedError if the model is not fitted; ConfigError if
    a graph cannot hold it: a sampler that draws random numbers or evaluates between trained times,
    source events, trees deeper than 12, a file of more than 2 GB.

    Notes
    -----
    The metadata of the file hold ``format``, ``flowbdt_version``, ``run_digest``, ``columns`` and
    ``conditions`` (JSON: name, unit, type, categories, limits), ``sampler`` (JSON),
    ``mean_acceptance``, and ``unknown_conditions``: "any" if conditions may be NaN, "none" if
    events with such are NaN themselves.
    """
    flow = flow_of(model)
    check_exportable(flow)
    if flow.draws_columns:
        names = ", ".join(map(repr, flow.transform.skeleton.names))
        raise ConfigError(
            f"classifiers draw {names}, which a graph does not; export to C++, or fit with the"
            " transform 'categorical' for these columns, 'rank' for a 'kind of' numbers"
        )
    content = graph_of(flow).to_bytes(TEXT, _metadata(flow), __version__)
    atomic_files.write_bytes(Path(path), content)


def graph_of(flow: Flow) -> Graph:
    """Return the graph of a flow that `check_exportable` has nothing against."""
    graph, n_cond = Graph(), len(flow.columns["conditions"])
    inputs = functools.cache(flow.step_inputs)
    noise = graph.input("noise", flow.n_noise)
    points, turn = noise, flow.transform.turn
    if turn:
        points = noise.take(range(flow.n_latent))
    given = graph.input("conditions", n_cond) if n_cond else None
    cond = None if given is None else _scaled(given, flow.condition_scaling)
    steps = GraphSteps(graph, inputs, flow.step_forests, cond, n_cond)
    events = columns_of(graph, flow.transform, steps.carry(*flow.program(), points), given)
    if cond is not None and not takes_unknown(inputs(0).prepared, n_cond):
        known = cond.is_nan().cast(np.int64).sum(axis=1).reshape(-1, 1) <= np.int64(0)
        events = graph.where(known, events, np.nan)
    kept = None if flow.reach is None else _near(events, flow.reach)
    if flow.ratio is not None:
        known = events if given is None else graph.join([events, given])
        scaled = [
            _scaled(events, flow.scaling[: flow.n_columns]),
            *([] if cond is None else [cond]),
        ]
        derived = expressions_of(graph, flow.seen, known, flow.n_columns + n_cond)
        accepted = _acceptance(flow.ratio, [*scaled, *derived])
        kept = accepted if kept is None else accepted * kept
    if turn:
        vector = noise.take([flow.n_latent, flow.n_latent + 1])
        events = turned(graph, flow.transform, events, vector, given)
    graph.output("events", events, len(flow.columns["names"]))
    if len(flow.cuts):
        met = _meets_cuts(flow, events, given)
        kept = met if kept is None else kept * met
    if kept is not None:
        graph.output("acceptance", kept)
    return graph


def _meets_cuts(flow: Flow, events: Tensor, given: Tensor | None) -> Tensor:
    """Return 1 where events meet all cuts, else 0 (n,)."""
    known = events if given is None else events.graph.join([events, given])
    n_known = flow.n_columns + len(flow.condition_names)
    found = expressions_of(events.graph, cut_arrays(flow), known, n_known)
    held = functools.reduce(operator.mul, found[-len(flow.cuts) :])
    return held.reshape(-1)


def _near(events: Tensor, reach: np.ndarray) -> Tensor:
    """Return 1 where all computed columns are believed, else 0 (n,)."""
    places = np.flatnonzero(np.isfinite(reach[0])).tolist()
    low, high = reach[:, None, places]
    some = events.take(places)
    beyond = (some < low) | some.graph.node("Greater", some, high)
    return (beyond.cast(np.float64).sum(axis=1) <= 0.0).cast(np.float64)


def _scaled(values: Tensor, scaling: ColumnScaling) -> Tensor:
    """Return columns (n, p) as `ColumnScaling.forward`; nothing is added where nothing is done."""
    return (values - scaling.centre[None]) / scaling.scale[None] if scaling.changes else values


def _acceptance(ratio: DensityRatio, seen: list[Tensor]) -> Tensor:
    """Return the probability with which each event is to be kept (n,)."""
    graph = seen[0].graph
    inputs = graph.join(seen).cast(np.float32)
    log_ratio = tree_sum(graph, forests(ratio.to_bytes())[0], inputs, 1).cast(np.float64)
    odds = graph.node("Exp", log_ratio) / ratio.ceiling
    return graph.node("Min", odds, 1.0).reshape(-1)


def _metadata(flow: Flow) -> dict[str, str]:
    """Return what a program needs to know about inputs and outputs, as texts."""
    columns, n_cond = flow.columns, len(flow.columns["conditions"])
    table = [
        {"name": name, "unit": unit, "type": dtype, **_categories(flow, name)}
        for name, unit, dtype in zip(
            columns["names"], columns["units"], columns["dtypes"], strict=True
        )
    ]
    ranges = zip(columns["conditions"], *flow.condition_ranges.limits, strict=True)
    conditions = [
        {
            "name": name,
            **_categories(flow, name),
            **({"limits": [low, high]} if low <= high else {}),
        }
        for name, low, high in ranges
    ]
    any_unknown = takes_unknown(flow.step_inputs(0).prepared, n_cond)
    return {
        "format": str(FORMAT),
        "flowbdt_version": __version__,
        "run_digest": flow.plan["digest"],
        "columns": json.dumps(table),
        "conditions": json.dumps(conditions),
        "unknown_conditions": "any" if any_unknown else "none",
        "sampler": json.dumps(atomic_files.to_plain(flow.sampler.record(flow.field.convention))),
        "mean_acceptance": repr(flow.acceptance),
    }


def _categories(flow: Flow, name: str) -> dict[str, Any]:
    """Return the texts that the codes 0, 1, ... of a column stand for, if it has such."""
    return {"categories": list(flow.categories[name])} if name in flow.categories else {}
