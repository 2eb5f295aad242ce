"""What the scripts of `deploy/` make, used by the real servers."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis
from psycopg import sql

from app.cli.embedded import LOOPBACK, find_postgres, find_redis, free_port
from app.db.privileges import LOGINS
from support.polling import eventually
from support.processes import Processes
from support.servers import Servers

DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("deploy") / "secrets"
    command = ["sh", str(DEPLOY / "make-secrets.sh")]
    subprocess.run(command, env=os.environ | {"SECRETS": str(folder)}, check=True, capture_output=True)
    return folder


@pytest.fixture
def roles(servers: Servers, secrets: Path) -> Iterator[None]:
    """As the image of PostgreSQL does it at its first start."""
    environment = os.environ | {
        "PATH": f"{find_postgres(servers.postgres.major)}{os.pathsep}{os.environ['PATH']}",
        "PGHOST": LOOPBACK,
        "PGPORT": str(servers.postgres.port),
        "PGPASSWORD": servers.postgres.password,
        "POSTGRES_USER": "upbeat",
        "SECRETS": str(secrets),
    }
    subprocess.run(["sh", str(DEPLOY / "postgres" / "roles.sh")], env=environment, check=True)
    yield
    for role in LOGINS:
        servers.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


def test_the_roles_may_log_in_with_the_passwords_of_their_addresses(
    servers: Servers, secrets: Path, roles: None
) -> None:
    for role in LOGINS:
        given = (secrets / f"{role.removeprefix('upbeat_')}_database_url").read_text()
        url = given.replace("@postgres:5432/", f"@{LOOPBACK}:{servers.postgres.port}/")
        assert url != given
        with psycopg.connect(url) as connection:
            found = connection.execute(
                "SELECT current_user, rolsuper OR rolcreatedb OR rolcreaterole FROM pg_roles"
                " WHERE rolname = current_user"
            ).fetchone()
        assert found == (role, False)


def test_redis_takes_the_users_and_nobody_else(secrets: Path, processes: Processes) -> None:
    port = free_port()
    command = [find_redis(), "--port", port, "--bind", LOOPBACK, "--save", "", "--dir", processes.folder]
    users = processes.folder / "redis_users"
    shutil.copy(secrets / "redis_users", users)
    server = processes.start("redis", [*map(str, command), "--aclfile", str(users)])
    server.wait_for_output("Ready to accept connections")
    with redis.Redis(port=port) as stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()
    for name in ("api", "worker", "beat"):
        url = (secrets / f"{name}_redis_url").read_text().replace("@redis:6379/", f"@{LOOPBACK}:{port}/")
        with redis.Redis.from_url(url) as client:
            assert eventually(client.ping, 5)
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.flushall()
