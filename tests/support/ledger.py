"""An append-only ledger that test tasks write themselves, independent of the product's tables.

One JSON line per start and per end of a task body. A line is one O_APPEND write below the pipe
buffer's size, so many processes share the file without a lock, and a killed one leaves whole lines.
"""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

PATH_VARIABLE = "LEDGER_PATH"


@dataclass(frozen=True, slots=True)
class Entry:
    """``kind`` is start or end; ``monotonic`` and ``wall`` are seconds."""

    kind: str
    run: str
    attempt: int
    task: str
    pid: int
    monotonic: float
    wall: float
    schedule: str | None = None
    scheduled_for: str | None = None
    note: str | None = None


def write(kind: str, request: Any, note: str | None = None) -> None:
    """Append one entry about the run whose Celery request is given."""
    entry = Entry(
        kind=kind,
        run=str(request.id),
        attempt=(request.retries or 0) + 1,
        task=str(request.task),
        pid=os.getpid(),
        monotonic=time.monotonic(),
        wall=time.time(),
        schedule=_text(getattr(request, "schedule_id", None)),
        scheduled_for=_text(getattr(request, "scheduled_for", None)),
        note=note,
    )
    line = json.dumps(asdict(entry)).encode() + b"\n"
    file = os.open(os.environ[PATH_VARIABLE], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, line)
    finally:
        os.close(file)


@contextmanager
def recorded(request: Any, note: str | None = None) -> Iterator[None]:
    """Write a start, and an end when the body was not torn down before it."""
    write("start", request, note)
    try:
        yield
    except BaseException as error:
        write("end", request, type(error).__name__)
        raise
    write("end", request, note)


def _text(value: object) -> str | None:
    return None if value is None else str(value)


@dataclass(frozen=True, slots=True)
class Ledger:
    """The reader."""

    path: Path

    def entries(self) -> list[Entry]:
        if not self.path.exists():
            return []
        return [Entry(**json.loads(line)) for line in self.path.read_text().splitlines()]

    def starts(self) -> list[Entry]:
        return [entry for entry in self.entries() if entry.kind == "start"]

    def ends(self) -> list[Entry]:
        return [entry for entry in self.entries() if entry.kind == "end"]
