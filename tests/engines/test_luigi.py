"""Owns the tests of the tasks of Luigi: what is complete, what is refused, and who is killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import annidx

luigi = pytest.importorskip("luigi")

from annidx.luigi import (  # noqa: E402
    EncodePart,
    GateIndex,
    MergeParts,
    PublishIndex,
    RefusedError,
    TrainModel,
)

COUNT, DIM, PARTS = 6_000, 20, 6


def made_of(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((COUNT, DIM), dtype=np.float32)


def built(path: Path, vectors: np.ndarray, ids: Any = None) -> bytes:
    index = annidx.Index(DIM, "euclidean")
    index.add_items(vectors, ids)
    index.build()
    index.save(path)
    return path.read_bytes()


def run(task: Any, workers: int = 1) -> bool:
    return luigi.build([task], local_scheduler=True, workers=workers, log_level="WARNING")


def states(work: Path) -> dict[str, tuple[int, int]]:
    """Tell which files a run made, and when: files appear complete or not at all."""
    found = {}
    for path in work.rglob("*"):
        if path.suffix in {".annidx", ".json"}:
            status = path.stat()
            found[path.name] = (status.st_ino, status.st_mtime_ns)
    return found


class Place:
    """A source, a folder of work, a live file, and how they are told to tasks."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.work = folder, folder / "work"
        self.source, self.live = folder / "x.npy", folder / "live" / "index.annidx"
        np.save(self.source, made_of(0))

    def told(self, **more: Any) -> dict[str, Any]:
        common = {"source": self.source, "work_dir": self.work, "metric": "euclidean"}
        return {**common, "n_parts": PARTS, **more}


def live_of(place: Place) -> bytes:
    """Publish a good index."""
    assert run(PublishIndex(live=place.live, **place.told(recall=0.99)))
    return place.live.read_bytes()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture(autouse=True)
def _tasks_are_made_anew() -> Iterator[None]:
    yield
    luigi.task_register.Register.clear_instance_cache()


def test_published_bytes_are_those_of_a_build(place: Place) -> None:
    whole = built(place.folder / "whole.annidx", made_of(0))
    task = PublishIndex(live=place.live, **place.told())
    assert not task.complete()
    assert run(task, workers=2)
    assert task.complete() and place.live.read_bytes() == whole
    names = ["gate", "index", "model", "published", *["part"] * PARTS]
    first = states(place.work)
    assert len(first) == len(names) and all(any(n in f for f in first) for n in names)
    assert run(task) and states(place.work) == first


def test_a_new_input_is_a_new_index_and_the_one_before_is_kept(place: Place) -> None:
    task = PublishIndex(live=place.live, **place.told())
    assert run(task)
    before = place.live.read_bytes()
    np.save(place.source, made_of(1))
    assert not task.complete() and run(task) and task.complete()
    assert place.live.read_bytes() == built(place.folder / "whole.annidx", made_of(1))
    previous = Path(f"{place.live}.previous")
    assert previous.read_bytes() == before
    # Whoever goes back is not overruled by the pipeline of that index.
    annidx.publish(previous, place.live)
    assert task.complete() and run(task) and place.live.read_bytes() == before


def test_a_lost_record_costs_no_previous_index(place: Place) -> None:
    before = live_of(place)
    np.save(place.source, made_of(1))
    task = PublishIndex(live=place.live, **place.told(recall=0.99))
    assert run(task)
    published = place.live.read_bytes()
    shutil.rmtree(place.work)
    assert not task.complete() and run(task) and task.complete()
    assert place.live.read_bytes() == published
    assert Path(f"{place.live}.previous").read_bytes() == before


def test_only_what_is_damaged_is_made_again(place: Place) -> None:
    merge = MergeParts(**place.told())
    assert run(merge)
    whole, first = Path(merge.output().path).read_bytes(), states(place.work)
    part = Path(EncodePart(part=2, **place.told()).output().path)
    damaged = bytearray(part.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    part.write_bytes(damaged)
    os.truncate(merge.output().path, 1000)
    assert not merge.complete() and not EncodePart(part=2, **place.told()).complete()
    assert run(merge) and Path(merge.output().path).read_bytes() == whole
    now = states(place.work)
    assert {name for name in now if now[name] != first[name]} == {part.name, "index.annidx"}


def test_files_of_another_model_or_range_are_not_taken(place: Place) -> None:
    merge = MergeParts(**place.told())
    assert run(merge)
    one, two = (EncodePart(part=part, **place.told()) for part in (0, 1))
    other = EncodePart(part=0, **place.told(seed=9))
    assert run(other)
    Path(one.output().path).write_bytes(Path(other.output().path).read_bytes())
    assert not one.complete() and two.complete()
    Path(two.output().path).write_bytes(Path(merge.output().path).read_bytes())
    assert not two.complete()
    assert not EncodePart(part=0, **place.told(n_parts=PARTS - 1)).complete()


def refused(place: Place, **settings: Any) -> str:
    """Run the gate on an index that is worse; tell what it says."""
    gate = GateIndex(live=place.live, **place.told(**settings))
    assert not run(PublishIndex(live=place.live, **place.told(**settings)))
    assert not gate.complete()
    with pytest.raises(RefusedError) as caught:
        gate.run()
    return str(caught.value)


def test_gate_refuses_less_recall_than_asked(place: Place) -> None:
    assert refused(place, recall=0.3).startswith("recall: expected at least 0.9000, got ")
    assert not place.live.exists()
    assert run(PublishIndex(live=place.live, **place.told(recall=0.3, least_recall=0.1)))


def test_gate_refuses_less_recall_than_the_live_index(place: Place) -> None:
    before = live_of(place)
    said = refused(place, recall=0.6, least_recall=0.2)
    assert "recall: expected at least 0.9" in said and f"of {place.live}" in said
    assert place.live.read_bytes() == before and not Path(f"{place.live}.previous").exists()
    assert run(PublishIndex(live=place.live, force=True, **place.told(recall=0.6)))
    assert place.live.read_bytes() != before
    assert Path(f"{place.live}.previous").read_bytes() == before


def test_gate_refuses_an_index_of_other_vectors(place: Place) -> None:
    before = live_of(place)
    np.save(place.source, made_of(1))
    said = refused(place, recall=0.99, agreement=0.5)
    assert said.startswith("agreement: expected at least 0.5000, got 0.0")
    np.save(place.source, np.ascontiguousarray(made_of(0)[:, :10]))
    assert refused(place, recall=0.99).startswith("dim: expected 20 as ")
    assert place.live.read_bytes() == before
    # Most of the same vectors: the same neighbours.
    changed = made_of(0)
    changed[:100] = made_of(1)[:100]
    np.save(place.source, changed)
    assert run(PublishIndex(live=place.live, **place.told(recall=0.99, agreement=0.8)))


def test_gate_measures_anew_when_another_index_is_live(place: Place) -> None:
    np.save(place.folder / "queries.npy", made_of(5)[:50])
    told = place.told(queries=place.folder / "queries.npy", live=place.live)
    gate = GateIndex(**told)
    assert run(gate) and gate.complete()
    place.live.parent.mkdir()
    built(place.live, made_of(0), np.arange(COUNT) + 7)
    assert not gate.complete() and run(gate) and gate.complete()


def test_parquet_with_ids_and_a_sample(place: Place) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    vectors, ids = made_of(0), [f"t{row}" for row in range(COUNT)]
    folder = place.folder / "tracks"
    folder.mkdir()
    for number, (first, last) in enumerate([(0, 2_500), (2_500, 2_500), (2_500, COUNT)]):
        table = pa.table({"id": ids[first:last], "vec": list(vectors[first:last])})
        table = table.cast(pa.schema({"id": pa.string(), "vec": pa.list_(pa.float32())}))
        parquet.write_table(table, folder / f"{number}.parquet", row_group_size=900)
    told = place.told(source=folder, id_column="id")
    merge = MergeParts(**told)
    assert run(merge)
    whole = built(place.folder / "whole.annidx", vectors, ids)
    assert Path(merge.output().path).read_bytes() == whole
    model = TrainModel(**{**told, "sample": 1_000})
    assert run(model)
    rows = np.linspace(0, COUNT, 1_000, endpoint=False).astype(int)
    annidx.train(vectors[rows], "euclidean", expected_items=COUNT).save(place.folder / "m.annidx")
    assert Path(model.output().path).read_bytes() == (place.folder / "m.annidx").read_bytes()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"metric": "cosinus"}, "metric: expected "),
        ({"dtype": "float8"}, "dtype: expected "),
        ({"n_parts": 0}, "n_parts: expected "),
        ({"seed": -1}, "seed: expected "),
        ({"n_jobs": 0}, "n_jobs: expected "),
        ({"recall": 1.5}, "recall: expected "),
        ({"least_recall": 90.0}, "least_recall: expected 0 to 1, got 90.0"),
        ({"k": 0}, "k: expected "),
        ({"max_shrink": -0.1}, "max_shrink: expected 0 to 1, got -0.1"),
    ],
)
def test_wrong_parameters_are_told_at_once(
    place: Place, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        PublishIndex(**{**place.told(live=place.live), **settings})


def test_wrong_inputs_are_told(place: Place) -> None:
    with pytest.raises(ValueError, match="part: expected"):
        EncodePart(part=PARTS, **place.told()).output()
    with pytest.raises(ValueError, match="n_parts: expected"):
        MergeParts(**place.told(n_parts=COUNT + 1)).requires()
    with pytest.raises(FileNotFoundError):
        TrainModel(**place.told(source=place.folder / "none.npy")).output()
    with pytest.raises(ValueError, match="source: expected a file, or files in a folder, of"):
        TrainModel(**place.told(source=place.folder)).requires()
        TrainModel(**place.told(source=Path(__file__))).output()
    np.save(place.folder / "ids.npy", np.arange(COUNT - 1))
    with pytest.raises(ValueError, match="5,999 ids for 6,000 vectors"):
        part = EncodePart(part=0, **place.told(ids=place.folder / "ids.npy"))
        part.requires().run()
        part.run()


def test_command_line(place: Place) -> None:
    words = ["--module", "annidx.luigi", "annidx.PublishIndex", "--local-scheduler"]
    settings = place.told(live=place.live, dtype="uint8", n_parts=2, sample=900, seed=4, n_jobs=2,
                          memory_limit=10**9, recall=0.8, least_recall=0.5, k=5, n_queries=90,
                          margin=0.1, agreement=0.0, max_shrink=0.2)  # fmt: skip
    np.save(place.source, np.round(40 * np.abs(made_of(0))).clip(0, 255).astype(np.uint8))
    for name, value in settings.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    command = [sys.executable, "-m", "luigi", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert PublishIndex(**settings).complete()
    with annidx.load(place.live) as index:
        assert (index.dtype, index.info()["seed"]) == ("uint8", 4)
        assert index.info()["default_recall"] == pytest.approx(0.8)


PIPELINE = """
import sys, luigi
from annidx.luigi import PublishIndex
source, work, live, parts, workers = sys.argv[1:]
task = PublishIndex(
    source=source, metric="euclidean", work_dir=work, live=live, n_parts=int(parts)
)
print("ready", flush=True)
done = luigi.build([task], local_scheduler=True, workers=int(workers), log_level="ERROR")
sys.exit(0 if done else 1)
"""


def ends_before_it_is_killed(place: Place, workers: int, seconds: float) -> bool:
    """Run the pipeline in processes of its own; kill all of them after so many seconds."""
    words = [place.source, place.work, place.live, PARTS, workers]
    command = [sys.executable, "-c", PIPELINE, *map(str, words)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
    with process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        try:
            assert process.wait(seconds) == 0
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return False
    return True


@pytest.mark.skipif(os.name != "posix", reason="kills a group of processes")
@pytest.mark.parametrize("kills", [8, pytest.param(100, marks=pytest.mark.slow)])
def test_killed_pipelines_end_in_the_same_bytes(
    place: Place, rng: np.random.Generator, kills: int
) -> None:
    wholes = [built(place.folder / f"whole{seed}.annidx", made_of(seed)) for seed in (0, 1)]
    start = time.monotonic()
    assert ends_before_it_is_killed(place, 1, 300)
    usual = time.monotonic() - start
    shutil.rmtree(place.work)
    killed = generation = kept = 0
    while killed < kills:
        generation += 1  # of another input, from the beginning
        np.save(place.source, made_of(generation % 2))
        made: dict[str, tuple[int, int]] = {}
        ended = False
        while not ended:
            seconds = float(rng.uniform(0, usual)) if killed < kills else 300.0
            ended = ends_before_it_is_killed(place, 1 + generation % 2, seconds)
            now = states(place.work)
            assert made.items() <= now.items(), "something complete was made again"
            killed, kept, made = killed + (not ended), kept + len(made), now
        assert place.live.read_bytes() == wholes[generation % 2]
        assert Path(f"{place.live}.previous").read_bytes() == wholes[(generation - 1) % 2]
        shutil.rmtree(place.work)
        print(f"{killed} kills, {generation} indexes, complete files kept {kept} times", flush=True)
    assert kept > 0
