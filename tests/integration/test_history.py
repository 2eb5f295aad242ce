"""Old history is forgotten by months, others are not hindered, and nothing that is open is lost."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import func, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app.db import async_engine, async_sessions, sync_engine
from app.db.partitions import ensure_partitions, month_start, partitions
from app.modules.scheduled_task.history import CleanUp, clean_up
from app.scheduling.ids import new_id, tick_id
from app.scheduling.models import (
    ATTEMPTS,
    LOGS,
    RUNS,
    AttemptRow,
    ChordRow,
    GroupRow,
    LateOutcomeRow,
    LogRow,
    MissedRangeRow,
    RunRow,
    ScheduleVersionRow,
    TaskIdRow,
    WorkerRow,
)
from app.settings import Settings

Sessions = async_sessionmaker[AsyncSession]
PARENTS = (RUNS, ATTEMPTS, LOGS)
DAY = timedelta(days=1)
KEEP = 90 * DAY
NOW = datetime.now(UTC)


@pytest.fixture
async def sessions(settings: Settings) -> AsyncIterator[Sessions]:
    """A database with the partitions of eight months behind, and none of their rows."""
    engine = sync_engine(settings.database, name="test")
    with engine.begin() as connection:
        connection.execute(
            text(
                f"TRUNCATE {RUNS}, {ATTEMPTS}, {LOGS}, celery_task_missed_ranges, celery_workers,"
                " celery_periodic_task_config_versions, celery_task_ids, celery_task_chords"
            )
        )
        ensure_partitions(connection, PARENTS, NOW, behind=8)
    engine.dispose()
    asynchronous = async_engine(settings.database, name="test")
    yield async_sessions(asynchronous)
    await asynchronous.dispose()


async def _add(sessions: Sessions, at: datetime, state: str = "succeeded", count: int = 1) -> list[UUID]:
    """Runs of that time, each with an attempt and a log line."""
    ids = [tick_id(new_id(), at) for _ in range(count)]
    queued = state == "queued"
    async with sessions.begin() as session:
        runs: list[dict[str, object]] = [
            {
                "id": each,
                "state": state,
                "origin": "schedule",
                "task": "a.b",
                "queue": "celery",
                "due_at": at,
                "next_dispatch_at": at if queued else None,
                "args": [],
                "kwargs": {},
                "options": {},
            }
            for each in ids
        ]
        await session.execute(insert(RunRow), runs)
        attempt = {"attempt": 1, "outcome": "failed", "finished_at": at}
        await session.execute(insert(AttemptRow), [{"run_id": each, **attempt} for each in ids])
        line = {"attempt": 1, "number": 1, "logged_at": at, "level": "INFO", "logger": "x", "message": "y"}
        await session.execute(insert(LogRow), [{"run_id": each, **line} for each in ids])
    return ids


async def _stored(sessions: Sessions) -> set[UUID]:
    """The runs that are there; their attempts and lines must be there exactly with them."""
    async with sessions() as session:
        runs = set(await session.scalars(select(RunRow.id)))
        assert set(await session.scalars(select(AttemptRow.run_id))) == runs
        assert set(await session.scalars(select(LogRow.run_id))) == runs
    return runs


async def _months(sessions: Sessions, parent: str) -> list[datetime]:
    async with sessions() as session:
        connection = await session.connection()
        found = await connection.run_sync(partitions, parent)
    return [month.start for month in found if month.attached]


def _last_kept(keep: timedelta = KEEP) -> datetime:
    return month_start(datetime.now(UTC) - keep)


async def test_months_that_are_old_as_a_whole_are_dropped_and_the_rest_is_kept(sessions: Sessions) -> None:
    await _add(sessions, month_start(NOW, -6) + DAY, count=5)
    kept = await _add(sessions, _last_kept())
    kept += await _add(sessions, NOW)
    done = await clean_up(sessions, KEEP)
    assert done.months_dropped >= 4
    assert (done.months_kept, done.runs) == (0, 0)
    assert await _stored(sessions) == set(kept)
    for parent in PARENTS:
        assert (await _months(sessions, parent))[0] == _last_kept()
    assert await clean_up(sessions, KEEP) == CleanUp()


@pytest.mark.parametrize("state", ["queued", "running"])
async def test_a_month_with_an_open_run_stays_and_its_other_rows_are_deleted_in_batches(
    sessions: Sessions, state: str
) -> None:
    at = month_start(NOW, -6) + DAY
    await _add(sessions, at, count=25)
    kept = await _add(sessions, at, state)
    await _add(sessions, month_start(NOW, -7) + DAY)
    done = await clean_up(sessions, KEEP, batch=10)
    assert (done.months_kept, done.runs) == (1, 25)
    assert await _stored(sessions) == set(kept)
    assert (await _months(sessions, RUNS))[0] == month_start(NOW, -6)


async def test_rows_of_a_month_that_is_not_old_yet_are_deleted_when_asked_for(sessions: Sessions) -> None:
    await _add(sessions, NOW - 3 * DAY, count=3)
    kept = await _add(sessions, NOW - 3 * DAY, "running")
    kept += await _add(sessions, NOW - DAY)
    assert (await clean_up(sessions, 2 * DAY)).runs == 0
    assert (await clean_up(sessions, 2 * DAY, rows=True)).runs == 3
    assert await _stored(sessions) == set(kept)
    # A month whose ticks may yet be decided is never dropped, however short the history is.
    assert month_start(NOW - 31 * DAY) in await _months(sessions, RUNS)


async def test_two_at_once_do_the_work_once(sessions: Sessions) -> None:
    await _add(sessions, month_start(NOW, -6) + DAY, count=5)
    done = await asyncio.gather(*(clean_up(sessions, KEEP) for _ in range(3)))
    assert sum(each.months_dropped > 0 for each in done) == 1
    assert await _stored(sessions) == set()
    assert not (await clean_up(sessions, KEEP)).busy


async def test_dispatch_goes_on_while_an_old_transaction_is_waited_for(sessions: Sessions) -> None:
    """Detaching waits for a reader; starts, inserts and reads do not wait for the detaching."""
    await _add(sessions, month_start(NOW, -6) + DAY)
    async with sessions() as reader:
        await reader.execute(select(func.count()).select_from(RunRow))
        cleaning = asyncio.create_task(clean_up(sessions, KEEP))
        added = []
        for _ in range(10):
            async with asyncio.timeout(2):
                added += await _add(sessions, datetime.now(UTC))
                await _stored(sessions)
        assert not cleaning.done()
        await reader.rollback()
    assert (await cleaning).months_dropped >= 4
    assert await _stored(sessions) == set(added)


async def test_what_was_interrupted_is_finished_the_next_time(sessions: Sessions) -> None:
    """A reader that lasts longer than the patience leaves a month half detached."""
    await _add(sessions, month_start(NOW, -6) + DAY)
    kept = await _add(sessions, month_start(NOW, -5) + DAY, "running")
    async with sessions() as session:
        connection = await session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        months = {m.start: m for m in await connection.run_sync(partitions, RUNS)}
        half, whole = months[month_start(NOW, -5)], months[month_start(NOW, -6)]
        await connection.execute(text(f"ALTER TABLE {RUNS} DETACH PARTITION {whole.name} CONCURRENTLY"))
        async with sessions() as reader:
            await reader.execute(select(func.count()).select_from(RunRow))
            await connection.execute(text("SET lock_timeout = '100ms'"))
            with pytest.raises(Exception, match="lock timeout"):
                await connection.execute(
                    text(f"ALTER TABLE {RUNS} DETACH PARTITION {half.name} CONCURRENTLY")
                )
            await connection.execute(text("RESET lock_timeout"))
        pending = {m.start for m in await connection.run_sync(partitions, RUNS) if m.pending}
        assert pending == {half.start}
    done = await clean_up(sessions, KEEP)
    assert done.months_kept == 1
    assert await _stored(sessions) == set(kept)
    assert (await _months(sessions, RUNS))[0] == half.start
    async with sessions() as session:
        assert await session.scalar(text("SELECT to_regclass(:name)"), {"name": whole.name}) is None


async def test_other_history_goes_too(sessions: Sessions) -> None:
    old, young = NOW - 100 * DAY, NOW - 10 * DAY
    gone, changed = new_id(), new_id()
    async with sessions.begin() as session:
        session.add_all(
            MissedRangeRow(schedule_id=new_id(), first=at, last=at, count=1, reason="paused")
            for at in (old, young)
        )
        session.add_all(
            ScheduleVersionRow(
                schedule_id=schedule, version=version, action=action, config={}, author="x", changed_at=at
            )
            for schedule, version, action, at in (
                (gone, 1, "create", old),
                (gone, 2, "delete", old),
                (changed, 1, "create", old - DAY),
                (changed, 2, "update", old),
                (changed, 3, "update", young),
            )
        )
        session.add_all(
            WorkerRow(id=new_id(), name="w", pid=1, queues=[], lease_expires_at=at) for at in (old, young)
        )
    done = await clean_up(sessions, KEEP)
    assert (done.missed_ranges, done.schedule_versions, done.workers) == (1, 3, 1)
    async with sessions() as session:
        versions = await session.execute(select(ScheduleVersionRow.schedule_id, ScheduleVersionRow.version))
        # The one of before the cut made runs that are still there.
        assert {tuple(row) for row in versions} == {(changed, 2), (changed, 3)}


async def test_what_connected_the_runs_goes_with_them(sessions: Sessions) -> None:
    old, young = NOW - 100 * DAY, NOW - 10 * DAY
    (open_run,) = await _add(sessions, old, state="queued")
    ids = {"old": tick_id(new_id(), old), "young": tick_id(new_id(), young), "open": open_run}
    async with sessions.begin() as session:
        session.add_all(TaskIdRow(task_id=name, run_id=run_id) for name, run_id in ids.items())
        session.add_all(
            LateOutcomeRow(id=new_id(), run_id=run_id, attempt=1, outcome="succeeded")
            for run_id in (ids["old"], ids["young"])
        )
        for at in (old, young):
            session.add(ChordRow(group_id=f"{at}", body={}, header=[], created_at=at))
            session.add(GroupRow(group_id=f"{at}", members=[], created_at=at))
    done = await clean_up(sessions, KEEP)
    assert done.canvas == 4
    async with sessions() as session:
        assert set(await session.scalars(select(TaskIdRow.task_id))) == {"young", "open"}


async def test_a_chord_that_waits_for_its_last_part_is_no_history(sessions: Sessions) -> None:
    """However long that takes: neither the chord goes, nor by what the results of its other parts are found."""
    old = NOW - 10 * DAY
    ended, last = await _add(sessions, old), await _add(sessions, old, "queued")
    canvas: dict[str, object] = {"group": "waiting", "chord": {"group": "waiting"}}
    async with sessions.begin() as session:
        await session.execute(update(RunRow).values(canvas=canvas))
        session.add_all(
            TaskIdRow(task_id=str(number), run_id=each) for number, each in enumerate(ended + last)
        )
        for name, size, fired in (("waiting", 2, None), ("fired", 2, old), ("never made", None, None)):
            session.add(
                ChordRow(group_id=name, body={}, header=[], size=size, fired_at=fired, created_at=old)
            )
    await clean_up(sessions, 2 * DAY)
    async with sessions() as session:
        assert set(await session.scalars(select(ChordRow.group_id))) == {"waiting"}
        assert set(await session.scalars(select(TaskIdRow.task_id))) == {"0", "1"}
