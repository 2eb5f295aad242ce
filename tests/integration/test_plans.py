"""The plans of a beat's scans, pinned: by index, without sort, whatever the number of schedules and runs."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

from app.scheduling import statements

SIZE = 20_000
POPULATE = (
    """
    INSERT INTO celery_periodic_task_configs
        (id, version, task_name, task_path, task, task_type, state, schedule, task_args, task_kwargs,
         task_extra_config)
    SELECT gen_random_uuid(), 1, 'schedule ' || n, 'module.task', 'module.task', 'business', 'active',
           '{"type": "crontab", "expression": "0 * * * *"}', '[]', '{}', '{}'
    FROM generate_series(1, :size) AS n
    """,
    """
    INSERT INTO celery_periodic_task_clocks (schedule_id, next_run_at)
    SELECT id, clock_timestamp() + random() * interval '1 day' FROM celery_periodic_task_configs
    """,
    # Ids of this month: the first 48 bits are milliseconds.
    """
    INSERT INTO celery_task_runs
        (id, state, origin, task, queue, schedule_id, scheduled_for, due_at, next_dispatch_at, args, kwargs, options)
    SELECT CAST(lpad(to_hex(CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint) + n), 12, '0')
                || substr(md5(CAST(n AS text)), 13) AS uuid),
           CASE WHEN n % 20 = 0 THEN 'queued' ELSE 'succeeded' END, 'schedule', 'module.task', 'celery',
           gen_random_uuid(), clock_timestamp(), clock_timestamp(),
           CASE WHEN n % 20 = 0 THEN clock_timestamp() + random() * interval '1 hour' END, '[]', '{}', '{}'
    FROM generate_series(1, :size) AS n
    """,
)
SCANS = {
    "claim": (statements.claim(500).text, "ix_celery_periodic_task_clocks_due"),
    "peek": (statements.PEEK.text, "ix_celery_periodic_task_clocks_due"),
    "due_for_dispatch": (statements.due_for_dispatch(500).text, "next_dispatch_at_idx"),
}


@pytest.fixture
def populated(sync: sessionmaker[Session]) -> Iterator[sessionmaker[Session]]:
    with sync.begin() as session:
        for statement in POPULATE:
            session.execute(text(statement), {"size": SIZE})
    with sync() as session:
        connection = session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        connection.execute(text("VACUUM ANALYZE"))
    yield sync
    with sync.begin() as session:
        session.execute(text("TRUNCATE celery_task_runs, celery_periodic_task_configs CASCADE"))


def _nodes(plan: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield plan["Node Type"], plan.get("Index Name") or plan.get("Relation Name") or ""
    for child in plan.get("Plans", []):
        yield from _nodes(child)


def test_scans_go_by_index_without_sorting(populated: sessionmaker[Session]) -> None:
    for name, (statement, index) in SCANS.items():
        with populated() as session:
            session.execute(text("SET LOCAL plan_cache_mode = force_generic_plan"))
            plan = session.execute(text(f"EXPLAIN (FORMAT JSON) {statement}")).scalar_one()
        nodes = list(_nodes(plan[0]["Plan"]))
        large = [node for node in nodes if "Seq Scan" in node[0] and node[1].startswith("celery_task_runs")]
        assert large == [], f"{name}: {nodes}"
        assert any("Index" in kind and index in used for kind, used in nodes), f"{name}: {nodes}"
        assert not any(kind in ("Sort", "Incremental Sort") for kind, _ in nodes), f"{name}: {nodes}"


def test_a_scan_with_nothing_due_reads_a_handful_of_pages(populated: sessionmaker[Session]) -> None:
    for name in ("claim", "peek", "due_for_dispatch"):
        with populated() as session:
            explained = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {SCANS[name][0]}"
            plan = session.execute(text(explained)).scalar_one()[0]["Plan"]
        pages = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
        assert pages < 60, f"{name} reads {pages} pages of {SIZE} schedules and runs"
