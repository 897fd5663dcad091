"""Detector response: a chain of stages on toy events whose response is known."""

from __future__ import annotations

import pickle
import shutil
from dataclasses import replace

import numpy as np
import pytest
from conftest import as_json
from sklearn.exceptions import NotFittedError
from sklearn.metrics import roc_auc_score

from flowbdt.cli.main import main
from flowbdt.errors import ConfigError, FormatError, InputError, RunError
from flowbdt.generation.cited_papers import ALWAYS
from flowbdt.physics.response import (
    Declaration,
    Events,
    ResponseChain,
    joint_rejection,
    judge_response,
)
from flowbdt.physics.response.chain import ChainInputs, fit_chain
from flowbdt.physics.response.declaration import homes_of
from flowbdt.physics.response.events import Objects
from flowbdt.physics.response.judge_response import _seen_beside, reliability
from flowbdt.physics.response.matching import matched_by_distance, matched_by_index, ranks
from flowbdt.physics.response.quantities import Quantity
from flowbdt.physics.response.resolution import with_found_units
from flowbdt.physics.response.shares import as_given, as_learned, exact_shares
from flowbdt.physics.response.stage_tables import matched_rows, stage_table
from flowbdt.trees.density_ratio import LEAST_ACCEPTANCE

ak = pytest.importorskip("awkward", reason="awkward is not installed (extra 'root')")

SETTINGS = {"preset": "fast", "n_steps": 16, "booster": {"n_estimators": 3}}
CHAIN = {
    "conditions": ["nPU"],
    "collections": {
        "Jet": {
            "parent": "GenJet",
            "index": "Jet_genJetIdx",
            "conditions": ["GenJet_pt", "GenJet_eta"],
            "columns": ["Jet_pt", "Jet_eta"],
        }
    },
    "event": {"MET": {"conditions": ["ht = sum(Jet_pt)"]}},
    "model": SETTINGS,
}
OFFSET, WIDTH, FAKES = 2.0, 3.0, 0.6


def efficiency(eta):
    return np.where(np.abs(eta) < 1.0, 0.9, 0.6)


def toy(n, seed):
    """Events of jets, found by `efficiency`, smeared by a Gaussian, and Poisson fakes."""
    rng = np.random.default_rng(seed)
    gen = Objects(rng.poisson(2.5, n))
    pt, eta = rng.normal(50.0, 15.0, len(gen)), rng.uniform(-2.0, 2.0, len(gen))
    phi = rng.uniform(-np.pi, np.pi, len(gen))
    found = np.flatnonzero(rng.random(len(gen)) < efficiency(eta))
    fakes = Objects(rng.poisson(FAKES, n))
    new_pt = [pt[found] + rng.normal(OFFSET, WIDTH, len(found)), rng.normal(20.0, 4.0, len(fakes))]
    new_eta = [eta[found] + rng.normal(0.0, 0.1, len(found)), rng.uniform(-2, 2, len(fakes))]
    new_phi = [phi[found], rng.uniform(-np.pi, np.pi, len(fakes))]
    event = np.concatenate([gen.event[found], fakes.event])
    index = np.concatenate([gen.place[found], np.full(len(fakes), -1)])
    jet_pt = np.concatenate(new_pt).astype(np.float32)
    order = np.lexsort((-jet_pt, event))
    jets = Objects(
        np.bincount(event, minlength=n),
        {
            "Jet_pt": jet_pt[order],
            "Jet_eta": np.concatenate(new_eta).astype(np.float32)[order],
            "Jet_phi": np.concatenate(new_phi)[order],
            "Jet_genJetIdx": index.astype(np.int32)[order],
        },
    )
    ht = np.bincount(event, jet_pt, n)
    columns = {"nPU": rng.poisson(20, n), "MET_sumEt": (ht + rng.normal(100.0, 10.0, n))}
    gen.columns.update(GenJet_pt=pt, GenJet_eta=eta, GenJet_phi=phi)
    return Events(n, columns, {"GenJet": gen, "Jet": jets}).to_awkward()


TRAIN, TEST = toy(1500, 1), toy(600, 2)


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("response") / "run"
    return ResponseChain(CHAIN, random_state=3).fit(TRAIN, folder=folder), folder


def same(first, second):
    return all(ak.array_equal(first[name], second[name], dtype_exact=True) for name in first.fields)


def within(value, expected, error, n_errors=3.5):
    assert abs(value - expected) < n_errors * error, (value, expected, error)


def test_response_efficiency_and_fakes_are_those_of_the_toy(chain):
    new = chain[0].sample(TEST, oversample=2, random_state=4)
    matched = new.Jet_genJetIdx >= 0
    place = new.Jet_genJetIdx[matched]
    shift = np.asarray(ak.flatten(new.Jet_pt[matched] - new.GenJet_pt[place]))
    n_train = len(ak.flatten(TRAIN.Jet_pt))
    error = WIDTH * np.sqrt(1 / len(shift) + 1 / n_train)
    within(shift.mean(), OFFSET, error)
    within(shift.std(), WIDTH, error)
    for low, high in ((0.0, 0.9), (1.1, 2.0)):
        there = (abs(new.GenJet_eta) > low) & (abs(new.GenJet_eta) < high)
        n_found = ak.sum((abs(new.GenJet_eta[place]) > low) & (abs(new.GenJet_eta[place]) < high))
        expected, n = efficiency(low), ak.sum(there)
        within(n_found / n, expected, np.sqrt(expected * (1 - expected) * (2 / n + 1 / n_train)))
    n_fakes = np.asarray(ak.sum(~matched, axis=1))
    within(n_fakes.mean(), FAKES, np.sqrt(FAKES * (1 / len(n_fakes) + 1 / len(TRAIN))))
    assert n_fakes.var() == pytest.approx(FAKES, rel=0.2)
    rest = np.asarray(new.MET_sumEt) - np.asarray(ak.sum(new.Jet_pt, axis=1))
    within(rest.mean(), 100.0, 10.0 * np.sqrt(1 / len(rest) + 1 / len(TRAIN)))
    assert rest.std() == pytest.approx(10.0, rel=0.25)


def test_output_has_the_form_of_the_training_events(chain):
    new = chain[0].sample(TEST, random_state=4)
    assert set(new.fields) == {*TEST.fields, "parent_event"} - {"Jet_phi"}
    for name in set(new.fields) & set(TEST.fields):
        assert str(new[name].type) == str(TEST[name].type)
    assert ak.all(new.Jet_pt[:, 1:] <= new.Jet_pt[:, :-1])
    assert ak.all(new.Jet_genJetIdx < ak.num(new.GenJet_pt))
    assert same(new[["GenJet_pt", "nPU"]], TEST[["GenJet_pt", "nPU"]])


def test_an_event_depends_on_its_number_and_the_seed_only(chain, tmp_path):
    model, folder = chain
    whole = model.sample(TEST, random_state=4)
    assert same(whole[200:], model.sample(TEST[200:], first=200, random_state=4))
    blocks = model.sample_blocks([TEST[:50], TEST[50:51], TEST[51:]], random_state=4)
    assert same(whole, Events.concatenate(list(blocks)).to_awkward())
    copies = model.sample(TEST, oversample=3, random_state=4)
    assert same(whole, copies[copies["copy"] == 0])
    assert copies.parent_event.to_list()[:7] == [0, 0, 0, 1, 1, 1, 2]
    assert not same(whole, copies[copies["copy"] == 1])
    assert not same(whole, model.sample(TEST, random_state=5))
    model.save(tmp_path / "jets.chain")
    for path in (tmp_path / "jets.chain", folder):
        assert same(whole, ResponseChain.load(path).sample(TEST, random_state=4))


def test_an_interrupted_chain_ends_in_the_same_bytes(chain, tmp_path):
    model, folder = chain
    broken = tmp_path / "run"
    shutil.copytree(folder, broken)
    shutil.rmtree(broken / "stages" / "Jet.fakes")
    (broken / "stages" / "Jet" / "manifest.json").unlink()
    (broken / "stages" / "Jet" / "steps" / "0001.ubj").unlink()
    with pytest.raises(FormatError, match=r"Jet.*not complete|not trained"):
        ResponseChain.load(broken)
    again = ResponseChain(CHAIN, random_state=3).fit(TRAIN, folder=broken)
    assert again.archive_ == model.archive_
    inputs = ChainInputs.of(Declaration.of(CHAIN), TRAIN, 3)
    with pytest.raises(RunError, match="--resume"):
        fit_chain(inputs, broken)
    with pytest.raises(RunError, match="another chain"):
        ResponseChain(CHAIN, random_state=4).fit(TRAIN, folder=broken)


def changed(**branches):
    return ak.with_field(TRAIN, *reversed(next(iter(branches.items()))))


def spec(**parts):
    return {**CHAIN, **parts}


def jet(**parts):
    return spec(collections={"Jet": {**CHAIN["collections"]["Jet"], **parts}})


def test_a_rejection_of_all_stages_sees_what_each_missed_and_classes_are_drawn(
    tmp_path, monkeypatch
):
    """The spread of the second column follows the first, which a few trees do not see."""
    monkeypatch.setattr(joint_rejection, "ACCEPTANCE", LEAST_ACCEPTANCE)  # far from real ones
    rng = np.random.default_rng(5)
    jets = Events.of(TRAIN)
    pt = jets.collections["Jet"].columns["Jet_pt"]
    spread = np.where((pt > 45) & (pt < 60), 0.1, 1.0)
    jets.collections["Jet"].columns["Jet_eta"] = rng.normal(0, spread, len(pt)).astype("f4")
    kind = np.where(rng.random(len(pt)) < np.where(pt > 50, 0.8, 0.2), 13, 11)
    jets.collections["Jet"].columns["Jet_kind"] = kind.astype("i4")
    model = {"preset": "fast", "preconditioner": "gaussian", "n_steps": 4, "relative": None}
    stages = [{"columns": [f"Jet_{name}"]} for name in ("pt", "eta", "kind")]
    parts = {"columns": None, "stages": stages, "fakes": False, "rejection": True}
    declared = {**jet(**parts), "event": {}, "model": {**model, "booster": {"n_estimators": 1}}}
    inputs, folder = ChainInputs.of(Declaration.of(declared), jets, 1), tmp_path / "run"
    fit_chain(inputs, folder)
    whole = ResponseChain.load(folder)
    without = ResponseChain.load(folder)
    without._rejections = {}
    one, other = (each.sample(TEST, random_state=4) for each in (whole, without))

    def narrow(events):
        inside = (events.Jet_pt > 45) & (events.Jet_pt < 60)
        return float(np.std(np.asarray(ak.flatten(events.Jet_eta[inside]))))

    assert narrow(one) < 0.6 * narrow(other)
    assert set(np.unique(ak.flatten(one.Jet_kind))) == {11, 13}
    curves: dict = {}
    for point in reliability(whole, jets):
        curves.setdefault(point.quantity, []).append(point.generated)
    assert set(curves) == {
        "Jet: found, by probability",
        *(f"Jet_kind = {value}, by probability" for value in (11, 13)),
    }
    assert min(curves["Jet_kind = 13, by probability"]) == pytest.approx(0.2, abs=0.05)
    assert max(curves["Jet_kind = 13, by probability"]) == pytest.approx(0.8, abs=0.05)
    assert same(one[200:], whole.sample(TEST[200:], first=200, random_state=4))
    assert "a rejection sees" in "\n".join(whole.content_.describe())
    (folder / "rejections" / "Jet.ubj").unlink()
    with pytest.raises(FormatError, match="rejection of Jet is not learned"):
        ResponseChain.load(folder)
    fit_chain(inputs, folder, resume=True)
    assert ResponseChain.load(folder).archive_ == whole.archive_


def test_conditions_that_nothing_drawn_changes_are_worked_out_once():
    conditions = ["twice = 2 * GenJet_pt", "ratio = Jet_pt / twice", "squared = ratio**2"]
    stages = [{"columns": ["Jet_pt"], "conditions": conditions[:1]}]
    stages += [{"columns": ["Jet_eta"], "conditions": conditions}]
    declared = Declaration.of(jet(columns=None, stages=stages))
    events = Events.of(TRAIN)
    home = next(home for home in homes_of(declared, events) if home.name == "Jet")
    rows, some = matched_rows(home, events), np.array([3, 1])
    names = ("ratio", "squared", "twice", "nPU")
    known = replace(rows, own={k: v for k, v in rows.own.items() if k not in home.columns})
    known = known.with_fixed(home, events)
    assert {k: set(of) for k, of in known.fixed.items()} == {
        n: {"nPU", "twice"} for n in ("Jet.1", "Jet.2")
    }
    known.fixed["Jet.2"]["twice"][3] = 50.0  # and taken from there
    drawn = known.take(some).with_own({"Jet_pt": rows.own["Jet_pt"][some]})
    expected = rows.take(some).conditions(events, home.properties[1], names)
    expected[0, :3] = [rows.own["Jet_pt"][3] / 50.0, (rows.own["Jet_pt"][3] / 50.0) ** 2, 50.0]
    found = drawn.conditions(events, home.properties[1], names)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_shares_that_are_exact_in_few_rows_are_drawn_by_classifiers_too():
    rng = np.random.default_rng(3)
    muon = np.where(rng.random(9000) < 0.9, 0.0, rng.random(9000))
    muon[:30] = 1.0  # 0.3%: a muon alone
    charged = (1 - muon) * rng.random(9000)
    charged[40:50] = 1 - muon[40:50]  # too few to learn from
    muon[100:400] = 0.5  # a spike between
    charged[100:400] = 0.25
    columns = {"muon": muon, "charged": charged, "neutral": 1 - muon - charged}
    found = exact_shares(columns, [tuple(columns)], ["muon", "charged"])
    assert found == {"muon": [0, 0.5, 1], "charged_of_rest": [0, 0.5]}  # of nothing a share of 0


BAD_DECLARATIONS = {
    "unknown": (jet(parent="GenJets"), "unknown parent 'GenJets'. Did you mean 'GenJet'"),
    "branch": (jet(conditions=["GenJet_p"]), "unknown branch 'GenJet_p'. Did you mean 'GenJet_pt'"),
    "column": (jet(columns=["Jet_p"]), "unknown column 'Jet_p'"),
    "setting": (jet(parents="GenJet"), "unknown setting 'parents'. Did you mean 'parent'"),
    "no index": (jet(index=None), "'parent' goes with 'index'"),
    "circle": (jet(conditions=["GenJet_pt", "MET_sumEt"]), "in a circle: Jet needs MET_sumEt"),
    "listed twice": (jet(columns=["Jet_pt", "Jet_pt"]), "column 'Jet_pt' is listed twice"),
    "no columns": (jet(columns=[]), "a stage has no columns; it has Jet_pt, Jet_eta"),
    "name of a branch": (jet(conditions=["GenJet_eta = 2 * GenJet_pt"]), "choose another name"),
    "name twice": (jet(conditions=["a = GenJet_pt", "a = GenJet_eta"]), "choose another name"),
    "name of a column": (spec(event={"nPU": {"columns": ["nPU"]}}), "choose another name"),
    "no folder": (spec(event={"../MET": {"columns": ["MET_sumEt"]}}), "use letters, digits"),
    "a stage": (spec(event={"Jet.number": {"columns": ["MET_sumEt"]}}), "use letters, digits"),
    "text": (spec(conditions=["kind"]), "condition 'kind': branch 'kind' must hold numbers"),
    "seed": (spec(model={"random_state": 1}), "'random_state' is one for the whole chain"),
    "cut": (jet(model={"require": ["Jet_p > 5"]}), "stage Jet: cut 'Jet_p > 5': unknown column"),
    "relative": (jet(model={"relative": {"Jet_pt": "ratio GenJet_p"}}), "stage Jet: "),
    "transform of a relative column": (
        jet(model={"relative": {"Jet_pt": "ratio GenJet_pt"}, "transforms": {"Jet_pt": "rank"}}),
        "stage Jet: column 'Jet_pt' has a transform of its own",
    ),
    "own": (jet(conditions=["Jet_eta"]), "in a circle: stage Jet is given Jet_eta"),
    "model": (spec(model={"n_step": 3}), "Did you mean 'n_steps'"),
    "per object": (spec(event={"MET": {"conditions": ["Jet_pt"]}}), "such as sum(Jet_pt)"),
    "shares": (jet(shares=[["Jet_pt", "Jet_phi"]]), "shares are two or more columns in the order"),
    "rejection": (jet(rejection=True, parent=None, index=None), "objects with a parent"),
    "balance": (jet(balance=["Jet_pt > 30"]), "balance is of kinds of GenJet, as given"),
    "kinds": (jet(balance=["GenJet_pt"]), "balance: 'GenJet_pt' has"),
    "no kinds": (jet(balance=["nPU"], parent=None, index=None), "which it has not"),
    "nothing": ({"model": SETTINGS}, "a chain needs collections or event columns"),
}


@pytest.mark.parametrize("case", BAD_DECLARATIONS)
def test_a_wrong_declaration_is_refused(case):
    declared, message = BAD_DECLARATIONS[case]
    texts = ak.with_field(TRAIN[:400], ["ee", "mm"] * 200, "kind")
    with pytest.raises(ConfigError) as caught:
        ChainInputs.of(Declaration.of(declared), texts, 1)
    assert message in str(caught.value)


def test_wrong_events_are_refused_with_branch_and_entry(chain):
    index = ak.where(ak.local_index(TRAIN.Jet_pt) == 0, 30, TRAIN.Jet_genJetIdx)
    entry = int(np.argmax(np.asarray(ak.num(TRAIN.Jet_pt)) > 0))
    nan = ak.where(ak.local_index(TRAIN.GenJet_pt) == 1, np.nan, TRAIN.GenJet_pt)
    second = int(np.argmax(np.asarray(ak.num(TRAIN.GenJet_pt)) > 1))
    cases = {
        f"'Jet_genJetIdx' is 30 in entry {entry}, object 0": changed(Jet_genJetIdx=index),
        f"'GenJet_pt' is nan .* entry {second}, object 1": changed(GenJet_pt=nan),
        "must hold numbers, none missing: 1 are": changed(nPU=ak.Array([None, *TRAIN.nPU[1:]])),
        "stage Jet: require .Jet_pt >= 500. does not hold": TRAIN[:400],
        "'GenJet_eta' has . objects in entry": changed(GenJet_eta=TRAIN.GenJet_eta[:, 1:]),
        "there are no events": TRAIN[:0],
        r"stage Jet\S* has \d+ rows? to learn from": TRAIN[:2],
        "add up to 1": changed(Jet_eta=-TRAIN.Jet_pt),
    }
    for message, events in cases.items():
        declared = jet(shares=[["Jet_pt", "Jet_eta"]]) if message == "add up to 1" else CHAIN
        if "500" in message:
            declared = jet(model={"require": ["Jet_pt >= 500"]})
        with pytest.raises(InputError, match=message):
            ChainInputs.of(Declaration.of(declared), events, 1)
    without = TEST[[name for name in TEST.fields if name != "nPU"]]
    cut = jet(model={"relative": {"Jet_pt": "ratio GenJet_pt"}, "require": ["Jet_pt > -99"]})
    few, far = ResponseChain(cut, random_state=1).fit(TRAIN[:200]), 0 * TRAIN.GenJet_pt - 9999
    with pytest.raises(RunError, match=r"stage Jet: event \d+ meets require"):
        few.sample(changed(GenJet_pt=far)[:20], outside=None)
    with pytest.raises(InputError, match=r"unknown branch 'nPU'.* Stage Jet\.number was trained"):
        chain[0].sample(without)
    for first in (-1, 1.5, 2**60):
        with pytest.raises(InputError, match=r"whole number|numbered up to"):
            chain[0].sample(TEST, first=first)
    for bins in ({"GenJet_p": [1, 2]}, {"GenJet_pt": [2, 1]}, {"GenJet_pt": "a"}, {"nPU": [1, 2]}):
        with pytest.raises(ConfigError, match=r"GenJet_p|rising edges|branch of GenJet"):
            judge_response(chain[0], TEST, bins=bins)
    for use in (ResponseChain.sample, judge_response, ResponseChain.save):
        with pytest.raises(NotFittedError, match="not fitted yet"):
            use(ResponseChain(CHAIN), TEST)
    with pytest.raises(InputError, match=r"'GenJet_pt' is nan .*entry 7\d\d"):
        list(
            chain[0].sample_blocks([TEST[:10]], first=700 - 10)
            and chain[0].sample_blocks([TEST, changed(GenJet_pt=nan)], first=100)
        )


def test_judges_see_the_same_however_conditions_are_put():
    events = Events.of(TRAIN)

    def seen(conditions):
        stages = [{"columns": [c], "conditions": conditions} for c in ("Jet_pt", "Jet_eta")]
        homes = homes_of(Declaration.of(jet(columns=None, stages=stages)), events)
        home = next(home for home in homes if home.name == "Jet")
        return home, [
            _seen_beside(one, home, events, stage_table(one, home, events, None))
            for one in home.stages
            if one.kind != "fake number"
        ]

    home, plain = seen(["GenJet_pt"])
    for a, b in zip(plain, seen(["GenJet_eta", "part = GenJet_pt / nPU"])[1], strict=True):
        np.testing.assert_array_equal(a, b)
    number, first, second, fakes = plain
    own = matched_rows(home, events).own
    assert (number.shape[1], fakes.shape[1]) == (4, 2)  # GenJet_pt, eta, phi, nPU; conditions
    np.testing.assert_allclose(first[:, -1], own["Jet_pt"] / own["GenJet_pt"], rtol=1e-6)
    np.testing.assert_allclose(second[:, -1], own["Jet_eta"] - own["GenJet_eta"], atol=1e-6)
    np.testing.assert_array_equal(second[:, 3], own["Jet_pt"])
    assert second.shape[1] == first.shape[1] + 2


def test_rare_kinds_of_parents_weigh_more_in_training():
    rng = np.random.default_rng(4)
    flavour, muon = rng.choice([1, 5], 4000, p=[0.8, 0.2]), rng.random(4000)
    muon[rng.random(4000) < 0.99] = 0.0
    gen = {"GenJet_flavour": flavour, "GenJet_muon": muon, "GenJet_pt": rng.random(4000)}
    jet = {"Jet_width": rng.random(4000), "Jet_genIdx": np.zeros(4000, dtype=int)}
    one = np.ones(4000, dtype=int)
    events = Events(4000, {}, {"GenJet": Objects(one, gen), "Jet": Objects(one, jet)})
    part = {"parent": "GenJet", "index": "Jet_genIdx", "fakes": False}
    declared = Declaration(collections={"Jet": part | {"balance": True}})
    (home,) = homes_of(declared, events)
    assert home.balance == ("GenJet_flavour", "kind = GenJet_muon == 0.0")
    table = stage_table(home.stage("properties"), home, events, None, training=True)
    weight, common = table.weight / table.weight.min(), (flavour == 1) & (muon == 0)
    assert (weight[common] == 1).all()
    assert table.weight.mean() == pytest.approx(1)
    bottom = (flavour == 5) & (muon == 0)
    expected = np.sqrt((flavour == 1).sum() / (flavour == 5).sum())
    assert weight[bottom] == pytest.approx(expected)
    assert weight[muon > 0] == pytest.approx(5)
    judged = stage_table(home.stage("properties"), home, events, None)
    assert judged.weight is None
    (plain,) = homes_of(Declaration(collections={"Jet": part}), events)
    assert plain.balance == ()


def test_steps_of_a_stage_follow_from_what_it_learns():
    declared = jet(columns=None, stages=[{"columns": ["Jet_pt"]}, {"columns": ["Jet_eta"]}])
    stages = [{"columns": ["Jet_pt"]}, {"columns": ["Jet_eta", "Jet_phi"], "model": {"n_steps": 4}}]
    model = {"booster": {"n_estimators": 5}}
    events, found = Events.of(TRAIN), []
    for spec in (declared, jet(columns=None, stages=stages), jet(columns=["Jet_pt", "Jet_eta"])):
        homes = homes_of(Declaration.of({**spec, "model": model}), events)
        found += [one.settings["n_steps"] for home in homes for one in home.properties]
    assert found == [3, 3, 3, 4, 5]


def test_weighted_tags_and_masses_are_judged():
    rng = np.random.default_rng(1)
    declared = jet(columns=["Jet_pt", "Jet_eta", "Jet_phi"], fakes=False)
    declared = {**declared, "weight": "w", "event": {}, "model": {**SETTINGS, "n_steps": 2}}
    weighted = [ak.with_field(one, rng.uniform(0.5, 2, len(one)), "w") for one in (TRAIN, TEST)]
    model, test = ResponseChain(declared, random_state=1).fit(weighted[0]), weighted[1]
    asked = {"tags": {"Jet_pt": "GenJet_pt > 50"}, "pairs": {"m": "Jet_pt > 30"}}
    scores = judge_response(model, test, **asked, bins={}, n_bootstrap=5, quick=True)
    real = {one.quantity: one.real for one in scores.comparisons if one.bin == "all"}
    found = test.Jet_genJetIdx >= 0  # others are left out
    pt, eta, phi = (test[f"Jet_{part}"][found] for part in ("pt", "eta", "phi"))
    yes = test.GenJet_pt[test.Jet_genJetIdx[found]] > 50
    weight = np.asarray(ak.flatten(ak.broadcast_arrays(test.w, pt)[0]))
    area = roc_auc_score(ak.flatten(yes), ak.flatten(pt), sample_weight=weight)
    assert real["Jet_pt tells GenJet_pt > 50, ROC area"] == pytest.approx(area)
    assert real["nJet per event"] == pytest.approx(np.average(ak.num(pt), weights=test.w))
    has = np.asarray(ak.sum(pt > 30, axis=1)) >= 2
    assert real["events with m"] == pytest.approx(np.average(has, weights=test.w))
    (a, b), (c, d), (e, f) = (
        (x[:, 0], x[:, 1]) for x in (of[pt > 30][has] for of in (pt, eta, phi))
    )
    mass = np.sqrt(2 * a * b * (np.cosh(c - d) - np.cos(e - f)))
    assert real["m, mean"] == pytest.approx(np.average(mass, weights=test.w[has]), rel=1e-4)
    assert scores.distances["Jet"]["Wasserstein"].value < 0.3
    curve = [one for one in scores.comparisons if one.quantity == "Jet: found, by probability"]
    assert sum(one.n for one in curve) == ak.sum(ak.num(test.GenJet_pt))
    probabilities = [one.generated for one in curve]
    assert probabilities == sorted(probabilities)
    assert probabilities[-1] - probabilities[0] > 0.05
    assert np.mean([one.pull**2 for one in curve]) < 4
    for wrong in ({"tags": {"Jet_pt": "nPU > 1"}}, {"pairs": {"m": "GenJet_pt > 1"}}):
        with pytest.raises(ConfigError, match="must use"):
            judge_response(model, test, **wrong)


def test_branches_that_no_stage_can_use_are_left_out(chain):
    more = ak.with_field(TEST[:9], ["text"] * 9, "kind")
    more = ak.with_field(more, [[1.0, 2.0]] * 9, "PSWeight")  # a list of no collection
    more = ak.with_field(more, [[["a"]]] * 9, "Jet_names")
    found = ak.values_astype(TRAIN.Jet_genJetIdx[TRAIN.Jet_genJetIdx >= 0], "uint8")
    jets = Objects(np.asarray(ak.num(found)), {"Jet_genJetIdx": np.asarray(ak.flatten(found))})
    gen = Objects(np.asarray(ak.num(TRAIN.GenJet_pt)))
    assert (matched_by_index(jets, "Jet_genJetIdx", gen, "GenJet").parent >= 0).all()
    again = pickle.loads(pickle.dumps(chain[0]))
    assert same(again.sample(more, random_state=1), chain[0].sample(TEST[:9], random_state=1))


def test_events_without_objects_are_given_back_empty(chain):
    empty = TEST[ak.num(TEST.GenJet_pt) == 0][:3]
    new = chain[0].sample(empty, random_state=1)
    assert ak.all(ak.flatten(new.Jet_genJetIdx) == -1)
    none = TRAIN[:100]
    for name in ("Jet_pt", "Jet_eta", "Jet_phi", "Jet_genJetIdx"):
        none = ak.with_field(none, none[name][:, :0], name)
    with pytest.raises(InputError, match="stage Jet has 0 rows"):
        ChainInputs.of(Declaration.of(CHAIN), none, 1)


def test_centres_and_widths_are_found_from_training_events():
    rng = np.random.default_rng(2)
    events = Events.of(toy(4000, 6))
    gen, jets = events.collections["GenJet"], events.collections["Jet"]
    place = gen.first[jets.event] + np.maximum(jets.columns["Jet_genJetIdx"], 0)
    pt, eta = (gen.columns[f"GenJet_{one}"][place] for one in ("pt", "eta"))
    far = np.abs(eta) > 1
    width = np.sqrt(np.maximum(pt, 1)) * (1 + far)
    jets.columns["Jet_pt"] = 1.1 * pt + 2 + width * rng.normal(size=len(pt))
    texts = [
        "far = abs(GenJet_eta) > 1",
        "centre = centre_of(Jet_pt, GenJet_pt, far)",
        "width = width_of(Jet_pt - centre, GenJet_pt, far)",
    ]
    declared = Declaration.of(jet(conditions=["GenJet_pt", *texts]))
    found = with_found_units(declared, events).collections["Jet"]["conditions"]
    assert found[:2] == ["GenJet_pt", texts[0]]
    known = {"GenJet_pt": pt, "GenJet_eta": eta, "far": far}
    for text in found[2:]:
        one = Quantity.parse(text, known)
        known[one.name] = one.values(events, jets.event, known)
    inside = (pt > 25) & (pt < 75)
    assert np.abs(known["centre"] / (1.1 * pt + 2) - 1)[inside].max() < 0.03
    assert np.abs(known["width"] / width - 1)[inside].max() < 0.15
    for wrong in ("width = 2 * width_of(Jet_pt, GenJet_pt)", "width = width_of(Jet_pt)"):
        with pytest.raises(ConfigError, match="must be 'name = centre_of"):
            with_found_units(Declaration.of(jet(conditions=[wrong])), events)
    with pytest.raises(ConfigError, match="unknown branch 'Jet_p'"):
        with_found_units(Declaration.of(jet(conditions=["w = width_of(Jet_p, GenJet_pt)"])), events)
    alone = {"collections": {"Jet": {"conditions": [texts[1]]}}}
    with pytest.raises(ConfigError, match="needs objects with a parent"):
        with_found_units(Declaration.of(alone), events)


def test_quantities_of_objects():
    jets = Objects(np.array([2, 0, 1]), {"Jet_pt": np.array([3.0, 5.0, 7.0])})
    events = Events(3, {"met": np.array([1.0, 2.0, 3.0])}, {"Jet": jets})
    expected = {
        "ht = sum(Jet_pt)": [8, 0, 7],
        "n = count(Jet_pt > 4) + nJet": [3, 0, 2],
        "most = max(Jet_pt) - met": [4, np.nan, 4],
        "far = sum(Jet_pt * (met > 1))": [0, 0, 7],
        "middle = mean(Jet_pt)": [4, np.nan, 7],
        "met": [1, 2, 3],
    }
    for text, values in expected.items():
        np.testing.assert_equal(Quantity.parse(text).values(events, np.arange(3), {}), values)
    twice = Quantity.parse("twice = 2 * ht + met", ["ht"])
    assert twice.sources == {"met"}
    assert twice.values(events, np.arange(2), {"ht": np.array([4.0, 5.0])}).tolist() == [9, 12]
    for text in ("sum(Jet_pt)", "a = b = met", "a = sum(met, met)", "a = import os", 3):
        with pytest.raises(ConfigError):
            Quantity.parse(text)


def test_shares_add_up_to_one_and_keep_their_zeros():
    rng = np.random.default_rng(0)
    values = rng.dirichlet(np.ones(4), 200) * (rng.random((200, 4)) < 0.6)
    values = values[values.sum(axis=1) > 0]
    values /= values.sum(axis=1, keepdims=True)
    columns = dict(zip("abcd", values.astype(np.float32).T, strict=True))
    learned = as_learned(columns, ["abcd"])
    assert list(learned) == ["a", "b_of_rest", "c_of_rest"]
    back = as_given(learned, ["abcd"])
    np.testing.assert_allclose([back[c] for c in "abcd"], [columns[c] for c in "abcd"], atol=2e-6)
    assert all(((back[c] == 0) == (columns[c] == 0)).all() for c in "abc")
    made = {}  # by one stage after the other
    for own in ("a", "b", "cd"):
        mine = {name: columns[name] for name in own}
        made |= as_given(as_learned(mine, ["abcd"], columns), ["abcd"], made)
    np.testing.assert_allclose([made[c] for c in "abcd"], [columns[c] for c in "abcd"], atol=2e-6)
    assert all(((made[c] == 0) == (columns[c] == 0)).all() for c in "abcd")


def test_nearest_parents_are_found_across_the_turn():
    rng = np.random.default_rng(1)
    parents = Objects(np.array([2, 0, 2]))
    parents.columns.update(g_eta=np.zeros(4), g_phi=np.array([3.1, 0.0, 1.0, 1.3]))
    jets = Objects(np.array([2, 1, 3]))
    phi = np.array([-3.1, 1.0, 0.0, 1.1, 1.29, 1.4])
    jets.columns.update(j_eta=rng.normal(0, 0.01, 6), j_phi=phi)
    matches = matched_by_distance(jets, "j", parents, "g", 0.3)
    assert matches.parent.tolist() == [0, -1, -1, 2, 3, 3]
    assert matches.rank.tolist() == [0, 0, 0, 0, 1, 2]
    assert matches.number.tolist() == [1, 0, 1, 2]
    assert ranks(np.array([2, 0, 2]), np.array([1, 0, 2])).tolist() == [1, 0, 2]


def test_from_file_to_file(tmp_path):
    pytest.importorskip("uproot", reason="uproot is not installed (extra 'root')")
    from flowbdt.tables.event_collections import read_collections, write_collections

    (tmp_path / "chain.yaml").write_text(
        "collections: {Jet: {parent: GenJet, match: 0.3,"
        " conditions: [GenJet_eta, square = GenJet_eta**2, half = square / 2],"
        f" columns: [Jet_eta]}}}}\nmodel: {SETTINGS}\n".replace("'", "")
    )
    train, gen, run = (tmp_path / name for name in ("train.root", "gen.root", "run"))
    write_collections(train, TRAIN[["GenJet_eta", "GenJet_phi", "Jet_eta", "Jet_phi"]])
    write_collections(gen, TEST[["nPU", "GenJet_eta", "GenJet_phi"]])
    fit = ["response", "fit", str(train), "--config", str(tmp_path / "chain.yaml"), "-o", str(run)]
    assert main([*fit, "--dry-run"]) == 0
    assert not run.exists()
    assert main(fit) == 0
    assert main(fit) == 1
    assert main([*fit, "--resume", "-q"]) == 0
    new = tmp_path / "new.root"
    assert main(["response", "generate", str(run), str(gen), "-o", str(new)]) == 0
    (events,) = read_collections(new)
    assert events.nJet.to_list() == ak.num(events.Jet_eta).to_list()
    assert ak.max(events.Jet_genJetIdx - ak.num(events.GenJet_eta)) < 0
    assert {"2402.13684", *ALWAYS} <= set(as_json("cite", run)["arxiv"])
