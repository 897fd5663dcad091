"""Small tables that several tests share; nothing here reads outside the repository."""

from __future__ import annotations

import contextlib
import io
import json
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import click
import numpy as np
import pandas as pd
import pytest

from flowbdt.cli.main import flowbdt, main
from flowbdt.tables.event_table import EventTable
from flowbdt.tables.formats import write_table
from flowbdt.trees import classifiers


def pytest_addoption(parser):
    parser.addoption("--faults-long", action="store_true", help="ten times as many faults")


QUICK = {"n_estimators": 5, "max_depth": 3, "max_bin": 32}
"""A booster that trains in milliseconds."""

SMALL_MODEL = {
    "preset": "fast",
    "n_steps": 2,
    "preconditioner": {"name": "mixture", "n_components": 4},
    "booster": {"n_estimators": 3},
    "random_state": 1,
}
"""A whole model of a small table in a second or two."""

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


def importorskip_format(ending):
    """Skip a test of a table format whose library is not installed."""
    for name, library in ((".parquet", "pyarrow"), (".root", "uproot")):
        if ending == name:
            pytest.importorskip(library)


@pytest.fixture
def folder(tmp_path, jets, monkeypatch):
    """The current folder, with ``jets.h5`` in it."""
    monkeypatch.chdir(tmp_path)
    write_table("jets.h5", jets)
    return tmp_path


def run(*arguments):
    """Run a command of the command line; return its exit status."""
    return main([str(a) for a in arguments])


def as_json(*arguments):
    """Run a command with ``--json``; return the one object that it printed, and check that."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert run(*arguments, "--json") == 0, arguments
    found = json.loads(out.getvalue(), parse_constant=pytest.fail)
    assert found, arguments
    return found


def parsed(words):
    """Return what the command of a command line, without ``flowbdt``, is called with."""
    command, words = flowbdt, list(words)
    while isinstance(command, click.Group):
        _, command, words = command.resolve_command(click.Context(command), words)
    # with the names of the whole program: click keeps those of the first context of a command
    return command.make_context("flowbdt", words, **flowbdt.context_settings).params


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    """The C interface as a shared library, compiled once."""
    from exported_models import shared_library

    return shared_library(tmp_path_factory.mktemp("cpp"))


SMALL = (
    *(
        "preset=fast",
        "n_steps=3",
        "preconditioner={name: mixture, n_components: 3}",
        "noise.n_repeats=2",
    ),
    *("booster.n_estimators=5", "booster.max_depth=3", "booster.max_bin=32", "random_state=1"),
    *("rejection=true", "executor=serial"),
)
"""Settings of a run with every kind of file, trained in a second."""


@pytest.fixture(scope="session")
def fault_world(tmp_path_factory):
    """Return a folder with a table, a run, events, a report, a study, and files of no use."""
    return build_world(tmp_path_factory.mktemp("world"))


def build_world(place):
    """Fill a folder for the tests of faults."""
    write_table(place / "jets.h5", make_jets())
    write_table(place / "jets.csv", make_jets())
    settings = [word for text in SMALL for word in ("--set", text)]
    table = place / "jets.h5"
    assert run("fit", table, "-o", place / "run", "-q", *settings) == 0
    assert run("plan", table, "-o", place / "planned", "-q", *settings) == 0
    assert run("generate", place / "run", "-n", 300, "-o", place / "made.h5", "-q") == 0
    assert run("evaluate", table, place / "made.h5", "-o", place / "report", "--quick", "-q") == 0
    limits = ("--trials", 1, "--objectives", "separation,train_s")
    assert run("tune", table, "-o", place / "study", "-q", *limits, *settings) == 0
    (place / "empty.h5").touch()
    (place / "taken").write_text("a file where a folder should be")
    (place / "folder.h5").mkdir()
    (place / "zeros.npy").write_bytes(bytes(200))
    (place / "text.csv").write_text("this is\nno table, is it\n")
    (place / "odd.zip").write_bytes(b"PK\x03\x04" + bytes(40))
    (place / "odd.flowbdt").write_bytes(b"PK\x03\x04" + bytes(40))
    (place / "latin.yaml").write_bytes("n_steps: 3 # \xe9".encode("latin-1"))
    (place / "list.yaml").write_text("- 1\n- 2\n")
    (place / "bad.yaml").write_text("n_steps: [1,\n")
    return place


@pytest.fixture
def quick_classifiers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let classifiers of discrete columns have few trees of one depth."""
    growth = classifiers.Growth((2,), 20, 5, classifiers.SMALL.parameters)
    monkeypatch.setattr(classifiers, "SMALL", growth)
    monkeypatch.setattr(classifiers, "LARGE", growth)
