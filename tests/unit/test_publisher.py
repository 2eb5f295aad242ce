"""The quick way to make envelopes makes the same as the plain one."""

import json
from uuid import UUID, uuid4

import pytest

from app.scheduling.messages import Kind, RunMessage
from app.worker.publisher import envelope, envelopes

ORIGIN = 'gen1@ho%(at)s"t'


@pytest.mark.parametrize(
    "message",
    [
        RunMessage(uuid4(), Kind("orders.close", "celery")),
        RunMessage(uuid4(), Kind("orders.close", "system", 3, 10.5, 20)),
        RunMessage(uuid4(), Kind('ünïcode "100%" %(run)s \\', "priority_low", 1, None, 60, restartable=True)),
    ],
)
def test_equal_to_the_plain_envelope(message: RunMessage) -> None:
    (stored,) = envelopes([message], 1_800_000_000.123456, ORIGIN)
    made = json.loads(stored)
    expected = envelope(message, 1_800_000_000.123456, ORIGIN)
    for each in (made, expected):
        UUID(each["properties"].pop("delivery_tag"))
    assert made == expected


def test_delivery_tags_are_unique() -> None:
    messages = [RunMessage(uuid4(), Kind("orders.close", "celery")) for _ in range(1000)]
    stored = [*envelopes(messages, 1.0, ORIGIN), *envelopes(messages, 1.0, ORIGIN)]
    assert len({json.loads(each)["properties"]["delivery_tag"] for each in stored}) == 2000
