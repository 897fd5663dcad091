"""Export to C++: the events of Python from the same noise; clear words where something is wrong.

The C interface is compiled once; models are data.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from exported_models import (
    BAD_ARGUMENT,
    C_COMPILER,
    KINDS,
    OK,
    SMALL,
    STRICT,
    Exported,
    events_of_numbers,
    flow_of,
    in_python,
    loaded_library,
    often_undefined,
    pointer,
)
from test_particle_coordinates import POLAR, resonance

from flowbdt import FlowBDT
from flowbdt.cli.main import main
from flowbdt.generation.event_selection import MOST_ATTEMPTS
from flowbdt.generation.export import write_cpp
from flowbdt.generation.export.write_cpp import SOURCES, source
from flowbdt.generation.packed.array_file import DRAWN_VERSION, TURNED_VERSION, VERSION
from flowbdt.generation.packed.model_arrays import model_bytes

EVENTS = 1000
"""Per kind of model; there are more than ten kinds."""


def conditions_of(flow, n):
    if not flow.columns["conditions"]:
        return None
    cond = np.column_stack([np.arange(n) % 2, np.linspace(-1, 1, n)]).astype(float)
    cond[::3, 1] = np.nan
    cond[::5, 0] = np.nan
    return flow.condition_scaling.inverse([1.0, 50.0] * cond) if large(flow) else cond


def large(flow):
    return flow.condition_scaling.centre.any()


@pytest.fixture(scope="module", params=list(KINDS))
def case(request, tmp_path_factory):
    model = KINDS[request.param]()
    folder = tmp_path_factory.mktemp("export")
    write_cpp(model, folder)
    flow = flow_of(model)
    return SimpleNamespace(model=model, flow=flow, path=folder / "model.bin")


def test_events_are_those_of_python(case, library):
    flow = case.flow
    z = np.random.default_rng(2).standard_normal((EVENTS, flow.n_noise))
    cond = conditions_of(flow, EVENTS)
    expected, kept = in_python(flow, z, cond)
    with Exported(library, case.path) as exported:
        events, acceptance = exported.from_noise(z, np.zeros((EVENTS, 0)) if cond is None else cond)
    known = ~np.isnan(expected)
    assert np.array_equal(np.isnan(events), ~known)
    events, expected = np.where(known, events, 0.0), np.where(known, expected, 0.0)
    scale = 1e-7 * np.abs(expected).max(axis=0)  # of zeros that rounding moved
    assert np.all(np.abs(events - expected) <= 1e-5 * np.abs(expected) + scale)
    assert np.allclose(acceptance, kept, rtol=1e-5)
    assert events.std(axis=0).max() > 0.1


def test_particles_with_columns_that_classifiers_draw_are_those_of_python(library, tmp_path):
    frame = resonance(900).drop(columns="q")
    frame.loc[frame.index % 4 == 1, ["pt2", "eta2", "phi2"]] = np.nan
    frame["kind"] = np.where(frame.eta1 > 0, "forward", "backward")
    frame = frame[(frame.pt1 < 40) | (frame.kind == "forward")]
    cuts = ["not (pt2 < 20)", "kind == 'forward' or pt1 < 40"]
    settings = {**SMALL, "preconditioner": "gaussian", "particles": POLAR, "require": cuts}
    model = FlowBDT(**settings).fit(frame)
    flow = model.flow()
    assert flow.transform.turn
    write_cpp(model, tmp_path)
    random = np.random.default_rng(2).standard_normal((EVENTS, flow.n_noise + 1))
    with Exported(library, tmp_path / "model.bin") as exported:
        new, kept = exported.from_noise(random[:, :-1], np.zeros((EVENTS, 0)))
        many = exported.many(np.zeros((EVENTS, 0)), 5, 0)
    assert 0 < np.mean(kept == 0) < 0.5
    expected = events_of_numbers(flow, random[kept > 0], None)
    np.testing.assert_allclose(new[kept > 0], expected, rtol=1e-5)
    assert flow.generator.within_cuts(many, None).all()
    assert np.histogram(many[:, list(frame).index("phi1")], 4, (-np.pi, np.pi))[0].min() > 200


def test_generated_events_leave_domain_and_reach_of_a_relation():
    """Else the kind of that name would test nothing."""
    flow = flow_of(often_undefined())
    z = np.random.default_rng(2).standard_normal((EVENTS, flow.plan["n_latent"]))
    x, kept = in_python(flow, z, None)
    assert 0 < np.mean(x[:, 0] <= 0) < 0.5
    assert 0 < np.mean(kept == 0) < 0.5


def test_many_events_are_single_ones(case, library):
    n = 150
    cond = conditions_of(case.flow, n)
    cond = np.zeros((n, 0)) if cond is None else cond
    with Exported(library, case.path) as exported:
        together = exported.many(cond, 5, 1000)
        assert exported.status == OK, exported.said()
        single = np.array([exported.one(cond[i], 5, 1000 + i) for i in range(n)])
    assert np.array_equal(together, single, equal_nan=True)
    assert len(np.unique(together, axis=0)) > n // 2


def test_the_kinds_add_up_to_ten_thousand_events():
    assert EVENTS * len(KINDS) >= 10_000


@pytest.fixture(scope="module")
def rejecting():
    return KINDS["rejection"]()


@pytest.fixture(scope="module")
def rejecting_file(rejecting, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rejecting") / "made" / "here"
    write_cpp(rejecting, folder)
    return folder / "model.bin"


def with_ceiling(model, ceiling, folder):
    """The model file of a flow that keeps fewer events."""
    flow = flow_of(model)
    assert flow.ratio is not None
    flow.ratio.ceiling = ceiling
    write_cpp(flow, folder)
    return folder / "model.bin"


def test_events_are_drawn_until_one_is_accepted(rejecting, tmp_path, library):
    cond = np.array([[1.0, np.nan]])
    anew = 0
    with Exported(library, with_ceiling(rejecting, 3.0, tmp_path)) as exported:
        for number in range(60):
            for attempt in range(MOST_ATTEMPTS):
                noise = exported.noise(3, number, attempt)[None]
                event, acceptance = exported.from_noise(noise, cond)
                if exported.uniform(3, number, attempt) < acceptance[0]:
                    break
            anew += attempt > 0
            assert np.array_equal(exported.one(cond[0], 3, number), event[0])
    assert 20 < anew < 60


def test_after_most_attempts_an_event_is_kept(rejecting, tmp_path, library):
    cond = np.array([[0.0, 0.5]])
    with Exported(library, with_ceiling(rejecting, 1e30, tmp_path)) as exported:
        last, _ = exported.from_noise(exported.noise(1, 8, MOST_ATTEMPTS - 1)[None], cond)
        assert np.array_equal(exported.one(cond[0], 1, 8), last[0])


def philox(seed, number, attempt, purpose, count):
    """The words of numpy's Philox, whose counter is one ahead."""
    generator = np.random.Philox(
        key=np.array([seed, 0x666C6F77424454], dtype=np.uint64),
        counter=np.array([2**64 - 1, attempt - 1, number, purpose], dtype=np.uint64)
        if attempt
        else np.array([2**64 - 1, 2**64 - 1, number - 1, purpose], dtype=np.uint64),
    )
    return generator.random_raw(count)


@pytest.mark.parametrize(("seed", "number", "attempt"), [(1, 1, 0), (2**63 + 5, 10**12, 3)])
def test_random_numbers_are_those_of_philox(rejecting_file, library, seed, number, attempt):
    with Exported(library, rejecting_file) as exported:
        noise, uniform = (f(seed, number, attempt) for f in (exported.noise, exported.uniform))
    words = philox(seed, number, attempt, 0, 8) >> np.uint64(11)
    radius = np.sqrt(-2.0 * np.log((words[0::2] + 0.5) / 2**53))
    angle = 2 * np.pi * words[1::2] / 2**53
    pairs = np.column_stack([radius * np.cos(angle), radius * np.sin(angle)])
    assert np.allclose(noise, pairs.ravel()[: len(noise)], rtol=1e-12)
    assert uniform == (philox(seed, number, attempt, 1, 1)[0] >> np.uint64(11)) / 2**53


def test_noise_is_standard_normal_and_differs_between_events(rejecting_file, library):
    n = 4000
    with Exported(library, rejecting_file) as exported:
        z = np.array([exported.noise(0, number, 0) for number in range(n)])
    assert np.abs(z.mean(axis=0)).max() < 5 / np.sqrt(n)
    assert np.abs(z.var(axis=0) - 1).max() < 5 * np.sqrt(2 / n)
    assert np.abs(np.corrcoef(z.T) - np.eye(z.shape[1])).max() < 5 / np.sqrt(n)
    assert np.abs(np.mean(z[1:] * z[:-1], axis=0)).max() < 5 / np.sqrt(n)


def test_threads_with_handles_of_their_own_share_a_model(rejecting_file, library):
    cond = np.tile([[0.0, np.nan], [1.0, 0.3]], (40, 1))
    with Exported(library, rejecting_file) as exported:
        expected = exported.many(cond, 1, 0)
        copies = [exported.copy() for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:  # the first handle is closed; the model is still there
        results = list(pool.map(lambda copy: copy.many(cond, 1, 0), copies))
    for copy, result in zip(copies, results, strict=True):
        assert np.array_equal(result, expected)
        copy.__exit__()


def test_names_and_codes_are_told(tmp_path, library):
    rng = np.random.default_rng(0)
    data = pd.DataFrame({"energy": rng.normal(size=300), "layer": rng.choice(["em", "had"], 300)})
    cond = pd.DataFrame({"particle": rng.choice(["e", "pi"], 300)})
    settings = {**SMALL, "n_steps": 2, "transforms": {"layer": "categorical"}}
    write_cpp(FlowBDT(**settings).fit(data, cond=cond), tmp_path)
    code = ctypes.c_double()
    with Exported(library, tmp_path / "model.bin") as exported:
        assert exported.names("column", 2) == ["energy", "layer"]
        assert exported.names("condition", 1) == ["particle"]
        assert library.flowbdt_column(exported.handle, ctypes.c_size_t(2)) is None
        assert library.flowbdt_acceptance(exported.handle) == 1.0
        assert exported.call("code", b"particle", b"pi", ctypes.byref(code)) == OK
        assert code.value == 1.0
        assert exported.call("code", b"particle", b"mu", ctypes.byref(code)) == BAD_ARGUMENT
        assert "'mu'; it has e, pi" in exported.said()
        assert set(exported.many(np.ones((50, 1)), 1, 0)[:, 1]) == {0.0, 1.0}


def test_conditions_far_outside_are_counted(tmp_path, library):
    rng = np.random.default_rng(0)
    pt, kind = rng.uniform(100, 200, 300), rng.choice(["e", "pi"], 300)
    cond = pd.DataFrame({"pt": pt, "kind": kind, "same": np.full(300, 3.0)})
    model = FlowBDT(**{**SMALL, "n_steps": 2}).fit(rng.normal(size=(300, 2)), cond=cond)
    write_cpp(model, tmp_path)
    rows = np.array([[150, 0, 3], [99, 1, 3], [205, 0, 3], [85, 0, 3], [300, 1, 4], [np.nan] * 3])
    with Exported(library, tmp_path / "model.bin") as exported:
        found = [library.flowbdt_outside(exported.handle, pointer(np.array(row))) for row in rows]
    assert found == [0, 0, 0, 1, 2, 0]
    assert list(flow_of(model).condition_ranges.count_far(rows[:-1])[:3]) == [2, 0, 1]


C_PROGRAM = r"""
#include <stdio.h>
#include "flowbdt_c.h"

int main(int argc, char **argv) {
  flowbdt_handle *handle = NULL;
  double cond[2] = {1.0, 0.25}, event[16];
  if (argc < 2 || flowbdt_open(argv[1], &handle) != FLOWBDT_OK) {
    fprintf(stderr, "%s\n", flowbdt_last_error());
    return 1;
  }
  if (flowbdt_one(handle, cond, 2, 7, 3, event) != FLOWBDT_OK) return 2;
  for (size_t i = 0; i < flowbdt_n_columns(handle); ++i) printf("%.17g\n", event[i]);
  flowbdt_close(handle);
  return 0;
}
"""


@pytest.mark.skipif(C_COMPILER is None, reason="no C compiler (cc, gcc or clang) is installed")
def test_a_c_program_gets_the_same_event(rejecting_file, tmp_path, library):
    (tmp_path / "main.c").write_text(C_PROGRAM)
    command = [C_COMPILER, "-std=c11", *STRICT, f"-I{rejecting_file.parent}", "main.c"]
    subprocess.run([*command, str(library.path), "-o", "main"], cwd=tmp_path, check=True)
    done = subprocess.run(
        [tmp_path / "main", rejecting_file], capture_output=True, text=True, check=True
    )
    with Exported(library, rejecting_file) as exported:
        expected = exported.one([1.0, 0.25], 7, 3)
    assert np.array_equal(np.array(done.stdout.split(), dtype=float), expected)
    failed = subprocess.run([tmp_path / "main", "no"], capture_output=True, text=True)
    assert failed.returncode == 1
    assert "cannot open the model file no" in failed.stderr


@pytest.mark.skipif(shutil.which("cmake") is None, reason="cmake is not installed")
@pytest.mark.parametrize("in_lanes", ["OFF", pytest.param("ON", marks=pytest.mark.slow)])
def test_the_example_is_built_by_cmake(in_lanes, rejecting_file, tmp_path, library):
    build = tmp_path / "build"
    example = rejecting_file.parent / "example"
    configure = ["cmake", "-S", example, "-B", build, "-DBUILD_SHARED_LIBS=ON"]
    configure += ["-DCMAKE_BUILD_TYPE=Debug", f"-DFLOWBDT_IN_LANES={in_lanes}"]
    configure.append(f"-DCMAKE_CXX_FLAGS={' '.join(STRICT[1:-1])}")
    for command in (configure, ["cmake", "--build", build]):
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ})
        assert done.returncode == 0, done.stdout + done.stderr
    words = [build / "example", rejecting_file, "2", "7", "1", "nan"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    header, *rows = done.stdout.splitlines()
    assert header == "a,b,c,d,e"
    with Exported(library, rejecting_file) as exported:
        expected = [exported.one([1.0, np.nan], 7, number) for number in range(2)]
    assert np.allclose([np.array(row.split(","), dtype=float) for row in rows], expected, 1e-8)
    failed = subprocess.run(words[:-1], capture_output=True, text=True)
    assert failed.returncode == 1
    assert "condition" in failed.stderr
    built = loaded_library(build / "libflowbdt_c.so")
    cond = np.array([[1.0, np.nan], *np.random.default_rng(0).normal(size=(40, 2))])
    with Exported(library, rejecting_file) as plain, Exported(built, rejecting_file) as other:
        found = other.many(cond, 7, 0)
        assert np.allclose(found, plain.many(cond, 7, 0), rtol=1e-10)
        assert all(np.array_equal(other.one(cond[i], 7, i), found[i]) for i in range(len(cond)))
    if in_lanes == "ON":
        with Exported(built, rejecting_file, single=True) as single:
            near = single.many(cond, 7, 0)
            assert all(np.array_equal(single.one(cond[i], 7, i), near[i]) for i in range(len(cond)))
        assert not np.array_equal(near, found)
        assert np.isclose(near, found, rtol=1e-3, atol=1e-4).all(axis=1).mean() > 0.9


def test_single_precision_without_kernels_is_refused(rejecting_file, library):
    refused = Exported(library, rejecting_file, single=True)
    assert refused.status == BAD_ARGUMENT
    assert "compile lanes*.cpp" in refused.error


def test_the_command_writes_all_that_is_needed(rejecting, tmp_path, capsys):
    rejecting.save(tmp_path / "a.flow")
    assert main(["export", str(tmp_path / "a.flow"), "-o", str(tmp_path / "out")]) == 0
    assert "model.bin" in capsys.readouterr().out
    for name in SOURCES:
        assert (tmp_path / "out" / name).read_bytes() == source(name).read_bytes()
    assert (tmp_path / "out" / "model.bin").read_bytes() == model_bytes(rejecting)


def test_another_sampler_is_exported_without_rejection(rejecting, tmp_path, library):
    rejecting.save(tmp_path / "a.flow")
    words = ["export", str(tmp_path / "a.flow"), "-q", "-o", str(tmp_path)]
    assert main([*words, "--sampler", "{solver: euler}"]) == 0
    flow = flow_of(rejecting, sampler={"solver": "euler"})
    z = np.random.default_rng(0).standard_normal((50, flow.plan["n_latent"]))
    cond = conditions_of(flow, 50)
    with Exported(library, tmp_path / "model.bin") as exported:
        events, acceptance = exported.from_noise(z, cond)
    assert np.allclose(events, in_python(flow, z, cond)[0], rtol=1e-5)
    assert np.array_equal(acceptance, np.ones(50))


def test_the_header_reads_the_version_that_is_written():
    versions = {"": VERSION, "Drawn": DRAWN_VERSION, "Turned": TURNED_VERSION}
    said = ", ".join(f"k{name}Version = {number}" for name, number in versions.items())
    assert f"{said};" in source("flowbdt.hpp").read_text()


def test_equal_models_give_equal_bytes(rejecting):
    assert model_bytes(rejecting) == model_bytes(flow_of(rejecting))


def test_a_name_that_ends_in_onnx_makes_one_graph(tmp_path):
    pytest.importorskip("onnx", reason="needs the extra 'onnx'")
    x = np.random.default_rng(0).normal(size=(300, 2))
    FlowBDT(preset="fast", n_steps=2, preconditioner="gaussian", random_state=1).fit(x).save(
        tmp_path / "a.flow"
    )
    assert main(["export", str(tmp_path / "a.flow"), "-q", "-o", str(tmp_path / "a.onnx")]) == 0
    assert (tmp_path / "a.onnx").is_file()
