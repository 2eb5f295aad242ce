"""The words for where schedules and runs stand, and where runs come from. Loads nothing: the command completes them."""

from enum import StrEnum
from typing import Literal

ScheduleState = Literal["active", "paused", "disabled", "invalid", "completed"]

# Which ticks of the past get a run: those that never had one, those whose runs failed as well, or all.
Reprocess = Literal["none", "failed", "completed"]


class RunState(StrEnum):
    """Where a run stands; all but the first two are terminal."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    LOST = "lost"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    SKIPPED = "skipped"

    @property
    def terminal(self) -> bool:
        return self not in (RunState.QUEUED, RunState.RUNNING)


FAILED = (RunState.FAILED, RunState.TIMED_OUT, RunState.LOST)


class Origin(StrEnum):
    """Where a run comes from."""

    SCHEDULE = "schedule"
    MANUAL = "manual"
    BACKFILL = "backfill"
    SUBMIT = "submit"
    CODE = "code"
    REPLAY = "replay"


class BulkAction(StrEnum):
    """What is done to each."""

    ENABLE = "enable"
    DISABLE = "disable"
    PAUSE = "pause"
    RESUME = "resume"
    RUN = "run"
    DELETE = "delete"
