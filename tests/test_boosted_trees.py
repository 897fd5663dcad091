"""Boosted trees of one step: bytes, weights, early stopping, missing values."""

from __future__ import annotations

import numpy as np
import pytest

from flowbdt.errors import FormatError
from flowbdt.trees.base import Batch
from flowbdt.trees.boosted_trees import BoostedTrees

PARAMETERS = {
    "n_estimators": 20,
    "max_depth": 3,
    "learning_rate": 0.3,
    "max_bin": 64,
    "early_stopping_rounds": 0,
    "multi_strategy": "multi_output_tree",
}
STRATEGIES = ["multi_output_tree", "one_output_per_tree"]


class Rows:
    """A batch source over arrays, in batches of 100; another draw has other targets."""

    def __init__(self, inputs, target, weight=None):
        self.inputs, self.target = inputs.astype("f4"), target.astype("f4")
        self.weight = None if weight is None else weight.astype("f4")
        self.n_rows, self.n_inputs, self.n_outputs = len(inputs), inputs.shape[1], target.shape[1]
        self.passes = 0

    def __iter__(self):
        self.passes += 1
        for low in range(0, self.n_rows, 100):
            rows = slice(low, low + 100)
            weight = None if self.weight is None else self.weight[rows]
            yield Batch(self.inputs[rows], self.target[rows], weight)

    def redrawn(self, draw):
        noise = 0.1 * np.random.default_rng([7, draw]).normal(size=self.target.shape)
        return Rows(self.inputs, self.target + noise, self.weight)


class Fixed(Rows):
    """Rows for validation: their noise stays."""

    def redrawn(self, draw):
        raise AssertionError("validation rows were redrawn")


def data(n=400, seed=0, outputs=3):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 4))
    y = np.column_stack([x[:, 0] * x[:, 1], np.sin(2 * x[:, 2]), x[:, 3]])[:, :outputs]
    return x, y + 0.1 * rng.normal(size=y.shape)


def fitted(source, valid=None, seed=1, threads=1, refresh=0, **changes):
    model = BoostedTrees({**PARAMETERS, **changes})
    return model.fit(source, valid, seed=seed, n_threads=threads, refresh=refresh)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("outputs", [1, 3])
def test_learns_and_has_one_column_per_output(strategy, outputs):
    x, y = data(outputs=outputs)
    model = fitted(Rows(x, y), multi_strategy=strategy)
    prediction = model.predict(x.astype("f4"))
    assert prediction.shape == y.shape
    assert prediction.dtype == np.float32
    assert np.mean((prediction - y) ** 2) < 0.5 * np.var(y)


@pytest.mark.parametrize("refresh", [0, 3])
def test_equal_fits_give_equal_bytes_for_any_thread_count(refresh):
    x, y = data()
    one = fitted(Rows(x, y), threads=1, refresh=refresh).to_bytes()
    assert one == fitted(Rows(x, y), threads=2, refresh=refresh).to_bytes()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_new_draws_average_noise_out(strategy):
    # targets of pure noise: the more draws, the nearer the velocity is to their mean, zero
    class Noise(Rows):
        def redrawn(self, draw):
            return Noise(self.inputs, np.random.default_rng([8, draw]).normal(size=y.shape))

    x, y = data()
    source = Noise(x, y).redrawn(0)
    size = {
        refresh: np.mean(
            fitted(source, refresh=refresh, multi_strategy=strategy).predict(source.inputs) ** 2
        )
        for refresh in (0, 1)
    }
    assert size[1] < 0.5 * size[0]


def test_bytes_restore_the_model_exactly():
    x, y = data()
    model = fitted(Rows(x, y))
    again = BoostedTrees.from_bytes(model.to_bytes())
    assert np.array_equal(model.predict(x.astype("f4")), again.predict(x.astype("f4")))
    assert again.to_bytes() == model.to_bytes()


@pytest.mark.parametrize("content", [b"", b"nonsense", b"{}"])
def test_foreign_bytes_are_refused(content):
    with pytest.raises(FormatError):
        BoostedTrees.from_bytes(content)


def test_weight_two_is_close_to_two_copies():
    # one batch each: the quantile sketch, and so the bins, depends a little on how rows come
    x, y = data(300)
    doubled = np.arange(300) < 150
    weighted = fitted(Rows(x, y, np.where(doubled, 2.0, 1.0)))
    copied = fitted(Rows(np.vstack([x, x[doubled]]), np.vstack([y, y[doubled]])))
    plain = fitted(Rows(x, y))
    near = weighted.predict(x.astype("f4")) - copied.predict(x.astype("f4"))
    far = plain.predict(x.astype("f4")) - copied.predict(x.astype("f4"))
    assert np.sqrt(np.mean(near**2)) < 0.6 * np.sqrt(np.mean(far**2))


def test_weights_act():
    x, y = data(300)
    some = Rows(x, y, np.where(x[:, 0] > 0, 1.0, 0.01))
    model = fitted(some)
    residual = (model.predict(x.astype("f4")) - y) ** 2
    assert residual[x[:, 0] > 0].mean() < residual[x[:, 0] <= 0].mean()


@pytest.mark.parametrize("refresh", [0, 2])
def test_early_stopping_keeps_the_trees_up_to_and_including_the_best(refresh):
    x, y = data(200)
    valid = Fixed(*data(200, seed=1))
    changes = {"n_estimators": 200, "learning_rate": 0.5, "max_depth": 6, "refresh": refresh}
    stopped = fitted(Rows(x, y), valid, early_stopping_rounds=10, **changes)
    best = stopped.summary["trees"]
    assert 1 <= best < 200

    def loss(trees):
        model = fitted(Rows(x, y), valid, **{**changes, "n_estimators": trees})
        return model.summary["valid_rmse"]

    assert stopped.summary["valid_rmse"] == pytest.approx(loss(best), rel=1e-5)
    assert loss(best) <= min(loss(best - 1) if best > 1 else np.inf, loss(best + 1))


def test_best_first_tree_means_one_tree_not_all():
    x, y = data(100)
    # targets of the validation are noise of the other sign: the first tree is the least bad
    stopped = fitted(Rows(x, y), Rows(x, -y), early_stopping_rounds=3, n_estimators=50)
    assert stopped.summary["trees"] == 1
    content = BoostedTrees.from_bytes(stopped.to_bytes())
    assert np.array_equal(content.predict(x.astype("f4")), stopped.predict(x.astype("f4")))


def test_batches_are_made_once():
    """XGBoost passes over its data four times and more, and a batch may be dear to make."""
    x, y = data()
    source = Rows(x, y)
    fitted(source, n_estimators=1)
    assert source.passes == 1


def test_missing_inputs_are_allowed():
    x, y = data()
    x[::3, 1] = np.nan
    model = fitted(Rows(x, y))
    assert np.isfinite(model.predict(x.astype("f4"))).all()
