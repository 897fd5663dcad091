"""Coverage, covariance and bias of `flowbdt.physics.unfolding` on experiments drawn many times.

    python -m experiments.unfolding.pseudo_experiments [--sample normal] [--n 20] [--events 3000]
        [--replicas 10] [--errors 20] [--iterations 12] [--data FOLDER] [-o FOLDER]

Of every sample the truth is known. ``normal``: mean 0 in the simulation and 0.3 in the data,
resolution 0.3, efficiency a function of truth (a tenth is lost at the mean), 20% of the selected
events are fakes, 20% of the data are background. ``closure``: jets of Pythia as simulation and as
data; a tenth is lost and a tenth is fakes, by hand. ``zjets``: the same with jets of "Nature" as
data. Jets are drawn with replacement from the files, whose truth is that of the data.
``variations``: a normal truth again, everything seen; an alternative response with a shift of 0.1,
and one with a resolution 1.2 times as wide, are given as weights, and what they do to the result
is held against its closed form. Only so many experiments as ``--errors`` says get replicas; with
none the bias is one in spreads. The mean of few results is mostly luck: for ``normal`` what a
classical unfolding, linear in the events, makes of each experiment's fluctuations is subtracted,
whose mean is zero (a control variate). Every experiment is kept in ``runs.json`` of the output
folder, and one that is there already is not repeated.
"""

from __future__ import annotations

import argparse
import math
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import common
from experiments.unfolding.samples import case_inputs, flags, probabilities
from flowbdt.evaluation.metrics import quantile_edges
from flowbdt.physics.jets.omnifold_files import SIX, OmniFoldZJets
from flowbdt.physics.unfolding import UnfoldingInputs, unfold, unfolding_errors
from flowbdt.physics.unfolding.bayes import Counts
from flowbdt.seeding import stream

EDGES = [-1.5, -0.9, -0.5, -0.1, 0.3, 0.7, 1.1, 1.5, 2.1]
MEAN, SMEAR, FAKES, BACKGROUND = 0.3, 0.3, 0.2, 0.2
SHIFT, WIDER = 0.1, 1.2
FINE = np.round(np.arange(-3.5, 4.55, 0.1), 1)
LINEAR_ITERATIONS, N_FURTHER = 4, 400
LEVELS = (0.68, 0.95)


def normal_bins(mean: float, width: float) -> np.ndarray:
    """Return the shares of a normal distribution in the bins."""
    below = [0.5 * (1 + math.erf((edge - mean) / (width * math.sqrt(2)))) for edge in EDGES]
    return np.diff(below)


class Normal:
    """The closed form with misses, fakes and background."""

    def __init__(self, n: int) -> None:
        self.n, self.expected = n, n * normal_bins(MEAN, 1.0)
        self.bins = {"truth": EDGES}

    def inputs(self, seed: int) -> UnfoldingInputs:
        """Return a pseudo-experiment of about n true events, with four times the simulation."""
        rng, n = stream(seed, "pseudo-experiment"), self.n
        simulation, real = self._events(4 * n, 0.0, rng), self._events(rng.poisson(n), MEAN, rng)
        data = real["reco"][real["pass_reco"]]
        selected = 0.83 * n / (1 - FAKES)  # the background expected does not know the data
        n_background = selected * BACKGROUND / (1 - BACKGROUND)
        data = np.append(data, rng.normal(1.2, 0.4, rng.poisson(n_background)))
        background = rng.normal(1.2, 0.4, 4 * round(n_background))
        return UnfoldingInputs.of(
            {"truth": simulation["truth"]},
            {"reco": simulation["reco"]},
            {"reco": data},
            pass_truth=simulation["pass_truth"],
            pass_reco=simulation["pass_reco"],
            background={"reco": background},
            background_weight=np.full(len(background), n_background / len(background)),
            outside="keep",
        )

    def luck(self, n: int) -> np.ndarray:
        """Return what a linear unfolding makes of the fluctuations of n experiments, (n, b).

        That is the derivative of the Bayesian one, at the mean of further experiments, by the
        events in all bins, times their difference from the mean.
        """
        own, further = map(self._counts, range(n)), map(self._counts, range(n, n + N_FURTHER))
        total = next(further)
        for counts in further:
            total = Counts(*(a + b for a, b in zip(total, counts, strict=True)))
        mean = Counts(*(a / N_FURTHER for a in total))
        return np.array(
            [(self._unfolded(mean, c, 0.01) - self._unfolded(mean, c, 0.0)) / 0.01 for c in own]
        )

    def _counts(self, seed: int) -> Counts:
        return Counts.of(self.inputs(seed), "truth", FINE, "reco", FINE)

    @staticmethod
    def _unfolded(mean: Counts, counts: Counts, step: float) -> np.ndarray:
        """Return the linear unfolding's bins of a mean with a step towards other counts."""
        moved = Counts(*(a + step * (b - a) for a, b in zip(mean, counts, strict=True)))
        at = 1 + np.searchsorted(FINE, EDGES)
        return np.add.reduceat(moved.unfolded(LINEAR_ITERATIONS), at)[:-1]

    @staticmethod
    def _events(n: int, mean: float, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Return both levels of a sample whose true events number n."""
        truth = rng.normal(mean, 1.0, n)
        reco = truth + rng.normal(0.0, SMEAR, n)
        seen = rng.random(n) < 0.95 / (1 + np.exp(-2.0 * (truth + 1.5)))
        n_fakes = rng.poisson(seen.sum() * FAKES / (1 - FAKES))
        return {
            "truth": np.append(truth, np.full(n_fakes, np.nan)),
            "reco": np.append(np.where(seen, reco, np.nan), rng.normal(-0.3, 1.2, n_fakes)),
            "pass_truth": np.repeat([True, False], [n, n_fakes]),
            "pass_reco": np.append(seen, np.ones(n_fakes, dtype=bool)),
        }


class ZJets:
    """Jets drawn with replacement, as many simulated as data: six observables in eight bins each.

    The files are the population, so that the truth is known, whatever their own fluctuations.
    """

    def __init__(self, n: int, folder: Path, sample: str) -> None:
        self.n = n
        self._simulation, self._data = (
            OmniFoldZJets(folder / "omnifold", name, train_fraction=1.0).load("train")
            for name in ("Pythia26", "Nature" if sample == "zjets" else "Pythia26")
        )
        self._ranked = np.sort(self._simulation.column("mass"))
        seen, true = probabilities(self._data, self._ranked)
        passes = 1 - seen + seen * true
        self.bins, expected = {}, []
        for name, x in zip(SIX, self._data.x.T, strict=True):
            inner = quantile_edges(x, 8)[1:-1]
            edges = np.array([inner[0] - 1e3, *inner, inner[-1] + 1e3])
            self.bins[name] = edges.tolist()
            expected.append(n * np.histogram(x, edges, weights=passes)[0] / self._data.n)
        self.expected = np.concatenate(expected)

    def luck(self, n: int) -> np.ndarray:
        """Return that nothing is known of the luck of n experiments, (n, b)."""
        return np.zeros((n, len(self.expected)))

    def inputs(self, seed: int) -> UnfoldingInputs:
        """Return about n events of the data and n of the simulation."""
        rng = stream(seed, "jets of a pseudo-experiment")
        pools = (self._simulation, self.n), (self._data, rng.poisson(self.n))
        simulation, data = (table.take(rng.integers(table.n, size=n)) for table, n in pools)
        passes = (
            flags(table, self._ranked, 2 * seed + i) for i, table in enumerate((simulation, data))
        )
        return case_inputs(simulation, data, *passes)


Entry = dict[str, list[Any]]
"""By bin: ``found``, and with replicas ``error`` and by level the two ends of the interval."""


def experiment(sample: Normal | ZJets, seed: int, replicas: int, n_iterations: int | None) -> Entry:
    """Unfold one experiment, with as many replicas of each part, if any."""
    result = unfold(sample.inputs(seed), n_iterations=n_iterations, random_state=seed)
    bins = sample.bins.items()
    found = {"found": [result.histogram(*own) for own in bins]}
    if replicas:
        errors = unfolding_errors(result, replicas, prior=False)
        found["error"] = [errors.table(*own)["total"] for own in bins]
        for level in LEVELS:
            ends = [errors.interval(name, edges, level) for name, edges in bins]
            found[f"{level:g}"] = [np.array(each) for each in ends]
    entry = {name: np.concatenate(values, axis=-1).tolist() for name, values in found.items()}
    return entry | {"iterations": [result.record["iterations"]]}


def judge(sample: Normal | ZJets, runs: Sequence[Entry]) -> None:
    """Print one line per score of experiments that were run."""
    truth, n = sample.expected, len(runs)
    found = np.array([run["found"] for run in runs])
    with_errors = [run for run in runs if "error" in run]
    spread = np.std(found, axis=0, ddof=1)
    mean_error = np.mean([run["error"] for run in with_errors], axis=0) if with_errors else spread
    for level in LEVELS if with_errors else ():
        low, high = np.array([run[f"{level:g}"] for run in with_errors]).transpose(1, 0, 2)
        covered = (low <= truth) & (truth <= high)
        by_column = covered.mean(axis=0).reshape(len(sample.bins), -1).mean(axis=1)
        error = covered.mean(axis=1).std() / math.sqrt(max(len(with_errors) - 1, 1))
        print(
            f"coverage of {level:.0%} intervals: {covered.mean():.3f} +- {error:.3f},"
            f" {np.round(by_column, 3)}"
        )
    luck = sample.luck(n)
    ratio, bias = mean_error / spread, (np.mean(found - luck, axis=0) - truth) / mean_error
    variance = np.var(found - luck, axis=0, ddof=1) / n + np.var(luck, axis=0) / N_FURTHER
    known = np.mean(np.sqrt(variance) / mean_error)
    counts = Counter(run["iterations"][0] for run in runs)
    print(f"iterations: {', '.join(f'{k} ({v})' for k, v in sorted(counts.items()))}")
    print(f"error / spread: mean {ratio.mean():.3f}, by bin {ratio.min():.2f} to {ratio.max():.2f}")
    print(f"bias in errors, by bin: {np.round(bias, 2)} (known to {known:.2f})")
    print(
        f"bias in errors: mean absolute {np.abs(bias).mean():.3f}, most {np.abs(bias).max():.2f}"
        f" (no bias at all: {math.sqrt(2 / math.pi) * known:.3f})"
    )


def judge_variations(n: int, n_events: int, n_iterations: int) -> None:
    """Print what two alternative responses do to the result, in events, beside the closed form."""
    shifts: dict[str, list[np.ndarray]] = {"shift": [], "wider": []}
    for seed in range(n):
        rng = stream(seed, "variations")
        truth, data = rng.normal(0, 1, 4 * n_events), rng.normal(MEAN, 1, n_events)
        noise = rng.normal(0, SMEAR, len(truth))
        wide = WIDER * SMEAR
        inputs = UnfoldingInputs.of(
            {"truth": truth},
            {"reco": truth + noise},
            {"reco": data + rng.normal(0, SMEAR, n_events)},
            variations={
                "shift": np.exp((noise * SHIFT - SHIFT**2 / 2) / SMEAR**2),
                "wider": np.exp(noise**2 / 2 * (SMEAR**-2 - wide**-2)) / WIDER,
            },
            outside="keep",
        )
        result = unfold(inputs, n_iterations=n_iterations, random_state=seed)
        errors = unfolding_errors(result, 2, parts=(), prior=False)
        nominal, table = result.histogram("truth", EDGES), errors.table("truth", EDGES)
        for name, found in errors.replicas("truth", EDGES).items():
            shifts[name].append(found[0] - nominal)
            np.testing.assert_allclose(np.abs(shifts[name][-1]), table[name])
        both = [np.outer(moved[-1], moved[-1]) for moved in shifts.values()]
        np.testing.assert_allclose(errors.covariance("truth", EDGES), np.sum(both, axis=0))
    narrower = math.sqrt(1 + SMEAR**2 - (WIDER * SMEAR) ** 2)
    exact = {"shift": normal_bins(MEAN - SHIFT, 1.0), "wider": normal_bins(MEAN, narrower)}
    for name, moved in shifts.items():
        known = n_events * (exact[name] - normal_bins(MEAN, 1.0))
        mean, error = np.mean(moved, axis=0), np.std(moved, axis=0, ddof=1) / math.sqrt(n)
        print(f"{name}: {np.round(mean, 1)} +- {np.round(error, 1)}, exact {np.round(known, 1)}")


def main() -> None:
    """Judge a sample."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--sample", choices=["normal", "zjets", "closure", "variations"], default="normal"
    )
    parser.add_argument("--n", type=int, default=20, help="pseudo-experiments (%(default)s)")
    parser.add_argument("--events", type=int, default=3000, help="of the data's truth")
    parser.add_argument("--replicas", type=int, default=10, help="of each part (%(default)s)")
    parser.add_argument("--errors", type=int, help="experiments with replicas (all)")
    parser.add_argument("--iterations", type=int, help="of each (chosen by the tool)")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="of the jets")
    parser.add_argument("-o", "--output", type=Path, metavar="FOLDER", help="keeps experiments")
    options = parser.parse_args()
    if options.n < 2:
        parser.error("a spread needs at least two experiments: --n 2")
    start, n = time.process_time(), options.events
    if options.sample == "variations":
        judge_variations(options.n, n, options.iterations or 7)
        print(f"{time.process_time() - start:.0f} CPU s")
        return
    if options.sample != "normal" and options.data is None:
        parser.error("jets need --data FOLDER")
    sample = Normal(n) if options.sample == "normal" else ZJets(n, options.data, options.sample)
    runs, own = common.kept(options.output, {}), []
    for seed in range(options.n):
        with_errors = options.errors is None or seed < options.errors
        given = seed, options.replicas if with_errors else 0, options.iterations
        key = " | ".join(map(str, (options.sample, n, *given)))
        if key not in runs:
            runs[key] = experiment(sample, *given)
            common.keep(runs, options.output)
            print(f"{key}: {time.process_time() - start:.0f} CPU s", flush=True)
        own.append(runs[key])
    judge(sample, own)


if __name__ == "__main__":
    main()
