"""`profile`: where the time of a burst goes: each statement, the commit, publishing, and our own code.

Times are taken around each call to the database; what is left is deciding: reading configurations, policies,
timing, ids, and making parameters. Publishing goes on beside them, in its own thread, so it counts only as far as
the beat had to wait for it at the end of a batch; while it makes envelopes, the others wait for the interpreter. The
processor time of beat and database is less blurred by other work on the machine than the clock's.
"""

import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from sqlalchemy import event, text

from app.scheduling import statements
from app.scheduling.messages import RunMessage
from bench.beats.places import MOST
from bench.contestants import process_clock
from bench.engine.field import BENCH, Field
from bench.engine.rig import Rig
from bench.report import report

NAMES = {
    statements.claim(500).text: "claim",
    **{
        getattr(statements, constant).text: constant.lower()
        for constant in dir(statements)
        if constant.isupper() and hasattr(getattr(statements, constant), "text")
    },
}


BESIDE = "publish"


class Stopwatch:
    """Adds up seconds by name."""

    def __init__(self, rig: Rig) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._began = 0.0
        event.listen(rig.engine, "before_cursor_execute", self._before)
        event.listen(rig.engine, "after_cursor_execute", self._after)
        # The dialect's own methods: SQLAlchemy's events tell when a commit begins, not when it ended.
        self._time(rig.engine.dialect, "do_commit", "commit")
        self._time(rig.publisher, "publish", BESIDE)
        self._time(rig.beat, "settle", "waiting for the publisher")

    def _before(self, *_: Any) -> None:
        self._began = time.perf_counter()

    def _after(self, _connection: Any, _cursor: Any, _sql: str, _values: Any, context: Any, *_: Any) -> None:
        elapsed = time.perf_counter() - self._began
        statement = context.invoked_statement
        self.seconds[NAMES.get(getattr(statement, "text", ""), "other statements")] += elapsed

    def _time(self, owner: Any, method: str, name: str) -> None:
        original = getattr(owner, method)

        def timed(*arguments: Sequence[RunMessage]) -> None:
            began = time.perf_counter()
            original(*arguments)
            self.seconds[name] += time.perf_counter() - began

        setattr(owner, method, timed)


def measure(field: Field) -> None:
    """Microseconds a fire, and shares."""
    due, rig = min(MOST, field.size), Rig(field)
    rig.burst(due)
    watch = Stopwatch(rig)
    rounds = 2 if field.quick else 5
    rates: list[float] = []
    total, beat, database = 0.0, 0.0, 0.0
    with rig.sessions() as session:
        # The pool has one connection in use, and gives out the same again.
        backend = process_clock(session.execute(text("SELECT pg_backend_pid()")).scalar_one())
    for _ in range(rounds):
        before = dict(watch.seconds)
        rig.arm(due)
        for name in watch.seconds:
            watch.seconds[name] = before.get(name, 0.0)
        began = time.perf_counter(), time.process_time(), time.clock_gettime(backend)
        while rig.beat.fire():
            pass
        rig.beat.settle()
        elapsed = time.perf_counter() - began[0]
        beat += time.process_time() - began[1]
        database += time.clock_gettime(backend) - began[2]
        total += elapsed
        rates.append(due / elapsed)
        rig.contestant.forget_sent()

    def per_fire(seconds: float) -> float:
        return round(1e6 * seconds / (rounds * due), 1)

    beside = watch.seconds.pop(BESIDE)
    parts = {**watch.seconds, "deciding, in Python": total - sum(watch.seconds.values())}
    ordered = sorted(((name, spent) for name, spent in parts.items() if spent > 0), key=lambda part: -part[1])
    report(
        BENCH,
        "profile",
        field.size,
        1e6 * total / (rounds * due),
        "µs a fire",
        dominates=ordered[0][0],
        microseconds={name: per_fire(spent) for name, spent in ordered},
        publishing_beside=per_fire(beside),
        cpu={"beat": per_fire(beat), "database": per_fire(database)},
        rounds=[round(rate) for rate in rates],
        shares={name: round(spent / total, 3) for name, spent in ordered},
    )
    rig.close()
