"""Ranks and coverage of posteriors: right for right posteriors, wrong for wrong ones."""

from __future__ import annotations

import numpy as np
import pytest

from flowbdt.errors import InputError
from flowbdt.evaluation.metrics.coverage import coverage, posterior_ranks

N, DRAWS = 4000, 20


def toy(width: float = 1.0, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Truth z ~ N(0, 1) seen as y = z + N(0, 1): the posterior is N(y / 2, 1 / 2)."""
    rng = np.random.default_rng(3)
    truth = rng.normal(size=N)
    seen = truth + rng.normal(size=N)
    spread = width * np.sqrt(0.5) * rng.normal(size=(N, DRAWS))
    return truth, seen[:, None] / 2 + shift + spread


@pytest.mark.parametrize("level", [0.3, 0.68, 0.95])
def test_exact_posterior_covers_what_it_claims(level):
    found = coverage(*toy(), level=level)
    assert abs(found.value - level) < 5 * np.sqrt(level * (1 - level) / N)
    assert found.floor == level


def test_too_narrow_covers_less_and_too_wide_more():
    narrow, wide = coverage(*toy(width=0.5)), coverage(*toy(width=2.0))
    assert narrow.value < 0.68 - 5 * narrow.error
    assert wide.value > 0.68 + 5 * wide.error


def test_biased_posterior_has_ranks_on_one_side():
    ranks = posterior_ranks(*toy(shift=1.0))
    assert ranks.mean() < 0.5 - 5 * np.sqrt(1 / 12 / N)


def test_ranks_of_an_integer_posterior_are_uniform():
    rng = np.random.default_rng(4)
    rate = rng.gamma(3.0, 1.0, N)
    truth, draws = rng.poisson(rate), rng.poisson(rate[:, None], (N, DRAWS))
    counts = np.histogram(posterior_ranks(truth, draws), 10, (0, 1))[0]
    assert (np.abs(counts - N / 10) < 5 * np.sqrt(N * 0.09)).all()


def test_ranks_do_not_depend_on_the_order_of_draws():
    truth, draws = toy()
    np.testing.assert_array_equal(
        posterior_ranks(truth, draws), posterior_ranks(truth, draws[:, ::-1])
    )


def test_certain_coverage_is_not_claimed_without_error():
    assert coverage(np.zeros(50), np.zeros((50, 3)), level=0.999).error > 0


@pytest.mark.parametrize(
    ("truth", "draws"),
    [
        (np.zeros(3), np.zeros((2, 4))),
        (np.zeros(3), np.zeros(3)),
        (np.zeros((3, 1)), np.zeros((3, 4))),
        (np.zeros(3), np.zeros((3, 0))),
        (np.array([0.0, np.nan]), np.zeros((2, 4))),
    ],
)
def test_shapes_and_values_are_checked(truth, draws):
    with pytest.raises(InputError):
        posterior_ranks(truth, draws)


@pytest.mark.parametrize("level", [0.0, 1.0, -0.5])
def test_level_is_checked(level):
    with pytest.raises(InputError, match="level"):
        coverage(*toy(), level=level)
