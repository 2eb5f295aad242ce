"""Queues: what waits in them and who takes from them; pause, resume and purge.

No run of a paused queue starts, whoever may hold a wake-up of it: that is a condition of the start itself. Workers
leave its wake-ups in the broker, beats send none again, and runs and wake-ups stay until it is resumed.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session

from app.db.companions import changed, unit
from app.errors import Conflict, NotFound
from app.scheduling import backlog, limiting, purging, statements, wishes
from app.scheduling.backlog import Backlog
from app.scheduling.messages import QUEUES, BrokerUnavailable, Publisher
from app.scheduling.models import NOW, QueuePauseRow, WorkerRow

T = TypeVar("T")

# Wake-ups that were taken and found the queue paused, or that beats held back, are sent again at once.
_HASTEN = text("""
UPDATE celery_task_runs SET next_dispatch_at = clock_timestamp()
WHERE state = 'queued' AND id = ANY(ARRAY(
    SELECT id FROM celery_task_runs
    WHERE next_dispatch_at > (SELECT clock_timestamp()) AND queue = :queue AND dispatches > 0
    ORDER BY next_dispatch_at
    LIMIT 5000
))
""")


@dataclass(frozen=True, slots=True)
class QueueView:
    """A queue. Runs by what they wait for; ``oldest`` is how many seconds ago the earliest that waits for a worker
    was due. ``messages`` are the wake-ups in the broker, None when it does not answer."""

    name: str
    pause: QueuePauseRow | None
    counts: dict[str, int]
    oldest: float | None
    messages: int | None
    consumers: list[WorkerRow] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Purged:
    """What a purge did, or would do; ``messages`` are the wake-ups that were dropped, None if the broker was away."""

    matched: int
    cancelled: int
    more: bool
    messages: int | None


class Queues:
    """Queues, as methods; each commits before it returns."""

    def __init__(self, sessions: async_sessionmaker[AsyncSession], publisher: Publisher) -> None:
        self._sessions = sessions
        self._publisher = publisher

    async def list(self) -> list[QueueView]:
        """All queues, in the order in which workers take from them."""

        def work(session: Session) -> tuple[Backlog, dict[str, QueuePauseRow], list[WorkerRow]]:
            pauses = {row.queue: row for row in session.scalars(select(QueuePauseRow))}
            living = select(WorkerRow).where(WorkerRow.lease_expires_at > NOW).order_by(WorkerRow.id)
            return backlog.read(session), pauses, list(session.scalars(living))

        lengths = await self._lengths()
        found, pauses, living = await self._read(work)
        return [_view(name, found, pauses.get(name), living, lengths) for name in QUEUES]

    async def get(self, name: str) -> QueueView:
        """One queue; raises NotFound."""
        _require(name)
        return next(view for view in await self.list() if view.name == name)

    async def pause(self, name: str, note: str, *, actor: str) -> QueueView:
        """Let no run of the queue start until it is resumed; of a paused one, the note changes.

        Raises:
            NotFound: there is no such queue.
        """
        _require(name)

        def work(session: Session) -> None:
            values = {"queue": name, "paused_by": actor, "note": note}
            session.execute(
                insert(QueuePauseRow)
                .values(**values)
                .on_conflict_do_update(
                    index_elements=[QueuePauseRow.queue], set_={"paused_by": actor, "note": note}
                )
            )
            changed(session, f"celery_queue_pauses/{name}", {"note": {"before": None, "after": note}})
            session.execute(wishes.NOTIFY)

        await unit(self._sessions, work)
        return await self.get(name)

    async def resume(self, name: str) -> QueueView:
        """Let the runs of a paused queue start again; what waited is woken.

        Raises:
            NotFound: there is no such queue.
            Conflict: it is not paused.
        """
        _require(name)
        lengths = await self._lengths()

        def work(session: Session) -> None:
            row = session.get(QueuePauseRow, name, with_for_update=True)
            if row is None:
                raise Conflict("The queue is not paused.")
            session.delete(row)
            session.flush()
            session.execute(wishes.NOTIFY)
            limiting.release_queue(session, name)
            if not lengths.get(name):
                session.execute(_HASTEN, {"queue": name})
                session.execute(statements.NOTIFY_BEATS)

        await unit(self._sessions, work)
        return await self.get(name)

    async def purge(self, name: str, *, limit: int, dry_run: bool) -> Purged:
        """Cancel up to ``limit`` runs that wait in the queue now, a batch in each transaction, and drop its wake-ups.

        A wake-up that is dropped too many is sent again by a beat.

        Raises:
            NotFound: there is no such queue.
        """
        _require(name)
        matched = await self._read(lambda session: purging.count(session, [name]))
        if dry_run:
            return Purged(min(matched, limit), 0, matched > limit, None)
        which = await self._read(lambda session: purging.those_of(session, [name]))
        ended = looked_at = 0
        while looked_at < limit:
            page = await self._read(lambda session: purging.page(session, which))
            page = page[: limit - looked_at]
            done = sum([await unit(self._sessions, _ending(name, part)) for part in purging.parts(page)])
            ended, looked_at = ended + done, looked_at + len(page)
            if not done or len(page) < purging.BATCH:
                break
        left = await self._read(lambda session: purging.count(session, [name]))
        return Purged(min(matched, limit), ended, left > 0, None if left else await self._discard(name))

    async def _discard(self, name: str) -> int | None:
        try:
            return await asyncio.to_thread(self._publisher.discard, [name])
        except BrokerUnavailable:
            return None

    async def _lengths(self) -> dict[str, int]:
        try:
            return dict((await asyncio.to_thread(self._publisher.survey)).lengths)
        except BrokerUnavailable:
            return {}

    async def _read(self, work: Callable[[Session], T]) -> T:
        # Without a commit: the audit joins the first, and what is looked up here is no change.
        async with self._sessions() as session:
            return await session.run_sync(work)


def _ending(name: str, part: list[UUID]) -> Callable[[Session], int]:
    def work(session: Session) -> int:
        ended = purging.end(session, part)
        changed(session, f"queues/{name}", {"purged": {"before": 0, "after": ended}})
        return ended

    return work


def _require(name: str) -> None:
    if name not in QUEUES:
        raise NotFound(f"There is no queue of this name. The queues are {', '.join(QUEUES)}.")


def _view(
    name: str,
    found: Backlog,
    pause: QueuePauseRow | None,
    living: list[WorkerRow],
    lengths: dict[str, int],
) -> QueueView:
    here = [each for each in found.runs if each.queue == name]
    counts = {state: sum(each.number for each in here if each.state == state) for state in backlog.STATES}
    waiting = [each.oldest for each in here if each.state == "queued"]
    consumers = [row for row in living if name in row.queues and pause is None and row.state != "draining"]
    return QueueView(name, pause, counts, max(waiting, default=None), lengths.get(name), consumers)
