"""The transform of a whole table: columns, relations, joint transform; what a run stores."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ... import seeding
from ...errors import ConfigError, DataWarning, FormatError, InputError, plural
from ...registry import unknown
from .. import checks
from ..event_table import EventTable
from ..relations import Relation, order_relations
from .base import ColumnTransform, build_column
from .choose import choose
from .whitening import JointTransform

FORMAT = 1
MAX_WHITENED = 64
"""Above this number of latent columns "auto" standardises instead of whitening."""


@dataclass
class _Column:
    """One column of the table: its fitted transform, and why it has it. None: recomputed."""

    name: str
    dtype: str
    transform: ColumnTransform | None
    reason: str
    low: float
    high: float


class TableTransform:
    """Map a table of events to latent columns and back, fitted on training rows only.

    Parameters
    ----------
    spec : "auto", a transform name for all columns, or a mapping from column names to a name, a
        mapping with ``name`` and options, or a list (a chain). ``"*"`` stands for the columns not
        named (without it: "auto"), ``"joint"`` for the joint transform ("auto": whiten up to
        64 latent columns, standardise above).
    relations : sequence of str, such as ``"tau21 = tau2 / tau1"``; their targets are not learned
        but computed again from the generated columns, after rounding to the type of each column
    seed : int, for the random numbers that spread repeated values

    Notes
    -----
    Constant columns are kept exactly (with a DataWarning at fit) whatever was asked for. Event
    weights enter the joint transform, not the column transforms: these are only coordinates.
    Random numbers are keyed by column and block of rows, so that chunking cannot change them.

    Examples
    --------
    >>> table = EventTable.of(np.random.default_rng(0).lognormal(size=(100, 2)), ["a", "b"])
    >>> transform = TableTransform({"a": "log", "joint": "standardise"}).fit(table)
    >>> bool(np.allclose(transform.inverse(transform.forward(table)), table.x))
    True
    """

    def __init__(
        self,
        spec: str | Mapping[str, Any] = "auto",
        relations: Sequence[str] = (),
        seed: int = 0,
    ) -> None:
        self.spec = spec
        self.relations = relations
        self.seed = seed

    def fit(self, table: EventTable) -> TableTransform:
        """Learn from the training rows of a table.

        Raises
        ------
        ConfigError
            If a column, transform, option or relation is unknown or contradictory.
        InputError
            If there are fewer than two rows, a relation does not hold, or a value lies outside
            the domain of its transform.
        """
        checks.min_rows(table.n, 2, "fitting the table transform")
        self._relations = order_relations(self.relations, table.names, table.cond_names)
        for relation in self._relations:
            relation.check(table)
        wanted = self._read_spec(table.names)
        self._columns = [self._fit_column(i, table, wanted) for i in range(len(table.names))]
        self._warn_of_constants()
        z = self._columns_forward(table, 0)
        self._joint = JointTransform.build(self._joint_spec(z.shape[1])).fit(z, table.weight)
        return self

    def _read_spec(self, names: Sequence[str]) -> dict[str, Any]:
        """Return the specification of every column that is learned."""
        targets = {relation.target: relation.text for relation in self._relations}
        given = {"*": self.spec} if not isinstance(self.spec, Mapping) else dict(self.spec)
        given.pop("joint", None)
        rest = given.pop("*", "auto")
        for name in given:
            if name not in names:
                raise unknown("column (in transforms)", name, [*names, "*", "joint"])
            if name in targets:
                raise ConfigError(
                    f"column {name!r} is computed by the relation {targets[name]!r} and needs no"
                    " transform; remove one of the two"
                )
        for spec in (rest, *given.values()):
            if spec != "auto":
                _check_known(spec)
        return {name: given.get(name, rest) for name in names if name not in targets}

    def _joint_spec(self, n_latent: int) -> Any:
        spec = self.spec.get("joint", "auto") if isinstance(self.spec, Mapping) else "auto"
        if spec != "auto":
            return spec
        return "whiten" if n_latent <= MAX_WHITENED else "standardise"

    def _fit_column(self, index: int, table: EventTable, wanted: Mapping[str, Any]) -> _Column:
        name, dtype = table.names[index], table.dtypes[index]
        values = np.ascontiguousarray(table.x[:, index])
        low, high = float(values.min()), float(values.max())
        if name not in wanted:
            text = next(r.text for r in self._relations if r.target == name)
            return _Column(name, dtype, None, text, low, high)
        spec, reason = wanted[name], "as asked"
        if spec == "auto" or low == high:
            spec, reason = choose(values, dtype, name in table.categories)
        rng = seeding.stream(self.seed, "fit-transform", index)
        try:
            transform = build_column(spec).fit(values, rng)
        except (ConfigError, InputError) as error:
            raise type(error)(f"column {name!r}: {error}") from error
        return _Column(name, dtype, transform, reason, low, high)

    def _warn_of_constants(self) -> None:
        names = [c.name for c in self._columns if c.transform and c.transform.name == "constant"]
        if names:
            shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
            warnings.warn(
                f"{plural(len(names), 'column')} with one value in all training rows will be"
                f" generated with exactly this value: {shown}",
                DataWarning,
                stacklevel=3,
            )

    def forward(self, table: EventTable, first_row: int = 0) -> np.ndarray:
        """Return latent values z (n, n_latent), float64, without units.

        Parameters
        ----------
        table : EventTable with the columns of the fit in any order (targets of relations may be
            missing)
        first_row : int, where the table begins in the whole data set when it comes in pieces; a
            multiple of `seeding.BLOCK`, because the random numbers belong to blocks

        Raises
        ------
        InputError
            If a column is missing or ``first_row`` is not at the start of a block.
        """
        if first_row < 0 or first_row % seeding.BLOCK:
            raise InputError(
                f"first_row must be a multiple of {seeding.BLOCK}, got {first_row}; cut the table"
                " at such rows"
            )
        return self._joint.forward(self._columns_forward(table, first_row))

    def _columns_forward(self, table: EventTable, first_row: int) -> np.ndarray:
        parts = [np.empty((table.n, 0))]
        for index, column in enumerate(self._columns):
            if column.transform is not None and column.transform.n_latent:
                values = np.ascontiguousarray(table.column(column.name))
                parts.append(self._column_forward(index, column.transform, values, first_row))
        return np.hstack(parts)

    def _column_forward(
        self, index: int, transform: ColumnTransform, values: np.ndarray, first_row: int
    ) -> np.ndarray:
        if not transform.draws:
            return transform.forward(values, seeding.stream(self.seed, "dequantise", index))
        start = first_row // seeding.BLOCK
        return np.concatenate(
            [
                transform.forward(
                    values[low:high], seeding.stream(self.seed, "dequantise", index, start + block)
                )
                for block, low, high in seeding.block_ranges(values.shape[0])
            ]
        )

    def inverse(self, z: np.ndarray) -> np.ndarray:
        """Return events x (n, d), float64, all columns in the order of the fit.

        Columns are rounded to the type they came in before relations are computed, so that these
        hold on the stored values. Where a relation is undefined for a generated event the target
        takes the nearest end of its training range, with a DataWarning.

        Raises
        ------
        InputError
            If z does not have shape (n, n_latent) or is not finite.
        """
        z = np.asarray(z, dtype=np.float64)
        if z.ndim != 2 or z.shape[1] != self.n_latent:
            raise InputError(f"latent values must have shape (n, {self.n_latent}), got {z.shape}")
        checks.finite(z, self.latent_names, "latent values")
        with np.errstate(over="ignore", invalid="ignore"):
            latent = np.nan_to_num(self._joint.inverse(z), nan=0.0)
        x = np.empty((z.shape[0], len(self._columns)))
        start = 0
        for i, column in enumerate(self._columns):
            if column.transform is not None:
                stop = start + column.transform.n_latent
                values = column.transform.inverse(np.ascontiguousarray(latent[:, start:stop]))
                x[:, i] = as_stored(values, column.dtype)
                start = stop
        self._recompute(x)
        return x

    def _recompute(self, x: np.ndarray) -> None:
        """Fill in the targets of the relations, in place."""
        position = {column.name: i for i, column in enumerate(self._columns)}
        for relation in self._relations:
            column = self._columns[position[relation.target]]
            sources = {name: x[:, position[name]] for name in relation.sources}
            values = _within_floats(relation, relation.evaluate(sources), column)
            x[:, position[relation.target]] = as_stored(values, column.dtype)

    @property
    def n_latent(self) -> int:
        """Number of latent columns; 0 if all columns are constant."""
        return self._joint.n_latent

    @property
    def joint(self) -> JointTransform:
        """The joint transform after the column transforms."""
        return self._joint

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all columns, in the order of the fit."""
        return tuple(column.name for column in self._columns)

    @property
    def latent_names(self) -> tuple[str, ...]:
        """Names of the latent columns: column names, or axis0, axis1, ... after whitening."""
        return self._joint.names(self._column_latent_names())

    def _column_latent_names(self) -> list[str]:
        names: list[str] = []
        for column in self._columns:
            k = column.transform.n_latent if column.transform is not None else 0
            names += [column.name] if k == 1 else [f"{column.name}:{i}" for i in range(k)]
        return names

    def describe(self) -> list[str]:
        """Return one line per column and one for the joint transform.

        Each says what is done, why, and what generated values may do outside the training range.
        """
        lines = []
        for column in self._columns:
            if column.transform is None:
                lines.append(f"{column.name}: not learned, computed as {column.reason}")
            else:
                lines.append(f"{column.name}: {column.transform.describe()} [{column.reason}]")
        n_columns = len(self._column_latent_names())
        kept = f"{self.n_latent} of {plural(n_columns, 'latent column')} kept"
        return [*lines, f"joint: {self._joint.name}, {kept}"]

    def transform_spec(self) -> dict[str, Any]:
        """Return the specification with every automatic choice written out.

        Print it, edit it, pass it back as ``spec``: unedited, it gives the same transform.
        """
        spec: dict[str, Any] = {
            column.name: column.transform.resolved()
            for column in self._columns
            if column.transform is not None
        }
        return {**spec, "joint": self._joint.resolved()}

    def to_json(self) -> dict[str, Any]:
        """Return everything `from_json` needs, as a JSON-like dict; no training rows."""
        columns = [
            {
                "name": column.name,
                "dtype": column.dtype,
                "reason": column.reason,
                "low": column.low,
                "high": column.high,
                "transform": None if column.transform is None else column.transform.to_json(),
            }
            for column in self._columns
        ]
        relations = [relation.text for relation in self._relations]
        return {
            "format": FORMAT,
            "seed": self.seed,
            "columns": columns,
            "relations": relations,
            "joint": self._joint.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TableTransform:
        """Rebuild a fitted transform; forward and inverse are bit-equal to the stored one's.

        Raises
        ------
        FormatError
            If the format version is unknown or a part is missing.
        """
        if not isinstance(data, Mapping) or data.get("format") != FORMAT:
            found = data.get("format") if isinstance(data, Mapping) else type(data).__name__
            raise FormatError(
                f"a stored table transform must have format {FORMAT}, got {found!r}; it is from"
                " another release or not a transform"
            )
        try:
            columns = [_column_from_json(column) for column in data["columns"]]
            texts, seed, joint = data["relations"], int(data["seed"]), data["joint"]
            relations = order_relations(texts, [column.name for column in columns])
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(f"a stored table transform cannot be read ({error!r})") from error
        result = cls("auto", tuple(texts), seed)
        result._columns, result._relations = columns, relations
        result._joint = JointTransform.from_json(joint)
        result.spec = result.transform_spec()
        return result


def _check_known(spec: Any) -> None:
    """Refuse unknown transforms and options before any column is fitted."""
    build_column(spec)
    for step in spec if isinstance(spec, (list, tuple)) else ():
        build_column(step)


def _column_from_json(data: Mapping[str, Any]) -> _Column:
    stored = data["transform"]
    transform = None if stored is None else ColumnTransform.from_json(stored)
    return _Column(
        data["name"], data["dtype"], transform, data["reason"], data["low"], data["high"]
    )


def _within_floats(relation: Relation, values: np.ndarray, column: _Column) -> np.ndarray:
    """Replace undefined results of a relation by the ends of the target's training range."""
    values = np.array(values, dtype=np.float64)
    undefined = ~np.isfinite(values)
    if undefined.any():
        values = np.nan_to_num(values, nan=column.low, posinf=column.high, neginf=column.low)
        count = plural(int(undefined.sum()), "generated event")
        warnings.warn(
            f"relation {relation.text!r} is undefined in {count};"
            f" {column.name!r} was set to an end of its training range there",
            DataWarning,
            stacklevel=4,
        )
    return values


def stored_range(dtype: str) -> tuple[float, float]:
    """Return the least and the largest number that a column of a type holds."""
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return -float(np.finfo(kind).max), float(np.finfo(kind).max)
    if kind.kind == "b":
        return 0.0, 1.0
    info = np.iinfo(kind)
    # 2**63 - 1 is not a float; the next float below it is
    highest = float(info.max) if info.bits < 64 else float(np.nextafter(float(info.max), 0))
    return float(info.min), highest


def as_stored(values: np.ndarray, dtype: str) -> np.ndarray:
    """Return values as float64 that the type of the column holds exactly (rounded, in range)."""
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return np.clip(values, *stored_range(dtype)).astype(kind).astype(np.float64)
    if kind.kind == "b":
        return (values >= 0.5).astype(np.float64)
    if kind.kind in "iu":
        return np.clip(np.rint(values), *stored_range(dtype))
    return values
