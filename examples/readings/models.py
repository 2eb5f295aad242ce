"""Readings, and their sums by day."""

from datetime import date, datetime
from typing import Final

from sqlalchemy import CheckConstraint, Index
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base, PrimaryId
from app.scheduling.models import NOW

# What API, worker and beat may do, for `upbeat grant`: S select, I insert, U update, D delete.
KEPT: Final = {"privileges": ("SI", "S", "")}
SUMMED: Final = {"privileges": ("S", "SIU", "")}


class Reading(Base):
    """What a meter showed at an instant."""

    __tablename__ = "readings"
    __table_args__ = (
        CheckConstraint("value >= 0", name="value"),
        Index(None, "meter", "taken_at"),
        {"info": KEPT},
    )

    id: Mapped[PrimaryId]
    meter: Mapped[str]
    value: Mapped[float]
    taken_at: Mapped[datetime] = mapped_column(server_default=NOW)


class ReadingDay(Base):
    """The sum of a meter's readings on a day (UTC)."""

    __tablename__ = "readings_days"
    __table_args__ = ({"info": SUMMED},)

    meter: Mapped[str] = mapped_column(primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    total: Mapped[float]
    number: Mapped[int]
