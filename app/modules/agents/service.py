"""Agents: kept, called and looked after. Each method is one unit of work, or a few around a call."""

import asyncio
import logging
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from typing import Final
from uuid import UUID

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session

from app.db.clearing import BATCH, delete_all
from app.db.companions import unit
from app.errors import Conflict, FieldError, InvalidInput
from app.modules.agents import blocking, budget, calls, client, prompts
from app.modules.agents.calls import Work
from app.modules.agents.client import Reply
from app.modules.agents.config import AgentCreate, AgentUpdate, same_origin
from app.modules.agents.errors import AgentError
from app.modules.agents.models import AgentCallRow, AgentRow
from app.modules.agents.records import MAX_ERROR, MAX_REPLY, keep
from app.outbound import OutboundPolicy, OutboundRefused, check_url
from app.scheduling import versions
from app.scheduling.catalogue import Catalogue
from app.scheduling.ids import id_at, new_id
from app.scheduling.schedules import database_time
from app.sealing import Sealer

logger = logging.getLogger(__name__)

CHECKS_AT_ONCE: Final = 10
_NAMED: Final = "Schedules execute this agent: {}. Delete them, or let them name another one, first."


@dataclass(frozen=True, slots=True)
class AgentView:
    """An agent, and what it has used today (UTC), with what is reserved."""

    row: AgentRow
    day: date
    calls: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What an agent answered, as it is kept."""

    call_id: UUID
    agent: str
    reply: str
    prompt_tokens: int | None
    completion_tokens: int | None
    duration: float


class Agents:
    """Agents, as methods."""

    def __init__(
        self,
        sessions: async_sessionmaker[AsyncSession],
        catalogue: Catalogue,
        *,
        sealer: Sealer,
        outbound: OutboundPolicy,
    ) -> None:
        self._sessions = sessions
        self._catalogue = catalogue
        self._sealer = sealer
        self._policy = outbound

    async def create(self, body: AgentCreate) -> AgentView:
        """Store an agent.

        Raises:
            InvalidInput: an address or a template will not do.
            Conflict: the name is taken.
        """
        self._check(body)

        def work(session: Session) -> AgentView:
            row = session.scalar(
                insert(AgentRow)
                .values(id=new_id(), **body.model_dump())
                .on_conflict_do_nothing(index_elements=[AgentRow.name])
                .returning(AgentRow)
            )
            if row is None:
                raise _taken()
            return _view(session, row)

        return await unit(self._sessions, work)

    async def get(self, agent_id: UUID) -> AgentView:
        """One agent; raises NotFound."""
        return await unit(self._sessions, lambda session: _view(session, calls.by_id(session, agent_id)))

    async def require_enabled(self, agent_id: UUID) -> None:
        """Raises NotFound if there is no such agent, AgentDisabled if it takes no calls."""

        def work(session: Session) -> None:
            row = calls.by_id(session, agent_id)
            if not row.enabled:
                raise calls.disabled(row)

        await unit(self._sessions, work)

    async def page(
        self,
        *,
        limit: int,
        after: UUID | None = None,
        search: str | None = None,
        kind: str | None = None,
        health: str | None = None,
        enabled: bool | None = None,
    ) -> list[AgentView]:
        """Up to ``limit`` agents by age, oldest first; ``search`` is part of a name."""
        query = select(AgentRow).order_by(AgentRow.id).limit(limit)
        if after is not None:
            query = query.where(AgentRow.id > after)
        if search:
            query = query.where(AgentRow.name.icontains(search, autoescape=True))
        for column, value in ((AgentRow.kind, kind), (AgentRow.health, health), (AgentRow.enabled, enabled)):
            if value is not None:
                query = query.where(column == value)
        return await unit(self._sessions, lambda session: _views(session, session.scalars(query).all()))

    async def update(
        self, agent_id: UUID, body: AgentUpdate, *, expected: Collection[int] | None = None
    ) -> AgentView:
        """Change what is given; schedules are paused or resumed if that changes whether it can work.

        Raises:
            NotFound: there is none with this id.
            PreconditionFailed: it is at another version than the ``expected`` ones, here and below.
            InvalidInput: as for `create`.
            Conflict: the new name is taken, or schedules name the agent by the old one.
        """
        self._check(body)
        changes = body.changes()

        def work(session: Session) -> AgentView:
            row = calls.locked(session, agent_id)
            versions.require(row.version, expected, "agent")
            _check_rename(session, row, changes.get("name"))
            if row.kind == "chat" and changes.get("model", row.model) is None:
                raise InvalidInput(FieldError("model", "A chat agent needs a model."))
            if "url" in changes and row.credential is not None:
                # Whoever may change the address could else have the credential sent to himself.
                _forget_credential(row, changes["url"])
            row.updated_at = database_time(session)
            for name, value in changes.items():
                setattr(row, name, value)
            row.version += 1
            if {"daily_calls", "daily_tokens"} & set(changes):
                row.exhausted_on = None
            try:
                session.flush()
            except IntegrityError as error:
                # Somebody else took the name meanwhile.
                raise _taken() from error
            blocking.reconcile(session, self._catalogue, row)
            return _view(session, row)

        return await unit(self._sessions, work)

    async def remove(self, agent_id: UUID, *, expected: Collection[int] | None = None) -> None:
        """Delete an agent; what it said stays until it is old.

        Raises:
            NotFound: there is none with this id.
            Conflict: schedules name it.
        """

        def work(session: Session) -> None:
            row = calls.locked(session, agent_id)
            versions.require(row.version, expected, "agent")
            if named := blocking.naming(session, row):
                raise Conflict(_NAMED.format(", ".join(str(each) for each in named[:5])))
            blocking.release(session, self._catalogue, row)
            session.execute(delete(AgentRow).where(AgentRow.id == agent_id))

        await unit(self._sessions, work)

    async def set_credential(
        self, agent_id: UUID, credential: str | None, *, expected: Collection[int] | None = None
    ) -> AgentView:
        """Store a credential, encrypted; None removes it.

        Raises:
            NotFound: there is no agent with this id.
            InvalidInput: it cannot stand in an HTTP header.
            SecretKeysUnfit: there are no keys to encrypt it with.
        """
        if credential is not None and not (credential.isascii() and credential.isprintable()):
            raise InvalidInput(FieldError("credential", "Must have printable ASCII characters only."))
        sealed = None if credential is None else self._sealer.seal(credential)

        def work(session: Session) -> AgentView:
            row = calls.locked(session, agent_id)
            versions.require(row.version, expected, "agent")
            row.version += 1
            row.credential = sealed
            row.credential_set_at = None if sealed is None else database_time(session)
            session.flush()
            return _view(session, row)

        return await unit(self._sessions, work)

    async def rotate_credentials(self) -> int:
        """Encrypt every credential with the newest key; answers how many.

        Raises:
            SecretKeysUnfit: there are no keys, or one is missing for a credential.
        """
        async with self._sessions() as session:
            holders = list(await session.scalars(select(AgentRow.id).where(AgentRow.credential.is_not(None))))

        def work(session: Session, agent_id: UUID) -> int:
            sealed = session.scalar(
                select(AgentRow.credential).where(AgentRow.id == agent_id).with_for_update(key_share=True)
            )
            if sealed is None:
                return 0
            session.execute(
                update(AgentRow).where(AgentRow.id == agent_id).values(credential=self._sealer.reseal(sealed))
            )
            return 1

        return sum([await unit(self._sessions, partial(work, agent_id=each)) for each in holders])

    async def calls(
        self, agent_id: UUID, *, limit: int, before: UUID | None = None, state: str | None = None
    ) -> list[AgentCallRow]:
        """Up to ``limit`` calls of an agent, newest first; raises NotFound."""
        query = select(AgentCallRow).where(AgentCallRow.agent_id == agent_id)
        if before is not None:
            query = query.where(AgentCallRow.id < before)
        if state is not None:
            query = query.where(AgentCallRow.state == state)

        def work(session: Session) -> list[AgentCallRow]:
            calls.by_id(session, agent_id)
            return list(session.scalars(query.order_by(AgentCallRow.id.desc()).limit(limit)))

        return await unit(self._sessions, work)

    async def execute(self, agent: str, work: Work) -> Answer:
        """Have an agent do something, and record what came of it.

        Raises:
            NotFound, InvalidInput, SecretKeysUnfit: it cannot be asked; nothing was counted.
            BudgetExhausted: the day's budget does not suffice; its schedules are paused.
            BudgetReserved: it may suffice when calls under way have ended.
            AgentError: it was asked in vain; the class says why, and whether to try again.
            OutboundRefused: its address may not be reached.
        """
        prepared = await unit(
            self._sessions, lambda session: calls.prepare(session, self._catalogue, self._sealer, agent, work)
        )
        if isinstance(prepared, calls.Refused):
            raise prepared.error
        began = time.monotonic()
        try:
            reply = await client.ask(prepared.endpoint, prepared.task, self._policy)
        except BaseException as error:
            # Also when a time limit of the run cancels it: what was used is counted.
            failure, duration = error, time.monotonic() - began
            logger.warning("agent %s failed after %.1f s: %s", agent, duration, type(error).__name__)
            try:
                await unit(
                    self._sessions,
                    lambda session: calls.failed(session, self._catalogue, prepared, failure, duration),
                )
            except Exception:
                # What went wrong with the agent decides whether it is asked again.
                logger.exception("a call of agent %s was not recorded", agent)
            raise
        duration = time.monotonic() - began
        await unit(
            self._sessions,
            lambda session: calls.succeeded(session, self._catalogue, prepared, reply, duration),
        )
        logger.info("agent %s answered %d after %.1f s", agent, reply.status, duration)
        return _answer(prepared, reply, duration)

    async def check(self, agent_id: UUID) -> AgentView:
        """Ask an agent whether it is there, and note the answer; raises NotFound, SecretKeysUnfit."""
        endpoint = await unit(
            self._sessions, lambda session: calls.endpoint_of(calls.by_id(session, agent_id), self._sealer)
        )
        problem = None
        try:
            await client.check(endpoint, self._policy)
        except (AgentError, OutboundRefused) as error:
            problem = keep(str(error), MAX_ERROR, endpoint.credential)

        def work(session: Session) -> AgentView:
            calls.note_health(session, self._catalogue, agent_id, problem, checked=True)
            return _view(session, calls.by_id(session, agent_id))

        return await unit(self._sessions, work)

    async def check_all(self) -> dict[str, int]:
        """Check every enabled agent, some at once; answers how many are healthy, ailing and unhealthy."""
        async with self._sessions() as session:
            rows = (await session.execute(select(AgentRow.id, AgentRow.enabled).order_by(AgentRow.id))).all()
        places = asyncio.Semaphore(CHECKS_AT_ONCE)

        async def one(agent_id: UUID, enabled: bool) -> str:  # noqa: FBT001
            async with places:
                try:
                    if enabled:
                        return await self._condition(agent_id)
                    await unit(self._sessions, lambda session: self._reconcile(session, agent_id))
                except Exception:
                    logger.exception("agent %s could not be checked", agent_id)
                    return "failed"
                return "disabled"

        found = await asyncio.gather(*(one(row.id, row.enabled) for row in rows))
        return {kind: found.count(kind) for kind in ("healthy", "ailing", "unhealthy", "disabled", "failed")}

    async def _condition(self, agent_id: UUID) -> str:
        row = (await self.check(agent_id)).row
        return "ailing" if row.health != "unhealthy" and row.consecutive_failures else row.health

    async def forget_calls(self, age: timedelta, *, batch: int = BATCH) -> int:
        """Delete what was said longer than ``age`` ago, a few rows at a time; answers how many."""
        before = id_at(await unit(self._sessions, database_time) - age)
        return await delete_all(self._sessions, AgentCallRow, AgentCallRow.id < before, batch=batch)

    def _reconcile(self, session: Session, agent_id: UUID) -> None:
        blocking.reconcile(session, self._catalogue, calls.locked(session, agent_id))

    def _check(self, body: AgentCreate | AgentUpdate) -> None:
        for name in ("url", "health_url"):
            value = getattr(body, name)
            if value is not None:
                check_url(value, self._policy, name)
        if body.prompt_template is not None:
            prompts.check(body.prompt_template, "prompt_template")


def _view(session: Session, row: AgentRow) -> AgentView:
    return _views(session, [row])[0]


def _views(session: Session, rows: Sequence[AgentRow]) -> list[AgentView]:
    day = budget.today(session)
    used = budget.used_by(session, [row.id for row in rows], day)
    return [AgentView(row, day, *used.get(row.id, (0, 0))) for row in rows]


def _check_rename(session: Session, row: AgentRow, name: str | None) -> None:
    if name is None or name == row.name:
        return
    if named := blocking.naming(session, row):
        raise Conflict(_NAMED.format(", ".join(str(each) for each in named[:5])))
    if session.scalar(select(func.count()).select_from(AgentRow).where(AgentRow.name == name)):
        raise _taken()


def _forget_credential(row: AgentRow, url: str) -> None:
    if not same_origin(row.url, url):
        row.credential, row.credential_set_at = None, None


def _taken() -> Conflict:
    return Conflict("An agent of this name exists; choose another name.")


def _answer(prepared: calls.Prepared, reply: Reply, duration: float) -> Answer:
    return Answer(
        call_id=prepared.call_id,
        agent=prepared.endpoint.name,
        reply=keep(reply.text, MAX_REPLY, prepared.endpoint.credential),
        prompt_tokens=reply.prompt_tokens,
        completion_tokens=reply.completion_tokens,
        duration=round(duration, 3),
    )
