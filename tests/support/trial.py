"""Schedules under load while something fails, and the verdict about all their ticks and runs."""

import os
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import redis
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from app.scheduling import schedules
from app.scheduling.catalogue import Catalogue, TaskSpec
from app.scheduling.config import ScheduleCreate, ScheduleUpdate
from app.scheduling.messages import QUEUES
from app.scheduling.models import ClockRow
from support import checker
from support.ledger import Ledger
from support.polling import DeadlinePassed, eventually

CATALOGUE = Catalogue(
    [
        TaskSpec(name=f"support.{name}", path=f"support.tasks.{name}")
        for name in ("instant", "nap", "block", "fail", "first_try_hangs", "die", "eat")
    ]
)
# With the product's own leases and delays, and everything more often.
FULL = os.environ.get("UPBEAT_TEST_FAULTS") == "full"
Report = Callable[[str, object], None]
SECOND = timedelta(seconds=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EVERY_SECOND = {"type": "interval", "every": 1, "unit": "seconds"}
EVERY_TICK_COUNTS = {"overlap": "allow_all", "catch_up": "all"}
# Short enough for a test of seconds; in full there is none of it.
QUICK = (
    {}
    if FULL
    else {
        "UPBEAT_WORKER_LEASE": "3",
        "UPBEAT_WORKER_LEASE_RENEWAL": "0.5",
        "UPBEAT_BEAT_SWEEP_EVERY": "0.5",
        "UPBEAT_BEAT_MAX_SLEEP": "0.5",
        "UPBEAT_BEAT_REDISPATCH_DELAY": "2",
    }
)


def soon(seconds: float = 1.0) -> dict[str, Any]:
    """A schedule of a single tick, that soon."""
    return {"type": "one_off", "at": (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()}


@dataclass
class Trial:
    """The schedules of one test; other rows of its database are not its business.

    What a schedule names is known from what was asked for, not from what was fired: from the first tick after its
    creation to the last one before `stop`. A tick that is lost at either end is missed as one in the middle is.
    ``ended`` are the runs that were terminal at `stop`.
    """

    sessions: sessionmaker[Session]
    url: str
    redis_url: str
    ledger: Ledger
    schedules: list[str] = field(default_factory=list)
    ended: list[checker.RunRow] = field(default_factory=list)
    _firsts: dict[str, tuple[datetime, timedelta | None]] = field(default_factory=dict)
    _decided: dict[str, datetime] = field(default_factory=dict)
    _stopped: datetime = EPOCH

    def create(
        self, schedule: dict[str, Any], task: str = "support.instant", *, count: int = 1, **body: Any
    ) -> None:
        """Store schedules as the API does, in one transaction; what is not stored is not part of the trial."""
        stated = ScheduleCreate.model_validate(
            {"task_name": task, "task_path": task, "schedule": schedule, **body}
        )
        with self.sessions.begin() as session:
            rows = [schedules.create(session, CATALOGUE, stated, "test").row for _ in range(count)]
            made = {str(row.id): _first_tick(schedule, row.created_at) for row in rows}
        self.schedules += made
        self._firsts |= made

    def tick(self, count: int = 3) -> None:
        """Schedules of a tick a second, each of which counts."""
        self.create(EVERY_SECOND, count=count, task_extra_config=EVERY_TICK_COUNTS)

    def runs(self) -> list[checker.RunRow]:
        """All that its schedules have made."""
        return checker.read_runs(self.url, *self.schedules) if self.schedules else []

    def is_run(self, condition: str, *values: object) -> bool:
        """Whether one of its schedules has made such a run."""
        return checker.is_run(
            self.url, f"schedule_id = ANY(%s::uuid[]) AND {condition}", self.schedules, *values
        )

    def now(self) -> datetime:
        """The database's real time."""
        with psycopg.connect(self.url) as connection:
            return connection.execute("SELECT pg_catalog.clock_timestamp()").fetchone()[0]  # type: ignore[index,no-any-return]

    def recovery(self, deadline: float) -> float:
        """Seconds from now until a run that is made from now on has succeeded."""
        began, instant = time.monotonic(), datetime.now(UTC)

        def recovered() -> bool:
            try:
                return self.is_run("created_at > %s AND state = 'succeeded'", instant)
            except psycopg.Error:
                return False

        eventually(recovered, deadline, "a run to succeed after the fault")
        return time.monotonic() - began

    def go_on(self, seconds: float) -> None:
        """Wait until a tick has a run that was made ``seconds`` from now or later."""
        until = datetime.now(UTC) + timedelta(seconds=seconds)
        eventually(lambda: self.is_run("created_at >= %s", until), seconds + 20, "ticks to go on")

    def stop(self) -> None:
        """Disable the schedules, so that what was named by them is all there is."""

        def disabled() -> bool:
            try:
                with self.sessions.begin() as session:
                    for each in map(UUID, self.schedules):
                        clock = session.get_one(ClockRow, each, with_for_update={"key_share": True})
                        # Nothing is due any more when an earlier attempt was committed, and its answer lost.
                        if clock.next_run_at is not None:
                            self._decided[str(each)] = clock.next_run_at
                        schedules.update(session, CATALOGUE, each, ScheduleUpdate(task_enabled=False), "test")
            except DBAPIError:
                return False
            return True

        eventually(disabled, 30, "the schedules to be disabled")
        self._stopped = self.now()
        self.ended = [run for run in self.runs() if run.state in checker.TERMINAL]

    def settle(self, deadline: float = 60.0) -> list[checker.RunRow]:
        """The runs, once all are terminal (I3) and the queues are empty (I5)."""

        def settled() -> bool:
            return not self.is_run("state IN ('queued', 'running')") and self.waiting() == 0

        with suppress(DeadlinePassed):
            eventually(settled, deadline)
        found = self.runs()
        checker.refuse(checker.unfinished(found) + checker.undrained(self.lengths()))
        return found

    def kept(self, promised: Collection[str], deadline: float = 60.0) -> list[checker.RunRow]:
        """The runs whose ids a caller was given, once all are there (I6) and terminal (I3)."""

        ids = list(promised)
        with suppress(DeadlinePassed):
            waits = "id = ANY(%s::uuid[]) AND state IN ('queued', 'running')"
            eventually(lambda: not checker.is_run(self.url, waits, ids), deadline)
        runs = [run for run in checker.read_runs(self.url) if run.id in promised]
        checker.refuse(checker.check_promises(promised, runs) + checker.unfinished(runs))
        return runs

    def lengths(self) -> dict[str, int]:
        """The messages in each queue."""
        with redis.Redis.from_url(self.redis_url) as client:
            return {queue: client.llen(queue) for queue in QUEUES}

    def waiting(self) -> int:
        """The messages in all queues."""
        return sum(self.lengths().values())

    def verdict(self, runs: Sequence[checker.RunRow], epsilon: float | None = None) -> list[str]:
        """What is wrong with I1 and I2 of the schedules, and with I4 since `stop` and since ``runs`` were read.

        With ``epsilon``, no run was made later than that many seconds after its tick.
        """
        late = None if epsilon is None else timedelta(seconds=epsilon)
        entries, own_ids = self.ledger.entries(), {run.id for run in runs}
        concerned = own_ids | {entry.run for entry in entries}
        violations = checker.check_starts(
            entries, [run for run in checker.read_runs(self.url) if run.id in concerned]
        )
        violations += self.check_ticks(runs, late)
        violations += checker.check_unchanged(self.ended, runs)
        return violations + checker.check_unchanged(runs, self.runs())

    def check_ticks(
        self,
        runs: Sequence[checker.RunRow],
        late: timedelta | None = None,
        *,
        early: timedelta = timedelta(0),
    ) -> list[str]:
        """I1 of each schedule, of all ``runs`` there are; ``late`` and ``early`` as the checker takes them."""
        by_schedule: dict[str | None, list[checker.RunRow]] = {}
        for run in runs:
            by_schedule.setdefault(run.schedule, []).append(run)
        violations = []
        for schedule in self.schedules:
            named, own = self._named(schedule, late), by_schedule.get(schedule, [])
            violations += checker.check_ticks(named, own, late, early=early)
        return violations

    def _named(self, schedule: str, late: timedelta | None) -> list[checker.Tick]:
        """The ticks that must have a run: all that were decided before the end, and all that were late by then."""
        first, every = self._firsts[schedule]
        if every is None:
            return [checker.Tick(schedule, first)]
        end = self._decided[schedule]
        if late is not None:
            end = max(end, self._stopped - late)
        return checker.ticks_every(schedule, first, every, end - timedelta(microseconds=1))

    def lateness(self) -> float:
        """The longest time in seconds that a run was made after its tick."""
        return max(
            (run.created_at - run.scheduled_for).total_seconds()
            for run in self.runs()
            if run.scheduled_for is not None
        )


def _first_tick(schedule: dict[str, Any], made: datetime) -> tuple[datetime, timedelta | None]:
    """The first tick of an interval or a one-off that was made at this instant, and the time between two ticks."""
    if schedule["type"] == "one_off":
        # Never early: a fraction waits for the next whole second.
        return EPOCH - (EPOCH - datetime.fromisoformat(schedule["at"])) // SECOND * SECOND, None
    every = timedelta(**{schedule["unit"]: schedule["every"]})
    return EPOCH + ((made - EPOCH) // every + 1) * every, every
