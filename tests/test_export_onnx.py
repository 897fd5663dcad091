"""ONNX export: onnxruntime makes the events that Python makes from the same noise."""

from __future__ import annotations

import json
import sys
import warnings

import exported_models
import numpy as np
import pytest
import xgboost as xgb

from flowbdt import EventTable, FlowBDT, seeding
from flowbdt.errors import ConfigError, DataWarning, MissingExtra
from flowbdt.flow.closed_form.conditioning import FullKernel, density_problem
from flowbdt.flow.solvers import integrate
from flowbdt.generation.export.onnx_columns import columns_of, expressions_of
from flowbdt.generation.export.onnx_graph import Graph
from flowbdt.generation.export.onnx_steps import MOST_UNKNOWN, projections, tree_sum
from flowbdt.generation.export.write_onnx import write_onnx
from flowbdt.generation.packed.pack_columns import expression_arrays
from flowbdt.generation.trained_flow import Flow
from flowbdt.tables.formulas.expressions import Expression
from flowbdt.tables.transforms import TableTransform
from flowbdt.tables.transforms.rounded_floats import in_bits
from flowbdt.training.run_directory import Archive
from flowbdt.trees.tree_arrays import forests

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

TOLERANCE = 1e-5
NAMES = ("mass", "tau1", "count", "spike", "phi", "kind", "share", "one", "ratio", "least")
TYPES = ("float32", "float32", "int64", *["float64"] * 5, "float32", "float64")
RELATIONS = ["ratio = tau1 / mass", "least = minimum(mass, 30 * count) ** 2"]
TRANSFORMS = {
    "mass": "standard",
    "tau1": "log",
    "count": "integer",
    "spike": "rank",
    "phi": "circular",
    "kind": "categorical",
    "share": {"name": "logit", "low": 0.0, "high": 1.0},
}
MIXTURE = {"name": "mixture", "n_components": 3}
LOW_RANK = {"name": "mixture", "n_components": 3, "covariance": "low_rank", "rank": 2}


def session(content):
    """An onnxruntime session on one thread that says nothing."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    source = content if isinstance(content, bytes) else str(content)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def run(content, **inputs):
    return session(content).run(None, inputs)


def table(n=600, seed=0):
    """Every kind of column: types, limits, spikes, angles, categories, constants, relations."""
    rng = np.random.default_rng(seed)
    mass = rng.normal(170.0, 15.0, n).astype(np.float32).astype(float)
    tau1 = rng.lognormal(-2.0, 0.5, n).astype(np.float32).astype(float)
    count = rng.poisson(5.0, n).astype(float)
    spike = np.where(rng.random(n) < 0.1, 0.0, rng.exponential(1.0, n))
    phi, kind = rng.uniform(-np.pi, np.pi, n), rng.integers(0, 3, n).astype(float)
    share = np.clip(rng.normal(0.5, 0.4, n), 0.0, 1.0)
    least = np.minimum(mass, 30 * count) ** 2
    columns = [mass, tau1, count, spike, phi, kind, share, np.full(n, 3.5), tau1 / mass, least]
    made = EventTable.of(np.column_stack(columns), NAMES, units={"mass": "GeV"})
    return EventTable(
        made.x, made.names, made.units, TYPES, None, (), None, {"kind": ("a", "b", "c")}
    )


def conditions(n, n_cond, missing=0.0, seed=1):
    rng = np.random.default_rng(seed)
    cond = table(n).x[:, :n_cond] * 0.1 + rng.normal(size=(n, n_cond))
    cond[rng.random(cond.shape) < missing] = np.nan
    return cond


def fitted(x=None, *, cond=None, depth=3, trees=4, **settings):
    given = {"transforms": TRANSFORMS, "relations": RELATIONS} if x is None else {}
    booster = {"n_estimators": trees, "max_depth": depth, "max_bin": 32, "min_child_weight": 0}
    settings = {"n_steps": 3, "preset": "fast", "rejection": False, **given, **settings}
    model = FlowBDT(booster=booster, random_state=1, **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # of the constant column
        return model.fit(table() if x is None else x, cond=cond)


def flow_of(model, **settings):
    return Flow(Archive("model", model.archive_), compiled=False, **settings)


def by_python(flow, noise, cond=None):
    """Events (n, d) of the uncompiled way."""
    sampler = flow.sampler
    z = integrate(sampler.solver, flow.field, noise, sampler.boundaries, cond=cond).x
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # of undefined relations
        return flow.transform.inverse(z, None, cond)


def noise_for(flow, n, seed=3):
    return np.random.default_rng(seed).normal(size=(n, flow.plan["n_latent"]))


def relative(got, expected):
    return np.abs(got - expected) / np.maximum(np.abs(expected), 1e-300)


def compare(model, folder, n, cond=None, *, wide=1.0, **settings):
    """Both ways from the same noise: the outputs of the graph, after events were compared."""
    flow, path = flow_of(model, **settings), folder / "flow.onnx"
    write_onnx(flow, str(path))
    noise = wide * noise_for(flow, n)
    inputs = {"noise": noise} if cond is None else {"noise": noise, "conditions": cond}
    outputs = run(path, **inputs)
    expected = by_python(flow, noise, cond)
    assert outputs[0].shape == expected.shape
    assert relative(outputs[0], expected).max() <= TOLERANCE
    return outputs, expected, flow


@pytest.mark.parametrize(
    ("form", "views"),
    [
        ("none", ["latent"]),
        ("none", ["latent", "columns"]),
        ("gaussian", ["latent", "end_point"]),
        (MIXTURE, ["latent", "columns", "end_point", "components"]),
        (LOW_RANK, ["latent", "components"]),
    ],
)
def test_events_are_those_of_python_for_every_kind_of_column(form, views, tmp_path):
    model = fitted(preconditioner=form, inputs=views)
    (events, kept), expected, _ = compare(model, tmp_path, 1000)
    assert kept.all()
    for column in (2, 5, 7):  # integer, category, constant
        assert np.array_equal(events[:, column], expected[:, column])
    onnx.checker.check_model(onnx.load(tmp_path / "flow.onnx"), full_check=True)


def test_events_with_a_computed_column_far_beyond_training_are_not_to_be_kept(tmp_path):
    x = 0.05 + np.random.default_rng(1).exponential(size=1000)
    settings = {"transforms": "standard", "relations": ["y = 1 / x"], "preconditioner": "gaussian"}
    model = fitted(EventTable.of({"x": x, "y": 1 / x}), **settings)
    (_, kept), expected, flow = compare(model, tmp_path, 1000)
    assert np.array_equal(kept, flow.generator.is_near(expected))
    assert 0.5 < kept.mean() < 1


@pytest.mark.parametrize("kind", ["particles", "vectors"])
def test_particles_that_turn_are_those_of_python_with_cuts_and_masses(kind, tmp_path):
    flow = exported_models.flow_of(exported_models.KINDS[kind]())
    write_onnx(flow, tmp_path / "flow.onnx")
    noise = np.random.default_rng(3).normal(size=(1000, flow.n_noise))
    events, kept = run(tmp_path / "flow.onnx", noise=noise)
    expected, chances = exported_models.in_python(flow, noise)
    np.testing.assert_allclose(events, expected, rtol=TOLERANCE)
    assert np.allclose(kept, chances, rtol=TOLERANCE)
    assert 0.05 < np.mean(kept == 0) < 0.5


@pytest.mark.parametrize("n_cond", [1, 2, 3])
@pytest.mark.parametrize("form", ["none", "gaussian", MIXTURE])
def test_conditions_may_be_missing_in_any_pattern(form, n_cond, tmp_path):
    cond = conditions(600, n_cond, missing=0.3)
    model = fitted(cond=cond, preconditioner=form, inputs=["latent", "end_point"])
    compare(model, tmp_path, 500, cond[:500])


@pytest.mark.parametrize("depth", range(1, 9))
def test_events_are_those_of_python_at_every_depth(depth, tmp_path):
    x = np.random.default_rng(depth).normal(size=(400, 3)) * [1.0, 50.0, 0.01]
    model = fitted(x, depth=depth, trees=6, preconditioner="none", inputs=["latent"])
    compare(model, tmp_path, 300)


@pytest.mark.parametrize("strategy", ["multi_output_tree", "one_output_per_tree"])
def test_sums_of_trees_have_the_bits_of_xgboost(strategy):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 4)).astype(np.float32)
    y = x[:, :3] + rng.normal(size=(500, 3)) + 1.5
    x[rng.random(x.shape) < 0.1] = np.nan
    settings = {"multi_strategy": strategy, "tree_method": "hist", "max_depth": 8}
    booster = xgb.train(settings, xgb.QuantileDMatrix(x, y), 100)
    graph = Graph()
    inputs = graph.input("x", 4).cast(np.float32)
    trees, _ = forests(bytes(booster.save_raw("ubj")))
    graph.output("y", tree_sum(graph, trees, inputs, 3).cast(np.float64), 3)
    content = graph.to_bytes("", {}, "0")
    (got,) = run(content, x=x.astype(np.float64))
    assert np.array_equal(got, booster.inplace_predict(x))
    (first,) = run(content, x=x[:1].astype(np.float64))
    assert np.array_equal(first, got[:1])


def test_a_value_on_a_threshold_goes_to_the_second_child():
    x = np.repeat([[0.0], [1.0]], 20, axis=0).astype(np.float32)
    booster = xgb.train({"max_depth": 1, "base_score": 0.0}, xgb.DMatrix(x, x), 1)
    trees, _ = forests(bytes(booster.save_raw("ubj")))
    cut = np.float64(trees[0].threshold[0, 1])
    near = np.array([[np.nextafter(np.float32(cut), np.float32(-9))], [cut], [cut + 1e-12]])
    graph = Graph()
    sums = tree_sum(graph, trees, graph.input("x", 1).cast(np.float32), 1)
    graph.output("y", sums.cast(np.float64), 1)
    (got,) = run(graph.to_bytes("", {}, "0"), x=near)
    assert got[0] < got[1] == got[2]


@pytest.mark.parametrize("form", ["gaussian", MIXTURE])
def test_the_closed_form_alone_is_that_of_python(form, tmp_path):
    # a tree that must not split is a constant: nothing but the closed form moves a point
    model = fitted(trees=1, preconditioner=form, inputs=["latent"], n_steps=6)
    flow = flow_of(model)
    for step in range(len(flow.grid.times)):
        assert len(forests(flow._model(step))[0][0].feature) <= 1
    compare(model, tmp_path, 300)


def test_projections_give_the_density_and_mean_of_any_pattern():
    rng = np.random.default_rng(2)
    m, c, k = 2, 3, 4
    roots = rng.normal(size=(k, m + c, m + c))
    cov, means = roots @ roots.swapaxes(1, 2) + np.eye(m + c), rng.normal(size=(k, m + c))
    weights = np.log(np.full(k, 1 / k))
    kernel = FullKernel(weights, means, cov, density_problem(np.ones(m + c, dtype=bool)))
    y = rng.normal(size=(5, m + c))
    tables = projections(kernel, m, c)
    for pattern in range(1 << c):
        known = np.concatenate([np.ones(m, bool), (pattern >> np.arange(c)) & 1 == 0])
        seen = np.where(known, y - kernel.centre, 0.0)
        inner = (seen @ kernel.stack[:-1] + kernel.stack[-1]).reshape(5, m + c, k)
        turned = np.einsum("ijk,njk->nik", tables[pattern], inner[:, m:])
        square = (inner[:, :m] ** 2).sum(axis=1) + (turned**2).sum(axis=1)
        alone = FullKernel(weights, means, cov, density_problem(known))
        expected = alone.log_joint(y[:, known])
        assert alone.constant - 0.5 * square == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    "settings",
    [{"solver": name} for name in ("euler", "heun", "rk4", "adams_bashforth_2", "dpm_solver_pp_2m")]
    + [
        {"noise": {"n_repeats": 1, "candidates": 0, "target": "mean"}, "solver": "euler"},
        {"path": "trigonometric"},
    ],
)
def test_solvers_paths_and_mean_targets_are_unrolled(settings, tmp_path):
    x = np.random.default_rng(4).lognormal(size=(300, 2))
    compare(fitted(x, trees=2, **settings), tmp_path, 200)


def test_another_sampler_of_the_same_model_can_be_exported(tmp_path):
    x = np.random.default_rng(4).lognormal(size=(300, 2))
    model = fitted(x, n_steps=4)
    compare(model, tmp_path, 200, sampler={"solver": "euler", "n_steps": 2})
    one, two = (tmp_path / f"{name}.onnx" for name in ("one", "two"))
    write_onnx(model, str(one))
    write_onnx(flow_of(model), str(two))
    assert one.read_bytes() == two.read_bytes()


def test_conditions_that_single_precision_cannot_tell_apart(tmp_path):
    cond = 1.7e9 + np.round(50 * conditions(600, 2))
    model = fitted(cond=cond, rejection=True, preconditioner=MIXTURE)
    (_, acceptance), _, flow = compare(model, tmp_path, 400, cond[:400])
    assert flow.condition_scaling.centre.all()
    assert 0 < acceptance.min() < acceptance.max() <= 1


@pytest.mark.parametrize("n_cond", [0, 2])
def test_acceptance_is_the_probability_by_which_python_keeps_an_event(n_cond, tmp_path):
    cond = conditions(600, n_cond, missing=0.1) if n_cond else None
    derived = ["ht = mass + 9 * count", f"part = minimum(ht, {'phi' if cond is None else 'c1'})"]
    model = fitted(cond=cond, rejection=True, observables=derived)
    given = None if cond is None else cond[:400]
    (_, acceptance), events, flow = compare(model, tmp_path, 400, given)
    assert acceptance.shape == (400,)
    assert 0 < acceptance.min() < acceptance.max() <= 1
    seen = flow.generator.classifier_inputs(events, given)
    assert flow.ratio.keeps(seen, acceptance * (1 - 1e-6)).all()
    uncertain = acceptance < 1
    assert not flow.ratio.keeps(seen, acceptance * (1 + 1e-6))[uncertain].any()


def test_the_first_events_of_a_sample_come_from_its_noise(tmp_path):
    x = np.random.default_rng(4).lognormal(size=(300, 2))
    model = fitted(x, preconditioner=MIXTURE)
    write_onnx(model, str(tmp_path / "flow.onnx"))
    rows = np.arange(50)
    noise = seeding.RowNoise(9, "sample", rows, (), once=True).standard_normal((50, 2))
    (events,) = run(tmp_path / "flow.onnx", noise=noise)
    assert relative(events, model.sample(50, random_state=9)).max() <= TOLERANCE


def test_undefined_relations_take_an_end_of_the_training_range(tmp_path):
    rng = np.random.default_rng(0)
    x = np.abs(rng.normal(size=(300, 2))) + 0.01
    x = np.column_stack([x, np.log(x[:, 0]), np.maximum(np.sqrt(x[:, 1]), 0.5)])
    frame = EventTable.of(x, ["a", "b", "c", "d"])
    relations = ["c = log(a)", "d = maximum(sqrt(b), 0.5)"]
    transforms = {"*": {"name": "standard"}}
    model = fitted(frame, relations=relations, transforms=transforms)
    _, expected, _ = compare(model, tmp_path, 500, wide=3.0)
    assert (expected[:, 0] <= 0).any()  # so that there is something undefined
    assert (expected[:, 1] < 0).any()


@pytest.mark.parametrize(
    "spec",
    [
        {"name": "minmax", "clip": True},
        {"name": "log", "clip": True},
        {"name": "logit", "low": 0.0, "high": 9.0, "clip": True},
        {"name": "rank", "tails": "limit"},
        ["log", "rank"],
        "identity",
        "standard",
        {"name": "integer", "inner": "rank"},
        {"name": "integer", "step": 0.5, "offset": 1, "decimals": 0},
        {"name": "integer", "step": 2, "divisor": 6},
        {"name": "integer", "decimals": 1, "inner": {"name": "circular", "period": 1e3}},
        "categorical",
        {"name": "circular", "period": 8.0, "low": 1.0},
    ],
    ids=str,
)
def test_every_transform_is_undone_as_in_python_far_out_too(spec):
    rng = np.random.default_rng(1)
    x = np.round(np.clip(rng.exponential(1.5, (400, 2)), 0, 9), 1)
    x = np.rint(x) if "integer" in str(spec) or spec == "categorical" else x
    x = np.maximum(x, 0.1) if spec == ["log", "rank"] else x
    x = in_bits(rng.normal(size=(400, 2)), 10) if spec == "standard" else x
    transform = TableTransform({"*": spec, "joint": "standardise"}).fit(EventTable.of(x))
    z = rng.normal(size=(500, transform.n_latent)) * rng.choice([0.1, 1.0, 10.0], (500, 1))
    graph = Graph()
    graph.output("x", columns_of(graph, transform, graph.input("z", z.shape[1])), 2)
    (got,) = run(graph.to_bytes("", {}, "0"), z=z)
    assert relative(got, transform.inverse(z)).max() <= 1e-12


def test_angles_are_exact_in_all_quadrants_and_on_the_axes():
    angle = np.linspace(-np.pi, np.pi, 500, endpoint=False)
    table = EventTable.of(np.column_stack([angle, angle]))
    transform = TableTransform({"*": "circular", "joint": "none"}).fit(table)
    points = np.column_stack([np.cos(angle), np.sin(angle)])
    points = np.vstack([points * s for s in (1e-9, 1.0, 1e9)] + [np.zeros((1, 2))])
    axes = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0], [-1.0, 1e-9], [-1, -1e-9]])
    z = np.tile(np.vstack([points, axes]), 2)
    graph = Graph()
    graph.output("x", columns_of(graph, transform, graph.input("z", 4)), 2)
    (got,) = run(graph.to_bytes("", {}, "0"), z=z)
    away = np.abs(got - transform.inverse(z))
    assert np.minimum(away, 2 * np.pi - away).max() < 1e-14


def test_functions_that_onnxruntime_does_not_have_are_exact():
    size = np.geomspace(1e-12, 300, 300)
    a = np.concatenate([-size[::-1], [0.0], size])
    columns = {"a": a, "b": np.roll(a, 7)}
    functions = [*("tan", "sinh", "cosh", "tanh", "arcsinh", "rint"), "arctan2", "hypot"]
    functions += ["arcsin", "arccos", "arctan"]
    texts = [f"{name}(a{', b' * (name in ('arctan2', 'hypot'))})" for name in functions]
    texts += ["where((a < b) & ~(a >= 1) | (b == 0) or a != b > 2, a, -b)"]
    made = {text: Expression.parse(text, "observable") for text in texts}
    graph = Graph()
    found = expressions_of(graph, expression_arrays(made, ["a", "b"]), graph.input("x", 2), 2)
    graph.output("y", graph.join(found), len(texts))
    (got,) = run(graph.to_bytes("", {}, "0"), x=np.column_stack([*columns.values()]))
    for values, (text, expression) in zip(got.T, made.items(), strict=True):
        np.testing.assert_allclose(values, expression.numbers(columns), 1e-12, 1e-16, err_msg=text)


def test_the_file_says_what_goes_in_and_comes_out(tmp_path):
    cond = conditions(600, 2)
    model = fitted(cond=cond, rejection=True, preconditioner=MIXTURE)
    write_onnx(model, str(tmp_path / "flow.onnx"))
    opened = session(tmp_path / "flow.onnx")
    assert [i.name for i in opened.get_inputs()] == ["noise", "conditions"]
    assert [o.name for o in opened.get_outputs()] == ["events", "acceptance"]
    assert {i.type for i in opened.get_inputs()} == {"tensor(double)"}
    about = opened.get_modelmeta().custom_metadata_map
    columns = json.loads(about["columns"])
    assert [column["name"] for column in columns] == list(NAMES)
    assert columns[0]["unit"] == "GeV"
    assert columns[5]["categories"] == ["a", "b", "c"]
    assert [c["name"] for c in json.loads(about["conditions"])] == ["c0", "c1"]
    low, high = json.loads(about["conditions"])[0]["limits"]
    assert low < cond[:, 0].min() < cond[:, 0].max() < high
    assert (about["format"], about["unknown_conditions"]) == ("1", "any")
    assert about["run_digest"] == flow_of(model).plan["digest"]
    assert json.loads(about["sampler"])["solver"] == "adams_bashforth_3"
    assert float(about["mean_acceptance"]) == model.acceptance_


def test_events_are_nan_where_a_condition_is_unknown_and_no_graph_is_made_for_that(tmp_path):
    n_cond = MOST_UNKNOWN + 1
    cond = conditions(600, n_cond)
    model = fitted(cond=cond, preconditioner="gaussian")
    compare(model, tmp_path, 100, cond[:100])
    cond[3, 2] = np.nan
    path = tmp_path / "flow.onnx"
    noise = noise_for(flow_of(model), 5)
    events, kept = run(path, noise=noise, conditions=cond[:5])
    assert kept.all()
    assert np.array_equal(np.isnan(events).all(axis=1), np.arange(5) == 3)
    assert not np.isnan(events[[0, 1, 2, 4]]).any()
    about = session(path).get_modelmeta().custom_metadata_map
    assert about["unknown_conditions"] == "none"


def test_equal_models_give_equal_files(tmp_path):
    x = np.random.default_rng(4).lognormal(size=(300, 2))
    for name in ("one", "two"):
        write_onnx(fitted(x), str(tmp_path / name))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_what_draws_random_numbers_or_starts_from_events_is_refused_by_name(tmp_path):
    x = np.random.default_rng(4).lognormal(size=(300, 2))
    path = str(tmp_path / "flow.onnx")
    stochastic = flow_of(fitted(x), sampler={"solver": "euler_maruyama"})
    with pytest.raises(ConfigError, match="euler_maruyama.*adams_bashforth_3"):
        write_onnx(stochastic, path)
    between = flow_of(fitted(x), sampler={"interpolate": True})
    with pytest.raises(ConfigError, match="interpolate"):
        write_onnx(between, path)
    paired = FlowBDT(coupling="given", n_steps=2, preset="fast", booster={"n_estimators": 2})
    with pytest.raises(ConfigError, match="source events"):
        write_onnx(paired.fit(x, source=x + 1), path)
    assert not (tmp_path / "flow.onnx").exists()


def test_a_file_beyond_the_limit_of_the_format_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr("flowbdt.generation.export.onnx_graph.LARGEST_FILE", 10_000)
    with pytest.raises(ConfigError, match="fewer or shallower trees"):
        write_onnx(fitted(np.random.default_rng(4).lognormal(size=(300, 2))), str(tmp_path / "f"))


def test_without_onnx_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtra, match=r"flowbdt\[onnx\]"):
        Graph()
