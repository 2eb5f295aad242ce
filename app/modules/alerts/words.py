"""The words for what is told and for what is wrong. Pure."""

from enum import StrEnum
from typing import Final


class FactType(StrEnum):
    """What a webhook can be told."""

    RUN_FAILED = "run.failed"
    """A run failed, timed out or was lost, and will not be tried again."""
    SCHEDULE_LATE = "schedule.late"
    """The run of a tick is not over, and the schedule's grace has passed."""
    SCHEDULE_MISSED = "schedule.missed"
    """Ticks passed without a run: missed during a downtime, or not started within the start deadline."""
    SCHEDULE_RECOVERED = "schedule.recovered"
    """The first success after a failed, late or missed run."""
    SCHEDULE_PAUSED = "schedule.paused"
    """The product itself paused it: after failures, or because its agent cannot work or has no budget left."""
    SCHEDULE_INVALID = "schedule.invalid"
    """It does not fit its task any more, or cannot be understood."""
    BEAT_SILENT = "beat.silent"
    """No beat has made a pass for a while, so nothing fires."""
    BEAT_RECOVERED = "beat.recovered"
    """A beat makes passes again."""
    QUEUE_UNCONSUMED = "queue.unconsumed"
    """Runs wait in a queue from which no living worker takes."""
    QUEUE_RECOVERED = "queue.recovered"
    """A worker takes from the queue again, or nothing waits in it any more."""


# Sent on request, to one webhook, whatever it has chosen.
TEST: Final = "webhook.test"


class AlertKind(StrEnum):
    """What can be wrong for a while."""

    RUN_FAILED = "run_failed"
    SCHEDULE_LATE = "schedule_late"
    SCHEDULE_MISSED = "schedule_missed"
    SCHEDULE_PAUSED = "schedule_paused"
    SCHEDULE_INVALID = "schedule_invalid"
    BEAT_SILENT = "beat_silent"
    QUEUE_UNCONSUMED = "queue_unconsumed"


# Closed by the schedule's next success.
UNTIL_SUCCESS: Final = (AlertKind.RUN_FAILED, AlertKind.SCHEDULE_LATE, AlertKind.SCHEDULE_MISSED)
# What a fact opens or, if it is open, counts in; the others are opened where their condition is looked at.
OPENED_BY: Final = {
    FactType.RUN_FAILED: AlertKind.RUN_FAILED,
    FactType.SCHEDULE_MISSED: AlertKind.SCHEDULE_MISSED,
    FactType.SCHEDULE_PAUSED: AlertKind.SCHEDULE_PAUSED,
    FactType.SCHEDULE_INVALID: AlertKind.SCHEDULE_INVALID,
}


def message_of(fact: str, data: dict[str, object]) -> str:
    """An alert's text for people, of the fact that opened it."""
    name = data.get("schedule") or data.get("schedule_id")
    if fact == FactType.RUN_FAILED:
        return f"A run of {name} ended as {data.get('state')}: {_error(data.get('error'))}."
    if fact == FactType.SCHEDULE_MISSED:
        count = data.get("count") or (1 if "run_id" in data else "some")
        return f"{name} missed {count} of its ticks ({data.get('reason')})."
    if fact == FactType.SCHEDULE_PAUSED:
        return f"{name} was paused by {data.get('paused_by')}: {data.get('note')}"
    return f"{name} is invalid: {data.get('reason')}"


def _error(error: object) -> str:
    kind = error.get("type") if isinstance(error, dict) else None
    return str(kind or "no error was recorded")
