"""Tasks as a user would write them, for workers under test: `celery -A app.worker worker -I support.tasks`.

Each writes the ledger at its start and end.
"""

import asyncio
import os
import resource
import signal
import time
from typing import Any

from sqlalchemy import func, select

from app.worker import app
from app.worker.bridge import task_connection, task_sessions
from support.ledger import recorded


@app.task(name="support.instant", bind=True)
def instant(self: Any, value: object = None) -> object:
    """Give back the argument."""
    with recorded(self.request):
        return value


@app.task(name="support.nap", bind=True)
async def nap(self: Any, seconds: float = 1.0) -> float:
    """Await for a while."""
    with recorded(self.request):
        await asyncio.sleep(seconds)
        return seconds


@app.task(name="support.block", bind=True)
def block(self: Any, seconds: float = 1.0) -> float:
    """Sleep in a plain function, which only a signal can end."""
    with recorded(self.request):
        time.sleep(seconds)
        return seconds


@app.task(name="support.fail", bind=True)
def fail(self: Any, message: str = "told to fail") -> None:
    """Raise ValueError."""
    with recorded(self.request):
        raise ValueError(message)


@app.task(name="support.query", bind=True)
async def query(self: Any, pause: float = 0.0) -> dict[str, int]:
    """Ask the database who serves this connection, and tell by what way it was asked."""
    sessions = task_sessions()
    async with sessions() as session:
        backend = await session.scalar(select(func.pg_backend_pid()))
        await asyncio.sleep(pause)
    return {
        "process": os.getpid(),
        "loop": id(asyncio.get_running_loop()),
        "pool": id(sessions.kw["bind"].pool),
        "backend": backend or 0,
    }


@app.task(name="support.transactions")
async def transactions(way: str) -> int:
    """In how many transactions two queries were, that were made in one of three ways."""
    if way == "connection":
        async with task_connection() as connection:
            return len({await connection.scalar(select(func.now())) for _ in range(2)})
    async with task_sessions(autocommit=way == "autocommit")() as session:
        return len({await session.scalar(select(func.now())) for _ in range(2)})


@app.task(name="support.clean_up", bind=True)
async def clean_up(self: Any, seconds: float, file: str) -> None:
    """Await for long; when that is cancelled, await again before leaving, and say so in ``file``."""
    try:
        await asyncio.sleep(seconds)
    finally:
        await asyncio.sleep(0.01)
        with open(file, "w") as written:  # noqa: ASYNC230, PTH123 - a line in a test
            written.write("cleaned up")


@app.task(name="support.second_try", bind=True)
async def second_try(self: Any) -> int:
    """Raise in the first attempt."""
    with recorded(self.request):
        if not self.request.retries:
            raise ConnectionError("the first attempt")
        return int(self.request.retries)


@app.task(name="support.first_try_hangs", bind=True)
def first_try_hangs(self: Any) -> None:
    """Never end in the first attempt."""
    with recorded(self.request):
        time.sleep(0 if self.request.retries else 600)


@app.task(name="support.die", bind=True)
def die(self: Any, how: str) -> None:
    """End the process that runs this: by a signal, by `exit`, past all handlers, or by SystemExit."""
    with recorded(self.request):
        if how == "exit":
            os._exit(3)
        if how == "SystemExit":
            raise SystemExit(3)
        os.kill(os.getpid(), signal.Signals[how])
        time.sleep(60)


@app.task(name="support.eat", bind=True)
def eat(self: Any, megabytes: int) -> int:
    """Take more memory than this process may have, which is this much more than it has."""
    with recorded(self.request):
        before = resource.getrlimit(resource.RLIMIT_AS)
        pages = int(open("/proc/self/statm").read().split()[0])  # noqa: PTH123, SIM115 - a line in a test
        resource.setrlimit(
            resource.RLIMIT_AS, (pages * resource.getpagesize() + megabytes * 2**20, before[1])
        )
        try:
            return len(bytearray(2 * megabytes * 2**20))
        finally:
            resource.setrlimit(resource.RLIMIT_AS, before)
