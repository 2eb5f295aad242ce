"""Logs of real processes: one form in API, worker and beat, each line with its run, schedule and request; rotation."""

import json
import sys
from itertools import dropwhile
from pathlib import Path
from typing import Any

import pytest

from app.cli.logfiles import last_lines
from app.cli.supervision import LOGS, Control, Program, render, start_supervisor
from app.settings import LogSettings, Settings
from support.api import client_of
from support.polling import eventually
from support.processes import Process
from support.stack import Stack

pytestmark = pytest.mark.slow

JSON = {"UPBEAT_LOG_FORMAT": "json", "UPBEAT_TASK_MODULES": "support.talkative"}
CHATTY = "import itertools; [print(f'line {n:06d}', 'x' * 80, flush=True) for n in itertools.count()]"
SMALL = 65_536


def lines(process: Process) -> list[dict[str, Any]]:
    """What it wrote: all of it in JSON, once its log is set up; a last line that is not whole yet is left out."""
    whole, _, _ = process.output().rpartition("\n")
    return [json.loads(line) for line in dropwhile(lambda line: line[:1] != "{", whole.splitlines())]


def about(process: Process, **fields: str) -> list[dict[str, Any]]:
    return [line for line in lines(process) if fields.items() <= line.items()]


def test_a_run_can_be_followed_from_its_request_to_its_worker(
    shared_stack: Stack, settings: Settings
) -> None:
    worker, beat = (start(env=JSON, wait=False) for start in (shared_stack.worker, shared_stack.beat))
    api = shared_stack.api(env=JSON)
    with client_of(api.url, settings) as client:
        body = {"task_name": "talk", "task_path": "talkative.everything", "task_crontab_minute": "0"}
        schedule = client.post("/api/v1/scheduled-tasks", json=body).json()
        asked = client.post(
            f"/api/v1/scheduled-tasks/{schedule['id']}/run", headers={"X-Request-ID": "the-request"}
        )
        run = asked.json()

    def told() -> list[dict[str, Any]]:
        return about(worker, run_id=run["id"], schedule_id=schedule["id"])

    eventually(lambda: len(told()) > 3, 40, "lines of the run in the worker's log")
    (request,) = about(api.process, request_id="the-request", action="request")
    assert (request["run_id"], request["schedule_id"], request["user"]) == (
        run["id"],
        schedule["id"],
        "admin",
    )
    assert {(line["attempt"], line["request_id"]) for line in told()} == {(1, "the-request")}
    assert "printed" in {line["message"] for line in told() if line["logger"] == "stdout"}
    beat.wait_for_output("beat: Starting")
    for process in (worker, beat, api.process):
        for line in lines(process):
            assert list(line)[:5] == ["time", "level", "logger", "message", "pid"], line


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    LOGS.mkdir()
    return tmp_path


def test_a_daemon_s_log_is_rotated_and_stays_bounded(folder: Path) -> None:
    """By the real supervisor, with the configuration of `upbeat start`."""
    log = LOGS / "chatty.log"
    control = Control(folder / "s")
    programs = [Program("chatty", 1, (sys.executable, "-c", CHATTY), log)]
    config = folder / "supervisord.conf"
    config.write_text(render(programs, folder, folder / "s", LogSettings(file_bytes=SMALL, file_backups=2)))
    supervisor = start_supervisor(config, {})
    try:
        eventually(control.answers, 20, "the supervisor")
        control.start("chatty")
        eventually(lambda: log.with_name("chatty.log.2").exists(), 20, "the second rotation")
        control.stop("chatty")
        eventually(lambda: control.statuses()["chatty"].pid == 0, 20, "the end of the program")
    finally:
        supervisor.terminate()
        supervisor.wait(20)
    files = sorted(file.name for file in LOGS.glob("chatty.log*"))
    assert files == ["chatty.log", "chatty.log.1", "chatty.log.2"]
    assert all((LOGS / name).stat().st_size < 2 * SMALL for name in files)
    # Lines that have just been moved away are shown as well, and none is missing between them.
    shown = [int(line.split()[1]) for line in last_lines(log, 500) if line.startswith("line")]
    assert len(shown) == 500
    assert shown == list(range(shown[0], shown[0] + 500))
