"""Export to C++: the events of Python from the same noise; clear words where something is wrong.

The C interface is compiled once; models are data.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import struct
import subprocess
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError

from flowbdt import EventTable, FlowBDT, store
from flowbdt.attempts import MOST_ATTEMPTS
from flowbdt.cli import main
from flowbdt.distillation import distil
from flowbdt.errors import ConfigError, DataWarning, RunError
from flowbdt.export import binary, write_cpp
from flowbdt.export.cpp import SOURCES, model_bytes, source
from flowbdt.generation import Flow
from flowbdt.solvers import integrate
from flowbdt.stepmodel import classified

COMPILER = next((c for c in ("c++", "g++", "clang++") if shutil.which(c)), None)
C_COMPILER = next((c for c in ("cc", "gcc", "clang") if shutil.which(c)), None)
STRICT = ["-O2", "-Wall", "-Wextra", "-Werror", "-pedantic"]

EVENTS = 1000
"""Per kind of model; there are more than ten kinds."""

OK, BAD_FILE, BAD_ARGUMENT, BAD_EVENT = range(4)


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    """The C interface as a shared library."""
    if COMPILER is None:
        pytest.skip("no C++ compiler (c++, g++ or clang++) is installed")
    path = tmp_path_factory.mktemp("cpp") / "libflowbdt.so"
    command = [COMPILER, "-std=c++17", *STRICT, "-shared", "-fPIC", str(source("flowbdt_c.cpp"))]
    done = subprocess.run([*command, "-o", str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded = ctypes.CDLL(str(path))
    for name in ("last_error", "column", "unit", "condition"):
        getattr(loaded, f"flowbdt_{name}").restype = ctypes.c_char_p
    for name in ("uniform", "acceptance"):
        getattr(loaded, f"flowbdt_{name}").restype = ctypes.c_double
    for name in ("n_columns", "n_conditions", "n_latent"):
        getattr(loaded, f"flowbdt_{name}").restype = ctypes.c_size_t
    loaded.path = path
    return loaded


def pointer(array):
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_double))


class Exported:
    """A model file, asked through the C interface."""

    def __init__(self, library, path):
        self._lib, self.handle = library, ctypes.c_void_p()
        self.status = library.flowbdt_open(str(path).encode(), ctypes.byref(self.handle))
        self.error = self.said()
        self.d = self.size("n_columns")

    def __enter__(self):
        assert self.status == OK, self.error
        return self

    def __exit__(self, *_):
        self._lib.flowbdt_close(self.handle)

    def said(self):
        return self._lib.flowbdt_last_error().decode()

    def size(self, name):
        return getattr(self._lib, f"flowbdt_{name}")(self.handle)

    def names(self, kind, count):
        found = (getattr(self._lib, f"flowbdt_{kind}")(self.handle, i) for i in range(count))
        return [name.decode() for name in found]

    def copy(self):
        other = object.__new__(Exported)
        other._lib, other.handle, other.d = self._lib, ctypes.c_void_p(), self.d
        assert self._lib.flowbdt_copy(self.handle, ctypes.byref(other.handle)) == OK
        return other

    def call(self, name, *arguments):
        return getattr(self._lib, f"flowbdt_{name}")(self.handle, *arguments)

    def from_noise(self, z, cond):
        """Events (n, d) of the noise z (n, m) and their acceptance (n,)."""
        out, acceptance = np.empty((len(z), self.d)), np.empty(len(z))
        for i in range(len(z)):
            own, given = np.ascontiguousarray(z[i]), np.ascontiguousarray(cond[i])
            size = ctypes.c_size_t(given.size)
            there, kept = pointer(out[i]), pointer(acceptance[i : i + 1])
            status = self.call("from_noise", pointer(own), pointer(given), size, there, kept)
            assert status == OK, self.said()
        return out, acceptance

    def one(self, cond, seed, number):
        out, given = np.full(self.d, np.nan), np.ascontiguousarray(cond, dtype=float)
        size, keys = ctypes.c_size_t(given.size), (ctypes.c_uint64(seed), ctypes.c_uint64(number))
        self.status = self.call("one", pointer(given), size, *keys, pointer(out))
        return out

    def many(self, cond, seed, first):
        out, given = np.full((len(cond), self.d), np.nan), np.ascontiguousarray(cond, dtype=float)
        keys = ctypes.c_uint64(seed), ctypes.c_uint64(first)
        sizes = ctypes.c_size_t(len(cond)), ctypes.c_size_t(given.shape[1])
        self.status = self.call("many", sizes[0], pointer(given), sizes[1], *keys, pointer(out))
        return out

    def noise(self, seed, number, attempt):
        out = np.empty(self.size("n_latent"))
        keys = (ctypes.c_uint64(key) for key in (seed, number, attempt))
        assert self.call("noise", *keys, pointer(out)) == OK
        return out

    def uniform(self, seed, number, attempt):
        keys = (ctypes.c_uint64(key) for key in (seed, number, attempt))
        return self._lib.flowbdt_uniform(*keys)


SMALL = {
    "n_steps": 3,
    "n_repeats": 1,
    "candidates": 0,
    "booster": {"n_estimators": 11, "max_depth": 4, "early_stopping_rounds": 0},
    "random_state": 1,
    "rejection": False,
    "preconditioner": "none",
}


def booster(**settings):
    return {"booster": {**SMALL["booster"], **settings}}


def plain(n=500):
    """Columns of many kinds, two conditions, unknown here and there."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 3))
    x[:, 1] = np.exp(x[:, 0] + 0.3 * x[:, 1])
    x = np.column_stack([x, x[:, 1] / (1.0 + x[:, 0] ** 2), rng.integers(0, 4, n)])
    cond = np.column_stack([x[:, 0] > 0, rng.normal(size=n)]).astype(float)
    cond[::7, 1] = np.nan
    return x, cond


def numbers(given, **settings):
    x, cond = plain()
    data = EventTable.of(x, list("abcde"), cond=cond if given else None)
    return FlowBDT(**{**SMALL, "relations": ["d = b / (1 + a ** 2)"], **settings}).fit(data)


def of_depth(depth):
    return numbers(False, **booster(max_depth=depth, n_estimators=5))


def student(**settings):
    """A student of two evaluations, of a teacher with conditions."""
    booster = {"booster": {"n_estimators": 5, "max_depth": 3, "early_stopping_rounds": 0}}
    teacher = numbers(True, preconditioner="gaussian")
    known = {"n_pairs": 600, "cond": plain()[1], "random_state": 1}
    return distil(teacher, 2, **known, **booster, **settings)


def often_undefined():
    """A logarithm of a column that is positive in training and not always when generated."""
    a = np.random.default_rng(3).exponential(size=500)
    data = EventTable.of(np.column_stack([a, np.log(a), 1 / a]), ["a", "log", "inverse"])
    relations = ["log = log(a)", "inverse = 1 / maximum(a, 0 * a)"]
    return FlowBDT(**{**SMALL, "transforms": "standard", "relations": relations}).fit(data)


def every_transform():
    """A column for each transform, each type and each operation of a relation."""
    rng = np.random.default_rng(1)
    n = 600
    u, a = rng.random(n), rng.normal(size=n)
    frame = pd.DataFrame(
        {
            "identity": a,
            "minmax": u,
            "clipped": rng.normal(size=n),
            "log": np.where(u < 0.1, 0.0, np.exp(a)),
            "logit": np.where(u < 0.05, 0.0, np.where(u > 0.95, 2.0, 2 * rng.random(n))),
            "rank": np.where(u < 0.2, 1.5, rng.exponential(size=n)).astype(np.float32),
            "few": rng.poisson(2.0, n),
            "many": rng.poisson(40.0, n).astype(np.int16),
            "kind": rng.choice(["pion", "kaon", "proton"], n),
            "flag": u > 0.4,
            "phi": rng.uniform(-np.pi, np.pi, n),
            "chained": np.exp(rng.normal(size=n)),
            "constant": 7.5,
        }
    )
    frame["first"] = np.log(frame["clipped"] ** 2 + 2.5) - np.sqrt(np.abs(frame["identity"])) / 2
    frame["second"] = np.maximum(np.minimum(frame["first"], 1.0), -(frame["phi"] * 0.5))
    frame["third"] = np.exp(-frame["minmax"]) + frame["second"]
    named = ("identity", "minmax", "log", "rank")
    transforms = {
        **{name: name for name in named},
        "clipped": {"name": "standard", "clip": True},
        "logit": {"name": "logit", "low": 0.0, "high": 2.0},
        "phi": "circular",
        "chained": ["log", "minmax"],
        "joint": "standardise",
    }
    relations = [
        "third = exp(-minmax) + second",
        "second = maximum(minimum(first, 1.0), -(phi * 0.5))",
        "first = log(clipped ** 2 + 2.5) - sqrt(abs(identity)) / 2",
    ]
    settings = {**SMALL, "transforms": transforms, "relations": relations}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # of the constant
        return FlowBDT(**settings).fit(frame)


MIXTURE = {"name": "mixture", "n_components": 5}
LOW_RANK = {**MIXTURE, "covariance": "low_rank", "rank": 2}
VIEWS = ["latent", "columns", "end_point", "components"]
NOISY = [0.0, 0.006, 0.4, 1.0]
"""At the second of these times the score says too little about the end of a point."""

KINDS = {
    "trees alone": lambda: numbers(False),
    "one Gaussian": lambda: numbers(False, preconditioner="gaussian", solver="heun"),
    "mixture": lambda: numbers(False, preconditioner=MIXTURE, inputs=VIEWS),
    "low rank": lambda: numbers(False, preconditioner=LOW_RANK),
    "conditions": lambda: numbers(True, preconditioner=MIXTURE, inputs=VIEWS),
    "low rank with conditions": lambda: numbers(True, preconditioner=LOW_RANK),
    "conditions of trees alone": lambda: numbers(True),
    "nearly all noise": lambda: numbers(True, preconditioner=MIXTURE, spacing=NOISY),
    "low rank, nearly all noise": lambda: numbers(True, preconditioner=LOW_RANK, spacing=NOISY),
    "mean velocity": lambda: numbers(
        False, preconditioner=MIXTURE, target="mean", solver="euler", path="trigonometric"
    ),
    "noise on the path": lambda: numbers(
        True, preconditioner="gaussian", path={"name": "linear", "sigma": 0.1}
    ),
    "groups of outputs": lambda: numbers(False, **booster(outputs_per_group=2)),
    "rejection": lambda: numbers(True, preconditioner="gaussian", rejection=True),
    "solver that scales points": lambda: numbers(
        False, preconditioner="gaussian", solver="dpm_solver_pp_2m"
    ),
    "student with conditions": lambda: student(preconditioner=MIXTURE),
    "low-rank student with conditions": lambda: student(preconditioner=LOW_RANK),
    "every transform": every_transform,
    "undefined relations": often_undefined,
    **{f"depth {depth}": partial(of_depth, depth) for depth in (1, 2, 3, 5, 6, 7, 8)},
}


def flow_of(model, **options):
    return Flow(store.Archive("model", model.archive_), compiled=False, **options)


def conditions_of(flow, n):
    if not flow.columns["conditions"]:
        return None
    cond = np.column_stack([np.arange(n) % 2, np.linspace(-1, 1, n)]).astype(float)
    cond[::3, 1] = np.nan
    cond[::5, 0] = np.nan
    return cond


def in_python(flow, z, cond):
    """The events of noise z (n, m), and their acceptance."""
    sampler = flow.sampler
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # of undefined relations
        ends = integrate(sampler.solver, flow.field, z, sampler.boundaries, cond=cond).x
        x = flow.transform.inverse(ends)
    if flow.ratio is None:
        return x, np.ones(len(x))
    log_ratio = flow.ratio.log_ratio(classified(x, cond)).reshape(len(x))
    return x, np.minimum(np.exp(log_ratio.astype(float)) / flow.ratio.ceiling, 1.0)


@pytest.fixture(scope="module", params=list(KINDS))
def case(request, tmp_path_factory):
    model = KINDS[request.param]()
    folder = tmp_path_factory.mktemp("export")
    write_cpp(model, folder)
    flow = flow_of(model)
    return SimpleNamespace(model=model, flow=flow, path=folder / "model.bin")


def test_events_are_those_of_python(case, library):
    flow = case.flow
    z = np.random.default_rng(2).standard_normal((EVENTS, flow.plan["n_latent"]))
    cond = conditions_of(flow, EVENTS)
    expected, kept = in_python(flow, z, cond)
    with Exported(library, case.path) as exported:
        events, acceptance = exported.from_noise(z, np.zeros((EVENTS, 0)) if cond is None else cond)
    scale = 1e-7 * np.abs(expected).max(axis=0)  # of zeros that rounding moved
    assert np.all(np.abs(events - expected) <= 1e-5 * np.abs(expected) + scale)
    assert np.allclose(acceptance, kept, rtol=1e-5)
    assert events.std(axis=0).max() > 0.1


def test_generated_events_leave_the_domain_of_a_relation():
    """Else the kind of that name would test nothing."""
    flow = flow_of(often_undefined())
    z = np.random.default_rng(2).standard_normal((EVENTS, flow.plan["n_latent"]))
    x, _ = in_python(flow, z, None)
    assert 0 < np.mean(x[:, 0] <= 0) < 0.5


def test_many_events_are_single_ones(case, library):
    n = 150
    cond = conditions_of(case.flow, n)
    cond = np.zeros((n, 0)) if cond is None else cond
    with Exported(library, case.path) as exported:
        together = exported.many(cond, 5, 1000)
        assert exported.status == OK, exported.said()
        single = np.array([exported.one(cond[i], 5, 1000 + i) for i in range(n)])
    assert np.array_equal(together, single)
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
    write_cpp(FlowBDT(**{**SMALL, "n_steps": 2}).fit(data, cond=cond), tmp_path)
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


DAMAGES = {
    "begin with FLOWBDT": lambda b: b"X" + b[1:],
    "byte order": lambda b: b[:12] + b[15:11:-1] + b[16:],
    "format version 2, this flowbdt.hpp reads version 1": lambda b: b[:8] + b"\2" + b[9:],
    "truncated": lambda b: b[:-64],
    "only 10 bytes": lambda b: b[:10],
    "checksum": lambda b: b[:-100] + bytes([b[-100] ^ 1]) + b[-99:],
}


@pytest.mark.parametrize("words", DAMAGES)
def test_a_bad_file_is_named_with_what_is_wrong(rejecting_file, tmp_path, library, words):
    path = tmp_path / "bad.bin"
    path.write_bytes(DAMAGES[words](rejecting_file.read_bytes()))
    exported = Exported(library, path)
    assert exported.status == BAD_FILE
    assert not exported.handle
    assert words in exported.error
    assert "bad.bin" in exported.error


KINDS_OF_NUMBERS = [np.uint8, np.uint16, np.int64, np.float32, np.float64]


class Forged:
    """A model file whose checksum is right, but not what it says."""

    def __init__(self, path):
        self.content = bytearray(path.read_bytes())
        count = struct.unpack_from("<I", self.content, 28)[0]
        self._entries = {}
        for entry in range(64, 64 * (count + 1), 64):
            name = bytes(self.content[entry : entry + 40]).rstrip(b"\0").decode()
            self._entries[name] = entry

    def __getitem__(self, name):
        """The numbers of an array; writing to them changes the file."""
        entry = self._entries[name]
        kind = struct.unpack_from("<I", self.content, entry + 40)[0]
        begin, size = struct.unpack_from("<QQ", self.content, entry + 48)
        return np.frombuffer(self.content, KINDS_OF_NUMBERS[kind], size, begin)

    def shorten(self, name, size):
        struct.pack_into("<Q", self.content, self._entries[name] + 56, size)

    def write(self, path):
        struct.pack_into("<I", self.content, 24, zlib.crc32(self.content[64:]))
        path.write_bytes(self.content)


def input_that_no_tree_has(file):
    file["trees.feature"][:] = 65535


def trees_whose_number_overflows(file):
    file["trees.table"][:2] = 1 << 33, 31


def type_limits_before_the_first_number(file):
    file["way.columns"][4] = -1


def transform_whose_numbers_end_too_early(file):
    file["way.ops"][1] = len(file["way.numbers"]) - 1


def relation_cut_off(file):
    file.shorten("way.relations", 3)


def operation_without_operands(file):
    begin = file["way.relations"][1]
    file["way.terms"][2 * begin] = 2


def column_that_is_not_there(file):
    number = file["way.terms"][2 * file["way.relations"][1] + 1]
    file["way.numbers"][number] = 1e9


def mixture_without_components(file):
    for name in ("log_weights", "means", "covariances"):
        file.shorten(f"mixture.{name}", 0)


def slots_beyond_all_memory(file):
    file["sizes"][4] = 1 << 20


def size_whose_square_overflows(file):
    file["sizes"][13] = (1 << 32) - 1


def end_point_without_closed_form(file):
    sizes = file["sizes"]
    sizes[3] += sizes[2] * (1 - sizes[6])
    sizes[6], sizes[10] = 1, 0


FORGERIES = {
    input_that_no_tree_has: "nodes of trees",
    trees_whose_number_overflows: "forests",
    type_limits_before_the_first_number: "columns",
    transform_whose_numbers_end_too_early: "transforms",
    relation_cut_off: "relations",
    operation_without_operands: "relations",
    column_that_is_not_there: "relations",
    mixture_without_components: "components of the mixture",
    slots_beyond_all_memory: "steps",
    size_whose_square_overflows: "sizes",
    end_point_without_closed_form: "closed forms",
}


@pytest.mark.parametrize("forge", FORGERIES)
def test_arrays_that_do_not_fit_together_are_refused(rejecting_file, tmp_path, library, forge):
    """Told before anything outside of the file is read or written."""
    file = Forged(rejecting_file)
    file.write(tmp_path / "same.bin")
    assert (tmp_path / "same.bin").read_bytes() == rejecting_file.read_bytes()
    forge(file)
    file.write(tmp_path / "bad.bin")
    exported = Exported(library, tmp_path / "bad.bin")
    assert exported.status == BAD_FILE
    assert FORGERIES[forge] + " are inconsistent" in exported.error


def test_a_folder_is_not_taken_for_a_file(tmp_path, library):
    exported = Exported(library, tmp_path)
    assert exported.status == BAD_FILE
    assert "folder" in exported.error


def test_a_missing_file_is_named(tmp_path, library):
    exported = Exported(library, tmp_path / "none.bin")
    assert exported.status == BAD_FILE
    assert "none.bin" in exported.error


@pytest.mark.parametrize(
    ("cond", "words"),
    [
        ([], "2 condition(s)"),
        ([1.0], "got 1"),
        ([1.0, 2.0, 3.0], "got 3"),
        ([1.0, np.inf], "infinite"),
    ],
)
def test_wrong_conditions_are_told(rejecting_file, library, cond, words):
    with Exported(library, rejecting_file) as exported:
        exported.one(cond, 1, 0)
        assert exported.status == BAD_ARGUMENT
        assert words in exported.said()


def test_null_pointers_and_infinite_noise_are_told(rejecting_file, library):
    cond, out = np.zeros(2), np.zeros(9)
    with Exported(library, rejecting_file) as exported:
        size, zero = ctypes.c_size_t(2), ctypes.c_uint64(0)
        assert exported.call("one", pointer(cond), size, zero, zero, None) == BAD_ARGUMENT
        assert exported.call("one", None, size, zero, zero, pointer(out)) == BAD_ARGUMENT
        noise = np.full(exported.size("n_latent"), np.inf)
        given = pointer(cond)
        status = exported.call("from_noise", pointer(noise), given, size, pointer(out), None)
        assert status == BAD_EVENT
        assert "not finite" in exported.said()
    assert library.flowbdt_open(None, None) == BAD_ARGUMENT
    library.flowbdt_close(None)


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
def test_the_example_is_built_by_cmake_and_prints_events(rejecting_file, tmp_path, library):
    build = tmp_path / "build"
    example = rejecting_file.parent / "example"
    configure = ["cmake", "-S", example, "-B", build, "-DCMAKE_BUILD_TYPE=Debug"]
    for command in (configure, ["cmake", "--build", build, "--target", "example"]):
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


@pytest.mark.parametrize(
    ("sampler", "words"),
    [
        ({"solver": "ddpm"}, "'ddpm' draws random numbers.*export with another sampler"),
        ({"n_steps": 2, "interpolate": True}, "interpolates.*whose times were trained"),
    ],
)
def test_samplers_that_cannot_be_exported_are_named(rejecting, tmp_path, sampler, words):
    with pytest.raises(ConfigError, match=words):
        write_cpp(flow_of(rejecting, sampler=sampler), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_models_that_cannot_be_exported_are_named(tmp_path):
    x, _ = plain(300)
    given = FlowBDT(**{**SMALL, "n_steps": 2, "coupling": "given"})
    with pytest.raises(ConfigError, match="starts from given events"):
        write_cpp(given.fit(x[:, :3], source=x[:, :3] + 0.3), tmp_path)
    deep = booster(max_depth=20, min_child_weight=0, n_estimators=1, reg_lambda=0)
    with pytest.raises(ConfigError, match="decisions"):
        write_cpp(FlowBDT(**{**SMALL, "n_steps": 1, **deep}).fit(x[:, :3]), tmp_path)
    half = pd.DataFrame({"a": x[:, 0].astype(np.float16), "b": x[:, 1]})
    with pytest.raises(ConfigError, match="column cannot be exported.*'a'.*float16"):
        write_cpp(FlowBDT(**{**SMALL, "n_steps": 1}).fit(half), tmp_path)
    with pytest.raises(NotFittedError, match="not fitted"):
        write_cpp(FlowBDT(), tmp_path)


def test_a_folder_that_cannot_be_made_is_named(rejecting, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="file"):
        write_cpp(rejecting, tmp_path / "file")


def test_the_header_reads_the_version_that_is_written():
    assert f"kVersion = {binary.VERSION};" in source("flowbdt.hpp").read_text()


def test_equal_models_give_equal_bytes(rejecting):
    assert model_bytes(rejecting) == model_bytes(flow_of(rejecting))
