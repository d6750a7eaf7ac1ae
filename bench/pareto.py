"""From measured points to figures: the front, its value at a recall, what is worth keeping."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Point(NamedTuple):
    recall: float
    queries_per_second: float


@dataclass(frozen=True)
class AtRecall:
    """Queries a second at a recall.

    ``is_lower_bound``: every measured point lies above this recall, so the fastest of
    them is given, and the library could be faster.
    """

    queries_per_second: float
    is_lower_bound: bool


def front(points: Sequence[Point]) -> list[Point]:
    """Points that no other beats in both, by rising recall and falling speed."""
    best: list[Point] = []
    for point in sorted(points, key=lambda p: (-p.recall, -p.queries_per_second)):
        if not best or point.queries_per_second > best[-1].queries_per_second:
            best.append(point)
    return best[::-1]


def at_recall(points: Sequence[Point], target: float) -> AtRecall | None:
    """Log-linear between the two neighbours on the front; None where it is not reached."""
    rising = front(points)
    if not rising or rising[-1].recall < target:
        return None
    if rising[0].recall >= target:
        return AtRecall(rising[0].queries_per_second, rising[0].recall > target)
    above = next(index for index, point in enumerate(rising) if point.recall >= target)
    low, high = rising[above - 1], rising[above]
    share = (target - low.recall) / (high.recall - low.recall)
    log_speed = (1 - share) * math.log(low.queries_per_second) + share * math.log(
        high.queries_per_second
    )
    return AtRecall(math.exp(log_speed), False)


def bracketing(points: Sequence[Point], target: float) -> list[Point]:
    """The points of the front on both sides of a recall, those that its value comes from."""
    rising = front(points)
    below = [point for point in rising if point.recall < target]
    above = [point for point in rising if point.recall >= target]
    return below[-1:] + above[:1]


def is_near_front(point: Point, points: Sequence[Point], slack: float) -> bool:
    """No other point is as good in recall and faster by more than ``1 / slack``."""
    return not any(
        other.recall >= point.recall and other.queries_per_second * slack > point.queries_per_second
        for other in points
    )
