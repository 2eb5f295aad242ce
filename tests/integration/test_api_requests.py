"""Request ids, the access log, the last resort, and the documentation's page."""

import asyncio
import logging
import re
from base64 import b64encode
from collections.abc import AsyncIterator
from hashlib import sha256

import httpx
import pytest
from fastapi import FastAPI

from app.settings import ApiSettings, Settings
from support.api import connect, serving


@pytest.fixture(scope="module")
async def api(settings: Settings) -> AsyncIterator[FastAPI]:
    async with serving(settings) as app:

        @app.get("/broken", include_in_schema=False)
        async def broken() -> None:
            raise RuntimeError("the secret is hunter2")

        yield app


@pytest.fixture
async def client(api: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with connect(api) as connection:
        yield connection


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, object]]:
    """What is logged; the service's loggers do not propagate, so it is caught at their root."""
    caught: list[dict[str, object]] = []

    class Catch(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            # Those of one turn of the loop are one record.
            found = record.msg if isinstance(record.msg, list) else [record.msg]
            caught.extend(line for line in found if isinstance(line, dict))

    logging.getLogger("app").addHandler(Catch())
    return caught


async def test_a_sane_request_id_is_kept(client: httpx.AsyncClient, lines: list[dict[str, object]]) -> None:
    answer = await client.get("/api/v1/nothing?token=hunter2", headers={"X-Request-ID": "caller-1"})
    assert answer.headers["X-Request-ID"] == "caller-1"
    assert answer.json()["request_id"] == "caller-1"
    await asyncio.sleep(0)
    (line,) = lines
    assert (
        line.items()
        >= {
            "event": "request",
            "request_id": "caller-1",
            "method": "GET",
            "path": "/api/v1/nothing",
            "status": 404,
        }.items()
    )
    assert "hunter2" not in str(line)


@pytest.mark.parametrize("given", [None, "", "a b", "x" * 200, "<script>", "a\tb"])
async def test_another_one_is_made(client: httpx.AsyncClient, given: str | None) -> None:
    headers = {} if given is None else {"X-Request-ID": given}
    first, second = [(await client.get("/livez", headers=headers)).headers["X-Request-ID"] for _ in range(2)]
    assert re.fullmatch("[0-9a-f]{32}", first)
    assert first != second


async def test_what_nobody_handled_is_a_500_without_its_text(
    client: httpx.AsyncClient, lines: list[dict[str, object]]
) -> None:
    answer = await client.get("/broken")
    assert answer.status_code == 500
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"] == "/problems/internal"
    assert problem["request_id"] == answer.headers["X-Request-ID"]
    assert "hunter2" not in answer.text
    await asyncio.sleep(0)
    assert [line["event"] for line in lines] == ["unhandled", "request"]
    assert {line["request_id"] for line in lines} == {problem["request_id"]}


async def test_the_documentation_needs_no_internet(client: httpx.AsyncClient) -> None:
    page = await client.get("/docs")
    assert page.status_code == 200
    links = re.findall(r'(?:src|href)="([^"]+)"', page.text) + re.findall(r"url: '([^']+)'", page.text)
    assert len(links) == 4
    for link in links:
        assert link.startswith("/"), link
        assert (await client.get(link)).status_code == 200, link
    assert "//" not in re.sub(r"<!--.*?-->|//.*$", "", page.text, flags=re.MULTILINE).replace("://", "X")
    assert "http" not in page.text.replace("http-equiv", "")
    assert '"validatorUrl": null' in page.text
    style = (await client.get("/docs/assets/swagger-ui.css")).text
    assert [
        url for url in re.findall(r"url\(([^)]*)\)", style) if not url.strip("\"'").startswith("data:")
    ] == []
    assert "@import" not in style
    assert (await client.get("/redoc")).status_code == 404


async def test_every_answer_has_its_security_headers(client: httpx.AsyncClient) -> None:
    for path in ("/livez", "/api/v1/runs", "/api/v1/nothing", "/broken", "/docs", "/openapi.json"):
        headers = (await client.get(path)).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["X-Frame-Options"] == "DENY"
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "Strict-Transport-Security" not in headers
        assert (headers.get("Cache-Control") == "no-store") == path.startswith("/api/")


async def test_below_a_path_of_a_proxy_answers_are_not_stored_either(api: FastAPI) -> None:
    transport = httpx.ASGITransport(api, root_path="/upbeat")
    async with httpx.AsyncClient(transport=transport, base_url="http://upbeat.test/upbeat") as client:
        answer = await client.get("/api/v1/auth/me")
    assert (answer.status_code, answer.headers.get("Cache-Control")) == (401, "no-store")


async def test_behind_https_browsers_are_told_to_stay_there(client: httpx.AsyncClient) -> None:
    answer = await client.get("https://upbeat.test/livez")
    assert answer.headers["Strict-Transport-Security"].startswith("max-age=31536000")


async def test_the_documentations_page_runs_our_own_scripts_only(client: httpx.AsyncClient) -> None:
    page = await client.get("/docs")
    policy = dict(part.strip().split(" ", 1) for part in page.headers["Content-Security-Policy"].split(";"))
    (script,) = re.findall(r"<script>(.*?)</script>", page.text, re.DOTALL)
    digest = b64encode(sha256(script.encode()).digest()).decode()
    assert policy["script-src"] == f"'self' 'sha256-{digest}'"
    assert policy["connect-src"] == "'self'"
    assert not re.findall(r"<[^>]+\son\w+=", page.text), "handlers in attributes would be refused"


async def test_the_documentation_can_be_switched_off(settings: Settings) -> None:
    changed = settings.model_copy(update={"api": ApiSettings(docs_enabled=False)})
    async with serving(changed) as app, connect(app) as client:
        for path in ("/docs", "/openapi.json", "/docs/assets/swagger-ui.css"):
            assert (await client.get(path)).status_code == 404
        assert (await client.get("/livez")).status_code == 200
