"""Owns the tests of indexes at URLs: what is fetched, when, and where it is kept."""

from __future__ import annotations

import functools
import http.server
import os
import pickle
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import annidx
from annidx import cli

fsspec = pytest.importorskip("fsspec")
VECTORS = np.random.default_rng(6).normal(size=(60, 4)).astype(np.float32)
URL = "memory://bucket/tracks.annidx"


def image(rows: int) -> bytes:
    index = annidx.Index(4, "euclidean")
    index.add_items(VECTORS[:rows])
    index.build()
    return index.to_bytes()


class Store:
    """fsspec's files in memory, with a count of what was fetched from them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.files = fsspec.filesystem("memory")
        self.fetched = 0
        fetch = type(self.files).get_file

        def counted(files: Any, *arguments: Any, **options: Any) -> Any:
            self.fetched += 1
            return fetch(files, *arguments, **options)

        monkeypatch.setattr(type(self.files), "get_file", counted)

    def put(self, content: bytes) -> None:
        with fsspec.open(URL, "wb") as file:
            file.write(content)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ANNIDX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def store(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    made = Store(monkeypatch)
    yield made
    made.files.rm("/", recursive=True)


def test_fetched_once_and_mapped(store: Store, cache: Path) -> None:
    store.put(image(50))
    index = annidx.load(URL)
    assert len(index) == 50 and store.fetched == 1
    assert index.path is not None and Path(index.path).parent == cache
    assert Path(index.path).read_bytes() == image(50)
    assert len(annidx.load(URL, warm=True)) == 50 and store.fetched == 1
    annidx.verify(URL)
    assert store.fetched == 1 and len(os.listdir(cache)) == 1


def test_a_new_version_is_fetched_and_old_ones_go(store: Store, cache: Path) -> None:
    opened = []
    for rows in (30, 40, 50, 60):
        store.put(image(rows))
        opened.append(annidx.load(URL))
    assert [len(index) for index in opened] == [30, 40, 50, 60] and store.fetched == 4
    assert len(os.listdir(cache)) == 2
    for index in opened:  # mapped, whatever became of the file
        assert index.query(VECTORS[3], k=1)[0][0] == 3


def test_it_pickles_as_its_url(store: Store, cache: Path) -> None:
    store.put(image(50))
    pickled = pickle.dumps(annidx.load(URL))
    assert URL.encode() in pickled
    for path in cache.iterdir():
        path.unlink()
    assert len(pickle.loads(pickled)) == 50
    store.put(image(40))
    with pytest.raises(annidx.FormatError, match="another index than when it was pickled"):
        pickle.loads(pickled)


def test_a_saved_one_belongs_to_its_file(store: Store, tmp_path: Path) -> None:
    store.put(image(50))
    index = annidx.load(URL)
    index.save(tmp_path / "x")
    assert index.path == str(tmp_path / "x") and URL.encode() not in pickle.dumps(index)


def test_a_store_without_versions_is_asked_each_time(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = type(store.files).info
    monkeypatch.setattr(
        type(store.files), "info", lambda *a, **o: {**info(*a, **o), "created": None}
    )
    store.put(image(50))
    for _ in range(2):
        assert len(annidx.load(URL)) == 50
    assert store.fetched == 2


def test_what_fails_leaves_nothing(
    store: Store, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FileNotFoundError) as missing:
        annidx.load(URL)
    assert missing.value.filename == URL
    with pytest.raises(ValueError, match=r"^path: .*nosuch.*, got 'nosuch://a/b'$"):
        annidx.load("nosuch://a/b")
    store.put(image(50))
    with monkeypatch.context() as patch:
        patch.setattr(
            type(store.files), "get_file", lambda *_, **__: (_ for _ in ()).throw(Weird())
        )
        with pytest.raises(OSError, match="the moon is full") as caught:
            annidx.load(URL)
        assert caught.value.filename == URL and "\n" not in str(caught.value)
        patch.setattr(
            type(store.files), "get_file", lambda _, __, to, **___: Path(to).write_bytes(b"half")
        )
        with pytest.raises(OSError, match="expected .* bytes, got 4"):
            annidx.load(URL)
        assert os.listdir(cache) == []
    store.put(b"no index")
    with pytest.raises(annidx.FormatError, match="is not an annidx file"):
        annidx.load(URL)


class Weird(Exception):
    """What a store may raise."""

    def __str__(self) -> str:
        return "the moon\nis full"


def test_without_fsspec(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("fsspec", "fsspec.core"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ValueError, match=r"^path: a URL needs fsspec \(pip install fsspec\)"):
        annidx.load("s3://bucket/x.annidx")


def test_urls_are_read_only() -> None:
    index = annidx.load(image(50))
    for call in (
        lambda: index.save(URL),
        lambda: index.export(URL + ".npy"),
        lambda: annidx.load(URL, follow=True),
        lambda: annidx.Index(2, "dot").build(out=URL),
    ):
        with pytest.raises(ValueError, match="expected a file of this machine, got the URL"):
            call()


def test_written_through_fsspec(store: Store) -> None:
    index = annidx.load(image(50))
    with fsspec.open(URL, "wb") as file:
        index.save(file)
    assert annidx.load(URL).to_bytes() == image(50)
    with fsspec.open(URL, "rb") as file:
        assert annidx.load(file).to_bytes() == image(50)


def test_the_command_line_takes_urls(
    store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put(image(50))
    assert cli.main(["info", URL]) == 0 and cli.main(["verify", URL]) == 0
    assert "50 of 4 dimensions" in capsys.readouterr().out
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    assert cli.main(["info", URL]) == 1
    said = capsys.readouterr().err
    assert said == f"annidx: error: path: a URL needs fsspec (pip install fsspec), got '{URL}'\n"


def test_over_http(cache: Path, tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    (tmp_path / "x.annidx").write_bytes(image(50))

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_port}"
            assert len(annidx.load(f"{url}/x.annidx")) == 50
            (tmp_path / "x.annidx").write_bytes(image(40))
            os.utime(tmp_path / "x.annidx", (1, 1))
            assert len(annidx.load(f"{url}/x.annidx")) == 40
            with pytest.raises(OSError, match="no such file") as caught:
                annidx.load(f"{url}/y.annidx")
            assert caught.value.filename == f"{url}/y.annidx"
        finally:
            server.shutdown()
            thread.join()


def test_the_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from annidx.io.remote import cache_folder

    monkeypatch.delenv("ANNIDX_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == str(tmp_path / "annidx")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == str(tmp_path / ".cache" / "annidx")
