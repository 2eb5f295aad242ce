"""What calendars do to ticks when a beat decides them: on the real database, by one dispatcher that runs on."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, sessionmaker

from app.errors import Conflict
from app.scheduling import calendars, schedules
from app.scheduling.calendars import CalendarCreate, CalendarUpdate
from app.scheduling.catalogue import Catalogue, TaskSpec
from app.scheduling.config import ExtraConfig, ScheduleCreate
from app.scheduling.dispatch import Dispatcher
from app.scheduling.models import CalendarRow, ClockRow, RunRow, ScheduleRow
from app.settings import Settings
from support.engine import Wakeups

CATALOGUE = Catalogue([TaskSpec(name="module.task", path="module.tasks.task")])


@pytest.fixture
def wakeups() -> Wakeups:
    return Wakeups()


@pytest.fixture
def beat(sync: sessionmaker[Session], wakeups: Wakeups, settings: Settings) -> Dispatcher:
    with sync.begin() as session:
        session.execute(text("TRUNCATE calendars"))
    return Dispatcher(sync, wakeups, CATALOGUE, settings, name="test")


@pytest.fixture
def calendar(beat: Dispatcher, sync: sessionmaker[Session]) -> str:
    with sync.begin() as session:
        calendars.create(session, CalendarCreate(name="closed"))
    return "closed"


@pytest.fixture
def schedule(calendar: str, sync: sessionmaker[Session]) -> UUID:
    body = ScheduleCreate(
        task_name="test",
        task_path="module.task",
        schedule={"type": "interval", "every": 1, "unit": "hours"},
        task_extra_config=ExtraConfig(calendars=[calendar], overlap="allow_all"),
    )
    with sync.begin() as session:
        return schedules.create(session, CATALOGUE, body, "me").row.id


def fire(sync: sessionmaker[Session], beat: Dispatcher, schedule: UUID, ago: int) -> tuple[str, str | None]:
    """State and reason of the run of a tick that was due `ago` seconds ago."""
    tick = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=ago)
    with sync.begin() as session:
        session.execute(update(ClockRow).where(ClockRow.schedule_id == schedule).values(next_run_at=tick))
    beat.run_pass()
    with sync() as session:
        run = session.scalars(select(RunRow).where(RunRow.scheduled_for == tick)).one()
    return run.state, run.reason


def days_around_now() -> CalendarUpdate:
    today = datetime.now(UTC).date()
    return CalendarUpdate(dates=[today - timedelta(days=1), today, today + timedelta(days=1)])


def test_an_edit_takes_effect_while_a_beat_runs(
    sync: sessionmaker[Session], beat: Dispatcher, wakeups: Wakeups, schedule: UUID, calendar: str
) -> None:
    assert fire(sync, beat, schedule, 5) == ("queued", None)
    with sync.begin() as session:
        calendars.update(session, calendar, days_around_now())
    assert fire(sync, beat, schedule, 4) == ("skipped", "calendar")
    with sync.begin() as session:
        calendars.update(session, calendar, CalendarUpdate(dates=[]))
    assert fire(sync, beat, schedule, 3) == ("queued", None)
    assert len(wakeups.sent) == 2


def test_a_calendar_that_vanished_makes_the_schedule_invalid(
    sync: sessionmaker[Session], beat: Dispatcher, schedule: UUID
) -> None:
    with sync.begin() as session:
        session.execute(text("TRUNCATE calendars"))
        session.execute(
            update(ClockRow).where(ClockRow.schedule_id == schedule).values(next_run_at=datetime.now(UTC))
        )
    beat.run_pass()
    with sync() as session:
        row = session.get(ScheduleRow, schedule)
        assert session.scalars(select(CalendarRow)).all() == []
    assert row is not None
    assert row.state == "invalid"
    assert row.state_reason is not None
    assert "no calendar called closed" in row.state_reason


def test_a_calendar_does_not_vanish_under_a_schedule_that_is_being_made(
    sync: sessionmaker[Session], calendar: str
) -> None:
    body = ScheduleCreate(
        task_name="test",
        task_path="module.task",
        schedule={"type": "interval", "every": 1, "unit": "hours"},
        task_extra_config=ExtraConfig(calendars=[calendar]),
    )
    with sync.begin() as session, sync() as other:
        schedules.create(session, CATALOGUE, body, "me")
        other.execute(text("SET LOCAL lock_timeout = '50ms'"))
        with pytest.raises(OperationalError, match="lock timeout"):
            calendars.remove(other, calendar)
    with pytest.raises(Conflict, match="Schedules name this calendar: test"), sync.begin() as session:
        calendars.remove(session, calendar)
