"""What can be done with workers: see what they do, drain, resize, and stop a run at one.

Wishes stand in PostgreSQL until they are done, so they outlive a broker that is away; what only the worker itself knows
is asked over Celery's remote control, and its silence is an answer.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any
from uuid import UUID

from fastapi import Body, status
from pydantic import BaseModel, ConfigDict, Field

from app.api.dependencies import Caller, SchedulerOf, ServicesOf
from app.api.examples import RESIZE_EXAMPLES, REVOKE_EXAMPLES
from app.api.guards import OPERATE, READ, guarded
from app.api.idempotency import repeatable
from app.api.problems import ACTS_ON_ONE, READS_ONE, WRITES_ONE
from app.api.routing import resource_router
from app.api.run_actions import MAX_NOTE
from app.api.runs import Run
from app.api.workers import Worker
from app.scheduling.messages import BrokerUnavailable
from app.worker.asking import ask

ANSWER_WITHIN = 1.0
MAX_ACTIVE = 200
AT_ONCE = 4
# Their own, since a silent worker takes all of the time: whoever is curious must not hold up those who publish runs.
_threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="questions")

router = resource_router("/workers", "Workers and beats")


class ResizeRequest(BaseModel):
    """How many slots more, or fewer."""

    model_config = ConfigDict(extra="forbid")

    change: int = Field(ge=-100, le=100, description="More slots; fewer when negative.")


class RevokeRequest(BaseModel):
    """Which of its runs to stop."""

    model_config = ConfigDict(extra="forbid")

    run_id: UUID
    force: bool = Field(False, description="Do not wait for it to clean up (Celery's `terminate`).")
    reason: str | None = Field(None, max_length=MAX_NOTE, description="For whoever wonders.")


class ReservedMessage(BaseModel):
    """A wake-up that a worker has taken, and not started yet."""

    run_id: str
    task: str


class WorkerActivity(BaseModel):
    """What a worker does now."""

    active: list[Run] = Field(description=f"Its runs, the longest first, {MAX_ACTIVE} at most.")
    reserved: list[ReservedMessage] | None = Field(
        description="Wake-ups that it has taken and not started: none as a rule, for workers take nothing ahead. Null"
        " when it did not answer."
    )
    answered: bool = Field(description="Whether it answered over Celery's remote control.")
    silence: str | None = Field(description="Why there is no answer.")


@router.get("/{worker_id}/activity", responses=READS_ONE, summary="Read what a worker does")
@guarded(READ)
async def get_worker_activity(worker_id: UUID, services: ServicesOf) -> WorkerActivity:
    """Active runs from the run table, which knows them also when the worker is silent; reserved ones from itself."""
    view = await services.observer.worker(worker_id)
    active = [Run.of(row) for row in await services.observer.active_runs(worker_id, limit=MAX_ACTIVE)]
    silence, reserved = None, None
    if view.alive:
        loop = asyncio.get_running_loop()
        reserved, silence = await loop.run_in_executor(_threads, _reserved, view.row.name)
    else:
        silence = "It holds no lease."
    return WorkerActivity(active=active, reserved=reserved, answered=reserved is not None, silence=silence)


@router.post(
    "/{worker_id}/drain",
    status_code=status.HTTP_202_ACCEPTED,
    responses=ACTS_ON_ONE,
    summary="Drain a worker",
)
@guarded(OPERATE)
async def drain_worker(worker_id: UUID, scheduler: SchedulerOf, services: ServicesOf) -> Worker:
    """It takes nothing any more, and ends when its runs have ended, or after `UPBEAT_WORKER_DRAIN_TIMEOUT`.

    Its supervisor, if it has one, starts another. 409 says how long a worker has been silent that cannot be asked.
    """
    await scheduler.drain_worker(worker_id)
    return Worker.of(await services.observer.worker(worker_id))


@router.post(
    "/{worker_id}/resize",
    status_code=status.HTTP_202_ACCEPTED,
    responses=WRITES_ONE,
    dependencies=[repeatable()],
    summary="Resize a worker's pool",
)
@guarded(OPERATE)
async def resize_worker(
    worker_id: UUID,
    body: Annotated[ResizeRequest, Body(openapi_examples=RESIZE_EXAMPLES)],
    scheduler: SchedulerOf,
    services: ServicesOf,
) -> Worker:
    """More or fewer slots, until it ends; `concurrency_wanted` is null again when it has them.

    In the prefork pool children end as they become idle. The pool `solo` has one slot, and keeps it: 409.
    """
    await scheduler.resize_worker(worker_id, body.change)
    return Worker.of(await services.observer.worker(worker_id))


@router.post(
    "/{worker_id}/revoke",
    status_code=status.HTTP_202_ACCEPTED,
    responses=WRITES_ONE,
    summary="Stop a run at a worker",
)
@guarded(OPERATE)
async def revoke_worker_run(
    worker_id: UUID,
    body: Annotated[RevokeRequest, Body(openapi_examples=REVOKE_EXAMPLES)],
    scheduler: SchedulerOf,
    user: Caller,
) -> Run:
    """As `POST /runs/{id}/cancel`, if this worker executes the run: another worker's is not touched (409)."""
    return Run.of(
        await scheduler.cancel_run_at(
            worker_id, body.run_id, actor=user.username, force=body.force, note=body.reason
        )
    )


def _reserved(name: str) -> tuple[list[ReservedMessage] | None, str | None]:
    try:
        answers = ask("reserved", seconds=ANSWER_WITHIN, of=[name])
    except BrokerUnavailable:
        return None, "The broker does not answer, so nobody can be asked."
    if name not in answers:
        return None, f"It did not answer within {ANSWER_WITHIN:g} s, although it holds a lease."
    found: list[dict[str, Any]] = answers[name]
    return [ReservedMessage(run_id=str(each["id"]), task=str(each["name"])) for each in found], None
