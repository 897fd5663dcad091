"""The way from noise to latent points: every evaluation of the solver written out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ...flow.step_inputs import StepInputs
from ...trees.tree_arrays import Forest
from ..packed.pack_solver import Program
from .onnx_closed_form import Answer, ClosedForm
from .onnx_graph import Graph, Tensor
from .onnx_trees import tree_sum


class Steps:
    """The velocities of all step models.

    Parameters
    ----------
    graph : Graph
    inputs : number of a step -> what its trees see, and its closed form
    trees : number of a step -> its trees
    cond : Tensor (n, c), float64, NaN = unknown; None if there are no conditions
    n_cond : c
    """

    def __init__(
        self,
        graph: Graph,
        inputs: Callable[[int], StepInputs],
        trees: Callable[[int], Sequence[Forest]],
        cond: Tensor | None = None,
        n_cond: int = 0,
    ) -> None:
        self._graph, self._inputs, self._trees, self._cond = graph, inputs, trees, cond
        self._form = ClosedForm(graph, inputs(0).prepared, cond, n_cond)

    def velocity(self, step: int, x: Tensor) -> Tensor:
        """Return the velocity (n, m) of one step model at the points x (n, m)."""
        inputs, trees = self._inputs(step), self._trees(step)
        answer = self._form.at(inputs, x)
        seen = self._seen(inputs, x, answer).cast(np.float32)
        width = max(forest.first + forest.width for forest in trees)
        more = tree_sum(self._graph, trees, seen, width).cast(np.float64)
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
        return self._graph.join(parts if self._cond is None else [*parts, self._cond])

    def carry(self, found: Program, step: Sequence[int], noise: Tensor) -> Tensor:
        """Return where a solver carries the noise (n, m), asked of these step models."""
        x, slots = noise, dict[int, Tensor]()
        for e, number in enumerate(step):
            x = _moved(found, e, x, slots)
            slots[int(found.slot[e])] = self.velocity(number, x)
        return _moved(found, len(step), x, slots)


def _moved(found: Program, e: int, x: Tensor, slots: dict[int, Tensor]) -> Tensor:
    """Return the point of evaluation ``e``. See `compiled.program.Program`."""
    if found.scale[e] != 1.0:
        x = x * float(found.scale[e])
    for q in range(found.terms[e], found.terms[e + 1]):
        x = x + slots[int(found.term[q])] * float(found.weight[q])
    return x
