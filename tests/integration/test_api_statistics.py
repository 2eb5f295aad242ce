"""Statistics over HTTP: by interval and by task, what they count, and which index answers them."""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import insert, text
from sqlalchemy.orm import Session, sessionmaker

from app.db import sync_engine, sync_sessions
from app.scheduling.ids import id_at, new_id, tick_id
from app.scheduling.models import RunRow
from app.scheduling.selecting import RunFilter
from app.scheduling.statistics import _interval_of, _query
from app.settings import Settings
from support.api import connected, serving

RUNS = "/api/v1/statistics/runs"
TASKS = "/api/v1/statistics/tasks"
HOUR = timedelta(hours=1)
TASK = "scheduled_task.test_task"


@pytest.fixture(scope="module")
async def admin(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(settings) as app, connected(app) as client:
        yield client


@pytest.fixture(scope="module")
def sessions(settings: Settings) -> Iterator[sessionmaker[Session]]:
    engine = sync_engine(settings.database, name="test")
    yield sync_sessions(engine)
    engine.dispose()


@pytest.fixture(scope="module")
def noon() -> datetime:
    """Of yesterday."""
    return (datetime.now(UTC) - timedelta(days=1)).replace(hour=12, minute=0, second=0, microsecond=0)


@pytest.fixture(scope="module")
def schedule(sessions: sessionmaker[Session], noon: datetime) -> UUID:
    """Sixty ticks of a schedule from noon on, one a minute, each started a second late, every tenth failed."""
    schedule_id = new_id()
    rows: list[dict[str, Any]] = []
    for minute in range(60):
        at = noon + timedelta(minutes=minute)
        rows.append(
            {
                "id": tick_id(schedule_id, at),
                "state": "failed" if minute % 10 == 0 else "succeeded",
                "origin": "schedule",
                "task": TASK,
                "queue": "system",
                "schedule_id": schedule_id,
                "scheduled_for": at,
                "due_at": at,
                "started_at": at + timedelta(seconds=1),
                "finished_at": at + timedelta(seconds=11),
                "args": [],
                "kwargs": {},
                "options": {},
            }
        )
    skipped = noon + HOUR
    rows.append(
        rows[0]
        | {
            "id": tick_id(schedule_id, skipped),
            "state": "skipped",
            "scheduled_for": skipped,
            "due_at": skipped,
        }
        | {"started_at": None}
    )
    other = id_at(noon + timedelta(minutes=90))
    rows.append(
        rows[0]
        | {"id": other, "origin": "submit", "schedule_id": None, "scheduled_for": None, "task": "gone"}
        | {"created_at": noon + timedelta(minutes=90), "queue": "celery"}
    )
    with sessions.begin() as session:
        for row in rows:
            session.execute(insert(RunRow).values(**row))
    return schedule_id


async def asked(client: httpx.AsyncClient, url: str, **query: Any) -> dict[str, Any]:
    answer = await client.get(url, params=query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_intervals_tell_throughput_failures_and_lateness(
    admin: httpx.AsyncClient, schedule: UUID, noon: datetime
) -> None:
    span = {"since": noon.isoformat(), "until": (noon + 2 * HOUR).isoformat()}
    found = await asked(admin, RUNS, interval=900, schedule_id=str(schedule), **span)
    assert [each["start"] for each in found["items"]] == [
        (noon + timedelta(minutes=15 * n)).isoformat().replace("+00:00", "Z") for n in range(8)
    ]
    assert [each["total"] for each in found["items"]] == [15, 15, 15, 15, 1, 0, 0, 0]
    assert [each["failures"] for each in found["items"]] == [2, 1, 2, 1, 0, 0, 0, 0]
    assert found["items"][4]["states"] == {"skipped": 1}
    assert found["items"][5]["failure_rate"] is None
    total = found["all"]
    assert (total["total"], total["failures"], total["failure_rate"]) == (61, 6, 0.1)
    assert total["lateness"]["count"] == 60
    # A second, in the class from 1 s to 1.58 s; ten seconds likewise.
    assert all(1 <= total["lateness"][name] <= 1.59 for name in ("p50", "p95", "p99"))
    assert all(10 <= total["duration"][name] <= 15.9 for name in ("p50", "p95", "p99"))
    by_queue = await asked(admin, RUNS, queue="celery", **span)
    assert by_queue["all"]["total"] == 1
    assert by_queue["interval"] == 300
    assert (await asked(admin, RUNS, task="gone", **span))["all"]["total"] == 1
    empty = await asked(admin, RUNS, task="nothing", **span)
    assert empty["all"]["lateness"] == {"count": 0, "p50": None, "p95": None, "p99": None}


async def test_tasks_are_compared(admin: httpx.AsyncClient, schedule: UUID, noon: datetime) -> None:
    span = {"since": noon.isoformat(), "until": (noon + 2 * HOUR).isoformat()}
    found = await asked(admin, TASKS, **span)
    assert [(each["task"], each["total"]) for each in found["items"]] == [("gone", 1), (TASK, 61)]
    made = await admin.post(f"/api/v1/tasks/{TASK}/runs", json={})
    assert made.status_code == 202
    listed = await asked(admin, "/api/v1/tasks", statistics=True, search="test_task")
    assert [each["name"] for each in listed["items"]] == [TASK]
    assert listed["items"][0]["statistics"]["states"]["queued"] == 1
    one = await asked(admin, f"/api/v1/tasks/{TASK}", statistics=True)
    assert one["statistics"]["total"] >= 1
    assert (await asked(admin, f"/api/v1/tasks/{TASK}"))["statistics"] is None
    idle = await asked(admin, "/api/v1/tasks/auth.cleanup_old_sessions", statistics=True)
    assert idle["statistics"]["total"] == 0


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"since": "2026-03-01T00:00:00Z", "until": "2026-03-01T00:00:00Z"}, "until"),
        ({"since": "2020-03-01T00:00:00Z", "until": "2026-03-01T00:00:00Z"}, "since"),
        ({"since": "2026-03-01T00:00:00Z", "until": "2026-03-03T00:00:00Z", "interval": 60}, "interval"),
        ({"interval": 61}, "interval"),
        ({"since": "2026-03-01T00:00:00"}, "since"),
        ({"sinse": "2026-03-01T00:00:00Z"}, "sinse"),
    ],
)
async def test_what_cannot_be_counted_is_refused(
    admin: httpx.AsyncClient, query: dict[str, Any], field: str
) -> None:
    answer = await admin.get(RUNS, params=query)
    assert answer.status_code == 422, answer.text
    assert [each["field"] for each in answer.json()["errors"]] == [field]


def test_a_range_reads_only_its_partitions_and_a_schedule_its_index(
    sessions: sessionmaker[Session], schedule: UUID, noon: datetime
) -> None:
    def plan(which: RunFilter) -> str:
        query = _query(which, noon, noon + HOUR, _interval_of(HOUR))
        with sessions() as session:
            compiled = query.compile(session.get_bind(), compile_kwargs={"literal_binds": True})
            session.execute(text("SET LOCAL enable_seqscan = off"))
            return "\n".join(session.scalars(text(f"EXPLAIN {compiled}".replace(":", "\\:"))))

    whole, narrow = plan(RunFilter()), plan(RunFilter(schedule_id=schedule))
    assert whole.count("Scan on") + whole.count("Scan using") == 1, whole
    assert "schedule_id" in narrow.split("Index Cond")[1], narrow
