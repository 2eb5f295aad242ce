"""Each process may do what it needs with the database and with Redis, and nothing else: on the real servers."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest
import redis
from psycopg import errors, sql
from pydantic import SecretStr
from sqlalchemy import text

from app.cli.embedded import new_password
from app.cli.people import add_person
from app.cli.roles import grant_roles
from app.db import Base, sync_engine
from app.db.migrate import check
from app.db.partitions import ensure_partitions
from app.db.privileges import API, BEAT, LOGINS, PARTITIONED, WORKER, allowed
from app.settings import DatabaseSettings, Settings
from support.people import PASSWORD
from support.polling import eventually
from support.servers import Database, Servers
from support.stack import Stack

PASSWORDS = {role: new_password() for role in LOGINS}
USERS = Path(__file__).parents[2] / "deploy" / "redis" / "users.acl"
LETTERS = {"S": "SELECT", "I": "INSERT", "U": "UPDATE", "D": "DELETE"}


@pytest.fixture(scope="module")
def granted(settings: Settings, servers: Servers) -> Iterator[Settings]:
    """A database whose roles have been given what they need; the roles are the server's, so they go afterwards."""
    grant_roles(settings, embedded_beat=False, show=False)
    for role, password in PASSWORDS.items():
        servers.execute(
            sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role), sql.Literal(password))
        )
    yield settings
    name = settings.database.name
    for role in (*LOGINS, "upbeat_partitions"):
        owned = sql.SQL("DROP OWNED BY {}").format(sql.Identifier(role))
        servers.execute(owned, name)
        servers.execute(owned)
        servers.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


def connect(role: str, database: Database) -> psycopg.Connection:
    return psycopg.connect(database.url, user=role, password=PASSWORDS[role], autocommit=True)


def server_url(role: str, servers: Servers) -> str:
    return replace(servers.postgres, password=PASSWORDS[role]).url.replace("upbeat:", f"{role}:", 1)


def test_every_table_has_its_line(settings: Settings, database: Database) -> None:
    """The models' tables and the database's; partitions go with their parents."""
    check(settings)
    stored = set(Base.metadata.tables) | {"alembic_version"}
    assert stored == set(allowed()), "say in app/db/privileges.py who may do what with each table"


@pytest.mark.parametrize("role", LOGINS)
def test_each_role_may_do_what_is_declared_and_no_more(
    granted: Settings, database: Database, role: str
) -> None:
    with psycopg.connect(database.url) as connection:
        for table, rights in allowed().items():
            # Whoever makes and drops months owns the tables of runs.
            owner = table in PARTITIONED and role != API
            letters = "SIUD" if owner else rights[LOGINS.index(role)]
            for letter, word in LETTERS.items():
                query = "SELECT has_table_privilege(%s, %s, %s)"
                found = connection.execute(query, (role, table, word)).fetchone()
                assert found == (letter in letters,), (role, table, word)


@pytest.mark.parametrize("role", LOGINS)
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_log SET actor = 'x'",
        "DELETE FROM audit_log",
        "TRUNCATE audit_log",
        "ALTER TABLE audit_log DISABLE TRIGGER append_only",
        "DROP TABLE users",
        "ALTER TABLE users ADD COLUMN x text",
        "UPDATE alembic_version SET version_num = 'x'",
        "CREATE ROLE intruder",
        "CREATE DATABASE intruder",
        "COPY users TO PROGRAM 'true'",
    ],
)
def test_what_no_role_may_do(granted: Settings, database: Database, role: str, statement: str) -> None:
    with connect(role, database) as connection, pytest.raises(errors.InsufficientPrivilege):
        connection.execute(statement)


@pytest.mark.parametrize("role", [WORKER, BEAT])
@pytest.mark.parametrize("table", ["users", "api_keys", "login_throttles", "idempotency_keys", "audit_log"])
def test_identity_is_the_apis_alone(granted: Settings, database: Database, role: str, table: str) -> None:
    with connect(role, database) as connection:
        for statement in ("SELECT * FROM {}", "DELETE FROM {}", "INSERT INTO {} DEFAULT VALUES"):
            with pytest.raises(errors.InsufficientPrivilege):
                connection.execute(sql.SQL(statement).format(sql.Identifier(table)))


def test_other_roles_do_not_even_connect(granted: Settings, database: Database, servers: Servers) -> None:
    servers.execute(sql.SQL("CREATE ROLE stranger LOGIN PASSWORD 'stranger'"))
    try:
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            psycopg.connect(database.url, user="stranger", password="stranger")
    finally:
        servers.execute(sql.SQL("DROP ROLE stranger"))


def test_what_is_granted_again_waits_for_nobody(granted: Settings, database: Database) -> None:
    """Each upgrade grants again, while others look at the runs and all the rest starts and ends them."""
    with psycopg.connect(database.url) as reader:
        reader.execute("SELECT count(*) FROM celery_task_runs")
        grant_roles(granted, embedded_beat=False, show=False)


def test_months_made_by_a_beat_can_be_dropped_by_a_worker(
    granted: Settings, database: Database, servers: Servers
) -> None:
    url = SecretStr(server_url(BEAT, servers))
    settings = DatabaseSettings(DATABASE_URL=url, CELERY_DATABASE_NAME=database.name)
    engine = sync_engine(settings, name="test")
    with engine.begin() as connection:
        assert connection.scalar(text("SELECT current_user")) == BEAT
        made = ensure_partitions(connection, PARTITIONED, datetime.now(UTC) + timedelta(days=200), behind=0)
    engine.dispose()
    assert made
    with connect(WORKER, database) as connection:
        for name in made:
            connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(name)))


@pytest.fixture(scope="module")
def redis_users(servers: Servers, redis_url: str) -> Iterator[redis.Redis]:
    """The users of deploy/redis/users.acl with passwords, and the administrator's client."""
    number = redis_url.rpartition("/")[2]
    text = USERS.read_text().replace("&/0.", f"&/{number}.")
    lines = [line for line in text.splitlines() if line.startswith("user ")]
    with redis.Redis.from_url(servers.redis.url) as client:
        for line in lines:
            _, name, *rules = line.split()
            client.execute_command("ACL", "SETUSER", name, *rules, f">{PASSWORDS[name]}")
        client.acl_log_reset()
        yield client
        client.acl_deluser(*LOGINS)


def redis_as(role: str, url: str) -> str:
    return url.replace("redis://:", f"redis://{role}:").replace(
        urlsplit(url).password or "", PASSWORDS[role], 1
    )


@pytest.mark.parametrize("role", LOGINS)
@pytest.mark.parametrize(
    "command",
    [
        ("FLUSHALL",),
        ("FLUSHDB",),
        ("KEYS", "*"),
        ("SCAN", "0"),
        ("CONFIG", "GET", "requirepass"),
        ("ACL", "LIST"),
        ("MONITOR",),
        ("SHUTDOWN",),
        ("DEBUG", "SLEEP", "0"),
        ("SAVE",),
        ("REPLICAOF", "NO", "ONE"),
        ("MODULE", "LIST"),
        ("GET", "another-application"),
        ("LPUSH", "another-queue", "x"),
        ("PUBLISH", "another-channel", "x"),
    ],
)
def test_what_no_redis_user_may_do(
    redis_users: redis.Redis, servers: Servers, role: str, command: tuple[str, ...]
) -> None:
    client = redis.Redis.from_url(redis_as(role, servers.redis.url))
    with client, pytest.raises(redis.exceptions.NoPermissionError):
        client.execute_command(*command)  # type: ignore[no-untyped-call]
    redis_users.acl_log_reset()


def users_of(database: Database) -> set[str]:
    with psycopg.connect(database.url) as connection:
        query = "SELECT DISTINCT usename FROM pg_stat_activity WHERE datname = current_database()"
        return {row[0] for row in connection.execute(query)}


def test_the_stack_works_with_these_roles(
    granted: Settings,
    servers: Servers,
    database: Database,
    redis_users: redis.Redis,
    redis_url: str,
    stack: Stack,
) -> None:
    """API, worker and beat, each as its own role: a schedule fires, a task is run, the tasks of upkeep succeed."""
    add_person(granted, "admin", PASSWORD, "admin")
    api, worker, beat = (
        {"DATABASE_URL": server_url(role, servers), "REDIS_URL": redis_as(role, redis_url)} for role in LOGINS
    )
    stack.worker("-Q", "celery,system", env=worker, wait=False)
    stack.beat(env=beat | {"UPBEAT_BEAT_SWEEP_EVERY": "0.5"}, wait=False)
    address = stack.api(env=api).url
    with httpx.Client(base_url=address) as client:
        form = {"username": "admin", "password": PASSWORD}
        answer = client.post("/api/v1/auth/login", data=form)
        client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
        body = {
            "task_name": "each second",
            "task_path": "support.instant",
            "schedule": {"type": "interval", "every": 1, "unit": "seconds"},
        }
        schedule = client.post("/api/v1/scheduled-tasks", json=body).json()
        runs = [
            client.post(f"/api/v1/tasks/{name}/runs", json={}).json()["id"]
            for name in (
                "support.instant",
                "auth.cleanup_expired_sessions",
                "auth.cleanup_old_sessions",
                "auth.session_statistics",
                "scheduled_task.cleanup_old_logs",
                "periodic_agent_health_check",
            )
        ]

        def states() -> dict[str, str]:
            return {run: client.get(f"/api/v1/runs/{run}").json()["state"] for run in runs}

        def fired() -> bool:
            query = {"schedule_id": schedule["id"], "state": "succeeded"}
            return len(client.get("/api/v1/runs", params=query).json()["items"]) >= 2

        eventually(fired, 30, "two runs of the schedule")
        eventually(lambda: users_of(database) >= set(LOGINS), 10, "each connected by its own name")
        assert {user["user"] for user in redis_users.client_list()} >= set(LOGINS)
        eventually(lambda: set(states().values()) <= {"succeeded", "failed"}, 30, "the end of the tasks")
        assert set(states().values()) == {"succeeded"}
        inspection = stack.celery("inspect", "inspect", "ping", "--timeout", "5", env=api)
        assert inspection.wait(30) == 0
        assert "pong" in inspection.output()
        assert client.delete(
            f"/api/v1/scheduled-tasks/{schedule['id']}", headers={"If-Match": "*"}
        ).is_success
    for process in stack.processes.started:
        assert "permission denied" not in process.output(), process.name
        assert "NOPERM" not in process.output(), process.name
    # What this server is too old to know is no loss: redis-py asks with CLIENT, and goes on without.
    assert [entry for entry in redis_users.acl_log() if entry["object"] != "client"] == []
