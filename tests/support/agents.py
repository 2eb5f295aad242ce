"""Agents whose endpoint is the tests' peer."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from pydantic import SecretStr
from sqlalchemy import text, update
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app.db import async_engine, async_sessions
from app.modules.agents.config import AgentCreate
from app.modules.agents.models import AgentCallRow, AgentRow, AgentUsageRow
from app.modules.agents.service import Agents
from app.outbound import OutboundPolicy
from app.scheduling import schedules
from app.scheduling.config import ScheduleCreate
from app.scheduling.models import ScheduleRow
from app.sealing import Sealer, new_key
from app.settings import OutboundSettings, SecretSettings, Settings
from app.worker import catalogue
from support.peer import Answer, Peer, completion

CREDENTIAL = "sk-not-for-other-eyes-0123456789"
CHAT_PATH = "/v1/chat/completions"
HEALTH_PATH = "/v1/models"
TABLES = ("agents", "agent_usage", "agent_calls", "celery_periodic_task_configs")
SEALER = Sealer([new_key()])
LOOPBACK_ALLOWED = OutboundPolicy.parse(["127.0.0.1"])


def with_agents(settings: Settings, *keys: str) -> Settings:
    """The settings, with keys for secrets (one is made if none is given) and loopback allowed."""
    return settings.model_copy(
        update={
            "secret": SecretSettings(keys=SecretStr(",".join(keys or (new_key(),)))),
            "outbound": OutboundSettings(allow="127.0.0.1"),
        }
    )


def chat(url: str, **changes: Any) -> AgentCreate:
    """A chat agent at a peer's address."""
    stated = {
        "name": "summariser",
        "kind": "chat",
        "url": f"{url}/v1",
        "model": "small",
        "system_prompt": "Be brief.",
        "prompt_template": "Summarise $topic.",
        "time_limit": 5,
    }
    return AgentCreate.model_validate(stated | changes)


def webhook(url: str, **changes: Any) -> AgentCreate:
    """A webhook at a peer's address."""
    return AgentCreate.model_validate({"name": "hook", "kind": "webhook", "url": f"{url}/hook"} | changes)


def well(peer: Peer) -> Peer:
    """A peer that has forgotten everything, and answers as a healthy chat agent does."""
    peer.forget()
    peer.answer(CHAT_PATH, completion("Nothing new."))
    peer.answer(HEALTH_PATH, Answer())
    return peer


@dataclass(frozen=True, slots=True)
class House:
    """Agents on an empty database."""

    sessions: async_sessionmaker[AsyncSession]
    agents: Agents

    def with_other(self, *, sealer: Sealer = SEALER, outbound: OutboundPolicy = LOOPBACK_ALLOWED) -> Agents:
        """The same agents, with other keys or another policy."""
        return Agents(self.sessions, catalogue(), sealer=sealer, outbound=outbound)

    async def add(self, body: AgentCreate, credential: str | None = None) -> UUID:
        made = (await self.agents.create(body)).row.id
        if credential is not None:
            await self.agents.set_credential(made, credential)
        return made

    async def row(self, agent_id: UUID) -> AgentRow:
        return (await self.agents.get(agent_id)).row

    async def used(self, agent_id: UUID) -> tuple[int, int]:
        view = await self.agents.get(agent_id)
        return view.calls, view.tokens

    async def call(self, agent_id: UUID) -> AgentCallRow:
        return (await self.agents.calls(agent_id, limit=1))[0]

    async def schedule(self, **body: Any) -> UUID:
        stated = ScheduleCreate(
            task_name="x",
            task_path="execute_agent_periodic_task",
            schedule={"type": "interval", "every": 1, "unit": "hours"},
            **body,
        )
        async with self.sessions.begin() as session:
            return await session.run_sync(
                lambda sync: schedules.create(sync, catalogue(), stated, "test").row.id
            )

    async def state(self, schedule_id: UUID) -> tuple[str, str | None, str | None]:
        async with self.sessions() as session:
            row = await session.get(ScheduleRow, schedule_id)
            assert row is not None
            return row.state, row.paused_by, row.pause_note

    async def pass_a_day(self) -> None:
        """Everything that was used was used yesterday."""
        async with self.sessions.begin() as session:
            await session.execute(update(AgentUsageRow).values(day=AgentUsageRow.day - 1))
            await session.execute(update(AgentRow).values(exhausted_on=AgentRow.exhausted_on - 1))


@asynccontextmanager
async def empty_house(settings: Settings) -> AsyncIterator[House]:
    """Agents on the module's database, whose tables of agents and schedules are emptied."""
    engine = async_engine(settings.database, name="test")
    sessions = async_sessions(engine)
    async with sessions.begin() as session:
        await session.execute(text(f"TRUNCATE {', '.join(TABLES)} CASCADE"))
    yield House(sessions, Agents(sessions, catalogue(), sealer=SEALER, outbound=LOOPBACK_ALLOWED))
    await engine.dispose()
