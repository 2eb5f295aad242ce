"""A loop that no longer turns ends its process, so that the supervisor starts another one.

A hung loop looks alive to everyone else: the process exists, and the lease is renewed by a thread.
What counts is the time that this thread itself was awake, so that a process that was stopped and
continued is not taken for one whose loop hangs.
"""

import faulthandler
import logging
import sys
import threading
import time
from collections.abc import Callable

logger = logging.getLogger(__name__)

EXIT_STATUS = 71
LOOKS = 20
TELLING = 2.0


class Watchdog:
    """Calls ``bite`` once when `turned` was not called for ``patience`` seconds; ``busy`` excuses a loop."""

    def __init__(
        self,
        what: str,
        patience: float,
        bite: Callable[[str], object],
        busy: Callable[[], bool] | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._what = what
        self._patience = patience
        self._bite = bite
        self._busy = busy or (lambda: False)
        self._clock = clock
        self._turns = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="upbeat-watchdog", daemon=True)

    def start(self) -> None:
        """Watch from now on."""
        self._thread.start()

    def turned(self) -> None:
        """The loop turns; costs next to nothing."""
        self._turns += 1

    def stop(self) -> None:
        """Watch no more: the loop is about to end."""
        self._over.set()

    def _watch(self) -> None:
        interval = self._patience / LOOKS
        seen, stuck, looked = self._turns, 0.0, self._clock()
        while not self._over.wait(interval):
            now = self._clock()
            if self._turns != seen or self._busy():
                seen, stuck = self._turns, 0.0
            else:
                stuck += min(now - looked, 2 * interval)
            looked = now
            if stuck >= self._patience:
                why = f"{self._what} has not turned for {stuck:.0f} s"
                # Apart: whoever hangs may hang in writing to the log, and hold its lock.
                telling = threading.Thread(target=_tell, args=(why,), name="upbeat-watchdog-log", daemon=True)
                telling.start()
                telling.join(TELLING)
                self._bite(why)
                return


def _tell(why: str) -> None:
    logger.critical("this process ends: %s", why, extra={"action": "watchdog"})
    faulthandler.dump_traceback(sys.__stderr__ or sys.stderr, all_threads=True)
