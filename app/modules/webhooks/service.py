"""The face of this module: webhooks as a resource, and their deliveries."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from sqlalchemy import Text, any_, delete, func, literal, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session

from app.db.companions import unit
from app.errors import Conflict, NotFound
from app.modules.alerts import service as alerts
from app.modules.webhooks import deliveries, signing
from app.modules.webhooks.config import WebhookCreate, WebhookUpdate
from app.modules.webhooks.models import DeliveryRow, WebhookRow
from app.outbound import OutboundPolicy, check_url
from app.scheduling import versions
from app.scheduling.ids import new_id
from app.scheduling.schedules import database_time
from app.sealing import Sealer
from app.settings import WebhookSettings

DeliveryState = Literal["pending", "delivered", "failed"]


@dataclass(frozen=True, slots=True)
class NewSecret:
    """A webhook whose secret was made now: the only time that it is known."""

    row: WebhookRow
    secret: str


class Webhooks:
    """Webhooks, as methods."""

    def __init__(
        self,
        sessions: async_sessionmaker[AsyncSession],
        settings: WebhookSettings,
        *,
        sealer: Sealer,
        outbound: OutboundPolicy,
    ) -> None:
        self._sessions = sessions
        self._settings = settings
        self._sealer = sealer
        self._policy = outbound

    async def create(self, body: WebhookCreate) -> NewSecret:
        """Store a webhook with a fresh secret.

        Raises:
            InvalidInput: its address will not do.
            Conflict: the name is taken.
            SecretKeysUnfit: there are no keys to seal the secret with.
        """
        check_url(body.url, self._policy, "url")
        secret = signing.new_secret()
        values = body.model_dump() | {"secret": self._sealer.seal(secret)}

        def work(session: Session) -> NewSecret:
            row = session.scalar(
                insert(WebhookRow)
                .values(id=new_id(), **values)
                .on_conflict_do_nothing(index_elements=[WebhookRow.name])
                .returning(WebhookRow)
            )
            if row is None:
                raise _taken()
            return NewSecret(row, secret)

        return await unit(self._sessions, work)

    async def page(
        self,
        *,
        limit: int,
        after: UUID | None = None,
        search: str | None = None,
        enabled: bool | None = None,
        event_type: str | None = None,
    ) -> list[WebhookRow]:
        """Up to ``limit`` webhooks by age, oldest first; ``search`` is part of a name."""
        query = select(WebhookRow).order_by(WebhookRow.id).limit(limit)
        if after is not None:
            query = query.where(WebhookRow.id > after)
        if search:
            query = query.where(WebhookRow.name.icontains(search, autoescape=True))
        if enabled is not None:
            query = query.where(WebhookRow.enabled == enabled)
        if event_type is not None:
            query = query.where(literal(event_type, Text) == any_(WebhookRow.event_types))
        return await unit(self._sessions, lambda session: list(session.scalars(query)))

    async def get(self, webhook_id: UUID) -> WebhookRow:
        """One webhook; raises NotFound."""
        return await unit(self._sessions, lambda session: _found(session.get(WebhookRow, webhook_id)))

    async def update(
        self, webhook_id: UUID, body: WebhookUpdate, *, expected: Collection[int] | None = None
    ) -> WebhookRow:
        """Change what is given; disabling gives up what is on its way.

        Raises:
            NotFound: there is none with this id.
            PreconditionFailed: it is at another version than the ``expected`` ones, here and below.
            InvalidInput: its address will not do.
            Conflict: the new name is taken.
        """
        if body.url is not None:
            check_url(body.url, self._policy, "url")
        changes = body.changes()

        def work(session: Session) -> WebhookRow:
            row = _locked(session, webhook_id)
            versions.require(row.version, expected, "webhook")
            name = changes.get("name", row.name)
            if name != row.name and session.scalar(
                select(func.count()).select_from(WebhookRow).where(WebhookRow.name == name)
            ):
                raise _taken()
            row.updated_at = database_time(session)
            row.version += 1
            for column, value in changes.items():
                setattr(row, column, value)
            try:
                session.flush()
            except IntegrityError as error:
                # Somebody else took it meanwhile.
                raise _taken() from error
            if not row.enabled:
                session.execute(deliveries.GIVE_UP, {"webhook_id": webhook_id})
            return row

        return await unit(self._sessions, work)

    async def remove(self, webhook_id: UUID, *, expected: Collection[int] | None = None) -> None:
        """Delete a webhook with its deliveries; raises NotFound, PreconditionFailed."""

        def work(session: Session) -> None:
            versions.require(_locked(session, webhook_id).version, expected, "webhook")
            session.execute(delete(WebhookRow).where(WebhookRow.id == webhook_id))

        await unit(self._sessions, work)

    async def rotate_secret(self, webhook_id: UUID) -> NewSecret:
        """Give it a fresh secret; for a while the one before signs, too.

        Raises:
            NotFound: there is none with this id.
            SecretKeysUnfit: there are no keys to seal the secret with.
        """
        secret = signing.new_secret()
        sealed = self._sealer.seal(secret)

        def work(session: Session) -> NewSecret:
            row, now = _locked(session, webhook_id), database_time(session)
            row.previous_secret, row.secret = row.secret, sealed
            row.previous_until, row.secret_set_at = now + deliveries.grace(self._settings), now
            row.version += 1
            return NewSecret(row, secret)

        return await unit(self._sessions, work)

    async def reseal(self) -> int:
        """Seal every secret with the newest key; answers of how many webhooks.

        Raises:
            SecretKeysUnfit: there are no keys, or one is missing for a secret.
        """

        def work(session: Session) -> int:
            # In the order in which deliveries are made for them.
            query = select(WebhookRow).order_by(WebhookRow.id).with_for_update(key_share=True)
            rows = session.scalars(query).all()
            for row in rows:
                row.secret = self._sealer.reseal(row.secret)
                if row.previous_secret is not None:
                    row.previous_secret = self._sealer.reseal(row.previous_secret)
            return len(rows)

        return await unit(self._sessions, work)

    async def test(self, webhook_id: UUID, actor: str) -> DeliveryRow:
        """Make a delivery that tells of nothing; raises NotFound."""

        def work(session: Session) -> DeliveryRow:
            row = _locked(session, webhook_id)
            data = {"webhook_id": str(row.id), "webhook": row.name, "requested_by": actor}
            fact = alerts.FactRow(type=alerts.TEST, data=data, taken_at=database_time(session))
            session.add(fact)
            session.flush()
            made = {"id": new_id(), "webhook_id": row.id, "fact_id": fact.id, "type": fact.type}
            session.execute(deliveries.INSERT, made | {"tries": 1})
            return session.get_one(DeliveryRow, made["id"])

        return await unit(self._sessions, work)

    async def deliveries(
        self,
        webhook_id: UUID,
        *,
        limit: int,
        before: UUID | None = None,
        state: DeliveryState | None = None,
    ) -> list[DeliveryRow]:
        """Up to ``limit`` deliveries of a webhook, newest first; raises NotFound."""
        query = select(DeliveryRow).where(DeliveryRow.webhook_id == webhook_id)
        if before is not None:
            query = query.where(DeliveryRow.id < before)
        if state is not None:
            query = query.where(DeliveryRow.state == state)

        def work(session: Session) -> list[DeliveryRow]:
            _found(session.get(WebhookRow, webhook_id))
            return list(session.scalars(query.order_by(DeliveryRow.id.desc()).limit(limit)))

        return await unit(self._sessions, work)

    async def redeliver(self, webhook_id: UUID, delivery_id: UUID) -> DeliveryRow:
        """Deliver it again, under the same id.

        Raises:
            NotFound: this webhook has no such delivery.
            Conflict: it is still on its way.
        """
        values = {"id": delivery_id, "webhook_id": webhook_id, "tries": self._settings.attempts}

        def work(session: Session) -> DeliveryRow:
            row = session.get(DeliveryRow, delivery_id, with_for_update=True)
            if row is None or row.webhook_id != webhook_id:
                raise NotFound("This webhook has no delivery with this id; GET its deliveries lists them.")
            if row.state == "pending":
                raise Conflict("It is still on its way; `next_attempt_at` says when it is tried again.")
            session.execute(deliveries.REPEAT, values)
            session.refresh(row)
            return row

        return await unit(self._sessions, work)


def _locked(session: Session, webhook_id: UUID) -> WebhookRow:
    return _found(session.get(WebhookRow, webhook_id, with_for_update=True))


def _found(row: WebhookRow | None) -> WebhookRow:
    if row is None:
        raise NotFound("There is no webhook with this id. GET /api/v1/webhooks lists them.")
    return row


def _taken() -> Conflict:
    return Conflict("A webhook of this name exists; choose another name.")
