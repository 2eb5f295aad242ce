"""Runs on demand that are asked for at once are made together, and each caller gets its own answer."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import httpx
import pytest
import redis
from fastapi import FastAPI
from sqlalchemy import text

from app.cli.embedded import LOOPBACK, free_port
from app.db import async_engine, async_sessions
from app.db.outages import is_away
from app.scheduling.catalogue import Catalogue
from app.scheduling.config import RunRequest
from app.scheduling.enqueueing import NewRun
from app.scheduling.facade import Scheduler
from app.scheduling.messages import RunMessage
from app.settings import Settings
from support.api import connected, serving
from support.engine import Wakeups
from support.people import cheap_passwords
from support.polling import eventually_async
from support.servers import Servers, settings_for

TASK = "scheduled_task.test_task"
SUBMIT = f"/api/v1/tasks/{TASK}/runs"
MANY = 40


@pytest.fixture(scope="module")
async def api(settings: Settings) -> AsyncIterator[FastAPI]:
    with cheap_passwords():
        async with serving(settings) as app:
            yield app


@pytest.fixture(scope="module")
async def admin(api: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with connected(api) as client:
        yield client


def scheduler_of(app: FastAPI) -> Scheduler:
    return app.state.services.scheduler  # type: ignore[no-any-return]


async def rows(app: FastAPI, statement: str, **values: object) -> list[tuple[object, ...]]:
    async with app.state.services.sessions() as session:
        return [tuple(row) for row in await session.execute(text(statement), values)]


def told(number: int) -> dict[str, object]:
    return {"kwargs": {"message": f"number {number}"}}


async def test_each_of_many_gets_its_own_run(
    api: FastAPI, admin: httpx.AsyncClient, settings: Settings
) -> None:
    broker = redis.Redis.from_url(settings.broker.url())
    before = broker.llen("celery")
    answers = await asyncio.gather(*(admin.post(SUBMIT, json=told(number)) for number in range(MANY)))
    assert {answer.status_code for answer in answers} == {202}
    for number, answer in enumerate(answers):
        run = answer.json()
        assert run["kwargs"] == told(number)["kwargs"]
        assert answer.headers["Location"] == f"/api/v1/runs/{run['id']}"
        assert (await admin.get(answer.headers["Location"])).json() == run
    ids = [UUID(answer.json()["id"]) for answer in answers]
    assert len(set(ids)) == MANY
    stored = await rows(
        api,
        "SELECT count(*), count(DISTINCT xmin::text) FROM celery_task_runs WHERE id = ANY(:ids) AND dispatches = 1",
        ids=ids,
    )
    audited = await rows(
        api,
        "SELECT count(*), count(DISTINCT request_id), min(actor) FROM audit_log WHERE action = 'run_task' AND request_id"
        " = ANY(:requests)",
        requests=[answer.headers["X-Request-ID"] for answer in answers],
    )
    assert audited == [(MANY, MANY, "admin")]
    ((count, transactions),) = stored
    assert count == MANY
    assert int(str(transactions)) <= MANY // 2
    assert broker.llen("celery") == before + MANY
    broker.close()


async def test_one_that_is_refused_fails_alone(api: FastAPI, admin: httpx.AsyncClient) -> None:
    bodies = [told(number) for number in range(8)]
    bodies[3] = {"kwargs": {"message": 3}}
    bodies[5] = {"kwargs": {"nonsense": True}}
    answers = await asyncio.gather(*(admin.post(SUBMIT, json=body) for body in bodies))
    assert [answer.status_code for answer in answers] == [202, 202, 202, 422, 202, 422, 202, 202]


@pytest.mark.parametrize("bad", ["\0", object()], ids=["refused-by-postgresql", "no-json"])
async def test_one_that_cannot_be_stored_fails_alone(api: FastAPI, bad: object) -> None:
    """As business code may ask, whose values no request body could have."""
    scheduler, mark = scheduler_of(api), uuid4().hex
    bodies = [RunRequest(kwargs={"message": f"{mark} {number}"}) for number in range(5)]
    bodies[2] = RunRequest.model_construct(
        args=[],
        kwargs={"message": f"{mark}{bad}" if isinstance(bad, str) else bad},
        options=bodies[0].options,
    )
    found = await asyncio.gather(
        *(scheduler.submit(TASK, body, actor="code") for body in bodies),
        return_exceptions=True,
    )
    assert isinstance(found[2], Exception)
    made = [each for each in found if isinstance(each, NewRun)]
    assert [run.kwargs for run in made] == [body.kwargs for n, body in enumerate(bodies) if n != 2]
    ((count,),) = await rows(
        api, "SELECT count(*) FROM celery_task_runs WHERE kwargs->>'message' LIKE :mark", mark=f"{mark}%"
    )
    assert count == 4


async def test_a_key_that_is_repeated_at_once_has_one_effect_among_others(
    api: FastAPI, admin: httpx.AsyncClient
) -> None:
    mark, key = uuid4().hex, {"Idempotency-Key": uuid4().hex}
    body = {"kwargs": {"message": mark}}
    asked = [admin.post(SUBMIT, json=body, headers=key if number % 2 else {}) for number in range(10)]
    answers = await asyncio.gather(*asked)
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers[1::2]}) == 1
    assert len({answer.json()["id"] for answer in answers[::2]}) == 5
    ((count,),) = await rows(
        api, "SELECT count(*) FROM celery_task_runs WHERE kwargs->>'message' = :mark", mark=mark
    )
    assert count == 6


async def test_many_keys_at_once_are_kept_with_their_answers(admin: httpx.AsyncClient) -> None:
    keys = [{"Idempotency-Key": uuid4().hex} for _ in range(8)]
    first = await asyncio.gather(*(admin.post(SUBMIT, json=told(1), headers=key) for key in keys))
    again = await asyncio.gather(*(admin.post(SUBMIT, json=told(1), headers=key) for key in keys))
    assert len({answer.json()["id"] for answer in first}) == len(keys)
    assert [answer.json() for answer in again] == [answer.json() for answer in first]
    assert all(answer.headers["Idempotency-Replayed"] == "true" for answer in again)


async def test_what_is_due_later_is_not_sent(api: FastAPI, admin: httpx.AsyncClient) -> None:
    now, later = await asyncio.gather(
        admin.post(SUBMIT, json=told(1)), admin.post(SUBMIT, json=told(2) | {"countdown": 60})
    )
    found = await rows(
        api,
        "SELECT dispatches, due_at - created_at > interval '59 seconds', next_dispatch_at = due_at"
        " FROM celery_task_runs WHERE id = ANY(:ids) ORDER BY due_at",
        ids=[UUID(now.json()["id"]), UUID(later.json()["id"])],
    )
    assert found == [(1, False, False), (0, True, True)]


async def test_without_broker_they_are_made_and_soon_sent_again(servers: Servers, settings: Settings) -> None:
    nobody = settings_for(servers.postgres.url, settings.database.name, f"redis://{LOOPBACK}:{free_port()}/0")
    async with serving(nobody) as app, connected(app) as client:
        answers = await asyncio.gather(*(client.post(SUBMIT, json=told(number)) for number in range(8)))
        assert {answer.status_code for answer in answers} == {202}
        waiting = await rows(
            app,
            "SELECT count(*) FROM celery_task_runs WHERE id = ANY(:ids) AND state = 'queued'"
            " AND next_dispatch_at < created_at + interval '5 seconds'",
            ids=[UUID(answer.json()["id"]) for answer in answers],
        )
        assert waiting == [(8,)]


async def test_without_database_all_are_told_so_at_once(servers: Servers, settings: Settings) -> None:
    name = servers.new_database()
    there = settings_for(servers.postgres.url, name, settings.broker.url())
    async with serving(there) as app:
        scheduler = scheduler_of(app)
        await scheduler.submit(TASK, RunRequest(), actor="code")
        servers.drop_database(name)
        found = await asyncio.gather(
            *(scheduler.submit(TASK, RunRequest(), actor="code") for _ in range(8)), return_exceptions=True
        )
        assert all(isinstance(each, Exception) and is_away(each) for each in found), found


async def test_what_was_made_is_not_said_to_have_failed_when_both_are_away_afterwards() -> None:
    nobody = settings_for(f"postgresql://nobody@{LOOPBACK}:{free_port()}", "none", "redis://none")
    database, broker = async_engine(nobody.database, name="test"), Wakeups()
    broker.away = True
    scheduler = Scheduler(async_sessions(database), broker, Catalogue([]), nobody)
    await scheduler._publish([RunMessage.of(uuid4(), TASK, "celery", 1, {})])
    await database.dispose()


async def test_who_leaves_takes_nobody_along(api: FastAPI) -> None:
    scheduler = scheduler_of(api)
    asked = [
        asyncio.create_task(scheduler.submit(TASK, RunRequest(kwargs={"message": str(n)}), actor="code"))
        for n in range(4)
    ]
    await asyncio.sleep(0)
    asked[1].cancel()
    found = await asyncio.gather(*asked, return_exceptions=True)
    assert isinstance(found[1], asyncio.CancelledError)
    assert [each.kwargs["message"] for each in found if isinstance(each, NewRun)] == ["0", "2", "3"]


async def test_the_key_of_a_program_is_worth_nothing_once_it_is_revoked(
    api: FastAPI, admin: httpx.AsyncClient
) -> None:
    made = (await admin.post("/api/v1/api-keys", json={"name": "k", "scopes": ["operate"]})).json()
    headers = {"Authorization": f"Bearer {made['secret']}"}
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(api), base_url="http://upbeat.test"
    ) as program:
        answers = await asyncio.gather(*(program.post(SUBMIT, json={}, headers=headers) for _ in range(8)))
        assert {answer.status_code for answer in answers} == {202}
        assert (await admin.delete(f"/api/v1/api-keys/{made['id']}")).status_code == 204
        assert (await program.post(SUBMIT, json={}, headers=headers)).status_code == 401


async def test_what_another_process_revoked_is_noticed_soon(api: FastAPI, admin: httpx.AsyncClient) -> None:
    made = (await admin.post("/api/v1/api-keys", json={"name": "k", "scopes": ["operate"]})).json()
    headers = {"Authorization": f"Bearer {made['secret']}"}
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(api), base_url="http://upbeat.test"
    ) as program:
        assert (await program.post(SUBMIT, json={}, headers=headers)).status_code == 202
        async with api.state.services.sessions.begin() as session:
            await session.execute(
                text("UPDATE api_keys SET revoked_at = clock_timestamp() WHERE id = :id"),
                {"id": UUID(made["id"])},
            )

        async def refused() -> bool:
            return (await program.post(SUBMIT, json={}, headers=headers)).status_code == 401

        await eventually_async(refused, 5, "the refusal")
