"""The history of a scheduled task: its versions with author and reason, what each changed, and bringing one back."""

from datetime import datetime
from typing import Annotated, Any, Self
from uuid import UUID

from fastapi import Body, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from app.api.concurrency import IfMatch, etag_header
from app.api.dependencies import Caller, SchedulerOf
from app.api.examples import RESTORE_EXAMPLES
from app.api.guards import OPERATE, READ, guarded
from app.api.pagination import NextCursor, PageQuery, decode_number, encode
from app.api.problems import EDITS_ONE, READS_ONE
from app.api.routing import resource_router
from app.api.schedules import ScheduledTask, tagged
from app.scheduling.config import MAX_REASON
from app.scheduling.history import Difference
from app.scheduling.models import ScheduleVersionRow

MAX_VERSION = 2**31 - 1

router = resource_router("/scheduled-tasks", "Scheduled tasks")

VersionPath = Annotated[int, Path(ge=1, le=MAX_VERSION, description="The version's number.")]


class ScheduleVersion(BaseModel):
    """A schedule as it was after one change."""

    version: int
    action: str
    author: str
    reason: str | None = Field(description="Why, as its author said.")
    changed_at: datetime
    config: dict[str, Any]

    @classmethod
    def of(cls, row: ScheduleVersionRow) -> Self:
        """The wire form."""
        return cls.model_validate(row, from_attributes=True)


class ScheduleHistory(BaseModel):
    """Versions, newest first."""

    items: list[ScheduleVersion]
    next_cursor: NextCursor


class FieldChange(BaseModel):
    """One field from one version to another."""

    field: str
    before: Any | None
    after: Any | None


class ScheduleDifference(BaseModel):
    """What differs from one version to another."""

    before: int | None = Field(description="Null when there is none before.")
    after: int
    action: str
    author: str
    reason: str | None
    changed_at: datetime
    changes: list[FieldChange] = Field(description="By field.")

    @classmethod
    def of(cls, found: Difference) -> Self:
        """The wire form."""
        after = found.after
        return cls(
            before=None if found.before is None else found.before.version,
            after=after.version,
            action=after.action,
            author=after.author,
            reason=after.reason,
            changed_at=after.changed_at,
            changes=[
                FieldChange(field=name, before=before, after=value)
                for name, (before, value) in found.changes.items()
            ],
        )


class DifferenceQuery(BaseModel):
    """With what a version is compared."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    against: int | None = Field(
        None, ge=1, le=MAX_VERSION, description="Another version; the one before when absent."
    )


class RestoreRequest(BaseModel):
    """Why an earlier version comes back."""

    model_config = ConfigDict(extra="forbid")

    reason: str | None = Field(
        None, max_length=MAX_REASON, description="For whoever wonders; kept with the version."
    )


@router.get("/{schedule_id}/history", responses=READS_ONE, summary="History of a scheduled task")
@guarded(READ)
async def list_scheduled_task_versions(
    schedule_id: UUID, query: Annotated[PageQuery, Query()], scheduler: SchedulerOf
) -> ScheduleHistory:
    """Each change with its author and reason, newest first; also of a schedule that was deleted."""
    rows, more = await scheduler.history(schedule_id, limit=query.limit, before=decode_number(query.cursor))
    return ScheduleHistory(items=[ScheduleVersion.of(row) for row in rows], next_cursor=encode(more))


@router.get(
    "/{schedule_id}/history/{version}", responses=READS_ONE, summary="Read a version of a scheduled task"
)
@guarded(READ)
async def get_scheduled_task_version(
    schedule_id: UUID, version: VersionPath, scheduler: SchedulerOf
) -> ScheduleVersion:
    """The schedule as it was then."""
    return ScheduleVersion.of(await scheduler.version(schedule_id, version))


@router.get(
    "/{schedule_id}/history/{version}/diff",
    responses=READS_ONE,
    summary="What a version of a scheduled task changed",
)
@guarded(READ)
async def diff_scheduled_task_version(
    schedule_id: UUID,
    version: VersionPath,
    query: Annotated[DifferenceQuery, Query()],
    scheduler: SchedulerOf,
) -> ScheduleDifference:
    """The fields that differ from the version before, or from any other."""
    return ScheduleDifference.of(await scheduler.difference(schedule_id, version, against=query.against))


@router.post(
    "/{schedule_id}/history/{version}/restore",
    responses=EDITS_ONE | etag_header(200),
    summary="Bring a version of a scheduled task back",
)
@guarded(OPERATE)
async def restore_scheduled_task_version(
    schedule_id: UUID,
    version: VersionPath,
    *,
    expected: IfMatch,
    response: Response,
    scheduler: SchedulerOf,
    user: Caller,
    body: Annotated[RestoreRequest | None, Body(openapi_examples=RESTORE_EXAMPLES)] = None,
) -> ScheduledTask:
    """Its configuration becomes that of the version, as a new version. Whether it is paused or disabled stays.

    A deleted schedule comes back under its id, with its history and runs; `If-Match` names the version of its deletion.
    It is as it was when it was deleted, fires from now on, and counts `max_runs` anew. One that was declared belongs to
    people from then on.

    What would be refused in an edit is refused here: a one-off in the past, a task that is gone, a declared schedule.
    """
    view = await scheduler.restore(
        schedule_id,
        version,
        actor=user.username,
        expected=expected,
        reason=None if body is None else body.reason,
    )
    return tagged(response, view)
