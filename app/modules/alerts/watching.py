"""Looking for what no transaction can tell: what is late, recovered, silent or without a consumer.

One process at a time looks, whoever has the advisory lock; the others find it taken and go on. Each condition is told
when it begins and when it ends, and kept as an alert in between, so it is not told again at each look. A fact and the
alert that it opens or closes are one transaction.
"""

import json
import time
from collections.abc import Iterable
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from app.db import locks
from app.modules.alerts import statements
from app.modules.alerts.words import UNTIL_SUCCESS, AlertKind, FactType
from app.scheduling.ids import new_id
from app.scheduling.messages import QUEUES
from app.settings import AlertSettings

BEATS: Final = "beats"
PATIENCE: Final = 5000  # milliseconds for each statement of a look
_STANDINGS = {
    "not_decided": "no beat has decided it",
    "not_started": "its run has not started",
    "not_finished": "its run has not finished",
}


class Watch:
    """One process's looks. What is silent is told only after this process was in contact for as long itself."""

    def __init__(self, settings: AlertSettings) -> None:
        self._settings = settings
        self._in_contact_since: float | None = None

    def broke(self) -> None:
        """The database was away: beats and workers could not give a sign of life either."""
        self._in_contact_since = None

    def look(self, session: Session) -> bool:
        """Open and close alerts; False if another process is doing so. The caller commits."""
        if self._in_contact_since is None:
            self._in_contact_since = time.monotonic()
        if not alone(session):
            return False
        _late(session)
        _over(session)
        in_contact = time.monotonic() - self._in_contact_since
        self._beats(session, in_contact)
        self._queues(session, in_contact)
        return True

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
        consumed = set(session.scalars(statements.CONSUMED))
        known = {row.subject: row.id for row in session.execute(statements.OPEN_QUEUES)}
        for queue in sorted({*QUEUES, *known}):
            waited = None if queue in consumed else session.scalar(statements.WAITING, {"queue": queue})
            if waited is None:
                if queue in known:
                    _close(session, [known[queue]])
                    emit(session, FactType.QUEUE_RECOVERED, {"queue": queue})
            elif queue not in known and min(waited, in_contact) >= self._settings.queue_patience:
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


def _over(session: Session) -> None:
    _close(session, session.scalars(statements.OVER).all())
    recovered: dict[UUID, list[Any]] = {}
    for row in session.execute(statements.RECOVERED, {"kinds": list(UNTIL_SUCCESS)}):
        recovered.setdefault(row.schedule_id, []).append(row)
    for schedule_id, rows in recovered.items():
        _close(session, [row.id for row in rows])
        data = {"run_id": str(rows[0].run_id), "after": sorted(row.kind for row in rows)}
        emit(session, FactType.SCHEDULE_RECOVERED, data, schedule_id=schedule_id, run_id=rows[0].run_id)


def _close(session: Session, ids: Iterable[UUID]) -> None:
    closing = list(ids)
    if closing:
        session.execute(statements.CLOSE, {"ids": closing})
