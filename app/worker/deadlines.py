"""What has to be done when something takes too long: one thread a process waits for all such deadlines."""

import heapq
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

from app.db.outages import is_away

logger = logging.getLogger(__name__)

CLEAR_FROM = 1000
AFTER_ERROR = 1.0

Act = Callable[[], float | None]


class _Alarm:
    """``act`` is None when what it watches is over."""

    def __init__(self, act: Act) -> None:
        self.act: Act | None = act


class Deadlines:
    """The deadlines of this process; a forked child starts with none."""

    def __init__(self) -> None:
        self._reset()
        os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._changed = threading.Condition()
        self._deadlines: list[tuple[float, int, _Alarm]] = []
        self._clear_at = CLEAR_FROM
        self._numbers = count()
        self._thread: threading.Thread | None = None

    @contextmanager
    def until(self, deadline: float, act: Act) -> Iterator[None]:
        """Call ``act`` in the watching thread if what runs inside is not over by then.

        It is called again after as many seconds as it answers, or a little later when it raises.
        """
        alarm = _Alarm(act)
        with self._changed:
            if len(self._deadlines) >= self._clear_at:
                self._clear()
            heapq.heappush(self._deadlines, (deadline, next(self._numbers), alarm))
            if self._thread is None:
                self._thread = threading.Thread(target=self._keep, name="upbeat-limits", daemon=True)
                self._thread.start()
            self._changed.notify()
        try:
            yield
        finally:
            # Without the lock: an interruption that is raised here would leave it locked.
            alarm.act = None

    def _clear(self) -> None:
        """Runs end long before their limits: without this, all of the last hours' would be kept."""
        self._deadlines = [each for each in self._deadlines if each[2].act is not None]
        heapq.heapify(self._deadlines)
        self._clear_at = max(CLEAR_FROM, 2 * len(self._deadlines))

    def _keep(self) -> None:
        while True:
            with self._changed:
                while not self._deadlines or self._deadlines[0][0] > time.monotonic():
                    first = self._deadlines[0][0] if self._deadlines else None
                    self._changed.wait(None if first is None else max(0.0, first - time.monotonic()))
                _, _, alarm = heapq.heappop(self._deadlines)
            again = self._call(alarm.act)
            if again is not None:
                with self._changed:
                    heapq.heappush(self._deadlines, (time.monotonic() + again, next(self._numbers), alarm))

    @staticmethod
    def _call(act: Act | None) -> float | None:
        if act is None:
            return None
        try:
            return act()
        except Exception as error:
            if not is_away(error):
                logger.exception("a limit was not kept", extra={"action": "limit_not_recorded"})
            return AFTER_ERROR


deadlines = Deadlines()
