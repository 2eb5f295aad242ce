"""Do the scheduled tasks still fit their tasks?"""

from typing import Annotated, Self
from uuid import UUID

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field

from app.api.dependencies import SchedulerOf
from app.api.guards import OPERATE, guarded
from app.api.pagination import decode_id, encode
from app.api.problems import READS
from app.api.routing import resource_router
from app.scheduling.drift import Change, Drift

router = resource_router("/scheduled-tasks", "Scheduled tasks")

SECONDS = 5.0


class CheckQuery(BaseModel):
    """Where to go on."""

    model_config = ConfigDict(extra="forbid")

    cursor: str | None = Field(
        None, max_length=600, description="`next_cursor` of the check that is continued."
    )


class DriftFinding(BaseModel):
    """A schedule that was changed, or that does not fit its task."""

    schedule_id: UUID
    task_path: str
    state: str = Field(description="Before the check.")
    change: Change
    reason: str | None


class DriftCheck(BaseModel):
    """What a check did."""

    checked: int
    invalidated: int = Field(description="Were active and fit no longer: invalid from now on.")
    restored: int = Field(description="Had been made invalid by a check, fit again: active from now on.")
    completed: int = Field(description="Fit again, and no tick is left in them.")
    reported: int = Field(description="Do not fit, and are paused, disabled or invalid already: left alone.")
    findings: list[DriftFinding] = Field(description="At most 1,000 of them.")
    next_cursor: str | None = Field(description="Pass it as `cursor` to check the rest; null at the end.")

    @classmethod
    def of(cls, found: Drift) -> Self:
        """The wire form."""
        return cls(
            checked=found.checked,
            **{change.value: count for change, count in found.counts.items()},
            findings=[DriftFinding.model_validate(each, from_attributes=True) for each in found.findings],
            next_cursor=encode(found.next),
        )


@router.post("/check", responses=READS, summary="Check scheduled tasks against their tasks")
@guarded(OPERATE)
async def check_scheduled_tasks(query: Annotated[CheckQuery, Query()], scheduler: SchedulerOf) -> DriftCheck:
    """Find those whose task is gone, may not be scheduled, or takes other arguments, before their hour comes.

    A deployment does the same. Takes at most about five seconds; with very many schedules, go on by the cursor.
    """
    return DriftCheck.of(await scheduler.deployment.check(after=decode_id(query.cursor), seconds=SECONDS))
