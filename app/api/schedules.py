"""Scheduled tasks: what runs when, under which policies."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from fastapi import Body, Query, Response, status
from pydantic import BaseModel, ConfigDict, Field

from app.api.concurrency import IfMatch, etag, etag_header
from app.api.dependencies import Caller, SchedulerOf
from app.api.examples import CREATE_EXAMPLES, RUN_NOW_EXAMPLES, SCHEDULE_EXAMPLE, UPDATE_EXAMPLES
from app.api.guards import OPERATE, READ, guarded
from app.api.idempotency import Answer, answer, repeatable
from app.api.pagination import NO_CURSOR, FilterText, NextCursor, PageQuery, decode, encode
from app.api.problems import ACTS_ON_ONE, EDITS_ONE, READS, READS_ONE, REMOVES_ONE, WRITES, WRITES_ONE
from app.api.routing import resource_router
from app.api.runs import Run, run_location, run_made
from app.errors import FieldError, InvalidInput
from app.scheduling.choosing import Order, Place, ScheduleFilter
from app.scheduling.config import QueueName, ScheduleCreate, ScheduleUpdate, TaskType
from app.scheduling.facade import ScheduleView
from app.scheduling.policies import Overlap
from app.scheduling.states import ScheduleState

router = resource_router("/scheduled-tasks", "Scheduled tasks")


class ScheduledTask(BaseModel):
    """A schedule as it is stored."""

    model_config = ConfigDict(json_schema_extra={"examples": [SCHEDULE_EXAMPLE]})

    id: UUID
    version: int = Field(description="Grows with each change.")
    task_name: str
    task_path: str = Field(description="As it was given.")
    task: str = Field(description="The registered name that task_path stands for.")
    task_type: str
    task_enabled: bool
    state: ScheduleState
    state_reason: str | None
    schedule: dict[str, Any] = Field(description="A `crontab`, an `interval` or a `one_off`.")
    task_args: list[Any]
    task_kwargs: dict[str, Any]
    task_extra_config: dict[str, Any]
    description: str | None
    owner: Literal["code", "file"] | None = Field(
        description="Where it is declared, and then read-only here: in `code` or in the `file` of schedules. It can"
        " still be enabled, disabled, paused, resumed, run and backfilled. Null: it is people's own."
    )
    owner_key: str | None = Field(description="Its key there.")
    paused_at: datetime | None
    paused_by: str | None
    pause_note: str | None
    next_run_at: datetime | None = Field(
        description="Nominal time of the next tick; null when there is none."
    )
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, view: ScheduleView) -> Self:
        """The wire form of a schedule."""
        computed = {"task_enabled": view.row.state != "disabled", "next_run_at": view.next_run_at}
        stored = {name: getattr(view.row, name) for name in cls.model_fields if name not in computed}
        return cls(**stored, **computed)


class ScheduledTaskPage(BaseModel):
    """Schedules, oldest first."""

    items: list[ScheduledTask]
    next_cursor: NextCursor


def scheduled_task_made(view: ScheduleView) -> Answer:
    """The answer to a creation."""
    headers = {"Location": f"/api/v1/scheduled-tasks/{view.row.id}", "ETag": etag(view.row.version)}
    return answer(status.HTTP_201_CREATED, ScheduledTask.of(view), headers)


def tagged(response: Response, view: ScheduleView) -> ScheduledTask:
    """The wire form of a schedule, whose version becomes the answer's ETag."""
    response.headers["ETag"] = etag(view.row.version)
    return ScheduledTask.of(view)


class RunNow(BaseModel):
    """How a run on demand relates to the others."""

    model_config = ConfigDict(extra="forbid")

    overlap: Overlap | None = Field(None, description="In place of the schedule's own policy.")


class ScheduleChoice(BaseModel):
    """Which schedules."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    search: FilterText | None = Field(None, description="Part of the name or of the task's.")
    state: ScheduleState | None = None
    owner: Literal["people", "code", "file"] | None = Field(
        None, description="Where it is declared, if at all."
    )
    task: FilterText | None = Field(None, description="Registered name.")
    task_type: TaskType | None = None
    queue: QueueName | None = Field(None, description="The one that it names itself.")

    def filter(self) -> ScheduleFilter:
        """The domain's form."""
        return ScheduleFilter(**self.model_dump(include=set(ScheduleChoice.model_fields)))


class ScheduleQuery(ScheduleChoice, PageQuery):
    """Which schedules, in which order."""

    sort: Order = Field(
        Order.CREATED,
        description="`-` is the last first. `next_run` leaves those out that have no next tick.",
    )

    def place(self) -> Place | None:
        """Where the page before ended.

        Raises:
            InvalidInput: the cursor is of another order, or none that this service gave.
        """
        text = decode(self.cursor)
        if text is None:
            return None
        order, identifier, value = ([*text.split("|", 2), "", ""])[:3]
        if order != self.sort:
            raise InvalidInput(
                FieldError(
                    "cursor", "Is of a list in another order. Pass next_cursor of this one, or leave it out."
                )
            )
        timed = self.sort in (Order.UPDATED, Order.UPDATED_LAST, Order.NEXT_RUN)
        try:
            return Place(UUID(identifier), datetime.fromisoformat(value) if timed else value or None)
        except ValueError:
            raise InvalidInput(FieldError("cursor", NO_CURSOR)) from None

    def cursor_of(self, place: Place | None) -> str | None:
        """The cursor of a place."""
        if place is None:
            return None
        value = place.value.isoformat() if isinstance(place.value, datetime) else place.value or ""
        return encode(f"{self.sort}|{place.id}|{value}")


class DeleteQuery(BaseModel):
    """Why it is deleted."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reason: FilterText | None = Field(None, description="For whoever wonders; kept with the last version.")


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    responses=WRITES | etag_header(201),
    dependencies=[repeatable(scheduled_task_made)],
    summary="Create a scheduled task",
)
@guarded(OPERATE)
async def create_scheduled_task(
    body: Annotated[ScheduleCreate, Body(openapi_examples=CREATE_EXAMPLES)],
    response: Response,
    scheduler: SchedulerOf,
    user: Caller,
) -> ScheduledTask:
    """Give when it runs either as a `schedule` object or in the flat `task_crontab_*` fields.

    `task_args` and `task_kwargs` must fit the task: `GET /api/v1/tasks/{name}` has their JSON schema.
    """
    view = await scheduler.create_schedule(body, actor=user.username)
    response.headers["Location"] = f"/api/v1/scheduled-tasks/{view.row.id}"
    return tagged(response, view)


@router.get("", responses=READS, summary="List scheduled tasks")
@guarded(READ)
async def list_scheduled_tasks(
    query: Annotated[ScheduleQuery, Query()], scheduler: SchedulerOf
) -> ScheduledTaskPage:
    """Schedules, by default in the order of their creation, filtered by name, state, owner, task, type and queue."""
    page = await scheduler.list_schedules(
        limit=query.limit, after=query.place(), which=query.filter(), order=query.sort
    )
    return ScheduledTaskPage(
        items=[ScheduledTask.of(view) for view in page.items], next_cursor=query.cursor_of(page.next)
    )


@router.get("/{schedule_id}", responses=READS_ONE | etag_header(200), summary="Read a scheduled task")
@guarded(READ)
async def get_scheduled_task(schedule_id: UUID, response: Response, scheduler: SchedulerOf) -> ScheduledTask:
    """One schedule, with the time of its next run."""
    return tagged(response, await scheduler.get_schedule(schedule_id))


@router.patch("/{schedule_id}", responses=EDITS_ONE | etag_header(200), summary="Change a scheduled task")
@guarded(OPERATE)
async def update_scheduled_task(
    schedule_id: UUID,
    body: Annotated[ScheduleUpdate, Body(openapi_examples=UPDATE_EXAMPLES)],
    *,
    expected: IfMatch,
    response: Response,
    scheduler: SchedulerOf,
    user: Caller,
) -> ScheduledTask:
    """Only the fields that are given change; runs that exist keep what they were made with.

    A declared one (see `owner`) is changed where it is declared; here only `task_enabled` is taken.
    """
    view = await scheduler.update_schedule(schedule_id, body, actor=user.username, expected=expected)
    return tagged(response, view)


@router.delete(
    "/{schedule_id}",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=REMOVES_ONE,
    summary="Delete a scheduled task",
)
@guarded(OPERATE)
async def delete_scheduled_task(
    schedule_id: UUID,
    query: Annotated[DeleteQuery, Query()],
    expected: IfMatch,
    scheduler: SchedulerOf,
    user: Caller,
) -> None:
    """The schedule goes, its runs stay. A declared one (see `owner`) is deleted where it is declared."""
    await scheduler.delete_schedule(schedule_id, actor=user.username, expected=expected, reason=query.reason)


@router.post("/{schedule_id}/enable", responses=ACTS_ON_ONE, summary="Enable a scheduled task")
@guarded(OPERATE)
async def enable_scheduled_task(schedule_id: UUID, scheduler: SchedulerOf, user: Caller) -> ScheduledTask:
    """From the next tick on; ticks that passed meanwhile are not made up for."""
    return ScheduledTask.of(await scheduler.set_enabled(schedule_id, True, actor=user.username))


@router.post("/{schedule_id}/disable", responses=ACTS_ON_ONE, summary="Disable a scheduled task")
@guarded(OPERATE)
async def disable_scheduled_task(schedule_id: UUID, scheduler: SchedulerOf, user: Caller) -> ScheduledTask:
    """It fires no more until it is enabled; runs that exist are not touched."""
    return ScheduledTask.of(await scheduler.set_enabled(schedule_id, False, actor=user.username))


@router.post(
    "/{schedule_id}/run",
    status_code=status.HTTP_202_ACCEPTED,
    responses=WRITES_ONE,
    dependencies=[repeatable(run_made)],
    summary="Run a scheduled task now",
)
@guarded(OPERATE)
async def run_scheduled_task(
    schedule_id: UUID,
    response: Response,
    scheduler: SchedulerOf,
    user: Caller,
    body: Annotated[RunNow | None, Body(openapi_examples=RUN_NOW_EXAMPLES)] = None,
) -> Run:
    """Make a run with the schedule's arguments and options, whatever its state, start and end.

    Its overlap policy, or the one in the body, decides against its scheduled runs: the run may be skipped, or wait.
    """
    run = await scheduler.run_now(schedule_id, actor=user.username, overlap=body.overlap if body else None)
    response.headers["Location"] = run_location(run)
    return Run.of(run)
