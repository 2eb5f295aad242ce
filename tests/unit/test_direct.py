"""The busiest route is served without the framework's ways, and behaves as if it were not."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter
from pydantic_core import to_json
from starlette.routing import Match

from app.api.bodies import LARGEST, SMALLEST, parse, validated
from app.api.routing import DirectRoute
from app.api.runs import Run, told
from app.main import create_app
from app.scheduling.config import RunRequest
from app.scheduling.enqueueing import NewRun
from app.settings import Settings

PATH = "/api/v1/tasks/a.b/runs"
REQUESTS: TypeAdapter[RunRequest] = TypeAdapter(RunRequest)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(SMALLEST, LARGEST)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_characters="\0", codec="utf-8")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("kind", "method", "path", "match"),
    [
        ("http", "POST", PATH, Match.FULL),
        ("http", "GET", PATH, Match.NONE),
        ("http", "POST", f"{PATH}/more", Match.NONE),
        ("websocket", "POST", PATH, Match.NONE),
    ],
)
def test_it_is_found_before_all_others(kind: str, method: str, path: str, match: Match) -> None:
    route = create_app(Settings()).routes[0]
    assert isinstance(route, DirectRoute)
    found, scope = route.matches({"type": kind, "method": method, "path": path})
    assert found is match
    assert scope.get("path_params") == ({"name": "a.b"} if match is Match.FULL else None)


@given(VALUES, st.booleans())
def test_what_is_validated_is_what_was_sent(value: Any, ascii_only: bool) -> None:  # noqa: FBT001
    body = json.dumps({"args": [value], "kwargs": {"it": value}}, ensure_ascii=ascii_only).encode()
    try:
        sent = parse(body)
    except Exception:  # noqa: BLE001 - keys with NUL, and the like, are refused
        return
    request = validated(REQUESTS, body)
    assert json.dumps(request.args) == json.dumps(sent["args"])
    assert json.dumps(request.kwargs) == json.dumps(sent["kwargs"])


def test_a_run_is_told_as_its_model_says() -> None:
    now = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
    run = NewRun(
        id=UUID(int=7), task="a.b", queue="celery", due_at=now, created_at=now, args=[1.5, None, "é"],
        kwargs={"a": {"b": [True]}}, options={"max_attempts": 3}, requested_by="ada",
    )  # fmt: skip
    assert to_json(told(run)).decode() == Run.of(run).model_dump_json()
