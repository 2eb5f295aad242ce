"""The words for where a run stands and where it comes from."""

from enum import StrEnum


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
