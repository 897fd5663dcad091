"""Columns given: what is unknown in a row is drawn given what is known."""

from __future__ import annotations

import numpy as np
import pytest

from flowbdt.flow.closed_form.conditioning import Covariances, Full, LowRank
from flowbdt.flow.closed_form.expectation_maximisation import GaussianMixture
from flowbdt.flow.closed_form.gaps import draw_unknown, of_columns
from flowbdt.seeding import BLOCK, RowNoise
from flowbdt.tables.transforms.table_transform import JointTransform

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
