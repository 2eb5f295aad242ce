"""Server-sent events: the parser, and the streams that read them from an open answer."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from json import loads
from typing import TYPE_CHECKING, Any, Final, Self

import httpx

from upbeat_sdk._call import Call
from upbeat_sdk._errors import ConnectionFailed, ProblemError, TimedOut, UnexpectedAnswer
from upbeat_sdk._exchange import passing

if TYPE_CHECKING:
    from upbeat_sdk._shell import AsyncShell, SyncShell

LAST_EVENT_ID: Final = "Last-Event-ID"
BROKEN: Final = (ConnectionFailed, ProblemError, UnexpectedAnswer)
PAUSE: Final = 0.2
LONGEST_PAUSE: Final = 5.0
CUTS: Final = 10


@dataclass(frozen=True, slots=True)
class Event:
    """One event; ``id`` is what a later stream may go on after."""

    name: str
    data: str
    id: str | None = None

    def json(self) -> Any:
        """The data, which is JSON."""
        return loads(self.data)


class EventParser:
    """Bytes in, events out, as the WHATWG's standard has it.

    Lines end with LF, CR or both, and with nothing else: text may hold any other separator.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._name = ""
        self._data: list[str] = []
        self._id: str | None = None
        self._begun = False

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that are complete with this chunk."""
        text = self._rest + chunk
        if not self._begun:
            if len(text) < 3 and b"\xef\xbb\xbf".startswith(text):
                self._rest = text
                return []
            self._begun, text = True, text.removeprefix(b"\xef\xbb\xbf")
        # A CR at the end may be half of a CRLF: it waits for the next chunk.
        held = b"\r" if text.endswith(b"\r") else b""
        text = text.removesuffix(held) if held else text
        lines = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._rest = lines.pop() + held
        found = (self._line(line.decode(errors="replace")) for line in lines)
        return [event for event in found if event is not None]

    def _line(self, line: str) -> Event | None:
        if not line:
            return self._end()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            self._name = value
        elif name == "data":
            self._data.append(value)
        elif name == "id" and "\0" not in value:
            self._id = value
        return None

    def _end(self) -> Event | None:
        name, data = self._name or "message", self._data
        self._name, self._data = "", []
        return Event(name, "\n".join(data), self._id) if data else None


class Resumption:
    """Where a stream that was cut off goes on, and when: what both forms of `resumed` share."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._last: str | None = None
        self._cuts = 0

    def call(self) -> Call:
        """The call that goes on after the last event."""
        headers = (
            self._call.headers if self._last is None else {**self._call.headers, LAST_EVENT_ID: self._last}
        )
        return replace(self._call, headers=headers)

    def heard(self, events: list[Event]) -> list[Event]:
        """The same events, remembered."""
        for event in events:
            self._cuts, self._last = 0, event.id or self._last
        return events

    def broke(self, error: ConnectionFailed | ProblemError | UnexpectedAnswer) -> float:
        """Seconds until the next try.

        Raises:
            UpbeatError: the error, if trying again is of no use.
        """
        self._cuts += 1
        if not passing(error) or self._cuts > CUTS:
            raise error
        return min(PAUSE * 2.0**self._cuts, LONGEST_PAUSE)


class EventStream:
    """The events of one open answer: `with client.runs.stream_logs(run_id) as events: for event in events: …`."""

    def __init__(self, shell: "SyncShell", call: Call, silence: float) -> None:
        self._shell = shell
        self._call = call
        self._silence = silence
        self._response: httpx.Response | None = None

    def __enter__(self) -> Self:
        self._response = self._shell.open(self._call, self._silence)
        return self

    def __exit__(self, *error: object) -> None:
        if self._response is not None:
            self._response.close()

    def batches(self) -> Iterator[list[Event]]:
        """The events of each piece that arrives; none for a sign of life.

        Raises:
            ConnectionFailed: the stream was cut off.
        """
        parser = EventParser()
        with unbroken():
            for chunk in _opened(self._response).iter_bytes():
                yield parser.feed(chunk)

    def __iter__(self) -> Iterator[Event]:
        for batch in self.batches():
            yield from batch

    def resumed(self) -> Iterator[Event]:
        """The events without an end: opened here, and again where it broke off or was ended by the service.

        An event `reset` says that something was left out, and that the resource has to be read again.

        Raises:
            UpbeatError: the service refuses it, or was away ten times in a row.
        """
        resumption = Resumption(self._call)
        while True:
            try:
                with EventStream(self._shell, resumption.call(), self._silence) as stream:
                    for batch in stream.batches():
                        yield from resumption.heard(batch)
                pause = PAUSE
            except BROKEN as error:
                pause = resumption.broke(error)
            time.sleep(pause)


class AsyncEventStream:
    """As `EventStream`, with `async with` and `async for`."""

    def __init__(self, shell: "AsyncShell", call: Call, silence: float) -> None:
        self._shell = shell
        self._call = call
        self._silence = silence
        self._response: httpx.Response | None = None

    async def __aenter__(self) -> Self:
        self._response = await self._shell.open(self._call, self._silence)
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._response is not None:
            await self._response.aclose()

    async def batches(self) -> AsyncIterator[list[Event]]:
        """As `EventStream.batches`."""
        parser = EventParser()
        with unbroken():
            async for chunk in _opened(self._response).aiter_bytes():
                yield parser.feed(chunk)

    async def __aiter__(self) -> AsyncIterator[Event]:
        async for batch in self.batches():
            for event in batch:
                yield event

    async def resumed(self) -> AsyncIterator[Event]:
        """As `EventStream.resumed`."""
        resumption = Resumption(self._call)
        while True:
            try:
                async with AsyncEventStream(self._shell, resumption.call(), self._silence) as stream:
                    async for batch in stream.batches():
                        for event in resumption.heard(batch):
                            yield event
                pause = PAUSE
            except BROKEN as error:
                pause = resumption.broke(error)
            await asyncio.sleep(pause)


def _opened(response: httpx.Response | None) -> httpx.Response:
    if response is None:
        raise RuntimeError("Open the stream first: `with … as events`.")
    return response


@contextmanager
def unbroken() -> Iterator[None]:
    """A body is read.

    Raises:
        ConnectionFailed: it was cut off.
    """
    try:
        yield
    except httpx.RequestError as error:
        kind = TimedOut if isinstance(error, httpx.TimeoutException) else ConnectionFailed
        raise kind(f"The stream was cut off: {error or type(error).__name__}") from error
