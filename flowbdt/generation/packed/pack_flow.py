"""A trained flow as named arrays: what `compiled.layout` and `compiled.inverse` make of it.

The names are those of the fields in `compiled.arrays`, after that of the tuple: ``form.where``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ... import __version__
from ...errors import ConfigError
from ...flow.closed_form.mixture_on_path import PreparedMixture
from ...flow.step_inputs import StepInputs
from ...trees.tree_arrays import forests
from ..attempt_warnings import MOST_ATTEMPTS
from ..compiled.arrays import NONE, Form, Trees, Walk, Way, n_inputs
from ..trained_flow import Flow
from .cpp_file import texts
from .pack_columns import pack_way
from .pack_solver import program
from .pack_steps import pack_form, pack_trees, pack_walk

if TYPE_CHECKING:
    from ...model import FlowBDT


Arrays = dict[str, np.ndarray]


class Steps(NamedTuple):
    """All steps of a flow: closed form with all conditions known, solver, trees."""

    form: Form
    walk: Walk
    trees: Trees
    n_slots: int
    inputs: list[StepInputs]


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
            f"solver {sampler.name!r} draws random numbers on its way and cannot be exported;"
            f" {other}, or fit with a deterministic solver"
        )
    if sampler.interpolate:
        raise ConfigError(
            "a sampler that interpolates between step models cannot be exported; ask for steps"
            " whose times were trained"
        )
    if flow.from_source:
        raise ConfigError(
            "a model that starts from given events (coupling='given') cannot be exported; use"
            " model.sample(source=...)"
        )
    if not flow.n_latent:
        raise ConfigError("all columns of this model are constant: there is nothing to export")


def pack_steps(flow: Flow) -> Steps:
    """Return the steps of a flow. Raises ConfigError if a part cannot be exported."""
    found = program(flow.sampler.solver, flow.sampler.boundaries, flow.field.convention)
    asked = [flow.grid.locate(float(t)) for t in found.times]
    numbers = sorted(set(asked))
    inputs = [flow.step_inputs(number) for number in numbers]
    packed = [flow.step_forests(number) for number in numbers]
    n_cond = len(flow.columns["conditions"])
    form = pack_form(inputs, np.ones(n_cond, dtype=bool))
    edges = np.cumsum([0, *(len(each) for each in packed)])
    step = np.searchsorted(numbers, asked)
    walk = pack_walk(found, step, edges, inputs, form, n_cond > 0)
    trees = pack_trees([forest for each in packed for forest in each])
    return Steps(form, walk, trees, found.n_slots, inputs)


def arrays_of(flow: Flow) -> Arrays:
    """Return all of a flow that generates events. Raises ConfigError if a part cannot be exported.

    ``sizes``, int64, has in this order: columns, conditions, latent columns, inputs of trees,
    slots, whether latent points, end points and components are among the inputs, whether the
    joint transform mixes columns, most attempts per event, then from `Form` kind, n_seen, n_inner,
    n_components, n_out.
    """
    check_exportable(flow)
    steps, way, columns = pack_steps(flow), _way(flow), flow.columns
    form, walk = steps.form, steps.walk
    m, n_cond = flow.n_latent, len(columns["conditions"])
    sizes = [len(columns["names"]), n_cond, m, n_inputs(walk, form, m, n_cond), steps.n_slots]
    sizes += [walk.latent, walk.end_point, walk.components, way.mixes, MOST_ATTEMPTS]
    sizes += [form.kind, form.n_seen, form.n_inner, form.n_components, form.n_out]
    return {
        "sizes": np.array(sizes, dtype=np.int64),
        **_texts(flow),
        **_fields("walk", walk),
        **_fields("form", form),
        **_fields("trees", steps.trees),
        **_fields("way", way),
        **(_mixtures(steps) if n_cond and form.kind != NONE else {}),
        **_ratio(flow),
    }


def _way(flow: Flow) -> Way:
    try:
        return pack_way(flow.transform)
    except ConfigError as error:
        raise ConfigError(
            f"a column cannot be exported ({error}); leave it out, or fit with another transform"
            " or type for it"
        ) from error


def _fields(name: str, packed: Form | Walk | Trees | Way) -> Arrays:
    found = packed._asdict().items()
    return {f"{name}.{field}": value for field, value in found if isinstance(value, np.ndarray)}


def _texts(flow: Flow) -> Arrays:
    columns, listed = flow.columns, list[str]()
    for name, values in flow.categories.items():
        listed += [name, str(len(values)), *values]
    return {
        "text.about": texts([__version__, str(flow.plan["digest"])]),
        "text.columns": texts(columns["names"]),
        "text.units": texts([str(unit or "") for unit in columns["units"]]),
        "text.types": texts(columns["dtypes"]),
        "text.conditions": texts(columns["conditions"]),
        "text.categories": texts(listed),
    }


def _mixtures(steps: Steps) -> Arrays:
    """Return what the closed form is made of where some conditions are unknown.

    One mixture, or for a student one for each step, one after the other. ``motion`` (steps, 2) is
    the share of the end point in what is seen, and the variance of the noise in it.
    """
    found = [step.prepared for step in steps.inputs]
    prepared = [each for each in found if isinstance(each, PreparedMixture)]
    mixtures = list({id(each.mixture): each.mixture for each in prepared}.values())
    motion: list[Any] = [
        (1.0, 0.0) if each.layout.has_source else each.turn()[2:]  # type: ignore[index]
        for each in prepared
    ]
    covariances = [mixture.covariances.to_arrays() for mixture in mixtures]
    parts = {
        "log_weights": [mixture.log_weights for mixture in mixtures],
        "means": [mixture.means for mixture in mixtures],
        **{name: [each[name] for each in covariances] for name in covariances[0]},
    }
    arrays = {f"mixture.{name}": np.concatenate(each) for name, each in parts.items()}
    arrays["mixture.motion"] = np.array(motion)
    return {name: np.asarray(array, dtype=np.float64) for name, array in arrays.items()}


def _ratio(flow: Flow) -> Arrays:
    if flow.ratio is None:
        return {}
    packed = pack_trees(forests(flow.ratio.to_bytes())[0])
    ceiling = np.array([flow.ratio.ceiling, flow.ratio.acceptance])
    return {**_fields("ratio", packed), "ratio.ceiling": ceiling}
