"""Tasks: what this code can execute, and running one on demand."""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from fastapi import Body, Query, Request, Response, status
from pydantic import BaseModel, ConfigDict, Field

from app.api.dependencies import CatalogueOf, Services, ServicesOf, caller, services_of
from app.api.examples import RUN_REQUEST_EXAMPLES, TASK_EXAMPLE
from app.api.guards import OPERATE, READ, guarded
from app.api.idempotency import repeatable, replied
from app.api.pagination import FilterText, NextCursor, PageQuery, decode, encode
from app.api.problems import READS, READS_ONE, WRITES_ONE
from app.api.routing import direct, resource_router
from app.api.runs import Run, run_made
from app.api.statistics import DEFAULT_RANGE, RunStatistics
from app.scheduling.catalogue import TaskSpec
from app.scheduling.config import QueueName, RunRequest
from app.scheduling.selecting import RunFilter
from app.scheduling.statistics import Counted

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
    statistics: RunStatistics | None = Field(
        None,
        description="Of the last 24 hours, when they are asked for; `GET /statistics/runs` has other ranges.",
    )

    @classmethod
    def of(cls, spec: TaskSpec, counted: Mapping[str, Counted] | None = None) -> Self:
        """The wire form of a catalogue entry."""
        known = spec.parameters
        schemas = {
            "parameters": known and known.keywords,
            "positional_parameters": known and known.positions,
        }
        own = {*schemas, "statistics"}
        plain = {name: getattr(spec, name) for name in cls.model_fields if name not in own}
        statistics = None if counted is None else RunStatistics.of(counted.get(spec.name, Counted()))
        return cls(**plain, **schemas, statistics=statistics)


class TaskPage(BaseModel):
    """Tasks, by name."""

    items: list[Task]
    next_cursor: NextCursor


class StatisticsWanted(BaseModel):
    """What to tell besides."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    statistics: bool = Field(False, description="Count the runs of the last 24 hours, too.")


class TaskQuery(PageQuery):
    """Which tasks."""

    search: FilterText | None = Field(None, description="Part of its name, path or description.")
    queue: QueueName | None = None
    schedulable: bool | None = None
    statistics: bool = Field(False, description="Count the runs of the last 24 hours, too.")

    def includes(self, spec: TaskSpec) -> bool:
        """Whether it is one of those that are asked for."""
        words = (spec.name, spec.path, spec.description)
        return (
            (self.search is None or any(self.search.lower() in each.lower() for each in words))
            and self.queue in (None, spec.queue)
            and self.schedulable in (None, spec.schedulable)
        )


@router.get("", responses=READS, summary="List tasks")
@guarded(READ)
async def list_tasks(
    query: Annotated[TaskQuery, Query()], catalogue: CatalogueOf, services: ServicesOf
) -> TaskPage:
    """The tasks that are registered in this service's code, by name, filtered by name, queue and use."""
    after = decode(query.cursor) or ""
    rest = [spec for spec in catalogue if spec.name > after and query.includes(spec)]
    page = rest[: query.limit]
    more = encode(page[-1].name) if len(rest) > query.limit else None
    counted = await _last_day(services) if query.statistics else None
    return TaskPage(items=[Task.of(spec, counted) for spec in page], next_cursor=more)


@router.get("/{name}", responses=READS_ONE, summary="Read a task")
@guarded(READ)
async def get_task(
    name: str,
    query: Annotated[StatisticsWanted, Query()],
    catalogue: CatalogueOf,
    services: ServicesOf,
) -> Task:
    """One task, by its registered name, dotted path or alias."""
    spec = catalogue.named(name)
    return Task.of(spec, await _last_day(services, spec.name) if query.statistics else None)


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


async def _last_day(services: Services, task: str | None = None) -> Mapping[str, Counted]:
    until = await services.statistics.now()
    return await services.statistics.by_task(RunFilter(task=task), until - DEFAULT_RANGE, until)
