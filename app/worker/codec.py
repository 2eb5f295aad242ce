"""JSON as Celery writes it (datetimes, UUIDs, decimals and bytes keep their type), fit for `jsonb`."""

import json
from typing import Any

from billiard.exceptions import SoftTimeLimitExceeded
from kombu.utils import json as kombu_json


class NotStorable(ValueError):
    """A value that cannot be kept in PostgreSQL as JSON; the message says why."""

    retryable = False


def to_stored(value: Any, *, largest: int | None = None) -> Any:
    """A value as plain JSON types; ``largest`` in bytes of its encoded form.

    Raises:
        NotStorable: it is not JSON, not a number that JSON has, contains NUL or a lone surrogate, or is too large.
    """
    if value is None or (type(value) in (bool, int) and abs(value) < 2**53):
        # What most tasks return needs no look.
        return value
    try:
        text = kombu_json.dumps(value)
        plain = json.loads(text, parse_constant=_refuse_constant)
    except (NotStorable, SoftTimeLimitExceeded):
        raise
    except Exception as error:  # objects bring their own errors
        raise NotStorable(f"it cannot be written as JSON: {error}") from error
    if "\\u0000" in text and _holds_nul(plain):
        raise NotStorable("it contains a NUL character, which PostgreSQL cannot store")
    if "\\ud" in text and _holds_surrogate(plain):
        raise NotStorable("it contains half of a surrogate pair, which is no character")
    if largest is not None and len(text.encode()) > largest:
        raise NotStorable(
            f"it takes {len(text.encode())} bytes as JSON, more than the {largest} that"
            " UPBEAT_WORKER_MAX_RESULT_BYTES allows; store it elsewhere and return a reference"
        )
    return plain


def from_stored(value: Any) -> Any:
    """The value that `to_stored` was given."""
    if isinstance(value, dict | list) and not _is_plain(value):
        return kombu_json.loads(json.dumps(value))
    return value


def _is_plain(value: dict[str, Any] | list[Any]) -> bool:
    """Whether there is nothing in it that could name another type: most arguments are a few numbers and texts."""
    parts = value.values() if isinstance(value, dict) else value
    return not any(isinstance(part, dict | list) for part in parts) and "__type__" not in value


def _refuse_constant(name: str) -> Any:
    raise NotStorable(f"JSON has no {name}")


def _holds_surrogate(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


def _holds_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any(_holds_nul(part) for pair in value.items() for part in pair)
    return isinstance(value, list) and any(_holds_nul(part) for part in value)
