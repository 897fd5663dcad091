"""Builds the core in C++; where there is no compiler the package is installed without it."""

import os
import platform
import runpy
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

FOLDER = Path("flowbdt") / "generation" / "native"
SOURCES = runpy.run_path(str(FOLDER / "sources.py"))

# the result is the same to the last bit on every machine: no -ffast-math, no contraction
FLAGS = ["-O2", "-std=c++17", "-ffp-contract=off", "-fno-math-errno", "-fvisibility=hidden", "-g0"]
MSVC = ["/O2", "/std:c++17", "/fp:precise", "/EHsc"]


class BuildCore(build_ext):
    """A library for ctypes: it has the same name for every Python."""

    def get_ext_filename(self, name: str) -> str:
        return os.path.join(*name.split(".")) + ".so"

    def build_extension(self, ext: Extension) -> None:
        compile_one = self.compiler._compile

        def with_instructions(obj, src, suffix, cc_args, more, pp_opts):  # type: ignore[no-untyped-def]
            x86 = platform.machine().lower() in ("x86_64", "amd64")
            more = [*more, *(SOURCES["INSTRUCTIONS"].get(Path(src).name, []) if x86 else [])]
            compile_one(obj, src, suffix, cc_args, more, pp_opts)

        if sys.platform != "win32":
            self.compiler._compile = with_instructions
        super().build_extension(ext)

    def get_export_symbols(self, ext: Extension) -> list[str]:
        return []


class Wheel(bdist_wheel):
    """A wheel for one platform and every Python 3."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


setup(
    ext_modules=[
        Extension(
            "flowbdt.generation.native.libflowbdt",
            [str(FOLDER / name) for name in SOURCES["COMPILED"]],
            depends=[str(path) for path in FOLDER.glob("*.hpp")],
            define_macros=[("FLOWBDT_SOURCES", SOURCES["digest"]())],
            extra_compile_args=MSVC if sys.platform == "win32" else FLAGS,
            language="c++",
            optional=True,
        )
    ],
    cmdclass={"build_ext": BuildCore, "bdist_wheel": Wheel},
)
