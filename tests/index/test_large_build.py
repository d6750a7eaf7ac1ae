"""Owns the proof that an index larger than memory can be built: memory stays in its budget.

A process of its own maps the vectors, builds with `out=` and `memory_limit=`, and tells the most
physical memory it has held (VmHWM, mapped pages included) beyond what importing annidx took. The
file must be the one that a build in memory gives.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

pytestmark = pytest.mark.skipif(
    not os.path.exists("/proc/self/clear_refs"), reason="only Linux tells the peak of memory"
)

# Arguments: vectors, metric, dtype, file to write, limit in bytes (0: build in memory, then save).
BUILD = """
import sys
import numpy as np
import annidx

def peak():
    with open("/proc/self/status") as status:
        return 1024 * next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))

vectors, metric, dtype, out, limit = sys.argv[1:]
before = peak()
mapped = np.load(vectors, mmap_mode="r")
index = annidx.Index(mapped.shape[1], metric, dtype)
index.add_items(mapped)
if int(limit):
    index.build(out=out, memory_limit=int(limit))
else:
    index.build()
print(peak() - before)
if not int(limit):
    index.save(out)
"""

MIB = 1 << 20


def write_vectors(path: Path, items: int, dim: int, dtype: Any) -> None:
    """Write clustered vectors to a .npy file, a part at a time."""
    random = np.random.default_rng(0)
    centres = random.integers(60, 190, (200, dim))
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {**header, "shape": (items, dim)})
        for first in range(0, items, 50_000):
            count = min(50_000, items - first)
            noise = random.integers(-50, 51, (count, dim))
            part: npt.NDArray[Any] = centres[random.integers(200, size=count)] + noise
            file.write(part.astype(dtype).tobytes())


def peak_of_build(
    run_python: Callable[..., Any], folder: Path, kind: tuple[str, str], name: str, limit: int
) -> int:
    """Build in a new process and return its peak of memory."""
    arguments = [str(folder / "vectors.npy"), *kind, str(folder / name), str(limit)]
    done = run_python(BUILD, *arguments, timeout=900)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def check_budget(
    run_python: Callable[..., Any], folder: Path, kind: tuple[str, str], limit: int
) -> None:
    """Build with little memory and with much, and compare."""
    small = peak_of_build(run_python, folder, kind, "small.annidx", limit)
    large = peak_of_build(run_python, folder, kind, "large.annidx", 0)
    print(f"limit {limit / MIB:.0f} MiB: {small / MIB:.0f} MiB used, {large / MIB:.0f} without")
    assert small <= limit
    assert large > limit, "a limit that any build keeps shows nothing"
    assert (folder / "small.annidx").read_bytes() == (folder / "large.annidx").read_bytes()


def test_memory_stays_in_its_budget(run_python: Callable[..., Any], tmp_path: Path) -> None:
    write_vectors(tmp_path / "vectors.npy", 400_000, 64, np.float32)
    check_budget(run_python, tmp_path, ("euclidean", "float32"), 256 * MIB)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (("euclidean", "float16"), np.float16),
        (("angular", "float32"), np.float32),
        (("dot", "int8"), np.float32),
        (("manhattan", "float16"), np.float32),
    ],
    ids=["euclidean-float16", "angular-float32", "dot-int8", "manhattan-float16"],
)
def test_memory_stays_in_its_budget_at_a_million(
    run_python: Callable[..., Any], tmp_path: Path, kind: tuple[str, str], given: Any
) -> None:
    write_vectors(tmp_path / "vectors.npy", 1_200_000, 96, given)
    check_budget(run_python, tmp_path, kind, 640 * MIB)
