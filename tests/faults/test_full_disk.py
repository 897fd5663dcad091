"""A full disk, as a limit on the size of files: one clear error, then right bytes with room."""

from __future__ import annotations

import numpy as np
import pytest
from fault_trials import command, finished, trials
from test_kills import LONG, ended_without, prepared, result

pytestmark = pytest.mark.faults


@pytest.mark.parametrize("name", ["fit", "generate", "tune", "evaluate"])
def test_a_full_disk_is_one_clear_error(name, fault_world, tmp_path, monkeypatch, request):
    long, place = LONG[name], tmp_path / "place"
    prepared(place, long, fault_world)
    monkeypatch.chdir(place)
    ended_without(*long.words)
    expected = result(place, long.results)
    sizes = [p.stat().st_size for p in place.rglob("new*/**/*") if p.is_file()]
    sizes += [p.stat().st_size for p in place.glob("new*") if p.is_file()]
    rng = np.random.default_rng(len(name))
    with trials(f"full disk, {name}", request) as counter:
        for _ in range((2 if name == "evaluate" else 4) * counter.scale):
            monkeypatch.chdir(tmp_path)
            prepared(place, long, fault_world)
            monkeypatch.chdir(place)
            limit = int(max(1, rng.uniform(0.0, 1.0) * sizes[int(rng.integers(len(sizes)))]))
            full = command(*long.words, limit=limit)
            what = f"files of at most {limit} bytes"
            whole = result(place, long.results) == expected
            counter.add(full.outcome(whole), what, full.text)
            words = long.again if (place / "new").exists() or name == "generate" else long.words
            if full.status:
                ended = command(*words)
                if ended.status and "resume" in ended.text:
                    ended = command(*long.words)
                right = result(place, long.results) == expected
                counter.add(finished(ended, right), f"with room again after {what}", ended.text)
