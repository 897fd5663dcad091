"""The way from latent points back to columns as arrays, angles included.

It is that of `compiled.inverse`, with one more operation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..compiled.inverse import Way, _Builder, _storage, assembled
from ..errors import ConfigError
from ..transforms import TableTransform

CIRCULAR = 5
"""Two latent values to an angle: numbers are low and period. Follows `compiled.codes.CONSTANT`."""


class _Columns(_Builder):
    def undo(self, stored: Mapping[str, Any]) -> None:
        if stored["name"] != "circular":
            super().undo(stored)
            return
        low, period = stored["options"]["low"], stored["options"]["period"]
        self.ops.append((CIRCULAR, self.put(-period / 2 if low is None else low, period)))


def _n_latent(stored: Mapping[str, Any]) -> int:
    """Return how many latent columns a stored transform has."""
    if stored["name"] == "chain":
        return _n_latent(stored["state"]["parts"][-1])
    return {"constant": 0, "circular": 2}.get(stored["name"], 1)


def pack_columns(transform: TableTransform) -> Way:
    """Return the way back from the latent points of a fitted transform.

    Raises
    ------
    ConfigError
        If a column has a transform or a type that cannot be exported, with its name.
    """
    stored, build = transform.to_json(), _Columns()
    columns, latent = [], 0
    for column in stored["columns"]:
        row, width = _column(build, column, latent)
        columns.append(row)
        latent += width
    return assembled(build, transform, columns)


def _column(
    build: _Columns, column: Mapping[str, Any], latent: int
) -> tuple[tuple[int, int, int, int, int], int]:
    """Add one column; return its row of `Way.columns`, and how many latent columns it takes."""
    begin, width, place = len(build.ops), 0, -2
    try:
        kind, low, high = _storage(column["dtype"])
        if column["transform"] is not None:
            build.undo(column["transform"])
            width = _n_latent(column["transform"])
            place = latent if width else -1
    except ConfigError as error:
        raise ConfigError(
            f"column {column['name']!r} cannot be exported ({error}); leave it out, or fit with"
            " another transform or type for it"
        ) from error
    return (place, begin, len(build.ops), kind, build.put(low, high)), width
