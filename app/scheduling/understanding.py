"""A schedule's timing and options, understood: as somebody writes them, and as they are stored."""

from datetime import datetime
from typing import Any

from pydantic import ValidationError
from sqlalchemy.orm import Session

from app.errors import Conflict, FieldError, InvalidInput, UpbeatError
from app.scheduling import timing
from app.scheduling.calendars import named, require
from app.scheduling.config import CRONTAB_FIELDS, ExtraConfig, ScheduleFields
from app.scheduling.findings import message_of
from app.scheduling.models import ScheduleRow
from app.scheduling.plan import Plan

TIMING_OPTIONS = ("starts_at", "ends_at")


def stated_timing(body: ScheduleFields, now: datetime | None) -> timing.Timing | None:
    """The timing that a body gives in either form; None when it gives none.

    Raises:
        InvalidInput: it makes no sense, or is a one-off before ``now``.
    """
    stated = body.timing()
    if stated is None:
        return None
    try:
        parsed = timing.parse(stated)
        if now is not None:
            timing.refuse_past(parsed, now)
    except timing.TimingError as error:
        field = f"schedule.{error.field}" if body.schedule is not None else _flat_field(error, stated)
        raise InvalidInput(FieldError(field, error.problem)) from None
    return parsed


def _flat_field(error: timing.TimingError, stated: dict[str, Any]) -> str:
    """Which flat field is wrong: the one that is so also among stars."""
    if error.field == "timezone":
        return "task_crontab_timezone"
    parts = stated["expression"].split()
    for position, name in enumerate(CRONTAB_FIELDS):
        alone = ["*"] * len(CRONTAB_FIELDS)
        alone[position] = parts[position]
        try:
            timing.parse({"type": "crontab", "expression": " ".join(alone), "day_match": "and"})
        except timing.TimingError:
            return f"task_crontab_{name}"
    return "task_crontab_day_of_month"


def extra_of(row: ScheduleRow) -> ExtraConfig:
    """The typed form of a schedule's `task_extra_config`."""
    return ExtraConfig.model_validate(row.task_extra_config)


def plan_of(session: Session, row: ScheduleRow) -> Plan:
    """The evaluator of a stored schedule.

    Raises:
        InvalidInput, timing.TimingError, pydantic.ValidationError: what is stored cannot be understood any more.
    """
    extra = extra_of(row)
    return extra.plan(timing.parse(row.schedule), named(session, extra.calendars))


def sound_plan(session: Session, row: ScheduleRow) -> Plan:
    """As `plan_of`, for somebody who asks for something that needs it.

    Raises:
        Conflict: what is stored cannot be understood any more.
    """
    try:
        return plan_of(session, row)
    except (UpbeatError, ValueError) as error:
        raise _unsound(row, error) from None


def sound_extra(row: ScheduleRow) -> ExtraConfig:
    """As `extra_of`, for somebody who asks for something that needs it; raises as `sound_plan`."""
    try:
        return extra_of(row)
    except ValueError as error:
        raise _unsound(row, error) from None


def _unsound(row: ScheduleRow, error: Exception) -> Conflict:
    reason = (row.state_reason or why(error)).rstrip(".")
    return Conflict(f"The schedule is not valid: {reason}. Mend it first.")


def timing_fields(schedule: dict[str, Any], extra: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What decides which ticks a schedule has."""
    return schedule, {name: extra[name] for name in TIMING_OPTIONS if name in extra}


def plan_to_save(session: Session, row: ScheduleRow) -> Plan:
    """The evaluator of a schedule as it is about to be saved; raises as `checked_plan`, or when a part that stays as
    it was stored cannot be understood any more."""
    field = "schedule"
    try:
        parsed = timing.parse(row.schedule)
        field = "task_extra_config"
        extra = extra_of(row)
    except ValueError as error:
        problem = f"What is stored cannot be understood ({why(error).rstrip('.')}); give another one."
        raise InvalidInput(FieldError(field, problem)) from None
    return checked_plan(session, parsed, extra)


def checked_plan(session: Session, parsed: timing.Timing, extra: ExtraConfig) -> Plan:
    """The evaluator of what is about to be saved.

    Raises:
        InvalidInput: options that do not fit the timing, or calendars that do not exist.
    """
    calendars = require(session, extra.calendars)
    try:
        return extra.plan(parsed, calendars)
    except timing.TimingError as error:
        raise InvalidInput(FieldError(f"task_extra_config.{error.field}", error.problem)) from None


def dump_extra(extra: ExtraConfig) -> dict[str, Any]:
    """`task_extra_config` as it is stored: what was given, no defaults."""
    return extra.model_dump(mode="json", exclude_unset=True)


def why(error: Exception) -> str:
    """Why something is not valid, as one sentence without the value."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {message_of(first)}"
    return error.detail if isinstance(error, UpbeatError) else str(error)
