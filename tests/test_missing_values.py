"""Missing values in columns: learned with their patterns, given back or filled."""

import json
import warnings

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from conftest import SMALL_MODEL as SMALL

from flowbdt import FlowBDT
from flowbdt.cli.main import flowbdt
from flowbdt.config import ModelConfig
from flowbdt.errors import ConfigError, FormatError, InputError
from flowbdt.flow.closed_form.gaps import fill_gaps
from flowbdt.generation.fit_run import fit_run, train_run
from flowbdt.seeding import derive, split_mask
from flowbdt.tables.event_table import EventTable
from flowbdt.tables.formats import read_table
from flowbdt.tables.skeleton import Skeleton
from flowbdt.tables.transforms import TableTransform
from flowbdt.training import run_directory
from flowbdt.training.executors import EXECUTORS
from flowbdt.training.plan import Inputs, make_plan
from flowbdt.training.run_directory import RunDirectory


def mixed(n=1500, seed=0):
    """Return a table with gaps at random in columns of every kind."""
    rng = np.random.default_rng(seed)
    x = rng.normal(50, 10, n)
    kind = np.where(x + rng.normal(0, 5, n) > 50, "high", "low").astype(object)
    kind[rng.random(n) < 0.2] = None
    return pd.DataFrame({
        "x": np.where(rng.random(n) < 0.1, np.nan, x),
        "y": x / 10 + rng.normal(0, 0.3, n),
        "kind": pd.Categorical(kind),
        "hits": pd.array(np.where(rng.random(n) < 0.15, np.nan, rng.integers(0, 4, n)), "Int64"),
        "fires": pd.array(np.where(rng.random(n) < 0.3, np.nan, rng.random(n) < 0.5), "boolean"),
    })  # fmt: skip


@pytest.fixture(scope="module")
def table():
    return mixed()


@pytest.fixture(scope="module")
def model(table):
    return FlowBDT(**SMALL).fit(table)


def jets(n=4100, seed=0):
    """Return up to four jets of falling pt per event, padded."""
    rng = np.random.default_rng(seed)
    count = rng.choice(5, n, p=[0.02, 0.18, 0.4, 0.25, 0.15])
    pt = -np.sort(-rng.exponential(40, (n, 4)) - 25, axis=1)
    there = np.arange(4) < count[:, None]
    columns = {"n_jets": count, "met": rng.exponential(30, n) + 5 * count}
    for k in range(4):
        columns[f"pt{k + 1}"] = np.where(there[:, k], pt[:, k], np.nan)
        columns[f"eta{k + 1}"] = np.where(there[:, k], rng.normal(0, 1.2, n), np.nan)
    return pd.DataFrame(columns)


def test_shares_types_and_values_come_back(table, model):
    new = model.sample(6000, random_state=2)
    assert new.dtypes.equals(table.dtypes)
    assert np.allclose(new.isna().mean(), table.isna().mean(), atol=0.03)
    assert np.allclose(new[["x", "y"]].corr(), table[["x", "y"]].corr(), atol=0.03)
    assert set(new.kind.dropna()) == {"high", "low"}
    assert set(new.hits.dropna()) == {0, 1, 2, 3}
    means = [frame.groupby("kind", observed=True).x.mean() for frame in (table, new)]
    assert np.allclose(*means, rtol=0.05)
    both = [(frame.kind.isna() & frame.fires.isna()).mean() for frame in (table, new)]
    assert np.allclose(*both, atol=0.02)


def test_filled_rows_are_the_same_rows_with_values_in_the_gaps(model):
    kept, full = (model.sample(3000, random_state=5, missing=m) for m in ("keep", "fill"))
    assert not full.isna().any().any()
    assert full.dtypes.equals(kept.dtypes)
    for name in kept:
        known = kept[name].notna()
        assert (full[name][known] == kept[name][known]).all()


def test_what_is_missing_by_another_column_is_not_biased():
    rng = np.random.default_rng(1)
    n = 4000
    x = rng.normal(size=n)
    y = 0.8 * x + 0.6 * rng.normal(size=n)
    gone = rng.random(n) < 1 / (1 + np.exp(-3 * x))  # where x, and so y, is large
    frame = pd.DataFrame({"x": x, "y": np.where(gone, np.nan, y)})
    assert frame.y.mean() < -0.4
    model = FlowBDT(**SMALL).fit(frame)
    full = model.sample(20000, random_state=1, missing="fill")
    assert full.y.mean() == pytest.approx(0.0, abs=0.06)
    assert full.y.std() == pytest.approx(1.0, abs=0.05)
    assert full.corr().iloc[0, 1] == pytest.approx(0.8, abs=0.03)
    new = model.sample(20000, random_state=1)
    assert new.y.mean() == pytest.approx(frame.y.mean(), abs=0.06)
    shares = [f.y.isna().groupby(np.digitize(f.x, [-1, 0, 1])).mean() for f in (frame, new)]
    assert np.allclose(*shares, atol=0.05)


def test_what_is_missing_by_a_category_is_not_biased():
    rng = np.random.default_rng(2)
    n = 4000
    kind = rng.choice(["a", "b"], n)
    y = np.where(kind == "a", 1.0, -1.0) + 0.3 * rng.normal(size=n)
    gone = rng.random(n) < np.where(kind == "a", 0.7, 0.1)
    frame = pd.DataFrame({"kind": kind, "y": np.where(gone, np.nan, y)})
    model = FlowBDT(**SMALL).fit(frame)
    full = model.sample(10000, random_state=1, missing="fill")
    assert full.groupby("kind").y.mean().to_numpy() == pytest.approx([1, -1], abs=0.08)
    assert (full.kind == "a").mean() == pytest.approx(0.5, abs=0.03)
    assert full.y.mean() == pytest.approx(0.0, abs=0.1)
    shares = model.sample(10000, random_state=1).isna().y.groupby(full.kind).mean()
    assert shares.to_numpy() == pytest.approx([0.7, 0.1], abs=0.04)


def test_gaps_of_a_gaussian_are_filled_by_its_conditional():
    rng = np.random.default_rng(3)
    x = rng.multivariate_normal([1, -1, 0], [[1, 0.9, 0], [0.9, 1, 0], [0, 0, 1]], 3000)
    missing = np.zeros(x.shape, dtype=bool)
    missing[:, 1] = rng.random(3000) < 1 / (1 + np.exp(-2 * (x[:, 0] - 1)))
    known = np.mean(x[~missing[:, 1], 1])
    gappy = np.where(missing, np.nan, x)
    used, nothing = np.ones(3000, dtype=bool), np.zeros((3000, 0))
    filled = fill_gaps(gappy, nothing, None, used, 1)
    assert (filled[~missing] == x[~missing]).all()
    assert known < -1.2
    assert filled[:, 1].mean() == pytest.approx(-1, abs=0.06)
    residual = (filled - x)[missing[:, 1], 1]
    assert residual.std() == pytest.approx(np.sqrt(2 * (1 - 0.81)), rel=0.1)  # two draws
    assert np.array_equal(filled, fill_gaps(gappy, nothing, None, used, 1))


def test_counts_and_padding_agree_exactly():
    frame = jets()
    model = FlowBDT(**SMALL).fit(frame)
    skeleton = model.transform_.skeleton.names
    assert sorted(name for name in skeleton if "missing" in name) == [
        f"pt{k} is missing" for k in (1, 2, 3, 4)
    ]
    assert "missing together in some rows: pt2, eta2" in model.transform_.describe()
    new = model.sample(20000, random_state=1)
    assert np.allclose(
        new.n_jets.value_counts(normalize=True).sort_index(),
        frame.n_jets.value_counts(normalize=True).sort_index(),
        atol=0.03,
    )
    for k in range(4):
        for name in (f"pt{k + 1}", f"eta{k + 1}"):
            assert (new[name].notna() == (new.n_jets > k)).all()


def test_patterns_alone_agree_without_a_count():
    frame = jets().drop(columns="n_jets")
    new = FlowBDT(**SMALL).fit(frame).sample(10000, random_state=1)
    for k in range(1, 4):
        assert not (new[f"pt{k}"].isna() & new[f"pt{k + 1}"].notna()).any()


def test_given_rows_are_completed(table, model):
    some = table.iloc[:400]
    full = model.impute(some, random_state=1)
    assert not full.isna().any().any()
    for name in some:
        assert (full[name][some[name].notna()] == some[name].dropna()).all()
    unknown = some.x.isna()
    assert np.abs(full.x - 10 * full.y)[unknown].mean() < 6
    high = model.sample(500, given=pd.DataFrame({"kind": ["high"]}), random_state=1)
    assert (high.kind == "high").all()
    assert high.y.mean() > table.y.mean() + 0.4


def test_rejection_sees_missing_values(table):
    model = FlowBDT(**{**SMALL, "rejection": True}).fit(table[["x", "y", "hits"]])
    assert model.acceptance_ < 1
    kept = model.sample(3000, random_state=1)
    assert np.allclose(kept.isna().mean(), table[kept.columns].isna().mean(), atol=0.03)
    full = model.sample(3000, random_state=1, missing="fill")
    assert (full.y == kept.y).all()
    slow = model.sample(3000, random_state=1, compiled=False)
    assert (slow.x.isna() == kept.x.isna()).mean() > 0.99


def test_relations_are_missing_where_a_source_is():
    frame = mixed(400)[["x", "y"]].assign(ratio=lambda f: f.x / f.y)
    model = FlowBDT(**SMALL, relations=["ratio = x / y"]).fit(frame)
    new = model.sample(2000, random_state=1)
    assert (new.ratio.isna() == new.x.isna()).all()
    assert new.x.isna().any()
    full = model.sample(2000, random_state=1, missing="fill")
    assert np.array_equal(full.ratio, full.x / full.y)
    wrong = frame.assign(ratio=frame.ratio.fillna(1.0))
    with pytest.raises(InputError, match="'ratio' must be missing exactly where.*a source missing"):
        FlowBDT(**SMALL, relations=["ratio = x / y"]).fit(wrong)


def test_a_column_of_one_value_and_gaps(table):
    frame = table[["y"]].assign(one=np.where(table.x.isna(), np.nan, 5.0))
    new = FlowBDT(**SMALL).fit(frame).sample(3000, random_state=1)
    assert set(new.one.dropna()) == {5.0}
    assert new.one.isna().mean() == pytest.approx(0.1, abs=0.03)


def test_conditions_and_weights_decide_about_gaps():
    rng = np.random.default_rng(0)
    n = 2000
    eta = rng.uniform(0, 2, n)
    x = np.where(eta > 1, np.nan, rng.normal(size=n))
    kind = np.where(rng.random(n) < 0.5, "a", None)
    frame = pd.DataFrame({"x": x, "kind": kind})
    weight = np.where(frame.kind.isna(), 3.0, 1.0)
    cond = pd.DataFrame({"eta": np.where(rng.random(n) < 0.1, np.nan, eta)})
    model = FlowBDT(**SMALL).fit(frame, cond=cond, sample_weight=weight)
    new = model.sample(cond=pd.DataFrame({"eta": np.tile([0.3, 1.7], 1000)}), random_state=1)
    assert new.x[::2].notna().mean() > 0.97
    assert new.x[1::2].isna().mean() > 0.97
    assert new.kind.isna().mean() == pytest.approx(0.75, abs=0.04)


@pytest.mark.parametrize("kind", ["array", "masked", "dict", "records", "arrow", "objects"])
def test_kinds_of_tables(kind):
    frame = mixed(300)[["x", "y"]]
    if kind == "array":
        data = frame.to_numpy()
    elif kind == "masked":
        data = np.ma.masked_invalid(frame.to_numpy())
    elif kind == "dict":
        data = {"x": np.ma.masked_invalid(frame.x.to_numpy()), "y": frame.y.to_numpy()}
    elif kind == "records":
        data = frame.to_records(index=False)
    elif kind == "objects":
        data = frame.astype(object).where(frame.notna(), None)
    else:
        pyarrow = pytest.importorskip("pyarrow")
        whole = mixed(300)[["x", "y", "hits", "fires"]]
        data = pyarrow.Table.from_pandas(whole, preserve_index=False).replace_schema_metadata()
    new = FlowBDT(**SMALL).fit(data).sample(200, random_state=1)
    if kind == "arrow":
        assert new.schema.types == data.schema.types
        assert all(new[name].null_count for name in ("x", "hits", "fires"))
        return
    x = new[:, 0] if kind in ("array", "masked") else new["x"]
    assert 0 < np.isnan(np.asarray(x, dtype=np.float64)).mean() < 0.25


@pytest.mark.parametrize("dtype", ["float32", "Float64", "int64[pyarrow]", "double[pyarrow]"])
def test_types_of_pandas(dtype):
    if "pyarrow" in dtype:
        pytest.importorskip("pyarrow")
    values = np.arange(400) % 50 * (1.0 if "int" in dtype else 0.5)
    column = pd.array(np.where(np.arange(400) % 7 == 0, np.nan, values), dtype=dtype)
    frame = pd.DataFrame({"a": column, "b": np.random.default_rng(0).normal(size=400)})
    new = FlowBDT(**SMALL).fit(frame).sample(300, random_state=1)
    assert new.a.dtype == frame.a.dtype
    assert 0 < new.a.isna().mean() < 0.3


def test_truth_values_as_categories_and_objects():
    rng = np.random.default_rng(0)
    truth = np.where(rng.random(400) < 0.5, True, False).astype(object)
    truth[rng.random(400) < 0.3] = None
    frame = pd.DataFrame({"a": pd.Categorical(truth), "b": truth, "c": rng.normal(size=400)})
    new = FlowBDT(**SMALL).fit(frame).sample(2000, random_state=1)
    assert [str(dtype) for dtype in new.dtypes[:2]] == ["boolean", "boolean"]
    for name in "ab":
        assert new[name].isna().mean() == pytest.approx(frame[name].isna().mean(), abs=0.06)
        assert set(new[name].dropna()) == {True, False}


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".h5", ".npz"])
def test_files(tmp_path, table, model, ending):
    if ending == ".parquet":
        pytest.importorskip("pyarrow")
    path = tmp_path / f"new{ending}"
    model.sample_to(path, 500, random_state=3)
    expected = model.sample(500, random_state=3)
    read = read_table(path, missing=True)
    assert read.select(list(expected)).to_frame().isna().equals(expected.isna())
    assert read.column("x").tolist() == pytest.approx(expected.x.tolist(), nan_ok=True)
    with pytest.raises(InputError, match="missing|NaN"):
        read_table(path)
    again = FlowBDT(**SMALL).fit(read).sample(500, random_state=1)
    assert np.isnan(again.x).any(axis=0).sum() == 4
    before = path.read_bytes()
    model.sample_to(path, 500, random_state=3, resume=True)
    assert path.read_bytes() == before


def test_refusals(table):
    gone = table.assign(x=np.nan)
    with pytest.raises(
        InputError, match="column 'x' of the table has no value but NaN, in 1500 rows"
    ):
        FlowBDT(**SMALL).fit(gone)
    for value in (np.inf, -np.inf):
        with pytest.raises(InputError, match="'y' has infinity in 1 row .first: row 0"):
            FlowBDT(**SMALL).fit(table.assign(y=table.y.where(table.index > 0, value)))
    with pytest.raises(InputError, match="'x' has missing values.*coupling='given'"):
        FlowBDT(**SMALL, coupling="given").fit(
            table[["x", "y"]], source=table[["x", "y"]].fillna(1.0)
        )
    with pytest.raises(InputError, match="'x' has NaN"):
        EventTable.of(table[["x"]])
    with pytest.raises(ConfigError, match="unknown option of missing 'drop'"):
        FlowBDT(**SMALL).fit(table).sample(1, missing="drop")


@pytest.mark.parametrize("known", [1, 99])
def test_the_only_gap_or_value_counts_wherever_it_is(tmp_path, table, known):
    y = table.y[:100]
    frame = pd.DataFrame({"y": y, "a": np.where(table.index[:100] < known, -y, np.nan)})
    row = 0 if known == 1 else 99
    seeds = [s for s in range(40) if split_mask(100, 0.1, derive(s, "split"))[row]][:1]
    for seed in (*seeds, 1):
        inputs = Inputs(EventTable.of(frame, missing=True), ModelConfig(**SMALL), seed)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            plan = make_plan(inputs, RunDirectory(tmp_path / str(seed)))
        assert plan["fingerprint"]["columns"]["classified"] == ["a is missing"]
        told = any("known values are so rare" in str(each.message) for each in caught)
        assert told == (known == 1 and seed in seeds)


def test_saved_models_and_single_events(tmp_path, model):
    model.save(tmp_path / "m.flowbdt")
    again = FlowBDT.load(tmp_path / "m.flowbdt")
    new = model.sample(300, random_state=4)
    assert again.sample(300, random_state=4).equals(new)
    assert again.sample(40, random_state=4).equals(new.iloc[:40])
    sampler = again.sampler(random_state=4)
    rows = np.vstack([sampler.one().copy() for _ in range(40)])
    assert np.array_equal(np.isnan(rows), new.iloc[:40].isna())
    stored = json.loads(json.dumps(model.transform_.to_json(), allow_nan=False))
    assert TableTransform.from_json(stored).gaps == model.transform_.gaps
    for gaps in ([["nobody"]], [["x"], ["x"]], [["x", "kind"]], [[]]):
        with pytest.raises(FormatError):
            TableTransform.from_json({**stored, "gaps": gaps})


def test_jobs_give_equal_bytes(tmp_path, table, model):
    config = ModelConfig(**SMALL, executor={"name": "joblib", "n_jobs": 2})
    inputs = Inputs(EventTable.of(table, missing=True), config, 1, kind="frame")
    run = fit_run(inputs, tmp_path / "run")
    manifest = run.read_json("manifest.json")
    assert manifest["models"] == model.flow().manifest["models"]
    last = run.n_steps() - 1
    (run.path / run_directory.model_name(last)).unlink()
    train_run(run, EXECUTORS.build("serial"))
    assert run.read_json("manifest.json") == manifest
    fit_run(inputs, tmp_path / "run", resume=True)
    assert run.read_json("manifest.json") == manifest


def test_a_filled_value_fits_all_others():
    meet = np.ones((3, 2), dtype=bool)
    meet[0, 1] = meet[1, 0] = False
    values = (np.array([0.0, 1.0, np.nan]), np.array([0.0, np.nan]))
    skeleton = Skeleton(("a", "b"), values, {(0, 1): meet})
    codes = np.array([[2, 0], [2, 1]])
    assert skeleton.are_missing(codes, 0).all()
    assert skeleton.fills(codes, 0).tolist() == [[True, False, False], [True, True, False]]


def test_in_the_shell(tmp_path):
    table = mixed(300).drop(columns="fires")
    table.to_csv(tmp_path / "t.csv", index=False)
    settings = ["preset=fast", "n_steps=2", "booster.n_estimators=2", "random_state=1"]
    options = [part for setting in settings for part in ("--set", setting)]
    run = str(tmp_path / "run")
    cli = CliRunner()

    def call(*arguments):
        result = cli.invoke(flowbdt, list(arguments), catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    assert "missing in some rows: x" in call("fit", str(tmp_path / "t.csv"), "--dry-run", *options)
    call("fit", str(tmp_path / "t.csv"), "-o", run, "-q", *options)
    for missing in ("keep", "fill"):
        out = tmp_path / f"{missing}.csv"
        call("generate", run, "-n", "400", "-o", str(out), "-q", "--missing", missing)
        assert bool(pd.read_csv(out).isna().any().any()) == (missing == "keep")
        again = call("generate", run, "-n", "400", "-o", str(out), "--missing", missing, "--resume")
        assert "nothing was missing" in again
