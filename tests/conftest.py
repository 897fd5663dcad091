"""Small tables that several tests share; nothing here reads outside the repository."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import click
import numpy as np
import pandas as pd
import pytest

from flowbdt.cli.main import flowbdt, main
from flowbdt.tables.event_table import EventTable
from flowbdt.tables.formats import write_table

QUICK = {"n_estimators": 5, "max_depth": 3, "max_bin": 32}
"""A booster that trains in milliseconds."""

PLAIN = {
    "preconditioner": "none",
    "inputs": ["latent"],
    "noise": {"name": "repeats", "candidates": 0},
}
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


def mixed_table(n: int = 50, seed: int = 0) -> EventTable:
    """Return every kind of column, conditions with gaps, weights."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "pt": rng.normal(size=n).astype(np.float32),
            "mass": rng.normal(size=n),
            "n_hits": rng.integers(0, 9, n).astype(np.int16),
            "flag": rng.random(n) < 0.5,
            "kind": [["pion", "None", "muon"][i % 3] for i in range(n)],
            "file": np.full(n, 0.1),
        }
    )
    cond = pd.DataFrame({"side": [["l", "r", None][i % 3] for i in range(n)], "e": rng.random(n)})
    cond.loc[0, "e"] = np.nan
    return EventTable.of(frame, units={"pt": "GeV"}, cond=cond, weight=rng.random(n))


@pytest.fixture
def folder(tmp_path, jets, monkeypatch):
    """The current folder, with ``jets.h5`` in it."""
    monkeypatch.chdir(tmp_path)
    write_table("jets.h5", jets)
    return tmp_path


def run(*arguments):
    """Run a command of the command line; return its exit status."""
    return main([str(a) for a in arguments])


def parsed(words):
    """Return what the command of a command line, without ``flowbdt``, is called with."""
    command, words = flowbdt, list(words)
    while isinstance(command, click.Group):
        _, command, words = command.resolve_command(click.Context(command), words)
    return command.make_context("flowbdt", words).params


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    """The C interface as a shared library, compiled once."""
    from exported_models import shared_library

    return shared_library(tmp_path_factory.mktemp("cpp"))
