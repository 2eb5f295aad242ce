"""Which runs: the filter that lists, bulk cancellation and bulk replay share."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, bindparam, exists, select
from sqlalchemy.orm import aliased

from app.scheduling.ids import id_at
from app.scheduling.models import RunRow
from app.scheduling.states import FAILED, Origin, RunState


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFilter:
    """None asks for nothing; ``tasks`` are those of a search, and none of them finds no run. ``since`` (included) and ``until`` (excluded) are the nominal time of a scheduled
    run, of others that of their making; both are in the id, so they prune. ``exception`` is the type of the
    error of a run that failed, timed out or was lost: `ValueError`, or `package.module.Name`."""

    schedule_id: UUID | None = None
    states: Sequence[RunState] = ()
    task: str | None = None
    tasks: Sequence[str] | None = None
    origin: Origin | None = None
    reason: str | None = None
    worker_id: UUID | None = None
    requested_by: str | None = None
    queue: str | None = None
    exception: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """For a WHERE clause on `RunRow`."""
        return [*self.walked(), *self.read(RunRow)]

    def walked(self) -> list[ColumnElement[bool]]:
        """Those by which an index leads from one run to the next, in the order of ids."""
        found: list[ColumnElement[bool]] = []
        if self.schedule_id is not None:
            found.append(RunRow.schedule_id == self.schedule_id)
        elif self.exception is not None or (self.states and set(self.states) <= set(FAILED)):
            found.append(_one_of(RunRow, FAILED))
        if self.since is not None:
            found.append(RunRow.id >= id_at(self.since))
        if self.until is not None:
            found.append(RunRow.id < id_at(self.until))
        return found

    def read(self, row: type[RunRow]) -> list[ColumnElement[bool]]:
        """The others: whether ``row`` meets them is seen by reading it."""
        found: list[ColumnElement[bool]] = [
            column == value
            for column, value in (
                (row.task, self.task),
                (row.queue, self.queue),
                (row.origin, self.origin),
                (row.reason, self.reason),
                (row.worker_id, self.worker_id),
                (row.requested_by, self.requested_by),
            )
            if value is not None
        ]
        if self.tasks is not None:
            found.append(row.task.in_(self.tasks))
        if self.states:
            found.append(_one_of(row, self.states))
        if self.exception is not None:
            found += [_one_of(row, FAILED), row.error["type"].astext == self.exception]
        return found

    def page(
        self, *, limit: int, at: UUID | None, look: int, oldest_first: bool = False
    ) -> tuple[Select[Any], Select[Any]]:
        """The runs from ``at`` on, newest first or ``oldest_first``, of at most ``look`` that are read; and the id of
        the last that is.

        So a page has its price, however rare what is asked for may be.
        """
        walked = self.walked()
        if at is not None:
            walked.append(RunRow.id > at if oldest_first else RunRow.id < at)
        order = RunRow.id.asc() if oldest_first else RunRow.id.desc()
        runs = select(RunRow).where(*walked).order_by(order)
        last = select(RunRow.id).where(*walked).order_by(order).offset(look - 1).limit(1)
        if not self.read(RunRow):
            return runs.limit(limit), last
        row = aliased(RunRow, runs.limit(look).subquery())
        ordered = row.id.asc() if oldest_first else row.id.desc()
        return select(row).where(*self.read(row)).order_by(ordered).limit(limit), last

    def ids(self, *, after: UUID | None, limit: int, replayed: bool = True) -> Select[Any]:
        """Ids from the oldest on; without ``replayed`` only of runs that were not replayed yet."""
        query = select(RunRow.id).where(*self.conditions()).order_by(RunRow.id).limit(limit)
        if after is not None:
            query = query.where(RunRow.id > after)
        if not replayed:
            replay = aliased(RunRow)
            query = query.where(~exists().where(replay.replay_of == RunRow.id))
        return query


def _one_of(row: type[RunRow], states: Sequence[RunState]) -> ColumnElement[bool]:
    """In the text of the statement: a generic plan sees whether a partial index serves it."""
    values = [state.value for state in states]
    return row.state.in_(bindparam(None, values, unique=True, expanding=True, literal_execute=True))
