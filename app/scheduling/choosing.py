"""Which schedules, and in what order: what lists, bulk actions and exports share."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, select, tuple_
from sqlalchemy.orm import InstrumentedAttribute

from app.scheduling.models import ClockRow, ScheduleRow

PEOPLE = "people"
Sortable = ColumnElement[Any] | InstrumentedAttribute[Any]


class Order(StrEnum):
    """In what order schedules are listed; `next_run` leaves those out that have no next tick."""

    CREATED = "created"
    CREATED_LAST = "-created"
    NAME = "name"
    NAME_LAST = "-name"
    UPDATED = "updated"
    UPDATED_LAST = "-updated"
    NEXT_RUN = "next_run"

    @property
    def column(self) -> Sortable | None:
        """What is sorted by before the id."""
        columns: dict[str, Sortable] = {
            "name": ScheduleRow.task_name,
            "updated": ScheduleRow.updated_at,
            "next_run": ClockRow.next_run_at,
        }
        return columns.get(self.lstrip("-"))

    @property
    def descending(self) -> bool:
        """The greatest first."""
        return self.startswith("-")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page ended: the id of its last schedule, and what it was sorted by."""

    id: UUID
    value: str | datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleFilter:
    """None, and nothing in ``ids``, ask for nothing. ``search`` is part of a name or a task, ``owner`` `people` for
    nobody's, ``task`` the registered name, ``queue`` the one that the schedule itself names."""

    ids: Sequence[UUID] = ()
    search: str | None = None
    state: str | None = None
    owner: str | None = None
    task: str | None = None
    task_type: str | None = None
    queue: str | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """For a WHERE clause on `ScheduleRow`."""
        found: list[ColumnElement[bool]] = []
        if self.ids:
            found.append(ScheduleRow.id.in_(self.ids))
        if self.search:
            found.append(
                ScheduleRow.task_name.icontains(self.search, autoescape=True)
                | ScheduleRow.task.icontains(self.search, autoescape=True)
            )
        for column, value in (
            (ScheduleRow.state, self.state),
            (ScheduleRow.task, self.task),
            (ScheduleRow.task_type, self.task_type),
            (ScheduleRow.task_extra_config["queue"].astext, self.queue),
        ):
            if value is not None:
                found.append(column == value)
        if self.owner:
            found.append(
                ScheduleRow.owner.is_(None) if self.owner == PEOPLE else ScheduleRow.owner == self.owner
            )
        return found


EVERY_SCHEDULE = ScheduleFilter()


def listed(
    which: ScheduleFilter, order: Order, after: Place | None, limit: int
) -> Select[ScheduleRow, datetime | None]:
    """Schedules with their next ticks, from a place on."""
    column, down = order.column, order.descending
    query = (
        select(ScheduleRow, ClockRow.next_run_at)
        .join(ClockRow, ClockRow.schedule_id == ScheduleRow.id)
        .where(*which.conditions())
        .limit(limit)
    )
    if order is Order.NEXT_RUN:
        query = query.where(ClockRow.next_run_at.is_not(None))
    if after is not None:
        query = query.where(_beyond(column, after, down=down))
    keys = [ScheduleRow.id] if column is None else [column, ScheduleRow.id]
    return query.order_by(*((key.desc() if down else key.asc()) for key in keys))


def place_of(order: Order, row: ScheduleRow, next_run_at: datetime | None) -> Place:
    """The place of a schedule in an order."""
    values: dict[str, str | datetime | None] = {
        "name": row.task_name,
        "updated": row.updated_at,
        "next_run": next_run_at,
    }
    return Place(row.id, values.get(order.lstrip("-")))


def _beyond(column: Sortable | None, after: Place, *, down: bool) -> ColumnElement[bool]:
    if column is None:
        return ScheduleRow.id < after.id if down else ScheduleRow.id > after.id
    if down:
        return tuple_(column, ScheduleRow.id) < tuple_(after.value, after.id)
    return tuple_(column, ScheduleRow.id) > tuple_(after.value, after.id)
