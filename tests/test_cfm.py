"""Our paths against torchcfm's matchers, and the adapter that draws from them."""

from __future__ import annotations

import builtins
from typing import Any

import numpy as np
import pytest

from flowbdt.errors import ConfigError, MissingExtra
from flowbdt.flow.couplings import COUPLINGS
from flowbdt.flow.paths import PATHS
from flowbdt.flow.torchcfm_reference import MATCHERS, TorchcfmMatcher
from flowbdt.training.noisy_pairs import LatentEvents, TimeStep
from flowbdt.training.pair_variants import TorchcfmPairs, torchcfm_matcher


def _need_torchcfm() -> None:
    pytest.importorskip("torchcfm", reason="torchcfm is not installed (extra 'cfm')")


def _rows(n: int = 50, m: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.normal(size=(n, m)), 2.0 + 3.0 * rng.normal(size=(n, m)), rng.normal(size=(n, m))


def test_every_path_has_a_matcher() -> None:
    assert sorted(MATCHERS) == PATHS.names()


@pytest.mark.parametrize("sigma", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("name", ["linear", "target", "trigonometric"])
def test_location_and_target_equal_torchcfm(name: str, sigma: float) -> None:
    _need_torchcfm()
    x0, x1, noise = _rows()
    if name == "target":
        x0 = noise  # torchcfm ignores x0 there: the noise is the starting point
    path, matcher = PATHS.build({"name": name, "sigma": sigma}), TorchcfmMatcher(name, sigma)
    for t in (0.0, 0.05, 0.3, 0.5, 0.75, 0.95):
        x_t, u_t = matcher.at(x0, x1, t, noise)
        ours = path.location(x0, x1, t, noise)
        np.testing.assert_allclose(ours, x_t, rtol=0, atol=1e-12)
        np.testing.assert_allclose(path.target(x0, x1, t, ours), u_t, rtol=0, atol=1e-12)


@pytest.mark.parametrize("sigma", [0.2, 1.0])
def test_bridge_equals_torchcfm_up_to_its_small_number(sigma: float) -> None:
    """torchcfm divides by 2 t (1 - t) + 1e-8; ours scaled by that ratio is equal to 1e-12."""
    _need_torchcfm()
    x0, x1, noise = _rows()
    path = PATHS.build({"name": "schrodinger_bridge", "sigma": sigma})
    matcher = TorchcfmMatcher("schrodinger_bridge", sigma)
    for t in (0.05, 0.3, 0.5, 0.75, 0.95):
        x_t, u_t = matcher.at(x0, x1, t, noise)
        np.testing.assert_allclose(path.location(x0, x1, t, noise), x_t, rtol=0, atol=1e-12)
        spread = 2 * t * (1 - t)
        extra = path.target(x0, x1, t, x_t) - (x1 - x0)
        shrunk = x1 - x0 + extra * spread / (spread + 1e-8)
        np.testing.assert_allclose(shrunk, u_t, rtol=0, atol=1e-12)
        np.testing.assert_allclose(path.target(x0, x1, t, x_t), u_t, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", sorted(MATCHERS))
def test_sample_without_transport_keeps_the_rows(name: str) -> None:
    _need_torchcfm()
    x0, x1, _ = _rows()
    matcher = TorchcfmMatcher(name, 0.1)
    x_t, u_t, kept = matcher.sample(x0, x1, 0.4, np.random.default_rng(2))
    assert x_t.dtype == u_t.dtype == np.float64
    np.testing.assert_array_equal(kept, np.arange(len(x1)))
    again = matcher.sample(x0, x1, 0.4, np.random.default_rng(2))[0]
    other = matcher.sample(x0, x1, 0.4, np.random.default_rng(3))[0]
    np.testing.assert_array_equal(x_t, again)
    assert not np.array_equal(x_t, other)


def test_sample_with_transport_says_which_events_it_kept() -> None:
    _need_torchcfm()
    x0, x1, _ = _rows(60)
    matcher = TorchcfmMatcher("linear", 0.0, ot=True, batch_size=25)
    x_t, u_t, kept = matcher.sample(x0, x1, 0.5, np.random.default_rng(4))
    np.testing.assert_allclose(x_t + 0.5 * u_t, x1[kept], atol=1e-12)
    start = x_t - 0.5 * u_t
    distance = np.abs(start[:, None, :] - x0[None, :, :]).max(axis=2)
    assert distance.min(axis=1).max() < 1e-12  # each start is a row of x0
    assert (distance.argmin(axis=1) // 25 == kept // 25).all()  # of the same batch
    np.testing.assert_array_equal(kept // 25, np.arange(60) // 25)  # and every batch its own
    assert (u_t**2).sum() < ((x1 - x0) ** 2).sum()


def test_plans_of_groups_pair_no_further() -> None:
    _need_torchcfm()
    x0, x1, _ = _rows(60)
    odd = np.arange(60) % 2 == 1
    x1[odd] += 100.0  # a plan of all rows would pair these with the largest of x0
    x0[:30] += 100.0
    groups = [np.flatnonzero(~odd), np.flatnonzero(odd)]
    matcher = TorchcfmMatcher("linear", 0.0, ot=True, batch_size=12)
    x_t, u_t, kept = matcher.sample(x0, x1, 0.5, np.random.default_rng(4), groups)
    start = np.abs((x_t - 0.5 * u_t)[:, None, :] - x0[None, :, :]).max(axis=2).argmin(axis=1)
    assert (start % 2 == kept % 2).all()
    assert np.bincount(kept % 2).tolist() == [30, 30]


def test_a_plan_pairs_events_of_equal_conditions_as_the_coupling_says() -> None:
    _need_torchcfm()
    rng = np.random.default_rng(0)
    z = rng.normal(size=(200, 2)).astype(np.float32)
    cond = np.repeat([[0.0], [1.0]], 100, axis=0).astype(np.float32)
    z[100:] += 50.0

    def correlation(by_condition: bool) -> float:
        """Of condition and starting point, which generation draws independently of it."""
        spec = {"name": "minibatch_ot", "batch_size": 200, "by_condition": by_condition}
        pairs = TorchcfmPairs(
            LatentEvents(z, np.arange(200), cond),
            PATHS.build("linear"),
            COUPLINGS.build(spec),
            TimeStep(0, 0.0, 1.0),
            inputs=lambda x, given: (np.column_stack([x, given]), 0.0),
            n_repeats=1,
            seed=1,
            purpose="train",
            matcher=torchcfm_matcher("linear", spec),
        )
        (batch,) = pairs
        return float(np.corrcoef(batch.inputs[:, :2].sum(axis=1), batch.inputs[:, 2])[0, 1])

    assert abs(correlation(True)) < 5 / np.sqrt(200)
    assert correlation(False) > 0.5


def test_global_generators_are_not_touched() -> None:
    _need_torchcfm()
    import torch

    x0, x1, _ = _rows()
    torch_state = torch.get_rng_state()
    numpy_state = str(np.random.get_state(legacy=False))  # noqa: NPY002
    TorchcfmMatcher("schrodinger_bridge", 0.5, ot=True).sample(
        x0, x1, 0.5, np.random.default_rng(5)
    )
    assert torch.equal(torch_state, torch.get_rng_state())
    assert numpy_state == str(np.random.get_state(legacy=False))  # noqa: NPY002


def test_unknown_matcher_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="linear, schrodinger_bridge, target, trigonometric"):
        TorchcfmMatcher("linaer")


def test_sigma_refused_by_torchcfm_is_a_config_error() -> None:
    _need_torchcfm()
    with pytest.raises(ConfigError, match="strictly positive"):
        TorchcfmMatcher("schrodinger_bridge", 0.0)


def test_missing_extra_names_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".")[0] in ("torch", "torchcfm"):
            raise ImportError(f"No module named {name!r}")
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingExtra, match=r"pip install 'flowbdt\[cfm\]'"):
        TorchcfmMatcher("linear")
