"""The compiled core: the events of XGBoost and numpy."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress

import h5py
import numpy as np
import pytest

from flowbdt import EventTable, FlowBDT
from flowbdt.cli.main import main
from flowbdt.errors import ConfigError, FormatError, InputError, MissingExtra, SlowWarning
from flowbdt.flow.fields import FunctionField
from flowbdt.flow.parametrisations import PathConvention
from flowbdt.flow.paths import PATHS
from flowbdt.flow.solvers import SOLVERS, integrate
from flowbdt.generation.native import core, engine
from flowbdt.generation.packed.pack_steps import solver_program
from flowbdt.generation.trained_flow import Flow
from flowbdt.tables.formulas.relations import Relation
from flowbdt.tables.transforms import TableTransform
from flowbdt.tables.transforms.rounded_floats import in_bits, in_digits
from flowbdt.training import run_directory


def replayed(found, field, x0):
    """What a program does, with its own scheme of slots."""
    slots, x = {}, x0.copy()
    for e in range(len(found.times) + 1):
        x = found.scale[e] * x
        for q in range(found.terms[e], found.terms[e + 1]):
            x = x + found.weight[q] * slots[found.term[q]]
        if e < len(found.times):
            slots[found.slot[e]] = field(found.times[e], x)
    return x


@pytest.mark.parametrize("name", [n for n in SOLVERS.names() if not SOLVERS.get(n).adaptive])
def test_a_program_does_what_its_solver_does(name):
    solver, path = SOLVERS.build(name), PATHS.build("linear")
    boundaries = np.array([0.0, 0.1, 0.3, 0.55, 0.8, 1.0])
    if solver.stochastic:
        with pytest.raises(ConfigError, match="random"):
            solver_program(solver, boundaries, PathConvention(path))
        return
    field = FunctionField(lambda t, x, cond: np.sin(x + t) - 0.3 * x, path=path)
    x0 = np.random.default_rng(0).normal(size=(4, 3))
    found = solver_program(solver, boundaries, field.convention)
    expected = integrate(solver, field, x0, boundaries).x
    assert np.allclose(replayed(found, field, x0), expected, rtol=1e-12, atol=1e-12)
    assert found.n_slots <= 7


SMALL = {
    "n_steps": 4,
    "noise": {"n_repeats": 1, "candidates": 0},
    "booster": {"n_estimators": 6, "max_depth": 4, "early_stopping_rounds": 0},
    "random_state": 1,
    "rejection": False,
}


def table(n=600):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 3))
    x[:, 1] = np.exp(x[:, 0] + 0.3 * x[:, 1])
    x = np.column_stack([x, x[:, 1] / (1.0 + x[:, 0] ** 2), rng.integers(0, 4, n)])
    cond = np.column_stack([x[:, 0] > 0, rng.normal(size=n)]).astype(float)
    return x, cond


def fitted(**settings):
    x, cond = table()
    given = settings.pop("given", False)
    cond[::7, 1] = cond[::13, 0] = np.nan
    data = EventTable.of(x, list("abcde"), cond=cond if given else None)
    relations = ["d = b / (1 + a ** 2)"]
    return FlowBDT(**{**SMALL, "relations": relations, **settings}).fit(data)


MIXTURE = {"name": "mixture", "n_components": 5}
KINDS = {
    "no closed form": {"preconditioner": "none"},
    "one Gaussian": {"preconditioner": "gaussian"},
    "mixture": {"preconditioner": MIXTURE, "inputs": ["latent", "columns", "end_point"]},
    "all views": {
        "preconditioner": MIXTURE,
        "inputs": ["latent", "columns", "end_point", "components"],
    },
    "low rank": {"preconditioner": {**MIXTURE, "covariance": "low_rank", "rank": 2}},
    "conditions": {"preconditioner": MIXTURE, "given": True},
    "low rank, conditions": {
        "preconditioner": {**MIXTURE, "covariance": "low_rank", "rank": 2},
        "given": True,
    },
    "heun": {"preconditioner": MIXTURE, "solver": "heun", "n_steps": 3},
    "noise on the path": {
        "preconditioner": MIXTURE,
        "path": {"name": "linear", "sigma": 0.1},
        "solver": "euler",
    },
    "mean": {
        "preconditioner": MIXTURE,
        "noise": {**SMALL["noise"], "target": "mean"},
        "solver": "euler",
    },
    "groups": {
        "preconditioner": "gaussian",
        "booster": {**SMALL["booster"], "outputs_per_group": 2},
    },
    "rejection": {"preconditioner": MIXTURE, "rejection": True},
}


@pytest.fixture(scope="module", params=list(KINDS))
def model(request):
    return fitted(**KINDS[request.param])


def conditions_of(model, n):
    if not model.flow().columns["conditions"]:
        return None
    cond = np.column_stack([np.arange(n) % 2, np.linspace(-1, 1, n)]).astype(float)
    cond[::3, 1] = np.nan
    cond[::5, 0] = np.nan
    return cond


def flow_of(model, **options):
    return Flow(run_directory.Archive("model", model.archive_), **options)


def events(model, n, first=0, **options):
    flow = flow_of(model, **options)
    cond = conditions_of(model, n)
    return np.vstack([block.x for block in flow.sample_blocks(n, seed=4, cond=cond)])


def test_events_are_those_of_the_uncompiled_way(model):
    flow = Flow(run_directory.Archive("model", model.archive_))
    assert flow.compiled_flow is not None
    assert flow.compiled_inverse is not None
    ours, theirs = (events(model, 700, compiled=compiled) for compiled in (True, False))
    same = np.isclose(ours, theirs, rtol=1e-9, atol=1e-9).all(axis=1)
    assert same.mean() > 0.995  # a rounding error may carry a point over a cut


INSTRUCTIONS = ("plain", "avx2", "avx512")


def walked(flow, n, first=0):
    """Where the steps carry n points from the first on, the same ones for every n."""
    x0 = np.random.default_rng(3).normal(size=(600, flow.n_latent))
    cond = np.column_stack([np.arange(600) % 2, np.linspace(-1, 1, 600)]).astype(float)
    cond[::3, 1] = np.nan
    rows = slice(first, first + n)
    return flow.compiled_flow.run(x0[rows], cond[rows] if flow.condition_names else None)


@pytest.mark.parametrize("precision", ["double", "single"])
def test_a_row_is_the_same_among_however_many_in_lanes(model, precision, monkeypatch):
    whole = walked(flow_of(model, precision=precision), 600)
    for n in (1, 3, 6, 9, 65, 257, 300):
        assert np.array_equal(walked(flow_of(model, precision=precision), n), whole[:n])
    for name in INSTRUCTIONS:
        monkeypatch.setenv("FLOWBDT_LANES", name)
        # which of the others there are depends on the processor
        with nullcontext() if name == "plain" else suppress(InputError):
            flow = flow_of(model, precision=precision)
            again = walked(flow, 600)
            assert precision == "single" or again.tobytes() == whole.tobytes()
            alone = [walked(flow, 1, k) for k in range(20)]  # components in lanes, not rows
            assert np.vstack(alone).tobytes() == again[:20].tobytes()


def test_lanes_walk_as_numpy_does_and_float32_is_close(model, request):
    # a condition of two values says nearly all: low-rank matrices lose five digits, all ways
    hard = "low rank, conditions" in request.node.name
    flow = flow_of(model)
    x0 = np.random.default_rng(3).normal(size=(600, flow.n_latent))
    cond = None
    if flow.condition_names:
        cond = np.column_stack([np.arange(600) % 2, np.linspace(-1, 1, 600)]).astype(float)
        cond[::3, 1] = np.nan
    boundaries, field = flow.sampler.boundaries, flow_of(model, compiled=False).field
    expected = integrate(flow.sampler.solver, field, x0, boundaries, cond).x
    moved = np.abs(walked(flow, 600) - expected).max(axis=1)
    limit = 1e-9 if hard else 1e-12
    assert np.mean(moved > limit) < 0.01  # or a tree's cut is crossed
    moved = np.abs(walked(flow_of(model, precision="single"), 600) - expected).max(axis=1)
    assert np.median(moved) < (0.1 if hard else 1e-5)
    assert np.mean(moved > 1e-3) < (1.0 if hard else 0.01)


def test_single_precision_is_recorded_and_refused_where_it_is_not_to_be_had():
    model = fitted(preconditioner="gaussian")
    flow = flow_of(model, precision="single")
    assert flow.record(1)["precision"] == "single"
    assert "precision" not in flow_of(model).record(1)
    close = model.sample(50, random_state=1, precision="single").x
    assert np.allclose(close, model.sample(50, random_state=1).x, atol=1e-3)
    for options in ({"compiled": False}, {"sampler": {"solver": "ddpm"}}):
        with pytest.raises(ConfigError, match="precision='double'"):
            flow_of(model, precision="single", **options)
    with pytest.raises(ConfigError, match="half"):
        flow_of(model, precision="half")


def test_unknown_instructions_are_refused(monkeypatch):
    monkeypatch.setenv("FLOWBDT_LANES", "sse9")
    with pytest.raises(InputError, match="sse9.*avx512"):
        walked(flow_of(fitted(preconditioner="none")), 6)


def test_threads_do_not_matter(model):
    assert np.array_equal(events(model, 700, n_threads=1), events(model, 700, n_threads=3))


def test_one_event_after_the_other_is_the_sample(model):
    n = 40
    cond = conditions_of(model, n)
    expected = events(model, n)
    sampler = model.sampler(random_state=4)
    given = [None] * n if cond is None else cond
    assert np.array_equal([sampler.one(row).copy() for row in given], expected)
    later = model.sampler(random_state=4, first=n - 3)
    assert np.array_equal(later.one(given[-3]), expected[-3])


def test_wrong_conditions_of_one_event_are_told(model):
    with pytest.raises(InputError, match="conditions"):
        model.sampler(random_state=1).one([1.0])


def test_given_events_are_carried_as_by_the_uncompiled_way():
    x, _ = table()
    settings = {**SMALL, "coupling": "given", "preconditioner": MIXTURE}
    x = x[:, :3]
    model = FlowBDT(**settings).fit(x, source=x + 0.3)
    flows = [Flow(run_directory.Archive("m", model.archive_), compiled=c) for c in (True, False)]
    ours, theirs = (next(f.sample_blocks(200, seed=1, source=x[:200])).x for f in flows)
    assert flows[0].compiled_flow is not None
    assert np.isclose(ours, theirs, rtol=1e-9, atol=1e-12).all(axis=1).mean() > 0.99
    with pytest.raises(InputError, match="source events"):
        model.sampler()


@pytest.mark.parametrize("sampler", [{"solver": "ddpm"}, {"n_steps": 3, "interpolate": True}])
def test_other_samplers_use_compiled_trees_and_give_the_same_bits(sampler):
    model = fitted(preconditioner=MIXTURE)
    ours, theirs = (events(model, 100, compiled=c, sampler=sampler) for c in (True, False))
    flow = Flow(run_directory.Archive("model", model.archive_), sampler=sampler)
    assert flow.compiled_flow is None
    assert np.allclose(ours, theirs, rtol=1e-12)


def test_without_the_core_xgboost_is_asked_and_it_is_said_once(monkeypatch):
    model = fitted(preconditioner="gaussian")
    expected = events(model, 50, compiled=False)
    monkeypatch.setattr(engine, "why_not", lambda: f"not installed: {core.ADVICE}")
    engine.warn_slow.cache_clear()
    with pytest.warns(UserWarning, match="install a C.* compiler"):
        first = events(model, 50)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        second = events(model, 50)
    assert np.array_equal(first, expected)
    assert np.array_equal(second, expected)
    with pytest.raises(MissingExtra, match="not installed"):
        events(model, 50, compiled=True)


def test_the_record_says_how_events_were_made():
    archive = run_directory.Archive("model", fitted(preconditioner="none").archive_)
    assert Flow(archive, compiled=False).record(1)["compiled"] is False
    assert Flow(archive).record(1)["compiled"] is (engine.why_not() is None)


def test_sample_and_generate_can_do_without(tmp_path):
    model = fitted(preconditioner=MIXTURE)
    ours, theirs = (model.sample(20, random_state=2, compiled=c).x for c in (True, False))
    assert np.allclose(ours, theirs, rtol=1e-9)
    model.save(tmp_path / "m.flowbdt")
    command = ["generate", str(tmp_path / "m.flowbdt"), "-q", "-n", "20", "--seed", "2"]
    for more, compiled in (([], True), (["--no-compile"], False)):
        assert main([*command, "-o", str(tmp_path / "x.h5"), *more]) == 0
        with h5py.File(tmp_path / "x.h5") as file:
            assert bool(file.attrs["compiled"]) is compiled


SPECS = [
    "auto",
    {"b": {"name": "logit", "low": 0, "high": 50}, "a": "rank", "joint": "standardise"},
    {"a": {"name": "standard", "clip": True}, "b": ["log", "minmax"], "joint": "none"},
    {"g": {"name": "integer", "step": 0.5, "offset": 0.5, "decimals": 1}},
    {"g": {"name": "integer", "step": 2, "divisor": 6}},
    {"g": {"name": "integer", "inner": {"name": "circular", "period": 9e9}}},
]


@pytest.mark.parametrize("spec", SPECS)
def test_the_way_back_to_columns_is_that_of_the_transform(spec):
    x, _ = table(3000)
    floats = [
        in_digits((scale * x[:, 0]).astype(np.float32).astype(float), digits)
        for scale, digits in ((1e-3, 8), (1e9, 9))
    ]
    floats.append(in_bits(x[:, 0], 12))
    x = np.column_stack([x, np.where(x[:, 0] > 0.5, 0.0, x[:, 2]), np.round(1e4 * x[:, 2])])
    columns = EventTable.of(np.column_stack([x, *floats]), list("abcdefghij"))
    relations = ["d = b / (1 + a ** 2)"]
    transform = TableTransform(spec, relations).fit(columns)
    z = 1.3 * np.random.default_rng(1).normal(size=(3000, transform.n_latent))
    expected, got = transform.inverse(z), np.empty((3000, 10))
    assert engine.native_columns(transform).inverse(z, None, got) == 0
    assert np.allclose(got, expected, rtol=1e-11, atol=1e-13)
    assert np.array_equal(in_digits(got[:, 7], 8), got[:, 7]), "printed with eight digits"
    assert np.array_equal(in_bits(got[:, 9], 12), got[:, 9]), "rounded to twelve bits"


def test_functions_of_relations_are_those_of_numpy():
    x = np.random.default_rng(0).normal(size=(400, 3))
    known = dict(zip("abc", x.T, strict=True))
    texts = ["sin(a) * cos(b) - tan(c)", "sinh(a) + cosh(b) * tanh(c)", "rint(9 * a) + arcsinh(b)"]
    texts += ["arctan2(a, b) * hypot(b, c)"]
    relations = [f"r{i} = {text}" for i, text in enumerate(texts)]
    made = {one.target: one.evaluate(known) for one in map(Relation.parse, relations)}
    transform = TableTransform("auto", relations).fit(EventTable.of({**known, **made}))
    z, got = np.random.default_rng(1).normal(size=(400, 3)), np.empty((400, 7))
    assert engine.native_columns(transform).inverse(z, None, got) == 0
    assert np.allclose(got, transform.inverse(z), rtol=1e-11, atol=1e-13)


def test_an_undefined_relation_is_counted_and_replaced():
    rng = np.random.default_rng(0)
    a = rng.uniform(0.5, 3.0, 300)
    data = EventTable.of(np.column_stack([a, np.log(a)]), ["a", "b"])
    transform = TableTransform({"a": "standard", "joint": "none"}, ["b = log(a)"]).fit(data)
    z, x = np.array([[-5.0], [0.0]]), np.empty((2, 2))
    assert engine.native_columns(transform).inverse(z, None, x) == 1
    with pytest.warns(UserWarning, match="undefined"):
        assert np.allclose(x, transform.inverse(z))


def test_an_angle_goes_back_as_by_the_transform():
    x = np.column_stack([np.random.default_rng(0).uniform(1.0, 7.0, 400), np.ones(400)])
    x[:, 1] += x[:, 0] ** 2
    data, angle = EventTable.of(x, ["a", "b"]), {"name": "circular", "period": 6.0, "low": 1.0}
    transform = TableTransform({"a": angle}).fit(data)
    z = 1.3 * np.random.default_rng(1).normal(size=(2000, transform.n_latent))
    got = np.empty((2000, 2))
    engine.native_columns(transform).inverse(z, None, got)
    assert np.allclose(got, transform.inverse(z), rtol=1e-12)
    assert ((got[:, 0] >= 1.0) & (got[:, 0] < 7.0)).all()


def test_calls_at_the_same_time_do_not_disturb_each_other():
    rng = np.random.default_rng(0)
    x = np.column_stack([rng.lognormal(size=600), rng.normal(size=600)])
    model = FlowBDT(preset="fast", n_steps=2, booster={"n_estimators": 2}, random_state=1).fit(x)
    expected = [model.sample(6000, random_state=seed) for seed in range(3)]
    with ThreadPoolExecutor(3) as pool:
        seeds = [0, 1, 2] * 4
        made = list(pool.map(lambda seed: model.sample(6000, random_state=seed), seeds))
    assert all(np.array_equal(a, expected[s]) for a, s in zip(made, seeds, strict=True))


def test_an_unusable_core_leaves_generation_to_xgboost(monkeypatch):
    monkeypatch.setattr(engine, "why_not", lambda: "it is of another machine")
    engine.warn_slow.cache_clear()
    with pytest.warns(SlowWarning, match="another machine"):
        assert not engine.may_compile(None)
    with pytest.raises(MissingExtra, match="another machine"):
        engine.may_compile(True)
    assert not engine.may_compile(False)


def test_an_infinite_condition_is_refused_for_one_event():
    rng = np.random.default_rng(0)
    small = FlowBDT(preset="fast", n_steps=2, booster={"n_estimators": 2}, random_state=1)
    model = small.fit(rng.normal(size=(300, 2)), cond=rng.normal(size=(300, 1)))
    with pytest.raises(InputError, match="NaN where unknown"):
        model.sampler(random_state=1).one([np.inf])


def test_trees_of_another_run_are_refused():
    """The core would read what is not there: counts are compared when trees are read."""
    x, _ = table(300)
    flow, foreign = (
        FlowBDT(**SMALL, preconditioner="none", inputs=["latent"]).fit(x[:, :n]).flow()
        for n in (3, 2)
    )
    assert flow.step_forests(0)[0].width == 3
    flow._model = foreign._model
    with pytest.raises(FormatError, match="step model 0 has 2 inputs and 2 outputs"):
        flow.step_forests(0)


def test_a_core_of_other_sources_is_not_used(monkeypatch):
    """As after an update of an editable install."""
    assert core._loaded.__wrapped__()[1] is None
    monkeypatch.setattr(core.sources, "digest", lambda: "others")
    assert "setup.py build_ext" in core._loaded.__wrapped__()[1]
    monkeypatch.setattr(core.sources, "LIBRARY", core.sources.FOLDER / "nowhere.so")
    assert "not built" in core._loaded.__wrapped__()[1]


def test_arrays_with_gaps_between_their_numbers_are_refused():
    with pytest.raises(InputError, match="contiguous"):
        core.memory(np.zeros((4, 4))[:, ::2])


def test_exact_values_that_no_training_row_has_change_nothing():
    """A column may be declared to have some: no classifier is needed without them."""
    rng = np.random.default_rng(3)
    table = {"x": 1 + rng.exponential(size=400), "y": rng.normal(size=400)}
    transforms = {"*": "auto", "x": {"name": "mixed", "atoms": [0], "equal": [], "inner": "log"}}
    model = FlowBDT(n_steps=3, booster={"n_estimators": 2}, transforms=transforms, random_state=1)
    flow = model.fit(table).flow()
    assert "always smooth" in "\n".join(flow.transform.describe())
    assert flow.compiled_inverse is not None
