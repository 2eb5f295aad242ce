"""Firing: the due ticks of locked schedules are decided, and the decisions written, many at once.

Whoever calls holds the clocks locked and commits afterwards; the wake-ups are published only then. Schedules of
equal timing, policies and circumstances share one decision. One that cannot be read is marked invalid with its
reason, and stops nobody.
"""

import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.db.arrays import instant_array, int_array, uuid_array
from app.errors import InvalidInput
from app.scheduling import policies, statements, tally, timing, waiting
from app.scheduling.calendars import CalendarLoader, NamedCalendar, chosen
from app.scheduling.catalogue import Catalogue, Unfit
from app.scheduling.config import ExtraConfig
from app.scheduling.ids import tick_id
from app.scheduling.messages import Kind, RunMessage
from app.scheduling.plan import Plan
from app.scheduling.policies import LIMIT_REACHED, Firing, Policies, Reason, Tick

logger = logging.getLogger(__name__)

DRAFT = (
    "scheduled_for",
    "due_at",
    "state",
    "reason",
    "task",
    "queue",
    "start_deadline",
    "next_dispatch_at",
    "dispatches",
    "finished_at",
    "options",
    "settles",
)


class Due(NamedTuple):
    """A schedule whose clock is locked and due."""

    schedule_id: UUID
    next_run_at: datetime
    run_count: int = 0


class _Config(NamedTuple):
    """A row of `statements.CONFIGS`; as a tuple, because it is read for every fire."""

    id: UUID
    state: str
    task_path: str
    schedule: str
    extra: str


@dataclass(frozen=True, slots=True, eq=False)
class _Rules:
    """A stored configuration, understood."""

    extra: ExtraConfig
    plan: Plan
    policies: Policies
    settles: bool


@dataclass(frozen=True, slots=True, eq=False)
class _Order:
    """What a run of one schedule is made of: task, queue and options, which are stored as JSON."""

    kind: Kind
    stored: str


@dataclass(frozen=True, slots=True, eq=False)
class _Decision:
    """What becomes of the due ticks of every schedule that is like this one.

    ``plain`` is the tick if there is nothing else to it: one run, due by itself, and another tick to follow.
    """

    order: _Order
    rules: _Rules
    firing: Firing
    plain: Tick | None


@dataclass(slots=True)
class _Batch:
    """What one firing writes.

    A row is (run id, schedule id, number of its draft, blocked by). A draft holds what many runs have in common, in
    the order of `DRAFT`; ``numbers`` finds it without making it once more.
    """

    now: datetime
    rows: list[tuple[UUID, UUID, int, UUID | None]] = field(default_factory=list)
    drafts: dict[tuple[Any, ...], int] = field(default_factory=dict)
    numbers: dict[tuple[Any, ...], int] = field(default_factory=dict)
    messages: list[RunMessage] = field(default_factory=list)
    missed: list[dict[str, Any]] = field(default_factory=list)
    clocks: list[tuple[UUID, datetime | None, int]] = field(default_factory=list)
    states: list[dict[str, Any]] = field(default_factory=list)
    awaited: list[tuple[UUID, UUID, Plan]] = field(default_factory=list)
    skipped: Counter[tuple[str, str]] = field(default_factory=Counter)

    def number_of(self, draft: tuple[Any, ...]) -> int:
        """The number of a draft, from 1; equal ones share it."""
        return self.drafts.setdefault(draft, len(self.drafts) + 1)


class Firer:
    """Decides and writes. ``redispatch_delay`` is how many seconds a wake-up may take before it is repeated."""

    def __init__(self, catalogue: Catalogue, redispatch_delay: float) -> None:
        self._catalogue = catalogue
        self._redispatch = timedelta(seconds=redispatch_delay)
        self._orders: dict[tuple[str, str], _Order] = {}
        self._calendars = CalendarLoader()

    def fire(self, session: Session, due: Sequence[Due], now: datetime) -> list[RunMessage]:
        """Decide the ticks of ``due`` up to ``now``; answers the wake-ups to publish after the commit."""
        ids = uuid_array(each.schedule_id for each in due)
        found = map(_Config._make, session.execute(statements.CONFIGS, {"ids": ids}).all())
        configs = {config.id: config for config in found}
        crowds = {
            row.schedule_id: (row.active, row.waiting)
            for row in session.execute(statements.ACTIVE, {"ids": ids})
        }
        calendars = self._load_calendars(session, {config.extra for config in configs.values()})
        batch = _Batch(now)
        same: dict[tuple[Any, ...], _Decision] = {}
        for each in due:
            config = configs[each.schedule_id]
            if config.state != "active":
                batch.clocks.append((config.id, None, 0))
                continue
            try:
                active, waits = crowds.get(config.id, (0, 0)) if crowds else (0, 0)
                limit = _extra(config.extra).max_runs
                remaining = None if limit is None else limit - each.run_count
                key = (
                    config.schedule,
                    config.extra,
                    config.task_path,
                    each.next_run_at,
                    active,
                    waits,
                    remaining,
                )
                decision = same.get(key)
                if decision is None:
                    rules = _rules_of(config, calendars)
                    firing = policies.fire(
                        rules.plan,
                        rules.policies,
                        next_run_at=each.next_run_at,
                        now=now,
                        active=active,
                        waiting=waits,
                        remaining=remaining,
                    )
                    decision = same[key] = self._decision(config, rules, firing)
                self._add(session, batch, config.id, decision)
            except SQLAlchemyError:
                raise
            except Exception as error:
                # One bad row must not stop the others.
                logger.exception(
                    "schedule is invalid", extra={"action": "schedule_invalid", "schedule_id": config.id}
                )
                _condemn(batch, each, error)
        return self._write(session, batch)

    def apply(self, session: Session, schedule_id: UUID, firing: Firing, now: datetime) -> list[RunMessage]:
        """Write a decision that was taken elsewhere for one locked schedule.

        Raises:
            InvalidInput: its task is gone.
        """
        config = _Config._make(session.execute(statements.CONFIGS, {"ids": [schedule_id]}).one())
        batch = _Batch(now)
        rules = _rules_of(config, self._load_calendars(session, {config.extra}))
        self._add(session, batch, config.id, self._decision(config, rules, firing))
        return self._write(session, batch)

    def condemn(self, session: Session, due: Due, now: datetime, error: Exception) -> None:
        """Mark a schedule invalid because of ``error``, whose clock is locked; it fires no more."""
        batch = _Batch(now)
        _condemn(batch, due, error)
        self._write(session, batch)

    def _load_calendars(self, session: Session, texts: Iterable[str]) -> Mapping[str, NamedCalendar]:
        """The calendars that these configurations name, as they are now."""
        names: set[str] = set()
        for text in texts:
            # What cannot be read is condemned when it is decided.
            with suppress(ValueError):
                names.update(_extra(text).calendars)
        return self._calendars.load(session, names)

    def _decision(self, config: _Config, rules: _Rules, firing: Firing) -> _Decision:
        tick = firing.ticks[0] if len(firing.ticks) == 1 else None
        special = (
            firing.missed or firing.replaces_waiting or firing.cancels_active or firing.next_run_at is None
        )
        plain = None if tick is None or tick.reason or tick.waits or special else tick
        return _Decision(self._order(config.task_path, config.extra, rules.extra), rules, firing, plain)

    def _add(self, session: Session, batch: _Batch, schedule_id: UUID, decision: _Decision) -> None:
        rules, firing = decision.rules, decision.firing
        if decision.plain is not None:
            self._run(batch, schedule_id, decision, decision.plain, None)
            batch.clocks.append((schedule_id, firing.next_run_at, 1))
            return
        blocked_by, freed = None, 0
        if any(tick.waits for tick in firing.ticks) or firing.replaces_waiting or firing.cancels_active:
            room = waiting.make_room(
                session, schedule_id, replace=firing.replaces_waiting, cancel=firing.cancels_active
            )
            blocked_by, freed = room.blocked_by, room.freed
            if room.cancelled:
                firing = policies.with_room(rules.plan, firing, batch.now)
        for tick in firing.ticks:
            if tick.reason is not None:
                self._skip(batch, schedule_id, decision, tick)
            else:
                blocked_by = self._run(batch, schedule_id, decision, tick, blocked_by if tick.waits else None)
        for gap in firing.missed:
            values = {"first": gap.first, "last": gap.last, "count": gap.count, "reason": gap.reason}
            batch.missed.append({"schedule_id": schedule_id, **values})
        batch.clocks.append((schedule_id, firing.next_run_at, firing.runs - freed))
        if firing.completed:
            exhausted = rules.plan.next_after(batch.now) is not None
            reason = LIMIT_REACHED if exhausted else None
            completed = {"state": "completed", "reason": reason, "action": "complete", "drifted": False}
            batch.states.append({"id": schedule_id, **completed})
        elif firing.awaits_end and firing.ticks:
            batch.awaited.append(
                (schedule_id, tick_id(schedule_id, firing.ticks[-1].scheduled_for), rules.plan)
            )

    def _run(
        self, batch: _Batch, schedule_id: UUID, decision: _Decision, tick: Tick, blocked_by: UUID | None
    ) -> UUID:
        """Add the run of a tick; answers its id."""
        order, rules = decision.order, decision.rules
        identifier = tick_id(schedule_id, tick.scheduled_for)
        due_at = rules.plan.due_at(schedule_id, tick.scheduled_for)
        later = due_at > batch.now
        key = (decision, tick.scheduled_for, due_at, blocked_by is None)
        number = batch.numbers.get(key)
        if number is None:
            allowed = rules.policies.start_deadline
            # That of a waiting run counts from its turn: what it is then given is its distance from the due time.
            eligible = due_at if blocked_by else max(due_at, batch.now)
            deadline = None if allowed is None else eligible + allowed
            dispatch = due_at if later else batch.now + self._redispatch
            if deadline is not None and dispatch > deadline:
                dispatch = deadline
            draft = (
                tick.scheduled_for,
                due_at,
                "queued",
                None,
                order.kind.task,
                order.kind.queue,
                deadline,
                None if blocked_by else dispatch,
                0 if later or blocked_by else 1,
                None,
                order.stored,
                rules.settles,
            )
            number = batch.numbers[key] = batch.number_of(draft)
        batch.rows.append((identifier, schedule_id, number, blocked_by))
        if not later and blocked_by is None:
            batch.messages.append(RunMessage(identifier, order.kind))
        return identifier

    @staticmethod
    def _skip(batch: _Batch, schedule_id: UUID, decision: _Decision, tick: Tick) -> None:
        at, order = tick.scheduled_for, decision.order
        batch.skipped[order.kind.task, order.kind.queue] += 1
        key = (decision, at, tick.reason)
        number = batch.numbers.get(key)
        if number is None:
            draft = (
                at,
                at,
                "skipped",
                tick.reason,
                order.kind.task,
                order.kind.queue,
                None,
                None,
                0,
                batch.now,
                order.stored,
                False,
            )
            number = batch.numbers[key] = batch.number_of(draft)
        batch.rows.append((tick_id(schedule_id, at), schedule_id, number, None))

    def _order(self, task_path: str, text: str, extra: ExtraConfig) -> _Order:
        found = self._orders.get((task_path, text))
        if found is None:
            task = self._catalogue.schedulable(task_path, "task_path")
            options = extra.stored(task)
            found = _Order(Kind.of(task.name, extra.queue or task.queue, 1, options), json.dumps(options))
            if len(self._orders) >= 4096:
                self._orders.clear()
            self._orders[task_path, text] = found
        return found

    def _write(self, session: Session, batch: _Batch) -> list[RunMessage]:
        decided_before = self._insert(session, batch)
        for (task, queue), number in batch.skipped.items():
            tally.note(session, tally.Ended(task, queue, "skipped", number=number))
        if batch.missed:
            session.execute(statements.INSERT_MISSED, batch.missed)
        # A tick that had been decided before has no end to count from.
        unawaited = {each: plan for each, run_id, plan in batch.awaited if run_id in decided_before}
        ids, instants, fired = zip(*batch.clocks, strict=True)
        if unawaited:
            instants = tuple(
                unawaited[each].next_after(batch.now) if each in unawaited else instant
                for each, instant in zip(ids, instants, strict=True)
            )
        session.execute(
            statements.ADVANCE,
            {"ids": uuid_array(ids), "next_run_at": instant_array(instants), "fired": int_array(fired)},
        )
        if batch.states:
            session.execute(statements.SET_STATE, batch.states)
        if any(each.get("drifted") for each in batch.states):
            # Perhaps these are the tasks of an older release: whoever knows others looks again.
            session.execute(statements.FORGET_CHECKS)
        if not decided_before:
            return batch.messages
        return [each for each in batch.messages if each.run_id not in decided_before]

    @staticmethod
    def _insert(session: Session, batch: _Batch) -> set[UUID]:
        """Insert the runs; answers those that were there already."""
        if not batch.rows:
            return set()
        ids, schedules, numbers, blockers = zip(*batch.rows, strict=True)
        rows = {
            "id": uuid_array(ids),
            "schedule_id": uuid_array(schedules),
            "draft": int_array(numbers),
            "blocked_by": uuid_array(blockers),
        }
        drafts = dict(zip(DRAFT, map(list, zip(*batch.drafts, strict=True)), strict=True))
        return set(session.scalars(statements.INSERT_TICKS, rows | drafts))


@lru_cache(maxsize=4096)
def _extra(text: str) -> ExtraConfig:
    return ExtraConfig.model_validate_json(text)


def _rules_of(config: _Config, calendars: Mapping[str, NamedCalendar]) -> _Rules:
    return _rules(config.schedule, config.extra, chosen(_extra(config.extra).calendars, calendars))


@lru_cache(maxsize=4096)
def _rules(schedule: str, text: str, calendars: tuple[NamedCalendar, ...]) -> _Rules:
    extra = _extra(text)
    plan, rules = extra.plan(timing.parse_cached(schedule), calendars), extra.policies()
    return _Rules(extra, plan, rules, rules.follows_ends or plan.estimated)


def _condemn(batch: _Batch, due: Due, error: Exception) -> None:
    """Mark a schedule invalid; its undecided ticks are a range whose end and number nobody can tell."""
    schedule_id = due.schedule_id
    batch.rows = [row for row in batch.rows if row[1] != schedule_id]
    ids = {row[0] for row in batch.rows}
    batch.messages = [each for each in batch.messages if each.run_id in ids]
    batch.missed = [each for each in batch.missed if each["schedule_id"] != schedule_id]
    batch.clocks = [each for each in batch.clocks if each[0] != schedule_id]
    batch.states = [each for each in batch.states if each["id"] != schedule_id]
    batch.awaited = [each for each in batch.awaited if each[0] != schedule_id]
    batch.clocks.append((schedule_id, None, 0))
    gap = {"first": due.next_run_at, "last": batch.now, "count": None, "reason": Reason.INVALID_SCHEDULE}
    batch.missed.append({"schedule_id": schedule_id, **gap})
    reason = error.detail if isinstance(error, InvalidInput) else f"{type(error).__name__}: {error}"
    values = {"state": "invalid", "reason": reason, "action": "invalidate"}
    batch.states.append({"id": schedule_id, "drifted": isinstance(error, Unfit), **values})
