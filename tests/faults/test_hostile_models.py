"""Model files from strangers, with right digests: refused clearly, or good for events."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from conftest import QUICK
from fault_trials import child, command, copied, trials
from hostile_members import HOSTILE, changed, changed_array, hostile_file, members, with_hashes

from flowbdt import EventTable, FlowBDT, atomic_files
from flowbdt.cli.main import main
from flowbdt.errors import DataWarning, FlowbdtError
from flowbdt.training.run_directory import SEAL

pytestmark = pytest.mark.faults

N_MODELS = 300


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
    warnings.simplefilter("ignore", DataWarning)
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


# ---- other files of numbers


def shower_model(path):
    """Write a small shower model; return what uses it."""
    from flowbdt.physics.calorimeter.geometry import Geometry, stack_layers
    from flowbdt.physics.calorimeter.model import ShowerModel
    from flowbdt.physics.calorimeter.shower_files import Showers

    rng = np.random.default_rng(0)
    layers = stack_layers([(0, (0, 10, 30), 1), (1, (0, 5, 10, 20), 4), (2, (0, 50, 90), 1)])
    detector = Geometry("toy", "photon", 1, layers, 1.0)
    voxels = rng.exponential(5.0, (300, detector.n_voxels)) * (rng.random(300) < 0.9)[:, None]
    showers = Showers.of(rng.choice([500.0, 4000.0], 300), voxels.astype(np.float32), detector)
    flow = {"preset": "fast", "n_steps": 2, "booster": {"n_estimators": 2, "max_depth": 2}}
    trees = {"location_trees": 3, "cdf_trees": 2, "least_rows": 40}
    model = ShowerModel(flow=flow, rings=trees, sectors=trees, random_state=3).fit(showers)
    model.save(path)

    def use():
        new = ShowerModel.load(path).sample(np.full(5, 700.0), random_state=1)
        return [new.voxels] if new.voxels.shape == (5, detector.n_voxels) else []

    return use


def _trained():
    torch = pytest.importorskip("torch", reason="torch is not installed (extra 'cfm')")
    from flowbdt.networks.backbones import TableMLP
    from flowbdt.networks.trainer import Trainer, TrainingConfig

    torch.manual_seed(1)
    config = TrainingConfig(n_steps=4, batch_size=32, snapshots=2, ema=0.9, device="cpu")
    return Trainer(TableMLP(2, width=4, n_layers=2), "edm", config)


def network(path):
    """Write a network; return what uses it."""
    trainer = _trained()
    from flowbdt.flow.solvers import SOLVERS, integrate
    from flowbdt.networks import load_network, save_network
    from flowbdt.networks.network_field import NetworkField

    save_network(path, trainer.denoiser)

    def use():
        field = NetworkField(load_network(path))
        return [integrate(SOLVERS.build("heun"), field, np.ones((3, 2)), np.linspace(0, 1, 4)).x]

    return use


def checkpoint(path):
    """Write the checkpoint of a training that was stopped; return what goes on with it."""
    trainer = _trained()
    from flowbdt.networks.trainer import Trainer

    events = np.random.default_rng(0).normal(size=(64, 2))
    trainer.fit(events)
    trainer.save(path)

    def use():
        again = Trainer.resume(path)
        again.config = type(again.config)(**{**vars(again.config), "n_steps": 6})
        again.fit(events)
        return [np.array(again.losses)]

    return use


def table_network(path):
    """Write the network that comes with the package; return what uses it."""
    pytest.importorskip("torch", reason="torch is not installed (extra 'cfm')")
    from flowbdt.networks.network_files import TableNetwork, pretrained_network

    pretrained_network().save(path)
    return lambda: [TableNetwork.load(path).sample(3, steps=2, random_state=1).x]


@pytest.mark.parametrize("make", [shower_model, network, checkpoint, table_network])
def test_crafted_files_of_numbers_are_refused_or_used(make, tmp_path, request):
    path = tmp_path / "made.npz"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        use = make(path)
    whole, rng = path.read_bytes(), np.random.default_rng(5)

    def used_once():
        warnings.simplefilter("ignore", DataWarning)
        try:
            arrays = use()
        except FlowbdtError as error:
            print(f"error: {error}")
            return 1
        if not arrays or not all(np.isfinite(array).all() for array in arrays):
            print("odd events")
        return 0

    assert child(used_once).status == 0
    with trials(f"crafted files, {make.__name__.replace('_', ' ')}", request) as counter:
        for _ in range(30 * counter.scale):
            content, what = hostile_file(whole, rng)
            path.write_bytes(content)
            ended = child(used_once)
            counter.add(ended.outcome("odd events" not in ended.text), what, ended.text)


# ---- folders


def sealed(path, rng, digest=False):
    """Change an entry of a JSON file of a folder, with the right digest and seal."""
    left_out = {SEAL, "digest"} if digest else {SEAL}
    content = {k: v for k, v in json.loads(path.read_text()).items() if k not in left_out}
    content, what = changed(content, rng)
    if isinstance(content, dict):
        content |= {"digest": atomic_files.digest(content)} if digest else {}
        if path.name != "sample.json":
            content[SEAL] = atomic_files.digest(content)
    path.write_text(json.dumps(content))
    return what


@pytest.mark.parametrize("name", ["tasks/0001.json", "steps/0001.report.json"])
def test_crafted_jobs_of_a_run_are_refused_or_give_the_same_events(
    fault_world, tmp_path, monkeypatch, request, name
):
    monkeypatch.chdir(tmp_path)
    words = ["generate", "run", "-n", 40, "-o", "again.h5", "--seed", 3, "-q"]
    copied(fault_world / "run", tmp_path / "run")
    assert command(*words).status == 0
    expected = Path("again.h5").read_bytes()
    rng = np.random.default_rng(7)
    with trials(f"crafted runs, {name}", request) as counter:
        for number in range(24 * counter.scale):
            run = copied(fault_world / "run", tmp_path / "run")
            Path("again.h5").unlink(missing_ok=True)
            what = sealed(run / name, rng, digest=name.startswith("tasks"))
            again = [["step", "run", 1], ["collect", "run"], ["fit", "-o", "run", "--resume"]]
            ended = command(*again[number % 3], "-q")
            if ended.status == 0:
                ended = command(*words)
            made = Path("again.h5")
            right = made.exists() and made.read_bytes() == expected
            named = "step" if number % 3 == 0 else "0001" if ended.status else ""
            counter.add(ended.outcome(right, named), f"{again[number % 3]}: {what}", ended.text)


def test_crafted_blocks_of_a_sample_are_refused_or_made_again(
    fault_world, tmp_path, monkeypatch, request
):
    from flowbdt.generation.sample_files import BlockFiles

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("flowbdt.generation.sample_files.BLOCK_VALUES", 1)
    monkeypatch.setattr("flowbdt.generation.trained_flow.TOGETHER", 1)
    copied(fault_world / "run", tmp_path / "run")
    words = ["generate", "run", "-n", 9000, "-o", "new.h5", "--seed", 3, "-q"]
    monkeypatch.setattr(BlockFiles, "assemble", None)
    assert child(lambda: main([str(word) for word in words])).status
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("flowbdt.generation.trained_flow.TOGETHER", 1)
    folder = Path("new.h5.partial").rename("kept")
    assert command(*words).status == 0
    expected, rng = Path("new.h5").read_bytes(), np.random.default_rng(8)
    names = ["sample.json", "0000.report.json", "0001.npy"]
    with trials("crafted samples", request) as counter:
        for number in range(24 * counter.scale):
            place = copied(folder, tmp_path / "new.h5.partial")
            Path("new.h5").unlink(missing_ok=True)
            path = place / names[number % 3]
            if path.suffix == ".npy":
                values, what = changed_array(np.load(path), rng)
                if values.size == np.load(path).size and values.dtype == np.float64:
                    values, what = values.ravel(), "flat"
                np.save(path, values)
                report = place / "0001.report.json"
                content = json.loads(report.read_text())
                content["sha256"] = atomic_files.digest_file(path)
                report.write_text(json.dumps(content))
            else:
                what = sealed(path, rng, digest=path.name == "sample.json")
            ended = command(*words, "--resume")
            made = Path("new.h5")
            right = made.exists() and made.read_bytes() == expected
            counter.add(ended.outcome(right), f"{path.name}: {what}", ended.text)
