"""The only place in the tests that waits: poll with a deadline, never sleep a fixed time."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

PAUSE = 0.02
LONGEST_PAUSE = 0.1

T = TypeVar("T")


class DeadlinePassed(AssertionError):
    """A condition did not come true in time."""


def eventually(condition: Callable[[], T], deadline: float = 10.0, what: str = "") -> T:
    """Call ``condition`` until it gives something true, and return that; ``deadline`` in seconds.

    An AssertionError inside the condition counts as "not yet"; the last one is the cause of the
    error that is raised when the deadline passes.
    """
    began = time.monotonic()
    end = began + deadline
    while True:
        failure: AssertionError | None = None
        try:
            if value := condition():
                return value
        except AssertionError as error:
            failure = error
        if time.monotonic() >= end:
            raise DeadlinePassed(_message(condition, deadline, what)) from failure
        time.sleep(_pause(began))


async def eventually_async(
    condition: Callable[[], Awaitable[T]], deadline: float = 10.0, what: str = ""
) -> T:
    """`eventually` for a coroutine function, without blocking the loop."""
    began = time.monotonic()
    end = began + deadline
    while True:
        failure: AssertionError | None = None
        try:
            if value := await condition():
                return value
        except AssertionError as error:
            failure = error
        if time.monotonic() >= end:
            raise DeadlinePassed(_message(condition, deadline, what)) from failure
        await asyncio.sleep(_pause(began))


def holds_throughout(condition: Callable[[], object], seconds: float, what: str = "") -> None:
    """Fail as soon as ``condition`` is no longer true during the next ``seconds``."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert condition(), what or f"{condition} stopped being true"
        time.sleep(PAUSE)


def _pause(began: float) -> float:
    """A twentieth of what was waited already: what is asked for, a process that starts, needs the processor too."""
    return min(LONGEST_PAUSE, max(PAUSE, (time.monotonic() - began) / 20))


def _message(condition: object, deadline: float, what: str) -> str:
    return f"{what or condition} did not come true within {deadline:g} s"
