"""Our envelopes beside those of a stock Celery: a release that changes the message is noticed here."""

import json
import time
from typing import Any
from uuid import UUID, uuid4

import pytest
import redis
from celery import Celery
from celery.utils.nodenames import anon_nodename

from app.scheduling.messages import RunMessage
from app.worker.publisher import envelope

TASK = "orders.close"


def _stock(redis_url: str, queue: str, run_id: UUID, **options: Any) -> dict[str, Any]:
    """What `apply_async` of a plain Celery application puts into Redis."""
    stock = Celery("stock", broker=redis_url, set_as_current=False)
    stock.conf.update(broker_transport_options={"priority_steps": [0]}, task_create_missing_queues=True)
    client = redis.Redis.from_url(redis_url)
    try:
        task = stock.task(name=TASK)(_close)
        task.apply_async(queue=queue, task_id=str(run_id), **options)
        found = client.lpop(queue)
        assert isinstance(found, bytes)
        return json.loads(found)  # type: ignore[no-any-return]
    finally:
        client.close()
        stock.close()


def _close() -> None:
    """A task without arguments, as ours are on the wire."""


@pytest.mark.parametrize(
    ("queue", "attempt", "limits"),
    [
        ("celery", 1, {}),
        ("system", 1, {"soft_time_limit": 10.5, "time_limit": 20}),
        ("priority_low", 3, {"time_limit": 60}),
    ],
)
def test_equal_to_what_apply_async_sends(
    redis_url: str, queue: str, attempt: int, limits: dict[str, float]
) -> None:
    run_id = uuid4()
    stock = _stock(redis_url, queue, run_id, retries=attempt - 1, **limits)
    ours = envelope(RunMessage.of(run_id, TASK, queue, attempt, limits), time.time(), anon_nodename())
    for message in (stock, ours):
        UUID(message["properties"].pop("delivery_tag"))
    # Results are read from the run table, so nobody listens for a reply.
    UUID(stock["properties"].pop("reply_to"))
    assert ours["properties"].pop("reply_to") == ""
    assert 0 <= time.time() - ours["headers"].pop("upbeat_published_at") < 60
    assert ours == stock
