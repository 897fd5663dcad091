"""What networks are trained on: weights, noise levels, predictions; and what they then know."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (extra 'cfm')")

from flowbdt.errors import ConfigError  # noqa: E402
from flowbdt.flow.parametrisations import EDM, FlowMatching, VariancePreserving  # noqa: E402
from flowbdt.networks.backbones import TableMLP  # noqa: E402
from flowbdt.networks.denoiser import KINDS, coefficients  # noqa: E402
from flowbdt.networks.loss_weights import WEIGHTS, SoftMinSNR, Uncertainty  # noqa: E402
from flowbdt.networks.objective import LEVELS, OBJECTIVES, CosineLevels, Objective  # noqa: E402  # noqa: E402
from flowbdt.networks.trainer import Trainer, TrainingConfig  # noqa: E402

SIGMA = np.geomspace(0.01, 50.0, 41)
SNR = 1.0 / SIGMA**2
SHARE, MEAN = np.array([0.3, 0.7]), np.array([[-1.0, 0.6], [0.8, -0.5]])
WIDTH = np.array([0.25, 0.35])


def weight(name, s_d=0.5, **options):
    return WEIGHTS.build({"name": name, **options})(SIGMA, s_d)


def test_weights_are_their_formulas():
    s_d = 0.5
    edm = (SIGMA**2 + s_d**2) / (SIGMA * s_d) ** 2
    np.testing.assert_allclose(weight("edm"), edm)
    np.testing.assert_allclose(weight("denoised"), 1.0)
    np.testing.assert_allclose(weight("noise"), SNR)
    np.testing.assert_allclose(weight("v"), SNR + 1)
    np.testing.assert_allclose(weight("min_snr"), np.minimum(SNR, 5.0))
    np.testing.assert_allclose(weight("min_snr", gamma=2.0), np.minimum(SNR, 2.0))
    np.testing.assert_allclose(weight("min_snr_edm", gamma=7.0), np.minimum(edm, 7.0))
    np.testing.assert_allclose(weight("p2", k=2.0, gamma=0.5), SNR / (2.0 + SNR) ** 0.5)
    soft = (SIGMA * s_d) ** 2 / (SIGMA**2 + s_d**2) ** 2
    np.testing.assert_allclose(weight("soft_min_snr", of="denoised"), soft)
    np.testing.assert_allclose(weight("soft_min_snr") / edm, soft)


def test_soft_min_snr_is_even_in_the_log_of_sigma():
    s_d, ratio = 0.7, np.geomspace(1.0, 30.0, 9)
    for of in ("network", "denoised"):
        soft = SoftMinSNR(of)
        scale = [WEIGHTS.build("edm")(s, s_d) if of == "network" else 1.0 for s in (s_d * ratio,)]
        up = soft(s_d * ratio, s_d) / scale[0]
        other = WEIGHTS.build("edm")(s_d / ratio, s_d) if of == "network" else 1.0
        np.testing.assert_allclose(up, soft(s_d / ratio, s_d) / other)


def test_each_prediction_has_a_weight_that_is_one_on_its_own_error():
    pairs = {"edm": "edm", "noise": "noise", "v": "v", "velocity": "velocity"}
    for kind, name in {**pairs, "denoised": "denoised"}.items():
        b = coefficients(kind, SIGMA, 0.5)[1]
        np.testing.assert_allclose(weight(name) * b**2, 1.0, err_msg=kind)


def test_min_snr_on_noise_and_on_v_is_as_published():
    capped = np.minimum(SNR, 5.0)
    on_noise = weight("min_snr") * coefficients("noise", SIGMA, 1.0)[1] ** 2
    on_v = weight("min_snr") * coefficients("v", SIGMA, 1.0)[1] ** 2
    np.testing.assert_allclose(on_noise, capped / SNR)
    np.testing.assert_allclose(on_v, capped / (SNR + 1.0))


def test_weights_of_arrays_and_tensors_agree():
    tensor = torch.from_numpy(SIGMA)
    for name in WEIGHTS.names():
        built = WEIGHTS.build(name)
        np.testing.assert_allclose(built(tensor, 0.5).numpy(), built(SIGMA, 0.5))


@pytest.mark.parametrize("kind", KINDS)
def test_predictions_mean_what_the_conventions_say(kind):
    rng = np.random.default_rng(0)
    x1, noise = rng.normal(size=(2, 5, 3))
    for sigma in (0.05, 0.7, 9.0):
        c = {"v": VariancePreserving(), "velocity": FlowMatching()}.get(kind, EDM())
        clock = c.clock(sigma)
        said = c.express(kind, (x1, noise), clock, 0.5)
        a, b = coefficients(kind, sigma, 0.5)
        np.testing.assert_allclose(a * (x1 + sigma * noise) + b * said, x1, atol=1e-10)


def test_noise_levels_follow_their_distributions():
    generator = torch.Generator().manual_seed(0)
    n = 20_000
    log = LEVELS.build("log_normal").draw(n, generator, "cpu").log()
    assert abs(float(log.mean()) + 0.5) < 5 * 1.2 / math.sqrt(n)
    assert abs(float(log.std()) - 1.2) < 5 * 1.2 / math.sqrt(2 * n)
    uniform = LEVELS.build("uniform_log_snr").draw(n, generator, "cpu").log()
    wide = math.log(50.0 / 0.01)
    assert abs(float(uniform.mean()) - 0.5 * math.log(0.5)) < 5 * wide / math.sqrt(12 * n)
    t = 1.0 / (1.0 + LEVELS.build("uniform_time").draw(n, generator, "cpu"))
    assert abs(float(t.mean()) - 0.5) < 5 / math.sqrt(12 * n)
    for name in LEVELS.names():
        levels = LEVELS.build(name)
        drawn = levels.draw(n, generator, "cpu")
        assert levels.sigma_min * 0.999 <= drawn.min() < drawn.max() <= levels.sigma_max * 1.001


def test_cosine_levels_in_steps_are_those_of_the_discrete_schedule():
    steps, s = 400, 0.008
    u = np.arange(1, steps + 1) / steps
    power = np.cos((u + s) / (1 + s) * np.pi / 2) ** 2 / np.cos(s / (1 + s) * np.pi / 2) ** 2
    levels = CosineLevels(steps, sigma_min=1e-3, sigma_max=1e3)
    found = levels.quantile(torch.from_numpy((np.arange(steps) + 0.5) / steps)).numpy()
    np.testing.assert_allclose(found[:-1], np.sqrt(1 / power - 1)[:-1], rtol=1e-6)


def test_torchcfm_gives_the_losses_of_our_own_formulas():
    pytest.importorskip("torchcfm", reason="torchcfm is not installed (extra 'cfm')")
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(3)
    net = TableMLP(3, width=16)
    torch.nn.init.normal_(net.last.weight)
    found = []
    for matcher in ("own", "torchcfm"):
        objective = Objective.of("flow_matching", flow_matcher=matcher)
        generator = torch.Generator().manual_seed(5)
        found.append(objective.losses(objective.denoiser(net), x, None, generator).detach())
    torch.testing.assert_close(found[0], found[1], rtol=2e-4, atol=1e-5)


def test_paired_noise_shortens_trajectories_and_is_refused_for_other_predictions():
    x = torch.randn(256, 2, generator=torch.Generator().manual_seed(1))
    coupling = {"name": "minibatch_ot", "batch_size": 128}
    objective = Objective.of("flow_matching", flow_matcher="own", coupling=coupling)
    noise = torch.randn(256, 2, generator=torch.Generator().manual_seed(2))
    paired = objective._paired(noise, x, None, torch.Generator().manual_seed(3))
    assert ((paired - x) ** 2).mean() < 0.3 * ((noise - x) ** 2).mean()
    np.testing.assert_array_equal(np.sort(paired[:, 0]), np.sort(noise[:, 0]))
    with pytest.raises(ConfigError, match="velocity"):
        Objective("edm", coupling="minibatch_ot")


def mixture(n, rng):
    which = (rng.random(n) > SHARE[0]).astype(int)
    return MEAN[which] + WIDTH[which][:, None] * rng.normal(size=(n, 2))


def exact(y, sigma):
    """E[x1 | y] of the mixture, by Bayes."""
    variance = WIDTH**2 + sigma**2
    log = np.log(SHARE / variance) - 0.5 * ((y[:, None] - MEAN) ** 2).sum(2) / variance
    p = np.exp(log - log.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    means = MEAN + (WIDTH**2 / variance)[:, None] * (y[:, None] - MEAN)
    return (p[..., None] * means).sum(axis=1)


def linear(y, sigma):
    """The best linear answer: what a network knows that saw no shape."""
    centre = SHARE @ MEAN
    spread = (SHARE * WIDTH**2).sum() * np.eye(2) + (MEAN - centre).T * SHARE @ (MEAN - centre)
    return centre + (y - centre) @ np.linalg.solve(spread + sigma**2 * np.eye(2), spread)


CASES = {
    **{f"objective {name}": name for name in OBJECTIVES if name != "flow_matching"},
    "objective flow_matching": Objective.of("flow_matching", flow_matcher="own"),
    **{f"weight {name}": {"weight": name} for name in WEIGHTS.names() if name != "edm"},
    **{f"prediction {kind}": {"prediction": kind} for kind in KINDS if kind != "edm"},
    "levels uniform_log_snr": {"levels": "uniform_log_snr"},
}


LONGER = {
    *(f"weight {name}" for name in ("noise", "v", "velocity", "denoised")),
    *(f"prediction {name}" for name in ("v", "velocity", "noise")),
    "objective v",
    "levels uniform_log_snr",
}


@pytest.mark.parametrize(
    "case",
    [pytest.param(c, marks=pytest.mark.slow) if c in LONGER else c for c in sorted(CASES)],
)
def test_training_reaches_the_analytic_denoiser(case):
    """To 0.065 of the data's width, over noise levels; a linear answer is 0.127 off."""
    rng = np.random.default_rng(0)
    torch.manual_seed(1)
    config = TrainingConfig(n_steps=300, batch_size=256, learning_rate=2e-2, ema=0.95)
    trainer = Trainer(TableMLP(2, width=32), CASES[case], config).fit(mixture(8000, rng))
    network, wrong, plain = trainer.network(), [], []
    for sigma in (0.1, 0.3, 0.7, 1.5):
        y = mixture(2000, rng) + sigma * rng.normal(size=(2000, 2))
        with torch.no_grad():
            found = network(torch.tensor(y, dtype=torch.float32), torch.full((2000,), sigma))
        wrong.append(np.mean((found.numpy() - exact(y, sigma)) ** 2))
        plain.append(np.mean((linear(y, sigma) - exact(y, sigma)) ** 2))
    assert math.sqrt(np.mean(wrong)) < 0.065
    assert math.sqrt(np.mean(plain)) > 0.12


def test_learned_uncertainty_is_the_mean_loss_of_a_noise_level():
    objective = Objective(weight="uncertainty")
    assert isinstance(objective.weight, Uncertainty)
    rng = np.random.default_rng(0)
    config = TrainingConfig(n_steps=300, batch_size=512, learning_rate=1e-2, ema=None)
    torch.manual_seed(1)
    trainer = Trainer(TableMLP(2, width=32), objective, config).fit(mixture(8000, rng))
    y = torch.tensor(mixture(20_000, rng), dtype=torch.float32)
    for level in (0.2, 0.6, 1.5):
        sigma = torch.full((len(y),), level)
        noisy = y + level * torch.tensor(rng.normal(size=y.shape), dtype=torch.float32)
        with torch.no_grad():
            error = ((trainer.denoiser(noisy, sigma) - y) ** 2).mean()
            expected = float(error * objective.weight(sigma[:1], 1.0))
            learned = float(objective.weight.log_loss(sigma[:1]).exp())
        assert learned == pytest.approx(expected, rel=0.15)


def test_wrong_settings_are_told():
    for arguments in ({"prediction": "speed"}, {"weight": "snr"}, {"levels": "normal"}):
        with pytest.raises(ConfigError, match="Known"):
            Objective(**arguments)
    with pytest.raises(ConfigError, match="Known"):
        Objective.of("score_matching")
    with pytest.raises(ConfigError, match="above 0"):
        Objective(weight={"name": "min_snr", "gamma": 0.0})
