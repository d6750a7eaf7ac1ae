"""Owns the tests of followers as services use them: threads, status, log, callback, sets of items.

The file of generation g holds 40 vectors that are all equal to g, and the ids 1000 * g to
1000 * g + 9 beside 30 that every generation has, in another order each time.
"""

from __future__ import annotations

import gc
import json
import logging
import math
import os
import pickle
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import annidx
from annidx import follow
from annidx.follow import FollowingIndex
from annidx.liveset import LiveSet

DIM, ITEMS, COMMON = 4, 40, 30
ZERO = np.zeros(DIM, np.float32)
INTERVAL = 0.01


def ids_of(generation: int) -> list[int]:
    """Ids of a generation, in row order."""
    own = [1000 * generation + i for i in range(ITEMS - COMMON)]
    return own + list(np.random.default_rng(generation).permutation(COMMON).tolist())


def publish(
    path: Path, generation: int, *, dim: int = DIM, sets: dict[str, Any] | None = None
) -> None:
    """Replace the file by that of a generation."""
    index = annidx.Index(dim, "manhattan")
    index.add_items(np.full((ITEMS, dim), generation, np.float32), ids=ids_of(generation))
    index.build(n_jobs=1)
    if sets is None:
        sets = {"own": list(range(1000 * generation, 1000 * generation + 10)), "odd": [1, 3, 5]}
    index.save(path, metadata={"generation": generation}, sets=sets)


def publish_damaged(path: Path) -> None:
    """Replace the file by one whose damage only a full check finds."""
    damaged = bytearray(path.read_bytes())
    with annidx.load(path) as index:
        places = {one["name"]: one["offset"] for one in index.info()["sections"]}
    damaged[places["vectors"] + 3] ^= 1
    other = path.with_suffix(".new")
    other.write_bytes(damaged)
    os.replace(other, path)


def generation_of(index: FollowingIndex | annidx.Index, **filters: Any) -> int:
    """Ask, and tell from the answer which file gave it."""
    _, distances = index.query(ZERO, k=ITEMS, **filters)
    assert (distances == distances[0]).all(), "an answer came from two files"
    return int(distances[0]) // DIM


def wait_for(holds: Callable[[], bool]) -> None:
    """Wait until something holds, which it does in much less than this time."""
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end, "it never came about"
        time.sleep(0.002)


def watchers() -> int:
    """Count the threads that look."""
    return sum(thread.name == "annidx-follow" for thread in threading.enumerate())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of generation 1."""
    path = tmp_path / "index.annidx"
    publish(path, 1)
    return path


@pytest.fixture
def live(path: Path) -> Iterator[FollowingIndex]:
    """A follower with a thread, which checks each file."""
    with annidx.load(path, follow=True, interval=INTERVAL, background=True, verify=True) as index:
        yield index


@pytest.fixture
def manual(path: Path) -> Iterator[FollowingIndex]:
    """Looks at the path when told to."""
    with annidx.load(path, follow=True, interval=math.inf) as index:
        yield index


# ---- the thread ----------------------------------------------------------------------------------


def test_an_idle_process_goes_over(path: Path, live: FollowingIndex) -> None:
    publish(path, 2)
    wait_for(lambda: live.status()["generation"] == 2)
    assert live.status()["queries"] == 0
    assert generation_of(live) == 2


def test_readers_never_wait(
    path: Path, live: FollowingIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a new file is checked, for however long, the old one answers."""
    checking, go_on = threading.Event(), threading.Event()
    verify = annidx.Index._verify

    def slow(self: annidx.Index, progress: Any) -> None:
        checking.set()
        assert go_on.wait(30)
        verify(self, progress)

    monkeypatch.setattr(annidx.Index, "_verify", slow)
    publish(path, 2)
    assert checking.wait(30)
    for _ in range(20):
        assert generation_of(live, allow="odd") == 1
    assert live.status()["generation"] == 1
    go_on.set()
    wait_for(lambda: generation_of(live) == 2)


def test_the_thread_ends_with_close(path: Path) -> None:
    before = watchers()
    index = annidx.load(path, follow=True, interval=INTERVAL, background=True)
    assert watchers() == before + 1 and index.status()["background"] is True
    index.close()
    assert watchers() == before
    with pytest.raises(annidx.StateError, match="closed"):
        index.status()


def test_close_ends_a_check_that_is_under_way(
    path: Path, live: FollowingIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    checking = threading.Event()

    def endless(self: annidx.Index, progress: Any) -> None:
        while True:
            checking.set()
            progress("verify", 1, 2)
            time.sleep(0.001)

    monkeypatch.setattr(annidx.Index, "_verify", endless)
    publish(path, 2)
    assert checking.wait(30)
    live.close()
    assert live.closed


def test_the_thread_ends_with_its_index(path: Path) -> None:
    before = watchers()
    index = annidx.load(path, follow=True, interval=3600, background=True)
    assert watchers() == before + 1
    del index
    gc.collect()
    wait_for(lambda: watchers() == before)


def test_the_thread_does_not_keep_the_process_alive(path: Path) -> None:
    code = (
        "import annidx, sys\n"
        "index = annidx.load(sys.argv[1], follow=True, interval=0.001, background=True,\n"
        "                    verify=True)\n"
        "print(index.status()['background'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_the_child_of_a_fork_has_a_thread_of_its_own(path: Path, live: FollowingIndex) -> None:
    """Also when the thread that does not exist in the child was just looking."""
    assert live._turn.acquire()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            assert live.status()["background"] is True
            publish(path, 2)
            wait_for(lambda: live.status()["generation"] == 2)  # it asks nothing
            assert generation_of(live) == 2
            live.close()
            status = 0
        finally:
            os._exit(status)
    live._turn.release()
    assert os.waitpid(child, 0)[1] == 0
    wait_for(lambda: generation_of(live) == 2)


def test_without_threads_the_questions_look(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with annidx.load(path, follow=True, interval=INTERVAL, background=True) as index:
        assert index.status()["background"] is False
        publish(path, 2)
        wait_for(lambda: generation_of(index) == 2)


def test_pickle_keeps_how_it_follows(path: Path, live: FollowingIndex) -> None:
    with pickle.loads(pickle.dumps(live)) as copy:
        assert copy.status()["background"] is True
        publish(path, 2)
        wait_for(lambda: copy.status()["generation"] == 2)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"interval": 0, "background": True}, "interval.*more than 0"),
        ({"interval": -1}, "interval"),
        ({"on_reload": "print"}, "on_reload.*callable"),
    ],
)
def test_arguments_that_are_none(path: Path, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        annidx.load(path, follow=True, **arguments)


@pytest.mark.parametrize(
    "arguments", [{"interval": 1.0}, {"background": True}, {"verify": True}, {"on_reload": print}]
)
def test_arguments_of_followers_alone(path: Path, arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="follow: expected True"):
        annidx.load(path, **arguments)


# ---- what is refused, and how it is told ---------------------------------------------------------


def test_status_tells_which_file_answers(path: Path, manual: FollowingIndex) -> None:
    before = time.time()
    for _ in range(3):
        manual.query(ZERO)
    manual.query(np.zeros((5, DIM), np.float32))
    manual.query_items(3)
    manual.query_exact(ZERO)
    manual.query_like([1, 2])
    publish(path, 2)
    assert manual.reload_if_changed()
    status = manual.status()
    assert json.loads(json.dumps(status)) == status
    assert status["queries"] == 3 + 5 + 3
    assert (status["generation"], status["reloads"]) == (2, 1)
    assert status["identity"] == annidx.load(path).info()["identity"]
    assert before <= status["loaded_at"] <= time.time()
    assert status["file_time"] == pytest.approx(path.stat().st_mtime)
    assert status["path"] == status["real_path"] == str(path)
    assert (status["refused"], status["last_error"]) == ([], None)
    assert status["background"] is False


def test_queries_of_many_threads_are_all_counted(live: FollowingIndex) -> None:
    def ask() -> None:
        for _ in range(500):
            live.query(ZERO, k=1)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert live.status()["queries"] == 2000


def test_a_damaged_file_is_refused_and_named(
    path: Path, live: FollowingIndex, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="annidx"):
        publish_damaged(path)
        wait_for(lambda: live.status()["refused"] != [])
        assert generation_of(live) == 1
        status = live.status()
        (refused,) = status["refused"]
        assert refused["path"] == str(path) and "vectors" in refused["reason"]
        assert refused["file_time"] == pytest.approx(path.stat().st_mtime)
        assert status["last_error"] == refused["reason"] and status["generation"] == 1
        time.sleep(5 * INTERVAL)
        assert len(live.status()["refused"]) == 1
        warnings = [one for one in caplog.records if one.levelno == logging.WARNING]
        assert len(warnings) == 1 and refused["reason"] in warnings[0].getMessage()
        publish(path, 2)
        wait_for(lambda: live.status()["generation"] == 2)
        assert live.status()["last_error"] is None and len(live.status()["refused"]) == 1
    (told,) = [one.getMessage() for one in caplog.records if one.levelno == logging.INFO]
    assert "generation 2 took over" in told and live.status()["identity"] in told


def test_without_verify_only_opening_checks(path: Path, manual: FollowingIndex) -> None:
    publish_damaged(path)
    assert manual.reload_if_changed() and manual.status()["generation"] == 2


def test_the_first_file_is_checked_too(path: Path) -> None:
    publish_damaged(path)
    with pytest.raises(annidx.FormatError, match="vectors"):
        annidx.load(path, follow=True, verify=True)


def test_a_file_that_lacks_a_set_is_refused(path: Path, manual: FollowingIndex) -> None:
    publish(path, 2, sets={"own": [1]})
    with pytest.raises(ValueError, match="lacks the named set 'odd'"):
        manual.reload_if_changed()
    assert generation_of(manual, allow="odd") == 1
    assert "odd" in manual.status()["refused"][0]["reason"]


def test_a_missing_file_is_an_error_and_no_refusal(
    path: Path, live: FollowingIndex, caplog: pytest.LogCaptureFixture
) -> None:
    path.rename(path.with_suffix(".old"))
    wait_for(lambda: live.status()["last_error"] is not None)
    assert "No such file" in str(live.status()["last_error"]) and live.status()["refused"] == []
    path.with_suffix(".old").rename(path)
    wait_for(lambda: live.status()["last_error"] is None)
    assert live.status()["generation"] == 1
    assert len(caplog.records) == 1


def test_what_the_system_would_not_open_is_tried_again(
    path: Path, live: FollowingIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_files, tries = follow.open_files, []

    def scarce(where: list[str], **how: bool) -> annidx.Index:
        tries.append(where)
        if len(tries) < 3:
            raise OSError(24, "Too many open files", where[0])
        return open_files(where, **how)

    monkeypatch.setattr(follow, "RETRY_SECONDS", 2 * INTERVAL)
    monkeypatch.setattr(follow, "open_files", scarce)
    publish(path, 2)
    wait_for(lambda: live.status()["generation"] == 2)
    assert len(tries) == 3 and live.status()["refused"] == []


def test_a_file_changed_in_place_is_told(
    path: Path, manual: FollowingIndex, caplog: pytest.LogCaptureFixture
) -> None:
    os.utime(path, (1, 1))
    manual.reload_if_changed()
    assert "in place" in caplog.text


def test_the_file_behind_a_link_can_be_asked(tmp_path: Path) -> None:
    first, second, link = tmp_path / "1.annidx", tmp_path / "2.annidx", tmp_path / "current"
    publish(first, 1)
    publish(second, 2)
    link.symlink_to(first.name)
    with annidx.load(link, follow=True, interval=0) as index:
        assert (index.path, index.real_path) == (str(link), str(first))
        (tmp_path / "next").symlink_to(second.name)
        (tmp_path / "next").rename(link)
        assert (index.path, index.real_path) == (str(link), str(second))
        assert index.status()["real_path"] == str(second)


# ---- the callback --------------------------------------------------------------------------------


def test_the_callback_gets_each_new_generation(path: Path) -> None:
    seen: list[int] = []

    def note(generation: annidx.Index) -> None:
        seen.append(generation_of(generation))
        assert index.reload_if_changed() is False  # it may use the index

    with annidx.load(path, follow=True, interval=0, on_reload=note) as index:
        for generation in (2, 3):
            publish(path, generation)
            assert generation_of(index) == generation
        assert seen == [2, 3]
        publish(path, 4)
        assert index.reload_if_changed() and seen == [2, 3, 4]


def test_what_the_callback_raises_is_logged(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: annidx.Index) -> None:
        raise ZeroDivisionError

    with annidx.load(path, follow=True, interval=0, on_reload=fail) as index:
        publish(path, 2)
        assert generation_of(index) == 2
    assert "on_reload failed" in caplog.text and "ZeroDivisionError" in caplog.text


def test_the_callback_may_close(path: Path) -> None:
    index = annidx.load(
        path,
        follow=True,
        interval=INTERVAL,
        background=True,
        on_reload=lambda _: index.close(),
    )
    publish(path, 2)
    wait_for(lambda: index.closed)


# ---- sets that go along --------------------------------------------------------------------------


def allowed(index: FollowingIndex, chosen: Any) -> set[int]:
    """Ids that a filter lets through."""
    return set(index.query(ZERO, k=ITEMS, allow=chosen)[0].tolist())


def test_sets_mean_the_same_in_each_file(path: Path, manual: FollowingIndex) -> None:
    wanted = [1, 2, 3, 1004, 2004, 2005]
    chosen, named = manual.idset(wanted), manual.sets["own"]
    mask = manual.idset(np.isin(ids_of(1), [7, 8, 1001]))
    for generation in (1, 2, 3):
        if generation > 1:
            publish(path, generation)
            assert manual.reload_if_changed()
        present = set(ids_of(generation))
        own = set(range(1000 * generation, 1000 * generation + 10))
        expected: list[tuple[LiveSet, set[int]]] = [
            (chosen, set(wanted) & present),
            (named, own),
            (mask, {7, 8, 1001} & present),
            (~chosen, present - set(wanted)),
            (chosen & named, set(wanted) & own),
            (chosen | named, (set(wanted) & present) | own),
            (named - chosen, own - set(wanted)),
            (manual.sets["odd"] | ~(named | mask), {1, 3, 5} | (present - own - {7, 8, 1001})),
        ]
        for one, ids in expected:
            assert allowed(manual, one) == ids
            assert set(one) == ids and len(one) == len(ids)
            assert all(item in one for item in ids) and 999 not in one
            denied = set(manual.query(ZERO, k=ITEMS, deny=one)[0].tolist())
            assert denied == present - ids
        assert allowed(manual, "own") == own
        assert sorted(manual.sets) == ["odd", "own"] and len(manual.sets) == 2
        many, _ = manual.query(np.zeros((2, DIM), np.float32), k=ITEMS, allow=[chosen, None])
        assert (many[0] >= 0).sum() == len(chosen) and (many[1] >= 0).all()


def test_an_idset_of_an_older_file_is_looked_up_by_its_ids(
    path: Path, manual: FollowingIndex
) -> None:
    few = annidx.IdSet(manual, [1, 2, 1003])
    assert allowed(manual, few) == {1, 2, 1003}
    generation = manual.current
    publish(path, 2)
    manual.reload_if_changed()
    assert allowed(manual, few) == {1, 2}
    many, _ = manual.query(np.zeros((2, DIM), np.float32), k=5, allow=[few, None], deny=few)
    assert (many[0] == -1).all() and (many[1] >= 0).all()
    assert set(manual.query_items(5, k=9, allow=few)[0].tolist()) == {1, 2}
    assert set(manual.query_like([5], k=9, allow=few)[0].tolist()) == {1, 2}
    assert allowed(manual, manual.idset([2, 3]) - few) == {3}
    assert allowed(manual, few - manual.idset([2, 3])) == {1}
    assert allowed(manual, few & manual.idset([2, 3])) == {2}
    assert allowed(manual, few | manual.idset([3])) == {1, 2, 3}
    assert len(generation.query(ZERO, allow=few)[0]) == 3
    with pytest.raises(ValueError, match="another index"):
        manual.current.query(ZERO, allow=few)


def test_sets_are_looked_up_before_a_file_takes_over(path: Path, manual: FollowingIndex) -> None:
    asked: list[annidx.Index] = []

    class Noting(LiveSet):
        def bits_in(self, index: Any) -> Any:
            asked.append(index)
            return super().bits_in(index)

    chosen = Noting(manual, manual.idset([1])._meaning)
    first = manual.current
    publish(path, 2)
    manual.reload_if_changed()
    assert asked == [manual.current] and asked[0] is not first
    assert chosen.bits_in(manual.current) is chosen.bits_in(manual.current)


def test_sets_keep_no_file_mapped(path: Path, manual: FollowingIndex) -> None:
    chosen = manual.idset([1, 2]) & manual.sets["odd"]
    allowed(manual, chosen)
    publish(path, 2)
    manual.reload_if_changed()
    gc.collect()
    if sys.platform == "linux":
        maps = Path("/proc/self/maps").read_text(encoding="utf-8")
        assert sum(str(path) in line for line in maps.splitlines()) == 1
    assert allowed(manual, chosen) == {1}


def test_sets_of_text_ids(tmp_path: Path) -> None:
    path = tmp_path / "text.annidx"
    for generation in (1, 2):
        index = annidx.Index(DIM, "manhattan")
        index.add_items(np.ones((3, DIM)), ids=["a", "b", f"only {generation}"])
        index.build()
        index.save(path, sets={"last": [f"only {generation}"]})
        if generation == 1:
            live = annidx.load(path, follow=True, interval=0)
            chosen = live.idset(["a", "only 1", "only 2"]) | live.sets["last"]
            assert list(chosen) == ["a", "only 1"]
    assert list(chosen) == ["a", "only 2"] and "only 1" not in chosen
    live.close()


def test_live_sets_pickle_with_their_index(path: Path, manual: FollowingIndex) -> None:
    chosen = manual.idset([1, 2, 2001]) - manual.sets["odd"]
    copy = pickle.loads(pickle.dumps(chosen))
    assert list(copy) == [2] and repr(copy) == "LiveSet(1 of 40 items)"
    publish(path, 2)
    assert set(pickle.loads(pickle.dumps(chosen))) == {2, 2001}


def test_sets_that_are_none(manual: FollowingIndex) -> None:
    with pytest.raises(KeyError, match="other"):
        manual.sets["other"]
    with pytest.raises(KeyError, match="other"):
        manual.idset("other")
    with pytest.raises(ValueError, match="items"):
        manual.idset([1.5])
    with pytest.raises(ValueError, match="mask of shape"):
        manual.idset(np.ones(3, bool))
    with pytest.raises(TypeError):
        manual.idset([1]) & [2]  # type: ignore[operator]
    assert manual.idset(manual.sets["odd"]) is not None and "other" not in manual.sets
    assert "odd" in repr(manual.sets)


def test_an_old_idset_keeps_no_follower_alive(path: Path) -> None:
    index = annidx.load(path, follow=True, interval=0)
    few = annidx.IdSet(index, [1, 2])
    publish(path, 2)
    assert allowed(index, few) == {1, 2}
    gone = weakref.ref(index)
    del index
    assert gone() is None


def test_a_file_that_comes_while_another_is_opened_is_met_again(
    path: Path, manual: FollowingIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_files = follow.open_files

    def late(where: list[str], **how: bool) -> annidx.Index:
        monkeypatch.setattr(follow, "open_files", open_files)
        publish(path, 3)
        return open_files(where, **how)

    monkeypatch.setattr(follow, "open_files", late)
    publish(path, 2)
    assert manual.reload_if_changed() and generation_of(manual) == 3
    publish(path, 4)
    assert manual.reload_if_changed() and generation_of(manual) == 4
    assert manual.reload_if_changed() is False
