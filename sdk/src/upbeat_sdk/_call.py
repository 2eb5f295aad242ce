"""One logical call: what is asked of the service, however often it has to be sent."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import Any, Self
from urllib.parse import quote
from uuid import uuid4

REPEATABLE_VERBS = frozenset({"GET", "HEAD", "PUT", "DELETE"})
# When it is done the current password is another one, and a second request a wrong guess.
ONCE = frozenset({"change_own_password"})


@dataclass(frozen=True, slots=True)
class Call:
    """``body`` becomes JSON, ``form`` a form; values of None in ``query`` and ``headers`` are left out.

    ``keyed`` calls create work, and carry an idempotency key: the one that is given, or a new one.
    """

    operation: str
    verb: str
    path: str
    query: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str | None] = field(default_factory=dict)
    body: Any = None
    form: Mapping[str, Any] | None = None
    keyed: bool = False
    idempotency_key: str | None = None
    secured: bool = True

    def with_key(self) -> Self:
        """The call with the key that all its requests carry, if it is one that carries a key."""
        if self.keyed and self.idempotency_key is None:
            return replace(self, idempotency_key=uuid4().hex)
        return self

    @property
    def repeatable(self) -> bool:
        """Whether sending it again does nothing that sending it once does not."""
        repeatable = self.verb in REPEATABLE_VERBS and self.operation not in ONCE
        return repeatable or self.idempotency_key is not None

    def query_items(self) -> list[tuple[str, str | int | float | bool | None]]:
        """The query as text; a sequence gives its name several times."""
        items: list[tuple[str, str | int | float | bool | None]] = []
        for name, value in self.query.items():
            values = value if isinstance(value, list | tuple | set | frozenset) else (value,)
            items += [(name, _text(each)) for each in values if each is not None]
        return items

    def header_items(self) -> dict[str, str]:
        """The call's own headers."""
        items = {name: value for name, value in self.headers.items() if value is not None}
        if self.idempotency_key is not None:
            items["Idempotency-Key"] = self.idempotency_key
        return items


def segment(name: str, value: object) -> str:
    """A value as one segment of a path.

    Raises:
        ValueError: it is empty, and would name another path.
    """
    text = _text(value)
    if text in ("", ".", ".."):
        raise ValueError(f"{name} must not be {text!r}")
    return quote(text, safe="")


def entity_tag(version: int | str) -> str:
    """The `If-Match` header of a version; text is sent as it is."""
    return version if isinstance(version, str) else f'"{version}"'


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime | date):
        return value.isoformat()
    return str(value)
