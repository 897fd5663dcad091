"""Operations that undo column transforms, and their numbers.

An operation with a code of its own is added to `operations` here, to ``Way`` in ``flowbdt.hpp``
(`undone`, and how many numbers it has in `whole_op`), and to ``UNDO`` in `onnx_columns`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...errors import ConfigError
from ...tables.transforms.discrete import angle_range, lattice_of, whole_range

SCALED, RANK, CATEGORICAL, INTEGER, FIXED, CIRCULAR, LATTICE = range(7)
"""Codes of the operations."""

BENDS = {"minmax": 0.0, "standard": 0.0, "log": 1.0, "logit": 2.0}

SCALED_NAMES = (
    *("centre", "scale", "z_low", "z_high", "clip", "x_low", "x_high"),
    *("low", "edge", "at_low", "high", "edge_high", "at_high"),
)
"""Numbers of `SCALED` after the bend; those that a transform does not have are 0."""


def operations(stored: Mapping[str, Any]) -> list[tuple[int, list[float]]]:
    """Return codes and numbers of what undoes a stored column transform, the last step first.

    Raises ConfigError if there is no operation for it.
    """
    name, state, options = stored["name"], stored["state"], stored["options"]
    if name in BENDS:
        fitted = {**state, **options}
        return [(SCALED, [BENDS[name], *(float(fitted.get(n) or 0) for n in SCALED_NAMES)])]
    if name == "rank":
        z, x = np.asarray(state["z"]), np.asarray(state["x"])
        dz = np.diff(z)
        slope = np.where(dz > 0, np.diff(x) / np.where(dz > 0, dz, 1.0), 0.0)
        return [(RANK, [len(z), *z, *x, *slope])]
    if name == "categorical":
        values, edges = (np.atleast_1d(state["values"]), np.atleast_1d(state["edges"]))
        return [(CATEGORICAL, [len(values), *edges[: len(values) - 1], *values])]
    if name == "integer":
        lattice = lattice_of(options)
        last = (LATTICE if lattice else INTEGER, [*whole_range(state), *lattice])
        return [*operations(state["inner"]), last]
    if name == "circular":
        return [(CIRCULAR, [*angle_range(options)])]
    if name == "chain":
        return [each for step in reversed(state["parts"]) for each in operations(step)]
    if name == "constant":
        return [(FIXED, [state["value"]])]
    if name == "classified":  # a classifier replaces it
        return [(FIXED, [float(np.atleast_1d(state["values"])[np.argmax(state["counts"])])])]
    if name == "mixed":  # a classifier says where, unless all training rows were smooth
        shares = np.atleast_1d(state["shares"])
        if shares[0] or np.count_nonzero(shares) > 1:
            return operations(state["inner"])
    if name == "identity":
        return []
    raise ConfigError(f"the transform {name!r} is not compiled")
