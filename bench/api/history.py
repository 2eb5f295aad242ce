"""A long history: ten million runs over the months that a deployment keeps, as its beats and workers leave them."""

import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import psycopg
from sqlalchemy import create_engine

from app.db.partitions import ensure_partitions, month_start
from app.scheduling.ids import id_at
from app.scheduling.models import ATTEMPTS, LOGS, RUNS

MONTHS: Final = 3
SCHEDULES: Final = 1000
WRITERS: Final = 2
CHUNK: Final = 250_000
RARE_TASK: Final = "bench.rare"

# One in 200 failed, one in 1,000 was skipped, one in 100,000 ran a task that hardly ever runs; the newest wait.
FILL = """
INSERT INTO celery_task_runs
    (id, state, reason, origin, task, queue, schedule_id, schedule_version, scheduled_for, due_at, dispatches,
     next_dispatch_at, published_at, attempt, worker, started_at, finished_at, args, kwargs, options, result, error,
     created_at)
SELECT CAST(lpad(to_hex(CAST(extract(epoch FROM at) * 1000 AS bigint)), 12, '0') || '8'
            || substr(md5(CAST(n AS text)), 1, 3) || 'a' || substr(md5(CAST(n AS text)), 4, 15) AS uuid),
       state, CASE state WHEN 'skipped' THEN 'overlap' END, 'schedule',
       CASE WHEN n %% 100000 = 7 THEN 'bench.rare' ELSE 'bench.task_' || n %% 20 END,
       (ARRAY['celery', 'celery', 'celery', 'priority_low', 'priority_high'])[1 + n %% 5],
       CAST(lpad(to_hex(n %% %(schedules)s), 32, '0') AS uuid), 1, at, at, 1,
       CASE state WHEN 'queued' THEN at + interval '30 seconds' END,
       at, 1, 'worker@host', CASE WHEN state IN ('succeeded', 'failed') THEN at END,
       CASE WHEN state <> 'queued' THEN at + interval '1 second' END,
       '[]', jsonb_build_object('number', n, 'recipient', 'someone@example.org'), '{}',
       CASE state WHEN 'succeeded' THEN CAST('{"rows": 12}' AS jsonb) END,
       CASE state WHEN 'failed' THEN CAST('{"type": "ValueError", "message": "no", "traceback": null}' AS jsonb) END, at
FROM (SELECT n, %(start)s + n * %(step)s AS at,
             CASE WHEN n > %(total)s - 200 THEN 'queued' WHEN n %% 200 = 3 THEN 'failed' WHEN n %% 1000 = 5 THEN 'skipped'
             ELSE 'succeeded' END AS state
      FROM generate_series(CAST(%(first)s AS bigint), %(last)s) AS n) AS numbered
"""


def fill(url: str, size: int) -> float:
    """Insert ``size`` runs of the last months into the product's own partitions; answers the seconds it took."""
    now = datetime.now(UTC)
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1))
    with engine.begin() as connection:
        ensure_partitions(connection, (RUNS, ATTEMPTS, LOGS), now, behind=MONTHS)
    engine.dispose()
    start = month_start(now, -MONTHS)
    step = (now - timedelta(minutes=1) - start) / size
    values = {"start": start, "step": step, "total": size, "schedules": SCHEDULES}
    chunks = [(first, min(first + CHUNK, size) - 1) for first in range(0, size, CHUNK)]
    began, failures = time.perf_counter(), list[Exception]()

    def write() -> None:
        try:
            with psycopg.connect(url, autocommit=True) as connection:
                while chunks and not failures:
                    first, last = chunks.pop(0)
                    connection.execute(FILL, values | {"first": first, "last": last})
        except Exception as error:  # noqa: BLE001 - told by the caller
            failures.append(error)

    writers = [threading.Thread(target=write) for _ in range(WRITERS)]
    for each in writers:
        each.start()
    for each in writers:
        each.join()
    if failures:
        raise failures[0]
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE celery_task_runs")
    return time.perf_counter() - began


def ids(url: str) -> dict[str, Any]:
    """What a cursor in the middle of the history stands for, and a schedule."""
    now = datetime.now(UTC)
    middle = now - (now - month_start(now, -MONTHS)) / 2
    return {"middle": id_at(middle), "since": middle, "until": middle + timedelta(days=1)}
