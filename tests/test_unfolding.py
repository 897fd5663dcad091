"""Unfolding against closed forms: OmniFold with misses, fakes and background; files, refusals."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from conftest import as_json, run

from flowbdt.errors import ConfigError, DataWarning, InputError
from flowbdt.physics.unfolding import UnfoldingInputs, unfold, unfolding_errors
from flowbdt.physics.unfolding.bayes import bayes_spectrum, bottom_line, iterate_bayes
from flowbdt.physics.unfolding.iterations import MORE
from flowbdt.physics.unfolding.method import Settings
from flowbdt.physics.unfolding.odds import CrossFittedOdds, Trees
from flowbdt.physics.unfolding.unfold import prepare
from flowbdt.physics.unfolding.unfolded import folded_chi2
from flowbdt.tables.event_table import EventTable
from flowbdt.tables.formats import read_table, write_table

EDGES = [-1.0, -0.3, 0.1, 0.5, 0.9, 1.6]
MEAN, N_DATA = 0.3, 4000
FAKES, BACKGROUND = 0.2, 0.2
"""Shares of the selected events, and of the data."""


def expected(mean=MEAN, n=N_DATA):
    """Events of a normal truth in the bins."""
    below = [0.5 * (1 + math.erf((edge - mean) / math.sqrt(2))) for edge in EDGES]
    return n * np.diff(below)


def toy(n, mean, seed, fakes=FAKES):
    """Normal truth, resolution 0.3, efficiency a function of truth, fakes of another shape."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(mean, 1.0, n)
    reco = truth + rng.normal(0.0, 0.3, n)
    seen = rng.random(n) < 0.9 / (1 + np.exp(-1.5 * (truth + 1.5)))
    n_fakes = round(seen.sum() * fakes / (1 - fakes))
    nothing = np.full(n_fakes, np.nan)
    return {
        "gen_x": np.concatenate([truth, nothing]),
        "x": np.concatenate([np.where(seen, reco, np.nan), rng.normal(-0.5, 1.2, n_fakes)]),
        "is_gen": np.repeat([True, False], [n, n_fakes]),
        "is_reco": np.concatenate([seen, np.ones(n_fakes, dtype=bool)]),
    }


@pytest.fixture(scope="module")
def samples():
    """Simulation, and detector level of data and background."""
    simulation, events = toy(8000, 0.0, 1), toy(N_DATA, MEAN, 2)
    seen = events["x"][events["is_reco"]]
    rng, n_background = np.random.default_rng(3), round(len(seen) * BACKGROUND / (1 - BACKGROUND))
    data = np.concatenate([seen, rng.normal(1.2, 0.4, n_background)])
    background = rng.normal(1.2, 0.4, 4 * n_background)
    return simulation, data, background


def inputs_of(samples, **changes):
    simulation, data, background = samples
    given = {
        "truth": {"gen_x": simulation["gen_x"]},
        "reco": {"x": simulation["x"]},
        "data": {"x": data},
        "pass_truth": simulation["is_gen"],
        "pass_reco": simulation["is_reco"],
        "background": {"x": background},
        "background_weight": np.full(len(background), 0.25),
        **changes,
    }
    return UnfoldingInputs.of(**given)


@pytest.fixture(scope="module")
def unfolded(samples):
    return unfold(inputs_of(samples), n_iterations=5, random_state=1)


def pulls(found):
    """Distances from the closed form, in errors of counting inflated by the response."""
    return (found - expected()) / (1.5 * np.sqrt(expected()))


def test_omnifold_finds_the_truth_behind_misses_fakes_and_background(unfolded):
    found = pulls(unfolded.histogram("gen_x", EDGES))
    assert np.abs(found).max() < 4
    assert np.mean(found**2) < 3
    assert unfolded.table.weight.sum() == pytest.approx(N_DATA, rel=0.04)
    before = unfolded.inputs.weight[unfolded.inputs.pass_truth]
    prior = np.histogram(unfolded.table.x[:, 0], EDGES, weights=before * N_DATA / before.sum())[0]
    assert np.abs(pulls(prior)).max() > 5  # there was something to do


@pytest.mark.slow
def test_without_background_or_fakes_the_result_is_wrong(samples, unfolded):
    """The checks above would notice."""
    forgotten = inputs_of(samples, background=None, background_weight=None)
    found = unfold(forgotten, n_iterations=5, random_state=1).histogram("gen_x", EDGES)
    assert np.abs(pulls(found)).max() > 5


def test_response_and_the_way_back(unfolded):
    centre = unfolded.response("gen_x", EDGES, "x", EDGES)
    efficiency = 0.9 / (1 + np.exp(-1.5 * (0.3 + 1.5)))
    assert centre["efficiency"][2] == pytest.approx(efficiency, abs=0.04)
    assert centre["response"].argmax(axis=0).tolist() == [0, 1, 2, 3, 4]
    assert (centre["response"].sum(axis=0) <= centre["efficiency"] + 1e-9).all()
    n_selected = unfolded.inputs.data_weight.sum() * (1 - BACKGROUND)
    assert unfolded.simulation_weight[unfolded.inputs.fakes].sum() == pytest.approx(
        FAKES * n_selected, rel=0.05
    )
    back = unfolded.folded_back()
    assert back.weight.sum() == pytest.approx(unfolded.inputs.data_weight.sum(), rel=0.02)
    assert unfolded.closure()["x"] < 1.5


@pytest.mark.slow
@pytest.mark.parametrize(("mean", "few"), [(0.0, True), (0.6, False)])
def test_cross_validation_stops_early_where_there_is_little_to_unfold(mean, few):
    simulation, events = toy(3000, 0.0, 1), toy(1500, mean, 5)
    seen = events["x"][events["is_reco"]]
    inputs = inputs_of((simulation, seen, np.zeros(1)), background=None, background_weight=None)
    found = unfold(inputs, random_state=1).record
    assert (found["iterations"] <= 2 * MORE) == few
    best = min(found["tradeoff"], key=lambda row: row["held_out"])["iterations"]
    assert found["iterations"] == MORE * best
    worth = [row["worth"] for row in found["tradeoff"]]
    assert len(worth) == 8
    assert worth[0] > worth[-1]


def test_equal_seeds_give_equal_weights_whatever_the_threads(samples, unfolded):
    again = unfold(unfolded.inputs, n_iterations=5, random_state=1, n_threads=2)
    np.testing.assert_array_equal(again.simulation_weight, unfolded.simulation_weight)


def test_odds_of_rows_come_from_trees_without_them():
    """Labels are noise: odds of rows that were learned from would follow their labels."""
    rng = np.random.default_rng(1)
    x, label = rng.normal(size=(2000, 3)), rng.integers(0, 2, 2000).astype(float)
    trees = Trees(least_trees=20, max_depth=5, least_weight=1.0)
    odds = CrossFittedOdds(x, rng.integers(0, 2, 2000), trees, 1, 1)
    found = odds.fit(label, 1 - label)
    assert abs(np.corrcoef(found, label)[0, 1]) < 0.1
    assert odds.n_trees == 20


def test_hist_objects_of_a_result(unfolded):
    pytest.importorskip("hist", reason="hist is not installed (extra 'root')")
    found = unfolded.to_hist(edges={"gen_x": EDGES})["gen_x"]
    values = found[{"dataset": "unfolded"}].values()
    np.testing.assert_allclose(values, unfolded.histogram("gen_x", EDGES))


# ---- errors


@pytest.fixture(scope="module")
def shifted():
    """A small unfolding with a variation of the efficiency, and one of the scale only."""
    simulation, events = toy(3000, 0.0, 6, fakes=0.0), toy(1500, 0.0, 7, fakes=0.0)
    inputs = UnfoldingInputs.of(
        {"gen_x": simulation["gen_x"]},
        {"x": simulation["x"]},
        {"x": events["x"][events["is_reco"]]},
        pass_reco=simulation["is_reco"],
        variations={
            "same": np.full(3000, 7.0),
            "efficiency": np.where(simulation["is_reco"], 0.9, 1.1),
        },
    )
    return unfold(inputs, n_iterations=2)


def test_errors_add_up_and_their_parts_have_closed_forms(shifted):
    result = shifted
    errors = unfolding_errors(result, 8, parts=("data",), prior=False, executor="serial")
    assert set(errors.weights) == {"data", "same", "efficiency"}
    found = errors.table("gen_x", [-9, 9])
    # all events in one bin: their number scatters as Poisson, and is divided by the efficiency
    data = result.inputs.data.n
    share = result.table.weight.sum() / data
    assert found["data"][0] == pytest.approx(share * np.sqrt(data), rel=0.7)
    assert found["same"][0] == pytest.approx(0.0, abs=1e-3 * data)  # only the scale is another
    seen = result.inputs.pass_reco.mean()
    efficiency = 0.9 * seen / (0.9 * seen + 1.1 * (1 - seen))
    expected = data / efficiency - data / seen
    assert found["efficiency"][0] == pytest.approx(expected, rel=0.3)
    total = sum(found[part] ** 2 for part in ("data", "same", "efficiency"))
    np.testing.assert_allclose(found["total"] ** 2, total)
    low, high = errors.interval("gen_x", [-9, 9], 0.95)
    assert (high - low)[0] > 3.9 * found["total"][0]  # Student's


@pytest.mark.slow
def test_replicas_do_not_depend_on_the_executor(shifted, tmp_path):
    result = shifted
    here = unfolding_errors(result, 2, parts=("simulation",), folder=tmp_path)
    there = unfolding_errors(
        result, 2, parts=("simulation",), executor={"name": "joblib", "n_jobs": 2}
    )
    for part, weights in here.weights.items():
        np.testing.assert_array_equal(weights, there.weights[part])
    stored = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("replicas/*.npy")}
    unfolding_errors(result, 2, parts=("simulation",), folder=tmp_path)
    kept = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("replicas/*.npy")}
    assert kept == stored
    with pytest.raises(ConfigError, match="at least 2"):
        unfolding_errors(result, 1)
    with pytest.raises(ConfigError, match="part"):
        unfolding_errors(result, 2, parts=("weather",))


# ---- refusals, before any training


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pass_reco": None}, "hand in pass_reco"),
        ({"pass_truth": None}, "hand in pass_truth"),
        ({"pass_truth": np.ones(3)}, "must be .* truth values"),
        ({"reco": {"x": np.zeros(5)}}, "two levels of the same events"),
        ({"data": {"y": np.zeros(50)}}, "column .*'x'"),
        ({"data": {"x": np.array([0.0, np.nan])}}, "data must be finite"),
        ({"weight": np.ones(7)}, "weights of the simulation: .*shape"),
        ({"data_weight": np.ones(7)}, "data weights: .*shape"),
        ({"data": {"x": np.zeros(100)}}, "scale the background"),
        ({"data": {"x": np.full(9000, 99.0)}}, "outside the simulation's range of 'x'"),
        ({"variations": {"up": np.ones(3)}}, "weights 'up'"),
    ],
)
def test_what_does_not_fit_is_refused(samples, changes, said):
    with pytest.raises(InputError, match=said):
        inputs_of(samples, **changes)


def test_misses_without_a_flag_are_told(samples):
    seen = samples[0]["x"]
    with pytest.warns(DataWarning, match="say so by pass_reco"):
        inputs_of(samples, reco={"x": np.where(np.isnan(seen), -999.0, seen)}, pass_reco=None)


def test_another_generator_becomes_weights_of_both_levels(samples):
    """Its spectrum, resolution, efficiency and fakes; closed forms."""
    inputs = inputs_of(samples)
    rng = np.random.default_rng(7)
    other = toy(8000, 0.3, 8, fakes=0.1)
    other["x"] += np.where(other["is_gen"], rng.normal(0.1, 0.2, len(other["x"])), 0.0)
    lost = rng.random(len(other["x"])) < 0.3 * other["is_gen"]
    other["is_reco"], other["x"] = other["is_reco"] & ~lost, np.where(lost, np.nan, other["x"])
    there = inputs_of((other, *samples[1:]), outside=None)
    weight = inputs.with_generator("other", there).variations["other"]

    def described(own, weight):
        shift = (own.reco.x - own.truth.x)[own.both, 0]
        of_both = weight[own.both] / weight[own.both].sum()
        mean = of_both @ shift
        efficiency = weight[own.both].sum() / weight[own.pass_truth].sum()
        fakes = weight[own.fakes].sum() / weight[own.pass_reco].sum()
        truth = np.average(own.truth.x[own.pass_truth, 0], weights=weight[own.pass_truth])
        return np.array([truth, mean, np.sqrt(of_both @ (shift - mean) ** 2), efficiency, fakes])

    before, found, exact = (
        described(own, w)
        for own, w in ((inputs, inputs.weight), (inputs, weight), (there, there.weight))
    )
    assert (np.abs(before - exact) > [0.2, 0.08, 0.05, 0.15, 0.03]).all()
    assert (np.abs(found - exact) < [0.07, 0.03, 0.03, 0.04, 0.02]).all()
    assert weight.sum() == pytest.approx(there.weight.sum())
    with pytest.raises(InputError, match="a name of its own"):
        inputs.with_generator("data", there)
    far = inputs_of((toy(300, 9.0, 1), *samples[1:]), outside=None)
    with pytest.raises(InputError, match="hardly overlap"):
        inputs.with_generator("far", far)


def test_a_few_events_out_of_range_are_told(samples):
    simulation, data, background = samples
    with pytest.warns(DataWarning, match="at the edge"):
        inputs_of((simulation, np.append(data, np.full(20, 99.0)), background))


def test_unknown_methods_and_treatments_are_refused(unfolded):
    with pytest.raises(ConfigError, match="omnifold"):
        unfold(unfolded.inputs, "svd")
    with pytest.raises(ConfigError, match="share, rate"):
        unfold(unfolded.inputs, fakes="none")
    with pytest.raises(ConfigError, match="luminosity"):
        unfold(
            unfolded.inputs.reweighted(simulation=np.full(unfolded.inputs.n, 99.0)), fakes="rate"
        )


# ---- the command


def test_a_stranger_unfolds_root_files(tmp_path, samples, capsys):
    """Files as an analysis has them: written by uproot, misses marked by a flag and any number."""
    uproot = pytest.importorskip("uproot", reason="uproot is not installed (extra 'root')")
    simulation, data, background = samples
    arrays = {k: np.where(np.isnan(v), -999.0, v) for k, v in simulation.items()}
    arrays |= {k: simulation[k] for k in ("is_gen", "is_reco")}
    arrays["generator_weight"] = np.full(len(simulation["x"]), 2.0)
    for name, tree in (
        ("mc", arrays),
        ("data", {"run": np.arange(len(data)), "x": data}),
        ("bkg", {"x": background, "w": np.full(len(background), 0.25)}),
    ):
        with uproot.recreate(tmp_path / f"{name}.root") as file:
            file["Events"] = tree
    out = tmp_path / "out"
    command = [
        *("unfold", tmp_path / "mc.root:Events", tmp_path / "data.root", "-o", out),
        *("--truth", "gen_*", "--reco", "x", "--weight", "generator_weight"),
        *("--pass-truth", "is_gen", "--pass-reco", "is_reco", "--iterations", 5, "--seed", 1),
        *("--replicas", 0),
        *("--background", tmp_path / "bkg.root", "--background-weight", "w"),
        *("--bins", f"{{gen_x: {EDGES}}}"),
    ]
    assert run(*command) == 0
    assert "chi2 per bin at detector level" in capsys.readouterr().out
    content = json.loads((out / "unfolding.json").read_text())
    assert content["unfolding"]["iterations"] == 5
    assert np.abs(pulls(np.array(content["spectra"]["gen_x"]["unfolded"]))).max() < 4
    table = uproot.open(out / "unfolded.root")
    tree = table[table.keys()[0]].arrays(library="np")
    found = np.histogram(tree["gen_x"], EDGES, weights=tree["weight"])[0]
    np.testing.assert_allclose(found, content["spectra"]["gen_x"]["unfolded"], rtol=1e-6)
    assert run(*command, "--pass-reco", "no_such_flag") == 1
    assert "no_such_flag" in capsys.readouterr().err


def test_other_formats_and_wrong_names(tmp_path, capsys):
    simulation = toy(2000, 0.0, 1)
    write_table(tmp_path / "mc.h5", EventTable.of(simulation, missing=True))
    write_table(tmp_path / "data.csv", EventTable.of({"x": simulation["x"][-150:]}))
    files = [tmp_path / "mc.h5", tmp_path / "data.csv", "-o", tmp_path / "o", "-q"]
    names = ["--truth", "gen_x", "--reco", "x", "--pass-truth", "is_gen", "--pass-reco", "is_reco"]
    write_table(tmp_path / "other.csv", EventTable.of(toy(2000, 0.2, 4), missing=True))
    more = ["--generator", f"other={tmp_path / 'other.csv'}"]
    assert run("unfold", *files, *names, *more, "--iterations", 1, "--replicas", 2) == 0
    found = read_table(tmp_path / "o" / "unfolded.h5", ["gen_x", "data_1"])
    nominal = read_table(tmp_path / "o" / "unfolded.h5").weight
    assert found.column("data_1").sum() == pytest.approx(nominal.sum(), rel=0.4)
    spectrum = json.loads((tmp_path / "o" / "unfolding.json").read_text())["spectra"]["gen_x"]
    assert "1911.09107" in as_json("cite", tmp_path / "o")["arxiv"]
    assert as_json("show", tmp_path / "o")["spectra"]["gen_x"] == spectrum
    assert set(spectrum["errors"]) == {"data", "simulation", "other", "prior", "total"}
    covariance = np.array(spectrum["covariance"])
    np.testing.assert_allclose(np.sqrt(np.diag(covariance)), spectrum["errors"]["total"])
    before = (tmp_path / "o" / "replicas" / "0001.npy").read_bytes()
    (tmp_path / "o" / "replicas" / "0001.npy").unlink()
    assert run("replica", tmp_path / "o", 1, "-q") == 0
    assert (tmp_path / "o" / "replicas" / "0001.npy").read_bytes() == before
    assert run("unfold", *files, *names, "--bins", "{y: [0, 1]}") == 1
    assert "'y'" in capsys.readouterr().err
    assert run("unfold", *files, *names[:-2]) == 1
    assert "pass_reco" in capsys.readouterr().err


# ---- flows, and bins as a reference


FLOW = {"preset": "fast", "n_steps": 3, "preconditioner": "gaussian", "rejection": False}


def test_posterior_takes_the_data_as_its_prior_and_transport_gives_one_answer(samples):
    inputs = inputs_of(samples)
    changed = unfold(inputs, "posterior", n_iterations=3, n_draws=4, flow=FLOW, random_state=1)
    found = pulls(changed.histogram("gen_x", EDGES))
    assert np.mean(found**2) < 4
    assert changed.table.n == 4 * inputs.data.n
    assert changed.table.weight.sum() == pytest.approx(N_DATA, rel=0.05)
    kept = prepare(inputs, changed.settings, 1, changed.state).weigh(inputs, 0)
    assert changed.closure()["x"] < 2 < folded_chi2(inputs, kept.simulation)["x"]
    carried = unfold(inputs, "transport", flow=FLOW, random_state=1)
    assert carried.table.n == inputs.data.n
    assert carried.table.weight.sum() == pytest.approx(N_DATA, rel=0.05)
    errors = unfolding_errors(changed, 2, parts=("data",), prior=False)
    assert errors.weights["data"].shape == (2, changed.table.n)


def with_exact_draws(shift, width, n_draws, n=3000):
    """Return truth of the data, the posterior ready to weigh, and its inputs: normal, smeared."""
    rng = np.random.default_rng(1)
    simulated, true = rng.normal(size=(n, 1)), rng.normal(shift, 1.0, (n, 1))
    reco, data = (x + width * rng.normal(size=x.shape) for x in (simulated, true))
    asked = np.tile(data, (n_draws, 1))
    noise = width / np.sqrt(1 + width**2) * rng.normal(size=asked.shape)
    inputs = UnfoldingInputs.of(simulated, reco, data, outside=None)
    state = {"draws": asked / (1 + width**2) + noise}
    return true, prepare(inputs, Settings("posterior", n_draws=n_draws), 1, state), inputs


def test_few_draws_keep_a_part_of_the_prior():
    """Exact draws: their weights are shared out within each event of the data."""

    def left(n_draws):
        true, method, inputs = with_exact_draws(0.8, 0.7, n_draws)
        weight = method.weigh(inputs, 3).rows
        return true.mean() - np.average(method.rows.x[:, 0], weights=weight)

    assert left(Settings().n_draws) < 0.09 < 0.15 < left(2) < 0.25


def test_changes_of_a_prior_that_is_right_add_little_noise():
    _, method, inputs = with_exact_draws(0.0, 0.5, 16)
    x, edges = method.rows.x[:, 0], [-9, *np.linspace(-1.5, 1.5, 9), 9]
    kept, changed = (
        np.histogram(x, edges, weights=method.weigh(inputs, k).rows)[0] for k in (0, 6)
    )
    assert np.mean((changed - kept) ** 2 / kept) < 1


def test_transport_needs_as_many_columns_at_both_levels(samples):
    simulation, data, _ = samples
    more = {"x": simulation["x"], "y": simulation["x"]}
    none = {"background": None, "background_weight": None}
    inputs = inputs_of(samples, reco=more, data={"x": data, "y": data}, **none)
    with pytest.raises(ConfigError, match="got 2 and 1"):
        unfold(inputs, "transport")


def test_signed_weights_become_positive_ones_of_the_same_density(samples):
    simulation = samples[0]
    n = len(simulation["x"])
    sign = np.where(np.random.default_rng(1).random(n) < 0.2, -1.0, 1.0)
    with pytest.warns(DataWarning, match="non-negative weights"):
        inputs = inputs_of(samples, weight=sign)
    assert (inputs.weight >= 0).all()
    assert inputs.weight.sum() == pytest.approx(sign.sum())


def test_bayes_in_bins_agrees_with_the_closed_form(samples):
    seen = np.linspace(-3, 3, 25)
    found = pulls(bayes_spectrum(inputs_of(samples), "gen_x", EDGES, "x", seen, 5))
    assert np.mean(found**2) < 4


def test_bayes_is_exact_where_the_detector_is_perfect():
    found = iterate_bayes(np.diag([10.0, 20.0, 30.0]), np.array([7.0, 5.0, 3.0]), 1)
    np.testing.assert_allclose(found, [7.0, 5.0, 3.0])


def test_bayes_converges_to_the_inverse_of_the_response():
    response = np.array([[0.8, 0.3], [0.2, 0.7]]) * [50.0, 50.0]
    truth, efficiency = np.array([30.0, 90.0]), np.array([0.5, 1.0])
    data = response / response.sum(axis=0) @ (efficiency * truth)
    found = iterate_bayes(response, data, 400, efficiency)
    np.testing.assert_allclose(found, truth, rtol=1e-6)


@pytest.mark.slow
def test_unfolding_adds_no_information(shifted):
    errors = unfolding_errors(shifted, 6, parts=("data",), prior=False)
    detector = np.linspace(-2, 2, 9)
    found = bottom_line(errors, "gen_x", [-2, 0, 2], "x", detector)
    assert (found.detector_bins, found.truth_bins) == (8, 2)
    assert found.detector < 30  # the simulation is right: 8 are expected
    assert found.truth < 30
    tilted = np.exp(shifted.inputs.truth.x[:, 0])
    wrong = bottom_line(errors, "gen_x", [-2, 0, 2], "x", detector, tilted)
    assert min(wrong.detector, wrong.truth) > 50
    with pytest.raises(ConfigError, match="at least 7 replicas"):
        bottom_line(errors, "gen_x", [-2, -1, 0, 1, 2], "x", detector)
