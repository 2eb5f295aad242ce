"""The services under load: ours with its servers, and the bare ones."""

import asyncio
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from app.cli.embedded import LOOPBACK, free_port
from app.db import async_engine, async_sessions
from app.modules.auth import service as auth
from app.settings import Settings
from support.ledger import Ledger
from support.processes import ROOT, Processes
from support.servers import Servers, settings_for
from support.stack import Stack, stack_environment

# High enough never to refuse; every request is counted in Redis all the same.
RATE_LIMIT = "100000000/minute"


class Ours:
    """A migrated database, an API key of an operator, and the service."""

    def __init__(self, servers: Servers, folder: Path, processes: Processes) -> None:
        self.settings: Settings = settings_for(
            servers.postgres.url, servers.new_database(), servers.new_redis_url()
        )
        self.database_url = servers.database_url(self.settings.database.name)
        self._stack = Stack(
            processes,
            stack_environment(
                servers.postgres.url,
                self.settings.database.name,
                self.settings.broker.url(),
                folder / "ledger",
            )
            | {
                "UPBEAT_TASK_MODULES": "bench.api.tasks",
                "UPBEAT_RATE_LIMIT": RATE_LIMIT,
                "UPBEAT_BEAT_REDISPATCH_DELAY": "7200",
            },
            Ledger(folder / "ledger"),
        )
        self.url = ""
        self.output: Callable[[], str] = str
        self.headers: dict[str, str] = {}

    def start(self, workers: int = 1) -> None:
        """Serve, with so many processes of uvicorn."""
        self.headers = {"Authorization": f"Bearer {asyncio.run(_key(self.settings))}"}
        api = self._stack.api("--workers", str(workers))
        self.url, self.output = api.url, api.process.output


@contextmanager
def ours(servers: Servers) -> Iterator[Ours]:
    """The service's side, not started yet, so that its tables can be filled."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        processes = Processes(Path(folder))
        try:
            yield Ours(servers, Path(folder), processes)
        finally:
            processes.end()


@contextmanager
def bare(broker: str, workers: int = 1) -> Iterator[str]:
    """The address of the peers' service."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        processes = Processes(Path(folder))
        port = free_port()
        command = [sys.executable, "-m", "uvicorn", "bench.api.bare:app", "--host", LOOPBACK]
        command += ["--port", str(port), "--workers", str(workers), "--no-access-log"]
        try:
            process = processes.start("bare", command, _environment(broker))
            process.wait_for_output("Application startup complete", 30)
            yield f"http://{LOOPBACK}:{port}"
        finally:
            processes.end()


def _environment(broker: str) -> dict[str, str]:
    places = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
    return os.environ | {"BENCH_BROKER": broker, "PYTHONPATH": places}


async def _key(settings: Settings) -> str:
    engine = async_engine(settings.database, name="bench")
    sessions = async_sessions(engine)
    user = await auth.create_user(sessions, username="bench", password="not a usual one", role="operator")
    owner = auth.Principal(
        id=user.id,
        username=user.username,
        role=auth.Role.OPERATOR,
        created_at=user.created_at,
        means=auth.Means.SESSION,
        credential_id=user.id,
    )
    made = await auth.create_key(
        sessions, owner, name="bench", scopes=["operate"], expires_at=None, resources=frozenset()
    )
    await engine.dispose()
    return made.secret


__all__ = ["RATE_LIMIT", "Ours", "bare", "ours"]
