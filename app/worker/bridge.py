"""`run_async`: the only place that starts an event loop for task bodies.

It does what `asyncio.run` does, once for the life of the process instead of once per task, so that
connection pools and HTTP clients live across tasks. In the prefork and solo pools the loop runs in
the main thread, for the time of each call; in the threads pool all coroutines of the process share
one loop in a thread of its own. The loop is made when first needed, and anew in a forked child.

A soft time limit cancels the coroutine through the loop, waits for its clean-up, and only then
raises, so that nothing is left behind half done. A coroutine that computes without awaiting ignores
it, as it ignores every cancellation.
"""

import asyncio
import contextvars
import logging
import os
import threading
from collections.abc import Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

from billiard.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from app.db import Autocommitting, Lent, async_engine, async_sessions
from app.settings import get_settings

logger = logging.getLogger(__name__)

T = TypeVar("T")

CLEAN_UP = 5.0


Key = tuple[UUID, int]


class CoroutineCancelled(Exception):
    """A coroutine ended as cancelled although no limit was reached: an ordinary failure of its task."""


class RunCancelled(Exception):
    """Somebody cancelled the run; its coroutine has been cancelled and has cleaned up.

    ``reason`` is one of `app.scheduling.policies.Reason`, ``note`` what that somebody said.
    """

    def __init__(self, reason: str, note: str | None = None) -> None:
        super().__init__(note or reason)
        self.reason = reason
        self.note = note


class _Call:
    """One coroutine on its way: who may cancel it, and why it was cancelled."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self.coroutine = coroutine
        self.task: asyncio.Task[Any] | None = None
        self.exceeded: BaseException | None = None

    def begin(self, loop: asyncio.AbstractEventLoop) -> asyncio.Task[Any]:
        self.task = loop.create_task(self.coroutine)
        return self.task

    def begin_shared(self, loop: asyncio.AbstractEventLoop) -> asyncio.Task[Any]:
        """As `begin`, on a loop that must outlive a body that wants to end the process."""
        self.task = loop.create_task(_without_exit(self.coroutine))
        return self.task

    def exceed(self, error: BaseException, *, again: bool = False) -> None:
        """Cancel because a limit was reached; runs inside the loop.

        What is cancelled already is left to clean up, unless it is to be cancelled ``again``.
        """
        if self.task is None or self.task.done() or (self.exceeded is not None and not again):
            return
        if self.exceeded is None or isinstance(error, TimeLimitExceeded):
            self.exceeded = error
        self.task.cancel()

    def outcome(self) -> Any:
        """The coroutine's result or exception; the limit's exception if it was cancelled by that."""
        if self.task is None:
            raise RuntimeError("the coroutine was never scheduled")
        try:
            return self.task.result()
        except asyncio.CancelledError:
            # As it is, CancelledError would pass for an order to end the process.
            raise self.exceeded or CoroutineCancelled("the coroutine was cancelled, by no limit") from None


class _Database:
    """One pool for all tasks of the process, and the ways to use it."""

    def __init__(self) -> None:
        self._engine: AsyncEngine = async_engine(get_settings().database, name="upbeat-task")
        alone = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        self.sessions: dict[bool, async_sessionmaker[AsyncSession]] = {
            False: async_sessions(self._engine),
            True: async_sessions(alone),
        }
        self.alone = Autocommitting(self._engine)

    async def close(self) -> None:
        await self.alone.close()
        await self._engine.dispose()


class Bridge:
    """The event loop of this process, and the pool that belongs to it."""

    def __init__(self) -> None:
        self._reset()

    def forget(self) -> None:
        """In a forked child: start anew.

        The parent's loop is kept from being collected, because collecting closes it, and that would
        take its file descriptors out of the parent's own selector.
        """
        _inherited.append((self._loop, self._database))
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._database: _Database | None = None
        self._calls: dict[Key, tuple[asyncio.AbstractEventLoop, _Call]] = {}

    def run(
        self,
        coroutine: Coroutine[Any, Any, T],
        *,
        soft_time_limit: float | None = None,
        time_limit: float | None = None,
        key: Key | None = None,
    ) -> T:
        """Run ``coroutine`` to its end and give back its result.

        The limits are in seconds. ``key`` is run and attempt, under which `cancel` finds it.

        Raises:
            RuntimeError: called from inside a running loop: await the coroutine instead.
            CoroutineCancelled: the coroutine was cancelled by itself.
            RunCancelled: somebody cancelled the run.
            SoftTimeLimitExceeded: the soft limit passed; the coroutine has been cancelled.
            TimeLimitExceeded: the hard limit passed, in a pool without processes.
        """
        call = _Call(coroutine)
        try:
            if _inside_loop():
                raise RuntimeError(
                    "run_async was called inside a running event loop: await the coroutine instead"
                )
            here = threading.current_thread() is threading.main_thread()
            if key is not None:
                self._calls[key] = (self._own_loop() if here else self._shared_loop(), call)
            run = self._run_here if here else self._run_in_thread
            return run(call, soft_time_limit, time_limit)  # type: ignore[no-any-return]
        finally:
            if key is not None:
                self._calls.pop(key, None)
            if call.task is None:
                coroutine.close()

    def cancel(self, key: Key, error: BaseException, *, again: bool = False) -> bool:
        """Cancel a coroutine of this process, which then ends with ``error``; False if it does not run here.

        One that is cancelled already cleans up undisturbed, unless ``again``.
        """
        found = self._calls.get(key)
        if found is None:
            return False
        loop, call = found
        loop.call_soon_threadsafe(partial(call.exceed, error, again=again))
        return True

    def running(self) -> list[tuple[Key, asyncio.AbstractEventLoop]]:
        """The coroutines of this process, with their loop."""
        return [(key, loop) for key, (loop, _) in list(self._calls.items())]

    def _run_here(self, call: _Call, soft: float | None, hard: float | None) -> Any:
        loop = self._own_loop()
        timers = _arm(loop, call, soft, hard)
        try:
            task = call.begin(loop)
            try:
                loop.run_until_complete(task)
            except BaseException:
                if not task.done():
                    # It came from a signal handler, not from the task: the process is about to end.
                    _abandon(loop, task)
                    raise
        finally:
            for timer in timers:
                timer.cancel()
        return call.outcome()

    def _run_in_thread(self, call: _Call, soft: float | None, hard: float | None) -> Any:
        loop = self._shared_loop()
        ended = threading.Event()

        def begin() -> None:
            task = call.begin_shared(loop)
            timers = _arm(loop, call, soft, hard)

            def end(_: asyncio.Task[Any]) -> None:
                for timer in timers:
                    timer.cancel()
                ended.set()

            task.add_done_callback(end)

        # The coroutine sees the caller's context: run id, current request.
        loop.call_soon_threadsafe(begin, context=contextvars.copy_context())
        ended.wait()
        return call.outcome()

    def _own_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        if self._loop.is_running():
            raise RuntimeError("the event loop of this process runs in another thread")
        return self._loop

    def _shared_loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
            if self._thread is None:
                self._thread = threading.Thread(
                    target=_turn, args=(self._loop,), name="upbeat-bridge", daemon=True
                )
                self._thread.start()
            return self._loop

    def database(self) -> "_Database":
        """The database, for coroutines that `run` runs.

        Raises:
            RuntimeError: called outside the bridge's loop, whose connections no other loop can use.
        """
        if self._loop is None or asyncio.get_running_loop() is not self._loop:
            raise RuntimeError("the database of tasks belongs to async task bodies, run by run_async")
        if self._database is None:
            self._database = _Database()
        return self._database

    def close(self) -> None:
        """Cancel what is left, close the engine, the generators and the loop; `run` would start anew."""
        loop, thread, database = self._loop, self._thread, self._database
        if loop is None or loop.is_closed():
            return
        try:
            if thread is not None:
                asyncio.run_coroutine_threadsafe(_wind_up(database), loop).result(2 * CLEAN_UP)
            elif not loop.is_running():
                loop.run_until_complete(_wind_up(database))
        finally:
            if thread is not None:
                loop.call_soon_threadsafe(loop.stop)
                thread.join(CLEAN_UP)
            if not loop.is_running():
                loop.close()
                self._reset()


def _inside_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def _without_exit(coroutine: Coroutine[Any, Any, Any]) -> Any:
    try:
        return await coroutine
    except (SystemExit, KeyboardInterrupt) as error:
        raise RuntimeError(f"the coroutine raised {type(error).__name__}") from error


def _arm(
    loop: asyncio.AbstractEventLoop, call: _Call, soft: float | None, hard: float | None
) -> list[asyncio.TimerHandle]:
    timers = []
    if soft:
        timers.append(loop.call_later(soft, call.exceed, SoftTimeLimitExceeded(soft)))
    if hard:
        timers.append(loop.call_later(hard, partial(call.exceed, TimeLimitExceeded(hard), again=True)))
    return timers


def _turn(loop: asyncio.AbstractEventLoop) -> None:
    """Let a shared loop turn until it is stopped, whatever one of its callbacks or tasks raises."""
    while True:
        try:
            loop.run_forever()
        except (SystemExit, KeyboardInterrupt):
            # These two leave a loop; what runs in it belongs to others too.
            logger.exception("a coroutine wanted to end this process", extra={"action": "exit_refused"})
        else:
            return


def _abandon(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
    task.cancel()
    with suppress(BaseException):
        loop.run_until_complete(asyncio.wait([task], timeout=CLEAN_UP))


async def _wind_up(database: _Database | None) -> None:
    left = {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left, timeout=CLEAN_UP)
    if database is not None:
        with suppress(TimeoutError):
            await asyncio.wait_for(database.close(), CLEAN_UP / 2)
    # What runs in the default executor is not waited for: nobody can stop it.
    await asyncio.get_running_loop().shutdown_asyncgens()


_inherited: list[object] = []
_bridge = Bridge()
os.register_at_fork(after_in_child=_bridge.forget)


def run_async(
    coroutine: Coroutine[Any, Any, T],
    *,
    soft_time_limit: float | None = None,
    time_limit: float | None = None,
    key: Key | None = None,
) -> T:
    """Run a coroutine from synchronous code on this process's event loop; see `Bridge.run`."""
    return _bridge.run(coroutine, soft_time_limit=soft_time_limit, time_limit=time_limit, key=key)


def cancel(key: Key, error: BaseException, *, again: bool = False) -> bool:
    """Cancel the coroutine of this run and attempt in this process; see `Bridge.cancel`."""
    return _bridge.cancel(key, error, again=again)


def running() -> list[tuple[Key, asyncio.AbstractEventLoop]]:
    """The coroutines that run in this process; see `Bridge.running`."""
    return _bridge.running()


def task_connection() -> Lent:
    """A connection for async task bodies, on which each statement is a transaction of its own, in one round trip.

    async with task_connection() as connection:
        total = await connection.scalar(…)

    The way for bodies that only read, or write with a single statement: little more than half of what a session costs.

    Raises:
        RuntimeError: called outside an async task body.
    """
    return _bridge.database().alone.one()


def task_sessions(*, autocommit: bool = False) -> async_sessionmaker[AsyncSession]:
    """Sessions for async task bodies, on a pool that all tasks of the process share.

    async with task_sessions()() as session, session.begin():
        await session.execute(…)

    With ``autocommit`` each statement is a transaction of its own, in one round trip instead of three, as on a
    `task_connection`.

    async with task_sessions(autocommit=True)() as session:
        total = await session.scalar(…)

    Raises:
        RuntimeError: called outside an async task body.
    """
    return _bridge.database().sessions[autocommit]


def shutdown() -> None:
    """Close this process's loop and pool."""
    _bridge.close()
