"""The tests' own instruments: servers, processes, ledger and checker."""

import signal
import sys
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
import redis

from app.settings import Settings
from support.checker import (
    RunRow,
    Tick,
    check_promises,
    check_starts,
    check_ticks,
    check_unchanged,
    ticks_every,
    undrained,
    unfinished,
)
from support.ledger import Entry
from support.polling import DeadlinePassed, eventually
from support.processes import ProcessEnded, Processes
from support.servers import Database, Servers

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def test_servers_answer_as_the_version_that_was_asked_for(servers: Servers) -> None:
    with psycopg.connect(servers.postgres.url) as connection:
        major = connection.info.server_version // 10000
    assert major == servers.postgres.major
    with redis.Redis.from_url(servers.new_redis_url()) as client:
        assert client.ping()


def test_a_database_is_migrated_and_the_settings_name_it(database: Database, settings: Settings) -> None:
    assert settings.database.product_url().database == database.name
    with psycopg.connect(database.url) as connection:
        assert connection.execute("SELECT count(*) FROM alembic_version").fetchone() == (1,)


def test_postgres_can_be_crashed_and_started_again(servers: Servers) -> None:
    servers.stop("postgres")
    assert not servers.postgres.answers()
    servers.start_postgres()
    assert servers.postgres.answers()


FAMILY = "import subprocess, sys; print('up', flush=True); subprocess.run(['sleep', '60'])"


def test_a_group_is_frozen_and_killed_with_its_children(processes: Processes) -> None:
    process = processes.start("family", [sys.executable, "-c", FAMILY])
    process.wait_for_output("up")
    eventually(lambda: len(process.members()) == 2)
    process.freeze()
    process.thaw()
    process.kill()
    assert process.members() == []
    assert process.popen.returncode == -signal.SIGKILL


def test_orphans_of_a_group_are_ended_too(processes: Processes) -> None:
    process = processes.start("family", [sys.executable, "-c", FAMILY])
    process.wait_for_output("up")
    eventually(lambda: len(process.members()) == 2)
    process.signal_main(signal.SIGKILL)
    process.wait()
    assert len(process.members()) == 1
    processes.end()
    assert process.members() == []


def test_awaiting_a_dead_process_fails_at_once_with_its_output(processes: Processes) -> None:
    process = processes.start("short", [sys.executable, "-c", "print('last words')"])
    with pytest.raises(ProcessEnded, match="last words"):
        process.wait_for_output("never", deadline=60)


def test_eventually_says_what_did_not_happen() -> None:
    with pytest.raises(DeadlinePassed, match=r"pigs fly did not come true within 0.05 s"):
        eventually(lambda: False, 0.05, "pigs fly")


def row(id_: str, at: datetime, state: str = "succeeded", attempt: int = 1, **late: float) -> RunRow:
    made = at + timedelta(**late)
    return RunRow(id_, "s", at, made, state, attempt, {"id": id_, "state": state, "attempt": attempt})


def entry(kind: str, run: str, attempt: int = 1) -> Entry:
    return Entry(kind=kind, run=run, attempt=attempt, task="t", pid=1, monotonic=0.0, wall=0.0)


def test_the_checker_accepts_what_is_right() -> None:
    expected = ticks_every("s", NOON, SECOND, NOON + SECOND)
    rows = [row("a", NOON), row("b", NOON + SECOND, "failed", 2)]
    entries = [entry("start", "a"), entry("end", "a"), entry("start", "b"), entry("start", "b", 2)]
    assert check_ticks(expected, rows, SECOND) == []
    assert check_starts(entries, rows) == []
    assert check_unchanged(rows, rows) == []
    assert unfinished(rows) == []


def test_the_checker_names_each_violation() -> None:
    expected = [Tick("s", NOON), Tick("s", NOON + SECOND)]
    doubled = [row("a", NOON), row("b", NOON, seconds=3), row("c", NOON + 9 * SECOND, seconds=-1)]
    assert [line.split(": ", 1)[1] for line in check_ticks(expected, doubled, SECOND)] == [
        f"tick {(NOON + SECOND).isoformat()} of schedule s has no run row",
        f"tick {NOON.isoformat()} of schedule s has 2 run rows",
        f"tick {(NOON + 9 * SECOND).isoformat()} of schedule s was not named by the schedule",
        "run b was made 0:00:03 after its tick",
        "run c was made 0:00:01 before its tick",
    ]
    rows = [row("a", NOON), row("b", NOON, "skipped"), row("c", NOON)]
    entries = [
        *[entry("start", "a")] * 2,
        entry("end", "a"),
        entry("start", "b"),
        entry("start", "c", 2),
        entry("start", "x"),
    ]
    assert check_starts(entries, rows) == [
        "I2: run a started 2 times in attempt 1",
        "I2: run b is skipped but was started",
        "I2: run c started attempt 2, its row knows 1",
        "I2: run x was started but has no row",
        "I2: run c succeeded, but the ledger saw no end of it",
    ]
    assert check_unchanged([row("a", NOON), row("d", NOON)], [row("a", NOON, "failed")]) == [
        "I4: terminal run a (succeeded) changed in state",
        "I4: terminal run d (succeeded) is gone",
    ]
    assert unfinished([row("a", NOON, "running")]) == ["I3: run a is still running"]
    assert undrained({"celery": 0, "system": 2}) == ["I5: queue system still has 2 messages"]
    assert check_promises(["a", "z"], [row("a", NOON)]) == ["I6: run z was promised and is not there"]
