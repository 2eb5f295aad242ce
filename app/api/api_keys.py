"""API keys: credentials for programs."""

from datetime import datetime
from typing import Annotated, Self
from uuid import UUID

from fastapi import Body, Query, Request, Response, status
from fastapi.routing import iter_route_contexts
from pydantic import BaseModel, ConfigDict, Field

from app.api.dependencies import Caller, ServicesOf
from app.api.examples import API_KEY_EXAMPLES
from app.api.guards import OWN, guarded, resource_in
from app.api.idempotency import repeatable
from app.api.pagination import NextCursor, encode
from app.api.problems import ACTS_ON_ONE, READS, READS_ONE, WRITES
from app.api.routing import resource_router
from app.api.sessions import OwnedQuery
from app.modules.auth import service
from app.modules.auth.models import ApiKey as ApiKeyRow
from app.scheduling.inputs import Instant

router = resource_router("/api-keys", "API keys")


class ApiKey(BaseModel):
    """A key, without its secret."""

    id: UUID
    user_id: UUID
    username: str = Field(description="For whom it acts.")
    name: str
    start: str = Field(description="The first characters of its secret, to tell it from others.")
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None = Field(description="To the minute.")
    revoked_at: datetime | None

    @classmethod
    def of(cls, row: ApiKeyRow, username: str) -> Self:
        """The wire form."""
        return cls(
            username=username,
            **{name: getattr(row, name) for name in ApiKey.model_fields if name != "username"},
        )


class NewApiKey(ApiKey):
    """A key that was made now."""

    secret: str = Field(description="Send it as `Authorization: Bearer …`. It is shown only now.")


class ApiKeyPage(BaseModel):
    """Keys, newest first, also those that were revoked or have expired."""

    items: list[ApiKey]
    next_cursor: NextCursor


class ApiKeyCreate(BaseModel):
    """A new key."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=100, description="What it is for.")
    scopes: list[str] = Field(
        min_length=1,
        max_length=50,
        description="`read`, `operate` or `admin`, or one resource's, such as `runs:operate`. Each includes the ones"
        " before. What the key may do is what both its scopes and your role allow.",
    )
    expires_at: Instant | None = Field(None, description="Null for never.")


@router.get("", responses=READS, summary="List API keys")
@guarded(OWN)
async def list_api_keys(
    query: Annotated[OwnedQuery, Query()], user: Caller, services: ServicesOf
) -> ApiKeyPage:
    """Your own keys, or for administrators others', newest first."""
    found, more = await service.list_keys(
        services.sessions, limit=query.limit, before=query.position(), user_id=query.owner(user)
    )
    return ApiKeyPage(items=[ApiKey.of(row, name) for row, name in found], next_cursor=encode(more))


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    responses=WRITES,
    dependencies=[repeatable(secret=True, kept_answer=False)],
    summary="Create an API key",
)
@guarded(OWN)
async def create_api_key(
    body: Annotated[ApiKeyCreate, Body(openapi_examples=API_KEY_EXAMPLES)],
    user: Caller,
    services: ServicesOf,
    request: Request,
    response: Response,
) -> NewApiKey:
    """A key that acts for you. Keep the secret: only its hash is stored.

    A repeat under the same `Idempotency-Key` makes no second key, and cannot show the secret again: 409.
    """
    made = await service.create_key(
        services.sessions,
        user,
        name=body.name,
        scopes=body.scopes,
        expires_at=body.expires_at,
        resources=_resources(request),
    )
    response.headers["Location"] = f"/api/v1/api-keys/{made.row.id}"
    return NewApiKey(**ApiKey.of(made.row, user.username).model_dump(), secret=made.secret)


@router.get("/{key_id}", responses=READS_ONE, summary="Read an API key")
@guarded(OWN)
async def get_api_key(key_id: UUID, user: Caller, services: ServicesOf) -> ApiKey:
    """One key. Others' keys only for administrators."""
    row, name = await service.get_key(services.sessions, key_id, owner=None if user.is_admin else user.id)
    return ApiKey.of(row, name)


@router.delete(
    "/{key_id}", status_code=status.HTTP_204_NO_CONTENT, responses=ACTS_ON_ONE, summary="Revoke an API key"
)
@guarded(OWN)
async def revoke_api_key(key_id: UUID, user: Caller, services: ServicesOf) -> None:
    """It is worth nothing from now on, and stays in the list. Others' keys only for administrators."""
    await service.revoke_key(services.sessions, key_id, owner=None if user.is_admin else user.id)


def _resources(request: Request) -> frozenset[str]:
    """The resources that this application serves."""
    paths = (getattr(context, "path", "") for context in iter_route_contexts(request.app.routes))
    return frozenset(resource_in(path) for path in paths if path.startswith("/api/v1/"))
