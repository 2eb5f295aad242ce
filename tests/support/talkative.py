"""Tasks that say something: records, printed lines, progress; and one that waits for a file."""

import asyncio
import logging
import sys
import threading
import time
from pathlib import Path

import httpx

from app.worker import app, progress
from support.tasks import instant

logger = logging.getLogger("talkative")


@app.task(name="talkative.everything")
async def everything() -> None:
    """Speak in each way that there is."""
    logger.info("a record, password=%s", "hunter2")
    print("printed")
    print("in two ", end="")
    print("parts", file=sys.stdout)
    print("to stderr", file=sys.stderr)
    await asyncio.create_task(_speak("from a coroutine"))
    await asyncio.to_thread(logger.warning, "from a thread of the loop")
    await asyncio.get_running_loop().run_in_executor(None, logger.warning, "from the executor")
    thread = threading.Thread(target=logger.warning, args=("from a plain thread",))
    thread.start()
    thread.join()
    try:
        int("inner")
    except ValueError:
        logger.exception("with a traceback")
    logger.debug("below the level")
    progress(3, 7, "on the way")
    sys.stdout.write("no newline at the end")


@app.task(name="talkative.fetch")
async def fetch(url: str) -> int:
    """Call another service, then another task."""
    async with httpx.AsyncClient() as client:
        answer = await client.post(url)
    await asyncio.to_thread(instant.delay)
    return answer.status_code


async def _speak(text: str) -> None:
    await asyncio.sleep(0)
    logger.info(text)


@app.task(name="talkative.chatter")
def chatter(lines: int, size: int = 10) -> None:
    """Print that many lines."""
    for number in range(lines):
        print(f"{number}".ljust(size, "."))


@app.task(name="talkative.fails_once", max_attempts=2, bind=True)
def fails_once(self: object) -> None:
    """Fail in the first attempt."""
    attempt = self.request.attempt  # type: ignore[attr-defined]
    logger.info("attempt %d", attempt)
    if attempt == 1:
        raise ValueError("not yet")


@app.task(name="talkative.slowly")
def slowly(folder: str) -> None:
    """Say a line and some progress for each file that appears in ``folder``, until one is named end."""
    seen = 0
    while True:
        found = len(list(Path(folder).iterdir()))
        while seen < found:
            seen += 1
            logger.info("saw %d", seen)
            progress(seen, message="seen")
        if (Path(folder) / "end").exists():
            return
        time.sleep(0.02)
