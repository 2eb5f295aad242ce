"""What a plan will do, tick by tick, with what clocks do to it. Pure."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import cast
from uuid import UUID

from app.scheduling.plan import Plan
from app.scheduling.walltime import occurrences


class DstMark(StrEnum):
    """What a change of clocks does to one tick."""

    GAP = "gap"
    """Its local time is absent that day: it runs at the end of the gap."""
    REPEATED_FIRST = "repeated_first"
    """Its local time comes twice; this is the first."""
    REPEATED_SECOND = "repeated_second"
    """Its local time comes twice; this is the second."""


@dataclass(frozen=True, slots=True)
class PreviewTick:
    """One tick to come.

    `nominal` and `due_at` (with jitter) are in UTC, `local` is the nominal time on the wall, with its offset.
    `asked_for` is the absent local time of a `gap`. `offset_change` is by how much the zone's offset differs from that
    of the tick before, None when it does not. `estimated` ticks depend on when runs end.
    """

    nominal: datetime
    due_at: datetime
    local: datetime
    dst: DstMark | None
    asked_for: datetime | None
    offset_change: timedelta | None
    excluded_by: str | None
    estimated: bool


def preview(
    plan: Plan,
    schedule_id: UUID,
    after: datetime,
    n: int,
    *,
    first: datetime | None = None,
    remaining: int | None = None,
) -> list[PreviewTick]:
    """The first `n` ticks after `after`, fewer when no more follow.

    `first` is where the schedule's clock stands: the ticks begin with it then, and it is no estimate. `remaining` is
    what is left of `max_runs`: the ticks end when so many are not excluded.
    """
    found: list[PreviewTick] = []
    tick, before = first or plan.next_after(after), plan.last_until(after)
    while tick is not None and len(found) < n and remaining != 0:
        shown = _describe(plan, schedule_id, tick, before, estimated=plan.estimated and tick != first)
        found.append(shown)
        if remaining is not None and shown.excluded_by is None:
            remaining -= 1
        before, tick = tick, plan.next_after(tick)
    return found


def _describe(
    plan: Plan, schedule_id: UUID, tick: datetime, before: datetime | None, *, estimated: bool
) -> PreviewTick:
    local = tick.astimezone(plan.zone)
    asked_for = plan.timing.skipped_wall(tick)
    change = None if before is None else _offset(local) - _offset(before.astimezone(plan.zone))
    return PreviewTick(
        nominal=tick,
        due_at=plan.due_at(schedule_id, tick),
        local=local,
        dst=_mark(local) if asked_for is None else DstMark.GAP,
        asked_for=asked_for,
        offset_change=change or None,
        excluded_by=plan.excluded_by(tick),
        estimated=estimated,
    )


def _mark(local: datetime) -> DstMark | None:
    if local.fold:
        return DstMark.REPEATED_SECOND
    if local.tzinfo in (UTC, None) or len(occurrences(local.replace(tzinfo=None), local.tzinfo or UTC)) < 2:
        return None
    return DstMark.REPEATED_FIRST


def _offset(local: datetime) -> timedelta:
    return cast(timedelta, local.utcoffset())
