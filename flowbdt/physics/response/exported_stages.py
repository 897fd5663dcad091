"""The stages of a chain as functions for experiment software."""

from __future__ import annotations

from ...generation.export.lamarr import ExportedRejection, ExportedShares, ExportedStage
from ...tables.transforms.rounded_floats import SINGLE
from .chain import ResponseChain
from .declaration import Home, Stage, order_name
from .shares import learned_names
from .stage_tables import shares_of


def exported_stages(chain: ResponseChain) -> list[ExportedStage | ExportedRejection]:
    """Return what `write_lamarr` writes: probabilities of numbers, properties, rejections.

    A number of objects that is drawn has the probability of each value; who calls draws it, and
    makes so many calls of the stages of properties. Stages without training rows are left out.
    """
    chain.check_fitted()
    found: list[ExportedStage | ExportedRejection] = []
    for home in chain.content_.homes:
        for stage in home.stages:
            known = chain.content_.stages[stage.name]
            if known.constant is None and not known.rows:
                continue
            notes = {q.name: q.text for q in stage.quantities}
            notes[order_name(home.name)] = (
                f"{order_name(home.name)}: 0 for the only object of a parent, else 1, 2, ..."
            )
            shares = tuple(_of_stage(group, stage, home) for group in shares_of(stage, home))
            constant = {name: value for name, (value, _) in (known.constant or {}).items()}
            flow = chain.flow(stage.name) if known.constant is None else None
            is_number = stage.kind in ("number", "fake number")
            found.append(
                ExportedStage(stage.name, flow, stage.columns, constant, is_number, shares, notes)
            )
        if home.rejection is not None:
            rejection = chain.rejection(home.name)
            title = f"{home.name}.rejection"
            found.append(ExportedRejection(title, rejection.ratio, tuple(rejection.names)))
    return found


def _of_stage(group: tuple[str, ...], stage: Stage, home: Home) -> ExportedShares:
    """Return what a stage makes of columns that add up to one."""
    own = [name for name in group if name in stage.columns]
    told = learned_names(group)
    before = group[: group.index(own[0])]
    types = tuple(home.rounded.get(name, SINGLE) for name in own)
    return ExportedShares(tuple(own), tuple(told[n] for n in own if n in told), before, types)
