"""Rejection: a classifier of real against generated events decides what is kept."""

from __future__ import annotations

import numpy as np
import pytest

from flowbdt import EventTable, FlowBDT, seeding
from flowbdt.config import ModelConfig
from flowbdt.errors import ConfigError, FormatError, InputError, RunError
from flowbdt.evaluation.entries import Truth
from flowbdt.generation import event_selection, trained_flow
from flowbdt.generation import fit_run as fit_file
from flowbdt.generation.fit_run import fit_run
from flowbdt.generation.trained_flow import Flow
from flowbdt.tables.formats import read_attributes, read_table
from flowbdt.tables.formulas.expressions import Cuts, declared
from flowbdt.training import run_directory
from flowbdt.training.collect import collect_steps
from flowbdt.training.plan import Inputs
from flowbdt.training.run_directory import RunDirectory
from flowbdt.trees.density_ratio import DensityRatio, trees_of_round

COARSE = {
    "n_steps": 2,
    "noise": {"n_repeats": 1, "candidates": 0},
    "preconditioner": "gaussian",
    "transforms": "standard",
    "booster": {"n_estimators": 2, "max_depth": 2, "early_stopping_rounds": 0},
    "random_state": 1,
}
"""A flow that cannot know the shape of what it learns."""


def two_islands(n, seed=0):
    """Events at |x| between 1 and 2, nothing between; the second column says how far out."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(1.0, 2.0, n) * rng.choice([-1.0, 1.0], n)
    return np.column_stack([x, np.abs(x) + rng.normal(size=n)])


def in_the_gap(x):
    return np.mean(np.abs(x[:, 0]) < 0.9)


@pytest.fixture(scope="module")
def plain():
    return FlowBDT(**COARSE, rejection=False).fit(two_islands(2000))


@pytest.fixture(scope="module")
def rejecting():
    return FlowBDT(**COARSE, rejection=True).fit(two_islands(2000))


def test_the_ratio_of_two_normal_distributions_is_found():
    """log N(0.5, 1) - log N(0, 1) is linear: x / 2 - 1 / 8."""
    rng = np.random.default_rng(0)
    real, generated = rng.normal(0.5, 1.0, (20_000, 1)), rng.normal(0.0, 1.0, (40_000, 1))
    ratio = DensityRatio.fit(real, generated, None, seed=1, n_threads=1)
    x = np.linspace(-1.5, 2.0, 200)[:, None]
    kept = np.mean([ratio.keeps(x, np.full(200, u)) for u in np.linspace(0.0025, 0.9975, 200)], 0)
    expected = np.minimum(np.exp(x[:, 0] / 2 - 1 / 8) / ratio.ceiling, 1.0)
    assert np.abs(kept - expected).mean() < 0.04


def test_the_ratio_of_many_events_has_fewer_and_deeper_trees():
    rules = [trees_of_round(n) for n in (500, 25_000, 50_000, 100_000, 10**7)]
    assert rules == [(4, 5), (4, 5), (2, 6), (1, 7), (1, 7)]


def test_thread_count_does_not_change_the_classifier():
    rng = np.random.default_rng(0)
    real, generated = rng.normal(0.5, 1.0, (3000, 3)), rng.normal(0.0, 1.0, (9000, 3))
    fits = [DensityRatio.fit(real, generated, None, seed=1, n_threads=n) for n in (1, 2)]
    x, u = rng.normal(size=(500, 3)).astype(np.float32), rng.random(500)
    assert fits[0].n_trees == fits[1].n_trees
    assert np.array_equal(fits[0].keeps(x, u), fits[1].keeps(x, u))
    quick = DensityRatio.fit(real, generated, None, seed=1, n_threads=1, rate=0.4)
    assert quick.n_trees < fits[0].n_trees
    bolder = DensityRatio.fit(real, generated, None, seed=1, n_threads=1, again=2.0)
    assert bolder.n_trees == fits[0].n_trees
    assert bolder.log_ratio(x).std() > 1.1 * fits[0].log_ratio(x).std()


def test_weights_say_what_is_real():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8000, 1))
    weight = np.where(x[:, 0] > 0, 3.0, 1.0)
    ratio = DensityRatio.fit(x, rng.normal(size=(16_000, 1)), weight, seed=1, n_threads=1)
    right, left = (ratio.keeps(np.full((4000, 1), v), rng.random(4000)).mean() for v in (1.0, -1.0))
    assert right / left == pytest.approx(3.0, rel=0.2)


def test_equal_distributions_are_nearly_all_accepted():
    rng = np.random.default_rng(0)
    ratio = DensityRatio.fit(
        rng.normal(size=(4000, 2)), rng.normal(size=(16_000, 2)), None, seed=1, n_threads=1
    )
    assert ratio.acceptance > 0.8


def test_matching_spreads_what_is_kept_like_real_events_in_each_column():
    """A coarse classifier bends columns; events that it has not seen set them right."""
    rng = np.random.default_rng(0)
    mixing = np.array([[1.0, 0.6, 0.3], [0.0, 0.8, 0.5], [0.0, 0.0, 0.8]])
    real = rng.normal(0.2, 1.0, (5000, 3)) @ mixing
    weight = np.where(real[:, 1] > 0, 2.0, 1.0)
    made = [rng.normal(0.0, 1.1, (n, 3)) for n in (10_000, 20_000, 40_000)]
    ratio = DensityRatio.fit(real, made[0], weight, seed=1, n_threads=1, rate=1.0)
    matched = ratio.matched(real, made[1], weight, seed=1, n_threads=1)
    edges = [np.quantile(x, np.linspace(0, 1, 11)) for x in real.T]

    def distance(one):
        kept = made[2][one.keeps(made[2], rng.random(len(made[2])))]
        shares = [
            np.histogram(x, e, weights=w)[0] / (len(x) if w is None else w.sum())
            for rows, w in ((kept, None), (real, weight))
            for x, e in zip(rows.T, edges, strict=True)
        ]
        return np.abs(np.subtract(shares[:3], shares[3:])).mean()

    assert distance(matched) < 0.6 * distance(ratio)
    log_weight = matched.log_weight(made[2])
    assert np.exp(log_weight).mean() == pytest.approx(1.0, abs=0.03)
    assert np.exp(log_weight).mean() / matched.ceiling == pytest.approx(
        matched.acceptance, rel=0.02
    )
    again = ratio.matched(real, made[1], weight, seed=1, n_threads=2)
    assert np.array_equal(again.log_weight(made[2]), log_weight)
    stored = DensityRatio.from_bytes(matched.to_bytes())
    assert stored.n_trees == matched.n_trees
    assert np.array_equal(stored.log_weight(made[2]), log_weight)


def test_where_few_events_are_like_real_ones_only_these_are_kept():
    """A tenth of the events is near a ring; the ratio of all others is about the same, near 0."""
    rng = np.random.default_rng(0)
    angle, radius = rng.uniform(0, 2 * np.pi, 3000), rng.normal(1.0, 0.02, 3000)
    ring = radius[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])
    real, made = (np.column_stack([x, np.hypot(*x.T)]) for x in (ring, rng.normal(size=(8000, 2))))
    ratio = DensityRatio.fit(real, made, None, seed=1, n_threads=1)
    kept = made[ratio.keeps(made, rng.random(len(made)))]
    assert np.abs(kept[:, 2] - 1).mean() < 0.05
    assert ratio.acceptance == pytest.approx(len(kept) / len(made), rel=0.2)


def test_rejection_removes_what_the_flow_leaves_in_a_gap(plain, rejecting):
    before, after = (in_the_gap(model.sample(8000, random_state=3)) for model in (plain, rejecting))
    assert before > 0.2
    assert after < before / 4


def test_the_stated_acceptance_is_the_real_one(rejecting):
    flow = Flow(run_directory.Archive("model", rejecting.archive_), rejects=False)
    x = np.vstack([block.x for block in flow.sample_blocks(20_000, seed=9)])
    kept = rejecting.flow().ratio.keeps(x, np.random.default_rng(0).random(len(x)))
    error = np.sqrt(rejecting.acceptance_ / len(x) + 1e-4)  # the ceiling is a quantile: 1% more
    assert kept.mean() == pytest.approx(rejecting.acceptance_, abs=5 * error)


def test_events_do_not_depend_on_how_many_are_asked_for_or_worked_on_together(
    rejecting, monkeypatch
):
    n = 2 * seeding.BLOCK + 100
    all_of_them = rejecting.sample(n, random_state=5)
    for few in (1, 77, seeding.BLOCK + 3):
        assert np.array_equal(rejecting.sample(few, random_state=5), all_of_them[:few])
    monkeypatch.setattr(trained_flow, "TOGETHER", 1)
    assert np.array_equal(rejecting.sample(n, random_state=5), all_of_them)


def test_conditions_stay_with_their_events():
    rng = np.random.default_rng(0)
    cond = rng.choice([0.0, 5.0], 3000)
    x = two_islands(3000) + cond[:, None]
    model = FlowBDT(**COARSE, rejection=True).fit(EventTable.of(x, cond=cond))
    given = np.repeat([0.0, 5.0], 2000)[:, None]
    new = model.sample(cond=given, random_state=2)
    assert np.array_equal(new.cond, given)
    for value in (0.0, 5.0):
        x = new.x[given[:, 0] == value]
        error = np.sqrt(2.4 / len(x)) + 0.05  # 5 standard errors, and what trees leave
        assert x[:, 0].mean() == pytest.approx(value, abs=5 * error)


def test_given_pairs_have_nothing_to_draw_anew():
    x = two_islands(300)
    settings = {**COARSE, "coupling": "given"}
    model = FlowBDT(**settings, preset="balanced").fit(x, source=x + 0.1)
    assert model.acceptance_ == 1.0
    with pytest.raises(ConfigError, match="leave one of them out"):
        FlowBDT(**settings, rejection=True).fit(x, source=x + 0.1)


def planned(folder):
    inputs = Inputs(EventTable.of(two_islands(400)), ModelConfig(**COARSE, rejection=True), 1)
    return inputs, RunDirectory(folder)


def test_a_run_killed_before_its_rejection_is_learned_goes_on(tmp_path):
    inputs, run = planned(tmp_path / "a")
    fit_run(inputs, run.path)
    whole = run.read("manifest.json")
    run.file(run_directory.REJECTION).unlink()
    collect_steps(run)  # what stands when the process dies after the last step
    with pytest.raises(FormatError, match="resume"):
        Flow(run)
    fit_run(inputs, run.path, resume=True)
    assert run.read("manifest.json") == whole


def test_a_rejection_of_these_models_is_not_learned_twice(tmp_path, monkeypatch):
    inputs, run = planned(tmp_path / "a")
    fit_run(inputs, run.path)
    whole = run.read("manifest.json")
    monkeypatch.setattr(DensityRatio, "fit", None)
    fit_run(inputs, run.path, resume=True)
    assert run.read("manifest.json") == whole


def test_a_changed_classifier_is_noticed(tmp_path):
    inputs, run = planned(tmp_path / "a")
    fit_run(inputs, run.path)
    content = bytearray(run.read(run_directory.REJECTION))
    content[len(content) // 2] ^= 1
    run.file(run_directory.REJECTION).write_bytes(bytes(content))
    with pytest.raises(FormatError, match="hash"):
        Flow(run)


def test_hopeless_events_are_kept_with_a_warning(rejecting, monkeypatch):
    flow = rejecting.flow()
    monkeypatch.setattr(
        flow.generator.ratio, "keeps", lambda x, uniform: np.zeros(len(x), dtype=bool)
    )
    monkeypatch.setattr(event_selection, "MOST_ATTEMPTS", 3)
    with pytest.warns(UserWarning, match="10 event"):
        table = next(flow.sample_blocks(10, seed=1))
    assert table.n == 10


# ---- observables and cuts

PAIR = {f"j{i}": {"pt": f"pt{i}", "eta": f"eta{i}", "phi": f"phi{i}", "mass": 0} for i in (1, 2)}
CUTS = ["pt2 > 25", "abs(eta1) < 2.5", "deltaR(j1, j2) > 0.4", "far == 1 or not (pt1 > 60)"]


def jets(n=1500, seed=0):
    """Two jets with the edges of `CUTS`, in the float32 of a file."""
    rng = np.random.default_rng(seed)
    pt = 25.0 + rng.exponential(10.0, (2, 4 * n))
    columns = {"pt1": pt.max(axis=0), "pt2": pt.min(axis=0)}
    for i in (1, 2):
        columns |= {f"eta{i}": rng.normal(0.0, 1.5, 4 * n), f"phi{i}": rng.uniform(-3, 3, 4 * n)}
    table = EventTable.of({k: v.astype(np.float32) for k, v in columns.items()})
    kept = cuts_of(["far = deltaR(j1, j2) > 1"]).hold(table.by_name())
    return table.take(np.flatnonzero(kept)[:n])


def cuts_of(observables):
    return Cuts.parse(CUTS, *declared(observables, PAIR))


DERIVED = {"observables": ["far = deltaR(j1, j2) > 1"], "particles": PAIR, "require": CUTS}


def meets(table):
    return cuts_of(DERIVED["observables"]).hold(table.by_name())


@pytest.fixture(scope="module")
def cut():
    return FlowBDT(**COARSE, rejection=False, coordinates="columns", **DERIVED).fit(jets())


@pytest.mark.parametrize("rejection", [False, True])
def test_cuts_hold_in_every_event_whatever_the_chunks(rejection, cut, tmp_path, monkeypatch):
    model = FlowBDT(**COARSE, rejection=True, **DERIVED).fit(jets()) if rejection else cut
    n = seeding.BLOCK + 500
    events = model.sample(n, random_state=4)
    assert meets(events).all()
    flow = Flow(run_directory.Archive("model", model.archive_), rejects=False, requires=False)
    free = EventTable.concatenate(list(flow.sample_blocks(20_000, seed=5)))
    share = meets(free).mean()
    assert 0.2 < share < 0.99  # a coarse flow does not keep them by itself
    assert model.flow().required == pytest.approx(share, abs=0.02)
    assert model.acceptance_ <= model.flow().required
    assert np.array_equal(model.sample(77, random_state=4).x, events.x[:77])
    one = model.sampler(random_state=4)
    assert all(np.array_equal(one.one(), events.x[i]) for i in range(3))
    model.save(tmp_path / "m.flowbdt")
    again = FlowBDT.load(tmp_path / "m.flowbdt")
    assert again.get_params()["require"] == CUTS
    assert np.array_equal(again.sample(77, random_state=4).x, events.x[:77])
    model.sample_to(tmp_path / "a.h5", n, random_state=4)
    written = read_table(tmp_path / "a.h5")
    assert np.array_equal(written.x, events.x)
    assert read_attributes(tmp_path / "a.h5")["required"] == model.flow().required
    monkeypatch.setattr(trained_flow, "TOGETHER", 1)
    assert np.array_equal(model.sample(n, random_state=4).x, events.x)


def test_completed_rows_meet_the_cuts_or_are_refused(cut):
    model = FlowBDT(**{**COARSE, "preconditioner": "mixture"}, rejection=False, **DERIVED)
    model.fit(jets(400))
    given = EventTable.of({"pt1": np.full(300, 61.0), "eta1": np.full(300, 1.0)})
    filled = model.sample(given=given, random_state=1)
    assert meets(filled).all()
    assert (filled.column("pt1") == 61.0).all()
    with pytest.raises(InputError, match="no proposal for 1 row .first: row 0. meets require"):
        model.sample(given={"eta1": [2.75]}, random_state=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"require": ["pt2 > 26"]}, r"require 'pt2 > 26' does not hold in .* rows .1.\...%."),
        ({"require": ["pt1 > 60", "pt1 < 50"]}, "require 'pt1 > 60' does not hold"),
        ({"require": ["pt1 + 1 < pt1"]}, r"does not hold in 1500 rows .100.00%."),
        ({"require": ["pt3 > 25"]}, "unknown column 'pt3'. Did you mean 'pt2'"),
        ({"require": ["pt1"]}, "is a number, not a condition"),
        ({"require": ["2 > 1"]}, "uses no column"),
        ({"observables": ["m = mass(j1, j3)"]}, "unknown particle 'j3'"),
        ({"observables": ["m = log(pt2 - 26)"]}, "is undefined in .* rows .*of the training table"),
        (
            {"particles": {"j1": {**PAIR["j1"], "pt": "pt"}}, "observables": ["m = pt(j1)"]},
            "unknown column of particle 'j1': 'pt'",
        ),
        (
            {"particles": {"j1": {**PAIR["j1"], "pt": "pt"}}},
            "unknown column of particle 'j1': 'pt'",
        ),
        ({"relations": ["pt1 = pt2"]}, r"does not hold: .*exceeded in 1500 rows .100.00%."),
        ({"relations": ["pt1 = pt2", "pt2 = pt1"]}, "need each other in a circle"),
    ],
)
def test_what_does_not_fit_the_training_rows_is_refused_before_training(
    changes, message, monkeypatch
):
    monkeypatch.setattr(fit_file, "train_run", lambda *_: pytest.fail("it was trained"))
    with pytest.raises((ConfigError, InputError), match=message):
        FlowBDT(**{"particles": PAIR, **changes}).fit(jets())


def test_a_cut_that_the_model_hardly_meets_is_an_error_with_the_share():
    x = (np.pi / 2 + 2 * np.pi * np.random.default_rng(0).integers(0, 1000, (300, 2))) / 1000
    with pytest.raises(ConfigError, match=r"require 'sin\(1000 \* x0\) > 0.9999' leaves 0.\d\d%"):
        FlowBDT(**COARSE, rejection=False, require=["sin(1000 * x0) > 0.9999"]).fit(x)


def test_rejection_sees_observables():
    rng = np.random.default_rng(0)
    angle, radius = rng.uniform(-np.pi, np.pi, 800), rng.uniform(3.0, 5.0, (800, 1))
    x = np.column_stack([np.cos(angle), np.sin(angle)]) * radius
    made = {
        name: FlowBDT(**COARSE, rejection=True, observables=own).fit(x)
        for name, own in {"raw": [], "radius": ["r = hypot(x0, x1)"]}.items()
    }
    off = {
        name: np.mean(np.abs(np.hypot(*model.sample(4000, random_state=1).T) - 4.0) > 1.0)
        for name, model in made.items()
    }
    assert off["radius"] < 0.5 * off["raw"]
    assert made["radius"].flow().ratio.n_inputs == 3
    assert len(made["radius"].flow().plan["fingerprint"]["columns"]["names"]) == 2


def test_settings_of_before_have_the_digest_of_before():
    assert not {"observables", "particles", "require"} & set(ModelConfig().digestible())


def test_cuts_need_noise_to_draw_anew():
    with pytest.raises(ConfigError, match="require needs noise to draw anew"):
        FlowBDT(coupling="given", require=["x0 > 0"]).fit(two_islands(50), source=two_islands(50))


def test_an_interrupted_run_with_cuts_ends_in_the_same_bytes(tmp_path, cut):
    settings = {k: v for k, v in COARSE.items() if k != "random_state"}
    settings |= {"rejection": False, "coordinates": "columns"}
    inputs = Inputs(jets(), ModelConfig(**settings, **DERIVED), 1)
    run = fit_run(inputs, tmp_path / "run")
    manifest = run.read_json("manifest.json")
    assert manifest["required"] == cut.flow().required
    collect_steps(run)  # as if the process had ended before the share was known
    for damaged in ({}, {"required": None}, {"required": 0.0}):
        run.write_json("manifest.json", {**run.read_json("manifest.json"), **damaged})
        with pytest.raises(FormatError, match="finish it with 'flowbdt fit --resume'"):
            Flow(run)
    fit_run(inputs, tmp_path / "run", resume=True)
    assert run.read_json("manifest.json") == manifest


def test_entries_are_judged_with_what_their_runs_declare(cut, tmp_path):
    cut.save(tmp_path / "m.flowbdt")
    paths = [str(tmp_path / name) for name in ("m.flowbdt", "events.h5")]
    truth = Truth.for_entries(paths, jets(), None)
    assert (truth.observables, truth.particles) == (DERIVED["observables"], PAIR)
    assert truth.derived.names == ("far",)
    assert Truth.for_entries(paths, jets(), None, ["r = pt1 / pt2"]).derived.names == ("r",)
    other = FlowBDT(**COARSE, rejection=False, observables=["far = pt1 > 30"]).fit(jets(100))
    other.save(tmp_path / "n.flowbdt")
    with pytest.raises(ConfigError, match="runs declare the observable 'far' differently"):
        Truth.for_entries([*paths, str(tmp_path / "n.flowbdt")], jets(), None)
    said = Truth.for_entries([*paths, str(tmp_path / "n.flowbdt")], jets(), None, ["r = pt1 / 2"])
    assert said.derived.names == ("r",)


def test_cuts_hold_with_missing_values_kept_and_filled():
    rng = np.random.default_rng(0)
    x = np.column_stack([rng.normal(size=900), 25.0 + rng.exponential(5.0, 900)])
    x[rng.random(900) < 0.3, 1] = np.nan
    cuts = {"require": ["isnan(pt) or pt > 25"], "rejection": False}
    model = FlowBDT(**COARSE, **cuts).fit(EventTable.of(x, ["a", "pt"], missing=True))
    for missing in ("keep", "fill"):
        events = model.sample(1500, random_state=2, missing=missing)
        gaps = np.isnan(events.column("pt"))
        assert (events.column("pt")[~gaps] > 25).all()
        assert 0.25 < gaps.mean() < 0.45 if missing == "keep" else not gaps.any()
    with pytest.raises(InputError, match="does not hold in"):
        FlowBDT(**COARSE, require=["pt > 25"]).fit(EventTable.of(x, ["a", "pt"], missing=True))


def test_cuts_on_categories_and_conditions_hold():
    rng = np.random.default_rng(0)
    kind, gen = rng.choice(["e", "mu"], 900), rng.uniform(20.0, 60.0, 900)
    pt = gen + np.where(kind == "mu", np.abs(rng.normal(0.0, 3.0, 900)), rng.normal(0.0, 3.0, 900))
    table = EventTable.of({"pt": pt, "kind": kind}, cond={"gen": gen})
    cuts = {"require": ["kind == 'e' or pt > gen"], "rejection": False}
    model = FlowBDT(**COARSE, **cuts).fit(table)
    new = model.sample(cond={"gen": gen}, random_state=1)
    mu = new.column("kind") == new.categories["kind"].index("mu")
    assert 0.3 < mu.mean() < 0.7
    assert (new.column("pt")[mu] > gen[mu]).all()
    assert (new.column("pt")[~mu] < gen[~mu]).any()
    with pytest.raises(RunError, match=r"event 0 meets require .* in none of 2000 draws"):
        model.sample(3, cond={"gen": [1e5]}, outside=None, random_state=1)
    with pytest.raises(ConfigError, match="cut 'gen > 10' is of conditions only"):
        FlowBDT(**COARSE, require=["gen > 10"]).fit(table)
