"""Can boosted trees take over part of a network's way, so that the network is asked less?

    python -m experiments.restart_hybrid [--smoke] [--data FOLDER] [--batches N] [-o FOLDER]

Quality against network evaluations and CPU time for a network alone, trees alone, and every
hybrid, all in one latent space. FOLDER has ``jetnet/t_hlv12.h5``; without it the jets inside the
package are used. Finished contenders are kept in the output folder, so the study can be stopped
and taken up again. Needs torch.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import common
from experiments.restart_hybrid import contenders as making
from experiments.restart_hybrid.compared import Sample, Samples, compared, drawn
from experiments.restart_hybrid.figure import draw
from flowbdt import EventTable, FlowBDT, evaluate, integrate
from flowbdt.atomic_files import to_plain, write_json
from flowbdt.evaluation.evaluate import Evaluation
from flowbdt.flow.solvers import SOLVERS
from flowbdt.networks.hybrid import (
    Corrector,
    Relay,
    compare_fields,
    stretch,
    train_trees,
    tree_field,
)
from flowbdt.physics import HLV_RELATIONS
from flowbdt.seeding import split_mask

TALK = ("d12", "d2", "mass", "tau3")
"""Columns of the earlier talk, shown one by one."""

N_FEW = 4
"""Network steps that the corrector is trained for."""


def network(z: np.ndarray, options: Any, folder: Path | None) -> tuple[Any, float]:
    """Return the trained network as a field, and CPU seconds; one in the folder is read."""
    import torch

    from flowbdt.networks import NetworkField, Trainer, TrainingConfig, load_network, save_network
    from flowbdt.networks.backbones import TableMLP

    torch.set_num_threads(1)
    path = None if folder is None else folder / f"network_{options.batches}.npz"
    if path is not None and path.exists():
        return NetworkField(load_network(path)), 0.0
    torch.manual_seed(options.seed)
    width = 32 if options.smoke else 192
    config = TrainingConfig(
        n_steps=options.batches,
        batch_size=128 if options.smoke else 1024,
        seed=options.seed,
        device="cpu",
    )
    began = time.process_time()
    valid = split_mask(len(z), 0.1, seed=1)
    trainer = Trainer(TableMLP(z.shape[1], width=width), "edm", config)
    denoiser = trainer.fit(z[~valid], valid=(z[valid], None)).network()
    if path is not None:
        save_network(path, denoiser)
    return NetworkField(denoiser), time.process_time() - began


def corrector(field: Any, m: int, n: int, small: bool) -> Corrector:
    """Return trees trained on the ends of few and of many steps, from the same noise."""
    x0 = np.random.default_rng(17).normal(size=(n, m))
    ends = [
        integrate(SOLVERS.build("unipc"), field, x0, stretch("uniform", steps, 0.0, 1.0)).x
        for steps in (N_FEW, 10 if small else 40)
    ]
    booster = {"n_estimators": 3 if small else 200, "max_depth": 3 if small else 6}
    return Corrector(booster).fit(x0, *ends)


SMALL: dict[str, Any] = {
    "booster": {"n_estimators": 2, "max_depth": 2},
    "preconditioner": "gaussian",
    "noise": {"n_repeats": 1, "candidates": 0},
}
"""Trees that take a moment, for the smoke form, or where nothing but their latent space is used."""


def ingredients(
    train: EventTable, options: Any, wanted: Sequence[str]
) -> tuple[FlowBDT, making.Fields, dict[str, float]]:
    """Return the trees' model, the fields of contenders with texts, and CPU seconds of each."""
    with_trees = not options.no_trees
    given: dict[str, Any] = {"relations": list(HLV_RELATIONS), "random_state": options.seed}
    given |= {"preset": options.preset, "rejection": False}
    given |= {} if with_trees and not options.smoke else SMALL
    seconds, began = {}, time.process_time()
    model = FlowBDT(**given).fit(train)
    seconds["trees"] = time.process_time() - began
    z = model.transform_.forward(train)
    net, seconds["network"] = network(z, options, options.output)
    trees = tree_field(model)
    grid = np.append(np.asarray(trees.times), 1.0)
    if not with_trees:
        return model, making.Fields(net, trees, grid, None, None), {"network": seconds["network"]}
    again, fixer = None, None
    if making.asked(making.RESTARTS, wanted):
        began = time.process_time()
        short = train_trees(train, "adams_bashforth_2", making.INTERVAL.times(), **given)
        seconds["trees of the interval"] = time.process_time() - began
        if not np.array_equal(z, short.transform_.forward(train)):
            raise SystemExit("the two tree models do not share their latent space")
        again = tree_field(short)
    if making.asked([making.corrected(N_FEW)], wanted):
        began = time.process_time()
        fixer = corrector(net, z.shape[1], 500 if options.smoke else 50_000, options.smoke)
        seconds["corrector"] = time.process_time() - began
    return model, making.Fields(net, trees, grid, again, fixer), seconds


def same_latent_space(model: FlowBDT, folder: Path | None) -> None:
    """Stop if what the folder keeps was made in another latent space than the model's."""
    path = None if folder is None else folder / "transform.json"
    if path is not None and not path.exists():
        write_json(path, model.transform_.to_json())
    elif path is not None and json.loads(path.read_text()) != to_plain(model.transform_.to_json()):
        raise SystemExit(f"{folder} keeps results of another latent space: give another folder")


def shown(verdict: Evaluation) -> dict[str, Any]:
    """Return score -> [value, error, floor, error of the floor], and the talk's columns."""
    scores: dict[str, Any] = {}
    for r in verdict.results:
        line = [r.value, r.error, r.floor, r.floor_error]
        if r.column is None:
            scores[r.name] = line
        elif r.name == "separation" and r.column in TALK:
            scores[f"separation {r.column}"] = line
    return scores


def scored(
    name: str,
    relay: Relay,
    model: FlowBDT,
    real: EventTable,
    train: EventTable,
    options: Any,
    draw: int,
) -> tuple[dict[str, Any], Sample]:
    """Return one line of the table, and the events with all that was found of them."""
    began = time.process_time()
    new = relay.sample(model, real.n, random_state=100 + options.seed + 1000 * draw)
    cost = 1e6 * (time.process_time() - began) / real.n
    counts = relay.n_evaluations
    line = {"contender": name, "network": counts.get("network", 0)}
    line |= {"trees": counts.get("trees", 0), "us_per_event": cost}
    names = ["auc_gb", "separation", "wasserstein"][1 if options.smoke else 0 :]
    verdict = evaluate(real, new, training=train, quick=True, seed=options.seed, metrics=names)
    return {**line, **shown(verdict)}, Sample(verdict, new)


def difference(fields: making.Fields, z: np.ndarray, smoke: bool) -> list[dict[str, Any]]:
    """Return, per time of the trees, both losses and what the trees' is worse by."""
    times = [t for t in fields.grid if 0.0 < t < 1.0]
    found = compare_fields(fields.trees, fields.network, z[: 200 if smoke else 20_000], times)
    parts = zip(times, found.ratios, *found.losses.T, found.difference, found.error, strict=True)
    names = ("t", "sigma", "trees", "network", "difference", "error")
    return [dict(zip(names, map(float, part), strict=True)) for part in parts]


def table(lines: list[dict[str, Any]]) -> str:
    """Return lines as a Markdown table, cheapest first."""
    rows = []
    for line in sorted(lines, key=lambda x: (x["network"], x["contender"])):
        row = {k: str(line[k]) for k in ("contender", "network", "trees")}
        row["us per event"] = f"{line['us_per_event']:.0f}"
        for name in ("auc_gb", "separation", "wasserstein", *(f"separation {c}" for c in TALK)):
            if name in line:
                row[name] = f"{line[name][0]:.4g} ± {line[name][1]:.2g}"
        rows.append(row)
    floors = {k: v for k, v in lines[0].items() if isinstance(v, list)}
    row = {"contender": "truth against truth", **dict.fromkeys(("network", "trees"), "")}
    row["us per event"] = ""
    rows.append({**row, **{k: f"{v[2]:.4g} ± {v[3]:.2g}" for k, v in floors.items()}})
    return common.markdown(rows)


def study(options: Any) -> dict[str, Any]:
    """Train what is missing, judge what was asked for, hold it against each other."""
    train, test = common.jets(options.data)
    if options.smoke:
        train, test = (t.take(slice(0, 300)) for t in (train, test))
        options.batches = 30
    test = test.take(slice(options.skip, options.skip + (options.events or test.n)))
    lines: list[dict[str, Any]] = common.kept(options.output, [])
    done, samples = {line["contender"] for line in lines}, Samples(options.output, test.names)
    wanted = making.SMOKE if options.smoke else tuple((options.only or "").split(";"))
    model, fields, seconds = ingredients(train, options, wanted)
    same_latent_space(model, options.output)
    losses: list[dict[str, Any]] = []
    if not options.no_trees:
        losses = difference(fields, model.transform_.forward(test), options.smoke)
        print(common.markdown([{k: f"{v:.4g}" for k, v in line.items()} for line in losses]))
    relays = making.networks(fields) if options.no_trees else making.contenders(fields, N_FEW)
    for (bare, relay), k in itertools.product(relays.items(), range(options.draws)):
        name = drawn(bare, k)
        if name in done or not any(text in bare for text in wanted):
            continue
        line, samples[name] = scored(name, relay, model, test, train, options, k)
        lines.append(line)
        short = {k: v for k, v in line.items() if " " not in k}
        print({k: v[:2] if isinstance(v, list) else v for k, v in short.items()}, flush=True)
        common.keep(lines, options.output)
    print(f"\n{table(lines)}\n")
    given = (samples, test, options.seed)
    pairs = [pair for k in range(options.draws) for pair in compared(*given, k)]
    print(f"{common.markdown(pairs)}\n" if pairs else "")
    if options.output is not None:
        draw(lines, options.output / "evaluations.png")
    figures = {"contenders": lines, "losses": losses, "training_cpu_seconds": seconds}
    return {**figures, "pairs": pairs}


def main() -> None:
    """Do the part that was asked for."""
    parser = common.parser((__doc__ or "").splitlines()[0])
    parser.add_argument("--batches", type=int, default=6000, help="of the network (%(default)s)")
    parser.add_argument("--preset", default="balanced", help="of the trees (%(default)s)")
    parser.add_argument("--events", type=int, help="to judge; all by default")
    parser.add_argument("--skip", type=int, default=0, help="test events (%(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--draws", type=int, default=1, help="of each contender (%(default)s)")
    parser.add_argument("--only", help="contenders with one of these texts, separated by ;")
    parser.add_argument(
        "--no-trees", action="store_true", help="the network alone, trains no trees"
    )
    options = parser.parse_args()
    if options.output is not None:
        options.output.mkdir(parents=True, exist_ok=True)
    common.finish(study(options), options.output, "restart_hybrid")


if __name__ == "__main__":
    main()
