"""Who follows which runs: one LISTEN connection and one look a second, for any number of clients."""

import asyncio
import signal
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from uuid import UUID

import structlog

from app.db.listen_async import AsyncListener
from app.db.outages import is_away
from app.scheduling.observing import Observer
from app.scheduling.run_logs import CHANNEL, Standing
from app.settings import DatabaseSettings

LOOK_EVERY = 1.0
FOLLOW_FOR = 60.0
OUTAGE_PAUSE = 1.0
MAX_FOLLOWERS = 1000

log = structlog.get_logger(__name__)


class Follower:
    """One client's view of one run; ``standing`` is None until the first look."""

    def __init__(self) -> None:
        self.standing: Standing | None = None
        self._news = asyncio.Event()

    def tell(self) -> None:
        """There may be something new."""
        self._news.set()

    async def wait(self, seconds: float) -> None:
        """Until there may be something new, or the time is over."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), seconds)
        self._news.clear()


class Following:
    """All followers of this process. Its task and its connection exist only while somebody follows."""

    def __init__(self, settings: DatabaseSettings, observer: Observer) -> None:
        self._observer = observer
        self._followers: dict[UUID, set[Follower]] = defaultdict(set)
        self._listener = AsyncListener(settings, CHANNEL, self._heard, name="upbeat-api-listen")
        self._task: asyncio.Task[None] | None = None
        self._look_now = asyncio.Event()
        self.closing = False

    @property
    def full(self) -> bool:
        """Whether this process takes no further client."""
        return sum(map(len, self._followers.values())) >= MAX_FOLLOWERS

    @contextmanager
    def following(self, run_id: UUID) -> Iterator[Follower]:
        """Follow a run for the time of the context."""
        follower = Follower()
        self._followers[run_id].add(follower)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._keep())
        self._look_now.set()
        try:
            yield follower
        finally:
            self._followers[run_id].discard(follower)
            if not self._followers[run_id]:
                del self._followers[run_id]
            if not self._followers:
                self._look_now.set()

    def end(self) -> None:
        """Let all streams end: the process is about to."""
        self.closing = True
        for followers in self._followers.values():
            for follower in followers:
                follower.tell()

    async def close(self) -> None:
        """Give the connection up."""
        self.end()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        await self._listener.close()

    async def _keep(self) -> None:
        """Look at the runs now and then, so that a missed notification costs a second."""
        while self._followers or not await self._given_up():
            try:
                if await self._listener.connect():
                    self._tell_all()
                await self._look()
            except Exception as error:
                if not is_away(error):
                    log.exception("runs cannot be followed", action="follow")
                await self._listener.close()
                await asyncio.sleep(OUTAGE_PAUSE)
            with suppress(TimeoutError):
                # Not wait_for, which drops a cancellation that comes with the news.
                async with asyncio.timeout(LOOK_EVERY):
                    await self._look_now.wait()
            self._look_now.clear()

    async def _given_up(self) -> bool:
        """Whether nobody follows still when the connection is closed."""
        await self._listener.close()
        return not self._followers

    async def _look(self) -> None:
        found = await self._observer.follow(list(self._followers), FOLLOW_FOR)
        for run_id, standing in found.items():
            for follower in self._followers.get(run_id, ()):
                if follower.standing != standing:
                    follower.standing = standing
                    follower.tell()

    def _heard(self, payload: str) -> None:
        with suppress(ValueError):
            for follower in self._followers.get(UUID(payload), ()):
                follower.tell()
        # A notification may also mean progress, or the end.
        self._look_now.set()

    def _tell_all(self) -> None:
        for followers in self._followers.values():
            for follower in followers:
                follower.tell()


@contextmanager
def announced_end(*ends: Callable[[], None]) -> Iterator[None]:
    """Call each of ``ends`` in the loop as soon as the process is asked to stop.

    The server tells the application only when all connections are closed, and a stream that nobody
    ends is never closed.
    """
    loop = asyncio.get_running_loop()
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def handle(number: int, frame: FrameType | None) -> None:
        for end in ends:
            loop.call_soon_threadsafe(end)
        handler = before[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)

    chained = {number for number, handler in before.items() if callable(handler)}
    for number in chained:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number in chained:
            if signal.getsignal(number) is handle:
                signal.signal(number, before[number])
