"""`two-beats`: the messages that two beats send for schedules that are due once."""

import math
import time

from bench.contestants import Contestant
from bench.engine.field import Field
from bench.report import Figure


def measure(field: Field) -> None:
    """Exactly `due` is right."""
    due = 100 if field.quick else 500
    field.compare("two-beats", "messages", lambda each: Figure(_messages(each, due), {"due": due}))


def _messages(each: Contestant, due: int) -> int:
    at = math.ceil(time.time() + 6.0 + 2 * each.startup + each.arming)
    each.arm(due, at)
    with each.running() as first, each.running() as second:
        for beat in (first, second):
            beat.expect("imported", 60)
        # Of RedBeat's two, the second waits for the lock and is never ready.
        time.sleep(max(0.0, at - time.time()))
        seen, since = 0, time.time()
        while time.time() < since + 4.0:
            time.sleep(0.1)
            if (count := each.sent()) != seen:
                seen, since = count, time.time()
    each.forget_sent()
    return seen
