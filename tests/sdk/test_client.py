"""What is sent, and what answers become: both clients on a transport of the test's own."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

import upbeat_sdk
from support.blocking import Awaited
from upbeat_sdk import AsyncUpbeat, ConfigurationError, Upbeat
from upbeat_sdk._call import Call
from upbeat_sdk._shell import LIMITS
from upbeat_sdk.testing import blank

URL = "http://upbeat.test"
SECRET = "hunter2-the-secret"
TASK = blank(upbeat_sdk.models.Task) | {"name": "a.b"}
Handler = Callable[[httpx.Request], httpx.Response]


def problem(status: int, **headers: str) -> httpx.Response:
    body = {
        "type": "/problems/told",
        "title": "Told",
        "status": status,
        "detail": "Do otherwise.",
        "instance": "/x",
        "errors": [{"field": "name", "message": "wrong"}],
    }
    return httpx.Response(status, json=body, headers={"X-Request-ID": "request-1", **headers})


@pytest.fixture(params=["sync", "async"])
def connect(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """A client whose requests this handler answers."""

    def connected(handler: Handler, **options: Any) -> Any:
        transport = httpx.MockTransport(handler)
        given = {"url": URL, "token": SECRET, **options}
        if request.param == "async":
            return AsyncUpbeat(http_client=httpx.AsyncClient(transport=transport), **given)
        return Awaited(Upbeat(http_client=httpx.Client(transport=transport), **given))

    return connected


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pauses themselves are under test in test_exchange."""
    monkeypatch.setattr("upbeat_sdk._exchange.LONGEST_PAUSE", 0.001)


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("UPBEAT_URL", "UPBEAT_TOKEN", "UPBEAT_API_KEY"):
        monkeypatch.delenv(name, raising=False)


async def test_what_is_sent(connect: Callable[..., Any]) -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"items": [], "next_cursor": None})

    await connect(answer, url=f"{URL}/behind/").runs.list(state="failed", limit=3)
    (request,) = seen
    assert str(request.url) == f"{URL}/behind/api/v1/runs?limit=3&state=failed"
    assert request.headers["Authorization"] == f"Bearer {SECRET}"
    assert request.headers["User-Agent"] == f"upbeat-sdk/{upbeat_sdk.__version__}"
    assert "Idempotency-Key" not in request.headers
    assert request.extensions["timeout"] == {"connect": 5.0, "read": 30.0, "write": 30.0, "pool": 30.0}


async def test_names_are_one_segment_of_the_path(connect: Callable[..., Any]) -> None:
    seen: list[bytes] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.raw_path)
        return httpx.Response(200, json=TASK)

    await connect(answer).tasks.get("a/../b?c")
    assert seen == [b"/api/v1/tasks/a%2F..%2Fb%3Fc"]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, upbeat_sdk.BadRequest),
        (401, upbeat_sdk.Unauthenticated),
        (403, upbeat_sdk.Forbidden),
        (404, upbeat_sdk.NotFound),
        (409, upbeat_sdk.Conflict),
        (412, upbeat_sdk.PreconditionFailed),
        (413, upbeat_sdk.ProblemError),
        (422, upbeat_sdk.InvalidInput),
        (429, upbeat_sdk.TooManyRequests),
        (500, upbeat_sdk.ServerError),
        (503, upbeat_sdk.Unavailable),
    ],
)
async def test_problems_become_errors(
    connect: Callable[..., Any], status: int, kind: type[upbeat_sdk.ProblemError]
) -> None:
    client = connect(lambda _: problem(status, **{"Retry-After": "90"}))
    with pytest.raises(upbeat_sdk.ProblemError) as caught:
        await client.tasks.get("a.b")
    error = caught.value
    assert type(error) is kind
    assert (error.status, error.code, error.request_id, error.retry_after) == (
        status,
        "told",
        "request-1",
        90,
    )
    assert error.problem.detail == "Do otherwise."
    assert [wrong.field for wrong in error.errors] == ["name"]
    assert str(error) == f"Do otherwise. [{status} told, request request-1]"


@pytest.mark.parametrize(
    ("status", "content"),
    [
        (200, {"text": "<html>Welcome</html>"}),
        (404, {"text": "<html>No such page</html>"}),
        (200, {"json": {"name": SECRET}}),
        (307, {"headers": {"Location": "https://elsewhere"}}),
        (204, {}),
    ],
)
async def test_another_service_is_recognised(
    connect: Callable[..., Any], status: int, content: dict[str, Any]
) -> None:
    client = connect(lambda _: httpx.Response(status, **content))
    with pytest.raises(upbeat_sdk.UnexpectedAnswer, match="the address of an Upbeat service") as caught:
        await client.tasks.get("a.b")
    assert caught.value.status == status
    assert SECRET not in str(caught.value)


async def test_what_a_newer_service_says_is_kept(connect: Callable[..., Any]) -> None:
    task = await connect(lambda _: httpx.Response(200, json={**TASK, "shade": "blue"})).tasks.get("a.b")
    assert task.shade == "blue"


async def test_a_call_is_sent_again(connect: Callable[..., Any]) -> None:
    answers = iter([problem(503, **{"Retry-After": "0"}), problem(502), httpx.Response(200, json=TASK)])
    assert (await connect(lambda _: next(answers)).tasks.get("a.b")).name == "a.b"


async def test_a_replay_whose_answer_was_lost_is_made_once(connect: Callable[..., Any]) -> None:
    keys: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            keys.append(request.headers.get("Idempotency-Key"))
            if len(keys) == 1:
                raise httpx.ReadTimeout("slow", request=request)
        return httpx.Response(200, json=blank(upbeat_sdk.models.Run) | {"state": "queued"})

    run = await connect(answer).runs.get("x")
    assert (await run.replay()).state == "queued"
    assert len(keys) == 2
    assert keys[0] == keys[1] is not None


async def test_it_is_not_sent_for_ever(connect: Callable[..., Any]) -> None:
    sent = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return problem(503)

    client = connect(answer, max_retries=2)
    with pytest.raises(upbeat_sdk.Unavailable):
        await client.tasks.get("a.b")
    assert len(sent) == 3
    with pytest.raises(upbeat_sdk.Unavailable):
        await client.schedules.pause("x", note="not repeatable")
    assert len(sent) == 4


async def test_a_call_without_an_answer(connect: Callable[..., Any]) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("slow", request=request)

    with pytest.raises(upbeat_sdk.TimedOut, match=r"upbeat\.test:http"):
        await connect(answer, max_retries=0).tasks.get("a.b")


class Login:
    """A service whose tokens end after some calls."""

    def __init__(self, calls_per_token: int) -> None:
        self.calls_per_token = calls_per_token
        self.logins = 0
        self.left = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/api/v1/auth/login":
            assert dict(httpx.QueryParams(request.content.decode())) == {"username": "me", "password": SECRET}
            self.logins += 1
            self.left = self.calls_per_token
            return httpx.Response(200, json={"access_token": f"t{self.logins}", "token_type": "bearer"})
        if self.left == 0 or request.headers["Authorization"] != f"Bearer t{self.logins}":
            return problem(401)
        self.left -= 1
        return httpx.Response(200, json=TASK)


async def test_it_logs_in_once_and_again_when_the_session_has_ended(connect: Callable[..., Any]) -> None:
    service = Login(calls_per_token=10)
    client = connect(service, token=None, username="me", password=SECRET)
    await asyncio.gather(*(client.tasks.get("a.b") for _ in range(10)))
    assert service.logins == 1
    await client.tasks.get("a.b")
    assert service.logins == 2


async def test_a_login_that_helps_nothing_is_not_repeated(connect: Callable[..., Any]) -> None:
    service = Login(calls_per_token=0)
    with pytest.raises(upbeat_sdk.Unauthenticated):
        await connect(service, token=None, username="me", password=SECRET).tasks.get("a.b")
    assert service.logins == 2


async def test_without_a_credential_only_the_open_calls_are_sent(connect: Callable[..., Any]) -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"status": "alive"})

    client = connect(answer, token=None)
    await client.health.live()
    assert "Authorization" not in seen[0].headers
    with pytest.raises(ConfigurationError, match="UPBEAT_TOKEN"):
        await client.tasks.get("a.b")
    assert len(seen) == 1


async def test_other_patience_over_the_same_connections(connect: Callable[..., Any]) -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return problem(503)

    client = connect(answer, max_retries=1)
    with pytest.raises(upbeat_sdk.Unavailable):
        await client.tasks.get("a.b")
    sync = isinstance(client, Awaited)
    hasty = (client._inner if sync else client).with_options(timeout=2.0, max_retries=0)
    with pytest.raises(upbeat_sdk.Unavailable):
        await (Awaited(hasty) if sync else hasty).tasks.get("a.b")
    assert len(seen) == 3
    assert seen[-1].extensions["timeout"]["read"] == 2.0


def test_secrets_do_not_show() -> None:
    for client in (
        Upbeat(URL, token=SECRET),
        Upbeat(URL, api_key=SECRET),
        Upbeat(URL, username="me", password=SECRET),
    ):
        shown = f"{client!r} {client} {client._settings!r} {client._session.credential!r}"
        assert SECRET not in shown
        assert URL in shown
        client.close()
    made = upbeat_sdk.models.AccessToken(access_token=SECRET, token_type="bearer")
    assert repr(made) == "AccessToken(access_token='**********', token_type='bearer')"
    assert SECRET not in f"{made} {[made]}"
    assert made.access_token == SECRET


def test_the_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPBEAT_URL", f"{URL}/")
    monkeypatch.setenv("UPBEAT_TOKEN", SECRET)
    with Upbeat() as client:
        assert client.url == URL
        assert client._session.token == SECRET
    with Upbeat("http://elsewhere", api_key="other") as client:
        assert (client.url, client._session.token) == ("http://elsewhere", "other")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": None}, "set UPBEAT_URL"),
        ({"url": "upbeat.test"}, "must begin with http"),
        ({"url": "ftp://upbeat.test"}, "must begin with http"),
        ({"url": f"http://me:{SECRET}@upbeat.test"}, "not in the url"),
        ({"url": "http://upbeat.test?x=1"}, "must not have a query"),
        ({"url": "http://upbeat.test/api/v1/"}, "without /api/v1"),
        ({"url": "http://up\x00beat"}, "cannot be read"),
        ({"token": SECRET, "api_key": "x"}, "Give one credential"),
        ({"token": SECRET, "username": "x", "password": "y"}, "Give one credential"),
        ({"username": "me"}, "together"),
        ({"token": f"{SECRET}\n"}, "printable"),
        ({"max_retries": -1}, "negative"),
    ],
)
def test_what_cannot_work_is_told_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        Upbeat(**{"url": URL, **options})
    assert SECRET not in str(caught.value)


def test_what_has_no_form_in_json_is_told_before_it_is_sent() -> None:
    with (
        Upbeat("http://127.0.0.1:1", token=SECRET) as client,
        pytest.raises(ConfigurationError, match=r"run_task is given cannot be written as JSON: .*object"),
    ):
        client.tasks.run("x", kwargs={"a": object()})


def test_a_client_that_was_given_is_not_closed() -> None:
    with httpx.Client() as given:
        with Upbeat(URL, token=SECRET, http_client=given) as client:
            client.with_options(timeout=1).close()
        assert not given.is_closed
    client = Upbeat(URL, token=SECRET)
    client.with_options(timeout=1).close()
    assert not client._http.is_closed
    client.close()
    assert client._http.is_closed


async def test_an_async_client_closes_its_own() -> None:
    async with AsyncUpbeat(URL, token=SECRET) as client:
        pass
    assert client._http.is_closed


def test_idle_connections_are_given_up_before_the_service_does() -> None:
    assert LIMITS.keepalive_expiry is not None
    assert LIMITS.keepalive_expiry < 5


async def test_a_key_is_kept_through_login_and_retries(connect: Callable[..., Any]) -> None:
    answers: Iterator[httpx.Response] = iter(
        [problem(401), problem(503), problem(502), httpx.Response(200, json=TASK)]
    )
    keys: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/api/v1/auth/login":
            return httpx.Response(200, json={"access_token": "t", "token_type": "bearer"})
        keys.append(request.headers["Idempotency-Key"])
        return next(answers)

    client = connect(answer, token=None, username="me", password=SECRET)
    call = Call("run_task", "POST", "/x", keyed=True, body={})
    assert (await client.fetch(call, upbeat_sdk.models.Task)).name == "a.b"
    assert len(keys) == 4
    assert len(set(keys)) == 1
