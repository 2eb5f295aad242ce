"""What people type on the command line, as the API wants it."""

from datetime import datetime
from typing import Any

import pytest

from app.cli.arguments import given, instant, json_of, timing
from app.errors import InvalidInput


@pytest.mark.parametrize(
    ("options", "schedule"),
    [
        (("0 3 * * *", None, None, "Asia/Shanghai"), {"type": "crontab", "expression": "0 3 * * *", "timezone": "Asia/Shanghai"}),
        ((None, "90s", None, None), {"type": "interval", "every": 90, "unit": "seconds"}),
        ((None, "2w", None, None), {"type": "interval", "every": 2, "unit": "weeks"}),
        ((None, None, "2027-03-01T09:00", "UTC"), {"type": "one_off", "at": "2027-03-01T09:00", "timezone": "UTC"}),
        ((None, None, None, None), None),
    ],
)  # fmt: skip
def test_when_a_schedule_runs(options: tuple[str | None, ...], schedule: dict[str, Any] | None) -> None:
    assert timing(*options) == schedule


@pytest.mark.parametrize(
    ("options", "option"),
    [
        (("* * * * *", "5m", None, None), "--every"),
        ((None, "5m", "2027-01-01", None), "--at"),
        ((None, "5", None, None), "--every"),
        ((None, "0m", None, None), "--every"),
        ((None, "", None, None), "--every"),
        ((None, "5 parsecs", None, None), "--every"),
        ((None, None, None, "UTC"), "--timezone"),
    ],
)
def test_what_cannot_be_meant_names_the_option(options: tuple[str | None, ...], option: str) -> None:
    with pytest.raises(InvalidInput, match=f"^{option}: "):
        timing(*options)


def test_json_arguments() -> None:
    assert json_of(list, '["ö", 1]', "--args") == ["ö", 1]
    assert json_of(dict, None, "--kwargs") is None
    for wrong in ("{}", "[1", "x"):
        with pytest.raises(InvalidInput, match=r"^--args: must be JSON"):
            json_of(list, wrong, "--args")


def test_an_instant_has_an_offset() -> None:
    assert instant("2027-01-01T00:00:00+05:00", "--at") == (
        datetime.fromisoformat("2027-01-01T00:00:00+05:00").astimezone().isoformat()
    )
    assert datetime.fromisoformat(instant("2027-01-01 12:00", "--at")).tzinfo is not None
    for wrong in ("soon", "0001-01-01T00:00:00+14:00"):
        with pytest.raises(InvalidInput, match=r"^--at"):
            instant(wrong, "--at")


def test_only_what_is_given_is_sent() -> None:
    assert given(a=None, b=False, c=[]) == {"b": False, "c": []}
