"""`plans` and `idle-pass`: that the cost of a pass depends on what is due, not on how many there are."""

import time
from statistics import median
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

from app.scheduling import drift, statements
from bench.engine.field import BENCH, Field
from bench.engine.rig import Rig
from bench.figures import quantile
from bench.report import report


def measure(field: Field) -> None:
    """An idle pass, and the plan of each scan."""
    rig = Rig(field)
    rig.arm(0)
    with rig.sessions() as session:
        checked = drift.last_checked(session)
    while rig.beat.run_pass() == 0:
        pass  # this beat knows other tasks than the others, so it looks at all schedules once
    samples = []
    for _ in range(300):
        began = time.perf_counter()
        rig.beat.run_pass()
        samples.append((time.perf_counter() - began) * 1000)
    report(BENCH, "idle-pass", field.size, median(samples), "ms", p99=round(quantile(samples, 0.99), 3))
    _plans(rig.sessions, field.size)
    with rig.sessions.begin() as session:
        session.execute(text("UPDATE celery_task_catalogues SET fingerprint = :it"), {"it": checked})
    rig.close()


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
        sorts = any(node.startswith("Sort") for node in nodes)
        report(BENCH, f"plan-{name}", size, plan[0]["Execution Time"], "ms", nodes=nodes, sorts=sorts)


def _nodes(plan: dict[str, Any]) -> list[str]:
    index = plan.get("Index Name") or plan.get("Relation Name")
    own = f"{plan['Node Type']} {index}" if index else plan["Node Type"]
    return [own, *(name for child in plan.get("Plans", []) for name in _nodes(child))]
