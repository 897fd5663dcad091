"""What the chain is compared with. Smearing and network are given the numbers of real jets."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from experiments import common
from experiments.response.samples import BINS, declaration
from flowbdt import EventTable, TableTransform
from flowbdt.errors import DataWarning
from flowbdt.physics.response import Declaration, ResponseChain
from flowbdt.physics.response.declaration import homes_of
from flowbdt.physics.response.events import Events, Objects
from flowbdt.physics.response.shares import as_given
from flowbdt.physics.response.stage_tables import matches_of, shares_of, stage_table
from flowbdt.seeding import stream
from flowbdt.tables.formulas.particles import wrapped
from flowbdt.tables.transforms.patterns import as_stored
from flowbdt.tables.transforms.rounded_floats import floats_of

Generate = Callable[[Events, int], Events]
"""Events with the input of others and new output, from a seed."""

BATCH, WIDTH, EVALUATIONS = 1024, 192, 20
NEAR_EDGE = 0.02
"""Added to a distance from the edge before a logarithm [GeV]."""


def chain(train: Events, smoke: bool, seed: int, stages: bool = True) -> Generate:
    """Fit a chain, with or without its stages of properties."""
    model = ResponseChain(declaration(smoke, stages), random_state=seed).fit(train)

    def generate(events: Events, seed: int) -> Events:
        blocks = model.sample_blocks([events], outside=None, random_state=seed)
        return Events.concatenate(list(blocks))

    return generate


class Jets:
    """Jets with a parent as a table: conditions, and columns relative to them."""

    def __init__(self, smoke: bool) -> None:
        self.declared, self.edge = Declaration.of(declaration(smoke, stages=False)), 15.0
        self.types: dict[str, str] = {}  # of the training events: floats may be rounded

    def table(self, events: Events) -> EventTable:
        """Return columns and conditions of all jets with a parent."""
        home = homes_of(self.declared, events)[0]
        self.home, self.stage = home, home.properties[0]
        if not self.types:
            objects = events.collections["Jet"].columns.items()
            self.types = {k: floats_of(v.astype(float), v.dtype.name) for k, v in objects}
        table = stage_table(self.stage, home, events, None)
        names = table.names, table.cond_names[: len(self.stage.conditions)]
        known = table.by_name()
        columns, cond = ({name: known[name] for name in of} for of in names)
        columns["Jet_pt"] = np.log((columns["Jet_pt"] - self.edge + NEAR_EDGE) / cond["GenJet_pt"])
        columns["Jet_eta"] = columns["Jet_eta"] - cond["GenJet_eta"]
        columns["Jet_phi"] = wrapped(columns["Jet_phi"] - cond["GenJet_phi"])
        return EventTable.of(columns, cond=cond)

    def put(self, events: Events, columns: dict[str, np.ndarray], table: EventTable) -> Events:
        """Return events whose jets with a parent have other columns."""
        known, new = table.by_name(), dict(columns)
        new["Jet_pt"] = np.exp(new["Jet_pt"]) * known["GenJet_pt"] + self.edge - NEAR_EDGE
        new["Jet_eta"] = new["Jet_eta"] + known["GenJet_eta"]
        new["Jet_phi"] = wrapped(new["Jet_phi"] + known["GenJet_phi"])
        objects, new = events.collections["Jet"], as_given(new, shares_of(self.stage, self.home))
        rows = np.flatnonzero(matches_of(self.home, events).parent >= 0)
        changed = dict(objects.columns)
        for name, values in new.items():
            changed[name] = changed[name].copy()
            changed[name][rows] = as_stored(values, self.types[name])
        return events.with_objects("Jet", Objects(objects.counts, changed))


def smearing(train: Events, smoke: bool, seed: int) -> Generate:
    """Fit a Gaussian to each column in bins of pt and eta, of all columns by itself."""
    jets = Jets(smoke)
    table = jets.table(train)
    edges = [np.array(of[1:-1], dtype=float) for of in BINS.values()]

    def place(of: EventTable) -> np.ndarray:
        known = of.by_name()
        axes = known["GenJet_pt"], np.abs(known["GenJet_eta"])
        first, second = (np.searchsorted(e, x) for e, x in zip(edges, axes, strict=True))
        return first * (len(edges[1]) + 1) + second

    n_bins, where = (len(edges[0]) + 1) * (len(edges[1]) + 1), place(table)
    mean, width = (np.array([f(table.x, axis=0)] * n_bins) for f in (np.mean, np.std))
    for b in np.unique(where):
        mean[b], width[b] = (f(table.x[where == b], axis=0) for f in (np.mean, np.std))

    def generate(events: Events, seed: int) -> Events:
        new, rng = jets.table(events), stream(seed, "smearing")
        b = place(new)
        x = mean[b] + width[b] * rng.normal(size=new.x.shape)
        x = np.clip(x, table.x.min(axis=0), table.x.max(axis=0))
        return jets.put(events, dict(zip(new.names, x.T, strict=True)), new)

    return generate


def network(train: Events, smoke: bool, seed: int, cpu_seconds: float) -> Generate:
    """Train a conditional diffusion network (EDM) for so many CPU seconds."""
    import torch

    from flowbdt.networks import NetworkField, Trainer, TrainingConfig
    from flowbdt.networks.backbones import TableMLP

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    jets = Jets(smoke)
    table = jets.table(train)
    columns, conditions = EventTable.of(table.x, table.names), None
    assert table.cond is not None
    conditions = EventTable.of(table.cond, table.cond_names)
    to_z, of_cond = (TableTransform("auto", seed=seed).fit(one) for one in (columns, conditions))
    z, cond = to_z.forward(columns), of_cond.forward(conditions)

    def trained(n_steps: int) -> Any:
        settings: Any = {"n_steps": n_steps, "batch_size": 64 if smoke else BATCH}
        backbone = TableMLP(z.shape[1], cond.shape[1], width=8 if smoke else WIDTH)
        config = TrainingConfig(**settings, device="cpu", seed=seed)
        return Trainer(backbone, "edm", config).fit(z, cond)

    few = 3 if smoke else 50
    trained(1)  # its start must not count
    start = time.process_time()
    trained(few)
    each = (time.process_time() - start) / few
    steps = 5 if smoke else max(int(cpu_seconds / each), few)
    field = NetworkField(trained(steps).network())

    def generate(events: Events, seed: int) -> Events:
        new, rng = jets.table(events), stream(seed, "network")
        assert new.cond is not None
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", DataWarning
            )  # counts of no training jet: the nearest one
            given = of_cond.forward(EventTable.of(new.cond, new.cond_names))
        x0 = rng.normal(size=(new.n, to_z.n_latent))
        x = to_z.inverse(common.by_unipc(field, x0, EVALUATIONS, given))
        return jets.put(events, dict(zip(new.names, x.T, strict=True)), new)

    return generate


METHODS: dict[str, Callable[..., Generate]] = {
    "chain": chain,
    "one flow": partial(chain, stages=False),
    "network": network,
    "smearing": smearing,
}
