"""Durations in classes that grow evenly: counted by the database in one scan, read as percentiles here.

Pure. A percentile is interpolated inside its class, so it is wrong by less than the class is wide: five classes make
a power of ten, each reaching from a limit to 1.58 times that.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

PER_DECADE = 5
FIRST, DECADES = 0.001, 7
# Upper limits in seconds, from a millisecond to about three hours.
LIMITS: tuple[float, ...] = tuple(
    FIRST * 10 ** (number / PER_DECADE) for number in range(DECADES * PER_DECADE + 1)
)


@dataclass(frozen=True, slots=True)
class Percentiles:
    """In seconds; None when there is nothing to measure. ``count`` is how many were measured."""

    count: int
    p50: float | None
    p95: float | None
    p99: float | None


def percentiles(classes: Mapping[int, int]) -> Percentiles:
    """Of how many lie in each class: 0 is below `FIRST`, n from limit n - 1 on, the last is open."""
    total = sum(classes.values())
    shares = [_at(classes, total * share) if total else None for share in (0.5, 0.95, 0.99)]
    return Percentiles(total, *shares)


def merged(parts: Sequence[Mapping[int, int]]) -> dict[int, int]:
    """The classes of all parts together."""
    found: dict[int, int] = {}
    for part in parts:
        for number, count in part.items():
            found[number] = found.get(number, 0) + count
    return found


def _at(classes: Mapping[int, int], rank: float) -> float:
    below = 0
    for number in sorted(classes):
        count = classes[number]
        if below + count >= rank:
            low = 0.0 if number == 0 else LIMITS[number - 1]
            high = LIMITS[number] if number < len(LIMITS) else low
            return low + (high - low) * (rank - below) / count
        below += count
    return LIMITS[-1]
