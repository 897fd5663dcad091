"""Packed arrays that are damaged or made to do harm: refused, or harmless."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from flowbdt import EventTable, FlowBDT
from flowbdt.errors import FormatError, InputError
from flowbdt.generation.compiled import arrays, column_operations
from flowbdt.generation.one_event import EventSampler
from flowbdt.generation.packed import packed_model
from flowbdt.training import run_directory

pytest.importorskip("numba")

N_TRIALS = 120
MIXTURES = {
    "full": {"name": "mixture", "n_components": 2, "covariance": "full"},
    "low_rank": {"name": "mixture", "n_components": 2, "covariance": "low_rank", "rank": 2},
    "none": "none",
}


def table(rng):
    """Columns of every kind, and one that follows from others."""
    x = rng.normal(size=(300, 6))
    x[:, 1] = np.exp(x[:, 1])
    x[:, 2] = rng.integers(0, 3, 300)
    x[:, 3] = np.rint(10 * x[:, 3])
    x[:, 4] = rng.uniform(-np.pi, np.pi, 300)
    x[:, 5] = np.minimum(x[:, 0], 2.0) / (1 + np.abs(x[:, 1]))
    return EventTable.of(x, list("abcdef"), cond=rng.normal(size=(300, 2)))


@pytest.fixture(scope="module", params=MIXTURES)
def model(request, tmp_path_factory):
    """The bytes of a model, what is packed of it, and a path to write files to."""
    path = tmp_path_factory.mktemp(request.param) / "model.flow"
    fitted = FlowBDT(
        preset="fast",
        n_steps=2,
        preconditioner=MIXTURES[request.param],
        booster={"n_estimators": 3, "max_depth": 3},
        rejection=True,
        transforms={"c": "categorical", "d": "integer", "e": "circular", "b": "rank"},
        relations=["f = minimum(a, 2) / (1 + abs(b))"],
        random_state=1,
    ).fit(table(np.random.default_rng(0)))
    fitted.save(path)
    other = path.with_name("damaged.flow")  # the first stays as it is: its arrays are mapped
    return (
        fitted.archive_,
        packed_model.mapped_content(run_directory.Archive(path).mapped(run_directory.PACKED)),
        other,
    )


def first_event(model, content):
    """The first event by other packed arrays, whose checksum is right."""
    archive, _, path = model
    path.write_bytes(run_directory.with_packed(archive, packed_model.content_bytes(content)))
    flow = packed_model.PackedFlow.of(run_directory.Archive(path))
    assert flow is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return EventSampler(flow, 3).one([0.1, -0.2]).copy()


def damaged(content, rng):
    """The content with one array changed: an entry, or its length."""
    names = ["walk", "form", "trees", "inverse", "ratio"]
    name = names[rng.integers(len(names))]
    fields = list(content[name])
    place = int(
        rng.choice([i for i, v in enumerate(fields) if isinstance(v, np.ndarray) and v.size])
    )
    array = np.array(fields[place])
    if rng.random() < 0.15:
        array = array[:-1]
    else:
        size = array.size
        values = [-1, -2, 0, 1, 7, size, size + 1, 1 << 20, 1 << 62, -(1 << 62)]
        if array.dtype.kind == "f":
            values += [np.nan, np.inf, -np.inf, 1e300]
        entry = int(rng.choice([rng.integers(size), 0, size - 1]))
        with np.errstate(over="ignore"):
            array.flat[entry] = np.array([values[rng.integers(len(values))]]).astype(array.dtype)[0]
    fields[place] = array
    return {**content, name: tuple(fields)}


def test_damaged_arrays_never_lead_out_of_memory(model):
    rng, refused, lost = np.random.default_rng(1), 0, 0
    for _ in range(N_TRIALS):
        try:
            assert first_event(model, damaged(model[1], rng)).shape == (6,)
        except FormatError:
            refused += 1
        except InputError:  # wrong numbers, not wrong places
            lost += 1
    assert N_TRIALS / 4 < refused < N_TRIALS - lost


def test_arrays_that_are_whole_give_the_same_event_again(model):
    assert np.isfinite(first_event(model, model[1])).all()
    assert np.array_equal(first_event(model, model[1]), first_event(model, model[1]))


HARM = [
    ("trees", "feature", 0, 60_000),
    ("trees", "table", 0, 1 << 40),
    ("trees", "table", 4, -1),
    ("trees", "table", 3, 1 << 62),
    ("ratio", "feature", 0, 8),
    ("walk", "step", 0, -1),
    ("walk", "slot", 0, 1000),
    ("walk", "term", 0, 1 << 62),
    ("walk", "terms", 1, -1),
    ("walk", "forests", -1, 1 << 20),
    ("inverse", "columns", 0, 99),
    ("inverse", "columns", 4, 1 << 40),
    ("inverse", "ops", 1, 1 << 62),
    ("inverse", "relations", 0, 6),
    ("inverse", "terms", 0, arrays.ADD),
]


@pytest.mark.parametrize(("name", "field", "entry", "value"), HARM)
def test_an_index_out_of_range_is_refused(model, name, field, entry, value):
    kind = packed_model.TUPLES[name](*model[1][name])
    array = np.array(getattr(kind, field))
    array.flat[entry] = value
    content = {**model[1], name: tuple(kind._replace(**{field: array}))}
    with pytest.raises(FormatError, match="do not fit together"):
        first_event(model, content)


def test_a_count_of_knots_that_is_no_number_is_refused(model):
    way = packed_model.InverseArrays(*model[1]["inverse"])
    numbers = np.array(way.numbers)
    (rank,) = way.ops[way.ops[:, 0] == column_operations.RANK, 1]
    for wrong in (np.nan, np.inf, 1.0, -3.0, 1e18):
        numbers[rank] = wrong
        content = {**model[1], "inverse": tuple(way._replace(numbers=numbers.copy()))}
        with pytest.raises(FormatError, match="columns"):
            first_event(model, content)


@pytest.mark.parametrize("change", [{"n_latent": 1 << 40}, {"n_columns": True}, {"conditions": 2}])
def test_sizes_that_are_none_are_refused(model, change):
    with pytest.raises(FormatError, match="damaged"):
        first_event(model, {**model[1], **change})
