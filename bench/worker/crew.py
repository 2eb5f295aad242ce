"""Workers of ours and of bare Celery, and how a batch of messages is worked off by one of them.

Messages are staged in a queue that nobody consumes, while the worker stands ready. Then the queue is renamed, which
wakes the worker as a push does, and the clock runs until the last outcome is recorded.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import redis
from celery import Celery
from sqlalchemy import text

from app.db import sync_engine, sync_sessions
from app.scheduling.ids import new_id
from app.scheduling.messages import Kind, RunMessage
from app.worker.publisher import CeleryPublisher
from bench.chores import places
from bench.contestants import PEER_PYTHON, ROOT, Ended, process_clock
from support.processes import Process, Processes
from support.servers import Servers, settings_for
from support.stack import stack_environment

BOOT = 40.0
POLL = 0.005
INSERT = text("""
INSERT INTO celery_task_runs
    (id, state, origin, task, queue, due_at, next_dispatch_at, dispatches, args, kwargs, options)
SELECT u.id, 'queued', 'code', :task, 'celery', clock_timestamp(), clock_timestamp() + interval '2 hours', 1,
       jsonb_build_array(u.n - 1), '{}', '{}'
FROM unnest(CAST(:ids AS uuid[])) WITH ORDINALITY AS u (id, n)
""")
STAGE = "import sys; from bench.chores import stock; stock.stage(sys.argv[1], int(sys.argv[2]))"
OPEN = "SELECT count(*) FROM celery_task_runs WHERE state <> 'succeeded'"
STORED = "SELECT count(*) FROM celery_taskmeta WHERE status = 'SUCCESS'"


@dataclass
class Crew:
    """One worker, ready; ``stage`` makes messages wait, ``missing`` counts the outcomes that are not recorded."""

    name: str
    process: Process
    broker: Any
    stage: Callable[[str, int], None]
    missing: Callable[[int], int]
    servers: Servers
    cpu: dict[str, int] = field(default_factory=dict)
    _total: int = 0

    def rate(self, task: str, count: int, patience: float = 150.0) -> float:
        """Tasks a second of ``count`` messages, from the first to the last outcome.

        ``cpu`` has the microseconds of processor time that each of them took, by who took it.

        Raises:
            Ended: they were not worked off in time.
        """
        self.stage(task, count)
        self._total += count
        before = self._cpu()
        began = time.perf_counter()
        self.broker.rename(places.STAGED, places.QUEUE)
        while self.broker.llen(places.QUEUE) or self.missing(self._total):
            if not self.process.alive or time.perf_counter() > began + patience:
                raise Ended(
                    f"{self.name}: {self.missing(self._total)} missing\n{self.process.output()[-2000:]}"
                )
            time.sleep(POLL)
        elapsed = time.perf_counter() - began
        self.cpu = {key: round(1e6 * (spent - before[key]) / count) for key, spent in self._cpu().items()}
        return count / elapsed

    def members(self) -> list[int]:
        """Ids of the worker's processes; its main process first."""
        return sorted(self.process.members(), key=lambda pid: (pid != self.process.pid, pid))

    def resident(self) -> float:
        """MB of all its processes that nobody else has."""
        return sum(_private(pid) for pid in self.members())

    def _cpu(self) -> dict[str, float]:
        main, *children = self.members()
        return {
            "main": time.clock_gettime(process_clock(main)),
            "children": sum(time.clock_gettime(process_clock(child)) for child in children),
            "database": sum(
                time.clock_gettime(process_clock(pid)) for pid in _children(self.servers.pid("postgres"))
            ),
            "redis": time.clock_gettime(process_clock(self.servers.pid("redis"))),
        }


def _children(parent: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(stat.parent.name))
    return found


def _private(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


@contextmanager
def ours(servers: Servers, folder: Path, *options: str, **environment: str) -> Iterator[Crew]:
    """`celery -A app.worker worker` on a database and a broker of its own."""
    database, broker = servers.new_database(), servers.new_redis_url()
    settings = settings_for(servers.postgres.url, database, broker)
    variables = stack_environment(servers.postgres.url, database, broker, folder / "ledger")
    variables |= {"UPBEAT_TASK_MODULES": "bench.chores.tasks", **environment}
    engine = sync_engine(settings.database, name="bench")
    sessions = sync_sessions(engine)
    publisher = CeleryPublisher(Celery("bench", broker=broker, set_as_current=False))
    look = psycopg.connect(servers.database_url(database), autocommit=True)

    def stage(task: str, count: int) -> None:
        ids = [new_id() for _ in range(count)]
        with sessions.begin() as session:
            session.execute(INSERT, {"task": task, "ids": ids})
        look.execute("VACUUM ANALYZE celery_task_runs")
        publisher.publish([RunMessage(run_id, Kind(task, places.STAGED)) for run_id in ids])

    def missing(_: int) -> int:
        return _number(look, OPEN)

    with _crew("upbeat", folder, variables, options) as process:
        yield Crew("upbeat", process, redis.Redis.from_url(broker), stage, missing, servers)
    publisher.close()
    look.close()
    engine.dispose()


@contextmanager
def stock(name: str, servers: Servers, folder: Path, *options: str) -> Iterator[Crew]:
    """Bare Celery; ``name`` says which result backend, on servers that ours has too."""
    broker = servers.new_redis_url()
    client: Any = redis.Redis.from_url(broker)
    database = servers.new_database(migrated=False)
    backends = {
        "celery-redis-backend": broker,
        "celery-database-backend": "db+"
        + servers.database_url(database).replace("postgresql:", "postgresql+psycopg:"),
    }
    backend = backends.get(name, "")
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("UPBEAT_", "CELERY_"))}
    variables = inherited | {"BENCH_BROKER": broker, "BENCH_BACKEND": backend, "PYTHONPATH": str(ROOT)}
    variables["TMPDIR"] = str(folder)
    look = psycopg.connect(servers.database_url(database), autocommit=True)

    def stage(task: str, count: int) -> None:
        command = [str(PEER_PYTHON), "-W", "ignore", "-c", STAGE, task, str(count)]
        subprocess.run(command, check=True, env=variables, cwd=ROOT)

    def missing(total: int) -> int:
        if backend == broker:
            return total - sum(1 for _ in client.scan_iter("celery-task-meta-*", count=10_000))
        return total - _number(look, STORED) if backend else 0

    with _crew(name, folder, variables, options) as process:
        yield Crew(name, process, client, stage, missing, servers)
    look.close()


@contextmanager
def _crew(name: str, folder: Path, variables: dict[str, str], options: tuple[str, ...]) -> Iterator[Process]:
    processes = Processes(folder)
    python, app = (
        (sys.executable, "app.worker") if name == "upbeat" else (str(PEER_PYTHON), "bench.chores.stock")
    )
    try:
        command = [
            python,
            "-W",
            "ignore",
            "-m",
            "celery",
            "-A",
            app,
            "worker",
            "-n",
            f"{name}@bench",
            "-Q",
            places.QUEUE,
        ]
        process = processes.start(name, [*command, "-l", "WARNING", *options], variables)
        yield process
    finally:
        processes.end()


def _number(connection: "psycopg.Connection[Any]", statement: str) -> int:
    found = connection.execute(statement).fetchone()
    return 0 if found is None else int(found[0])
