"""Owns the tests of indexes as bytes and in file objects: in memory, in archives, in pipes."""

from __future__ import annotations

import gzip
import io
import mmap
import os
import pickle
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import annidx

VECTORS = np.random.default_rng(5).normal(size=(2_500, 24)).astype(np.float32)
WORDS = [f"käse {i}" for i in range(len(VECTORS))]


@pytest.fixture(scope="module")
def index() -> annidx.Index:
    made = annidx.Index(24, "euclidean")
    made.add_items(VECTORS, WORDS)
    made.build(n_jobs=1)
    return made


@pytest.fixture(scope="module")
def image(index: annidx.Index) -> bytes:
    return index.to_bytes({"model": "ä"})


def check(found: annidx.Index, index: annidx.Index) -> None:
    for got, want in zip(found.query(VECTORS[:20]), index.query(VECTORS[:20]), strict=True):
        np.testing.assert_array_equal(got, want)
    assert found.path is None and found.info()["path"] is None
    found.verify()


def test_bytes_are_those_of_the_file(index: annidx.Index, image: bytes, tmp_path: Path) -> None:
    other = annidx.load(index.to_bytes())
    other.save(tmp_path / "a", {"model": "ä"})
    assert (tmp_path / "a").read_bytes() == image
    mapped = annidx.load(tmp_path / "a")
    assert mapped.to_bytes() == image  # the metadata stay unless others are given
    assert annidx.load(image).metadata == {"model": "ä"}
    assert annidx.load(mapped.to_bytes({})).metadata == {}
    with pytest.raises(ValueError, match="metadata: expected a dict"):
        index.to_bytes("model")  # type: ignore[arg-type]


def test_named_sets_are_in_the_bytes(index: annidx.Index, tmp_path: Path) -> None:
    first = annidx.load(index.to_bytes(sets={"few": WORDS[:9]}))
    assert dict(index.sets) == {} and sorted(first.sets["few"]) == sorted(WORDS[:9])
    second = annidx.load(first.to_bytes())
    assert len(second.sets["few"]) == 9
    file = io.BytesIO()
    first.save(file, sets={"other": WORDS[:3]})
    first.save(tmp_path / "x", sets={"other": WORDS[:3]})
    assert file.getvalue() == (tmp_path / "x").read_bytes()


def test_a_measured_curve_is_in_the_bytes(image: bytes) -> None:
    index = annidx.load(image)
    curve = index.tune(VECTORS[:200] + 0.1, k=7)
    assert curve and annidx.load(index.to_bytes()).tune(k=7) == curve


def test_only_built_indexes_have_bytes() -> None:
    index = annidx.Index(2, "dot")
    with pytest.raises(annidx.StateError, match="not built"):
        index.to_bytes()
    with pytest.raises(annidx.StateError, match="not built"):
        index.save(io.BytesIO())


def aligned(content: bytes, offset: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Put bytes into memory that begins so many bytes after a multiple of 64."""
    room = np.zeros(len(content) + 128, np.uint8)
    start = -room.ctypes.data % 64 + offset
    part = room[start : start + len(content)]
    part[:] = np.frombuffer(content, np.uint8)
    part.flags.writeable = False
    return part


@pytest.mark.parametrize("offset", [0, 1, 8, 32])
def test_memory_of_any_alignment(index: annidx.Index, image: bytes, offset: int) -> None:
    check(annidx.load(aligned(image, offset)), index)


@pytest.mark.parametrize(
    "wrap",
    [bytes, bytearray, memoryview, lambda b: memoryview(b).cast("b"), io.BytesIO,
     lambda b: np.frombuffer(b, np.uint8)],
)  # fmt: skip
def test_loaded_from(index: annidx.Index, image: bytes, wrap: Callable[[bytes], Any]) -> None:
    found = annidx.load(wrap(image), warm=True)
    check(found, index)
    check(pickle.loads(pickle.dumps(found)), index)


def test_memory_that_cannot_change_is_read_in_place_and_kept(
    index: annidx.Index, image: bytes, tmp_path: Path
) -> None:
    (tmp_path / "x").write_bytes(image)
    with open(tmp_path / "x", "rb") as file:
        memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    found = annidx.load(memory)
    with pytest.raises(BufferError):
        memory.close()  # the index reads it
    check(found, index)
    found.close()
    memory.close()
    memory = mmap.mmap(-1, len(image))
    memory[:] = image
    found = annidx.load(memoryview(memory).toreadonly())
    check(found, index)
    del found
    memory.close()


def test_queries_under_way_keep_the_memory(image: bytes, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(image)
    for _ in range(20):
        with open(tmp_path / "x", "rb") as file:
            memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        found = annidx.load(memory)
        started = threading.Barrier(3)
        outcomes: list[bool] = []

        def ask() -> None:
            started.wait()  # noqa: B023
            try:
                while True:
                    ids, _ = found.query_exact(VECTORS[:5], k=1)  # noqa: B023
                    outcomes.append(ids[:, 0].tolist() == WORDS[:5])  # noqa: B023
            except annidx.StateError:
                pass

        threads = [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        started.wait()
        found.close()
        for thread in threads:
            thread.join()
        assert all(outcomes)
        memory.close()


def test_memory_that_may_change_is_copied(index: annidx.Index, image: bytes) -> None:
    memory = bytearray(image)
    found = annidx.load(memory)
    memory[:] = bytes(3)  # also shorter: nobody holds it
    check(found, index)


@pytest.mark.parametrize("damage", [b"", b"ANNIDX", b"\x89ANNIDX\n", b"\x89PNG\r\n\x1a\n" * 9])
def test_other_bytes_are_refused(damage: bytes) -> None:
    memory = bytearray(damage)
    with pytest.raises(annidx.FormatError, match="bytes"):
        annidx.load(memory)
    memory += b"nobody holds it"
    with pytest.raises(annidx.FormatError):
        annidx.load(io.BytesIO(damage))


def test_a_damaged_image_is_noticed(image: bytes) -> None:
    with pytest.raises(annidx.FormatError):
        annidx.load(image[:-100])
    damaged = bytearray(image)
    damaged[len(damaged) // 2] ^= 0xFF
    with pytest.raises(annidx.FormatError, match="damaged"):
        annidx.load(damaged).verify()


@pytest.mark.parametrize("wrong", [3, None, [b"x"], {"x"}, np.zeros((4, 4))[:, ::2]])
def test_what_is_no_source_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"^path: expected .*, got "):
        annidx.load(wrong)


def test_what_needs_a_file_is_refused(image: bytes) -> None:
    with pytest.raises(ValueError, match=r"^lock: expected False"):
        annidx.load(image, lock=True)
    with pytest.raises(ValueError, match=r"^path: expected a str or os.PathLike"):
        annidx.load(image, follow=True)  # type: ignore[call-overload]


# ---- file objects --------------------------------------------------------------------------


class Stubborn(io.RawIOBase):
    """Takes at most 1,000 bytes at a time, and after some nothing."""

    def __init__(self, most: int) -> None:
        self.content = bytearray()
        self.most = most

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int | None:
        if len(self.content) >= self.most:
            return None
        self.content += data[:1_000]
        return min(1_000, len(data))


class Silent:
    """Says nothing of what it takes."""

    def __init__(self) -> None:
        self.content = b""

    def write(self, data: bytes) -> None:
        self.content += data


def test_saved_into_file_objects(image: bytes, tmp_path: Path) -> None:
    index = annidx.load(image)
    with open(tmp_path / "plain", "wb") as plain, gzip.open(tmp_path / "packed", "wb") as packed:
        index.save(plain)
        index.save(packed)
    assert (tmp_path / "plain").read_bytes() == image
    with gzip.open(tmp_path / "packed", "rb") as packed:
        assert annidx.load(packed).to_bytes() == image
    with zipfile.ZipFile(tmp_path / "zip", "w") as archive:
        with archive.open("tracks.annidx", "w") as member:
            index.save(member)
        with archive.open("tracks.annidx") as member:
            assert annidx.load(member).to_bytes() == image
    with open(tmp_path / "raw", "wb", buffering=0) as raw:
        index.save(raw)
    with open(tmp_path / "raw", "rb", buffering=0) as raw:
        assert annidx.load(raw).to_bytes() == image
    stubborn, silent = Stubborn(len(image)), Silent()
    index.save(stubborn)
    index.save(silent)
    assert stubborn.content == image == silent.content


def test_a_file_object_is_used_from_where_it_stands(image: bytes) -> None:
    file = io.BytesIO()
    file.write(b"head")
    annidx.load(image).save(file)
    assert file.getvalue() == b"head" + image
    file.seek(4)
    assert annidx.load(file).to_bytes() == image


def test_through_a_pipe(image: bytes) -> None:
    there, here = os.pipe()

    def send() -> None:
        with os.fdopen(here, "wb") as out:
            annidx.load(image).save(out)

    thread = threading.Thread(target=send)
    thread.start()
    with os.fdopen(there, "rb") as received:
        assert annidx.load(received).to_bytes() == image
    thread.join()


def test_saving_into_a_file_object_is_not_saving_the_index(
    index: annidx.Index, tmp_path: Path
) -> None:
    """The index stays with its file, and with its metadata."""
    index.save(tmp_path / "x", {"a": 1})
    file = io.BytesIO()
    loaded = annidx.load(tmp_path / "x")
    loaded.save(file, {"b": 2})
    assert loaded.metadata == {"a": 1} and loaded.path == str(tmp_path / "x")
    assert annidx.load(file.getvalue()).metadata == {"b": 2}


def test_errors_of_file_objects(image: bytes, tmp_path: Path) -> None:
    index = annidx.load(image)
    with pytest.raises(ValueError, match=r"^path: expected a file object that takes bytes.*'wb'"):
        index.save(io.StringIO())
    with pytest.raises(ValueError, match=r"^path: expected a file object that reads bytes.*'rb'"):
        annidx.load(io.StringIO("x"))
    with pytest.raises(BlockingIOError):
        index.save(Stubborn(5_000))
    with open("/dev/full", "wb", buffering=0) as full, pytest.raises(OSError, match="No space"):
        index.save(full)
    with pytest.raises(ValueError, match="stop"):
        index.save(io.BytesIO(), progress=stop)
    index.query(VECTORS[0])  # nothing is held


def stop(stage: str, done: int, total: int) -> None:
    raise ValueError(f"stop in {stage} at {done} of {total}")
