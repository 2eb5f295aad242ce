"""Celery's own beat: PersistentScheduler over a static `beat_schedule`."""

import json
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from celery import Celery
from celery.beat import PersistentScheduler, Service
from celery.schedules import schedule

from bench.beats import places

app = Celery("bench", broker=places.broker(), set_as_current=True)
app.conf.result_expires = None
PLAN = places.folder() / "plan.json"
STORE = places.folder() / "celerybeat-schedule"


def fill(count: int) -> None:
    """Write down how many there are: a static schedule is part of the program."""
    _write(count, 0, 0.0)


def arm(due: int, at: float) -> None:
    """Write down which are due; the store of an earlier start is forgotten."""
    _write(_plan()["count"], due, at)


def service() -> Service:
    """A beat that has read its schedule as a program would have it."""
    plan, now = _plan(), datetime.now(UTC)
    due_since = places.last_run_for(plan["at"])
    app.conf.beat_schedule = {
        f"schedule {n}": {
            "task": places.TASK,
            "schedule": schedule(places.PERIOD, app=app),
            "kwargs": {"n": n},
            "last_run_at": due_since if n < plan["due"] else now,
        }
        for n in range(plan["count"])
    }
    return Service(app, scheduler_cls=PersistentScheduler, schedule_filename=str(STORE))


def _plan() -> dict[str, Any]:
    return json.loads(PLAN.read_text())  # type: ignore[no-any-return]


def _write(count: int, due: int, at: float) -> None:
    PLAN.write_text(json.dumps({"count": count, "due": due, "at": at}))
    for suffix in PersistentScheduler.known_suffixes:
        with suppress(FileNotFoundError):
            STORE.with_name(STORE.name + suffix).unlink()
