"""Ten thousand schedules are due at one instant, and two beats fire them."""

import json
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
import redis

from support.polling import eventually
from support.stack import BOOT, Stack
from support.trial import Report, Trial

COUNT = 10_000
COPY = """
WITH copies AS (SELECT gen_random_uuid() AS id FROM generate_series(2, %(count)s)),
configs AS (
    INSERT INTO celery_periodic_task_configs
    SELECT (jsonb_populate_record(c, jsonb_build_object('id', copies.id))).*
    FROM celery_periodic_task_configs c, copies WHERE c.id = %(id)s
    RETURNING id
)
INSERT INTO celery_periodic_task_clocks
SELECT (jsonb_populate_record(k, jsonb_build_object('schedule_id', configs.id))).*
FROM celery_periodic_task_clocks k, configs WHERE k.schedule_id = %(id)s
"""


@pytest.mark.full
def test_ten_thousand_due_at_once(stack: Stack, trial: Trial, record_property: Report) -> None:
    due = datetime.now(UTC) + timedelta(seconds=12)
    trial.create({"type": "one_off", "at": due.isoformat()})
    with psycopg.connect(trial.url) as connection:
        connection.execute(COPY, {"count": COUNT, "id": trial.schedules[0]})
    with psycopg.connect(trial.url, autocommit=True) as connection:
        connection.execute("ANALYZE")
    beats = [stack.beat(wait=False) for _ in range(2)]
    for beat in beats:
        beat.wait_for_output("beat: Starting", BOOT)
    assert trial.waiting() == 0, "the beats were ready before the instant"
    eventually(lambda: trial.waiting() >= COUNT, 60, "all wake-ups")
    seconds = (trial.now() - due).total_seconds()
    record_property("all published after, s", seconds)
    with redis.Redis.from_url(trial.redis_url) as client:
        sent = [json.loads(each)["headers"]["id"] for each in client.lrange("celery", 0, -1)]
        client.delete("celery")
    with psycopg.connect(trial.url) as connection:
        query = "SELECT count(*), count(DISTINCT schedule_id), count(DISTINCT scheduled_for) FROM celery_task_runs"
        assert connection.execute(query).fetchone() == (COUNT, COUNT, 1)
        last = connection.execute("SELECT max(created_at) FROM celery_task_runs").fetchone()
    assert last is not None
    record_property("last decided after, s", (last[0] - due).total_seconds())
    assert len(sent) == len(set(sent)) == COUNT
    assert seconds < 10
