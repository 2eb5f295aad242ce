"""The audit: who changed what. It can be read, and nothing else."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from fastapi import Query
from pydantic import BaseModel, Field

from app.api.dependencies import ServicesOf
from app.api.guards import ADMINISTER, guarded
from app.api.pagination import FilterText, NextCursor, PageQuery, encode
from app.api.problems import READS
from app.api.routing import resource_router
from app.modules.audit import service
from app.modules.audit.models import AuditRow
from app.scheduling.inputs import Instant

router = resource_router("/audit", "Audit")

Outcome = Literal["done", "refused", "throttled"]


class AuditEntry(BaseModel):
    """One change, or one login."""

    id: UUID
    at: datetime
    actor: str
    actor_id: UUID | None
    means: str = Field(description="How the actor proved who they are: session, cookie, api_key or cli.")
    credential_id: UUID | None = Field(description="That session or key.")
    action: str = Field(description="The operation, by its id in this document.")
    outcome: Outcome = Field(description="Only logins are recorded when they are refused.")
    object_type: str | None
    object_id: str | None
    changes: dict[str, Any] = Field(
        description="By row and column, before and after. Secrets are left out, long values are digests."
    )
    request_id: str | None
    address: str | None

    @classmethod
    def of(cls, row: AuditRow) -> Self:
        """The wire form."""
        return cls.model_validate(row, from_attributes=True)


class AuditPage(BaseModel):
    """Entries, newest first."""

    items: list[AuditEntry]
    next_cursor: NextCursor


class AuditQuery(PageQuery):
    """Which entries."""

    actor: FilterText | None = None
    action: FilterText | None = None
    object_type: FilterText | None = None
    object_id: FilterText | None = None
    outcome: Outcome | None = None
    since: Instant | None = Field(None, description="Included.")
    until: Instant | None = Field(None, description="Excluded.")


@router.get("", responses=READS, summary="List audit entries")
@guarded(ADMINISTER)
async def list_audit_entries(query: Annotated[AuditQuery, Query()], services: ServicesOf) -> AuditPage:
    """Who did what, newest first, filtered by actor, action, object, outcome and time."""
    names = ("actor", "action", "object_type", "object_id", "outcome", "since", "until")
    found, more = await service.entries(
        services.sessions,
        service.Filters(**{name: getattr(query, name) for name in names}),
        limit=query.limit,
        before=query.position(),
    )
    return AuditPage(items=[AuditEntry.of(row) for row in found], next_cursor=encode(more))
