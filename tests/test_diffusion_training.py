"""Training networks: averages of weights, checkpoints, fields for every solver."""

from __future__ import annotations

import csv
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (extra 'cfm')")

from flowbdt.errors import ConfigError, FormatError, InputError, RunError  # noqa: E402
from flowbdt.flow.curved_paths import Trigonometric  # noqa: E402
from flowbdt.flow.solvers import SOLVERS, integrate  # noqa: E402
from flowbdt.networks import load_network, save_network  # noqa: E402
from flowbdt.networks.backbones import TableMLP, build_backbone  # noqa: E402
from flowbdt.networks.denoiser import KINDS, Denoiser  # noqa: E402
from flowbdt.networks.network_field import NetworkField  # noqa: E402
from flowbdt.networks.trainer import RATES, Rate, Trainer, TrainingConfig  # noqa: E402  # noqa: E402
from flowbdt.networks.weight_averages import PowerEMA, fit_shares, power_of, profile, reconstruct  # noqa: E402

EVENTS = np.random.default_rng(0).normal(size=(300, 2)).astype(np.float32) * [0.5, 1.2]
QUICK = {"batch_size": 64, "validate_every": 20, "learning_rate": 1e-2, "device": "cpu"}


def trainer(objective="edm", width=8, **settings):
    torch.manual_seed(4)
    config = TrainingConfig(**{"n_steps": 60, **QUICK, **settings})
    return Trainer(TableMLP(2, width=width, n_layers=2), objective, config)


def network(prediction="edm", sigma_max=80.0, **settings):
    torch.manual_seed(5)
    backbone = build_backbone({"name": "table_mlp", "n_columns": 2, "width": 8, **settings})
    torch.nn.init.normal_(backbone.last.weight, std=0.1)
    return Denoiser(backbone, prediction, sigma_max=sigma_max).eval()


def test_width_and_power_belong_together():
    for width in (0.01, 0.05, 0.1, 0.25):
        gamma = power_of(width)
        shares = profile(gamma, 4000, 0, 4000)
        at = (np.arange(4000) + 0.5) / 4000
        mean = (shares * at).sum()
        assert math.sqrt((shares * (at - mean) ** 2).sum()) == pytest.approx(width, rel=1e-3)
    with pytest.raises(ConfigError, match=r"0\.288"):
        power_of(0.3)


def test_power_average_has_its_profile():
    """Each step shows a one in a place of its own, so the average lists all shares."""
    steps = 30
    average = PowerEMA({"w": torch.zeros(steps, dtype=torch.float64)}, 0.1)
    for step in range(1, steps + 1):
        shown = torch.zeros(steps, dtype=torch.float64)
        shown[step - 1] = 1.0
        average.update({"w": shown}, step)
    expected = profile(average.gamma, steps, 0, steps)
    np.testing.assert_allclose(average.values["w"].numpy(), expected, atol=1e-12)


def test_a_stored_average_is_found_exactly():
    stored = [(0.05, 500), (0.1, 500), (0.05, 1000), (0.1, 1000)]
    np.testing.assert_allclose(fit_shares(stored, 0.1, 1000), [0, 0, 0, 1], atol=1e-6)
    blocks = [fit_shares(stored, 0.07, 1000, block=size) for size in (100, 65536)]
    np.testing.assert_allclose(blocks[0], blocks[1], atol=1e-9)
    assert blocks[0].sum() == pytest.approx(1.0)


@pytest.mark.parametrize("width", [0.06, 0.08, 0.15])
def test_post_hoc_average_reconstructs_a_tracked_one(width):
    """To 1e-3 of the weights' norm; in the middle, with half the averages, if it is narrow."""
    run = trainer(n_steps=240, snapshots=12, rate="constant", warmup=0.0)
    tracked = PowerEMA(run._values(), width)
    update, middle = run._average, {}

    def average():
        update()
        tracked.update(run._values(), run.step)
        if run.step == 120:
            middle.update({k: v.clone() for k, v in tracked.values.items()})

    run._average = average
    run.fit(EVENTS)
    assert len(run.stored) == 24
    asked = {240: tracked.values} | ({120: middle} if width < 0.1 else {})
    for step, expected in asked.items():
        found = reconstruct(run.stored, width, step)
        wrong = sum(float(((found[k] - v) ** 2).sum()) for k, v in expected.items())
        assert math.sqrt(wrong / sum(float((v**2).sum()) for v in expected.values())) < 1e-3
    newest = {k: v.detach() for k, v in run._values().items()}
    moved = sum(float(((newest[k] - v) ** 2).sum()) for k, v in tracked.values.items())
    assert math.sqrt(moved / sum(float((v**2).sum()) for v in newest.values())) > 5e-3


@pytest.mark.parametrize("rate", ["one_cycle", "plateau"])
def test_a_resumed_training_has_the_same_loss_curve(rate, tmp_path):
    settings = {"rate": rate, "snapshots": 3, "patience": 1}
    objective = {"weight": "uncertainty"}
    valid = (EVENTS[:50], None)
    whole = trainer(objective, **settings).fit(EVENTS, valid=valid)
    trainer(objective, **settings).fit(EVENTS, valid=valid, folder=tmp_path, stop_at=33)
    resumed = Trainer.resume(tmp_path / "checkpoint.npz")
    assert resumed.step == 33
    resumed.fit(EVENTS, valid=valid)
    assert resumed.losses == whole.losses
    assert [h["valid_loss"] for h in resumed.history] == [h["valid_loss"] for h in whole.history]
    for which in ("newest", "ema", "best", 0.08):
        pairs = zip(
            resumed.network(which).parameters(), whole.network(which).parameters(), strict=True
        )
        assert all(torch.equal(a, b) for a, b in pairs), which


def test_a_training_that_breaks_off_goes_on_from_its_last_checkpoint(tmp_path):
    """Its log is that of a training which did not, and its clock goes on."""
    given = {"valid": (EVENTS[:50], None), "folder": tmp_path, "checkpoint_every": 20}
    broken = trainer()
    advance = broken._advance

    def until_47(*data):
        if broken.step == 47:
            raise KeyboardInterrupt
        return advance(*data)

    broken._advance = until_47
    with pytest.raises(KeyboardInterrupt):
        broken.fit(EVENTS, **given)
    resumed = Trainer.resume(tmp_path / "checkpoint.npz")
    assert resumed.step == 40
    resumed.fit(EVENTS, **given)
    whole = trainer().fit(EVENTS, valid=given["valid"], folder=tmp_path / "whole")
    assert resumed.losses == whole.losses
    places = (tmp_path, tmp_path / "whole")
    logs = [list(csv.DictReader((f / "log.csv").read_text().splitlines())) for f in places]
    for line in (*logs[0], *logs[1]):
        seconds = float(line.pop("seconds"))
        assert seconds > 0
    assert logs[0] == logs[1]
    clock = [line["seconds"] for line in resumed.history]
    assert clock == sorted(clock)


def test_a_resumed_training_refuses_other_events(tmp_path):
    trainer().fit(EVENTS, folder=tmp_path, stop_at=5)
    with pytest.raises(InputError, match="same order"):
        Trainer.resume(tmp_path / "checkpoint.npz").fit(EVENTS[::-1].copy())


def test_damaged_and_foreign_files_are_refused(tmp_path):
    trainer().fit(EVENTS, folder=tmp_path, stop_at=2)
    content = (tmp_path / "checkpoint.npz").read_bytes()
    (tmp_path / "short.npz").write_bytes(content[: len(content) // 2])
    for name in ("short.npz", "missing.npz"):
        with pytest.raises(FormatError):
            Trainer.resume(tmp_path / name)
    with pytest.raises(FormatError, match="not a network"):
        load_network(tmp_path / "checkpoint.npz")


def test_a_network_survives_its_file(tmp_path):
    net = network()
    save_network(tmp_path / "net.npz", net)
    again = load_network(tmp_path / "net.npz")
    x, sigma = torch.randn(5, 2), torch.full((5,), 0.7)
    assert torch.equal(again(x, sigma), net(x, sigma))
    assert again.settings() == net.settings()


def test_training_lowers_the_validation_loss_and_keeps_a_log(tmp_path):
    run = trainer(n_steps=100).fit(EVENTS, valid=(EVENTS[:100], None), folder=tmp_path)
    values = [line["valid_loss"] for line in run.history]
    assert values[-1] < 0.95 * values[0]
    with open(tmp_path / "log.csv", newline="") as handle:
        lines = list(csv.DictReader(handle))
    assert [int(line["step"]) for line in lines] == [20, 40, 60, 80, 100]
    assert float(lines[-1]["valid_loss"]) == values[-1]
    best = run.network("best").state_dict()
    assert set(best) == set(run.network("ema").state_dict())


def test_every_epoch_goes_through_all_events_once():
    run = trainer(batch_size=75)
    rows = []
    for _ in range(8):
        rows.append(run._rows(300))
        run.losses.append(0.0)
    for epoch in (np.concatenate(rows[:4]), np.concatenate(rows[4:])):
        np.testing.assert_array_equal(np.sort(epoch), np.arange(300))
    assert (rows[0] != rows[4]).any()


def test_events_of_weight_zero_teach_nothing():
    far = EVENTS.copy()
    far[150:] += 30.0
    weight = np.ones(300)
    weight[150:] = 0.0
    losses = [trainer(n_steps=5).fit(x, weight=weight).losses for x in (EVENTS, far)]
    assert losses[0] == losses[1]


def test_conditions_may_come_in_any_unit(tmp_path):
    """The network is the same, up to rounding, for energies in MeV and in GeV."""
    energy = np.random.default_rng(1).uniform(1.0, 5.0, size=(300, 1)).astype(np.float32)
    energy[0] = np.nan
    answers = []
    for unit in (1.0, 1000.0):
        torch.manual_seed(4)
        backbone = TableMLP(2, 1, width=8, n_layers=2)
        run = Trainer(backbone, "edm", TrainingConfig(n_steps=20, **QUICK))
        run.fit(EVENTS, energy * unit, folder=tmp_path)
        again = Trainer.resume(tmp_path / "checkpoint.npz")
        field = NetworkField(again.network())
        answers.append(field(0.5, EVENTS[:50].astype(float), energy[:50] * unit))
        assert float(run.denoiser.spread[0]) == pytest.approx(unit * np.nanstd(energy), rel=1e-4)
    np.testing.assert_allclose(answers[0], answers[1], atol=1e-3)
    assert (np.ptp(NetworkField(run.network())(0.5, np.zeros((50, 2)), energy[:50]), axis=0)).any()


def test_a_compiled_training_keeps_the_same_names(tmp_path, monkeypatch):
    """With a compiler that leaves the network as it is, so that the test is quick."""
    compiled = torch.compile
    monkeypatch.setattr(torch, "compile", lambda module: compiled(module, backend="eager"))
    plain, other = (trainer(compile=flag, n_steps=4).fit(EVENTS) for flag in (False, True))
    np.testing.assert_allclose(plain.losses, other.losses, rtol=1e-6)
    other.save(tmp_path / "checkpoint.npz")
    again = Trainer.resume(tmp_path / "checkpoint.npz")
    assert set(again._values()) == set(plain._values())
    save_network(tmp_path / "net.npz", again.network())
    assert load_network(tmp_path / "net.npz").settings() == plain.denoiser.settings()


def test_calorimeter_network_learns_in_a_small_form():
    torch.manual_seed(4)
    geometry = {"edges": [[0, 1, 3], [0, 2, 4, 6]], "n_alpha": [1, 4]}
    net = build_backbone({"name": "cylinder_unet", "geometry": geometry, "widths": [8, 8, 8]})
    rng = np.random.default_rng(1)
    energy = rng.uniform(size=(200, 1))
    showers = energy + 0.1 * rng.normal(size=(200, net.n_voxels))
    config = TrainingConfig(n_steps=30, **{**QUICK, "batch_size": 32})
    run = Trainer(net, "ddpm", config).fit(showers, energy)
    assert np.mean(run.losses[-8:]) < 0.8 * np.mean(run.losses[:8])
    field = NetworkField(run.network("newest"))
    grid = np.linspace(0.0, 1.0, 5)
    done = integrate(SOLVERS.build("heun"), field, rng.normal(size=(4, net.n_voxels)), grid,
                     cond=energy[:4])  # fmt: skip
    assert done.nonfinite_fraction == 0.0


def test_bfloat16_trains_too():
    run = trainer(n_steps=100, precision="bfloat16").fit(EVENTS)
    assert np.mean(run.losses[-20:]) < 0.95 * np.mean(run.losses[:20])


def test_clipping_limits_the_gradient():
    norms = []
    for clip in (None, 1e-3):
        run = trainer(n_steps=1, clip=clip)
        run.fit(EVENTS)
        norms.append(run.history[0]["gradient_norm"])
        gradient = [p.grad for p in run.denoiser.parameters() if p.grad is not None]
        total = math.sqrt(sum(float((g**2).sum()) for g in gradient))
        assert total == pytest.approx(norms[-1] if clip is None else 1e-3, rel=1e-3)
    assert norms[0] == pytest.approx(norms[1])


def test_a_loss_that_is_not_finite_stops_the_training():
    with pytest.raises(RunError, match="learning_rate"):
        trainer(n_steps=40, learning_rate=1e30, clip=None, warmup=0.0).fit(EVENTS)


def test_learning_rates_begin_and_end_as_they_say():
    for name in RATES:
        rate = Rate(name, 1000, 100)
        assert rate(0) <= 0.05
        assert rate(100) == pytest.approx(1.0, rel=0.02)
    assert Rate("cosine", 1000, 100)(999) < 1e-4
    assert Rate("one_cycle", 1000, 300)(999) < 1e-4
    assert Rate("inverse_sqrt", 1000, 100)(399) == pytest.approx(0.5)
    losses = [1.0, 0.5, *[0.6] * 4, 0.4]
    assert Rate("plateau", 1000, 0, patience=2)(999, losses) == pytest.approx(0.1)
    with pytest.raises(ConfigError, match="plateau"):
        Rate("linear", 10, 1)


def test_what_was_not_kept_is_told():
    run = trainer(ema=None, n_steps=2).fit(EVENTS)
    for which in ("ema", "best", 0.1):
        with pytest.raises(ConfigError):
            run.network(which)


@pytest.mark.parametrize("name", SOLVERS.names())
def test_every_solver_runs_on_tensors_as_on_arrays(name):
    """Deterministic ones to the same points; stochastic ones with a generator of torch."""
    solver = SOLVERS.build(name)
    field, grid = NetworkField(network()), np.linspace(0.0, 1.0, 9)
    x0 = np.random.default_rng(1).normal(size=(20, 2))
    rng = torch.Generator().manual_seed(1) if solver.stochastic else None
    done = integrate(solver, field, torch.from_numpy(x0).float(), grid, rng=rng)
    assert isinstance(done.x, torch.Tensor)
    assert (done.x.dtype, done.nonfinite_fraction) == (torch.float32, 0.0)
    assert field.n_evaluated == 20 * done.n_evaluations
    if not solver.stochastic and not solver.adaptive:
        expected = integrate(solver, field, x0, grid).x
        np.testing.assert_allclose(done.x.numpy(), expected, atol=2e-3)


def test_tensors_are_asked_without_copies_to_numpy(monkeypatch):
    x0 = torch.randn(7, 2)
    for name in ("numpy", "cpu", "tolist"):
        monkeypatch.setattr(torch.Tensor, name, None)
    monkeypatch.setattr(torch, "from_numpy", None)
    field = NetworkField(network())
    assert field(0.3, x0).shape == x0.shape
    assert field._tensor(x0).data_ptr() == x0.data_ptr()


@pytest.mark.parametrize("path", [None, Trigonometric()], ids=["line", "circle"])
@pytest.mark.parametrize("kind", KINDS)
def test_fields_say_consistent_things_at_all_times(kind, path):
    """Both ends included: alpha D + sigma noise is the point, and the velocity belongs to it."""
    field = NetworkField(network(kind), path)
    x, c = np.random.default_rng(2).normal(size=(6, 2)), field.require_convention()
    for t in (0.0, 1e-4, 0.01, 0.5, 0.99, 0.9999, 1.0):
        denoised, noise = field.denoised_and_noise(t, x)
        np.testing.assert_allclose(c.point(denoised, noise, t), x, atol=1e-5)
        np.testing.assert_allclose(field(t, x), c.velocity(denoised, noise, t), atol=1e-12)
        np.testing.assert_allclose(field.denoised(t, x), denoised)
        assert np.isfinite(field(t, x)).all()


def test_field_of_a_network_is_the_network():
    net = network("noise")
    field, sigma = NetworkField(net, batch_size=4), 0.8
    y = np.random.default_rng(3).normal(size=(10, 2))
    with torch.no_grad():
        direct = net(torch.tensor(y, dtype=torch.float32), torch.full((10,), sigma)).numpy()
    t = 1.0 / (1.0 + sigma)
    np.testing.assert_allclose(field.denoised(t, y * t), direct, atol=1e-5)


def test_conditions_reach_the_network():
    net = network(n_conditions=1)
    field, x = NetworkField(net), np.zeros((3, 2))
    one, two = (field(0.5, x, np.full((3, 1), value)) for value in (0.0, 1.0))
    assert (one != two).any()


def test_paired_noise_leaves_a_velocity_only():
    field = NetworkField(network("velocity"), coupling="minibatch_ot")
    x0 = np.random.default_rng(1).normal(size=(4, 2))
    assert np.isfinite(integrate(SOLVERS.build("heun"), field, x0, [0.0, 0.5, 1.0]).x).all()
    with pytest.raises(ConfigError, match="minibatch_ot"):
        integrate(SOLVERS.build("edm"), field, x0, [0.0, 0.5, 1.0])


def test_without_torch_the_install_command_is_told():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import flowbdt\nfrom flowbdt.errors import MissingExtra\n"
        "try:\n    import flowbdt.networks\nexcept MissingExtra as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'flowbdt[cfm]'" in done.stdout


def test_the_example_of_the_page_runs(tmp_path, monkeypatch):
    page = Path(__file__).parents[1] / "docs" / "networks.md"
    code = page.read_text().split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    fewer = code.replace("2000", "400").replace("1800", "300").replace("n_steps=200", "n_steps=20")
    quick = 'preset="fast", preconditioner="gaussian", booster={"n_estimators": 5}'
    fewer = fewer.replace('preset="fast"', quick)
    exec(compile(fewer, str(page), "exec"), names)
    assert names["events"].x.shape == (100, 3)
    assert np.isfinite(names["events"].x).all()
    resumed = Trainer.resume("network/checkpoint.npz").fit(names["z"][:300])
    assert resumed.losses == names["trainer"].losses


@pytest.mark.parametrize("change", ["missing", "longer", "negative", "no steps"])
def test_a_crafted_state_of_the_optimiser_is_refused(tmp_path, change):
    path = tmp_path / "checkpoint.npz"
    trainer(n_steps=3).fit(EVENTS).save(path)
    with np.load(path) as stored:
        arrays = dict(stored)
    if change == "missing":
        del arrays["t/optimiser1/exp_avg"]
    elif change == "longer":
        arrays["t/optimiser1/step"] = np.ones(2, np.float32)
    elif change == "negative":
        arrays["t/optimiser1/exp_avg_sq"][...] = -1
    else:
        arrays["t/optimiser1/step"] = np.float32(0)
    np.savez(path, **arrays)
    with pytest.raises(FormatError, match=r"checkpoint\.npz.*state of its optimiser"):
        Trainer.resume(path)
