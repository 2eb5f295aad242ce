"""Schedules under load while something fails, and the verdict about all their ticks and runs."""

import os
import time
from collections.abc import Sequence
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
from support import checker
from support.ledger import Ledger
from support.polling import eventually

CATALOGUE = Catalogue(
    [
        TaskSpec(name=f"support.{name}", path=f"support.tasks.{name}")
        for name in ("instant", "nap", "block", "fail", "first_try_hangs", "die", "eat")
    ]
)
# With the product's own leases and delays, and everything more often.
FULL = os.environ.get("UPBEAT_TEST_FAULTS") == "full"
SECOND = timedelta(seconds=1)
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
    """The schedules of one test; other rows of its database are not its business."""

    sessions: sessionmaker[Session]
    url: str
    redis_url: str
    ledger: Ledger
    schedules: list[str] = field(default_factory=list)

    def create(
        self, schedule: dict[str, Any], task: str = "support.instant", *, count: int = 1, **body: Any
    ) -> None:
        """Store schedules as the API does, in one transaction."""
        stated = ScheduleCreate.model_validate(
            {"task_name": task, "task_path": task, "schedule": schedule, **body}
        )
        with self.sessions.begin() as session:
            for _ in range(count):
                self.schedules.append(str(schedules.create(session, CATALOGUE, stated, "test").row.id))

    def tick(self, count: int = 3) -> None:
        """Schedules of a tick a second, each of which counts."""
        self.create(EVERY_SECOND, count=count, task_extra_config=EVERY_TICK_COUNTS)

    def runs(self) -> list[checker.RunRow]:
        mine = set(self.schedules)
        return [run for run in checker.read_runs(self.url) if run.schedule in mine]

    def now(self) -> datetime:
        """The database's real time."""
        with psycopg.connect(self.url) as connection:
            return connection.execute("SELECT pg_catalog.clock_timestamp()").fetchone()[0]  # type: ignore[index,no-any-return]

    def succeeded_since(self, instant: datetime) -> bool:
        """Whether a run that was made after ``instant`` has succeeded."""
        return any(run.created_at > instant and run.state == "succeeded" for run in self.runs())

    def recovery(self, deadline: float) -> float:
        """Seconds from now until a run that is made from now on has succeeded."""
        began, instant = time.monotonic(), datetime.now(UTC)

        def recovered() -> bool:
            try:
                return self.succeeded_since(instant)
            except psycopg.Error:
                return False

        eventually(recovered, deadline, "a run to succeed after the fault")
        return time.monotonic() - began

    def go_on(self, seconds: float) -> None:
        """Wait until a tick has a run that was made ``seconds`` from now or later."""
        until = datetime.now(UTC) + timedelta(seconds=seconds)
        eventually(
            lambda: any(run.created_at >= until for run in self.runs()), seconds + 20, "ticks to go on"
        )

    def stop(self) -> None:
        """Disable the schedules, so that what was named by them is all there is."""

        def disabled() -> bool:
            try:
                with self.sessions.begin() as session:
                    for each in self.schedules:
                        change = ScheduleUpdate(task_enabled=False)
                        schedules.update(session, CATALOGUE, UUID(each), change, "test")
            except DBAPIError:
                return False
            return True

        eventually(disabled, 30, "the schedules to be disabled")

    def settle(self, deadline: float = 60.0) -> list[checker.RunRow]:
        """The runs, once all are terminal (I3) and the queues are empty (I5)."""

        def settled() -> list[checker.RunRow]:
            found = self.runs()
            assert checker.unfinished(found) == []
            assert self.waiting() == 0, "I5: a queue has messages"
            return found

        return eventually(settled, deadline, "all runs to end and the queues to drain")

    def waiting(self) -> int:
        """Messages in the queues."""
        with redis.Redis.from_url(self.redis_url) as client:
            return sum(client.llen(queue) for queue in QUEUES)

    def verdict(
        self, runs: Sequence[checker.RunRow], epsilon: float | None = None, *, every: timedelta = SECOND
    ) -> list[str]:
        """What is wrong with I1 and I2 of schedules of a tick ``every``, and with I4 since ``runs`` were read.

        With ``epsilon``, no run was made later than that many seconds after its tick.
        """
        late = None if epsilon is None else timedelta(seconds=epsilon)
        entries, own_ids = self.ledger.entries(), {run.id for run in runs}
        concerned = own_ids | {entry.run for entry in entries}
        violations = checker.check_starts(
            entries, [run for run in checker.read_runs(self.url) if run.id in concerned]
        )
        for schedule in self.schedules:
            own = [run for run in runs if run.schedule == schedule]
            ticks = sorted(run.scheduled_for for run in own if run.scheduled_for is not None)
            if not ticks:
                violations.append(f"I1: schedule {schedule} has no run")
                continue
            named = checker.ticks_every(schedule, ticks[0], every, ticks[-1])
            violations += checker.check_ticks(named, own, late)
        return violations + checker.check_unchanged(runs, self.runs())

    def lateness(self) -> float:
        """The longest time in seconds that a run was made after its tick."""
        return max(
            (run.created_at - run.scheduled_for).total_seconds()
            for run in self.runs()
            if run.scheduled_for is not None
        )
