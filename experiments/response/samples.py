"""Events of the study: ROOT files, or made-up jets; what is learned of them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np

from flowbdt.physics.response.events import Events, Objects

PARENT = ("pt", "eta", "phi", "mass", "flavour", "nConstituents", "muonPt")
FIRST, COUNTS = ("pt", "eta", "phi"), ("nTracks", "nConstituents")
FRACTIONS = ("muEF", "chEmEF", "chHEF", "neEmEF", "neHEF")
INSIDE = [("chEmEF",), ("chHEF",), ("neEmEF", "neHEF")]
"""Columns one after the other: a flow of one column and a classifier of its exact values."""

SEEN = [*(f"GenJet_{one}" for one in PARENT), "forward = abs(GenJet_eta)"]
IS_MUON = "muons = GenJet_muonPt / GenJet_pt"
"""Muons that were clustered as jets are measured as muons are."""
YES = "GenJet_pt, forward > 1.3, forward > 2.5, muons > 0.9"
UNITS = [
    f"expected = centre_of(Jet_pt, {YES})",
    f"spread = width_of(Jet_pt - expected, {YES})",
    f"across = width_of(Jet_eta - GenJet_eta, {YES})",
    f"around = width_of(deltaphi(Jet_phi, GenJet_phi), {YES})",
]
"""About where a momentum is measured, and how well momentum, eta and phi are: the units of what is
learned, so that it has one width nearly everywhere; fitted to the training events."""
MEASURED = [
    "answer = Jet_pt / GenJet_pt",
    "kick = Jet_pt * hypot(Jet_eta - GenJet_eta, deltaphi(Jet_phi, GenJet_phi))",
]
"""What became of a momentum: a jet that moved has lost or taken up something, which all else of it
knows."""
UNTURNED = [one for one in SEEN if one != "GenJet_phi"]
FLAVOURS = [
    f"{name} = GenJet_flavour == {n}" for n, name in ((5, "bottom"), (4, "charm"), (0, "none"))
]
"""One Gaussian for all jets does not see flavours by their numbers."""
WITHIN = [
    *UNTURNED,
    "muons = minimum(GenJet_muonPt / Jet_pt, 1)",
    "neutral = Jet_nConstituents - Jet_nTracks",
    *MEASURED,
    *FLAVOURS,
]
"""What the inside of a jet depends on, once its momentum and counts are known."""
SHAPE = [
    *(f"GenJet_{one}" for one in PARENT if one not in ("phi", "muonPt")),
    *MEASURED,
    "lead = maximum(maximum(Jet_muEF, Jet_chEmEF), Jet_nConstituents == 1)",
    "soft = maximum(1 - lead, 0.01 * (Jet_nConstituents > 1) + 1e-9)",
    "size = log(maximum(1 - lead**2, 0.02 * (Jet_nConstituents > 1) + 1e-16))",
]
"""With the share of a muon or an electron, and what it leaves: a jet that is one lepton is narrow,
one of a single particle has no width."""
PAIR = "pair = hypot(Jet_pt * Jet_width / sqrt(2 * maximum(1 - Jet_ptD**2, 1e-6)), 0.1)"
"""The mass of two particles of this width and ptD, of others about; of one a muon's."""
GIRTH = "girth = Jet_pt * sqrt(Jet_width) / pair"
"""Twice the mass of a wide jet of this width, in units of it."""
ALONE = "alone = Jet_nConstituents == 1"
LEFT = ["others = maximum(Jet_pt - 1.03 * GenJet_muonPt, 0)", "inside = GenJet_pt - GenJet_muonPt"]
"""What muons leave to other particles."""


def _jet(*endings: str) -> list[str]:
    return [f"Jet_{one}" for one in endings]


def _mixed(column: str, atoms: list[int], inner: Any = "auto") -> dict[str, Any]:
    """Return the setting by which a classifier draws some values of a column exactly."""
    one = {"name": "mixed", "atoms": atoms, "equal": [], "inner": inner}
    return {"transforms": {"*": "auto", column: one}}


def _count(ending: str, *atoms: int) -> dict[str, Any]:
    """Return the stage of a number, of which a classifier draws small ones exactly."""
    return {
        "columns": _jet(ending),
        "conditions": [*UNTURNED, IS_MUON, *MEASURED, *FLAVOURS],
        "model": _mixed(f"Jet_{ending}", [*atoms]),
    }


CHAIN: dict[str, Any] = {
    "conditions": ["Pileup_nPU"],
    "collections": {
        "Jet": {
            "parent": "GenJet",
            "index": "Jet_genJetIdx",
            "conditions": [*SEEN, IS_MUON],
            "stages": [
                {
                    "columns": _jet(*FIRST),
                    "conditions": [*SEEN, IS_MUON, *UNITS],
                    "model": {
                        "relative": {
                            "Jet_pt": "difference expected in spread",
                            "Jet_eta": "difference GenJet_eta in across",
                            "Jet_phi": "difference GenJet_phi in around",
                        }
                    },
                },
                _count("nTracks", 0, 1, 2),
                _count("nConstituents", 1, 2, 3),
                {"columns": ["Jet_btag"], "conditions": WITHIN},
                {
                    "columns": ["Jet_muEF"],
                    "conditions": [*WITHIN, *LEFT],
                    "model": {
                        **_mixed("Jet_muEF", [0, 1], {"name": "logit", "low": 0, "high": 1}),
                        "noise": {"n_repeats": 4},
                    },
                },
                *({"columns": _jet(*some), "conditions": WITHIN} for some in INSIDE),
                {
                    "columns": ["Jet_width"],
                    "conditions": SHAPE,
                    "model": {"relative": {}, **_mixed("Jet_width", [0], ["log", "rank"])},
                },
                {
                    "columns": _jet("ptD"),
                    "conditions": SHAPE,
                    "model": {"relative": {"Jet_ptD": "difference lead in soft"}},
                },
                {
                    "columns": _jet("mass"),
                    "conditions": ["GenJet_pt", "GenJet_mass", PAIR, GIRTH, ALONE, *MEASURED],
                    "model": {"relative": {"Jet_mass": "ratio pair"}},
                },
            ],
            "shares": [_jet(*FRACTIONS)],
            "rejection": ["heavier = Jet_mass / maximum(GenJet_mass, 0.1)"],
            "fakes": False,
        }
    },
}
BINS: dict[str, list[float]] = {
    "GenJet_pt": [15, 20, 30, 50, 100, 200],
    "abs(GenJet_eta)": [0, 1.3, 2.5, 4.7],
}
TAGS = {"Jet_btag": "GenJet_flavour == 5"}


def declaration(smoke: bool, stages: bool = True) -> dict[str, Any]:
    """Return the chain, or one stage for all columns."""
    declared = copy.deepcopy(CHAIN)
    jet = declared["collections"]["Jet"]
    if smoke:
        declared["model"] = {"preset": "fast", "n_steps": 2, "booster": {"n_estimators": 3}}
    if smoke or not stages:
        jet["rejection"] = False
    if not stages:
        jet["columns"] = [name for stage in jet.pop("stages") for name in stage["columns"]]
    return declared


def read(folder: Path | None, name: str, first: int, last: int) -> Events:
    """Return events of a file below ``folder``, or made-up ones."""
    if folder is None:
        return toy(400, first)
    from flowbdt.tables.event_collections import read_collections

    (block,) = read_collections(folder / "response" / f"{name}_1.root", block_rows=10**6)
    return Events.of(block[first:last])


def toy(n: int, seed: int) -> Events:
    """Return jets smeared by a Gaussian, of which a selection keeps those above 15."""
    rng = np.random.default_rng(seed)
    gen = Objects(rng.poisson(4.0, n))
    size = len(gen)
    gen.columns["GenJet_pt"] = pt = 12.0 + rng.exponential(25.0, size)
    gen.columns["GenJet_eta"] = eta = rng.uniform(-2.5, 2.5, size)
    gen.columns["GenJet_phi"] = phi = rng.uniform(-3.14159, 3.14159, size)
    gen.columns["GenJet_mass"] = mass = pt * rng.uniform(0.1, 0.2, size)
    gen.columns["GenJet_flavour"] = flavour = rng.choice([1, 5], size)
    gen.columns["GenJet_nConstituents"] = number = 2 + rng.poisson(1.0, size)
    gen.columns["GenJet_muonPt"] = pt * (rng.random(size) < 0.05)
    seen = pt * rng.normal(1.0, 0.1 + 0.03 * np.abs(eta), size)
    kept = np.flatnonzero(seen > 15.0)
    tag = np.where(rng.random(size) < 0.5, 0.0, rng.beta(1 + flavour, 3))
    shares = rng.dirichlet(np.ones(5), size) * (rng.random((size, 5)) < [0.2, 0.2, 1, 1, 1])
    shares /= shares.sum(axis=1, keepdims=True)
    columns = {"pt": seen, "eta": eta + rng.normal(0, 0.02, size), "phi": phi, "btag": tag}
    columns |= dict(zip(FRACTIONS, shares.T, strict=True))
    tracks = rng.binomial(number, 0.6)
    columns |= {"nConstituents": number, "nTracks": tracks, "mass": mass * seen / pt}
    columns |= {"ptD": rng.beta(4, 8, size), "width": rng.beta(2, 20, size)}
    jets = Objects(
        np.bincount(gen.event[kept], minlength=n),
        {
            f"Jet_{name}": values[kept].astype("i4" if name in COUNTS else "f4")
            for name, values in columns.items()
        },
    )
    jets.columns["Jet_genJetIdx"] = gen.place[kept].astype(np.int32)
    return Events(n, {"Pileup_nPU": rng.poisson(12, n)}, {"GenJet": gen, "Jet": jets})
