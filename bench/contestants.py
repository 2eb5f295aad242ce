"""The harness's side of a beat: its environment, its own databases, and its process."""

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis

from support.servers import Servers

ROOT = Path(__file__).resolve().parents[1]
PEER_PYTHON = ROOT / ".venv-bench" / "bin" / "python"
QUEUE = "celery"
OURS = "upbeat"
PEERS = {
    "celery-beat": "celery_beat",
    "django-celery-beat": "django_beat",
    "sqlalchemy-celery-beat": "sqlalchemy_beat",
    "redbeat": "redbeat_beat",
}


def process_clock(pid: int) -> int:
    """The clock of another process's processor time, as clock_getcpuclockid(3) makes it from its id."""
    return (~pid << 3) | 2


class Ended(Exception):
    """A contestant's process ended, or did not answer in time."""


@dataclass
class Beat:
    """A contestant's process and what it says."""

    process: subprocess.Popen[str]
    _said: "queue.Queue[dict[str, Any] | None]" = field(default_factory=queue.Queue)

    def __post_init__(self) -> None:
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def pid(self) -> int:
        return self.process.pid

    def expect(self, event: str, patience: float) -> dict[str, Any]:
        """The next line, which must be ``event``."""
        try:
            said = self._said.get(timeout=patience)
        except queue.Empty:
            raise Ended(f"no {event!r} within {patience:g} s") from None
        if said is None or said["event"] != event:
            raise Ended(f"{said or 'the end'} instead of {event!r}")
        return said

    def tell(self, line: str) -> None:
        """Write to its stdin."""
        if self.process.stdin is not None:
            self.process.stdin.write(f"{line}\n")
            self.process.stdin.flush()

    def memory(self) -> dict[str, float]:
        """Resident and proportional size, MB."""
        lines = Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines()
        sizes = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines if line.endswith(" kB")}
        return {"rss": sizes["Rss"], "pss": sizes["Pss"]}

    def cpu(self) -> float:
        """Seconds of processor time so far."""
        return time.clock_gettime(process_clock(self.pid))

    def end(self) -> None:
        self.process.kill()
        self.process.wait()

    def _listen(self) -> None:
        for line in self.process.stdout or ():
            if line.startswith("{"):
                self._said.put(json.loads(line))
        self._said.put(None)


@dataclass
class Contestant:
    """One product with one set of schedules: its databases stay until the size is done."""

    name: str
    environment: dict[str, str]
    broker: redis.Redis
    startup: float = 1.0
    arming: float = 1.0

    def call(self, *verb: object, patience: float = 900.0) -> None:
        """Run a verb of `bench.beats` to its end."""
        subprocess.run(
            self._command(*verb),
            check=True,
            env=self.environment,
            cwd=ROOT,
            timeout=patience,
            stdout=subprocess.DEVNULL,
        )

    @contextmanager
    def running(self, verb: str = "run") -> Iterator[Beat]:
        """A process that goes on until the context ends; its log goes to the contestant's folder."""
        with (Path(self.environment["BENCH_FOLDER"]) / f"{verb}.log").open("a") as log:
            beat = Beat(
                subprocess.Popen(
                    self._command(verb),
                    env=self.environment,
                    cwd=ROOT,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                )
            )
        try:
            yield beat
        finally:
            beat.end()

    def sent(self) -> int:
        """How many messages wait in its queue."""
        return int(self.broker.llen(QUEUE))

    def forget_sent(self) -> None:
        self.broker.delete(QUEUE)

    def arm(self, due: int, at: float) -> None:
        """Empty the queue, and make ``due`` schedules due at ``at``."""
        began = time.monotonic()
        self.forget_sent()
        self.call("arm", due, at)
        self.arming = time.monotonic() - began

    def log(self, characters: int = 2000) -> str:
        """The end of what its processes wrote to stderr."""
        logs = sorted(Path(self.environment["BENCH_FOLDER"]).glob("*.log"))
        return "\n".join(log.read_text()[-characters:] for log in logs)

    def _command(self, *verb: object) -> list[str]:
        ours = self.name == OURS
        module = "ours" if ours else PEERS[self.name]
        python = sys.executable if ours else str(PEER_PYTHON)
        return [python, "-W", "ignore", "-m", "bench.beats", module, *map(str, verb)]


@contextmanager
def contestant(name: str, servers: Servers, size: int) -> Iterator[Contestant]:
    """A contestant filled with ``size`` schedules."""
    database, broker = servers.new_database(migrated=name == OURS), servers.new_redis_url()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("UPBEAT_", "CELERY_"))} | {
            "BENCH_DATABASE": servers.database_url(database),
            "BENCH_BROKER": broker,
            "BENCH_FOLDER": folder,
            "TMPDIR": folder,
            "DATABASE_URL": servers.postgres.url,
            "CELERY_DATABASE_NAME": database,
            "REDIS_URL": broker,
            "UPBEAT_TASK_MODULES": "bench.beats.tasks",
            # Nobody works the queues off, so nothing is sent again while we measure.
            "UPBEAT_BEAT_REDISPATCH_DELAY": "7200",
        }
        made = Contestant(name, environment, redis.Redis.from_url(broker))
        try:
            made.call("fill", size)
            yield made
        finally:
            made.broker.flushdb()
            made.broker.close()
            servers.drop_database(database)


def arrivals(watched: Contestant, expected: int, since: float, patience: float) -> list[tuple[float, int]]:
    """How the queue grew: (seconds after ``since``, messages), until all arrived or ``patience`` is over."""
    curve: list[tuple[float, int]] = []
    seen = 0
    while seen < expected and time.time() < since + patience:
        count = watched.sent()
        if count > seen:
            curve.append((time.time() - since, count - seen))
            seen = count
        time.sleep(0.001)
    return curve


__all__ = ["OURS", "PEERS", "QUEUE", "Beat", "Contestant", "Ended", "arrivals", "contestant", "process_clock"]
