"""Tasks as a user would write them, for workers under test: `celery -A app.worker worker -I support.tasks`.

Each writes the ledger at its start and end.
"""

import asyncio
import time
from typing import Any

from app.worker import app
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
