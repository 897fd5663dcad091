"""What notebooks show of tables, transforms, runs and models: a headline, and rows below it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

BLOCKS = "▁▂▃▄▅▆▇█"


def html_table(headline: str, rows: Sequence[Mapping[Any, Any]]) -> str:
    """Return a headline and a table as HTML; None and NaN are shown as "-"."""
    import pandas as pd

    frame = pd.DataFrame(rows)
    table = frame.to_html(index=False, border=0, float_format="{:.4g}".format, na_rep="-")
    return f"<p>{escape(headline)}</p>{table}"


def small_histogram(values: np.ndarray, bins: int = 12) -> str:
    """Return the shape of a distribution (n,) in one word, without missing values and far tails."""
    known = values[np.isfinite(values)]
    if len(known) == 0:
        return ""
    low, high = np.quantile(known, [0.005, 0.995])
    counts, _ = np.histogram(np.clip(known, low, high), bins)
    places = np.ceil(counts / counts.max() * (len(BLOCKS) - 1)).astype(int)
    return "".join(BLOCKS[place] for place in places)
