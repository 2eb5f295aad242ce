"""Wake-ups that the broker has lost are sent again at once, not only after their long delay.

Two signs tell of a loss: a queue is empty while runs wait in it, and the mark that a beat leaves in the broker is
gone or another one, because the broker lost its data or was replaced. A wake-up too many does no harm.
"""

import logging
from datetime import datetime, timedelta

from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

from app.scheduling import wishes
from app.scheduling.messages import BrokerUnavailable, Publisher
from app.scheduling.models import NOW
from app.settings import BeatSettings

logger = logging.getLogger(__name__)

# A message that was taken from its queue this recently is probably on its way to its start.
ON_ITS_WAY = timedelta(seconds=2)
BATCH = 5000

# When the last wake-up was sent follows from when the next one is due. Only the earliest of the waiting runs are
# looked at, so that a long backlog costs no more; the others come up in their turn.
_HASTEN = text(f"""
UPDATE celery_task_runs SET next_dispatch_at = clock_timestamp()
WHERE state = 'queued' AND id = ANY(ARRAY(
    SELECT w.id FROM (
        SELECT id, queue, dispatches, next_dispatch_at
        FROM celery_task_runs
        WHERE next_dispatch_at > (SELECT clock_timestamp())
        ORDER BY next_dispatch_at
        LIMIT {BATCH}
    ) AS w
    WHERE w.dispatches > 0 AND w.queue = ANY(CAST(:queues AS text[]))
      AND w.next_dispatch_at - make_interval(secs => LEAST(
            CAST(:delay AS double precision) * power(2, LEAST(w.dispatches - 1, 16)), :cap)) < :before
))
""")


class LostMessages:
    """What one beat knows of the broker."""

    def __init__(self, sessions: sessionmaker[Session], publisher: Publisher, settings: BeatSettings) -> None:
        self._sessions = sessions
        self._publisher = publisher
        self._settings = settings
        self._mark: str | None = None
        self._lost_at: datetime | None = None

    def look(self) -> int:
        """Make the runs whose wake-ups are lost due for dispatch; answers how many.

        The broker's being away is not this one's business.
        """
        try:
            survey = self._publisher.survey()
        except BrokerUnavailable:
            return 0
        with self._sessions.begin() as session:
            now: datetime = session.execute(text(f"SELECT {NOW}")).scalar_one()
            if self._mark is not None and survey.mark != self._mark:
                logger.warning("the broker lost its data", extra={"action": "broker_lost_data"})
                self._lost_at = now
            self._mark = survey.mark
            hastened = 0
            paused = wishes.paused_queues(session)
            lengths = {queue: length for queue, length in survey.lengths.items() if queue not in paused}
            if empty := [queue for queue, length in lengths.items() if length == 0]:
                hastened += self._hasten(session, empty, now - ON_ITS_WAY)
            if self._lost_at is not None:
                found = self._hasten(session, list(lengths), self._lost_at)
                hastened += found
                if found == 0:
                    self._lost_at = None
        if hastened:
            logger.warning(
                "%d wake-ups are sent again", hastened, extra={"action": "wakeups_lost", "runs": hastened}
            )
        return hastened

    def _hasten(self, session: Session, queues: list[str], before: datetime) -> int:
        values = {
            "queues": queues,
            "before": before,
            "delay": self._settings.redispatch_delay,
            "cap": self._settings.redispatch_cap,
        }
        return session.execute(_HASTEN, values).rowcount  # type: ignore[attr-defined,no-any-return]
