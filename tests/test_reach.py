"""Computed columns far beyond their training range are drawn anew, by every way of generating."""

from __future__ import annotations

import numpy as np
import pytest

from flowbdt import EventTable, FlowBDT
from flowbdt.generation.describe_flow import describe_rejection
from flowbdt.generation.trained_flow import Flow
from flowbdt.tables.transforms import TableTransform
from flowbdt.tables.transforms.table_transform import FAR
from flowbdt.training.run_directory import open_run

N = 20_000


def diverging(n=2_000):
    """A column as it stands, and one that diverges where the former is nearly 0."""
    x = 0.05 + np.random.default_rng(1).exponential(size=n)
    return EventTable.of({"x": x, "y": 1.0 / x})


@pytest.fixture(scope="module", params=[False, True])
def model(request):
    settings = {"transforms": {"x": "standard"}, "relations": ["y = 1 / x"]}
    settings["rejection"] = request.param
    settings["preconditioner"] = "gaussian"
    booster = {"n_estimators": 3, "max_depth": 3}
    return FlowBDT(preset="fast", n_steps=2, booster=booster, random_state=1, **settings).fit(
        diverging()
    )


def ends(column):
    low, high = column.min(), column.max()
    return low - FAR * (high - low), high + FAR * (high - low)


def test_no_event_has_a_computed_column_far_beyond_training(model, tmp_path):
    path = tmp_path / "model.flow"
    model.save(path)
    low, high = ends(diverging().column("y"))
    free = Flow(open_run(path), rejects=False, requires=False)
    with_far = np.vstack([block.x for block in free.sample_blocks(N, seed=2)])
    far = (with_far[:, 1] < low) | (with_far[:, 1] > high)
    made = model.sample(N, random_state=2).x
    assert 0.001 < far.mean() < 0.2
    assert low <= made[:, 1].min() < made[:, 1].max() <= high
    if model.flow().ratio is None:
        assert np.array_equal(made[~far], with_far[~far])
    assert made[:, 1].max() > diverging().column("y").max()  # tails go on
    measured = 1 - model.flow().required
    assert abs(measured - far.mean()) < 5 * np.sqrt(far.mean() / 8192)
    assert f"{measured:.2%} with a computed column far beyond" in describe_rejection(model.flow())
    single = model.sampler(random_state=2)
    assert np.array_equal([single.one().copy() for _ in range(300)], made[:300])


def test_what_follows_from_conditions_or_hardly_varies_is_not_bounded():
    rng = np.random.default_rng(2)
    a, c = rng.normal(size=(2, 500))
    columns = {"a": a, "of_c": a * c, "of_that": a * c + a, "plain": a**2, "steady": 1e6 + a}
    relations = ["of_c = a * c", "of_that = of_c + a", "plain = a ** 2", "steady = 1e6 + a"]
    table = EventTable.of(columns, cond={"c": c})
    reach = TableTransform(relations=relations).fit(table).reach()
    assert np.isfinite(reach).all(axis=0).tolist() == [False, False, False, True, False]
    assert reach[:, 3] == pytest.approx(ends(a**2))
