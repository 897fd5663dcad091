"""Toy tables: they follow their seed and have the declared distributions."""

from __future__ import annotations

import numpy as np
import pytest

from flowbdt.errors import InputError
from flowbdt.physics import DATASETS


@pytest.mark.parametrize("name", ["gaussian", "mixture", "moons", "mixed"])
def test_toys_follow_their_seed_and_split(name):
    def toy(seed: int, split: str) -> np.ndarray:
        return DATASETS.build({"name": name, "n_events": 50, "seed": seed}).load(split).x

    np.testing.assert_array_equal(toy(1, "train"), toy(1, "train"))
    assert not np.array_equal(toy(1, "train"), toy(2, "train"))
    assert not np.array_equal(toy(1, "train"), toy(1, "test"))
    with pytest.raises(InputError, match="at least 1"):
        DATASETS.build({"name": name, "n_events": 0}).load()


def test_gaussian_has_the_declared_mean_and_covariance():
    n = 20_000
    toy = DATASETS.build({"name": "gaussian", "n_events": n})
    x = toy.load("train").x
    assert (np.abs(x.mean(axis=0) - toy.mean) < 5 * np.sqrt(np.diag(toy.cov) / n)).all()
    variances = np.diag(toy.cov)
    error = np.sqrt((toy.cov**2 + np.outer(variances, variances)) / n)  # of a normal's covariance
    assert (np.abs(np.cov(x.T) - toy.cov) < 5 * error).all()


def test_mixture_has_the_declared_mean_and_covariance():
    n = 20_000
    toy = DATASETS.build({"name": "mixture", "n_events": n})
    x = toy.load("train").x
    mean = toy.fractions @ toy.means
    apart = toy.means - mean
    cov = np.einsum("k,kij->ij", toy.fractions, toy.covs)
    cov += np.einsum("k,ki,kj->ij", toy.fractions, apart, apart)
    assert (np.abs(x.mean(axis=0) - mean) < 5 * np.sqrt(np.diag(cov) / n)).all()
    products = np.einsum("ni,nj->nij", x - mean, x - mean)
    error = products.std(axis=0) / np.sqrt(n)
    assert (np.abs(products.mean(axis=0) - cov) < 5 * error).all()


def test_moons_lie_on_two_half_circles():
    n = 5000
    toy = DATASETS.build({"name": "moons", "n_events": n})
    x = toy.load("train").x
    far = 6 * toy.width
    upper = (np.abs(np.hypot(x[:, 0], x[:, 1]) - 1) < far) & (x[:, 1] > -far)
    lower = (np.abs(np.hypot(x[:, 0] - 1, x[:, 1] - 0.5) - 1) < far) & (x[:, 1] < 0.5 + far)
    assert (upper | lower).all()
    # Turning by half a circle about (0.5, 0.25) exchanges the two.
    error = x.std(axis=0) / np.sqrt(n)
    assert (np.abs(x.mean(axis=0) - [0.5, 0.25]) < 5 * error).all()


def test_mixed_table_has_every_kind_of_column():
    n = 4000
    toy = DATASETS.build({"name": "mixed", "n_events": n})
    table = toy.load("train")
    assert table.dtypes[:3] == ("float32", "float32", "int64")
    assert table.categories == {"particle": toy.particles}
    p = toy.zero_fraction
    zeros = (table.column("isolation") == 0.0).mean()
    assert abs(zeros - p) < 5 * np.sqrt(p * (1 - p) / n)
    assert np.ptp(table.column("field")) == 0.0
    assert np.abs(table.column("phi")).max() <= np.float32(np.pi)
    assert np.corrcoef(table.column("energy"), table.column("n_hits"))[0, 1] > 0.1


def test_categories_of_the_mixed_table_do_not_depend_on_its_size():
    tiny = DATASETS.build({"name": "mixed", "n_events": 1}).load("train")
    assert tiny.categories == {"particle": ("electron", "photon", "pion")}
