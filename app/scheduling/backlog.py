"""What waits and what runs now, by task and queue: one statement that reads no history."""

from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.orm import Session

PATIENCE = 2000  # milliseconds
STATES = ("queued", "held", "delayed", "blocked", "running")

# Each part is answered by a partial index that holds nothing but such runs.
_COUNT = text("""
SELECT task, queue, state, count(*) AS number,
       EXTRACT(EPOCH FROM (SELECT clock_timestamp()) - min(due_at))::float AS oldest
FROM (
    SELECT task, queue, due_at, CASE
               WHEN reason IN ('concurrency_limit', 'rate_limit') THEN 'held'
               WHEN due_at > (SELECT clock_timestamp()) THEN 'delayed'
               ELSE 'queued' END AS state
    FROM celery_task_runs WHERE next_dispatch_at IS NOT NULL
    UNION ALL
    SELECT task, queue, due_at, 'blocked' FROM celery_task_runs
    WHERE blocked_by IS NOT NULL AND state = 'queued'
    UNION ALL
    SELECT task, queue, due_at, 'running' FROM celery_task_runs WHERE state = 'running'
) AS active
GROUP BY task, queue, state
""")
_LIVES = text("""
SELECT state, count(*) AS number FROM celery_workers WHERE lease_expires_at > clock_timestamp() GROUP BY state
""")
_BEAT_AGE = text("SELECT EXTRACT(EPOCH FROM clock_timestamp() - max(last_pass_at))::float FROM celery_beats")


@dataclass(frozen=True, slots=True)
class Waiting:
    """So many runs of a task in a queue: queued, held (by a limit), delayed, blocked or running.

    ``oldest`` is how many seconds ago the earliest of them was due.
    """

    task: str
    queue: str
    state: str
    number: int
    oldest: float


@dataclass(frozen=True, slots=True)
class Backlog:
    """How things stand; ``workers`` are those that hold a lease, by state, ``beat_age`` is in seconds."""

    runs: tuple[Waiting, ...]
    workers: dict[str, int]
    beat_age: float | None


def read(session: Session) -> Backlog:
    """Look, for two seconds at most. Raises as the driver does when the database is away, or too slow."""
    session.execute(text(f"SET LOCAL statement_timeout = {PATIENCE}"))
    return Backlog(
        tuple(Waiting(*row) for row in session.execute(_COUNT)),
        {row.state: row.number for row in session.execute(_LIVES)},
        session.scalar(_BEAT_AGE),
    )
