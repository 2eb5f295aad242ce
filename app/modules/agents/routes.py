"""Agents over HTTP."""

from datetime import date, datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from fastapi import Body, Depends, Query, Response, status
from pydantic import BaseModel, ConfigDict, Field

from app.api.concurrency import IfMatch, etag, etag_header
from app.api.dependencies import Caller, SchedulerOf, ServicesOf
from app.api.guards import OPERATE, READ, guarded
from app.api.idempotency import Answer, answer, repeatable
from app.api.pagination import FilterText, NextCursor, PageQuery, encode
from app.api.problems import ACTS_ON_ONE, EDITS_ONE, READS, READS_ONE, REMOVES_ONE, WRITES, WRITES_ONE
from app.api.routing import resource_router
from app.api.runs import Run, run_location, run_made
from app.modules.agents.blocking import EXECUTE
from app.modules.agents.config import AgentCreate, AgentUpdate, Credential, Health, Kind, RunAgent
from app.modules.agents.examples import (
    AGENT_EXAMPLE,
    CALL_EXAMPLE,
    CREATE_EXAMPLES,
    CREDENTIAL_EXAMPLES,
    RUN_EXAMPLES,
    UPDATE_EXAMPLES,
)
from app.modules.agents.models import AgentCallRow
from app.modules.agents.service import Agents, AgentView
from app.scheduling.config import RunRequest

router = resource_router("/agents", "Agents")

CallState = Literal["sent", "succeeded", "failed"]


def agents(services: ServicesOf) -> Agents:
    """The agents of this application."""
    return Agents(services.sessions, services.catalogue, sealer=services.sealer, outbound=services.outbound)


AgentsOf = Annotated[Agents, Depends(agents)]


class Agent(BaseModel):
    """An agent. Its credential is never shown."""

    model_config = ConfigDict(json_schema_extra={"examples": [AGENT_EXAMPLE]})

    id: UUID
    name: str
    version: int = Field(description="Grows with each change of its configuration.")
    kind: Kind
    url: str
    health_url: str | None
    description: str | None
    enabled: bool
    model: str | None
    system_prompt: str | None
    prompt_template: str | None
    max_tokens: int | None
    time_limit: float = Field(description="Seconds.")
    credential_header: str
    credential_set_at: datetime | None = Field(description="Null when it has no credential.")
    daily_calls: int | None = Field(description="Per UTC day; null for no limit.")
    daily_tokens: int | None = Field(description="Per UTC day; null for no limit.")
    failures_allowed: int
    health: Health
    consecutive_failures: int
    last_error: str | None
    last_checked_at: datetime | None
    exhausted_on: date | None = Field(description="The UTC day whose budget does not suffice.")
    usage_day: date = Field(description="The UTC day of the two figures that follow.")
    calls_used: int
    tokens_used: int = Field(description="With what is reserved for calls under way.")
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, view: AgentView) -> Self:
        """The wire form of an agent."""
        used = {"usage_day": view.day, "calls_used": view.calls, "tokens_used": view.tokens}
        return cls(**used, **{name: getattr(view.row, name) for name in cls.model_fields if name not in used})


class AgentPage(BaseModel):
    """Agents, oldest first."""

    items: list[Agent]
    next_cursor: NextCursor


class AgentQuery(PageQuery):
    """Which agents."""

    search: FilterText | None = Field(None, description="Part of the name.")
    kind: Kind | None = None
    health: Health | None = None
    enabled: bool | None = None


class AgentCall(BaseModel):
    """One request to an agent, and what came of it; long texts are cut, credentials taken out."""

    model_config = ConfigDict(json_schema_extra={"examples": [CALL_EXAMPLE]}, from_attributes=True)

    id: UUID
    run_id: UUID | None
    attempt: int
    state: CallState = Field(description="`sent` until the outcome is known.")
    status: int | None = Field(description="The HTTP status that the agent answered.")
    error: str | None
    request: str
    reply: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    duration: float | None = Field(description="Seconds.")
    called_at: datetime


class AgentCallPage(BaseModel):
    """Calls, newest first."""

    items: list[AgentCall]
    next_cursor: NextCursor


class CallQuery(PageQuery):
    """Which calls."""

    state: CallState | None = None


def agent_made(view: AgentView) -> Answer:
    """The answer to a creation."""
    headers = {"Location": f"/api/v1/agents/{view.row.id}", "ETag": etag(view.row.version)}
    return answer(status.HTTP_201_CREATED, Agent.of(view), headers)


def _tagged(response: Response, view: AgentView) -> Agent:
    response.headers["ETag"] = etag(view.row.version)
    return Agent.of(view)


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    responses=WRITES | etag_header(201),
    dependencies=[repeatable(agent_made)],
    summary="Create an agent",
)
@guarded(OPERATE)
async def create_agent(
    body: Annotated[AgentCreate, Body(openapi_examples=CREATE_EXAMPLES)],
    response: Response,
    agents: AgentsOf,
) -> Agent:
    """Its credential, if it needs one, is set by a call of its own."""
    view = await agents.create(body)
    response.headers["Location"] = f"/api/v1/agents/{view.row.id}"
    return _tagged(response, view)


@router.get("", responses=READS, summary="List agents")
@guarded(READ)
async def list_agents(query: Annotated[AgentQuery, Query()], agents: AgentsOf) -> AgentPage:
    """Agents in the order of their creation, filtered by name, kind, health and whether they are enabled."""
    filters = query.model_dump(include={"search", "kind", "health", "enabled"})
    found = await agents.page(limit=query.limit + 1, after=query.position(), **filters)
    shown = found[: query.limit]
    return AgentPage(
        items=[Agent.of(view) for view in shown],
        next_cursor=encode(shown[-1].row.id) if len(found) > query.limit else None,
    )


@router.get("/{agent_id}", responses=READS_ONE | etag_header(200), summary="Read an agent")
@guarded(READ)
async def get_agent(agent_id: UUID, response: Response, agents: AgentsOf) -> Agent:
    """One agent with its health and what it has used today."""
    return _tagged(response, await agents.get(agent_id))


@router.patch("/{agent_id}", responses=EDITS_ONE | etag_header(200), summary="Change an agent")
@guarded(OPERATE)
async def update_agent(
    agent_id: UUID,
    body: Annotated[AgentUpdate, Body(openapi_examples=UPDATE_EXAMPLES)],
    expected: IfMatch,
    response: Response,
    agents: AgentsOf,
) -> Agent:
    """Only the fields that are given change. A new origin in `url` removes the credential."""
    return _tagged(response, await agents.update(agent_id, body, expected=expected))


@router.delete(
    "/{agent_id}", status_code=status.HTTP_204_NO_CONTENT, responses=REMOVES_ONE, summary="Delete an agent"
)
@guarded(OPERATE)
async def delete_agent(agent_id: UUID, expected: IfMatch, agents: AgentsOf) -> None:
    """Refused while schedules name it. What was said stays until it is old."""
    await agents.remove(agent_id, expected=expected)


@router.put(
    "/{agent_id}/credential", responses=EDITS_ONE | etag_header(200), summary="Set an agent's credential"
)
@guarded(OPERATE)
async def set_agent_credential(
    agent_id: UUID,
    body: Annotated[Credential, Body(openapi_examples=CREDENTIAL_EXAMPLES)],
    expected: IfMatch,
    response: Response,
    agents: AgentsOf,
) -> Agent:
    """Stored encrypted, sent to the agent's own address only, and never shown again."""
    return _tagged(response, await agents.set_credential(agent_id, body.credential, expected=expected))


@router.get("/{agent_id}/calls", responses=READS_ONE, summary="List an agent's calls")
@guarded(READ)
async def list_agent_calls(
    agent_id: UUID, query: Annotated[CallQuery, Query()], agents: AgentsOf
) -> AgentCallPage:
    """What was asked and answered, newest first."""
    found = await agents.calls(agent_id, limit=query.limit + 1, before=query.position(), state=query.state)
    shown: list[AgentCallRow] = found[: query.limit]
    return AgentCallPage(
        items=[AgentCall.model_validate(row) for row in shown],
        next_cursor=encode(shown[-1].id) if len(found) > query.limit else None,
    )


@router.post("/{agent_id}/check", responses=ACTS_ON_ONE, summary="Check an agent's health now")
@guarded(OPERATE)
async def check_agent(agent_id: UUID, agents: AgentsOf) -> Agent:
    """Asks the agent, for ten seconds at most, and answers with its health as it is then."""
    return Agent.of(await agents.check(agent_id))


@router.post(
    "/{agent_id}/run",
    status_code=status.HTTP_202_ACCEPTED,
    responses=WRITES_ONE,
    dependencies=[repeatable(run_made)],
    summary="Run an agent once",
)
@guarded(OPERATE)
async def run_agent(
    agent_id: UUID,
    body: Annotated[RunAgent, Body(openapi_examples=RUN_EXAMPLES)],
    response: Response,
    *,
    agents: AgentsOf,
    scheduler: SchedulerOf,
    user: Caller,
) -> Run:
    """Make a run of `execute_agent_periodic_task`; its result has the agent's reply."""
    await agents.require_enabled(agent_id)
    given: dict[str, Any] = {"agent": str(agent_id), **body.model_dump(exclude_defaults=True)}
    run = await scheduler.submit(EXECUTE, RunRequest(kwargs=given), actor=user.username)
    response.headers["Location"] = run_location(run)
    return Run.of(run)
