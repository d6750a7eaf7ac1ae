"""Owns how the extension annidx._core is compiled. What the package is stands in pyproject.toml.

Environment: MAX_JOBS limits the compilers that run at once (default: all cores). ANNIDX_SANITIZE
(address, thread, undefined, or several with commas) builds with sanitizers, for tests only.
"""

from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent


def version() -> str:
    """Read the one home of the version without importing the package."""
    text = (ROOT / "annidx" / "_version.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    if match is None:
        raise RuntimeError('annidx/_version.py: no line __version__ = "..." found')
    return match[1]


def sources() -> list[str]:
    """The binding and the whole core, relative to this folder as setuptools asks."""
    core = (ROOT / "src_c").glob("*/*.cpp")
    return ["annidx/_core.pyx", *sorted(path.relative_to(ROOT).as_posix() for path in core)]


def headers() -> list[str]:
    """Everything whose change asks for a new build."""
    found = [*(ROOT / "src_c").rglob("*.h"), *(ROOT / "src_c").rglob("*.inc")]
    found += [*(ROOT / "annidx").glob("_*.h"), *(ROOT / "annidx").glob("*.px[di]")]
    return sorted(path.relative_to(ROOT).as_posix() for path in found)


def flags() -> tuple[list[str], list[str]]:
    """Compiler and linker flags.

    One build runs on every machine: no -march. Same bytes everywhere: no -ffast-math, no fusing.
    """
    compiler = [
        "-std=c++17",
        "-O3",
        "-ffp-contract=off",
        "-fvisibility=hidden",
        "-Wall",
        "-pthread",
    ]
    linker = ["-pthread"]
    sanitizers = os.environ.get("ANNIDX_SANITIZE", "")
    if sanitizers:
        compiler += [f"-fsanitize={sanitizers}", "-fno-omit-frame-pointer", "-g", "-O1"]
        linker += [f"-fsanitize={sanitizers}"]
    return compiler, linker


class BuildExtension(build_ext):
    """Compiles the sources of an extension side by side."""

    def build_extensions(self) -> None:
        """Give each source to a compiler of its own."""
        compile_one = self.compiler.compile
        jobs = int(os.environ.get("MAX_JOBS", 0)) or os.cpu_count() or 1

        def compile_all(sources: list[str], *args: object, **kwargs: object) -> list[str]:
            with ThreadPoolExecutor(jobs) as pool:
                parts = pool.map(lambda source: compile_one([source], *args, **kwargs), sources)
                return [object_file for part in parts for object_file in part]

        self.compiler.compile = compile_all
        super().build_extensions()


compiler_flags, linker_flags = flags()
extension = Extension(
    "annidx._core",
    sources(),
    depends=headers(),
    include_dirs=["src_c", numpy.get_include()],
    define_macros=[
        ("ANNIDX_VERSION", f'"{version()}"'),
        ("NPY_NO_DEPRECATED_API", "NPY_1_23_API_VERSION"),
        ("NPY_TARGET_VERSION", "NPY_1_23_API_VERSION"),
    ],
    extra_compile_args=compiler_flags,
    extra_link_args=linker_flags,
    language="c++",
)

setup(
    ext_modules=cythonize(
        [extension],
        compiler_directives={
            "language_level": 3,
            "boundscheck": False,
            "wraparound": False,
            "binding": True,
            "embedsignature": True,
            "freethreading_compatible": True,
        },
    ),
    cmdclass={"build_ext": BuildExtension},
)
