"""Backfill: runs for ticks of the past, one after another or all at once. For a sync session whose owner commits.

The runs have ids of their own, by the time of their making, so that they lie in today's partitions; their tick is a
column. Each tick is looked up among the runs that exist: what is on its way is never doubled.

Up to `MAX_TICKS` ticks lie in a period. Listing them takes a processor for seconds, so whoever has a loop to keep going
does it elsewhere: `asked_about`, then `lay_out` (pure), then `backfill` with what that found.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Any
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from app.db import documents
from app.db.arrays import instant_array, uuid_array
from app.errors import FieldError, InvalidInput
from app.scheduling import schedules, tracing, understanding
from app.scheduling.calculating import interruptible
from app.scheduling.catalogue import Catalogue, TaskSpec
from app.scheduling.config import BackfillRequest
from app.scheduling.foreseeing import foreseen
from app.scheduling.ids import new_id, tick_id
from app.scheduling.messages import RunMessage
from app.scheduling.models import ClockRow, RunRow, ScheduleRow
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


# All of them differ in their tick, and in whose end they wait for.
_INSERT = text("""
INSERT INTO celery_task_runs
    (id, state, origin, task, queue, schedule_id, schedule_version, scheduled_for, due_at, start_deadline,
     next_dispatch_at, dispatches, blocked_by, settles, args, kwargs, options, requested_by,
     request_id)
SELECT u.id, 'queued', 'backfill', CAST(:task AS text), CAST(:queue AS text), CAST(:schedule_id AS uuid),
       CAST(:version AS int), u.tick, CAST(:now AS timestamptz), CAST(:start_deadline AS timestamptz),
       CASE WHEN u.blocked_by IS NULL THEN CAST(:again AS timestamptz) END,
       CASE WHEN u.blocked_by IS NULL THEN 1 ELSE 0 END, u.blocked_by, CAST(:settles AS boolean),
       CAST(:args AS jsonb), CAST(:kwargs AS jsonb), CAST(:options AS jsonb), CAST(:requested_by AS text),
       CAST(:request_id AS text)
FROM unnest(
    CAST(CAST(:ids AS text) AS uuid[]), CAST(CAST(:ticks AS text) AS timestamptz[]),
    CAST(CAST(:blocked_by AS text) AS uuid[])
) AS u (id, tick, blocked_by)
""")
_STATES = text("""
SELECT id, state, attempt > 1 OR started_at IS NOT NULL AS began
FROM celery_task_runs
WHERE id = ANY(CAST(:ids AS uuid[]))
""")


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


@dataclass(frozen=True, slots=True)
class Layout:
    """The ticks of a period by the ids that their scheduled runs have, ascending; a calendar excludes some of them."""

    version: int
    by_id: Mapping[UUID, datetime]
    excluded: frozenset[datetime]


def asked_about(
    session: Session, catalogue: Catalogue, schedule_id: UUID, request: BackfillRequest
) -> tuple[int, Plan]:
    """The version of the schedule, and its plan; raises as `backfill` does."""
    row = schedules.view(session, schedule_id).row
    _, plan, _ = _plan_for(session, catalogue, row, request)
    return row.version, plan


def lay_out(schedule_id: UUID, version: int, plan: Plan, request: BackfillRequest) -> Layout:
    """The ticks of the period. Takes seconds of a processor.

    Raises:
        InvalidInput: there are too many.
    """
    ticks = list(islice(interruptible(plan.ticks(request.start, request.end)), MAX_TICKS + 1))
    if len(ticks) > MAX_TICKS:
        problem = f"More than {MAX_TICKS} ticks lie in this period. Backfill it in parts."
        raise InvalidInput(FieldError("end", problem))
    excluded = frozenset(tick for tick in ticks if plan.excluded_by(tick) is not None)
    return Layout(version, {tick_id(schedule_id, tick): tick for tick in ticks}, excluded)


def backfill(
    session: Session,
    catalogue: Catalogue,
    schedule_id: UUID,
    request: BackfillRequest,
    *,
    actor: str,
    redispatch_delay: float,
    layout: Layout | None = None,
) -> Backfill:
    """Make the runs; the caller publishes ``messages`` after the commit. A dry run changes nothing.

    The ``layout`` of another version, as after an edit in between, is made anew.

    Raises:
        NotFound: there is no schedule with this id.
        Conflict: it is not valid.
        InvalidInput: its task is gone, it has no ticks of its own, or the period reaches into the future or holds
            too many ticks.
    """
    row, clock = schedules.locked(session, schedule_id)
    task, plan, now = _plan_for(session, catalogue, row, request)
    if layout is None or layout.version != row.version:
        layout = lay_out(schedule_id, row.version, plan, request)
    outcomes = _outcomes(session, schedule_id, layout)
    outcomes.update(dict.fromkeys(_to_be_fired(session, row, clock, plan, now) & outcomes.keys(), ACTIVE))
    ticks = list(layout.by_id.values())
    chosen = [tick for tick in ticks if outcomes[tick] in _CHOSEN[request.reprocess]]
    left_out = Counter(outcomes[tick] for tick in ticks if outcomes[tick] not in _CHOSEN[request.reprocess])
    if request.dry_run or not chosen:
        return Backfill(len(ticks), tuple(chosen), dict(left_out))
    ordered = chosen[::-1] if request.order == "newest_first" else chosen
    at_a_time = len(ordered) if request.overlap == "allow_all" else request.max_concurrent or 1
    again = now + timedelta(seconds=redispatch_delay)
    values = _shared(row, task, now) | {"again": again, "settles": at_a_time < len(ordered)}
    # As many lines as run at a time, each run waiting for the one before in its line.
    ids = [new_id() for _ in ordered]
    blocked_by = [*([None] * at_a_time), *ids][: len(ids)]
    arrays = {
        "ids": uuid_array(ids),
        "ticks": instant_array(ordered),
        "blocked_by": uuid_array(blocked_by),
    }
    session.execute(_INSERT, values | arrays | {"requested_by": actor, "request_id": tracing.request_id()})
    options = understanding.extra_of(row).stored(task)
    messages = [RunMessage.of(each, task.name, values["queue"], 1, options) for each in ids[:at_a_time]]
    return Backfill(len(ticks), tuple(chosen), dict(left_out), tuple(ids), tuple(messages))


def _plan_for(
    session: Session, catalogue: Catalogue, row: ScheduleRow, request: BackfillRequest
) -> tuple[TaskSpec, Plan, datetime]:
    task = catalogue.schedulable(row.task_path, "task_path")
    schedules.require_fit(catalogue, row)
    plan, now = understanding.sound_plan(session, row), schedules.database_time(session)
    if plan.estimated:
        problem = "A fixed delay has no ticks of its own: they depend on when runs end."
        raise InvalidInput(FieldError("start", problem))
    if request.end > now:
        raise InvalidInput(FieldError("end", "Lies in the future. Backfill up to now at most."))
    return task, plan, now


def _to_be_fired(
    session: Session, row: ScheduleRow, clock: ClockRow, plan: Plan, now: datetime
) -> set[datetime]:
    """The ticks that have come, and that a beat is about to fire."""
    if row.state != "active" or clock.next_run_at is None or clock.next_run_at > now:
        return set()
    firing = foreseen(session, clock, plan, understanding.extra_of(row), first=clock.next_run_at, now=now)
    return {tick.scheduled_for for tick in firing.ticks if tick.reason is None}


def _outcomes(session: Session, schedule_id: UUID, layout: Layout) -> dict[datetime, str]:
    """What became of each tick."""
    ticks = list(layout.by_id.values())
    found: dict[datetime, list[str]] = {tick: [NEVER_RAN] for tick in ticks}
    for run_id, state, began in session.execute(_STATES, {"ids": list(layout.by_id)}):
        found[layout.by_id[run_id]].append(_outcome(state, began=began))
    if ticks:
        began = (RunRow.attempt > 1) | RunRow.started_at.is_not(None)
        earlier = select(RunRow.scheduled_for, RunRow.state, began).where(
            RunRow.schedule_id == schedule_id,
            RunRow.origin == Origin.BACKFILL,
            RunRow.scheduled_for.between(ticks[0], ticks[-1]),
        )
        for tick, state, has_begun in session.execute(earlier):
            if tick in found:
                found[tick].append(_outcome(state, began=has_begun))
    return {
        tick: EXCLUDED if tick in layout.excluded else min(states, key=_RANK.index)
        for tick, states in found.items()
    }


def _outcome(state: str, *, began: bool) -> str:
    """One that was cancelled, or expired before another attempt, may have done a part of its work."""
    return _OUTCOMES.get(state) or (FAILED if began else NEVER_RAN)


def _shared(row: ScheduleRow, task: TaskSpec, now: datetime) -> dict[str, Any]:
    """What all of the runs have in common."""
    extra = understanding.extra_of(row)
    allowed = extra.policies().start_deadline
    return {
        "task": task.name,
        "queue": extra.queue or task.queue,
        "schedule_id": row.id,
        "version": row.version,
        "now": now,
        "start_deadline": None if allowed is None else now + allowed,
        "args": documents.written(row.task_args),
        "kwargs": documents.written(row.task_kwargs),
        "options": documents.written(extra.stored(task)),
    }
