"""Small tables that several tests share; nothing here reads outside the repository."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest

from flowbdt.cli import main
from flowbdt.table import EventTable
from flowbdt.tableio import write_table

QUICK = {"n_estimators": 5, "max_depth": 3, "max_bin": 32}
"""A booster that trains in milliseconds."""

PLAIN = {"preconditioner": "none", "inputs": ["latent"], "candidates": 0, "noise": "repeats"}
"""Nothing but trees, noise and single-event targets."""


@pytest.fixture
def quick_booster() -> dict[str, int]:
    return dict(QUICK)


def make_jets() -> EventTable:
    """300 events, 4 columns, one exact relation."""
    rng = np.random.default_rng(3)
    mass = rng.normal(170.0, 15.0, 300)
    tau1 = rng.lognormal(-2.0, 0.3, 300)
    tau2 = tau1 * rng.uniform(0.2, 0.9, 300)
    x = np.column_stack([mass, tau1, tau2, tau2 / tau1])
    return EventTable.of(x, ["mass", "tau1", "tau2", "tau21"], units={"mass": "GeV"})


@pytest.fixture
def jets() -> EventTable:
    return make_jets()


@pytest.fixture
def folder(tmp_path, jets, monkeypatch):
    """The current folder, with ``jets.h5`` in it."""
    monkeypatch.chdir(tmp_path)
    write_table("jets.h5", jets)
    return tmp_path


def run(*arguments):
    """Run a command of the command line; return its exit status."""
    return main([str(a) for a in arguments])
