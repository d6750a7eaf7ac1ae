"""Overwrites files in place while they are asked: what a query has checked may change before use.

As a program (`python overwrites.py METRIC SECONDS`) it runs in a process of its own, because a
change may end it. Nothing is promised of the answers; the process must live.
"""

from __future__ import annotations

import random
import sys
import tempfile
import threading
import time
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS), str(TESTS / "fuzz")]

import mutants  # noqa: E402
from interview import Outcome, ask_all  # noqa: E402

import annidx  # noqa: E402


class Writer(threading.Thread):
    """Writes damaged copies of an image over a file, one after the other, until it is stopped."""

    def __init__(self, path: Path, image: bytes) -> None:
        super().__init__()
        self.path = path
        self.image = image
        self.written = 0
        self.stopped = threading.Event()

    def run(self) -> None:
        """Overwrite; the file keeps its length."""
        with self.path.open("r+b", buffering=0) as file:
            while not self.stopped.is_set():
                file.seek(0)
                file.write(self._damaged(random.Random(self.written)))
                self.written += 1

    def _damaged(self, rng: random.Random) -> bytearray:
        image = bytearray(self.image)
        for _ in range(rng.randrange(1, 6)):
            begin = rng.randrange(len(image))
            size = min(rng.choice((1, 4, 8, 64, 1024, len(image))), len(image) - begin)
            spans = (b"\xff" * size, b"\0" * size, rng.randbytes(size), self.image[:size])
            image[begin : begin + size] = rng.choice(spans)
        return image


def main() -> None:
    """Ask files of METRIC that are overwritten, for SECONDS."""
    metric, seconds = sys.argv[1], float(sys.argv[2])
    images = mutants.sound_images(metric)
    # An id that was there may be gone.
    outcome, written = Outcome(KeyError), 0
    with tempfile.TemporaryDirectory() as folder:
        for number, image in enumerate(images):
            path = Path(folder) / f"{number}.annidx"
            path.write_bytes(image)
            with annidx.load(path) as index:
                writer = Writer(path, image)
                writer.start()
                try:
                    end = time.monotonic() + seconds / len(images)
                    while time.monotonic() < end or writer.written < 2:
                        ask_all(index, outcome)
                finally:
                    writer.stopped.set()
                    writer.join()
                written += writer.written
    print(f"overwrites={written} answers={outcome.answered} refusals={outcome.declined}")


if __name__ == "__main__":
    main()
