"""What `apply_async` may be given, before anything is written."""

import math
from datetime import UTC, datetime, timedelta, timezone

import pytest
from kombu import Queue

from app.worker import calls

CENTURY = 100 * 365 * 86_400.0
WEST = timezone(timedelta(hours=-12))


def test_delays_as_celery_knows_them() -> None:
    assert calls.due({"countdown": 5}) == (5.0, None)
    assert calls.due({"countdown": -5}) == (0.0, None)
    assert calls.due({"countdown": CENTURY}) == (CENTURY, None)
    assert calls.due({"eta": datetime(2030, 1, 1)}) == (0.0, datetime(2030, 1, 1, tzinfo=UTC))
    assert calls.due({}) == (0.0, None)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("countdown", CENTURY + 1),
        ("countdown", math.inf),
        ("eta", datetime(9999, 12, 31, 23, tzinfo=WEST)),
        ("eta", datetime.min.replace(tzinfo=UTC)),
    ],
)
def test_what_could_be_stored_and_never_read_again_is_refused(option: str, value: object) -> None:
    with pytest.raises(ValueError, match=option):
        calls.due({option: value})


def test_queues_by_name_and_as_objects() -> None:
    assert [calls.queue_name(each) for each in (None, "system", Queue("priority_low"))] == [
        None,
        "system",
        "priority_low",
    ]
    with pytest.raises(ValueError, match="no queue 'typo'"):
        calls.queue_name("typo")
