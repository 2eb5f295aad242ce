"""One suite for the sync and the async client, against the fake, the service in this process, and a running stack."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx
import pytest

import upbeat_sdk
from app.settings import Settings
from support.api import ADMIN, connected, log_in, serving
from support.blocking import Awaited, BlockingTransport
from support.stack import Stack
from upbeat_sdk import AsyncUpbeat, Upbeat, models
from upbeat_sdk.testing import FakeUpbeat, blank

pytestmark = pytest.mark.slow

ECHO = "scheduled_task.test_task"
FAILING = "scheduled_task.cleanup_old_logs"
PATIENCE = 30.0
PLACES = ("fake", "asgi", "stack")


@dataclass
class Place:
    """Where the clients' calls end."""

    token: str
    sync: Callable[..., Upbeat]
    asynchronous: Callable[..., AsyncUpbeat]


@pytest.fixture(scope="module")
async def service(settings: Settings, shared_stack: Stack) -> AsyncIterator[dict[str, Place]]:
    """All places; the two real ones share a database and a worker."""
    shared_stack.worker(wait=False)
    running = shared_stack.api()
    async with serving(settings) as app:
        async with connected(app):
            token = await log_in(app, *ADMIN)
        transport = httpx.ASGITransport(app)
        url = "http://upbeat.test"
        fake = faked()
        yield {
            "fake": Place("fake-token", fake.client, fake.async_client),
            "asgi": Place(
                token,
                lambda **options: Upbeat(
                    url, **options, http_client=httpx.Client(transport=BlockingTransport(transport))
                ),
                lambda **options: AsyncUpbeat(
                    url, **options, http_client=httpx.AsyncClient(transport=transport)
                ),
            ),
            "stack": Place(
                token,
                lambda **options: Upbeat(running.url, **options),
                lambda **options: AsyncUpbeat(running.url, **options),
            ),
        }


def faked() -> FakeUpbeat:
    """The fake with two tasks that do what the service's do."""
    fake = FakeUpbeat(username=ADMIN[0], password=ADMIN[1])

    @fake.task(ECHO)
    def echo(message: str = "It works.", seconds: float = 0.0) -> dict[str, Any]:
        print(message)  # noqa: T201 - what a task prints is its log
        return {"message": message}

    @fake.task(FAILING, queue="system")
    def failing(days: int = 90) -> None:
        if days < 1:
            raise ValueError("days must be from 1 to 36500")

    user = blank(models.CurrentUser) | {"username": ADMIN[0], "role": "admin"}
    fake.answer("get_current_user", user)
    return fake


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, service: dict[str, Place]) -> Place:
    return service[request.param]


Connect = Callable[..., Any]


@pytest.fixture(params=["sync", "async"])
def connect(request: pytest.FixtureRequest, place: Place) -> Connect:
    """A client with these options; the sync one is awaited too."""
    if request.param == "async":
        return place.asynchronous
    return lambda **options: Awaited(place.sync(**options))


@pytest.fixture
async def client(connect: Connect, place: Place) -> AsyncIterator[Any]:
    async with connect(token=place.token) as client:
        yield client


async def test_it_logs_in_by_itself(connect: Connect) -> None:
    async with connect(username=ADMIN[0], password=ADMIN[1]) as client:
        me = await client.auth.me()
        assert (me.username, me.role) == (ADMIN[0], "admin")
        assert ADMIN[1] not in repr(client)


async def test_a_wrong_token_is_refused(connect: Connect) -> None:
    async with connect(token="wrong") as client:
        with pytest.raises(upbeat_sdk.Unauthenticated) as caught:
            await client.tasks.get(ECHO)
    assert caught.value.status == 401
    assert caught.value.code == "unauthenticated"
    assert caught.value.request_id
    assert "wrong" not in f"{caught.value!r} {caught.value}"


async def test_a_wrong_password_is_refused(connect: Connect) -> None:
    async with connect(username=ADMIN[0], password="not this one") as client:
        with pytest.raises(upbeat_sdk.Unauthenticated):
            await client.tasks.get(ECHO)


async def test_a_task_is_run_and_gives_its_result(client: Any) -> None:
    run = await client.tasks.run(ECHO, kwargs={"message": "so long"})
    assert run.state == "queued"
    result = await run.result(timeout=PATIENCE)
    assert result["message"] == "so long"
    ended = await run.refresh()
    assert ended.finished
    assert ended.returned == result
    assert ended.id == run.id


async def test_a_failed_run_raises_its_error(client: Any) -> None:
    run = await client.tasks.run(FAILING, kwargs={"days": 0})
    with pytest.raises(upbeat_sdk.RunFailed, match="days must be from 1") as caught:
        await run.result(timeout=PATIENCE)
    assert (caught.value.run.error or {})["type"].endswith("ValueError")
    assert (await run.wait()).state == "failed"


async def test_what_does_not_exist(client: Any) -> None:
    with pytest.raises(upbeat_sdk.NotFound) as caught:
        await client.runs.get(uuid4())
    assert caught.value.code == "not_found"
    with pytest.raises(upbeat_sdk.NotFound):
        await client.tasks.run("nobody.knows")


async def test_a_wrong_input_names_its_fields(client: Any) -> None:
    with pytest.raises(upbeat_sdk.InvalidInput) as caught:
        await client.schedules.create(
            task_name="x",
            task_path="nobody.knows",
            schedule={"type": "interval", "every": 1, "unit": "hours"},
        )
    assert [wrong.field for wrong in caught.value.errors] == ["task_path"]


async def test_the_life_of_a_schedule(client: Any) -> None:
    made = await client.schedules.create(
        task_name="every night",
        task_path=ECHO,
        task_kwargs={"message": "good night"},
        task_crontab_minute="0",
        task_crontab_hour="3",
    )
    assert isinstance(made, models.ScheduledTask)
    assert made.schedule["type"] == "crontab"
    renamed = await client.schedules.update(made.id, task_name="each night")
    assert (renamed.task_name, renamed.version) == ("each night", made.version + 1)
    with pytest.raises(upbeat_sdk.PreconditionFailed):
        await client.schedules.update(made.id, if_match=made.version, task_name="too late")
    assert (await client.schedules.pause(made.id, note="holidays")).pause_note == "holidays"
    assert (await client.schedules.disable(made.id)).state == "disabled"
    assert (await client.schedules.enable(made.id)).task_enabled
    run = await client.schedules.run(made.id)
    assert (await run.result(timeout=PATIENCE))["message"] == "good night"
    assert [each.id async for each in client.runs.list(schedule_id=made.id)] == [run.id]
    await client.schedules.delete(made.id)
    with pytest.raises(upbeat_sdk.NotFound):
        await client.schedules.get(made.id)


async def test_pages_are_walked(client: Any) -> None:
    name = uuid4().hex
    for number in range(5):
        await client.schedules.create(
            task_name=f"{name} {number}",
            task_path=ECHO,
            schedule={"type": "interval", "every": 1, "unit": "days"},
        )
    found = client.schedules.list(search=name, limit=2)
    assert [each.task_name async for each in found] == [f"{name} {number}" for number in range(5)]
    page = await client.schedules.list(search=name, limit=2)
    assert len(page.items) == 2
    last = await (await page.next_page()).next_page()
    assert (len(last.items), last.next_cursor, await last.next_page()) == (1, None, None)


async def test_a_run_is_cancelled_and_replayed(client: Any) -> None:
    run = await client.tasks.run(ECHO, kwargs={"message": "too early"}, countdown=3600)
    cancelled = await run.cancel(reason="not today")
    assert (cancelled.state, cancelled.reason) == ("cancelled", "cancelled_by_user")
    with pytest.raises(upbeat_sdk.RunCancelled, match="not today"):
        await run.result(timeout=PATIENCE)
    again = await cancelled.replay(kwargs={"message": "in time"})
    assert again.id != run.id
    assert (await again.result(timeout=PATIENCE))["message"] == "in time"


async def test_a_log_is_read_and_followed(client: Any) -> None:
    run = await client.tasks.run(ECHO, kwargs={"message": "so long"})
    followed = [line.message async for line in run.logs(follow=True)]
    assert "so long" in followed
    assert [line.message async for line in run.logs()] == followed
    assert [line async for line in run.logs(level="error")] == []


async def test_work_under_one_key_is_made_once(client: Any) -> None:
    key = uuid4().hex
    once, again = [await client.tasks.run(ECHO, idempotency_key=key) for _ in range(2)]
    assert once.id == again.id
    assert (await client.tasks.run(ECHO)).id != once.id


@pytest.mark.parametrize("place", ["stack"], indirect=True)
async def test_lines_come_while_the_run_goes_on(client: Any) -> None:
    run = await client.tasks.run(ECHO, kwargs={"message": "just begun", "seconds": 3.0})
    lines = run.logs(follow=True)
    first = [line.message async for line in one(lines)]
    assert first == ["just begun"]
    assert (await run.refresh()).state == "running"
    assert (await run.result(timeout=PATIENCE))["message"] == "just begun"


async def one(lines: Any) -> AsyncIterator[Any]:
    """The first of them."""
    async for line in lines:
        yield line
        return
