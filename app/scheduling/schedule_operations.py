"""What the facade does with schedules that exist: list, history, bulk actions, export and import."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session

from app.scheduling import bulk, history, transfer
from app.scheduling.calculating import calculated
from app.scheduling.catalogue import Catalogue
from app.scheduling.choosing import (
    EVERY_SCHEDULE,
    PEOPLE,
    Order,
    Place,
    ScheduleFilter,
    listed,
    place_of,
)
from app.scheduling.history import Difference
from app.scheduling.messages import RunMessage
from app.scheduling.models import ScheduleRow, ScheduleVersionRow
from app.scheduling.schedules import ScheduleView
from app.settings import Settings

__all__ = ["PEOPLE", "BulkDone", "Exported", "Page", "ScheduleOperations", "SchedulePage"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page; ``next`` is the id to go on from, None on the last page."""

    items: list[T]
    next: UUID | None


@dataclass(frozen=True, slots=True)
class SchedulePage:
    """One page of schedules; ``next`` is the place to go on from, None on the last page."""

    items: list[ScheduleView]
    next: Place | None


@dataclass(frozen=True, slots=True)
class BulkDone:
    """What a bulk action did, or would do; ``next`` is the schedule after which there are more."""

    outcome: bulk.Outcome
    next: UUID | None


@dataclass(frozen=True, slots=True)
class Exported:
    """Schedules by key; ``next`` is the schedule after which there are more."""

    entries: dict[str, dict[str, Any]]
    next: UUID | None


class ScheduleOperations:
    """A part of the facade."""

    _sessions: async_sessionmaker[AsyncSession]
    _catalogue: Catalogue
    _settings: Settings

    async def list_schedules(
        self,
        *,
        limit: int,
        after: Place | None = None,
        which: ScheduleFilter = EVERY_SCHEDULE,
        order: Order = Order.CREATED,
    ) -> SchedulePage:
        """Schedules in an order, by default the oldest first."""
        async with self._sessions() as session:
            rows = (await session.execute(listed(which, order, after, limit + 1))).all()
        found = [ScheduleView(row, next_run_at) for row, next_run_at in rows]
        last = found[limit - 1] if len(found) > limit else None
        return SchedulePage(
            found[:limit], None if last is None else place_of(order, last.row, last.next_run_at)
        )

    async def history(
        self, schedule_id: UUID, *, limit: int, before: int | None = None
    ) -> tuple[list[ScheduleVersionRow], int | None]:
        """The versions of a schedule, newest first, and the number to go on before; see `history.page`."""
        async with self._sessions() as session:
            found = await session.run_sync(
                lambda sync: history.page(sync, schedule_id, limit=limit + 1, before=before)
            )
        return found[:limit], found[limit - 1].version if len(found) > limit else None

    async def version(self, schedule_id: UUID, number: int) -> ScheduleVersionRow:
        """One version of a schedule; raises NotFound."""
        async with self._sessions() as session:
            return await session.run_sync(history.version, schedule_id, number)

    async def difference(self, schedule_id: UUID, number: int, *, against: int | None = None) -> Difference:
        """What a version changed; see `history.difference`."""
        async with self._sessions() as session:
            return await session.run_sync(history.difference, schedule_id, number, against)

    async def restore(
        self,
        schedule_id: UUID,
        number: int,
        *,
        actor: str,
        expected: Collection[int] | None = None,
        reason: str | None = None,
    ) -> ScheduleView:
        """Bring an earlier version back; see `history.restore`."""
        return await self._unit(
            lambda session: history.restore(
                session,
                self._catalogue,
                schedule_id,
                number,
                actor=actor,
                expected=expected,
                reason=reason,
            )
        )

    async def act_on_schedules(
        self,
        which: ScheduleFilter,
        order: bulk.Order,
        *,
        limit: int,
        after: UUID | None = None,
        dry_run: bool = False,
    ) -> BulkDone:
        """Do something to up to ``limit`` schedules, the oldest first, `bulk.PART` of them in each transaction.

        A dry run does the same, and takes each part back.
        """
        done = bulk.Outcome()
        while done.matched < limit:
            size = min(bulk.PART, limit - done.matched)
            ids = await self._ids(which, after, size)
            if not ids:
                return BulkDone(done, None)
            part = await self._part(order, ids, dry_run=dry_run)
            done.add(part)
            await self._publish(part.messages)
            after = ids[-1]
            if len(ids) < size:
                return BulkDone(done, None)
        return BulkDone(done, after if await self._ids(which, after, 1) else None)

    async def export_schedules(
        self, which: ScheduleFilter, *, limit: int, after: UUID | None = None
    ) -> Exported:
        """Schedules as a document, the oldest first; see `app.scheduling.transfer`."""
        place = None if after is None else Place(after)

        def work(session: Session) -> Exported:
            rows = [row for row, _ in session.execute(listed(which, Order.CREATED, place, limit + 1))]
            more = rows[limit - 1].id if len(rows) > limit else None
            return Exported(transfer.export(session, rows[:limit]), more)

        async with self._sessions() as session:
            return await session.run_sync(work)

    async def import_schedules(
        self,
        yaml: str | None,
        given: Mapping[str, dict[str, Any]] | None,
        *,
        actor: str,
        dry_run: bool = False,
        skip_conflicts: bool = False,
        reason: str | None = None,
    ) -> list[transfer.Step]:
        """Create and update schedules by name, all or nothing; see `transfer.import_` for what it raises."""
        declarations, notes = await calculated(transfer.parsed, yaml, given)
        wanted = await calculated(transfer.wanted, self._catalogue, declarations)

        def work(session: Session) -> list[transfer.Step]:
            return transfer.import_(
                session,
                self._catalogue,
                declarations,
                wanted,
                notes,
                actor=actor,
                reason=reason,
                skip_conflicts=skip_conflicts,
            )

        return await self._taken_back(work) if dry_run else await self._unit(work)

    async def _ids(self, which: ScheduleFilter, after: UUID | None, limit: int) -> list[UUID]:
        query = select(ScheduleRow.id).where(*which.conditions()).order_by(ScheduleRow.id).limit(limit)
        if after is not None:
            query = query.where(ScheduleRow.id > after)
        async with self._sessions() as session:
            return list(await session.scalars(query))

    async def _part(self, order: bulk.Order, ids: Sequence[UUID], *, dry_run: bool) -> bulk.Outcome:
        def work(session: Session) -> bulk.Outcome:
            delay = self._settings.beat.redispatch_delay
            return bulk.part(session, self._catalogue, order, ids, redispatch_delay=delay)

        if not dry_run:
            return await self._unit(work)
        done = await self._taken_back(work)
        done.messages.clear()
        return done

    async def _taken_back(self, work: Callable[[Session], T]) -> T:
        async with self._sessions() as session:
            done = await session.run_sync(work)
            await session.rollback()
            return done

    async def _unit(self, work: Callable[[Session], T]) -> T:
        raise NotImplementedError

    async def _publish(self, messages: Sequence[RunMessage]) -> None:
        raise NotImplementedError
