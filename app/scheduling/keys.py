"""The keys of a schedule object, read strictly: what is wrong raises a TimingError that names the key. Pure."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from app.scheduling.walltime import EARLIEST, LATEST, TimingError, as_utc, load_zone


def required(schedule: Mapping[str, Any], key: str, what: str) -> Any:
    """The value of a key that must be there."""
    value = schedule.get(key)
    if value is None:
        raise TimingError(key, f"is missing; give {what}")
    return value


def choice(schedule: Mapping[str, Any], key: str, allowed: Iterable[str], default: str) -> Any:
    """The value of a key that is one of a few words."""
    value = schedule.get(key, default)
    if not isinstance(value, str) or value not in allowed:
        raise TimingError(key, f"{shown(value)} is not valid; use one of {', '.join(allowed)}")
    return value


def flag(schedule: Mapping[str, Any], key: str) -> bool:
    """The value of a key that is true or false, false when it is absent."""
    value = schedule.get(key, False)
    if not isinstance(value, bool):
        raise TimingError(key, f"{shown(value)} is not a boolean; use true or false")
    return value


def zone_name(schedule: Mapping[str, Any]) -> str:
    """The IANA name of the schedule's zone."""
    return load_zone(schedule.get("timezone", "UTC")).key


def moment_at(value: object, key: str) -> datetime:
    """An ISO 8601 text (or a datetime) as a datetime, naive or aware."""
    if isinstance(value, datetime):
        return value
    if isinstance(value, str):
        try:
            return datetime.fromisoformat(value)
        except ValueError:
            pass
    raise TimingError(key, f"{shown(value)} is not an ISO 8601 time; write it as 2027-03-01T09:00:00+01:00")


def instant_at(moment: datetime, key: str) -> datetime:
    """An aware datetime in UTC."""
    return bounded(as_utc(moment), key)


def bounded(moment: datetime, key: str) -> datetime:
    """`moment`, if every zone can show it."""
    if not EARLIEST <= moment <= LATEST:
        raise TimingError(key, "is beyond the calendar; give a year from 2 to 9998")
    return moment


def iso(instant: datetime) -> str:
    """A UTC instant as it is stored and shown."""
    return instant.isoformat().replace("+00:00", "Z")


def shown(value: object) -> str:
    """A rejected value, short enough for a message."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        text = f"this {type(value).__name__}"  # an int too long for text, or a list that holds itself
    return text if len(text) <= 60 else f"{text[:60]}…"
