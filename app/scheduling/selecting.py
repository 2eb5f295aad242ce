"""Which runs: the filter that lists, bulk cancellation and bulk replay share."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, and_, exists, select
from sqlalchemy.orm import aliased

from app.scheduling.ids import id_at
from app.scheduling.models import RunRow
from app.scheduling.states import Origin, RunState

FAILED = (RunState.FAILED, RunState.TIMED_OUT, RunState.LOST)


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
        found: list[ColumnElement[bool]] = []
        for column, value in (
            (RunRow.schedule_id, self.schedule_id),
            (RunRow.task, self.task),
            (RunRow.queue, self.queue),
            (RunRow.origin, self.origin),
            (RunRow.reason, self.reason),
            (RunRow.worker_id, self.worker_id),
            (RunRow.requested_by, self.requested_by),
        ):
            if value is not None:
                found.append(column == value)
        if self.tasks is not None:
            found.append(RunRow.task.in_(self.tasks))
        if self.states:
            found.append(RunRow.state.in_([state.value for state in self.states]))
        if self.exception is not None:
            # Spelt as the partial index has it.
            found.append(
                and_(
                    RunRow.state.in_([state.value for state in FAILED]),
                    RunRow.error["type"].astext == self.exception,
                )
            )
        if self.since is not None:
            found.append(RunRow.id >= id_at(self.since))
        if self.until is not None:
            found.append(RunRow.id < id_at(self.until))
        return found

    def ids(self, *, after: UUID | None, limit: int, replayed: bool = True) -> Select[Any]:
        """Ids from the oldest on; without ``replayed`` only of runs that were not replayed yet."""
        query = select(RunRow.id).where(*self.conditions()).order_by(RunRow.id).limit(limit)
        if after is not None:
            query = query.where(RunRow.id > after)
        if not replayed:
            replay = aliased(RunRow)
            query = query.where(~exists().where(replay.replay_of == RunRow.id))
        return query
