"""PostgreSQL crashes with an end that it has shown, but not yet written to the disk."""

import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from app.scheduling import canvas
from app.scheduling.models import RunRow
from app.settings import Settings
from app.worker import bookkeeping
from support import tasks
from support.calling import calling
from support.ledger import Ledger
from support.polling import eventually
from support.processes import Processes
from support.servers import Servers, running_servers, settings_for
from support.stack import Stack, stack_environment

TRIES = 5


@pytest.fixture
def lazy() -> Iterator[Servers]:
    """A PostgreSQL that writes what nobody waits for as late as it can."""
    with running_servers(options=("wal_writer_delay=10s",)) as running:
        yield running


@pytest.fixture
def stated(lazy: Servers) -> Iterator[Settings]:
    """This process as the client."""
    settings = settings_for(lazy.postgres.url, lazy.new_database(), lazy.new_redis_url())
    with calling(settings):
        yield settings


def _row(task_id: str) -> RunRow:
    return bookkeeping.transact(lambda session: canvas.read_many(session, [task_id])[task_id], patience=10)


def _succeeded(task_id: str) -> bool:
    return _row(task_id).state == "succeeded"


def test_a_child_is_killed_with_an_end_that_a_crash_has_undone(
    lazy: Servers, stated: Settings, processes: Processes, ledger: Ledger, tmp_path: Path
) -> None:
    """Its worker has heard of the end, lives and keeps its lease; it misses the process of the run."""
    failpoint = tmp_path / "failpoint"
    environment = stack_environment(lazy.postgres.url, stated.database.name, stated.broker.url(), ledger.path)
    environment |= {"UPBEAT_FAILPOINTS": f"@{failpoint}", "UPBEAT_WORKER_LEASE_RENEWAL": "1.5"}
    worker = Stack(processes, environment, ledger).worker("--without-mingle", "--without-gossip", "-c", "1")
    for _ in range(TRIES):
        failpoint.write_text("ends.unconfirmed=freeze")
        result = tasks.instant.delay("done")
        eventually(partial(_succeeded, result.id), 20, "the end to be shown")
        eventually(lambda: not failpoint.exists(), 10, "the child to stand still")
        lazy.stop("postgres", signal.SIGQUIT)
        os.kill(ledger.starts()[-1].pid, signal.SIGKILL)
        lazy.start_postgres()
        undone = _row(result.id).state == "running"
        if undone:
            break
    assert undone, "each time somebody else wrote the log in between"
    living = tasks.block.delay(5.0)
    eventually(lambda: _row(result.id).state == "lost", 20, "the run to be missed")
    row = _row(result.id)
    assert (row.attempt, row.reason) == (1, "worker_lost")
    assert living.get(20) == 5.0
    assert len([start for start in ledger.starts() if start.run == result.id]) == 1
    assert worker.alive


def test_an_end_that_a_crash_has_undone_is_asserted_again(
    lazy: Servers, stated: Settings, processes: Processes, ledger: Ledger, tmp_path: Path
) -> None:
    """The child stands still between its end and the crash, and goes on when PostgreSQL is back."""
    failpoint = tmp_path / "failpoint"
    environment = stack_environment(lazy.postgres.url, stated.database.name, stated.broker.url(), ledger.path)
    stack = Stack(processes, environment | {"UPBEAT_FAILPOINTS": f"@{failpoint}"}, ledger)
    worker = stack.worker("--without-mingle", "--without-gossip", "-c", "1")
    started = 0
    for _ in range(TRIES):
        failpoint.write_text("finish.committed=freeze")
        result = tasks.instant.delay("done")
        started += 1
        eventually(partial(_succeeded, result.id), 20, "the end to be shown")
        lazy.stop("postgres", signal.SIGQUIT)
        eventually(lambda: not failpoint.exists(), 10, "the child to stand still")
        lazy.start_postgres()
        undone = _row(result.id).state == "running"
        os.kill(ledger.starts()[-1].pid, signal.SIGCONT)
        # The message that tells Celery of the end comes from the child, too.
        eventually(partial(_succeeded, result.id), 30, "the end to be shown again")
        row = _row(result.id)
        assert (row.attempt, row.result, row.reason) == (1, "done", None)
        if undone:
            break
    assert undone, "each time somebody else wrote the log in between"
    assert tasks.instant.delay("next").get(20) == "next"
    assert len(ledger.starts()) == started + 1
    worker.terminate()
    assert worker.wait(20) == 0
