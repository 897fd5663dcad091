"""Print shape and trend by sdmetrics of the tables in a folder: a job of ``whole_tables.py``.

    python sdmetrics_scores.py FOLDER

Runs in an interpreter that has sdmetrics and need not have flowbdt. FOLDER holds ``real.csv``,
``new.csv`` and ``numeric.json`` (column -> whether it is a number).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pandas as pd
from sdmetrics.reports.single_table import QualityReport


def main() -> None:
    """Score the tables of the folder that is the only argument."""
    folder = Path(sys.argv[1])
    numeric = json.loads((folder / "numeric.json").read_text())
    kinds = {name: float if number else str for name, number in numeric.items()}
    tables = [
        pd.read_csv(folder / f"{name}.csv", dtype=kinds, keep_default_na=False)
        for name in ("real", "new")
    ]
    types = {
        name: {"sdtype": "numerical" if number else "categorical"}
        for name, number in numeric.items()
    }
    report = QualityReport()
    report.generate(*tables, {"columns": types}, verbose=False)
    scores = report.get_properties().set_index("Property")["Score"]
    print(json.dumps({"shape": scores["Column Shapes"], "trend": scores["Column Pair Trends"]}))


if __name__ == "__main__":
    main()
