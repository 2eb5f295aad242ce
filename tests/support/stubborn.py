"""Tasks that are to be stopped, and what they see of the bridge."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

from billiard.exceptions import SoftTimeLimitExceeded
from celery.exceptions import NotRegistered
from sqlalchemy import text

from app import logs
from app.worker import app
from app.worker.bridge import run_async, task_sessions
from support.calls import note
from support.ledger import write

logger = logging.getLogger(__name__)


@app.task(name="stubborn.cleans_up", bind=True)
async def cleans_up(self: Any, path: str, seconds: float = 30.0) -> str:
    """Awaits, and says so when it is cancelled and when its clean-up is done."""
    write("start", self.request)
    note(path, "started")
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        note(path, "cancelled")
        await asyncio.sleep(0.05)
        note(path, "cleaned")
        raise
    return "done"


@app.task(name="stubborn.blocks", bind=True)
def blocks(self: Any, path: str, seconds: float = 30.0) -> str:
    """A plain function that nobody can talk to."""
    write("start", self.request)
    note(path, "started")
    time.sleep(seconds)
    return "done"


@app.task(name="stubborn.computes", bind=True)
def computes(self: Any, path: str, seconds: float = 30.0) -> str:
    """A plain function that never waits for long, and says so when it is interrupted."""
    note(path, "started")
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            time.sleep(0.01)
    except SoftTimeLimitExceeded:
        note(path, "interrupted")
        raise
    return "done"


@app.task(name="stubborn.raises")
def raises(kind: str) -> None:
    """Raises what others take for something else than an error of the body."""
    kinds = (NotRegistered, KeyboardInterrupt, asyncio.CancelledError, SystemExit)
    raise next(each for each in kinds if each.__name__ == kind)("nobody")


@app.task(name="stubborn.context", bind=True)
async def context(self: Any) -> list[object]:
    """What a coroutine and one that it starts know of their run."""

    async def inner() -> list[object]:
        await asyncio.sleep(0)
        return [logs.about().get("run_id"), self.request.id]

    logger.warning("inside of the run")
    return [await inner(), await asyncio.create_task(inner())]


@app.task(name="stubborn.nested")
async def nested() -> str:
    """Does what is refused."""
    return str(run_async(asyncio.sleep(0, "never")))


@app.task(name="stubborn.opens")
async def opens(path: str) -> int:
    """Uses the pool of the process, and leaves a generator open for as long as the loop lives."""

    async def endless() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            note(path, "closed")

    _left_open.append(endless())
    async with task_sessions()() as session:
        one = int((await session.execute(text("SELECT 1"))).scalar_one())
    return one + int(await anext(_left_open[-1]))


_left_open: list[Any] = []
