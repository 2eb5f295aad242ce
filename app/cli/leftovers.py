"""Processes of this folder that outlived their supervisor: found by what they carry, ended by id.

Every process of the stack has the folder in its environment; PostgreSQL and Redis overwrite theirs
and are known by the id and start time that launch.py noted.
"""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from app.cli.launch import start_time

MARKER = "UPBEAT_STACK"


def leftovers(state_folder: Path) -> list[int]:
    """Ids of the living processes that were started for this folder, without this one."""
    marker = f"{MARKER}={state_folder}".encode()
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if marker in (entry / "environ").read_bytes().split(b"\0") and start_time(int(entry.name)):
                found.add(int(entry.name))
    for file in (state_folder / "run").glob("*.pid"):
        with suppress(OSError, ValueError):
            pid, started = file.read_text().split()
            if start_time(int(pid)) == started:
                found.add(int(pid))
    return sorted(found - {os.getpid()})


def end_leftovers(state_folder: Path, patience: float = 10.0) -> list[int]:
    """Ask them to stop, kill what is left after ``patience`` seconds; the ids that there were.

    SIGINT is PostgreSQL's fast stop, and ends the others as SIGTERM does.
    """
    first = leftovers(state_folder)
    for pid in first:
        _send(pid, signal.SIGINT)
    if not _gone(state_folder, patience):
        for pid in leftovers(state_folder):
            _send(pid, signal.SIGKILL)
        _gone(state_folder, 5.0)
    return first


def _gone(state_folder: Path, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while leftovers(state_folder):
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def _send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
