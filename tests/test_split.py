"""Splits by a keyed hash of the row number."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from flowbdt.errors import InputError
from flowbdt.seeding import row_uniform, split_mask


def test_fraction_is_met_within_five_standard_errors():
    n, fraction = 20_000, 0.15
    error = np.sqrt(fraction * (1 - fraction) / n)
    assert abs(split_mask(n, fraction, seed=3).mean() - fraction) < 5 * error


def test_hash_is_uniform_and_uncorrelated_between_neighbours_and_seeds():
    n = 20_000
    u, other = row_uniform(n, seed=1), row_uniform(n, seed=2)
    assert abs(u.mean() - 0.5) < 5 / np.sqrt(12 * n)
    assert abs((u**2).mean() - 1 / 3) < 5 * np.sqrt(4 / 45 / n)
    for a, b in ((u[1:], u[:-1]), (u, other), (u, np.arange(n))):
        assert abs(np.corrcoef(a, b)[0, 1]) < 5 / np.sqrt(n - 1)


def test_a_row_keeps_its_part_when_rows_are_added_or_read_in_blocks():
    whole = split_mask(1000, 0.3, seed=7)
    np.testing.assert_array_equal(split_mask(600, 0.3, seed=7), whole[:600])
    np.testing.assert_array_equal(split_mask(400, 0.3, seed=7, first_row=600), whole[600:])


def test_a_larger_fraction_contains_the_smaller():
    small, large = (split_mask(1000, f, seed=7) for f in (0.1, 0.4))
    assert (large[small]).all()
    assert large.sum() > small.sum()


def test_values_are_those_of_the_first_release():
    # Recorded once: another machine or release must give the same split for the same seed.
    expected = [0.8911303607519158, 0.8992947991431313, 0.18203129603533008, 0.5743558007685445]
    np.testing.assert_allclose(row_uniform(4, seed=0), expected, rtol=0, atol=1e-15)


def test_no_rows_and_all_rows():
    assert not split_mask(100, 0.0).any()
    assert split_mask(100, 1.0).all()
    assert split_mask(0, 0.5).shape == (0,)


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan")])
def test_impossible_fraction_is_refused(fraction):
    with pytest.raises(InputError, match="between 0 and 1"):
        split_mask(10, fraction)


def test_split_does_not_depend_on_the_hash_seed_of_the_process():
    # Past bug of a peer: the order of a set decided which events were for training.
    code = (
        "from flowbdt.physics import hashed_rows\n"
        "parts = hashed_rows(50, {'train': 0.5, 'validation': 0.2, 'test': 0.3}, seed=4)\n"
        "print({name: rows.tolist() for name, rows in parts.items()})"
    )
    texts = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert texts[0] == texts[1]
    assert "'train': [" in texts[0]
