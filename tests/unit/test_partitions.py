"""Which months have partitions."""

from datetime import UTC, datetime

import pytest

from app.db.partitions import UNDECIDED, month_start, months_behind
from app.scheduling.config import ExtraConfig


@pytest.mark.parametrize(
    ("now", "behind"),
    [
        (datetime(2026, 12, 31, 23, tzinfo=UTC), 1),
        (datetime(2027, 1, 1, tzinfo=UTC), 1),
        (datetime(2027, 2, 28, 12, tzinfo=UTC), 1),
        (datetime(2027, 3, 1, tzinfo=UTC), 2),
        (datetime(2028, 3, 1, tzinfo=UTC), 2),
        (datetime(2028, 3, 31, tzinfo=UTC), 1),
    ],
)
def test_the_oldest_tick_that_may_yet_be_decided_has_its_month(now: datetime, behind: int) -> None:
    assert months_behind(now) == behind
    assert month_start(now, -behind) <= now - UNDECIDED


def test_no_catch_up_window_is_longer() -> None:
    field = ExtraConfig.model_fields["catchup_window"]
    longest = next(each.le for each in field.metadata if hasattr(each, "le"))
    assert longest < UNDECIDED.total_seconds()
