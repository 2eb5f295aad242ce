"""Webhooks over HTTP."""

from datetime import datetime
from typing import Annotated, Self
from uuid import UUID

from fastapi import Body, Depends, Query, Response, status
from pydantic import BaseModel, ConfigDict, Field

from app.api.concurrency import IfMatch, etag, etag_header
from app.api.dependencies import Caller, ServicesOf
from app.api.guards import ADMINISTER, OPERATE, READ, guarded
from app.api.pagination import FilterText, NextCursor, PageQuery, encode
from app.api.problems import ACTS_ON_ONE, EDITS_ONE, READS, READS_ONE, REMOVES_ONE, WRITES
from app.api.routing import resource_router
from app.modules.alerts.service import FactType
from app.modules.webhooks.config import WebhookCreate, WebhookUpdate
from app.modules.webhooks.examples import (
    CREATE_EXAMPLES,
    DELIVERY_EXAMPLE,
    NEW_WEBHOOK_EXAMPLE,
    UPDATE_EXAMPLES,
    WEBHOOK_EXAMPLE,
)
from app.modules.webhooks.models import DeliveryRow, WebhookRow
from app.modules.webhooks.service import DeliveryState, NewSecret, Webhooks

router = resource_router("/webhooks", "Webhooks")


def webhooks(services: ServicesOf) -> Webhooks:
    """The webhooks of this application."""
    return Webhooks(
        services.sessions, services.settings.webhook, sealer=services.sealer, outbound=services.outbound
    )


WebhooksOf = Annotated[Webhooks, Depends(webhooks)]


class Webhook(BaseModel):
    """An address that is told of events. Its secret is never shown again."""

    model_config = ConfigDict(json_schema_extra={"examples": [WEBHOOK_EXAMPLE]})

    id: UUID
    version: int = Field(description="Grows with each change.")
    name: str
    url: str
    description: str | None
    enabled: bool
    event_types: list[FactType]
    schedule_ids: list[UUID] | None = Field(description="Null for all.")
    tasks: list[str] | None = Field(description="Null for all.")
    tags: list[str] | None = Field(description="Null for all.")
    secret_set_at: datetime
    previous_secret_until: datetime | None = Field(description="Until then the secret before signs, too.")
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, row: WebhookRow) -> Self:
        """The wire form of a row."""
        return cls(**_shown(row))


class NewWebhook(Webhook):
    """A webhook whose secret was made now."""

    model_config = ConfigDict(json_schema_extra={"examples": [NEW_WEBHOOK_EXAMPLE]})

    secret: str = Field(description="Receivers check signatures with it. It is shown only now.")

    @classmethod
    def made(cls, made: NewSecret) -> Self:
        """The wire form, with the secret."""
        return cls(**_shown(made.row), secret=made.secret)


class WebhookPage(BaseModel):
    """Webhooks, oldest first."""

    items: list[Webhook]
    next_cursor: NextCursor


class WebhookQuery(PageQuery):
    """Which webhooks."""

    search: FilterText | None = Field(None, description="Part of the name.")
    enabled: bool | None = None
    event_type: FactType | None = None


class WebhookDelivery(BaseModel):
    """An event on its way to a webhook, and what came of it."""

    model_config = ConfigDict(json_schema_extra={"examples": [DELIVERY_EXAMPLE]}, from_attributes=True)

    id: UUID = Field(description="`webhook-id` of every attempt.")
    webhook_id: UUID
    type: str = Field(description="Of the event; `webhook.test` was sent on request.")
    state: DeliveryState = Field(description="`failed` is not tried again by itself.")
    attempts: int
    status: int | None = Field(description="The HTTP status that was answered last.")
    error: str | None = Field(description="Why the last attempt was in vain.")
    duration: float | None = Field(description="Of the last attempt, in seconds.")
    created_at: datetime
    last_attempt_at: datetime | None
    next_attempt_at: datetime | None
    delivered_at: datetime | None

    @classmethod
    def of(cls, row: DeliveryRow) -> Self:
        """The wire form of a row."""
        return cls.model_validate(row)


class WebhookDeliveryPage(BaseModel):
    """Deliveries, newest first."""

    items: list[WebhookDelivery]
    next_cursor: NextCursor


class DeliveryQuery(PageQuery):
    """Which deliveries."""

    state: DeliveryState | None = None


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    responses=WRITES | etag_header(201),
    summary="Create a webhook",
)
@guarded(ADMINISTER)
async def create_webhook(
    body: Annotated[WebhookCreate, Body(openapi_examples=CREATE_EXAMPLES)],
    response: Response,
    webhooks: WebhooksOf,
) -> NewWebhook:
    """It is told of what happens from now on. Keep the secret: it is stored encrypted, and never shown again."""
    made = await webhooks.create(body)
    response.headers["Location"] = f"/api/v1/webhooks/{made.row.id}"
    response.headers["ETag"] = etag(made.row.version)
    return NewWebhook.made(made)


@router.get("", responses=READS, summary="List webhooks")
@guarded(READ)
async def list_webhooks(query: Annotated[WebhookQuery, Query()], webhooks: WebhooksOf) -> WebhookPage:
    """Webhooks in the order of their creation, filtered by name, event and whether they are enabled."""
    filters = query.model_dump(include={"search", "enabled", "event_type"})
    found = await webhooks.page(limit=query.limit + 1, after=query.position(), **filters)
    shown = found[: query.limit]
    more = encode(shown[-1].id) if len(found) > query.limit else None
    return WebhookPage(items=[Webhook.of(row) for row in shown], next_cursor=more)


@router.get("/{webhook_id}", responses=READS_ONE | etag_header(200), summary="Read a webhook")
@guarded(READ)
async def get_webhook(webhook_id: UUID, response: Response, webhooks: WebhooksOf) -> Webhook:
    """One webhook, without its secret."""
    return _tagged(response, await webhooks.get(webhook_id))


@router.patch("/{webhook_id}", responses=EDITS_ONE | etag_header(200), summary="Change a webhook")
@guarded(ADMINISTER)
async def update_webhook(
    webhook_id: UUID,
    body: Annotated[WebhookUpdate, Body(openapi_examples=UPDATE_EXAMPLES)],
    expected: IfMatch,
    response: Response,
    webhooks: WebhooksOf,
) -> Webhook:
    """Only the fields that are given change, for what happens from now on."""
    return _tagged(response, await webhooks.update(webhook_id, body, expected=expected))


@router.delete(
    "/{webhook_id}", status_code=status.HTTP_204_NO_CONTENT, responses=REMOVES_ONE, summary="Delete a webhook"
)
@guarded(ADMINISTER)
async def delete_webhook(webhook_id: UUID, expected: IfMatch, webhooks: WebhooksOf) -> None:
    """It is told nothing more; its deliveries go with it."""
    await webhooks.remove(webhook_id, expected=expected)


@router.post("/{webhook_id}/rotate-secret", responses=ACTS_ON_ONE, summary="Replace a webhook's secret")
@guarded(ADMINISTER)
async def rotate_webhook_secret(webhook_id: UUID, webhooks: WebhooksOf) -> NewWebhook:
    """A fresh secret, shown only now. For a day deliveries are signed with both, so that receivers can change theirs."""
    return NewWebhook.made(await webhooks.rotate_secret(webhook_id))


@router.post(
    "/{webhook_id}/test",
    status_code=status.HTTP_202_ACCEPTED,
    responses=ACTS_ON_ONE,
    summary="Send a test to a webhook",
)
@guarded(OPERATE)
async def test_webhook(webhook_id: UUID, webhooks: WebhooksOf, user: Caller) -> WebhookDelivery:
    """One attempt with an event `webhook.test`, also to a disabled webhook; its deliveries tell what came of it."""
    return WebhookDelivery.of(await webhooks.test(webhook_id, user.username))


@router.get("/{webhook_id}/deliveries", responses=READS_ONE, summary="List a webhook's deliveries")
@guarded(READ)
async def list_webhook_deliveries(
    webhook_id: UUID, query: Annotated[DeliveryQuery, Query()], webhooks: WebhooksOf
) -> WebhookDeliveryPage:
    """What was sent, newest first; it is kept for 30 days (`UPBEAT_WEBHOOK_KEEP_DAYS`)."""
    found = await webhooks.deliveries(
        webhook_id, limit=query.limit + 1, before=query.position(), state=query.state
    )
    shown = found[: query.limit]
    more = encode(shown[-1].id) if len(found) > query.limit else None
    return WebhookDeliveryPage(items=[WebhookDelivery.of(row) for row in shown], next_cursor=more)


@router.post(
    "/{webhook_id}/deliveries/{delivery_id}/redeliver",
    status_code=status.HTTP_202_ACCEPTED,
    responses=ACTS_ON_ONE,
    summary="Deliver again",
)
@guarded(OPERATE)
async def redeliver_webhook_delivery(
    webhook_id: UUID, delivery_id: UUID, webhooks: WebhooksOf
) -> WebhookDelivery:
    """What was delivered or has failed is sent again under the same `webhook-id`, with all its attempts."""
    return WebhookDelivery.of(await webhooks.redeliver(webhook_id, delivery_id))


def _tagged(response: Response, row: WebhookRow) -> Webhook:
    response.headers["ETag"] = etag(row.version)
    return Webhook.of(row)


def _shown(row: WebhookRow) -> dict[str, object]:
    other = {"previous_secret_until": row.previous_until}
    return other | {name: getattr(row, name) for name in Webhook.model_fields if name not in other}
