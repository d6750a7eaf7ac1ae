"""Saving, loading, adding and building while the system fails: power, disk, permission, memory.

Owns a small library, compiled here and preloaded, that makes the n-th call of a function of the
system fail, cuts a write short, or ends the process there. After each failure the old file is whole
or the new one is; a failure that raises leaves no temporary file, and names path and errno.
"""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import annidx

DIM, ITEMS = 32, 4_000
KILLED_QUICK, KILLED_MANY = 25, 500

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="faults are made in Linux's ways")


def built(generation: int) -> annidx.Index:
    """An index whose distances to zero tell its generation."""
    index = annidx.Index(DIM, "manhattan")
    index.add_items(np.full((ITEMS, DIM), generation, np.float32))
    index.build(n_jobs=1)
    return index


def generation_in(path: Path) -> int:
    """Check a file to the last byte, and tell its generation."""
    with annidx.load(path) as index:
        index.verify()
        _, distances = index.query(np.zeros(DIM, np.float32), k=20)
        assert len(distances) == 20 and (distances == distances[0]).all()
        return int(distances[0]) // DIM


def names_in(folder: Path) -> list[str]:
    """List a folder, with hidden files."""
    return sorted(os.listdir(folder))


@pytest.fixture(scope="module")
def indexes() -> list[annidx.Index]:
    """Generations 0 to 3."""
    return [built(generation) for generation in range(4)]


# ---- killed while saving -----------------------------------------------------------------------


class Reader:
    """A process that loads, checks and asks a file again and again, and counts."""

    def __init__(self, path: Path) -> None:
        script = (
            "import sys; sys.path.insert(0, sys.argv[1])\n"
            "from pathlib import Path\n"
            "import test_save_faults as faults\n"
            "count = 0\n"
            "print('ready', flush=True)\n"
            "import select\n"
            "while not select.select([sys.stdin], [], [], 0)[0]:\n"
            "    assert faults.generation_in(Path(sys.argv[2])) in range(4)\n"
            "    count += 1\n"
            "print(count)\n"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-c", script, str(Path(__file__).parent), str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def end(self) -> int:
        """Stop it. Returns how often it read the file; fails when something was wrong once."""
        out, errors = self._process.communicate("\n", timeout=300)
        assert self._process.returncode == 0, errors[-2000:]
        return int(out)


def work_for_ever(work: Callable[[int], None], generation: int, started: int) -> None:
    """What the victim does: tell of each piece of work when it begins."""
    while True:
        os.write(started, b".")
        work(generation)


def killed(work: Callable[[int], None], found: Callable[[], int], count: int) -> tuple[int, int]:
    """Kill so many processes while they write a generation; what is there is whole after each.

    Returns how many were killed before and after the moment at which the new file took over.
    """
    rng = random.Random(1)
    whole_s = 0.0
    for generation in (1, 2, 3, 0):
        before = time.perf_counter()
        work(generation)
        whole_s = max(whole_s, time.perf_counter() - before)
    old, replaced, last = 0, 0, 0
    for _ in range(count):
        generation = 1 + last % 3
        read_end, write_end = os.pipe()
        victim = os.fork()
        if victim == 0:
            try:
                work_for_ever(work, generation, write_end)
            finally:
                os._exit(1)
        os.close(write_end)
        assert os.read(read_end, 1) == b"."
        time.sleep(rng.uniform(0.0, 1.5 * whole_s))
        os.kill(victim, signal.SIGKILL)
        status = os.waitpid(victim, 0)[1]
        os.close(read_end)
        assert os.WTERMSIG(status) == signal.SIGKILL
        present = found()
        assert present in (last, generation), "neither what was there nor what came"
        replaced, old = replaced + (present == generation), old + (present == last)
        last = present
    return old, replaced


def check_killed_saves(indexes: list[annidx.Index], path: Path, count: int) -> None:
    indexes[0].save(path)
    reader = Reader(path)
    old, replaced = killed(lambda one: indexes[one].save(path), lambda: generation_in(path), count)
    read = reader.end()
    print(
        f"{count} saves killed: {old} before, {replaced} after the new file took over; {read} reads"
    )
    assert old + replaced == count
    assert old > 0 and replaced > 0 and read > 0, "all were killed at the same place"
    indexes[0].save(path)
    assert names_in(path.parent) == [path.name], "what the killed ones left is still there"


def test_saves_that_are_killed(indexes: list[annidx.Index], tmp_path: Path) -> None:
    check_killed_saves(indexes, tmp_path / "index.annidx", KILLED_QUICK)


@pytest.mark.slow
def test_many_saves_that_are_killed(indexes: list[annidx.Index], tmp_path: Path) -> None:
    check_killed_saves(indexes, tmp_path / "index.annidx", KILLED_MANY)


class Day:
    """A base and the changes of four generations: g hundred items are gone, as many equal g."""

    def __init__(self, folder: Path, base: annidx.Index) -> None:
        self.folder, self.base = folder, folder / "base.annidx"
        base.save(self.base)
        self.writers = [annidx.load(self.base) for _ in range(4)]
        self.inputs = []
        for generation, writer in enumerate(self.writers):
            count = 100 * generation
            if count:
                writer.remove_items(np.arange(count))
                writer.add_items(
                    np.full((count, DIM), generation, np.float32), np.arange(count) + ITEMS
                )
            path = folder / f"input-{generation}"
            writer.save_changes(path)
            self.inputs.append(path)

    def check(self, index: annidx.Index) -> int:
        """Check to the last byte and item; tell the generation."""
        index.verify()
        ids = index.ids.tolist()
        assert isinstance(ids, list) and len(ids) == ITEMS
        count = ITEMS - sum(one < ITEMS for one in ids)
        assert set(ids) == set(range(count, ITEMS + count)), "an item is lost"
        generation = count // 100
        vectors = index.get_vectors(ids)
        assert (vectors[np.array(ids) >= ITEMS] == generation).all()
        assert (vectors[np.array(ids) < ITEMS] == 0).all()
        return generation

    def save_changes(self, generation: int) -> None:
        """Write the changes in the place of the present ones."""
        self.writers[generation].save_changes(self.folder / "changes", n_jobs=1)

    def in_changes(self) -> int:
        """Tell the generation of base and changes."""
        with annidx.load([self.base, self.folder / "changes"]) as index:
            return self.check(index)

    def merge(self, generation: int) -> None:
        """Merge base and changes in the place of what was merged before."""
        files = [self.base, self.inputs[generation]]
        annidx.merge(files, out=self.folder / "merged", n_jobs=1)

    def in_merged(self) -> int:
        """Tell the generation of what was merged."""
        with annidx.load(self.folder / "merged") as index:
            return self.check(index)


def check_killed_day(base: annidx.Index, folder: Path, job: str, count: int) -> None:
    day = Day(folder, base)
    work, found, name = {
        "save_changes": (day.save_changes, day.in_changes, "changes"),
        "merge": (day.merge, day.in_merged, "merged"),
    }[job]
    old, replaced = killed(work, found, count)
    print(f"{count} of {job} killed: {old} before, {replaced} after the new file took over")
    assert old + replaced == count
    assert old > 0 and replaced > 0, "all were killed at the same place"
    work(1)
    assert found() == 1
    expected = {name, "base.annidx", *(path.name for path in day.inputs)}
    assert set(names_in(folder)) == expected, "what the killed ones left is still there"


@pytest.mark.parametrize("job", ["save_changes", "merge"])
def test_changes_and_merges_that_are_killed(
    indexes: list[annidx.Index], tmp_path: Path, job: str
) -> None:
    check_killed_day(indexes[0], tmp_path, job, KILLED_QUICK)


@pytest.mark.slow
@pytest.mark.parametrize("job", ["save_changes", "merge"])
def test_many_changes_and_merges_that_are_killed(
    indexes: list[annidx.Index], tmp_path: Path, job: str
) -> None:
    check_killed_day(indexes[0], tmp_path, job, KILLED_MANY)


# ---- calls of the system that fail ---------------------------------------------------------------

FAULTS_C = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* What to do at the n-th call of a function: an errno to fail with, or one of these. */
enum { SHORT = -1, DIE = -2 };

static const char *armed = "";
static int calls_left, action, fired;

void fault_arm(const char *name, int nth, int what) {
  armed = strdup(name);
  calls_left = nth;
  action = what;
  fired = 0;
}
int fault_disarm(void) {
  armed = "";
  return fired;
}

static int is_due(const char *name) {
  if (strcmp(armed, name) != 0 || --calls_left != 0) return 0;
  fired = 1;
  if (action == DIE) raise(SIGKILL);
  return 1;
}
#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define FAIL(name) if (is_due(#name) && action > 0) { errno = action; return -1; }

static ssize_t shortened(size_t bytes) { return action == SHORT ? (ssize_t)(bytes / 2 + 1) : 0; }

ssize_t write(int file, const void *data, size_t bytes) {
  if (is_due("write")) {
    if (action > 0) { errno = action; return -1; }
    bytes = shortened(bytes);
  }
  return REAL(write)(file, data, bytes);
}
int fsync(int file) { FAIL(fsync) return REAL(fsync)(file); }
int close(int file) {
  if (is_due("close")) { REAL(close)(file); errno = action; return -1; }
  return REAL(close)(file);
}
int rename(const char *from, const char *to) { FAIL(rename) return REAL(rename)(from, to); }
int open(const char *path, int flags, ...) {
  va_list more;
  va_start(more, flags);
  const int makes = (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE;
  const int mode = makes ? va_arg(more, int) : 0;
  va_end(more);
  FAIL(open) return REAL(open)(path, flags, mode);
}
int linkat(int from, const char *old, int to, const char *path, int flags) {
  FAIL(linkat) return REAL(linkat)(from, old, to, path, flags);
}
int posix_fallocate(int file, off_t offset, off_t bytes) {
  if (is_due("posix_fallocate") && action > 0) return action;
  return REAL(posix_fallocate)(file, offset, bytes);
}
void *mmap(void *place, size_t bytes, int access, int flags, int file, off_t offset) {
  if (file >= 0 && is_due("mmap")) { errno = action; return MAP_FAILED; }
  return REAL(mmap)(place, bytes, access, flags, file, offset);
}
"""
SHORT, DIE = -1, -2

# Runs in a process with the library preloaded. The file holds generation 0; what fails would have
# made it generation 1. Prints one line of JSON for each fault that came about.
FAULTY_WORK = """
import ctypes, json, os, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import test_save_faults as faults

path, job, call, action = Path(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5])
shim = ctypes.CDLL(None)
fresh = faults.built(1)
for nth in range(1, 40):
    faults.built(0).save(path)
    work = faults.JOBS[job](fresh)
    failure = None
    shim.fault_arm(call.encode(), nth, action)
    try:
        work(path)
    except OSError as error:
        failure = [error.errno, error.filename]
    fired = shim.fault_disarm()
    if not fired:
        break
    print(json.dumps({
        "nth": nth, "failure": failure, "generation": faults.generation_in(path),
        "names": faults.names_in(path.parent),
    }), flush=True)
"""


def save_job(index: annidx.Index) -> Callable[[Path], object]:
    return index.save


def build_job(index: annidx.Index) -> Callable[[Path], object]:
    """Build generation 1 in place."""
    unbuilt = annidx.Index(DIM, "manhattan")
    unbuilt.add_items(np.full((ITEMS, DIM), 1, np.float32))
    return lambda path: unbuilt.build(n_jobs=1, out=path)


JOBS = {"save": save_job, "build": build_job}


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that fails."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("shim")
    (folder / "faults.c").write_text(FAULTS_C, encoding="ascii")
    library = folder / "faults.so"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-o", library, folder / "faults.c", "-ldl"],
        check=True,
    )
    return library


Fault = dict[str, Any]


def faults_of(shim: Path, path: Path, job: str, call: str, action: int) -> list[Fault]:
    """Do a job once for each place at which the call can fail; tell what came of each."""
    preload = os.environ.get("LD_PRELOAD", "")  # a sanitizer's library stays the first
    done = subprocess.run(
        [
            *(sys.executable, "-c", FAULTY_WORK, str(Path(__file__).parent)),
            *(str(path), job, call, str(action)),
        ],
        env={**os.environ, "LD_PRELOAD": f"{preload} {shim}".strip()},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == (-signal.SIGKILL if action == DIE else 0), done.stderr[-2000:]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert found or action == DIE, f"{call} is never called"
    return found


@pytest.mark.parametrize(
    ("job", "call", "number"),
    [
        ("save", "write", errno.EIO),
        ("save", "write", errno.ENOSPC),
        ("save", "fsync", errno.EIO),
        ("save", "rename", errno.EACCES),
        ("save", "open", errno.EMFILE),
        ("save", "close", errno.EIO),
        ("save", "linkat", errno.EDQUOT),
        ("build", "posix_fallocate", errno.ENOSPC),
        ("build", "mmap", errno.ENOMEM),
        ("build", "fsync", errno.EIO),
        ("build", "rename", errno.EROFS),
    ],
)
def test_calls_that_fail(shim: Path, tmp_path: Path, job: str, call: str, number: int) -> None:
    path = tmp_path / "index.annidx"
    raised = 0
    for fault in faults_of(shim, path, job, call, number):
        assert fault["names"] == [path.name], "a temporary file stays behind"
        if fault["failure"] is None:
            assert fault["generation"] == 1  # a failure without consequence, as of closing a folder
            continue
        raised += 1
        assert fault["failure"] == [number, str(path)]
        assert fault["generation"] in (0, 1)
        # Until the new name is made durable, and but for looking at the new file, all is as it was.
        if call in ("write", "rename", "linkat", "posix_fallocate"):
            assert fault["generation"] == 0
    assert raised > 0


@pytest.mark.parametrize("action", [SHORT, errno.EINTR])
def test_writes_that_are_cut_short_go_on(shim: Path, tmp_path: Path, action: int) -> None:
    for fault in faults_of(shim, tmp_path / "index.annidx", "save", "write", action):
        assert fault["failure"] is None and fault["generation"] == 1


@pytest.mark.parametrize("call", ["write", "fsync", "linkat", "rename", "close"])
def test_power_lost_at_a_call(shim: Path, tmp_path: Path, call: str) -> None:
    """The process ends at the very call, before it is made."""
    path = tmp_path / "index.annidx"
    faults_of(shim, path, "save", call, DIE)
    assert generation_in(path) == 0


# ---- limits and permissions ----------------------------------------------------------------------


def test_files_that_may_not_grow(tmp_path: Path, run_python: Callable[..., Any]) -> None:
    """A limit on file sizes is met as a full disk is."""
    done = run_python(
        "import errno, os, resource, sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path\n"
        "import test_save_faults as faults\n"
        "folder = Path(sys.argv[2]); folder.mkdir()\n"
        "path = folder / 'index.annidx'\n"
        "faults.built(0).save(path)\n"
        "fresh = faults.built(1)\n"
        "for limit in (0, 100, 4096, path.stat().st_size - 1):\n"
        "    for job in faults.JOBS.values():\n"
        "        work = job(fresh)\n"
        "        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))\n"
        "        try:\n"
        "            work(path)\n"
        "        except OSError as error:\n"
        "            assert (error.errno, error.filename) == (errno.EFBIG, str(path)), error\n"
        "        else:\n"
        "            raise AssertionError('written beyond the limit')\n"
        "        resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))\n"
        "        assert faults.generation_in(path) == 0\n"
        "        assert faults.names_in(folder) == [path.name]\n"
        "fresh.save(path)\n"
        "assert faults.generation_in(path) == 1\n",
        str(Path(__file__).parent),
        str(tmp_path / "files"),
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of one mebibyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    mounted = shutil.which("mount") and subprocess.run(command, capture_output=True).returncode == 0
    if not mounted:
        pytest.skip("mounting a small disk is not allowed here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("job", sorted(JOBS))
def test_a_disk_that_is_full(indexes: list[annidx.Index], small_disk: Path, job: str) -> None:
    path = small_disk / "index.annidx"
    indexes[0].save(path)
    size = path.stat().st_size
    assert size > 1 << 19, "two files would fit"
    with pytest.raises(OSError) as caught:
        JOBS[job](indexes[1])(path)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(path))
    assert generation_in(path) == 0
    assert names_in(small_disk) == [path.name]


@pytest.fixture
def ordinary_user() -> Iterator[None]:
    """Permissions that count: the superuser is above them."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield
    os.seteuid(user)


@pytest.fixture
def closed_folder(indexes: list[annidx.Index]) -> Iterator[Path]:
    """A folder with a file of generation 0 in which nothing may be written."""
    folder = Path(tempfile.mkdtemp())
    indexes[0].save(folder / "index.annidx")
    folder.chmod(0o555)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


@pytest.mark.parametrize("job", sorted(JOBS))
def test_permission_denied(
    indexes: list[annidx.Index], closed_folder: Path, ordinary_user: None, job: str
) -> None:
    path = closed_folder / "index.annidx"
    work = JOBS[job](indexes[1])
    with pytest.raises(PermissionError) as caught:
        work(path)
    assert (caught.value.errno, caught.value.filename) == (errno.EACCES, str(path))
    assert generation_in(path) == 0
    assert names_in(closed_folder) == [path.name]


def test_reading_denied(closed_folder: Path, request: pytest.FixtureRequest) -> None:
    path = closed_folder / "index.annidx"
    path.chmod(0)
    request.getfixturevalue("ordinary_user")
    with pytest.raises(PermissionError) as caught:
        annidx.load(path)
    assert (caught.value.errno, caught.value.filename) == (errno.EACCES, str(path))


# ---- out of memory -------------------------------------------------------------------------------


def limit_growth(spare: int) -> None:
    """Let this process take so many bytes more; a negative number lifts the limit."""
    if spare < 0:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        return
    with open("/proc/self/statm", encoding="ascii") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + spare, resource.RLIM_INFINITY))


def run_here(run_python: Callable[..., Any], script: str, *arguments: str) -> str:
    """Run a script that knows this module as `faults`; returns what it printed."""
    start = "import sys; sys.path.insert(0, sys.argv[1])\nimport test_save_faults as faults\n"
    done = run_python(start + script, str(Path(__file__).parent), *arguments, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    printed: str = done.stdout
    return printed


def test_no_room_for_the_mapping(tmp_path: Path, run_python: Callable[..., Any]) -> None:
    path = tmp_path / "index.annidx"
    with open(path, "wb") as file:
        file.truncate(1 << 36)
    run_here(
        run_python,
        "import annidx, errno\n"
        "faults.limit_growth(1 << 30)\n"
        "try:\n"
        "    annidx.load(sys.argv[2])\n"
        "except OSError as error:\n"
        "    assert (error.errno, error.filename) == (errno.ENOMEM, sys.argv[2]), error\n"
        "else:\n"
        "    raise AssertionError('mapped beyond the limit')\n",
        str(path),
    )


# Adds and builds under limits from next to nothing on, until both succeed. Whatever failed is done
# again without a limit, and must come to the same as if nothing had happened.
OUT_OF_MEMORY = """
import annidx, ctypes, numpy as np
M_MMAP_THRESHOLD = -3
ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 1 << 16)  # freed memory goes back: limits are felt
ITEMS, MORE, DIM = 4_000, 100_000, 24
vectors = np.random.default_rng(1).standard_normal((MORE, DIM), dtype=np.float32)
ids = [f"item {i}" for i in range(MORE)]

def fits(spare, work):
    faults.limit_growth(spare)
    try:
        work()
    except MemoryError:
        return False
    finally:
        faults.limit_growth(-1)
    return True

def one_add(spare):
    index = annidx.Index(DIM, "euclidean")
    index.add_items(vectors[:ITEMS], ids=ids[:ITEMS])
    add = lambda: index.add_items(vectors[ITEMS:], ids=ids[ITEMS:])
    added = fits(spare, add)
    assert len(index) == (MORE if added else ITEMS)
    assert (ids[-1] in index) == added
    added or add()
    assert len(index) == MORE and ids[-1] in index
    return added

def one_build(spare, jobs):
    index = annidx.Index(DIM, "euclidean")
    index.add_items(vectors[:ITEMS], ids=ids[:ITEMS])
    build = lambda: index.build(n_jobs=jobs, seed=3)
    was_built = fits(spare, build)
    assert index.built == was_built
    was_built or build()
    assert index.query_items("item 5", k=3, include_self=True)[0][0] == "item 5"
    global expected
    expected = expected or index.info()["identity"]
    assert index.info()["identity"] == expected
    return was_built

def failures(work, step):
    failed, spare = 0, 1 << 14
    while not work(int(spare)):
        failed += 1
        spare *= step
    return failed

jobs, step, expected = int(sys.argv[2]), float(sys.argv[3]), None
print(failures(one_add, step))  # first: the room of threads that were would serve instead
assert one_build(1 << 40, jobs)
print(failures(lambda spare: one_build(spare, jobs), step))
"""


def check_out_of_memory(run_python: Callable[..., Any], jobs: int, step: float) -> None:
    printed = run_here(run_python, OUT_OF_MEMORY, str(jobs), str(step))
    failed_adds, failed_builds = map(int, printed.split())
    print(f"{failed_adds} adds and {failed_builds} builds ran out of memory, {jobs} threads")
    assert failed_adds > 1 and failed_builds > 1


def test_out_of_memory_leaves_the_index_usable(run_python: Callable[..., Any]) -> None:
    check_out_of_memory(run_python, 1, 4.0)


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 3])
def test_out_of_memory_at_many_places(run_python: Callable[..., Any], jobs: int) -> None:
    check_out_of_memory(run_python, jobs, 1.1)
