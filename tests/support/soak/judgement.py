"""What must be true when the storm is over: I1 to I6, each with what breaks it."""

import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta

import psycopg
import redis
from redis.exceptions import RedisError

from app.scheduling.messages import QUEUES
from support import checker
from support.polling import DeadlinePassed, eventually
from support.soak.field import Field
from support.soak.load import Load

# A run that takes its worker with it is a fault that goes on for as many leases as it has attempts.
FAULTY = "support.die"
OPEN = "SELECT count(*) FROM celery_task_runs WHERE state IN ('queued', 'running') AND task <> %s"
FAULTY_PATIENCE = 150.0
# The clock was set by up to two seconds, and a tick is decided by it.
SET_BY = timedelta(seconds=2.5)


@dataclass(frozen=True, slots=True)
class Verdict:
    """``violations`` in words; ``settled`` is the seconds from the last fault's end to the last run's."""

    violations: list[str]
    settled: float
    runs: int
    starts: int
    states: dict[str, int] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """For people."""
        states = ", ".join(f"{number} {state}" for state, number in sorted(self.states.items()))
        return [
            f"{self.runs} runs ({states}), {self.starts} starts in the ledger",
            f"settled {self.settled:.1f} s after the last fault",
            *(self.violations or ["I1 to I6 hold"]),
        ]


def judge(subject: Field, load: Load, earlier: list[list[checker.RunRow]], deadline: float = 60.0) -> Verdict:
    """End the schedules, wait until all runs have ended, and check every one of them.

    ``earlier`` are readings of runs from before: what was terminal then must not have changed.
    """
    trial = subject.trial
    began = time.monotonic()
    trial.stop()
    violations = []
    try:
        eventually(lambda: _settled(subject), deadline, "all runs to end and the queues to drain")
    except DeadlinePassed as error:
        violations.append(f"I3 or I5: {error}: {_left(subject)}")
    settled = time.monotonic() - began
    try:
        eventually(lambda: _settled(subject, ""), FAULTY_PATIENCE, "runs that end their workers to end")
    except DeadlinePassed as error:
        violations.append(f"I3: {error}: {_left(subject)}")
    runs = checker.read_runs(trial.url)
    entries = trial.ledger.entries()
    violations += checker.check_starts(entries, runs)
    violations += checker.unfinished(runs)
    by_schedule: dict[str, list[checker.RunRow]] = {}
    for run in runs:
        if run.schedule is not None:
            by_schedule.setdefault(run.schedule, []).append(run)
    for schedule in trial.schedules:
        own = by_schedule.get(schedule, [])
        ticks = sorted(run.scheduled_for for run in own if run.scheduled_for is not None)
        if not ticks:
            violations.append(f"I1: schedule {schedule} has no run")
            continue
        named = checker.ticks_every(schedule, ticks[0], timedelta(seconds=1), ticks[-1])
        violations += checker.check_ticks(named, own, early=SET_BY)
    for reading in earlier:
        violations += checker.check_unchanged(reading, runs)
    found = {run.id for run in runs}
    violations += [f"I6: run {run} was promised and is not there" for run in load.promised - found]
    violations += [f"I6: key {key} had more than one effect" for key in load.doubled()]
    return Verdict(
        violations,
        settled,
        len(runs),
        sum(entry.kind == "start" for entry in entries),
        dict(Counter(run.state for run in runs)),
    )


def _settled(subject: Field, but: str = FAULTY) -> bool:
    subject.mend()
    try:
        with psycopg.connect(subject.trial.url) as connection:
            (left,) = connection.execute(OPEN, [but]).fetchone() or (1,)
        with redis.Redis.from_url(subject.trial.redis_url) as client:
            return bool(left == 0 and sum(client.llen(queue) for queue in QUEUES) == 0)
    except (psycopg.Error, RedisError):
        return False


def _left(subject: Field) -> str:
    with psycopg.connect(subject.trial.url) as connection:
        rows = connection.execute(
            "SELECT state, task, queue, attempt, reason, dispatches, next_dispatch_at - clock_timestamp(), started_at"
            " FROM celery_task_runs WHERE state IN ('queued', 'running') LIMIT 10"
        ).fetchall()
    return "; ".join(" ".join(map(str, row)) for row in rows)
