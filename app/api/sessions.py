"""Login sessions: one's own, and for administrators everybody's."""

from datetime import datetime
from typing import Annotated, Self
from uuid import UUID

from fastapi import Query, status
from pydantic import BaseModel, Field

from app.api.dependencies import Caller, ServicesOf
from app.api.guards import OWN, guarded
from app.api.pagination import NextCursor, PageQuery, encode
from app.api.problems import ACTS_ON_ONE, READS
from app.api.routing import resource_router
from app.errors import Forbidden
from app.modules.auth import service
from app.modules.auth.models import LoginSession
from app.modules.auth.service import Principal

router = resource_router("/sessions", "Login")


class Session(BaseModel):
    """A session that is alive. Its token is known to nobody but its owner."""

    id: UUID
    user_id: UUID
    username: str
    browser: bool = Field(description="By cookie.")
    current: bool = Field(description="The one that asks.")
    address: str | None
    user_agent: str | None
    created_at: datetime
    last_used_at: datetime = Field(description="To the minute.")
    expires_at: datetime = Field(description="At the latest; without use, sooner.")

    @classmethod
    def of(cls, row: LoginSession, username: str, caller: Principal) -> Self:
        """The wire form."""
        kept = ("id", "user_id", "address", "user_agent", "created_at", "last_used_at", "expires_at")
        return cls(
            **{name: getattr(row, name) for name in kept},
            username=username,
            browser=row.csrf_hash is not None,
            current=row.id == caller.credential_id,
        )


class SessionPage(BaseModel):
    """Sessions, newest first."""

    items: list[Session]
    next_cursor: NextCursor


class OwnedQuery(PageQuery):
    """Whose."""

    user_id: UUID | None = Field(None, description="Another user's, for administrators.")
    everybody: bool = Field(False, description="All users', for administrators.")

    def owner(self, caller: Principal) -> UUID | None:
        """The user whose objects are asked for; None for everybody's.

        Raises:
            Forbidden: they are another user's, and the caller is no administrator.
        """
        if not self.everybody and self.user_id in (None, caller.id):
            return caller.id
        if not caller.is_admin:
            raise Forbidden(
                "Others' are for administrators. Leave user_id and everybody out to see your own."
            )
        return None if self.everybody else self.user_id


@router.get("", responses=READS, summary="List sessions")
@guarded(OWN)
async def list_sessions(
    query: Annotated[OwnedQuery, Query()], user: Caller, services: ServicesOf
) -> SessionPage:
    """Your own sessions that are alive, or for administrators others', newest first."""
    found, more = await service.list_sessions(
        services.sessions,
        services.settings.auth,
        limit=query.limit,
        before=query.position(),
        user_id=query.owner(user),
    )
    return SessionPage(items=[Session.of(row, name, user) for row, name in found], next_cursor=encode(more))


@router.delete(
    "/{session_id}",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=ACTS_ON_ONE,
    summary="End a session",
)
@guarded(OWN)
async def revoke_session(session_id: UUID, user: Caller, services: ServicesOf) -> None:
    """Its token is worth nothing from now on. Others' sessions only for administrators."""
    await service.revoke_session(services.sessions, session_id, owner=None if user.is_admin else user.id)
