"""The events of the study: simulation, data, and what is true of the data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flowbdt import EventTable
from flowbdt.evaluation.metrics import binned_shares, quantile_edges, separation_of_shares
from flowbdt.physics.datasets import as_integers
from flowbdt.physics.jets.omnifold_files import COUNTS, NO_GROOMED_MASS, SIX, OmniFoldZJets
from flowbdt.physics.unfolding import UnfoldingInputs
from flowbdt.seeding import stream

N_BINS = 50
N_FLOORS = 10
LOST, FAKES = 0.1, 0.1

PYTHIA, NATURE = "Pythia26", "Nature"
CLOSURE, BY_HAND = "closure", "closure, lost and fakes"
CASES = (CLOSURE, BY_HAND, NATURE)


@dataclass(frozen=True, eq=False)
class Case:
    """An unfolding whose answer is known.

    Parameters
    ----------
    truth : ndarray (k, 6), the data's events that pass the truth level
    edges : of 50 bins by quantiles of the truth, for each observable
    floor : ndarray (6,), separation x100 of truth against truth, as many events as the data's
    """

    inputs: UnfoldingInputs
    truth: np.ndarray
    edges: list[np.ndarray]
    floor: np.ndarray

    def shares(self, x: np.ndarray, weight: np.ndarray | None = None) -> list[np.ndarray]:
        """Return the shares of events (k, 6) in the bins of every observable."""
        weight = np.ones(len(x)) if weight is None else weight
        return [binned_shares(x[:, i], weight, edges) for i, edges in enumerate(self.edges)]


def sources(data: Path | None, smoke: bool, seed: int) -> dict[str, EventTable]:
    """Return Pythia 26 and "Nature" in an order by ``seed``, or made-up events in their place.

    Jets at particle level with those at detector level as conditions. Of the public files Herwig
    takes the place of "Nature".
    """
    if data is None or not (data / "omnifold").is_dir():
        n = 800 if smoke else 40_000
        return {PYTHIA: made_up(n, 2 * seed, 0.0), NATURE: made_up(n, 2 * seed + 1, 0.3)}
    other = "Herwig" if list((data / "omnifold").glob("Herwig_*")) else NATURE
    found = {}
    for name, sample in ((PYTHIA, PYTHIA), (NATURE, other)):
        table = OmniFoldZJets(data / "omnifold", sample, train_fraction=1.0).load("train")
        found[name] = table.take(stream(seed, f"order of {name}").permutation(table.n))
    return found


def case(
    name: str, tables: dict[str, EventTable], n_simulated: int, n_data: int, seed: int
) -> Case:
    """Return one of `CASES` from what `sources` returns, of as many events at most.

    Within one generator half of the events are the simulation, the others the data.
    """
    simulation, data = tables[PYTHIA], tables[NATURE]
    if name != NATURE:
        half = simulation.n // 2
        data, simulation = simulation.take(slice(half, None)), simulation.take(slice(0, half))
    pool = data.x if name == NATURE else tables[PYTHIA].x
    simulation, data = simulation.take(slice(0, n_simulated)), data.take(slice(0, n_data))
    ranked = np.sort(simulation.column("mass"))
    passes, data_passes = (
        flags(table, ranked, 2 * seed + i, name == BY_HAND)
        for i, table in enumerate((simulation, data))
    )
    truth = data.x[data_passes[0]]
    return Case(
        case_inputs(simulation, data, passes, data_passes),
        truth,
        [quantile_edges(truth[:, i], N_BINS) for i in range(len(SIX))],
        floors(pool, len(truth)),
    )


def case_inputs(
    simulation: EventTable,
    data: EventTable,
    passes: tuple[np.ndarray, np.ndarray],
    data_passes: tuple[np.ndarray, np.ndarray],
) -> UnfoldingInputs:
    """Return the inputs of an unfolding of jets with what passes truth and detector level."""
    return UnfoldingInputs.of(
        EventTable.of(simulation.x, SIX),
        detector(simulation),
        detector(data.take(data_passes[1])),
        pass_truth=passes[0],
        pass_reco=passes[1],
        outside="keep",
    )


def detector(table: EventTable) -> EventTable:
    """Return the detector level as a table."""
    assert table.cond is not None
    return EventTable.of(table.cond, table.cond_names)


def probabilities(table: EventTable, ranked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return those of being seen, and of being true if seen, (n,); ``ranked`` are masses.

    A tenth of the jets is lost, more of the light ones, and a tenth of the seen ones are fakes,
    more of the heavy ones.
    """
    mass = np.searchsorted(ranked, table.column("mass")) / len(ranked)
    return 1 - 2 * LOST * (1 - mass), 1 - 2 * FAKES * mass


def flags(
    table: EventTable, ranked: np.ndarray, seed: int, by_hand: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Return pass_truth and pass_reco (n,), by `probabilities` or, not ``by_hand``, all True."""
    if not by_hand:
        return np.ones(table.n, dtype=bool), np.ones(table.n, dtype=bool)
    rng, (seen, true) = stream(seed, "flags"), probabilities(table, ranked)
    is_seen = rng.random(table.n) < seen
    return ~is_seen | (rng.random(table.n) < true), is_seen


def floors(truth: np.ndarray, n: int) -> np.ndarray:
    """Return the separation x100 (d,) of n events against n others, mean of random pairs.

    Of fewer than 2 n events halves are taken: the separation falls as one over their number.
    """
    found, asked = [], n
    n = min(n, len(truth) // 2)
    for i in range(N_FLOORS):
        a, b = np.split(truth[stream(0, "floor", i).permutation(len(truth))[: 2 * n]], 2)
        ones = np.ones(n)
        edges = [quantile_edges(column, N_BINS) for column in a.T]
        found.append(
            [
                separation_of_shares(binned_shares(p, ones, e), binned_shares(q, ones, e))
                for p, q, e in zip(a.T, b.T, edges, strict=True)
            ]
        )
    return np.mean(found, axis=0) * (n / asked)


def made_up(n: int, seed: int, tilt: float) -> EventTable:
    """Return ``n`` jets with the columns of the real ones, smeared by a made-up detector.

    Parameters
    ----------
    tilt : float, shift of the underlying hardness of the radiation: another "generator"
    """
    rng = np.random.default_rng(seed)
    hard = rng.normal(tilt, 1.0, n)
    soft = rng.normal(0.5 * tilt, 1.0, n)
    gen = _jets(hard, soft, rng.random(n) < 0.02)
    missed = rng.random(n) < 0.02
    sim = _jets(hard + rng.normal(-0.1, 0.3, n), soft + rng.normal(-0.3, 0.3, n), missed)
    table = EventTable.of(gen, SIX, units={"mass": "GeV"})
    cond = EventTable.of(sim, [f"sim_{name}" for name in SIX])
    return as_integers(EventTable.of(table, cond=cond), COUNTS)


def _jets(hard: np.ndarray, soft: np.ndarray, empty: np.ndarray) -> np.ndarray:
    share = 0.1 + 0.4 / (1 + np.exp(-hard + 0.5 * soft))
    columns = {
        "mass": np.exp(3.0 + 0.45 * hard),
        "width": 1 / (1 + np.exp(2.0 - 0.5 * hard - 0.2 * soft)),
        "multiplicity": np.maximum(np.rint(22 + 4 * hard + 6 * soft), 1),
        "ln_rho": np.where(empty, NO_GROOMED_MASS, np.maximum(-7 + 1.5 * hard - 0.4 * soft, -18)),
        "z_g": np.where(empty, 0.0, share),
        "tau21": 1 / (1 + np.exp(-1.0 - 0.6 * soft + 0.3 * hard)),
    }
    return np.column_stack([columns[name] for name in SIX])
