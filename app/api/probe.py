"""What `/readyz` asks of database and Redis: bounded in time, and once for all who ask at once.

The route is open, so its cost must not grow with the number of callers, nor with an outage.
"""

import asyncio

import anyio
import structlog

from app.db.outages import is_away
from app.scheduling.facade import Readiness, Scheduler
from app.scheduling.messages import BrokerUnavailable
from app.worker.publisher import CeleryPublisher

PATIENCE = 1.0
# Giving a connection up takes up to 2 s more, which no caller waits for.
DATABASE_TIMEOUT = 3.0

log = structlog.get_logger(__name__)


class Probe:
    """Asks the two servers on behalf of any number of callers."""

    def __init__(self, scheduler: Scheduler, publisher: CeleryPublisher) -> None:
        self._scheduler = scheduler
        self._publisher = publisher
        self._asking: asyncio.Task[Readiness | None] | None = None
        # One ping at a time: a Redis that hangs must not use up the process's threads.
        self._pings = anyio.CapacityLimiter(1)

    async def database(self) -> Readiness | None:
        """What the database says; None when it does not within a second."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
        done, _ = await asyncio.wait({self._asking}, timeout=PATIENCE)
        return done.pop().result() if done else None

    async def redis(self) -> bool:
        """Whether Redis answers within a second."""
        try:
            with anyio.fail_after(PATIENCE):
                await anyio.to_thread.run_sync(
                    self._publisher.ping, abandon_on_cancel=True, limiter=self._pings
                )
        except (BrokerUnavailable, TimeoutError) as error:
            log.warning("redis does not answer", action="readyz", cause=str(error) or "no answer in time")
            return False
        except Exception:
            log.exception("readiness failed", action="readyz")
            return False
        return True

    async def close(self) -> None:
        """Stop asking."""
        if self._asking is not None and not self._asking.done():
            self._asking.cancel()
            await asyncio.wait({self._asking})

    async def _ask(self) -> Readiness | None:
        try:
            async with asyncio.timeout(DATABASE_TIMEOUT):
                return await self._scheduler.readiness()
        except Exception as error:
            if is_away(error):
                log.warning("database does not answer", action="readyz", cause=type(error).__name__)
            else:
                log.exception("readiness failed", action="readyz")
            return None
