"""Many scheduled tasks at once: bulk actions by filter, export and import."""

from dataclasses import replace
from typing import Annotated, Any, Self
from uuid import UUID

from fastapi import Body, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.api.companion import in_parts, only_looks
from app.api.dependencies import Caller, SchedulerOf
from app.api.examples import BULK_EXAMPLES, EXPORT_EXAMPLE, IMPORT_EXAMPLES
from app.api.guards import OPERATE, READ, guarded
from app.api.idempotency import repeatable
from app.api.pagination import decode_id, encode
from app.api.problems import READS, WRITES
from app.api.routing import resource_router
from app.api.schedules import ScheduleChoice
from app.scheduling import bulk, transfer
from app.scheduling.calculating import calculated
from app.scheduling.choosing import PEOPLE, ScheduleFilter
from app.scheduling.config import MAX_REASON
from app.scheduling.facade import Scheduler
from app.scheduling.pausing import MAX_NOTE
from app.scheduling.schedule_operations import BulkDone, Exported
from app.scheduling.states import BulkAction

MAX_BULK = 1000
MAX_TRANSFER = 1000
MAX_YAML = 1_000_000
YAML = "text/yaml"
NEXT_CURSOR = "X-Next-Cursor"

router = resource_router("/scheduled-tasks", "Scheduled tasks")


class ScheduleBulkFilter(ScheduleChoice):
    """Which schedules; at least one field, so that nothing happens to all of them by mistake."""

    ids: list[UUID] = Field(default_factory=list, max_length=MAX_BULK)

    @model_validator(mode="after")
    def _names_something(self) -> Self:
        if not self.ids and all(getattr(self, name) is None for name in ScheduleChoice.model_fields):
            raise ValueError(f"give at least one of ids, {', '.join(ScheduleChoice.model_fields)}")
        return self

    def filter(self) -> ScheduleFilter:
        """The domain's form."""
        return ScheduleFilter(ids=self.ids, **self.model_dump(include=set(ScheduleChoice.model_fields)))


class ScheduleBulkRequest(BaseModel):
    """What to do, and to which schedules."""

    model_config = ConfigDict(extra="forbid")

    action: BulkAction
    filter: ScheduleBulkFilter
    note: str | None = Field(
        None, min_length=1, max_length=MAX_NOTE, description="Why they are paused; `pause` needs it."
    )
    reason: str | None = Field(
        None,
        max_length=MAX_REASON,
        description="Why they are enabled, disabled or deleted; kept with the version.",
    )
    dry_run: bool = Field(False, description="Say what would be done, and do nothing.")
    limit: int = Field(MAX_BULK, ge=1, le=MAX_BULK, description="Schedules at most, the oldest first.")
    cursor: str | None = Field(
        None, max_length=600, description="`next_cursor` of the answer before, to go on with the rest."
    )

    @model_validator(mode="after")
    def _pause_has_a_note(self) -> Self:
        if self.action is BulkAction.PAUSE and not (self.note or "").strip():
            raise ValueError("pause needs a note that says why")
        return self


class BulkRefusal(BaseModel):
    """A schedule that was left alone."""

    id: UUID
    why: str


class ScheduleBulkDone(BaseModel):
    """What was done, or would be."""

    dry_run: bool
    action: BulkAction
    matched: int = Field(description="Schedules that the filter finds, up to the limit.")
    changed: int
    unchanged: int = Field(description="Were as they were to be.")
    refused: int = Field(description="Could not be changed, and were left alone.")
    refusals: list[BulkRefusal] = Field(description="The first hundred of these, and why.")
    next_cursor: str | None = Field(description="Pass it as `cursor` to go on; null when all were looked at.")

    @classmethod
    def of(cls, done: BulkDone, request: ScheduleBulkRequest) -> Self:
        """The wire form."""
        outcome = done.outcome
        return cls(
            dry_run=request.dry_run,
            action=request.action,
            matched=outcome.matched,
            changed=outcome.changed,
            unchanged=outcome.unchanged,
            refused=outcome.refusals,
            refusals=[BulkRefusal(id=each.schedule_id, why=each.why) for each in outcome.refused],
            next_cursor=encode(done.next),
        )


class ScheduleExportQuery(ScheduleChoice):
    """Which schedules."""

    limit: int = Field(MAX_TRANSFER, ge=1, le=MAX_TRANSFER, description="Schedules in a document.")
    cursor: str | None = Field(
        None,
        max_length=600,
        description="`next_cursor`, or the header `X-Next-Cursor`, of the document before.",
    )


class ScheduleExport(BaseModel):
    """Schedules by name, as `POST /scheduled-tasks/import` takes them."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXPORT_EXAMPLE]})

    schedules: dict[str, dict[str, Any]] = Field(
        description="The key is the name; where two schedules share it, the id, and `task_name` is said."
    )
    next_cursor: str | None = Field(description="Pass it as `cursor`; null on the last document.")


class ScheduleImport(BaseModel):
    """Schedules to create and update."""

    model_config = ConfigDict(extra="forbid")

    schedules: dict[str, dict[str, Any]] | None = Field(
        None, max_length=MAX_TRANSFER, description="As they are exported. Either this or `yaml`."
    )
    yaml: str | None = Field(None, max_length=MAX_YAML, description="The same as a YAML document.")
    dry_run: bool = Field(False, description="Say what would be done, and do nothing.")
    skip_conflicts: bool = Field(
        False, description="Import the others when entries are in conflict; else nothing is imported (409)."
    )
    reason: str | None = Field(
        None, max_length=MAX_REASON, description="Kept with the versions of what is updated."
    )


class ImportedChange(BaseModel):
    """One field of a schedule that an import changes."""

    field: str
    before: Any | None
    after: Any | None


class ImportStep(BaseModel):
    """What becomes of one entry."""

    key: str
    action: transfer.ImportAction
    id: UUID | None = Field(description="Null for a conflict, and for what a dry run would create.")
    changes: list[ImportedChange]
    problem: str | None = Field(description="Why it is in conflict.")

    @classmethod
    def of(cls, step: transfer.Step, *, dry_run: bool) -> Self:
        """The wire form."""
        planned = dry_run and step.action is transfer.ImportAction.CREATE
        return cls(
            key=step.key,
            action=step.action,
            id=None if planned else step.schedule_id,
            changes=[
                ImportedChange(field=name, before=before, after=after)
                for name, (before, after) in step.changes.items()
            ],
            problem=step.problem,
        )


class ScheduleImported(BaseModel):
    """What an import did, or would do."""

    dry_run: bool
    counts: dict[transfer.ImportAction, int]
    items: list[ImportStep] = Field(description="One for each entry, in their order.")

    @classmethod
    def of(cls, steps: list[transfer.Step], *, dry_run: bool) -> Self:
        """The wire form."""
        return cls(
            dry_run=dry_run,
            counts={action: sum(step.action is action for step in steps) for action in transfer.ImportAction},
            items=[ImportStep.of(step, dry_run=dry_run) for step in steps],
        )


@router.post("/bulk", responses=WRITES, dependencies=[repeatable()], summary="Act on many scheduled tasks")
@guarded(OPERATE)
async def act_on_scheduled_tasks(
    body: Annotated[ScheduleBulkRequest, Body(openapi_examples=BULK_EXAMPLES)],
    request: Request,
    scheduler: SchedulerOf,
    user: Caller,
) -> ScheduleBulkDone:
    """Enable, disable, pause, resume, run now or delete those that the filter finds, the oldest first.

    In parts of 50, each a transaction with its audit; a schedule that refuses is left alone and reported. A dry run does
    the same and takes it back, so what it says is what would be.
    """
    (only_looks if body.dry_run else in_parts)(request)
    done = await scheduler.act_on_schedules(
        body.filter.filter(),
        bulk.Order(action=body.action, actor=user.username, note=body.note, reason=body.reason),
        limit=body.limit,
        after=decode_id(body.cursor),
        dry_run=body.dry_run,
    )
    return ScheduleBulkDone.of(done, body)


@router.get("/export", responses=READS, summary="Export scheduled tasks")
@guarded(READ)
async def export_scheduled_tasks(
    query: Annotated[ScheduleExportQuery, Query()], scheduler: SchedulerOf
) -> ScheduleExport:
    """Configuration without history and runs, the oldest first; importing it again changes nothing.

    Declared schedules are left out, for they are exported where they are declared; `owner` asks for them.
    """
    found = await _exported(query, scheduler)
    return ScheduleExport(schedules=found.entries, next_cursor=encode(found.next))


@router.get(
    "/export/yaml",
    response_class=Response,
    responses={
        **READS,
        200: {
            "description": "The document.",
            "content": {YAML: {"schema": {"type": "object"}}},
            "headers": {
                NEXT_CURSOR: {
                    "description": "Pass it as `cursor`; absent on the last document.",
                    "schema": {"type": "string"},
                }
            },
        },
    },
    summary="Export scheduled tasks as YAML",
)
@guarded(READ)
async def export_scheduled_tasks_as_yaml(
    query: Annotated[ScheduleExportQuery, Query()], scheduler: SchedulerOf
) -> Response:
    """The same as a file for import, or, without `pause_note`, for `UPBEAT_SCHEDULES_FILE`."""
    found = await _exported(query, scheduler)
    more = encode(found.next)
    headers = {} if more is None else {NEXT_CURSOR: more}
    document = await calculated(transfer.dumped, found.entries)
    return Response(document, media_type=YAML, headers=headers)


@router.post("/import", responses=WRITES, dependencies=[repeatable()], summary="Import scheduled tasks")
@guarded(OPERATE)
async def import_scheduled_tasks(
    body: Annotated[ScheduleImport, Body(openapi_examples=IMPORT_EXAMPLES)],
    request: Request,
    scheduler: SchedulerOf,
    user: Caller,
) -> ScheduleImported:
    """Create and update schedules by name, all or nothing, in one transaction. What is not in the document stays.

    An entry that is wrong is named in `errors` as `body: schedules.<key>.<field>`, and nothing is imported. No
    `If-Match` is needed: a dry run tells what would change, from what to what.
    """
    if body.dry_run:
        only_looks(request)
    steps = await scheduler.import_schedules(
        body.yaml,
        body.schedules,
        actor=user.username,
        dry_run=body.dry_run,
        skip_conflicts=body.skip_conflicts,
        reason=body.reason,
    )
    return ScheduleImported.of(steps, dry_run=body.dry_run)


async def _exported(query: ScheduleExportQuery, scheduler: Scheduler) -> Exported:
    which = replace(query.filter(), owner=query.owner or PEOPLE)
    return await scheduler.export_schedules(which, limit=query.limit, after=decode_id(query.cursor))
