"""Owns the tests of annidx.estimate, against indexes that are built."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import annidx

CASES = [
    (1_500, 40, "euclidean", "float32"),
    (6_000, 12, "euclidean", "float16"),
    (6_000, 17, "cosine", "float32"),
    (6_000, 130, "angular", "float32"),
    (6_000, 96, "angular", "int8"),
    (6_000, 64, "euclidean", "uint8"),
    (6_000, 64, "dot", "float32"),
    (6_000, 64, "manhattan", "float32"),
    (6_000, 100, "hamming", None),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_files_are_as_large_as_said(case: tuple[int, int, str, str | None]) -> None:
    n, dim, metric, dtype = case
    rng = np.random.default_rng(n)
    given: Any = rng.normal(size=(n, dim)) * 20 + 100
    if dtype == "uint8":
        given = given.astype(np.uint8)
    elif metric == "hamming":
        given = given > 100
    index = annidx.Index(dim, metric, dtype)
    index.add_items(given)
    index.build()
    said, info = annidx.estimate(*case), index.info()
    assert said["file_bytes"] == pytest.approx(info["file_bytes"], rel=0.05)
    assert said["vector_bytes"] == info["vector_bytes"]


@pytest.mark.parametrize("metric", ["euclidean", "dot", "manhattan"])
def test_a_build_takes_about_the_memory_that_is_said(run_python: Any, metric: str) -> None:
    script = """
import re, sys, numpy as np, annidx
def kilobytes(name):
    return int(re.search(name + r":\\s+(\\d+)", open("/proc/self/status").read())[1])
vectors = np.random.default_rng(1).standard_normal((40_000, 64), dtype=np.float32)
before = kilobytes("VmRSS")
index = annidx.Index(64, sys.argv[1])
index.add_items(vectors)
index.build()
print(1024 * (kilobytes("VmHWM") - before))
"""
    done = run_python(script, metric)
    if "No such file" in done.stderr:
        pytest.skip("no /proc")
    assert done.returncode == 0, done.stderr
    said = annidx.estimate(40_000, 64, metric)["build_memory_bytes"]
    assert 0.5 < said / int(done.stdout) < 2


def test_costs_grow_with_what_is_asked() -> None:
    small, large = (annidx.estimate(n, 128, "angular") for n in (10**5, 10**7))
    for name in ("file_bytes", "vector_bytes", "build_memory_bytes", "build_seconds"):
        assert 50 < large[name] / small[name] <= 110
    one, four = (annidx.estimate(10**6, 128, "dot", n_jobs=jobs) for jobs in (1, 4))
    assert one["build_seconds"] == pytest.approx(4 * four["build_seconds"])
    assert one["file_bytes"] == four["file_bytes"] and "Xeon" in one["measured_on"]
    bytes_of = {
        dtype: annidx.estimate(10**6, 128, "angular", dtype)["vector_bytes"]
        for dtype in ("float32", "float16", "int8")
    }
    assert bytes_of == {"float32": 512 * 10**6, "float16": 256 * 10**6, "int8": 128 * 10**6}


def test_bad_arguments() -> None:
    for arguments, message in (
        ((0, 8, "dot"), "n: expected a whole number from 1"),
        ((10, 0, "dot"), "dim: expected a whole number"),
        ((10, 8, "l2"), 'did you mean "euclidean"'),
        ((10, 8, "dot", "uint8"), "uint8"),
    ):
        with pytest.raises(ValueError, match=message):
            annidx.estimate(*arguments)  # type: ignore[arg-type]
