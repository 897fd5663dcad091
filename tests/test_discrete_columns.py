"""Discrete columns: classifiers as jobs, in the order of the skeleton, with what is exact kept."""

import json

import numpy as np
import pandas as pd
import pytest
from conftest import SMALL_MODEL as SMALL
from scipy.stats import wasserstein_distance

from flowbdt import FlowBDT
from flowbdt.config import ModelConfig
from flowbdt.errors import ConfigError, FormatError
from flowbdt.generation.one_event import EventSampler
from flowbdt.model import fit_run, train_run
from flowbdt.tables.event_table import EventTable
from flowbdt.tables.skeleton import Skeleton
from flowbdt.tables.transforms import TableTransform
from flowbdt.training import run_directory
from flowbdt.training.executors import EXECUTORS
from flowbdt.training.plan import Inputs, fitted_transform
from flowbdt.training.run_directory import RunDirectory
from flowbdt.tuning.distillation import student_inputs


def mixed(n=1500, seed=0):
    """Return a table in which the school decides the years, and energy and region the trigger."""
    rng = np.random.default_rng(seed)
    school = rng.choice(["none", "primary", "college", "university"], n, p=[0.1, 0.3, 0.4, 0.2])
    region = np.where(rng.random(n) < 0.5, "barrel", "endcap")
    energy = rng.lognormal(3, 0.5, n) * np.where(region == "barrel", 1.0, 2.0)
    fires = rng.random(n) < 1 / (1 + np.exp(-(np.log(energy) - 3.3) * 6))
    years = pd.Series(school).map({"none": 0, "primary": 6, "college": 12, "university": 16})
    return pd.DataFrame(
        {"energy": energy, "school": school, "years": years, "region": region, "fires": fires}
    )


@pytest.fixture(scope="module")
def table():
    return mixed()


@pytest.fixture(scope="module")
def model(table):
    return FlowBDT(**SMALL).fit(table)


def test_values_types_and_dependence_on_numbers_come_back(table, model):
    new = model.sample(4000, random_state=2)
    assert new.dtypes.equals(table.dtypes)
    assert set(new.school) == set(table.school)
    rates = [frame.fires.groupby(frame.energy > 27).mean() for frame in (table, new)]
    assert np.allclose(*rates, atol=0.06)
    shares = [frame.groupby("region").energy.mean() for frame in (table, new)]
    assert np.allclose(*shares, rtol=0.12)


def test_a_function_of_a_column_is_exact(table, model):
    assert "years follows from school" in model.transform_.describe()
    new = model.sample(4000, random_state=3)
    known = table.groupby("school").years.first()
    assert (new.years == new.school.map(known)).all()


def test_pairs_that_never_meet_are_not_generated():
    rng = np.random.default_rng(3)
    relation = rng.choice(["husband", "wife", "child", "alone"], 1000)
    married = np.isin(relation, ["husband", "wife"]) | (rng.random(1000) < 0.02)
    married &= relation != "child"
    frame = pd.DataFrame(
        {"relation": relation, "married": married, "age": rng.normal(40, 10, 1000)}
    )
    new = FlowBDT(**SMALL).fit(frame).sample(5000, random_state=1)
    assert not ((new.relation == "child") & new.married).any()
    assert not (new.relation.isin(["husband", "wife"]) & ~new.married).any()
    alone = new[new.relation == "alone"].married.mean()
    assert 0 < alone < 0.06


def test_pairs_that_miss_by_chance_stay_possible():
    rng = np.random.default_rng(4)
    codes = {"a": rng.integers(0, 10, 400), "b": rng.integers(0, 10, 400)}  # 4 of each pair
    skeleton = Skeleton.fit({name: np.arange(10.0) for name in codes}, codes)
    assert not skeleton.allowed


def test_a_table_without_numbers(table):
    frame = table[["school", "region", "fires"]]
    model = FlowBDT(**SMALL).fit(frame)
    assert model.n_evaluations_ > 0
    assert model.steps_ == []
    new = model.sample(6000, random_state=1)
    columns = ["school", "region"]
    expected = frame.value_counts(columns, normalize=True).sort_index()
    got = new.value_counts(columns, normalize=True).sort_index()
    assert np.abs(expected - got).max() < 0.03


def test_an_event_depends_on_seed_and_number_only(model):
    every = model.sample(5000, random_state=7)
    assert every.iloc[:10].equals(model.sample(10, random_state=7))
    blocks = pd.concat(list(model.sample_blocks(5000, random_state=7, block_rows=1)))
    assert blocks.reset_index(drop=True).equals(every)
    sampler = EventSampler(model.flow(), 7, 4998)
    flow = model.flow()
    single = flow.as_fitted(
        flow.as_table(np.vstack([sampler.one().copy() for _ in range(2)]), None)
    )
    assert single.equals(every.iloc[4998:].reset_index(drop=True))


def test_machine_code_gives_the_same_events(model):
    pytest.importorskip("numba")
    one, other = (model.sample(2000, random_state=1, compiled=c) for c in (True, False))
    assert (one.school == other.school).mean() > 0.995
    assert (one.fires == other.fires).mean() > 0.995


def test_conditions_decide_about_discrete_columns():
    rng = np.random.default_rng(0)
    eta = rng.uniform(-2.5, 2.5, 2000)
    hits = (np.abs(eta) > 1.5).astype(int) + 1
    frame = pd.DataFrame({"pt": rng.lognormal(3, 0.3, 2000), "hits": hits})
    model = FlowBDT(**SMALL).fit(frame, cond=pd.DataFrame({"eta": eta}))
    new = model.sample(cond=pd.DataFrame({"eta": np.tile([0.5, 2.0], 500)}), random_state=1)
    assert (new.hits[::2] == 1).mean() > 0.98
    assert (new.hits[1::2] == 2).mean() > 0.98


def test_weights_count():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x": rng.normal(size=3000), "kind": rng.choice(["a", "b"], 3000)})
    weight = np.where(frame.kind == "a", 3.0, 1.0)
    new = FlowBDT(**SMALL).fit(frame, sample_weight=weight).sample(4000, random_state=1)
    assert (new.kind == "a").mean() == pytest.approx(0.75, abs=0.03)


def test_relations_with_discrete_columns_hold(table):
    frame = table.assign(months=table.years * 12.0 + 0.5)
    new = FlowBDT(**SMALL, relations=["months = years * 12 + 0.5"]).fit(frame).sample(100)
    assert (new.months == new.years * 12 + 0.5).all()


def test_more_values_than_a_classifier_can_have_stay_with_the_flow():
    towns = pd.Series([f"town {i % 300}" for i in range(9000)], dtype="category")
    frame = pd.DataFrame({"x": np.random.default_rng(0).normal(size=9000), "town": towns})
    lines = TableTransform(classify=True).fit(EventTable.of(frame)).describe()
    assert any(line.startswith("town: 300 distinct values, each an interval") for line in lines)
    assert any("too many for a classifier" in line for line in lines)
    with pytest.raises(ConfigError, match="town.*too many for a classifier"):
        FlowBDT(**SMALL, transforms={"town": "classified"}).fit(frame)


def planned(folder, table):
    return Inputs(EventTable.of(table), ModelConfig(**SMALL), 1, kind="frame")


def test_classifiers_are_jobs_and_give_equal_bytes_anywhere(tmp_path, table, model):
    config = ModelConfig(**SMALL, executor={"name": "joblib", "n_jobs": 2})
    run = fit_run(Inputs(EventTable.of(table), config, 1, kind="frame"), tmp_path / "run")
    names = list(model.transform_.skeleton.names)
    n_times = len(run_directory.trained_times(run.plan()))
    assert run.n_steps() == n_times + len(names)
    manifest = run.read_json("manifest.json")
    assert [one["name"] for one in manifest["classifiers"]] == names
    assert all(c["log_loss"] <= c["log_loss_without_trees"] for c in manifest["classifiers"])
    models = model.flow().manifest["models"]
    assert manifest["models"] == models
    again = run_directory.model_name(n_times + 1)
    (run.path / again).unlink()
    assert run.missing_steps() == [n_times + 1]
    train_run(run, EXECUTORS.build("serial"))
    assert run.read_json("manifest.json") == manifest


def test_a_failed_classifier_is_named(tmp_path, table, monkeypatch):
    from flowbdt.errors import IncompleteRun
    from flowbdt.trees.classifiers import ValueClassifier

    def broken(*arguments, **options):
        raise MemoryError("no memory for the histograms")

    monkeypatch.setattr(ValueClassifier, "fit", broken)
    with pytest.raises(IncompleteRun, match="4 of 6 steps are missing: 2, 3, 4, 5.*no memory"):
        fit_run(planned(tmp_path, table), tmp_path / "run")


def test_saved_models_give_the_same_events(tmp_path, model):
    model.save(tmp_path / "m.flowbdt")
    again = FlowBDT.load(tmp_path / "m.flowbdt")
    assert again.sample(50, random_state=1).equals(model.sample(50, random_state=1))
    assert [c["name"] for c in again.flow().manifest["classifiers"]]


def test_a_classifier_of_another_run_is_refused(tmp_path, table, model):
    fit_run(planned(tmp_path, table), tmp_path / "run")
    run = RunDirectory(tmp_path / "run")
    n_times = len(run_directory.trained_times(run.plan()))
    first, second = (run.file(run_directory.model_name(n_times + k)) for k in (0, 1))
    first.write_bytes(second.read_bytes())
    with pytest.raises(FormatError, match="hash"):
        FlowBDT.load(run.path).sample(1)


def test_what_cannot_carry_them_says_so(tmp_path, table, model):
    from flowbdt.generation.export import write_cpp

    with pytest.raises(ConfigError, match="classifiers draw 'school'.*'categorical'"):
        write_cpp(model, tmp_path / "m.hpp")
    model.save(tmp_path / "m.flowbdt")
    with pytest.raises(ConfigError, match="classifiers draw"):
        student_inputs(run_directory.open_run(tmp_path / "m.flowbdt"), n_pairs=100)
    given = {**SMALL, "coupling": "given", "transforms": {"region": "classified"}}
    with pytest.raises(ConfigError, match="leave it out"):
        FlowBDT(**given).fit(table, source=table)


def test_source_events_carry_every_column(table):
    start = table.assign(energy=table.energy * 1.1)
    model = FlowBDT(**SMALL, coupling="given").fit(table, source=start)
    new = model.sample(source=start)
    assert (new.school == table.school).mean() > 0.95


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": ["school"]}, "order of discrete columns"),
        ({"exclusions": [{"before": 2, "column": 1, "pairs": []}]}, "one before"),
        ({"exclusions": [{"before": 0, "column": 1, "pairs": [[99, 0]]}]}, "not there"),
        ({"exclusions": [{"before": 0, "column": 1, "pairs": [[-1, 0]]}]}, "pairs"),
        ({"names": 3}, "names"),
    ],
)
def test_a_damaged_skeleton_is_refused(model, change, message):
    stored = json.loads(json.dumps(model.transform_.to_json()))
    stored["skeleton"] = {**stored["skeleton"], **change}
    with pytest.raises(FormatError, match=message):
        TableTransform.from_json(stored)


def classes(n=150, seed=0):
    """Return three classes in places of their own, with columns that are skewed in each."""
    rng = np.random.default_rng(seed)
    kind = np.arange(n) % 3
    x = rng.normal(size=(n, 3)) * 0.3 + np.array([[0, 0, 0], [2, 1, 0], [1, 3, 1]])[kind]
    x[:, 2] += rng.exponential(size=n) * (1 + kind)
    frame = pd.DataFrame(x, columns=["a", "b", "c"])
    return frame.assign(kind=np.array(["u", "v", "w"])[kind])


@pytest.fixture(scope="module")
def of_classes():
    return FlowBDT(preset="fast", random_state=1).fit(classes())


def distance(real, new):
    """Return the Wasserstein distance of columns within the classes, summed."""
    pairs = [(real[real.kind == k], new[new.kind == k]) for k in "uvw"]
    return sum(wasserstein_distance(one[c], two[c]) for one, two in pairs for c in "abc")


def test_a_category_of_a_small_table_shapes_the_mixture(of_classes):
    new, test = of_classes.sample(150, random_state=2), classes(3000, seed=5)
    assert (np.abs(new.kind.value_counts() - 50) <= 1).all()
    assert new.merge(classes(), on=["a", "b", "c"]).empty  # no copies
    plain = FlowBDT(preset="fast", booster={"n_estimators": 19}, random_state=1).fit(classes())
    many = [model.sample(3000, random_state=3) for model in (of_classes, plain)]
    ours, without = (distance(test, one) for one in many)
    assert ours < 0.8 * without
    assert (many[0].c.groupby(many[0].kind).min() > -1.2).all()  # bent to the edge of each class
    assert all(step["trees"] == 0 for step in of_classes.steps_)
    assert "3 values of the column drawn first" in of_classes.flow().preconditioner.describe()


def test_kept_shares_of_a_class_depend_on_rows_only(of_classes, tmp_path):
    whole = of_classes.sample(5000, random_state=4)
    assert of_classes.sample(700, random_state=4).equals(whole[:700])
    blocks = of_classes.sample_blocks(5000, random_state=4, block_rows=1)
    assert pd.concat(blocks, ignore_index=True).equals(whole)
    of_classes.save(tmp_path / "model.flowbdt")
    loaded = FlowBDT.load(tmp_path / "model.flowbdt")
    assert loaded.sample(5000, random_state=4).equals(whole)
    sampler = of_classes.sampler(random_state=4)
    one = np.vstack([sampler.one().copy() for _ in range(3)])
    assert np.array_equal(one[:, :3], whole.iloc[:3, :3])
    plain = of_classes.flow(compiled=False)
    table = next(plain.sample_blocks(700, seed=4))
    assert np.allclose(table.x[:, :3], whole.iloc[:700, :3], rtol=1e-4, atol=1e-4)


def test_classes_given_and_to_be_found(of_classes):
    given = pd.DataFrame({"kind": ["v"] * 600})
    new = of_classes.sample(given=given, random_state=5)
    real = classes().query("kind == 'v'")
    assert np.allclose(new[["a", "b", "c"]].mean(), real[["a", "b", "c"]].mean(), atol=0.25)
    found = of_classes.sample(given=classes(300, seed=6)[["a", "b", "c"]], random_state=6)
    assert (found.kind == classes(300, seed=6).kind).mean() > 0.9


def test_no_category_comes_first_where_trees_or_rejection_are_asked_for_or_it_tells_nothing():
    def first(table, **settings):
        config = ModelConfig(preset="fast", random_state=1, **settings)
        inputs = Inputs(EventTable.of(table), config, 1).settled()
        return fitted_transform(inputs, np.ones(len(table), dtype=bool))[1]

    table = classes()
    assert first(table).name == "kind"
    for settings in (
        {"booster": {"max_depth": 3}},
        {"rejection": True},
        {"coupling": "minibatch_ot"},
    ):
        assert first(table, **settings) is None
    assert first(table.assign(kind=np.random.default_rng(1).permutation(table.kind))) is None
    assert first(table.drop(columns="kind")) is None
    assert first(classes(2600)) is None
