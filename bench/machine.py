"""What the figures were measured on: processor, memory, versions, the state of the code."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

import numpy as np
import psutil

NOTABLE_FLAGS = (
    "sse4_2",
    "avx",
    "avx2",
    "fma",
    "f16c",
    "avx512f",
    "avx512bw",
    "avx512_vnni",
    "avx512vbmi",
    "avx512_vpopcntdq",
    "avx512_fp16",
    "avx_vnni",
    "amx_int8",
    "asimd",
    "asimddp",
    "sve",
)

INSTRUCTION_SETS = (
    ("AVX-512", "avx512bw"),
    ("AVX2", "avx2"),
    ("SSE4.2", "sse4_2"),
    ("NEON", "asimd"),
)
"""From the widest down, each with a flag that says it is there."""


def _cpuinfo() -> dict[str, str]:
    """The first processor's fields."""
    fields: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        name, separator, value = line.partition(":")
        if not separator and fields:
            break
        fields[name.strip()] = value.strip()
    return fields


def _cache_sizes() -> dict[str, str]:
    """Of the first processor, by level and kind."""
    sizes = {}
    for cache in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level = (cache / "level").read_text(encoding="ascii").strip()
        kind = (cache / "type").read_text(encoding="ascii").strip().lower()
        sizes[f"L{level} {kind}"] = (cache / "size").read_text(encoding="ascii").strip()
    return sizes


def _git(*arguments: str) -> str | None:
    try:
        answer = subprocess.run(
            ["git", *arguments],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout.strip()


def commit() -> str | None:
    """The commit of the code, marked if files other than results differ from it."""
    head = _git("rev-parse", "HEAD")
    if head is None:
        return None
    code = (":(top)", ":(top,exclude)bench/results")
    return head + ("-modified" if _git("status", "--porcelain", "--", *code) else "")


def _widest(flags: Set[str]) -> str:
    return next((name for name, flag in INSTRUCTION_SETS if flag in flags), "scalar")


def name_of(machine: Mapping[str, Any]) -> str:
    """Processor and instruction set, for a title."""
    family = machine["family/model/stepping"]
    return f"{machine['processor']} ({family}), {machine['instruction set']}"


def describe() -> dict[str, Any]:
    """Everything about the machine that a reader of the figures may ask for."""
    cpu = _cpuinfo()
    flags = set(cpu.get("flags", cpu.get("Features", "")).split())
    model = cpu.get("model name") or platform.machine()
    family = "/".join(cpu[part] for part in ("cpu family", "model", "stepping") if part in cpu)
    return {
        "processor": model,
        "family/model/stepping": family,
        "architecture": platform.machine(),
        "virtual": "hypervisor" in flags,
        "usable cores": len(os.sched_getaffinity(0)),
        "caches": _cache_sizes(),
        "memory GiB": round(psutil.virtual_memory().total / 2**30, 1),
        "isa": [flag for flag in NOTABLE_FLAGS if flag in flags],
        "instruction set": _widest(flags),
        "ANNIDX_ISA": os.environ.get("ANNIDX_ISA"),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "load average at start": round(os.getloadavg()[0], 2),
    }
