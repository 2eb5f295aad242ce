"""Agents on a real database and a real endpoint: what is asked, answered and kept of it."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from app.errors import InvalidInput, NotFound
from app.modules.agents.calls import Work
from app.modules.agents.config import AgentUpdate
from app.modules.agents.errors import (
    AgentBroken,
    AgentDisabled,
    AgentOverloaded,
    AgentRefused,
    AgentUnauthorized,
    AgentUnreachable,
    ReplyUnusable,
)
from app.modules.agents.service import Agents
from app.outbound import OutboundPolicy, OutboundRefused
from app.scheduling.ids import new_id
from app.sealing import Sealer, SecretKeysUnfit, new_key
from app.settings import Settings
from support.agents import CHAT_PATH, CREDENTIAL, TABLES, House, chat, empty_house, webhook, well
from support.peer import Answer, Peer, completion, running_peer
from support.polling import eventually_async

NEWS = Work(variables={"topic": "the news"})


@pytest.fixture(scope="module")
def shared_peer() -> Iterator[Peer]:
    with running_peer() as running:
        yield running


@pytest.fixture
def peer(shared_peer: Peer) -> Peer:
    return well(shared_peer)


@pytest.fixture
async def house(settings: Settings) -> AsyncIterator[House]:
    async with empty_house(settings) as made:
        yield made


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


async def test_what_a_webhook_answers_need_not_be_readable(house: House, peer: Peer) -> None:
    peer.answer("/hook", Answer(body=b"[" * 100_000))
    agent = await house.add(webhook(peer.url))
    answer = await house.agents.execute(str(agent), NEWS)
    assert (answer.reply[:3], answer.prompt_tokens) == ("[[[", None)


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


async def test_an_overloaded_agent_says_when_to_ask_again(house: House, peer: Peer) -> None:
    await house.add(chat(peer.url))
    for status, error in ((429, AgentOverloaded), (503, AgentBroken)):
        peer.answer(CHAT_PATH, Answer(status, headers={"Retry-After": "7"}))
        with pytest.raises(error) as raised:
            await house.agents.execute("summariser", NEWS)
        assert raised.value.retry_after == 7


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


async def test_a_call_that_cannot_be_recorded_fails_as_it_failed(
    house: House, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise OperationalError("UPDATE", {}, OSError("the database is away"))

    peer.answer(CHAT_PATH, Answer(400, b"no such model"))
    await house.add(chat(peer.url))
    monkeypatch.setattr("app.modules.agents.calls.failed", away)
    with pytest.raises(AgentRefused, match="no such model"):
        await house.agents.execute("summariser", NEWS)


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
        for table in TABLES:
            rows = (await session.execute(text(f"SELECT t::text FROM {table} t"))).scalars().all()
            assert CREDENTIAL not in "\n".join(rows)
    assert CREDENTIAL not in repr(await house.row(agent))


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
