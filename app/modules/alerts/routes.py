"""Alerts over HTTP."""

from datetime import datetime
from typing import Annotated, Any, Self
from uuid import UUID

from fastapi import Body, Depends, Query
from pydantic import BaseModel, ConfigDict, Field

from app.api.dependencies import Caller, ServicesOf
from app.api.guards import OPERATE, READ, guarded
from app.api.pagination import NextCursor, PageQuery, encode
from app.api.problems import READS, READS_ONE, WRITES_ONE
from app.api.routing import resource_router
from app.modules.alerts.models import AlertRow
from app.modules.alerts.service import AlertKind, Alerts, Standing

router = resource_router("/alerts", "Alerts")

EXAMPLE: dict[str, Any] = {
    "id": "0199d0c2-f2f0-7a51-9c66-3f0c5f3ad4b1",
    "kind": "schedule_late",
    "subject": "0199d0c2-0d11-7b6a-8d4e-5b1f6c1a2e10",
    "schedule_id": "0199d0c2-0d11-7b6a-8d4e-5b1f6c1a2e10",
    "run_id": "0199d0c1-f2f0-8a51-9c66-3f0c5f3ad4b1",
    "message": "Nightly report is late: 900 s after its tick of 2026-03-01T02:00:00+00:00, its run has not started.",
    "count": 1,
    "opened_at": "2026-03-01T02:15:03Z",
    "last_at": "2026-03-01T02:15:03Z",
    "acknowledged_at": None,
    "acknowledged_by": None,
    "note": None,
    "closed_at": None,
}
ACKNOWLEDGE_EXAMPLES: dict[str, Any] = {
    "note": {"summary": "With a note", "value": {"note": "The database was slow; Ann is looking."}},
    "plain": {"summary": "Without one", "value": {}},
}


def alerts(services: ServicesOf) -> Alerts:
    """The alerts of this application."""
    return Alerts(services.sessions)


AlertsOf = Annotated[Alerts, Depends(alerts)]


class Alert(BaseModel):
    """Something that is wrong, or was until `closed_at`."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]}, from_attributes=True)

    id: UUID
    kind: AlertKind = Field(
        description="Failed, late and missed are closed by the schedule's next success, the others when the condition"
        " is over; all of a schedule when it is disabled or deleted."
    )
    subject: str = Field(description="A schedule's id, a queue's name, or `beats`.")
    schedule_id: UUID | None
    run_id: UUID | None = Field(description="The newest run that it tells of.")
    message: str
    count: int = Field(description="How often it was seen while it was open.")
    opened_at: datetime
    last_at: datetime = Field(description="When it was seen last.")
    acknowledged_at: datetime | None
    acknowledged_by: str | None
    note: str | None
    closed_at: datetime | None

    @classmethod
    def of(cls, row: AlertRow) -> Self:
        """The wire form of a row."""
        return cls.model_validate(row)


class AlertPage(BaseModel):
    """Alerts, youngest first."""

    items: list[Alert]
    next_cursor: NextCursor


class AlertQuery(PageQuery):
    """Which alerts."""

    standing: Standing | None = Field(
        None,
        description="`open`: nobody has acknowledged it. Neither `open` nor `acknowledged` ones are closed.",
    )
    kind: AlertKind | None = None
    schedule_id: UUID | None = None


class Acknowledge(BaseModel):
    """Somebody has seen an alert."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    note: str | None = Field(None, min_length=1, max_length=2000, description="For those who look next.")


@router.get("", responses=READS, summary="List alerts")
@guarded(READ)
async def list_alerts(query: Annotated[AlertQuery, Query()], alerts: AlertsOf) -> AlertPage:
    """Youngest first. At most one of a kind is open for a subject; what is seen again is counted in it."""
    filters = query.model_dump(include={"standing", "kind", "schedule_id"})
    found = await alerts.page(limit=query.limit + 1, before=query.position(), **filters)
    shown = found[: query.limit]
    more = encode(shown[-1].id) if len(found) > query.limit else None
    return AlertPage(items=[Alert.of(row) for row in shown], next_cursor=more)


@router.get("/{alert_id}", responses=READS_ONE, summary="Read an alert")
@guarded(READ)
async def get_alert(alert_id: UUID, alerts: AlertsOf) -> Alert:
    """One alert, open or closed."""
    return Alert.of(await alerts.get(alert_id))


@router.post("/{alert_id}/acknowledge", responses=WRITES_ONE, summary="Acknowledge an alert")
@guarded(OPERATE)
async def acknowledge_alert(
    alert_id: UUID,
    body: Annotated[Acknowledge, Body(openapi_examples=ACKNOWLEDGE_EXAMPLES)],
    alerts: AlertsOf,
    user: Caller,
) -> Alert:
    """Say that you have seen it. It stays until what it tells of is over."""
    return Alert.of(await alerts.acknowledge(alert_id, actor=user.username, note=body.note))
