"""A headless Chromium that was installed with the system, and that finds no host but this machine."""

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from playwright.async_api import Page, async_playwright

from app.cli.embedded import LOOPBACK

VARIABLE = "UPBEAT_TEST_BROWSER"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
OPTIONS = (
    f"--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE {LOOPBACK}",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
)


def browser_path() -> str:
    """The browser's program: the one that is named, else the first one on the PATH."""
    named = os.environ.get(VARIABLE)
    found = next(filter(None, map(shutil.which, [named] if named else NAMES)), None)
    assert found, (
        f"No Chromium was found. Install one (Debian: apt-get install chromium), or name its program in {VARIABLE}."
    )
    return found


@asynccontextmanager
async def opened_page() -> AsyncIterator[Page]:
    """An empty page; ``page.context`` forgets everything afterwards."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=browser_path(),
            args=[*OPTIONS, *(["--no-sandbox"] if os.geteuid() == 0 else [])],
        )
        try:
            page = await browser.new_page(viewport={"width": 1280, "height": 1000})
            page.set_default_timeout(30_000)
            yield page
        finally:
            await browser.close()
