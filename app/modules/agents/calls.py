"""One call of an agent: what is decided and stored before it, and what is stored after it.

Units of work for a sync session whose owner commits. Between the two nothing is locked and no
connection is held, however long the agent takes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from app.errors import FieldError, InvalidInput, NotFound
from app.modules.agents import blocking, budget, prompts
from app.modules.agents.client import Endpoint, Reply, Task
from app.modules.agents.errors import (
    AgentDisabled,
    AgentError,
    AgentUnreachable,
    BudgetExhausted,
    BudgetReserved,
)
from app.modules.agents.models import AgentCallRow, AgentRow
from app.modules.agents.records import MAX_ERROR, MAX_REPLY, MAX_REQUEST, estimate_tokens, keep
from app.outbound import OutboundRefused
from app.scheduling.catalogue import Catalogue
from app.scheduling.ids import new_id
from app.sealing import Sealer


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a run asks of an agent; ``prompt`` replaces the agent's own template."""

    variables: Mapping[str, Any]
    prompt: str | None = None
    run_id: UUID | None = None
    attempt: int = 1
    scheduled_for: str | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """A call that may be made: counted, recorded, and not yet sent."""

    call_id: UUID
    agent_id: UUID
    day: date
    reserved: int
    endpoint: Endpoint
    task: Task


@dataclass(frozen=True, slots=True)
class Refused:
    """The day's budget does not suffice, or not now."""

    error: BudgetExhausted | BudgetReserved


def find(session: Session, agent: str) -> AgentRow:
    """An agent by its name or its id.

    Raises:
        NotFound: there is none.
    """
    row = session.scalar(select(AgentRow).where(AgentRow.name == agent))
    if row is None and (identifier := _uuid(agent)) is not None:
        return by_id(session, identifier)
    if row is None:
        raise NotFound("There is no agent of this name. GET /api/v1/agents lists them.")
    return row


def by_id(session: Session, agent_id: UUID) -> AgentRow:
    """An agent; raises NotFound."""
    row = session.get(AgentRow, agent_id)
    if row is None:
        raise _no_agent()
    return row


def locked(session: Session, agent_id: UUID) -> AgentRow:
    """An agent, nobody else changes it until the transaction ends; raises NotFound."""
    row = session.scalar(
        select(AgentRow)
        .where(AgentRow.id == agent_id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )
    if row is None:
        raise _no_agent()
    return row


def disabled(agent: AgentRow) -> AgentDisabled:
    """The error of one that takes no calls."""
    return AgentDisabled(f"The agent {agent.name} is disabled. Enable it, or disable what calls it.")


def endpoint_of(agent: AgentRow, sealer: Sealer) -> Endpoint:
    """How to reach an agent, with its credential opened.

    Raises:
        SecretKeysUnfit: it has a credential that the keys cannot open.
    """
    return Endpoint(
        name=agent.name,
        kind=agent.kind,
        url=agent.url,
        health_url=agent.health_url,
        model=agent.model,
        system_prompt=agent.system_prompt,
        max_tokens=agent.max_tokens,
        time_limit=agent.time_limit,
        credential_header=agent.credential_header,
        credential=None if agent.credential is None else sealer.open(agent.credential),
    )


def prepare(
    session: Session, catalogue: Catalogue, sealer: Sealer, name: str, work: Work
) -> Prepared | Refused:
    """Count and record a call that is about to be made.

    A budget that does not suffice pauses the agent's schedules, which the owner must commit; that is
    why it is an answer and no error.

    Raises:
        NotFound, AgentDisabled, InvalidInput, SecretKeysUnfit: it cannot be made; nothing is counted.
    """
    agent = find(session, name)
    if not agent.enabled:
        raise disabled(agent)
    prompt = _prompt(agent, work)
    endpoint = endpoint_of(agent, sealer)
    estimate = estimate_tokens(agent.system_prompt, prompt) + (agent.max_tokens or 0)
    if agent.daily_tokens is not None and estimate > agent.daily_tokens:
        raise InvalidInput(
            FieldError(
                "variables",
                f"This call needs about {estimate} tokens, more than the agent's whole budget of a day"
                f" ({agent.daily_tokens}).",
            )
        )
    day = budget.reserve(session, agent, estimate)
    if day is None:
        return _refuse(session, catalogue, agent, estimate)
    call_id = new_id()
    request = prompt if prompt is not None else str(dict(work.variables))
    session.add(
        AgentCallRow(
            id=call_id,
            agent_id=agent.id,
            agent_name=agent.name,
            run_id=work.run_id,
            attempt=work.attempt,
            state="sent",
            request=keep(request, MAX_REQUEST, endpoint.credential),
            reserved_tokens=estimate,
        )
    )
    task = Task(
        key=str(work.run_id or call_id),
        attempt=work.attempt,
        prompt=prompt,
        variables=work.variables,
        scheduled_for=work.scheduled_for,
    )
    return Prepared(call_id, agent.id, day, estimate, endpoint, task)


def succeeded(
    session: Session, catalogue: Catalogue, prepared: Prepared, reply: Reply, duration: float
) -> None:
    """Record an answer: usage is corrected, health restored. ``duration`` in seconds."""
    told = [count for count in (reply.prompt_tokens, reply.completion_tokens) if count is not None]
    used = sum(told) if told else prepared.reserved
    budget.correct(session, prepared.agent_id, prepared.day, tokens=used - prepared.reserved)
    _record(
        session,
        prepared,
        state="succeeded",
        status=reply.status,
        reply=keep(reply.text, MAX_REPLY, prepared.endpoint.credential),
        prompt_tokens=reply.prompt_tokens,
        completion_tokens=reply.completion_tokens,
        duration=duration,
    )
    note_health(session, catalogue, prepared.agent_id, None)


def failed(
    session: Session, catalogue: Catalogue, prepared: Prepared, error: BaseException, duration: float
) -> None:
    """Record that no answer came, or none that can be used. ``duration`` in seconds.

    What certainly was not used is given back; what may have been stays counted.
    """
    answered = error.answered if isinstance(error, AgentError) else None
    unsent = isinstance(error, OutboundRefused) or (isinstance(error, AgentUnreachable) and not error.sent)
    refused = answered is not None and answered >= 300
    if unsent or refused:
        budget.correct(
            session, prepared.agent_id, prepared.day, tokens=-prepared.reserved, calls=-1 if unsent else 0
        )
    words = keep(str(error) or type(error).__name__, MAX_ERROR, prepared.endpoint.credential)
    _record(session, prepared, state="failed", status=answered, error=words, duration=duration)
    if isinstance(error, OutboundRefused) or (isinstance(error, AgentError) and error.ails):
        note_health(session, catalogue, prepared.agent_id, words)


def note_health(
    session: Session, catalogue: Catalogue, agent_id: UUID, problem: str | None, *, checked: bool = False
) -> AgentRow | None:
    """Count a success (no problem) or a failure, and pause or resume schedules where that changes things.

    None if the agent is gone.
    """
    try:
        agent = locked(session, agent_id)
    except NotFound:
        return None
    day = budget.today(session)
    before = agent.enabled, agent.health, agent.exhausted_on
    if problem is None:
        agent.consecutive_failures, agent.health, agent.last_error = 0, "healthy", None
    else:
        agent.consecutive_failures += 1
        agent.last_error = problem
        if agent.consecutive_failures >= agent.failures_allowed:
            agent.health = "unhealthy"
    if checked:
        agent.last_checked_at = func.clock_timestamp()
    if agent.exhausted_on != day:
        agent.exhausted_on = day if budget.is_spent(session, agent, day) else None
    session.flush()
    # A check looks in any case: schedules may have come to name the agent meanwhile.
    if checked or (agent.enabled, agent.health, agent.exhausted_on) != before:
        blocking.reconcile(session, catalogue, agent)
    return agent


def _refuse(session: Session, catalogue: Catalogue, agent: AgentRow, estimate: int) -> Refused:
    agent = locked(session, agent.id)
    day = budget.today(session)
    calls, tokens = budget.used(session, agent.id, day)
    if not budget.is_spent(session, agent, day, wanted=estimate):
        return Refused(
            BudgetReserved(
                f"Calls of the agent {agent.name} that are under way have reserved what this one needs, about"
                f" {estimate} of {agent.daily_tokens} tokens. Try again when they have ended."
            )
        )
    agent.exhausted_on = day
    session.flush()
    blocking.reconcile(session, catalogue, agent)
    return Refused(
        BudgetExhausted(
            f"The budget of the agent {agent.name} for {day} (UTC) does not suffice: {calls} of"
            f" {agent.daily_calls or 'any number of'} calls and {tokens} of"
            f" {agent.daily_tokens or 'any number of'} tokens are used or reserved. Its schedules are paused"
            " until the next day; a larger budget resumes them at once."
        )
    )


def _prompt(agent: AgentRow, work: Work) -> str | None:
    template = work.prompt if work.prompt is not None else agent.prompt_template
    if template is None:
        if agent.kind == "webhook":
            return None
        raise InvalidInput(
            FieldError("prompt", "This agent has no prompt template, so the call must bring a prompt.")
        )
    given = {"run_id": str(work.run_id or ""), "scheduled_for": work.scheduled_for or ""}
    return prompts.render(template, given | dict(work.variables))


def _record(session: Session, prepared: Prepared, **values: Any) -> None:
    session.execute(update(AgentCallRow).where(AgentCallRow.id == prepared.call_id).values(**values))


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _no_agent() -> NotFound:
    return NotFound("There is no agent with this id. GET /api/v1/agents lists them.")
