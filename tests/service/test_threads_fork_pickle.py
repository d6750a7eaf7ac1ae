"""Owns the tests of use from several places at once: threads, other processes, pickles.

No test depends on how fast anything is.
"""

from __future__ import annotations

import copy
import gc
import multiprocessing
import os
import pickle
import sys
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import annidx

Array = npt.NDArray[Any]
VECTORS = np.random.default_rng(11).standard_normal((5000, 16)).astype(np.float32)
QUERIES = np.random.default_rng(12).standard_normal((200, 16)).astype(np.float32)


def make(vectors: Array = VECTORS, ids: Any = None) -> annidx.Index:
    """Build a euclidean index."""
    index = annidx.Index(vectors.shape[1], "euclidean")
    index.add_items(vectors, ids)
    index.build(n_jobs=2)
    return index


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The path of a saved index with text ids."""
    path = tmp_path_factory.mktemp("saved") / "index.annidx"
    make(ids=[f"item {row}" for row in range(len(VECTORS))]).save(path, metadata={"a": 1})
    return path


def same(got: tuple[Array, Array], want: tuple[Array, Array]) -> bool:
    """Compare two answers."""
    return bool(np.array_equal(got[0], want[0]) and np.array_equal(got[1], want[1]))


def in_threads(work: Callable[[int], Any], count: int = 8) -> list[Any]:
    """Run work(0..count-1) at once; the first exception is raised."""
    start = threading.Barrier(count)

    def begin(number: int) -> Any:
        start.wait()
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(begin, range(count)))


# ---- threads ---------------------------------------------------------------------------------


def test_threads_get_the_same_answers(saved: Path) -> None:
    index = annidx.load(saved)
    items = annidx.IdSet(index, np.arange(5000) % 3 == 0)
    want = index.query(QUERIES, k=7)
    want_few = index.query(QUERIES, k=7, allow=items)

    def ask(number: int) -> bool:
        good = True
        for place in range(number, len(QUERIES), 4):
            good &= same(index.query(QUERIES[place], k=7), (want[0][place], want[1][place]))
            few = index.query(QUERIES[place], k=7, allow=items)
            good &= same(few, (want_few[0][place], want_few[1][place]))
        return good and same(index.query(QUERIES, k=7, n_jobs=2), want)

    assert all(in_threads(ask))


def test_no_thread_outlives_a_call() -> None:
    index = make()
    before = threading.active_count()
    tasks = Path("/proc/self/task")
    system_before = len(os.listdir(tasks)) if tasks.exists() else 0
    index.query(QUERIES, k=5, n_jobs=4)
    index.query_exact(QUERIES, k=5, n_jobs=4)
    assert threading.active_count() == before
    if tasks.exists():
        assert len(os.listdir(tasks)) == system_before


def test_closing_while_others_query(saved: Path) -> None:
    want = annidx.load(saved).query(QUERIES, k=7)
    for _ in range(20):
        index = annidx.load(saved)
        answered = threading.Semaphore(0)

        def ask(
            number: int,
            index: annidx.Index = index,
            answered: threading.Semaphore = answered,
        ) -> bool:
            if number == 0:
                for _ in range(10):
                    answered.acquire()
                index.close()
                return True
            try:
                while True:
                    if not same(index.query(QUERIES[:20], k=7), (want[0][:20], want[1][:20])):
                        return False
                    answered.release()
            except annidx.StateError as error:
                answered.release(10)
                return "closed" in str(error)

        assert all(in_threads(ask, 4))
        with pytest.raises(annidx.StateError):
            len(index)


def test_adding_from_several_threads() -> None:
    index = annidx.Index(16, "euclidean")

    def add(number: int) -> None:
        for part in range(20):
            first = number * 1000 + part * 10
            index.add_items(VECTORS[:10], ids=range(first, first + 10))

    in_threads(add)
    assert len(index) == 8 * 200
    index.build()
    ids, distances = index.query_exact(VECTORS[3], k=160)
    assert (distances == 0).all()
    assert sorted(ids.tolist()) == sorted(
        number * 1000 + part * 10 + 3 for number in range(8) for part in range(20)
    )


def test_tuning_while_others_query() -> None:
    index = make()
    truth = index.query_exact(QUERIES[:20], k=5)
    tuned = threading.Event()

    def work(number: int) -> bool:
        if number == 0:
            try:
                return all(index.tune(QUERIES[:50], k=5, n_jobs=1) for _ in range(3))
            finally:
                tuned.set()
        good = True
        while not tuned.is_set():
            good &= same(index.query(QUERIES[:20], k=5, recall=1.0), truth)
        return good

    assert all(in_threads(work, 4))


def test_an_index_being_built_refuses_others() -> None:
    index = annidx.Index(16, "euclidean")
    index.add_items(VECTORS)
    seen: list[str] = []

    def meddle(stage: str, done: int, total: int) -> None:
        for call in (lambda: index.query(QUERIES[0]), lambda: index.add_items(VECTORS)):
            for run in (call, lambda call=call: in_threads(lambda _: call(), 1)):
                with pytest.raises(annidx.StateError, match="being built"):
                    run()
        seen.append(repr(index))

    index.build(progress=meddle)
    assert seen and all("being built" in text for text in seen)
    assert len(index.query(QUERIES[0])[0]) == 10


def test_tune_refuses_its_own_progress_callable() -> None:
    index = make()

    def meddle(stage: str, done: int, total: int) -> None:
        len(index)

    with pytest.raises(annidx.StateError, match="progress"):
        index.tune(QUERIES, k=5, progress=meddle)
    assert len(index) == 5000


def test_closing_during_a_build() -> None:
    index = annidx.Index(16, "euclidean")
    index.add_items(VECTORS)
    index.build(progress=lambda *step: index.close())
    with pytest.raises(annidx.StateError, match="closed"):
        index.query(QUERIES[0])


def test_an_index_outlives_its_name() -> None:
    items = annidx.IdSet(make(), [1, 2])
    gc.collect()
    assert items.index.query(QUERIES[0], allow=items)[0].tolist() in ([1, 2], [2, 1])


def test_borrowed_memory_maps_live_until_the_build(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", VECTORS)
    index = annidx.Index(16, "euclidean")
    given = np.load(tmp_path / "v.npy", mmap_mode="r")
    index.add_items(given[1:])
    index.add_items(given[:1])
    del given
    gc.collect()
    index.build()
    np.testing.assert_array_equal(index.get_vectors([0, 4999]), VECTORS[[1, 0]])


# ---- fork ------------------------------------------------------------------------------------


def in_child(work: Callable[[], bool]) -> None:
    """Run work in a forked child and assert that it returned True there."""
    with warnings.catch_warnings():
        # Forking with threads alive is what is tested.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if work() else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize("loaded", [False, True])
def test_children_of_a_fork_query(saved: Path, loaded: bool, n_jobs: int) -> None:
    index = annidx.load(saved) if loaded else make()
    want = index.query(QUERIES, k=5, n_jobs=2)
    in_child(lambda: same(index.query(QUERIES, k=5, n_jobs=n_jobs), want))
    in_child(lambda: index.close() is None)
    assert same(index.query(QUERIES, k=5), want)


def test_fork_while_other_threads_query(saved: Path) -> None:
    index = annidx.load(saved)
    want = index.query(QUERIES, k=5)
    stop = threading.Event()

    def keep_asking() -> None:
        while not stop.is_set():
            index.query(QUERIES, k=5)

    def child() -> bool:
        good = same(index.query(QUERIES, k=5), want)
        # Needs the index alone: must not wait for threads that do not exist here.
        index.tune(QUERIES[:20], k=5, n_jobs=1)
        index.close()
        return good

    threads = [threading.Thread(target=keep_asking) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(10):
            in_child(child)
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_fork_while_another_thread_builds() -> None:
    index = annidx.Index(16, "euclidean")
    index.add_items(VECTORS)
    building, forked = threading.Event(), threading.Event()

    def pause(stage: str, done: int, total: int) -> None:
        building.set()
        forked.wait()

    def child() -> bool:
        try:
            index.query(QUERIES[0])
        except annidx.StateError:
            return True
        return False

    thread = threading.Thread(target=lambda: index.build(progress=pause))
    thread.start()
    building.wait()
    try:
        in_child(child)
    finally:
        forked.set()
        thread.join()
    assert len(index.query(QUERIES[0])[0]) == 10


def test_forked_pool(saved: Path) -> None:
    index = annidx.load(saved)
    want = index.query(QUERIES, k=5)[0]
    with (
        warnings.catch_warnings(),
        ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as pool,
    ):
        warnings.simplefilter("ignore", DeprecationWarning)
        parts = list(pool.map(ask_in_worker, [index] * 4, np.split(QUERIES, 4)))
    assert np.array_equal(np.concatenate(parts), want)


# ---- pickles ---------------------------------------------------------------------------------


def ask_in_worker(index: annidx.Index, queries: Array) -> Array:
    """Run in another process."""
    return index.query(queries, k=5)[0]


def test_spawned_workers(saved: Path) -> None:
    index = annidx.load(saved)
    unsaved = make()
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        got = pool.submit(ask_in_worker, index, QUERIES)
        got_unsaved = pool.submit(ask_in_worker, unsaved, QUERIES)
        assert np.array_equal(got.result(), index.query(QUERIES, k=5)[0])
        assert np.array_equal(got_unsaved.result(), unsaved.query(QUERIES, k=5)[0])


def through_pickle(index: annidx.Index) -> annidx.Index:
    """Copy by way of bytes."""
    copied: annidx.Index = pickle.loads(pickle.dumps(index))
    return copied


@pytest.mark.parametrize("clone", [through_pickle, copy.copy, copy.deepcopy])
def test_copies(saved: Path, clone: Callable[[annidx.Index], annidx.Index]) -> None:
    for index in (annidx.load(saved), make(), make(ids=[f"é{row}" for row in range(5000)])):
        other = clone(index)
        want = index.query(QUERIES, k=5)
        index.close()
        assert same(other.query(QUERIES, k=5), want)
        assert (other.path, len(other), other.metric) == (index.path, 5000, "euclidean")
        other.verify()
    assert annidx.load(saved).metadata == clone(annidx.load(saved)).metadata == {"a": 1}


def test_what_is_pickled(saved: Path, tmp_path: Path) -> None:
    assert len(pickle.dumps(annidx.load(saved))) < 1000
    index = make()
    assert len(pickle.dumps(index)) > VECTORS.nbytes
    index.save(tmp_path / "x", metadata={"b": 2})
    assert len(pickle.dumps(index)) < 1000
    assert pickle.loads(pickle.dumps(index)).metadata == {"b": 2}


def test_a_relative_path_is_found_from_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make().save("here.annidx")
    pickled = pickle.dumps(annidx.load("here.annidx"))
    monkeypatch.chdir("/")
    assert len(pickle.loads(pickled)) == 5000


# ---- memory ----------------------------------------------------------------------------------


def test_results_are_counted_right() -> None:
    index = make(VECTORS[:50], ids=[f"a long name of item {row}" for row in range(50)])
    for ask in (lambda: index.query(QUERIES[0], k=60), lambda: index.query(QUERIES[:3], k=60)):
        ids, distances = ask()
        assert sys.getrefcount(ids) == sys.getrefcount(distances) == 2
        names = ids.ravel().tolist()
        del ids
        assert all(sys.getrefcount(name) <= 4 for name in names if name is not None)


LEAK = """
import gc
import os
import resource
import sys
import numpy as np
import annidx

vectors = np.random.default_rng(0).standard_normal((1000, 32)).astype(np.float32)
names = [f"name {row}" for row in range(1000)]

def once():
    index = annidx.Index(32, "euclidean")
    index.add_items(vectors, names)
    index.build(n_jobs=1)
    index.save(sys.argv[1])
    loaded = annidx.load(sys.argv[1])
    few = annidx.IdSet(loaded, names[:100]) & ~annidx.IdSet(loaded, names[:10])
    for _ in range(20):
        loaded.query(vectors[:50], k=20, allow=few)
        loaded.query(vectors[0], k=3000)
        loaded.query(vectors[0], k=5, allow=names[:7])
        try:
            loaded.query(vectors[0] * np.nan)
        except ValueError:
            pass
        try:
            loaded.get_vectors("unknown")
        except KeyError:
            pass

def resident():
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

for _ in range(5):
    once()
before = resident()
for _ in range(20):
    once()
print(resident() - before, len(os.listdir("/proc/self/fd")))
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs Linux")
def test_nothing_leaks(run_python: Any, tmp_path: Path) -> None:
    result = run_python(LEAK, str(tmp_path / "leak.annidx"))
    assert result.returncode == 0, result.stderr
    grown, descriptors = map(int, result.stdout.split())
    assert grown < 4 << 20 and descriptors < 10
