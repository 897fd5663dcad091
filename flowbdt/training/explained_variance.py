"""What the trees of a step explain of its velocities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def explained(step: Mapping[str, Any]) -> float:
    """Return the share of the validation variance of a step that its trees explain.

    Most of that variance is irreducible noise: with a good closed form, a few parts in a thousand
    are all there is to gain. NaN without validation events.
    """
    left, whole = step["valid_rmse"], step["valid_rmse_without_trees"]
    if left is None or whole is None:
        return float("nan")
    with np.errstate(all="ignore"):  # a file from elsewhere may state any numbers
        return float(1.0 - np.square(np.divide(left, whole)))
