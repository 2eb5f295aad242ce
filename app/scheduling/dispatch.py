"""One pass of a beat: fire what is due, dispatch it, sweep what got lost.

Any number of beats run at once. They share nothing but the tables: due clocks are claimed with
`SKIP LOCKED`, ticks are decided while their schedule's clock is locked, and the id of a tick's run
forbids a second one. The cost of a pass depends on what is due, never on how many schedules exist.
"""

import json
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from app.db.partitions import ensure_partitions
from app.errors import InvalidInput
from app.scheduling import liveness, policies, runs, statements, timing
from app.scheduling.catalogue import Catalogue
from app.scheduling.config import ExtraConfig
from app.scheduling.ids import new_id, tick_id
from app.scheduling.messages import BrokerUnavailable, Publisher, RunMessage
from app.scheduling.models import ATTEMPTS, LOGS, NOW, RUNS
from app.settings import Settings

logger = logging.getLogger(__name__)

CONTENDED_SLEEP = 0.05
BROKER_RETRY = 1.0
HARD_LIMIT_GRACE = 30.0
PARTITIONS_EVERY = 3600.0


@dataclass(slots=True)
class _Batch:
    """What one firing writes."""

    columns: dict[str, list[Any]] = field(
        default_factory=lambda: {
            name: []
            for name in (
                "id",
                "schedule_id",
                "scheduled_for",
                "state",
                "reason",
                "task",
                "queue",
                "start_deadline",
                "next_dispatch_at",
                "finished_at",
                "options",
            )
        }
    )
    messages: list[RunMessage] = field(default_factory=list)
    missed: list[dict[str, Any]] = field(default_factory=list)
    next_run_at: dict[UUID, datetime | None] = field(default_factory=dict)
    states: list[dict[str, Any]] = field(default_factory=list)


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

    def delay(self, longest: float) -> float:
        """Seconds to sleep. What is due and was not claimed is held by another beat: no spinning on it."""
        upcoming = [each for each in (self.next_run_at, self.next_dispatch_at) if each is not None]
        if not upcoming:
            return longest
        delay = (min(upcoming) - self.now).total_seconds()
        return min(longest, delay) if delay > 0 else CONTENDED_SLEEP


@lru_cache(maxsize=4096)
def _extra(text: str) -> ExtraConfig:
    return ExtraConfig.model_validate_json(text)


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
        sweeps: Sequence[Callable[[Session], Sequence[RunMessage]]] = (),
    ) -> None:
        """``sweeps`` are asked now and then to complete what others left open, each in a transaction."""
        self.id = new_id()
        self._sweeps = sweeps
        self._sessions = sessions
        self._publisher = publisher
        self._catalogue = catalogue
        self._settings = settings.beat
        self._lease = settings.worker.lease
        self._name = name
        self._in_contact_since: float | None = None
        self._next = {"sweep": 0.0, "heartbeat": 0.0, "partitions": 0.0}

    def run_pass(self) -> float:
        """Do what is due now.

        Returns:
            Seconds until something is due again, 0 when more is due already.

        Raises:
            sqlalchemy.exc.DBAPIError: the database is away; nothing is lost, call again.
        """
        try:
            delay = self._pass()
        except Exception:
            self._in_contact_since = None
            raise
        if self._in_contact_since is None:
            self._in_contact_since = time.monotonic()
        return delay

    def _pass(self) -> float:
        if self._is_time("partitions", PARTITIONS_EVERY):
            self._ensure_partitions()
        before = self._peek()
        claimed = self.fire() if before.schedules_due else 0
        woken = self.dispatch() if before.runs_due else 0
        if self._is_time("sweep", self._settings.sweep_every):
            self._sweep()
            self._complete()
        if self._is_time("heartbeat", self._settings.heartbeat_every):
            self._heartbeat()
        if max(claimed, woken) >= self._settings.batch:
            return 0.0
        busy = before.schedules_due or before.runs_due
        return (self._peek() if busy else before).delay(self._settings.max_sleep)

    def fire(self) -> int:
        """Decide the due ticks of up to a batch of schedules; answers how many schedules."""
        with self._sessions.begin() as session:
            claimed = session.execute(statements.claim(self._settings.batch)).all()
            if not claimed:
                return 0
            batch = self._decide(
                session, {row.schedule_id: row.next_run_at for row in claimed}, claimed[0].now
            )
            created = self._write(session, batch)
        self._publish([each for each in batch.messages if each.run_id in created])
        return len(claimed)

    def dispatch(self) -> int:
        """Wake the queued runs that are due (again), expire those past their deadline."""
        with self._sessions.begin() as session:
            ids = list(session.scalars(statements.due_for_dispatch(self._settings.batch)))
            if not ids:
                return 0
            rows = session.execute(
                statements.REDISPATCH,
                {"ids": ids, "delay": self._settings.redispatch_delay, "cap": self._settings.redispatch_cap},
            ).all()
        self._publish(
            [
                runs.message(row.id, row.task, row.queue, row.attempt, row.options)
                for row in rows
                if row.state == "queued"
            ]
        )
        return len(ids)

    def _decide(self, session: Session, due: Mapping[UUID, datetime], now: datetime) -> _Batch:
        ids = list(due)
        configs = session.execute(statements.CONFIGS, {"ids": ids}).all()
        active = {row.schedule_id: row.runs for row in session.execute(statements.ACTIVE, {"ids": ids})}
        batch = _Batch()
        same: dict[tuple[str, datetime, str, int], policies.Firing] = {}
        for config in configs:
            if config.state != "active":
                batch.next_run_at[config.id] = None
                continue
            try:
                extra = _extra(config.extra)
                key = (config.schedule, due[config.id], config.extra, active.get(config.id, 0))
                if key not in same:
                    same[key] = policies.fire(
                        timing.parse_cached(config.schedule),
                        extra.policies(),
                        next_run_at=due[config.id],
                        now=now,
                        active=active.get(config.id, 0),
                    )
                self._add(batch, config, extra, same[key], now)
            except Exception as error:  # one bad row must not stop the others
                reason = (
                    error.detail if isinstance(error, InvalidInput) else f"{type(error).__name__}: {error}"
                )
                logger.exception(
                    "schedule is invalid", extra={"action": "schedule_invalid", "schedule_id": config.id}
                )
                batch.next_run_at[config.id] = None
                batch.states.append({"id": config.id, "state": "invalid", "reason": reason})
        return batch

    def _add(
        self, batch: _Batch, config: Any, extra: ExtraConfig, firing: policies.Firing, now: datetime
    ) -> None:
        task = self._catalogue.schedulable(config.task_path, "task_path")
        options = runs.resolve_options(task, extra)
        stored = json.dumps(options)
        queue = extra.queue or task.queue
        deadline = None if extra.start_deadline is None else now + timedelta(seconds=extra.start_deadline)
        redispatch = now + timedelta(seconds=self._settings.redispatch_delay)
        for tick in firing.ticks:
            identifier = tick_id(config.id, tick.scheduled_for)
            skipped = tick.reason is not None
            row = {
                "id": identifier,
                "schedule_id": config.id,
                "scheduled_for": tick.scheduled_for,
                "state": runs.RunState.SKIPPED.value if skipped else runs.RunState.QUEUED.value,
                "reason": tick.reason.value if tick.reason else None,
                "task": task.name,
                "queue": queue,
                "start_deadline": None if skipped else deadline,
                "next_dispatch_at": None if skipped else min(redispatch, deadline or redispatch),
                "finished_at": now if skipped else None,
                "options": stored,
            }
            for name, value in row.items():
                batch.columns[name].append(value)
            if not skipped:
                batch.messages.append(runs.message(identifier, task.name, queue, 1, options))
        batch.missed.extend(
            {
                "schedule_id": config.id,
                "first": gap.first,
                "last": gap.last,
                "count": gap.count,
                "reason": gap.reason,
            }
            for gap in firing.missed
        )
        batch.next_run_at[config.id] = firing.next_run_at
        if firing.next_run_at is None:
            batch.states.append({"id": config.id, "state": "completed", "reason": None})

    def _write(self, session: Session, batch: _Batch) -> set[UUID]:
        created: set[UUID] = set()
        if batch.columns["id"]:
            created = set(session.scalars(statements.INSERT_TICKS, batch.columns))
        if batch.missed:
            session.execute(statements.INSERT_MISSED, batch.missed)
        if batch.states:
            session.execute(statements.SET_STATE, batch.states)
        session.execute(
            statements.ADVANCE,
            {"ids": list(batch.next_run_at), "next_run_at": list(batch.next_run_at.values())},
        )
        return created

    def _publish(self, messages: Sequence[RunMessage]) -> None:
        if not messages:
            return
        try:
            self._publisher.publish(messages)
        except BrokerUnavailable as error:
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

        Before that, an outage may be why leases look expired: their owners could not renew them.
        """
        if self._in_contact_since is None or time.monotonic() - self._in_contact_since <= self._lease:
            return
        with self._sessions.begin() as session:
            lost = runs.sweep_lost(session)
            overdue = runs.sweep_overdue(session, HARD_LIMIT_GRACE)
            session.execute(statements.FORGET_DEAD)
        if lost or overdue:
            logger.warning("swept %d lost and %d overdue runs", lost, overdue, extra={"action": "swept"})

    def _complete(self) -> None:
        for sweep in self._sweeps:
            with self._sessions.begin() as session:
                messages = sweep(session)
            self._publish(messages)

    def _heartbeat(self) -> None:
        with self._sessions.begin() as session:
            liveness.heartbeat(session, self.id, name=self._name, pid=os.getpid())

    def _ensure_partitions(self) -> None:
        with self._sessions.begin() as session:
            now = session.scalar(select(NOW)) or datetime.now(UTC)
            ensure_partitions(session.connection(), (RUNS, ATTEMPTS, LOGS), now)

    def _peek(self) -> "_Peek":
        with self._sessions() as session:
            return _Peek(*session.execute(statements.PEEK).one())

    def _is_time(self, what: str, every: float) -> bool:
        now = time.monotonic()
        if now < self._next[what]:
            return False
        self._next[what] = now + every
        return True
