"""Columns given: what is unknown in a row is drawn given what is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from test_discrete_columns import SMALL, mixed

from flowbdt import FlowBDT
from flowbdt.cli.main import main
from flowbdt.errors import ConfigError, DataWarning, InputError
from flowbdt.flow.closed_form.conditioning import Covariances, Full, LowRank
from flowbdt.flow.closed_form.expectation_maximisation import GaussianMixture
from flowbdt.flow.closed_form.gaps import draw_unknown, log_tilt, of_columns
from flowbdt.generation import given_rows
from flowbdt.seeding import BLOCK, RowNoise
from flowbdt.tables.event_table import EventTable
from flowbdt.tables.transforms import JointTransform

WEIGHTS = np.array([0.5, 0.3, 0.2])
MEANS = np.array([[1.0, 0.5, 0.0], [-1.0, 1.0, 2.0], [0.2, -1.5, -1.0]])


def random_covariances(kind: type[Covariances]) -> Covariances:
    rng = np.random.default_rng(4)
    if kind is LowRank:
        return LowRank(rng.normal(size=(3, 3, 1)), rng.uniform(0.2, 1.0, size=(3, 3)))
    roots = rng.normal(size=(3, 3, 3))
    return Full(roots @ roots.swapaxes(1, 2) + 0.1 * np.eye(3))


def noise_of(n: int, seed: int = 3) -> RowNoise:
    return RowNoise(seed, "test", np.arange(n))


@pytest.mark.parametrize("kind", [Full, LowRank])
@pytest.mark.parametrize("known", [(), (1,), (0, 2)])
def test_the_unknown_have_the_conditional_moments(
    kind: type[Covariances], known: tuple[int, ...]
) -> None:
    n, values = 40_000, np.array([0.3, -0.4, 0.6])
    mixture = GaussianMixture(np.log(WEIGHTS), MEANS, random_covariances(kind))
    o, u = list(known), [i for i in range(3) if i not in known]
    y = np.full((n, 3), np.nan)
    y[:, o] = values[o]
    drawn = draw_unknown(mixture, y, noise_of(n))
    assert np.array_equal(drawn[:, o], y[:, o])
    weights, means, covs = [], [], []
    for weight, mean, cov in zip(WEIGHTS, MEANS, mixture.covariances.dense(), strict=True):
        gain = cov[np.ix_(u, o)] @ np.linalg.inv(cov[np.ix_(o, o)])
        away = values[o] - mean[o]
        square = away @ np.linalg.solve(cov[np.ix_(o, o)], away)
        weights.append(weight * np.exp(-0.5 * square) / np.sqrt(np.linalg.det(cov[np.ix_(o, o)])))
        means.append(mean[u] + gain @ away)
        covs.append(cov[np.ix_(u, u)] - gain @ cov[np.ix_(o, u)])
    share = np.array(weights) / np.sum(weights)
    mean = share @ np.array(means)
    second = sum(
        p * (c + np.outer(m - mean, m - mean)) for p, m, c in zip(share, means, covs, strict=True)
    )
    found = drawn[:, u]
    error = np.sqrt(np.diag(second) / n)
    assert np.all(np.abs(found.mean(axis=0) - mean) < 4 * error)
    atol = 0.03 * second.max()
    np.testing.assert_allclose(np.cov(found.T).reshape(second.shape), second, atol=atol)


def test_components_are_drawn_by_their_posterior_weights() -> None:
    """Far apart, narrow components show which one was drawn."""
    means = np.array([[0.0, -50.0], [0.5, 50.0]])
    mixture = GaussianMixture(
        np.log([0.6, 0.4]), means, Full(np.array([np.eye(2), np.diag([4.0, 1.0])]))
    )
    y = np.tile([0.8, np.nan], (20_000, 1))
    density = np.array([0.6, 0.4]) * np.exp([-0.32, -0.01125]) / np.array([1.0, 2.0])
    share = (draw_unknown(mixture, y, noise_of(len(y)))[:, 1] > 0).mean()
    assert share == pytest.approx(density[1] / density.sum(), abs=0.015)


def test_the_weight_makes_up_for_favoured_components() -> None:
    n = 40_000
    mixture = GaussianMixture(np.log(WEIGHTS), MEANS, random_covariances(Full))
    y = np.tile([0.3, np.nan, np.nan], (n, 1))
    tilt = np.tile([0.0, -2.0, -1.0], (n, 1))
    plain = draw_unknown(mixture, y, noise_of(n))
    favoured = draw_unknown(mixture, y, noise_of(n, 4), tilt)
    weight = np.exp(log_tilt(mixture, y, tilt) - log_tilt(mixture, favoured, tilt))
    assert weight.mean() == pytest.approx(1.0, abs=0.02)
    for power in (1, 2):
        expected = (plain[:, 1:] ** power).mean(axis=0)
        found = (weight[:, None] * favoured[:, 1:] ** power).mean(axis=0)
        np.testing.assert_allclose(found, expected, rtol=0.05, atol=0.08)
    assert abs(favoured[:, 1].mean() - plain[:, 1].mean()) > 0.1


def test_a_row_does_not_depend_on_the_others() -> None:
    rng = np.random.default_rng(1)
    mixture = GaussianMixture(np.log(WEIGHTS), MEANS, random_covariances(Full))
    y = rng.normal(size=(BLOCK + 300, 3))
    y[rng.random(y.shape) < 0.4] = np.nan
    together = draw_unknown(mixture, y, noise_of(len(y)))
    some = np.sort(rng.choice(len(y), 71, replace=False))
    alone = draw_unknown(mixture, y[some], RowNoise(3, "test", some))
    assert np.array_equal(together[some], alone)


def test_the_mixture_of_columns_before_whitening() -> None:
    """Columns drawn from it, collinear ones included, have the moments of the rows."""
    rng = np.random.default_rng(2)
    cond = rng.normal(size=(5000, 1))
    a = 3.0 + 2.0 * cond[:, 0] + rng.normal(size=5000)
    rows = np.column_stack([a, 1.0 - 5.0 * a, a + rng.normal(size=5000)])
    joint = JointTransform("whiten").fit(rows)
    assert joint.n_latent == 2
    joined = np.hstack([joint.forward(rows), cond])
    fitted = GaussianMixture(np.zeros(1), joined.mean(axis=0)[None], Full(np.cov(joined.T)[None]))
    columns = of_columns(fitted, joint.mean, joint.scale, joint.axes, joint.spread)
    expected = np.hstack([rows, cond])
    np.testing.assert_allclose(columns.means[0], expected.mean(axis=0), atol=1e-9)
    np.testing.assert_allclose(columns.covariances.dense()[0], np.cov(expected.T), atol=1e-3)
    y = np.array([[2.0, np.nan, np.nan, 0.1], [np.nan, -4.0, np.nan, np.nan]])
    drawn = draw_unknown(columns, y, noise_of(2))
    assert drawn[0, 1] == pytest.approx(-9.0, abs=0.1)
    assert drawn[1, 0] == pytest.approx(1.0, abs=0.02)


ONE_STEP = {
    "preset": "fast",
    "n_steps": 2,
    "rejection": False,
    "booster": {"n_estimators": 2},
    "noise": {"n_repeats": 1},
    "random_state": 1,
}


def pair(n: int, seed: int) -> pd.DataFrame:
    """Normal columns of correlation 0.8, means 1 and -3, deviations 1 and 2."""
    a, b = np.random.default_rng(seed).normal(size=(2, n))
    return pd.DataFrame({"a": 1 + a, "b": -3 + 2 * (0.8 * a + 0.6 * b)})


@pytest.fixture(scope="module")
def normal_model() -> FlowBDT:
    settings = {"preconditioner": "gaussian", "transforms": "standard"}
    return FlowBDT(**ONE_STEP, **settings).fit(pair(20_000, 1))


def test_a_normal_column_given_its_partner(normal_model: FlowBDT) -> None:
    drawn = normal_model.sample(20_000, given={"a": [2.5]}, random_state=3)
    assert (drawn["a"] == 2.5).all()
    assert drawn["b"].mean() == pytest.approx(-3 + 2 * 0.8 * 1.5, abs=0.05)
    assert drawn["b"].std() == pytest.approx(1.2, abs=0.03)


def test_intervals_of_several_draws_are_calibrated(normal_model: FlowBDT) -> None:
    truth = pair(1500, 2)
    gaps = truth.copy()
    gaps.loc[::2, "a"] = np.nan
    gaps.loc[1::2, "b"] = np.nan
    copies = normal_model.impute(gaps, 60, random_state=1)
    for column, rows in (("a", slice(0, None, 2)), ("b", slice(1, None, 2))):
        draws = np.array([copy[column].to_numpy()[rows] for copy in copies])
        for level in (0.5, 0.9):
            low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)
            hidden = truth[column].to_numpy()[rows]
            assert ((low < hidden) & (hidden < high)).mean() == pytest.approx(level, abs=0.045)


def two_kinds(n: int, seed: int) -> pd.DataFrame:
    """A share of 0.3 is "left", around 0; the others are "right", around 2; both of width 1."""
    rng = np.random.default_rng(seed)
    left = rng.random(n) < 0.3
    x = rng.normal(size=n) + np.where(left, 0.0, 2.0)
    return pd.DataFrame(
        {"x": x, "kind": np.where(left, "left", "right"), "n": rng.integers(0, 9, n)}
    )


@pytest.fixture(scope="module")
def kinds_model() -> FlowBDT:
    settings = {"preconditioner": {"name": "mixture", "n_components": 2}}
    return FlowBDT(**ONE_STEP, **settings).fit(two_kinds(20_000, 3))


def test_numbers_given_a_category_and_a_category_given_numbers(kinds_model: FlowBDT) -> None:
    for kind, centre in (("left", 0.0), ("right", 2.0)):
        x = kinds_model.sample(5000, given={"kind": [kind]}, random_state=1)["x"]
        assert stats.kstest(x, stats.norm(centre).cdf).statistic < 0.05
    for x in (-0.5, 1.0, 2.0):
        drawn = kinds_model.sample(4000, given={"x": [x]}, random_state=2)
        odds = 0.3 / 0.7 * np.exp(-0.5 * x**2 + 0.5 * (x - 2) ** 2)
        assert (drawn["kind"] == "left").mean() == pytest.approx(odds / (1 + odds), abs=0.06)


def test_a_known_category_counts_whatever_later_ones_exclude() -> None:
    """p(x | a, b) where b = 1 excludes the third value of a: that of a = 0 given x counts whole."""
    rng, n = np.random.default_rng(8), 4000
    x = rng.normal(size=n)
    high = rng.random(n) < 1 / (1 + np.exp(-3 * x))
    a = np.where(high, 2, rng.integers(0, 2, n))
    b = np.where(high, 0, rng.integers(0, 2, n))
    model = FlowBDT(**SMALL, order=["a", "b"]).fit(
        pd.DataFrame({"x": x, "a": a.astype(str), "b": b.astype(str)})
    )
    drawn = model.sample(given={"a": ["0"], "b": ["1"]}, n_samples=2000, random_state=1)["x"]
    assert drawn.mean() == pytest.approx(x[(a == 0) & (b == 1)].mean(), abs=0.12)


def test_known_values_come_back_and_nothing_is_missing(kinds_model: FlowBDT) -> None:
    truth = two_kinds(600, 4)
    truth.index = truth.index[::-1] + 5
    gaps = truth.astype(object).mask(np.random.default_rng(0).random(truth.shape) < 0.4)
    gaps = gaps.astype({"x": float, "n": "Int64"})
    filled = kinds_model.impute(gaps, random_state=1)
    assert filled.dtypes.equals(truth.dtypes)
    assert filled.index.equals(gaps.index)
    assert not filled.isna().any(axis=None)
    assert (filled == truth)[gaps.notna()].fillna(True).all(axis=None)
    assert filled.equals(kinds_model.sample(given=gaps, random_state=1).set_index(gaps.index))
    whole = kinds_model.impute(truth[["kind", "n", "x"]])
    assert whole.equals(truth)


def test_a_row_depends_on_the_seed_and_its_number_only(
    kinds_model: FlowBDT, monkeypatch: pytest.MonkeyPatch
) -> None:
    gaps = two_kinds(900, 5)
    gaps.loc[::3, "x"] = np.nan
    gaps.loc[1::2, "kind"] = None
    whole = kinds_model.impute(gaps, random_state=1)
    assert whole.head(700).equals(kinds_model.impute(gaps.head(700), random_state=1))
    monkeypatch.setattr(given_rows, "TOGETHER", 1)
    assert whole.equals(kinds_model.impute(gaps, random_state=1))
    first, second = kinds_model.impute(gaps, 2, random_state=1)
    assert first.equals(whole)
    assert not second.equals(whole)


def test_a_function_of_an_unknown_column_decides_about_it() -> None:
    table = mixed(1200)
    model = FlowBDT(**SMALL).fit(table)
    drawn = model.sample(given=table[["years"]], random_state=1)
    assert (drawn["school"] == table["school"]).all()
    with pytest.raises(InputError, match="years follows from school"):
        model.sample(given={"school": ["college"], "years": [6]})


@pytest.fixture(scope="module")
def ratios() -> FlowBDT:
    rng = np.random.default_rng(1)
    a, b = rng.uniform(1, 2, 800), rng.integers(10, 300, 800)
    frame = pd.DataFrame({"a": a, "b": b, "c": b / a, "one": 1.0})
    settings = {"preconditioner": {"name": "mixture", "n_components": 1}}
    with pytest.warns(DataWarning, match="one value"):
        return FlowBDT(**ONE_STEP, **settings, relations=["c = b / a"]).fit(frame)


def test_relations_hold_whatever_is_given(ratios: FlowBDT) -> None:
    drawn = ratios.sample(300, given={"a": [1.5]}, random_state=1)
    assert np.array_equal(drawn["c"], drawn["b"] / 1.5)
    drawn = ratios.sample(given={"b": [30, 40], "a": [1.5, np.nan], "c": [20.0, np.nan]})
    assert drawn["c"][0] == 20.0
    assert (drawn["one"] == 1.0).all()
    drawn = ratios.sample(given={"c": [20.0, 50.0], "a": [1.5, np.nan], "b": [np.nan, 80]})
    assert drawn["c"].tolist() == [20.0, 50.0]
    assert drawn["b"].tolist() == [30, 80]
    np.testing.assert_allclose(drawn["a"], [1.5, 1.6], rtol=1e-14)  # b / c


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"a": [1.5], "z": [1.0]}, "'z'"),
        ({"c": [20.0]}, "given without a and b in 1 row"),
        ({"a": [1.5], "b": [30], "c": [21.0]}, "contradict the relation"),
        ({"b": [30.5]}, r"given value 30.5 of column 'b' in row 0"),
        ({"one": [1.0, 2.0]}, r"given value 2 of column 'one' in row 1"),
        ({"a": [np.inf]}, "infinite"),
        ({"a": []}, "no rows"),
        (np.ones((3, 2)), "must have 4 columns"),
        ({"a": ["x", "y"]}, "must hold numbers"),
    ],
)
def test_bad_values_are_refused(ratios: FlowBDT, given: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ratios.sample(given=given)


def test_categories_and_discrete_values_must_be_known(kinds_model: FlowBDT) -> None:
    with pytest.raises(InputError, match=r"unknown categories top"):
        kinds_model.sample(given={"kind": ["left", "top"]})
    with pytest.raises(InputError, match=r"given value 99 of column 'n' in row 1"):
        kinds_model.impute({"n": [3.0, 99.0]})
    few = pd.DataFrame({"x": np.arange(60.0), "m": np.arange(60) % 3 * 0.5})
    model = FlowBDT(**SMALL).fit(few)
    with pytest.warns(DataWarning, match="'m' has 1 given value beside"):
        assert model.sample(given={"m": [0.6]})["m"][0] == 0.6
    frame = two_kinds(300, 1)
    kinds = ["left", "right", "never"]
    frame["kind"] = pd.Categorical(frame["kind"], categories=kinds)
    settings = {"preconditioner": {"name": "mixture", "n_components": 1}}
    model = FlowBDT(**ONE_STEP, **settings).fit(frame)
    with pytest.raises(InputError, match="given value 'never' of column 'kind' in row 0"):
        model.sample(given=pd.DataFrame({"kind": pd.Categorical(["never"], categories=kinds)}))


def test_what_has_no_meaning_is_refused(normal_model: FlowBDT) -> None:
    given = {"a": [1.0]}
    with pytest.raises(ConfigError, match="given columns and source"):
        normal_model.sample(given=given, source=pair(1, 1))
    with pytest.raises(ConfigError, match="given columns and sampler"):
        normal_model.sample(given=given, sampler={"solver": "heun"})
    with pytest.raises(InputError, match="1 or 3 rows"):
        normal_model.sample(3, given={"a": [1.0, 2.0]})
    with pytest.raises(InputError, match="n must be a whole number"):
        normal_model.impute(given, 0)
    with pytest.warns(DataWarning, match="given values far outside of training: 'a' in 1 of 1"):
        normal_model.sample(given={"a": [50.0]})
    with pytest.raises(InputError, match="given values far outside"):
        normal_model.sample(given={"a": [50.0]}, outside="raise")
    plain = FlowBDT(**ONE_STEP, preconditioner="none").fit(pair(300, 1))
    with pytest.raises(ConfigError, match="preconditioner='mixture'"):
        plain.sample(given=given)
    shifted = FlowBDT(**ONE_STEP, preconditioner="none", coupling="given")
    shifted.fit(pair(300, 1), source=pair(300, 2))
    with pytest.raises(ConfigError, match="source events"):
        shifted.sample(given=given)


def test_rows_without_a_choice_are_told() -> None:
    """A category that only the largest of numbers have, four events in a thousand."""
    x = np.random.default_rng(1).normal(size=8000)
    frame = pd.DataFrame({"x": x, "rare": x > 2.65})
    settings = {"preconditioner": {"name": "gaussian"}}
    model = FlowBDT(**ONE_STEP, **settings).fit(frame)
    with pytest.warns(DataWarning, match=r"of 50 rows one of 256 proposals had over 90%"):
        model.sample(50, given={"rare": [True]}, random_state=1)


def test_conditions_stand_in_the_table_or_beside_it() -> None:
    rng = np.random.default_rng(2)
    c = rng.uniform(0, 4, 3000)
    frame = pd.DataFrame({"x": c + 0.2 * rng.normal(size=3000), "y": rng.normal(size=3000)})
    settings = {"preconditioner": "gaussian", "transforms": "standard"}
    model = FlowBDT(**ONE_STEP, **settings).fit(frame, cond=pd.DataFrame({"c": c}))
    given, cond = pd.DataFrame({"y": np.zeros(400)}), pd.DataFrame({"c": np.tile([1.0, 3.0], 200)})
    beside = model.sample(given=given, cond=cond, random_state=1)
    assert beside["x"][::2].mean() == pytest.approx(1.0, abs=0.1)
    assert beside["x"][1::2].mean() == pytest.approx(3.0, abs=0.1)
    assert model.sample(given=given.assign(c=cond["c"]), random_state=1).equals(beside)
    table = EventTable.of(given, cond=cond)
    assert model.sample(given=table, random_state=1).equals(beside)
    with pytest.raises(InputError, match="leave one out"):
        model.sample(given=table, cond=cond)
    with pytest.raises(InputError, match="trained with the conditions c"):
        model.sample(given=given)


def test_rejection_weighs_the_proposals() -> None:
    """One Gaussian does not know that y avoids 0; the classifier does."""
    rng = np.random.default_rng(5)
    y = rng.choice([-2.0, 2.0], 6000) + 0.3 * rng.normal(size=6000)
    frame = pd.DataFrame({"x": rng.normal(size=6000), "y": y})
    settings = ONE_STEP | {"preconditioner": "gaussian", "transforms": "standard"}
    shares = []
    for rejection in (False, True):
        model = FlowBDT(**settings | {"rejection": rejection}).fit(frame)
        drawn = model.sample(2000, given={"x": [0.5]}, random_state=1)["y"]
        shares.append((np.abs(drawn) < 1).mean())
    assert shares[0] > 0.3
    assert shares[1] < 0.1


def test_commands(tmp_path: Path, kinds_model: FlowBDT) -> None:
    gaps = two_kinds(200, 6)
    gaps.loc[::2, "x"] = np.nan
    gaps.loc[1::3, "kind"] = None
    kinds_model.save(tmp_path / "m.flowbdt")
    gaps.to_csv(tmp_path / "gaps.csv", index=False)
    model, table, out = (str(tmp_path / name) for name in ("m.flowbdt", "gaps.csv", "out.csv"))
    expected = kinds_model.impute(gaps, 2, random_state=3)
    assert main(["impute", model, table, "-o", out, "-n", "2", "--seed", "3"]) == 0
    written = pd.read_csv(out)
    assert np.array_equal(written["kind"], pd.concat(expected)["kind"])
    np.testing.assert_allclose(written["x"], pd.concat(expected)["x"], rtol=1e-12)
    assert main(["generate", model, "--given", table, "-o", out, "--seed", "3"]) == 0
    assert np.array_equal(pd.read_csv(out)["kind"], expected[0]["kind"])
    assert main(["generate", model, "--given", table, "-o", out, "--resume"]) == 1
    assert main(["generate", model, "--given", table, "-n", "7", "-o", out]) == 1


def test_pairs_that_training_never_had_are_told_and_kept():
    rng = np.random.default_rng(3)
    child = rng.random(1000) < 0.3
    married = ~child & (rng.random(1000) < 0.6)
    frame = pd.DataFrame({"child": child, "married": married, "age": rng.normal(40, 10, 1000)})
    model = FlowBDT(**SMALL).fit(frame)
    told = pytest.warns(DataWarning, match=r"unusual: .* never meet in training \(2 rows")
    with pytest.warns(DataWarning, match="of the weight"), told:
        new = model.impute(pd.DataFrame({"child": [True, True], "married": [True, True]}))
    assert new["child"].all()
    assert new["married"].all()
    assert new["age"].between(-20, 100).all()
