"""The doctor names the cause of each of these breakdowns, and its remedy. Real processes are missing, frozen or astray."""

import json
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import kombu.pools
import psycopg
import pytest
import redis

from app.cli.doctor import Finding, Verdict, examine, exit_status
from app.cli.embedded import free_port
from app.settings import get_settings
from app.worker import celery_app
from support.polling import eventually
from support.processes import Process
from support.servers import Database, Servers
from support.stack import Api, Stack

PATIENCE = 1.5
QUEUES = ("system", "priority_high", "priority_low", "celery")


@dataclass
class Clinic:
    """Examines one installation; what a test says of its environment replaces what is so."""

    environment: dict[str, str]
    lock: Path

    def examine(self, *, canary: bool = False, lock: Path | None = None, **environment: str) -> "Diagnosis":
        return self.examine_in(environment, canary=canary, lock=lock)

    def examine_in(
        self, environment: Mapping[str, str], *, canary: bool = False, lock: Path | None = None
    ) -> "Diagnosis":
        with _environment({**self.environment, **environment}), ThreadPoolExecutor(1) as aside:
            found = aside.submit(
                lambda: list(examine(canary=canary, patience=PATIENCE, lock=lock or self.lock))
            ).result()
        return Diagnosis({each.check: each for each in found})

    def failing(
        self, check: str, deadline: float, environment: Mapping[str, str] | None = None
    ) -> "Diagnosis":
        """What it says when this check has come to fail."""

        def look() -> Diagnosis | None:
            found = self.examine_in(environment or {})
            return found if check in found.failed() else None

        return eventually(look, deadline, f"{check} fails") or self.examine()


@dataclass
class Diagnosis:
    found: dict[str, Finding]

    def failed(self) -> set[str]:
        return {check for check, each in self.found.items() if each.verdict is Verdict.FAIL}

    def says(self, check: str, *words: str, verdict: Verdict = Verdict.FAIL) -> Finding:
        each = self.found[check]
        assert each.verdict is verdict, each
        for word in words:
            assert word in f"{each.found} -> {each.remedy}", each
        return each


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """This process's settings and Celery's application, pointed at another installation."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setenv(name, value)
        get_settings.cache_clear()
        patch.setattr(celery_app.conf, "broker_url", values["REDIS_URL"])
        _drop_connections()
        yield
    get_settings.cache_clear()
    _drop_connections()


def _drop_connections() -> None:
    kombu.pools.reset()
    celery_app._pool = None
    celery_app.amqp._producer_pool = None


@pytest.fixture(scope="module")
def lock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lock that this environment keeps to."""
    file = tmp_path_factory.mktemp("lock") / "server.txt"
    file.write_text(f"celery=={celery_app_version()} \\\n    --hash=sha256:00\n")
    return file


def celery_app_version() -> str:
    from importlib.metadata import version

    return version("celery")


@pytest.fixture(scope="module")
def processes(shared_stack: Stack) -> dict[str, Any]:
    """A stack that is whole."""
    quick = {"UPBEAT_BEAT_MAX_SLEEP": "0.3", "UPBEAT_READY_BEAT_AGE": "2"}
    worker = shared_stack.worker(wait=False)
    beat = shared_stack.beat(env=quick, wait=False)
    api = shared_stack.api(env=quick)
    worker.wait_for_output(" ready.", 40)
    return {"worker": worker, "beat": beat, "api": api}


@pytest.fixture(scope="module")
def clinic(shared_stack: Stack, processes: dict[str, Any], lock: Path) -> Clinic:
    api: Api = processes["api"]
    return Clinic(
        {
            "DATABASE_URL": shared_stack.environment["DATABASE_URL"],
            "CELERY_DATABASE_NAME": shared_stack.environment["CELERY_DATABASE_NAME"],
            "REDIS_URL": shared_stack.environment["REDIS_URL"],
            "UPBEAT_PORT": api.url.rpartition(":")[2],
            "UPBEAT_READY_BEAT_AGE": "60",
        },
        lock,
    )


@pytest.fixture(scope="module")
def other(servers: Servers) -> Iterator[Database]:
    """A second, migrated database, where nothing runs."""
    name = servers.new_database()
    yield Database(name, servers.database_url(name))
    servers.drop_database(name)


@contextmanager
def configured(url: str, **values: str) -> Iterator[None]:
    """Redis with other settings for a while."""
    with redis.Redis.from_url(url, decode_responses=True) as client:
        before = {key: client.config_get(key)[key] for key in values}
        for key, value in values.items():
            client.config_set(key, value)
        try:
            yield
        finally:
            for key, value in before.items():
                client.config_set(key, value)


@contextmanager
def frozen(process: Process) -> Iterator[None]:
    process.freeze()
    try:
        yield
    finally:
        process.thaw()


def rows(database: Database, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(database.url, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def test_a_whole_installation_is_well_and_the_canaries_leave_only_their_runs(
    clinic: Clinic, database: Database
) -> None:
    found = clinic.examine(canary=True)
    assert found.failed() == set()
    assert exit_status(found.found.values()) == 0
    for queue in QUEUES:
        found.says(f"worker of {queue}", "1 worker takes from it", verdict=Verdict.OK)
        found.says(f"canary to {queue}", "in all", "ran and was recorded", verdict=Verdict.OK)
    found.says("canary through beat", "beat fired it", verdict=Verdict.OK)
    assert rows(database, "SELECT count(*) FROM celery_periodic_task_configs") == [(0,)]
    assert rows(database, "SELECT state, count(*) FROM celery_task_runs GROUP BY state") == [("succeeded", 5)]


def test_a_package_of_another_version(clinic: Clinic, tmp_path: Path) -> None:
    wrong = tmp_path / "server.txt"
    wrong.write_text("celery==4.0.0 \\\n    --hash=sha256:00\n")
    clinic.examine(lock=wrong).says("packages", "locked 4.0.0", "pip install", verdict=Verdict.WARN)


def test_a_package_that_is_missing(clinic: Clinic, tmp_path: Path) -> None:
    wrong = tmp_path / "server.txt"
    wrong.write_text("a-package-that-nobody-has==1.0\n")
    clinic.examine(lock=wrong).says("packages", "missing: a-package-that-nobody-has", "pip install")


def test_a_variable_that_cannot_be_used(clinic: Clinic) -> None:
    found = clinic.examine(UPBEAT_PORT="many")
    found.says("settings", "UPBEAT_PORT: ", "Correct the variable")
    assert found.failed() == {"settings"}


def test_a_module_with_tasks_that_is_not_there(shared_stack: Stack) -> None:
    command = [sys.executable, "-m", "app.cli", "doctor", "--json"]
    environment = {**shared_stack.environment, "UPBEAT_TASK_MODULES": "nowhere"}
    doctor = shared_stack.processes.start("doctor", command, environment)
    assert doctor.wait(60) == 3, doctor.output()
    found = Diagnosis(
        {
            each["check"]: Finding(**{**each, "verdict": Verdict(each["verdict"])})
            for each in json.loads(doctor.output())
        }
    )
    found.says("tasks", "UPBEAT_TASK_MODULES names nowhere", "Mend the module")
    found.says("canary", "tasks that can be loaded", verdict=Verdict.SKIPPED)


def test_postgresql_that_does_not_listen(clinic: Clinic) -> None:
    found = clinic.examine(DATABASE_URL="postgresql://u:s3cret@127.0.0.1:1/postgres", canary=True)
    found.says("postgresql", "127.0.0.1:1", "refused", "Start it")
    assert found.failed() == {"postgresql"}
    assert "s3cret" not in str(found)


def test_a_wrong_password_of_postgresql(clinic: Clinic) -> None:
    user, _, place = clinic.environment["DATABASE_URL"].partition("://")[2].partition(":")
    url = f"postgresql://{user}:wrong@{place.partition('@')[2]}"
    found = clinic.examine(DATABASE_URL=url)
    found.says("postgresql", "password authentication failed", "Correct user and password in DATABASE_URL")


def test_a_database_that_was_never_made(clinic: Clinic) -> None:
    found = clinic.examine(CELERY_DATABASE_NAME="nobody_made_me")
    found.says("postgresql", "nobody_made_me", "does not exist", "upbeat migrate")


def test_a_database_without_tables(clinic: Clinic, servers: Servers) -> None:
    found = clinic.examine(CELERY_DATABASE_NAME=servers.new_database(migrated=False))
    found.says("migrations", "at revision none", "upbeat migrate")
    assert found.failed() == {"migrations"}


def test_a_database_of_an_older_release(clinic: Clinic, servers: Servers) -> None:
    name = servers.new_database()
    rows(Database(name, servers.database_url(name)), "UPDATE alembic_version SET version_num = '0001'")
    clinic.examine(CELERY_DATABASE_NAME=name).says("migrations", "at revision 0001", "upbeat migrate")


def test_a_database_that_takes_no_writes(clinic: Clinic, servers: Servers, other: Database) -> None:
    rows(other, f"ALTER DATABASE {other.name} SET default_transaction_read_only = on")
    try:
        found = clinic.examine(CELERY_DATABASE_NAME=other.name)
    finally:
        with psycopg.connect(servers.postgres.url, autocommit=True) as connection:
            connection.execute(f"ALTER DATABASE {other.name} RESET default_transaction_read_only".encode())
    found.says("writable", "read-only", "primary")


def test_redis_that_does_not_listen(clinic: Clinic) -> None:
    found = clinic.examine(REDIS_URL="redis://:s3cret@127.0.0.1:1/0", canary=True)
    found.says("redis", "127.0.0.1:1", "Start it")
    found.says("canary", "needs PostgreSQL and Redis", verdict=Verdict.SKIPPED)
    assert found.failed() == {"redis"}
    assert "s3cret" not in str(found)


def test_a_wrong_password_of_redis(clinic: Clinic) -> None:
    url = f"redis://:wrong@{clinic.environment['REDIS_URL'].rpartition('@')[2]}"
    clinic.examine(REDIS_URL=url).says("redis", "refuses the password", "REDIS_URL")


def test_redis_that_may_evict_queues(clinic: Clinic) -> None:
    with configured(clinic.environment["REDIS_URL"], **{"maxmemory-policy": "allkeys-lru"}):
        found = clinic.examine()
    found.says("redis eviction", "allkeys-lru", "noeviction")
    assert found.failed() == {"redis eviction"}


def test_redis_without_persistence(clinic: Clinic) -> None:
    clinic.examine().says("redis persistence", "forgets its queues", "appendonly", verdict=Verdict.WARN)


def test_a_redis_that_is_full(clinic: Clinic) -> None:
    with configured(clinic.environment["REDIS_URL"], maxmemory="1mb"):
        found = clinic.examine(canary=True)
    found.says("redis memory", "MB are used", "maxmemory")
    found.says("canary to celery", "hop broker", "did not take the wake-up", "maxmemory")


def test_an_api_that_is_not_there(clinic: Clinic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    elsewhere = str(free_port())
    clinic.examine(UPBEAT_PORT=elsewhere).says("api", "nothing listens", "upbeat start api")
    here = f"http://127.0.0.1:{clinic.environment['UPBEAT_PORT']}"
    found = clinic.examine(UPBEAT_PORT=elsewhere, UPBEAT_URL=here)
    found.says("api", f"{here} is ready", verdict=Verdict.OK)


def test_another_program_at_the_port(clinic: Clinic) -> None:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            """Nothing."""

    with HTTPServer(("127.0.0.1", 0), Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        found = clinic.examine(UPBEAT_PORT=str(server.server_address[1]))
        server.shutdown()
        thread.join()
    found.says("api", "another program answers", "UPBEAT_PORT")


def test_nothing_runs_at_all(clinic: Clinic, other: Database) -> None:
    found = clinic.examine(CELERY_DATABASE_NAME=other.name, canary=True)
    for queue in QUEUES:
        found.says(f"worker of {queue}", "no living worker", "upbeat start worker")
    found.says("beat", "no beat has ever passed", "upbeat start beat")
    assert found.failed() == {*(f"worker of {queue}" for queue in QUEUES), "beat"}


def test_a_schedule_whose_task_is_gone_and_one_that_nobody_fires(clinic: Clinic, other: Database) -> None:
    rows(
        other,
        """
        WITH made AS (
            INSERT INTO celery_periodic_task_configs
                (id, version, task_name, task_path, task, task_type, state, schedule, task_args, task_kwargs,
                 task_extra_config)
            VALUES (gen_random_uuid(), 1, 'Removed', 'old.task', 'old.task', 'business', 'active',
                    '{"type": "interval", "every": 60, "unit": "seconds"}', '[]', '{}', '{}')
            RETURNING id
        )
        INSERT INTO celery_periodic_task_clocks (schedule_id, next_run_at)
        SELECT id, clock_timestamp() - interval '10 minutes' FROM made
        """,
    )
    found = clinic.examine(CELERY_DATABASE_NAME=other.name)
    found.says("schedules", "1 cannot fire", "old.task", "upbeat schedules check")
    found.says("ticks", "1 schedules are overdue", "600 s", "upbeat logs beat")


def test_a_worker_of_one_queue_on_another_redis_that_is_killed(
    clinic: Clinic, other: Database, shared_stack: Stack, servers: Servers
) -> None:
    lease = 3.0
    astray = shared_stack.worker(
        *("-Q", "celery", "-P", "solo"),
        env={
            "CELERY_DATABASE_NAME": other.name,
            "UPBEAT_WORKER_LEASE": str(lease),
            "UPBEAT_WORKER_LEASE_RENEWAL": "0.5",
        },
    )
    found = clinic.examine(CELERY_DATABASE_NAME=other.name, REDIS_URL=servers.new_redis_url(), canary=True)
    found.says("worker of celery", "1 worker takes", verdict=Verdict.OK)
    found.says("worker of system", "no living worker", "-Q", "add system")
    found.says("canary to celery", "hop worker", "connected to another Redis", "REDIS_URL")
    astray.kill()
    found = clinic.failing("worker of celery", lease + 10, {"CELERY_DATABASE_NAME": other.name})
    found.says("worker of celery", "lost contact", "upbeat start worker")


def test_a_worker_that_is_busy(clinic: Clinic, database: Database, shared_stack: Stack) -> None:
    program = (
        "from app.modules.scheduled_task.tasks import test_task as t; t.delay(seconds=6), t.delay(seconds=6)"
    )
    caller = shared_stack.processes.start("caller", [sys.executable, "-c", program], shared_stack.environment)
    assert caller.wait(20) == 0, caller.output()
    eventually(
        lambda: rows(database, "SELECT id FROM celery_task_runs WHERE state = 'running' OFFSET 1"),
        20,
        "both slots are taken",
    )
    found = clinic.examine(canary=True)
    found.says("canary to celery", "hop worker", "2 runs", "keep it busy", "upbeat inspect active")
    eventually(
        lambda: not rows(database, "SELECT id FROM celery_task_runs WHERE state IN ('running', 'queued')"),
        20,
        "the slots are free, and no canary waits",
    )


def test_a_worker_that_is_frozen(clinic: Clinic, processes: dict[str, Any]) -> None:
    with frozen(processes["worker"]):
        found = clinic.examine(canary=True)
    found.says("canary to celery", "hop worker", "frozen", "upbeat restart worker")


def test_a_beat_that_is_frozen_and_one_that_is_dead(clinic: Clinic, processes: dict[str, Any]) -> None:
    beat: Process = processes["beat"]
    with frozen(beat):
        found = clinic.examine(canary=True)
        found.says("canary through beat", "hop beat", "none fired the tick", "upbeat restart beat")
        found.says("canary to celery", verdict=Verdict.OK)
    beat.signal_main(signal.SIGKILL)
    found = clinic.failing("beat", 10, {"UPBEAT_READY_BEAT_AGE": "2"})
    found.says("beat", "the last pass was", "upbeat restart beat")
    found = clinic.failing("api", 10)
    found.says("api", "not ready", "beat: The last pass was")
