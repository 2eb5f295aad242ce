"""Pages of runs: whatever the filter, a page reads a bounded part of the history, and no run is left out."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from fastapi import FastAPI
from sqlalchemy import text

from app.scheduling.config import RunOptions, RunRequest
from app.scheduling.facade import LOOK, Scheduler
from app.scheduling.selecting import RunFilter
from app.scheduling.states import FAILED, RunState
from app.settings import Settings
from support.api import serving

TASK = "scheduled_task.test_task"
RUNS = 60
RARE = RunFilter(queue="priority_high")


@pytest.fixture(scope="module")
async def api(settings: Settings) -> AsyncIterator[FastAPI]:
    async with serving(settings) as app:
        yield app


@pytest.fixture(scope="module")
async def scheduler(api: FastAPI) -> Scheduler:
    """A history in which every 20th run is rare; the oldest of these failed."""
    scheduler: Scheduler = api.state.services.scheduler
    for number in range(RUNS):
        rare = RunOptions(queue="priority_high" if number % 20 == 3 else "celery")
        await scheduler.submit(TASK, RunRequest(options=rare), actor="test")
    async with api.state.services.sessions.begin() as session:
        await session.execute(
            text(
                "UPDATE celery_task_runs SET state = 'failed', finished_at = clock_timestamp(), next_dispatch_at = NULL,"
                """ error = '{"type": "ValueError"}' WHERE id = (SELECT min(id::text)::uuid FROM celery_task_runs"""
                " WHERE queue = 'priority_high')"
            )
        )
    return scheduler


async def walk(scheduler: Scheduler, which: RunFilter, *, limit: int, look: int) -> tuple[list[UUID], int]:
    """All ids that the pages hold, and how many pages there are."""
    found: list[UUID] = []
    before: UUID | None = None
    for pages in range(1, RUNS + 2):
        page = await scheduler.list_runs(limit=limit, before=before, which=which, look=look)
        assert len(page.items) <= limit
        found += [row.id for row in page.items]
        if page.next is None:
            return found, pages
        before = page.next
    raise AssertionError("there is no end")


@pytest.mark.parametrize(
    ("which", "number"),
    [
        (RunFilter(), RUNS),
        (RARE, 3),
        (RunFilter(task="no.such"), 0),
        (RunFilter(states=[RunState.FAILED]), 1),
        (RunFilter(states=[RunState.FAILED, RunState.QUEUED]), RUNS),
        (RunFilter(states=FAILED, queue="priority_high"), 1),
        (RunFilter(exception="ValueError"), 1),
        (RunFilter(exception="KeyError"), 0),
        (RunFilter(since=datetime.now(UTC) + timedelta(days=1)), 0),
    ],
)
@pytest.mark.parametrize(("limit", "look"), [(50, LOOK), (2, 10), (1, 2), (7, 7)])
async def test_all_pages_together_hold_each_run_once(
    scheduler: Scheduler, which: RunFilter, number: int, limit: int, look: int
) -> None:
    found, _ = await walk(scheduler, which, limit=limit, look=look)
    assert len(set(found)) == len(found) == number
    assert found == sorted(found, reverse=True)


async def test_a_page_may_be_empty_and_go_on(scheduler: Scheduler) -> None:
    first = await scheduler.list_runs(limit=5, which=RARE, look=10)
    assert first.items == []
    assert first.next is not None
    found, pages = await walk(scheduler, RARE, limit=5, look=10)
    assert (len(found), pages) == (3, RUNS // 10 + 1)


async def test_a_failed_run_is_found_by_its_index(api: FastAPI, scheduler: Scheduler) -> None:
    """With the generic plans that the service asks for: the states stand in the statement's text."""
    query, last = RunFilter(states=[RunState.FAILED]).page(limit=50, at=None, look=LOOK)
    async with api.state.services.sessions() as session:
        await session.execute(text("SET LOCAL enable_seqscan = off"))
        for statement in (query, last):
            compiled = str(
                statement.compile(
                    session.bind, compile_kwargs={"literal_binds": True, "render_postcompile": True}
                )
            )
            plan = "\n".join(await session.scalars(text(f"EXPLAIN {compiled}")))
            assert "id_idx" in plan, plan
            assert "pkey" not in plan, plan
