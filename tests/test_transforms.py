"""Column transforms in closed form, automatic choices, joint and table transforms."""

from __future__ import annotations

import json
import time
import warnings

import numpy as np
import pandas as pd
import pytest

from flowbdt import seeding
from flowbdt.errors import ConfigError, DataWarning, FormatError, InputError
from flowbdt.tables.event_table import EventTable
from flowbdt.tables.transforms import JointTransform, TableTransform


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# --- joint ---------------------------------------------------------------------------------


def test_whitening_gives_the_unit_covariance_and_its_inverse():
    z = rng().normal(size=(4000, 3)) @ np.array([[1.0, 0.9, 0], [0, 0.2, 0.5], [0, 0, 2]]) + 7
    joint = JointTransform("whiten").fit(z)
    white = joint.forward(z)
    np.testing.assert_allclose(np.cov(white.T, bias=True), np.eye(3), atol=1e-9)
    np.testing.assert_allclose(joint.inverse(white), z, atol=1e-9)


def test_whitening_drops_collinear_columns_and_restores_them():
    a = rng().normal(size=(500, 2))
    z = np.column_stack([a, a[:, 0] - 2 * a[:, 1], a[:, 0]])
    joint = JointTransform("whiten").fit(z)
    assert joint.n_latent == 2
    np.testing.assert_allclose(joint.inverse(joint.forward(z)), z, atol=1e-9)


def test_weight_two_equals_two_copies_in_the_joint_transform():
    z = rng().normal(size=(50, 3))
    weight = np.where(np.arange(50) < 20, 2.0, 1.0)
    weighted = JointTransform("whiten").fit(z, weight)
    copies = JointTransform("whiten").fit(np.concatenate([z, z[:20]]))
    np.testing.assert_allclose(weighted.forward(z), copies.forward(z), atol=1e-9)


def test_joint_transform_refuses_unknown_names():
    with pytest.raises(ConfigError, match="whiten"):
        JointTransform.build("whitten")
    with pytest.raises(ConfigError, match="tolerance"):
        JointTransform.build({"name": "whiten", "tolerence": 1})


# --- table ---------------------------------------------------------------------------------

RELATIONS = ("r = b / a", "s = r ** 2 + a")


def jets(n: int = 3000) -> EventTable:
    """A toy with every kind of column: two sizes, ratios, counts, an angle, a spike, a label."""
    g = rng(11)
    a = g.lognormal(0, 0.5, n).astype(np.float32)
    b = (a * g.uniform(0.2, 0.9, n)).astype(np.float32)
    r = (b / a).astype(np.float32)
    frame = pd.DataFrame({"a": a, "r": r, "b": b, "s": (r**2 + a).astype(np.float32)})
    frame["n"] = g.poisson(25, n).astype(np.int32)
    frame["phi"] = g.uniform(-3.14, 3.14, n)
    frame["m"] = np.where(g.random(n) < 0.1, 0.0, g.exponential(3.0, n))
    frame["kind"] = g.choice(["q", "g", "t"], n)
    return EventTable.of(frame)


def test_table_comes_back_from_its_latent_values():
    table = jets()
    transform = TableTransform("auto", RELATIONS).fit(table)
    z = transform.forward(table)
    assert z.shape == (table.n, transform.n_latent) == (table.n, len(transform.latent_names))
    # the spikes and single values next to them are exact, the rest to rounding
    np.testing.assert_allclose(transform.inverse(z), table.x, rtol=1e-6, atol=1e-8)


def test_relations_hold_exactly_on_the_stored_float32_values():
    table = jets()
    transform = TableTransform("auto", RELATIONS).fit(table)
    assert {"r", "s"}.isdisjoint(transform.transform_spec())
    generated = transform.inverse(2 * rng(1).normal(size=(20_000, transform.n_latent)))
    assert np.array_equal(generated[:, :4], generated[:, :4].astype(np.float32))
    a, r, b, s = generated[:, :4].T
    np.testing.assert_allclose(r, b / a, rtol=1e-6)
    np.testing.assert_allclose(s, r**2 + a, rtol=1e-6)


def test_generated_columns_keep_their_types():
    table = jets()
    transform = TableTransform("auto", RELATIONS).fit(table)
    generated = transform.inverse(5 * rng(1).normal(size=(2000, transform.n_latent)))
    n, kind = generated[:, 4], generated[:, 7]
    assert (n == np.rint(n)).all()
    assert n.min() >= 0
    assert set(kind) == {0.0, 1.0, 2.0}


def test_undefined_relation_is_set_within_the_training_range_with_a_warning():
    x = rng().uniform(0.1, 3.0, 200)
    table = EventTable.of(np.column_stack([x, np.log(x)]), ["x", "y"])
    transform = TableTransform("standard", ["y = log(x)"]).fit(table)
    with pytest.warns(DataWarning, match="undefined in 1 generated event"):
        generated = transform.inverse(np.array([[-4.0], [0.0]]))
    assert generated[0, 1] == table.x[:, 1].min()


def test_pieces_give_the_same_bits_as_the_whole():
    table = jets(3 * seeding.BLOCK + 100)
    transform = TableTransform("auto", RELATIONS).fit(table)
    z = transform.forward(table)
    starts = range(0, table.n, seeding.BLOCK)
    pieces = [transform.forward(table.take(slice(i, i + seeding.BLOCK)), i) for i in starts]
    assert np.array_equal(np.concatenate(pieces), z)
    back = [transform.inverse(z[i : i + seeding.BLOCK]) for i in starts]
    assert np.array_equal(np.concatenate(back), transform.inverse(z))


def test_random_numbers_follow_the_seed_and_the_block():
    table = jets(2000)
    one, two = (TableTransform("categorical", seed=s).fit(table.select(["kind"])) for s in (1, 2))
    assert not np.array_equal(one.forward(table), two.forward(table))
    assert not np.array_equal(one.forward(table), one.forward(table, seeding.BLOCK))
    with pytest.raises(InputError, match="multiple of"):
        one.forward(table, 100)


def test_table_transform_json_round_trip_is_bit_equal():
    table = jets()
    transform = TableTransform("auto", RELATIONS, seed=4).fit(table)
    stored = json.loads(json.dumps(transform.to_json()))
    again = TableTransform.from_json(stored)
    z = transform.forward(table)
    assert np.array_equal(again.forward(table), z)
    assert np.array_equal(again.inverse(z), transform.inverse(z))
    assert again.to_json() == stored
    assert again.describe() == transform.describe()


@pytest.mark.parametrize(
    "broken",
    [[], {}, {"format": 2}, {"format": 1}, {"format": 1, "columns": [{}], "relations": []}],
)
def test_a_foreign_stored_table_transform_is_refused(broken):
    with pytest.raises(FormatError):
        TableTransform.from_json(broken)


def test_resolved_specification_gives_the_same_table_transform():
    table = jets()
    transform = TableTransform("auto", RELATIONS).fit(table)
    spec = transform.transform_spec()
    assert spec["a"]["name"] == "log"
    assert spec["joint"]["name"] == "whiten"
    assert spec["n"]["inner"]["name"] != "auto"
    again = TableTransform(json.loads(json.dumps(spec)), RELATIONS).fit(table)
    assert np.array_equal(again.forward(table), transform.forward(table))


def test_description_has_a_line_per_column_and_tells_choice_and_reason():
    lines = TableTransform("auto", RELATIONS).fit(jets()).describe()
    assert len(lines) == 9
    assert lines[0].startswith("a: log(x - 0)")
    assert "positive" in lines[0]
    assert lines[1] == "r: not learned, computed as r = b / a"
    assert "m: rank" in lines[6]
    assert "kept exactly: 0 (9.5%)" in lines[6]
    assert "low limit" in lines[6]
    assert lines[8].startswith("joint: whiten")


def test_reference_recipe_is_plain_minmax():
    table = jets().select(["a", "b"])
    transform = TableTransform({"*": {"name": "minmax", "clip": True}, "joint": "none"}).fit(table)
    low, high = table.x.min(axis=0), table.x.max(axis=0)
    np.testing.assert_allclose(
        transform.forward(table), 2 * (table.x - low) / (high - low) - 1, atol=1e-12
    )
    generated = transform.inverse(3 * rng().normal(size=(500, 2)))
    assert (generated.min(axis=0) == low).all()
    assert (generated.max(axis=0) == high).all()


def test_named_columns_override_the_automatic_choice():
    table = jets()
    names = ["a", "phi", "n"]
    spec = {"a": ["log", "minmax"], "phi": "circular", "joint": "none"}
    transform = TableTransform(spec).fit(table.select(names))
    assert transform.latent_names == ("a", "phi:0", "phi:1", "n")
    assert transform.transform_spec()["n"]["name"] == "integer"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"aa": "log"}, "unknown column.*Did you mean 'a'"),
        ({"a": "lgo"}, "unknown transform 'lgo'"),
        ({"a": {"name": "log", "lw": 0}}, "'lw'"),
        ({"a": 3}, "a name or a mapping"),
        ({"a": ["log", "minmx"]}, "minmx"),
        ({"joint": "pca"}, "unknown joint transform"),
        ("normal", "unknown transform 'normal'"),
        ({"r": "log"}, "computed by the relation"),
        ({"a": {"name": "standard", "reach": "far"}}, "column 'a': reach"),
    ],
)
def test_wrong_specifications_are_refused_with_what_is_known(spec, message):
    with pytest.raises(ConfigError, match=message):
        TableTransform(spec, RELATIONS).fit(jets(100))


def test_errors_of_a_column_name_the_column():
    with pytest.raises(InputError, match="column 'x1'.*'log' needs"):
        TableTransform({"x1": "log"}).fit(EventTable.of(rng().normal(size=(50, 2))))


def test_constant_columns_are_kept_exactly_with_one_warning():
    x = rng().normal(size=(100, 3))
    x[:, 1] = 0.1
    with pytest.warns(DataWarning, match="1 column .*x1") as record:
        transform = TableTransform("minmax").fit(EventTable.of(x))
    assert len(record) == 1
    assert transform.n_latent == 2
    assert (transform.inverse(rng().normal(size=(20, 2)))[:, 1] == 0.1).all()


def test_a_table_of_constants_has_no_latent_columns():
    with pytest.warns(DataWarning):
        transform = TableTransform().fit(EventTable.of(np.ones((5, 2))))
    assert transform.n_latent == 0
    assert transform.forward(EventTable.of(np.ones((5, 2)))).shape == (5, 0)
    again = TableTransform.from_json(json.loads(json.dumps(transform.to_json())))
    assert (again.inverse(np.empty((3, 0))) == 1.0).all()


def test_two_rows_work_and_one_is_refused():
    table = EventTable.of(rng().normal(size=(2, 4)))
    transform = TableTransform().fit(table)
    np.testing.assert_allclose(transform.inverse(transform.forward(table)), table.x, atol=1e-9)
    with pytest.raises(InputError, match="at least 2 rows"):
        TableTransform().fit(table.take(slice(0, 1)))


def test_600_columns_work():
    x = rng().normal(size=(60, 600))
    x[:, 1::2] = np.abs(x[:, 1::2]) * (rng(1).random((60, 300)) < 0.5)
    table = EventTable.of(x)
    transform = TableTransform().fit(table)
    assert transform.transform_spec()["joint"]["name"] == "standardise"
    np.testing.assert_allclose(transform.inverse(transform.forward(table)), x, atol=1e-8)


def test_collinear_columns_stay_collinear():
    a = rng().normal(size=(400, 2))
    table = EventTable.of(np.column_stack([a, 3 * a[:, 0] - a[:, 1] + 1]))
    transform = TableTransform("standard").fit(table)
    assert transform.n_latent == 2
    x = transform.inverse(rng(1).normal(size=(100, 2)))
    np.testing.assert_allclose(x[:, 2], 3 * x[:, 0] - x[:, 1] + 1, atol=1e-9)


def test_any_finite_latent_gives_finite_values_of_the_column_type():
    table = jets()
    transform = TableTransform("auto", RELATIONS).fit(table)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        for size in (1e3, 1e300):
            x = transform.inverse(size * rng().uniform(-1, 1, (200, transform.n_latent)))
            assert np.isfinite(x).all()
            assert np.isfinite(x[:, :4].astype(np.float32)).all()


def test_wrong_latent_shape_and_missing_columns_are_refused():
    transform = TableTransform().fit(EventTable.of(rng().normal(size=(50, 2))))
    with pytest.raises(InputError, match=r"shape \(n, 2\)"):
        transform.inverse(np.zeros((3, 5)))
    with pytest.raises(InputError, match="finite"):
        transform.inverse(np.full((3, 2), np.nan))
    with pytest.raises(InputError, match="x1"):
        transform.forward(EventTable.of(np.zeros((3, 1)), ["x0"]))


def test_columns_may_come_in_any_order_and_without_relation_targets():
    table = jets(500)
    transform = TableTransform("auto", RELATIONS).fit(table)
    shuffled = table.select(["kind", "m", "phi", "n", "b", "a"])
    assert np.array_equal(transform.forward(shuffled), transform.forward(table))


@pytest.mark.slow
def test_100_000_jets_take_less_than_a_second_of_cpu():
    table = EventTable.of(rng().lognormal(size=(100_000, 12)))
    for spec in ("auto", "rank"):
        transform = TableTransform(spec).fit(table.take(slice(0, 25_000)))
        start = time.process_time()
        transform.inverse(transform.forward(table))
        assert time.process_time() - start < 1.0
