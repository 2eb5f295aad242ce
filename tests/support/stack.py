"""Worker, beat and API of one database, started by hand as the documentation tells users to."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import httpx

from app.cli.embedded import LOOPBACK, free_port
from support.ledger import PATH_VARIABLE, Ledger
from support.polling import eventually
from support.processes import ROOT, Process, ProcessEnded, Processes

BOOT = 40.0


@dataclass(frozen=True, slots=True)
class Api:
    """An API process and its address."""

    process: Process
    url: str


@dataclass
class Stack:
    """Starts processes that share a database, a broker and a ledger.

    ``environment`` is theirs; a test may add settings to it (short leases, for example) before or
    with each start.
    """

    processes: Processes
    environment: dict[str, str]
    ledger: Ledger

    def __post_init__(self) -> None:
        self._numbers = count(1)

    def worker(self, *options: str, env: Mapping[str, str] | None = None, wait: bool = True) -> Process:
        """`celery -A app.worker worker` with the tests' tasks; ``options`` are Celery's own."""
        name = f"worker{next(self._numbers)}"
        process = self._celery(name, "worker", "-n", f"{name}@%h", "-c", "2", *options, env=env)
        if wait:
            process.wait_for_output(" ready.", BOOT)
        return process

    def beat(self, *options: str, env: Mapping[str, str] | None = None, wait: bool = True) -> Process:
        """`celery -A app.worker beat`."""
        process = self._celery(f"beat{next(self._numbers)}", "beat", *options, env=env)
        if wait:
            process.wait_for_output("beat: Starting", BOOT)
        return process

    def api(self, *options: str, env: Mapping[str, str] | None = None, wait: bool = True) -> Api:
        """`uvicorn app.main:app` on a free port."""
        port = free_port()
        process = self._python(
            f"api{next(self._numbers)}",
            *("-m", "uvicorn", "app.main:app", "--host", LOOPBACK, "--port", str(port)),
            *("--timeout-graceful-shutdown", "5", *options),
            env=env,
        )
        url = f"http://{LOOPBACK}:{port}"
        if wait:
            # One client for all the questions: each new one reads the system's certificates.
            with httpx.Client(base_url=url, timeout=2) as client:
                eventually(lambda: _lives(process, client), BOOT, "the API's /livez")
        return Api(process, url)

    def celery(self, name: str, *arguments: str, env: Mapping[str, str] | None = None) -> Process:
        """Any other `celery -A app.worker …` command, such as `inspect ping`."""
        return self._celery(name, *arguments, env=env)

    def _celery(self, name: str, *arguments: str, env: Mapping[str, str] | None) -> Process:
        return self._python(name, "-m", "celery", "-A", "app.worker", *arguments, env=env)

    def _python(self, name: str, *arguments: str, env: Mapping[str, str] | None) -> Process:
        return self.processes.start(name, [sys.executable, *arguments], {**self.environment, **(env or {})})


def stack_environment(server_url: str, database: str, redis_url: str, ledger: Path) -> dict[str, str]:
    """This process's environment without settings, plus those of one test's stack."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("UPBEAT_", "CELERY_"))}
    return inherited | {
        "DATABASE_URL": server_url,
        "CELERY_DATABASE_NAME": database,
        "REDIS_URL": redis_url,
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests"))),
        "UPBEAT_TASK_MODULES": "support.tasks",
        "PYTHONUNBUFFERED": "1",
        "PYTHONFAULTHANDLER": "1",
        PATH_VARIABLE: str(ledger),
        # A pool's folder and the messages that kombu could not give back stay behind when a worker is killed.
        "TMPDIR": str(ledger.parent),
    }


def _lives(process: Process, client: httpx.Client) -> bool:
    if not process.alive:
        raise ProcessEnded(process, "its first answer")
    try:
        return client.get("/livez").status_code == 200
    except httpx.TransportError:
        return False
