"""Match what ran (the ledger) and what is recorded (run rows) to what the schedules named.

The invariants are those of the fault plan: I1 one run row per tick, I2 one start per attempt, I3 all runs end, I4 a
terminal row never changes, I5 queues drain, I6 what was promised is there. Each function returns the violations in
words; none means that it holds. `tests/integration/test_verdicts.py` plants each of them.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import psycopg
from psycopg.rows import class_row

from support.ledger import Entry

TERMINAL = frozenset({"succeeded", "failed", "timed_out", "lost", "cancelled", "expired", "skipped"})
EXECUTED = frozenset({"succeeded", "failed", "timed_out", "lost"})


@dataclass(frozen=True, slots=True)
class Tick:
    """One instant that a schedule named."""

    schedule: str
    at: datetime

    def __str__(self) -> str:
        return f"tick {self.at.isoformat()} of schedule {self.schedule}"


@dataclass(frozen=True, slots=True)
class RunRow:
    """A run as the database records it; ``document`` is the whole row, for comparison."""

    id: str
    schedule: str | None
    scheduled_for: datetime | None
    created_at: datetime
    state: str
    attempt: int
    document: dict[str, object]


def ticks_every(schedule: str, anchor: datetime, every: timedelta, until: datetime) -> list[Tick]:
    """The ticks ``anchor + n × every`` for n from 0 on, not after ``until``; plain arithmetic."""
    return [Tick(schedule, anchor + n * every) for n in range((until - anchor) // every + 1)]


def read_runs(url: str, *schedules: str) -> list[RunRow]:
    """All run rows, or those of some schedules, straight from the table."""
    which = "WHERE schedule_id = ANY(%(schedules)s::uuid[])" if schedules else ""
    query = f"""
        SELECT id::text AS id, schedule_id::text AS schedule, scheduled_for, created_at, state, attempt,
               to_jsonb(run) AS document
        FROM celery_task_runs AS run {which} ORDER BY id
    """
    with (
        psycopg.connect(url) as connection,
        connection.cursor(row_factory=class_row(RunRow)) as cursor,
    ):
        return cursor.execute(query.encode(), {"schedules": list(schedules)}).fetchall()


def is_run(url: str, condition: str, *values: object) -> bool:
    """Whether there is a run of which the condition holds: to be asked again and again, without reading them all."""
    query = f"SELECT EXISTS (SELECT FROM celery_task_runs WHERE {condition})"
    with psycopg.connect(url) as connection:
        return connection.execute(query.encode(), values).fetchone() == (True,)


def is_open(url: str, *, but: str = "") -> bool:
    """Whether a run of any task ``but`` one is not terminal."""
    return is_run(url, "state IN ('queued', 'running') AND task <> %s", but)


def check_ticks(
    expected: Iterable[Tick],
    runs: Sequence[RunRow],
    epsilon: timedelta | None = None,
    *,
    early: timedelta = timedelta(0),
) -> list[str]:
    """I1: each expected tick has exactly one row, made in [t - early, t + epsilon], and no other tick has one.

    ``early`` is by how much the database's clock was set ahead.
    """
    wanted = Counter(expected)
    rows = [run for run in runs if run.schedule is not None and run.scheduled_for is not None]
    found = Counter(Tick(run.schedule or "", run.scheduled_for or run.created_at) for run in rows)
    violations = [f"I1: {tick} has no run row" for tick in wanted if tick not in found]
    violations += [f"I1: {tick} has {n} run rows" for tick, n in found.items() if n > 1]
    violations += [f"I1: {tick} was not named by the schedule" for tick in found if tick not in wanted]
    for run in rows:
        late = run.created_at - (run.scheduled_for or run.created_at)
        if late < -early:
            violations.append(f"I1: run {run.id} was made {-late} before its tick")
        elif epsilon is not None and late > epsilon:
            violations.append(f"I1: run {run.id} was made {late} after its tick")
    return violations


def check_starts(entries: Sequence[Entry], runs: Sequence[RunRow]) -> list[str]:
    """I2: at most one start per attempt in the ledger, and the rows tell of the same starts."""
    starts = Counter((entry.run, entry.attempt) for entry in entries if entry.kind == "start")
    ended = {entry.run for entry in entries if entry.kind == "end"}
    rows = {run.id: run for run in runs}
    violations = [
        f"I2: run {run} started {n} times in attempt {a}" for (run, a), n in starts.items() if n > 1
    ]
    for run, attempt in starts:
        row = rows.get(run)
        if row is None:
            violations.append(f"I2: run {run} was started but has no row")
        elif attempt > row.attempt:
            violations.append(f"I2: run {run} started attempt {attempt}, its row knows {row.attempt}")
        elif row.state in ("skipped", "expired"):
            violations.append(f"I2: run {run} is {row.state} but was started")
    violations += [
        f"I2: run {run.id} succeeded, but the ledger saw no end of it"
        for run in runs
        if run.state == "succeeded" and run.id not in ended
    ]
    return violations


def check_unchanged(before: Sequence[RunRow], after: Sequence[RunRow]) -> list[str]:
    """I4: what was terminal in the earlier reading is the same in the later one."""
    later = {run.id: run for run in after}
    violations = []
    for run in before:
        if run.state not in TERMINAL:
            continue
        now = later.get(run.id)
        if now is None:
            violations.append(f"I4: terminal run {run.id} ({run.state}) is gone")
        elif now.document != run.document:
            changed = sorted(k for k, v in run.document.items() if now.document.get(k) != v)
            violations.append(f"I4: terminal run {run.id} ({run.state}) changed in {', '.join(changed)}")
    return violations


def unfinished(runs: Sequence[RunRow]) -> list[str]:
    """I3 at the end of a fault's grace: the runs that are not terminal."""
    return [f"I3: run {run.id} is still {run.state}" for run in runs if run.state not in TERMINAL]


def refuse(violations: Sequence[str]) -> None:
    """Fail with the first of them, if there are any: an assertion outside of a test's own file would not tell them."""
    if violations:
        raise AssertionError("\n".join([f"{len(violations)} violations", *violations[:20]]))


def undrained(lengths: Mapping[str, int]) -> list[str]:
    """I5 at the end of a fault's grace: the queues that still have messages; ``lengths`` are those of all queues."""
    return [f"I5: queue {queue} still has {number} messages" for queue, number in lengths.items() if number]


def check_promises(promised: Iterable[str], runs: Sequence[RunRow]) -> list[str]:
    """I6: the run of each id that a caller was given is there."""
    found = {run.id for run in runs}
    return [f"I6: run {run} was promised and is not there" for run in promised if run not in found]
