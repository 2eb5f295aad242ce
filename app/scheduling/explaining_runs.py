"""Why does it wait, or why didn't it run? One query for any run."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from app.scheduling.explaining import in_paused_queue
from app.scheduling.policies import Reason
from app.scheduling.runs import no_run
from app.scheduling.states import RunState

_FACTS = text("""
SELECT clock_timestamp() AS now, r.state, r.reason, r.attempt, r.queue, r.due_at, r.blocked_by, r.worker,
    r.started_at, r.finished_at, r.cancel_requested_at, r.start_deadline, r.limit_key, r.limit_slot_at, r.error ->> 'message' AS error,
    (SELECT to_jsonb(p) FROM celery_queue_pauses p WHERE p.queue = r.queue) AS pause,
    (SELECT count(*) FROM celery_workers w
     WHERE w.lease_expires_at > (SELECT clock_timestamp()) AND w.queues ? r.queue) AS consumers
FROM celery_task_runs r
WHERE r.id = :id
""")


@dataclass(frozen=True, slots=True)
class RunExplanation:
    """A run's state, the reason code if there is one, and both in a sentence."""

    state: str
    reason: str | None
    explanation: str


def explain(session: Session, run_id: UUID) -> RunExplanation:
    """What became of a run, or what it waits for.

    Raises:
        NotFound: there is none with this id.
    """
    row = session.execute(_FACTS, {"id": run_id}).one_or_none()
    if row is None:
        raise no_run()
    facts: dict[str, Any] = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name has an underscore
    if row.state == RunState.QUEUED:
        reason, words = _waiting(facts)
    else:
        reason, words = row.reason, _decided(facts)
    return RunExplanation(row.state, reason, words)


def _waiting(run: Mapping[str, Any]) -> tuple[str | None, str]:
    if run["blocked_by"] is not None:
        return Reason.OVERLAP, f"It waits for the end of run {run['blocked_by']}."
    if run["pause"] is not None:
        return Reason.QUEUE_PAUSED, f"It waits: {in_paused_queue(run['pause'])}"
    if run["reason"] == Reason.CONCURRENCY_LIMIT:
        words = f"As many runs of {run['limit_key']} as may run at once are running; it starts when one ends."
        return Reason.CONCURRENCY_LIMIT, words
    slot, limited = run["limit_slot_at"], f"The rate of {run['limit_key']} is limited"
    if run["reason"] == Reason.RATE_LIMIT and slot is None:
        words = f"{limited}, and no start is free before its deadline, {run['start_deadline']}."
        return Reason.RATE_LIMIT, words
    if run["reason"] == Reason.RATE_LIMIT and slot > run["now"]:
        return Reason.RATE_LIMIT, f"{limited}; its start is reserved for {slot}."
    return None, _due(run)


def _due(run: Mapping[str, Any]) -> str:
    again = f"Attempt {run['attempt']}" if run["attempt"] > 1 else "It"
    since = (run["now"] - run["due_at"]).total_seconds()
    if since < 0:
        return f"{again} is due at {run['due_at']}."
    if run["consumers"] == 0:
        return f"{again} has been due for {since:.0f} s, and no worker takes from its queue {run['queue']}."
    takers = f"{run['consumers']} worker{'s' * (run['consumers'] != 1)}"
    return (
        f"{again} has been due for {since:.0f} s, and waits for one of {takers} of the queue {run['queue']}."
    )


def _decided(run: Mapping[str, Any]) -> str:
    where = f" at {run['worker']}" if run["worker"] else ""
    because = f": {run['reason']}" if run["reason"] else ""
    error = f" Its error: {run['error']}" if run["error"] else ""
    if run["state"] == RunState.RUNNING:
        asked = " and is asked to stop" if run["cancel_requested_at"] else ""
        return f"It runs{where} since {run['started_at']}{asked}."
    if run["started_at"] is None:
        return f"It was not executed, and is {run['state']} since {run['finished_at']}{because}.{error}"
    return f"It ran{where} from {run['started_at']} to {run['finished_at']}, and is {run['state']}{because}.{error}"
