"""The guarded reader of task messages: what it lets through, and what it refuses with which words."""

import gc
import json
import weakref
from typing import Any

import pytest
from kombu import Connection
from kombu.asynchronous import Hub

from app.worker.transport import Refused, Transport, read_envelope
from support.rubbish import Rubbish, changed, pickled_task, unreadable, wake_up


@pytest.mark.parametrize("rubbish", list(unreadable()), ids=lambda each: each.name)
def test_rubbish_is_refused_with_its_problem(rubbish: Rubbish) -> None:
    with pytest.raises(Refused) as refused:
        read_envelope(rubbish.content)
    assert str(refused.value) == rubbish.counted


def test_a_pickled_task_is_never_decoded() -> None:
    with pytest.raises(Refused, match="not JSON content"):
        read_envelope(pickled_task())


def test_our_own_wake_up_is_read_as_it_was_written() -> None:
    written = wake_up()
    assert read_envelope(json.dumps(written).encode()) == written


@pytest.mark.parametrize(
    "headers",
    [
        {"retries": ...},
        {"retries": 29_999},
        {"timelimit": ...},
        {"timelimit": [60, 0.5]},
        {"upbeat_published_at": ...},
        {"stamped_headers": []},
        {"lang": ...},
        {"unknown": {"of": "a later version"}},
    ],
)
def test_a_stock_client_may_leave_out_what_is_optional(headers: dict[str, Any]) -> None:
    assert read_envelope(changed("headers", **headers))["headers"]["task"] == "support.instant"


def test_a_message_without_delivery_information_is_read() -> None:
    assert read_envelope(changed("properties", delivery_info=...))["body"]


def test_a_loop_turns_for_the_newest_connection_and_keeps_no_other() -> None:
    hub = Hub()
    hub.on_tick.add(gc.collect)
    found: list[weakref.ref[Transport]] = []
    for _ in range(3):
        transport = Connection("redis://", transport=Transport).transport
        transport.register_with_event_loop(transport, hub)
        found.append(weakref.ref(transport))
    assert len(hub.on_tick) == 2
    # As Celery does with a connection that was lost.
    hub.timer.clear()
    del transport
    gc.collect()
    assert [each() is None for each in found[:-1]] == [True, True]
