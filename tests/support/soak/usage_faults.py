"""What people and tasks do at the wrong moment."""

import json
import socket
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

from app.scheduling import schedules
from app.scheduling.config import ScheduleUpdate
from support.soak.field import Field
from support.soak.kinds import kind
from support.soak.members import MORTAL_QUEUE
from support.trial import CATALOGUE, soon


def _edit(field: Field, **change: object) -> bool:
    with field.trial.sessions.begin() as session:
        for each in field.chance.sample(field.trial.schedules, min(3, len(field.trial.schedules))):
            schedules.update(session, CATALOGUE, UUID(each), ScheduleUpdate.model_validate(change), "test")
    return True


@kind("schedules are edited while they fire", 2.0)
def edited(field: Field) -> bool:
    return _edit(field, description=f"edited {field.chance.random()}")


@kind("a schedule comes and goes", 1.0)
def short_lived(field: Field) -> bool:
    before = len(field.trial.schedules)
    field.trial.create(_about(field.chance.uniform(-0.2, 0.5)))
    made = field.trial.schedules.pop(before)

    def delete() -> None:
        with field.trial.sessions.begin() as session:
            schedules.remove(session, UUID(made), "test")

    field.later(field.chance.uniform(0, 1), delete)
    return True


@kind("many schedules are due at once", 0.5)
def crowd(field: Field) -> bool:
    before = len(field.trial.schedules)
    field.trial.create(_about(1), count=field.chance.randint(20, 60), task_name="crowd")
    del field.trial.schedules[before:]
    return True


@kind("a run's process ends itself", 1.0)
def suicide(field: Field) -> bool:
    """On a worker that may go with it; what may be started again has three tries."""
    how = field.chance.choice(["SIGSEGV", "SIGKILL", "exit", "SystemExit"])
    extra = {"queue": MORTAL_QUEUE, "on_worker_lost": field.chance.choice(["fail", "retry"])}
    return _once(field, "support.die", task_args=[how], task_extra_config=extra)


@kind("a run takes all the memory it may", 0.6)
def gluttony(field: Field) -> bool:
    return _once(field, "support.eat", task_args=[256], task_extra_config={"queue": MORTAL_QUEUE})


@kind("a run passes its hard limit", 0.8)
def too_long(field: Field) -> bool:
    return _once(
        field, "support.block", task_args=[8.0], task_extra_config={"time_limit": 1, "queue": MORTAL_QUEUE}
    )


@kind("a run fails and is tried again", 1.0)
def failing(field: Field) -> bool:
    return _once(field, "support.fail", task_extra_config={"max_attempts": 3, "retry_base": 0.2})


def _about(seconds: float) -> dict[str, Any]:
    """A tick in that time, or at once where the database's clock is ahead."""
    return soon(seconds) | {"run_if_past": True}


def _once(field: Field, task: str, **body: Any) -> bool:
    before = len(field.trial.schedules)
    field.trial.create(_about(0.2), task, **body)
    del field.trial.schedules[before:]
    return True


@kind("runs are cancelled", 1.0)
def cancelled(field: Field) -> bool:
    """Through the service, as people do; whatever it answers."""
    with field.database() as connection:
        found = connection.execute(
            "SELECT id FROM celery_task_runs WHERE state IN ('queued', 'running') ORDER BY id DESC LIMIT 10"
        ).fetchall()
    for (run_id,) in field.chance.sample(found, min(2, len(found))):
        field.ask("POST", f"/api/v1/runs/{run_id}/cancel")
    return bool(found)


@kind("clients hang up in mid-request", 1.5)
def hang_up(field: Field) -> bool:
    """After a part of the head, of the body, or all of it, without hearing the answer."""
    member = field.pick("api")
    if member is None or not member.url:
        return False
    body = json.dumps({"args": [str(uuid4())]}).encode()
    head = (
        "POST /api/v1/tasks/support.instant/runs HTTP/1.1\r\nHost: upbeat\r\n"
        f"Authorization: {field.authorization}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    whole = head + body
    with suppress(OSError):
        with socket.create_connection(
            (urlsplit(member.url).hostname, urlsplit(member.url).port), 2
        ) as connection:
            connection.sendall(whole[: field.chance.choice([20, len(head) + 3, len(whole)])])
        return True
    return False
