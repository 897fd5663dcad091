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
from flowbdt.table import EventTable
from flowbdt.transforms import JointTransform, TableTransform, build_column, choose


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def fit(spec, values):
    return build_column(spec).fit(np.asarray(values, dtype=float), rng())


# --- smooth columns ------------------------------------------------------------------------


def test_minmax_maps_the_training_range_to_minus_one_and_one():
    z = fit("minmax", [2.0, 3.0, 6.0]).forward(np.array([2.0, 3.0, 6.0, 8.0]), rng())
    np.testing.assert_allclose(z[:, 0], [-1.0, -0.5, 1.0, 2.0])


def test_minmax_with_clip_stops_exactly_at_the_training_range():
    values = np.array([0.1, 0.7, 0.3])
    back = fit({"name": "minmax", "clip": True}, values).inverse(np.array([[-3.0], [5.0]]))
    assert back.tolist() == [0.1, 0.7]


def test_standard_has_mean_zero_and_unit_variance():
    values = rng().normal(1e5, 3.0, 500)
    z = fit("standard", values).forward(values, rng())
    assert abs(z.mean()) < 1e-9
    assert z.std() == pytest.approx(1.0, rel=1e-9)


def test_log_and_logit_agree_with_their_formulas():
    values = rng().uniform(0.1, 0.9, 300)
    z = fit("log", values).forward(values, rng())[:, 0]
    bent = np.log(values)
    np.testing.assert_allclose(z, (bent - bent.mean()) / bent.std(), atol=1e-12)
    z = fit({"name": "logit", "low": 0, "high": 1}, values).forward(values, rng())[:, 0]
    bent = np.log(values / (1 - values))
    np.testing.assert_allclose(z, (bent - bent.mean()) / bent.std(), atol=1e-12)


@pytest.mark.parametrize("spec", ["log", {"name": "logit", "low": 0.0, "high": 1.0}])
def test_values_at_a_bound_come_back_exactly(spec):
    values = np.concatenate([[0.0, 0.0, 0.5], rng().uniform(0.01, 0.99, 100)])
    transform = fit(spec, values)
    assert transform.inverse(transform.forward(values, rng()))[:3].tolist() == [0.0, 0.0, 0.5]


def test_values_outside_the_domain_are_refused_with_their_row():
    with pytest.raises(InputError, match="x >= low = 0.*worst: row 1, by 2"):
        fit("log", [1.0, -2.0, 3.0])
    with pytest.raises(InputError, match="0 <= x <= 1"):
        fit({"name": "logit", "low": 0, "high": 1}, [0.5, 1.5])


def test_chain_of_log_and_minmax_fills_the_range():
    values = rng().lognormal(size=200)
    z = fit(["log", "minmax"], values).forward(values, rng())
    assert z.min() == pytest.approx(-1)
    assert z.max() == pytest.approx(1)


def test_chain_refuses_two_latent_columns_in_the_middle():
    with pytest.raises(ConfigError, match="only come last"):
        fit(["circular", "standard"], [0.0, 1.0, 2.0])


# --- rank ----------------------------------------------------------------------------------


def spiky(n: int = 20_000) -> np.ndarray:
    """20% exact zeros, then a gap up to 1, then an exponential."""
    values = 1 + rng(1).exponential(2.0, n)
    values[: n // 5] = 0.0
    return rng(2).permutation(values)


def assert_within_five_errors(share: float, expected: float, n: int) -> None:
    assert abs(share - expected) < 5 * np.sqrt(expected * (1 - expected) / n)


def test_rank_latent_is_standard_normal():
    from scipy.special import ndtr

    values = spiky()
    z = fit("rank", values).forward(values, rng())[:, 0]
    for threshold in (-2.0, -0.8, 0.0, 0.9, 2.0):
        assert_within_five_errors(np.mean(z < threshold), ndtr(threshold), z.size)


def test_rank_keeps_spikes_gaps_and_limits():
    values, n = spiky(), 50_000
    generated = fit("rank", values).inverse(rng(3).normal(size=(n, 1)))
    assert_within_five_errors(np.mean(generated == 0.0), 0.2, n)
    assert not ((generated > 0) & (generated < values[values > 0].min())).any()
    assert generated.min() == 0.0
    # the smooth part keeps its distribution: P(x < 1 + 2 log 2) = 0.2 + 0.8 / 2
    expected = np.mean(values < 1 + 2 * np.log(2))
    assert_within_five_errors(np.mean(generated < 1 + 2 * np.log(2)), expected, n)


def test_rank_finds_a_small_spike_but_not_rounding():
    values = np.round(rng().normal(0, 100, 20_000), 1)
    values[:60] = 12.34
    transform = fit("rank", values)
    assert "1 repeated value kept exactly: 12.34 (0.3%)" in transform.describe()


def test_rank_tails_extend_unless_the_extreme_is_repeated():
    values = np.abs(rng().normal(size=3000))
    values[:10] = values.min()
    transform = fit("rank", values)
    back = transform.inverse(np.array([[-30.0], [30.0]]))
    assert back[0] == values.min()
    assert back[1] > values.max()


def test_rank_extension_never_passes_zero_for_a_column_without_negative_values():
    values = rng().gamma(3.0, 1.0, 5000)
    assert fit("rank", values).inverse(np.array([[-1e6]]))[0] >= 0.0
    free = fit({"name": "rank", "low": None, "tails": "extend"}, values)
    assert free.inverse(np.array([[-1e6]]))[0] < 0.0


def test_rank_extension_is_linear_with_the_slope_of_the_tail():
    from scipy.special import ndtri

    n = 10_000
    values = 5 + 2 * ndtri((np.arange(n) + 0.5) / n)  # for these exactly x = 5 + 2 z
    z = np.linspace(-6.5, 6.5, 50)
    back = fit({"name": "rank", "reach": 3.0}, values).inverse(z[:, None])
    np.testing.assert_allclose(back, 5 + 2 * z, atol=0.02)


def test_rank_can_be_told_which_values_to_keep():
    values = rng().normal(size=1000)
    values[:4] = 0.25
    told = fit({"name": "rank", "atoms": [0.25]}, values)
    assert (told.inverse(told.forward(np.full(50, 0.25), rng())) == 0.25).all()
    assert told.draws
    assert not fit({"name": "rank", "atoms": "none"}, values).draws


def test_rank_refuses_bounds_that_the_data_pass():
    with pytest.raises(InputError, match="declared high = 1"):
        fit({"name": "rank", "high": 1.0}, [0.0, 0.5, 2.0])


# --- discrete columns and angles -----------------------------------------------------------


def test_integer_generates_integers_of_the_right_frequency():
    values = rng().poisson(30, 40_000).astype(float)
    transform = fit({"name": "integer", "inner": "rank"}, values)
    generated = transform.inverse(rng(1).normal(size=(40_000, 1)))
    assert (generated == np.rint(generated)).all()
    for k in (20, 30, 40):
        share, expected = np.mean(generated == k), np.mean(values == k)
        assert abs(share - expected) < 5 * np.sqrt(expected / 40_000)


def test_integer_tails_are_honest():
    values = rng().poisson(3, 2000).astype(float)
    ends = np.array([[-1e3], [1e3]])
    back = fit("integer", values).inverse(ends)
    assert back[0] == values.min()
    assert back[1] > values.max()
    limited = fit({"name": "integer", "tails": "limit"}, values).inverse(ends)
    assert limited.tolist() == [values.min(), values.max()]


def test_integer_refuses_fractions():
    with pytest.raises(ConfigError, match="integral.*row 1"):
        fit("integer", [1.0, 1.5])


def test_categorical_keeps_frequencies_and_only_seen_values():
    values = rng().choice([0.0, 2.0, 7.0], 5000, p=[0.7, 0.1, 0.2])
    transform = fit("categorical", values)
    generated = transform.inverse(rng(1).normal(size=(30_000, 1)))
    assert set(generated) == {0.0, 2.0, 7.0}
    for value in (0.0, 2.0, 7.0):
        assert_within_five_errors(np.mean(generated == value), np.mean(values == value), 30_000)


def test_unseen_category_goes_to_the_nearest_with_a_warning():
    transform = fit("categorical", [0.0, 1.0, 4.0])
    with pytest.warns(DataWarning, match="1 row"):
        z = transform.forward(np.array([3.0, 1.0]), rng())
    assert transform.inverse(z).tolist() == [4.0, 1.0]


def test_uniform_angle_becomes_a_standard_normal_in_the_plane():
    n = 20_000
    angle = rng().uniform(-np.pi, np.pi, n)
    z = fit("circular", angle).forward(angle, rng(1))
    assert np.abs(z.mean(axis=0)).max() < 5 / np.sqrt(n)
    assert np.abs(np.cov(z.T) - np.eye(2)).max() < 5 * np.sqrt(2 / n)
    assert abs(np.mean(z**4) - 3) < 5 * np.sqrt(96 / (2 * n))


def test_angles_on_both_sides_of_the_seam_are_neighbours():
    transform = fit("circular", [0.0, 1.0])
    z = transform.forward(np.array([np.pi - 1e-6, -np.pi + 1e-6]), rng())
    direction = z / np.linalg.norm(z, axis=1, keepdims=True)
    np.testing.assert_allclose(direction[0], direction[1], atol=1e-5)


# --- automatic choice ----------------------------------------------------------------------

AUTO = {
    "constant": np.full(2000, 3.0),
    "standard": rng(1).normal(size=2000),
    "log": rng(2).lognormal(0, 1, 2000),
    "integer": rng(3).poisson(50, 2000).astype(float),
    "categorical": rng(4).integers(0, 2, 2000).astype(float),
    "circular": rng(5).uniform(-np.pi, np.pi, 20_000),
    "rank": np.where(rng(6).random(2000) < 0.1, 0.0, rng(7).normal(size=2000)),
}


@pytest.mark.parametrize("name", sorted(AUTO))
def test_automatic_choice_by_kind_of_column(name):
    assert choose(AUTO[name])[0]["name"] == name


def test_automatic_choice_sees_hard_limits_and_heavy_tails():
    uniform, _ = choose(rng().uniform(0, 90, 5000))
    assert uniform == {"name": "rank", "tails": {"low": "limit", "high": "limit"}}
    cut, reason = choose(200 + rng().exponential(50, 5000))
    assert cut["tails"] == {"low": "limit", "high": "extend"}
    assert "low limit" in reason
    assert choose(rng().standard_cauchy(5000))[0]["name"] == "rank"


def test_automatic_choice_uses_the_type_of_the_column():
    values = rng().integers(-30_000, 30_000, 20_000).astype(float)
    assert choose(values, "int32")[0]["name"] == "integer"
    assert choose(values, "float64")[0]["name"] != "integer"
    assert choose(np.array([0.0, 1.0, 2.0] * 5), is_category=True)[0]["name"] == "categorical"


def test_few_rows_are_only_standardised():
    assert choose(np.array([0.5, 1.7, 900.3]))[0]["name"] == "standard"


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
