"""The threads of the event loop, through which runs are published: few, and everybody's."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

MORE_THAN_THERE_ARE = 64


@asynccontextmanager
async def none_free() -> AsyncIterator[None]:
    """All of them are busy for the time of the context: what goes on meanwhile does not hold up who publishes."""
    gate, loop = threading.Event(), asyncio.get_running_loop()
    busy = [loop.run_in_executor(None, gate.wait) for _ in range(MORE_THAN_THERE_ARE)]
    try:
        yield
    finally:
        gate.set()
        await asyncio.gather(*busy)
