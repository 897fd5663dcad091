"""The estimator: scikit-learn's contract, tables in and out, files."""

from __future__ import annotations

import warnings
import zipfile

import numpy as np
import pandas as pd
import pytest
from conftest import PLAIN, QUICK, SMALL_MODEL
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import parametrize_with_checks

from flowbdt import FlowBDT, seeding
from flowbdt.config import ModelConfig
from flowbdt.errors import ConfigError, InputError, RunError
from flowbdt.generation.fit_run import fit_run
from flowbdt.tables.event_table import EventTable
from flowbdt.training.plan import Inputs

SMALL = {"n_steps": 3, "booster": QUICK, **PLAIN}
SMALL["noise"] = {**PLAIN["noise"], "n_repeats": 2}


def small(**settings):
    return FlowBDT(**{**SMALL, "random_state": 1, **settings})


def normal(n=300, d=2, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d))


@parametrize_with_checks([small()])
def test_scikit_learn_contract(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # constant and tiny tables are part of it
        check(estimator)


@pytest.fixture(scope="module")
def fitted():
    return small().fit(normal())


def test_an_array_gives_an_array(fitted):
    x = fitted.sample(7, random_state=1)
    assert isinstance(x, np.ndarray)
    assert x.shape == (7, 2)
    assert x.dtype == np.float64
    assert small().fit(normal().astype("f4")).sample(2, random_state=0).dtype == np.float32


def test_a_frame_gives_a_frame_with_names_and_types():
    x = normal()
    frame = pd.DataFrame(
        {
            "pt": x[:, 0].astype("f4"),
            "n": np.random.default_rng(1).poisson(20, 300),
            "kind": np.where(x[:, 1] > 0, "quark", "gluon"),
        }
    )
    new = small().fit(frame).sample(50, random_state=2)
    assert list(new.columns) == ["pt", "n", "kind"]
    assert new["pt"].dtype == np.float32
    assert new["n"].dtype == np.int64
    assert set(new["kind"]) == {"quark", "gluon"}


def test_a_table_gives_a_table_with_units(jets):
    new = small(relations=["tau21 = tau2 / tau1"]).fit(jets).sample(100, random_state=3)
    assert isinstance(new, EventTable)
    assert new.names == jets.names
    assert new.units == jets.units
    assert np.allclose(new.column("tau21"), new.column("tau2") / new.column("tau1"), rtol=1e-6)


def test_sample_is_independent_of_how_many_are_asked_for(fitted):
    many = fitted.sample(seeding.BLOCK + 100, random_state=4)
    assert np.array_equal(fitted.sample(10, random_state=4), many[:10])
    assert np.array_equal(
        fitted.sample(seeding.BLOCK + 1, random_state=4), many[: seeding.BLOCK + 1]
    )


def test_sample_of_a_mixture_is_independent_of_chunking_too():
    """Matrix products add in another order for other numbers of rows."""
    model = small(
        preconditioner={"name": "mixture", "n_components": 3}, inputs=["latent", "columns"]
    )
    model.fit(normal(d=5))
    many = model.sample(seeding.BLOCK + 300, random_state=4)
    for n in (1, 7, 300, seeding.BLOCK + 1):
        assert np.array_equal(model.sample(n, random_state=4), many[:n])


def test_blocks_of_generated_events_are_not_copies(fitted):
    """A peer restarted its noise stream in every batch."""
    x = fitted.sample(2 * seeding.BLOCK, random_state=4)
    one, two = x[: seeding.BLOCK, 0], x[seeding.BLOCK :, 0]
    assert abs(np.corrcoef(one, two)[0, 1]) < 5 / np.sqrt(seeding.BLOCK)
    assert len(np.unique(x, axis=0)) > 0.9 * len(x)


def test_a_failed_fit_does_not_speak_of_a_folder_that_is_gone(monkeypatch):
    from flowbdt.training import train_step

    def fail(*arguments, **keywords):
        raise MemoryError("no room")

    monkeypatch.setattr(train_step, "training_pairs", fail)
    with pytest.raises(RunError, match="training failed: step 0: MemoryError: no room") as caught:
        small().fit(normal())
    assert "--resume" not in str(caught.value)


def test_few_rows_get_few_components():
    """Forty Gaussians on thirty events would learn them by heart."""
    model = small(preconditioner={"name": "mixture", "n_components": 40}).fit(normal(30, d=4))
    assert "1 Gaussian" in model.flow().preconditioner.describe() or (
        "2 Gaussians" in model.flow().preconditioner.describe()
    )


def test_without_validation_events_nothing_is_stopped_early():
    model = FlowBDT(preset="fast", validation_fraction=0.0, random_state=1).fit(normal())
    assert {step["trees"] for step in model.steps_} == {20}


def test_equal_seeds_give_equal_models_and_others_do_not():
    x = normal()
    assert small().fit(x).archive_ == small().fit(x).archive_
    assert small().fit(x).archive_ != small(random_state=2).fit(x).archive_


def test_no_seed_is_recorded_and_repeats_the_run():
    x = normal()
    model = small(random_state=None).fit(x)
    assert model.archive_ == small(random_state=model.seed_).fit(x).archive_


def test_serial_and_joblib_give_the_same_file():
    x = normal()
    joblib = small(executor={"name": "joblib", "n_jobs": 2}).fit(x)
    assert joblib.archive_ == small().fit(x).archive_


def test_fit_forgets_the_previous_fit():
    model = small().fit(pd.DataFrame(normal(), columns=["a", "b"]))
    model.fit(normal(d=3))
    assert model.n_features_in_ == 3
    assert not hasattr(model, "feature_names_in_")
    assert model.sample(2, random_state=0).shape == (2, 3)


def test_the_training_data_are_not_in_the_model(fitted):
    """A peer kept its training table in every saved model."""
    assert not any(name.startswith("table") for name in archive_names(fitted.archive_))
    large = small().fit(normal(3000))
    assert len(large.archive_) < 1.5 * len(fitted.archive_)


def archive_names(content):
    import io

    return zipfile.ZipFile(io.BytesIO(content)).namelist()


def test_sampling_before_fitting_is_refused():
    with pytest.raises(NotFittedError):
        small().sample(3)


@pytest.mark.parametrize("n", [0, -1, 2.5, True])
def test_numbers_of_events_are_checked(fitted, n):
    with pytest.raises(InputError, match="n_samples"):
        fitted.sample(n)


def test_wrong_settings_show_in_fit_not_in_the_constructor():
    model = FlowBDT(n_steps="many")
    with pytest.raises(ConfigError, match="n_steps"):
        model.fit(normal())


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (np.full((5, 2), np.nan), "NaN"),
        (np.array([[1.0, np.inf], [2.0, 3.0]]), "x1"),
        (np.ones((1, 2)), "at least"),
        (np.ones(5), "2-d"),
        (np.ones((5, 0)), "feature"),
        (pd.DataFrame([[1, 2], [3, 4]], columns=["a", "a"]), "differ"),
    ],
)
def test_bad_tables_are_refused(table, message):
    with pytest.raises(InputError, match=message):
        small().fit(table)


def test_weights_act_like_the_distribution_they_stand_for():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(-3, 1, 1500), rng.normal(3, 1, 1500)])[:, None]
    weight = np.where(x[:, 0] > 0, 9.0, 1.0)
    settings = {"n_steps": 12, "booster": {"n_estimators": 40, "max_bin": 64}}
    new = small(**settings).fit(x, sample_weight=weight).sample(4000, random_state=1)
    assert (new > 0).mean() == pytest.approx(0.9, abs=0.06)


# ---- conditions


def conditional(n=2000):
    rng = np.random.default_rng(5)
    c = rng.choice([-4.0, 4.0], n)
    return c, (c + rng.normal(size=n))[:, None]


@pytest.fixture(scope="module")
def on_condition():
    c, x = conditional()
    return small(n_steps=8, booster={"n_estimators": 20}).fit(x, cond=pd.DataFrame({"c": c}))


def test_conditions_steer_the_sample(on_condition):
    new = on_condition.sample(500, cond=[[4.0]], random_state=1)
    assert new.mean() == pytest.approx(4.0, abs=0.5)
    mixed = on_condition.sample(cond=np.array([[-4.0], [4.0]] * 100), random_state=1)
    assert mixed.shape == (200, 1)
    assert mixed[::2].mean() < -3 < 3 < mixed[1::2].mean()


@pytest.mark.parametrize(
    ("cond", "message"),
    [
        (None, "trained with the conditions c"),
        (np.ones((3, 1)), "rows"),
        (np.ones((5, 2)), "must have 1 column: c"),
        (pd.DataFrame({"C": [1.0] * 5, "d": [1.0] * 5}), "missing: c. It has C, d: rename"),
        (np.full((5, 1), np.inf), "infinite"),
    ],
)
def test_wrong_conditions_are_refused(on_condition, cond, message):
    with pytest.raises(InputError, match=message):
        on_condition.sample(5, cond=cond)


def test_conditions_that_were_not_trained_are_refused(fitted):
    with pytest.raises(InputError, match="without conditions"):
        fitted.sample(5, cond=np.ones((5, 1)))


def test_missing_conditions_are_allowed():
    c, x = conditional()
    c[::4] = np.nan
    model = small().fit(x, cond=c)
    assert np.isfinite(model.sample(20, cond=np.full((20, 1), np.nan), random_state=1)).all()


def test_text_conditions_are_coded_as_in_training():
    c, x = conditional(600)
    kind = np.where(c > 0, "up", "down")
    model = small(n_steps=8, booster={"n_estimators": 20}).fit(x, cond=pd.DataFrame({"kind": kind}))
    only = pd.DataFrame({"kind": ["up"] * 200})  # alone, 'up' would be the first category
    assert model.sample(cond=only, random_state=1).mean() > 3
    with pytest.raises(InputError, match="sideways"):
        model.sample(cond=pd.DataFrame({"kind": ["sideways"]}))


def test_text_conditions_without_a_name_are_coded_as_in_training():
    c, x = conditional(600)
    kind = pd.Series(np.where(c > 0, "up", "down"), name="kind")
    model = small(n_steps=8, booster={"n_estimators": 20}).fit(x, cond=kind)
    assert model.sample(cond=pd.Series(["up"] * 200), random_state=1).mean() > 3


def test_numbers_in_an_object_column_are_numbers():
    c, x = conditional(600)
    frame = pd.DataFrame({"c": c, "kind": np.where(x[:, 0] > 0, "a", "b")})
    model = small(n_steps=8, booster={"n_estimators": 20}).fit(x, cond=frame)
    one = frame[frame["c"] > 0].iloc[0].to_frame().T  # pandas makes object columns of it
    assert model.sample(200, cond=one, random_state=1).mean() > 3


def test_texts_where_numbers_were_trained_are_refused(on_condition):
    with pytest.raises(InputError, match="numbers"):
        on_condition.sample(cond=pd.DataFrame({"c": ["up"]}))


def test_a_table_of_conditions_must_have_a_row_per_event(on_condition):
    table = EventTable.of(np.ones((7, 1)), ["c"])
    with pytest.raises(InputError, match="1 or 5 rows"):
        on_condition.sample(5, cond=table)


# ---- data to data


def test_source_columns_are_found_by_name():
    rng = np.random.default_rng(2)
    frame = pd.DataFrame(rng.normal(size=(800, 2)) * [1, 10], columns=["p", "q"])
    model = small(n_steps=2, coupling="given").fit(frame, source=frame[["q", "p"]])
    new = model.sample(source=frame[["q", "p"]])
    assert np.abs(new["p"] - frame["p"]).max() < 0.2
    assert np.allclose(model.sample(source=frame.to_numpy()), new)


def test_given_pairs_start_from_the_source():
    rng = np.random.default_rng(2)
    source = rng.normal(size=(1500, 1))
    target = source + 2.0
    model = small(n_steps=4, coupling="given", booster={"n_estimators": 30, "max_depth": 4})
    model.fit(target, source=source)
    new = model.sample(source=source[:200])
    assert np.abs(new - target[:200]).mean() < 0.2
    with pytest.raises(InputError, match="source"):
        model.sample(5)


def test_a_model_judges_draws_and_describes_itself(on_condition):
    c, x = conditional(400)
    cond = pd.DataFrame({"c": c})
    options = {"metrics": ["separation", "correlation_max"], "training": None}
    scores = on_condition.evaluate(x, cond=cond, **options)
    frame = scores.to_frame()
    assert list(frame["metric"]).count("separation") == x.shape[1]
    assert frame["excess"].dropna().is_monotonic_decreasing
    assert scores.settings["generated"]["seed"] == 0
    assert "<table" in scores._repr_html_()
    figures = on_condition.plot(x, cond=cond)
    assert len(figures[0].axes) >= 2 * x.shape[1]
    place = figures[0].axes[:2]
    name = on_condition.transform_.names[0]
    assert on_condition.plot(x, cond=cond, columns=[name], axes=place) == [figures[0]]
    with pytest.raises(ConfigError, match="axes must be 1 x 2"):
        on_condition.plot(x, cond=cond, columns=[name], axes=place[:1])
    assert on_condition.transform_.names[0] in on_condition._repr_html_()
    assert "trees explain" in on_condition.summary()
    with pytest.raises(InputError, match="unknown column.*'c'"):
        on_condition.evaluate(x, **options)


def test_notebooks_see_tables_transforms_runs_and_models(tmp_path):
    rng = np.random.default_rng(0)
    gaps = EventTable.of(
        {"a": rng.normal(size=200), "b": np.where(np.arange(200) < 20, np.nan, 1.5)}, missing=True
    )
    assert gaps._repr_html_().index(">b<") < gaps._repr_html_().index(">a<")
    inputs = Inputs(gaps.select(["a"]), ModelConfig(**SMALL_MODEL), 1)
    run = fit_run(inputs, tmp_path / "run")
    assert "0 of 2 steps missing" in run._repr_html_()
    run.file("steps/0001.report.json").unlink()
    assert "1 of 2 steps missing" in run._repr_html_()
    assert "sk-" in FlowBDT()._repr_html_()


def test_a_fit_shows_its_progress_where_it_is_asked_to(capfd):
    x = np.random.default_rng(0).normal(size=(100, 1))
    FlowBDT(**SMALL_MODEL).fit(x)
    assert capfd.readouterr().err == ""
    FlowBDT(**SMALL_MODEL).fit(x, progress=True)
    assert "2/2" in capfd.readouterr().err
