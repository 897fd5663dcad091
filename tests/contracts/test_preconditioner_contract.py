"""What every registered preconditioner must do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from flowbdt.errors import FormatError, InputError
from flowbdt.flow.closed_form import PRECONDITIONERS, Preconditioner, from_arrays, from_bytes
from flowbdt.flow.paths import PATHS

SPECS: list[Any] = [
    *PRECONDITIONERS.names(),
    {"name": "mixture", "n_components": 3},
    {"name": "mixture", "n_components": 3, "covariance": "low_rank", "rank": 2},
]
TIMES = (0.0, 0.3, 0.97, 1.0)
PATH = PATHS.build("linear")


def _rows(n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Two clusters in three columns, and two conditions with gaps; the second is a label."""
    rng = np.random.default_rng(1)
    label = (rng.uniform(size=n) < 0.4).astype(np.float64)
    z = rng.normal(size=(n, 3)) * (0.3 + label[:, None]) + 2.0 * label[:, None]
    cond = np.column_stack([z[:, 0] + rng.normal(size=n), label])
    cond[rng.uniform(size=cond.shape) < 0.1] = np.nan
    return z, cond


@pytest.fixture(params=SPECS, ids=str)
def spec(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def fitted(spec: Any) -> Preconditioner:
    z, cond = _rows()
    return PRECONDITIONERS.build(spec).fit(z, seed=3, cond=cond)


def test_features_are_velocity_posterior_mean_and_weights(fitted: Preconditioner) -> None:
    z, cond = _rows(50)
    prepared = fitted.at(PATH, 0.4)
    v, extra = prepared.features(z, cond)
    np.testing.assert_array_equal(v, prepared.velocity(z, cond))
    assert v.shape == z.shape
    assert v.dtype == extra.dtype == np.float64
    assert extra.shape[1] in (0, 3) or extra.shape[1] > 4


def test_weights_are_probabilities(fitted: Preconditioner) -> None:
    z, cond = _rows(50)
    weights = fitted.at(PATH, 0.4).features(z, cond)[1][:, 3:]
    if weights.shape[1]:
        assert (weights >= 0).all()
        np.testing.assert_allclose(weights.sum(axis=1), 1.0, rtol=1e-12)


@pytest.mark.parametrize("path", [*PATHS.names(), {"name": "linear", "sigma": 0.3}], ids=str)
def test_velocity_is_finite_at_every_time_and_far_out(fitted: Preconditioner, path: Any) -> None:
    x = np.vstack([np.eye(3), 50.0 * np.eye(3), np.full((1, 3), -50.0), np.full((1, 3), 1e6)])
    cond = np.tile([[0.5, 0.5], [1e4, -1e4]], (4, 1))
    for t in TIMES:
        prepared = fitted.at(PATHS.build(path), t)
        for given in (cond, None):
            v, extra = prepared.features(x, given)
            assert np.isfinite(v).all()
            assert np.isfinite(extra).all()


def test_a_row_does_not_depend_on_its_batch(fitted: Preconditioner) -> None:
    z, cond = _rows(300)
    prepared = fitted.at(PATH, 0.6)
    whole = np.hstack(prepared.features(z, cond))
    rows = np.r_[77, 5, 160:299]
    np.testing.assert_array_equal(np.hstack(prepared.features(z[rows], cond[rows])), whole[rows])
    np.testing.assert_array_equal(np.hstack(prepared.features(z[9:10], cond[9:10]))[0], whole[9])
    assert prepared.velocity(z[:0], cond[:0]).shape == (0, 3)


def test_same_seed_gives_the_same_bytes(spec: Any, fitted: Preconditioner) -> None:
    z, cond = _rows()
    again = PRECONDITIONERS.build(spec).fit(z, seed=3, cond=cond)
    assert again.to_bytes() == fitted.to_bytes()


def test_what_was_stored_acts_the_same(fitted: Preconditioner) -> None:
    z, cond = _rows(50)
    expected = np.hstack(fitted.at(PATH, 0.4).features(z, cond))
    for restored in (from_bytes(fitted.to_bytes()), from_arrays(fitted.to_arrays())):
        np.testing.assert_array_equal(np.hstack(restored.at(PATH, 0.4).features(z, cond)), expected)
        assert restored.describe() == fitted.describe()
        assert restored.to_bytes() == fitted.to_bytes()


def test_inputs_are_not_changed(spec: Any) -> None:
    z, cond = _rows(60)
    weight = np.linspace(0.5, 2.0, 60)
    copies = [z.copy(), cond.copy(), weight.copy()]
    fitted = PRECONDITIONERS.build(spec).fit(z, seed=3, cond=cond, weight=weight)
    fitted.at(PATH, 0.4).features(z, cond)
    for array, copy in zip((z, cond, weight), copies, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_very_few_rows_give_a_finite_velocity(spec: Any, n: int) -> None:
    z = np.random.default_rng(2).normal(size=(n, 8))
    fitted = PRECONDITIONERS.build(spec).fit(z, seed=3)
    for t in TIMES:
        assert np.isfinite(fitted.at(PATH, t).velocity(3.0 * np.eye(8))).all()


def test_constant_and_collinear_columns_give_a_finite_velocity(spec: Any) -> None:
    base = np.random.default_rng(2).normal(size=(200, 2))
    z = np.column_stack([base, base @ [1.0, -2.0], np.full(200, 7.3e5), np.zeros(200)])
    fitted = PRECONDITIONERS.build(spec).fit(z, seed=3, source=z + base[:, :1])
    for t in TIMES:
        assert np.isfinite(fitted.at(PATH, t).velocity(z[:20])).all()


def test_wrong_shapes_are_refused(fitted: Preconditioner) -> None:
    with pytest.raises(InputError, match=r"\(n, 3\)"):
        fitted.at(PATH, 0.5).velocity(np.zeros((4, 2)))


def test_truncated_bytes_are_refused(fitted: Preconditioner) -> None:
    content = fitted.to_bytes()
    for broken in (b"", content[: len(content) // 2], b"something else"):
        with pytest.raises(FormatError, match="the stored preconditioner"):
            from_bytes(broken)
    with pytest.raises(FormatError, match="upgrade"):
        from_arrays({**fitted.to_arrays(), "format": np.array(99)})
    with pytest.raises(FormatError, match="unheard"):
        from_arrays({**fitted.to_arrays(), "name": np.array("unheard")})
