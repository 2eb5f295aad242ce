"""Forgetting old history: whole months where that is possible, a few rows at a time where not.

Runs, their attempts and their log lines lie in monthly partitions. A month that is older than the
history that is kept, and in which every run is terminal, is dropped; that costs the same for a
thousand runs as for a hundred million, and leaves no dead rows behind. In a month that has a run
which is not terminal, the others are deleted row by row. Terminal rows never change, so nobody
waits for them.

Whole months also mean that history is kept up to a month longer than asked; ``rows=True`` deletes
the rows in between as well.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, select, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app.db import locks
from app.db.partitions import UNDECIDED, Partition, PartitionBusy, drop_partition, partitions
from app.scheduling.ids import id_at
from app.scheduling.models import ATTEMPTS, LOGS, NOW, RUNS

logger = logging.getLogger(__name__)

BATCH: Final = 1000
# Runs whose lines one statement deletes: each may have tens of thousands, and a statement has half a minute.
TALKATIVE: Final = 50
_OPEN = "state IN ('queued', 'running')"
_CHILDREN = (ATTEMPTS, LOGS)


@dataclass(slots=True, kw_only=True)
class CleanUp:
    """What one cleaning did.

    ``canvas`` are task ids of others, chords, saved groups and late outcomes. ``busy``: another one is at work, nothing
    was done. ``months_kept`` have runs that are open; ``months_busy``: somebody has looked at one for too long, the
    dropping goes on the next time.
    """

    busy: bool = False
    months_busy: bool = False
    months_dropped: int = 0
    months_kept: int = 0
    runs: int = 0
    missed_ranges: int = 0
    schedule_versions: int = 0
    workers: int = 0
    canvas: int = 0


async def clean_up(
    sessions: async_sessionmaker[AsyncSession], keep: timedelta, *, rows: bool = False, batch: int = BATCH
) -> CleanUp:
    """Forget what is older than ``keep``. One at a time: a second caller does nothing."""
    async with sessions() as session:
        # Each statement commits by itself: detaching a partition refuses a transaction.
        connection = await session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        return await connection.run_sync(_alone, keep, rows, batch)


def _alone(connection: Connection, keep: timedelta, rows: bool, batch: int) -> CleanUp:  # noqa: FBT001
    lock = {"key": locks.CLEANING}
    if not connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), lock):
        return CleanUp(busy=True)
    try:
        return _clean_up(connection, keep, rows, batch)
    finally:
        connection.execute(text("SELECT pg_advisory_unlock(:key)"), lock)


def _clean_up(connection: Connection, keep: timedelta, rows: bool, batch: int) -> CleanUp:  # noqa: FBT001
    now: datetime = connection.execute(select(NOW)).scalar_one()
    done = CleanUp()
    before = now - keep
    try:
        _drop_months(connection, now - max(keep, UNDECIDED), batch, done)
    except PartitionBusy as error:
        logger.warning("%s is being read, its dropping is left to the next time", error)
        done.months_busy = True
    if rows:
        for month in partitions(connection, RUNS):
            if month.attached and month.start < before:
                done.runs += _delete_runs(connection, month.start, min(month.end, before), batch)
    limits = {"before": before, "before_id": id_at(before), "batch": batch}
    done.missed_ranges = _repeat(connection, _MISSED, limits)
    done.schedule_versions = _repeat(connection, _VERSIONS, limits)
    done.workers = _repeat(connection, _WORKERS, limits) + _repeat(connection, _BEATS, limits)
    done.canvas = sum(_repeat(connection, statement, limits) for statement in _CANVAS)
    return done


def _drop_months(connection: Connection, before: datetime, batch: int, done: CleanUp) -> None:
    for month in _old(connection, RUNS, before):
        if drop_partition(connection, month, needed=_has_open_runs):
            done.months_dropped += 1
        else:
            done.months_kept += 1
            done.runs += _delete_runs(connection, month.start, month.end, batch)
    # Attempts and log lines go when their runs are gone.
    left = {month.month for month in partitions(connection, RUNS)}
    for parent in _CHILDREN:
        for month in _old(connection, parent, before):
            if month.month not in left:
                drop_partition(connection, month, needed=lambda *_: False)


def _old(connection: Connection, parent: str, before: datetime) -> list[Partition]:
    """Those that end before then; one that is half detached comes first."""
    old = [month for month in partitions(connection, parent) if month.end <= before]
    return sorted(old, key=lambda month: not month.pending)


def _has_open_runs(connection: Connection, table: str) -> bool:
    return bool(connection.scalar(text(f"SELECT EXISTS (SELECT FROM {table} WHERE {_OPEN})")))


def _delete_runs(connection: Connection, start: datetime, end: datetime, batch: int) -> int:
    """Delete the terminal runs of a range of ids, with what belongs to them."""
    total = 0
    limits = {"low": id_at(start), "high": id_at(end), "batch": batch}
    while ids := list(connection.scalars(_TERMINAL, limits)):
        for first in range(0, len(ids), TALKATIVE):
            part = {"ids": ids[first : first + TALKATIVE]}
            for parent in _CHILDREN:
                connection.execute(text(f"DELETE FROM {parent} WHERE run_id = ANY(:ids)"), part)
        connection.execute(text(f"DELETE FROM {RUNS} WHERE id = ANY(:ids)"), {"ids": ids})
        limits["low"] = ids[-1]
        total += len(ids)
    return total


def _repeat(connection: Connection, statement: Any, limits: Mapping[str, Any]) -> int:
    total = 0
    while True:
        deleted = connection.execute(statement, limits).rowcount
        total += deleted
        if deleted < limits["batch"]:
            return total


_TERMINAL = text(
    f"SELECT id FROM {RUNS} WHERE id >= :low AND id < :high AND NOT {_OPEN} ORDER BY id LIMIT :batch"
)


def _batched(table: str, key: str, condition: str) -> Any:
    return text(
        f"WITH victims AS MATERIALIZED (SELECT {key} FROM {table} AS old WHERE {condition} LIMIT :batch"
        f" FOR UPDATE SKIP LOCKED) DELETE FROM {table} WHERE ({key}) IN (SELECT {key} FROM victims)"
    )


_MISSED = _batched("celery_task_missed_ranges", "schedule_id, first, last", "last < :before")
# A version that was replaced, or deleted with its schedule, before then made none of the runs that are kept.
_VERSIONS = _batched(
    "celery_periodic_task_config_versions",
    "schedule_id, version",
    "changed_at < :before AND (EXISTS (SELECT FROM celery_periodic_task_config_versions AS later"
    " WHERE later.schedule_id = old.schedule_id AND later.version > old.version"
    " AND later.changed_at < :before) OR (action = 'delete' AND NOT EXISTS"
    " (SELECT FROM celery_periodic_task_configs AS kept WHERE kept.id = old.schedule_id)))",
)
_WORKERS = _batched("celery_workers", "id", "lease_expires_at < :before")
_BEATS = _batched("celery_beats", "id", "last_pass_at < :before")
_CANVAS = (
    _batched(
        "celery_task_ids",
        "task_id",
        f"run_id < :before_id AND NOT EXISTS (SELECT FROM {RUNS} AS r WHERE r.id = old.run_id AND ({_OPEN}"
        " OR EXISTS (SELECT FROM celery_task_chords AS c WHERE c.fired_at IS NULL AND c.size IS NOT NULL"
        " AND c.group_id = COALESCE(r.canvas -> 'chord' ->> 'group', r.canvas ->> 'group'))))",
    ),
    _batched("celery_task_late_outcomes", "id", "run_id < :before_id"),
    # A chord that waits for its last part is no history; one whose size was never told has lost its maker.
    _batched(
        "celery_task_chords", "group_id", "created_at < :before AND (fired_at IS NOT NULL OR size IS NULL)"
    ),
    _batched("celery_task_groups", "group_id", "created_at < :before"),
)
