"""Scheduler, the embedded facade: what handlers, the command line and business code call.

Every method is one unit of work: it commits before it returns, and publishes only after the commit.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session

from app.db.companions import produced
from app.db.migrate import Standing, standing
from app.db.outages import SUSPECTS, is_away
from app.errors import Conflict
from app.scheduling import (
    backfill,
    canvas,
    explaining,
    on_demand,
    pausing,
    resuming,
    runs,
    schedules,
    statements,
)
from app.scheduling.backfill import Backfill
from app.scheduling.calculating import calculated
from app.scheduling.calendars import Calendars
from app.scheduling.catalogue import Catalogue
from app.scheduling.config import BackfillRequest, RunRequest, ScheduleCreate, ScheduleUpdate
from app.scheduling.deployment import Deployment
from app.scheduling.enqueueing import Enqueuer, NewRun, Wish
from app.scheduling.explaining import Explanation
from app.scheduling.ids import new_id
from app.scheduling.messages import BrokerUnavailable, Publisher, RunMessage
from app.scheduling.models import NOW, BeatRow, RunRow
from app.scheduling.policies import CatchUp, Overlap
from app.scheduling.previews import Previews
from app.scheduling.queues import Queues
from app.scheduling.resuming import Resumption
from app.scheduling.run_operations import RunOperations
from app.scheduling.schedule_operations import PEOPLE, Page, ScheduleOperations
from app.scheduling.schedules import ScheduleView
from app.scheduling.selecting import RunFilter
from app.settings import Settings

__all__ = ["PEOPLE", "Page", "Readiness", "ScheduleView", "Scheduler"]

logger = logging.getLogger(__name__)
T = TypeVar("T")
BROKER_RETRY = 1.0
LOOK = 5_000
EVERY_RUN = RunFilter()


@dataclass(frozen=True, slots=True)
class Readiness:
    """What must hold for work to flow; the age is in seconds, None before any beat ran."""

    database: bool
    migrated: bool
    last_beat_pass_age: float | None


class Scheduler(ScheduleOperations, RunOperations):
    """Schedules and runs, as methods."""

    def __init__(
        self,
        sessions: async_sessionmaker[AsyncSession],
        publisher: Publisher,
        catalogue: Catalogue,
        settings: Settings,
    ) -> None:
        self._sessions = sessions
        self._publisher = publisher
        self._catalogue = catalogue
        self._settings = settings
        self._enqueuer = Enqueuer(sessions, self._publish, settings.beat)
        self.deployment = Deployment(sessions, catalogue)
        self.calendars = Calendars(sessions)
        self.previews = Previews(sessions)
        self.queues = Queues(sessions, publisher)

    async def create_schedule(self, body: ScheduleCreate, *, actor: str) -> ScheduleView:
        """Store a schedule and set its clock; see `schedules.create` for what it raises."""
        return await self._unit(lambda session: schedules.create(session, self._catalogue, body, actor))

    async def get_schedule(self, schedule_id: UUID) -> ScheduleView:
        """One schedule.

        Raises:
            NotFound: there is none with this id.
        """
        async with self._sessions() as session:
            return await session.run_sync(schedules.view, schedule_id)

    async def update_schedule(
        self,
        schedule_id: UUID,
        body: ScheduleUpdate,
        *,
        actor: str,
        expected: Collection[int] | None = None,
    ) -> ScheduleView:
        """Change what ``body`` gives, if the schedule is at one of the ``expected`` versions.

        See `schedules.update` for what it raises.
        """
        return await self._unit(
            lambda session: schedules.update(
                session, self._catalogue, schedule_id, body, actor, expected=expected
            )
        )

    async def set_enabled(self, schedule_id: UUID, enabled: bool, *, actor: str) -> ScheduleView:  # noqa: FBT001
        """Enable or disable; enabling an enabled schedule changes nothing.

        Raises:
            Conflict: it is paused, and is to be enabled.
        """
        found = await self.get_schedule(schedule_id)
        if enabled and found.row.state == "paused":
            raise Conflict("The schedule is paused. Resume it instead: POST …/resume.")
        if found.row.state == ("active" if enabled else "disabled"):
            return found
        return await self.update_schedule(schedule_id, ScheduleUpdate(task_enabled=enabled), actor=actor)

    async def delete_schedule(
        self,
        schedule_id: UUID,
        *,
        actor: str,
        expected: Collection[int] | None = None,
        reason: str | None = None,
    ) -> None:
        """Delete a schedule at one of the ``expected`` versions; its runs and its history stay."""
        await self._unit(
            lambda session: schedules.remove(session, schedule_id, actor, expected=expected, reason=reason)
        )

    async def pause(self, schedule_id: UUID, note: str, *, actor: str) -> ScheduleView:
        """Let a schedule fire no more until it is resumed; see `pausing.pause` for what it raises."""
        return await self._unit(lambda session: pausing.pause(session, schedule_id, note=note, author=actor))

    async def resume(
        self, schedule_id: UUID, *, actor: str, catch_up: CatchUp = CatchUp.NONE, dry_run: bool = False
    ) -> Resumption:
        """Let a paused schedule go on; see `resuming.resume`."""

        def work(session: Session) -> Resumption:
            done = resuming.resume(
                session,
                self._catalogue,
                schedule_id,
                author=actor,
                catch_up=catch_up,
                dry_run=dry_run,
                redispatch_delay=self._settings.beat.redispatch_delay,
            )
            session.flush()
            return done

        done = await self._unit(work)
        await self._publish(done.messages)
        return done

    async def backfill(self, schedule_id: UUID, request: BackfillRequest, *, actor: str) -> Backfill:
        """Make runs for ticks of the past; see `backfill.backfill`."""
        async with self._sessions() as session:
            version, plan = await session.run_sync(
                backfill.asked_about, self._catalogue, schedule_id, request
            )
        layout = await calculated(backfill.lay_out, schedule_id, version, plan, request)
        done = await self._unit(
            lambda session: backfill.backfill(
                session,
                self._catalogue,
                schedule_id,
                request,
                actor=actor,
                redispatch_delay=self._settings.beat.redispatch_delay,
                layout=layout,
            )
        )
        await self._publish(done.messages)
        return done

    async def explain(self, schedule_id: UUID, at: datetime) -> Explanation:
        """What became of an instant of a schedule, and why; see `explaining.explain`."""
        async with self._sessions() as session:
            return await session.run_sync(explaining.explain, schedule_id, at)

    async def run_now(self, schedule_id: UUID, *, actor: str, overlap: Overlap | None = None) -> RunRow:
        """One run of a schedule now; see `on_demand.run_now`."""
        run_id = new_id()

        def work(session: Session) -> tuple[RunRow, RunMessage | None]:
            message = on_demand.run_now(
                session,
                self._catalogue,
                schedule_id,
                actor=actor,
                run_id=run_id,
                redispatch_delay=self._settings.beat.redispatch_delay,
                overlap=overlap,
            )
            session.flush()
            return runs.require(session, run_id), message

        return await self._publishing(work)

    async def submit(self, task: str, body: RunRequest, *, actor: str) -> NewRun:
        """One run of a task on demand; those of many callers are made together.

        Raises:
            NotFound: no task has this name.
            InvalidInput: the arguments do not fit it; fields are `args[n]` and `kwargs.name`.
        """
        spec = self._catalogue.named(task)
        spec.require_fit(body.args, body.kwargs, prefix="")
        return await self._enqueuer.make(Wish.of(spec, body, actor))

    async def get_run(self, run_id: UUID) -> RunRow:
        """One run, by its own id or by the task id that a Celery client gave it.

        Raises:
            NotFound: there is none with this id.
        """
        task_id = str(run_id)
        async with self._sessions() as session:
            row = await session.run_sync(runs.read, run_id)
            if row is None:
                named = await session.run_sync(lambda sync: canvas.read_many(sync, [task_id]))
                row = named.get(task_id)
        if row is None:
            raise runs.no_run()
        return row

    async def list_runs(
        self,
        *,
        limit: int,
        before: UUID | None = None,
        which: RunFilter = EVERY_RUN,
        oldest_first: bool = False,
        look: int = LOOK,
    ) -> Page[RunRow]:
        """Runs, newest first, before an id; or ``oldest_first``, after it.

        Where ``look`` runs hold fewer that meet the filter, the page is shorter, and may be empty; ``next`` says then
        where the search goes on.
        """
        query, last = which.page(limit=limit + 1, at=before, oldest_first=oldest_first, look=look)
        async with self._sessions() as session:
            found = list(await session.scalars(query))
            reached = None if len(found) > limit else await session.scalar(last)
        return Page(found[:limit], found[limit - 1].id if len(found) > limit else reached)

    async def readiness(self) -> Readiness:
        """Ask the database how things stand; raises as the driver does when it is away."""

        def work(session: Session) -> Readiness:
            age = session.scalar(select(NOW - func.max(BeatRow.last_pass_at)))
            return Readiness(
                database=True,
                migrated=standing(session.connection()) is not Standing.BEHIND,
                last_beat_pass_age=age.total_seconds() if isinstance(age, timedelta) else None,
            )

        async with self._sessions() as session:
            return await session.run_sync(work)

    async def _unit(self, work: Callable[[Session], T]) -> T:
        async with self._sessions() as session, session.begin():
            made = await session.run_sync(work)
            # What was made comes first, where wake-ups are answered with it.
            produced(session, made[0] if isinstance(made, tuple) else made)
            return made

    async def _publishing(self, work: Callable[[Session], tuple[RunRow, RunMessage | None]]) -> RunRow:
        row, message = await self._unit(work)
        if message is not None:
            await self._publish([message])
        return row

    async def _publish(self, messages: Sequence[RunMessage]) -> None:
        """Wake the workers; what the broker does not take now is dispatched by a beat."""
        if not messages:
            return
        try:
            await asyncio.to_thread(self._publisher.publish, messages)
        except BrokerUnavailable as error:
            logger.warning("broker is away, %d runs wait: %s", len(messages), error)
            soon = {"ids": [each.run_id for each in messages], "delay": BROKER_RETRY}
            try:
                await self._unit(lambda session: session.execute(statements.DISPATCH_SOON, soon))
            except SUSPECTS as error:
                if not is_away(error):
                    raise
                # What was asked for is committed: it must not be said to have failed.
                logger.warning("%d runs are woken later: %s", len(messages), error)
