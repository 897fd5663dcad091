"""Mistakes that other packages of this kind were found to make; one sentence and one test each.

Those that belong to one module are tested beside it: noise redrawn on each pass, validation rows
inside training rows and existing files taken for results in test_training; copied batches, stored
training data and early loading of all models in test_model; the dropped best tree in
test_boosted_trees; exit status 0 after a failure in test_cli; a set's order that
decides a split in test_split; no pickle in test_layers.
"""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from flowbdt import FlowBDT
from flowbdt.errors import GridError
from flowbdt.flow.fields import Stepwise
from flowbdt.flow.time_grid import TimeGrid

SMALL = {"n_steps": 6, "preset": "fast", "random_state": 1}


def test_every_trained_time_is_used_and_no_other_is_asked_for():
    """All peers train a time that no solver visits, or round a time to the nearest trained one."""
    for solver in ("euler", "heun", "midpoint", "rk4", "dormand_prince", "adams_bashforth_3"):
        grid = TimeGrid.build(solver, 3)
        asked = set()

        def predictor(index, asked=asked):
            asked.add(index)
            return lambda x, cond: np.zeros_like(x)

        from flowbdt.flow.solvers import SOLVERS, integrate

        integrate(
            SOLVERS.build(solver), Stepwise(grid, predictor), np.zeros((2, 1)), grid.boundaries
        )
        assert asked == set(range(len(grid.times))), solver


def test_an_untrained_time_is_an_error_not_the_nearest_model():
    grid = TimeGrid.build("euler", 4)
    field = Stepwise(grid, lambda index: lambda x, cond: x)
    with pytest.raises(GridError, match=r"0\.3"):
        field(0.3, np.zeros((1, 1)))


def test_a_condition_between_those_trained_can_be_generated():
    """A peer trains one model per energy, so that only these energies can be generated."""
    rng = np.random.default_rng(0)
    c = rng.choice([0.0, 1.0, 2.0, 4.0, 5.0, 6.0], 3000)
    x = (c + 0.3 * rng.normal(size=3000))[:, None]
    model = FlowBDT(**SMALL, booster={"n_estimators": 40, "max_depth": 4}).fit(x, cond=c)
    new = model.sample(400, cond=[[3.0]], random_state=1)
    assert 1.5 < new.mean() < 4.5


def test_exact_zeros_come_out_as_often_as_they_went_in():
    """A peer makes zeros by clipping only, so its sparsity is wrong."""
    rng = np.random.default_rng(0)
    x = np.where(rng.uniform(size=4000) < 0.3, 0.0, rng.lognormal(size=4000))[:, None]
    model = FlowBDT(**SMALL, booster={"n_estimators": 40, "max_depth": 4}).fit(x)
    new = model.sample(4000, random_state=1)
    assert (new >= 0).all()
    assert (new == 0).mean() == pytest.approx(0.3, abs=0.05)


def test_input_checks_survive_python_dash_o():
    """Peers check user input with assert, which python -O removes."""
    code = (
        "import numpy as np; from flowbdt import FlowBDT\n"
        "try: FlowBDT().fit(np.full((5, 2), np.nan))\n"
        "except ValueError as error: print('refused')"
    )
    done = subprocess.run([sys.executable, "-O", "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "refused", done.stderr


def test_unknown_settings_are_refused_not_ignored():
    """A peer merges any key into its configuration, so a misspelt one changes nothing."""
    with pytest.raises(TypeError, match="n_step"):
        FlowBDT(n_step=3)
