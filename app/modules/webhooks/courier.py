"""What one process does for webhooks and alerts, over and over: look, make deliveries, deliver. It blocks nobody."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import TypeVar
from uuid import UUID

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session

from app.modules.alerts import service as alerts
from app.modules.webhooks import deliveries
from app.modules.webhooks.deliveries import Claimed
from app.modules.webhooks.sending import Message, Receipt, send
from app.outbound import OutboundPolicy
from app.scheduling.rounds import Rounds
from app.sealing import Sealer, SecretKeysUnfit
from app.settings import Settings

T = TypeVar("T")
logger = logging.getLogger(__name__)
FORGET_EVERY = 300.0


class Courier:
    """One process's share. Others may run at once: rows are claimed, nobody is leader."""

    def __init__(
        self,
        sessions: async_sessionmaker[AsyncSession],
        settings: Settings,
        *,
        sealer: Sealer,
        outbound: OutboundPolicy,
    ) -> None:
        self._sessions = sessions
        self._settings = settings
        self._sealer = sealer
        self._policy = outbound
        self._watch = alerts.Watch(settings.alert)
        self._under_way: Counter[UUID] = Counter()
        self._attempts: set[asyncio.Task[None]] = set()
        self._rounds = Rounds(look=0.0, forget=FORGET_EVERY)

    async def run(self) -> None:
        """Until cancelled; attempts that are under way then are left to whoever claims them later."""
        try:
            while True:
                try:
                    more = await self.step()
                except Exception as error:
                    more = False
                    self._watch.broke()
                    if not isinstance(error, SQLAlchemyError | OSError):
                        logger.exception("webhooks and alerts failed", extra={"action": "courier_failed"})
                if not more:
                    await asyncio.sleep(self._settings.webhook.look_every)
        finally:
            for attempt in self._attempts:
                attempt.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.gather(*self._attempts, return_exceptions=True)

    async def step(self) -> bool:
        """Do what is due, and begin the deliveries that are; True if there is more to do at once."""
        if self._rounds.is_time("look", self._settings.alert.look_every):
            await self._unit(self._watch.look)
        made = await self._unit(lambda session: deliveries.make(session, self._settings.webhook.attempts))
        begun = await self._deliver()
        if self._rounds.is_time("forget", FORGET_EVERY):
            await self._unit(self._forget)
        return made == deliveries.TAKEN_AT_ONCE or begun

    async def settle(self) -> None:
        """Wait for the attempts that are under way."""
        await asyncio.gather(*self._attempts)

    async def _deliver(self) -> bool:
        settings = self._settings.webhook
        places = settings.at_once - len(self._attempts)
        if places <= 0:
            return False
        busy = dict(self._under_way)
        claimed = await self._unit(
            lambda session: deliveries.claim(session, settings, limit=places, busy=busy)
        )
        for each in claimed:
            self._under_way[each.webhook_id] += 1
            attempt = asyncio.create_task(self._attempt(each))
            self._attempts.add(attempt)
            attempt.add_done_callback(self._attempts.discard)
        return bool(claimed)

    async def _attempt(self, claimed: Claimed) -> None:
        settings = self._settings.webhook
        try:
            receipt = await self._send(claimed)
            await self._unit(lambda session: deliveries.end(session, claimed, receipt, settings))
        except (SQLAlchemyError, OSError) as error:
            # The claim runs out, and it is delivered again under the same id.
            logger.warning("a delivery's outcome was not stored: %s", type(error).__name__)
        except Exception:
            logger.exception("a delivery failed", extra={"action": "delivery_failed"})
        finally:
            self._under_way[claimed.webhook_id] -= 1
            self._under_way += Counter()

    async def _send(self, claimed: Claimed) -> Receipt:
        sealed = [each for each in (claimed.secret, claimed.previous_secret) if each is not None]
        try:
            secrets = [self._sealer.open(each) for each in sealed]
        except SecretKeysUnfit as error:
            return Receipt(None, error.detail, 0.0)
        message = Message(
            id=str(claimed.id),
            url=claimed.url,
            type=claimed.type,
            at=claimed.at,
            data=claimed.data,
            attempt=claimed.attempt,
            secrets=secrets,
        )
        return await send(message, self._policy, within=self._settings.webhook.timeout)

    def _forget(self, session: Session) -> None:
        kept, closed = self._settings.webhook.keep_days, self._settings.alert.keep_days
        alerts.forget_old(session, facts=timedelta(days=kept), alerts=timedelta(days=closed))

    async def _unit(self, work: Callable[[Session], T]) -> T:
        async with self._sessions.begin() as session:
            return await session.run_sync(work)
