"""Distillation: a run of one evaluation learns where a trained run takes noise."""

from __future__ import annotations

import json

import numpy as np
import pytest

from flowbdt import EventTable, FlowBDT, write_table
from flowbdt.cli.main import main
from flowbdt.errors import ConfigError, FormatError, InputError
from flowbdt.flow.closed_form import from_arrays, from_bytes
from flowbdt.flow.paths import PATHS
from flowbdt.flow.solvers import integrate
from flowbdt.generation.fit_run import fit_run
from flowbdt.generation.trained_flow import Flow
from flowbdt.training import run_directory
from flowbdt.tuning.distillation import compare_student, distil, student_inputs

SILENT = {"n_estimators": 1, "max_depth": 1, "learning_rate": 1e-9, "early_stopping_rounds": 0}
"""Trees that say nothing: what is left is the closed form."""

SMALL = {"n_estimators": 20, "max_depth": 4, "early_stopping_rounds": 0}

FEW = {"preconditioner": {"name": "mixture", "n_components": 8}, "booster": SMALL}


def two_islands(n, seed=0):
    """Events at |x| between 1 and 2, nothing between; the last column is the sum of the others."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(1.0, 2.0, n) * rng.choice([-1.0, 1.0], n)
    y = np.abs(x) + rng.normal(size=n)
    return EventTable.of(np.column_stack([x, y, x + y]), ["x", "y", "sum"])


def in_the_gap(table):
    return np.mean(np.abs(table.column("x")) < 0.8)


def flow(model):
    return Flow(run_directory.Archive("this model", model.archive_), 1, compiled=False)


@pytest.fixture(scope="module")
def teacher():
    settings = {"preset": "fast", "transforms": "standard", "relations": ["sum = x + y"]}
    return FlowBDT(**settings, **FEW, random_state=1).fit(two_islands(2000))


@pytest.fixture(scope="module")
def student(teacher):
    return distil(teacher, n_pairs=5000, **FEW, random_state=2)


@pytest.fixture(scope="module")
def gaussian():
    """A teacher whose map is linear: one Gaussian in closed form."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3000, 3)) @ rng.normal(size=(3, 3)) + [1.0, 2.0, 3.0]
    settings = {"preset": "fast", "preconditioner": "gaussian", "transforms": "standard"}
    return FlowBDT(**settings, booster=SILENT, random_state=1).fit(x)


def test_a_linear_map_is_learned_exactly(gaussian):
    settings = {"preconditioner": "gaussian", "booster": SILENT, "random_state": 2}
    student = distil(gaussian, n_pairs=4000, **settings)
    assert student.n_evaluations_ == 1
    expected, found = (model.sample(500, random_state=3) for model in (gaussian, student))
    # the closed form draws the covariance of 3,600 pairs towards its diagonal, by 2 events
    assert np.abs(found - expected).max() < 5e-3 * expected.std()


def test_pairs_end_where_the_teacher_ends(teacher):
    source = run_directory.Archive("teacher", teacher.archive_)
    pairs = student_inputs(source, n_pairs=5000, seed=7).pairs
    trained = flow(teacher)
    moved = integrate(
        trained.sampler.solver, trained.field, pairs.noise, trained.sampler.boundaries
    )
    away = np.abs(pairs.end - moved.x).max(axis=1)
    assert (away < 1e-5).mean() > 0.999  # rounding may carry a point over a cut of a tree
    assert away.max() < 0.01
    noise = pairs.noise
    assert not np.array_equal(noise[:900], noise[4096:4996])  # blocks have keys of their own
    fewer = student_inputs(source, n_pairs=800, seed=7).pairs
    np.testing.assert_array_equal(fewer.noise, noise[:800])
    np.testing.assert_array_equal(fewer.end, pairs.end[:800])


def test_a_student_beats_its_teacher_at_as_few_evaluations(teacher, student):
    once = teacher.sample(4000, sampler={"solver": "euler", "n_steps": 1}, random_state=3)
    gaps = [in_the_gap(model.sample(4000, random_state=3)) for model in (teacher, student)]
    assert gaps[0] < gaps[1] < 0.5 * in_the_gap(once)


def test_a_student_is_a_run_that_names_its_teacher(teacher, student, tmp_path):
    student.save(tmp_path / "student.flowbdt")
    loaded = FlowBDT.load(tmp_path / "student.flowbdt")
    digest = flow(teacher).plan["digest"]
    assert loaded.coupling == {"name": "teacher", "digest": digest}
    events = loaded.sample(200, random_state=5)
    np.testing.assert_array_equal(events.x, student.sample(200, random_state=5).x)
    assert events.names == ("x", "y", "sum")
    np.testing.assert_allclose(events.x[:, 2], events.x[:, :2].sum(axis=1), rtol=1e-12)
    one = loaded.sampler(random_state=5).one()
    np.testing.assert_allclose(one, events.x[0], rtol=1e-6)


LOW_RANK = {"name": "mixture", "n_components": 3, "covariance": "low_rank", "rank": 1}


@pytest.mark.parametrize("form", [FEW["preconditioner"], LOW_RANK])
def test_compiled_generation_gives_the_same_events(teacher, form):
    settings = {"preconditioner": form, "booster": SMALL, "random_state": 2}
    student = distil(teacher, n_pairs=1500, **settings)
    plain, fast = (student.sample(2000, compiled=c, random_state=3).x for c in (False, True))
    assert np.mean(~np.isclose(plain, fast, rtol=1e-4, atol=1e-4).all(axis=1)) < 0.002


def test_a_student_can_be_exported(student, tmp_path):
    from flowbdt.generation.export import write_cpp

    write_cpp(student, tmp_path / "cpp")
    assert (tmp_path / "cpp" / "model.bin").stat().st_size > 1000
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    from flowbdt.generation.export.write_onnx import write_onnx

    write_onnx(student, str(tmp_path / "student.onnx"))
    session = runtime.InferenceSession(str(tmp_path / "student.onnx"))
    noise = np.random.default_rng(0).normal(size=(50, 2))
    wanted = session.get_inputs()[0]
    found = session.run(None, {wanted.name: noise.astype(_type_of(wanted))})[0]
    trained = flow(student)
    inner = noise + trained.field(0.0, noise)
    expected = trained.transform.inverse(inner)
    assert np.mean(~np.isclose(found, expected, rtol=1e-4, atol=1e-4).all(axis=1)) < 0.05


def _type_of(wanted):
    return {"tensor(double)": np.float64, "tensor(float)": np.float32}[wanted.type]


def test_bytes_are_equal_on_executors(teacher, tmp_path):
    source = run_directory.Archive("teacher", teacher.archive_)
    threads = {"name": "joblib", "backend": "threading"}
    found = []
    for name, where in (("one", "serial"), ("other", threads)):
        settings = {**FEW, "executor": where}
        inputs = student_inputs(source, n_pairs=1500, seed=4, settings=settings)
        run = fit_run(inputs, tmp_path / name)
        found.append(run_directory.archive_bytes(run, run.read_json("manifest.json")))
    assert found[0] == found[1]


def test_training_events_give_a_rejection_of_its_own(teacher, student):
    training = two_islands(2000)
    rejecting = distil(teacher, n_pairs=5000, training=training, **FEW, random_state=2)
    assert student.acceptance_ == 1.0
    assert 0.2 < rejecting.acceptance_ < 1.0
    gaps = [in_the_gap(model.sample(4000, random_state=3)) for model in (rejecting, student)]
    assert gaps[0] < 0.7 * gaps[1]


def test_conditions_are_those_of_the_pairs():
    rng = np.random.default_rng(0)
    cond = rng.uniform(-2.0, 2.0, (1500, 1))
    x = cond + 0.3 * rng.normal(size=(1500, 2))
    settings = {"preset": "fast", **FEW, "random_state": 1}
    model = FlowBDT(**settings).fit(x, cond=cond)
    with pytest.raises(InputError, match="training table is not here"):
        distil(model, n_pairs=1000)
    by_name = {"c0": cond[:, 0]}
    student = distil(model, n_pairs=3000, cond=by_name, **FEW, random_state=2)
    given = np.repeat([[-1.0], [1.5]], 500, axis=0)
    made = student.sample(cond=given, random_state=3)
    means = made.reshape(2, 500, 2).mean(axis=1)
    spread = 5 * 0.3 / np.sqrt(500)
    assert np.abs(means - [[-1.0], [1.5]]).max() < spread + 0.05
    assert abs(made[:500].std() - 0.3) < 0.05
    by_training = distil(
        model, n_pairs=500, training=EventTable.of(x, cond=cond), rejection=False, **FEW
    )
    assert by_training.acceptance_ == 1.0


def test_teachers_without_a_way_of_their_own_are_refused():
    x = np.random.default_rng(0).normal(size=(200, 2))
    small = {"preset": "fast", "n_steps": 2, "booster": SILENT, "random_state": 1}
    drawing = FlowBDT(**small, solver="euler_maruyama").fit(x)
    with pytest.raises(ConfigError, match="draws random numbers"):
        distil(drawing)
    moving = FlowBDT(**small, coupling="given").fit(x, source=x)
    with pytest.raises(ConfigError, match="starts from source events"):
        distil(moving)


def test_what_a_student_cannot_choose_is_refused(teacher):
    with pytest.raises(ConfigError, match="'evaluations' of a student follows"):
        distil(teacher, evaluations=2)
    with pytest.raises(ConfigError, match="'solver' of a student follows"):
        distil(teacher, solver="heun")
    with pytest.raises(ConfigError, match="learned from training events"):
        distil(teacher, rejection=True)
    with pytest.raises(InputError, match="flowbdt distil"):
        FlowBDT(coupling="teacher").fit(np.zeros((50, 2)))
    with pytest.raises(ConfigError, match="only the sampler"):
        distil(teacher, n_pairs=200, booster=SILENT).sample(2, sampler={"n_steps": 1})


def early(student, n_stages):
    """The files of a student from when one could have several stages."""
    archive = run_directory.Archive("early", student.archive_)
    plan = archive.read("plan.json")
    plan = json.loads(plan)
    events = plan["fingerprint"]["events"]
    events["ways"] = events.pop("noise")
    state = from_bytes(archive.read("preconditioner.npz")).state()
    stages = {f"{i}.{key}": array for i in range(n_stages) for key, array in state.items()}
    boundaries = np.linspace(0.0, 1.0, n_stages + 1)
    return plan, {"format": np.array(1), "name": np.array("stages"), "boundaries": boundaries,
                  **stages}  # fmt: skip


def test_the_closed_form_of_an_early_student_is_read(student):
    plan, arrays = early(student, 1)
    run_directory.check_format(plan, "plan.json")
    archive = run_directory.Archive("this student", student.archive_)
    closed_forms = [from_arrays(arrays), from_bytes(archive.read("preconditioner.npz"))]
    x, path = np.random.default_rng(0).normal(size=(50, 2)), PATHS.build("linear")
    old, new = (each.at(path, 0.0, 1.0).velocity(x) for each in closed_forms)
    np.testing.assert_array_equal(old, new)


def test_early_students_of_more_evaluations_and_unfinished_ones_are_refused(student):
    plan, _ = early(student, 2)
    plan["grid"] = {"boundaries": [0.0, 0.5, 1.0], "times": [0.0, 0.5]}
    task = {"format": plan["format"], "events": plan["fingerprint"]["events"]}
    for name, content in (("plan.json", plan), ("tasks/0000.json", task)):
        with pytest.raises(FormatError, match=f"{name} is of a student of an earlier version"):
            run_directory.check_format(content, name)


def test_without_test_events_the_student_is_judged_on_its_teacher(teacher, student, monkeypatch):
    monkeypatch.setattr("flowbdt.tuning.distillation.N_COMPARED", 1500)
    monkeypatch.setattr("flowbdt.tuning.distillation.TIMED", 2000)
    found = compare_student(flow(teacher), flow(student), seed=1)
    score = found.scores["student"].get("auc_gb")
    assert list(found.scores) == ["student"]
    assert score.error > 0
    assert abs(score.floor - 0.5) < 5 * score.floor_error  # the teacher against itself
    assert "events of the teacher" in found.text()
    assert found.speedup == found.microseconds["teacher"] / found.microseconds["student"]


def test_the_command_reports_both_sides(tmp_path, capsys, monkeypatch, teacher):
    monkeypatch.setattr("flowbdt.tuning.distillation.TIMED", 2000)
    teacher.save(tmp_path / "teacher.flowbdt")
    for name, seed in (("training", 0), ("test", 9)):
        write_table(tmp_path / f"{name}.h5", two_islands(1500, seed))
    command = [
        *("distil", str(tmp_path / "teacher.flowbdt"), "-o", str(tmp_path / "run")),
        *("--evaluations", "1", "-n", "2000", "--test", str(tmp_path / "test.h5")),
        *("--training", str(tmp_path / "training.h5"), "--set", "rejection=true"),
        *("--set", "booster.n_estimators=5", "--set", "preconditioner=gaussian"),
    ]
    assert main(command) == 0
    text = capsys.readouterr().out
    assert "teacher" in text
    assert "student" in text
    assert "us/event" in text
    assert "the student rejects events" in text
    report = json.loads((tmp_path / "run" / "distillation.json").read_text())
    assert set(report["scores"]) == {"teacher", "student"}
    assert report["models"]["student"]["evaluations"] == 1
    assert report["us_per_event"]["teacher"] > 0
    for score in report["scores"].values():
        shown = [r for r in score["results"] if r["name"] == "auc_gb"]
        assert shown[0]["error"] > 0
        assert shown[0]["floor"] is not None
    assert FlowBDT.load(tmp_path / "run").n_evaluations_ == 1
    assert main(["show", str(tmp_path / "run")]) == 0
    assert flow(teacher).plan["digest"] in capsys.readouterr().out
    command[command.index("--evaluations") + 1] = "2"
    assert main(command) == 1
    assert "a student has one evaluation, got 2" in capsys.readouterr().err
