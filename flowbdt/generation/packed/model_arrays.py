"""All that generates the events of a trained flow as one file of arrays.

It is what ``flowbdt export`` writes as ``model.bin``, and what a model file has for single events.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ... import __version__, atomic_files
from ...errors import ConfigError
from ...trees.tree_arrays import forests
from ..event_selection import MOST_ATTEMPTS
from ..trained_flow import Flow
from .array_file import (
    DRAWN_VERSION,
    TURNED_VERSION,
    VERSION,
    Arrays,
    file_bytes,
    named,
    texts,
)
from .arrays import ExpressionArrays
from .pack_columns import column_arrays, expression_arrays
from .pack_steps import pack_trees

if TYPE_CHECKING:
    from ...model import FlowBDT


def model_bytes(model: FlowBDT | Flow) -> bytes:
    """Return what ``model.bin`` holds; equal models give equal bytes.

    Raises NotFittedError, or ConfigError if it cannot be exported, with what to do instead.
    """
    flow = flow_of(model)
    version = DRAWN_VERSION if flow.draws_columns else VERSION
    if flow.transform.turn or len(flow.cuts):
        version = TURNED_VERSION
    return file_bytes(arrays_of(flow), version)


def packed_bytes(flow: Flow) -> bytes | None:
    """Return the arrays of a flow for its model file; None if it has no such form."""
    try:
        return model_bytes(flow)
    except ConfigError:
        return None


def flow_of(model: FlowBDT | Flow) -> Flow:
    """Return the trained flow of a model. Raises NotFittedError."""
    if isinstance(model, Flow):
        return model
    return model.flow(compiled=False)


def check_exportable(flow: Flow) -> None:
    """Refuse what only Python can do. Raises ConfigError that says what to do instead."""
    sampler = flow.sampler
    other = "export with another sampler, e.g. sampler={'solver': 'adams_bashforth_3'}"
    if sampler.solver.stochastic:
        raise ConfigError(
            f"solver {sampler.name!r} draws random numbers and cannot be exported;"
            f" {other}, or fit with a deterministic solver"
        )
    if sampler.interpolate:
        raise ConfigError(
            "a sampler that interpolates between step models cannot be exported; choose steps"
            " whose times were trained"
        )
    flow.single("an export")
    if flow.from_source:
        raise ConfigError(
            "a model that starts from source events (coupling='given') cannot be exported; use"
            " model.sample(source=...)"
        )
    if flow.fills and flow.draws_columns:
        raise ConfigError("an export has missing values where the training had; use missing='keep'")
    if not flow.n_latent and not flow.draws_columns:
        raise ConfigError("all columns of this model are constant: there is nothing to export")


def arrays_of(flow: Flow) -> Arrays:
    """Return all of a flow that generates events. Raises ConfigError if it cannot be exported."""
    check_exportable(flow)
    try:
        columns = column_arrays(flow.transform, len(flow.condition_names))
        if flow.discrete is not None:
            columns |= flow.discrete.packed()
    except ConfigError as error:
        raise ConfigError(
            f"a column cannot be exported ({error}); leave it out, or fit with another transform"
            " or type for it"
        ) from error
    return {
        **_texts(flow),
        **(flow.step_arrays() if flow.n_latent else {}),
        **columns,
        "scaling.centre": flow.scaling.centre,
        "scaling.scale": flow.scaling.scale,
        **_limits(flow),
        **_reach(flow),
        **_ratio(flow),
        **_cuts(flow),
    }


def _texts(flow: Flow) -> Arrays:
    """Return names and the like; ``about`` is version, digest of the run, and of this model."""
    columns, listed = flow.columns, list[str]()
    about = [__version__, str(flow.plan["digest"]), atomic_files.digest(flow.manifest)]
    for name, values in flow.categories.items():
        listed += [name, str(len(values)), *values]
    return {
        "text.about": texts(about),
        "text.columns": texts(columns["names"]),
        "text.units": texts([str(unit or "") for unit in columns["units"]]),
        "text.types": texts(columns["dtypes"]),
        "text.conditions": texts(columns["conditions"]),
        "text.categories": texts(listed),
    }


def _limits(flow: Flow) -> Arrays:
    """Return the values between which conditions are near the training, NaN for no limit."""
    low, high = flow.condition_ranges.limits
    return {"limits.low": low, "limits.high": high} if len(low) else {}


def _reach(flow: Flow) -> Arrays:
    """Return the ends of computed columns, and how often an event beyond them is drawn anew."""
    if flow.reach is None:
        return {}
    attempts = np.array([MOST_ATTEMPTS], dtype=np.float64)
    return {"reach.ends": flow.reach, "reach.attempts": attempts}


def _ratio(flow: Flow) -> Arrays:
    if flow.ratio is None:
        return {}
    trees, n_inputs = forests(flow.ratio.to_bytes())
    numbers = [flow.ratio.ceiling, flow.ratio.acceptance, MOST_ATTEMPTS]
    return {
        **named("ratio", pack_trees(trees), n_inputs, 1),
        "ratio.numbers": np.array(numbers, dtype=np.float64),
        **named("seen", flow.seen),
    }


def _cuts(flow: Flow) -> Arrays:
    return named("cuts", cut_arrays(flow), len(flow.cuts)) if len(flow.cuts) else {}


def cut_arrays(flow: Flow) -> ExpressionArrays:
    """Return the observables of the cuts of a flow, and behind them the cuts."""
    conditions = {f"require {i}": one for i, one in enumerate(flow.cuts.conditions)}
    names = (*flow.columns["names"], *flow.condition_names)
    return expression_arrays({**flow.cuts.observables.expressions, **conditions}, names)
