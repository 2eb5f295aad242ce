"""Waiting for the end of a run, step by step: the order of things, for a shell that performs them.

A run's stream tells its end at once. Where there is none, or it is cut off, the run is looked at
again and again, at growing distances.
"""

import random
from collections.abc import Callable, Generator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final, Generic, TypeVar

from upbeat_sdk._errors import ResultTimeout, UpbeatError
from upbeat_sdk._events import Event
from upbeat_sdk._exchange import passing
from upbeat_sdk._generated.models import Run as Record

OVER: Final = "end"
FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 5.0
GROWTH: Final = 1.5
# Without a time-out, this many failures in a row are taken for good.
FAILURES: Final = 10
LONGEST_READ: Final = 30.0
SHORTEST: Final = 0.05
TERMINAL = frozenset({"succeeded", "failed", "timed_out", "lost", "cancelled", "expired", "skipped"})

R = TypeVar("R", bound=Record)


class Heard(Enum):
    """How listening to a stream ended."""

    END = auto()
    CUT = auto()
    NO_STREAM = auto()


@dataclass(frozen=True, slots=True)
class Sleep:
    """Do nothing for this many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Look:
    """Read the run, within this many seconds."""

    within: float | None


@dataclass(frozen=True, slots=True)
class Listen:
    """Follow the run's stream until its end, until it is silent for ``read``, or is read past ``until``."""

    read: float
    until: float | None

    def past(self, now: float) -> bool:
        """Whether the next read could end too late."""
        return self.until is not None and now + self.read > self.until + SHORTEST


@dataclass(frozen=True, slots=True)
class Answer(Generic[R]):
    """What came of a step: the run as it was seen, how listening ended, or what went wrong."""

    run: R | None = None
    heard: Heard | None = None
    error: UpbeatError | None = None


Step = Sleep | Look | Listen


class View(Generic[R]):
    """A run as it was seen last; ``watch`` is told when its state, its attempt or its progress is another."""

    def __init__(self, run: R, watch: Callable[[R], object] | None) -> None:
        self._run = run
        self._watch = watch
        self._told: object = None

    def saw(self, run: R | None) -> None:
        """It was read; None: that failed."""
        self._run = run or self._run
        now = (self._run.state, self._run.attempt, self._run.progress)
        if self._watch is not None and now != self._told:
            self._told = now
            self._watch(self._run)

    def heard(self, events: list[Event]) -> bool:
        """Its stream told something; answers whether that was the end."""
        for event in events if self._watch is not None else ():
            changes: dict[str, Any] = {}
            if event.name == "state":
                told = event.json()
                changes = {"state": told["state"], "attempt": told["attempt"]}
            elif event.name == "progress":
                changes = {"progress": event.json()}
            if changes:
                self.saw(self._run.model_copy(update=changes))
        return any(event.name == OVER for event in events)


def until_over(run: R, timeout: float | None, clock: Callable[[], float]) -> Generator[Step, Answer[R], R]:
    """The steps that wait for the end of ``run``; gives the run as it ended.

    Raises:
        ResultTimeout: ``timeout`` seconds passed.
    """
    ends = None if timeout is None else clock() + timeout
    pause, failures, streams = FIRST_PAUSE, 0, True
    while run.state not in TERMINAL:
        answer = yield Look(_left(ends, clock))
        failures = _counted(answer, failures, endless=ends is None)
        run = answer.run or run
        if run.state in TERMINAL:
            break
        left = _left(ends, clock)
        if left is not None and left <= SHORTEST:
            raise ResultTimeout(run, timeout or 0.0)
        if streams:
            heard = (yield Listen(LONGEST_READ if left is None else min(left, LONGEST_READ), ends)).heard
            streams = heard is Heard.CUT
            if heard is Heard.END:
                continue
        # Jitter keeps many waiters from asking in step.
        wish = pause * random.uniform(0.8, 1.2)  # noqa: S311 - spreads load, hides nothing
        left = _left(ends, clock)
        yield Sleep(wish if left is None else max(0.0, min(wish, left)))
        pause = min(pause * GROWTH, LONGEST_PAUSE)
    return run


def _left(ends: float | None, clock: Callable[[], float]) -> float | None:
    return None if ends is None else max(SHORTEST, ends - clock())


def _counted(answer: Answer[R], failures: int, *, endless: bool) -> int:
    if answer.error is None:
        return 0
    if not passing(answer.error) or (endless and failures >= FAILURES):
        raise answer.error
    return failures + 1
