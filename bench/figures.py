"""Quantiles and medians of what was measured."""

import math
from collections.abc import Sequence


def quantile(values: Sequence[float], share: float) -> float:
    """The nearest-rank quantile; ``share`` from 0 to 1."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def weighted_quantile(pairs: Sequence[tuple[float, int]], share: float) -> float:
    """As `quantile`, of values that each stand for a number of equal ones."""
    wanted, seen = share * sum(count for _, count in pairs), 0
    for value, count in sorted(pairs):
        seen += count
        if seen >= wanted:
            return value
    raise ValueError("no values")
