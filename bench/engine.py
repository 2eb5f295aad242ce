"""The scheduling engine: claim, insert and advance at growing numbers of schedules, and an idle pass.

Publishing is left out here (`SILENCE`): what is measured is what a firing costs PostgreSQL and us.
"""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from app.db import sync_engine, sync_sessions
from app.scheduling import statements
from app.scheduling.catalogue import Catalogue, TaskSpec
from app.scheduling.dispatch import Dispatcher
from app.scheduling.messages import RunMessage
from bench.report import report
from support.servers import running_servers, settings_for

BURST = 5000
ROUNDS = 3
CATALOGUE = Catalogue([TaskSpec(name="bench.task", path="bench.tasks.task")])

POPULATE = """
INSERT INTO celery_periodic_task_configs
    (id, version, task_name, task_path, task, task_type, state, schedule, task_args, task_kwargs, task_extra_config)
SELECT gen_random_uuid(), 1, 'schedule ' || n, 'bench.task', 'bench.task', 'business', 'active',
       jsonb_build_object('type', 'crontab', 'expression', (n % 60) || ' * * * *', 'timezone', 'UTC'),
       '[]', jsonb_build_object('n', n), '{"overlap": "allow_all"}'
FROM generate_series(1, :count) AS n
"""
CLOCKS = """
INSERT INTO celery_periodic_task_clocks (schedule_id, next_run_at)
SELECT id, clock_timestamp() + interval '1 day' + random() * interval '1 day' FROM celery_periodic_task_configs
"""
MAKE_DUE = """
UPDATE celery_periodic_task_clocks
SET next_run_at = date_trunc('second', clock_timestamp()) - interval '1 second' * (random() * 5)::int
WHERE schedule_id IN (SELECT schedule_id FROM celery_periodic_task_clocks ORDER BY random() LIMIT :burst)
"""
REST = """
UPDATE celery_periodic_task_clocks SET next_run_at = clock_timestamp() + interval '1 day'
WHERE next_run_at < clock_timestamp() + interval '2 hours'
"""


class Silence:
    """A publisher that sends nothing."""

    def publish(self, messages: Sequence[RunMessage]) -> None:
        """Nothing."""


def run(*, quick: bool) -> None:
    """Measure at each size, on durable settings of a fresh PostgreSQL."""
    with running_servers(quick=False) as servers:
        for size in (10_000, 100_000) if quick else (10_000, 100_000, 1_000_000):
            settings = settings_for(servers.postgres.url, servers.new_database(), servers.redis.url)
            engine = sync_engine(settings.database, name="bench")
            sessions = sync_sessions(engine)
            with sessions.begin() as session:
                session.execute(text("SET LOCAL statement_timeout = 0"))
                session.execute(text(POPULATE), {"count": size})
                session.execute(text(CLOCKS))
            _vacuum(sessions)
            beat = Dispatcher(sessions, Silence(), CATALOGUE, settings, name="bench")
            _idle(beat, size)
            _burst(beat, sessions, size)
            _plans(sessions, size)
            engine.dispose()


def _idle(beat: Dispatcher, size: int) -> None:
    beat.run_pass()
    samples = []
    for _ in range(300):
        began = time.perf_counter()
        beat.run_pass()
        samples.append((time.perf_counter() - began) * 1000)
    samples.sort()
    report("engine", "idle-pass", size, median(samples), "ms", p99=round(samples[296], 3))


def _burst(beat: Dispatcher, sessions: sessionmaker[Session], size: int) -> None:
    rates = []
    for _ in range(ROUNDS):
        with sessions.begin() as session:
            session.execute(text("SET LOCAL statement_timeout = 0"))
            session.execute(text(REST))
            session.execute(text(MAKE_DUE), {"burst": min(BURST, size)})
        _vacuum(sessions)
        fired, began = 0, time.perf_counter()
        while claimed := beat.fire():
            fired += claimed
        rates.append(fired / (time.perf_counter() - began))
    report(
        "engine",
        "claim-insert-advance",
        size,
        median(rates),
        "rows/s",
        rounds=[round(rate) for rate in rates],
    )


def _plans(sessions: sessionmaker[Session], size: int) -> None:
    for name, statement in (
        ("claim", statements.claim(500)),
        ("peek", statements.PEEK),
        ("due-for-dispatch", statements.due_for_dispatch(500)),
    ):
        with sessions() as session:
            session.execute(text("SET LOCAL plan_cache_mode = force_generic_plan"))
            plan: list[Any] = session.execute(
                text(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement.text}")
            ).scalar_one()
            nodes = sorted(set(_nodes(plan[0]["Plan"])))
            milliseconds = plan[0]["Execution Time"]
        report(
            "engine", f"plan-{name}", size, milliseconds, "ms", nodes=nodes, sorts="Sort" in json.dumps(nodes)
        )


def _nodes(plan: dict[str, Any]) -> list[str]:
    index = plan.get("Index Name") or plan.get("Relation Name")
    own = f"{plan['Node Type']} {index}" if index else plan["Node Type"]
    return [own, *(name for child in plan.get("Plans", []) for name in _nodes(child))]


def _vacuum(sessions: sessionmaker[Session]) -> None:
    with sessions() as session:
        connection = session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        connection.execute(text("SET statement_timeout = 0"))
        for table in ("celery_periodic_task_clocks", "celery_periodic_task_configs", "celery_task_runs"):
            connection.execute(text(f"VACUUM ANALYZE {table}"))
