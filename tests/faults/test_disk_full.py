"""PostgreSQL's disk is full for a while. Needs root, for a file system of its own in memory."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from app.db import sync_engine, sync_sessions
from app.settings import Settings
from support.api import client_of
from support.ledger import Ledger
from support.polling import eventually
from support.processes import Processes
from support.servers import Servers, running_servers, settings_for
from support.stack import BOOT, Stack, stack_environment
from support.trial import QUICK, Report, Trial

SIZE = 400


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.fixture
def small(disk: Path) -> Iterator[Servers]:
    """Servers whose data lies on the small disk."""
    with running_servers(folder=disk / "servers") as running:
        yield running


@pytest.fixture
def cramped(small: Servers) -> Settings:
    return settings_for(small.postgres.url, small.new_database(), small.new_redis_url())


@pytest.mark.full
@pytest.mark.root
def test_a_full_disk_and_room_again(
    small: Servers,
    cramped: Settings,
    disk: Path,
    processes: Processes,
    ledger: Ledger,
    record_property: Report,
) -> None:
    """Errors are clean, nothing that was promised is lost, and all goes on when there is room."""
    redis_url, name = cramped.broker.url(), cramped.database.name
    stack = Stack(processes, stack_environment(small.postgres.url, name, redis_url, ledger.path), ledger)
    stack.environment.update(QUICK)
    engine = sync_engine(cramped.database, name="test")
    trial = Trial(sync_sessions(engine), small.database_url(name), redis_url, ledger)
    beat, worker = stack.beat(wait=False), stack.worker("-P", "threads", wait=False)
    api = stack.api()
    beat.wait_for_output("beat: Starting", BOOT)
    worker.wait_for_output(" ready.", BOOT)
    trial.tick()
    eventually(ledger.ends, 20)
    promised: set[str] = set()
    with client_of(api.url, cramped) as client:
        ballast = _fill(disk)
        statuses: dict[int, int] = {}
        end = time.monotonic() + 15
        while time.monotonic() < end:
            body = {"args": ["x" * 100_000]}
            answer = client.post("/api/v1/tasks/support.instant/runs", json=body)
            statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
            if answer.status_code == 202:
                promised.add(answer.json()["id"])
        record_property("answers", statuses)
        ballast.unlink()
        record_property("PostgreSQL had ended", not small.alive("postgres"))
        if not small.alive("postgres"):
            small.start_postgres()
        recovery = trial.recovery(40)
        record_property("recovery, s", recovery)
        assert client.get("/api/v1/runs").status_code == 200
    trial.stop()
    runs = trial.settle()
    assert statuses.keys() <= {202, 503}
    assert statuses[503]
    assert trial.verdict(runs) == []
    trial.kept(promised)
    engine.dispose()
    assert recovery < 10


def _fill(disk: Path) -> Path:
    """A file that takes all the room there is."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            os.write(file.fileno(), bytes(2**20))
    with ballast.open("ab", buffering=0) as file, suppress(OSError):
        while True:
            os.write(file.fileno(), bytes(2**12))
    return ballast
