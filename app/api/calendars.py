"""Calendars: named sets of dates on which schedules skip their ticks."""

from datetime import date, datetime
from typing import Annotated, Self
from urllib.parse import quote
from uuid import UUID

from fastapi import Body, Path, Query, Response, status
from pydantic import BaseModel, ConfigDict, Field

from app.api.concurrency import IfMatch, etag, etag_header
from app.api.dependencies import SchedulerOf
from app.api.examples import CALENDAR_EXAMPLE, CALENDAR_EXAMPLES, CALENDAR_UPDATE_EXAMPLES
from app.api.guards import OPERATE, READ, guarded
from app.api.idempotency import Answer, answer, repeatable
from app.api.pagination import FilterText, NextCursor, PageQuery, decode, encode
from app.api.problems import EDITS_ONE, READS, READS_ONE, REMOVES_ONE, WRITES
from app.api.routing import resource_router
from app.scheduling.calendars import CalendarCreate, CalendarUpdate, HolidaySource
from app.scheduling.models import CalendarRow

router = resource_router("/calendars", "Calendars")

CalendarName = Annotated[FilterText, Path(description="The calendar's name.")]


class Calendar(BaseModel):
    """A calendar as it is stored."""

    model_config = ConfigDict(json_schema_extra={"examples": [CALENDAR_EXAMPLE]})

    id: UUID
    name: str = Field(description="By which `task_extra_config.calendars` refers to it.")
    version: int = Field(description="Grows with each change.")
    description: str | None
    dates: list[date] = Field(description="Its own dates, ascending.")
    holidays: HolidaySource | None = Field(description="Whose public holidays are excluded too.")
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, row: CalendarRow) -> Self:
        """The wire form of a calendar."""
        source = None
        if row.country is not None:
            source = HolidaySource(country=row.country, subdivision=row.subdivision)
        stored = {name: getattr(row, name) for name in cls.model_fields if name != "holidays"}
        return cls(**stored, holidays=source)


class CalendarPage(BaseModel):
    """Calendars, by name."""

    items: list[Calendar]
    next_cursor: NextCursor


class ExcludedDate(BaseModel):
    """One date on which ticks are skipped."""

    date: date
    holiday: str | None = Field(
        description="Name of the public holiday; null for a date of the calendar's own."
    )


class ExcludedDates(BaseModel):
    """The excluded dates of one year, ascending."""

    year: int
    items: list[ExcludedDate]


class YearQuery(BaseModel):
    """Which year."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    year: int = Field(
        ge=1970,
        le=2100,
        description="The year to look at; public holidays are known up to 2100.",
        examples=[2027],
    )


class CalendarQuery(PageQuery):
    """Which calendars."""

    search: FilterText | None = Field(None, description="Part of the name.")


def calendar_made(row: CalendarRow) -> Answer:
    """The answer to a creation."""
    headers = {"Location": _location(row), "ETag": etag(row.version)}
    return answer(status.HTTP_201_CREATED, Calendar.of(row), headers)


def _location(row: CalendarRow) -> str:
    return f"/api/v1/calendars/{quote(row.name)}"


def _tagged(response: Response, row: CalendarRow) -> Calendar:
    response.headers["ETag"] = etag(row.version)
    return Calendar.of(row)


@router.get("", responses=READS, summary="List calendars")
@guarded(READ)
async def list_calendars(query: Annotated[CalendarQuery, Query()], scheduler: SchedulerOf) -> CalendarPage:
    """Calendars by name."""
    found, more = await scheduler.calendars.list(
        limit=query.limit, after=decode(query.cursor), search=query.search
    )
    return CalendarPage(items=[Calendar.of(row) for row in found], next_cursor=encode(more))


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    responses=WRITES | etag_header(201),
    dependencies=[repeatable(calendar_made)],
    summary="Create a calendar",
)
@guarded(OPERATE)
async def create_calendar(
    body: Annotated[CalendarCreate, Body(openapi_examples=CALENDAR_EXAMPLES)],
    response: Response,
    scheduler: SchedulerOf,
) -> Calendar:
    """Give dates, or a country whose public holidays are excluded, or both."""
    row = await scheduler.calendars.create(body)
    response.headers["Location"] = _location(row)
    return _tagged(response, row)


@router.get("/{name}", responses=READS_ONE | etag_header(200), summary="Read a calendar")
@guarded(READ)
async def get_calendar(name: CalendarName, response: Response, scheduler: SchedulerOf) -> Calendar:
    """One calendar, by its name."""
    return _tagged(response, await scheduler.calendars.get(name))


@router.patch("/{name}", responses=EDITS_ONE | etag_header(200), summary="Change a calendar")
@guarded(OPERATE)
async def update_calendar(
    name: CalendarName,
    body: Annotated[CalendarUpdate, Body(openapi_examples=CALENDAR_UPDATE_EXAMPLES)],
    expected: IfMatch,
    response: Response,
    scheduler: SchedulerOf,
) -> Calendar:
    """Only the fields that are given change. It counts for every tick that is decided from now on."""
    return _tagged(response, await scheduler.calendars.update(name, body, expected=expected))


@router.delete(
    "/{name}", status_code=status.HTTP_204_NO_CONTENT, responses=REMOVES_ONE, summary="Delete a calendar"
)
@guarded(OPERATE)
async def delete_calendar(name: CalendarName, expected: IfMatch, scheduler: SchedulerOf) -> None:
    """A calendar that a schedule names stays: take it out of the schedule first."""
    await scheduler.calendars.delete(name, expected=expected)


@router.get("/{name}/dates", responses=READS_ONE, summary="Preview the excluded dates of a year")
@guarded(READ)
async def list_calendar_dates(
    name: CalendarName, query: Annotated[YearQuery, Query()], scheduler: SchedulerOf
) -> ExcludedDates:
    """All dates of the year on which ticks are skipped, public holidays with their names."""
    found = await scheduler.calendars.excluded_dates(name, query.year)
    items = [ExcludedDate(date=day, holiday=holiday) for day, holiday in found.items()]
    return ExcludedDates(year=query.year, items=items)
