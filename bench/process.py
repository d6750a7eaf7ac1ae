"""The process under measurement: which cores it runs on, its memory, its share of a core."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterable, Iterator
from pathlib import Path

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "TBB_NUM_THREADS",
)
NUMBA_VARIABLE = "NUMBA_NUM_THREADS"


def thread_environment(library_threads: int, most_threads: int) -> dict[str, str]:
    """Variables that hold thread pools to ``library_threads`` from their first import.

    Numba's only sets the most that its own call may choose later.
    """
    variables = dict.fromkeys(THREAD_VARIABLES, str(library_threads))
    variables[NUMBA_VARIABLE] = str(most_threads)
    return variables


@contextlib.contextmanager
def environment(variables: dict[str, str]) -> Iterator[None]:
    """Set for the time of starting a child process, then put back."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def usable_cores() -> list[int]:
    return sorted(os.sched_getaffinity(0))


def pin_every_thread(cores: Iterable[int]) -> None:
    """Bind all present threads of this process; later ones inherit it."""
    chosen = set(cores)
    for thread in Path("/proc/self/task").iterdir():
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(thread.name), chosen)


def _status_bytes(field_name: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(field_name + ":"):
            return int(line.split()[1]) * 1024
    raise LookupError(f"/proc/self/status has no {field_name}")


def resident_bytes() -> int:
    return _status_bytes("VmRSS")


def restart_peak() -> None:
    """Let the peak begin anew at the present resident size, where the kernel allows it."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_resident_bytes() -> int:
    """The process's own high-water mark.

    ``ru_maxrss`` would count the parent's size at the moment of the fork as well.
    """
    try:
        return _status_bytes("VmHWM")
    except (OSError, LookupError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def send_output_to(log: Path) -> None:
    """Standard output and error, of C code too, to the end of a file."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
