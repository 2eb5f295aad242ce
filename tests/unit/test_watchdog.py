"""When a loop counts as hung."""

import logging
import threading
import time

from app.worker import watchdog
from app.worker.watchdog import Watchdog
from support.polling import eventually, holds_throughout


def test_a_loop_that_stops_turning_is_bitten_once() -> None:
    bites: list[str] = []
    dog = Watchdog("the loop", 0.2, bites.append)
    dog.start()
    dog.turned()
    assert eventually(lambda: bites, 10) == bites
    holds_throughout(lambda: len(bites) == 1, 0.3)
    assert bites[0].startswith("the loop has not turned for ")


def test_a_loop_that_hangs_in_the_log_is_bitten() -> None:
    class Hanging(logging.Handler):
        def emit(self, _: logging.LogRecord) -> None:
            over.wait(30)

    bites: list[str] = []
    over, handler = threading.Event(), Hanging()
    logging.getLogger(watchdog.__name__).addHandler(handler)
    try:
        Watchdog("the loop", 0.1, bites.append).start()
        eventually(lambda: bites, 10)
    finally:
        over.set()
        logging.getLogger(watchdog.__name__).removeHandler(handler)


def test_a_loop_that_turns_or_is_busy_or_has_ended_is_left_alone() -> None:
    bites: list[str] = []
    turning = Watchdog("turning", 3, bites.append)
    busy = Watchdog("busy", 0.1, bites.append, busy=lambda: True)
    ended = Watchdog("ended", 0.1, bites.append)
    over = threading.Event()

    def loop() -> None:
        while not over.wait(0.01):
            turning.turned()

    threading.Thread(target=loop, daemon=True).start()
    ended.stop()
    for dog in (turning, busy, ended):
        dog.start()
    holds_throughout(lambda: not bites, 0.5)
    for dog in (turning, busy):
        dog.stop()
    over.set()


def test_time_in_which_nobody_ran_does_not_count() -> None:
    """As when the process is stopped and continued: the clock has gone on, this thread has not."""
    bites: list[str] = []
    clock = Clock()
    dog = Watchdog("the loop", 20.0, bites.append, clock=clock)
    dog.start()
    eventually(lambda: clock.readings >= 2)
    clock.ahead += 3600.0
    before = clock.readings
    eventually(lambda: clock.readings >= before + 2)
    assert bites == []
    dog.stop()


class Clock:
    """A monotonic clock that can jump."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self.readings = 0

    def __call__(self) -> float:
        self.readings += 1
        return time.monotonic() + self.ahead
