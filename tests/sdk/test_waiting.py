"""The steps of waiting for a run, at a time that stands still, and their order with both clients."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

import upbeat_sdk
from support.blocking import Awaited
from upbeat_sdk import AsyncUpbeat, Forbidden, ResultTimeout, TimedOut, Unavailable, Upbeat
from upbeat_sdk._shell import MAX_LISTENERS
from upbeat_sdk._waiting import FAILURES, LONGEST_PAUSE, Answer, Heard, Listen, Look, Sleep, until_over
from upbeat_sdk.testing import blank

Record = upbeat_sdk.models.Run


class Clock:
    """Stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def run(state: str) -> Record:
    return Record.model_validate(blank(Record) | {"state": state})


def refused(kind: type[upbeat_sdk.ProblemError], status: int) -> upbeat_sdk.ProblemError:
    told = upbeat_sdk.models.Problem.model_validate(blank(upbeat_sdk.models.Problem) | {"status": status})
    return kind(told, request_id=None, retry_after=None)


def test_a_run_that_is_over_is_not_waited_for() -> None:
    with pytest.raises(StopIteration) as over:
        next(until_over(run("succeeded"), 1.0, Clock()))
    assert over.value.value.state == "succeeded"


def test_the_stream_tells_the_end() -> None:
    steps = until_over(run("queued"), None, Clock())
    assert next(steps) == Look(None)
    assert isinstance(steps.send(Answer(run("running"))), Listen)
    assert steps.send(Answer(heard=Heard.END)) == Look(None)
    with pytest.raises(StopIteration) as over:
        steps.send(Answer(run("failed")))
    assert over.value.value.state == "failed"


def test_without_a_stream_the_pauses_grow() -> None:
    steps = until_over(run("queued"), None, Clock())
    next(steps)
    steps.send(Answer(run("queued")))
    step = steps.send(Answer(heard=Heard.NO_STREAM))
    pauses = []
    for _ in range(30):
        assert isinstance(step, Sleep)
        pauses.append(step.seconds)
        assert steps.send(Answer()) == Look(None)
        step = steps.send(Answer(run("queued")))
    assert 0.08 <= pauses[0] <= 0.12
    assert pauses[4] > 2 * pauses[0]
    assert all(0.8 * LONGEST_PAUSE <= pause <= 1.2 * LONGEST_PAUSE for pause in pauses[15:])


def test_a_stream_that_was_cut_off_is_opened_again() -> None:
    steps = until_over(run("queued"), None, Clock())
    next(steps)
    assert isinstance(steps.send(Answer(run("queued"))), Listen)
    assert isinstance(steps.send(Answer(heard=Heard.CUT)), Sleep)
    assert steps.send(Answer()) == Look(None)
    assert isinstance(steps.send(Answer(run("queued"))), Listen)


def test_no_step_takes_longer_than_is_left() -> None:
    clock = Clock()
    steps = until_over(run("queued"), 5.0, clock)
    assert next(steps) == Look(5.0)
    clock.now += 1
    listen = steps.send(Answer(run("queued")))
    assert listen == Listen(4.0, 105.0)
    assert isinstance(listen, Listen)
    assert not listen.past(clock.now)
    assert listen.past(clock.now + 1)
    clock.now += 3.99
    assert steps.send(Answer(heard=Heard.CUT)).seconds <= 0.05  # type: ignore[union-attr]
    clock.now += 0.01
    steps.send(Answer())
    with pytest.raises(ResultTimeout, match="is running after 5 s, and goes on") as caught:
        steps.send(Answer(run("running")))
    assert caught.value.run.state == "running"


def test_it_is_looked_at_once_however_short_the_time() -> None:
    steps = until_over(run("queued"), 0.0, Clock())
    next(steps)
    with pytest.raises(StopIteration) as over:
        steps.send(Answer(run("succeeded")))
    assert over.value.value.state == "succeeded"


def test_passing_failures_are_waited_out_until_the_time_is_over() -> None:
    clock = Clock()
    steps = until_over(run("queued"), 60.0, clock)
    step = next(steps)
    proxy = upbeat_sdk.UnexpectedAnswer("<html>Bad gateway</html>", status=502, request_id=None)
    failures = [refused(Unavailable, 503), TimedOut("no answer"), proxy]
    for number in range(FAILURES * 2):
        assert isinstance(step, Look)
        step = steps.send(Answer(error=failures[number % 3]))
        if number == 0:
            assert isinstance(step, Listen)
            step = steps.send(Answer(heard=Heard.NO_STREAM))
        assert isinstance(step, Sleep)
        step = steps.send(Answer())
    with pytest.raises(StopIteration):
        steps.send(Answer(run("succeeded")))


def test_without_a_time_failures_end_it() -> None:
    steps = until_over(run("queued"), None, Clock())
    next(steps)
    steps.send(Answer(error=TimedOut("no answer")))
    steps.send(Answer(heard=Heard.NO_STREAM))
    for _ in range(FAILURES - 1):
        steps.send(Answer())
        steps.send(Answer(error=TimedOut("no answer")))
    steps.send(Answer())
    with pytest.raises(TimedOut):
        steps.send(Answer(error=TimedOut("no answer")))


def test_other_failures_end_it_at_once() -> None:
    steps = until_over(run("queued"), 60.0, Clock())
    next(steps)
    with pytest.raises(Forbidden):
        steps.send(Answer(error=refused(Forbidden, 403)))


class Service:
    """One run, which is over when it was looked at or listened to often enough; it keeps what it is asked."""

    def __init__(self, *streams: list[bytes] | int, looks: int = 100) -> None:
        self.streams = list(streams)
        self.looks = looks
        self.asked: list[str] = []
        self.after: list[str | None] = []
        self.ended = False

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if path.endswith("/logs/stream"):
            self.asked.append("stream")
            self.after.append(request.headers.get("Last-Event-ID"))
            return self._stream()
        if path.endswith("/logs"):
            self.asked.append("logs")
            return httpx.Response(200, json={"items": [line(1), line(2, "error")], "next_cursor": None})
        self.asked.append("run")
        self.ended = self.ended or self.asked.count("run") > self.looks
        state = "succeeded" if self.ended else "running"
        return httpx.Response(200, json=blank(Record) | {"state": state, "result": 42})

    def _stream(self) -> httpx.Response:
        told = self.streams.pop(0) if self.streams else 404
        if isinstance(told, int):
            body = blank(upbeat_sdk.models.Problem) | {"status": told, "type": "/problems/told"}
            return httpx.Response(told, json=body)
        self.ended = any(b"event: end" in piece for piece in told)
        kind = {"Content-Type": "text/event-stream"}
        return httpx.Response(200, headers=kind, stream=Pieces(told, cut=not self.ended))


class Pieces(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that comes in pieces, and may break off."""

    def __init__(self, pieces: list[bytes], *, cut: bool) -> None:
        self.pieces = pieces
        self.cut = cut

    def __iter__(self) -> Any:
        yield from self.pieces
        if self.cut:
            raise httpx.ReadError("cut off")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece


def line(number: int, level: str = "info") -> dict[str, Any]:
    at = "2026-03-01T00:00:00Z"
    text = {"logged_at": at, "level": level, "logger": "x", "message": f"line {number}"}
    return {"attempt": 1, "number": number, **text}


def event(number: int, level: str = "info") -> bytes:
    data = upbeat_sdk.LogLine.model_validate(line(number, level)).model_dump_json()
    return f"id: 1-{number}\nevent: log\ndata: {data}\n\n".encode()


END = b'event: end\ndata: {"state": "succeeded"}\n\n'

Connect = Callable[[Service], Any]


@pytest.fixture(params=["sync", "async"])
def connect(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Connect:
    monkeypatch.setattr("upbeat_sdk._waiting.FIRST_PAUSE", 0.001)
    monkeypatch.setattr("upbeat_sdk._logs.FIRST_PAUSE", 0.001)
    monkeypatch.setattr("upbeat_sdk._runs.POLL", 0.001)

    def connected(service: Service) -> Any:
        transport = httpx.MockTransport(service)
        given = {"url": "http://upbeat.test", "token": "x", "max_retries": 0}
        if request.param == "async":
            return AsyncUpbeat(http_client=httpx.AsyncClient(transport=transport), **given)  # type: ignore[arg-type]
        return Awaited(Upbeat(http_client=httpx.Client(transport=transport), **given))  # type: ignore[arg-type]

    return connected


RUN = "0199d0c2-f2f0-7a51-9c66-3f0c5f3ad4b1"


async def test_a_result_by_stream(connect: Connect) -> None:
    service = Service([b": still here\n\n", END])
    started = await connect(service).runs.get(RUN)
    assert await started.result(timeout=20) == 42
    assert service.asked == ["run", "run", "stream", "run"]
    assert service.after == ["9999-999999999"], "it asks for the end, and not for the lines"


async def test_whoever_waits_may_watch(connect: Connect) -> None:
    told = [
        b'event: state\ndata: {"state": "running", "attempt": 2}\n\n',
        *2 * [b'event: progress\ndata: {"done": 3, "total": 10, "message": "pages"}\n\n'],
        END,
    ]
    started, seen = await connect(Service(told)).runs.get(RUN), []
    ended = await started.wait(20, watch=lambda run: seen.append((run.state, run.attempt, run.progress)))
    assert ended.state == "succeeded"
    progress = {"done": 3, "total": 10, "message": "pages"}
    first = (started.state, started.attempt, started.progress)
    assert seen == [first, ("running", 2, None), ("running", 2, progress), ("succeeded", *first[1:])]


async def test_a_result_by_looking(connect: Connect) -> None:
    service = Service(404, looks=4)
    started = await connect(service).runs.get(RUN)
    assert await started.result(timeout=20) == 42
    assert service.asked == ["run", "run", "stream", "run", "run", "run"]


async def test_a_result_while_others_hold_all_streams(connect: Connect) -> None:
    service = Service([END], looks=4)
    client = connect(service)
    started = await client.runs.get(RUN)
    inner = client._inner if isinstance(client, Awaited) else client
    while inner.listeners.acquire(blocking=False):
        pass
    assert await started.result(timeout=20) == 42
    assert "stream" not in service.asked


async def test_a_stream_is_given_back(connect: Connect) -> None:
    service = Service(*([END] for _ in range(MAX_LISTENERS * 2)), looks=1000)
    client = connect(service)
    for _ in range(MAX_LISTENERS * 2):
        service.ended = False
        assert await (await client.runs.get(RUN)).result(timeout=20) == 42
    assert service.asked.count("stream") == MAX_LISTENERS * 2


async def test_a_result_although_the_stream_breaks_off(connect: Connect) -> None:
    service = Service([b": hello\n\n"], 503, [END])
    started = await connect(service).runs.get(RUN)
    assert await started.result() == 42
    assert service.asked == ["run", "run", "stream", "run", "stream", "run", "stream", "run"]


async def test_a_result_although_a_refusal_of_the_stream_breaks_off(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = lambda _: httpx.Response(500, stream=Pieces([b"{"], cut=True))  # noqa: E731
    monkeypatch.setattr(Service, "_stream", broken)
    started = await connect(Service(looks=3)).runs.get(RUN)
    assert await started.result(timeout=20) == 42


async def test_a_result_that_does_not_come(connect: Connect) -> None:
    started = await connect(Service(404)).runs.get(RUN)
    with pytest.raises(ResultTimeout) as caught:
        await started.result(timeout=0.02)
    assert isinstance(caught.value, TimeoutError)


async def test_a_log_is_followed_by_stream(connect: Connect) -> None:
    service = Service([event(1)[:20], event(1)[20:], event(2, "error"), END])
    started = await connect(service).runs.get(RUN)
    assert [each.message async for each in started.logs(follow=True)] == ["line 1", "line 2"]
    assert service.asked == ["run", "stream"]


async def test_a_stream_goes_on_where_it_broke_off(connect: Connect) -> None:
    service = Service([event(1)], 503, [event(2), event(3, "debug"), END])
    started = await connect(service).runs.get(RUN)
    found = [each.message async for each in started.logs(follow=True, level="info")]
    assert found == ["line 1", "line 2"]
    assert service.after == [None, "1-1", "1-1"]


async def test_a_log_is_followed_by_pages_where_there_is_no_stream(connect: Connect) -> None:
    service = Service(404, looks=3)
    started = await connect(service).runs.get(RUN)
    assert [each.number async for each in started.logs(follow=True)] == [1, 2]
    assert service.asked.count("logs") == 3, "until the run is over, and no line twice"


async def test_a_log_is_read(connect: Connect) -> None:
    service = Service()
    started = await connect(service).runs.get(RUN)
    assert [each.level async for each in started.logs()] == ["info", "error"]


async def test_a_log_that_may_not_be_read(connect: Connect) -> None:
    started = await connect(Service(403)).runs.get(RUN)
    with pytest.raises(Forbidden):
        [each async for each in started.logs(follow=True)]
