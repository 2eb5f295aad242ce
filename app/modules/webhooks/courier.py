"""What one process does for webhooks and alerts, over and over: look, make deliveries, deliver. It blocks nobody."""

import asyncio
import logging
from collections import Counter
from contextlib import suppress
from datetime import timedelta
from uuid import UUID

from sqlalchemy import exists
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app.db.companions import unit
from app.modules.alerts import service as alerts
from app.modules.webhooks import deliveries
from app.modules.webhooks.deliveries import Claimed
from app.modules.webhooks.models import DeliveryRow
from app.modules.webhooks.sending import Message, Receipt, send
from app.outbound import OutboundPolicy
from app.scheduling.rounds import Rounds
from app.sealing import Sealer, SecretKeysUnfit
from app.settings import Settings

logger = logging.getLogger(__name__)
FORGET_EVERY = 300.0
ON_ITS_WAY = exists().where(DeliveryRow.fact_id == alerts.FactRow.id, DeliveryRow.state == "pending")


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
        self._failing = self._forgetting = False

    async def run(self) -> None:
        """Until cancelled; attempts that are under way then are left to whoever claims them later."""
        try:
            while True:
                try:
                    more = await self.step()
                    self._failing = False
                except Exception as error:  # noqa: BLE001 - told, and tried again
                    more = False
                    self._watch.broke()
                    self._complain(error)
                if not more:
                    await asyncio.sleep(self._settings.webhook.look_every)
        finally:
            for attempt in self._attempts:
                attempt.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.gather(*self._attempts, return_exceptions=True)

    def _complain(self, error: Exception) -> None:
        """Once for a row of failures: an outage of the database lasts, and so does a privilege that was not given."""
        if not self._failing:
            # The database's words, not SQLAlchemy's, which repeat the statement.
            words = getattr(error, "orig", None) or error
            known = isinstance(error, SQLAlchemyError | OSError)
            logger.warning(
                "webhooks and alerts stand still: %s",
                words,
                exc_info=None if known else error,
                extra={"action": "courier_failed"},
            )
        self._failing = True

    async def step(self) -> bool:
        """Do what is due, and begin the deliveries that are; True if there is more to do at once."""
        if self._rounds.is_time("look", self._settings.alert.look_every):
            await unit(self._sessions, self._watch.look)
        made = await unit(
            self._sessions, lambda session: deliveries.make(session, self._settings.webhook.attempts)
        )
        begun = await self._deliver()
        if self._forgetting or self._rounds.is_time("forget", FORGET_EVERY):
            self._forgetting = await self._forget()
        return made == deliveries.TAKEN_AT_ONCE or begun or self._forgetting

    async def settle(self) -> None:
        """Wait for the attempts that are under way."""
        await asyncio.gather(*self._attempts)

    async def _deliver(self) -> bool:
        settings = self._settings.webhook
        places = settings.at_once - len(self._attempts)
        if places <= 0:
            return False
        busy = dict(self._under_way)
        claimed = await unit(
            self._sessions, lambda session: deliveries.claim(session, settings, limit=places, busy=busy)
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
            await unit(self._sessions, lambda session: deliveries.end(session, claimed, receipt, settings))
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

    async def _forget(self) -> bool:
        kept, closed = self._settings.webhook.keep_days, self._settings.alert.keep_days
        return await alerts.forget_old(
            self._sessions, facts=timedelta(days=kept), alerts=timedelta(days=closed), needed=ON_ITS_WAY
        )
