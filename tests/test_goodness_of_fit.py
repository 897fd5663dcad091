"""Goodness of fit: p-values without a difference and with known ones, bins, weights."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from conftest import run
from scipy.stats import kstest

from flowbdt.errors import InputError
from flowbdt.evaluation.goodness_of_fit import goodness_of_fit
from flowbdt.tables.event_table import EventTable
from flowbdt.tables.formats import write_table

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


def test_conditions_count_as_columns():
    """Each alone is the same in both samples; together they are not."""
    x, cond = narrow(1500).T[:, :, None]
    related = EventTable.of(x, ["x"], cond=EventTable.of(cond, ["c"]))
    other = EventTable.of(FIRST[:, :1], ["x"], cond=EventTable.of(FIRST[:, 1:], ["c"]))
    assert goodness_of_fit(other, related).p_value == 0.001
    assert [part.low for part in goodness_of_fit(other, related, by="c").bins]


@pytest.mark.slow
def test_compare_tests_events_with_their_conditions(folder, capsys):
    known = EventTable.of(FIRST[:400], ["x", "c"])
    write_table("real.h5", known)
    write_table("new.h5", known.take(slice(0, 300)).as_conditions(["c"]))
    write_table("half.h5", known.take(slice(0, 200)).as_conditions(["c"]))
    words = ["compare", "new.h5", "half.h5", "--real", "real.h5", "--quick", "--fit-by", "c"]
    assert run(*words, "-o", "found.json") == 0
    said = [line for line in capsys.readouterr().out.splitlines() if "of one distribution" in line]
    said = {line.partition(":")[0]: line for line in said}
    assert said["new.h5"].startswith("new.h5: of one distribution with the real events: p = ")
    found = json.loads((folder / "found.json").read_text())["fits"]["new.h5"]
    assert 0.05 < found["p_value"] <= 1
    assert len(found["bins"]) == 4
