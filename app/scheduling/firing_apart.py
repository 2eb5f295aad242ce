"""Firing one by one: for a batch that the database refuses because of what one of its schedules would write.

That one becomes invalid with its reason; it must not stop the others, nor what else a beat does.
"""

import logging
from uuid import UUID

from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from app.errors import FieldError, InvalidInput
from app.scheduling import statements
from app.scheduling.firing import Due, Firer
from app.scheduling.messages import RunMessage
from app.scheduling.refusals import refuses_values

logger = logging.getLogger(__name__)


def fire_apart(sessions: sessionmaker[Session], firer: Firer, batch: int) -> tuple[int, list[RunMessage]]:
    """Fire up to ``batch`` due schedules, each in a transaction of its own; answers how many, and their wake-ups.

    Raises:
        sqlalchemy.exc.DBAPIError: the database is away.
    """
    with sessions() as session:
        due: list[UUID] = [row.schedule_id for row in session.execute(statements.claim(batch))]
    fired, messages = 0, list[RunMessage]()
    for schedule_id in due:
        try:
            made = _fire_one(sessions, firer, schedule_id)
        except DBAPIError as error:
            if not refuses_values(error):
                raise
            logger.exception(
                "schedule is invalid", extra={"action": "schedule_invalid", "schedule_id": schedule_id}
            )
            made = _condemn_one(sessions, firer, schedule_id, type(error.orig).__name__)
        if made is not None:
            fired += 1
            messages += made
    return fired, messages


def _fire_one(sessions: sessionmaker[Session], firer: Firer, schedule_id: UUID) -> list[RunMessage] | None:
    with sessions.begin() as session:
        clock = session.execute(statements.CLAIM_ONE, {"id": schedule_id}).one_or_none()
        if clock is None:
            return None
        *due, now = clock
        return firer.fire(session, [Due(*due)], now)


def _condemn_one(
    sessions: sessionmaker[Session], firer: Firer, schedule_id: UUID, why: str
) -> list[RunMessage] | None:
    with sessions.begin() as session:
        clock = session.execute(statements.CLAIM_ONE, {"id": schedule_id}).one_or_none()
        if clock is None:
            return None
        *due, now = clock
        problem = f"The database refuses what its tick would write ({why})."
        firer.condemn(session, Due(*due), now, InvalidInput(FieldError("schedule", problem)))
        return []
