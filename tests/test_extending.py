"""The examples of docs/extending.md: each enters a registry and works like those of the package."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from conftest import PLAIN, QUICK, make_jets, mixed_table, run

from flowbdt import EventTable, FlowBDT, evaluate, read_table, write_table
from flowbdt.config import ModelConfig
from flowbdt.errors import ConfigError, InputError
from flowbdt.evaluation.metrics import METRICS
from flowbdt.evaluation.score_events import KINDS
from flowbdt.flow.solvers import SOLVERS
from flowbdt.tables.formats import FORMATS, read_attributes
from flowbdt.tables.transforms import TRANSFORMS, ColumnTransform, TableTransform
from flowbdt.training import run_directory
from flowbdt.training.collect import train
from flowbdt.training.executors import EXECUTORS
from flowbdt.training.plan import Inputs, make_plan
from flowbdt.training.run_directory import RunDirectory

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text()
REGISTRIES = (FORMATS, TRANSFORMS, EXECUTORS, METRICS, KINDS, SOLVERS)
SMALL = {"n_steps": 2, "booster": QUICK, "random_state": 1}


@pytest.fixture(scope="module", autouse=True)
def page():
    """Run the examples of the page; afterwards the registries are as they were."""
    before = [dict(registry._entries) for registry in REGISTRIES]
    names = {"__name__": "extending"}
    for code in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
        exec(compile(code, "docs/extending.md", "exec", dont_inherit=True), names)
    yield names
    for registry, entries in zip(REGISTRIES, before, strict=True):
        registry._entries.clear()
        registry._entries.update(entries)


def test_the_page_names_files_that_exist():
    paths = [name for name in re.findall(r"`([a-z_]+/[a-z_/]*(?:\.py)?)`", PAGE) if "*" not in name]
    assert len(paths) > 8
    roots = (ROOT, ROOT / "flowbdt", ROOT / "flowbdt" / "tables", ROOT / "flowbdt" / "training")
    for name in paths:
        if name != "incoming/":
            assert any((root / name).exists() for root in roots), name


def test_a_format_is_read_and_written(tmp_path):
    table, path = mixed_table(), tmp_path / "t.jsonl"
    table = table.take(np.isfinite(table.cond).all(axis=1))
    write_table(path, table, {"seed": 7})
    again = read_table(path)
    assert (again.names, again.units) == (table.names, table.units)
    assert again.categories == table.categories
    np.testing.assert_array_equal(again.x, table.x)
    np.testing.assert_array_equal(again.cond, table.cond)
    assert read_attributes(path) == {"seed": 7}
    with pytest.raises(InputError, match=r"\.jsonl"):
        write_table(tmp_path / "t.jsn", table)


def test_a_format_is_known_to_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_table("jets.jsonl", make_jets())
    words = ["--set", "preset=fast", "--set", "n_steps=2", "--set", "booster.n_estimators=4"]
    assert run("fit", "jets.jsonl", "-o", "run", *words) == 0
    assert run("generate", "run", "-n", 20, "--seed", 3, "-o", "new.jsonl") == 0
    assert run("generate", "run", "-n", 20, "--seed", 3, "-o", "new.h5") == 0
    np.testing.assert_array_equal(read_table("new.jsonl").x, read_table("new.h5").x)


def test_a_transform_is_used_saved_and_loaded(tmp_path):
    x = np.random.default_rng(0).standard_t(2, size=(300, 2))
    model = FlowBDT(transforms={"*": {"name": "asinh", "width": 0.5}}, **SMALL).fit(x)
    new = model.sample(200, random_state=2)
    assert np.isfinite(new).all()
    fitted = TableTransform(model.transforms).fit(EventTable.of(x))
    assert all("asinh(x / 0.5)" in line for line in fitted.describe()[:2])
    model.save(tmp_path / "m.flowbdt")
    np.testing.assert_array_equal(
        FlowBDT.load(tmp_path / "m.flowbdt").sample(200, random_state=2), new
    )
    with pytest.raises(ConfigError, match="Known: width"):
        FlowBDT(transforms={"*": {"name": "asinh", "low": 0}}, **SMALL).fit(x)


class Knots(ColumnTransform):
    """Piecewise linear between quantiles, with names of its own for what it learns."""

    name = "knots"
    fitted: ClassVar[Any] = {"knots": list[float], "steps": list[list[float]], "label": str}

    def fit(self, values, rng):
        self.knots = np.quantile(values, np.linspace(1, 0, 9))  # falling, as no others are
        self.steps, self.label = np.zeros((2, 3)), "mine"
        return self

    def forward(self, values, rng):
        return np.interp(values, self.knots[::-1], np.linspace(-2, 2, 9))[:, None]

    def inverse(self, latent):
        return np.interp(latent[:, 0], np.linspace(-2, 2, 9), self.knots[::-1])

    def describe(self):
        return "piecewise linear"


def test_a_transform_may_learn_arrays_of_any_name(page, tmp_path):
    TRANSFORMS.register("knots")(Knots)
    x = np.random.default_rng(0).normal(size=(300, 2))
    model = FlowBDT(transforms={"*": "knots"}, **SMALL).fit(x)
    model.save(tmp_path / "m.flowbdt")
    again = FlowBDT.load(tmp_path / "m.flowbdt").sample(200, random_state=2)
    np.testing.assert_array_equal(again, model.sample(200, random_state=2))


def no_types(self, values, rng):
    return Knots.fit(self, values, rng)


def not_finite(self, values, rng):
    Knots.fit(self, values, rng)
    self.knots[0] = np.inf
    return self


def no_numbers(self, values, rng):
    Knots.fit(self, values, rng)
    self.label = object()
    return self


@pytest.mark.parametrize(
    ("fitted", "fit", "message"),
    [
        (("knots", "steps", "label"), no_types, "knots of its state must be a number"),
        ({"knots": list[float], "gap": float}, no_types, "has no attribute 'gap'"),
        (Knots.fitted, not_finite, "finite number"),
        (Knots.fitted, no_numbers, "not JSON serializable"),
    ],
)
def test_a_transform_that_cannot_be_stored_is_refused_before_training(
    page, monkeypatch, fitted, fit, message
):
    monkeypatch.setattr("flowbdt.training.collect.train", None)
    kind = type("Lost", (Knots,), {"fitted": fitted, "fit": fit, "name": "lost"})
    TRANSFORMS._entries["lost"] = kind
    x = np.random.default_rng(0).normal(size=(300, 2))
    with pytest.raises(ConfigError, match=rf"{message}.*'fitted' names"):
        FlowBDT(transforms={"*": "lost"}, **SMALL).fit(x)


def test_a_transform_with_an_operation_of_its_own_needs_four_files():
    paths = [*(ROOT / "flowbdt").rglob("*.py"), *(ROOT / "flowbdt").rglob("*.hpp")]
    texts = {path.name: path.read_text() for path in paths}
    (row,) = [line for line in PAGE.splitlines() if line.startswith("| ... by an operation")]
    for code in ("RANK", "CATEGORICAL", "CIRCULAR"):
        words = re.compile(rf"\b({code}|k{code.capitalize()})\b")
        users = {name for name, text in texts.items() if words.search(text)}
        assert users == {"column_operations.py", "onnx_columns.py", "flowbdt.hpp"}
    assert all(name in row for name in users - {"column_operations.py"})


def test_a_batch_system_trains_the_same_steps(tmp_path):
    models = []
    for name in ("serial", "processes"):
        folder = RunDirectory(tmp_path / name)
        config = ModelConfig(n_steps=2, booster=QUICK, **PLAIN)
        make_plan(Inputs(make_jets(), config, 5), folder)
        train(folder, EXECUTORS.build(name))
        models.append([folder.read(run_directory.model_name(step)) for step in range(2)])
    assert models[0] == models[1]


def test_a_metric_of_a_new_kind_is_reported():
    rng = np.random.default_rng(0)
    real, other = rng.normal(size=(2, 500, 2))
    scores = evaluate(real, 3 * other, training=other, metrics=["outside"])
    result = scores.get("outside")
    assert result.value > 0.3
    assert result.floor < 0.05
    assert "share outside the range" in scores.text()
    assert "outside" in {r.name for r in evaluate(real, other, quick=True).results}


def test_a_solver_chooses_the_times_of_training():
    x = np.random.default_rng(0).normal(size=(300, 2))
    models = [FlowBDT(solver=name, **SMALL).fit(x) for name in ("midpoint", "midpoint_again")]
    first, second = (model.sample(50, random_state=2) for model in models)
    np.testing.assert_array_equal(first, second)
