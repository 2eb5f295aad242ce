"""An agent that cannot work pauses the schedules that name it, and resumes those, and only those.

What a person paused is never touched: a pause carries its author, and an agent's is `agent:` and its
id. Every function locks the agent's row first (its caller has done so), then schedules by age.
"""

from contextlib import suppress
from datetime import date
from typing import Final
from uuid import UUID

from sqlalchemy import Select, or_, select
from sqlalchemy.orm import Session

from app.errors import Conflict, NotFound
from app.modules.agents import budget
from app.modules.agents.models import AgentRow
from app.scheduling import schedules
from app.scheduling.catalogue import Catalogue
from app.scheduling.models import ScheduleRow
from app.scheduling.pausing import pause
from app.scheduling.resuming import resume

EXECUTE: Final = "execute_agent_periodic_task"


def reason(agent: AgentRow, today: date) -> str | None:
    """Why this agent takes no scheduled work now, in words; None if it does."""
    if not agent.enabled:
        return f"The agent {agent.name} is disabled."
    if agent.health == "unhealthy":
        return f"The agent {agent.name} is unhealthy. A health check that succeeds resumes this."
    if agent.exhausted_on == today:
        return (
            f"The agent {agent.name} has used up its budget of {today} (UTC). The first health check of the next"
            " day resumes this, or a larger budget."
        )
    return None


def reconcile(session: Session, catalogue: Catalogue, agent: AgentRow) -> int:
    """Pause or resume what this agent's state asks for; answers how many schedules changed."""
    note = reason(agent, budget.today(session))
    author = _author(agent)
    named = set(naming(session, agent))
    ours = dict(session.execute(_paused_by(author)).all())
    changed = 0
    for schedule_id in sorted(ours if note is None else ours.keys() - named):
        changed += _resume(session, catalogue, schedule_id, author)
    if note is not None:
        for schedule_id in sorted(each for each in named if ours.get(each) != note):
            changed += _pause(session, schedule_id, note, author)
    return changed


def release(session: Session, catalogue: Catalogue, agent: AgentRow) -> int:
    """Resume whatever this agent paused: it is about to go."""
    author = _author(agent)
    ours = sorted(dict(session.execute(_paused_by(author)).all()))
    return sum(_resume(session, catalogue, schedule_id, author) for schedule_id in ours)


def naming(session: Session, agent: AgentRow) -> list[UUID]:
    """The schedules that execute this agent, by its name or its id, oldest first."""
    known = (agent.name, str(agent.id))
    return list(
        session.scalars(
            select(ScheduleRow.id)
            .where(
                ScheduleRow.task == EXECUTE,
                or_(
                    ScheduleRow.task_kwargs["agent"].astext.in_(known),
                    ScheduleRow.task_args[0].astext.in_(known),
                ),
            )
            .order_by(ScheduleRow.id)
        )
    )


def _author(agent: AgentRow) -> str:
    return f"agent:{agent.id}"


def _paused_by(author: str) -> Select[UUID, str | None]:
    return select(ScheduleRow.id, ScheduleRow.pause_note).where(
        ScheduleRow.state == "paused", ScheduleRow.paused_by == author
    )


def _pause(session: Session, schedule_id: UUID, note: str, author: str) -> bool:
    with suppress(NotFound):
        row, _ = schedules.locked(session, schedule_id)
        if row.state == "active" or (row.state == "paused" and row.paused_by == author):
            pause(session, schedule_id, note=note, author=author)
            return True
    return False


def _resume(session: Session, catalogue: Catalogue, schedule_id: UUID, author: str) -> bool:
    # A schedule in which no tick is left stays paused, for a person to decide.
    with suppress(NotFound, Conflict):
        row, _ = schedules.locked(session, schedule_id)
        if row.state == "paused" and row.paused_by == author:
            resume(session, catalogue, schedule_id, author=author)
            return True
    return False
