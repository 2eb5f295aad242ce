"""Messages that are no honest wake-up, pushed into the queues of a real worker: all counted, none harmful."""

import base64
import json
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest
import redis
from celery.exceptions import NotRegistered
from celery.result import AsyncResult

from app.scheduling import runs
from app.settings import Settings
from app.worker import bookkeeping, celery_app, counters
from support import checker
from support.calling import calling, unsent
from support.polling import eventually
from support.processes import Process
from support.rubbish import DEEP, Rubbish, changed, pickled_task, unreadable, wake_up
from support.servers import Database
from support.stack import Stack
from support.tasks import instant

QUEUE = "celery"
RUNS = 30.0


@pytest.fixture(scope="module")
def worker(shared_stack: Stack, settings: Settings) -> Iterator[Process]:
    """One slot, so that a message that kept it would be noticed."""
    with calling(settings):
        yield shared_stack.worker("-c", "1")


@pytest.fixture
def broker(worker: Process, redis_url: str) -> Iterator[redis.Redis]:
    client = redis.Redis.from_url(redis_url)
    client.delete(counters.KEY)
    yield client
    assert worker.alive
    client.close()


def push(client: redis.Redis, *contents: bytes) -> None:
    """The first is read first."""
    client.lpush(QUEUE, *contents)


def counted(expected: Counter[str]) -> None:
    """Exactly these counts, and no message is left."""

    def agrees() -> bool:
        assert counters.read() == expected
        return True

    eventually(agrees, 20, "the counts")


def encoded(run_id: UUID | None = None, **options: Any) -> bytes:
    return json.dumps(wake_up(run_id, **options)).encode()


def state(run_id: UUID) -> str:
    row = bookkeeping.transact(lambda session: runs.read(session, run_id))
    assert row is not None
    return row.state


def result(run_id: UUID) -> object:
    return AsyncResult(str(run_id), app=celery_app).get(timeout=RUNS)


def test_a_good_run_after_each_unreadable_message(broker: redis.Redis) -> None:
    rubbish = [*unreadable(), Rubbish("pickled task", pickled_task(), "not JSON content")]
    good = {unsent(number): number for number in range(len(rubbish))}
    for each, run_id in zip(rubbish, good, strict=True):
        push(broker, each.content, encoded(run_id))
    assert {run_id: result(run_id) for run_id in good} == good
    counted(Counter(f"refused:{each.counted}" for each in rubbish))
    assert broker.llen(QUEUE) == 0


def test_an_unknown_task_is_counted_and_its_run_has_failed(broker: redis.Redis) -> None:
    gone = unsent(task="module.removed")
    push(broker, encoded(task="module.nobody_knows"), encoded(gone, task="module.removed"))
    with pytest.raises(NotRegistered, match=r"module\.removed"):
        result(gone)
    counted(Counter({"refused:unknown task": 2}))
    assert instant.delay("next").get(timeout=RUNS) == "next"


def test_an_unknown_task_does_not_touch_the_run_of_another(broker: redis.Redis) -> None:
    honest = unsent("honest")
    push(broker, encoded(honest, task="module.nobody_knows"))
    counted(Counter({"refused:unknown task": 1}))
    assert state(honest) == "queued"


@pytest.mark.parametrize(
    "identifier", ["5f0c7a52-2f0e-4d0b-9d2c-0d6f3c1b7a11", "no uuid", "' OR true --", "x" * 10_000, "\0", "é"]
)
def test_a_forged_message_without_a_run_starts_nothing(broker: redis.Redis, identifier: str) -> None:
    push(broker, changed("headers", id=identifier))
    counted(Counter({"suppressed": 1}))
    assert instant.delay("next").get(timeout=RUNS) == "next"


def test_a_forged_message_cannot_start_what_is_not_its_own(broker: redis.Redis) -> None:
    honest, later = unsent("honest"), unsent("later", due_in=600)
    push(
        broker,
        encoded(honest, attempt=2),
        encoded(honest, attempt=29_000),
        encoded(honest, task="support.fail"),
        encoded(later),
    )
    counted(Counter({"suppressed": 4}))
    assert [state(honest), state(later)] == ["queued", "queued"]
    push(broker, encoded(honest))
    assert result(honest) == "honest"


@pytest.mark.parametrize("part", ["callbacks", "chain"])
def test_a_forged_message_cannot_add_a_successor(broker: redis.Redis, database: Database, part: str) -> None:
    message = wake_up(honest := unsent("honest"))
    embed = {part: [dict(instant.si("forged"), options={"task_id": str(uuid4())})]}
    message["body"] = base64.b64encode(json.dumps([[], {}, embed]).encode()).decode()
    before = {run.id for run in checker.read_runs(database.url)}
    push(broker, json.dumps(message).encode())
    assert result(honest) == "honest"
    after = instant.delay("after")
    assert after.get(timeout=RUNS) == "after"
    assert {run.id for run in checker.read_runs(database.url)} == before | {after.id}


def test_a_doubled_message_starts_its_run_once(broker: redis.Redis, shared_stack: Stack) -> None:
    run_id = unsent("once")
    push(broker, *[encoded(run_id)] * 5)
    counted(Counter({"suppressed": 4}))
    assert result(run_id) == "once"
    assert [entry.run for entry in shared_stack.ledger.starts()].count(str(run_id)) == 1


@pytest.mark.parametrize("channel", ["celery.pidbox", "celeryev/worker.heartbeat"])
def test_rubbish_on_the_control_channels(broker: redis.Redis, worker: Process, channel: str) -> None:
    database = broker.connection_pool.connection_kwargs["db"]
    contents = (b"", b"nonsense", b"null", b"[]", b"{}", b"\x80\x04N.", DEEP, changed(), changed(body=5))
    for content in contents:
        # What Celery cannot make sense of may have it subscribe anew.
        eventually(partial(broker.publish, f"/{database}.{channel}", content), 10, "the worker to listen")
    assert instant.delay("next").get(timeout=RUNS) == "next"
    eventually(lambda: celery_app.control.ping(timeout=1.0, limit=1), 20, "an answer to a ping")
    assert "Unrecoverable" not in worker.output()


def test_a_lost_connection_is_given_up_though_a_message_was_not_acknowledged(settings: Settings) -> None:
    with calling(settings), celery_app.connection_for_read() as connection:
        channel = connection.default_channel
        channel.qos._delivered["tag"] = object()
        # As kombu leaves it when it tries to connect anew.
        connection.transport.client = None
        connection.release()
        assert channel.closed
