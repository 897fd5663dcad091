"""Transforms of single columns, and their automatic choice."""

from __future__ import annotations

import numpy as np
import pytest

from flowbdt.errors import ConfigError, DataWarning, InputError
from flowbdt.tables.transforms import build_column, choose


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


def test_rank_leaves_out_what_is_chance_in_its_rows_and_keeps_a_hole():
    from scipy.special import ndtr
    from scipy.stats import gamma

    values, edges = rng().gamma(3.0, 1.0, 5000), gamma.ppf(np.linspace(0, 1, 301)[1:-1], 3.0)

    def excess(rank):  # of the log loss of a smooth column by its bins, in units of 5,000 rows
        shares = np.diff(ndtr(rank.forward(edges, rng())[:, 0]), prepend=0.0, append=1.0)
        return 5000 * np.mean(-np.log(300 * shares))

    smooth = fit("rank", values)
    assert len(smooth.z) < 100
    assert excess(smooth) < 50  # 125 with a knot for every few rows
    hole = fit("rank", values[(values < 2.0) | (values > 2.2)])
    generated = hole.inverse(rng(1).normal(size=(100_000, 1)))
    assert np.mean((generated > 2.02) & (generated < 2.18)) < 0.003  # 0.04 of all values, else


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


def test_integer_refuses_fractions_and_impossible_lattices():
    with pytest.raises(ConfigError, match="integral.*row 1"):
        fit("integer", [1.0, 1.5])
    with pytest.raises(ConfigError, match="lattice.*row 1"):
        fit({"name": "integer", "step": 3}, [3.0, 4.0])
    for wrong in ({"step": 0}, {"step": "a"}, {"decimals": -1}, {"offset": np.inf}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            fit({"name": "integer", **wrong}, [1.0, 2.0])


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
    assert choose(values, "float64")[0]["name"] == "integer"
    assert choose(values * 1e15, "float64")[1] == "multiples of 1e+15"
    assert choose(np.exp(values / 1e3), "float64")[0]["name"] != "integer"
    assert choose(np.array([0.0, 1.0, 2.0] * 5), is_category=True)[0]["name"] == "categorical"


def test_few_rows_are_only_standardised():
    assert choose(np.array([0.5, 1.7, 900.3]))[0]["name"] == "standard"
