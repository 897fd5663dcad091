"""Couplings: exactness, conditions. The contract of all couplings is in contracts/."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from flowbdt.errors import ConfigError, DataWarning, InputError
from flowbdt.flow.couplings import Independent, MinibatchOT, SourceCoupling, assign, equal_rows


def _cost(x0: np.ndarray, x1: np.ndarray) -> float:
    return float(((x0 - x1) ** 2).sum())


def test_assignment_is_the_best_of_all_permutations() -> None:
    rng = np.random.default_rng(1)
    x0, x1 = rng.normal(size=(6, 2)), rng.normal(size=(6, 2))
    best = min(_cost(x0[list(p)], x1) for p in itertools.permutations(range(6)))
    assert _cost(x0[assign(x0, x1)], x1) == pytest.approx(best, rel=1e-12)


def test_assignment_costs_what_the_exact_plan_of_pot_costs() -> None:
    ot = pytest.importorskip("ot", reason="POT is not installed (extra 'cfm')")
    rng = np.random.default_rng(2)
    x0, x1 = rng.normal(size=(60, 3)), 1.0 + rng.normal(size=(60, 3))
    ours = _cost(x0[assign(x0, x1)], x1) / 60
    uniform = np.full(60, 1 / 60)
    assert ours == pytest.approx(ot.emd2(uniform, uniform, ot.dist(x0, x1)), rel=1e-9)


def test_assignment_in_one_dimension_is_sorting() -> None:
    rng = np.random.default_rng(3)
    x0, x1 = rng.normal(size=(40, 1)), rng.exponential(size=(40, 1))
    paired = x0[assign(x0, x1)]
    np.testing.assert_array_equal(np.argsort(paired[:, 0]), np.argsort(x1[:, 0]))


def test_assignment_without_columns_is_the_identity() -> None:
    assert assign(np.zeros((3, 0)), np.zeros((3, 0))).tolist() == [0, 1, 2]


def test_larger_batches_shorten_the_paths() -> None:
    rng = np.random.default_rng(4)
    x0, x1 = rng.normal(size=(512, 2)), rng.normal(size=(512, 2))
    costs = [
        _cost(MinibatchOT(size).pair(x0, x1, None, np.random.default_rng(5)), x1)
        for size in (2, 16, 256)
    ]
    assert costs[0] > costs[1] > costs[2]
    assert costs[2] < 0.2 * _cost(x0, x1)


def test_batches_do_not_follow_the_order_of_the_table() -> None:
    """In a sorted table each batch of neighbours would take all of the noise, also far away."""
    x1 = np.sort(np.random.default_rng(6).normal(size=(512, 1)), axis=0)
    x0 = np.random.default_rng(7).normal(size=(512, 1))
    paired = MinibatchOT(32).pair(x0, x1, None, np.random.default_rng(8))
    assert np.corrcoef(paired[:, 0], x1[:, 0])[0, 1] > 0.9


def _two_classes(n: int = 4000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(9)
    cond = (rng.random((n, 1)) < 0.5).astype(float)
    return rng.normal(size=(n, 1)), rng.normal(size=(n, 1)) + 4.0 * cond, cond


def test_by_condition_keeps_the_noise_of_each_class() -> None:
    x0, x1, cond = _two_classes()
    paired = MinibatchOT(64).pair(x0, x1, cond, np.random.default_rng(10))
    for value in (0.0, 1.0):
        rows = cond[:, 0] == value
        np.testing.assert_array_equal(np.sort(paired[rows], axis=0), np.sort(x0[rows], axis=0))
        assert abs(paired[rows].mean()) < 5 / np.sqrt(rows.sum())
    assert _cost(paired, x1 - 4.0 * cond) < 0.2 * _cost(x0, x1 - 4.0 * cond)


def test_pairing_blind_to_the_condition_biases_the_noise() -> None:
    """The reason for by_condition: the control that shows the other test can fail."""
    x0, x1, cond = _two_classes()
    blind = MinibatchOT(64, by_condition=False).pair(x0, x1, cond, np.random.default_rng(10))
    rows = cond[:, 0] == 1.0
    assert blind[rows].mean() > 20 / np.sqrt(rows.sum())


def test_continuous_conditions_are_warned_about() -> None:
    x0, x1, _ = _two_classes(50)
    cond = np.linspace(0, 1, 50)[:, None]
    with pytest.warns(DataWarning, match="50 different conditions"):
        paired = MinibatchOT().pair(x0, x1, cond, np.random.default_rng(1))
    np.testing.assert_array_equal(paired, x0)


def test_equal_rows_groups_missing_values_together_and_apart_from_zero() -> None:
    cond = np.array([[0.0, 1.0], [np.nan, 1.0], [0.0, 1.0], [np.nan, 1.0], [0.0, np.nan]])
    groups = sorted(group.tolist() for group in equal_rows(cond))
    assert groups == [[0, 2], [1, 3], [4]]


def test_independent_breaks_a_relation_between_the_rows() -> None:
    x1 = np.random.default_rng(11).normal(size=(2000, 1))
    paired = Independent().pair(x1, x1, None, np.random.default_rng(12))
    assert abs(np.corrcoef(paired[:, 0], x1[:, 0])[0, 1]) < 5 / np.sqrt(2000)


def test_given_keeps_the_pairs() -> None:
    x0, x1, _ = _two_classes(10)
    np.testing.assert_array_equal(SourceCoupling().pair(x0, x1, None, np.random.default_rng(1)), x0)
    assert SourceCoupling.needs_source
    assert not Independent.needs_source


@pytest.mark.parametrize("size", [1, 0, 2.5, True])
def test_bad_batch_size_is_refused(size: object) -> None:
    with pytest.raises(ConfigError, match="batch_size"):
        MinibatchOT(batch_size=size)  # type: ignore[arg-type]


def test_different_shapes_are_refused() -> None:
    with pytest.raises(InputError, match=r"\(3, 2\) and \(3, 1\)"):
        SourceCoupling().pair(np.zeros((3, 2)), np.zeros((3, 1)), None, np.random.default_rng(1))
