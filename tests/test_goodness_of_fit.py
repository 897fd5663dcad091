"""Goodness of fit: p-values without a difference and with known ones, bins, weights."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kstest

from flowbdt.errors import InputError
from flowbdt.evaluation.goodness_of_fit import goodness_of_fit

RNG = np.random.default_rng(0)
FIRST = RNG.normal(size=(1500, 2))


def narrow(n):
    """Rows with a correlation in place of none."""
    x = RNG.normal(size=(n, 2))
    x[:, 1] = 0.5 * x[:, 0] + np.sqrt(0.75) * x[:, 1]
    return x


def test_known_differences_are_found_and_seeds_repeat():
    found = goodness_of_fit(FIRST, narrow(1500), seed=3)
    assert found.p_value < 0.01 < found.statistic
    assert found.sigmas > 3
    assert (found.n_first + found.n_second) == pytest.approx(1500, abs=120)
    other = RNG.normal(size=(1500, 2))
    same = goodness_of_fit(FIRST, other, seed=3)
    assert same == goodness_of_fit(FIRST, other, seed=3)
    assert same.sigmas < 3


def test_bins_say_where():
    c = RNG.uniform(0, 1, size=(3000, 1))
    x = RNG.normal(size=(2, 3000, 1))
    x[1, c[:, 0] > 0.5] += 1.0
    first, second = (pd.DataFrame(np.hstack([part, c]), columns=["x", "c"]) for part in x)
    found = goodness_of_fit(first, second, by="c", n_bins=2, seed=1)
    assert [part.p_value < 0.01 for part in found.bins] == [False, True]
    assert found.p_value < 0.01
    assert (found.bins[0].high, found.bins[1].low) == (pytest.approx(0.5, abs=0.05),) * 2
    assert found.text("c").count("c 0") == 2
    # another distribution of the condition alone is none of x given c
    often = second[:1500].assign(c=np.sqrt(second["c"][:1500]), x=RNG.normal(size=1500))
    assert goodness_of_fit(first, often, seed=1).p_value < 0.01
    assert goodness_of_fit(first, often, by="c", n_bins=30, seed=1).sigmas < 4


def test_weights_of_either_sign_make_samples_equal():
    shifted = RNG.normal(0.5, 1, size=(3000, 2))
    weight = np.exp(0.25 - shifted.sum(axis=1) * 0.5)
    assert goodness_of_fit(FIRST, shifted, seed=1).p_value < 0.01
    assert goodness_of_fit(FIRST, shifted, weight_second=weight, seed=1).p_value > 0.001
    signed = np.where(RNG.random(3000) < 0.1, -1.0, 1.0)
    assert goodness_of_fit(FIRST, shifted, weight_second=signed, seed=1).p_value < 0.01


def test_what_cannot_be_tested_is_refused():
    with pytest.raises(InputError, match="40 events"):
        goodness_of_fit(FIRST[:10], FIRST)
    with pytest.raises(InputError, match="x9"):
        goodness_of_fit(FIRST, FIRST, by="x9")


@pytest.mark.slow
def test_p_values_are_uniform_without_a_difference():
    values = [
        goodness_of_fit(*RNG.normal(size=(2, 300, 2)), seed=trial).p_value for trial in range(200)
    ]
    assert kstest(values, "uniform").pvalue > 0.01
