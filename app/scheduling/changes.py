"""What has changed since an instant: runs, schedules, and how much waits in each queue.

Nothing is written for those who watch: every change leaves its time in the tables, and indexes lead to the newest
ones, so the engine and the workers do the same whether anybody looks or not. What one transaction did is seen when it
commits, a little after the time that it wrote; whoever looks again and again goes back by that much, and knows what it
has seen.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlalchemy.orm import Session

from app.scheduling import backlog
from app.scheduling.ids import id_at

_RUN = """id, state, reason, origin, attempt, task, queue, schedule_id, scheduled_for, due_at, started_at, finished_at,
    worker, created_at"""


def _runs(limit: int) -> TextClause:
    # Each part is a range of one index: ended, started, made; and what had been running and goes back to its queue.
    return text(f"""
(SELECT {_RUN} FROM celery_task_runs WHERE finished_at > :since ORDER BY finished_at LIMIT {limit})
UNION ALL
(SELECT {_RUN} FROM celery_task_runs WHERE state = 'running' AND started_at > :since LIMIT {limit})
UNION ALL
(SELECT {_RUN} FROM celery_task_runs WHERE id >= :first AND state = 'queued' AND created_at > :since LIMIT {limit})
UNION ALL
(SELECT {_RUN} FROM celery_task_runs WHERE id = ANY(CAST(:running AS uuid[])) AND state = 'queued')
""")


LIMIT = 2000
_RUNS = _runs(LIMIT)

_SCHEDULES = text(f"""
SELECT v.schedule_id, v.version, v.action, v.author, v.changed_at, v.config ->> 'task_name' AS task_name,
       v.config ->> 'task' AS task, v.config ->> 'state' AS state
FROM celery_periodic_task_config_versions v
WHERE v.changed_at > :since ORDER BY v.changed_at LIMIT {LIMIT}
""")


@dataclass(frozen=True, slots=True)
class RunChange:
    """A run as it is after a change."""

    id: UUID
    state: str
    reason: str | None
    origin: str
    attempt: int
    task: str
    queue: str
    schedule_id: UUID | None
    scheduled_for: datetime | None
    due_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    worker: str | None
    created_at: datetime

    @property
    def at(self) -> datetime:
        """When it changed, as far as the row tells."""
        return self.finished_at or self.started_at or self.created_at


@dataclass(frozen=True, slots=True)
class ScheduleChange:
    """A version that a schedule got; `delete` is the last one."""

    schedule_id: UUID
    version: int
    action: str
    author: str
    changed_at: datetime
    task_name: str
    task: str
    state: str


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """How many runs of a queue are in each state, and how long the earliest that could start has waited (seconds)."""

    queue: str
    queued: int = 0
    held: int = 0
    delayed: int = 0
    blocked: int = 0
    running: int = 0
    oldest: float | None = None


@dataclass(frozen=True, slots=True)
class Changes:
    """All of an interval up to ``until``; ``cut``: there were more than are looked at."""

    until: datetime
    runs: tuple[RunChange, ...]
    schedules: tuple[ScheduleChange, ...]
    cut: bool


def read(
    session: Session, since: datetime, *, reach: timedelta = timedelta(0), running: Collection[UUID] = ()
) -> Changes:
    """What changed after ``since``, in the order of its times.

    ``running`` are runs that were so before. A tick that was decided so much (``reach``) later than its nominal time is
    seen as a queued run, too; an older one when it starts.
    """
    # A handful of rows: starting parallel workers for them took a hundred times as long as finding them.
    session.execute(text("SET LOCAL max_parallel_workers_per_gather = 0"))
    until = now(session)
    values = {"since": since, "first": id_at(since - reach), "running": list(running)}
    found = session.execute(_RUNS, values).all()
    schedules = session.execute(_SCHEDULES, {"since": since}).all()
    runs = sorted({row.id: RunChange(*row) for row in found}.values(), key=lambda run: run.at)
    cut = len(schedules) == LIMIT or len(found) >= LIMIT
    return Changes(until, tuple(runs), tuple(ScheduleChange(*row) for row in schedules), cut)


def depths(session: Session) -> dict[str, QueueDepth]:
    """The queues in which something is."""
    found: dict[str, dict[str, Any]] = {}
    for each in backlog.read(session).runs:
        queue = found.setdefault(each.queue, {"queue": each.queue})
        queue[each.state] = queue.get(each.state, 0) + each.number
        if each.state == "queued":
            queue["oldest"] = max(queue.get("oldest", 0.0), each.oldest)
    return {name: QueueDepth(**values) for name, values in found.items()}


def running(session: Session) -> set[UUID]:
    """What runs now."""
    return set(
        session.scalars(text(f"SELECT id FROM celery_task_runs WHERE state = 'running' LIMIT {LIMIT}"))
    )


def now(session: Session) -> datetime:
    """The database's time."""
    return session.execute(text("SELECT clock_timestamp()")).scalar_one()  # type: ignore[no-any-return]
