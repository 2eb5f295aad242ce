"""Looking for what no transaction can tell: what is late, recovered, silent or without a consumer.

One process at a time looks, whoever has the advisory lock; the others find it taken and go on. Each condition is told
when it begins and when it ends, and kept as an alert in between, so it is not told again at each look. A fact and the
alert that it opens or closes are one transaction.
"""

import json
import logging
import time
from collections.abc import Callable, Iterable
from math import inf
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from app.db import locks
from app.modules.alerts import statements
from app.modules.alerts.words import UNTIL_SUCCESS, AlertKind, FactType
from app.scheduling.ids import new_id
from app.scheduling.messages import QUEUES
from app.settings import AlertSettings

BEATS: Final = "beats"
PATIENCE: Final = 5000  # milliseconds for each statement of a look
# Schedules whose recovery one look asks for: the next look goes on behind them, so that an outage of everybody's does
# not make looks longer.
SCHEDULES: Final = 1000
_FIRST: Final = UUID(int=0)
_STANDINGS = {
    "not_decided": "no beat has decided it",
    "not_started": "its run has not started",
    "not_finished": "its run has not finished",
}
logger = logging.getLogger(__name__)


class Watch:
    """One process's looks. What is silent is told only after this process was in contact for as long itself."""

    def __init__(self, settings: AlertSettings) -> None:
        self._settings = settings
        self._in_contact_since: float | None = None
        self._asked = _FIRST

    def broke(self) -> None:
        """The database was away: beats and workers could not give a sign of life either."""
        self._in_contact_since = None

    def look(self, session: Session) -> bool:
        """Open and close alerts; False if another process is doing so. The caller commits."""
        if self._in_contact_since is None:
            self._in_contact_since = time.monotonic()
        if not alone(session):
            return False
        in_contact = time.monotonic() - self._in_contact_since
        _apart(session, "what is late", _late)
        _apart(session, "what is over", self._over)
        _apart(session, "beats", lambda each: self._beats(each, in_contact))
        _apart(session, "queues", lambda each: self._queues(each, in_contact))
        return True

    def _over(self, session: Session) -> None:
        _close(session, session.scalars(statements.OVER).all())
        kinds = list(UNTIL_SUCCESS)
        turn = {"kinds": kinds, "after": self._asked, "limit": SCHEDULES}
        schedules = list(session.scalars(statements.FAILING, turn))
        self._asked = schedules[-1] if len(schedules) == SCHEDULES else _FIRST
        recovered: dict[UUID, list[Any]] = {}
        for row in session.execute(statements.RECOVERED, {"kinds": kinds, "schedules": schedules}):
            recovered.setdefault(row.schedule_id, []).append(row)
        for schedule_id, rows in recovered.items():
            _close(session, [row.id for row in rows])
            data = {"run_id": str(rows[0].run_id), "after": sorted(row.kind for row in rows)}
            emit(session, FactType.SCHEDULE_RECOVERED, data, schedule_id=schedule_id, run_id=rows[0].run_id)

    def _beats(self, session: Session, in_contact: float) -> None:
        row = session.execute(statements.BEATS).one()
        silent = row.needed and (row.age is None or row.age > self._settings.beat_silent)
        if silent and row.alert is None and in_contact >= self._settings.beat_silent:
            age = None if row.age is None else round(row.age, 1)
            words = "No beat has ever made a pass" if age is None else f"No beat has made a pass for {age} s"
            if open_alert(session, AlertKind.BEAT_SILENT, BEATS, f"{words}: nothing fires."):
                emit(session, FactType.BEAT_SILENT, {"seconds": age})
        elif row.alert is not None and row.age is not None and row.age <= self._settings.beat_silent:
            _close(session, [row.alert])
            emit(session, FactType.BEAT_RECOVERED, {})

    def _queues(self, session: Session, in_contact: float) -> None:
        without = {row.queue: row.without for row in session.execute(statements.CONSUMERS)}
        known = {row.subject: row.id for row in session.execute(statements.OPEN_QUEUES)}
        idle = sorted(queue for queue in {*QUEUES, *known} if without.get(queue, inf) > 0)
        rows = session.execute(statements.WAITING, {"queues": idle}).all() if idle else []
        waits = {row.queue: row.waited for row in rows}
        for queue in sorted(known.keys() - waits.keys()):
            _close(session, [known[queue]])
            emit(session, FactType.QUEUE_RECOVERED, {"queue": queue})
        for queue, waited in sorted(waits.items()):
            # A worker that is being replaced is no queue without one, however long its runs have waited.
            lasted = min(waited, in_contact, without.get(queue, inf))
            if queue not in known and lasted >= self._settings.queue_patience:
                seconds = round(waited, 1)
                message = f"Runs have waited in {queue} for {seconds} s, and no worker takes from it."
                if open_alert(session, AlertKind.QUEUE_UNCONSUMED, queue, message):
                    emit(session, FactType.QUEUE_UNCONSUMED, {"queue": queue, "seconds": seconds})


def alone(session: Session) -> bool:
    """Whether no other process looks until this transaction ends; bounds what this one may take."""
    session.execute(text(f"SET LOCAL statement_timeout = {PATIENCE}"))
    return bool(session.scalar(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": locks.ALERTS}))


def emit(
    session: Session,
    kind: FactType | str,
    data: dict[str, Any],
    *,
    schedule_id: UUID | None = None,
    run_id: UUID | None = None,
) -> None:
    """Write a fact, to be told after the commit."""
    values = {"type": kind, "schedule_id": schedule_id, "run_id": run_id, "data": json.dumps(data)}
    session.execute(statements.EMIT, values)


def open_alert(session: Session, kind: AlertKind, subject: str, message: str, **values: Any) -> bool:
    """Open an alert, or count in the one that is open; True if it was opened now.

    ``values`` may be schedule_id, run_id and at: when what it tells of happened.
    """
    given = {"schedule_id": None, "run_id": None, "at": None} | values
    stated = {"id": new_id(), "kind": kind, "subject": subject, "message": message}
    return bool(session.scalar(statements.OPEN, stated | given))


def _apart(session: Session, what: str, look: Callable[[Session], None]) -> None:
    """One kind of condition; if it cannot be looked at, the others are all the same.

    Raises:
        DBAPIError: the database is away.
    """
    try:
        with session.begin_nested():
            look(session)
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
        logger.warning("%s cannot be looked at: %s", what, error.orig, extra={"action": "look_failed"})


def _late(session: Session) -> None:
    for row in session.execute(statements.LATE).all():
        message = (
            f"{row.task_name} is late: {row.grace:g} s after its tick of {row.scheduled_for.isoformat()},"
            f" {_STANDINGS[row.standing]}."
        )
        about = {"schedule_id": row.schedule_id, "run_id": row.run_id}
        if open_alert(session, AlertKind.SCHEDULE_LATE, str(row.schedule_id), message, **about):
            data = {
                "scheduled_for": row.scheduled_for.isoformat(),
                "grace": row.grace,
                "standing": row.standing,
                "run_id": None if row.run_id is None else str(row.run_id),
            }
            emit(session, FactType.SCHEDULE_LATE, data, **about)


def _close(session: Session, ids: Iterable[UUID]) -> None:
    closing = list(ids)
    if closing:
        session.execute(statements.CLOSE, {"ids": closing})
