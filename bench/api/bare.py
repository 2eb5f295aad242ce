"""What people write today: FastAPI and Celery, or FastAPI alone, with our own validation of the same body.

`uvicorn bench.api.bare:app`. There is no authentication, no limit, no audit and no log, and what Redis loses is lost.
"""

import os
from uuid import uuid4

from celery import Celery
from fastapi import FastAPI, status
from pydantic import BaseModel

from app.scheduling.catalogue import TaskSpec
from app.scheduling.config import RunRequest
from app.scheduling.parameters import Parameters

celery = Celery("bare", broker=os.environ["BENCH_BROKER"])
celery.conf.task_ignore_result = True


@celery.task(name="bare.send_mail")
def send_mail(recipient: str, attempts: int, urgent: bool = False) -> str:  # noqa: FBT001, FBT002
    """As `bench.api.tasks` has it."""
    return recipient


SPEC = TaskSpec(name=send_mail.name, path="bench.api.bare.send_mail", parameters=Parameters(send_mail.run))
app = FastAPI()


class Accepted(BaseModel):
    """The id of what was made."""

    id: str


@app.post("/apply-async", status_code=status.HTTP_202_ACCEPTED)
async def apply_async(body: RunRequest) -> Accepted:
    """Validate, and publish as Celery does. In a thread (`def`) it is slower still."""
    SPEC.require_fit(body.args, body.kwargs, prefix="")
    return Accepted(id=send_mail.apply_async(body.args, body.kwargs).id)


@app.post("/bare", status_code=status.HTTP_202_ACCEPTED)
async def bare(body: RunRequest) -> Accepted:
    """Validate, and do nothing."""
    SPEC.require_fit(body.args, body.kwargs, prefix="")
    return Accepted(id=str(uuid4()))
