"""A run of a schedule on demand: a unit of work for a sync session whose owner commits."""

from uuid import UUID

from sqlalchemy import func, insert
from sqlalchemy.orm import Session

from app.scheduling import policies, runs, schedules, settlement, understanding, waiting
from app.scheduling.catalogue import Catalogue
from app.scheduling.messages import RunMessage
from app.scheduling.models import RunRow
from app.scheduling.policies import Overlap
from app.scheduling.states import Origin, RunState


def run_now(
    session: Session,
    catalogue: Catalogue,
    schedule_id: UUID,
    *,
    actor: str,
    run_id: UUID,
    redispatch_delay: float,
    overlap: Overlap | None = None,
) -> RunMessage | None:
    """Make a run with the schedule's arguments, queue and limits, whatever its state, start and end.

    Its own overlap policy, or ``overlap`` in its place, decides against its scheduled runs: the run may be skipped,
    or wait. Answers the wake-up to publish after the commit, None if there is none yet.

    Raises:
        NotFound: there is no schedule with this id.
        InvalidInput: its task is gone.
        Conflict: its arguments do not fit its task any more, or its options cannot be understood.
    """
    row, clock = schedules.locked(session, schedule_id)
    task = catalogue.schedulable(row.task_path, "task_path")
    schedules.require_fit(catalogue, row)
    extra = understanding.sound_extra(row)
    rules = extra.model_copy(update={"overlap": overlap} if overlap else {}).policies()
    active, waits = waiting.counts(session, schedule_id)
    firing = policies.admit(rules, schedules.database_time(session), active=active, waiting=waits)
    (tick,) = firing.ticks
    if tick.reason is not None:
        session.execute(
            insert(RunRow).values(
                id=run_id,
                state=RunState.SKIPPED,
                reason=tick.reason,
                origin=Origin.MANUAL,
                task=task.name,
                queue=extra.queue or task.queue,
                schedule_id=row.id,
                schedule_version=row.version,
                due_at=func.statement_timestamp(),
                finished_at=func.statement_timestamp(),
                args=row.task_args,
                kwargs=row.task_kwargs,
                options=extra.stored(task),
                requested_by=actor,
            )
        )
        return None
    blocked_by = None
    if tick.waits or firing.replaces_waiting:
        room = waiting.make_room(
            session, schedule_id, replace=firing.replaces_waiting, cancel=firing.cancels_active
        )
        blocked_by = room.blocked_by if tick.waits else None
        settlement.settle_cancelled(session, row, clock, room.freed)
    return runs.submit(
        session,
        task=task,
        args=row.task_args,
        kwargs=row.task_kwargs,
        options=extra,
        origin=Origin.MANUAL,
        redispatch_delay=redispatch_delay,
        requested_by=actor,
        run_id=run_id,
        schedule=(row.id, row.version),
        blocked_by=blocked_by,
    )
