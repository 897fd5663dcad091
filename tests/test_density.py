"""The density of rows: charts of columns, closed forms, what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from conftest import run
from scipy.stats import norm
from sklearn.model_selection import GridSearchCV

from flowbdt import FlowBDT
from flowbdt.errors import ConfigError, InputError
from flowbdt.generation import density
from flowbdt.generation.density import Density, Reference
from flowbdt.tables.event_table import EventTable
from flowbdt.tables.formats import read_table, write_table
from flowbdt.tables.transforms import build_column
from flowbdt.tables.transforms.charts import Spline

SMALL = {
    "preset": "fast",
    "n_steps": 1,
    "solver": "euler",
    "booster": {"n_estimators": 1},
    "preconditioner": {"name": "mixture", "n_components": 8},
    "rejection": False,
    "random_state": 1,
}
RNG = np.random.default_rng(0)
STATE = RNG.bit_generator.state


@pytest.fixture(autouse=True)
def same_numbers():
    """What a test draws does not depend on the tests that its process ran before."""
    RNG.bit_generator.state = STATE


NORMAL = RNG.normal(size=4000)
WITH_LIMIT = np.where(NORMAL < -1, 0.0, np.exp(NORMAL))

CONTINUOUS = {
    "standard": (2 * NORMAL + 3, "standard", (-9, 15)),
    "log": (np.exp(NORMAL), "log", (1e-5, 300)),
    "logit": (1 / (1 + np.exp(-NORMAL)), {"name": "logit", "low": 0, "high": 1}, (1e-6, 1 - 1e-6)),
    "rank": (2 * NORMAL, "rank", (-30, 30)),
    "chain": (np.exp(NORMAL), ["log", "standard"], (1e-5, 300)),
    "circular": (NORMAL % 6, {"name": "circular", "period": 6, "low": 0}, (0, 6)),
}


def total(chart, values, width):
    """The sum or integral of the density of values, if latent points are standard normal."""
    n = 64 if chart.draws and len(values) < 1000 else 1
    uniform = (np.arange(n) + 0.5) / n
    latent, log_volume = chart.points(np.repeat(values, n), np.tile(uniform, len(values)))
    logs = norm.logpdf(latent).sum(axis=1) + log_volume
    return (np.exp(logs).reshape(-1, n).mean(axis=1) * width).sum()


@pytest.mark.parametrize("name", CONTINUOUS)
def test_charts_of_continuous_columns_keep_the_total(name):
    values, spec, (low, high) = CONTINUOUS[name]
    chart = build_column(spec).fit(values, RNG).chart()
    if name in ("log", "chain"):
        grid = np.geomspace(low, high, 4001)
        assert total(chart, (grid[1:] + grid[:-1]) / 2, np.diff(grid)) == pytest.approx(1, abs=1e-3)
    else:
        grid = np.linspace(low, high, 4001)
        middle = (grid[1:] + grid[:-1]) / 2
        assert total(chart, middle, np.diff(grid)) == pytest.approx(1, abs=5e-3)
    latent, _ = chart.points(values[:50], np.full(50, 0.5))
    np.testing.assert_allclose(chart.values(latent), values[:50], rtol=1e-6)


def test_charts_of_values_with_a_probability_keep_the_total():
    counts = RNG.poisson(20, 4000).astype(float)
    chart = build_column("integer").fit(counts, RNG).chart()
    assert total(chart, np.arange(-50.0, 150), 1) == pytest.approx(1, abs=1e-3)
    chart = build_column({"name": "integer", "step": 5.0}).fit(5 * counts, RNG).chart()
    assert total(chart, 5 * np.arange(-50.0, 150), 5) == pytest.approx(1, abs=1e-3)
    chart = build_column("categorical").fit(counts % 3, RNG).chart()
    assert total(chart, np.arange(5.0), 1) == pytest.approx(1, abs=1e-4)
    chart = build_column("rank").fit(WITH_LIMIT, RNG).chart()
    grid = np.geomspace(1e-3, 300, 4001)
    smooth = total(chart, (grid[1:] + grid[:-1]) / 2, np.diff(grid))
    atom = total(chart, np.zeros(1), 1)
    assert (atom, smooth) == (
        pytest.approx(norm.cdf(-1), abs=0.02),
        pytest.approx(1 - atom, abs=0.01),
    )
    assert chart.points(np.array([-1.0]), np.zeros(1))[1] == -np.inf  # below the limit
    latent = RNG.normal(size=(50, 1))
    again, _ = chart.points(chart.values(latent), np.full(50, 0.5))
    np.testing.assert_allclose(chart.values(again), chart.values(latent), rtol=1e-6)


def test_splines_have_their_slope_and_inverse():
    spline = Spline.through(np.array([0.0, 1.0, 1.1, 4.0]), np.array([-1.0, 0.0, 2.0, 2.5]))
    x = np.linspace(-3, 7, 501) + 1e-3
    z, log_slope = spline.forward(x)
    assert (np.diff(z) > 0).all()
    slope = (spline.forward(x + 1e-6)[0] - z) / 1e-6
    np.testing.assert_allclose(np.exp(log_slope), slope, rtol=1e-3)
    np.testing.assert_allclose(spline.inverse(z), x, atol=1e-9)


MEAN, COV = np.array([1.0, -2.0]), np.array([[1.0, 1.2], [1.2, 4.0]])


def log_normal(x, mean, cov):
    away = x - mean
    square = np.einsum("ni,ij,nj->n", away, np.linalg.inv(cov), away)
    return -0.5 * (square + np.log(np.linalg.det(2 * np.pi * cov)))


@pytest.fixture(scope="module")
def gaussian():
    x = np.random.default_rng(1).multivariate_normal(MEAN, COV, 2000)
    return FlowBDT(**SMALL, density=True).fit(x)


def test_density_of_a_gaussian(gaussian, tmp_path):
    test = RNG.multivariate_normal(MEAN, COV, 1000)
    logs, error = gaussian.score_samples(test, return_error=True)
    truth = log_normal(test, MEAN, COV)
    assert abs(logs.mean() - truth.mean()) < 0.05
    assert np.sqrt(((logs - truth)[truth > -6] ** 2).mean()) < 0.3
    assert error.max() < 0.02
    axes = np.linspace(-6, 8, 281), np.linspace(-16, 12, 281)
    grid = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2)
    assert np.exp(gaussian.score_samples(grid)).sum() * 0.05 * 0.1 == pytest.approx(1, abs=0.01)
    np.testing.assert_array_equal(gaussian.score_samples(test[5:9]), logs[5:9])
    assert gaussian.score(test) == logs.mean()
    gaussian.save(tmp_path / "model.flowbdt")
    loaded = FlowBDT.load(tmp_path / "model.flowbdt")
    assert loaded.density is True
    np.testing.assert_array_equal(loaded.score_samples(test), logs)
    np.testing.assert_array_equal(
        loaded.sample(5, random_state=1), gaussian.sample(5, random_state=1)
    )


def test_ratio_learns_what_the_closed_form_lacks():
    x = RNG.uniform(-1, 1, size=(2500, 2))  # one Gaussian for a square
    one = {**SMALL, "preconditioner": "gaussian", "transforms": "standard"}
    model = FlowBDT(**one).fit(x)
    test = RNG.uniform(-0.95, 0.95, size=(1000, 2))
    with pytest.raises(AttributeError, match="score_samples") as error:
        model.score_samples(test)
    assert "fit_density" in str(error.value.__cause__)
    bare = Reference(model.flow()).log_density(test, None)[0]
    model.fit_density(x)
    logs, error = model.score_samples(test, return_error=True)
    assert abs(logs.mean() - np.log(0.25)) < 0.1 < abs(bare.mean() - np.log(0.25))
    assert (error < 0.03).all()


@pytest.fixture(scope="module")
def mixed():
    """Rows of a condition, an atom, a category, a count, a relation, and missing values."""
    rng = np.random.default_rng(2)
    n = 4300  # classifiers of larger tables look for fewer settings
    c = rng.uniform(0, 1, n)
    kind = np.where(rng.random(n) < 0.3 + 0.4 * c, "a", "b")
    x = rng.normal(np.where(kind == "a", 1.0, -1.0) + c, 0.5)
    y = np.where(rng.random(n) < 0.25, 0.0, np.exp(rng.normal(size=n)))
    k = rng.poisson(30, n)
    m = np.where(rng.random(n) < 0.2, np.nan, rng.normal(size=n))
    return pd.DataFrame({"kind": kind, "x": x, "y": y, "k": k, "m": m, "twice": 2 * x, "c": c})


def test_density_of_mixed_columns_at_conditions(mixed, monkeypatch):
    monkeypatch.setattr(density, "N_DRAWN", 10_000)
    table, cond = mixed.drop(columns="c"), mixed[["c"]]
    model = FlowBDT(**SMALL, relations=["twice = 2 * x"], relative=None, density=True)
    model.fit(table[200:], cond=cond[200:])
    some, at = table[:100], cond[:100]
    logs, error = model.score_samples(some, cond=at, return_error=True)
    x, c, kind, y, m = some["x"], at["c"], some["kind"], some["y"], some["m"]
    p_a = 0.3 + 0.4 * c
    truth = np.log(np.where(kind == "a", p_a, 1 - p_a))
    truth += norm.logpdf(x, np.where(kind == "a", 1.0, -1.0) + c, 0.5)
    smooth = norm.logpdf(np.log(np.maximum(y, 1e-9))) - np.log(np.maximum(y, 1e-9))
    truth += np.where(y == 0, np.log(0.25), np.log(0.75) + smooth)
    truth += norm.logpdf(some["k"], 30, np.sqrt(30))  # nearly
    truth += np.where(m.isna(), np.log(0.2), np.log(0.8) + norm.logpdf(m.fillna(0)))
    assert abs(logs.mean() - truth.mean()) < 0.2
    assert np.corrcoef(logs, truth)[0, 1] > 0.9
    assert np.median(error) < 0.1
    # the likelihood ratio of two conditions, and sums over values
    ratio = model.score_samples(some, cond={"c": [1.0]}) - model.score_samples(
        some, cond={"c": [0.0]}
    )
    both = norm.logpdf(x, np.where(kind == "a", 1.0, -1.0) + 1, 0.5) - norm.logpdf(
        x, np.where(kind == "a", 1.0, -1.0), 0.5
    )
    both += np.log(np.where(kind == "a", 0.7 / 0.3, 0.3 / 0.7))
    assert np.corrcoef(ratio, both)[0, 1] > 0.9
    # what cannot be
    strange = some[:3].copy()
    strange["twice"] = [1e3, *strange["twice"][1:]]
    strange.loc[strange.index[1], "y"] = -1.0
    assert np.isneginf(model.score_samples(strange, cond=at[:3])[:2]).all()
    with pytest.raises(InputError, match="x"):
        model.score_samples(some.assign(x=np.nan), cond=at)
    with pytest.raises(InputError, match="conditions"):
        model.score_samples(some)


def test_draws_of_the_reference_have_its_density(mixed):
    model = FlowBDT(**SMALL).fit(mixed[["kind", "x", "y"]])
    reference = Reference(model.flow())
    drawn = reference.draw(None, 2500, 3)
    flat = {"kind": [0.0, 1.0], "y": [True, False]}
    log_density, _ = reference.log_density(drawn, None)
    # the mean of g / q over draws of q is the total of g, here of each kind at the atom
    for kind in flat["kind"]:
        at = (drawn[:, 0] == kind) & (drawn[:, 2] == 0)
        g = norm.pdf(drawn[at, 1], 0.5, 0.7)
        weight = np.zeros(len(drawn))
        weight[at] = g / np.exp(log_density[at])
        assert weight.mean() == pytest.approx(1, abs=max(4 * weight.std() / 50, 0.05))


def test_scikit_learn_scores_by_it():
    x = RNG.normal(size=(300, 1))
    model = FlowBDT(**SMALL, density=True)
    grid = {"preconditioner": ["gaussian", {"name": "mixture", "n_components": 40}]}
    search = GridSearchCV(model, grid, cv=2, refit=False).fit(x)
    assert search.best_params_ == {"preconditioner": "gaussian"}
    assert search.best_score_ == pytest.approx(-0.5 * np.log(2 * np.pi * np.e), abs=0.15)


def test_what_has_no_density_is_refused(gaussian):
    x = RNG.normal(size=(200, 2))
    with pytest.raises(ConfigError, match="mixture"):
        FlowBDT(**{**SMALL, "preconditioner": "none"}, density=True).fit(x)
    with pytest.raises(ConfigError, match="linear function"):
        FlowBDT(**SMALL, density=True, relations=[]).fit(np.c_[x, x @ [1.0, 1.0]])
    with pytest.raises(InputError, match="2 columns"):
        gaussian.score_samples(x[:, :1])


def test_learned_coordinates_count_by_their_volume():
    gen = RNG.uniform(20, 200, 2000)
    sim = gen * RNG.normal(1, 0.1, 2000)
    model = FlowBDT(**SMALL, relative={"sim": "ratio gen"}, density=True)
    model.fit(pd.DataFrame({"sim": sim}), cond=pd.DataFrame({"gen": gen}))
    logs = model.score_samples(pd.DataFrame({"sim": sim}), cond=pd.DataFrame({"gen": gen}))
    assert logs.mean() == pytest.approx(norm.logpdf(sim, gen, 0.1 * gen).mean(), abs=0.06)


def test_a_turn_counts_per_unit_of_its_angle_or_vector():
    rng, n = np.random.default_rng(3), 800
    pt, eta, phi = 20 + rng.gamma(3, 5, n), rng.normal(size=n), rng.uniform(-np.pi, np.pi, n)
    polar = {"pt": pt, "eta": eta, "phi": phi}
    vectors = {"px": pt * np.cos(phi), "py": pt * np.sin(phi), "pz": pt * np.sinh(eta)}
    with_energy = {"E": np.hypot(pt * np.cosh(eta), 0.1), **vectors}
    logs, models = [], []
    for columns in ({"pt": pt, "eta": eta}, polar, vectors, with_energy):
        mass = {} if "E" in columns else {"mass": 0}
        particles = {"a": {k: k for k in columns} | mass} if len(columns) > 2 else {}
        settings = {"particles": particles, "require": ["pt > 21"] if columns is polar else []}
        model = FlowBDT(**SMALL, **settings, observables=[]).fit(pd.DataFrame(columns))
        assert bool(model.transform_.turn) == (len(columns) > 2)
        models.append(model)
        x = np.column_stack([*columns.values()])
        logs.append(Reference(model.flow()).log_density(x, None)[0])
    assert np.allclose(logs[1], logs[0] - np.log(2 * np.pi), atol=1e-9)
    assert np.allclose(logs[2], logs[1] - np.log(pt**2 * np.cosh(eta)), atol=1e-4)
    assert np.allclose(logs[3], logs[2], atol=1e-4)
    wrong = np.column_stack([*{**with_energy, "E": 1.1 * with_energy["E"]}.values()])
    assert np.isneginf(Reference(models[3].flow()).log_density(wrong, None)[0]).all()
    model = models[1].fit_density(pd.DataFrame(polar))
    turned = pd.DataFrame({**polar, "phi": phi[::-1]})
    assert np.allclose(model.score_samples(turned), model.score_samples(pd.DataFrame(polar)))
    assert np.isneginf(model.score_samples(turned.assign(pt=20.5))).all()


def test_weights_count():
    x = np.r_[RNG.normal(-2, 1, 1500), RNG.normal(2, 1, 1500)][:, None]
    model = FlowBDT(**SMALL, density=True)
    model.fit(x, sample_weight=np.repeat([3.0, 1.0], 1500))
    one, other = model.score_samples(np.array([[-2.0], [2.0]]))
    assert one - other == pytest.approx(np.log(3), abs=0.25)
    assert isinstance(Density.restore(model.flow(), model.flow().density), Density)


def test_a_command_writes_densities(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    x = RNG.multivariate_normal(MEAN, COV, 500)
    table = EventTable.of(x, ["a", "b"])
    write_table("rows.h5", table)
    model = FlowBDT(**SMALL | {"preconditioner": "gaussian"}).fit(
        table.select(["a"]), cond=table.select(["b"])
    )
    model.save("model.flowbdt")
    assert run("score", "model.flowbdt", "rows.h5", "-o", "scored.h5") == 1
    assert "no density: name the rows of training" in capsys.readouterr().err
    assert not (tmp_path / "scored.h5").exists()
    words = ["score", "model.flowbdt", "rows.h5", "-o", "scored.h5", "--training", "rows.h5"]
    assert run(*words) == 0
    assert "500 rows, mean log density" in capsys.readouterr().out
    scored = read_table("scored.h5")
    assert scored.names == ("a", "b", "log_density", "log_density_error")
    model.fit_density(table.select(["a"]), cond=table.select(["b"]))
    logs, error = model.score_samples(table, return_error=True)
    np.testing.assert_array_equal(scored.column("log_density"), logs)
    np.testing.assert_array_equal(scored.column("log_density_error"), error)
    model.save("with.flowbdt")
    assert run("generate", "with.flowbdt", "--conditions", "rows.h5", "-o", "new.h5") == 0
    assert run("score", "with.flowbdt", "new.h5", "-o", "own.csv") == 0  # conditions marked as such
    assert np.isfinite(read_table("own.csv").column("log_density")).all()
