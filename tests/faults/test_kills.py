"""Random kills of every long command: the same command again ends in equal bytes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from conftest import SMALL
from fault_trials import Ended, command, copied, finished, trials

pytestmark = pytest.mark.faults

SETTINGS = [word for text in SMALL for word in ("--set", text)]
LIMITS = ["--trials", "2", "--objectives", "separation"]


class Long(NamedTuple):
    """A long command, what it is called again with, and the files of its result."""

    words: list[str]
    again: list[str]
    results: list[str]
    needs: list[str]


LONG = {
    "fit": Long(
        ["fit", "jets.h5", "-o", "new", "-q", *SETTINGS],
        ["fit", "jets.h5", "-o", "new", "-q", *SETTINGS, "--resume"],
        ["new/steps/*.ubj", "new/manifest.json", "new/*.npz", "new/transform.json"],
        ["jets.h5"],
    ),
    "collect": Long(
        ["collect", "new", "-q"],
        ["collect", "new", "-q"],
        ["new/manifest.json", "new/rejection*.ubj"],
        ["jets.h5"],
    ),
    "generate": Long(
        ["generate", "run", "-n", "60000", "-o", "new.h5", "-q", "--block", "10000"],
        ["generate", "run", "-n", "60000", "-o", "new.h5", "-q", "--block", "10000", "--resume"],
        ["new.h5"],
        ["run"],
    ),
    "tune": Long(
        ["tune", "jets.h5", "-o", "new", "-q", *LIMITS, *SETTINGS],
        ["tune", "jets.h5", "-o", "new", "-q", *LIMITS, *SETTINGS, "--resume"],
        ["new/best/steps/*.ubj", "new/best/manifest.json"],
        ["jets.h5"],
    ),
    "evaluate": Long(
        ["evaluate", "jets.h5", "made.h5", "-o", "new", "--quick"],
        ["evaluate", "jets.h5", "made.h5", "-o", "new", "--quick"],
        ["new/report.json", "new/*.png"],
        ["jets.h5", "made.h5"],
    ),
    "report": Long(
        ["report", "made.h5", "run", "-o", "new", "--real", "jets.h5", "--quick", "-q"],
        ["report", "made.h5", "run", "-o", "new", "--real", "jets.h5", "--quick", "-q"],
        ["new/together.json", "new/*.svg"],
        ["jets.h5", "made.h5", "run"],
    ),
}
"""Name -> command. A part of the result that measures time is not compared."""

SLOW = ("evaluate", "report", "tune")


def without_times(path: Path) -> bytes:
    """Return a result without the lines that hold times or the host."""
    content = path.read_bytes()
    if path.suffix != ".json":
        return content
    clocks = (b"seconds", b"_mib", b"finished", b"host", b"pid", b"us_per_event")
    return b"\n".join(line for line in content.split(b"\n") if not any(c in line for c in clocks))


def result(place: Path, names: list[str]) -> dict[str, bytes]:
    """Return the files of a result."""
    files = [path for name in names for path in sorted(place.glob(name))]
    return {str(path.relative_to(place)): without_times(path) for path in files}


def prepared(place: Path, long: Long, world: Path) -> None:
    """Make the folder of a trial: what the command needs, and nothing else."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    for name in long.needs:
        if (world / name).is_dir():
            copied(world / name, place / name)
        else:
            shutil.copy(world / name, place / name)
    if long.words[0] == "collect":
        copied(world / "trained", place / "new")


def ended_without(*words: str) -> Ended:
    """Do a command; it has to succeed."""
    ended = command(*words)
    assert ended.status == 0, ended.text
    return ended


@pytest.fixture(scope="module")
def trained_world(fault_world):
    """The shared files, and a run whose steps are trained but not collected."""
    if not (fault_world / "trained").exists():
        target = copied(fault_world / "run", fault_world / "trained")
        for name in ("manifest.json", "packed.bin", "rejection.ubj", "rejection.json"):
            (target / name).unlink(missing_ok=True)
    return fault_world


@pytest.mark.parametrize("name", LONG)
def test_a_killed_command_ends_in_equal_bytes(name, trained_world, tmp_path, monkeypatch, request):
    long, place = LONG[name], tmp_path / "place"
    prepared(place, long, trained_world)
    monkeypatch.chdir(tmp_path)
    monkeypatch.chdir(place)
    whole = ended_without(*long.words)
    expected = result(place, long.results)
    assert expected
    rng = np.random.default_rng(len(name))
    with trials(f"kills, {name}", request) as counter:
        for _ in range((2 if name in SLOW else 4) * counter.scale):
            monkeypatch.chdir(tmp_path)
            prepared(place, long, trained_world)
            monkeypatch.chdir(place)
            times = rng.uniform(0.0, whole.seconds, size=int(rng.integers(1, 3)))
            words = long.words
            for seconds in times:
                if command(*words, kill_after=float(seconds)).status == 0:
                    break
                words = long.again if (place / "new").exists() or name == "generate" else words
            else:
                ended = command(*words)
                left = list(place.rglob(".part-*"))
                right = result(place, long.results) == expected and not left
                what = f"killed after {times}, {[p.name for p in left]}"
                counter.add(finished(ended, right), what, ended.text)
                continue
            counter.add("right", "")
