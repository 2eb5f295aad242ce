"""Agents on a real database and a real endpoint: calls, budgets, health, and the schedules they pause."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app.db import async_engine, async_sessions
from app.errors import Conflict, InvalidInput, NotFound
from app.modules.agents.calls import Work
from app.modules.agents.config import AgentCreate, AgentUpdate
from app.modules.agents.errors import (
    AgentBroken,
    AgentDisabled,
    AgentOverloaded,
    AgentRefused,
    AgentUnauthorized,
    AgentUnreachable,
    BudgetExhausted,
    BudgetReserved,
    ReplyUnusable,
)
from app.modules.agents.models import AgentCallRow, AgentRow, AgentUsageRow
from app.modules.agents.service import Agents
from app.outbound import OutboundPolicy, OutboundRefused
from app.scheduling import schedules
from app.scheduling.config import ScheduleCreate
from app.scheduling.ids import id_at, new_id
from app.scheduling.models import ScheduleRow
from app.scheduling.pausing import pause
from app.sealing import Sealer, SecretKeysUnfit, new_key
from app.settings import Settings
from app.worker import catalogue
from support.agents import CHAT_PATH, CREDENTIAL, HEALTH_PATH, chat, webhook
from support.peer import Answer, Peer, completion, running_peer
from support.polling import eventually_async

SEALER = Sealer([new_key()])
LOOPBACK_ALLOWED = OutboundPolicy.parse(["127.0.0.1"])
NEWS = Work(variables={"topic": "the news"})
TABLES = "agents, agent_usage, agent_calls, celery_periodic_task_configs"


@pytest.fixture(scope="module")
def shared_peer() -> Iterator[Peer]:
    with running_peer() as running:
        yield running


@pytest.fixture
def peer(shared_peer: Peer) -> Peer:
    shared_peer.forget()
    shared_peer.answer(CHAT_PATH, completion("Nothing new."))
    shared_peer.answer(HEALTH_PATH, Answer())
    return shared_peer


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


@pytest.fixture
async def house(settings: Settings) -> AsyncIterator[House]:
    engine = async_engine(settings.database, name="test")
    sessions = async_sessions(engine)
    async with sessions.begin() as session:
        await session.execute(text(f"TRUNCATE {TABLES} CASCADE"))
    yield House(sessions, Agents(sessions, catalogue(), sealer=SEALER, outbound=LOOPBACK_ALLOWED))
    await engine.dispose()


# Calls


async def test_a_chat_agent_is_asked_and_its_reply_and_usage_recorded(house: House, peer: Peer) -> None:
    agent = await house.add(chat(peer.url, max_tokens=50), CREDENTIAL)
    run = new_id()
    answer = await house.agents.execute(
        "summariser", Work(variables={"topic": "the news"}, run_id=run, attempt=2)
    )
    assert (answer.reply, answer.prompt_tokens, answer.completion_tokens) == ("Nothing new.", 7, 5)
    asked = peer.requests[0]
    assert asked.json() == {
        "model": "small",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Summarise the news."},
        ],
        "max_tokens": 50,
    }
    assert asked.headers["authorization"] == f"Bearer {CREDENTIAL}"
    assert asked.headers["idempotency-key"] == str(run)
    call = await house.call(agent)
    assert (call.id, call.run_id, call.attempt, call.state, call.status) == (
        answer.call_id,
        run,
        2,
        "succeeded",
        200,
    )
    assert (call.request, call.reply, call.error) == ("Summarise the news.", "Nothing new.", None)
    assert (call.prompt_tokens, call.completion_tokens) == (7, 5)
    assert call.duration is not None
    assert await house.used(agent) == (1, 12)
    assert (await house.row(agent)).health == "healthy"


async def test_a_webhook_gets_the_run_and_the_variables(house: House, peer: Peer) -> None:
    peer.answer("/hook", Answer(body=json.dumps({"done": True, "usage": {"prompt_tokens": 3}}).encode()))
    agent = await house.add(webhook(peer.url, credential_header="X-Api-Key"), CREDENTIAL)
    run = new_id()
    work = Work(variables={"a": [1]}, run_id=run, scheduled_for="2026-03-01T00:00:00+00:00")
    answer = await house.agents.execute(str(agent), work)
    assert json.loads(answer.reply)["done"] is True
    assert peer.requests[0].json() == {
        "agent": "hook",
        "run_id": str(run),
        "attempt": 1,
        "scheduled_for": "2026-03-01T00:00:00+00:00",
        "prompt": None,
        "variables": {"a": [1]},
    }
    assert peer.requests[0].headers["x-api-key"] == CREDENTIAL
    assert "authorization" not in peer.requests[0].headers
    assert await house.used(agent) == (1, 3)


async def test_a_call_without_a_run_has_its_own_key(house: House, peer: Peer) -> None:
    await house.add(chat(peer.url))
    answers = [await house.agents.execute("summariser", NEWS) for _ in range(2)]
    assert peer.keys() == {str(answer.call_id): 1 for answer in answers}


@pytest.mark.parametrize(
    ("answer", "error", "counts", "tokens_stay"),
    [
        (Answer(400, b'{"error": "no such model"}'), AgentRefused, False, False),
        (Answer(401), AgentUnauthorized, True, False),
        (Answer(403), AgentUnauthorized, True, False),
        (Answer(404), AgentRefused, False, False),
        (Answer(429, headers={"Retry-After": "1"}), AgentOverloaded, False, False),
        (Answer(500), AgentBroken, True, False),
        (Answer(503), AgentBroken, True, False),
        (Answer(302, headers={"Location": "/v1/other"}), AgentRefused, False, False),
        (Answer(200, b"hello"), ReplyUnusable, True, True),
        (Answer(200, b"[]"), ReplyUnusable, True, True),
        (Answer(200, b'{"choices": []}'), ReplyUnusable, True, True),
        (Answer(200, b"x" * 1_100_000), ReplyUnusable, True, True),
        (Answer(200, b"x", headers={"Content-Encoding": "gzip"}), ReplyUnusable, True, True),
    ],
    ids=lambda value: f"{value.status} {value.body[:12]!r}" if isinstance(value, Answer) else None,
)
async def test_what_an_answer_means(
    house: House, peer: Peer, *, answer: Answer, error: type[Exception], counts: bool, tokens_stay: bool
) -> None:
    peer.answer(CHAT_PATH, answer)
    agent = await house.add(chat(peer.url))
    with pytest.raises(error) as raised:
        await house.agents.execute("summariser", NEWS)
    assert type(raised.value) is error
    call = await house.call(agent)
    assert (call.state, call.status, call.reply) == ("failed", answer.status, None)
    assert call.error == str(raised.value)
    calls, tokens = await house.used(agent)
    assert calls == 1
    assert (tokens > 0) is tokens_stay
    row = await house.row(agent)
    assert row.consecutive_failures == int(counts)
    assert [request.path for request in peer.requests] == [CHAT_PATH]


async def test_the_time_limit_covers_the_whole_answer_and_what_may_be_used_stays_counted(
    house: House, peer: Peer
) -> None:
    peer.answer(CHAT_PATH, Answer(delay=30))
    agent = await house.add(chat(peer.url, time_limit=0.3))
    with pytest.raises(AgentUnreachable, match=r"within 0\.3 s") as raised:
        await house.agents.execute("summariser", NEWS)
    assert raised.value.sent
    calls, tokens = await house.used(agent)
    assert calls == 1
    assert tokens > 0


async def test_a_call_that_was_never_sent_is_not_counted(house: House) -> None:
    agent = await house.add(chat("http://127.0.0.1:9", name="away"))
    with pytest.raises(AgentUnreachable, match="cannot be connected to"):
        await house.agents.execute("away", NEWS)
    assert await house.used(agent) == (0, 0)
    assert (await house.row(agent)).consecutive_failures == 1


async def test_a_cancelled_call_is_recorded(house: House, peer: Peer) -> None:
    peer.answer(CHAT_PATH, Answer(delay=30))
    agent = await house.add(chat(peer.url))
    calling = asyncio.create_task(house.agents.execute("summariser", NEWS))

    async def asked() -> bool:
        return bool(peer.requests)

    await eventually_async(asked)
    assert (await house.call(agent)).state == "sent"
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    call = await house.call(agent)
    assert (call.state, call.error) == ("failed", "CancelledError")
    assert (await house.row(agent)).consecutive_failures == 0


async def test_an_address_inside_the_network_is_not_reached_unless_allowed(house: House, peer: Peer) -> None:
    agent = await house.add(chat(peer.url.replace("127.0.0.1", "localhost")))
    strict = house.with_other(outbound=OutboundPolicy())
    with pytest.raises(OutboundRefused):
        await strict.execute("summariser", NEWS)
    assert peer.requests == []
    assert await house.used(agent) == (0, 0)
    with pytest.raises(InvalidInput, match="url"):
        await strict.create(chat(peer.url, name="other"))


@pytest.mark.parametrize(
    ("work", "field"),
    [(Work(variables={}), "variables.topic"), (Work(variables={}, prompt="$a"), "variables.a")],
)
async def test_missing_variables_are_named_and_nothing_is_counted(
    house: House, peer: Peer, work: Work, field: str
) -> None:
    agent = await house.add(chat(peer.url))
    with pytest.raises(InvalidInput, match=field):
        await house.agents.execute("summariser", work)
    assert await house.used(agent) == (0, 0)
    assert peer.requests == []


async def test_unknown_and_disabled_agents_are_not_asked(house: House, peer: Peer) -> None:
    await house.add(chat(peer.url, enabled=False))
    with pytest.raises(NotFound):
        await house.agents.execute("nobody", NEWS)
    with pytest.raises(NotFound):
        await house.agents.execute(str(new_id()), NEWS)
    with pytest.raises(AgentDisabled):
        await house.agents.execute("summariser", NEWS)
    assert peer.requests == []


async def test_the_credential_is_in_nothing_that_is_kept(house: House, peer: Peer) -> None:
    peer.answer(CHAT_PATH, completion(f"Your key is {CREDENTIAL}."))
    agent = await house.add(chat(peer.url), CREDENTIAL)
    answer = await house.agents.execute("summariser", Work(variables={"topic": CREDENTIAL}))
    assert answer.reply == "Your key is [redacted]."
    peer.answer(CHAT_PATH, Answer(400, f"bad key {CREDENTIAL}".encode()))
    with pytest.raises(AgentRefused) as raised:
        await house.agents.execute("summariser", NEWS)
    assert CREDENTIAL not in str(raised.value)
    async with house.sessions() as session:
        for table in TABLES.split(", "):
            rows = (await session.execute(text(f"SELECT t::text FROM {table} t"))).scalars().all()
            assert CREDENTIAL not in "\n".join(rows)
    assert CREDENTIAL not in repr(await house.row(agent))


# Credentials


async def test_a_credential_needs_keys_and_outlives_their_rotation(house: House, peer: Peer) -> None:
    old, new = new_key(), new_key()
    agent = await house.add(chat(peer.url))

    def on(*keys: str) -> Agents:
        return house.with_other(sealer=Sealer(keys))

    with pytest.raises(SecretKeysUnfit):
        await on().set_credential(agent, CREDENTIAL)
    await on(old).set_credential(agent, CREDENTIAL)
    with pytest.raises(SecretKeysUnfit):
        await on(new).execute("summariser", NEWS)
    assert await house.used(agent) == (0, 0)
    assert await on(new, old).rotate_credentials() == 1
    await on(new).execute("summariser", NEWS)
    assert peer.requests[-1].headers["authorization"] == f"Bearer {CREDENTIAL}"


async def test_a_credential_does_not_follow_the_address_elsewhere(house: House, peer: Peer) -> None:
    agent = await house.add(chat(peer.url), CREDENTIAL)
    view = await house.agents.update(agent, AgentUpdate(url=f"{peer.url}/v1/"))
    assert view.row.credential is not None
    view = await house.agents.update(agent, AgentUpdate(url="https://evil.example.com/v1"))
    assert (view.row.credential, view.row.credential_set_at) == (None, None)
    await house.agents.update(agent, AgentUpdate(url=f"{peer.url}/v1"))
    await house.agents.set_credential(agent, CREDENTIAL)
    await house.agents.update(
        agent, AgentUpdate(health_url=peer.url.replace("127.0.0.1", "localhost") + "/v1/models")
    )
    await house.agents.check(agent)
    assert all("authorization" not in request.headers for request in peer.requests)


# Budgets


async def test_any_number_at_once_stay_within_the_calls_of_a_day(house: House, peer: Peer) -> None:
    agent = await house.add(chat(peer.url, daily_calls=5))
    outcomes = await asyncio.gather(
        *(house.agents.execute("summariser", NEWS) for _ in range(12)), return_exceptions=True
    )
    assert sum(isinstance(outcome, BudgetExhausted) for outcome in outcomes) == 7
    assert len(peer.requests) == 5
    assert (await house.used(agent))[0] == 5


async def test_tokens_are_reserved_before_and_corrected_after(house: House, peer: Peer) -> None:
    """About 90 of 120 are reserved and 12 used: two never fit at once, one after the other they do."""
    agent = await house.add(chat(peer.url, daily_tokens=120, max_tokens=80))
    schedule = await house.schedule(task_kwargs={"agent": "summariser"})
    peer.answer(CHAT_PATH, Answer(200, completion("x").body, delay=0.3))
    outcomes = await asyncio.gather(
        *(house.agents.execute("summariser", NEWS) for _ in range(2)), return_exceptions=True
    )
    refused = [outcome for outcome in outcomes if isinstance(outcome, BudgetReserved)]
    assert len(refused) == 1
    assert refused[0].retryable
    assert await house.used(agent) == (1, 12)
    await house.agents.execute("summariser", NEWS)
    await house.agents.execute("summariser", NEWS)
    assert await house.used(agent) == (3, 36)
    assert (await house.state(schedule))[0] == "active"
    with pytest.raises(BudgetExhausted):
        await house.agents.execute("summariser", NEWS)
    assert (await house.state(schedule))[0] == "paused"
    with pytest.raises(InvalidInput, match="whole budget"):
        await house.agents.execute("summariser", Work(variables={"topic": "x" * 1000}))


async def test_what_a_dead_worker_reserved_stays_counted(house: House, peer: Peer) -> None:
    agent = await house.add(chat(peer.url, daily_tokens=120, max_tokens=80))
    await house.agents.execute("summariser", NEWS)
    async with house.sessions.begin() as session:
        # As if a worker had reserved and died: an hour ago, longer than the time limit.
        await session.execute(update(AgentUsageRow).values(tokens=100))
        at = datetime.now(UTC) - timedelta(hours=1)
        call = {"id": id_at(at), "agent_id": agent, "agent_name": "x", "attempt": 1, "request": "x"}
        await session.execute(insert(AgentCallRow).values(**call, state="sent", reserved_tokens=88))
    with pytest.raises(BudgetExhausted, match="100 of 120 tokens"):
        await house.agents.execute("summariser", NEWS)


async def test_an_exhausted_budget_pauses_the_agents_schedules_until_the_next_day(
    house: House, peer: Peer
) -> None:
    agent = await house.add(chat(peer.url, daily_calls=1))
    await house.add(chat(peer.url, name="other"))
    by_name = await house.schedule(task_kwargs={"agent": "summariser", "variables": {"topic": "x"}})
    by_id = await house.schedule(task_args=[str(agent)])
    others = await house.schedule(task_kwargs={"agent": "other"})
    persons = await house.schedule(task_kwargs={"agent": "summariser"})
    disabled = await house.schedule(task_kwargs={"agent": "summariser"}, task_enabled=False)
    async with house.sessions.begin() as session:
        await session.run_sync(lambda sync: pause(sync, persons, note="holiday", author="ada"))

    await house.agents.execute("summariser", NEWS)
    for schedule in (by_name, by_id):
        state, author, note = await house.state(schedule)
        assert (state, author) == ("paused", f"agent:{agent}")
        assert "budget" in str(note)
    untouched = [await house.state(each) for each in (others, persons, disabled)]
    assert untouched == [("active", None, None), ("paused", "ada", "holiday"), ("disabled", None, None)]
    with pytest.raises(BudgetExhausted, match="1 of 1 calls"):
        await house.agents.execute("summariser", NEWS)

    await house.agents.check_all()
    assert (await house.state(by_name))[0] == "paused"
    await house.pass_a_day()
    await house.agents.check_all()
    assert [await house.state(each) for each in (by_name, by_id)] == [("active", None, None)] * 2
    assert [await house.state(each) for each in (others, persons, disabled)] == untouched


async def test_a_larger_budget_resumes_at_once(house: House, peer: Peer) -> None:
    agent = await house.add(chat(peer.url, daily_calls=1))
    schedule = await house.schedule(task_kwargs={"agent": "summariser"})
    await house.agents.execute("summariser", NEWS)
    assert (await house.state(schedule))[0] == "paused"
    await house.agents.update(agent, AgentUpdate(daily_calls=2))
    assert (await house.state(schedule))[0] == "active"


# Health


async def test_failures_in_a_row_make_it_unhealthy_and_a_success_heals_it(house: House, peer: Peer) -> None:
    agent = await house.add(chat(peer.url, failures_allowed=2))
    ours = await house.schedule(task_kwargs={"agent": "summariser"})
    persons = await house.schedule(task_kwargs={"agent": "summariser"})
    peer.answer(CHAT_PATH, Answer(500))
    peer.answer(HEALTH_PATH, Answer(500))
    with pytest.raises(AgentBroken):
        await house.agents.execute("summariser", NEWS)
    assert (await house.state(ours))[0] == "active"
    assert await house.agents.check_all() == {
        "healthy": 0,
        "ailing": 0,
        "unhealthy": 1,
        "disabled": 0,
        "failed": 0,
    }
    state, author, note = await house.state(ours)
    assert (state, author) == ("paused", f"agent:{agent}")
    assert "unhealthy" in str(note)
    # A person who pauses it now takes it over.
    async with house.sessions.begin() as session:
        await session.run_sync(lambda sync: pause(sync, persons, note="mine", author="ada"))
    late = await house.schedule(task_kwargs={"agent": "summariser"})
    await house.agents.check_all()
    assert (await house.state(late))[0] == "paused"

    peer.answer(HEALTH_PATH, Answer())
    assert (await house.agents.check_all())["healthy"] == 1
    assert [(await house.state(each))[0] for each in (ours, late, persons)] == ["active", "active", "paused"]
    row = await house.row(agent)
    assert (row.health, row.consecutive_failures, row.last_error) == ("healthy", 0, None)
    assert row.last_checked_at is not None


async def test_health_and_budget_must_both_be_well_to_resume(house: House, peer: Peer) -> None:
    await house.add(chat(peer.url, failures_allowed=1, daily_calls=1))
    schedule = await house.schedule(task_kwargs={"agent": "summariser"})
    await house.agents.execute("summariser", NEWS)
    assert "budget" in str((await house.state(schedule))[2])
    peer.answer(HEALTH_PATH, Answer(503))
    await house.agents.check_all()
    assert "unhealthy" in str((await house.state(schedule))[2])
    peer.answer(HEALTH_PATH, Answer())
    await house.agents.check_all()
    assert "budget" in str((await house.state(schedule))[2])
    await house.pass_a_day()
    await house.agents.check_all()
    assert (await house.state(schedule))[0] == "active"


@pytest.mark.parametrize(
    ("status", "health"), [(200, "healthy"), (405, "healthy"), (401, "unhealthy"), (500, "unhealthy")]
)
async def test_a_webhook_is_healthy_when_it_answers_at_all(
    house: House, peer: Peer, status: int, health: str
) -> None:
    peer.answer("/hook", Answer(status))
    agent = await house.add(webhook(peer.url, failures_allowed=1))
    assert (await house.agents.check(agent)).row.health == health


async def test_disabling_pauses_and_enabling_resumes(house: House, peer: Peer) -> None:
    agent = await house.add(chat(peer.url))
    schedule = await house.schedule(task_kwargs={"agent": "summariser"})
    await house.agents.update(agent, AgentUpdate(enabled=False))
    assert (await house.state(schedule))[0] == "paused"
    assert (await house.agents.check_all())["disabled"] == 1
    await house.agents.update(agent, AgentUpdate(enabled=True))
    assert (await house.state(schedule))[0] == "active"


async def test_an_agent_that_schedules_name_is_neither_renamed_nor_deleted(house: House, peer: Peer) -> None:
    agent = await house.add(chat(peer.url))
    await house.add(chat(peer.url, name="other"))
    schedule = await house.schedule(task_kwargs={"agent": "summariser"})
    with pytest.raises(Conflict, match=str(schedule)):
        await house.agents.update(agent, AgentUpdate(name="third"))
    with pytest.raises(Conflict, match=str(schedule)):
        await house.agents.remove(agent)
    async with house.sessions.begin() as session:
        await session.run_sync(lambda sync: schedules.remove(sync, schedule, "test"))
    with pytest.raises(Conflict, match="exists"):
        await house.agents.update(agent, AgentUpdate(name="other"))
    await house.agents.remove(agent)
    with pytest.raises(NotFound):
        await house.agents.get(agent)


async def test_a_schedule_that_names_another_agent_by_now_is_let_go(house: House, peer: Peer) -> None:
    agent = await house.add(chat(peer.url))
    schedule = await house.schedule(task_kwargs={"agent": "summariser"})
    await house.agents.update(agent, AgentUpdate(enabled=False))
    async with house.sessions.begin() as session:
        await session.execute(
            update(ScheduleRow).where(ScheduleRow.id == schedule).values(task_kwargs={"agent": "other"})
        )
    await house.agents.check_all()
    assert (await house.state(schedule))[0] == "active"


async def test_old_calls_are_forgotten_in_batches(house: House, peer: Peer) -> None:
    agent = await house.add(chat(peer.url))
    for _ in range(3):
        await house.agents.execute("summariser", NEWS)
    assert await house.agents.forget_calls(timedelta(days=1)) == 0
    assert await house.agents.forget_calls(timedelta(0), batch=2) == 3
    async with house.sessions() as session:
        assert (await session.scalars(select(AgentCallRow.id))).all() == []
    assert (await house.used(agent))[0] == 3
