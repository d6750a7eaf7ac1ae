"""Damaged files: none ends or stops the process, none makes it grow, each is refused or answers.

Mutants are bred and asked by `tests/fuzz/mutants.py`, in processes of their own. Files that once
did harm are made by `tests/fuzz/crashers.py`; and some are made here, of kinds that chance would
hardly find.
"""

from __future__ import annotations

import contextlib
import os
import select
import struct
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from fuzz import crashers, images, make_seeds

import annidx

TESTS = Path(__file__).resolve().parents[1]
QUICK, MANY = 250, 10_000
MANY_CHANGES = 1_000  # of each metric and kind of ids
# No mutant takes a hundredth of this on an idle machine.
PATIENCE_S = 120.0


class Breeder:
    """A process that asks mutants; tells when it dies or stops at one."""

    def __init__(self, metric: str, first: int, count: int, *ids: str) -> None:
        self.number = -1
        script = str(TESTS / "fuzz" / "mutants.py")
        self.process = subprocess.Popen(
            [sys.executable, script, metric, str(first), str(count), *ids],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        self._stdout = self.process.stdout.fileno()
        self._unread = b""

    def run(self) -> str:
        """Wait for the end. Returns the last line, or what became of the mutant at hand."""
        try:
            while (line := self._line()) is not None:
                if line.startswith("end "):
                    return line
                self.number = int(line)
        except TimeoutError:
            self.process.kill()
            return f"mutant {self.number} takes longer than {PATIENCE_S:.0f} s"
        finally:
            errors = self.process.communicate()[1].decode("utf-8", "replace")
        return (
            f"mutant {self.number} ended the process: {self.process.returncode}\n{errors[-2000:]}"
        )

    def _line(self) -> str | None:
        while b"\n" not in self._unread:
            if not select.select([self._stdout], [], [], PATIENCE_S)[0]:
                raise TimeoutError
            block = os.read(self._stdout, 1 << 16)
            if not block:
                return None
            self._unread += block
        line, self._unread = self._unread.split(b"\n", 1)
        return line.decode("ascii")


def breed(metric: str, count: int, *ids: str) -> Counter[str]:
    """Ask so many mutants of a metric; fails on the first that is not borne."""
    last = Breeder(metric, 0, count, *ids).run()
    assert last.startswith("end "), f"{metric}: {last}"
    tally: Counter[str] = Counter()
    for part in last.split()[1:]:
        name, _, number = part.partition("=")
        tally[name] += int(number)
    return tally


@pytest.mark.parametrize("metric", sorted(make_seeds.STORAGE))
def test_some_mutants(metric: str) -> None:
    tally = breed(metric, QUICK)
    # Both kinds of mutants are made: those that opening refuses, and those whose body is asked.
    assert tally["refused"] > QUICK / 10
    assert tally["opened"] > QUICK / 10


@pytest.mark.slow
@pytest.mark.parametrize("metric", sorted(make_seeds.STORAGE))
def test_many_mutants(metric: str) -> None:
    tally = breed(metric, MANY)
    print(f"{MANY} mutants of {metric}: {dict(tally)}")
    assert tally["refused"] + tally["opened"] == MANY


@pytest.mark.parametrize("ids", ["int", "str"])
def test_some_mutants_of_changes(ids: str) -> None:
    tally = breed("euclidean", QUICK, ids)
    assert tally["refused"] > QUICK / 10
    assert tally["beside"] > QUICK / 10  # accepted behind their base, and asked together


@pytest.mark.slow
@pytest.mark.parametrize("ids", ["int", "str"])
@pytest.mark.parametrize("metric", sorted(make_seeds.STORAGE))
def test_many_mutants_of_changes(metric: str, ids: str) -> None:
    tally = breed(metric, MANY_CHANGES, ids)
    print(f"{MANY_CHANGES} mutants of changes, {metric}, {ids}: {dict(tally)}")
    assert tally["refused"] + tally["opened"] == MANY_CHANGES


def test_a_death_and_a_standstill_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test of mutants can fail."""
    script = tmp_path / "fuzz" / "mutants.py"
    script.parent.mkdir()
    script.write_text(
        "import os, sys, time\n"
        "print(7, flush=True)\n"
        "os.abort() if sys.argv[1] == 'dies' else time.sleep(60)\n",
        encoding="utf-8",
    )
    monkeypatch.setattr(sys.modules[__name__], "TESTS", tmp_path)
    monkeypatch.setattr(sys.modules[__name__], "PATIENCE_S", 1.0)
    assert "mutant 7 ended the process: -6" in Breeder("dies", 0, 1).run()
    assert "mutant 7 takes longer" in Breeder("stops", 0, 1).run()


# ---- files overwritten in place --------------------------------------------------------------


def overwrite(metric: str, seconds: float) -> None:
    """Ask files that change meanwhile; whoever asks must live."""
    command = [sys.executable, str(TESTS / "fuzz" / "overwrites.py"), metric, str(seconds)]
    limit = seconds + PATIENCE_S
    done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    print(metric, done.stdout.strip())


@pytest.mark.parametrize("metric", sorted(make_seeds.STORAGE))
def test_overwriting_in_place(metric: str) -> None:
    overwrite(metric, 1.5)


@pytest.mark.slow
@pytest.mark.parametrize("metric", sorted(make_seeds.STORAGE))
def test_much_overwriting_in_place(metric: str) -> None:
    overwrite(metric, 60.0)


# ---- files that did harm ---------------------------------------------------------------------

ASK = f"""
import sys
sys.path[:0] = [{str(TESTS)!r}, {str(TESTS / "fuzz")!r}]
from pathlib import Path
from interview import interview
for name in sys.argv[1:]:
    print(name, flush=True)
    interview(Path(name))
"""


def test_files_that_did_harm(tmp_path: Path, run_python) -> None:  # type: ignore[no-untyped-def]
    for name, content in crashers.index_crashers():
        (tmp_path / name).write_bytes(content)
    done = run_python(ASK, *map(str, sorted(tmp_path.iterdir())), timeout=20 * PATIENCE_S)
    assert done.returncode == 0, done.stdout[-300:] + done.stderr[-2000:]


# ---- files made to be slow or large ------------------------------------------------------------

# A query of such a file takes milliseconds of the processor, or without bounds many seconds.
LONG_S = 2.0


def seconds_of(path: Path, **how: float) -> float:
    """Processor time of one query of a file, answered or refused: other programs do not count."""
    with annidx.load(path) as index:
        query = np.ones(index.dim, np.float32)
        before = time.process_time()
        with contextlib.suppress(annidx.FormatError):
            index.query(query, k=10, **how)
        return time.process_time() - before


def many_leaves(items: int, dim: int, blocks: int) -> images.Draft:
    """An index with far more leaves than its items need, all of them alike."""
    draft = images.Draft.of(make_seeds.image_of("euclidean", "float32", items, dim))
    entries = 16 * blocks
    for name in (
        "leaf_ranges",
        "leaf_scales",
        "leaf_mults",
        "leaf_biases",
        "leaf_scan_factors",
        "leaf_radii",
    ):
        draft.set_array(name, np.resize(draft.array(name)[:1], entries))
    draft.sections["leaf_centroids"] = bytes([128]) * (entries * draft.param("work_dim4"))
    trees = draft.array("trees")
    trees["leaves"] = entries
    draft.set_array("trees", trees)
    draft.set_param("leaf_entries", entries)
    return draft


def test_leaves_that_overlap_are_refused(tmp_path: Path) -> None:
    """Each of many leaves holds all items: read one by one they would be work without end."""
    draft = many_leaves(2_000, 64, 10_000)
    leaves = draft.array("leaf_ranges")
    leaves["first"], leaves["count"], leaves["block"] = 0, draft.items, 0
    draft.set_array("leaf_ranges", leaves)
    draft.set_array("leaf_radii", np.full(len(leaves), 1e30, "<f4"))
    path = tmp_path / "overlap.annidx"
    path.write_bytes(draft.image(summed=False))
    assert seconds_of(path) < LONG_S
    assert seconds_of(path, radius=1e-9) < LONG_S


def test_groups_that_overlap_are_refused(tmp_path: Path) -> None:
    """Each of many groups holds all leaves."""
    blocks = 10_000
    draft = many_leaves(400, 64, blocks)
    draft.set_array("leaf_biases", np.full(16 * blocks, np.inf, "<f4"))
    images.add_groups(draft)
    groups = draft.array("group_ranges")
    groups["block"], groups["blocks"] = 0, blocks
    draft.set_array("group_ranges", groups)
    draft.set_array("group_biases", np.zeros(len(groups), "<f4"))
    path = tmp_path / "groups.annidx"
    path.write_bytes(draft.image(summed=False))
    assert seconds_of(path) < LONG_S


def test_trees_that_overlap_are_refused(tmp_path: Path) -> None:
    draft = images.Draft.of(make_seeds.image_of("euclidean", "float32", 60, 4, trees=3))
    trees = draft.array("trees")
    trees["leaf"][1:] = 0
    draft.set_array("trees", trees)
    path = tmp_path / "trees.annidx"
    path.write_bytes(draft.image())
    with pytest.raises(annidx.FormatError, match="trees"):
        annidx.load(path)


def test_claims_beyond_the_bounds_are_refused(tmp_path: Path) -> None:
    """What opening reads is bounded whatever a file of any size claims."""
    for name, count, section in (
        ("tree_count", 65_536, "trees"),
        ("curve_points", 65_537, "curve"),
    ):
        draft = images.Draft.of(make_seeds.image_of("euclidean", "float32", 60, 4))
        record = {"trees": 16, "curve": 32}[section]
        draft.sections[section] = bytes(record * count)
        draft.set_param(name, count)
        path = tmp_path / f"{name}.annidx"
        path.write_bytes(draft.image())
        with pytest.raises(annidx.FormatError, match=name):
            annidx.load(path)


def test_work_that_a_curve_asks_for_is_bounded_by_the_items(tmp_path: Path) -> None:
    draft = images.Draft.of(
        make_seeds.image_of("euclidean", "float32", make_seeds.CODED_ITEMS, make_seeds.CODED_DIM)
    )
    curve = draft.array("curve")
    for name in ("opened", "candidates", "expanded", "rerank", "exact"):
        curve[name] = 0xFFFFFFFF
    draft.set_array("curve", curve)
    path = tmp_path / "curve.annidx"
    path.write_bytes(draft.image())
    assert seconds_of(path) < LONG_S


def test_texts_that_overlap_are_refused(tmp_path: Path) -> None:
    """Each of many ids is all of the text: an answer would be many times the file."""
    draft = images.Draft.of(make_seeds.image_of("euclidean", "float32", 300, 4, "str"))
    offsets = draft.array("id_text_offsets")
    offsets[::2], offsets[1::2] = 0, offsets[-1]
    draft.set_array("id_text_offsets", offsets)
    path = tmp_path / "texts.annidx"
    path.write_bytes(draft.image())
    with annidx.load(path) as index:
        even = np.arange(len(index)) % 2 == 0
        assert len(index.query(np.zeros(4, np.float32), k=1, allow=even)[0]) == 1
        with pytest.raises(annidx.FormatError, match="id_text_offsets"):
            index.query(np.zeros(4, np.float32), k=100, allow=even)


def test_a_set_of_another_index_with_the_same_identity_is_refused(tmp_path: Path) -> None:
    """A crafted file may copy the identity of another; sets must not be read beyond their end."""
    small, large = (make_seeds.image_of("euclidean", "float32", count, 4) for count in (20, 2_000))
    forged = bytearray(large)
    forged[images.IDENTITY : images.IDENTITY + 16] = small[images.IDENTITY : images.IDENTITY + 16]
    count = struct.unpack_from("<I", forged, 52)[0]
    table_end = images.TABLE + images.ENTRY_BYTES * count
    head = bytes(forged[: images.HEADER_CRC]) + bytes(4) + bytes(forged[images.TABLE : table_end])
    struct.pack_into("<I", forged, images.HEADER_CRC, images.reader.crc32c(head))
    (tmp_path / "small").write_bytes(small)
    (tmp_path / "large").write_bytes(forged)
    with annidx.load(tmp_path / "small") as one, annidx.load(tmp_path / "large") as other:
        few, many = annidx.IdSet(one, [1, 2]), annidx.IdSet(other, [1, 2])
        query = np.zeros(4, np.float32)
        for index, wrong in ((one, many), (other, few)):
            with pytest.raises(ValueError, match="IdSet"):
                index.query(query, allow=wrong)
            with pytest.raises(ValueError, match="IdSet"):
                index.query_items([1], allow=wrong)
        for combine in ("__and__", "__or__", "__sub__"):
            with pytest.raises(ValueError, match="IdSet"):
                getattr(many, combine)(few)


def test_queries_of_every_size_are_answered() -> None:
    """The numbers of a query never leave what their arithmetic can hold."""
    for metric, dtype in (("angular", "int8"), ("euclidean", "float32"), ("manhattan", "uint8")):
        index = annidx.Index(20, metric, dtype)
        vectors = make_seeds.vectors_for(metric, dtype, 3_000, 20, 1)
        index.add_items(vectors)
        index.build(n_jobs=1)
        for size in (1e-45, 1e-38, 1e-20, 1e20, 1e38):
            query = (np.sign(vectors[5] - 0.5) * size).astype(np.float32)
            ids, distances = index.query(query, k=10)
            assert len(ids) == 10 and not np.isnan(distances).any()
