"""Percentiles from classes: never further off than the class is wide."""

from bisect import bisect_right
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from app.scheduling.histogram import LIMITS, Percentiles, merged, percentiles

SECONDS = st.floats(min_value=0, max_value=9_000, allow_nan=False)


def classes(values: list[float]) -> dict[int, int]:
    """As PostgreSQL's width_bucket(value, limits) has it."""
    return dict(Counter(bisect_right(LIMITS, value) for value in values))


def test_nothing_has_no_percentiles() -> None:
    assert percentiles({}) == Percentiles(0, None, None, None)


@given(st.lists(SECONDS, min_size=1, max_size=60))
def test_each_percentile_lies_in_the_class_of_the_exact_one(values: list[float]) -> None:
    found = percentiles(classes(values))
    ordered = sorted(values)
    for share, estimate in ((0.5, found.p50), (0.95, found.p95), (0.99, found.p99)):
        exact = next(value for n, value in enumerate(ordered, 1) if n >= len(ordered) * share)
        number = bisect_right(LIMITS, exact)
        assert estimate is not None
        assert (
            (0.0 if number == 0 else LIMITS[number - 1]) <= estimate <= LIMITS[min(number, len(LIMITS) - 1)]
        )
    assert found.count == len(values)


@given(st.lists(SECONDS, max_size=30), st.lists(SECONDS, max_size=30))
def test_classes_of_parts_are_those_of_the_whole(one: list[float], other: list[float]) -> None:
    assert merged([classes(one), classes(other)]) == classes(one + other)
