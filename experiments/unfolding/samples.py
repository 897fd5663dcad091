"""The events of the study, made-up ones for a quick look, and the coordinates of the flows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from flowbdt import EventTable
from flowbdt.flow.couplings import assign
from flowbdt.physics.datasets import as_integers
from flowbdt.physics.jets.omnifold_files import COUNTS, NO_GROOMED_MASS, SIX, OmniFoldZJets
from flowbdt.seeding import stream
from flowbdt.tables.transforms import TableTransform

OBSERVABLES = SIX
FIVE = tuple(name for name in SIX if name != "z_g")
CONTINUOUS = tuple(name for name in SIX if name != "multiplicity")
_LN_RHO, _Z_G = SIX.index("ln_rho"), SIX.index("z_g")
TRANSPORT_BATCH = 256


@dataclass(frozen=True)
class Samples:
    """Tables of particle level with detector level as conditions.

    ``train`` and ``test`` are of one generator, ``nature`` and ``spare`` of another: ``nature``
    plays the data, ``spare`` is independent truth for the floor.
    """

    train: EventTable
    test: EventTable
    nature: EventTable
    spare: EventTable


def samples(data: Path | None, smoke: bool, split: int = 0) -> Samples:
    """Return the events: Pythia 26 as simulation, "Nature" as data, or made-up ones.

    ``split`` chooses which simulated events are for the test, so that scores of several splits
    do not share what is special about one test sample.
    """
    if data is None or not (data / "omnifold").is_dir():
        n, start = (400 if smoke else 20_000), 10 * split
        tilts = ((start + 1, 0.0), (start + 2, 0.0), (3, 0.3), (4, 0.3))
        return Samples(*[made_up(n, seed, tilt) for seed, tilt in tilts])
    folder = data / "omnifold"
    pythia = OmniFoldZJets(folder, "Pythia26", train_fraction=0.7, seed=split)
    nature = OmniFoldZJets(folder, "Nature", train_fraction=0.5)
    parts = [s.load(part) for s, part in ((pythia, "train"), (pythia, "test"))]
    parts += [nature.load("test"), nature.load("train")]
    return Samples(*(part.take(slice(0, 400)) if smoke else part for part in parts))


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


class Coordinates:
    """What the flows see of an event: conditions by rank, and no second copy of the atom.

    A jet without groomed mass has ln_rho at its lowest value and z_g = 0, always together. The
    flow learns the atom once, in ln_rho; z_g of these jets is replaced by that of random others
    before training, and set to zero again where ln_rho came out as the atom.
    """

    def __init__(self, train: EventTable, seed: int) -> None:
        self._seed = seed
        self._others = train.x[train.column("ln_rho") > NO_GROOMED_MASS, _Z_G]
        spec = {"*": "rank", "joint": "none"}
        self._ranks = TableTransform(spec, seed=seed).fit(_detector(train))
        self._events = TableTransform(spec, seed=seed).fit(self.events(train))

    def events(self, table: EventTable) -> EventTable:
        """Return the particle level to learn, without conditions."""
        return replace(table, x=self._filled(table.x), cond=None, cond_names=())

    def detector(self, table: EventTable) -> EventTable:
        """Return the detector level as a table like that of `events`: where a flow can start."""
        assert table.cond is not None
        return replace(table, x=self._filled(table.cond), cond=None, cond_names=())

    def conditions(self, table: EventTable) -> np.ndarray:
        """Return the detector level as conditions (n, 6), rank-normal."""
        return self._ranks.forward(_detector(table))

    def back(self, x: np.ndarray) -> np.ndarray:
        """Return generated events (n, 6) with z_g = 0 where there is no groomed mass."""
        x = x.copy()
        x[x[:, _LN_RHO] <= NO_GROOMED_MASS, _Z_G] = 0.0
        return x

    def transported(self, table: EventTable) -> EventTable:
        """Return detector-level jets in the order of the particle-level jets nearest to them.

        Optimal transport within random batches, on rank-normal columns: the pairs that a flow
        between the two levels would have without knowing which jets belong together.
        """
        start = self.detector(table)
        z0, z1 = self._events.forward(start), self._events.forward(self.events(table))
        order = np.arange(table.n)
        shuffled = stream(self._seed, "transport").permutation(table.n)
        for batch in np.array_split(shuffled, -(-table.n // TRANSPORT_BATCH)):
            order[batch] = batch[assign(z0[batch], z1[batch])]
        return start.take(order)

    def _filled(self, x: np.ndarray) -> np.ndarray:
        x = x.copy()
        empty = np.flatnonzero(x[:, _LN_RHO] <= NO_GROOMED_MASS)
        x[empty, _Z_G] = stream(self._seed, "empty jets").choice(self._others, len(empty))
        return x


def _detector(table: EventTable) -> EventTable:
    assert table.cond is not None
    return EventTable.of(table.cond, table.cond_names)
