"""Weights of both signs: of simulation at next-to-leading order, of an unfolded source (sPlot)."""

import numpy as np
import pytest
from scipy.stats import expon, norm
from sklearn.linear_model import LogisticRegression

from flowbdt import FlowBDT
from flowbdt.errors import DataWarning, InputError
from flowbdt.evaluation.metrics import classifier_auc, separation_power
from flowbdt.evaluation.metrics.marginal import profile
from flowbdt.evaluation.report.figures import Shape
from flowbdt.evaluation.score_events import ComparedTables, score_events
from flowbdt.tables.event_table import EventTable
from flowbdt.trees.signed_weights import positive_weights

COLUMNS = ("njet", "pt", "eta", "dphi", "ht")
SETTINGS = {"preset": "fast", "booster": {"n_estimators": 10}, "random_state": 3}


def merged_jets(n, seed):
    """Jets merged with parton showers: columns, and the chance of a negative weight."""
    rng = np.random.default_rng(seed)
    njet = rng.poisson(1.2, n).clip(0, 4).astype(float)
    pt = rng.gamma(2 + 0.7 * njet, 12.0)
    eta, dphi = rng.normal(0, 1.6, n), rng.uniform(0, np.pi, n)
    ht = pt * (1 + 0.4 * njet) * np.exp(rng.normal(0, 0.2, n))
    chance = 0.1 + 0.1 * njet * np.exp(-pt / 200) + 0.05 * (np.abs(eta) > 2)
    return np.column_stack([njet, pt, eta, dphi, ht]), chance.clip(0, 0.45)


def drawn(n, seed):
    x, chance = merged_jets(n, seed)
    rng = np.random.default_rng(seed + 1)
    sign = np.where(rng.random(n) < chance, -1.0, 1.0)
    return x, sign * rng.choice([0.7, 1.0, 1.6], n)


@pytest.fixture(scope="module")
def jets():
    return drawn(5_000, 1)


@pytest.fixture(scope="module")
def truth():
    x, chance = merged_jets(200_000, 5)
    return x, 1 - 2 * chance


@pytest.fixture(scope="module")
def generated(jets):
    with pytest.warns(DataWarning, match=r"is negative.*0\.\d+% of"):
        model = FlowBDT(**SETTINGS).fit(jets[0], sample_weight=jets[1])
    return model.sample(30_000, random_state=1)


def pulls(x, weight, truth, errors_of):
    """Return for each column how far shares in bins are from the signed truth, in errors of one."""
    (true, true_weight), found = truth, []
    for j, column in enumerate(true.T):
        edges = np.arange(6) - 0.5 if j == 0 else np.quantile(column, np.linspace(0, 1, 11))
        edges[[0, -1]] = -1e6, 1e6
        wanted = Shape.of(column, true_weight, edges).share
        error = Shape.of(errors_of[0][:, j], errors_of[1], edges).error
        found.append((Shape.of(x[:, j], weight, edges).share - wanted) / error)
    return found


def test_a_fit_learns_the_density_that_signed_weights_stand_for(jets, truth, generated):
    size = np.abs(jets[1])
    assert size[jets[1] < 0].sum() / size.sum() == pytest.approx(0.2, abs=0.02)
    found = pulls(generated, None, truth, jets)
    for name, column in zip(COLUMNS, found, strict=True):
        assert np.sqrt(np.mean(column**2)) < 1.5, name
    shares = [np.average(x[:, 0] == 4, weights=w) for x, w in (truth, (jets[0], size))]
    assert shares[1] > 2 * shares[0]  # without the signs


def test_a_second_component_is_taken_away():
    """sPlot of a mass peak on a falling background: the signal's lifetime, in closed form."""
    rng, n = np.random.default_rng(2), (3_000, 6_000)
    mass = np.concatenate([rng.normal(5, 0.3, n[0]), rng.uniform(3, 7, n[1])])
    time = np.concatenate([rng.exponential(1.5, n[0]), rng.exponential(0.5, n[1])])
    density = np.column_stack([norm(5, 0.3).pdf(mass), np.full(len(mass), 0.25)])
    total = density @ n
    inverse = (density / total[:, None] ** 2).T @ density
    weight = (density @ np.linalg.inv(inverse)[0]) / total
    assert weight.sum() == pytest.approx(n[0], rel=0.05)
    found = positive_weights(time[:, None], weight)
    assert found.weight.min() >= 0
    assert found.weight.sum() == pytest.approx(weight.sum())
    edges = expon(scale=1.5).ppf(np.linspace(0, 1, 9)).clip(0, 1e6)
    error = Shape.of(time, weight, edges).error
    pull = (Shape.of(time, found.weight, edges).share - 100 / 8) / error
    assert np.sqrt(np.mean(pull**2)) < 1.5
    unsigned = (Shape.of(time, np.abs(weight), edges).share - 100 / 8) / error
    assert np.abs(unsigned).max() > 5


def test_scores_take_signed_weights(jets, truth):
    """Signed events look like others of their density, and the same without signs do not."""
    (x, signed), (others, positive) = jets, [a[:5_000] for a in truth]
    judged = {}
    for name, weight in (("signed", signed), ("unsigned", np.abs(signed))):
        weights = {"weight_real": weight, "weight_generated": positive}
        separation = separation_power(x[:, 0], others[:, 0], edges=np.arange(6) - 0.5, **weights)
        auc = classifier_auc(x[:, :2], others[:, :2], lambda _: LogisticRegression(), **weights)
        judged[name] = separation, auc
    (near, no_better), (far, better) = judged["signed"], judged["unsigned"]
    assert near.value < 4 * near.settings["expected_floor"] < far.value
    assert near.settings["expected_floor"] > 1.5 * far.settings["expected_floor"]
    assert abs(no_better.value - 0.5) < 3 * no_better.error
    assert better.value - 0.5 > 5 * better.error
    with pytest.raises(InputError, match="positive_weights"):
        profile(x[:, 1], others[:, 1], x[:, 0], others[:, 0], weight_real=signed)


def test_scores_without_signs_get_positive_weights(jets, truth):
    tables = [
        EventTable.of(x[:4_100, 1:2], ["pt"], cond=x[:4_100, :1], weight=w[:4_100])
        for x, w in (jets, truth)
    ]
    with pytest.warns(DataWarning, match="is negative"):
        scores = score_events(ComparedTables(*tables), {"profiles": {}, "separation": {}})
    assert all(
        np.isfinite(r.value) and r.error > 0 for r in (*scores["profiles"], *scores["separation"])
    )


def test_weights_without_a_density_are_refused():
    x = np.random.default_rng(0).normal(size=(300, 1))
    for weight in (-np.ones(300), np.linspace(-1.5, 1, 300), np.full(300, np.nan)):
        with pytest.raises(InputError, match="weights must"):
            FlowBDT().fit(x, sample_weight=weight)
