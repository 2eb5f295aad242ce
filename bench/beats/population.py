"""Our schedules in bulk: daily crontabs of sixty different minutes, none within the next hours, default policies."""

from datetime import datetime

from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

from bench.beats import places

POPULATE = f"""
INSERT INTO celery_periodic_task_configs
    (id, version, task_name, task_path, task, task_type, state, schedule, task_args, task_kwargs, task_extra_config)
SELECT gen_random_uuid(), 1, 'schedule ' || n, '{places.TASK}', '{places.TASK}', 'business', 'active',
       jsonb_build_object('type', 'crontab', 'timezone', 'UTC', 'expression',
                          (n % 60) || ' ' || extract(hour FROM now() AT TIME ZONE 'UTC' - interval '2 hours') || ' * * *'),
       '[]', jsonb_build_object('n', n), '{{}}'
FROM generate_series(1, :count) AS n
"""
CLOCKS = """
INSERT INTO celery_periodic_task_clocks (schedule_id, next_run_at)
SELECT id, clock_timestamp() + interval '1 day' * (1 + random()) FROM celery_periodic_task_configs
"""
# What fired before rests, and its runs are finished: history, as in a database that is in use.
REST = """
UPDATE celery_periodic_task_clocks SET next_run_at = clock_timestamp() + interval '1 day' * (1 + random())
WHERE next_run_at < clock_timestamp() + interval '12 hours'
"""
SETTLE = """
UPDATE celery_task_runs SET state = 'succeeded', finished_at = clock_timestamp(), next_dispatch_at = NULL
WHERE state = 'queued'
"""
MAKE_DUE = """
UPDATE celery_periodic_task_clocks SET next_run_at = :at
WHERE schedule_id IN (SELECT schedule_id FROM celery_periodic_task_clocks ORDER BY schedule_id LIMIT :due)
"""
SPREAD = """
WITH numbered AS (
    SELECT schedule_id, row_number() OVER (ORDER BY schedule_id) AS n
    FROM (SELECT schedule_id FROM celery_periodic_task_clocks ORDER BY schedule_id LIMIT :due) AS chosen
)
UPDATE celery_periodic_task_clocks c SET next_run_at = CAST(:at AS timestamptz) + n * interval '1 second' / :rate
FROM numbered WHERE numbered.schedule_id = c.schedule_id
"""
TABLES = ("celery_periodic_task_clocks", "celery_periodic_task_configs", "celery_task_runs")


def populate(sessions: sessionmaker[Session], count: int) -> None:
    """Make ``count`` schedules, all due tomorrow."""
    with sessions.begin() as session:
        session.execute(text("SET LOCAL statement_timeout = 0"))
        session.execute(text(POPULATE), {"count": count})
        session.execute(text(CLOCKS))
    vacuum(sessions)


def arm_first(sessions: sessionmaker[Session], due: int, at: datetime) -> None:
    """Make ``due`` schedules due at one instant, and settle what happened before."""
    _arm(sessions, MAKE_DUE, {"due": due, "at": at})


def arm_evenly(sessions: sessionmaker[Session], due: int, at: datetime, rate: int) -> None:
    """Make ``due`` schedules due one after the other, ``rate`` a second."""
    _arm(sessions, SPREAD, {"due": due, "at": at, "rate": rate})


def _arm(sessions: sessionmaker[Session], statement: str, parameters: dict[str, object]) -> None:
    with sessions.begin() as session:
        session.execute(text("SET LOCAL statement_timeout = 0"))
        for step in (REST, SETTLE):
            session.execute(text(step))
        session.execute(text(statement), parameters)
    vacuum(sessions)


def vacuum(sessions: sessionmaker[Session]) -> None:
    """What autovacuum does in time, done now, so that it does not fall into a measurement."""
    with sessions() as session:
        connection = session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        connection.execute(text("SET statement_timeout = 0"))
        for table in TABLES:
            connection.execute(text(f"VACUUM ANALYZE {table}"))
