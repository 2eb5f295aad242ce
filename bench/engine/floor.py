"""`floor`: the least that a burst of 5,000 can cost: one statement and one pipelined push.

One statement claims all that is due, inserts the runs and advances the clocks, deciding nothing; one
pipeline pushes envelopes that were made before. Ours is the burst in this process, `Dispatcher.fire`
with the real publisher, taken in turns with it.
"""

import time
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

from bench.beats.places import MOST
from bench.beats.population import arm_first
from bench.engine.field import BENCH, Field
from bench.engine.rig import Rig
from bench.report import report

ONE_STATEMENT = """
WITH due AS (
    SELECT schedule_id, next_run_at FROM celery_periodic_task_clocks
    WHERE next_run_at <= (SELECT clock_timestamp())
    ORDER BY next_run_at LIMIT 5000 FOR NO KEY UPDATE SKIP LOCKED
), made AS (
    INSERT INTO celery_task_runs
        (id, state, origin, task, queue, schedule_id, schedule_version, scheduled_for, due_at,
         next_dispatch_at, dispatches, args, kwargs, options)
    SELECT CAST(lpad(to_hex(CAST(extract(epoch FROM due.next_run_at) * 1000 AS bigint)), 12, '0')
                || substr(md5(CAST(due.schedule_id AS text)), 1, 20) AS uuid),
           'queued', 'schedule', c.task, 'celery', c.id, c.version, due.next_run_at, due.next_run_at,
           clock_timestamp() + interval '30 seconds', 1, c.task_args, c.task_kwargs, '{}'
    FROM due JOIN celery_periodic_task_configs c ON c.id = due.schedule_id
    RETURNING id
), advanced AS (
    UPDATE celery_periodic_task_clocks c SET next_run_at = due.next_run_at + interval '1 hour'
    FROM due WHERE c.schedule_id = due.schedule_id
)
SELECT count(*) FROM made
"""


def measure(field: Field) -> None:
    """In turns, on the same rows."""
    due, rig = min(MOST, field.size), Rig(field)
    ours, floors, statements, pushes = [], [], [], []
    for _ in range(2 if field.quick else 5):
        ours.append(rig.burst(due))
        statement = _one_statement(rig.sessions, due)
        push = rig.push_prepared(due)
        statements.append(statement * 1000)
        pushes.append(push * 1000)
        floors.append(due / (statement + push))
    more: dict[str, Any] = {
        "statement_ms": round(median(statements), 1),
        "push_ms": round(median(pushes), 1),
        "rounds": [round(rate) for rate in ours],
    }
    report(
        BENCH, "floor", field.size, median(ours), "fires/s", peer="floor", peer_value=median(floors), **more
    )
    rig.close()


def _one_statement(sessions: sessionmaker[Session], due: int) -> float:
    arm_first(sessions, due, datetime.now(UTC) - timedelta(seconds=2))
    with sessions() as session:
        session.connection()
        began = time.perf_counter()
        made = session.scalar(text(ONE_STATEMENT))
        session.commit()
        elapsed = time.perf_counter() - began
    if made != due:
        raise RuntimeError(f"{made} of {due} were claimed")
    return elapsed
