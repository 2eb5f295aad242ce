"""Scheduler, the embedded facade: what handlers, the command line and business code call.

Every method is one unit of work: it commits before it returns, and publishes only after the commit.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar
from uuid import UUID

from sqlalchemy import Select, delete, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session

from app.db.migrate import current, head
from app.errors import Conflict, FieldError, InvalidInput, NotFound
from app.scheduling import runs, statements, timing
from app.scheduling.catalogue import Catalogue
from app.scheduling.config import CRONTAB_FIELDS, ExtraConfig, RunRequest, ScheduleCreate, ScheduleUpdate
from app.scheduling.ids import new_id
from app.scheduling.messages import BrokerUnavailable, Publisher, RunMessage
from app.scheduling.models import NOW, BeatRow, ClockRow, RunRow, ScheduleRow, ScheduleVersionRow
from app.settings import Settings

logger = logging.getLogger(__name__)
T = TypeVar("T")
CHANGED_CHANNEL = "upbeat_schedules"


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page; ``next`` is the id to go on from, None on the last page."""

    items: list[T]
    next: UUID | None


@dataclass(frozen=True, slots=True)
class ScheduleView:
    """A schedule and its next nominal instant."""

    row: ScheduleRow
    next_run_at: datetime | None


@dataclass(frozen=True, slots=True)
class Readiness:
    """What must hold for work to flow; the age is in seconds, None before any beat ran."""

    database: bool
    revision_is_head: bool
    last_beat_pass_age: float | None


class Scheduler:
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

    async def create_schedule(self, body: ScheduleCreate, *, actor: str) -> ScheduleView:
        """Store a schedule and set its clock.

        Raises:
            InvalidInput: the task, its timing or a policy is not valid; the error names the field.
        """

        def work(session: Session) -> ScheduleView:
            task = self._catalogue.schedulable(body.task_path, "task_path")
            stated = body.timing()
            if stated is None:
                raise InvalidInput(
                    FieldError("schedule", "Say when it runs: a schedule object, or task_crontab_minute and the like.")
                )
            now = _now(session)
            parsed = _parse(stated, flat=body.schedule is None)
            _refuse_past(parsed, now)
            row = ScheduleRow(
                id=new_id(),
                version=1,
                task_name=body.task_name,
                task_path=body.task_path,
                task=task.name,
                task_type=body.task_type,
                state="active" if body.task_enabled else "disabled",
                schedule=parsed.as_dict(),
                task_args=body.task_args,
                task_kwargs=body.task_kwargs,
                task_extra_config=_dump(body.task_extra_config),
                description=body.description,
                created_at=now,
                updated_at=now,
            )
            clock = ClockRow(schedule_id=row.id, next_run_at=_next(parsed, now) if body.task_enabled else None)
            session.add(row)
            session.flush()
            session.add(clock)
            _keep_version(session, row, "create", actor)
            _notify(session)
            return ScheduleView(row, clock.next_run_at)

        return await self._unit(work)

    async def list_schedules(
        self, *, limit: int, after: UUID | None = None, search: str | None = None, state: str | None = None
    ) -> Page[ScheduleView]:
        """Schedules by age, oldest first; ``search`` is part of a name or a task."""
        query = (
            select(ScheduleRow, ClockRow.next_run_at)
            .join(ClockRow, ClockRow.schedule_id == ScheduleRow.id)
            .order_by(ScheduleRow.id)
        )
        if after is not None:
            query = query.where(ScheduleRow.id > after)
        if search:
            query = query.where(
                ScheduleRow.task_name.icontains(search, autoescape=True)
                | ScheduleRow.task.icontains(search, autoescape=True)
            )
        if state:
            query = query.where(ScheduleRow.state == state)
        async with self._sessions() as session:
            found = [ScheduleView(row, next_run_at) for row, next_run_at in await session.execute(query.limit(limit + 1))]
        return Page(found[:limit], found[limit - 1].row.id if len(found) > limit else None)

    async def get_schedule(self, schedule_id: UUID) -> ScheduleView:
        """One schedule.

        Raises:
            NotFound: there is none with this id.
        """
        async with self._sessions() as session:
            return await session.run_sync(_view, schedule_id)

    async def update_schedule(self, schedule_id: UUID, body: ScheduleUpdate, *, actor: str) -> ScheduleView:
        """Change what ``body`` gives; only a change of timing or state moves the next tick."""

        def work(session: Session) -> ScheduleView:
            row, clock = _locked(session, schedule_id)
            now = _now(session)
            given = body.model_fields_set
            if "task_path" in given and body.task_path is not None:
                row.task = self._catalogue.schedulable(body.task_path, "task_path").name
            for name in ("task_name", "task_path", "task_type", "task_args", "task_kwargs"):
                value = getattr(body, name)
                if name in given and value is not None:
                    setattr(row, name, value)
            if "description" in given:
                row.description = body.description
            if "task_extra_config" in given and body.task_extra_config is not None:
                row.task_extra_config = _dump(body.task_extra_config)
            stated = body.timing()
            if stated is not None:
                parsed = _parse(stated, flat=body.schedule is None)
                _refuse_past(parsed, now)
                row.schedule = parsed.as_dict()
            mends = row.state in ("invalid", "completed") and (stated is not None or "task_path" in given)
            if body.task_enabled is not None:
                row.state = "active" if body.task_enabled else "disabled"
            elif mends:
                row.state = "active"
            if row.state == "active":
                row.state_reason = None
            if stated is not None or body.task_enabled is not None or mends:
                clock.next_run_at = self._first_tick(row, clock, now, moved=stated is not None)
            row.version += 1
            row.updated_at = now
            _keep_version(session, row, "update", actor)
            _notify(session)
            return ScheduleView(row, clock.next_run_at)

        return await self._unit(work)

    async def set_enabled(self, schedule_id: UUID, enabled: bool, *, actor: str) -> ScheduleView:
        """Enable or disable; enabling an enabled schedule changes nothing."""
        view = await self.get_schedule(schedule_id)
        if (view.row.state == "active") == enabled and view.row.state in ("active", "disabled"):
            return view
        return await self.update_schedule(schedule_id, ScheduleUpdate(task_enabled=enabled), actor=actor)

    async def delete_schedule(self, schedule_id: UUID, *, actor: str) -> None:
        """Delete a schedule; its runs and its history stay."""

        def work(session: Session) -> None:
            row, _ = _locked(session, schedule_id)
            row.version += 1
            _keep_version(session, row, "delete", actor)
            session.flush()
            session.execute(delete(ScheduleRow).where(ScheduleRow.id == schedule_id))

        await self._unit(work)

    async def run_now(self, schedule_id: UUID, *, actor: str) -> RunRow:
        """One run of a schedule now, with its arguments, queue and limits."""

        def work(session: Session) -> tuple[RunRow, RunMessage | None]:
            row, _ = _locked(session, schedule_id)
            task = self._catalogue.schedulable(row.task_path, "task_path")
            run_id = new_id()
            message = runs.submit(
                session,
                task=task,
                args=row.task_args,
                kwargs=row.task_kwargs,
                options=ExtraConfig.model_validate(row.task_extra_config),
                origin=runs.Origin.MANUAL,
                redispatch_delay=self._settings.beat.redispatch_delay,
                requested_by=actor,
                run_id=run_id,
                schedule=(row.id, row.version),
            )
            return _stored(session, run_id), message

        return await self._publishing(work)

    async def submit(self, task: str, body: RunRequest, *, actor: str) -> RunRow:
        """One run of a task on demand."""
        spec = self._catalogue.named(task)

        def work(session: Session) -> tuple[RunRow, RunMessage | None]:
            run_id = new_id()
            message = runs.submit(
                session,
                task=spec,
                args=body.args,
                kwargs=body.kwargs,
                options=body.options,
                origin=runs.Origin.SUBMIT,
                redispatch_delay=self._settings.beat.redispatch_delay,
                due_in=body.countdown or 0.0,
                requested_by=actor,
                run_id=run_id,
            )
            if 0 < (body.countdown or 0.0) < self._settings.beat.max_sleep:
                _notify(session)
            return _stored(session, run_id), message

        return await self._publishing(work)

    async def get_run(self, run_id: UUID) -> RunRow:
        """One run.

        Raises:
            NotFound: there is none with this id.
        """
        async with self._sessions() as session:
            row = await session.run_sync(runs.read, run_id)
        if row is None:
            raise NotFound("There is no run with this id. GET /api/v1/runs lists them.")
        return row

    async def list_runs(
        self,
        *,
        limit: int,
        before: UUID | None = None,
        schedule_id: UUID | None = None,
        state: str | None = None,
        task: str | None = None,
        queue: str | None = None,
    ) -> Page[RunRow]:
        """Runs, newest first."""
        query: Select[tuple[RunRow]] = select(RunRow).order_by(RunRow.id.desc())
        for column, value in (
            (RunRow.schedule_id, schedule_id),
            (RunRow.state, state),
            (RunRow.task, task),
            (RunRow.queue, queue),
        ):
            if value is not None:
                query = query.where(column == value)
        if before is not None:
            query = query.where(RunRow.id < before)
        async with self._sessions() as session:
            found = list(await session.scalars(query.limit(limit + 1)))
        return Page(found[:limit], found[limit - 1].id if len(found) > limit else None)

    async def readiness(self) -> Readiness:
        """Ask the database how things stand; raises as the driver does when it is away."""

        def work(session: Session) -> Readiness:
            age = session.scalar(select(NOW - func.max(BeatRow.last_pass_at)))
            return Readiness(
                database=True,
                revision_is_head=current(session.connection()) == head(),
                last_beat_pass_age=age.total_seconds() if isinstance(age, timedelta) else None,
            )

        async with self._sessions() as session:
            return await session.run_sync(work)

    def _first_tick(self, row: ScheduleRow, clock: ClockRow, now: datetime, *, moved: bool) -> datetime | None:
        if row.state != "active":
            return None
        if clock.next_run_at is not None and not moved:
            return clock.next_run_at
        upcoming = _next(timing.parse(row.schedule), now)
        if upcoming is None:
            raise Conflict("No tick is left in this schedule. Give it a new schedule in the same change.")
        return upcoming

    async def _unit(self, work: Callable[[Session], T]) -> T:
        async with self._sessions() as session, session.begin():
            return await session.run_sync(work)

    async def _publishing(self, work: Callable[[Session], tuple[RunRow, RunMessage | None]]) -> RunRow:
        row, message = await self._unit(work)
        if message is not None:
            try:
                await asyncio.to_thread(self._publisher.publish, [message])
            except BrokerUnavailable as error:
                logger.warning("broker is away, run %s waits: %s", row.id, error, extra={"action": "publish_failed"})
                await self._unit(
                    lambda session: session.execute(statements.DISPATCH_SOON, {"ids": [row.id], "delay": 1.0})
                )
        return row


def _parse(stated: dict[str, Any], *, flat: bool) -> timing.Timing:
    try:
        return timing.parse(stated)
    except timing.TimingError as error:
        if not flat:
            raise InvalidInput(FieldError(f"schedule.{error.field}", error.problem)) from None
        field = "task_crontab_timezone" if error.field == "timezone" else _wrong_part(stated["expression"])
        raise InvalidInput(FieldError(field, error.problem)) from None


def _wrong_part(expression: str) -> str:
    """Which flat field of an expression is wrong: the one that is so also among stars."""
    for position, part in enumerate(("minute", "hour", "day_of_month", "month_of_year", "day_of_week")):
        alone = ["*"] * 5
        alone[position] = expression.split()[position]
        try:
            timing.parse({"type": "crontab", "expression": " ".join(alone), "day_match": "and"})
        except timing.TimingError:
            return f"task_crontab_{part}"
    return f"task_crontab_{CRONTAB_FIELDS[2]}"


def _refuse_past(parsed: timing.Timing, now: datetime) -> None:
    try:
        timing.refuse_past(parsed, now)
    except timing.TimingError as error:
        raise InvalidInput(FieldError(f"schedule.{error.field}", error.problem)) from None


def _next(parsed: timing.Timing, now: datetime) -> datetime | None:
    if isinstance(parsed, timing.OneOff):
        return parsed.at
    return parsed.next_after(now)


def _dump(extra: ExtraConfig) -> dict[str, Any]:
    return extra.model_dump(mode="json", exclude_unset=True)


def _now(session: Session) -> datetime:
    return session.execute(select(NOW)).scalar_one()  # type: ignore[no-any-return]


def _view(session: Session, schedule_id: UUID) -> ScheduleView:
    found = session.execute(
        select(ScheduleRow, ClockRow.next_run_at)
        .join(ClockRow, ClockRow.schedule_id == ScheduleRow.id)
        .where(ScheduleRow.id == schedule_id)
    ).one_or_none()
    if found is None:
        raise _no_schedule()
    return ScheduleView(found[0], found[1])


def _locked(session: Session, schedule_id: UUID) -> tuple[ScheduleRow, ClockRow]:
    clock = session.scalar(
        select(ClockRow).where(ClockRow.schedule_id == schedule_id).with_for_update(key_share=True)
    )
    row = session.get(ScheduleRow, schedule_id) if clock is not None else None
    if clock is None or row is None:
        raise _no_schedule()
    return row, clock


def _no_schedule() -> NotFound:
    return NotFound("There is no schedule with this id. GET /api/v1/scheduled-tasks lists them.")


def _stored(session: Session, run_id: UUID) -> RunRow:
    row = runs.read(session, run_id)
    assert row is not None
    return row


def _keep_version(session: Session, row: ScheduleRow, action: str, author: str) -> None:
    names = (
        "task_name", "task_path", "task", "task_type", "state", "schedule", "task_args", "task_kwargs",
        "task_extra_config", "description",
    )
    session.add(
        ScheduleVersionRow(
            schedule_id=row.id,
            version=row.version,
            action=action,
            config={name: getattr(row, name) for name in names},
            author=author,
        )
    )


def _notify(session: Session) -> None:
    session.execute(text(f"NOTIFY {CHANGED_CHANNEL}"))
