"""What becomes of readers of streams: the slow ones, the silent ones, those that may not read any more.

In this process: a reader here takes what the test lets it take.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from fastapi import FastAPI, Request
from sqlalchemy.orm import Session

from app.api import admissions, events, streams
from app.api import feed as feeds
from app.api.feed import Feed, Reset, Topic
from app.api.following import Following
from app.api.guards import OPERATE, READ, Guard, guarded
from app.modules.auth import service
from app.scheduling import changes
from app.scheduling.changes import RunChange
from app.scheduling.config import RunRequest
from app.scheduling.ids import new_id
from app.settings import Settings
from support.api import ADMIN, log_in, serving
from support.polling import eventually_async
from support.servers import Database

RUNS = "/api/v1/runs/stream"
SOMEBODY = service.Principal(
    id=new_id(),
    username="somebody",
    role=service.Role.VIEWER,
    created_at=datetime.now(UTC),
    means=service.Means.SESSION,
    credential_id=new_id(),
)


@pytest.fixture(scope="module")
async def app(settings: Settings) -> AsyncIterator[FastAPI]:
    async with serving(settings) as application:
        await service.ensure_admin(application.state.services.sessions, *ADMIN)
        yield application


async def _holds(value: bool) -> bool:  # noqa: FBT001
    return value


def change(state: str = "queued") -> RunChange:
    now = datetime.now(UTC)
    return RunChange(
        new_id(), state, None, "submit", 1, "a.b", "celery", None, None, now, None, None, None, now
    )


async def test_a_client_that_does_not_read_is_let_go_and_the_others_are_not(app: FastAPI) -> None:
    feed: Feed = app.state.services.feed
    now = datetime.now(UTC)
    with (
        feed.reading(Topic.RUNS, lambda _: True, now) as stuck,
        feed.reading(Topic.RUNS, lambda _: True, now) as good,
    ):
        read = 0
        for _ in range(feeds.MAX_PENDING + 1):
            feed._give(Topic.RUNS, now, [change()])
            read += len(await good.next(0))
        assert (stuck.slow, good.slow, read) == (True, False, feeds.MAX_PENDING + 1)
        assert not stuck._line
        feed._give(Topic.RUNS, now, [change()])
        assert await stuck.next(0) == ()
        admission = admissions.Admission(SOMEBODY, READ, "runs", stuck.tell)
        assert streams._ending(feed, stuck, admission, 1e12) == "too_slow"
        assert streams._ending(feed, good, admission, 1e12) is None


async def test_the_place_of_a_reader(app: FastAPI) -> None:
    """It moves past what is not wanted, but not past what was not read; and begins where others were told last."""
    feed: Feed = app.state.services.feed
    begun = await feed.now()
    with feed.reading(Topic.RUNS, lambda run: run.state == "failed", begun) as reader:
        await eventually_async(lambda: _holds(reader.position > begun), 10)
        later, latest = (datetime.now(UTC) + timedelta(days=days) for days in (1, 2))
        feed._give(Topic.RUNS, later, [change("failed")])
        feed._give(Topic.RUNS, latest, [change()])
        assert reader.position < later
        await reader.next(0)
        assert reader.position == later
        assert feed._until is not None
        with feed.reading(Topic.RUNS, lambda _: True, begun) as late:
            assert late.position >= feed._until > begun


class Hose:
    """What a server gives an application for one stream; its reader takes something only while it is ``open``."""

    def __init__(self, app: FastAPI, token: str) -> None:
        self.taken: list[bytes] = []
        self.open = asyncio.Event()
        self.open.set()
        self._asked = False
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": RUNS,
            "raw_path": RUNS.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": [(b"authorization", f"Bearer {token}".encode())],
            "client": ("192.0.2.1", 1),
            "server": ("upbeat.test", 80),
        }
        self.task = asyncio.create_task(app(scope, self._receive, self._send))

    async def _receive(self) -> dict[str, Any]:
        if self._asked:
            await asyncio.Event().wait()
        self._asked = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def _send(self, message: Any) -> None:
        await self.open.wait()
        self.taken.append(message.get("body", b""))

    async def has(self, text: bytes) -> None:
        await eventually_async(lambda: _holds(text in b"".join(self.taken)), 10, str(text))


async def test_a_reader_that_stops_is_told_so_when_it_goes_on_and_costs_no_memory_meanwhile(
    app: FastAPI,
) -> None:
    feed: Feed = app.state.services.feed
    hose = Hose(app, await log_in(app, *ADMIN))
    await hose.has(b"event: ready")
    (client,) = feed._clients
    hose.open.clear()
    for _ in range(feeds.MAX_PENDING + 2):
        feed._give(Topic.RUNS, datetime.now(UTC), [change()])
    await eventually_async(lambda: _holds(client.slow), 10)
    for _ in range(100):
        feed._give(Topic.RUNS, datetime.now(UTC), [change()])
    assert not client._line
    hose.open.set()
    await asyncio.wait_for(hose.task, 10)
    assert b"".join(hose.taken).rstrip().endswith(b'data: {"reason": "too_slow"}')
    assert b"".join(hose.taken).count(b"event: run") <= 1
    assert client not in feed._clients


async def test_a_quiet_stream_tells_its_place(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "KEEP_ALIVE", 0.1)
    hose = Hose(app, await log_in(app, *ADMIN))
    await eventually_async(lambda: _holds(b"".join(hose.taken).count(b": still here\n\n") >= 3), 10)
    places = re.findall(rb"^id: (\d+)$", b"".join(hose.taken), re.MULTILINE)
    assert places == sorted(places)
    assert len(set(places)) > 1
    hose.task.cancel()
    await asyncio.wait({hose.task})


async def test_who_comes_while_the_connection_is_given_up_is_followed(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    following: Following = app.state.services.following
    request = RunRequest(countdown=3600)
    run = await app.state.services.scheduler.submit("scheduled_task.test_task", request, actor="somebody")
    closing, go_on, close = asyncio.Event(), asyncio.Event(), following._listener.close

    async def slowly() -> None:
        closing.set()
        await go_on.wait()
        await close()

    with following.following(run.id) as first:
        await eventually_async(lambda: _holds(first.standing is not None), 10)
        monkeypatch.setattr(following._listener, "close", slowly)
    await asyncio.wait_for(closing.wait(), 10)
    with following.following(run.id) as second:
        go_on.set()
        await eventually_async(lambda: _holds(second.standing is not None), 10)


async def test_a_reader_that_takes_nothing_for_long_is_cut_off(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "SEND_PATIENCE", 0.2)
    feed: Feed = app.state.services.feed
    hose = Hose(app, await log_in(app, *ADMIN))
    await hose.has(b"event: ready")
    (client,) = feed._clients
    hose.open.clear()
    withheld = change()
    feed._give(Topic.RUNS, datetime.now(UTC), [withheld])
    await asyncio.wait_for(hose.task, 10)
    assert str(withheld.id).encode() not in b"".join(hose.taken)
    assert client not in feed._clients
    assert not app.state.services.admissions._open


def gone(_: Session) -> set[UUID]:
    raise ConnectionError


async def test_a_place_does_not_outlive_the_readers(app: FastAPI) -> None:
    feed: Feed = app.state.services.feed
    begun = await feed.now()
    with feed.reading(Topic.RUNS, lambda _: True, begun):
        await eventually_async(lambda: _holds(feed._until is not None and feed._until > begun), 10)
    await eventually_async(lambda: _holds(feed._task is not None and feed._task.done()), 10)
    with feed.reading(Topic.RUNS, lambda _: True, begun) as later:
        assert later.position == begun


async def test_more_than_is_told_one_by_one(
    app: FastAPI, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed: Feed = app.state.services.feed
    begun = await feed.now()
    with feed.reading(Topic.RUNS, lambda _: True, begun) as reader:
        await eventually_async(lambda: _holds(feed._until is not None), 10)
        # What is asked after the look may fail; the look has been told by then.
        monkeypatch.setattr(changes, "running", gone)
        with psycopg.connect(database.url) as connection:
            connection.execute(
                """INSERT INTO celery_task_runs (id, state, origin, task, queue, due_at, args, kwargs, options)
                SELECT (lpad(to_hex((extract(epoch from clock_timestamp()) * 1000)::bigint), 12, '0')
                        || '7000' || 'a' || lpad(to_hex(n), 15, '0'))::uuid,
                       'queued', 'submit', 'a.b', 'celery', now(), '[]', '{}', '{}'
                FROM generate_series(1, 2500) n"""
            )
        found: list[Any] = []

        async def told() -> bool:
            found.extend(await reader.next(0.1))
            return Reset.TOO_MANY in found or reader.slow

        await eventually_async(told, 15)
    assert await feed.replay(Topic.RUNS, begun, lambda _: True) == [Reset.TOO_MANY]
    with psycopg.connect(database.url) as connection:
        connection.execute("DELETE FROM celery_task_runs WHERE task = 'a.b'")


async def test_all_streams_are_checked_at_once_and_by_their_guards(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admissions, "LOOK_EVERY", 0.02)
    sessions, rules = app.state.services.sessions, app.state.services.settings.auth
    user = await service.create_user(sessions, username="demoted", password=ADMIN[1], role="operator")
    place, refusals = service.Place("192.0.2.1"), app.state.services.refusals
    token = (await service.login(sessions, rules, "demoted", ADMIN[1], place, refusals=refusals)).token
    caller = (await service.authenticate(sessions, rules, token)).principal
    told: list[Guard] = []

    async def reads() -> None: ...

    async def operates() -> None: ...

    looked_after = admissions.Admissions(sessions, rules)
    with ExitStack() as stack:
        opened = []
        for guard, endpoint in ((READ, reads), (OPERATE, operates)) * 50:
            scope = {"type": "http", "path": "/api/v1/runs/stream", "endpoint": guarded(guard)(endpoint)}
            request = Request(scope)
            request.state.caller = caller
            opened.append(
                stack.enter_context(looked_after.admitted(request, lambda g=guard: told.append(g)))  # type: ignore[misc]
            )
        await eventually_async(lambda: _holds(looked_after.looks > 1), 10)
        assert not told
        await service.change_user(sessions, user.id, service.UserChange(role=service.Role.VIEWER))
        await eventually_async(lambda: _holds(len(told) >= 50), 10)
        assert {each.over for each in opened if each.guard == READ} == {False}
        assert {each.over for each in opened if each.guard == OPERATE} == {True}
        task = looked_after._task
    assert task is not None
    await asyncio.wait_for(task, 10)
    await looked_after.close()
