"""RedBeat: schedules in Redis, one beat that holds a lock."""

import json
import time
from datetime import UTC, datetime

from celery import Celery
from celery.beat import Service
from celery.schedules import schedule
from redbeat import RedBeatScheduler, RedBeatSchedulerEntry
from redbeat.decoder import RedBeatJSONEncoder
from redbeat.schedulers import ensure_conf, get_redis

from bench.beats import places

app = Celery("bench", broker=places.broker(), set_as_current=True)
app.conf.update(
    result_expires=None,
    redbeat_redis_url=places.broker(),
    redbeat_redis_options={},
    beat_max_loop_interval=places.MAX_SLEEP,
)
ensure_conf(app)
FIELDS = {"task": places.TASK, "args": [], "options": {}, "enabled": True}


def fill(count: int) -> None:
    """What `RedBeatSchedulerEntry.save` writes, in batches."""
    now = datetime.now(UTC)
    client, daily = get_redis(app), schedule(places.PERIOD, app=app)
    for first in range(0, count, 1000):
        with client.pipeline(transaction=False) as pipeline:
            for n in range(first, min(first + 1000, count)):
                name = f"schedule {n}"
                definition = FIELDS | {"name": name, "kwargs": {"n": n}, "schedule": daily}
                pipeline.hset(_key(n), "definition", json.dumps(definition, cls=RedBeatJSONEncoder))
                _time(pipeline, n, now)
            pipeline.execute()


def arm(due: int, at: float) -> None:
    """Set when those that rest and those that are due ran last."""
    client, now = get_redis(app), datetime.now(UTC)
    client.delete(app.redbeat_conf.lock_key)
    with client.pipeline(transaction=False) as pipeline:
        for n in range(min(places.MOST, client.zcard(app.redbeat_conf.schedule_key))):
            _time(pipeline, n, places.last_run_for(at) if n < due else now)
        pipeline.execute()


def service() -> Service:
    """As `celery beat --scheduler redbeat.RedBeatScheduler` makes it."""
    return Service(app, scheduler_cls=RedBeatScheduler)


def prepare_edits() -> None:
    """Connect."""
    get_redis(app).ping()


def edit(number: int) -> float:
    """Give one entry another last run, through RedBeat's own method."""
    entry = RedBeatSchedulerEntry.from_key(_key(number), app=app)
    entry.reschedule(last_run_at=places.last_run_for(time.time() - 1))
    return time.time()


def _key(number: int) -> str:
    return RedBeatSchedulerEntry.generate_key(app, f"schedule {number}")


def _time(pipeline: object, number: int, last_run_at: datetime) -> None:
    meta = json.dumps({"last_run_at": last_run_at}, cls=RedBeatJSONEncoder)
    pipeline.hset(_key(number), "meta", meta)  # type: ignore[attr-defined]
    score = (last_run_at + places.PERIOD).timestamp()
    pipeline.zadd(app.redbeat_conf.schedule_key, {_key(number): score})  # type: ignore[attr-defined]
