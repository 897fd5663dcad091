"""Damage of every file of a run, then its next command: noticed, or the right bytes after all."""

from __future__ import annotations

import numpy as np
import pytest
from fault_trials import Ended, command, copied, damaged, trials

pytestmark = pytest.mark.faults

SKIPPED = {".log", ".out", ".err"}
"""Endings of files that no command reads."""

NEXT = {
    "generate": (),
    "collect": (("collect", "run"),),
    "fit --resume": (("fit", "-o", "run", "--resume", "-q"),),
}
"""Kind -> commands on the damaged run before events are generated."""


def generated(words: list[object], expected: bytes, place) -> tuple[Ended, bool]:
    """Generate events; return how it ended, and whether they are the right ones."""
    (place / "again.h5").unlink(missing_ok=True)
    ended = command(*words)
    path = place / "again.h5"
    return ended, path.exists() and path.read_bytes() == expected


@pytest.mark.parametrize("kind", NEXT)
def test_damage_of_a_run_is_noticed_or_repaired(kind, fault_world, tmp_path, monkeypatch, request):
    monkeypatch.chdir(tmp_path)
    words = ["generate", "run", "-n", 40, "-o", "again.h5", "--seed", 3, "-q"]
    copied(fault_world / "run", tmp_path / "run")
    ended, _ = generated(words, b"", tmp_path)
    assert ended.status == 0, ended.text
    expected = (tmp_path / "again.h5").read_bytes()
    rng = np.random.default_rng(len(kind))
    files = sorted(
        path.relative_to(fault_world / "run")
        for path in (fault_world / "run").rglob("*")
        if path.is_file() and path.suffix not in SKIPPED
    )
    with trials(f"damaged runs, {kind}", request) as counter:
        for number in range(len(files) * counter.scale):
            name = files[number % len(files)]
            how = ("bit", "truncation", "zeros")[int(rng.integers(3))]
            file = copied(fault_world / "run", tmp_path / "run") / name
            file.write_bytes(damaged(file.read_bytes(), how, rng))
            for before in NEXT[kind]:
                ended = command(*before)
                if ended.status:
                    break
            else:
                ended, right = generated(words, expected, tmp_path)
            named = name.name.split(".")[0]
            if f"steps are missing: {int(named) if named.isdigit() else named}" in ended.text:
                named = "missing"  # as good as the name of the file
            counter.add(
                ended.outcome(ended.status == 0 and right, named), f"{how} in {name}", ended.text
            )
