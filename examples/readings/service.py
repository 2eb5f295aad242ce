"""What can be done with readings. Each function is a unit of work: it commits before it returns."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta

from sqlalchemy import func, literal, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app.modules.readings.models import Reading, ReadingDay
from app.scheduling.ids import new_id

Sessions = async_sessionmaker[AsyncSession]


async def record(sessions: Sessions, *, meter: str, value: float, taken_at: datetime) -> Reading:
    """Store a reading."""
    async with sessions.begin() as session:
        row = Reading(id=new_id(), meter=meter, value=value, taken_at=taken_at)
        session.add(row)
        await session.flush()
        return row


async def latest(sessions: Sessions, meter: str, number: int) -> Sequence[Reading]:
    """The newest readings of a meter, at most ``number``."""
    which = select(Reading).where(Reading.meter == meter).order_by(Reading.taken_at.desc()).limit(number)
    async with sessions() as session:
        return (await session.scalars(which)).all()


async def add_up(sessions: Sessions, day: date) -> int:
    """Sum each meter's readings of a day (UTC); answers how many meters. May be repeated: it ends up the same."""
    begin = datetime.combine(day, time(), UTC)
    sums = (
        select(Reading.meter, literal(day), func.sum(Reading.value), func.count())
        .where(Reading.taken_at >= begin, Reading.taken_at < begin + timedelta(days=1))
        .group_by(Reading.meter)
    )
    stored = insert(ReadingDay).from_select(["meter", "day", "total", "number"], sums)
    new = stored.excluded
    stored = stored.on_conflict_do_update(
        index_elements=[ReadingDay.meter, ReadingDay.day], set_={"total": new.total, "number": new.number}
    )
    async with sessions.begin() as session:
        return len((await session.scalars(stored.returning(ReadingDay.meter))).all())


async def sums(sessions: Sessions, meter: str) -> Sequence[ReadingDay]:
    """The sums of a meter, the newest day first; at most a year."""
    which = select(ReadingDay).where(ReadingDay.meter == meter).order_by(ReadingDay.day.desc()).limit(366)
    async with sessions() as session:
        return (await session.scalars(which)).all()
