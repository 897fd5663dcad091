"""Times of trained steps, and when two times are the same."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import GridError

TOLERANCE = 1e-9
"""Two times closer than this are the same time."""


def locate(times: Any, t: float) -> int:
    """Return the position of time ``t`` in the sorted ``times`` (T,), within 1e-9.

    Raises
    ------
    GridError
        If t is not among them; the message names the nearest ones.
    """
    known = np.asarray(times, dtype=np.float64)
    index = int(np.argmin(np.abs(known - t)))
    if not abs(known[index] - t) <= TOLERANCE:
        near = sorted(known[np.argsort(np.abs(known - t), kind="stable")[:2]])
        raise GridError(
            f"no step model was trained at t = {t:.12g}; the nearest of the {len(known)} trained"
            f" times: {', '.join(f'{value:.6g}' for value in near)}. Sample with the solver and"
            " number of steps of the training, or train again with those you want"
        )
    return index
