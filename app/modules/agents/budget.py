"""The daily budget: reserved before a call, corrected after it, counted by day (UTC) in the database.

The check and the count are one statement, so that any number of workers together stay within it.
What a worker reserved and could not correct, because it died, stays counted.
"""

from collections.abc import Iterable
from datetime import date, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import ColumnElement, Date, and_, cast, func, select, true, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.modules.agents.models import AgentCallRow, AgentRow, AgentUsageRow
from app.scheduling import schedules
from app.scheduling.ids import id_at

PATIENCE: Final = timedelta(seconds=60)
TODAY = cast(func.timezone("UTC", func.clock_timestamp()), Date)


def today(session: Session) -> date:
    """The day by which budgets are counted now."""
    return session.scalars(select(TODAY)).one()


def used(session: Session, agent_id: UUID, day: date) -> tuple[int, int]:
    """Calls and tokens of a day, with what is reserved."""
    return used_by(session, [agent_id], day).get(agent_id, (0, 0))


def used_by(session: Session, agents: Iterable[UUID], day: date) -> dict[UUID, tuple[int, int]]:
    """As `used`, of each that used something."""
    rows = session.execute(
        select(AgentUsageRow.agent_id, AgentUsageRow.calls, AgentUsageRow.tokens).where(
            AgentUsageRow.agent_id.in_(list(agents)), AgentUsageRow.day == day
        )
    )
    return {row.agent_id: (row.calls, row.tokens) for row in rows}


def under_way(session: Session, agent: AgentRow) -> int:
    """The tokens that are reserved for calls whose outcome may yet give some of them back.

    A call that has been on its way for longer than the agent's time limit has lost its worker.
    """
    since = schedules.database_time(session) - timedelta(seconds=agent.time_limit) - PATIENCE
    reserved = select(func.coalesce(func.sum(AgentCallRow.reserved_tokens), 0)).where(
        AgentCallRow.agent_id == agent.id, AgentCallRow.id >= id_at(since), AgentCallRow.state == "sent"
    )
    return int(session.scalars(reserved).one())


def is_spent(session: Session, agent: AgentRow, day: date, *, wanted: int = 1) -> bool:
    """Whether a call of ``wanted`` tokens will not fit into this day any more, whatever is given back."""
    calls, tokens = used(session, agent.id, day)
    if agent.daily_calls is not None and calls >= agent.daily_calls:
        return True
    limit = agent.daily_tokens
    return limit is not None and tokens - under_way(session, agent) + wanted > limit


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
