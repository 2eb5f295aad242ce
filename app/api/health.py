"""Liveness and readiness, open to load balancers; they say which part fails, and no more."""

import asyncio
from typing import Literal

from fastapi import APIRouter, Response, status
from pydantic import BaseModel, Field

from app.api.dependencies import ServicesOf
from app.api.guards import OPEN, guarded
from app.scheduling.facade import Readiness

router = APIRouter(tags=["Health"])


class Liveness(BaseModel):
    """The process turns."""

    status: Literal["ok"] = "ok"


class Check(BaseModel):
    """One part."""

    ok: bool
    detail: str


class ReadinessReport(BaseModel):
    """Every part by name: `database`, `migrations`, `redis`, `beat`."""

    status: Literal["ready", "not_ready"]
    checks: dict[str, Check] = Field(
        examples=[
            {"database": {"ok": True, "detail": "Answers."}, "redis": {"ok": True, "detail": "Answers."}}
        ]
    )


@router.get("/livez", summary="Liveness")
@guarded(OPEN)
async def livez() -> Liveness:
    """200 as long as the process answers at all."""
    return Liveness()


@router.get(
    "/readyz",
    summary="Readiness",
    responses={503: {"model": ReadinessReport, "description": "A part fails; `checks` names it."}},
)
@guarded(OPEN)
async def readyz(services: ServicesOf, response: Response) -> ReadinessReport:
    """200 when database, schema, Redis and a beat are in order, else 503."""
    stored, redis = await asyncio.gather(services.probe.database(), services.probe.redis())
    report = _report(stored, redis=redis, beat_age=services.settings.api.ready_beat_age)
    if report.status != "ready":
        response.status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    return report


def _report(stored: Readiness | None, *, redis: bool, beat_age: float) -> ReadinessReport:
    database = stored is not None and stored.database
    migrated = stored is not None and stored.migrated
    age = None if stored is None else stored.last_beat_pass_age
    beats = age is not None and age <= beat_age
    last = "" if age is None else f"The last pass was {max(age, 0):.1f} s ago."
    checks = {
        "database": Check(ok=database, detail="Answers." if database else "Cannot be reached."),
        "migrations": Check(
            ok=migrated,
            detail="At the revision of this code, or a later one."
            if migrated
            else "Not migrated for this code, or not known.",
        ),
        "redis": Check(ok=redis, detail="Answers." if redis else "Cannot be reached."),
        "beat": Check(ok=beats, detail=last if age is not None else "No pass is known: start a beat."),
    }
    ready = all(check.ok for check in checks.values())
    return ReadinessReport(status="ready" if ready else "not_ready", checks=checks)
