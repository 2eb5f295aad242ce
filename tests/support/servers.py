"""The test session's own PostgreSQL and Redis, and a migrated database for whoever asks.

Fresh for each session, on free ports, in a short temporary folder. ``UPBEAT_TEST_POSTGRES`` chooses
the major version (18, or 16).
"""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import psycopg
from psycopg import sql
from pydantic import SecretStr

from app.cli.embedded import Postgres, Redis, free_port, new_password, wait_until
from app.settings import BrokerSettings, DatabaseSettings, Settings

TEMPLATE = "upbeat_template"
REDIS_DATABASES = 1024
QUICK_OPTIONS = ("fsync=off", "full_page_writes=off", "shared_buffers=64MB", "log_min_messages=warning")
MEASURED_OPTIONS = ("shared_buffers=1GB", "max_wal_size=4GB", "log_min_messages=warning")


def settings_for(server_url: str, name: str, redis_url: str) -> Settings:
    """Settings of a process that uses this database and this broker."""
    return Settings(
        database=DatabaseSettings(DATABASE_URL=SecretStr(server_url), CELERY_DATABASE_NAME=name),
        broker=BrokerSettings(REDIS_URL=SecretStr(redis_url)),
    )


@dataclass(frozen=True, slots=True)
class Database:
    """A database of a test module's own; ``url`` is for psycopg and libpq tools."""

    name: str
    url: str


@dataclass
class Servers:
    """The two servers, and the numbering of what the tests took from them."""

    postgres: Postgres
    redis: Redis
    folder: Path
    _processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))
    _migrated: bool = False

    def start_postgres(self) -> None:
        self._start("postgres", self.postgres.command())
        self._await("postgres", self.postgres.answers)

    def start_redis(self) -> None:
        self._start("redis", self.redis.command())
        self._await("redis", self.redis.answers)

    def stop(self, name: str, number: signal.Signals | None = None) -> None:
        """End ``postgres`` or ``redis``, by default as a crash does.

        SIGQUIT is PostgreSQL's immediate stop (a crash that leaves no shared memory behind), SIGINT
        its fast one. Redis has no handler for it, and what a shell runs in its background ignores it.
        """
        process = self._processes.pop(name)
        process.send_signal(number or (signal.SIGQUIT if name == "postgres" else signal.SIGKILL))
        process.wait(30)

    def alive(self, name: str) -> bool:
        """Whether ``postgres`` or ``redis`` has not ended by itself."""
        return self._processes[name].poll() is None

    def is_running(self, name: str) -> bool:
        """Whether it is there, neither ended by us nor by itself."""
        return name in self._processes and self.alive(name)

    def pid(self, name: str) -> int:
        return self._processes[name].pid

    def new_database(self, *, migrated: bool = True) -> str:
        """The name of a database made now: a copy of the migrated template, or one that is empty."""
        name = f"upbeat_{next(self._numbers)}"
        if not migrated:
            self.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
            return name
        if not self._migrated:
            # Here, not above: unit tests need no migrations to import this.
            from app.db.migrate import upgrade

            upgrade(settings_for(self.postgres.url, TEMPLATE, self.redis.url))
            self._migrated = True
        self.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy").format(
                sql.Identifier(name), sql.Identifier(TEMPLATE)
            )
        )
        return name

    def drop_database(self, name: str) -> None:
        self.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def new_redis_url(self) -> str:
        """The address of a Redis database that nobody used before."""
        number = next(self._numbers) % REDIS_DATABASES
        return f"{self.redis.url.rpartition('/')[0]}/{number}"

    def execute(self, statement: sql.SQL | sql.Composed, database: str = "postgres") -> None:
        with psycopg.connect(self.database_url(database), autocommit=True) as connection:
            connection.execute(statement)

    def database_url(self, name: str) -> str:
        return f"{self.postgres.url.rpartition('/')[0]}/{name}"

    def _start(self, name: str, command: list[str]) -> None:
        with (self.folder / f"{name}.log").open("ab") as output:
            self._processes[name] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )

    def _await(self, name: str, answers: Callable[[], bool]) -> None:
        if not wait_until(answers, lambda: self._processes[name].poll() is None):
            raise RuntimeError(f"{name} did not start:\n{(self.folder / f'{name}.log').read_text()[-3000:]}")


@contextmanager
def running_servers(
    *, quick: bool = True, folder: Path | None = None, options: tuple[str, ...] = ()
) -> Iterator[Servers]:
    """Fresh servers for the time of the context; their data, in ``folder`` or a temporary one, goes with them.

    ``quick`` gives up durability; measurements must not. ``options`` are more settings of PostgreSQL.
    """
    # Whoever is asked to stop, by a time limit for example, ends what it started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = folder or Path(tempfile.mkdtemp(prefix="upbeat-test-"))
    folder.mkdir(exist_ok=True)
    major = int(os.environ.get("UPBEAT_TEST_POSTGRES", "18"))
    postgres = Postgres(
        folder / "postgres",
        free_port(),
        new_password(),
        major,
        (QUICK_OPTIONS if quick else MEASURED_OPTIONS) + options,
    )
    redis = Redis(folder / "redis", free_port(), new_password(), durable=False, databases=REDIS_DATABASES)
    servers = Servers(postgres, redis, folder)
    try:
        postgres.initialise(quick=True)
        redis.initialise()
        servers.start_postgres()
        servers.start_redis()
        yield servers
    finally:
        for name in list(servers._processes):
            # A process started in a shell's background inherits that SIGQUIT is ignored, and Redis leaves it so.
            servers.stop(name, signal.SIGQUIT if name == "postgres" else signal.SIGTERM)
        shutil.rmtree(folder, ignore_errors=True)
