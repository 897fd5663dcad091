"""What every registered coupling must do."""

from __future__ import annotations

import numpy as np
import pytest

from flowbdt.errors import InputError
from flowbdt.flow.couplings import COUPLINGS, Coupling


@pytest.fixture(params=COUPLINGS.names())
def coupling(request: pytest.FixtureRequest) -> Coupling:
    return COUPLINGS.build(request.param)


def _rows(n: int = 301) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """301 rows: more than one batch, and not a whole number of them."""
    rng = np.random.default_rng(1)
    cond = rng.integers(0, 3, size=(n, 1)).astype(float)
    cond[cond == 2] = np.nan
    return rng.normal(size=(n, 2)), rng.normal(size=(n, 2)), cond


def _sorted(x: np.ndarray) -> np.ndarray:
    return x[np.lexsort(x.T)]


@pytest.mark.parametrize("with_cond", [True, False])
def test_no_row_is_repeated_or_dropped(coupling: Coupling, with_cond: bool) -> None:
    x0, x1, cond = _rows()
    paired = coupling.pair(x0, x1, cond if with_cond else None, np.random.default_rng(2))
    assert paired.shape == x0.shape
    np.testing.assert_array_equal(_sorted(paired), _sorted(x0))


def test_same_generator_same_pairs(coupling: Coupling) -> None:
    x0, x1, cond = _rows()
    first, second = (coupling.pair(x0, x1, cond, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_inputs_and_global_generator_are_not_touched(coupling: Coupling) -> None:
    x0, x1, cond = _rows()
    copies = [array.copy() for array in (x0, x1, cond)]
    before = str(np.random.get_state(legacy=False))  # noqa: NPY002
    coupling.pair(x0, x1, cond, np.random.default_rng(4))
    assert before == str(np.random.get_state(legacy=False))  # noqa: NPY002
    for array, copy in zip((x0, x1, cond), copies, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_few_rows_are_fine(coupling: Coupling, n: int) -> None:
    x0, x1, cond = (array[:n] for array in _rows())
    cond = np.zeros_like(cond)
    assert coupling.pair(x0, x1, cond, np.random.default_rng(5)).shape == (n, 2)


def test_different_shapes_are_refused(coupling: Coupling) -> None:
    with pytest.raises(InputError, match="same shape"):
        coupling.pair(np.zeros((3, 2)), np.zeros((2, 2)), None, np.random.default_rng(6))
