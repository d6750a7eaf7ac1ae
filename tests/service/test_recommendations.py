"""Owns the test of the service in examples/service, as its users and its operators meet it.

Two workers answer under load while a new index is published again and again, one of them damaged.
No request may fail, no answer hold what was heard, played or is not to be shown, or hold it twice;
both workers end on the newest good index, and the damaged one is named where operators look.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

httpx = pytest.importorskip("httpx2")
for needed in ("fastapi", "uvicorn", "prometheus_client"):
    pytest.importorskip(needed)

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "examples"))

from service import catalogue, nightly  # noqa: E402

INTERVAL = 0.1
WORKERS, CLIENTS = 2, 3
PATIENCE = 60.0  # far more than anything here takes
QUICK, MANY = 8, 50


def free_port() -> int:
    """Find a port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Service:
    """The running service, asked over HTTP."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"http://127.0.0.1:{free_port()}"
        self.log = folder / "log"
        (folder / "metrics").mkdir()
        command = [sys.executable, "-m", "uvicorn", "service.app:app", "--no-access-log"]
        with open(self.log, "wb") as log:
            self._process = subprocess.Popen(
                [*command, "--workers", str(WORKERS), "--port", self.url.rpartition(":")[2]],
                cwd=ROOT / "examples",
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join(
                        [os.environ["PYTHONPATH"], str(ROOT / "examples")]
                    ),
                    "SERVICE_FOLDER": str(folder),
                    "SERVICE_INTERVAL": str(INTERVAL),
                    "PROMETHEUS_MULTIPROC_DIR": str(folder / "metrics"),
                },
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def stop(self) -> None:
        """End it as an operator does."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(PATIENCE)

    def until(self, holds: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        """Ask for the status until it holds for each of the workers; return theirs."""
        found: dict[int, dict[str, Any]] = {}
        end = time.monotonic() + PATIENCE
        while len(found) < WORKERS:
            shown = self.log.read_text(encoding="utf-8")
            assert time.monotonic() < end and self._process.poll() is None, shown[-3000:]
            with contextlib.suppress(httpx.TransportError):
                # A connection of its own: which worker takes it is chance.
                status = httpx.get(f"{self.url}/status").json()
                if holds(status):
                    found[status["process"]] = status
            time.sleep(0.005)
        return list(found.values())


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """The service, with the index of the first day."""
    nightly.main(tmp_path, 1)
    running = Service(tmp_path)
    try:
        running.until(lambda status: status["day"] == 1)
        yield running
    finally:
        running.stop()


class Client(threading.Thread):
    """Asks without a pause, and keeps what is wrong with the answers."""

    def __init__(self, service: Service, seed: int, stop: threading.Event) -> None:
        super().__init__()
        self._service = service
        self._random = random.Random(seed)
        self._halt = stop
        self._listens = catalogue.read_listens(service.folder)
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []

    def run(self) -> None:
        """Ask in all ways until it is time to stop, or something is wrong."""
        ways = [self._related, self._radio, self._discover]
        try:
            while not self._halt.is_set() and not self.faults:
                with httpx.Client(base_url=self._service.url, timeout=PATIENCE) as http:
                    for way in ways * 5:
                        way(http)
        except Exception as error:
            self.faults.append(repr(error))

    def _ask(self, http: Any, path: str, forbidden: set[str], k: int, **how: Any) -> list[str]:
        answer = http.get(path, params={"k": k, **how})
        self.counts[path.split("/")[1]] += 1
        if answer.status_code != 200:
            self.faults.append(f"{path}: {answer.status_code} {answer.text}")
            return []
        artists = [one["artist"] for one in answer.json()]
        if len(artists) != k or len(set(artists)) != k or forbidden & set(artists):
            self.faults.append(f"{path} {how}: {artists}")
        return artists

    def _artist(self) -> str:
        # One that is there on all days.
        return f"artist-{self._random.randrange(MANY, catalogue.ARTISTS)}"

    def _related(self, http: Any) -> None:
        artist = self._artist()
        self._ask(http, f"/related/{artist}", {artist}, 10)

    def _radio(self, http: Any) -> None:
        """Listen to three parts of a radio; nothing comes again."""
        artist, played = self._artist(), []
        for _ in range(3):
            played += self._ask(
                http, f"/radio/{artist}", {artist, *played}, 8, diversity=0.5, played=played
            )

    def _discover(self, http: Any) -> None:
        user = self._random.choice(list(self._listens))
        self._ask(http, f"/discover/{user}", set(self._listens[user]), 10)


def publish_damaged(folder: Path, day: int) -> None:
    """Publish an index with one wrong bit among its vectors."""
    candidate = nightly.build(folder, day)
    damaged = bytearray(candidate.read_bytes())
    damaged[len(damaged) // 3] ^= 1
    candidate.write_bytes(damaged)
    os.replace(candidate, folder / catalogue.INDEX)


def check_service(service: Service, days: int) -> None:
    """Publish so many indexes under load, one of them damaged."""
    stop = threading.Event()
    clients = [Client(service, seed, stop) for seed in range(CLIENTS)]
    for client in clients:
        client.start()
    try:
        bad_day = days // 2
        for day in range(2, days + 1):
            if day == bad_day:
                publish_damaged(service.folder, day)
                refusing = service.until(lambda status: status["refused"] != [])
            else:
                nightly.publish(service.folder, day)
        began = time.monotonic()
        statuses = service.until(lambda status: status["day"] == days)
        passed = time.monotonic() - began
    finally:
        stop.set()
        for client in clients:
            client.join()
    assert [fault for client in clients for fault in client.faults] == []
    counts = sum((client.counts for client in clients), Counter())
    print(f"{dict(counts)}; on the last index {passed:.2f} s after it, interval {INTERVAL} s")
    assert min(counts.values()) > 10 and len(counts) == 3
    for status in refusing:
        (refused,) = status["refused"]
        assert refused["path"] == str(service.folder / catalogue.INDEX)
        assert "is damaged" in refused["reason"] and status["last_error"] == refused["reason"]
        assert status["day"] == bad_day - 1
    for status in statuses:
        assert status["last_error"] is None and len(status["refused"]) == 1
        assert 2 <= status["generation"] <= days - 1 and status["queries"] > 0
    log = service.log.read_text(encoding="utf-8")
    for status in statuses:
        told = [line for line in log.splitlines() if f" {status['process']} annidx: " in line]
        assert sum("the old one stays" in line and "is damaged" in line for line in told) == 1
        assert sum("took over" in line for line in told) == status["generation"] - 1
    assert "ERROR" not in log and "Traceback" not in log
    check_metrics(service, statuses)


def check_metrics(service: Service, statuses: list[dict[str, Any]]) -> None:
    """Compare what Prometheus is told, by whichever worker, with what both say of themselves."""
    names = {
        "annidx_generation": "generation",
        "annidx_file_time_seconds": "file_time",
        "annidx_loaded_time_seconds": "loaded_at",
    }
    expected = {
        f'{name}{{pid="{status["process"]}"}}': status[key]
        for name, key in names.items()
        for status in statuses
    }
    end = time.monotonic() + PATIENCE
    while True:
        lines = httpx.get(f"{service.url}/metrics").text.splitlines()
        told = {
            name: float(value)
            for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")
        }
        if all(told.get(name) == pytest.approx(value) for name, value in expected.items()):
            break
        assert time.monotonic() < end, (expected, told)
        time.sleep(INTERVAL)
    assert all(told[f'annidx_stale{{pid="{one["process"]}"}}'] == 0 for one in statuses)
    assert all(told[f'annidx_refused_files{{pid="{one["process"]}"}}'] == 1 for one in statuses)
    answered = [value for name, value in told.items() if "_count{" in name and "/radio/" in name]
    assert sum(answered) > 0


def test_published_under_load(service: Service) -> None:
    check_service(service, QUICK)


@pytest.mark.slow
def test_published_many_times_under_load(service: Service) -> None:
    check_service(service, MANY)


def test_answers_are_what_was_asked_for(service: Service) -> None:
    artists = catalogue.catalogue_of(1)
    hidden = {n for n, is_in in zip(artists.names, artists.available, strict=True) if not is_in}
    heard = catalogue.read_listens(service.folder)["user-3"]
    with httpx.Client(base_url=service.url) as http:
        related = http.get("/related/artist-100", params={"k": 100}).json()
        assert [one["distance"] for one in related] == sorted(one["distance"] for one in related)
        names = {one["artist"] for one in related}
        assert len(names) == 100 and not names & hidden and hidden
        near = [http.get("/radio/artist-100", params={"diversity": d}).json() for d in (0.0, 0.9)]
        means = [sum(one["distance"] for one in found) / len(found) for found in near]
        assert means[0] < means[1], "a varied radio goes farther"
        found = http.get("/discover/user-3", params={"k": 50}).json()
        assert len(found) == 50 and not {one["artist"] for one in found} & set(heard)
        for path, code in (
            ("/related/nobody", 404),
            ("/radio/nobody", 404),
            ("/discover/nobody", 404),
            ("/related/artist-100?k=0", 422),
            ("/radio/artist-100?diversity=2", 422),
        ):
            assert http.get(path).status_code == code, path
