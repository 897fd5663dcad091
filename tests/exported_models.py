"""Models of many kinds, and their exported files asked through the C interface."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import warnings
from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.special import ndtr
from test_particle_coordinates import CARTESIAN, POLAR, cartesian, mass_of, resonance

from flowbdt import EventTable, FlowBDT
from flowbdt.errors import DataWarning
from flowbdt.flow.solvers import integrate
from flowbdt.generation import discrete_columns, event_selection, generate_rows
from flowbdt.generation.export.write_cpp import source
from flowbdt.generation.trained_flow import Flow
from flowbdt.training import run_directory
from flowbdt.tuning import distil

COMPILER = next((c for c in ("c++", "g++", "clang++") if shutil.which(c)), None)
C_COMPILER = next((c for c in ("cc", "gcc", "clang") if shutil.which(c)), None)
STRICT = ["-O2", "-Wall", "-Wextra", "-Werror", "-pedantic"]

OK, BAD_FILE, BAD_ARGUMENT, BAD_EVENT = range(4)


def shared_library(folder):
    """The C interface as a shared library."""
    if COMPILER is None:
        pytest.skip("no C++ compiler (c++, g++ or clang++) is installed")
    path = folder / "libflowbdt.so"
    command = [COMPILER, "-std=c++17", *STRICT, "-shared", "-fPIC", str(source("flowbdt_c.cpp"))]
    done = subprocess.run([*command, "-o", str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return loaded_library(path)


def loaded_library(path):
    """A shared library of the C interface."""
    loaded = ctypes.CDLL(str(path))
    for name in ("last_error", "column", "unit", "condition"):
        getattr(loaded, f"flowbdt_{name}").restype = ctypes.c_char_p
    for name in ("uniform", "acceptance"):
        getattr(loaded, f"flowbdt_{name}").restype = ctypes.c_double
    for name in ("n_columns", "n_conditions", "n_latent", "outside"):
        getattr(loaded, f"flowbdt_{name}").restype = ctypes.c_size_t
    loaded.path = path
    return loaded


def pointer(array):
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_double))


class Exported:
    """A model file, asked through the C interface."""

    def __init__(self, library, path, single=False):
        self._lib, self.handle = library, ctypes.c_void_p()
        open_file = library.flowbdt_open_single if single else library.flowbdt_open
        self.status = open_file(str(path).encode(), ctypes.byref(self.handle))
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


class GivenNoise:
    """Stands for `seeding.RowNoise`, with normal numbers (n, r) in place of keyed ones.

    Of each attempt there are those of an event, those of its classifiers, a vector that turns it
    and one that keeps it. A turn is that of the first.
    """

    def __init__(self, flow, random):
        self.random, self.m = random, flow.n_latent
        self.size = flow.n_noise

    def numbers(self, rows, attempt, begin, end):
        first = attempt * (self.size + 1)
        return self.random[rows, first + begin : first + end].astype(float)

    def __call__(self, seed, purpose, rows, keys=(), once=False):
        attempt = keys[0] if keys else 0
        if purpose == "accept":
            uniform = ndtr(self.numbers(rows, attempt - 1, self.size, self.size + 1))
            kept = uniform[:, 0] if uniform.size else np.full(len(rows), -1.0)  # of the last one
            return SimpleNamespace(random=lambda: kept)
        if purpose == "turn":
            x, y = self.numbers(rows, 0, self.size - 2, self.size).T
            return SimpleNamespace(random=lambda: np.arctan2(y, x) / (2 * np.pi))
        assert purpose == "sample"
        return SimpleNamespace(standard_normal=lambda _: self.numbers(rows, attempt, 0, self.m))

    def row_numbers(self, seed, purpose, rows, keys):
        return np.array(
            [ndtr(self.numbers(rows, a, self.m + k, self.m + k + 1)[:, 0]) for k, a in keys]
        )


def events_of_numbers(flow, random, cond):
    """Events (n, d) of the compiled core from given normal numbers (n, r) and conditions."""
    given = GivenNoise(flow, random)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generate_rows, "RowNoise", given)
        patch.setattr(event_selection, "RowNoise", given)
        patch.setattr(discrete_columns, "row_numbers", given.row_numbers)
        return flow.generator.events(0, np.arange(len(random)), cond)


def in_python(flow, z, cond=None):
    """The events of noise z (n, r) by numpy and XGBoost, and their acceptance."""
    sampler, m = flow.sampler, flow.n_latent
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # of undefined relations
        ends = integrate(sampler.solver, flow.field, z[:, :m], sampler.boundaries, cond=cond).x
        x = flow.transform.inverse(ends, None, cond)
        kept = flow.generator.is_near(x).astype(float)
        if flow.ratio is not None:
            seen = flow.generator.classifier_inputs(x, cond)
            log_ratio = flow.ratio.log_ratio(seen).reshape(len(x)).astype(float)
            kept *= np.minimum(np.exp(log_ratio) / flow.ratio.ceiling, 1.0)
        if flow.transform.turn:
            x = flow.transform.turned(x, np.arctan2(z[:, -1], z[:, -2]), cond)
    return x, kept * (flow.generator.within_cuts(x, cond) if len(flow.cuts) else 1.0)


SMALL = {
    "n_steps": 3,
    "noise": {"n_repeats": 1, "candidates": 0},
    "booster": {"n_estimators": 11, "max_depth": 4, "early_stopping_rounds": 0, "max_bin": 64},
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
    cond[::7, 1] = cond[::13, 0] = np.nan
    return x, cond


def numbers(given, **settings):
    x, cond = plain()
    data = EventTable.of(x, list("abcde"), cond=cond if given else None)
    relations = ["d = b / (1 + a ** 2)"]
    columns = {"transforms": {"e": "categorical"}, "relations": relations}
    return FlowBDT(**{**SMALL, **columns, **settings}).fit(data)


def related_to_conditions():
    """Relations that use a condition, which is unknown here and there, and an angle."""
    x, cond = plain()
    angle = (3.0 * x[:, 0] - cond[:, 1] + np.pi) % (2 * np.pi) - np.pi
    x = np.column_stack([x[:, :3], x[:, 1] * cond[:, 1], angle])
    columns = {"relations": ["d = b * c1", "e = deltaphi(3 * a, c1)"]}
    return FlowBDT(**{**SMALL, **columns}).fit(
        EventTable.of(x, list("abcde"), cond=cond, missing=True)
    )


def large_numbers():
    """A condition and a column whose values single precision cannot tell apart."""
    x, cond = plain()
    x[:, 2] = 2.4e9 + np.round(50 * x[:, 2])
    cond[:, 1] = 1.7e9 + np.round(50 * cond[:, 1])
    settings = {**SMALL, "preconditioner": MIXTURE, "rejection": True}
    return FlowBDT(**settings).fit(EventTable.of(x[:, :3], cond=cond))


def of_depth(depth):
    return numbers(False, **booster(max_depth=depth, n_estimators=5))


def student(**settings):
    """A student of a teacher with conditions."""
    booster = {"booster": {"n_estimators": 5, "max_depth": 3, "early_stopping_rounds": 0}}
    teacher = numbers(True, preconditioner="gaussian")
    known = {"n_pairs": 600, "cond": plain()[1], "random_state": 1}
    return distil(teacher, **known, **booster, **settings)


def often_undefined():
    """A logarithm of a column that is positive in training and not always when generated.

    And one over it, which goes far beyond its training range.
    """
    a = 0.2 + np.random.default_rng(3).exponential(size=500)
    data = EventTable.of(np.column_stack([a, np.log(a), 1 / a]), ["a", "log", "inverse"])
    relations = ["log = log(a)", "inverse = 1 / maximum(a, 0 * a)"]
    return FlowBDT(**{**SMALL, "transforms": "standard", "relations": relations}).fit(data)


def particles(vectors=False):
    """Two electrons from a resonance whose events turn, with cuts and all that particles tell."""
    frame, declared = resonance(1000), POLAR
    frame = frame[frame.eta1.abs() < 2.4].drop(columns="q").astype({"phi1": "float32"})
    if vectors:
        frame, declared = cartesian(frame, {"1": 0.1, "2": 0.1}), CARTESIAN
    frame["M"] = mass_of(frame, declared, "a", "b")
    settings = {
        "particles": declared,
        "relations": ["M = mass(a, b)"],
        "require": ["pt(b) > 20", "85 < M < 120 or isnan(M)", "not (abs(eta(a)) >= 2.4)"],
        "observables": [
            *("y = rapidity(a, b)", "r = deltaR(a, b)", "away = deltaphi(a, b) * (y >= 1)"),
            *("sum = where(pt(a) == pt(b), 2, energy(a + b))", "eta_a = eta(a)"),
        ],
        "rejection": True,
    }
    frame = frame[frame.M.between(85.001, 119)]
    return FlowBDT(**{**SMALL, **settings}).fit(frame)


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
            "quarters": np.round(a * 4) / 4,
            "constant": 7.5,
        }
    )
    frame["first"] = np.log(frame["clipped"] ** 2 + 2.5) - np.sqrt(np.abs(frame["identity"])) / 2
    frame["second"] = np.maximum(np.minimum(frame["first"], 1.0), -(frame["phi"] * 0.5))
    frame["third"] = np.exp(-frame["minmax"]) + frame["second"]
    named = ("identity", "minmax", "log", "rank")
    transforms = {
        **{name: name for name in named},
        **dict.fromkeys(("few", "kind", "flag"), "categorical"),
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
        False,
        preconditioner=MIXTURE,
        noise={**SMALL["noise"], "target": "mean"},
        solver="euler",
        path="trigonometric",
    ),
    "noise on the path": lambda: numbers(
        True, preconditioner="gaussian", path={"name": "linear", "sigma": 0.1}
    ),
    "groups of outputs": lambda: numbers(False, **booster(outputs_per_group=2)),
    "rejection": lambda: numbers(
        True,
        preconditioner="gaussian",
        rejection=True,
        observables=["s = a - c1", "t = s / hypot(s, b)"],
    ),
    "large numbers": large_numbers,
    "relations of conditions": related_to_conditions,
    "solver that scales points": lambda: numbers(
        False, preconditioner="gaussian", solver="dpm_solver_pp_2m"
    ),
    "student with conditions": lambda: student(preconditioner=MIXTURE),
    "low-rank student with conditions": lambda: student(preconditioner=LOW_RANK),
    "every transform": every_transform,
    "undefined relations": often_undefined,
    "particles": particles,
    "vectors": lambda: particles(vectors=True),
    **{f"depth {depth}": partial(of_depth, depth) for depth in (1, 2, 3, 5, 6, 7, 8)},
}


def flow_of(model, **options):
    return Flow(run_directory.Archive("model", model.archive_), compiled=False, **options)
