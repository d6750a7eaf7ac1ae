"""Holds the rooms of the core and of the package (see CONTRIBUTING.md) by reading their sources.

Owns the rules about who may include, import or use what. It reads text only: nothing is built or
imported, so it tells of a wrong dependency even where the library does not compile.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CORE = ROOT / "src_c"
PACKAGE = ROOT / "annidx"
MAX_LINES = 900

# The rooms of the core, from the ground up: each is a folder of src_c. A file may include its own
# room and those below it.
ROOMS = ("base", "os", "kernels", "rows", "format", "model", "search", "index")
FLOOR_OF = {room: floor for floor, room in enumerate(ROOMS)}

# annoy stands beside the floors: it reads another program's files and knows only these rooms.
ANNOY_MAY_INCLUDE = {"annoy", "base", "os", "kernels", "rows"}

# Dependencies that the order of the floors would allow and the rooms do not.
FORBIDDEN: set[tuple[str, str]] = {
    ("kernels", "os"),
    ("format", "os"),
    ("model", "format"),
    ("model", "os"),
}

INTRINSICS = ("immintrin.h", "arm_neon.h", "x86intrin.h", "emmintrin.h", "nmmintrin.h", "cpuid.h")
INTRINSIC_CALLS = re.compile(r"\b_mm(?:256|512)?_\w+|__builtin_ia32\w*|\bv\w+q_[suf]\d+\b")
SYSTEM_HEADERS = ("unistd.h", "fcntl.h", "windows.h", "dirent.h", "pthread.h")
SYSTEM_MACROS = ("__linux__", "__APPLE__", "_WIN32", "__unix__", "__FreeBSD__", "_MSC_VER")
# On ARM only the operating system tells what the CPU can do: kernels/ may ask it that, and no more.
CPU_DETECTION = {"sys/auxv.h", "sys/sysctl.h"}
CASTING_ROOMS = {"os", "format", "kernels"}
OUTPUT = re.compile(
    r"\b(?:v?f?printf|putchar|f?puts|perror|exit|_Exit|quick_exit|abort|terminate|assert)\s*\("
    r"|\bstd::(?:cout|cerr|clog)\b|\b(?:stdout|stderr)\b"
)
THREADS = re.compile(r"\bstd::(?:j?thread|async)\b(?!::)|\bpthread_create\b")


def core_files() -> list[Path]:
    """Every source of the core, also the ones that kernels/ includes as text."""
    return sorted(p for p in CORE.rglob("*") if p.suffix in {".h", ".cpp", ".inc"})


def room_of(path: Path) -> str:
    """Name the room of a core file: its folder."""
    room = path.parent.name
    assert room in FLOOR_OF or room == "annoy", f"{path.relative_to(ROOT)} is in no known room"
    return room


def code_of(path: Path) -> str:
    """Return a C++ source without comments and without the insides of string literals."""
    text = path.read_text(encoding="utf-8")
    pattern = re.compile(r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'", re.S)

    def keep_includes(match: re.Match[str]) -> str:
        line_start = text.rfind("\n", 0, match.start()) + 1
        return match[0] if text[line_start : match.start()].lstrip().startswith("#include") else " "

    return pattern.sub(keep_includes, text)


def includes_of(path: Path) -> tuple[list[Path], list[str]]:
    """List the core files and the other headers that a source includes."""
    own: list[Path] = []
    foreign: list[str] = []
    for quote, name in re.findall(r'^\s*#\s*include\s*(["<])([^">]+)', code_of(path), re.M):
        candidates = [path.parent / name, CORE / name] if quote == '"' else []
        found = next((c.resolve() for c in candidates if c.exists()), None)
        if found is None:
            foreign.append(name)
        else:
            own.append(found)
    return own, foreign


def lines_with(pattern: re.Pattern[str], path: Path) -> list[str]:
    """Return `file: text` for each line of code that the pattern is found in."""
    return [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for line in code_of(path).splitlines()
        if pattern.search(line)
    ]


def named(path: Path) -> str:
    """Name a parametrized case by its path."""
    return str(path.relative_to(ROOT))


every_core_file = pytest.mark.parametrize("path", core_files(), ids=named)


def test_core_was_found() -> None:
    assert {"error.h", "index.h", "format.h"} <= {p.name for p in core_files()}


@every_core_file
def test_includes_go_one_way(path: Path) -> None:
    room = room_of(path)
    for target in includes_of(path)[0]:
        other = room_of(target)
        step = f"{named(path)} includes {target.name}: room {room} must not know {other}"
        if room == "annoy":
            assert other in ANNOY_MAY_INCLUDE, step
        else:
            assert other != "annoy", step
            assert FLOOR_OF[other] <= FLOOR_OF[room], step
            assert (room, other) not in FORBIDDEN, step


def test_headers_have_no_cycle() -> None:
    graph = {path.resolve(): includes_of(path)[0] for path in core_files()}
    done: set[Path] = set()

    def visit(path: Path, trail: tuple[Path, ...]) -> None:
        assert path not in trail, " -> ".join(p.name for p in (*trail, path))
        if path in done:
            return
        for target in graph[path]:
            visit(target, (*trail, path))
        done.add(path)

    for start in graph:
        visit(start, ())


@every_core_file
def test_lowest_floor_includes_nothing_of_the_core(path: Path) -> None:
    if path.stem in {"error", "types", "tuning"}:
        assert includes_of(path)[0] == []


@every_core_file
def test_levels_are_reached_through_kernels(path: Path) -> None:
    if room_of(path) != "kernels":
        found = {target.name for target in includes_of(path)[0] if room_of(target) == "kernels"}
        assert found <= {"kernels.h"}


@every_core_file
def test_intrinsics_stay_in_kernels(path: Path) -> None:
    if room_of(path) != "kernels":
        assert not set(INTRINSICS) & set(includes_of(path)[1])
        assert lines_with(INTRINSIC_CALLS, path) == []


@every_core_file
def test_operating_system_stays_in_os(path: Path) -> None:
    if room_of(path) == "os":
        return
    headers = {h for h in includes_of(path)[1] if h in SYSTEM_HEADERS or h.startswith("sys/")}
    if room_of(path) == "kernels" and CPU_DETECTION & headers:
        headers -= CPU_DETECTION
    else:
        names = re.compile(r"\b(?:" + "|".join(SYSTEM_MACROS) + r")\b")
        assert lines_with(names, path) == []
    assert headers == set()


@every_core_file
def test_reinterpret_cast_stays_in_its_rooms(path: Path) -> None:
    if room_of(path) not in CASTING_ROOMS:
        assert lines_with(re.compile(r"\breinterpret_cast\b"), path) == []


@every_core_file
def test_core_neither_prints_nor_exits(path: Path) -> None:
    assert lines_with(OUTPUT, path) == []
    assert not {"iostream", "cassert", "assert.h", "stdio.h"} & set(includes_of(path)[1])


@every_core_file
def test_threads_are_made_in_parallel_only(path: Path) -> None:
    if path.stem != "parallel":
        assert lines_with(THREADS, path) == []


@every_core_file
def test_file_is_of_readable_size(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


@every_core_file
def test_core_file_says_what_it_owns(path: Path) -> None:
    assert path.read_text(encoding="utf-8").startswith(("// ", "/* "))


def python_files() -> list[Path]:
    """Every Python source of the package, the tests, the examples and the benchmark."""
    folders = ("annidx", "tests", "examples", "bench")
    return sorted(p for folder in folders for p in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("path", python_files(), ids=named)
def test_python_file_says_what_it_owns(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def test_files_of_tests_have_different_names() -> None:
    """Pytest imports them by name alone: of two with one name it runs none."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))


# The rooms of the package: what a module of each may import. A folder is a room; of the modules
# that lie in annidx/ itself those named here belong elsewhere, and all others are faces.
MAY_IMPORT = {
    "ground": {"ground"},
    "_core": {"ground", "_core"},
    "io": {"ground", "_core", "io"},
    "faces": {"ground", "_core", "io", "faces"},
    "explore": {"ground", "faces", "explore"},
    "cli": {"ground", "io", "faces", "explore", "cli"},
}
ROOM_OF_MODULE = {"errors": "ground", "_version": "ground"}
ROOM_OF_MODULE |= dict.fromkeys(("demo", "_terminal", "__main__"), "cli")


def module_of(path: Path) -> str:
    """Name the module that a source of the package is, as annidx.name."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules() -> dict[str, Path]:
    """Every module of the package and its source; of the binding, its stub."""
    sources = [path for ending in ("*.py", "*.pyi") for path in PACKAGE.rglob(ending)]
    return {module_of(path): path for path in sorted(sources)}


MODULES = modules()


def package_room_of(module: str) -> str:
    """Name the room of a module of the package."""
    name = module.partition(".")[2].partition(".")[0]
    return name if name in MAY_IMPORT else ROOM_OF_MODULE.get(name, "faces")


def imports_of(path: Path) -> set[str]:
    """Name the modules of annidx that a Python source imports anywhere, as annidx.name."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path.name}: expected absolute imports"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            inner = names & MODULES.keys()
            found |= inner | ({node.module or ""} if inner < names else set())
    return {name for name in found if name == "annidx" or name.startswith("annidx.")}


every_module = pytest.mark.parametrize("module", MODULES)


@every_module
def test_imports_of_the_package_go_one_way(module: str) -> None:
    room = package_room_of(module)
    for other in imports_of(MODULES[module]):
        found = package_room_of(other)
        assert found in MAY_IMPORT[room], f"{module} imports {other}: {room} must not know {found}"


def test_modules_have_no_cycle() -> None:
    # The binding counts as one: its stub and the types of its arguments name each other.
    graph: dict[str, set[str]] = {}
    for module, path in MODULES.items():
        one = "annidx._core" if package_room_of(module) == "_core" else module
        graph.setdefault(one, set()).update(imports_of(path))
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join((*trail, module))
        if module not in done:
            for other in sorted(graph[module]):
                if not other.startswith("annidx._core"):
                    visit(other, (*trail, module))
            done.add(module)

    for module in graph:
        visit(module, ())


OF_FILES = sorted(name for name in MODULES if name.startswith("annidx.io."))


@pytest.mark.parametrize("module", [*OF_FILES, "annidx._terminal"])
def test_files_and_terminal_know_nothing_of_the_index(module: str) -> None:
    """What callers may pass is told by the binding's words; formats and files need none of it."""
    allowed = {*OF_FILES, "annidx.io"} - {"annidx.io.inputs"}
    if module == "annidx.io.inputs":
        allowed |= {"annidx._core"}
    assert imports_of(MODULES[module]) <= allowed


def test_every_command_is_a_file() -> None:
    helpers = {
        "annidx.cli.arguments",
        "annidx.cli.changes",
        "annidx.cli.output",
        "annidx.cli.plots",
        "annidx.cli.queries",
        "annidx.cli.vectors",
    }
    files = {name for name in MODULES if name.startswith("annidx.cli.")} - helpers
    text = MODULES["annidx.cli"].read_text(encoding="utf-8")
    assert files == {f"annidx.cli.{name}" for name in re.findall(r"(\w+)\.COMMAND\b", text)}


BINDING = sorted(
    p for p in (PACKAGE / "_core").iterdir() if p.suffix in {".pyx", ".pxd", ".pxi", ".h"}
)
FACADE = {"index.h", "ids.h", "annoy_file.h", "parallel.h", "types.h", "error.h", "kernels.h"}


@pytest.mark.parametrize("path", BINDING, ids=named)
def test_binding_reads_only_the_facade(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith(("#", "//", '"""')) and not text.startswith(("#include", "#pragma"))
    included = re.findall(r'\bextern from "([^"<]+)"|#include "([^"]+)"', text)
    core = {Path(a or b).name for a, b in included} - {p.name for p in BINDING}
    assert core <= FACADE, sorted(core - FACADE)


def test_binding_imports_errors_and_numpy_only() -> None:
    text = (PACKAGE / "_core" / "binding.pyx").read_text(encoding="utf-8")
    imported = set(re.findall(r"^(?:from|import)\s+([\w.]+)", text, re.M))
    assert {name for name in imported if name.startswith("annidx")} <= {"annidx.errors"}
