"""ONNX graphs written as formulas: tensors that add, compare and select.

This is the only place that imports onnx.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ...errors import ConfigError, MissingExtra

OPSET, TREES_OPSET, IR = 17, 3, 8
"""Versions that onnxruntime 1.14 and later read."""

TREES = "ai.onnx.ml"

LARGEST_FILE = 2_000_000_000
"""Bytes; what is stored as one protobuf message must be below 2 GiB."""

Value = Any
"""A `Tensor`, a number (float64), or a numpy array, which becomes a constant of the graph."""


def _operator(kind: str) -> Callable[..., Tensor]:
    """Return a method that makes a node of this kind from a tensor and other values."""

    def method(self: Tensor, *others: Value) -> Tensor:
        return self.graph.node(kind, self, *others)

    return method


class Tensor:
    """A named value of a graph; with numpy arrays and numbers it makes new ones."""

    __array_ufunc__ = None  # array - tensor comes here, and not to numpy

    def __init__(self, graph: Graph, name: str) -> None:
        self.graph, self.name = graph, name

    __add__ = _operator("Add")
    __sub__ = _operator("Sub")
    __mul__ = _operator("Mul")
    __truediv__ = _operator("Div")
    __matmul__ = _operator("MatMul")
    __lt__ = _operator("Less")
    __le__ = _operator("LessOrEqual")
    __ge__ = _operator("GreaterOrEqual")
    __or__ = _operator("Or")
    __neg__, abs, is_nan = _operator("Neg"), _operator("Abs"), _operator("IsNaN")

    def __rsub__(self, other: Value) -> Tensor:
        return self.graph.node("Sub", other, self)

    def clip(self, low: Value, high: Value) -> Tensor:
        """Return it within bounds, which broadcast."""
        return self.graph.node("Min", self.graph.node("Max", self, low), high)

    def take(self, columns: Sequence[int] | np.ndarray) -> Tensor:
        """Return some columns (n, k)."""
        return self.graph.node("Gather", self, np.asarray(columns, dtype=np.int64), axis=1)

    def cast(self, dtype: Any) -> Tensor:
        """Return it as another type of number."""
        helper = self.graph.onnx.helper
        return self.graph.node("Cast", self, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def reshape(self, *shape: int) -> Tensor:
        """Return it in another shape; -1 is what is left."""
        return self.graph.node("Reshape", self, np.array(shape, dtype=np.int64))

    def sum(self, axis: int) -> Tensor:
        """Return sums over one axis, which goes."""
        return self.graph.node("ReduceSum", self, np.array([axis], dtype=np.int64), keepdims=0)

    def sum_of_squares(self, axis: int) -> Tensor:
        """Return sums of squares over one axis, which goes."""
        return self.graph.node("ReduceSumSquare", self, axes=[axis], keepdims=0)


class Graph:
    """Nodes in their order, constants (each stored once), inputs and outputs.

    Raises MissingExtra if onnx is not installed.
    """

    def __init__(self) -> None:
        try:
            import onnx
            import onnx.helper
            import onnx.numpy_helper
        except ImportError as error:
            raise MissingExtra.of("onnx", error, "onnx") from error
        self.onnx: Any = onnx
        self._nodes: list[Any] = []
        self._constants: dict[tuple[Any, ...], Tensor] = {}
        self._stored: list[Any] = []
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []

    def input(self, name: str, n_columns: int) -> Tensor:
        """Return an input (n, n_columns), float64."""
        self._inputs.append(self._info(name, ["n", n_columns]))
        return Tensor(self, name)

    def output(self, name: str, tensor: Tensor, *columns: int) -> None:
        """Make a tensor (n, *columns), float64, an output of this name."""
        self._nodes.append(self.onnx.helper.make_node("Identity", [tensor.name], [name]))
        self._outputs.append(self._info(name, ["n", *columns]))

    def _info(self, name: str, shape: list[Any]) -> Any:
        kind = self.onnx.TensorProto.DOUBLE
        return self.onnx.helper.make_tensor_value_info(name, kind, shape)

    def constant(self, value: Any) -> Tensor:
        """Return a constant; a Python number becomes float64."""
        array = np.ascontiguousarray(value) if np.ndim(value) else np.asarray(value)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            name = f"c{len(self._constants)}"
            self._stored.append(self.onnx.numpy_helper.from_array(array, name))
            self._constants[key] = Tensor(self, name)
        return self._constants[key]

    def tensor(self, value: Value) -> Tensor:
        """Return a tensor as it is, or a constant."""
        if isinstance(value, Tensor):
            return value
        return self.constant(float(value) if isinstance(value, (int, float)) else value)

    def node(self, kind: str, *inputs: Value, domain: str = "", **attributes: Any) -> Tensor:
        """Return the only output of a new node."""
        names = [self.tensor(value).name for value in inputs]
        name = f"t{len(self._nodes)}"
        self._nodes.append(
            self.onnx.helper.make_node(kind, names, [name], domain=domain, **attributes)
        )
        return Tensor(self, name)

    def join(self, columns: Sequence[Tensor]) -> Tensor:
        """Return columns side by side."""
        return columns[0] if len(columns) == 1 else self.node("Concat", *columns, axis=1)

    def where(self, condition: Tensor, yes: Value, no: Value) -> Tensor:
        """Return ``yes`` where a condition holds, else ``no``."""
        return self.node("Where", condition, yes, no)

    def rows(self, like: Tensor, values: np.ndarray) -> Tensor:
        """Return (n, k) of equal rows ``values`` (k,), as many as ``like`` has."""
        count = self.node("Shape", like, start=0, end=1)
        width = np.array([len(values)], dtype=np.int64)
        return self.node("Expand", values[None], self.node("Concat", count, width, axis=0))

    def to_bytes(self, text: str, metadata: Mapping[str, str], version: str) -> bytes:
        """Return the model file. Raises ConfigError if it would be too large to be one."""
        helper = self.onnx.helper
        graph = helper.make_graph(
            self._nodes, "flow", self._inputs, self._outputs, self._stored, doc_string=text
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(TREES, TREES_OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR)
        model.producer_name, model.producer_version = "flowbdt", version
        helper.set_model_props(model, dict(metadata))
        size = model.ByteSize()
        if size > LARGEST_FILE:
            raise ConfigError(
                f"the ONNX file would have {size / 1e9:.1f} GB, and 2 GB is the limit of the"
                " format: use fewer or shallower trees, or fewer steps"
            )
        content: bytes = model.SerializeToString()
        return content
