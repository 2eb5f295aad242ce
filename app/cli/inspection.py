"""`upbeat inspect` and `upbeat purge`: what the tables know, and what the workers say when they are asked."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.orm import Session, sessionmaker

from app.cli.choices import Subject
from app.cli.progress import working
from app.cli.recorded import told
from app.cli.tables import show, span
from app.db.engines import sync_engine, sync_sessions
from app.modules.audit.service import record
from app.scheduling import inspecting, purging
from app.scheduling.messages import BrokerUnavailable
from app.scheduling.policies import Reason
from app.settings import Settings, get_settings
from app.worker import celery_app
from app.worker.asking import ask


@dataclass(frozen=True, slots=True)
class _Listing:
    """``columns`` are names of fields, each with its heading after a colon where that is another."""

    rows: Callable[[Session, int], Sequence[Any]]
    columns: str
    empty: str


@contextmanager
def opened(settings: Settings, name: str) -> Iterator[sessionmaker[Session]]:
    """Sessions for one command."""
    engine = sync_engine(settings.database, name=name)
    try:
        yield sync_sessions(engine)
    finally:
        engine.dispose()


def inspect(subject: Subject, *, limit: int, seconds: float, as_json: bool) -> None:
    """Print what is asked for.

    Raises:
        BrokerUnavailable: workers were to be asked, and cannot be.
    """
    if subject in _ANSWERS:
        _ANSWERS[subject](seconds, as_json)
        return
    listing = _TABLES[subject]
    parts = (each.partition(":") for each in listing.columns.split())
    columns = {field: heading or field for field, _, heading in parts}
    with opened(get_settings(), "upbeat-inspect") as sessions, sessions() as session:
        show(listing.rows(session, limit), columns, as_json=as_json, empty=listing.empty)


def waiting_in(queues: Sequence[str]) -> int:
    """How many runs a purge would cancel."""
    with opened(get_settings(), "upbeat-purge") as sessions:
        return purging.queued(sessions, queues)


def purge(queues: Sequence[str], expected: int) -> int:
    """Cancel what waits in these queues, with a bar of the progress; answers how many runs it ended.

    Raises:
        BrokerUnavailable: the runs are cancelled; their wake-ups stay, and will find nothing to start.
    """
    discard = celery_app.publisher.discard
    ended = 0
    with opened(get_settings(), "upbeat-purge") as sessions, working("Purging") as tell:
        for number in purging.purge(sessions, queues, discard=discard):
            ended += number
            tell(ended, max(expected, ended), "")
        with sessions.begin() as session:
            changes = {"celery_task_runs": {str(Reason.PURGED): {"before": 0, "after": ended}}}
            record(session, told("purge_queue", "queues", ",".join(queues), changes))
    return ended


def _registered(seconds: float, as_json: bool) -> None:  # noqa: FBT001
    answers = ask("registered", seconds=seconds)
    rows = [{"worker": name, "task": task} for name, tasks in sorted(answers.items()) for task in tasks]
    show(rows, {"worker": "worker", "task": "task"}, as_json=as_json, empty=_SILENCE)


def _stats(seconds: float, as_json: bool) -> None:  # noqa: FBT001
    answers = ask("stats", seconds=seconds)
    rows = [_summary(name, stats) for name, stats in sorted(answers.items())]
    columns = {
        "worker": "worker",
        "pid": "pid",
        "up": "up",
        "pool": "pool",
        "concurrency": "slots",
        "executed": "executed",
        "memory_kb": "memory, KB",
    }
    show(rows, columns, as_json=as_json, empty=_SILENCE)


def _ping(seconds: float, as_json: bool) -> None:  # noqa: FBT001
    """Workers that answer, and those that hold a lease without answering."""
    try:
        answers = ask("ping", seconds=seconds)
    except BrokerUnavailable as error:
        print(f"Redis cannot be used, so nobody was asked: {error}.", file=sys.stderr)
        answers = {}
    with opened(get_settings(), "upbeat-inspect") as sessions, sessions() as session:
        leases = {each.name: each for each in inspecting.workers(session)}
    now = datetime.now(UTC)
    rows: list[dict[str, Any]] = [
        {
            "worker": name,
            "answer": "pong" if name in answers else "none",
            "lease": name in leases,
            "up": span((now - leases[name].started_at).total_seconds()) if name in leases else None,
            "queues": leases[name].queues if name in leases else [],
        }
        for name in sorted({*answers, *leases})
    ]
    if not as_json:
        rows = [{**row, "queues": ", ".join(row["queues"])} for row in rows]
    columns = {"worker": "worker", "answer": "answer", "lease": "lease", "up": "up", "queues": "queues"}
    show(rows, columns, as_json=as_json, empty=_SILENCE)


def _summary(name: str, stats: dict[str, Any]) -> dict[str, Any]:
    pool = stats.get("pool") or {}
    return {
        "worker": name,
        "pid": stats.get("pid"),
        "up": span(stats.get("uptime")),
        "pool": str(pool.get("implementation", "")).rpartition(":")[2].removesuffix("TaskPool").lower()
        or None,
        "concurrency": pool.get("max-concurrency"),
        "executed": stats.get("total") or {},
        "memory_kb": (stats.get("rusage") or {}).get("maxrss"),
        "uptime": stats.get("uptime"),
    }


_SILENCE = "No worker answers. `upbeat status` tells of this folder's, `upbeat doctor` looks for the cause."

_ANSWERS: dict[Subject, Callable[[float, bool], None]] = {
    Subject.REGISTERED: _registered,
    Subject.STATS: _stats,
    Subject.PING: _ping,
}
_TABLES: dict[Subject, _Listing] = {
    Subject.ACTIVE: _Listing(
        inspecting.active,
        "id:run task args kwargs queue worker attempt seconds cancelling",
        "Nothing is running.",
    ),
    Subject.SCHEDULED: _Listing(
        inspecting.upcoming, "at kind task queue name:schedule id", "Nothing is to come."
    ),
    Subject.RESERVED: _Listing(
        inspecting.waiting, "id:run task args kwargs queue due_at:due blocked", "No run waits for a worker."
    ),
    Subject.REVOKED: _Listing(
        inspecting.revoked, "id:run task queue state reason at", "No run was cancelled within a day."
    ),
    Subject.QUEUES: _Listing(
        lambda session, _: inspecting.queues(session), "queue waiting later running workers paused", ""
    ),
}
