"""`write_onnx`: a trained flow as one ONNX graph, from noise to events.

The graph has the whole way of a sampler without random numbers, every evaluation written out: what
trees see, the tree ensembles, the closed form, the solver's sums, and the way back to columns.
Inputs are ``noise`` (n, m), standard normal, and ``conditions`` (n, c) if there are any, in the
coding of the training; outputs ``events`` (n, d) in the units of the training table and, with
rejection, ``acceptance`` (n,): the probability with which to keep each event. All are float64.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import __version__, files
from ..compiled.program import Program, program
from ..generation import Flow
from ..inputs import StepInputs
from ..model import FlowBDT
from ..regressors.trees import forests
from . import onnx_transforms
from .onnx_closed_form import Answer, ClosedForm, takes_unknown
from .onnx_graph import Graph, Tensor
from .onnx_trees import tree_sum
from .tables import check_exportable, flow_of

if TYPE_CHECKING:
    from os import PathLike

FORMAT = 1
"""Version of inputs, outputs and metadata."""

TEXT = (
    "Events from noise. noise: standard normal numbers (n, m). conditions: (n, c), if there are"
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
    MissingExtra
        If onnx is not installed.
    ConfigError
        If the model has what a graph cannot: a sampler that draws random numbers or asks between
        step models, a start from given events, trees deeper than 12, a file of more than 2 GB.
    NotFittedError
        If the model is not fitted.

    Notes
    -----
    The metadata of the file hold ``format``, ``flowbdt_version``, ``run_digest``, ``columns`` and
    ``conditions`` (JSON: name, unit, type, categories), ``sampler`` (JSON),
    ``mean_acceptance``, and ``unknown_conditions``: "any" if conditions may be NaN, "none" if
    events with such are NaN themselves.
    """
    flow = flow_of(model)
    check_exportable(flow)
    content = _Walk(flow).graph.to_bytes(TEXT, _metadata(flow), __version__)
    files.write_bytes(Path(path), content)


class _Walk:
    """The graph of a flow, written evaluation after evaluation."""

    def __init__(self, flow: Flow) -> None:
        self._flow, self.graph = flow, Graph()
        self._m, self._n_cond = flow.plan["n_latent"], len(flow.columns["conditions"])
        self._inputs: dict[int, StepInputs] = {}
        noise = self.graph.input("noise", self._m)
        self._cond = self.graph.input("conditions", self._n_cond) if self._n_cond else None
        first = self._step_inputs(0).prepared
        self._form = ClosedForm(self.graph, first, self._cond, self._n_cond)
        events = onnx_transforms.events(self.graph, flow.transform, self._end(noise))
        if self._cond is not None and not takes_unknown(first, self._n_cond):
            events = self._known_only(events)
        self.graph.output("events", events, len(flow.columns["names"]))
        if flow.ratio is not None:
            self.graph.output("acceptance", self._acceptance(events))

    def _step_inputs(self, step: int) -> StepInputs:
        if step not in self._inputs:
            self._inputs[step] = self._flow._step_inputs(step)
        return self._inputs[step]

    def _end(self, noise: Tensor) -> Tensor:
        """Return where the solver carries the noise."""
        flow = self._flow
        found = program(flow.sampler.solver, flow.sampler.boundaries, flow.field.convention)
        x, slots = noise, dict[int, Tensor]()
        for e, t in enumerate(found.times):
            x = _moved(found, e, x, slots)
            slots[int(found.slot[e])] = self._velocity(flow.grid.locate(float(t)), x)
        return _moved(found, len(found.times), x, slots)

    def _velocity(self, step: int, x: Tensor) -> Tensor:
        inputs = self._step_inputs(step)
        answer = self._form.at(inputs, x)
        seen = self._seen(inputs, x, answer).cast(np.float32)
        trees, _ = forests(self._flow._model(step))
        more = tree_sum(self.graph, trees, seen, self._m).cast(np.float64)
        return more if answer.velocity is None else answer.velocity + more

    def _seen(self, inputs: StepInputs, x: Tensor, answer: Answer) -> Tensor:
        """Return what the trees see, as in `inputs.StepInputs`."""
        views, silent = inputs.views, inputs.silent and self._cond is None
        parts = [x] if "latent" in views else []
        if inputs.to_columns is not None:
            parts.append(x @ np.ascontiguousarray(inputs.to_columns))
        for name, extra in (("end_point", answer.end_point), ("components", answer.weights)):
            if name in views and extra is not None:
                parts.append(extra * 0.0 if silent else extra)
        return self.graph.join(parts if self._cond is None else [*parts, self._cond])

    def _known_only(self, events: Tensor) -> Tensor:
        """Return NaN for events of which a condition is unknown."""
        assert self._cond is not None
        missing = self._cond.is_nan().cast(np.int64).sum(axis=1).reshape(-1, 1)
        return self.graph.where(missing.cast(bool), np.nan, events)

    def _acceptance(self, events: Tensor) -> Tensor:
        """Return the probability with which each event is to be kept (n,)."""
        ratio = self._flow.ratio
        assert ratio is not None
        seen = self.graph.join([events] if self._cond is None else [events, self._cond])
        trees, _ = forests(ratio.to_bytes())
        log_ratio = tree_sum(self.graph, trees, seen.cast(np.float32), 1).cast(np.float64)
        odds = self.graph.node("Exp", log_ratio) / ratio.ceiling
        return self.graph.node("Min", odds, 1.0).reshape(-1)


def _moved(found: Program, e: int, x: Tensor, slots: dict[int, Tensor]) -> Tensor:
    """Return the point of evaluation ``e``. See `compiled.program.Program`."""
    if found.scale[e] != 1.0:
        x = x * float(found.scale[e])
    for q in range(found.terms[e], found.terms[e + 1]):
        x = x + slots[int(found.term[q])] * float(found.weight[q])
    return x


def _metadata(flow: Flow) -> dict[str, str]:
    """Return what a program needs to know about inputs and outputs, as texts."""
    columns, n_cond = flow.columns, len(flow.columns["conditions"])
    table = [
        {"name": name, "unit": unit, "type": dtype, **_categories(flow, name)}
        for name, unit, dtype in zip(
            columns["names"], columns["units"], columns["dtypes"], strict=True
        )
    ]
    given = [{"name": name, **_categories(flow, name)} for name in columns["conditions"]]
    any_unknown = takes_unknown(flow._step_inputs(0).prepared, n_cond)
    return {
        "format": str(FORMAT),
        "flowbdt_version": __version__,
        "run_digest": flow.plan["digest"],
        "columns": json.dumps(table),
        "conditions": json.dumps(given),
        "unknown_conditions": "any" if any_unknown else "none",
        "sampler": json.dumps(files.to_plain(flow.sampler.record(flow.field.convention))),
        "mean_acceptance": repr(flow.acceptance),
    }


def _categories(flow: Flow, name: str) -> dict[str, Any]:
    """Return the texts that the codes 0, 1, ... of a column stand for, if it has such."""
    return {"categories": list(flow.categories[name])} if name in flow.categories else {}
