"""Schema of the JSON members of a run, checked whenever one is read.

A run may come from strangers: hashes show that a file is whole, not that its content makes sense.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
import numpy as np

from .. import atomic_files
from ..config import DERIVED, ModelConfig, Noise, present_settings
from ..errors import FormatError, reading
from ..flow.closed_form import PRECONDITIONERS
from ..flow.couplings import COUPLINGS
from ..flow.paths import PATHS
from ..flow.schedules import SCHEDULES
from ..flow.solvers import SOLVERS
from ..flow.step_inputs import check_views
from ..flow.time_grid import TimeGrid
from ..tables.transforms.table_transform import KIND, MISSING
from ..typed_settings import (
    AtLeastOne,
    AtLeastZero,
    NotNegative,
    Positive,
    Stored,
    check_settings,
    check_stored,
)

Digest = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Time = Share
Text = Annotated[str, msgspec.Meta(max_length=10_000)]
Tables = Literal[
    "z",
    "codes",
    "cond",
    "weight",
    "source",
    "noise",
    "valid",
    "shown",
    "real",
    "real_cond",
    "real_weight",
]
Spec = Text | dict[str, Any]
PATTERNS = (MISSING.format(""), KIND.format(""))
"""In the name of a discrete column that is none of the table's."""


class StepStory(Stored):
    """Entry of a step in the manifest."""

    step: AtLeastZero
    time: Time
    trees: AtLeastZero
    train_rmse: NotNegative
    valid_rmse: NotNegative | None
    valid_rmse_without_trees: NotNegative | None


class ClassifierStory(Stored):
    """Entry of the classifier of a column in the manifest."""

    step: AtLeastZero
    column: AtLeastZero
    name: Text
    trees: AtLeastZero
    log_loss: NotNegative
    log_loss_without_trees: NotNegative


class Manifest(Stored):
    """``manifest.json``."""

    format: AtLeastOne
    status: Literal["complete"]
    digest: Digest
    files: dict[str, Digest]
    models: dict[str, Digest]
    steps: list[StepStory]
    classifiers: list[ClassifierStory] | None = None
    required: Share | None = None  # of the generated events that meet cuts and reach
    packed: Digest | None = None  # of the arrays of compiled generation


class Scaling(Stored):
    """Scaling of columns and conditions, ranges of conditions."""

    centre: list[float]
    scale: list[Annotated[float, msgspec.Meta(gt=0)]]
    low: list[float | None]
    high: list[float | None]
    unseen: list[list[float | None]] | None = None


class Columns(Stored):
    """Columns and conditions of the table."""

    names: Annotated[list[Text], msgspec.Meta(min_length=1)]
    units: list[Text]
    dtypes: list[Text]
    categories: dict[str, list[Text]]
    conditions: list[Text]
    originals: dict[str, Text] | None = None
    scaling: Scaling | None = None
    classified: list[Text] | None = None
    seen: list[Text] | None = None  # by the rejection, beside observables that are declared
    first: Text | None = None  # of the classified ones, if a mixture is fitted for each value


class Fitted(Stored):
    """Hashes of what is fitted once for all steps."""

    transform: Digest = msgspec.field(name="transform.json")
    preconditioner: Digest = msgspec.field(name="preconditioner.npz")


class Fingerprint(Stored):
    """Everything that decides the result of a training."""

    settings: dict[str, Any]
    columns: Columns
    fitted: Fitted
    events: dict[str, Any]
    versions: dict[str, int | Text]


class Job(Stored, kw_only=True):
    """What the tasks of steps and of classifiers have in common."""

    format: AtLeastOne
    step: AtLeastZero
    seed: AtLeastZero
    events: dict[str, Any]
    fitted: Fitted
    digest: Digest
    versions: dict[str, int | Text] | None = None


class Centres(Stored):
    """Scaling of columns, see `ColumnScaling`."""

    centre: list[float]
    scale: list[Positive]


class ClassifierTask(Job, kw_only=True):
    """``tasks/0007.json`` of the classifier of a column."""

    column: AtLeastZero
    name: Text
    scaling: Centres
    conditions: Centres | None = None  # their scaling; None if there are none
    from_mixture: bool = False  # its probabilities are those of the closed form: no trees
    rate: Positive | None = None  # learning rate of a large table, if not the usual one


class Task(Job, kw_only=True):
    """``tasks/0007.json`` of a step, under present names."""

    time: Time
    next_time: float
    path: Spec
    coupling: Spec
    booster: dict[str, bool | int | float | Text]
    noise: dict[str, Any]
    inputs: list[str] | None = None


class JobReport(msgspec.Struct, kw_only=True):
    """What the reports of steps and of classifiers have in common."""

    format: AtLeastOne
    step: AtLeastZero
    task_digest: Digest
    model_sha256: Digest
    trees: AtLeastZero
    rows: AtLeastZero
    seconds: NotNegative
    cpu_seconds: NotNegative
    peak_mib: NotNegative
    worker: dict[str, Any]


class ClassifierReport(JobReport, kw_only=True):
    """``steps/0007.report.json`` of the classifier of a column."""

    column: AtLeastZero
    name: Text
    log_loss: NotNegative
    log_loss_without_trees: NotNegative


class StepReport(JobReport, kw_only=True):
    """``steps/0007.report.json`` of a step; other releases may have more entries."""

    time: Time
    train_rmse: NotNegative
    valid_rmse: NotNegative | None
    valid_rmse_without_trees: NotNegative | None


class RejectionReport(msgspec.Struct):
    """``rejection.report.json``."""

    key: Digest
    model_sha256: Digest
    trees: AtLeastZero
    acceptance: Share
    cpu_seconds: NotNegative


class Grid(Stored):
    """Boundaries of the steps, and trained times."""

    boundaries: list[Time]
    times: list[Time]


class Plan(Stored):
    """``plan.json``."""

    format: AtLeastOne
    digest: Digest
    fingerprint: Fingerprint
    grid: Grid
    kind: Literal[
        "table", "array", "frame", "dict", "records", "recarray", "awkward", "pyarrow", "polars"
    ]
    n_train: AtLeastZero
    n_valid: AtLeastZero
    n_latent: AtLeastZero
    made_with: dict[str, Text]
    rejection: bool | None = None
    labels: list[Any] | dict[Literal["labels", "names"], list[Any]] | None = None
    card: dict[str, Any] | None = None


def check_plan(plan: Mapping[str, Any], what: str) -> None:
    """Raise FormatError unless a plan has its schema, and its entries exist and fit together."""
    check_stored(plan, Plan, what)
    fingerprint, columns = plan["fingerprint"], plan["fingerprint"]["columns"]
    if plan["digest"] != atomic_files.digest(fingerprint):
        raise FormatError(f"{what}: its digest is not that of its fingerprint; the file is damaged")
    names, conditions = columns["names"], columns["conditions"]
    every, classified = [*names, *conditions], columns.get("classified") or ()
    good = {
        "names": len(set(names)) == len(names) and len(set(conditions)) == len(conditions),
        "units": len(columns["units"]) == len(names),
        "dtypes": len(columns["dtypes"]) == len(names),
        "categories": set(columns["categories"]) <= set(every),
        "originals": set(columns.get("originals") or ()) <= set(every),
        "classified": all(n in names or any(p in n for p in PATTERNS) for n in classified),
        "first": columns.get("first") in (None, *classified[:1]),
    }
    for name, fits in good.items():
        if not fits:
            raise FormatError(f"{what}: entry fingerprint.columns.{name} does not fit the others")
    with reading(f"{what}: entry fingerprint.columns.dtypes"):
        if any(np.dtype(dtype).kind not in "fiub" for dtype in columns["dtypes"]):
            raise FormatError("types of columns are those of numbers")
    with reading(f"{what}: entry fingerprint.events"):
        events = {name: known for name, known in fingerprint["events"].items() if name != "ways"}
        _check_tables(events)
    with reading(f"{what}: entry grid"):
        TimeGrid.from_json(plan["grid"])
    with reading(f"{what}: entry fingerprint.settings"):
        _check_settings(present_settings(fingerprint["settings"]))


def _check_tables(events: Mapping[str, Any]) -> None:
    """Raise an error unless these are the hashes of tables of a run, of the events at least."""
    msgspec.convert(events, dict[Tables, Digest])
    if missing := {"z", "valid"} - events.keys():
        raise FormatError(f"the hash of table/{min(missing)}.npy is missing")


def present_noise(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with all of ``noise``. Raises an error if it is of another form."""
    noise = Noise(**check_settings(settings["noise"], Noise, "setting of noise"))
    return {**settings, "noise": vars(noise)}


def present_task(task: Mapping[str, Any], step: int, what: str) -> dict[str, Any]:
    """Return the task of a step with its settings under their present names.

    Raises FormatError unless it has its schema, and is that of this step.
    """
    task = present_settings(task)
    classifies = "column" in task
    check_stored(task, ClassifierTask if classifies else Task, what)
    if task["step"] != step:
        raise FormatError(f"{what} is the task of step {task['step']}; the file is damaged")
    with reading(what):
        _check_tables(task["events"])
        if classifies:
            return dict(task)
        task = present_noise(task)
        PATHS.build(task["path"])
        COUPLINGS.build(task["coupling"])
        check_views(task["inputs"] or [])
    return task


def _check_settings(settings: Mapping[str, Any]) -> None:
    """Raise an error unless the settings of a run are whole, and name what exists."""
    config = ModelConfig(**settings)
    optional = {"executor", "preset", "rejection", "relative", "n_replicas", "card", *DERIVED}
    missing = set(ModelConfig.__dataclass_fields__) - optional - set(settings)
    if missing:
        raise FormatError(f"settings miss {', '.join(sorted(missing))}")
    if config.n_steps is None and isinstance(config.spacing, str):
        raise FormatError("n_steps is open")
    Noise(**config.noise)
    PATHS.build(config.path)
    SOLVERS.build(config.solver)
    COUPLINGS.build(config.coupling)
    PRECONDITIONERS.build(config.preconditioner or "none")
    check_views(config.inputs or [])
    if not isinstance(config.spacing, list):
        SCHEDULES.build(config.spacing)
    if not all(isinstance(value, (bool, int, float, str)) for value in config.booster.values()):
        raise FormatError("settings of the booster are numbers, texts, true or false")
