"""Calendars: named sets of dates on which the schedules that name them skip their ticks.

A calendar has dates of its own and, if wanted, the public holidays of a country. Schedules refer to it by name, so
a name never changes. An edit counts from the next tick that is decided: beats ask for the version of each calendar
that they need with every firing, and read again those that have changed.
"""

import difflib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import delete, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session

from app.db.companions import unit
from app.errors import Conflict, FieldError, InvalidInput, NotFound
from app.scheduling import versions
from app.scheduling.ids import new_id
from app.scheduling.models import NOW, CalendarRow, ScheduleRow
from app.scheduling.public_holidays import check, holidays_of

MAX_DATES = 5000
NAME = r"^\w([\w.\- ]{0,98}\w)?$"
_USES = text("task_extra_config ? 'calendars' AND task_extra_config -> 'calendars' ? :name")
_CLOSED = ConfigDict(extra="forbid", frozen=True)


class HolidaySource(BaseModel):
    """Whose public holidays are excluded."""

    model_config = _CLOSED

    country: str = Field(max_length=10, description="ISO 3166-1 code of two letters.", examples=["DE"])
    subdivision: str | None = Field(None, max_length=10, description="ISO 3166-2 code within the country.")


class CalendarUpdate(BaseModel):
    """A change of a calendar: only what is given changes; `holidays: null` takes them out."""

    model_config = _CLOSED

    description: str | None = Field(None, max_length=2000)
    dates: list[date] = Field(default_factory=list, max_length=MAX_DATES, description="All of its own dates.")
    holidays: HolidaySource | None = None


class CalendarCreate(CalendarUpdate):
    """A new calendar."""

    name: str = Field(
        pattern=NAME, description="Letters, digits, `_`, `.`, `-` and inner spaces; it never changes."
    )


@dataclass(frozen=True, slots=True)
class NamedCalendar:
    """A calendar as schedules ask it; a `Calendar` of `app.scheduling.plan`. Equal when id and version are."""

    id: UUID
    version: int
    name: str = field(compare=False)
    dates: frozenset[date] = field(compare=False, repr=False)
    country: str | None = field(compare=False)
    subdivision: str | None = field(compare=False)

    @classmethod
    def of(cls, row: CalendarRow) -> "NamedCalendar":
        """The evaluator of a stored calendar."""
        return cls(row.id, row.version, row.name, frozenset(row.dates), row.country, row.subdivision)

    def excludes(self, day: date) -> bool:
        """Whether ticks of this local date are skipped."""
        return day in self.dates or (self.country is not None and day in self._holidays(day.year))

    def in_year(self, year: int) -> dict[date, str | None]:
        """The excluded dates of a year, ascending, with the names of holidays."""
        own = dict.fromkeys((day for day in self.dates if day.year == year), None)
        return dict(sorted((own | dict(self._holidays(year))).items()))

    def _holidays(self, year: int) -> Mapping[date, str]:
        return {} if self.country is None else holidays_of(self.country, self.subdivision, year)


class CalendarLoader:
    """Evaluators by name, kept for the life of a process and read again when their version has changed."""

    def __init__(self) -> None:
        self._known: dict[str, NamedCalendar] = {}

    def load(self, session: Session, names: Collection[str]) -> dict[str, NamedCalendar]:
        """The current calendars of these names, without those that do not exist: one small query, or none."""
        if not names:
            return {}
        current = session.execute(
            select(CalendarRow.name, CalendarRow.id, CalendarRow.version).where(CalendarRow.name.in_(names))
        ).all()
        stale = [row.name for row in current if not self._has(row.name, row.id, row.version)]
        if stale:
            rows = session.scalars(select(CalendarRow).where(CalendarRow.name.in_(stale)))
            self._known |= {row.name: NamedCalendar.of(row) for row in rows}
        return {row.name: self._known[row.name] for row in current if row.name in self._known}

    def _has(self, name: str, identifier: UUID, version: int) -> bool:
        known = self._known.get(name)
        return known is not None and (known.id, known.version) == (identifier, version)


def chosen(names: Iterable[str], known: Mapping[str, NamedCalendar]) -> tuple[NamedCalendar, ...]:
    """The calendars of one schedule, in its order, out of those that were loaded.

    Raises:
        InvalidInput: one of them does not exist (any more).
    """
    found = {name: known.get(name) for name in names}
    if missing := [name for name, calendar in found.items() if calendar is None]:
        raise InvalidInput(
            FieldError("task_extra_config.calendars", f"There is no calendar called {missing[0]}.")
        )
    return tuple(calendar for calendar in found.values() if calendar is not None)


def named(session: Session, names: Collection[str]) -> tuple[NamedCalendar, ...]:
    """The calendars of a stored schedule.

    Raises:
        InvalidInput: one of them does not exist any more.
    """
    return chosen(names, CalendarLoader().load(session, names)) if names else ()


def require(session: Session, names: Collection[str]) -> tuple[NamedCalendar, ...]:
    """The calendars that a schedule is about to name, kept from being deleted until the transaction ends.

    Raises:
        InvalidInput: one of them does not exist; near names are suggested.
    """
    if not names:
        return ()
    rows = session.scalars(
        select(CalendarRow)
        .where(CalendarRow.name.in_(names))
        .order_by(CalendarRow.id)
        .with_for_update(read=True, key_share=True)
    )
    known = {row.name: NamedCalendar.of(row) for row in rows}
    errors = [
        FieldError(f"task_extra_config.calendars.{position}", _unknown(session, name))
        for position, name in enumerate(names)
        if name not in known
    ]
    if errors:
        raise InvalidInput(errors)
    return chosen(names, known)


def create(session: Session, body: CalendarCreate) -> CalendarRow:
    """Store a calendar.

    Raises:
        InvalidInput: its country or subdivision is not known.
        Conflict: there is one of this name.
    """
    made = session.scalars(
        insert(CalendarRow)
        .values(
            id=new_id(), name=body.name, description=body.description, dates=_dates(body), **_source(body)
        )
        .on_conflict_do_nothing(index_elements=[CalendarRow.name])
        .returning(CalendarRow)
    ).one_or_none()
    if made is None:
        raise Conflict("There is a calendar of this name. Change it, or choose another name.")
    return made


def update(
    session: Session, name: str, body: CalendarUpdate, *, expected: Collection[int] | None = None
) -> CalendarRow:
    """Change what ``body`` gives and nothing else; ``expected`` are the versions that its author has seen.

    Raises:
        NotFound: there is none of this name.
        PreconditionFailed: it is at another version.
        InvalidInput: its country or subdivision is not known.
    """
    row = _locked(session, name)
    versions.require(row.version, expected, "calendar")
    if "description" in body.model_fields_set:
        row.description = body.description
    if "dates" in body.model_fields_set:
        row.dates = _dates(body)
    if "holidays" in body.model_fields_set:
        for key, value in _source(body).items():
            setattr(row, key, value)
    row.version += 1
    row.updated_at = session.execute(select(NOW)).scalar_one()
    session.flush()
    return row


def remove(session: Session, name: str, *, expected: Collection[int] | None = None) -> None:
    """Delete a calendar.

    Raises:
        NotFound: there is none of this name.
        PreconditionFailed: it is at another version than the ``expected`` ones.
        Conflict: a schedule names it.
    """
    row = _locked(session, name)
    versions.require(row.version, expected, "calendar")
    users = list(session.scalars(select(ScheduleRow.task_name).where(_USES).limit(4), {"name": name}))
    if users:
        more = " and others" if len(users) > 3 else ""
        raise Conflict(
            f"Schedules name this calendar: {', '.join(users[:3])}{more}. Take it out of them first."
        )
    session.execute(delete(CalendarRow).where(CalendarRow.id == row.id))


def read(session: Session, name: str) -> CalendarRow:
    """One calendar.

    Raises:
        NotFound: there is none of this name.
    """
    row = session.scalar(select(CalendarRow).where(CalendarRow.name == name))
    if row is None:
        raise _no_calendar()
    return row


class Calendars:
    """Calendars, as methods; each is one unit of work that commits before it returns."""

    def __init__(self, sessions: async_sessionmaker[AsyncSession]) -> None:
        self._sessions = sessions

    async def create(self, body: CalendarCreate) -> CalendarRow:
        """Store a calendar; see `create` of this module for what it raises, here and below."""
        return await unit(self._sessions, lambda session: create(session, body))

    async def list(
        self, *, limit: int, after: str | None = None, search: str | None = None
    ) -> tuple[list[CalendarRow], str | None]:
        """Calendars by name, and the name to go on from, None on the last page; ``search`` is part of a name."""
        query = select(CalendarRow).order_by(CalendarRow.name).limit(limit + 1)
        if after is not None:
            query = query.where(CalendarRow.name > after)
        if search is not None:
            query = query.where(CalendarRow.name.icontains(search, autoescape=True))
        found = await unit(self._sessions, lambda session: list(session.scalars(query)))
        return found[:limit], found[limit - 1].name if len(found) > limit else None

    async def get(self, name: str) -> CalendarRow:
        """One calendar."""
        return await unit(self._sessions, lambda session: read(session, name))

    async def update(
        self, name: str, body: CalendarUpdate, *, expected: Collection[int] | None = None
    ) -> CalendarRow:
        """Change what ``body`` gives; it counts from the next tick that is decided."""
        return await unit(self._sessions, lambda session: update(session, name, body, expected=expected))

    async def delete(self, name: str, *, expected: Collection[int] | None = None) -> None:
        """Delete a calendar that no schedule names."""
        await unit(self._sessions, lambda session: remove(session, name, expected=expected))

    async def excluded_dates(self, name: str, year: int) -> dict[date, str | None]:
        """The dates of a year on which ticks are skipped, ascending, with the names of holidays."""
        return NamedCalendar.of(await self.get(name)).in_year(year)


def _locked(session: Session, name: str) -> CalendarRow:
    row = session.scalar(select(CalendarRow).where(CalendarRow.name == name).with_for_update())
    if row is None:
        raise _no_calendar()
    return row


def _dates(body: CalendarUpdate) -> list[date]:
    return sorted(set(body.dates))


def _source(body: CalendarUpdate) -> dict[str, str | None]:
    if body.holidays is None:
        return {"country": None, "subdivision": None}
    check(body.holidays.country, body.holidays.subdivision, "holidays")
    return {"country": body.holidays.country, "subdivision": body.holidays.subdivision}


def _unknown(session: Session, name: str) -> str:
    names = list(session.scalars(select(CalendarRow.name).limit(1000)))
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(near)}?" if near else "GET /api/v1/calendars lists them."
    return f"There is no calendar of this name. {hint}"


def _no_calendar() -> NotFound:
    return NotFound("There is no calendar of this name. GET /api/v1/calendars lists them.")
