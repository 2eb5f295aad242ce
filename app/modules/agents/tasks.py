"""Agents at work, and their upkeep, as tasks.

Beats read this file too, to know which tasks there are, and never execute one: the HTTP client and the ciphers, 13 MB
of memory, are imported where a body needs them.
"""

from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from app.settings import get_settings
from app.worker import app, catalogue
from app.worker.bridge import task_sessions

if TYPE_CHECKING:
    from app.modules.agents.service import Agents


@app.task(
    name="execute_agent_periodic_task",
    bind=True,
    aliases=(
        "src.apps.agent.tasks.execute_agent_periodic_task",
        "src.celery.agent_tasks.execute_agent_periodic_task",
    ),
)
async def execute_agent_periodic_task(
    self: Any, agent: str, variables: dict[str, Any] | None = None, prompt: str | None = None
) -> dict[str, Any]:
    """Have an agent, named by name or id, do something, and give back its reply.

    `variables` fill the `$names` of the agent's prompt template, or of `prompt`, which replaces it.
    The run's id goes with the request as `Idempotency-Key`, the same for each attempt.
    """
    from app.modules.agents.calls import Work

    request = self.request
    # Not `request.id`: the task id of a foreign caller need not be the run's, nor a UUID.
    run_id = getattr(request, "run_id", None)
    work = Work(
        variables=variables or {},
        prompt=prompt,
        run_id=None if run_id is None else UUID(run_id),
        attempt=(request.retries or 0) + 1,
        scheduled_for=getattr(request, "scheduled_for", None),
    )
    answer = await _agents().execute(agent, work)
    return asdict(answer) | {"call_id": str(answer.call_id)}


@app.task(
    name="periodic_agent_health_check",
    queue="system",
    aliases=(
        "src.apps.agent.tasks.periodic_agent_health_check",
        "src.celery.agent_tasks.periodic_agent_health_check",
    ),
)
async def periodic_agent_health_check() -> dict[str, int]:
    """Check every enabled agent; pause the schedules of those that cannot work, resume those of others.

    Also resumes, on a new day, what an exhausted budget had paused.
    """
    return await _agents().check_all()


@app.task(name="agents.forget_old_calls", queue="system")
async def forget_old_calls(days: int = 90) -> dict[str, int]:
    """Delete what was said to agents, and by them, more than `days` days ago."""
    if not 1 <= days <= 36_500:
        raise ValueError("days must be from 1 to 36500")
    return {"deleted": await _agents().forget_calls(timedelta(days=days))}


@app.task(name="agents.rotate_credentials", queue="system")
async def rotate_credentials() -> dict[str, int]:
    """Encrypt every stored credential with the newest of `UPBEAT_SECRET_KEYS`."""
    return {"rotated": await _agents().rotate_credentials()}


def _agents() -> "Agents":
    from app.modules.agents.service import Agents
    from app.outbound import OutboundPolicy
    from app.sealing import Sealer

    settings = get_settings()
    return Agents(
        task_sessions(),
        catalogue(),
        sealer=Sealer(settings.secret.each()),
        outbound=OutboundPolicy.parse(settings.outbound.entries()),
    )
