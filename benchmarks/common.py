"""What the benchmarks share: measuring in a fresh process, a table, one JSON line."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

from flowbdt.training.peak_memory import peak_mib as peak_mib
from flowbdt.training.peak_memory import reset_peak as reset_peak

os.environ.setdefault("OMP_NUM_THREADS", "1")  # spinning threads would spoil CPU times


def measured(function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
    """Return result, CPU seconds and peak memory above the start of one call."""
    reset_peak()
    before, start = peak_mib(), time.process_time()
    result = function(*arguments)
    return {
        "result": result,
        "cpu_s": time.process_time() - start,
        "peak_mib": peak_mib() - before,
    }


def in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Run a function of a module in a process of its own, so that peaks do not mix."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def proposed(frame: Any) -> dict[str, Any]:
    """Return the settings that ``flowbdt init`` writes for a table: particles, relations, cuts."""
    from flowbdt import EventTable
    from flowbdt.tables.proposals.proposed_settings import Proposals

    return Proposals.of(EventTable.of(frame)).settings


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as aligned text; numbers with four significant digits."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[_text(row.get(name, "")) for name in names] for row in rows]
    widths = [max(len(name), *(len(r[i]) for r in cells)) for i, name in enumerate(names)]
    lines = ["  ".join(name.rjust(w) for name, w in zip(names, widths, strict=True))]
    lines += ["  ".join(c.rjust(w) for c, w in zip(r, widths, strict=True)) for r in cells]
    return "\n".join(lines)


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def finish(figures: Mapping[str, Any]) -> None:
    """Print the JSON object that ends every benchmark."""
    print(json.dumps(figures, sort_keys=True))
