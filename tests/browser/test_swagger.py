"""Swagger UI as a person meets it, in a browser without the internet: log in, make a schedule, run it, read the result."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Error as BrowserError
from playwright.async_api import Locator, Page, Request

from app.settings import Settings
from support.api import ADMIN, client_of
from support.browser import opened_page
from support.polling import eventually_async
from support.stack import Api, Stack

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def api(shared_stack: Stack, settings: Settings) -> Api:
    """The stack, with the administrator whose password is typed below."""
    shared_stack.worker()
    served = shared_stack.api()
    with client_of(served.url, settings):
        return served


@pytest.fixture
async def page(api: Api, tmp_path: Path) -> AsyncIterator[Page]:
    """The documentation's page; what it looked like at the end is kept with a failure."""
    async with opened_page() as opened:
        await opened.goto(f"{api.url}/docs")
        yield opened
        await opened.screenshot(path=tmp_path / "end.png", full_page=True)


class Operation:
    """One operation of the page, opened and tried out."""

    def __init__(self, page: Page, tag: str, name: str) -> None:
        self.place = page.locator(f"#operations-{tag.replace(' ', '_')}-{name}")

    async def open(self) -> None:
        await self.place.locator(".opblock-summary-control").click()
        await self.place.get_by_role("button", name="Try it out").click()

    async def fill(self, parameter: str, value: str) -> None:
        await self.place.locator(f'tr[data-param-name="{parameter}"] input').fill(value)

    async def execute(self) -> tuple[int, Any]:
        """Press Execute; the status and the JSON that the page then shows."""
        shown = self.place.locator(".live-responses-table .response").first
        if await shown.count():
            await self.place.get_by_role("button", name="Clear").click()
            await shown.wait_for(state="detached")
        await self.place.get_by_role("button", name="Execute").click()
        status = await _text(shown.locator(".response-col_status"))
        body = await _text(
            shown.locator(".response-col_description code, .response-col_description pre").first
        )
        return int(status.split()[0]), json.loads(body)


async def _text(place: Locator) -> str:
    return await place.inner_text()


async def _log_in(page: Page) -> None:
    await page.locator(".auth-wrapper").get_by_role("button", name="Authorize").click()
    form = page.locator(".auth-container", has=page.locator("#oauth_username"))
    await form.locator("#oauth_username").fill(ADMIN[0])
    await form.locator("#oauth_password").fill(ADMIN[1])
    await form.get_by_role("button", name="Apply given OAuth2 credentials").click()
    await page.locator(".dialog-ux").get_by_role("button", name="Remove authorization").first.wait_for()
    await page.locator(".dialog-ux").get_by_role("button", name="Close", exact=True).first.click()


async def test_log_in_make_a_schedule_run_it_and_read_its_result(page: Page, api: Api) -> None:
    await _log_in(page)
    create = Operation(page, "Scheduled tasks", "create_scheduled_task")
    await create.open()
    example = json.loads(await create.place.locator("textarea.body-param__text").input_value())
    assert example["task_path"] == "src.apps.auth.tasks.cleanup_expired_sessions_task"
    status, made = await create.execute()
    assert (status, made["task_name"], made["state"]) == (201, example["task_name"], "active")

    run = Operation(page, "Scheduled tasks", "run_scheduled_task")
    await run.open()
    await run.fill("schedule_id", made["id"])
    status, started = await run.execute()
    assert (status, started["schedule_id"], started["origin"]) == (202, made["id"], "manual")

    read = Operation(page, "Runs", "get_run")
    await read.open()
    await read.fill("run_id", started["id"])

    async def ended() -> dict[str, Any] | None:
        _, found = await read.execute()
        return found if found["finished_at"] else None

    found = await eventually_async(ended, 60, "the end of the run")
    assert found is not None
    assert (found["state"], found["task"]) == ("succeeded", "auth.cleanup_expired_sessions")
    assert found["result"] is not None


async def test_the_page_asks_nobody_but_this_service(api: Api) -> None:
    """And could not: no other host has an address in this browser."""
    asked: list[str] = []
    problems: list[str] = []

    def note(request: Request) -> None:
        if not request.url.startswith("data:"):
            asked.append(urlsplit(request.url).netloc)

    async with opened_page() as page:
        page.on("request", note)
        page.on("requestfailed", lambda request: problems.append(request.url))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda said: problems.extend([said.text] if said.type == "error" else []))
        await page.goto(f"{api.url}/docs")
        await page.locator(".opblock").first.wait_for()
        await _log_in(page)
        assert set(asked) == {urlsplit(api.url).netloc}
        assert problems == []
        outside = await page.evaluate(
            "fetch('http://upbeat.example/', {mode: 'no-cors'}).then(() => 'reached', error => String(error))"
        )
        assert "Failed to fetch" in outside
        with pytest.raises(BrowserError, match="ERR_NAME_NOT_RESOLVED"):
            await page.goto("http://upbeat.example/")


async def test_an_api_key_will_do_instead_of_a_password(page: Page, api: Api, settings: Settings) -> None:
    with client_of(api.url, settings) as admin:
        made = admin.post("/api/v1/api-keys", json={"name": "page", "scopes": ["read"]})
        key = made.raise_for_status().json()["secret"]
    await page.locator(".auth-wrapper").get_by_role("button", name="Authorize").click()
    form = page.locator(".auth-container", has=page.locator("#auth-bearer-value"))
    await form.locator("#auth-bearer-value").fill(key)
    await form.get_by_role("button", name="Apply credentials").click()
    await page.locator(".dialog-ux").get_by_role("button", name="Close", exact=True).first.click()
    me = Operation(page, "Login", "get_current_user")
    await me.open()
    status, caller = await me.execute()
    assert (status, caller["means"]) == (200, "api_key")
