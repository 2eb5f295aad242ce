"""The engine without processes: beats, workers and people as calls, on a database whose clock the test holds."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.orm import Session, sessionmaker

from app.scheduling import drift, liveness, pausing, resuming, runs, schedules
from app.scheduling.catalogue import Catalogue, TaskSpec
from app.scheduling.config import ScheduleCreate, ScheduleUpdate
from app.scheduling.dispatch import Dispatcher
from app.scheduling.ids import new_id
from app.scheduling.messages import QUEUES, BrokerUnavailable, RunMessage, Survey
from app.scheduling.models import ClockRow, MissedRangeRow, RunRow, ScheduleRow, ScheduleVersionRow
from app.scheduling.runs import Outcome, RunState
from app.settings import Settings
from support.clock import DatabaseClock

TASK = TaskSpec(name="module.task", path="module.tasks.task", aliases=("old.task",), soft_time_limit=9.0)
CATALOGUE = Catalogue([TASK])
EVERY_MINUTE = {"type": "crontab", "expression": "* * * * *"}
DELAY = 30.0
TABLES = (
    "celery_task_runs, celery_task_run_attempts, celery_task_missed_ranges, celery_workers, celery_beats,"
    " celery_periodic_task_configs, celery_periodic_task_config_versions, celery_periodic_task_clocks,"
    " celery_task_catalogues, celery_queue_pauses"
)
LONG = 10 * 365 * 86400.0


class Wakeups:
    """Keeps what it is given, refuses it, or loses it."""

    def __init__(self) -> None:
        self.sent: list[RunMessage] = []
        self.away = False
        self.lost = False
        self.mark = "first"
        self.lengths = dict.fromkeys(QUEUES, 1)

    def survey(self) -> Survey:
        if self.away:
            raise BrokerUnavailable("away")
        return Survey(self.lengths, self.mark)

    def discard(self, queues: Sequence[str]) -> int:
        if self.away:
            raise BrokerUnavailable("away")
        return 0

    def publish(self, messages: Sequence[RunMessage]) -> None:
        if self.away:
            raise BrokerUnavailable("away")
        if self.lost:
            return
        self.sent.extend(messages)


def checked(
    sync: sessionmaker[Session], catalogue: Catalogue, *, after: UUID = drift.FIRST, pages: int | None = None
) -> drift.Drift:
    """Check all schedules as a deployment does, or ``pages`` pages of those that are younger than ``after``."""
    found = drift.Drift(next=after)
    while found.next is not None and (pages is None or pages > 0):
        with sync.begin() as session:
            found.add(drift.check_page(session, catalogue, found.next))
        pages = None if pages is None else pages - 1
    if found.next is None and after == drift.FIRST:
        with sync.begin() as session:
            drift.remember(session, catalogue)
    return found


class Engine:
    """One database, one clock, any number of beats; one worker whose lease lasts until it is retired."""

    def __init__(self, sync: sessionmaker[Session], settings: Settings, clock: DatabaseClock) -> None:
        self.sync = sync
        self.clock = clock
        self.wakeups = Wakeups()
        self.settings = settings.model_copy(
            update={
                "beat": settings.beat.model_copy(update={"sweep_every": 1e-9}),
                "worker": settings.worker.model_copy(update={"lease": 1e-9}),
            }
        )
        self.worker = self.new_worker()
        self.beat = self.new_beat()

    def new_beat(self) -> Dispatcher:
        return Dispatcher(self.sync, self.wakeups, CATALOGUE, self.settings, name="beat")

    def new_worker(self) -> UUID:
        identifier = new_id()
        with self.sync.begin() as session:
            liveness.register_worker(session, identifier, name="w@host", pid=1, queues=["celery"], lease=LONG)
        return identifier

    def lose_worker(self) -> None:
        """The worker dies; another one takes its place."""
        with self.sync.begin() as session:
            liveness.retire_worker(session, self.worker)
        self.worker = self.new_worker()

    def passes(self, seconds: float = 0) -> None:
        """Move the clock, then let a beat pass until nothing is due."""
        if seconds:
            self.clock.advance(seconds)
        while self.beat.run_pass() == 0:
            pass

    def create(self, schedule: dict[str, Any] | None = None, **extra: object) -> UUID:
        body = ScheduleCreate.model_validate(
            {
                "task_name": "test",
                "task_path": "old.task",
                "schedule": schedule or EVERY_MINUTE,
                "task_args": [1],
                "task_kwargs": {"a": "ö"},
                "task_extra_config": extra,
            }
        )
        with self.sync.begin() as session:
            return schedules.create(session, CATALOGUE, body, "me").row.id

    def update(self, schedule: UUID, /, **change: object) -> None:
        with self.sync.begin() as session:
            schedules.update(session, CATALOGUE, schedule, ScheduleUpdate.model_validate(change), "me")

    def pause(self, schedule: UUID, note: str = "because") -> None:
        with self.sync.begin() as session:
            pausing.pause(session, schedule, note=note, author="me")

    def resume(self, schedule: UUID, **how: Any) -> resuming.Resumption:
        with self.sync.begin() as session:
            done = resuming.resume(session, CATALOGUE, schedule, author="me", **how)
        self.wakeups.publish(done.messages)
        return done

    def start(self, run_id: UUID, attempt: int = 1) -> runs.Started | None:
        with self.sync.begin() as session:
            started = runs.start(
                session, run_id, attempt=attempt, worker_id=self.worker, worker="w@host", token=new_id()
            )
            assert not isinstance(started, runs.Held)
            return started

    def finish(self, run_id: UUID, state: RunState = RunState.SUCCEEDED, attempt: int = 1) -> RunState | None:
        error = {"type": "ValueError", "message": "no", "traceback": None} if state == "failed" else None
        outcome = Outcome(state, error=error, retryable=state is RunState.FAILED)
        with self.sync.begin() as session:
            return runs.finish(session, run_id, attempt=attempt, outcome=outcome)

    def execute(self, run_id: UUID, state: RunState = RunState.SUCCEEDED) -> None:
        assert self.start(run_id) is not None, "the run could not be started"
        assert self.finish(run_id, state) is not None

    def cancel(self, run_id: UUID) -> RunState | None:
        with self.sync.begin() as session:
            return runs.cancel(session, run_id)

    def rows(self, schedule: UUID) -> list[RunRow]:
        with self.sync() as session:
            query = select(RunRow).where(RunRow.schedule_id == schedule)
            return list(session.scalars(query.order_by(RunRow.scheduled_for, RunRow.id)))

    def states(self, schedule: UUID) -> list[str]:
        """State, or state and reason, of each run by its tick; a waiting one is said to wait."""
        return [_words(row) for row in self.rows(schedule)]

    def row(self, schedule: UUID) -> ScheduleRow:
        with self.sync() as session:
            return session.get_one(ScheduleRow, schedule)

    def next_run_at(self, schedule: UUID) -> datetime | None:
        return self.clock_row(schedule).next_run_at

    def clock_row(self, schedule: UUID) -> ClockRow:
        with self.sync() as session:
            return session.get_one(ClockRow, schedule)

    def missed(self, schedule: UUID) -> list[tuple[datetime, datetime, int | None, str]]:
        with self.sync() as session:
            query = select(MissedRangeRow).where(MissedRangeRow.schedule_id == schedule)
            found = session.scalars(query.order_by(MissedRangeRow.first))
            return [(row.first, row.last, row.count, row.reason) for row in found]

    def actions(self, schedule: UUID) -> list[tuple[str, str]]:
        """Action and author of each version."""
        with self.sync() as session:
            query = select(ScheduleVersionRow).where(ScheduleVersionRow.schedule_id == schedule)
            found = session.scalars(query.order_by(ScheduleVersionRow.version))
            return [(row.action, row.author) for row in found]

    def execute_sql(self, statement: str, **values: object) -> None:
        with self.sync.begin() as session:
            session.execute(text(statement), values)


def _words(row: RunRow) -> str:
    if row.blocked_by is not None and row.state == "queued":
        return "waiting"
    return f"{row.state} {row.reason}" if row.reason else row.state


MINUTE = timedelta(minutes=1)
