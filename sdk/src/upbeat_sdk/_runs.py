"""Runs that can be waited for, cancelled, replayed and listened to."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final

from pydantic import PrivateAttr

from upbeat_sdk._call import Call, segment
from upbeat_sdk._errors import (
    OUTCOMES,
    ConnectionFailed,
    ProblemError,
    RunNotSucceeded,
    UnexpectedAnswer,
    UpbeatError,
)
from upbeat_sdk._generated.models import LogLine
from upbeat_sdk._generated.models import Run as Record
from upbeat_sdk._logs import AFTER_ALL, NO_STREAM, POLL, Follower, Level, log_call, stream_call
from upbeat_sdk._shell import AsyncShell, SyncShell
from upbeat_sdk._waiting import TERMINAL, Answer, Heard, Listen, Look, Sleep, View, until_over

BROKEN: Final = (ConnectionFailed, ProblemError, UnexpectedAnswer)


class _Run(Record):
    @property
    def finished(self) -> bool:
        """Whether it is over, with a result or without."""
        return self.state in TERMINAL

    def _path(self) -> str:
        return f"/api/v1/runs/{segment('run_id', self.id)}"

    def _get(self) -> Call:
        return Call("get_run", "GET", self._path())

    def _cancel(self, *, force: bool, reason: str | None) -> Call:
        body = {"force": force, "reason": reason}
        return Call("cancel_run", "POST", f"{self._path()}/cancel", body=body)

    def _replay(self, args: list[Any] | None, kwargs: dict[str, Any] | None) -> Call:
        body = {"args": args, "kwargs": kwargs}
        return Call("replay_run", "POST", f"{self._path()}/replay", body=body, keyed=True)


class Run(_Run):
    """A run, as it was when it was read; its methods ask the service."""

    _client: SyncShell = PrivateAttr()

    def model_post_init(self, context: SyncShell, /) -> None:
        """Keep the client that this came by."""
        self._client = context

    def refresh(self) -> "Run":
        """The run as it is now."""
        return self._client.fetch(self._get(), Run)

    def wait(self, timeout: float | None = None, *, watch: Callable[["Run"], object] | None = None) -> "Run":
        """The run when it is over, however it ended.

        ``watch`` is called with the run each time that its state, attempt or progress has changed.

        Raises:
            ResultTimeout: it is not over after ``timeout`` seconds; it goes on.
        """
        steps, view = until_over(self, timeout, time.monotonic), View(self, watch)
        answer: Answer[Run] = Answer()
        try:
            step = next(steps)
            while True:
                match step:
                    case Sleep(seconds):
                        time.sleep(seconds)
                        answer = Answer()
                    case Look(within):
                        answer = self._look(within)
                        view.saw(answer.run)
                    case Listen():
                        answer = Answer(heard=self._listen(step, view))
                step = steps.send(answer)
        except StopIteration as over:
            ended: Run = over.value
            return ended

    def result(self, timeout: float | None = None) -> Any:
        """What the task returned, when it has.

        Raises:
            RunNotSucceeded: it ended otherwise; the class says how.
            ResultTimeout: it is not over after ``timeout`` seconds; it goes on.
        """
        return _outcome(self.wait(timeout))

    def cancel(self, *, force: bool = False, reason: str | None = None) -> "Run":
        """A queued run never starts; a running one is asked to stop, and with ``force`` made to."""
        return self._client.fetch(self._cancel(force=force, reason=reason), Run)

    def replay(self, *, args: list[Any] | None = None, kwargs: dict[str, Any] | None = None) -> "Run":
        """A new run of the same task, with the same or other arguments."""
        return self._client.fetch(self._replay(args, kwargs), Run)

    def logs(self, *, follow: bool = False, level: Level = "debug") -> Iterator[LogLine]:
        """Its lines of this level or a graver one; with ``follow``, as they are written, until it is over."""
        if not follow:
            yield from self._client.page(log_call(self.id, level), LogLine)
            return
        follower = Follower(self.id, level)
        while follower.streams and not follower.over:
            try:
                with self._client.stream(follower.stream()) as events:
                    for batch in events.batches():
                        yield from follower.heard(batch)
                time.sleep(follower.rest())
            except BROKEN as error:
                time.sleep(follower.broke(error))
        yield from self._paged(follower)

    def _paged(self, follower: Follower) -> Iterator[LogLine]:
        while not follower.over:
            # Asked before the lines are read: all lines of a run are stored before it ends.
            follower.over = self.refresh().finished
            yield from filter(follower.read, self._client.page(follower.page(), LogLine))
            if not follower.over:
                time.sleep(POLL)

    def _look(self, within: float | None) -> Answer["Run"]:
        try:
            return Answer(run=self._client.fetch(self._get(), Run, within=within))
        except UpbeatError as error:
            return Answer(error=error)

    def _listen(self, step: Listen, view: View["Run"]) -> Heard:
        if not self._client.listeners.acquire(blocking=False):
            return Heard.CUT
        try:
            return self._heard(step, view)
        finally:
            self._client.listeners.release()

    def _heard(self, step: Listen, view: View["Run"]) -> Heard:
        client = self._client.with_options(timeout=step.read, max_retries=0)
        try:
            with client.stream(stream_call(self.id, AFTER_ALL), silence=step.read) as events:
                for batch in events.batches():
                    if view.heard(batch):
                        return Heard.END
                    if step.past(time.monotonic()):
                        return Heard.CUT
        except (ProblemError, UnexpectedAnswer) as error:
            return _unheard(error)
        except ConnectionFailed:
            return Heard.CUT
        return Heard.CUT


class AsyncRun(_Run):
    """As `Run`; its methods are awaited."""

    _client: AsyncShell = PrivateAttr()

    def model_post_init(self, context: AsyncShell, /) -> None:
        """Keep the client that this came by."""
        self._client = context

    async def refresh(self) -> "AsyncRun":
        """The run as it is now."""
        return await self._client.fetch(self._get(), AsyncRun)

    async def wait(
        self, timeout: float | None = None, *, watch: Callable[["AsyncRun"], object] | None = None
    ) -> "AsyncRun":
        """As `Run.wait`; ``watch`` is not awaited."""
        steps, view = until_over(self, timeout, time.monotonic), View(self, watch)
        answer: Answer[AsyncRun] = Answer()
        try:
            step = next(steps)
            while True:
                match step:
                    case Sleep(seconds):
                        await asyncio.sleep(seconds)
                        answer = Answer()
                    case Look(within):
                        answer = await self._look(within)
                        view.saw(answer.run)
                    case Listen():
                        answer = Answer(heard=await self._listen(step, view))
                step = steps.send(answer)
        except StopIteration as over:
            ended: AsyncRun = over.value
            return ended

    async def result(self, timeout: float | None = None) -> Any:
        """As `Run.result`."""
        return _outcome(await self.wait(timeout))

    async def cancel(self, *, force: bool = False, reason: str | None = None) -> "AsyncRun":
        """As `Run.cancel`."""
        return await self._client.fetch(self._cancel(force=force, reason=reason), AsyncRun)

    async def replay(
        self, *, args: list[Any] | None = None, kwargs: dict[str, Any] | None = None
    ) -> "AsyncRun":
        """As `Run.replay`."""
        return await self._client.fetch(self._replay(args, kwargs), AsyncRun)

    async def logs(self, *, follow: bool = False, level: Level = "debug") -> AsyncIterator[LogLine]:
        """As `Run.logs`."""
        if not follow:
            async for line in self._client.page(log_call(self.id, level), LogLine):
                yield line
            return
        follower = Follower(self.id, level)
        while follower.streams and not follower.over:
            try:
                async with self._client.stream(follower.stream()) as events:
                    async for batch in events.batches():
                        for line in follower.heard(batch):
                            yield line
                await asyncio.sleep(follower.rest())
            except BROKEN as error:
                await asyncio.sleep(follower.broke(error))
        async for line in self._paged(follower):
            yield line

    async def _paged(self, follower: Follower) -> AsyncIterator[LogLine]:
        while not follower.over:
            follower.over = (await self.refresh()).finished
            async for line in self._client.page(follower.page(), LogLine):
                if follower.read(line):
                    yield line
            if not follower.over:
                await asyncio.sleep(POLL)

    async def _look(self, within: float | None) -> Answer["AsyncRun"]:
        try:
            return Answer(run=await self._client.fetch(self._get(), AsyncRun, within=within))
        except UpbeatError as error:
            return Answer(error=error)

    async def _listen(self, step: Listen, view: View["AsyncRun"]) -> Heard:
        if not self._client.listeners.acquire(blocking=False):
            return Heard.CUT
        try:
            return await self._heard(step, view)
        finally:
            self._client.listeners.release()

    async def _heard(self, step: Listen, view: View["AsyncRun"]) -> Heard:
        client = self._client.with_options(timeout=step.read, max_retries=0)
        try:
            async with client.stream(stream_call(self.id, AFTER_ALL), silence=step.read) as events:
                async for batch in events.batches():
                    if view.heard(batch):
                        return Heard.END
                    if step.past(time.monotonic()):
                        return Heard.CUT
        except (ProblemError, UnexpectedAnswer) as error:
            return _unheard(error)
        except ConnectionFailed:
            return Heard.CUT
        return Heard.CUT


def _outcome(run: Record) -> Any:
    if run.state == "succeeded":
        return run.returned
    raise OUTCOMES.get(run.state, RunNotSucceeded)(run)


def _unheard(error: ProblemError | UnexpectedAnswer) -> Heard:
    if isinstance(error, UnexpectedAnswer) or error.status in NO_STREAM:
        return Heard.NO_STREAM
    return Heard.CUT
