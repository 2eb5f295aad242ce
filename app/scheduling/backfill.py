"""Backfill: runs for ticks of the past, one after another or all at once. For a sync session whose owner commits.

The runs have ids of their own, by the time of their making, so that they lie in today's partitions; their tick is a
column. Each tick is looked up among the runs that exist: what is on its way is never doubled.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Any
from uuid import UUID

from sqlalchemy import insert, select, text
from sqlalchemy.orm import Session

from app.errors import FieldError, InvalidInput
from app.scheduling import schedules, tracing
from app.scheduling.catalogue import Catalogue, TaskSpec
from app.scheduling.config import BackfillRequest
from app.scheduling.ids import new_id, tick_id
from app.scheduling.messages import RunMessage
from app.scheduling.models import RunRow, ScheduleRow
from app.scheduling.plan import Plan
from app.scheduling.states import Origin, RunState

MAX_TICKS = 10_000

# What became of a tick, worst for a backfill first: the runs of one tick are summed up by the first that applies.
ACTIVE, SUCCEEDED, FAILED, NEVER_RAN, EXCLUDED = "active", "succeeded", "failed", "never_ran", "calendar"
_OUTCOMES: dict[str, str] = {
    RunState.QUEUED: ACTIVE,
    RunState.RUNNING: ACTIVE,
    RunState.SUCCEEDED: SUCCEEDED,
    RunState.FAILED: FAILED,
    RunState.TIMED_OUT: FAILED,
    RunState.LOST: FAILED,
}
_RANK = (ACTIVE, SUCCEEDED, FAILED, NEVER_RAN)
_CHOSEN = {
    "none": {NEVER_RAN},
    "failed": {NEVER_RAN, FAILED},
    "completed": {NEVER_RAN, FAILED, SUCCEEDED},
}


_STATES = text("SELECT id, state FROM celery_task_runs WHERE id = ANY(CAST(:ids AS uuid[]))")


@dataclass(frozen=True, slots=True)
class Backfill:
    """What a backfill does, or would do.

    ``ticks`` lie in the period; ``chosen`` of them get a run, ascending; ``left_out`` counts the others by what
    became of them: active, succeeded, failed, calendar.
    """

    ticks: int
    chosen: tuple[datetime, ...]
    left_out: dict[str, int]
    run_ids: tuple[UUID, ...] = ()
    messages: tuple[RunMessage, ...] = ()


def backfill(
    session: Session,
    catalogue: Catalogue,
    schedule_id: UUID,
    request: BackfillRequest,
    *,
    actor: str,
    redispatch_delay: float,
) -> Backfill:
    """Make the runs; the caller publishes ``messages`` after the commit. A dry run changes nothing.

    Raises:
        NotFound: there is no schedule with this id.
        InvalidInput: its task is gone, it has no ticks of its own, or the period reaches into the future or holds
            too many ticks.
    """
    row, _ = schedules.locked(session, schedule_id)
    task = catalogue.schedulable(row.task_path, "task_path")
    schedules.require_fit(catalogue, row)
    plan, now = schedules.plan_of(session, row), schedules.database_time(session)
    _check(plan, request, now)
    ticks = list(islice(plan.ticks(request.start, request.end), MAX_TICKS + 1))
    if len(ticks) > MAX_TICKS:
        problem = f"More than {MAX_TICKS} ticks lie in this period. Backfill it in parts."
        raise InvalidInput(FieldError("end", problem))
    outcomes = _outcomes(session, schedule_id, plan, ticks)
    chosen = [tick for tick in ticks if outcomes[tick] in _CHOSEN[request.reprocess]]
    left_out = Counter(outcomes[tick] for tick in ticks if outcomes[tick] not in _CHOSEN[request.reprocess])
    if request.dry_run or not chosen:
        return Backfill(len(ticks), tuple(chosen), dict(left_out))
    ordered = chosen[::-1] if request.order == "newest_first" else chosen
    at_a_time = len(ordered) if request.overlap == "allow_all" else request.max_concurrent or 1
    made = _rows(row, task, ordered, at_a_time, now=now, redispatch=timedelta(seconds=redispatch_delay))
    for values in made:
        values |= {"requested_by": actor, "request_id": tracing.request_id()}
    session.execute(insert(RunRow), made)
    messages = [
        RunMessage.of(each["id"], task.name, each["queue"], 1, each["options"]) for each in made[:at_a_time]
    ]
    return Backfill(
        len(ticks), tuple(chosen), dict(left_out), tuple(each["id"] for each in made), tuple(messages)
    )


def _check(plan: Plan, request: BackfillRequest, now: datetime) -> None:
    if plan.estimated:
        problem = "A fixed delay has no ticks of its own: they depend on when runs end."
        raise InvalidInput(FieldError("start", problem))
    if request.end > now:
        raise InvalidInput(FieldError("end", "Lies in the future. Backfill up to now at most."))


def _outcomes(
    session: Session, schedule_id: UUID, plan: Plan, ticks: Sequence[datetime]
) -> dict[datetime, str]:
    """What became of each tick."""
    found: dict[datetime, list[str]] = {tick: [NEVER_RAN] for tick in ticks}
    by_id = {tick_id(schedule_id, tick): tick for tick in ticks}
    for run_id, state in session.execute(_STATES, {"ids": list(by_id)}):
        found[by_id[run_id]].append(_OUTCOMES.get(state, NEVER_RAN))
    if ticks:
        earlier = select(RunRow.scheduled_for, RunRow.state).where(
            RunRow.schedule_id == schedule_id,
            RunRow.origin == Origin.BACKFILL,
            RunRow.scheduled_for.between(ticks[0], ticks[-1]),
        )
        for tick, state in session.execute(earlier):
            if tick in found:
                found[tick].append(_OUTCOMES.get(state, NEVER_RAN))
    return {
        tick: EXCLUDED if plan.excluded_by(tick) is not None else min(states, key=_RANK.index)
        for tick, states in found.items()
    }


def _rows(
    row: ScheduleRow,
    task: TaskSpec,
    ticks: Sequence[datetime],
    at_a_time: int,
    *,
    now: datetime,
    redispatch: timedelta,
) -> list[dict[str, Any]]:
    """The values of the runs: as many lines as run at a time, each run waiting for the one before in its line."""
    extra = schedules.extra_of(row)
    allowed = extra.policies().start_deadline
    ids = [new_id() for _ in ticks]
    return [
        {
            "id": ids[number],
            "state": RunState.QUEUED,
            "origin": Origin.BACKFILL,
            "task": task.name,
            "queue": extra.queue or task.queue,
            "schedule_id": row.id,
            "schedule_version": row.version,
            "scheduled_for": tick,
            "due_at": now,
            "start_deadline": None if allowed is None else now + allowed,
            "next_dispatch_at": None if number >= at_a_time else now + redispatch,
            "dispatches": 0 if number >= at_a_time else 1,
            "blocked_by": ids[number - at_a_time] if number >= at_a_time else None,
            "settles": at_a_time < len(ticks),
            "args": row.task_args,
            "kwargs": row.task_kwargs,
            "options": extra.stored(task),
        }
        for number, tick in enumerate(ticks)
    ]
