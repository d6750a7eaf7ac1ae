"""Breeds damaged files from sound ones, by number, and asks each of them everything.

As a program (`python mutants.py METRIC FIRST COUNT [IDS]`) it runs in a process of its own, because
a mutant may end or stop it: before each mutant it prints the number, so that whoever reads knows
which one it was. The same number always gives the same mutant. With IDS, "int" or "str", all are of
a file of changes beside a base with such ids.
"""

from __future__ import annotations

import random
import resource
import struct
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS), str(TESTS / "fuzz")]

import images  # noqa: E402
import make_seeds  # noqa: E402
from interview import interview, interview_beside  # noqa: E402

# What a file of some kilobytes may make the process grow by.
MEMORY_BYTES = 1 << 30
EXTREMES_32 = (0, 1, 16, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF, 0x7F800000, 0x7FC00000)
EXTREMES_64 = (0, 1, 0x7FFFFFFFFFFFFFFF, 0x8000000000000000, 0xFFFFFFFFFFFFFFFF, 1 << 32, 1 << 40)


@dataclass(frozen=True)
class Mutant:
    """A damaged file and how it came about."""

    image: bytes
    story: str


def sound_images(metric: str) -> list[bytes]:
    """Small sound files of a metric, with every kind of section between them."""
    first, *others = make_seeds.STORAGE[metric]
    found = [
        make_seeds.image_of(metric, first, 40, 6, "int"),
        make_seeds.image_of(metric, (others or [first])[-1], 60, 5, "str", trees=3),
    ]
    if metric != "hamming":
        large = make_seeds.image_of(
            metric, first, make_seeds.CODED_ITEMS, make_seeds.CODED_DIM, "row"
        )
        small = images.first_leaves(large, make_seeds.SMALL_POINTS)
        found += [small, images.with_groups(small)]
    return [*found, *make_seeds.living_images(metric, first)]


def mutant(metric: str, number: int, sources: list[bytes]) -> Mutant:
    """Make the mutant of this number; `sources` are the sound images of the metric."""
    rng = random.Random(f"{metric} {number}")
    source = rng.choice(sources)
    image = bytearray(source)
    story = []
    first, last = len(image), 0
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        begin, end = _place(rng, source)
        end = min(end, len(image))
        if begin >= end:
            continue
        name, changed = _damage(rng, image, begin, end)
        story.append(f"{name} at {changed.start}..{changed.stop}")
        first, last = min(first, changed.start), max(last, changed.stop)
    repair = rng.choice(("nothing", "head", "all"))
    if repair == "head" and len(image) >= images.TABLE:
        image[:] = images.with_right_head(bytes(image))
    elif repair == "all" and len(image) >= images.TABLE:
        image[:] = images.with_right_checksums(bytes(image), range(first, last))
    return Mutant(bytes(image), f"{', '.join(story)}; repaired: {repair}")


def _place(rng: random.Random, source: bytes) -> tuple[int, int]:
    """Choose header, table, params or any other section, each as likely whatever its size."""
    places = images.section_places(source)
    kind = rng.randrange(10)
    if kind == 0:
        return 0, images.TABLE
    if kind == 1:
        return images.TABLE, images.TABLE + images.ENTRY_BYTES * len(places)
    _, offset, size = places[0] if kind == 2 else rng.choice(places)
    return offset, offset + size


def _damage(rng: random.Random, image: bytearray, begin: int, end: int) -> tuple[str, range]:
    """Damage something in [begin, end), which is not empty; tell what was done, and where."""
    at = rng.randrange(begin, end)
    count = min(end - at, rng.choice((1, 2, 4, 8, 16, 64, 256)))
    other = rng.randrange(begin, end - count + 1)
    kind = rng.randrange(9)
    if kind == 0:
        image[at] ^= 1 << rng.randrange(8)
        return "bit flipped", range(at, at + 1)
    if kind in (1, 2):
        image[at : at + count] = bytes([0, 0xFF][kind - 1 : kind]) * count
        return "span overwritten", range(at, at + count)
    if kind == 3:
        image[at : at + count], image[other : other + count] = (
            image[other : other + count],
            image[at : at + count],
        )
        return "spans swapped", range(min(at, other), max(at, other) + count)
    if kind == 4:
        image[other : other + count] = image[at : at + count]
        return "span repeated", range(other, other + count)
    if kind == 5 and rng.randrange(4) == 0:
        del image[at:]
        return "truncated", range(at, at)
    if kind == 6 and rng.randrange(4) == 0:
        size = len(image)
        image += rng.randbytes(count)
        return "bytes appended", range(size, len(image))
    width, layout, extremes = rng.choice(((4, "<I", EXTREMES_32), (8, "<Q", EXTREMES_64)))
    at = at // width * width
    if at + width > len(image):
        return "nothing", range(at, at)
    struct.pack_into(layout, image, at, rng.choice(extremes))
    return "number made extreme", range(at, at + width)


def limit_memory() -> None:
    """Let requests for far more memory than any file here needs fail."""
    with open("/proc/self/statm", encoding="ascii") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, used + MEMORY_BYTES))


def main() -> None:
    """Ask mutants FIRST to FIRST + COUNT - 1 of METRIC."""
    metric, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    ids = sys.argv[4] if len(sys.argv) > 4 else None
    dtype = make_seeds.STORAGE[metric][0]
    if ids is None:
        sources = sound_images(metric)
    else:
        sources = make_seeds.living_images(metric, dtype, ids)[2:]
    outcomes: Counter[str] = Counter()
    if sys.platform == "linux":
        limit_memory()
    with tempfile.TemporaryDirectory() as folder:
        path, base = Path(folder) / "mutant.annidx", Path(folder) / "base.annidx"
        base.write_bytes(make_seeds.base_image(metric, dtype, ids or "int"))
        for number in range(first, first + count):
            print(number, flush=True)
            made = mutant(metric, number, sources)
            path.write_bytes(made.image)
            try:
                outcome = interview(path)
                beside = interview_beside(base, path)
            except BaseException:
                print(f"mutant {number} of {metric}: {made.story}", file=sys.stderr, flush=True)
                raise
            outcomes["refused" if outcome.refused else "opened"] += 1
            outcomes["declined" if outcome.declined else "all-answered"] += not outcome.refused
            outcomes["answers"] += outcome.answered
            outcomes["beside"] += not beside.refused
    print("end", *(f"{name}={number}" for name, number in sorted(outcomes.items())), flush=True)


if __name__ == "__main__":
    main()
