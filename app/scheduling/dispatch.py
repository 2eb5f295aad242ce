"""One pass of a beat: fire what is due, dispatch it, sweep what got lost.

Any number of beats run at once. They share nothing but the tables: due clocks are claimed with
`SKIP LOCKED`, ticks are decided while their schedule's clock is locked, and the id of a tick's run
forbids a second one. The cost of a pass depends on what is due, never on how many schedules exist.

While more is due than one batch, the wake-ups of the batch that was committed are sent while the next one
is claimed and decided.
"""

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from sqlalchemy import select
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from app import failpoints
from app.db.partitions import ensure_partitions
from app.scheduling import drift, liveness, runs, statements, tally, waiting, wishes
from app.scheduling.catalogue import Catalogue
from app.scheduling.firing import Due, Firer
from app.scheduling.firing_apart import fire_apart
from app.scheduling.ids import new_id
from app.scheduling.lost_messages import LostMessages
from app.scheduling.messages import BrokerUnavailable, Publisher, RunMessage
from app.scheduling.models import ATTEMPTS, LOGS, NOW, RUNS
from app.scheduling.policies import Reason
from app.scheduling.refusals import refuses_values
from app.scheduling.rounds import Rounds
from app.scheduling.states import RunState
from app.settings import Settings

logger = logging.getLogger(__name__)

CONTENDED_SLEEP = 0.05
# After a pass that did something: long enough for more to come due, so that a steady flow is handled in handfuls.
BUSY_SLEEP = 0.01
# For so long a backlog is worked off before a pass looks at anything else: runs to wake, sweeps, a stop.
BACKLOG_SHIFT = 0.5
BROKER_RETRY = 1.0
HARD_LIMIT_GRACE = 30.0
PARTITIONS_EVERY = 3600.0
SURVEY_EVERY = 2.0
# How far the database's clock may run away from ours between two passes before it is called a jump: a share of a
# lease, and more than a slow answer explains.
CLOCK_JUMP = 0.25
SMALLEST_JUMP = 1.0


@dataclass(frozen=True, slots=True)
class _Peek:
    """The database's time, and the earliest instants that somebody waits for."""

    now: datetime
    next_run_at: datetime | None
    next_dispatch_at: datetime | None

    @property
    def schedules_due(self) -> bool:
        return self.next_run_at is not None and self.next_run_at <= self.now

    @property
    def runs_due(self) -> bool:
        return self.next_dispatch_at is not None and self.next_dispatch_at <= self.now

    def delay(self, longest: float, contended: float = CONTENDED_SLEEP) -> float:
        """Seconds to sleep. What is due and was not claimed is held by another beat: no spinning on it."""
        upcoming = [each for each in (self.next_run_at, self.next_dispatch_at) if each is not None]
        if not upcoming:
            return longest
        if self.next_dispatch_at is not None:
            # Runs wait for their wake-ups, which may get lost: those are looked for meanwhile.
            longest = min(longest, SURVEY_EVERY)
        delay = (min(upcoming) - self.now).total_seconds()
        return min(longest, delay) if delay > 0 else contended


def _may_be_away(error: Exception) -> bool:
    """Whether the database is why it failed; not if that only refused what was to be written."""
    refused = isinstance(error, DBAPIError) and refuses_values(error)
    return isinstance(error, SQLAlchemyError) and not refused


class Dispatcher:
    """The work of one beat process. Not safe for use by two threads at once."""

    def __init__(
        self,
        sessions: sessionmaker[Session],
        publisher: Publisher,
        catalogue: Catalogue,
        settings: Settings,
        *,
        name: str,
        version: str | None = None,
        sweeps: Sequence[Callable[[Session], Sequence[RunMessage]]] = (),
    ) -> None:
        """``sweeps`` are asked now and then to complete what others left open, each in a transaction."""
        self.id = new_id()
        self._version = version
        self._sweeps = sweeps
        self._sessions = sessions
        self._publisher = publisher
        self._settings = settings.beat
        self._firer = Firer(catalogue, settings.beat.redispatch_delay)
        self._drift = drift.Watch(catalogue)
        self._lease = settings.worker.lease
        self._name = name
        self._lost_messages = LostMessages(sessions, publisher, settings.beat)
        self._in_contact_since: float | None = None
        self._clock_ahead: float | None = None
        self._jumped = 0.0
        self._broker_away_until: float | None = None
        self._sender = ThreadPoolExecutor(max_workers=1, thread_name_prefix="upbeat-send")
        self._sending: tuple[Sequence[RunMessage], Future[None]] | None = None
        self._rounds = Rounds(sweep=0.0, survey=0.0, heartbeat=0.0, partitions=0.0)

    def run_pass(self) -> float:
        """Do what is due now.

        Returns:
            Seconds until something is due again, 0 when more is due already.

        Raises:
            sqlalchemy.exc.DBAPIError: the database is away; nothing is lost, call again.
        """
        try:
            delay = self._pass()
        except Exception as error:
            if _may_be_away(error):
                self._in_contact_since = None
            tally.count("beat_pass", label="failed")
            raise
        tally.count("beat_pass", label="done")
        if self._in_contact_since is None:
            self._in_contact_since = time.monotonic()
        return delay

    def _pass(self) -> float:
        if self._rounds.is_time("partitions", PARTITIONS_EVERY):
            self._ensure_partitions()
        if self._rounds.is_time("survey", min(SURVEY_EVERY, self._settings.sweep_every)):
            self.settle()
            self._lost_messages.look()
        before = self._peek()
        self._mind_the_clock(before.now)
        claimed, more = self._fire_all() if before.schedules_due else (0, False)
        woken = self.dispatch() if before.runs_due else 0
        if self._rounds.is_time("sweep", self._settings.sweep_every):
            self._sweep()
            self._complete()
        if self._rounds.is_time("heartbeat", self._settings.heartbeat_every):
            self._heartbeat()
        if more or woken >= self._settings.batch or self._drift.step(self._sessions):
            return 0.0
        self.settle()
        if claimed or woken:
            return self._peek().delay(self._settings.max_sleep, BUSY_SLEEP)
        contended = before.schedules_due or before.runs_due
        return (self._peek() if contended else before).delay(self._settings.max_sleep)

    def _fire_all(self) -> tuple[int, bool]:
        """Fire batch after batch while they are full; answers how many schedules, and whether more may be due."""
        total, until = 0, time.monotonic() + BACKLOG_SHIFT
        while (claimed := self.fire()) >= self._settings.batch and time.monotonic() < until:
            total += claimed
        return total + claimed, claimed >= self._settings.batch

    def fire(self) -> int:
        """Decide the due ticks of up to a batch of schedules; answers how many schedules.

        The wake-ups of a full batch, which more will follow, may still be under way then: `settle` waits for them.
        """
        batch = self._settings.batch
        try:
            fired, messages = self._fire_together(batch)
        except DBAPIError as error:
            if not refuses_values(error):
                raise
            fired, messages = fire_apart(self._sessions, self._firer, batch)
        if fired:
            failpoints.reach("beat.committed")
        tally.count("fired", fired)
        self.settle()
        if fired < batch:
            self._publish(messages)
        elif messages:
            self._sending = messages, self._sender.submit(self._publisher.publish, messages)
        return fired

    def _fire_together(self, batch: int) -> tuple[int, Sequence[RunMessage]]:
        messages: Sequence[RunMessage] = ()
        with self._sessions.begin() as session:
            claimed = session.execute(statements.claim(batch)).all()
            if claimed:
                due = [Due(*clock) for *clock, _now in claimed]
                messages = self._firer.fire(session, due, claimed[0].now)
                failpoints.reach("beat.fired")
        return len(claimed), messages

    def settle(self) -> None:
        """Wait until all that was claimed is published, or found to be impossible to publish now."""
        if self._sending is not None:
            (messages, sending), self._sending = self._sending, None
            self._sent(messages, sending.result)

    def close(self) -> None:
        """Complete what is under way, and end the thread."""
        try:
            self.settle()
        finally:
            self._sender.shutdown()

    def dispatch(self) -> int:
        """Wake the queued runs that are due (again), expire those past their deadline.

        While the broker is away a single one finds out whether it is back.
        """
        self.settle()
        batch = self._settings.batch if self._broker_away_until is None else 1
        with self._sessions.begin() as session:
            found = session.execute(statements.due_for_dispatch(batch)).all()
            if not found:
                return 0
            rows = session.execute(
                statements.REDISPATCH,
                {
                    "ids": [row.id for row in found if not row.apart],
                    "delay": self._settings.redispatch_delay,
                    "cap": self._settings.redispatch_cap,
                },
            ).all()
            # Their runs stay as they are, and copies of wake-ups do not pile up: `resume` sends them again.
            paused = wishes.paused_queues(session)
        tally.count("dispatched", sum(row.state == "queued" for row in rows))
        for row in rows:
            if row.state != "queued":
                tally.tell(tally.Ended(row.task, row.queue, row.state))
        self._publish(
            [
                RunMessage.of(
                    row.id, row.task, row.queue, row.attempt, row.options, traceparent=row.traceparent
                )
                for row in rows
                if row.state == "queued" and row.queue not in paused
            ]
        )
        for run_id in [row.id for row in found if row.apart]:
            with self._one_by_one(run_id), self._sessions.begin() as session:
                runs.end_queued(session, run_id, RunState.EXPIRED, Reason.DEADLINE, late=True)
        return len(found)

    @contextmanager
    def _one_by_one(self, what: object) -> Iterator[None]:
        """What one row brings about must not stop those behind it; a database that is away stops all."""
        try:
            yield
        except Exception as error:
            if _may_be_away(error):
                raise
            logger.exception("%s could not be dealt with", what, extra={"action": "beat_row_failed"})

    def _publish(self, messages: Sequence[RunMessage]) -> None:
        if messages:
            self._sent(messages, lambda: self._publisher.publish(messages))

    def _sent(self, messages: Sequence[RunMessage], send: Callable[[], None]) -> None:
        """What follows from sending: when the broker is away, these runs are woken as soon as it may be back."""
        try:
            send()
            self._broker_away_until = None
        except BrokerUnavailable as error:
            self._broker_away_until = time.monotonic() + BROKER_RETRY
            logger.warning(
                "broker is away, %d runs wait: %s", len(messages), error, extra={"action": "publish_failed"}
            )
            with self._sessions.begin() as session:
                session.execute(
                    statements.DISPATCH_SOON,
                    {"ids": [each.run_id for each in messages], "delay": BROKER_RETRY},
                )

    def _sweep(self) -> None:
        """Find what died, once contact with the database has outlasted a lease.

        Before that, an outage, or a jump of the clock, may be why leases look expired: their owners could not
        renew them.
        """
        if self._in_contact_since is None or time.monotonic() - self._in_contact_since <= self._lease:
            return
        with self._sessions.begin() as session:
            ended = runs.overdue(session, HARD_LIMIT_GRACE + self._jumped)
            session.execute(statements.FORGET_DEAD)
            waiting.unstick(session)
        for run_id, attempt, outcome in ended:
            with self._one_by_one(run_id):
                with self._sessions.begin() as session:
                    state = runs.finish(session, run_id, attempt=attempt, outcome=outcome)
                logger.warning(
                    "run %s %s",
                    run_id,
                    f"is {state}" if state else "had ended",
                    extra={"action": "swept", "run_id": str(run_id), "reason": outcome.reason},
                )

    def _mind_the_clock(self, now: datetime) -> None:
        """When the database's clock has jumped, leases look expired as they do after an outage, and runs look old."""
        ahead, before = now.timestamp() - time.monotonic(), self._clock_ahead
        self._clock_ahead = ahead
        if before is not None and abs(ahead - before) > max(SMALLEST_JUMP, CLOCK_JUMP * self._lease):
            self._in_contact_since = None
            self._jumped = max(0.0, self._jumped + ahead - before)
            logger.warning(
                "the database's clock jumped by %.1f s", ahead - before, extra={"action": "clock_jumped"}
            )

    def _complete(self) -> None:
        for sweep in self._sweeps:
            with self._one_by_one("what runs owe"):
                with self._sessions.begin() as session:
                    messages = sweep(session)
                self._publish(messages)

    def _heartbeat(self) -> None:
        with self._sessions.begin() as session:
            liveness.heartbeat(session, self.id, name=self._name, pid=os.getpid(), version=self._version)

    def _ensure_partitions(self) -> None:
        with self._sessions.begin() as session:
            now = session.scalar(select(NOW)) or datetime.now(UTC)
            ensure_partitions(session.connection(), (RUNS, ATTEMPTS, LOGS), now)

    def _peek(self) -> "_Peek":
        with self._sessions() as session:
            peek = _Peek(*session.execute(statements.PEEK).one())
        rest = 0.0 if self._broker_away_until is None else self._broker_away_until - time.monotonic()
        if rest > 0 and peek.next_dispatch_at is not None:
            # Nobody is woken before the broker is tried again, so those that are due are not looked at either.
            not_before = peek.now + timedelta(seconds=rest)
            peek = replace(peek, next_dispatch_at=max(peek.next_dispatch_at, not_before))
        return peek
