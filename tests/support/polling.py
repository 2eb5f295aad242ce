"""The only place in the tests that waits: poll with a deadline, never sleep a fixed time."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

PAUSE = 0.02

T = TypeVar("T")


class DeadlinePassed(AssertionError):
    """A condition did not come true in time."""


def eventually(condition: Callable[[], T], deadline: float = 10.0, what: str = "") -> T:
    """Call ``condition`` until it gives something true, and return that; ``deadline`` in seconds.

    An AssertionError inside the condition counts as "not yet"; the last one is the cause of the
    error that is raised when the deadline passes.
    """
    end = time.monotonic() + deadline
    while True:
        failure: AssertionError | None = None
        try:
            if value := condition():
                return value
        except AssertionError as error:
            failure = error
        if time.monotonic() >= end:
            raise DeadlinePassed(_message(condition, deadline, what)) from failure
        time.sleep(PAUSE)


async def eventually_async(
    condition: Callable[[], Awaitable[T]], deadline: float = 10.0, what: str = ""
) -> T:
    """`eventually` for a coroutine function, without blocking the loop."""
    end = time.monotonic() + deadline
    while True:
        failure: AssertionError | None = None
        try:
            if value := await condition():
                return value
        except AssertionError as error:
            failure = error
        if time.monotonic() >= end:
            raise DeadlinePassed(_message(condition, deadline, what)) from failure
        await asyncio.sleep(PAUSE)


def holds_throughout(condition: Callable[[], object], seconds: float, what: str = "") -> None:
    """Fail as soon as ``condition`` is no longer true during the next ``seconds``."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert condition(), what or f"{condition} stopped being true"
        time.sleep(PAUSE)


def _message(condition: object, deadline: float, what: str) -> str:
    return f"{what or condition} did not come true within {deadline:g} s"
