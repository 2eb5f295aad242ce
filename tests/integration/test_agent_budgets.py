"""What an agent may use and whether it is well, and the schedules that it pauses and resumes."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import insert, select, update

from app.errors import Conflict, InvalidInput, NotFound
from app.modules.agents.calls import Work
from app.modules.agents.config import AgentUpdate
from app.modules.agents.errors import (
    AgentBroken,
    BudgetExhausted,
    BudgetReserved,
)
from app.modules.agents.models import AgentCallRow, AgentUsageRow
from app.scheduling import schedules
from app.scheduling.ids import id_at
from app.scheduling.models import ScheduleRow
from app.scheduling.pausing import pause
from app.settings import Settings
from support.agents import CHAT_PATH, HEALTH_PATH, House, chat, empty_house, webhook, well
from support.peer import Answer, Peer, completion

NEWS = Work(variables={"topic": "the news"})


@pytest.fixture
def peer(shared_peer: Peer) -> Peer:
    return well(shared_peer)


@pytest.fixture
async def house(settings: Settings) -> AsyncIterator[House]:
    async with empty_house(settings) as made:
        yield made


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


async def test_a_call_on_the_next_day_resumes_too(house: House, peer: Peer) -> None:
    await house.add(chat(peer.url, daily_calls=2))
    schedule = await house.schedule(task_kwargs={"agent": "summariser"})
    for _ in range(2):
        await house.agents.execute("summariser", NEWS)
    assert (await house.state(schedule))[0] == "paused"
    await house.pass_a_day()
    await house.agents.execute("summariser", NEWS)
    assert (await house.state(schedule))[0] == "active"


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
