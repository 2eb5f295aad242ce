"""Users, for administrators."""

from datetime import datetime
from typing import Annotated, Self
from uuid import UUID

from fastapi import Body, Query, Response, status
from pydantic import BaseModel, ConfigDict, Field

from app.api.concurrency import IfMatch, etag, etag_header
from app.api.dependencies import ServicesOf
from app.api.examples import USER_CREATE_EXAMPLES, USER_UPDATE_EXAMPLES
from app.api.guards import ADMINISTER, guarded
from app.api.idempotency import Answer, answer, repeatable
from app.api.pagination import FilterText, NextCursor, PageQuery, encode
from app.api.problems import EDITS_ONE, READS, READS_ONE, REMOVES_ONE, WRITES
from app.api.routing import resource_router
from app.modules.auth import service
from app.modules.auth.models import User as UserRow
from app.modules.auth.service import Role, UserChange

router = resource_router("/users", "Users")


class User(BaseModel):
    """A person who may log in."""

    id: UUID
    username: str
    role: Role
    active: bool
    version: int = Field(description="Grows with each change; a login is none.")
    created_at: datetime
    last_login_at: datetime | None

    @classmethod
    def of(cls, row: UserRow) -> Self:
        """The wire form; nothing of the password."""
        return cls.model_validate(row, from_attributes=True)


class UserPage(BaseModel):
    """Users, oldest first."""

    items: list[User]
    next_cursor: NextCursor


class UserQuery(PageQuery):
    """Which users."""

    search: FilterText | None = Field(None, description="Part of the name.")
    role: Role | None = None
    active: bool | None = None


class UserCreate(BaseModel):
    """A new user."""

    model_config = ConfigDict(extra="forbid")

    username: str = Field(description="1 to 150 printable characters.")
    password: str = Field(description="8 to 1024 characters; the user changes it with PUT /auth/password.")
    role: Role = Role.VIEWER


class UserUpdate(BaseModel):
    """A change of a user: only what is given changes."""

    model_config = ConfigDict(extra="forbid")

    role: Role | None = None
    active: bool | None = Field(None, description="`false` ends the user's sessions and stops their keys.")
    password: str | None = Field(None, description="A reset; it ends the user's sessions.")


@router.get("", responses=READS, summary="List users")
@guarded(ADMINISTER)
async def list_users(query: Annotated[UserQuery, Query()], services: ServicesOf) -> UserPage:
    """Users in the order of their creation, filtered by name, role and activity."""
    found, more = await service.list_users(
        services.sessions,
        limit=query.limit,
        after=query.position(),
        search=query.search,
        role=query.role,
        active=query.active,
    )
    return UserPage(items=[User.of(row) for row in found], next_cursor=encode(more))


def user_made(row: UserRow) -> Answer:
    """The answer to a creation."""
    headers = {"Location": f"/api/v1/users/{row.id}", "ETag": etag(row.version)}
    return answer(status.HTTP_201_CREATED, User.of(row), headers)


def _tagged(response: Response, row: UserRow) -> User:
    response.headers["ETag"] = etag(row.version)
    return User.of(row)


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    responses=WRITES | etag_header(201),
    dependencies=[repeatable(user_made, secret=True)],
    summary="Create a user",
)
@guarded(ADMINISTER)
async def create_user(
    body: Annotated[UserCreate, Body(openapi_examples=USER_CREATE_EXAMPLES)],
    response: Response,
    services: ServicesOf,
) -> User:
    """Somebody who may log in from now on."""
    row = await service.create_user(
        services.sessions, username=body.username, password=body.password, role=body.role
    )
    response.headers["Location"] = f"/api/v1/users/{row.id}"
    return _tagged(response, row)


@router.get("/{user_id}", responses=READS_ONE | etag_header(200), summary="Read a user")
@guarded(ADMINISTER)
async def get_user(user_id: UUID, response: Response, services: ServicesOf) -> User:
    """One user."""
    return _tagged(response, await service.get_user(services.sessions, user_id))


@router.patch("/{user_id}", responses=EDITS_ONE | etag_header(200), summary="Change a user")
@guarded(ADMINISTER)
async def update_user(
    user_id: UUID,
    body: Annotated[UserUpdate, Body(openapi_examples=USER_UPDATE_EXAMPLES)],
    expected: IfMatch,
    response: Response,
    services: ServicesOf,
) -> User:
    """Role, activity, or a new password. The last active administrator stays one."""
    change = UserChange(role=body.role, active=body.active, password=body.password)
    row = await service.change_user(services.sessions, user_id, change, expected=expected)
    return _tagged(response, row)


@router.delete(
    "/{user_id}", status_code=status.HTTP_204_NO_CONTENT, responses=REMOVES_ONE, summary="Delete a user"
)
@guarded(ADMINISTER)
async def delete_user(user_id: UUID, expected: IfMatch, services: ServicesOf) -> None:
    """With sessions and API keys; what they did stays in the audit. Not the last active administrator."""
    await service.delete_user(services.sessions, user_id, expected=expected)
