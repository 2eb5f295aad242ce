"""`make up` as a newcomer meets it: started in an empty folder, driven over HTTP, stopped, started again."""

import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import pytest

from app.cli.embedded import LOOPBACK
from support.checkout import BOOT, STOP, Checkout, new_checkout
from support.polling import eventually, holds_throughout
from support.processes import Processes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def checkout(tmp_path: Path, processes: Processes) -> Iterator[Checkout]:
    made = new_checkout(tmp_path, processes)
    yield made
    made.end()


def password_of(output: str) -> str:
    found = re.search(r"Login +admin / (\S+) +\(shown only now", output)
    assert found, output
    return found[1]


def succeeded(checkout: Checkout, headers: Mapping[str, str]) -> list[str]:
    answer = httpx.get(f"{checkout.url}/api/v1/runs", headers=headers, params={"limit": 100})
    assert answer.status_code == 200, answer.text
    return [run["id"] for run in answer.json()["items"] if run["state"] == "succeeded"]


def test_the_first_start_the_demonstration_a_second_start_and_a_killed_make(checkout: Checkout) -> None:
    first = checkout.started(("make", "up"))
    password = password_of(first.output())
    headers = checkout.login(password)
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
    headers = checkout.login(password)
    assert set(before) <= set(succeeded(checkout, headers))
    listing = f"{checkout.url}/api/v1/scheduled-tasks"
    declared = httpx.get(listing, params={"owner": "code"}, headers=headers).json()["items"]
    active = [each["task_path"] for each in declared if each["state"] != "disabled"]
    assert active == ["scheduled_task.cleanup_old_logs"]
    assert f"Declared schedules: {len(declared)} created." in first.output()
    assert "Declared schedules" not in second.output()
    schedules = httpx.get(listing, params={"owner": "people"}, headers=headers).json()["items"]
    assert len(schedules) == 1

    assert len(checkout.living()) >= 7
    second.signal_main(signal.SIGKILL)
    second.wait()
    eventually(lambda: not checkout.living(), STOP, "nothing is left of the stack")


def test_a_taken_port_is_refused_with_another_to_use(checkout: Checkout) -> None:
    with socket.socket() as listener:
        listener.bind((LOOPBACK, checkout.port))
        listener.listen()
        said = checkout.refused()
    assert re.search(rf"Port {checkout.port} is taken .* UPBEAT_PORT=\d+ make up", said)
    assert checkout.living() == []


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("DATABASE_URL", "postgresql://u:s3cret@127.0.0.1:1/d", "PostgreSQL at 127.0.0.1:1 (DATABASE_URL)"),
        ("REDIS_URL", "redis://:s3cret@127.0.0.1:1/0", "Redis at 127.0.0.1:1 (REDIS_URL)"),
        ("UPBEAT_PORT", "many", "UPBEAT_PORT: Input should be a valid integer"),
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


def test_a_killed_supervisor_and_a_killed_front_process(checkout: Checkout) -> None:
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

    again.signal_main(signal.SIGKILL)
    again.wait()
    eventually(lambda: not checkout.living(), STOP, "nothing is left of the stack")
