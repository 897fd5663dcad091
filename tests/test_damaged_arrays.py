"""Arrays of the core that are damaged or made to do harm: refused, or harmless."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from flowbdt import EventTable, FlowBDT
from flowbdt.errors import FormatError, InputError
from flowbdt.generation.one_event import EventSampler, PackedFlow
from flowbdt.generation.packed import arrays, column_operations
from flowbdt.generation.packed.array_file import file_bytes
from flowbdt.generation.packed.model_arrays import arrays_of
from flowbdt.training import run_directory

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


def small_model(preconditioner):
    """A model of columns of every kind."""
    return FlowBDT(
        preset="fast",
        n_steps=2,
        preconditioner=preconditioner,
        booster={"n_estimators": 3, "max_depth": 3},
        rejection=True,
        transforms={"c": "categorical", "d": "integer", "e": "circular", "b": "rank"},
        relations=["f = minimum(a, 2) / (1 + abs(b))"],
        observables=["h = hypot(a, b)"],
        random_state=1,
    ).fit(table(np.random.default_rng(0)))


@pytest.fixture(scope="module", params=MIXTURES)
def model(request, tmp_path_factory):
    """The bytes of a model, what is packed of it, and a path to write files to."""
    path = tmp_path_factory.mktemp(request.param) / "model.flow"
    fitted = small_model(MIXTURES[request.param])
    return fitted.archive_, arrays_of(fitted.flow()), path


def first_event(model, content):
    """The first event by other packed arrays, whose checksum is right."""
    archive, _, path = model
    path.unlink(missing_ok=True)  # arrays of before stay mapped
    path.write_bytes(run_directory.with_packed(archive, file_bytes(content)))
    flow = PackedFlow.of(run_directory.Archive(path))
    assert flow is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return EventSampler(flow, 3).one([0.1, np.nan]).copy()


def damaged(content, rng):
    """The content with one array changed: an entry, or its length."""
    name = str(rng.choice([k for k, v in content.items() if v.size and not k.startswith("text")]))
    array = np.array(content[name])
    if rng.random() < 0.15:
        return {**content, name: array.ravel()[:-1]}
    values = [-1, -2, 0, 1, 7, array.size, array.size + 1, 1 << 20, 1 << 62, -(1 << 62)]
    if array.dtype.kind == "f":
        values += [np.nan, np.inf, -np.inf, 1e300]
    entry = int(rng.choice([rng.integers(array.size), 0, array.size - 1]))
    with np.errstate(over="ignore"):
        array.flat[entry] = np.array([values[rng.integers(len(values))]]).astype(array.dtype)[0]
    return {**content, name: array}


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
    ("ratio", "feature", 0, 9),
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
    name = f"{name}.{field}"
    array = np.array(model[1][name])
    array.flat[entry] = value
    with pytest.raises(FormatError, match="do not fit together"):
        first_event(model, {**model[1], name: array})


def test_a_count_of_knots_that_is_no_number_is_refused(model):
    numbers, ops = np.array(model[1]["inverse.numbers"]), model[1]["inverse.ops"]
    (rank,) = ops[ops[:, 0] == column_operations.RANK, 1]
    for wrong in (np.nan, np.inf, 1.0, -3.0, 1e18):
        numbers[rank] = wrong
        with pytest.raises(FormatError, match="transforms"):
            first_event(model, {**model[1], "inverse.numbers": numbers})


@pytest.mark.parametrize("name", ["walk", "inverse", "trees"])
@pytest.mark.parametrize("size", [0, 1, 1 << 40])
def test_sizes_of_another_model_are_refused(model, name, size):
    sizes = np.array(model[1][f"{name}.sizes"])
    sizes[0] = size
    with pytest.raises(FormatError):
        first_event(model, {**model[1], f"{name}.sizes": sizes})
