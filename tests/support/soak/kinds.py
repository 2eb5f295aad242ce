"""The kinds of fault: each does one real thing to a running stack, and leaves behind what undoes it."""

from collections.abc import Callable
from dataclasses import dataclass

from support.soak.field import Field

Inject = Callable[[Field], bool]


@dataclass(frozen=True, slots=True)
class Kind:
    """``weight`` is how often it is drawn beside the others. ``inject`` answers whether it could be done."""

    name: str
    weight: float
    inject: Inject


_found: dict[str, Kind] = {}


def kind(name: str, weight: float = 1.0) -> Callable[[Inject], Inject]:
    """Add a function to the list."""

    def add(inject: Inject) -> Inject:
        assert name not in _found
        _found[name] = Kind(name, weight, inject)
        return inject

    return add


def all_kinds() -> dict[str, Kind]:
    """By name, in the order in which they were written."""
    return dict(_found)
