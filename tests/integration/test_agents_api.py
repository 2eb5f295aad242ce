"""Agents over HTTP, on a real database and a real endpoint."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from app.errors import ConfigurationError
from app.settings import OutboundSettings, SecretSettings, Settings
from support.agents import CREDENTIAL, HEALTH_PATH, with_agents
from support.api import connected, serving
from support.peer import Answer, Peer, running_peer

AGENTS = "/api/v1/agents"
NOBODY = "0199d0c2-f2f0-7a51-9c66-3f0c5f3ad4b1"


@pytest.fixture(scope="module")
def peer() -> Iterator[Peer]:
    with running_peer() as running:
        yield running


@pytest.fixture(scope="module")
async def api(settings: Settings) -> AsyncIterator[FastAPI]:
    async with serving(with_agents(settings)) as app:
        yield app


@pytest.fixture(scope="module")
async def admin(api: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with connected(api) as client:
        client.headers["If-Match"] = "*"
        yield client


async def create(client: httpx.AsyncClient, url: str, **changes: Any) -> dict[str, Any]:
    body = {"kind": "chat", "url": f"{url}/v1", "model": "m", "prompt_template": "About $topic."} | changes
    answer = await client.post(AGENTS, json=body)
    assert answer.status_code == 201, answer.text
    created: dict[str, Any] = answer.json()
    assert answer.headers["Location"] == f"{AGENTS}/{created['id']}"
    return created


def problem(answer: httpx.Response) -> tuple[int, str, list[str]]:
    """Status, kind and the wrong fields."""
    document = answer.json()
    return answer.status_code, document["type"], [error["field"] for error in document.get("errors", [])]


async def test_an_agent_from_its_creation_to_its_deletion(admin: httpx.AsyncClient, peer: Peer) -> None:
    created = await create(admin, peer.url, name="whole", daily_calls=10)
    computed = ("id", "created_at", "updated_at", "usage_day")
    assert {key: value for key, value in created.items() if key not in computed} == {
        "name": "whole",
        "version": 1,
        "kind": "chat",
        "url": f"{peer.url}/v1",
        "health_url": None,
        "description": None,
        "enabled": True,
        "model": "m",
        "system_prompt": None,
        "prompt_template": "About $topic.",
        "max_tokens": None,
        "time_limit": 60.0,
        "credential_header": "Authorization",
        "credential_set_at": None,
        "daily_calls": 10,
        "daily_tokens": None,
        "failures_allowed": 3,
        "health": "unknown",
        "consecutive_failures": 0,
        "last_error": None,
        "last_checked_at": None,
        "exhausted_on": None,
        "calls_used": 0,
        "tokens_used": 0,
    }
    one = f"{AGENTS}/{created['id']}"
    assert (await admin.get(one)).json() == created
    changed = await admin.patch(one, json={"daily_calls": None, "time_limit": 5, "description": "x"})
    assert changed.status_code == 200
    assert (changed.json()["daily_calls"], changed.json()["time_limit"]) == (None, 5.0)
    assert (await admin.get(f"{one}/calls")).json() == {"items": [], "next_cursor": None}
    assert (await admin.delete(one)).status_code == 204
    for answer in (
        await admin.get(one),
        await admin.patch(one, json={"enabled": True}),
        await admin.delete(one),
        await admin.put(f"{one}/credential", json={"credential": None}),
        await admin.get(f"{one}/calls"),
        await admin.post(f"{one}/check"),
        await admin.post(f"{one}/run", json={}),
    ):
        assert problem(answer) == (404, "/problems/not_found", [])


async def test_a_credential_is_written_and_never_read(admin: httpx.AsyncClient, peer: Peer) -> None:
    created = await create(admin, peer.url, name="secretive")
    one = f"{AGENTS}/{created['id']}"
    answer = await admin.put(f"{one}/credential", json={"credential": CREDENTIAL})
    assert answer.status_code == 200
    assert answer.json()["credential_set_at"] is not None
    for text in (answer.text, (await admin.get(one)).text, (await admin.get(AGENTS)).text):
        assert CREDENTIAL not in text
        assert '"credential"' not in text
    peer.answer(HEALTH_PATH, Answer())
    assert (await admin.post(f"{one}/check")).json()["health"] == "healthy"
    assert peer.asked(HEALTH_PATH)[-1].headers["authorization"] == f"Bearer {CREDENTIAL}"
    removed = await admin.put(f"{one}/credential", json={"credential": None})
    assert removed.json()["credential_set_at"] is None


@pytest.mark.parametrize(
    "credential", ["two\r\nlines: of header", "schlüssel-der-nicht-passt", "tiny-7", 70701, ""]
)
async def test_a_credential_that_will_not_do_is_not_repeated(
    admin: httpx.AsyncClient, peer: Peer, credential: object
) -> None:
    found = (await admin.get(AGENTS, params={"search": "stubborn"})).json()["items"]
    one = found[0] if found else await create(admin, peer.url, name="stubborn")
    answer = await admin.put(f"{AGENTS}/{one['id']}/credential", json={"credential": credential})
    assert problem(answer) == (422, "/problems/invalid_input", ["credential"])
    assert credential == "" or str(credential) not in answer.text


async def test_without_keys_a_credential_is_refused_with_the_remedy(settings: Settings, peer: Peer) -> None:
    chosen = with_agents(settings)
    keyless = chosen.model_copy(update={"secret": SecretSettings(keys=None)})
    async with serving(keyless) as app, connected(app) as client:
        created = await create(client, peer.url, name="keyless")
        answer = await client.put(
            f"{AGENTS}/{created['id']}/credential",
            json={"credential": CREDENTIAL},
            headers={"If-Match": "*"},
        )
    assert problem(answer) == (503, "/problems/secret_keys_unfit", [])
    assert "UPBEAT_SECRET_KEYS" in answer.json()["detail"]


@pytest.mark.parametrize(
    "changes",
    [
        {"secret": SecretSettings(keys=SecretStr("swordfish"))},
        {"outbound": OutboundSettings(allow="http://x")},
    ],
    ids=["keys", "allow"],
)
async def test_the_service_does_not_start_with_settings_that_will_not_do(
    settings: Settings, changes: dict[str, Any]
) -> None:
    with pytest.raises(ConfigurationError, match=r"UPBEAT_(SECRET_KEYS|OUTBOUND_ALLOW)"):
        async with serving(settings.model_copy(update=changes)):
            pass


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"url": "ftp://models.example.com"}, "url"),
        ({"url": "http://10.0.0.1/v1"}, "url"),
        ({"url": "https://user:secret@models.example.com/"}, "url"),
        ({"health_url": "http://169.254.169.254/latest/meta-data"}, "health_url"),
        ({"prompt_template": "5 $ please"}, "prompt_template"),
        ({"name": "a/b"}, "name"),
        ({"time_limit": -1}, "time_limit"),
        ({"credential_header": "Host"}, "credential_header"),
        ({"credential": CREDENTIAL}, "credential"),
        ({"daily_calls": 0}, "daily_calls"),
    ],
)
async def test_a_definition_that_will_not_do_is_refused_at_its_field(
    admin: httpx.AsyncClient, changes: dict[str, Any], field: str
) -> None:
    body = {"name": "wrong", "kind": "chat", "url": "https://models.example.com/v1", "model": "m"} | changes
    answer = await admin.post(AGENTS, json=body)
    assert problem(answer) == (422, "/problems/invalid_input", [field])
    assert "secret" not in answer.text
    assert CREDENTIAL not in answer.text


async def test_a_name_is_taken_once(admin: httpx.AsyncClient, peer: Peer) -> None:
    await create(admin, peer.url, name="once")
    answer = await admin.post(AGENTS, json={"name": "once", "kind": "webhook", "url": f"{peer.url}/"})
    assert problem(answer) == (409, "/problems/conflict", [])


async def test_pages_and_filters(admin: httpx.AsyncClient, peer: Peer) -> None:
    names = [f"page-{number}" for number in range(5)]
    for name in names:
        await create(admin, peer.url, name=name, enabled=name != "page-3")
    seen: list[str] = []
    cursor = None
    for _ in range(3):
        query = {"search": "page-", "limit": "2"} | ({"cursor": cursor} if cursor else {})
        page = (await admin.get(AGENTS, params=query)).json()
        seen += [item["name"] for item in page["items"]]
        cursor = page["next_cursor"]
    assert (seen, cursor) == (names, None)

    async def found(**query: str) -> list[str]:
        answer = await admin.get(AGENTS, params={"search": "page-", **query})
        return [item["name"] for item in answer.json()["items"]]

    assert await found(enabled="false") == ["page-3"]
    assert await found(kind="webhook") == []
    assert await found(health="unknown") == names
    assert problem(await admin.get(AGENTS, params={"healthy": "yes"}))[0] == 422


async def test_a_disabled_agent_is_not_run(admin: httpx.AsyncClient, peer: Peer) -> None:
    created = await create(admin, peer.url, name="idle", enabled=False)
    answer = await admin.post(f"{AGENTS}/{created['id']}/run", json={})
    assert problem(answer) == (409, "/problems/agent_disabled", [])


async def test_viewers_read_and_do_not_change(api: FastAPI, admin: httpx.AsyncClient, peer: Peer) -> None:
    created = await create(admin, peer.url, name="guarded")
    one = f"{AGENTS}/{created['id']}"
    async with connected(api, "viewer") as viewer:
        assert (await viewer.get(AGENTS)).status_code == 200
        assert (await viewer.get(one)).status_code == 200
        assert (await viewer.get(f"{one}/calls")).status_code == 200
        for method, path in (
            ("POST", AGENTS),
            ("PATCH", one),
            ("DELETE", one),
            ("PUT", f"{one}/credential"),
            ("POST", f"{one}/check"),
            ("POST", f"{one}/run"),
        ):
            assert problem(await viewer.request(method, path, json={}))[:2] == (403, "/problems/forbidden")
