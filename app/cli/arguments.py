"""What people type, as the API wants it. Pure."""

import json
from datetime import datetime
from typing import Any

from app.errors import FieldError, InvalidInput

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def json_of(kind: type[Any], text: str | None, option: str) -> Any:
    """The list or object that an option holds as JSON, None without one.

    Raises:
        InvalidInput: it is not one.
    """
    if text is None:
        return None
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, kind):
        example = "'[\"a\", 1]'" if kind is list else "'{\"name\": 1}'"
        raise InvalidInput(FieldError(option, f"must be JSON, such as {example}"))
    return value


def timing(
    cron: str | None, every: str | None, at: str | None, timezone: str | None
) -> dict[str, Any] | None:
    """The schedule object of the options --cron, --every (90s, 5m, 2h, 1d, 1w) and --at; None without any.

    Raises:
        InvalidInput: more than one was given, or one that cannot be read.
    """
    given = [
        option for option, value in (("--cron", cron), ("--every", every), ("--at", at)) if value is not None
    ]
    if len(given) > 1:
        raise InvalidInput(FieldError(given[1], f"cannot stand beside {given[0]}"))
    zone = {} if timezone is None else {"timezone": timezone}
    if cron is not None:
        return {"type": "crontab", "expression": cron, **zone}
    if at is not None:
        return {"type": "one_off", "at": at, **zone}
    if every is None:
        if zone:
            raise InvalidInput(FieldError("--timezone", "belongs to --cron, --every or --at"))
        return None
    number, unit = every[:-1], every[-1:]
    if unit not in UNITS or not number.isdecimal() or int(number) < 1:
        raise InvalidInput(FieldError("--every", "must be a number and a unit: 90s, 5m, 2h, 1d or 1w"))
    return {"type": "interval", "every": int(number), "unit": UNITS[unit], **zone}


def instant(text: str, option: str) -> str:
    """An instant with an offset; a local one gets this host's.

    Raises:
        InvalidInput: it cannot be read.
    """
    try:
        return datetime.fromisoformat(text).astimezone().isoformat()
    except (ValueError, OverflowError):
        raise InvalidInput(FieldError(option, "must be a time such as 2027-03-01T09:00:00+01:00")) from None


def given(**fields: Any) -> dict[str, Any]:
    """The fields that are not None: only what is given is sent."""
    return {name: value for name, value in fields.items() if value is not None}
