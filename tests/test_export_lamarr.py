"""Stages as functions of a shared object: the numbers of Python, in SQLamarr and a C program."""

from __future__ import annotations

import ctypes
import os
import sqlite3
import subprocess
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from exported_models import (
    C_COMPILER,
    COMPILER,
    SMALL,
    STRICT,
    Exported,
    booster,
    events_of_numbers,
    flow_of,
)

from flowbdt import FlowBDT
from flowbdt.cli.main import main
from flowbdt.errors import ConfigError
from flowbdt.generation.export import write_cpp
from flowbdt.generation.export.lamarr import (
    ExportedRejection,
    compile_command,
    stage_of_run,
    write_lamarr,
)
from flowbdt.physics.response import ResponseChain
from flowbdt.physics.response.exported_stages import exported_stages
from flowbdt.physics.response.shares import as_given
from flowbdt.tables.transforms.rounded_floats import in_bits
from flowbdt.trees import classifiers

ak = pytest.importorskip("awkward", reason="awkward is not installed (extra 'root')")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler is installed")

MODEL = {
    "preset": "fast",
    "n_steps": 3,
    "booster": {"n_estimators": 8},
    "preconditioner": "gaussian",
}
SHARES = ["Jet_muEF", "Jet_chHEF", "Jet_neHEF"]
ROUNDED = dict.fromkeys(SHARES, "float32 of 10 bits")
CHAIN = {
    "conditions": ["nPU"],
    "collections": {
        "Jet": {
            "parent": "GenJet",
            "index": "Jet_genJetIdx",
            "conditions": ["GenJet_pt", "forward = abs(GenJet_eta)"],
            "stages": [
                {"columns": ["Jet_pt"], "model": {"relative": {"Jet_pt": "ratio GenJet_pt"}}},
                {
                    "columns": ["Jet_btag", "Jet_n", "Jet_muEF"],
                    "model": {"rejection": True},
                },
                {"columns": ["Jet_neHEF", "Jet_chHEF"]},
            ],
            "shares": [SHARES],
            "fakes": False,
            "rejection": ["answer = Jet_pt / GenJet_pt"],
        }
    },
    "event": {"MET": {"conditions": ["ht = sum(Jet_pt)"]}, "Trigger": {}},
    "model": MODEL,
}


def efficiency(forward):
    return np.where(forward < 1.0, 0.9, 0.6)


def events(n, seed):
    """Jets that are found by `efficiency`, with columns of many kinds."""
    rng = np.random.default_rng(seed)
    number = rng.poisson(3, n)
    m = number.sum()
    pt, eta = rng.uniform(30, 70, m), rng.uniform(-2, 2, m)
    found = rng.random(m) < efficiency(np.abs(eta))
    k = found.sum()
    tag = np.where(rng.random(k) < 0.3, 0.0, np.where(rng.random(k) < 0.2, -1.0, rng.random(k)))
    muons = np.where(rng.random(k) < 0.8, 0.0, rng.random(k) / 2)
    charged = (1 - muons) * rng.beta(2, 2, k)
    columns = {
        "Jet_pt": pt[found] * rng.normal(1.05, 0.1, k),
        "Jet_btag": tag,
        "Jet_n": rng.poisson(2 + pt[found] / 20),
        "Jet_muEF": muons,
        "Jet_chHEF": charged,
        "Jet_neHEF": 1 - muons - charged,
    }
    seen = ak.unflatten(found, number)
    index = ak.local_index(seen)[seen]
    columns |= {name: in_bits(columns[name], 10) for name in SHARES}
    jets = {
        name: ak.unflatten(values.astype(values.dtype.char.replace("d", "f")), ak.num(index))
        for name, values in columns.items()
    }
    gen = {"GenJet_pt": ak.unflatten(pt, number), "GenJet_eta": ak.unflatten(eta, number)}
    sums = {
        "MET_sumEt": ak.sum(jets["Jet_pt"], axis=1) + rng.normal(100, 10, n),
        "Trigger_fires": np.ones(n),
    }
    whole = {"nPU": rng.integers(10, 30, n)}
    return ak.zip({**whole, **gen, **jets, **sums, "Jet_genJetIdx": index}, depth_limit=1)


class Library:
    """The functions of a shared object, called on rows."""

    def __init__(self, functions, path):
        self.functions, self.path = {one.name: one for one in functions}, path
        self._library = ctypes.CDLL(str(path))

    def __call__(self, name, cond, random=None):
        known, call = self.functions[name], self._library[name]
        call.restype = ctypes.c_void_p
        out = np.full((len(cond), len(known.outputs)), np.nan, dtype=np.float32)
        given = [np.ascontiguousarray(a, np.float32) for a in (cond, random) if a is not None]
        for i, row in enumerate(out):
            call(*(a.ctypes.data_as(ctypes.c_void_p) for a in (row, *(each[i] for each in given))))
        return out

    def count(self, name):
        call = self._library[name]
        call.restype = ctypes.c_ulonglong
        return call()


@pytest.fixture(scope="module")
def quickly():
    """Classifiers that are grown as those of large tables, in one fold."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifiers, "LITTLE_WORK", 0)
        yield


@pytest.fixture(scope="module")
def exported(tmp_path_factory, quickly):
    """A chain, its stages, and their library, made by the command."""
    if COMPILER is None:
        pytest.skip("no C++ compiler (c++, g++ or clang++) is installed")
    folder = tmp_path_factory.mktemp("lamarr")
    chain = ResponseChain(CHAIN, random_state=3).fit(events(1500, 1))
    chain.save(folder / "jets.chain")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXXFLAGS", "-O0")
        assert (
            main(["export", str(folder / "jets.chain"), "--abi", "lamarr", "-o", str(folder)]) == 0
        )
        stages = exported_stages(chain)
        patch.setattr("flowbdt.generation.export.lamarr._compiled", lambda _: None)
        functions, _ = write_lamarr(stages, folder / "again")
    for name in ("stages.cpp", "stages.h"):
        assert (folder / name).read_bytes() == (folder / "again" / name).read_bytes()
    library = Library(functions, folder / "libstages.so")
    return SimpleNamespace(chain=chain, stages=stages, library=library, folder=folder)


def drawn_inputs(function, n, seed=5):
    """Conditions near those of the training, and normal numbers."""
    rng = np.random.default_rng(seed)
    some = {
        "nPU": rng.integers(10, 30, n),
        "GenJet_pt": rng.uniform(30, 70, n),
        "forward": rng.uniform(0, 2, n),
        "Jet_pt": rng.uniform(30, 80, n),
        "Jet_btag": rng.uniform(-1, 1, n),
        "Jet_n": rng.integers(2, 9, n),
        "Jet_muEF": np.append(np.ones(n // 10), np.zeros(n - n // 10)),
        "ht": rng.uniform(0, 300, n),
    }
    cond = [some.get(name, rng.uniform(0, 2, n)) for name in function.inputs]
    cond = np.array(cond, np.float32).reshape(-1, n).T
    random = None
    if function.n_random is not None:
        random = rng.standard_normal((n, function.n_random)).astype(np.float32)
    return np.ascontiguousarray(cond), random


def test_functions_give_the_numbers_of_python(exported):
    names = ["Jet_number", "Jet_1", "Jet_2", "Jet_3", "Jet_rejection", "MET", "Trigger"]
    assert list(exported.library.functions) == names
    for stage, name in zip(exported.stages, names, strict=True):
        function = exported.library.functions[name]
        cond, random = drawn_inputs(function, 400)
        new = exported.library(name, cond, random)
        if isinstance(stage, ExportedRejection):
            expected = np.minimum(np.exp(stage.ratio.log_ratio(cond)) / stage.ratio.ceiling, 1)
            assert np.allclose(new[:, 0], expected.reshape(400), atol=1e-6)
            assert np.ptp(new) > 0.1
            continue
        flow = stage.flow
        if flow is None:
            assert (new == 1.0).all()
            continue
        if random is None:
            known = np.zeros((400, 0), dtype=np.int64)
            expected = flow.discrete._shares(0, np.zeros((400, 1)), cond.astype(float), known, None)
            assert np.allclose(new, expected, atol=1e-6)
            continue
        assert (function.rejected > 0) == (flow.ratio is not None)
        x = events_of_numbers(flow, random, cond.astype(float))
        table = flow.as_table(x, None)
        columns = {column: table.typed(column) for column in table.names}
        known = [name for one in stage.shares for name in one.before]
        before = {name: cond[:, function.inputs.index(name)] for name in known}
        columns = as_given(columns, [SHARES] if stage.shares else [], before, ROUNDED)
        for name in {*SHARES} & {*function.outputs}:
            one = new[:, function.outputs.index(name)]
            assert np.array_equal(in_bits(one, 10), one)
        expected = np.column_stack([columns[column] for column in function.outputs])
        assert (np.abs(new - expected) <= 1e-5 * np.abs(expected) + 1e-6).all(axis=1).mean() > 0.99
    assert exported.library.functions["Jet_2"].rejected > 0


def test_calls_outside_of_the_training_and_failed_ones_are_counted(exported):
    library = exported.library
    cond, random = drawn_inputs(library.functions["Jet_1"], 3)
    before = library.count("Jet_1_outside"), library.count("Jet_1_failed")
    cond[0, 1], cond[1, 0], cond[2, 0] = 500.0, np.inf, np.nan
    new = library("Jet_1", cond, random)
    assert np.array_equal(np.isnan(new[:, 0]), [False, True, False])
    after = library.count("Jet_1_outside"), library.count("Jet_1_failed")
    assert (after[0] - before[0], after[1] - before[1]) == (2, 1)


def test_threads_share_a_function(exported):
    cond, random = drawn_inputs(exported.library.functions["Jet_2"], 300)
    with ThreadPoolExecutor(4) as pool:
        calls = list(pool.map(lambda _: exported.library("Jet_2", cond, random), range(4)))
    assert all(np.array_equal(calls[0], each) for each in calls[1:])


@pytest.mark.parametrize("n", [pytest.param(5_000), pytest.param(100_000, marks=pytest.mark.slow)])
def test_sqlamarr_runs_a_pipeline_of_stages(exported, tmp_path, n):
    sqlamarr = pytest.importorskip(
        "SQLamarr", reason="sqlamarr is not installed (Python 3.11 only)"
    )
    rng, functions = np.random.default_rng(6), exported.library.functions
    gen = pd.DataFrame(
        {"nPU": rng.integers(10, 30, n), "GenJet_pt": rng.uniform(30, 70, n),
         "forward": rng.uniform(0, 2, n)}
    )  # fmt: skip
    path = str(tmp_path / "particles.db")
    db = sqlamarr.SQLite3DB(path).seed(42)
    with sqlite3.connect(path) as connection:
        gen.to_sql("GenJet", connection, index_label="id")
    library, key = str(exported.library.path), ["id"]

    def inputs(name, tables):
        return f"SELECT id, {', '.join(functions[name].inputs)} FROM {tables}"

    def generative(name, query):
        outputs, number = list(functions[name].outputs), functions[name].n_random
        return sqlamarr.GenerativePlugin(db, library, name, query, name, outputs, number, key)

    found = "Jet_1 JOIN GenJet USING (id)"
    made = [name for k in (1, 2, 3) for name in functions[f"Jet_{k}"].outputs]
    probabilities = list(functions["Jet_number"].outputs)
    number = inputs("Jet_number", "GenJet"), "Jet_number", probabilities, key
    pipeline = [
        sqlamarr.Plugin(db, library, "Jet_number", *number),
        sqlamarr.TemporaryTable(
            db, "Drawn", ["id", "number"],
            f"SELECT id, random_category({', '.join(probabilities)}) FROM Jet_number",
        ),
        generative("Jet_1", inputs("Jet_1", "GenJet JOIN Drawn USING (id) WHERE number = 1")),
        generative("Jet_2", inputs("Jet_2", found)),
        generative("Jet_3", inputs("Jet_3", f"{found} JOIN Jet_2 USING (id)")),
        sqlamarr.TemporaryTable(
            db, "Jet", ["id", "nPU", "GenJet_pt", "forward", *made],
            f"SELECT id, nPU, GenJet_pt, forward, {', '.join(made)} FROM {found}"
            " JOIN Jet_2 USING (id) JOIN Jet_3 USING (id)",
            make_persistent=True,
        ),
    ]  # fmt: skip
    sqlamarr.Pipeline(pipeline).execute()
    with sqlite3.connect(path) as connection:
        new = pd.read_sql_query("SELECT * FROM Jet", connection)
    columns = {"GenJet_pt": gen.GenJet_pt, "GenJet_eta": gen.forward}
    jets = {name: values.to_numpy()[:, None] for name, values in columns.items()}
    given = ak.Array({"nPU": gen.nPU.to_numpy(), **jets})
    python = exported.chain.sample(given, random_state=7)
    assert len(new) == new.id.nunique()
    share, expected = len(new) / n, len(ak.flatten(python.Jet_pt)) / n
    assert abs(share - expected) < 3.5 * np.sqrt(2 * expected * (1 - expected) / n)
    for low, high in ((0.0, 1.0), (1.0, 2.0)):
        there = gen.forward.between(low, high).sum()
        assert new.forward.between(low, high).sum() / there == pytest.approx(
            efficiency(low), abs=0.06
        )
    for name in made:
        real = np.asarray(ak.flatten(python[name]), dtype=float)
        error = np.sqrt((new[name].var() + real.var()) / len(real))
        assert abs(new[name].mean() - real.mean()) < 4 * error, name
        zero = np.mean(real == 0), np.mean(new[name] == 0)
        assert abs(zero[0] - zero[1]) <= 4 * np.sqrt(2 * zero[0] * (1 - zero[0]) / len(real)), name
    assert np.allclose(
        new[["Jet_muEF", "Jet_chHEF", "Jet_neHEF"]].sum(axis=1), 1.0, atol=1e-3
    )  # of ten bits


C_PROGRAM = r"""
#include <stdio.h>
#include "stages.h"

int main(void) {
  float in[Jet_2_N_IN], random[Jet_2_N_RANDOM], out[Jet_2_N_OUT];
  for (int call = 0; call < 50; ++call) {
    for (int i = 0; i < Jet_2_N_IN; ++i) in[i] = call % 10 == 9 ? 0.0f / 0.0f : 1.0f + i;
    for (int i = 0; i < Jet_2_N_RANDOM; ++i) random[i] = (float)((i * 7 + call) % 13) / 6 - 1;
    if (Jet_2(out, in, random) != out) return 2;
    for (int i = 0; i < Jet_2_N_OUT; ++i) printf("%.9g ", out[i]);
    if (Jet_number(out, in) != out || MET(out, in, random) != out) return 3;
  }
  in[0] = 1.0f / 0.0f;
  Jet_2(out, in, random);
  return out[0] == out[0] || Jet_2_failed() != 1 || Jet_2_outside() < 45;
}
"""


@pytest.mark.faults
@pytest.mark.skipif(C_COMPILER is None, reason="no C compiler (cc, gcc or clang) is installed")
def test_a_c_program_calls_them_without_fault_or_leak(exported, tmp_path):
    (tmp_path / "main.c").write_text(C_PROGRAM)
    sane = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-O1"]
    library = tmp_path / "libstages.so"
    (tmp_path / "stages.cpp").symlink_to(exported.folder / "stages.cpp")
    printed = []
    for flags in ([], sane):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("CXXFLAGS", " ".join([*flags, "-O1"]))
            subprocess.run(compile_command(tmp_path, COMPILER), check=True)
        rest = [f"-I{exported.folder}", str(library), f"-Wl,-rpath,{tmp_path}", "-o", "main"]
        command = [C_COMPILER, "-std=c11", *STRICT, "-Wno-overflow", *flags, "main.c", *rest]
        subprocess.run(command, cwd=tmp_path, check=True)
        done = subprocess.run([tmp_path / "main"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        printed.append(np.array(done.stdout.split(), dtype=float))
    assert np.allclose(*printed, rtol=1e-5, equal_nan=True)


def drawn_columns(n=400):
    """Columns that classifiers draw: categories, missing, repeated and equal values, relations."""
    rng = np.random.default_rng(4)
    a, b = rng.normal(size=n), np.exp(rng.normal(size=n))
    kind = rng.choice(["e", "mu", "tau"], n, p=[0.5, 0.3, 0.2])
    spiked = np.where(
        rng.random(n) < 0.4, 0.0, np.where(rng.random(n) < 0.3, b, rng.normal(size=n))
    )
    frame = {
        "a": a,
        "b": b,
        "kind": kind,
        "spiked": spiked,
        "gap": np.where(a > 0.8, np.nan, b + rng.normal(size=n)),
        "total": a + spiked,
    }
    return pd.DataFrame(frame), pd.DataFrame({"c": a + rng.normal(size=n)})


def test_columns_that_classifiers_draw_are_those_of_python(library, tmp_path, quickly):
    frame, cond = drawn_columns()
    settings = {**SMALL, "preconditioner": "gaussian", "relations": ["total = a + spiked"]}
    model = FlowBDT(**settings, relative={"b": "difference c"}).fit(frame, cond=cond)
    flow = model.flow()
    assert len(flow.transform.skeleton) == 3
    assert len(flow.transform.coordinates)
    assert flow.transform.gaps
    write_cpp(model, tmp_path)
    given = np.random.default_rng(8).normal(size=(500, 1))
    with Exported(library, tmp_path / "model.bin") as exported:
        size = exported.size("n_latent")
        assert size == flow.n_noise
        noise = np.random.default_rng(9).standard_normal((500, size))
        new, _ = exported.from_noise(noise, given)
        one = exported.one(given[0], 3, 5)
        assert np.array_equal(
            one, exported.from_noise(exported.noise(3, 5, 0)[None], given)[0][0], equal_nan=True
        )
        assert np.array_equal(exported.many(given[:20], 3, 5)[0], one, equal_nan=True)
    expected = events_of_numbers(flow, noise, given)
    assert np.array_equal(np.isnan(new), np.isnan(expected))
    close = np.isclose(new, expected, rtol=1e-5, atol=1e-8, equal_nan=True)
    assert close.all(axis=1).mean() > 0.99


def test_what_cannot_be_a_function_is_refused(tmp_path, capsys):
    x = np.random.default_rng(0).normal(size=(300, 2))
    model = FlowBDT(**{**SMALL, "n_steps": 2}, require=["x0 > -1"]).fit(x[x[:, 0] > -1])
    stages = [stage_of_run(flow_of(model), name) for name in ("a.b", "a_b", "7")]
    for some, words in (
        (stages[:1], "stage a.b: .*require .x0 > -1.*requires=False"),
        (stages[:2], "'a.b' and 'a_b' would both be the function 'a_b'"),
        (stages[2:], "begins with a letter"),
    ):
        with pytest.raises(ConfigError, match=words):
            write_lamarr(some, tmp_path / "none")
    assert not (tmp_path / "none").exists()
    (tmp_path / "chain").mkdir()
    (tmp_path / "chain" / "chain.json").write_text("{}")
    model.save(tmp_path / "a.flow")
    for words, message in (
        (["chain"], "export it with --abi lamarr"),
        (["a.flow", "--attempts", "2"], "--attempts has nothing to act on"),
        (["a.flow", "--abi", "lamarr", "--format", "cpp"], "--format has nothing to act on"),
    ):
        words = ["export", str(tmp_path / words[0]), *words[1:], "-o", str(tmp_path / "none")]
        assert main(words) == 1
        assert message in capsys.readouterr().err


@needs_compiler
def test_a_single_run_is_one_function_and_a_compiler_may_be_missing(tmp_path, capsys, monkeypatch):
    x = np.random.default_rng(0).normal(size=(300, 2))
    FlowBDT(**{**SMALL, "n_steps": 2, **booster(n_estimators=2)}).fit(x).save(tmp_path / "toy.flow")
    words = ["export", str(tmp_path / "toy.flow"), "--abi", "lamarr", "-o", str(tmp_path / "lib")]
    monkeypatch.setattr("shutil.which", lambda _: None)
    monkeypatch.delenv("CXX", raising=False)
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "toy: 0 inputs, 2 normal numbers" in said
    assert "no C++ compiler was found" in said
    header = (tmp_path / "lib" / "stages.h").read_text()
    assert "float *toy(float *out, const float *in, const float *random);" in header
    monkeypatch.setenv("CXX", "false")
    assert main(words) == 1
    assert "false -std=c++17" in capsys.readouterr().err
    assert not os.path.exists(tmp_path / "lib" / "libstages.so")
