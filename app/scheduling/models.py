"""The tables of the domain: schedules, their clocks and versions, runs, and who is alive.

A schedule is split in two. `ScheduleRow` is the configuration, wide and rarely written; `ClockRow`
is what each firing rewrites, and holds nothing else. Runs, their attempts and logs are range
partitioned by run id, which is by time (see `app.scheduling.ids`); there are no foreign keys to
runs, so that old partitions can be dropped without touching the rest.
"""

from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Computed, Date, ForeignKey, Index, PrimaryKeyConstraint, SmallInteger, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base, PrimaryId

RUNS = "celery_task_runs"
ATTEMPTS = "celery_task_run_attempts"
LOGS = "celery_task_run_logs"
NOW = text("clock_timestamp()")


class ScheduleRow(Base):
    """One schedule: what to run, when, and under which policies.

    ``owner`` is `code` or `file` when it is declared there, under ``owner_key``; NULL for people's own. ``drifted``:
    it is invalid because it does not fit its task any more, and active again when it does.
    """

    __tablename__ = "celery_periodic_task_configs"
    __table_args__ = (
        Index(None, "task_name"),
        Index(None, "task"),
        Index(None, "paused_by", postgresql_where=text("paused_by IS NOT NULL")),
        Index(
            "uq_celery_periodic_task_configs_owner",
            "owner",
            "owner_key",
            unique=True,
            postgresql_where=text("owner IS NOT NULL"),
        ),
        Index(
            "ix_celery_periodic_task_configs_calendars",
            "id",
            postgresql_where=text("task_extra_config ? 'calendars'"),
        ),
        Index(
            "ix_celery_periodic_task_configs_grace",
            "id",
            postgresql_where=text("task_extra_config ? 'grace'"),
        ),
    )

    id: Mapped[PrimaryId]
    version: Mapped[int] = mapped_column(default=1)
    task_name: Mapped[str]
    task_path: Mapped[str]
    task: Mapped[str]
    task_type: Mapped[str]
    state: Mapped[str]
    state_reason: Mapped[str | None]
    schedule: Mapped[dict[str, Any]]
    task_args: Mapped[list[Any]]
    task_kwargs: Mapped[dict[str, Any]]
    task_extra_config: Mapped[dict[str, Any]]
    description: Mapped[str | None]
    paused_at: Mapped[datetime | None]
    paused_by: Mapped[str | None]
    pause_note: Mapped[str | None]
    owner: Mapped[str | None]
    owner_key: Mapped[str | None]
    drifted: Mapped[bool] = mapped_column(default=False, server_default="false")
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    updated_at: Mapped[datetime] = mapped_column(server_default=NOW)


class CatalogueRow(Base):
    """The tasks that every schedule was last checked against, by their fingerprint; one row."""

    __tablename__ = "celery_task_catalogues"

    fingerprint: Mapped[str] = mapped_column(primary_key=True)
    checked_at: Mapped[datetime] = mapped_column(server_default=NOW)


class ScheduleVersionRow(Base):
    """A schedule as it was after one change. Outlives the schedule, so it has no foreign key."""

    __tablename__ = "celery_periodic_task_config_versions"
    __table_args__ = (Index(None, "changed_at"),)

    schedule_id: Mapped[UUID] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    action: Mapped[str]
    config: Mapped[dict[str, Any]]
    author: Mapped[str]
    reason: Mapped[str | None]
    changed_at: Mapped[datetime] = mapped_column(server_default=NOW)


class ClockRow(Base):
    """When a schedule fires next (nominal time, NULL while it does not), and what it counts.

    ``run_count`` is what `max_runs` limits, ``failures`` the failed runs in a row. The row is what is locked while
    a tick is decided, and while the end of a run changes what its schedule does next.
    """

    __tablename__ = "celery_periodic_task_clocks"
    __table_args__ = (
        Index(
            "ix_celery_periodic_task_clocks_due",
            "next_run_at",
            postgresql_where=text("next_run_at IS NOT NULL"),
        ),
        {
            "postgresql_with": {
                "fillfactor": "70",
                "autovacuum_vacuum_scale_factor": "0.01",
                "autovacuum_vacuum_threshold": "1000",
                "autovacuum_vacuum_cost_delay": "0",
            }
        },
    )

    schedule_id: Mapped[UUID] = mapped_column(
        ForeignKey("celery_periodic_task_configs.id", ondelete="CASCADE"), primary_key=True
    )
    next_run_at: Mapped[datetime | None]
    run_count: Mapped[int] = mapped_column(server_default="0")
    failures: Mapped[int] = mapped_column(server_default="0")


class MissedRangeRow(Base):
    """Ticks that were not decided one by one: missed beyond catch-up, or passed while paused."""

    __tablename__ = "celery_task_missed_ranges"
    __table_args__ = (PrimaryKeyConstraint("schedule_id", "first", "last"),)

    schedule_id: Mapped[UUID]
    first: Mapped[datetime]
    last: Mapped[datetime]
    count: Mapped[int | None]
    reason: Mapped[str]
    recorded_at: Mapped[datetime] = mapped_column(server_default=NOW)


class RunRow(Base):
    """One intended execution, from its tick or request to its outcome.

    ``blocked_by`` is the run after whose end this one has its turn. ``settles``: its end changes what its schedule
    does next, so whoever ends it locks the schedule's clock first (`app.scheduling.settlement`). While
    ``streamed_until`` lies ahead, somebody follows it, and is notified. ``limit_key`` is what its limits are
    shared by, ``limit_slot_at`` the start that a rate limit reserved for it (`app.scheduling.limiting`).
    ``traceparent`` names the span that asked for it, ``request_id`` the HTTP request.
    """

    __tablename__ = RUNS
    __table_args__ = (
        Index(
            "ix_celery_task_runs_dispatch",
            "next_dispatch_at",
            postgresql_where=text("next_dispatch_at IS NOT NULL"),
        ),
        Index("ix_celery_task_runs_running", "worker_id", postgresql_where=text("state = 'running'")),
        Index(
            "ix_celery_task_runs_active",
            "schedule_id",
            postgresql_where=text("state IN ('queued', 'running') AND origin = 'schedule'"),
        ),
        Index(
            "ix_celery_task_runs_schedule",
            "schedule_id",
            "id",
            postgresql_where=text("schedule_id IS NOT NULL"),
        ),
        Index("ix_celery_task_runs_replay", "replay_of", postgresql_where=text("replay_of IS NOT NULL")),
        Index(
            "ix_celery_task_runs_canvas",
            "id",
            postgresql_where=text("canvas_open AND finished_at IS NOT NULL"),
        ),
        Index(
            "ix_celery_task_runs_failed",
            "id",
            postgresql_where=text("state IN ('failed', 'timed_out', 'lost')"),
        ),
        Index("ix_celery_task_runs_waiting", "blocked_by", postgresql_where=text("blocked_by IS NOT NULL")),
        Index(
            "ix_celery_task_runs_backfill",
            "schedule_id",
            "scheduled_for",
            postgresql_where=text("origin = 'backfill'"),
        ),
        Index(
            "ix_celery_task_runs_limited",
            "limit_key",
            postgresql_where=text("limit_key IS NOT NULL AND state = 'running'"),
        ),
        Index(
            "ix_celery_task_runs_held",
            "limit_key",
            "due_at",
            postgresql_where=text("state = 'queued' AND reason = 'concurrency_limit'"),
        ),
        Index(
            "ix_celery_task_runs_reserved",
            "limit_key",
            "limit_slot_at",
            postgresql_where=text("state = 'queued' AND limit_slot_at IS NOT NULL"),
        ),
        Index(
            "ix_celery_task_runs_finished",
            "finished_at",
            postgresql_where=text("finished_at IS NOT NULL"),
        ),
        {"postgresql_partition_by": "RANGE (id)"},
    )

    id: Mapped[PrimaryId]
    state: Mapped[str]
    reason: Mapped[str | None]
    origin: Mapped[str]
    task: Mapped[str]
    queue: Mapped[str]
    schedule_id: Mapped[UUID | None]
    schedule_version: Mapped[int | None]
    scheduled_for: Mapped[datetime | None]
    due_at: Mapped[datetime]
    start_deadline: Mapped[datetime | None]
    next_dispatch_at: Mapped[datetime | None]
    dispatches: Mapped[int] = mapped_column(SmallInteger, server_default="0")
    published_at: Mapped[datetime | None]
    blocked_by: Mapped[UUID | None]
    settles: Mapped[bool] = mapped_column(server_default="false")
    cancel_requested_at: Mapped[datetime | None]
    cancel_reason: Mapped[str | None]
    attempt: Mapped[int] = mapped_column(SmallInteger, server_default="1")
    worker: Mapped[str | None]
    worker_id: Mapped[UUID | None]
    start_token: Mapped[UUID | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    args: Mapped[list[Any]]
    kwargs: Mapped[dict[str, Any]]
    options: Mapped[dict[str, Any]]
    result: Mapped[Any | None] = mapped_column(type_=Base.type_annotation_map[dict[str, Any]])
    error: Mapped[dict[str, Any] | None]
    requested_by: Mapped[str | None]
    replay_of: Mapped[UUID | None]
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    canvas: Mapped[dict[str, Any] | None]
    canvas_open: Mapped[bool] = mapped_column(server_default="false")
    watched: Mapped[bool] = mapped_column(server_default="false")
    cancel_forced: Mapped[bool] = mapped_column(server_default="false")
    cancel_note: Mapped[str | None]
    progress: Mapped[dict[str, Any] | None]
    streamed_until: Mapped[datetime | None]
    limit_key: Mapped[str | None] = mapped_column(Computed("options ->> 'concurrency_key'", persisted=True))
    limit_slot_at: Mapped[datetime | None]
    traceparent: Mapped[str | None]
    request_id: Mapped[str | None]


class AttemptRow(Base):
    """An attempt that ended and was followed by another; the newest one is in the run itself."""

    __tablename__ = ATTEMPTS
    __table_args__ = ({"postgresql_partition_by": "RANGE (run_id)"},)

    run_id: Mapped[UUID] = mapped_column(primary_key=True)
    attempt: Mapped[int] = mapped_column(SmallInteger, primary_key=True)
    outcome: Mapped[str]
    worker: Mapped[str | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime]
    error: Mapped[dict[str, Any] | None]


class LateOutcomeRow(Base):
    """What a fenced worker reported when its attempt had been decided without it."""

    __tablename__ = "celery_task_late_outcomes"
    __table_args__ = (Index(None, "run_id"),)

    id: Mapped[PrimaryId]
    run_id: Mapped[UUID]
    attempt: Mapped[int] = mapped_column(SmallInteger)
    outcome: Mapped[str]
    worker_id: Mapped[UUID | None]
    result: Mapped[Any | None] = mapped_column(type_=Base.type_annotation_map[dict[str, Any]])
    error: Mapped[dict[str, Any] | None]
    reported_at: Mapped[datetime] = mapped_column(server_default=NOW)


class LogRow(Base):
    """One line that a run wrote."""

    __tablename__ = LOGS
    __table_args__ = ({"postgresql_partition_by": "RANGE (run_id)"},)

    run_id: Mapped[UUID] = mapped_column(primary_key=True)
    attempt: Mapped[int] = mapped_column(SmallInteger, primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    logged_at: Mapped[datetime]
    level: Mapped[str]
    logger: Mapped[str]
    message: Mapped[str]


class LimitRow(Base):
    """When the next start of a rate-limited key is free."""

    __tablename__ = "celery_task_limits"

    key: Mapped[str] = mapped_column(primary_key=True)
    next_free_at: Mapped[datetime]


class TaskIdRow(Base):
    """A task id that somebody else made (Celery's `freeze`, a caller), and the run that it means now."""

    __tablename__ = "celery_task_ids"
    __table_args__ = (Index(None, "run_id"),)

    task_id: Mapped[str] = mapped_column(primary_key=True)
    run_id: Mapped[UUID]


class ChordRow(Base):
    """A chord that waits for its header: how many parts it has, and how many have ended."""

    __tablename__ = "celery_task_chords"
    __table_args__ = (
        Index(
            "ix_celery_task_chords_complete",
            "group_id",
            postgresql_where=text("fired_at IS NULL AND counted >= size"),
        ),
    )

    group_id: Mapped[str] = mapped_column(primary_key=True)
    body: Mapped[dict[str, Any]]
    header: Mapped[list[Any]]
    size: Mapped[int | None]
    counted: Mapped[int] = mapped_column(server_default="0")
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    fired_at: Mapped[datetime | None]


class GroupRow(Base):
    """A group result that somebody saved, to restore it elsewhere."""

    __tablename__ = "celery_task_groups"

    group_id: Mapped[str] = mapped_column(primary_key=True)
    members: Mapped[list[Any]]
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)


class WorkerRow(Base):
    """A worker's lease. Its id is made at its start, so a restarted worker is another one."""

    __tablename__ = "celery_workers"

    id: Mapped[PrimaryId]
    name: Mapped[str]
    pid: Mapped[int]
    queues: Mapped[list[Any]]
    started_at: Mapped[datetime] = mapped_column(server_default=NOW)
    lease_expires_at: Mapped[datetime]
    stopped_at: Mapped[datetime | None]
    state: Mapped[str] = mapped_column(server_default="ready")
    pool: Mapped[str | None]
    concurrency: Mapped[int | None]
    version: Mapped[str | None]
    # What it is asked for, and why it did not do that.
    drain_requested_at: Mapped[datetime | None]
    concurrency_wanted: Mapped[int | None]
    wish_refused: Mapped[str | None]


class QueuePauseRow(Base):
    """A queue that is paused: no run of it starts."""

    __tablename__ = "celery_queue_pauses"

    queue: Mapped[str] = mapped_column(primary_key=True)
    paused_at: Mapped[datetime] = mapped_column(server_default=NOW)
    paused_by: Mapped[str]
    note: Mapped[str]


class CalendarRow(Base):
    """A named set of dates on which ticks are skipped: its own, and the public holidays of a country."""

    __tablename__ = "calendars"

    id: Mapped[PrimaryId]
    name: Mapped[str] = mapped_column(unique=True)
    version: Mapped[int] = mapped_column(server_default="1")
    description: Mapped[str | None]
    dates: Mapped[list[date]] = mapped_column(ARRAY(Date))
    country: Mapped[str | None]
    subdivision: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    updated_at: Mapped[datetime] = mapped_column(server_default=NOW)


class BeatRow(Base):
    """A beat and its last good pass."""

    __tablename__ = "celery_beats"

    id: Mapped[PrimaryId]
    name: Mapped[str]
    pid: Mapped[int]
    started_at: Mapped[datetime] = mapped_column(server_default=NOW)
    last_pass_at: Mapped[datetime]
    version: Mapped[str | None]
