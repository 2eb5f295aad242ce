"""One action on many schedules: in parts, each a transaction, so that no clock is held for long.

A schedule that refuses is left alone, and reported; the others of its part go on.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy.orm import Session

from app.errors import Conflict, UpbeatError
from app.scheduling import on_demand, pausing, resuming, schedules
from app.scheduling.catalogue import Catalogue
from app.scheduling.config import ScheduleUpdate
from app.scheduling.ids import new_id
from app.scheduling.messages import RunMessage
from app.scheduling.states import BulkAction

PART = 50
MAX_REFUSALS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """An action with what it needs: ``note`` is why it is paused, ``reason`` why anything else is done."""

    action: BulkAction
    actor: str
    note: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """A schedule that was left alone, and why."""

    schedule_id: UUID
    why: str


@dataclass(slots=True)
class Outcome:
    """What was done, or would be; ``messages`` are published after the commit."""

    matched: int = 0
    changed: int = 0
    unchanged: int = 0
    refused: list[Refusal] = field(default_factory=list)
    refusals: int = 0
    messages: list[RunMessage] = field(default_factory=list)

    def add(self, part: "Outcome") -> None:
        """Another part's."""
        self.matched += part.matched
        self.changed += part.changed
        self.unchanged += part.unchanged
        self.refusals += part.refusals
        self.refused += part.refused[: max(0, MAX_REFUSALS - len(self.refused))]


def part(
    session: Session, catalogue: Catalogue, order: Order, ids: Sequence[UUID], *, redispatch_delay: float
) -> Outcome:
    """Do it to these schedules, each in a savepoint of its own."""
    done = Outcome(matched=len(ids))
    for schedule_id in ids:
        try:
            with session.begin_nested():
                changed, message = _one(session, catalogue, order, schedule_id, redispatch_delay)
                session.flush()
        except UpbeatError as error:
            done.refused.append(Refusal(schedule_id, error.detail))
            done.refusals += 1
            continue
        done.changed += changed
        done.unchanged += not changed
        done.messages += message
    return done


def _one(
    session: Session, catalogue: Catalogue, order: Order, schedule_id: UUID, redispatch_delay: float
) -> tuple[bool, Sequence[RunMessage]]:
    match order.action:
        case BulkAction.ENABLE | BulkAction.DISABLE:
            return _set_enabled(session, catalogue, order, schedule_id), ()
        case BulkAction.PAUSE:
            pausing.pause(session, schedule_id, note=order.note or "", author=order.actor)
            return True, ()
        case BulkAction.RESUME:
            done = resuming.resume(
                session,
                catalogue,
                schedule_id,
                author=order.actor,
                redispatch_delay=redispatch_delay,
            )
            return True, done.messages
        case BulkAction.RUN:
            message = on_demand.run_now(
                session,
                catalogue,
                schedule_id,
                actor=order.actor,
                run_id=new_id(),
                redispatch_delay=redispatch_delay,
            )
            return True, () if message is None else (message,)
        case BulkAction.DELETE:
            schedules.remove(session, schedule_id, order.actor, reason=order.reason)
            return True, ()


def _set_enabled(session: Session, catalogue: Catalogue, order: Order, schedule_id: UUID) -> bool:
    enabled = order.action is BulkAction.ENABLE
    row, _ = schedules.locked(session, schedule_id)
    if enabled and row.state == "paused":
        raise Conflict("The schedule is paused. Resume it instead.")
    if row.state == ("active" if enabled else "disabled"):
        return False
    body = ScheduleUpdate(task_enabled=enabled, reason=order.reason)
    schedules.update(session, catalogue, schedule_id, body, order.actor)
    return True
