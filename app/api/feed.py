"""The feed of changes: one look at the database for all clients of this process, and a bounded line for each of them.

While somebody reads, the tables are looked at a few times a second, with one connection of the pool, whatever the
number of clients. Looks overlap, because a transaction is seen a little after the times that it wrote; what was told is
remembered. A client that does not keep up is told to start again, instead of growing a queue without bound.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, TypeVar
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session

from app.db.outages import is_away
from app.scheduling import changes
from app.scheduling.changes import Changes, QueueDepth, RunChange, ScheduleChange

T = TypeVar("T")
LOOK_EVERY: Final = 0.25
QUEUES_EVERY: Final = 1.0
OUTAGE_PAUSE: Final = 1.0
# How far a look goes back: a usual transaction's length, and now and then a long one's.
OVERLAP: Final = timedelta(seconds=1)
LONG_OVERLAP: Final = timedelta(seconds=5)
LONG_EVERY: Final = 8  # looks
LATE_TICKS: Final = timedelta(seconds=10)
REMEMBERED: Final = 50_000
MAX_CLIENTS: Final = 1000
MAX_PENDING: Final = 1000
# Older than this, a client has to read the resource again; the same when more than `changes.LIMIT` happened.
REPLAYED: Final = timedelta(minutes=15)

log = structlog.get_logger(__name__)


class Topic(StrEnum):
    """What a client reads."""

    RUNS = "runs"
    SCHEDULES = "schedules"
    QUEUES = "queues"


class Reset(StrEnum):
    """Why a client has to read the resource again: there were changes that it will not be told."""

    TOO_OLD = "too_old"
    """What it has seen last is too long ago."""
    TOO_MANY = "too_many"
    """More happened than is told one by one."""


@dataclass(frozen=True, slots=True)
class Fired:
    """A tick of a schedule was decided; ``run`` is what came of it."""

    run: RunChange


Change = RunChange | ScheduleChange | Fired | QueueDepth | Reset


@dataclass(slots=True, eq=False)
class Client:
    """One reader of one topic. ``position`` is the instant up to which it has been given everything."""

    topic: Topic
    wants: Callable[[Any], bool]
    position: datetime
    slow: bool = False
    _line: deque[tuple[datetime, Sequence[Change]]] = field(default_factory=deque)
    _waiting: int = 0
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def give(self, until: datetime, given: Sequence[Change]) -> None:
        """Put what it wants in its line; when it is up to date and wants nothing of it, it has its place moved."""
        wanted = [each for each in given if isinstance(each, Reset) or self.wants(each)]
        if self.slow:
            return
        if not wanted:
            self.position = self.position if self._line else max(self.position, until)
            return
        self._waiting += len(wanted)
        if self._waiting > MAX_PENDING:
            self._line.clear()
            self.slow = True
        else:
            self._line.append((until, wanted))
        self._news.set()

    def tell(self) -> None:
        """There may be something to see."""
        self._news.set()

    async def next(self, seconds: float) -> Sequence[Change]:
        """What has come, moving ``position``; nothing after so many seconds or when told to look."""
        if not self._line and not self.slow:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), seconds)
        self._news.clear()
        if not self._line:
            return ()
        until, given = self._line.popleft()
        self._waiting -= len(given)
        self.position = max(self.position, until)
        return given


class Feed:
    """All readers of this process. Its task exists only while there are some."""

    def __init__(self, sessions: async_sessionmaker[AsyncSession]) -> None:
        self._sessions = sessions
        self._clients: set[Client] = set()
        self._task: asyncio.Task[None] | None = None
        self._told: OrderedDict[UUID, tuple[str, int]] = OrderedDict()
        self._versions: OrderedDict[tuple[UUID, int], None] = OrderedDict()
        self._running: set[UUID] = set()
        self._depths: dict[str, QueueDepth] = {}
        self._until: datetime | None = None
        self.looks = 0
        self.closing = False

    @property
    def full(self) -> bool:
        """Whether this process takes no further client."""
        return len(self._clients) >= MAX_CLIENTS

    @contextmanager
    def reading(self, topic: Topic, wants: Callable[[Any], bool], position: datetime) -> Iterator[Client]:
        """Be given what changes from now on, for the time of the context: after ``position``, or, if there was a look
        since then, after that."""
        client = Client(topic, wants, position if self._until is None else max(position, self._until))
        self._clients.add(client)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._keep(position))
        try:
            yield client
        finally:
            self._clients.discard(client)

    async def now(self) -> datetime:
        """The database's time: where a reader begins who has seen nothing."""
        return await self._unit(changes.now)

    async def replay(self, topic: Topic, after: datetime, wants: Callable[[Any], bool]) -> Sequence[Change]:
        """What changed after ``after``, or why that is not told; some of it may have been told before."""

        def work(session: Session) -> Sequence[Change]:
            at = changes.now(session)
            if at - after > REPLAYED:
                return [Reset.TOO_OLD]
            found = changes.read(session, after - LONG_OVERLAP, reach=LATE_TICKS)
            if found.cut:
                return [Reset.TOO_MANY]
            made_after = after - LONG_OVERLAP
            fired = [Fired(run) for run in found.runs if _is_fired(run, made_after)]
            given: list[Change] = [*found.runs] if topic is Topic.RUNS else [*found.schedules, *fired]
            return [each for each in given if wants(each)]

        return await self._unit(work)

    async def depths(self) -> Sequence[QueueDepth]:
        """The queues as they are now."""
        return list((await self._unit(changes.depths)).values())

    def end(self) -> None:
        """Let all streams end: the process is about to."""
        self.closing = True
        for client in self._clients:
            client.tell()

    async def close(self) -> None:
        """Stop looking."""
        self.end()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _keep(self, since: datetime) -> None:
        turn = 0
        while self._clients:
            try:
                if self._until is None:
                    await self._begin(since)
                topics = {client.topic for client in self._clients}
                if topics & {Topic.RUNS, Topic.SCHEDULES}:
                    await self._look(far=turn % LONG_EVERY == 0)
                if Topic.QUEUES in topics and turn % round(QUEUES_EVERY / LOOK_EVERY) == 0:
                    await self._look_at_queues()
                turn += 1
            except Exception as error:
                if not is_away(error):
                    log.exception("changes cannot be read", action="feed")
                await asyncio.sleep(OUTAGE_PAUSE)
            await asyncio.sleep(LOOK_EVERY)
        self._until = None

    async def _begin(self, since: datetime) -> None:
        """What was so already when the first reader came counts as told."""

        def work(session: Session) -> tuple[Changes, set[UUID]]:
            return changes.read(session, since - LONG_OVERLAP, reach=LONG_OVERLAP), changes.running(session)

        found, running = await self._unit(work)
        old = (run for run in found.runs if run.at <= since)
        self._told.update({run.id: (run.state, run.attempt) for run in old})
        self._versions.update(
            {(each.schedule_id, each.version): None for each in found.schedules if each.changed_at <= since}
        )
        self._until, self._running = since, running

    async def _look(self, *, far: bool) -> None:
        since, running = self._until, list(self._running)
        if since is None:
            return
        back, reach = (LONG_OVERLAP, LATE_TICKS) if far else (OVERLAP, timedelta(0))
        found = await self._unit(
            lambda session: changes.read(session, since - back, reach=reach, running=running)
        )
        self.looks += 1
        runs, fired, versions = self._new(found, since - LONG_OVERLAP)
        resets = [Reset.TOO_MANY] if found.cut else []
        self._until = found.until
        # At once: what counts as told must not be lost with a question that fails.
        self._give(Topic.RUNS, found.until, [*resets, *runs])
        self._give(Topic.SCHEDULES, found.until, [*resets, *versions, *fired])
        if found.cut:
            self._running = await self._unit(changes.running)

    async def _look_at_queues(self) -> None:
        before, found = self._depths, await self._unit(changes.depths)
        self._depths = found
        changed = [depth for name, depth in found.items() if _counts(depth) != _counts(before.get(name))]
        emptied = [QueueDepth(name) for name in before.keys() - found.keys()]
        self._give(Topic.QUEUES, await self.now(), [*changed, *emptied])

    def _new(
        self, found: Changes, since: datetime
    ) -> tuple[list[RunChange], list[Fired], list[ScheduleChange]]:
        """What has not been told; it counts as told from now on."""
        runs, fired = [], []
        for run in found.runs:
            known, stands = self._told.get(run.id), (run.state, run.attempt)
            if known == stands:
                continue
            if known is None and _is_fired(run, since):
                fired.append(Fired(run))
            self._told[run.id] = stands
            self._told.move_to_end(run.id)
            runs.append(run)
            (self._running.add if run.state == "running" else self._running.discard)(run.id)
        versions = [
            each for each in found.schedules if (each.schedule_id, each.version) not in self._versions
        ]
        self._versions.update(dict.fromkeys((each.schedule_id, each.version) for each in versions))
        for memory in (self._told, self._versions):
            while len(memory) > REMEMBERED:
                memory.popitem(last=False)
        return runs, fired, versions

    def _give(self, topic: Topic, until: datetime, given: Sequence[Change]) -> None:
        for client in self._clients:
            if client.topic is topic:
                client.give(until, given)

    async def _unit(self, work: Callable[[Session], T]) -> T:
        async with self._sessions() as session:
            return await session.run_sync(work)


def _is_fired(run: RunChange, since: datetime) -> bool:
    return run.origin == "schedule" and run.schedule_id is not None and run.created_at > since


def _counts(depth: QueueDepth | None) -> tuple[int, ...] | None:
    return None if depth is None else (depth.queued, depth.held, depth.delayed, depth.blocked, depth.running)
