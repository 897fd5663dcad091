"""Model files from strangers, with right digests: refused clearly, or good for events."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import QUICK
from fault_trials import child, trials
from hostile_members import (
    hostile_arrays,
    hostile_booster,
    hostile_json,
    members,
    with_hashes,
)

from flowbdt import EventTable, FlowBDT
from flowbdt.cli.main import main
from flowbdt.errors import FlowbdtError

pytestmark = pytest.mark.faults

N_MODELS = 300
HOSTILE = {".ubj": hostile_booster, ".json": hostile_json, ".npz": hostile_arrays}


@pytest.fixture(scope="module")
def model():
    """Return a small model with every kind of member and most column transforms."""
    import pandas as pd

    rng = np.random.default_rng(0)
    n = 400
    pt = rng.lognormal(4.0, 0.3, n)
    frame = pd.DataFrame(
        {
            "pt": pt,
            "n": rng.poisson(12, n),
            "kind": rng.choice(["a", "b", "c"], n),
            "phi": rng.uniform(-np.pi, np.pi, n),
            "share": rng.beta(2, 3, n),
            "double": 2 * pt,
        }
    )
    fitted = FlowBDT(
        n_steps=3,
        preset="fast",
        rejection=True,
        preconditioner={"name": "mixture", "n_components": 2},
        relations=["double = pt * 2"],
        transforms={
            "pt": "log",
            "phi": "circular",
            "share": {"name": "logit", "low": 0, "high": 1},
        },
        booster={**QUICK, "n_estimators": 3},
        random_state=1,
    ).fit(EventTable.of(frame), cond=rng.normal(size=(n, 1)))
    for compiled in (False, True):
        fitted.sample(20, cond=np.zeros((20, 1)), compiled=compiled, random_state=1)
    return fitted


def used(path, compiled: bool) -> int:
    """Show and sample a model; return 1 after a clear error, else 0, and say if events are odd."""
    try:
        if status := main(["show", str(path)]):
            return status
        events = FlowBDT.load(path).sample(
            20, cond=np.zeros((20, 1)), compiled=compiled, random_state=1
        )
        if events.x.shape != (20, 6) or not np.isfinite(events.x).all():
            print("odd events")
        return 0
    except FlowbdtError as error:
        print(f"error: {error}")
        return 1


def test_crafted_models_are_refused_or_give_events(model, tmp_path, request):
    whole = members(model.archive_)
    kinds = {end: sorted(n for n in whole if n.endswith(end)) for end in HOSTILE}
    rng = np.random.default_rng(11)
    path = tmp_path / "m.flowbdt"
    path.write_bytes(with_hashes(whole))
    assert child(lambda: used(path, True)).status == 0
    with trials("crafted models", request) as counter:
        for number in range(N_MODELS * counter.scale):
            end = list(HOSTILE)[number % 3]
            name = kinds[end][int(rng.integers(len(kinds[end])))]
            content, what = HOSTILE[end](whole[name], rng)
            path.write_bytes(with_hashes({**whole, name: content}))
            ended = child(lambda: used(path, bool(number % 2)))  # noqa: B023
            counter.add(
                ended.outcome("odd events" not in ended.text), f"{name}: {what}", ended.text
            )
