"""What of a file is in the kernel's page cache, and how to drop it from there (Linux)."""

from __future__ import annotations

import ctypes
import ctypes.util
import mmap
import os
import resource
from dataclasses import dataclass
from pathlib import Path

PAGE_BYTES = mmap.PAGESIZE
_LIBC = ctypes.CDLL(ctypes.util.find_library("c"), use_errno=True)
_LIBC.mmap.restype = ctypes.c_void_p
_LIBC.mmap.argtypes = [
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
]
_LIBC.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_LIBC.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
_MAP_FAILED = ctypes.c_void_p(-1).value


@dataclass(frozen=True)
class Reads:
    """What this process has caused to be read so far, and what of the file is cached."""

    major_faults: int
    disk_bytes: int
    resident_pages: int


def drop_from_page_cache(path: Path) -> None:
    """Write out what is dirty, then give up the file's clean pages."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def resident_pages(path: Path) -> int:
    """Pages of the file in the page cache, read ahead or asked for; touches none of them."""
    size_bytes = path.stat().st_size
    if size_bytes == 0:
        return 0
    states = ctypes.create_string_buffer(-(-size_bytes // PAGE_BYTES))
    descriptor = os.open(path, os.O_RDONLY)
    try:
        address = _LIBC.mmap(None, size_bytes, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0)
        if address == _MAP_FAILED:
            raise OSError(ctypes.get_errno(), "mmap", str(path))
        failed = _LIBC.mincore(address, size_bytes, states)
        error = ctypes.get_errno()
        _LIBC.munmap(address, size_bytes)
    finally:
        os.close(descriptor)
    if failed:
        raise OSError(error, "mincore", str(path))
    return sum(state & 1 for state in states.raw)


def read_ahead_kib(path: Path) -> int | None:
    """How far the file's disk reads ahead: it decides what a single fault brings in."""
    device = path.stat().st_dev
    block = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")
    for queue in (block / "queue", block.resolve().parent / "queue"):
        setting = queue / "read_ahead_kb"
        if setting.exists():
            return int(setting.read_text(encoding="ascii"))
    return None


def _disk_bytes_read() -> int:
    for line in Path("/proc/self/io").read_text(encoding="ascii").splitlines():
        if line.startswith("read_bytes:"):
            return int(line.split()[1])
    raise LookupError("/proc/self/io has no read_bytes")


def reads_so_far(path: Path) -> Reads:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return Reads(usage.ru_majflt, _disk_bytes_read(), resident_pages(path))
