"""What every registered column transform must do. A new one joins through the registry.

One that needs options or special values gets an entry in ``SPECS`` or ``VALUES``.
"""

from __future__ import annotations

import json

import numpy as np
import pytest

from flowbdt.errors import ConfigError, FormatError
from flowbdt.tables.transforms import TRANSFORMS, ColumnTransform, build_column

N = 2000

SPECS: dict[str, list] = {
    "minmax": ["minmax", {"name": "minmax", "clip": True}],
    "log": ["log", {"name": "log", "low": -1.0}],
    "logit": [{"name": "logit", "low": 0.0, "high": 60.0}],
    "rank": ["rank", {"name": "rank", "tails": "limit"}, {"name": "rank", "tails": "extend"}],
    "circular": ["circular", {"name": "circular", "period": 360.0, "low": 0.0}],
    "integer": ["integer", {"name": "integer", "inner": "rank"}],
    "mixed": [{"name": "mixed", "atoms": [3.0], "equal": [], "inner": "log"}],
    "chain": [["log", "minmax"], ["standard", "rank"]],
}
NO_MAPS = ("classified",)
"""Those whose column is drawn by a classifier, see `tests/test_discrete_columns.py`."""

CASES = [
    (name, spec)
    for name in TRANSFORMS.names()
    if name not in NO_MAPS
    for spec in SPECS.get(name, [name])
]


def values_for(name: str, n: int = N) -> np.ndarray:
    rng = np.random.default_rng(3)
    if name == "constant":
        return np.full(n, 2.5)
    if name == "integer":
        return rng.poisson(40, n).astype(float)
    if name == "categorical":
        return rng.choice([0.0, 1.0, 5.0], n, p=[0.1, 0.6, 0.3])
    if name == "circular":
        return rng.uniform(0, 3.0, n)
    return rng.gamma(2.0, 3.0, n) + 0.01


def fitted(name: str, spec: object) -> ColumnTransform:
    return build_column(spec).fit(values_for(name), np.random.default_rng(0))


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{json.dumps(case[1])}")
def case(request):
    name, spec = request.param
    return name, spec, fitted(name, spec)


def test_forward_gives_finite_float64_of_the_declared_shape(case):
    name, _, transform = case
    z = transform.forward(values_for(name), np.random.default_rng(1))
    assert z.shape == (N, transform.n_latent)
    assert z.dtype == np.float64
    assert np.isfinite(z).all()


def test_inverse_of_forward_is_the_column(case):
    name, _, transform = case
    values = values_for(name)
    back = transform.inverse(transform.forward(values, np.random.default_rng(1)))
    assert back.shape == (N,)
    assert back.dtype == np.float64
    np.testing.assert_allclose(back, values, rtol=1e-9, atol=1e-9)


def test_forward_really_acts(case):
    name, _, transform = case
    if name in ("identity", "constant"):
        return
    values = values_for(name)
    z = transform.forward(values, np.random.default_rng(1))
    assert np.abs(z[:, 0] - values).max() > 0.1
    assert np.abs(z).max() < 30


def test_forward_repeats_with_the_same_generator_state(case):
    name, _, transform = case
    values = values_for(name)
    first = transform.forward(values, np.random.default_rng(1))
    assert np.array_equal(first, transform.forward(values, np.random.default_rng(1)))
    other = transform.forward(values, np.random.default_rng(2))
    assert transform.draws != np.array_equal(first, other)


def test_extreme_latents_give_finite_values(case):
    _, _, transform = case
    for size in (30.0, 1e6, 1e300):
        z = np.array([[-size], [0.0], [size]]) * np.ones(transform.n_latent)
        assert np.isfinite(transform.inverse(z)).all()


def test_extreme_values_give_finite_latents(case):
    name, _, transform = case
    if name == "categorical":
        return
    values = np.array([-1e300, -5.0, 0.0, 1e300])
    assert np.isfinite(transform.forward(values, np.random.default_rng(1))).all()


def test_json_round_trip_is_bit_equal(case):
    name, _, transform = case
    again = ColumnTransform.from_json(json.loads(json.dumps(transform.to_json())))
    values = values_for(name)
    z = transform.forward(values, np.random.default_rng(1))
    assert np.array_equal(z, again.forward(values, np.random.default_rng(1)))
    noise = np.random.default_rng(5).normal(0, 3, (500, transform.n_latent))
    assert np.array_equal(transform.inverse(noise), again.inverse(noise))
    assert transform.to_json() == again.to_json()
    assert transform.describe() == again.describe()


def test_state_stays_small_for_many_rows(case):
    name, spec, _ = case
    values = values_for(name, 50_000)
    transform = build_column(spec).fit(values, np.random.default_rng(0))
    assert len(json.dumps(transform.to_json())) < 120_000


def test_resolved_specification_gives_the_same_transform(case):
    name, _, transform = case
    again = build_column(transform.resolved()).fit(values_for(name), np.random.default_rng(0))
    noise = np.random.default_rng(5).normal(0, 3, (500, transform.n_latent))
    assert np.array_equal(transform.inverse(noise), again.inverse(noise))


def test_description_is_one_line(case):
    text = case[2].describe()
    assert text
    assert "\n" not in text


def test_two_rows_are_enough(case):
    name, spec, _ = case
    values = values_for(name, 2)
    transform = build_column(spec).fit(values, np.random.default_rng(0))
    back = transform.inverse(transform.forward(values, np.random.default_rng(1)))
    np.testing.assert_allclose(back, values, rtol=1e-9, atol=1e-9)


def test_fitting_does_not_change_or_keep_the_training_values(case):
    name, spec, _ = case
    values = values_for(name)
    copy = values.copy()
    transform = build_column(spec).fit(values, np.random.default_rng(0))
    before = transform.inverse(np.full((1, transform.n_latent), 0.3))
    assert np.array_equal(values, copy)
    values[:] = 0.0
    assert np.array_equal(before, transform.inverse(np.full((1, transform.n_latent), 0.3)))


@pytest.mark.parametrize(
    ("spec", "low", "high"),
    [
        ({"name": "minmax", "clip": True}, "min", "max"),
        ({"name": "standard", "clip": True}, "min", "max"),
        ({"name": "log", "clip": True}, "min", "max"),
        ({"name": "rank", "tails": "limit"}, "min", "max"),
        ("log", 0.0, np.inf),
        ({"name": "logit", "low": 0.0, "high": 60.0}, 0.0, 60.0),
        ({"name": "rank", "tails": "extend", "low": 0.0, "high": 60.0}, 0.0, 60.0),
        ({"name": "circular", "period": 7.0, "low": 1.0}, 1.0, 8.0),
    ],
)
def test_declared_bounds_are_honoured(spec, low, high):
    values = values_for("any")
    low = values.min() if low == "min" else low
    high = values.max() if high == "max" else high
    transform = build_column(spec).fit(values, np.random.default_rng(0))
    z = np.random.default_rng(1).normal(0, 20, (5000, transform.n_latent))
    back = transform.inverse(z)
    assert back.min() >= low
    assert back.max() <= high


@pytest.mark.parametrize("name", ["minmax", "standard", "log", "rank"])
def test_without_a_limit_values_may_exceed_the_training_range(name):
    values = values_for("any")
    transform = build_column(name).fit(values, np.random.default_rng(0))
    top = transform.inverse(np.array([[1e9]]))[0]
    assert values.max() < top < 1e6
    declared = float(transform.describe().rsplit(",", 1)[1].rstrip("]"))
    assert top == pytest.approx(declared, rel=1e-4)


def test_unknown_names_and_options_list_the_known_ones():
    with pytest.raises(ConfigError, match="Did you mean 'minmax'.*standard"):
        build_column("minmaxx")
    with pytest.raises(ConfigError, match="'clip'"):
        build_column({"name": "minmax", "clipp": True})
    with pytest.raises(ConfigError, match="needs low, high"):
        build_column("logit")


def test_a_broken_stored_transform_is_refused():
    stored = fitted("standard", "standard").to_json()
    del stored["state"]["centre"]
    with pytest.raises(FormatError, match="centre"):
        ColumnTransform.from_json(stored)
