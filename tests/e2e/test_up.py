"""`make up` as a newcomer meets it: started in an empty folder, driven over HTTP, stopped, started again."""

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from app.cli.embedded import LOOPBACK, free_port
from app.cli.leftovers import leftovers
from support.polling import eventually, holds_throughout
from support.processes import ROOT, Process, Processes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

UP = (sys.executable, "-m", "app.cli", "up")
BOOT = 120.0
STOP = 90.0


@dataclass
class Checkout:
    """A folder that looks like a checkout, with nothing made in it yet."""

    folder: Path
    processes: Processes
    port: int

    def environment(self, **more: str) -> dict[str, str]:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("UPBEAT_", "CELERY_"))}
        return clean | {"UPBEAT_PORT": str(self.port)} | more

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


@pytest.fixture
def checkout(tmp_path: Path, processes: Processes) -> Iterator[Checkout]:
    folder = tmp_path / "a checkout"
    folder.mkdir()
    for name in ("app", "migrations", "alembic.ini", "requirements", "Makefile"):
        (folder / name).symlink_to(ROOT / name)
    # The packages that run this test, as if they had been installed here.
    (folder / ".venv" / "bin").mkdir(parents=True)
    for name in ("python", "pip"):
        (folder / ".venv" / "bin" / name).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
        (folder / ".venv" / "bin" / name).chmod(0o755)
    (folder / ".venv" / ".installed-embedded").touch()
    made = Checkout(folder, processes, free_port())
    yield made
    processes.end(patience=STOP)
    eventually(lambda: not made.living(), STOP, "nothing is left of the stack")


def password_of(output: str) -> str:
    found = re.search(r"Login +admin / (\S+) +\(shown only now", output)
    assert found, output
    return found[1]


def login(checkout: Checkout, password: str) -> dict[str, str]:
    form = {"username": "admin", "password": password}
    answer = httpx.post(f"{checkout.url}/api/v1/auth/login", data=form)
    assert answer.status_code == 200, answer.text
    assert answer.json()["token_type"] == "bearer"
    return {"Authorization": f"Bearer {answer.json()['access_token']}"}


def succeeded(checkout: Checkout, headers: Mapping[str, str]) -> list[str]:
    answer = httpx.get(f"{checkout.url}/api/v1/runs", headers=headers, params={"limit": 100})
    assert answer.status_code == 200, answer.text
    return [run["id"] for run in answer.json()["items"] if run["state"] == "succeeded"]


def test_the_first_start_the_demonstration_and_a_second_start(checkout: Checkout) -> None:
    first = checkout.started(("make", "up"))
    password = password_of(first.output())
    headers = login(checkout, password)
    assert httpx.get(f"{checkout.url}/docs").status_code == 200
    assert httpx.get(f"{checkout.url}/api/v1/runs").status_code == 401
    before = eventually(lambda: succeeded(checkout, headers), 40, "a run of the demonstration")
    files = [file for file in (checkout.folder / "logs").rglob("*") if file.is_file()]
    assert {file.name for file in files} >= {"api.log", "worker.log", "beat.log", "postgres.log"}
    assert not [file for file in files if password in file.read_text()]
    if shutil.which("curl"):
        commands = "\n".join(re.findall(r"^  (TOKEN=.*|curl .*)$", first.output(), re.MULTILINE))
        pasted = subprocess.run(["sh", "-c", commands], capture_output=True, text=True, check=True)
        assert '"succeeded"' in pasted.stdout

    first.signal_group(signal.SIGINT)
    first.wait(STOP)
    assert checkout.living() == []
    assert not (checkout.folder / ".upbeat" / "env").exists()

    second = checkout.started(("make", "up"))
    assert "the password shown at the first start" in second.output()
    headers = login(checkout, password)
    assert set(before) <= set(succeeded(checkout, headers))
    schedules = httpx.get(f"{checkout.url}/api/v1/scheduled-tasks", headers=headers).json()["items"]
    assert len(schedules) == 1


def test_a_given_administrator_and_processes_started_by_hand(checkout: Checkout) -> None:
    up = checkout.started(UPBEAT_ADMIN_USERNAME="admin", UPBEAT_ADMIN_PASSWORD="correct horse battery")
    assert "correct horse" not in up.output()
    login(checkout, "correct horse battery")
    env = checkout.folder / ".upbeat" / "env"
    assert env.stat().st_mode & 0o777 == 0o600
    inspect = checkout.processes.start(
        "inspect",
        (sys.executable, "-m", "celery", "-A", "app.worker", "inspect", "ping"),
        checkout.environment(),
        checkout.folder,
    )
    assert inspect.wait(60) == 0, inspect.output()
    assert "pong" in inspect.output()


def test_a_killed_service_is_restarted_and_the_terminal_says_so(checkout: Checkout) -> None:
    up = checkout.started()
    pid = int((checkout.folder / ".upbeat" / "run" / "beat.pid").read_text().split()[0])
    os.kill(pid, signal.SIGKILL)
    up.wait_for_output("beat was restarted", 20)


def test_a_taken_port_is_refused_with_another_to_use(checkout: Checkout) -> None:
    with socket.socket() as listener:
        listener.bind((LOOPBACK, checkout.port))
        listener.listen()
        said = checkout.refused()
    assert re.search(rf"Port {checkout.port} is taken .* UPBEAT_PORT=\d+ make up", said)
    assert checkout.living() == []


def test_a_second_start_beside_the_first_is_refused(checkout: Checkout) -> None:
    up = checkout.started()
    living = checkout.living()
    assert "already running in this folder" in checkout.refused()
    assert checkout.living() == living
    assert up.alive


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("DATABASE_URL", "postgresql://u:s3cret@127.0.0.1:1/d", "PostgreSQL at 127.0.0.1:1 (DATABASE_URL)"),
        ("REDIS_URL", "redis://:s3cret@127.0.0.1:1/0", "Redis at 127.0.0.1:1 (REDIS_URL)"),
        ("UPBEAT_PORT", "many", "port"),
        ("UPBEAT_ADMIN_PASSWORD", "short", "password: Must have"),
    ],
)
def test_what_cannot_work_is_said_at_once(
    checkout: Checkout, variable: str, value: str, message: str
) -> None:
    said = checkout.refused(**{variable: value})
    assert message in said
    assert "s3cret" not in said
    assert checkout.living() == []


@pytest.mark.parametrize("stage", ["Starting PostgreSQL", "Preparing", "Starting API"])
def test_ctrl_c_during_the_set_up_leaves_nothing(checkout: Checkout, stage: str) -> None:
    up = checkout.start()
    up.wait_for_output(stage, BOOT)
    up.signal_group(signal.SIGINT)
    up.wait(STOP)
    assert checkout.living() == []
    assert "Traceback" not in up.output()


def test_a_killed_front_process_takes_everything_with_it(checkout: Checkout) -> None:
    up = checkout.started()
    assert len(checkout.living()) >= 7
    up.signal_main(signal.SIGKILL)
    up.wait()
    eventually(lambda: not checkout.living(), STOP, "nothing is left of the stack")


def test_a_killed_make_takes_everything_with_it(checkout: Checkout) -> None:
    make = checkout.started(("make", "up"))
    make.signal_main(signal.SIGKILL)
    make.wait()
    eventually(lambda: not checkout.living(), STOP, "nothing is left of the stack")


def test_leftovers_of_a_killed_supervisor_are_ended_by_the_next_start(checkout: Checkout) -> None:
    up = checkout.started()
    worker = int((checkout.folder / ".upbeat" / "run" / "worker.pid").read_text().split()[0])
    os.kill(worker, signal.SIGSTOP)  # so that it cannot follow the others
    supervisor = int((checkout.folder / ".upbeat" / "run" / "supervisord.number").read_text())
    up.signal_main(signal.SIGKILL)
    os.kill(supervisor, signal.SIGKILL)
    up.wait()
    eventually(lambda: supervisor not in checkout.living(), 10)
    holds_throughout(lambda: worker in checkout.living(), 0.5)
    os.kill(worker, signal.SIGCONT)
    again = checkout.started()
    assert worker not in checkout.living()
    assert "Traceback" not in again.output()
