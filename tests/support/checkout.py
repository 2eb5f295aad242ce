"""A folder like that of a newcomer's checkout, and the stack that `make up` starts in it."""

import os
import shlex
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import httpx

from app.cli.embedded import LOOPBACK, free_port
from app.cli.leftovers import leftovers
from support.polling import eventually
from support.processes import ROOT, Process, Processes

UP = (sys.executable, "-m", "app.cli", "up")
BOOT = 120.0
STOP = 90.0


@dataclass
class Checkout:
    """A folder that looks like a checkout, with nothing made in it yet; ``temporary`` is for what is made elsewhere."""

    folder: Path
    temporary: Path
    processes: Processes
    port: int

    def environment(self, **more: str) -> dict[str, str]:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("UPBEAT_", "CELERY_"))}
        return clean | {"UPBEAT_PORT": str(self.port), "TMPDIR": str(self.temporary)} | more

    def start(self, command: tuple[str, ...] = UP, **more: str) -> Process:
        return self.processes.start("up", command, self.environment(**more), self.folder)

    def started(self, command: tuple[str, ...] = UP, **more: str) -> Process:
        process = self.start(command, **more)
        process.wait_for_output("Ctrl-C stops everything", BOOT)
        return process

    def refused(self, **more: str) -> str:
        """What it says when it does not start; it ends by itself and leaves nothing."""
        process = self.start(UP, **more)
        assert process.wait(BOOT) == 1, process.output()
        assert "Traceback" not in process.output()
        return process.output()

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    def living(self) -> list[int]:
        return leftovers(self.folder / ".upbeat")

    def login(self, password: str, username: str = "admin") -> dict[str, str]:
        """The headers of a new session."""
        form = {"username": username, "password": password}
        answer = httpx.post(f"{self.url}/api/v1/auth/login", data=form)
        assert answer.status_code == 200, answer.text
        assert answer.json()["token_type"] == "bearer"
        return {"Authorization": f"Bearer {answer.json()['access_token']}"}

    def end(self) -> None:
        """Stop what was started here; fails when something is left."""
        self.processes.end(patience=STOP)
        eventually(lambda: not self.living(), STOP, "nothing is left of the stack")
        # Of killed processes; the path is a short one, since there may be a socket below it.
        shutil.rmtree(self.temporary)


def new_checkout(parent: Path, processes: Processes) -> Checkout:
    """A checkout on a free port, whose packages are those that run this test, as if installed there."""
    folder = parent / "a checkout"
    folder.mkdir()
    for name in ("app", "migrations", "alembic.ini", "requirements", "Makefile", "sdk"):
        (folder / name).symlink_to(ROOT / name)
    (folder / ".venv" / "bin").mkdir(parents=True)
    for name in ("python", "pip"):
        (folder / ".venv" / "bin" / name).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
        (folder / ".venv" / "bin" / name).chmod(0o755)
    (folder / ".venv" / ".installed-embedded").touch()
    return Checkout(folder, Path(tempfile.mkdtemp(prefix="upbeat-test-")), processes, free_port())
