"""Signature drift: every stored schedule is checked against the tasks of this code, before its hour comes.

One that fits no longer (its task is gone, may not be scheduled, or takes other arguments) becomes invalid, with the
reason and a version of its own; when it fits again it is active again, from its next tick on. Only what a check made
invalid is mended by one: a schedule whose timing cannot be read stays as a beat or a person left it. Paused and
disabled schedules are told of, and stay what a person made them.

Schedules are read a page at a time and changed in the transaction of their page, so memory and locks do not grow
with their number; who was edited in between was checked by the edit.
"""

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import Any
from uuid import UUID

from pydantic_core import from_json
from sqlalchemy import select, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from app.errors import InvalidInput
from app.scheduling import passing, schedules, statements, understanding, waiting
from app.scheduling.catalogue import Catalogue, Unfit
from app.scheduling.models import CatalogueRow, ScheduleRow
from app.scheduling.policies import MissedRange, Reason, missed

logger = logging.getLogger(__name__)

# A beat asks this often (seconds) whether its own tasks are those of the last check.
AGAIN_AFTER = 300.0

PAGE = 500
MAX_FINDINGS = 1000
ALL_PASSED = "its ticks passed while it did not fit its task"
UNREADABLE = (ValueError, InvalidInput)
FIRST = UUID(int=0)
_Why = tuple[Reason, str]


class Change(StrEnum):
    """What a check did to a schedule."""

    INVALIDATED = "invalidated"
    """It was active and fits no longer, so it is invalid now."""
    RESTORED = "restored"
    """An earlier check had made it invalid; it fits again and is active."""
    COMPLETED = "completed"
    """It fits again, and no tick is left in it."""
    REPORTED = "reported"
    """It does not fit, and is paused, disabled or invalid already: nothing was changed."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One schedule that was changed, or that does not fit. ``reason`` never repeats an argument."""

    schedule_id: UUID
    task_path: str
    state: str
    change: Change
    reason: str | None


@dataclass(slots=True)
class Drift:
    """What a check found. ``findings`` holds the first 1,000; ``next`` is where to go on, None at the end."""

    checked: int = 0
    counts: dict[Change, int] = field(default_factory=lambda: dict.fromkeys(Change, 0))
    findings: list[Finding] = field(default_factory=list)
    next: UUID | None = None

    @property
    def unfit(self) -> int:
        """How many of the checked do not fit."""
        return self.counts[Change.INVALIDATED] + self.counts[Change.REPORTED]

    def add(self, other: "Drift") -> None:
        """Take in the page that followed."""
        self.checked += other.checked
        for change, count in other.counts.items():
            self.counts[change] += count
        self.findings.extend(other.findings[: MAX_FINDINGS - len(self.findings)])
        self.next = other.next


@dataclass(frozen=True, slots=True)
class _Move:
    """A schedule's way into another state; ``undecided`` are due ticks that nobody will decide any more."""

    schedule_id: UUID
    version: int
    state: str
    reason: str | None
    next_run_at: datetime | None
    undecided: MissedRange | None = None


_PAGE = text("""
SELECT id, version, state, drifted, task_path, task_args::text AS args, task_kwargs::text AS kwargs
FROM celery_periodic_task_configs
WHERE id > :after AND state <> 'completed' AND (state <> 'invalid' OR drifted)
ORDER BY id
LIMIT :size
""")

_MOVE = text(f"""
WITH moves AS (
    SELECT * FROM unnest(CAST(:ids AS uuid[]), CAST(:versions AS int[]), CAST(:states AS text[]),
                         CAST(:reasons AS text[]), CAST(:instants AS timestamptz[]))
        AS u (id, version, state, reason, next_run_at)
), changed AS (
    UPDATE celery_periodic_task_configs c
    SET state = m.state, state_reason = m.reason, drifted = m.state = 'invalid', version = c.version + 1,
        updated_at = clock_timestamp()
    FROM moves m
    WHERE c.id = m.id AND c.version = m.version
    RETURNING c.*
), clocks AS (
    UPDATE celery_periodic_task_clocks k
    SET next_run_at = m.next_run_at
    FROM moves m JOIN changed ON changed.id = m.id
    WHERE k.schedule_id = m.id
)
INSERT INTO celery_periodic_task_config_versions (schedule_id, version, action, changed_at, config, author)
SELECT id, version, CASE state WHEN 'invalid' THEN 'invalidate' WHEN 'active' THEN 'restore' ELSE 'complete' END,
       updated_at, {statements.VERSIONED}, 'upbeat'
FROM changed
RETURNING schedule_id
""")


def check_page(session: Session, catalogue: Catalogue, after: UUID = FIRST, size: int = PAGE) -> Drift:
    """Check the next ``size`` schedules that are younger than ``after``. The caller commits."""
    rows = session.execute(_PAGE, {"after": after, "size": size}).all()
    found = Drift(checked=len(rows), next=rows[-1].id if len(rows) == size else None)
    judge = _judge(catalogue)
    unfit = {row.id: judge(row.task_path, row.args, row.kwargs) for row in rows}
    losing = [row for row in rows if row.state == "active" and unfit[row.id]]
    regaining = [row for row in rows if row.state == "invalid" and not unfit[row.id]]
    moves = _moves(session, losing, regaining, unfit)
    changed = _write(session, moves.values())
    for row in rows:
        why = unfit[row.id]
        if row.id in changed:
            change = _CHANGES[moves[row.id].state]
        elif why and row.state != "active":
            change = Change.REPORTED
        else:
            continue
        reason = why[1] if why else moves[row.id].reason
        found.counts[change] += 1
        found.findings.append(Finding(row.id, row.task_path, row.state, change, reason))
        if change is not Change.REPORTED:
            logger.warning(
                "schedule %s %s: %s",
                *(row.id, change, reason or "it fits its task again"),
                extra={"action": f"schedule_{change}", "schedule_id": str(row.id)},
            )
    return found


def look(session: Session, catalogue: Catalogue) -> list[Finding]:
    """Which schedules do not fit their tasks: what a check would find, changing nothing; the first 1,000."""
    judge, found = _judge(catalogue), list[Finding]()
    after: UUID | None = FIRST
    while after is not None and len(found) < MAX_FINDINGS:
        rows = session.execute(_PAGE, {"after": after, "size": PAGE}).all()
        for row in rows:
            if why := judge(row.task_path, row.args, row.kwargs):
                found.append(Finding(row.id, row.task_path, row.state, Change.REPORTED, why[1]))
        after = rows[-1].id if len(rows) == PAGE else None
    return found[:MAX_FINDINGS]


def last_checked(session: Session) -> str | None:
    """The fingerprint of the tasks that all schedules were last checked against."""
    return session.scalar(select(CatalogueRow.fingerprint))


def remember(session: Session, catalogue: Catalogue) -> None:
    """All schedules have been checked against these tasks."""
    session.execute(
        text("DELETE FROM celery_task_catalogues WHERE fingerprint <> :it"), {"it": catalogue.fingerprint}
    )
    session.execute(
        text(
            "INSERT INTO celery_task_catalogues (fingerprint) VALUES (:it)"
            " ON CONFLICT (fingerprint) DO UPDATE SET checked_at = clock_timestamp()"
        ),
        {"it": catalogue.fingerprint},
    )


class Watch:
    """A beat's share: at its start, if the tasks are not those of the last check, a page at each of its passes."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._after: UUID | None = FIRST
        self._known = False
        self._again_at = 0.0

    def step(self, sessions: sessionmaker[Session]) -> bool:
        """Check a page if something is left to check; True if more is left."""
        if self._after is None:
            if time.monotonic() < self._again_at:
                return False
            # Another release may have judged meanwhile.
            self._after, self._known = FIRST, False
        self._again_at = time.monotonic() + AGAIN_AFTER
        try:
            with sessions.begin() as session:
                self._after = self._page(session, self._after)
        except SQLAlchemyError:
            raise
        except Exception:
            # Ticks must go on; what does not fit is found when it fires.
            logger.exception("the check of schedules failed", extra={"action": "drift_check_failed"})
            self._after = None
        return self._after is not None

    def _page(self, session: Session, after: UUID) -> UUID | None:
        if not self._known and last_checked(session) == self._catalogue.fingerprint:
            return None
        self._known = True
        upcoming = check_page(session, self._catalogue, after).next
        if upcoming is None:
            remember(session, self._catalogue)
        return upcoming


_CHANGES = {"invalid": Change.INVALIDATED, "active": Change.RESTORED, "completed": Change.COMPLETED}


def _judge(catalogue: Catalogue) -> Callable[[str, str, str], _Why | None]:
    """Whether a call fits, as a reason and words, remembered: many schedules make the same call."""

    @lru_cache(maxsize=4096)
    def judge(path: str, args: str, kwargs: str) -> _Why | None:
        task = catalogue.find(path)
        reason = Reason.TASK_NOT_REGISTERED if task is None else Reason.TASK_NOT_SCHEDULABLE
        try:
            task = catalogue.schedulable(path, "task_path")
            reason = Reason.INVALID_ARGUMENTS
            task.require_fit(from_json(args), from_json(kwargs))
        except Unfit as error:
            return reason, error.detail
        return None

    return judge


def _moves(
    session: Session, losing: Sequence[Any], regaining: Sequence[Any], unfit: dict[UUID, _Why | None]
) -> dict[UUID, _Move]:
    """Where these schedules go; their clocks are locked from now on."""
    versions = {row.id: row.version for row in (*losing, *regaining)}
    if not versions:
        return {}
    clocks = schedules.lock_all(session, versions.keys())
    now = schedules.database_time(session)
    undecided = {row.id for row in losing if (at := clocks.get(row.id)) is not None and at <= now}
    needed = undecided.union(row.id for row in regaining)
    stored = {
        row.id: row
        for row in session.scalars(select(ScheduleRow).where(ScheduleRow.id.in_(needed)))
        if row.version == versions[row.id]
    }
    moves = {}
    for row in losing:
        reason, words = unfit[row.id] or (None, None)
        gap = None
        first = clocks.get(row.id)
        if row.id in undecided and row.id in stored and first is not None and reason is not None:
            with suppress(*UNREADABLE):
                gap = missed(understanding.plan_of(session, stored[row.id]), first, now, reason)
        moves[row.id] = _Move(row.id, row.version, "invalid", words, None, gap)
    for key in (row.id for row in regaining if row.id in stored):
        # One that cannot be read for another reason stays invalid: an edit has to mend it.
        with suppress(*UNREADABLE):
            plan = understanding.plan_of(session, stored[key])
            awaits_end = plan.estimated and waiting.counts(session, key) != (0, 0)
            upcoming = None if awaits_end else plan.next_after(now)
            state, words = ("active", None) if upcoming or awaits_end else ("completed", ALL_PASSED)
            moves[key] = _Move(key, versions[key], state, words, upcoming)
    return moves


def _write(session: Session, moves: Iterable[_Move]) -> set[UUID]:
    """Move those that nobody has edited meanwhile; answers which."""
    each = list(moves)
    if not each:
        return set()
    changed = set(
        session.scalars(
            _MOVE,
            {
                "ids": [move.schedule_id for move in each],
                "versions": [move.version for move in each],
                "states": [move.state for move in each],
                "reasons": [move.reason for move in each],
                "instants": [move.next_run_at for move in each],
            },
        )
    )
    for move in each:
        if move.schedule_id in changed:
            passing.record_range(session, move.schedule_id, move.undecided)
    if any(move.state == "active" for move in each):
        session.execute(statements.NOTIFY_BEATS)
    return changed
