"""The card of a model, and the papers of its methods."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace

import pytest
from conftest import QUICK, SMALL_MODEL, as_json, mixed_table, run
from documented import ROOT

from flowbdt import FlowBDT
from flowbdt.errors import ConfigError
from flowbdt.generation.cited_papers import ALWAYS, bibtex, known_papers, sources_of
from flowbdt.physics import ZToEE
from flowbdt.tables.formats import write_table
from flowbdt.trees.density_ratio import DensityRatio

SAID = {"author": "A. Physicist", "licence": "CC BY 4.0", "limits": "No tails | none at all."}


def few():
    """Columns of every kind but constant ones."""
    return mixed_table(120).select(["pt", "mass", "n_hits", "kind"])


@pytest.fixture(scope="module")
def model():
    table = few()
    return FlowBDT(**SMALL_MODEL).fit(
        table, cond={"e": table.cond[:, 1]}, card={**SAID, "title": "Hits"}
    )


def test_a_card_says_what_was_given_and_what_the_model_knows(model):
    card = model.card
    assert card.startswith("# Hits\n")
    for text in ("| Author | A. Physicist |", "CC BY 4.0", "## Limits\n\nNo tails | none at all."):
        assert text in card
    assert "| Origin of the table | not stated |" in card
    assert model.flow().plan["digest"] in card
    low, high = (model.transform_.columns[0].low, model.transform_.columns[0].high)
    assert f"| pt | learned | {low:.6g} | {high:.6g} |" in card
    assert re.search(r"\| e \| condition \| 0\.\d+ \| 0\.\d+ \|", card)
    assert "None, muon, pion" in card or "pion, None, muon" in card
    assert model.summary().splitlines()[-1] in card
    assert "## Scores\n\nNot stated." in card


def test_a_card_changes_nothing_else_and_is_kept_in_the_file(model, tmp_path):
    table = few()
    plain = FlowBDT(**SMALL_MODEL).fit(table, cond={"e": table.cond[:, 1]})
    assert plain.flow().plan["digest"] == model.flow().plan["digest"]
    assert "# flowBDT model" in plain.card
    events = model.sample(50, cond={"e": [0.5]}, random_state=1)
    scores = plain.evaluate(
        replace(table, cond=None, cond_names=()),
        cond={"e": table.cond[:, 1]},
        metrics=["separation"],
    )
    model.add_to_card(scores=scores, description="Numbers of hits.")
    model.save(tmp_path / "m.flowbdt")
    again = FlowBDT.load(tmp_path / "m.flowbdt")
    assert again.card == model.card
    assert "Numbers of hits." in again.card
    worst = scores.results[0]
    assert f"| {worst.name} |" in again.card
    assert f"{worst.value:.4g}" in again.card
    same = again.sample(50, cond={"e": [0.5]}, random_state=1)
    assert same.x.tobytes() == events.x.tobytes()
    with pytest.raises(ConfigError, match="Did you mean 'licence'"):
        model.add_to_card(license="MIT")
    with pytest.raises(ConfigError, match="Did you mean 'author'"):
        FlowBDT(**SMALL_MODEL).fit(table, card={"autor": "A"})


def test_the_program_shows_the_card_and_cites(folder, capsys):
    words = [w for k, v in QUICK.items() for w in ("--set", f"booster.{k}={v}")]
    words += ["--set", "preset=fast", "--set", "n_steps=2", "--set", "card.author=Ada"]
    assert run("fit", "jets.h5", "-o", "run", "-q", *words) == 0
    capsys.readouterr()
    assert run("show", "run", "--card") == 0
    card = capsys.readouterr().out
    assert "| Author | Ada |" in card
    digest = hashlib.sha256((folder / "jets.h5").read_bytes()).hexdigest()
    assert f"| Table | jets.h5 |\n| Hash of the table's file (sha256) | {digest} |" in card
    assert run("show", "run", "--json") == 0
    assert json.loads(capsys.readouterr().out)["plan"]["card"]["author"] == "Ada"
    assert run("show", "jets.h5") == 0
    text = capsys.readouterr().out
    assert text.startswith("300 events\n")
    assert re.search(r"mass +GeV +float64 +0 ", text)
    assert run("show", "jets.h5", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["events"] == 300
    assert {one["column"] for one in told["columns"]} == {"mass", "tau1", "tau2", "tau21"}
    assert run("cite", "run") == 0
    cited = capsys.readouterr().out
    assert all(number in cited for number in ALWAYS)
    assert "1810.06758" not in cited  # no rejection was learned


def test_a_card_gives_no_range_of_what_turns_with_the_event():
    pairs = ZToEE()
    table = pairs.load().take(slice(0, 900)).select(["pt1", "eta1", "phi1", "pt2", "eta2", "phi2"])
    card = FlowBDT(**SMALL_MODEL, particles=pairs.particles).fit(table).card
    assert "| phi1 | learned | turns with the event |  | rad |" in card
    assert re.search(r"\| eta1 \| learned \| -2\.\d+ \| 2\.\d+ \|", card)


def test_rejection_is_cited_with_the_loss_of_its_last_trees():
    assert sources_of(DensityRatio) == ["1810.06758", "1806.02350"]


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("omnifold", "1911.09107 2105.04448 1603.02754"),
        ("posterior", "1911.09107 2212.08674 2404.18219"),
    ],
)
def test_unfoldings_are_cited_by_their_method(tmp_path, method, expected):
    (tmp_path / "unfolding.json").write_text(f'{{"unfolding": {{"method": "{method}"}}}}')
    found = as_json("cite", tmp_path)["arxiv"]
    assert found[: len(expected.split())] == expected.split()
    assert ("2210.02747" in found) is (method != "omnifold")


def test_a_refined_table_is_cited_by_its_method(tmp_path, jets, capsys):
    for method, source in (("weights", "1608.05806"), ("transport", "2302.00482")):
        write_table(tmp_path / "refined.h5", jets, {"refined": {"method": method}})
        assert source in as_json("cite", tmp_path / "refined.h5")["arxiv"]
    write_table(tmp_path / "plain.h5", jets)
    assert run("cite", tmp_path / "plain.h5") == 1
    assert "no refined table" in capsys.readouterr().err


USED = "flow trees generation training tables networks tuning physics/unfolding physics/response"


def test_every_source_of_a_method_has_an_entry():
    files = [path for name in USED.split() for path in (ROOT / "flowbdt" / name).rglob("*.py")]
    files += [ROOT / "flowbdt/physics/refinement.py"]
    files += (ROOT / "flowbdt/physics/calorimeter/model").glob("*.py")
    found = (re.findall(r"arXiv:?[\s#]*(\d{4}\.\d{4,5})", path.read_text()) for path in files)
    named = {number for one in found for number in one}
    assert len(named) > 40
    text = bibtex(sorted(named | set(known_papers())), "1.2")
    assert text.count("@article{") == len(known_papers())
    assert text.count("{") == text.count("}")
    with pytest.raises(ConfigError, match=r"9999\.00001"):
        bibtex(["9999.00001"], "1.2")
