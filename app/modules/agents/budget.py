"""The daily budget: reserved before a call, corrected after it, counted by day (UTC) in the database.

The check and the count are one statement, so that any number of workers together stay within it.
What a worker reserved and could not correct, because it died, stays counted.
"""

from datetime import date
from uuid import UUID

from sqlalchemy import ColumnElement, Date, and_, cast, func, select, true, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.modules.agents.models import AgentRow, AgentUsageRow

TODAY = cast(func.timezone("UTC", func.clock_timestamp()), Date)


def today(session: Session) -> date:
    """The day by which budgets are counted now."""
    return session.scalars(select(TODAY)).one()


def used(session: Session, agent_id: UUID, day: date) -> tuple[int, int]:
    """Calls and tokens of a day, with what is reserved."""
    row = session.execute(
        select(AgentUsageRow.calls, AgentUsageRow.tokens).where(
            AgentUsageRow.agent_id == agent_id, AgentUsageRow.day == day
        )
    ).one_or_none()
    return (0, 0) if row is None else (row.calls, row.tokens)


def is_spent(session: Session, agent: AgentRow, day: date) -> bool:
    """Whether nothing is left of this day's budget."""
    calls, tokens = used(session, agent.id, day)
    return (agent.daily_calls is not None and calls >= agent.daily_calls) or (
        agent.daily_tokens is not None and tokens >= agent.daily_tokens
    )


def reserve(session: Session, agent: AgentRow, tokens: int) -> date | None:
    """Count one call of about so many tokens; answers its day, or None if the budget does not suffice."""
    if agent.daily_tokens is not None and tokens > agent.daily_tokens:
        return None
    usage = AgentUsageRow
    counted = insert(usage).values(agent_id=agent.id, day=TODAY, calls=1, tokens=tokens)
    within: list[ColumnElement[bool]] = [true()]
    if agent.daily_calls is not None:
        within.append(usage.calls < agent.daily_calls)
    if agent.daily_tokens is not None:
        within.append(usage.tokens + tokens <= agent.daily_tokens)
    return session.scalar(
        counted.on_conflict_do_update(
            index_elements=[usage.agent_id, usage.day],
            set_={"calls": usage.calls + 1, "tokens": usage.tokens + tokens},
            where=and_(*within),
        ).returning(usage.day)
    )


def correct(session: Session, agent_id: UUID, day: date, *, tokens: int, calls: int = 0) -> None:
    """Add what was really used to what was reserved (or subtract)."""
    session.execute(
        update(AgentUsageRow)
        .where(AgentUsageRow.agent_id == agent_id, AgentUsageRow.day == day)
        .values(
            calls=func.greatest(AgentUsageRow.calls + calls, 0),
            tokens=func.greatest(AgentUsageRow.tokens + tokens, 0),
        )
    )
