"""Owns the tests of `annidx.publish` and its command: what takes a live file's place."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import annidx

ROWS = np.random.default_rng(9).normal(size=(200, 6)).astype(np.float32)


def image(items: int, metric: str = "euclidean", dim: int = 6, words: bool = False) -> bytes:
    index = annidx.Index(dim, metric)
    index.add_items(ROWS[:items, :dim], [f"w{i}" for i in range(items)] if words else None)
    index.build()
    return index.to_bytes()


OLD, NEW = image(100), image(120)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("live").write_bytes(OLD)
    Path("new").write_bytes(NEW)
    return tmp_path


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_the_first_file(folder: Path) -> None:
    done = annidx.publish("new", "first")
    assert content(folder) == {"live": OLD, "first": NEW}
    assert (done.path, done.previous) == (str(folder / "first"), None)
    assert (done.items, done.previous_items) == (120, 0)
    assert done.identity == annidx.load("first").info()["identity"]


def test_named_sets_that_services_may_ask_for_stay(folder: Path) -> None:
    index = annidx.load(OLD)
    Path("live").write_bytes(index.to_bytes(sets={"few": [1], "many": [2, 3]}))
    for sets in ({"few": [1]}, {}):
        Path("new").write_bytes(index.to_bytes(sets=sets))
        with pytest.raises(ValueError, match="the named set '(few|many)' as live has it"):
            annidx.publish("new", "live")
    Path("more").write_bytes(index.to_bytes(sets={"few": [5], "many": [], "new": [4]}))
    annidx.publish("more", "live")
    annidx.publish("new", "live", force=True)
    assert list(annidx.load("live").sets) == []


def test_the_one_before_is_kept_and_comes_back(folder: Path) -> None:
    done = annidx.publish(folder / "new", folder / "live")
    assert content(folder) == {"live": NEW, "live.previous": OLD}
    assert (done.path, done.previous) == (str(folder / "live"), str(folder / "live.previous"))
    assert (done.items, done.previous_items) == (120, 100)
    Path("newer").write_bytes(image(130))
    annidx.publish("newer", "live")
    assert content(folder) == {"live": image(130), "live.previous": NEW}
    annidx.publish("live.previous", "live")
    assert content(folder) == {"live": NEW, "live.previous": image(130)}


def test_a_follower_goes_over(folder: Path) -> None:
    with annidx.load("live", follow=True, interval=0) as live:
        assert len(live) == 100
        annidx.publish("new", "live")
        assert len(live) == 120
        annidx.publish("live.previous", "live")
        assert len(live) == 100


def test_links(folder: Path) -> None:
    """The file that LIVE leads to is replaced; what NEW leads to stays where it is."""
    Path("current").symlink_to("live")
    Path("built").symlink_to("new")
    done = annidx.publish("built", "current")
    assert os.readlink("current") == "live" and os.readlink("built") == "new"
    assert Path("live").read_bytes() == NEW and not Path("live").is_symlink()
    assert done.path == str(folder / "live") and done.previous == str(folder / "live.previous")
    Path("dangling").symlink_to("nothing yet")
    annidx.publish("new", "dangling")
    assert Path("nothing yet").read_bytes() == NEW


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="needs a second file system")
def test_from_another_file_system(folder: Path) -> None:
    other = Path(f"/dev/shm/annidx-test-{os.getpid()}")
    other.write_bytes(NEW)
    try:
        if other.stat().st_dev == folder.stat().st_dev:
            pytest.skip("it is the same one")
        annidx.publish(other, "live")
        assert content(folder) == {"live": NEW, "live.previous": OLD, "new": NEW}
        assert not other.exists()
    finally:
        other.unlink(missing_ok=True)


def test_without_hard_links(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    annidx.publish("new", "live")
    assert content(folder) == {"live": NEW, "live.previous": OLD}


def test_mode_and_owner_of_the_live_file(folder: Path) -> None:
    Path("live").chmod(0o640)
    Path("new").chmod(0o600)
    if os.geteuid() == 0:
        os.chown("live", 1234, 5678)
    annidx.publish("new", "live")
    found = os.stat("live")
    assert stat.S_IMODE(found.st_mode) == 0o640
    if os.geteuid() == 0:
        assert (found.st_uid, found.st_gid) == (1234, 5678)


# ---- refused -------------------------------------------------------------------------------


def damaged(content: bytes) -> bytes:
    wrong = bytearray(content)
    wrong[len(wrong) // 2] ^= 1
    return bytes(wrong)


REFUSED: dict[str, tuple[bytes, bytes, type[Exception], str]] = {
    "damaged": (damaged(NEW), OLD, annidx.FormatError, "new.*damaged"),
    "cut": (NEW[:-9], OLD, annidx.FormatError, "new"),
    "no index": (b"x" * 99, OLD, annidx.FormatError, "new.*not an annidx file"),
    "empty": (b"", OLD, annidx.FormatError, "new"),
    "metric": (image(120, "angular"), OLD, ValueError, "expected metric euclidean .*got angular"),
    "dim": (image(120, dim=5), OLD, ValueError, "expected dim 6 as live has it, got 5"),
    "ids": (image(120, words=True), OLD, ValueError, "expected ids int as live has it, got str"),
    "count": (image(89), OLD, ValueError, "expected 90 items or more, live has 100, got 89"),
    "damaged live": (NEW, OLD[:4_000], annidx.FormatError, "live"),
    "live is another kind": (NEW, b"precious", FileExistsError, "file of another kind"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(folder: Path, case: str) -> None:
    new, live, kind, words = REFUSED[case]
    Path("new").write_bytes(new)
    Path("live").write_bytes(live)
    with pytest.raises(kind, match=words):
        annidx.publish("new", "live")
    assert content(folder) == {"new": new, "live": live}


@pytest.mark.parametrize("case", REFUSED)
def test_forced(folder: Path, case: str) -> None:
    new, live, kind, words = REFUSED[case]
    Path("new").write_bytes(new)
    Path("live").write_bytes(live)
    if case in ("damaged", "cut", "no index", "empty"):  # whatever is wished for
        with pytest.raises(kind, match=words):
            annidx.publish("new", "live", force=True)
        assert content(folder) == {"new": new, "live": live}
    else:
        annidx.publish("new", "live", force=True)
        assert content(folder) == {"live": new, "live.previous": live}


@pytest.mark.parametrize(
    ("items", "share", "fits"),
    [(90, 0.1, True), (89, 0.1, False), (100, 0, True), (99, 0, False), (50, 0.5, True),
     (49, 0.5, False), (1, 1, True)],
)  # fmt: skip
def test_how_much_the_count_may_shrink(folder: Path, items: int, share: float, fits: bool) -> None:
    Path("new").write_bytes(image(items))
    if fits:
        assert annidx.publish("new", "live", max_shrink=share).items == items
    else:
        with pytest.raises(ValueError, match=f"live has 100, got {items}"):
            annidx.publish("new", "live", max_shrink=share)


def test_wrong_arguments(folder: Path) -> None:
    for share in (-0.1, 1.1, float("nan"), "0.1"):
        with pytest.raises(ValueError, match="max_shrink: expected a share from 0 to 1"):
            annidx.publish("new", "live", max_shrink=share)  # type: ignore[arg-type]
    Path("link").hardlink_to("live")
    Path("other").symlink_to("live")
    for name in ("live", "link", "other"):
        with pytest.raises(ValueError, match="new: expected another file than live"):
            annidx.publish(name, "live", force=True)
    with pytest.raises(FileNotFoundError, match="missing"):
        annidx.publish("missing", "live")
    with pytest.raises(FileNotFoundError, match="no folder"):
        annidx.publish("new", "no folder/live")
    Path("live.previous").write_bytes(b"precious")
    with pytest.raises(FileExistsError) as caught:
        annidx.publish("new", "live")
    assert caught.value.filename == str(folder / "live.previous")
    assert Path("live").read_bytes() == OLD and Path("live.previous").read_bytes() == b"precious"


# ---- never without a live file -------------------------------------------------------------


def test_readers_always_find_a_whole_file(folder: Path) -> None:
    known = {annidx.load(OLD).info()["identity"], annidx.load(NEW).info()["identity"]}
    stop = threading.Event()
    faults: list[Exception] = []
    seen: set[str] = set()

    def read() -> None:
        while not stop.is_set():
            try:
                with annidx.load("live") as index:
                    seen.add(index.info()["identity"])
                    index.query(ROWS[0], k=3)
            except Exception as error:  # whatever it is, no reader may meet it
                faults.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    for number in range(100):
        Path("new").write_bytes((OLD, NEW)[number % 2])
        annidx.publish("new", "live", max_shrink=1)
    stop.set()
    thread.join()
    assert faults == [] and seen <= known
    assert sorted(content(folder)) == ["live", "live.previous"]


@pytest.mark.parametrize("calls", [0, 1])
def test_a_rename_that_fails(folder: Path, calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = os.replace
    done: list[str] = []

    def fail(source: str, target: str) -> None:
        if len(done) == calls:
            raise OSError(5, "the disk is gone", target)
        done.append(source)
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(OSError, match="the disk is gone"):
            annidx.publish("new", "live")
    annidx.verify("live")
    kept = {"live.previous": OLD} if calls == 1 else {}
    assert content(folder) == {"live": OLD, "new": NEW, **kept}
    annidx.publish("new", "live")
    assert content(folder) == {"live": NEW, "live.previous": OLD}


def test_what_a_killed_process_left_is_cleared(folder: Path) -> None:
    os.link("live", ".live.previous.tmp")
    Path(".live.new.tmp").write_bytes(b"half a copy")
    Path("built").symlink_to("new")
    annidx.publish("built", "live")
    assert content(folder) == {"live": NEW, "live.previous": OLD, "new": NEW, "built": NEW}


# ---- the command ---------------------------------------------------------------------------

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "annidx", "publish", *words], capture_output=True, text=True
    )


def test_the_command(folder: Path) -> None:
    done = command("new", "first")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "first: 120 vectors, sound\n"
    Path("new").write_bytes(NEW)
    done = command("new", "live")
    assert done.stdout == f"live: 120 vectors, sound, 100 before: {folder}/live.previous\n"
    Path("small").write_bytes(image(60))
    failed = command("small", "live")
    assert failed.returncode == 1 and failed.stdout == ""
    assert failed.stderr.startswith("annidx: error: new: expected 108 items or more")
    assert failed.stderr.count("\n") == 1
    assert command("small", "live", "--max-shrink", "0.5").returncode == 0
    Path("other").write_bytes(image(60, "angular"))
    assert command("other", "live").returncode == 1
    assert command("other", "live", "--force").returncode == 0
    for words in (["new"], ["new", "live", "--max-shrink", "2"], ["new", "live", "--max", "1"]):
        failed = command(*words)
        assert failed.returncode == 2 and failed.stderr.count("\n") == 1
