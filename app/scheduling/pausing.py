"""Pausing a schedule: a unit of work for a sync session whose owner commits."""

from uuid import UUID

from sqlalchemy.orm import Session

from app.errors import Conflict, FieldError, InvalidInput
from app.scheduling import passing, schedules
from app.scheduling.policies import Reason
from app.scheduling.schedules import ScheduleView

MAX_NOTE = 2000


def pause(session: Session, schedule_id: UUID, *, note: str, author: str) -> ScheduleView:
    """Let a schedule fire no more until it is resumed; a paused one gets the new note and author.

    Raises:
        NotFound: there is none with this id.
        InvalidInput: there is no note.
        Conflict: it is disabled, invalid or completed, so there is nothing to pause.
    """
    if not note.strip() or len(note) > MAX_NOTE:
        raise InvalidInput(FieldError("note", f"Say why it is paused, in 1 to {MAX_NOTE} characters."))
    row, clock = schedules.locked(session, schedule_id)
    if row.state not in ("active", "paused"):
        raise Conflict(f"The schedule is {row.state}, so it does not fire anyway.")
    now = schedules.database_time(session)
    passing.record_range(session, schedule_id, passing.undecided(session, row, clock, now, Reason.PAUSED))
    clock.next_run_at = None
    row.paused_at = row.paused_at or now
    row.paused_by, row.pause_note = author, note
    schedules.change_state(session, row, "paused", action="pause", author=author, why=note)
    return ScheduleView(row, None)
