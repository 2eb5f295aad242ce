"""What must be true when the storm is over: I1 to I6, each with what breaks it."""

import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta

import psycopg
from redis.exceptions import RedisError

from support import checker
from support.polling import DeadlinePassed, eventually
from support.soak.field import Field
from support.soak.load import Load

# A run that takes its worker with it is a fault that goes on for as many leases as it has attempts.
FAULTY = "support.die"
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


def judge(
    subject: Field,
    load: Load,
    earlier: list[list[checker.RunRow]],
    deadline: float = 60.0,
    faulty_deadline: float = 150.0,
) -> Verdict:
    """End the schedules, wait until all runs have ended, and check every one of them.

    ``earlier`` are readings of runs from before: what was terminal then must not have changed. Runs that end their
    workers have ``faulty_deadline`` seconds, since each of their attempts takes a lease.
    """
    trial = subject.trial
    began = time.monotonic()
    trial.stop()
    violations = _unsettled(subject, deadline)
    settled = time.monotonic() - began
    violations += _unsettled(subject, faulty_deadline, but="")
    runs = checker.read_runs(trial.url)
    entries = trial.ledger.entries()
    violations += checker.check_starts(entries, runs)
    violations += checker.unfinished(runs)
    violations += trial.check_ticks(runs, early=SET_BY)
    for reading in (*earlier, trial.ended):
        violations += checker.check_unchanged(reading, runs)
    violations += checker.check_promises(load.promised, runs)
    violations += [f"I6: key {key} had more than one effect" for key in load.doubled()]
    return Verdict(
        violations,
        settled,
        len(runs),
        sum(entry.kind == "start" for entry in entries),
        dict(Counter(run.state for run in runs)),
    )


def _unsettled(subject: Field, deadline: float, but: str = FAULTY) -> list[str]:
    """What of I3 and I5 is broken when the deadline has passed: runs of all tasks ``but`` one, and the queues."""
    try:
        eventually(lambda: _settled(subject, but), deadline)
    except DeadlinePassed:
        left = _left(subject, but)
        late = [f"I3: after {deadline:g} s there are still {left}"] if left else []
        return late + checker.undrained(subject.trial.lengths())
    return []


def _settled(subject: Field, but: str) -> bool:
    subject.mend()
    try:
        return not checker.is_open(subject.trial.url, but=but) and subject.trial.waiting() == 0
    except (psycopg.Error, RedisError):
        return False


def _left(subject: Field, but: str) -> str:
    with psycopg.connect(subject.trial.url) as connection:
        rows = connection.execute(
            "SELECT state, task, queue, attempt, reason, dispatches, next_dispatch_at - clock_timestamp(), started_at"
            " FROM celery_task_runs WHERE state IN ('queued', 'running') AND task <> %s LIMIT 10",
            [but],
        ).fetchall()
    return "; ".join(" ".join(map(str, row)) for row in rows)
