"""Is a chain of stages nearer to a detector than smearing, a network or one flow?

    python -m experiments.response [--smoke] [--data FOLDER] [--train 800] [--test 1200] [-o FOLDER]

FOLDER of ``--data`` has ``response/ttbar_1.root`` and ``response/zjets_1.root``; without it jets
are made up. A method whose result is in ``runs.json`` of the output folder is not fitted again.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from experiments import common
from experiments.response.rivals import METHODS
from experiments.response.samples import BINS, TAGS, declaration, read
from flowbdt.physics.response import Declaration
from flowbdt.physics.response.chain import ChainInputs
from flowbdt.physics.response.judge_response import ResponseJudge

SHOWN = {
    "pT mean": "Jet_pt / GenJet_pt, mean",
    "pT width": "Jet_pt / GenJet_pt, width",
    "eta width": "Jet_eta - GenJet_eta, width",
    "phi width": "Jet_phi - GenJet_phi, width",
    "b-tag ROC": "Jet_btag tells GenJet_flavour == 5, ROC area",
}
"""Quantities of the table, of which it has chi2 per bin."""

JUDGED_FROM = 16_000
"""First event of the file that is judged."""


def row(name: str, found: dict[str, Any]) -> dict[str, Any]:
    """Return a method's line of the table."""
    scores, transfer = (found[where] for where in ("ttbar", "zjets"))
    areas = {f"AUC {judge}": scores["areas"].get(judge, "") for judge in ("trees", "network")}
    chi2 = {what: scores["chi2"].get(of, "") for what, of in SHOWN.items()}
    return {
        "method": name,
        **areas,
        "AUC trees, Z + jets": transfer["areas"].get("trees", ""),
        **chi2,
        "zeros of fractions": scores["chi2"].get("zeros", ""),
        "training, CPU s": f"{found['fit_cpu_s']:.0f}",
        "us per jet": f"{found['us_per_jet']:.0f}",
    }


def summary(scores: Any) -> dict[str, Any]:
    """Return what is kept of the scores of a method."""
    chi2 = {k: round(v["chi2_per_bin"], 2) for k, v in scores.summary().items()}
    zeros = [
        one.pull
        for one in scores.comparisons
        if one.quantity.endswith("EF = 0") and "flavour" in one.bin
    ]
    if zeros:
        chi2["zeros"] = round(float(np.mean(np.square(zeros))), 1)
    widths = [one for one in scores.comparisons if one.quantity == SHOWN["pT width"]]
    areas = {judge: result.text() for judge, result in scores.areas.get("Jet", {}).items()}
    kept = [[one.bin, one.generated / one.real, one.error / one.real] for one in widths]
    return {"chi2": chi2, "areas": areas, "widths": kept}


def draw(runs: dict[str, Any], folder: Path) -> None:
    """Write ``widths.png``: the width of the response over the real one in all bins."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for k, (name, found) in enumerate(runs.items()):
        labels, ratio, error = zip(*found["ttbar"]["widths"], strict=True)
        at = np.arange(len(labels)) + 0.15 * (k - 1.5)
        axes.errorbar(at, ratio, yerr=error, fmt="osD^"[k % 4], ms=4, lw=1, label=name)
    short = [label.replace("GenJet_", "").replace("abs(eta)", "|eta|") for label in labels]
    axes.set_xticks(range(len(labels)), short, rotation=40, ha="right", fontsize=7)
    axes.axhline(1.0, color="black", lw=0.8)
    axes.set_ylabel("width of Jet_pt / GenJet_pt, generated over real")
    axes.legend()
    figure.savefig(folder / "widths.png", dpi=110)


def main() -> None:
    """Fit, judge, print the table, draw."""
    parser = common.parser((__doc__ or "").splitlines()[0])
    parser.add_argument("--train", type=int, default=800, help="events (%(default)s)")
    parser.add_argument("--test", type=int, default=1200, help="events (%(default)s)")
    options = parser.parse_args()
    train = read(options.data, "ttbar", 0, options.train)
    judged = {
        "ttbar": read(options.data, "ttbar", JUDGED_FROM, JUDGED_FROM + options.test),
        "zjets": read(options.data, "zjets", 0, options.test),
    }
    whole = Declaration.of(declaration(options.smoke, stages=False))
    content = ChainInputs.of(whole, train, 1).content
    asked: Any = {"bins": BINS, "tags": TAGS, "n_bootstrap": 20, "quick": True}
    judges = {name: ResponseJudge(content, real, **asked) for name, real in judged.items()}
    runs: dict[str, Any] = common.kept(options.output, {})
    for name, fit in METHODS.items():
        if name in runs:
            continue
        start = time.process_time()
        equal = {"cpu_seconds": runs["chain"]["fit_cpu_s"]} if name == "network" else {}
        generate = fit(train, options.smoke, 1, **equal)
        found: dict[str, Any] = {"fit_cpu_s": time.process_time() - start}
        start, n_jets = time.process_time(), 0
        made = {where: generate(events, 2) for where, events in judged.items()}
        n_jets = sum(len(events.collections["Jet"]) for events in made.values())
        found["us_per_jet"] = 1e6 * (time.process_time() - start) / n_jets
        runs[name] = found | {where: summary(judges[where](one)) for where, one in made.items()}
        print(name, f"{found['fit_cpu_s']:.0f} CPU s", flush=True)
        common.keep(runs, options.output)
    print(common.markdown([row(name, found) for name, found in runs.items()]))
    if options.output is not None and not options.smoke:
        draw(runs, options.output)
    common.finish(runs, options.output, "response")


if __name__ == "__main__":
    main()
