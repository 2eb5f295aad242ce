"""The API killed in mid-request: a repeat with the same key has one effect."""

import asyncio
import random
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
import redis

from app.cli.people import add_person
from app.settings import Settings
from support.people import PASSWORD
from support.polling import eventually_async
from support.servers import Database
from support.stack import Api, Stack

REQUESTS = 40
SCHEDULE: dict[str, Any] = {
    "task_name": "once",
    "task_path": "support.instant",
    "schedule": {"type": "interval", "every": 1, "unit": "hours"},
}


@pytest.fixture(scope="module")
def operator(settings: Settings) -> str:
    add_person(settings, "operator", PASSWORD, "operator")
    return "operator"


@asynccontextmanager
async def logged_in(api: Api, name: str) -> AsyncIterator[httpx.AsyncClient]:
    form = {"username": name, "password": PASSWORD}
    async with httpx.AsyncClient(base_url=api.url, timeout=20) as client:
        answer = await client.post("/api/v1/auth/login", data=form)
        client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
        yield client


async def send(client: httpx.AsyncClient, key: str, number: int) -> httpx.Response | None:
    """Every other one makes a schedule, the rest runs; None when there was no answer."""
    schedules = ("/api/v1/scheduled-tasks", SCHEDULE | {"task_name": key})
    runs = ("/api/v1/tasks/support.instant/runs", {"args": [key]})
    path, body = schedules if number % 2 else runs
    try:
        return await client.post(path, json=body, headers={"Idempotency-Key": key})
    except httpx.TransportError:
        return None


def stored(database: Database, keys: list[str]) -> dict[str, int]:
    """How many effects there are of each key."""
    with psycopg.connect(database.url) as connection:
        rows = connection.execute(
            "SELECT made, count(*) FROM (SELECT args->>0 AS made FROM celery_task_runs UNION ALL"
            " SELECT task_name FROM celery_periodic_task_configs) AS all_of_them WHERE made = ANY(%s) GROUP BY made",
            (keys,),
        )
        return {str(made): int(number) for made, number in rows.fetchall()}


async def test_a_repeat_after_a_kill_at_any_instant_has_one_effect(
    stack: Stack, database: Database, operator: str, seed: int
) -> None:
    chance = random.Random(seed)
    for _ in range(2):
        keys = [uuid4().hex for _ in range(REQUESTS)]
        api = stack.api()
        async with logged_in(api, operator) as client:
            sent = [asyncio.create_task(send(client, key, number)) for number, key in enumerate(keys)]
            # Nothing is waited for: the instant of the kill is the chance that the test takes.
            await asyncio.sleep(chance.uniform(0.02, 0.3))
            api.process.signal_group(signal.SIGKILL)
            first = await asyncio.gather(*sent)
        done = {key for key, answer in zip(keys, first, strict=True) if answer and answer.is_success}
        assert done <= set(stored(database, keys)), "what was answered is there"
        again = stack.api()
        async with logged_in(again, operator) as client:
            repeats = [await send(client, key, number) for number, key in enumerate(keys)]
        answers = [answer for answer in repeats if answer is not None and answer.is_success]
        assert len(answers) == REQUESTS
        assert stored(database, keys) == dict.fromkeys(keys, 1)
        for before, after in zip(first, answers, strict=True):
            if before is not None and before.is_success:
                assert after.json() == before.json()
        again.process.terminate()


async def test_killed_between_the_effect_and_its_commit(
    stack: Stack, database: Database, operator: str
) -> None:
    """The table of keys is locked, so the request stands with its effect made and nothing committed."""
    api, key = stack.api(), uuid4().hex
    async with logged_in(api, operator) as client:
        with psycopg.connect(database.url) as holder:
            holder.execute("LOCK TABLE idempotency_keys IN SHARE MODE")
            waiting = asyncio.create_task(send(client, key, 0))
            await eventually_async(lambda: _waits_for_keys(database), 10, "the request that waits")
            api.process.signal_group(signal.SIGKILL)
            assert await waiting is None
    assert stored(database, [key]) == {}
    again = stack.api()
    async with logged_in(again, operator) as client:
        for _ in range(2):
            answer = await send(client, key, 0)
            assert answer is not None
            assert answer.status_code == 202
    assert stored(database, [key]) == {key: 1}


async def _waits_for_keys(database: Database) -> bool:
    with psycopg.connect(database.url) as connection:
        found = connection.execute(
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'idempotency_keys'::regclass"
        ).fetchone()
    return bool(found and found[0])


async def test_killed_between_the_commit_and_the_push(
    stack: Stack, database: Database, operator: str
) -> None:
    """Nobody was answered; what is stored all the same is published by the next beat."""
    stack.environment["UPBEAT_BEAT_REDISPATCH_DELAY"] = "1"
    api = stack.api(env={"UPBEAT_FAILPOINTS": "enqueue.committed=kill"})
    keys = [uuid4().hex for _ in range(8)]
    broker = redis.Redis.from_url(stack.environment["REDIS_URL"])
    broker.delete("celery")
    async with logged_in(api, operator) as client:
        answers = await asyncio.gather(*(send(client, key, 0) for key in keys))
    assert answers == [None] * len(keys)
    left = stored(database, keys)
    assert left
    assert set(left.values()) == {1}
    assert broker.llen("celery") == 0
    stack.beat()
    await eventually_async(lambda: _sent(broker, len(left)), 15, "the wake-ups of what was stored")
    again = stack.api()
    async with logged_in(again, operator) as client:
        repeats = await asyncio.gather(*(send(client, key, 0) for key in keys))
    assert [answer is not None and answer.status_code for answer in repeats] == [202] * len(keys)
    assert stored(database, keys) == dict.fromkeys(keys, 1)
    broker.close()


async def _sent(broker: redis.Redis, number: int) -> bool:
    return broker.llen("celery") >= number
