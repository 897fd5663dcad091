"""The core under the address and undefined-behaviour sanitizers, on good and damaged arrays."""

from __future__ import annotations

import os
import platform
import struct
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import QUICK, SMALL_MODEL
from exported_models import COMPILER
from exported_models import KINDS as EXPORTED
from fault_trials import trials
from test_damaged_arrays import MIXTURES, damaged, small_model
from test_showers import FLOW, TREES, toy_showers

from flowbdt import FlowBDT
from flowbdt.generation.native import core, sources
from flowbdt.generation.packed.array_file import KINDS, file_bytes
from flowbdt.generation.packed.model_arrays import model_bytes
from flowbdt.physics.calorimeter.model import ShowerModel

pytestmark = pytest.mark.faults

N_FILES = 300
IS_X86 = platform.machine() in ("x86_64", "AMD64")
CPU = Path("/proc/cpuinfo")
LANES = "avx2" if CPU.exists() and " avx2" in CPU.read_text() else "plain"
"""Kernels that are run."""

CHECKS = "address,undefined,float-cast-overflow"


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    """The driver of the core, built with sanitizers."""
    if COMPILER is None:
        pytest.skip("no C++ compiler (c++, g++ or clang++) is installed")
    path = tmp_path_factory.mktemp("core") / "driver"
    source = Path(__file__).with_name("core_driver.cpp")
    plain = [COMPILER, "-std=c++17", "-O1"]
    sanitized = [*plain, f"-fsanitize={CHECKS}", "-fno-sanitize-recover=all"]
    macros = [f'-DCORE="{sources.FOLDER / "core.cpp"}"', "-DFLOWBDT_SOURCES=here"]
    objects = []
    for name in sources.COMPILED[1:]:
        instructions = sources.INSTRUCTIONS.get(name, []) if IS_X86 else []
        watched = ["-fsanitize=address"] if LANES in name else []  # the others are not run
        objects.append(str(path.with_name(f"{name}.o")))
        build = [*plain, *watched, *instructions, "-c", str(sources.FOLDER / name)]
        subprocess.run([*build, "-o", objects[-1]], check=True)
    subprocess.run([*sanitized, *macros, str(source), *objects, "-o", str(path)], check=True)
    return path


def arrays(content):
    """Return all arrays of a file of arrays."""
    (count,) = struct.unpack_from("<I", content, 28)
    kinds, found = dict(zip(KINDS.values(), KINDS, strict=True)), {}
    for at in range(64, 64 * (1 + count), 64):
        name, kind, _, begin, size = struct.unpack_from("<40sIIQQ", content, at)
        name = name.rstrip(b"\0").decode()
        found[name] = np.frombuffer(content, kinds[kind], size, begin)
    return found


def parts_of_models():
    """Arrays of whole models, and of all parts that the core opens for two more."""
    models = [arrays(model_bytes(small_model(mixture))) for mixture in MIXTURES.values()]
    models += [arrays(model_bytes(EXPORTED[kind]())) for kind in ("particles", "vectors")]
    opened, begin = [], core.Part.__init__

    def noted(part, content, *more):
        opened.append(arrays(bytes(content)))
        begin(part, content, *more)

    rng = np.random.default_rng(0)
    x = rng.normal(size=300)
    frame = pd.DataFrame({"x": x, "n": rng.poisson(2, 300), "kind": np.where(x > 0, "a", "b")})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(core.Part, "__init__", noted)
        FlowBDT(**{**SMALL_MODEL, "booster": QUICK}).fit(frame).sample(5)
        ShowerModel(flow=FLOW, rings=TREES, sectors={**TREES, "depth": 4}).fit(toy_showers(150, 1))
    kinds = {name.split(".")[0] for each in opened for name in each}
    assert {"walk", "inverse", "discrete", "showers"} <= kinds
    return [*models, *opened]


def test_damaged_arrays_lead_to_no_wrong_step(driver, tmp_path, request):
    parts, rng = parts_of_models(), np.random.default_rng(3)
    with trials("arrays under sanitizers", request) as counter:
        for number in range(N_FILES * counter.scale):
            content = parts[number % len(parts)]
            for _ in range(rng.integers(1, 3) if number >= len(parts) else 0):
                content = damaged(content, rng)
            (tmp_path / f"{number:05d}").write_bytes(file_bytes(content))
        files = sorted(map(str, tmp_path.iterdir()))
        for low in range(0, len(files), 100):
            some = files[low : low + 100]
            settings = {"ASAN_OPTIONS": "allocator_may_return_null=1", "FLOWBDT_LANES": LANES}
            done = subprocess.run(
                [driver, *some], capture_output=True, text=True, env=os.environ | settings
            )
            lines = done.stdout.splitlines()
            for line in lines if done.returncode == 0 else lines[:-1]:
                counter.add("right" if int(line.split()[1]) else "error", line)
            if done.returncode:
                counter.add("traceback", lines[-1], done.stderr)
        used = counter.counts["right"]
        assert used >= len(parts)
