"""Owns what tests know of instruction sets: this machine's levels, and running code on each."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path


def levels() -> list[str]:
    """Return the values of ANNIDX_ISA that choose different kernels here; scalar is the first."""
    machine = platform.machine().lower()
    if machine in ("aarch64", "arm64"):
        return ["scalar", "neon"]
    cpuinfo = Path("/proc/cpuinfo")
    flags = set(cpuinfo.read_text().split()) if cpuinfo.exists() else set()
    found = ["scalar"]
    if {"avx2", "fma", "bmi1", "bmi2", "f16c"} <= flags:
        found.append("avx2")
        if {"avx512f", "avx512bw", "avx512vl", "avx512dq"} <= flags:
            found.append("avx512")
    return found


def start(level: str, script: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a test file as a program of its own, on one level."""
    paths = [os.fspath(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    return subprocess.Popen(
        [sys.executable, script, *arguments],
        env={
            **os.environ,
            "ANNIDX_ISA": level,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> None:
    """Wait for a program and fail with what it printed unless it ended well."""
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
