"""Single events on demand, without the cost of a call for many.

`open_sampler` is for programs that start often: it maps the arrays that `FlowBDT.save` added to a
model file into memory and imports neither XGBoost nor scikit-learn. Where there are no arrays, or
the core was not built, it loads the whole flow; the events are the same.
"""

from __future__ import annotations

import math
from os import PathLike
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import atomic_files, seeding
from ..errors import InputError
from ..tables.conditions import stored_scaling
from ..training import run_directory
from .event_selection import KEPT, MOST_ATTEMPTS, warn_of_events
from .generate_rows import NOT_FINITE, UNDEFINED
from .native import core
from .packed.array_file import ALIGNMENT, read_array
from .packed.stored_arrays import require_sizes, stored_arrays

if TYPE_CHECKING:
    from .trained_flow import Flow


class Compiled(NamedTuple):
    """What single events are made with."""

    steps: core.Steps
    columns: core.Columns
    ratio: core.Trees | None  # the trees of the rejection
    ceiling: float  # of the ratio
    ends: list[tuple[int, float, float]]  # of computed columns: place, lower and upper


class PackedFlow:
    """The members of a `Flow` that `EventSampler` needs, from the packed arrays of a file."""

    from_source = False

    def __init__(self, plan: dict[str, Any], memory: memoryview, name: str) -> None:
        columns = plan["fingerprint"]["columns"]
        self.n_latent, self.n_columns = int(plan["n_latent"]), len(columns["names"])
        self.condition_names = tuple(columns["conditions"])
        self.scaling, self.condition_ranges = stored_scaling(columns)
        steps, inverse = core.Steps(memory, name), core.Columns(memory, name)
        n_cond, ratio = len(self.condition_names), None
        require_sizes(inverse.sizes[:3], (self.n_latent, self.n_columns, n_cond), name)
        require_sizes(steps.sizes[:2], (self.n_latent, n_cond), name)
        numbers = read_array(memory, "ratio.numbers", "float64")
        require_sizes(numbers is not None, bool(plan.get("rejection")), name)
        if numbers is not None:
            ratio = core.Trees(memory, name, b"ratio")
            n_inputs = self.n_columns + n_cond + inverse.n_derived
            require_sizes(ratio.shape, (n_inputs, 1), name)
        ceiling, reach = 1.0 if numbers is None else numbers[0], None
        if (ends := read_array(memory, "reach.ends", "float64")) is not None:
            require_sizes(ends.size, 2 * self.n_columns, name)
            reach = ends.reshape(2, -1)
        self.compiled = Compiled(steps, inverse, ratio, ceiling, _ends(reach))

    @classmethod
    def of(cls, source: run_directory.Archive) -> PackedFlow | None:
        """Return the flow of a file; None if it has no packed arrays that can be used here.

        Raises FormatError if they are damaged, or would lead out of their memory.
        """
        what = str(source.path)
        manifest = atomic_files.parse_json(source.read("manifest.json"), what)
        stated = manifest.pop("packed", None) if isinstance(manifest, dict) else None
        memory = stored_arrays(source, manifest, stated)
        if memory is None or np.frombuffer(memory, np.uint8).ctypes.data % ALIGNMENT:
            return None  # the latter: another program packed the file anew
        if any(read_array(memory, f"{n}.sizes", "int64") is not None for n in ("drawn", "cuts")):
            return None  # Python draws some columns, or looks whether an event is kept
        content = source.read("plan.json")
        if atomic_files.digest_bytes(content) != manifest["files"].get("plan.json"):
            return None  # the whole flow says what is damaged
        plan = run_directory.present_plan(atomic_files.parse_json(content, what), what)
        return cls(plan, memory, what)


def open_sampler(
    path: str | PathLike[str], *, random_state: Any = None, first: int = 0
) -> EventSampler:
    """Return a sampler of single events from a model file, with as little delay as possible.

    Parameters
    ----------
    path : a file of `FlowBDT.save`, or the folder of a run
    random_state : seed; the events are those of `FlowBDT.sample` with the same seed
    first : number of the first event

    Raises
    ------
    FormatError if it is truncated, damaged, foreign, or of a newer format; InputError if the model
    starts from source events.
    """
    source, seed = run_directory.open_run(path), seeding.resolve(random_state)
    packed = PackedFlow.of(source) if isinstance(source, run_directory.Archive) else None
    if packed is not None:
        return EventSampler(packed, seed, first)
    from .trained_flow import Flow  # imports much

    return EventSampler(Flow(source, 1), seed, first)


class _RowNumbers:
    """Random numbers of single rows, those that `seeding.RowNoise` draws for them.

    ``draw`` is the method of a generator, for numbers of the shape of ``out``.
    """

    def __init__(self, draw: str, out: np.ndarray, *stream: Any, keys: tuple[int, ...]) -> None:
        self._draw, self.out, self._stream, self._keys = draw, out, stream, keys
        self._block, self._next = -1, 0

    def fill(self, row: int) -> None:
        """Fill ``out`` with the numbers of a row."""
        block, place = divmod(row, seeding.BLOCK)
        if block != self._block or place < self._next:
            rng = seeding.stream(*self._stream, block, *self._keys)
            self._numbers: Any = getattr(rng, self._draw)
            self._block, self._next = block, 0
        if place > self._next:
            self._numbers((place - self._next) * self.out.size)
        self._numbers(out=self.out)
        self._next = place + 1


class EventSampler:
    """The events of a sample one by one, the same as `FlowBDT.sample` gives for the seed.

    Made for programs that need one particle at a time: an event takes tens of microseconds in the
    compiled core. Not safe to share between threads; give each another one, with another seed.

    Parameters
    ----------
    flow : a trained flow
    seed : int
    first : number of the first event
    warns : whether conditions far outside of the training are said, once

    Attributes
    ----------
    row : number of the next event

    Examples
    --------
    >>> from flowbdt import FlowBDT
    >>> x = np.random.default_rng(0).normal(size=(300, 2))
    >>> small = {"n_estimators": 2}
    >>> model = FlowBDT(preset="fast", n_steps=2, booster=small, random_state=1).fit(x)
    >>> sampler = model.sampler(random_state=3)
    >>> first, second = sampler.one().copy(), sampler.one().copy()
    >>> bool((np.vstack([first, second]) == model.sample(2, random_state=3)).all())
    True
    """

    def __init__(
        self, flow: Flow | PackedFlow, seed: int, first: int = 0, *, warns: bool = True
    ) -> None:
        if flow.from_source:
            raise InputError("this model starts from source events: use sample(..., source=...)")
        self._flow, self.seed, self.row = flow, seed, first
        self._names = flow.condition_names
        compiled, self._forms = _compiled(flow)
        self._conditions = flow.scaling[flow.n_columns :]
        self._event: core.Attempt | None = None
        if compiled is not None:
            columns = flow.scaling[: flow.n_columns]
            self._event = core.Attempt(*compiled[:3], columns.centre, columns.scale)
            self._ceiling = None if compiled.ratio is None else float(compiled.ceiling)
            self._ends, self._columns = compiled.ends, compiled.columns
            self._turns = _RowNumbers("random", np.zeros(1), seed, "turn", keys=())
        self._cond = np.zeros((1, len(self._names)))
        ranges = flow.condition_ranges
        unseen = ranges.unseen or [()] * len(self._names)
        self._limits = [
            (low, high, tuple(codes), bool(np.isnan(codes).any()))
            for low, high, codes in zip(*map(np.ndarray.tolist, ranges.limits), unseen, strict=True)
            if warns
        ]
        known = enumerate(map(ranges.categories.get, self._names))
        self._codes = [(i, range(len(texts))) for i, texts in known if texts]
        self._noise: list[_RowNumbers] = []
        self._accept: list[_RowNumbers] = []

    def one(self, cond: Any = None) -> np.ndarray:
        """Return the next event (d,), float64, in the units of the training table.

        It is always the same memory, which the next call overwrites: copy what you keep. ``cond``
        (c,) are numbers in the order and coding of the training, NaN where unknown. Raises
        InputError if there are not as many as the model was trained with.
        """
        count = 0 if cond is None else len(cond)
        if count != len(self._names):
            raise InputError(
                f"this model has {len(self._names)} conditions ({', '.join(self._names)}), got"
                f" {count}"
            )
        if count:
            self._cond[0] = cond
            if np.isinf(self._cond).any():
                raise InputError(f"conditions must be numbers, or NaN where unknown, got {cond}")
            for i, codes in self._codes:
                if cond[i] not in codes and cond[i] == cond[i]:
                    raise InputError(
                        f"condition {self._names[i]!r} must be the code of a category, 0 to"
                        f" {len(codes) - 1}, or NaN where unknown, got {cond[i]}"
                    )
            if any(
                v < low or v > high or v in codes or (v != v and always_known)
                for v, (low, high, codes, always_known) in zip(cond, self._limits, strict=False)
            ):
                self._limits = []  # one warning is enough
                ranges = self._flow.condition_ranges
                ranges.report(ranges.count_far(self._cond), 1, "warn")
        row, self.row = self.row, self.row + 1
        if self._event is None:
            flow: Any = self._flow
            event: np.ndarray = flow.rows(self.seed, np.array([row]), self._cond if count else None)
            return event[0]
        if count:
            self._event.cond[:] = self._cond[0]
            self._event.scaled[:] = self._conditions.forward(self._cond)[0]
            if self._forms is not None:
                self._event.form = self._forms(self._event.scaled)
        attempt = 0
        while not self._attempt(self._event, row, attempt):
            attempt += 1
        if self._columns.turns:
            self._turn(self._event, row)
        return self._event.x

    def _turn(self, event: core.Attempt, row: int) -> None:
        self._turns.fill(row)
        if self._columns.turn(event.x[None], 2 * np.pi * self._turns.out, event.cond[None]):
            warn_of_events(UNDEFINED.format(f"event {row}"))

    def _attempt(self, event: core.Attempt, row: int, attempt: int) -> bool:
        """Make the event of one attempt; return False if it is rejected."""
        if attempt == len(self._noise):
            keys = (attempt,) if attempt else ()
            noise = _RowNumbers("standard_normal", event.z, self.seed, "sample", keys=keys)
            self._noise.append(noise)
        self._noise[attempt].fill(row)
        undefined = event.run()
        if undefined < 0:
            warn_of_events(NOT_FINITE.format(f"event {row} is"))
            raise InputError(f"event {row} was carried beyond all numbers; it has no columns")
        if undefined:
            warn_of_events(UNDEFINED.format(f"event {row}"))
        if self._ceiling is None and not self._ends:
            return True
        if attempt + 1 == MOST_ATTEMPTS:
            warn_of_events(KEPT.format(1))
            return True
        if any(event.x[i] < low or event.x[i] > high for i, low, high in self._ends):
            return False
        if self._ceiling is None:
            return True
        for i in range(len(self._accept), attempt + 1):  # those out of reach needed none
            keys = (i + 1,)
            self._accept.append(_RowNumbers("random", np.zeros(1), self.seed, "accept", keys=keys))
        self._accept[attempt].fill(row)
        least, log_ratio = float(self._accept[attempt].out[0]) * self._ceiling, event.log_ratio[:1]
        ratio = math.exp(min(float(log_ratio[0]), 700.0))
        if abs(ratio - least) > 1e-9 * ratio:
            return least < ratio
        return bool(least < np.exp(log_ratio.astype(np.float64))[0])  # to the last bit, as for many


def _compiled(flow: Flow | PackedFlow) -> tuple[Compiled | None, Any]:
    """Return what makes single events, and what tells the closed form for known conditions.

    The former is None where a flow does not make events one by one, the latter where the steps know
    it.
    """
    if isinstance(flow, PackedFlow):
        return flow.compiled, None
    if flow.members:
        return None, None
    generator = flow.generator
    steps, columns = generator.compiled_flow, generator.compiled_inverse
    if steps is None or columns is None or len(flow.cuts) or flow.draws_columns:
        return None, None
    ratio = None if flow.ratio is None else flow.classifier
    ceiling = 1.0 if flow.ratio is None else flow.ratio.ceiling
    ends = _ends(flow.reach)
    return Compiled(steps.steps, columns, ratio, ceiling, ends), steps.form_handle


def _ends(reach: np.ndarray | None) -> list[tuple[int, float, float]]:
    """Return place, lower and upper end of each column that has some, of ends (2, d)."""
    if reach is None:
        return []
    return [(i, low, high) for i, (low, high) in enumerate(reach.T.tolist()) if low > -np.inf]
