"""How often an event is drawn anew, and what is said of events that went wrong."""

from __future__ import annotations

import warnings

from ..errors import DataWarning

MOST_ATTEMPTS = 100
"""An event is drawn anew at most so often; at an acceptance of 0.1 one in 40,000 needs more."""


def warn_not_finite(what: str) -> None:
    """Warn of points that a flow carried away."""
    warnings.warn(f"{what} not finite", DataWarning, stacklevel=4)


def warn_undefined(where: str) -> None:
    """Warn of a relation that has no value."""
    warnings.warn(
        f"a relation is undefined in {where}; its column was set to an end of its training range"
        " there",
        DataWarning,
        stacklevel=4,
    )


def warn_kept(count: int) -> None:
    """Warn of events that were rejected each time."""
    warnings.warn(
        f"{count} event(s) were kept although {MOST_ATTEMPTS} attempts were rejected: they are in a"
        " region that this model does not describe",
        DataWarning,
        stacklevel=4,
    )
