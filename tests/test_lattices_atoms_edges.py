"""What a column is made of comes back: lattices, codes, repeated values, edges, large numbers.

Columns go through the transform alone, with normal latent values: what trees would learn is no
part of it.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from flowbdt import EventTable, FlowBDT, TableTransform
from flowbdt.tables.transforms import choose
from flowbdt.tables.transforms.choose import hard_edges
from flowbdt.tables.transforms.rounded_floats import floats_of, in_bits, in_digits

pytestmark = pytest.mark.filterwarnings("ignore:.*integers beyond")

N, N_NEW = 3000, 20_000
ROWS = np.random.default_rng(0)
K_OF_4 = np.arange(4096)


def generated(values: np.ndarray, n: int = N_NEW) -> np.ndarray:
    """Values of standard normal latent ones; the column itself must come back before."""
    table = EventTable.of(pd.DataFrame({"v": values}))
    transform = TableTransform().fit(table)
    back = transform.inverse(transform.forward(table))[:, 0]
    size = np.abs(table.x).max()
    np.testing.assert_allclose(back / size, table.x[:, 0] / size, atol=1e-9)
    latent = np.random.default_rng(5).normal(size=(n, transform.n_latent))
    return transform.inverse(latent)[:, 0]


def most_frequent(values: np.ndarray) -> int:
    return int(np.unique(values, return_counts=True)[1].max())


# --- lattices ------------------------------------------------------------------------------

PAIRS = np.array([11, 13, 211, 321, 2212, 2112, 3122, 411, 3222, 3112])
PDG = np.concatenate([PAIRS, -PAIRS, [22, 111, 130, 221, 310, 331]])
SHARES = ROWS.dirichlet(np.full(26, 0.4))
CODES = {
    "particles": ROWS.choice(PDG, N),
    "particles, some rare": ROWS.choice(PDG, N, p=SHARES),
    "zip codes": ROWS.choice(ROWS.choice(100_000, 300, replace=False), N),
    "zip codes, few rows each": ROWS.choice(ROWS.choice(100_000, 1500, replace=False), N),
    "detector numbers, half missing": ROWS.choice(ROWS.choice(200, 100, replace=False), N),
    "detectors, few missing": ROWS.choice(np.delete(np.arange(100), [3, 40, 41, 77]), N),
    "a missing thousand": ROWS.choice(np.delete(np.arange(20, 60), 7), N) * 1000,
    "cells of 64 bits": ROWS.choice(ROWS.integers(2**60, 2**63, 300), 1000),
    "gain, mostly none": np.where(ROWS.random(N) < 0.8, 0, ROWS.choice(PDG**2, N)),
}


@pytest.mark.parametrize("name", CODES)
def test_of_codes_only_known_ones_come_back(name):
    assert np.isin(generated(CODES[name]), CODES[name].astype(float)).all()


def clock(n: int) -> np.ndarray:
    minute = np.random.default_rng(n).integers(0, 1440, n)
    return minute // 60 * 100 + minute % 60


def dates(n: int) -> np.ndarray:
    day = pd.Timestamp(2020, 1, 1) + pd.to_timedelta(
        np.random.default_rng(n).integers(0, 1095, n), "D"
    )
    return day.year.to_numpy() * 10_000 + day.month * 100 + day.day


def strips(n: int) -> np.ndarray:
    rng = np.random.default_rng(n)
    return 1000 * rng.integers(0, 18, n) + rng.integers(0, 96, n)


@pytest.mark.parametrize("n", [700, 2000, 8000])
@pytest.mark.parametrize("kind", [clock, dates, strips])
def test_of_ranges_that_cannot_be_nothing_comes_back(kind, n):
    values = np.asarray(kind(n), dtype=np.int64)
    assert np.isin(generated(values), values).all()


DENSE = {
    "counts": lambda rng, n: rng.poisson(30, n),
    "adc": lambda rng, n: np.clip(
        np.where(rng.random(n) < 0.7, rng.normal(200, 20, n), rng.exponential(600, n)), 0, 4095
    ),
    "salaries": lambda rng, n: rng.lognormal(3.5, 0.5, n).astype(int) * 1000,
    "years": lambda rng, n: 1950 + 74 * rng.beta(5, 2, n),
    "photons": lambda rng, n: rng.normal(100 + 150 * rng.poisson(1.5, n), 8),
    "a wide range": lambda rng, n: rng.lognormal(7, 1.5, n),
}


@pytest.mark.parametrize("n", [500, 2000, 15_000])
@pytest.mark.parametrize("name", DENSE)
def test_gaps_of_a_smooth_density_are_filled(name, n):
    names = [
        choose(np.rint(DENSE[name](np.random.default_rng(seed), n)), "int64")[0]["name"]
        for seed in range(10)
    ]
    assert names.count("integer") >= 9


LATTICES = {
    "thousands": (ROWS.integers(20, 120, N) * 1000, 1000, 0),
    "thousands and seven": (ROWS.integers(20, 120, N) * 1000 + 7, 1000, 7),
    "fifties": (ROWS.lognormal(6, 0.8, N).astype(int) * 50, 50, 0),
    "numbers of events": (ROWS.permutation(10**7 + 9 * np.arange(N)), 9, 10**7 % 9),
    "counts": (ROWS.poisson(200, N), 1, 0),
    "counts with a tail": ((ROWS.pareto(1.5, N) * 10).astype(int), 1, 0),
    "half integers": (ROWS.poisson(100, N) + 0.5, 1, 0.5),
    "odd numbers": (2 * ROWS.integers(0, 30_000, N) + 1.0, 2, 1),
}


@pytest.mark.parametrize("name", LATTICES)
def test_offset_and_step_of_integers_are_kept(name):
    values, step, offset = LATTICES[name]
    new = generated(values)
    assert (new % step == offset).all()
    assert len(np.unique(new)) >= 0.9 * len(np.unique(values))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    ("step", "decimals"), [(0.1, 1), (0.25, 2), (0.05, 2), (0.001, 3), (2.5, 1)]
)
def test_decimals_come_back_as_printed(step, decimals, dtype):
    values = np.round(np.rint(ROWS.normal(0, 3, N) / step) * step, decimals).astype(dtype)
    new = generated(values)
    printed = np.round(np.rint(new / step) * step, decimals).astype(dtype)
    assert np.array_equal(new, printed.astype(float))
    assert new.min() < np.quantile(values, 0.01)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("step", [0.1, 0.05, 0.087, 1e-3])
def test_multiples_come_back_as_products(step, dtype):
    grid = np.arange(-5000, 5000).astype(dtype) * np.dtype(dtype).type(step)
    values = grid[5000 + np.rint(ROWS.normal(0, 300, N)).astype(int)]
    new = generated(values)
    assert np.isin(new, grid.astype(float)).all()
    assert len(np.unique(new)) > 1.1 * len(np.unique(values))


@pytest.mark.parametrize("digits", [8, 9, None])
def test_decimals_of_printed_floats_come_back_as_printed(digits):
    def printed(values):
        floats = np.asarray(values, np.float32).astype(float)
        return np.array([float(f"{v:.{digits}g}") for v in floats]) if digits else floats

    values = printed(np.round(ROWS.normal(-119.6, 2, N), 2))
    new = generated(values)
    assert np.array_equal(new, printed(np.round(new, 2)))
    assert len(np.unique(new)) > 1.1 * len(np.unique(values))
    for other in (ROWS.normal(size=N), np.round(ROWS.normal(size=N), 7)):
        assert floats_of(other, "float64") == "float64"
    assert np.array_equal(in_digits(-new * 1e6, 8), [float(f"{-v * 1e6:.8g}") for v in new])


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("bits", [7, 12])
def test_floats_of_rounded_mantissas_come_back_rounded(bits, dtype):
    values = in_bits(ROWS.normal(0, 20, N), bits).astype(dtype)
    assert floats_of(values.astype(float), dtype) == f"float32 of {bits} bits"
    new = generated(values)
    assert np.array_equal(in_bits(new, bits), new)
    assert len(np.unique(new)) > 1.1 * len(np.unique(values))
    described = TableTransform().fit(EventTable.of({"v": values})).describe()
    assert f"rounded to {bits} bits of the mantissa" in described[0]


def test_mantissas_are_rounded_to_the_nearest_and_within_the_largest_float():
    x = np.array([-1.0009765625, 1.0004, 1.0006, 0.0, -3e38, 1e39, 2.0**-130, np.nan])
    expected = [-1.0009765625, 1.0, 1.0009765625, 0.0, -3.0007322e38, 3.40116e38, 2.0**-130, np.nan]
    np.testing.assert_allclose(in_bits(x, 10), expected, rtol=1e-5)
    assert np.array_equal(in_bits(x, 10)[:4], expected[:4])


@pytest.mark.parametrize(
    "values",
    [np.arange(1.0, 3000), K_OF_4 / 4096, 1 + K_OF_4 / 4096, np.float32(ROWS.normal(size=500))],
)
def test_lattices_and_whole_mantissas_are_not_rounded(values):
    assert floats_of(np.asarray(values, float), "float32") == "float32"


K = np.arange(-5000.0, 5000.0)
MULTIPLES = {
    "thirds": K / 3,
    "sevenths, in float32": (K.astype(np.float32) * 2 / 7).astype(np.float32),
    "of 25 ns in another unit": K * (25 / np.pi),
    "of a float32": K.astype(np.float32) * np.float32(np.pi / 10),
    "of 1e15": K * 1e15,
    "of 1e15, from 1e18": 1e18 + K * 1e15,
    "far from zero": (K + 20_000) * np.sqrt(2),
}


@pytest.mark.parametrize("n", [100, N])
@pytest.mark.parametrize("name", MULTIPLES)
def test_multiples_of_any_step_come_back(name, n):
    grid = MULTIPLES[name]
    values = grid[5000 + np.rint(np.random.default_rng(n).normal(0, 300, n)).astype(int)]
    new = generated(values)
    assert np.isin(new, grid.astype(float)).all()
    assert len(np.unique(new)) > 1.1 * len(np.unique(values))


REAL = {
    "normal": lambda rng, n: rng.normal(size=n),
    "uniform": lambda rng, n: rng.random(n),
    "exponential": lambda rng, n: rng.exponential(30, n),
    "few digits": lambda rng, n: reduced(rng.exponential(30, n), 12),
}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", REAL)
def test_real_numbers_are_no_multiples(name, dtype):
    for n, n_tables in ((20, 100), (50, 100), (500, 20), (20_000, 2)):
        for seed in range(n_tables):
            values = REAL[name](np.random.default_rng(seed), n).astype(dtype)
            assert choose(values.astype(float), dtype)[0]["name"] in ("standard", "log", "rank")


def test_an_angle_with_decimals_stays_an_angle():
    for phi in (
        np.round(ROWS.uniform(-np.pi, np.pi, N), 3),
        ROWS.uniform(0, 2 * np.pi, N).round(4),
    ):
        spec, reason = choose(phi)
        assert "angle" in str(spec) or spec["name"] == "integer", reason
        transform = TableTransform({"joint": "none"}).fit(EventTable.of(phi[:, None]))
        assert transform.n_latent == 2
        assert np.abs(generated(phi) - np.pi * (phi.min() > -1)).max() < np.pi + 2e-3


def test_a_fixed_number_of_digits_is_no_number_of_decimals():
    values = np.array([float(f"{v:.6g}") for v in ROWS.lognormal(0, 2, N)])
    assert choose(values)[0]["name"] == "log"


# --- numbers of any size --------------------------------------------------------------------

NUMBERS = {
    "energies in eV": 10 ** ROWS.uniform(19, 20, N),
    "uint64": ROWS.integers(2**63, 2**64 - 1, N, dtype=np.uint64),
    "int64": ROWS.integers(2**60, 2**62, N, dtype=np.int64),
    "times in ns": 17 * 10**17 + ROWS.integers(0, 10**15, N),
    "float32 above 2**24": ROWS.lognormal(20, 1, N).astype(np.float32),
    **{f"normal {size}": ROWS.normal(size=N) * size for size in (1e-310, 1e-308, 1e300)},
    **{f"log-normal {size}": ROWS.lognormal(size=N) * size for size in (1e-308, 1e300)},
    **{f"uniform {size}": ROWS.random(N) * size for size in (1e-310, 1e-308, 1e300)},
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_of_any_size_are_learned(name):
    values = NUMBERS[name]
    new = generated(values)
    assert len(np.unique(new)) > 0.95 * N_NEW
    levels = np.linspace(0.1, 0.9, 5)
    below = [(new < edge).mean() for edge in np.quantile(values.astype(float), levels)]
    np.testing.assert_allclose(below, levels, atol=0.06)


def test_large_numbers_leave_a_model_as_they_are():
    """Through trees, in compiled code and without."""
    x = pd.DataFrame({"E": NUMBERS["energies in eV"], "id": NUMBERS["uint64"]})
    x["code"], x["quarter"] = CODES["particles"], np.round(ROWS.normal(size=N) * 4) / 4
    x["small"] = NUMBERS["normal 1e-308"]
    model = FlowBDT(preset="fast", n_steps=2, booster={"n_estimators": 3}, random_state=1).fit(x)
    for compiled in (None, False):
        new = model.sample(1000, random_state=2, compiled=compiled)
        assert new["id"].dtype == np.uint64
        assert all(new[name].nunique() > 990 for name in ("E", "id", "small"))
        assert np.isin(new["code"], PDG).all()
        assert (new["quarter"] % 0.25 == 0).all()


# --- repeated values ------------------------------------------------------------------------


def rare(share: float, n: int = N) -> np.ndarray:
    return np.where(ROWS.random(n) < share, -999.0, ROWS.exponential(30, n) + 30)


@pytest.mark.parametrize("share", [0.3, 0.9, 0.99])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_value_for_nothing_is_one_atom_and_the_rest_continuous(share, dtype):
    values = rare(share).astype(dtype)
    new = generated(values)
    rest = new[new != -999]
    assert abs(len(rest) / N_NEW - 1 + share) < 5 * np.sqrt(share * (1 - share) / N)
    assert np.isin(rest, values).mean() < 0.05
    assert rest.min() >= 30
    assert most_frequent(rest) <= 5


def test_two_values_for_nothing_among_integers_and_decimals():
    numbers = np.where(ROWS.random(N) < 0.2, -1, ROWS.integers(0, 5000, N))
    numbers[ROWS.random(N) < 0.4] = -999
    for values in (numbers, numbers / 100):
        new = generated(values)
        between = (new > values.min()) & (new < 0) & (new != np.unique(values)[1])
        assert not between.any()
        for atom in np.unique(values)[:2]:
            assert abs((new == atom).mean() - (values == atom).mean()) < 0.02


def reduced(values: np.ndarray, bits: int) -> np.ndarray:
    """float32 values with fewer binary digits, as compressed formats have them."""
    whole = values.astype(np.float32).view(np.int32) >> (23 - bits) << (23 - bits)
    return whole.view(np.float32)


COINCIDENCES = {
    "ten pairs": lambda x: np.concatenate([x, x[:10]]),
    "everything twice": lambda x: np.concatenate([x, x]),
    "drawn with replacement": lambda x: ROWS.choice(x, len(x)),
    "ten binary digits": lambda x: reduced(x, 10),
    "six digits": lambda x: np.array([float(f"{v:.4g}") for v in x]),
}


@pytest.mark.parametrize("name", COINCIDENCES)
def test_coincidences_are_no_atoms(name):
    normal = COINCIDENCES[name](ROWS.normal(size=13_487).astype(np.float32))
    assert choose(normal.astype(float), "float32")[0]["name"] == "standard"
    angle = COINCIDENCES[name](ROWS.uniform(-np.pi, np.pi, 13_487).astype(np.float32))
    assert "repeated" not in choose(angle.astype(float), "float32")[1]


def test_true_atoms_are_found_at_any_resolution():
    n = 13_487
    for resolution in (lambda x: x, lambda x: reduced(x, 10), lambda x: np.round(x, 2)):
        values = resolution(ROWS.normal(size=n)).astype(float)
        values[: n // 100] = 0.5
        new = generated(values)
        share = (values == 0.5).mean()
        assert abs((new == 0.5).mean() - share) < 5 * np.sqrt(share / N_NEW)


# --- edges ----------------------------------------------------------------------------------


def within(x: np.ndarray, low: float, high: float, n: int = 15_000) -> np.ndarray:
    return x[(x > low) & (x < high)][:n]


EDGES = {
    "eta": (within(ROWS.normal(0, 1.35, 40_000), -2.97, 2.97), -2.97, 2.97),
    "cosine": (ROWS.uniform(-1, 1, 15_000), -1, 1),
    "cosine of a decay": (within(1 - 2 * ROWS.beta(1, 1.5, 15_000), -1, 1), -1, np.inf),
    "pt": (ROWS.exponential(30, 15_000) + 25, 25, np.inf),
    "lognormal": (within(ROWS.lognormal(3, 1, 40_000), 15, np.inf), 15, np.inf),
    "cut above": (within(ROWS.normal(size=20_000), -np.inf, 1.5), -np.inf, 1.5),
    "after a spike": (np.where(ROWS.random(15_000) < 0.3, 0.0, ROWS.uniform(2, 3, 15_000)), 0, 3),
    "few rows": (within(ROWS.normal(size=4000), -2, np.inf, 2000), -2, np.inf),
}


@pytest.mark.parametrize("name", EDGES)
def test_an_edge_is_kept_without_a_pile(name):
    values, low, high = EDGES[name]
    new = generated(values, 100_000)
    assert new.min() >= low
    assert new.max() <= high
    inner = new[new != 0]
    assert most_frequent(inner) <= 3
    for edge, sign in ((low, 1), (high, -1)):
        if np.isfinite(edge):  # the share near the edge, against that of the training rows
            near = [(sign * (x - edge) < 0.02 * values.std()).mean() for x in (values, new)]
            assert abs(near[1] - near[0]) < 5 * np.sqrt(near[0] / len(values)) + 1e-4


TAILS = {
    "normal": lambda rng: rng.normal(size=5000),
    "lognormal": lambda rng: rng.lognormal(0, 1, 5000),
    "exponential": lambda rng: -rng.exponential(1, 5000),
    "student": lambda rng: rng.standard_t(4, 5000),
    "two normals": lambda rng: np.where(rng.random(5000) < 0.5, 1, 5) + rng.normal(size=5000),
}


@pytest.mark.parametrize("name", TAILS)
def test_soft_tails_are_no_edges(name):
    """The low side; of 40 tables at most two may err."""
    reasons = [choose(TAILS[name](np.random.default_rng(seed)))[1] for seed in range(40)]
    assert sum("hard low" in reason for reason in reasons) <= 2


@pytest.mark.parametrize(("cut", "n", "least"), [(2, 2000, 95), (2.5, 2000, 65), (3, 15_000, 82)])
def test_cuts_of_a_normal_are_found(cut, n, least):
    """Of 100 tables: seven standard deviations of chance below what trials gave."""
    found = 0
    for seed in range(100):
        values = np.random.default_rng(seed).normal(size=int(1.1 * n))
        found += hard_edges(values[values < cut][:n])["high"]
    assert found >= least


def test_ends_of_normals_and_of_small_peaks_are_none():
    wrong, peaks = 0, 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        normal = rng.normal(size=2000)
        wrong += sum(hard_edges(normal).values())
        peaks += hard_edges(np.where(rng.random(2000) < 0.05, 8 + normal / 2, normal))["high"]
    assert wrong <= 5
    assert peaks < 150


@pytest.mark.parametrize("spike", [False, True])
def test_a_lattice_holds_rows_that_were_set_aside(spike):
    """Else values of these would be refused where they are given."""
    rng = np.random.default_rng(0)
    x = np.round(rng.normal(size=(600, 1)), 3)
    x[:150] = 0.5 if spike else x[:150]
    used = np.arange(600) < 500
    for beside in (0.1234567, 0.123):
        x[-1] = beside
        fitted = TableTransform(classify=True).fit(EventTable.of(x), used)
        assert ("multiples of 0.001" in "\n".join(fitted.describe())) == (beside == 0.123)
        assert fitted.columns[0].transform.holds(x[:, 0]).all()
