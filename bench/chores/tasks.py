"""The tasks that our worker executes."""

import asyncio

from sqlalchemy import text

from app.worker import app
from app.worker.bridge import task_connection
from bench.chores import places


@app.task(name=places.NOOP)
def noop(n: int) -> int:
    """Give back the argument."""
    return n


@app.task(name=places.NAP)
async def nap(n: int) -> int:
    """Await 100 ms, as a call to somebody else would."""
    await asyncio.sleep(places.NAP_SECONDS)
    return n


@app.task(name=places.QUERY)
async def query(n: int) -> int:
    """One query, on the pool that all tasks of the process share, by the way that is meant for one query."""
    async with task_connection() as connection:
        return int((await connection.execute(text("SELECT CAST(:n AS int)"), {"n": n})).scalar_one())
