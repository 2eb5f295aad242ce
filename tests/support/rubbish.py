"""Messages that no worker can run, as they may turn up in a queue, each with what it must be counted as."""

import base64
import json
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from app.scheduling.messages import Kind, RunMessage
from app.worker.publisher import envelope
from app.worker.transport import LARGEST_MESSAGE

PUBLISHED = 1_700_000_000.0
DEEP = b"[" * 100_000


@dataclass(frozen=True, slots=True)
class Rubbish:
    """One message; ``counted`` is the name of its count, without the prefix of refusals."""

    name: str
    content: bytes
    counted: str


def wake_up(run_id: UUID | None = None, *, task: str = "support.instant", attempt: int = 1) -> dict[str, Any]:
    """The envelope that we publish ourselves."""
    message = RunMessage(run_id or uuid4(), Kind(task, "celery", attempt))
    return envelope(message, PUBLISHED, "test")


def changed(part: str | None = None, /, **changes: object) -> bytes:
    """Our own envelope with some fields of it, or of one ``part`` of it, set; `...` leaves a field out."""
    made = wake_up()
    target = made if part is None else made[part]
    for name, value in changes.items():
        target[name.replace("_", "-") if part is None else name] = value
        if value is ...:
            del target[name.replace("_", "-") if part is None else name]
    return json.dumps(made).encode()


def _body(content: bytes) -> str:
    return base64.b64encode(content).decode()


def unreadable() -> Iterator[Rubbish]:
    """What is refused as soon as it is read."""
    yield from _no_envelopes()
    yield from _bad_properties()
    yield from _bad_headers()
    yield from _bad_bodies()


def _no_envelopes() -> Iterator[Rubbish]:
    good = changed()
    yield Rubbish("empty", b"", "not JSON")
    yield Rubbish("text", b"not json at all", "not JSON")
    yield Rubbish("pickle", pickle.dumps({"task": "support.instant"}), "not JSON")
    yield Rubbish("truncated", good[: len(good) // 2], "not JSON")
    yield Rubbish("not UTF-8", b'{"body": "\xff\xfe"}', "not JSON")
    yield Rubbish("UTF-16 half a pair", b"\xff\xfe\x00", "not JSON")
    yield Rubbish("NUL bytes", b"\0" * 64, "not JSON")
    yield Rubbish("deeply nested", DEEP, "not JSON")
    yield Rubbish("digits", b"9" * 10_000, "not JSON")
    yield Rubbish("oversized", b" " * LARGEST_MESSAGE + good, "too large")
    for content in (b"null", b"1", b"true", b'"text"', b"[]", b"[{}]", b"[" + good + b"]"):
        yield Rubbish(f"{content[:10].decode()} is no object", content, "not an object")
    yield Rubbish("empty object", b"{}", "no properties")


def _bad_properties() -> Iterator[Rubbish]:
    value: Any
    for value in (..., None, [], "properties"):
        yield Rubbish(f"properties {value}", changed(properties=value), "no properties")
    for value in (..., None, 7, {}):
        name = f"delivery tag {value}"
        yield Rubbish(name, changed("properties", delivery_tag=value), "no properties")
    for value in ([], "celery", {"exchange": 1, "routing_key": "celery"}, {"routing_key": ["celery"]}):
        name = f"delivery info {value}"
        yield Rubbish(name, changed("properties", delivery_info=value), "no properties")


def _bad_headers() -> Iterator[Rubbish]:
    value: Any
    for value in (..., None, [], "headers"):
        yield Rubbish(f"headers {value}", changed(headers=value), "no headers")
    for name in ("task", "id"):
        for value in (..., None, "", 5, ["support.instant"], {"a": 1}):
            yield Rubbish(f"{name} {value}", changed("headers", **{name: value}), f"no {name}")
    for name in ("eta", "expires"):
        for value in ("2030-01-01T00:00:00+00:00", 60, "soon"):
            yield Rubbish(f"{name} {value}", changed("headers", **{name: value}), f"has {name}")
    for name in ("lang", "shadow", "group", "root_id", "parent_id", "origin", "compression"):
        yield Rubbish(f"{name} as a list", changed("headers", **{name: []}), f"bad {name}")
    for value in (-1, 30_000, 1.5, "1", True, [1]):
        yield Rubbish(f"retries {value}", changed("headers", retries=value), "bad retries")
    for value in (60, [60], [60, 30, 1], ["60", None], [-1, None], [0, 0], [True, None], {"hard": 60}):
        yield Rubbish(f"time limits {value}", changed("headers", timelimit=value), "bad timelimit")
    for value in ("now", -1, 1e300, []):
        name = f"published at {value}"
        yield Rubbish(name, changed("headers", upbeat_published_at=value), "bad upbeat_published_at")
    yield Rubbish("stamps", changed("headers", stamped_headers=["x"]), "has stamps")


def _bad_bodies() -> Iterator[Rubbish]:
    value: Any
    for value in (..., None, "application/x-python-serialize", "application/x-yaml", "text/plain", 1):
        yield Rubbish(f"content type {value}", changed(content_type=value), "not JSON content")
    for value in (..., None, "binary", "latin-1", 8):
        yield Rubbish(f"content encoding {value}", changed(content_encoding=value), "not JSON content")
    for value in (..., None, 1, {}, [[], {}, {}]):
        yield Rubbish(f"body {value}", changed(body=value), "no body")
    for value in (..., None, "utf-8", []):
        yield Rubbish(
            f"body encoding {value}", changed("properties", body_encoding=value), "bad body encoding"
        )
    for value in ("%%%", "AAA", "é", '[[], {}, {"chain": null}]'):
        yield Rubbish(f"base64 {value}", changed(body=value), "bad base64")
    pickled = pickle.dumps(([], {}, {}))
    for content in (b"", b"nonsense", b"[[], {}", b"\xff\xfe\xff", pickled, DEEP):
        yield Rubbish(f"body of {content[:8]!r}", changed(body=_body(content)), "body not JSON")
    for parts in ("{}", "[]", "[[], {}]", "[{}, [], {}]", "[[], [], {}]", "[[], {}, []]", "[[], {}, {}, 1]"):
        yield Rubbish(f"body {parts}", changed(body=_body(parts.encode())), "bad body")


def pickled_task() -> bytes:
    """A message of a client that pickles, as kombu would send it; unpickling it would run code."""
    made = wake_up()
    made["content-type"], made["content-encoding"] = "application/x-python-serialize", "binary"
    made["body"] = _body(pickle.dumps(([], {}, {"callbacks": None})))
    return json.dumps(made).encode()
