"""Owns how the extension annidx._core.binding is compiled; pyproject.toml says the rest.

Environment: MAX_JOBS limits the compilers that run at once (default: all cores). ANNIDX_SANITIZE
(address, thread, undefined, or several with commas) builds with sanitizers, for tests only.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
BINDING = {".h", ".pxd", ".pxi"}  # what binding.pyx is put together from


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
    return ["annidx/_core/binding.pyx", *sorted(path.relative_to(ROOT).as_posix() for path in core)]


def headers() -> list[str]:
    """Everything whose change asks for a new build."""
    found = [*(ROOT / "src_c").rglob("*.h"), *(ROOT / "src_c").rglob("*.inc")]
    found += [path for path in (ROOT / "annidx" / "_core").iterdir() if path.suffix in BINDING]
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
        "-g0",  # Python's own -g would make nine tenths of the extension debug sections
    ]
    linker = ["-pthread"]
    sanitizers = os.environ.get("ANNIDX_SANITIZE", "")
    if sanitizers:
        compiler += [f"-fsanitize={sanitizers}", "-fno-omit-frame-pointer", "-g", "-O1"]
        linker += [f"-fsanitize={sanitizers}"]
    return compiler, linker


def is_fresh(target: Path, made_from: Path) -> bool:
    """Whether an object file is newer than all that the compiler read for it, as it has noted."""
    if not target.exists() or not made_from.exists():
        return False
    rule = made_from.read_text(encoding="utf-8").replace("\\\n", " ")
    read = [Path(name) for name in rule.partition(": ")[2].split()]
    made = target.stat().st_mtime_ns
    return all(path.exists() and path.stat().st_mtime_ns <= made for path in read)


class BuildExtension(build_ext):
    """Compiles those sources of an extension that changed, side by side."""

    def initialize_options(self) -> None:
        """Choose the compilers that kernels for several instruction sets can be written for."""
        super().initialize_options()
        if sys.platform == "win32":
            self.compiler = "mingw32"  # whichever CC and CXX name; not Microsoft's

    def build_extensions(self) -> None:
        """Give each source to a compiler of its own."""
        self.require_compiler()
        compile_one = self.compiler.compile
        jobs = int(os.environ.get("MAX_JOBS", "0")) or os.cpu_count() or 1

        def compile_changed(
            source: str, output_dir: str, extra_postargs: list[str], **options: object
        ) -> str:
            (target,) = self.compiler.object_filenames([source], output_dir=output_dir)
            notes = Path(target).with_suffix(".d")
            if not self.force and is_fresh(Path(target), notes):
                return target
            asked = [*extra_postargs, "-MMD", "-MF", os.fspath(notes)]
            compile_one([source], output_dir=output_dir, extra_postargs=asked, **options)
            return target

        def compile_all(sources: list[str], **options: object) -> list[str]:
            with ThreadPoolExecutor(jobs) as pool:
                return list(pool.map(lambda source: compile_changed(source, **options), sources))

        self.compiler.compile = compile_all
        super().build_extensions()

    def require_compiler(self) -> None:
        """Say in one line what is missing, instead of a page of what failed."""
        command = getattr(self.compiler, "compiler_so_cxx", None) or self.compiler.compiler_so
        if shutil.which(command[0]) is None:
            raise SystemExit(
                f"annidx: expected a C++17 compiler, found no program {command[0]!r}: install "
                "GCC 9 or Clang 10 or newer (Debian: apt install g++, macOS: xcode-select "
                "--install, Windows: pip install ziglang), or name yours in the environment "
                "variables CC and CXX"
            )


compiler_flags, linker_flags = flags()
extension = Extension(
    "annidx._core.binding",
    sources(),
    depends=headers(),
    include_dirs=["src_c", numpy.get_include()],
    define_macros=[
        ("ANNIDX_VERSION", f'"{version()}"'),
        ("NPY_NO_DEPRECATED_API", "NPY_1_23_API_VERSION"),
        ("NPY_TARGET_VERSION", "NPY_1_23_API_VERSION"),
        # Python's headers for Windows know what a pointer takes from Microsoft's compiler alone.
        *([("MS_WIN64", None)] if sys.platform == "win32" else []),
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
