"""Write the tiny model of the present format version; run once per version, then keep the files.

python tests/assets/make_model.py
"""

from pathlib import Path

import numpy as np

from flowbdt import EventTable, FlowBDT
from flowbdt.training import run_directory

here = Path(__file__).parent
rng = np.random.default_rng(0)
pt = rng.lognormal(4.0, 0.3, 200)
table = EventTable.of(
    np.column_stack([pt, rng.poisson(12, 200), pt * 2]),
    ["pt", "n", "double"],
    units={"pt": "GeV"},
)
model = FlowBDT(
    n_steps=2,
    preset="fast",
    rejection=True,
    preconditioner={"name": "mixture", "n_components": 2},
    relations=["double = pt * 2"],
    booster={"n_estimators": 2, "max_depth": 2, "max_bin": 16},
    random_state=1,
).fit(table)
model.save(here / f"model_v{run_directory.FORMAT}.flowbdt")
np.save(here / f"model_v{run_directory.FORMAT}_events.npy", model.sample(20, random_state=1).x)
