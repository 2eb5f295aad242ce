"""Each invariant is broken on purpose, in rows, ledger and queues, and the verdicts of trials and soaks name it.

Nothing runs here: five ticks of a schedule have the runs and the entries that beats and workers would have left.
"""

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import asdict
from uuid import uuid4

import psycopg
import pytest
import redis
from sqlalchemy.orm import Session, sessionmaker

from app.scheduling.ids import new_id
from support import checker
from support.clock import ShiftedClock
from support.ledger import Entry, Ledger
from support.servers import Database, Servers
from support.soak.field import Field
from support.soak.judgement import judge
from support.soak.load import Load
from support.stack import Stack
from support.trial import SECOND, Trial

TICKS = 5
AGO = 20 * SECOND
RUN = """
INSERT INTO celery_task_runs
    (id, state, origin, task, queue, schedule_id, scheduled_for, due_at, created_at, finished_at, args, kwargs, options)
VALUES (%(id)s, 'succeeded', %(origin)s, 'support.instant', 'celery', %(schedule)s, %(at)s, %(at)s, %(at)s, %(at)s,
        '["same"]', '{}', '{}')
"""
# A tick by its place among the five; the runs are numbered as they were made.
NTH = "id = (SELECT id FROM celery_task_runs ORDER BY scheduled_for OFFSET {} LIMIT 1)"
DOUBLE = f"""
INSERT INTO celery_task_runs (id, state, origin, task, queue, schedule_id, scheduled_for, due_at, created_at, args, kwargs,
    options)
SELECT '{new_id()}', 'skipped', origin, task, queue, schedule_id, scheduled_for, due_at, created_at, args, kwargs, options
FROM celery_task_runs WHERE {NTH.format(1)}
"""


@pytest.fixture
def trial(sync: sessionmaker[Session], database: Database, redis_url: str, ledger: Ledger) -> Iterator[Trial]:
    """One schedule that began a while ago; each of its ticks has its run, and each run its start and end."""
    made = Trial(sync, database.url, redis_url, ledger)
    made.tick(1)
    (schedule,) = made.schedules
    first = made._firsts[schedule][0] - AGO
    made._firsts[schedule] = first, SECOND
    for number in range(TICKS):
        _ran(made, schedule=schedule, at=first + number * SECOND)
    _execute(made, "UPDATE celery_periodic_task_clocks SET next_run_at = %(at)s", at=first + TICKS * SECOND)
    yield made
    with redis.Redis.from_url(redis_url) as client:
        client.flushdb()


def _ran(trial: Trial, *, schedule: str | None = None, at: object = None, origin: str = "schedule") -> str:
    run = str(new_id())
    _execute(trial, RUN, id=run, schedule=schedule, at=at or trial.now(), origin=origin)
    for kind in ("start", "end"):
        _note(trial, kind, run)
    return run


def _note(trial: Trial, kind: str, run: str) -> None:
    entry = Entry(kind, run, attempt=1, task="support.instant", pid=1, monotonic=0.0, wall=0.0)
    with trial.ledger.path.open("a") as file:
        file.write(json.dumps(asdict(entry)) + "\n")


def _execute(trial: Trial, statement: str, **values: object) -> None:
    with psycopg.connect(trial.url) as connection:
        connection.execute(statement, values)


def _push(trial: Trial) -> None:
    with redis.Redis.from_url(trial.redis_url) as client:
        client.lpush("priority_low", "message")


def _start_again(trial: Trial) -> None:
    _note(trial, "start", trial.runs()[2].id)


def _invariants(violations: list[str]) -> set[str]:
    return {violation.partition(":")[0] for violation in violations}


def test_nothing_is_wrong(trial: Trial) -> None:
    trial.stop()
    runs = trial.settle(1)
    assert len(runs) == len(trial.kept([run.id for run in runs], 1)) == TICKS
    assert trial.verdict(runs, AGO.total_seconds()) == []


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        (f"DELETE FROM celery_task_runs WHERE {NTH.format(0)}", {"I1", "I2"}),
        (f"DELETE FROM celery_task_runs WHERE {NTH.format(2)}", {"I1", "I2"}),
        (f"DELETE FROM celery_task_runs WHERE {NTH.format(TICKS - 1)}", {"I1", "I2"}),
        (DOUBLE, {"I1"}),
        (f"UPDATE celery_task_runs SET scheduled_for = NULL WHERE {NTH.format(1)}", {"I1"}),
        (
            f"UPDATE celery_task_runs SET created_at = created_at - interval '1s' WHERE {NTH.format(1)}",
            {"I1"},
        ),
        (
            f"UPDATE celery_task_runs SET created_at = created_at + interval '1h' WHERE {NTH.format(1)}",
            {"I1"},
        ),
        (f"UPDATE celery_task_runs SET attempt = 0 WHERE {NTH.format(1)}", {"I2"}),
        (f"UPDATE celery_task_runs SET state = 'expired' WHERE {NTH.format(1)}", {"I2"}),
    ],
    ids=["first lost", "lost", "last lost", "doubled", "of no tick", "early", "late", "attempts", "expired"],
)
def test_what_is_wrong_in_the_table(trial: Trial, statement: str, expected: set[str]) -> None:
    _execute(trial, statement)
    trial.stop()
    assert _invariants(trial.verdict(trial.settle(1), AGO.total_seconds())) == expected


def test_a_tick_that_no_beat_was_there_to_decide(trial: Trial) -> None:
    """When the trial ends it is late by much more than it may be."""
    trial.stop()
    missing = trial.verdict(trial.settle(1), 2.0)
    assert 10 < len(missing) < AGO / SECOND
    assert all("has no run row" in violation for violation in missing)


def test_a_run_that_started_twice_in_an_attempt(trial: Trial) -> None:
    _start_again(trial)
    trial.stop()
    assert _invariants(trial.verdict(trial.settle(1))) == {"I2"}


@pytest.mark.parametrize(
    "statement",
    [
        f"UPDATE celery_task_runs SET result = '2' WHERE {NTH.format(1)}",
        f"UPDATE celery_task_runs SET state = 'lost' WHERE {NTH.format(1)}",
    ],
)
def test_a_terminal_run_that_changed_later(trial: Trial, statement: str) -> None:
    trial.stop()
    _execute(trial, statement)
    assert _invariants(trial.verdict(trial.settle(1))) == {"I4"}


@pytest.mark.parametrize(
    ("plant", "expected"),
    [
        (lambda trial: _execute(trial, f"UPDATE celery_task_runs SET state = 'running' WHERE {NTH.format(1)}"), "I3"),
        (_push, "I5: queue priority_low still has 1 messages"),
    ],
    ids=["not terminal", "not drained"],
)  # fmt: skip
def test_what_does_not_settle(trial: Trial, plant: Callable[[Trial], None], expected: str) -> None:
    plant(trial)
    trial.stop()
    with pytest.raises(AssertionError, match=expected):
        trial.settle(0.1)


def test_a_promise_that_was_not_kept(trial: Trial) -> None:
    promised = [trial.runs()[0].id, str(uuid4())]
    with pytest.raises(AssertionError, match=f"I6: run {promised[1]} was promised and is not there"):
        trial.kept(promised, 0.1)


@pytest.fixture
def field(stack: Stack, servers: Servers, trial: Trial) -> Field:
    return Field(stack, servers, trial, ShiftedClock(trial.url), random.Random(0))


def _judged(field: Field, load: Load, earlier: list[checker.RunRow]) -> set[str]:
    verdict = judge(field, load, [earlier], deadline=0.1, faulty_deadline=0.1)
    assert verdict.lines()[2:] == (verdict.violations or ["I1 to I6 hold"])
    return _invariants(verdict.violations)


def test_a_soak_in_which_nothing_is_wrong(field: Field) -> None:
    promised = {_ran(field.trial, origin="submit")}
    assert _judged(field, Load(field, 1.0, promised), field.trial.runs()) == set()


@pytest.mark.parametrize(
    ("plant", "expected"),
    [
        (lambda trial: _execute(trial, DOUBLE), {"I1"}),
        (_start_again, {"I2"}),
        (lambda trial: _execute(trial, "UPDATE celery_task_runs SET state = 'queued'"), {"I3", "I4"}),
        (lambda trial: _execute(trial, f"UPDATE celery_task_runs SET result = '2' WHERE {NTH.format(3)}"), {"I4"}),
        (_push, {"I5"}),
        (lambda trial: [_ran(trial, origin="submit") for _ in range(2)], {"I6"}),
    ],
    ids=["doubled tick", "doubled start", "not terminal", "changed", "not drained", "doubled request"],
)  # fmt: skip
def test_a_soak_in_which_something_is_wrong(
    field: Field, plant: Callable[[Trial], object], expected: set[str]
) -> None:
    earlier = field.trial.runs()
    plant(field.trial)
    assert _judged(field, Load(field, 1.0), earlier) == expected


def test_a_soak_that_broke_a_promise(field: Field) -> None:
    assert _judged(field, Load(field, 1.0, {str(uuid4())}), []) == {"I6"}
