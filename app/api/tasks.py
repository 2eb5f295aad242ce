"""Tasks: what this code can execute, and running one on demand."""

from typing import Annotated, Any, Self

from fastapi import Body, Query, Request, Response, status
from pydantic import BaseModel, ConfigDict, Field

from app.api.dependencies import CatalogueOf, caller, services_of
from app.api.examples import RUN_REQUEST_EXAMPLES, TASK_EXAMPLE
from app.api.guards import OPERATE, READ, guarded
from app.api.idempotency import repeatable, replied
from app.api.pagination import PageQuery, decode, encode
from app.api.problems import READS, READS_ONE, WRITES_ONE
from app.api.routing import direct, resource_router
from app.api.runs import Run, run_made
from app.scheduling.catalogue import TaskSpec
from app.scheduling.config import RunRequest

router = resource_router("/tasks", "Tasks")


class Task(BaseModel):
    """A registered task. Limits are seconds."""

    model_config = ConfigDict(json_schema_extra={"examples": [TASK_EXAMPLE]})

    name: str
    path: str = Field(description="Dotted path of its function.")
    aliases: list[str] = Field(description="Further names that `task_path` may use.")
    description: str
    schedulable: bool
    queue: str
    soft_time_limit: float | None
    time_limit: float | None
    max_attempts: int
    on_worker_lost: str
    concurrency_key: str | None = Field(description="What shares the limits below; null is its name.")
    concurrency_limit: int | None
    rate_limit: str | None
    parameters: dict[str, Any] | None = Field(
        description="JSON schema (2020-12) of the object of its keyword arguments, for a call that gives none by"
        " position. Null: anything is taken."
    )
    positional_parameters: dict[str, Any] | None = Field(
        description="JSON schema (2020-12) of the array of its positional arguments."
    )

    @classmethod
    def of(cls, spec: TaskSpec) -> Self:
        """The wire form of a catalogue entry."""
        known = spec.parameters
        schemas = {
            "parameters": known and known.keywords,
            "positional_parameters": known and known.positions,
        }
        plain = {name: getattr(spec, name) for name in cls.model_fields if name not in schemas}
        return cls(**plain, **schemas)


class TaskPage(BaseModel):
    """Tasks, by name."""

    items: list[Task]
    next_cursor: str | None = Field(description="Pass it as `cursor`; null on the last page.")


@router.get("", responses=READS, summary="List tasks")
@guarded(READ)
async def list_tasks(query: Annotated[PageQuery, Query()], catalogue: CatalogueOf) -> TaskPage:
    """The tasks that are registered in this service's code, by name."""
    after = decode(query.cursor) or ""
    rest = [spec for spec in catalogue if spec.name > after]
    page = rest[: query.limit]
    more = encode(page[-1].name) if len(rest) > query.limit else None
    return TaskPage(items=[Task.of(spec) for spec in page], next_cursor=more)


@router.get("/{name}", responses=READS_ONE, summary="Read a task")
@guarded(READ)
async def get_task(name: str, catalogue: CatalogueOf) -> Task:
    """One task, by its registered name, dotted path or alias."""
    return Task.of(catalogue.named(name))


@router.post(
    "/{name}/runs",
    status_code=status.HTTP_202_ACCEPTED,
    response_model=Run,
    responses=WRITES_ONE,
    dependencies=[repeatable(run_made)],
    summary="Run a task on demand",
)
@guarded(OPERATE)
@direct(RunRequest, run_made)
async def run_task(
    name: str,
    body: Annotated[RunRequest, Body(openapi_examples=RUN_REQUEST_EXAMPLES)],
    request: Request,
) -> Response:
    """Make a run of this task and dispatch it; the `Location` header names it.

    `args` and `kwargs` must fit the task's parameters.
    """
    user = await caller(request)
    run = await services_of(request).scheduler.submit(name, body, actor=user.username)
    return replied(run_made(run))
