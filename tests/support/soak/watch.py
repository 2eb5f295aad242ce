"""Lateness, depth of the queues and memory of each process, over time."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path

import psutil
import psycopg
import redis

from app.scheduling.ids import id_at
from app.scheduling.messages import QUEUES
from support.soak.field import Field

# Ticks of this many seconds are looked at in each sample.
LOOK_BACK = 10.0
QUERY = """
SELECT extract(epoch FROM max(created_at - scheduled_for))::float8,
       extract(epoch FROM max(started_at - due_at))::float8,
       count(*) FILTER (WHERE state = 'queued')::int,
       count(*) FILTER (WHERE state = 'running')::int
FROM celery_task_runs WHERE id >= %s
"""


@dataclass(frozen=True, slots=True)
class Sample:
    """``at`` in seconds from the beginning, lateness in seconds, ``memory`` in MB by process; None is not known."""

    at: float
    lateness: float | None
    start_lateness: float | None
    queued: int | None
    running: int | None
    messages: int | None
    memory: dict[str, float]


@dataclass
class Watch:
    """Looks every ``every`` seconds, and keeps what it saw in ``file``, one JSON object a line."""

    subject: Field
    file: Path
    every: float = 2.0
    samples: list[Sample] = field(default_factory=list)

    @contextmanager
    def running(self) -> Iterator[None]:
        """In a thread, for the time of the context."""
        stop = threading.Event()
        thread = threading.Thread(target=self._run, args=(stop,), name="watch")
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(60)

    def _run(self, stop: threading.Event) -> None:
        began = time.monotonic()
        with self.file.open("w") as file:
            while not stop.wait(self.every):
                sample = self._look(time.monotonic() - began)
                self.samples.append(sample)
                file.write(json.dumps(asdict(sample)) + "\n")
                file.flush()

    def _look(self, at: float) -> Sample:
        row: tuple[float | None, float | None, int | None, int | None] = (None, None, None, None)
        messages = None
        with suppress(psycopg.Error), self.subject.database() as connection:
            now = connection.execute("SELECT pg_catalog.clock_timestamp()").fetchone()
            assert now is not None
            since = id_at(now[0] - timedelta(seconds=LOOK_BACK))
            row = connection.execute(QUERY, [since]).fetchone() or row
        with suppress(redis.RedisError, OSError), self.subject.broker() as client:
            messages = sum(client.llen(queue) for queue in QUEUES)
        return Sample(round(at, 2), *row, messages, self._memory())

    def _memory(self) -> dict[str, float]:
        """By name and process id, so that a replaced process is another one; children of pools too."""
        found: dict[str, float] = {}
        for member in list(self.subject.members):
            with suppress(psutil.Error):
                process = psutil.Process(member.process.pid)
                found[f"{member.name} {process.pid}"] = _megabytes(process)
                for child in process.children():
                    found[f"{member.name} child {child.pid}"] = _megabytes(child)
        return found


def _megabytes(process: psutil.Process) -> float:
    return round(float(process.memory_info().rss) / 2**20, 2)


def slope(points: list[tuple[float, float]]) -> float:
    """Least squares: how much the second value grows per unit of the first; 0 for fewer than two points."""
    count = len(points)
    if count < 2:
        return 0.0
    mean_x = sum(x for x, _ in points) / count
    mean_y = sum(y for _, y in points) / count
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0
