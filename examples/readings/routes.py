"""Readings over HTTP."""

from datetime import UTC, date, datetime
from typing import Annotated, Self
from uuid import UUID

from fastapi import Query, status
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from app.api.dependencies import ServicesOf
from app.api.guards import OPERATE, READ, guarded
from app.api.pagination import FilterText
from app.api.problems import READS, WRITES
from app.api.routing import resource_router
from app.modules.readings import service
from app.modules.readings.models import Reading as ReadingRow
from app.modules.readings.models import ReadingDay

router = resource_router("/readings", "Readings")


class NewReading(BaseModel):
    """What a meter shows."""

    model_config = ConfigDict(extra="forbid")

    meter: FilterText
    value: float = Field(ge=0)
    taken_at: AwareDatetime | None = Field(None, description="Now, if it is not given.")


class Reading(BaseModel):
    """A reading as it is stored."""

    id: UUID
    meter: str
    value: float
    taken_at: datetime

    @classmethod
    def of(cls, row: ReadingRow) -> Self:
        """The wire form of a reading."""
        return cls(id=row.id, meter=row.meter, value=row.value, taken_at=row.taken_at)


class Sum(BaseModel):
    """A meter's readings of one day, added up."""

    day: date
    total: float
    number: int = Field(description="How many readings.")

    @classmethod
    def of(cls, row: ReadingDay) -> Self:
        """The wire form of a day."""
        return cls(day=row.day, total=row.total, number=row.number)


class WhichReadings(BaseModel):
    """Of which meter."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    meter: FilterText
    limit: int = Field(50, ge=1, le=200)


class WhichSums(BaseModel):
    """Of which meter."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    meter: FilterText


@router.post("", status_code=status.HTTP_201_CREATED, responses=WRITES, summary="Store a reading")
@guarded(OPERATE)
async def create_reading(body: NewReading, services: ServicesOf) -> Reading:
    """Readings are never changed."""
    taken_at = body.taken_at or datetime.now(UTC)
    return Reading.of(
        await service.record(services.sessions, meter=body.meter, value=body.value, taken_at=taken_at)
    )


@router.get("", responses=READS, summary="List readings")
@guarded(READ)
async def list_readings(query: Annotated[WhichReadings, Query()], services: ServicesOf) -> list[Reading]:
    """The newest first."""
    return [Reading.of(row) for row in await service.latest(services.sessions, query.meter, query.limit)]


@router.get("/sums", responses=READS, summary="List the sums of days")
@guarded(READ)
async def list_reading_sums(query: Annotated[WhichSums, Query()], services: ServicesOf) -> list[Sum]:
    """The newest day first."""
    return [Sum.of(row) for row in await service.sums(services.sessions, query.meter)]
