"""Bodies and messages of strangers to a service and a worker that run: a clear answer, and nothing changed."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import psycopg
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from app.settings import Settings
from support import rubbish
from support.calling import calling
from support.fuzz import ANYTHING, encoded, examples, spoilt
from support.polling import eventually
from support.processes import Process
from support.servers import Database
from support.stack import Stack
from support.tasks import instant

GOOD: dict[str, Any] = {
    "task_name": "good",
    "task_path": "scheduled_task.test_task",
    "schedule": {"type": "crontab", "expression": "0 3 * * 1-5", "timezone": "UTC"},
    "task_args": [],
    "task_kwargs": {},
    "task_extra_config": {
        "queue": "celery",
        "overlap": "skip",
        "max_attempts": 2,
        "jitter": "10%",
        "calendars": [],
    },
}
BODIES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "create": ("POST", "/api/v1/scheduled-tasks", GOOD),
    "preview": (
        "POST",
        "/api/v1/scheduled-tasks/preview",
        {"schedule": GOOD["schedule"], "task_extra_config": {}},
    ),
    "run": (
        "POST",
        "/api/v1/tasks/scheduled_task.test_task/runs",
        {"args": [], "options": {"time_limit": 5}},
    ),
    "calendar": ("POST", "/api/v1/calendars", {"name": "days", "dates": ["2027-01-01"], "country": "DE"}),
    "agent": ("POST", "/api/v1/agents", {"name": "a", "kind": "webhook", "url": "https://agent.example"}),
    "cancel": ("POST", "/api/v1/runs/cancel", {"state": ["queued"], "task": "x"}),
}
TABLES = (
    *("celery_periodic_task_configs", "celery_periodic_task_config_versions", "celery_periodic_task_clocks"),
    *("celery_task_runs", "calendars", "agents", "idempotency_keys", "audit_log"),
)


def _counts(database: Database) -> dict[str, int]:
    with psycopg.connect(database.url) as connection:
        return {
            table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # type: ignore[index]
            for table in TABLES
        }


@pytest.mark.parametrize("what", BODIES)
@given(data=st.data())
@examples(12, share=0.2)
async def test_bodies(what: str, data: st.DataObject, admin: httpx.AsyncClient, database: Database) -> None:
    """A 4xx problem that names what is wrong, or a good answer; never a 500, and a refusal leaves no row."""
    method, path, good = BODIES[what]
    body = data.draw(spoilt(good).map(encoded) | ANYTHING.map(encoded) | st.binary(max_size=80))
    before = _counts(database)
    answer = await admin.request(method, path, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code < 500, (body, answer.text)
    if answer.status_code >= 400:
        problem = answer.json()
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert problem["detail"] or problem["errors"]
        assert _counts(database) == before


@pytest.fixture(scope="module")
def worker(shared_stack: Stack, settings: Settings) -> Iterator[Process]:
    with calling(settings):
        yield shared_stack.worker("-c", "1", "--without-mingle", "--without-gossip")


def test_messages(worker: Process, redis_url: str, database: Database) -> None:
    """A worker reads them all, goes on, and no run is made or changed by them."""
    with redis.Redis.from_url(redis_url) as client:

        @given(
            st.lists(
                st.binary(max_size=100) | ANYTHING.map(encoded) | spoilt(rubbish.wake_up()).map(encoded),
                min_size=10,
                max_size=40,
            )
        )
        @examples(3, share=0.01)
        def push(messages: list[bytes]) -> None:
            before = _counts(database)
            client.lpush("celery", *messages)
            result = instant.delay(json.dumps(len(messages)))
            assert result.get(20) == json.dumps(len(messages))
            eventually(lambda: client.llen("celery") == 0, 20, "the queue to drain")
            after = _counts(database)
            assert after == before | {"celery_task_runs": before["celery_task_runs"] + 1}

        push()
    assert worker.alive
