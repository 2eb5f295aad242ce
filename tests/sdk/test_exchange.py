"""When a call is sent again, and after which pause."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from upbeat_sdk import ConnectionFailed, TimedOut
from upbeat_sdk._call import Call, entity_tag, segment
from upbeat_sdk._exchange import LONGEST_PAUSE, Exchange, retry_after
from upbeat_sdk._settings import Credential, Settings

READ = Call("get_run", "GET", "/x")
WRITE = Call("pause", "POST", "/x")
KEYED = Call("run_task", "POST", "/x", keyed=True)


def settings(max_retries: int = 3) -> Settings:
    return Settings("http://host:1", Credential(), httpx.Timeout(1), max_retries)


@pytest.mark.parametrize("status", [200, 202, 204, 301, 400, 401, 403, 404, 409, 422, 500])
def test_these_answers_count(status: int) -> None:
    assert Exchange(KEYED, settings()).answered(status, {}) is None


@pytest.mark.parametrize(
    ("call", "again"),
    [(READ, {429, 502, 503, 504}), (KEYED, {429, 502, 503, 504}), (WRITE, {429})],
    ids=["reads", "keyed", "writes"],
)
def test_what_does_no_harm_is_sent_again(call: Call, again: set[int]) -> None:
    found = {
        status for status in range(400, 600) if Exchange(call, settings()).answered(status, {}) is not None
    }
    assert found == again


@pytest.mark.parametrize(
    ("call", "error", "again"),
    [
        (READ, httpx.ReadTimeout("x"), True),
        (KEYED, httpx.RemoteProtocolError("x"), True),
        (WRITE, httpx.ReadTimeout("x"), False),
        (WRITE, httpx.RemoteProtocolError("x"), False),
        (WRITE, httpx.ConnectError("x"), True),
        (WRITE, httpx.ConnectTimeout("x"), True),
    ],
)
def test_a_request_without_an_answer(call: Call, error: httpx.TransportError, *, again: bool) -> None:
    exchange = Exchange(call, settings())
    if again:
        assert exchange.broke(error) > 0
    else:
        with pytest.raises(ConnectionFailed):
            exchange.broke(error)


def test_a_conflict_with_its_own_first_request_is_waited_out() -> None:
    exchange = Exchange(KEYED, settings())
    assert exchange.answered(409, {}) is None
    exchange.broke(httpx.ReadTimeout("slow"))
    assert exchange.answered(409, {}) is not None
    reading = Exchange(READ, settings())
    reading.broke(httpx.ReadTimeout("slow"))
    assert reading.answered(409, {}) is None


PROBLEM = {"Content-Type": "application/problem+json"}
LOST, NOT_SENT = httpx.ReadTimeout("slow"), httpx.ConnectError("refused")


@pytest.mark.parametrize(
    ("error", "status", "headers", "counts_as"),
    [
        (LOST, 404, PROBLEM, 204),
        (LOST, 404, {}, 404),
        (LOST, 403, PROBLEM, 403),
        (NOT_SENT, 404, PROBLEM, 404),
        (None, 404, PROBLEM, 404),
    ],
    ids=[
        "it was done",
        "somebody else answers",
        "it may not be done",
        "it was not sent",
        "it was never there",
    ],
)
def test_what_is_gone_when_its_deletion_is_sent_again(
    error: httpx.RequestError | None, status: int, headers: dict[str, str], counts_as: int
) -> None:
    exchange = Exchange(Call("delete_scheduled_task", "DELETE", "/x"), settings())
    if error is not None:
        exchange.broke(error)
    answer = httpx.Response(status, headers=headers, request=httpx.Request("DELETE", "http://host/x"))
    assert exchange.counted(answer).status_code == counts_as


def test_a_password_is_changed_once() -> None:
    exchange = Exchange(Call("change_own_password", "PUT", "/x"), settings())
    with pytest.raises(ConnectionFailed):
        exchange.broke(LOST)


def test_the_last_failure_is_told() -> None:
    exchange = Exchange(READ, settings(max_retries=2))
    exchange.broke(httpx.ReadTimeout("slow"))
    exchange.broke(httpx.ReadTimeout("slow"))
    with pytest.raises(TimedOut, match=r"host:1 \(3 tries\): slow") as caught:
        exchange.broke(httpx.ReadTimeout("slow"))
    assert isinstance(caught.value.__cause__, httpx.ReadTimeout)


def test_pauses_grow_and_are_jittered() -> None:
    pauses = [Exchange(READ, settings(20)) for _ in range(50)]
    first = [each.answered(503, {}) or 0.0 for each in pauses]
    assert all(0.25 <= pause <= 0.5 for pause in first)
    assert len(set(first)) > 40
    for _ in range(10):
        last = [each.answered(503, {}) or 0.0 for each in pauses]
    assert all(LONGEST_PAUSE / 2 <= pause <= LONGEST_PAUSE for pause in last)


def test_retry_after_is_honoured() -> None:
    pause = Exchange(READ, settings()).answered(503, {"Retry-After": "7"})
    assert pause is not None
    assert 7.0 < pause < 8.0
    assert Exchange(READ, settings()).answered(429, {"Retry-After": "3600"}) is None


def test_retry_after_as_a_date() -> None:
    later = datetime.now(UTC) + timedelta(seconds=30)
    assert 25 < (retry_after({"Retry-After": format_datetime(later, usegmt=True)}) or 0) <= 30
    assert retry_after({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0.0
    assert retry_after({"Retry-After": "soon"}) is None
    assert retry_after({}) is None


def test_one_key_for_one_call() -> None:
    exchange = Exchange(KEYED, settings())
    key = exchange.call.idempotency_key
    exchange.answered(503, {})
    assert exchange.call.idempotency_key == key
    assert Exchange(KEYED, settings()).call.idempotency_key != key
    assert Exchange(READ, settings()).call.idempotency_key is None
    mine = Call("run_task", "POST", "/x", keyed=True, idempotency_key="mine")
    assert Exchange(mine, settings()).call.header_items() == {"Idempotency-Key": "mine"}


@given(st.text(min_size=1).filter(lambda text: text not in (".", "..")))
def test_a_segment_is_one_segment(text: str) -> None:
    path = httpx.URL(f"http://host/a/{segment('name', text.encode(errors='replace').decode())}/b").raw_path
    assert path.count(b"/") == 3
    assert b"?" not in path


@pytest.mark.parametrize("value", ["", ".", ".."])
def test_a_segment_that_would_name_another_path(value: str) -> None:
    with pytest.raises(ValueError, match="run_id must not be"):
        segment("run_id", value)


def test_a_version_as_an_entity_tag() -> None:
    assert entity_tag(3) == '"3"'
    assert entity_tag("*") == "*"


def test_a_query_as_text() -> None:
    at = datetime(2026, 3, 1, tzinfo=UTC)
    call = Call("x", "GET", "/x", query={"a": None, "b": True, "c": ["x", 1], "d": at})
    assert call.query_items() == [("b", "true"), ("c", "x"), ("c", "1"), ("d", "2026-03-01T00:00:00+00:00")]
