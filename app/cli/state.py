"""The folder `.upbeat/`: what `upbeat up` and `upbeat start` keep between starts, and leave while they run.

lock            held by the one `upbeat up` or `upbeat start` of this folder
servers.json    ports and passwords of the embedded servers, chosen once
secret_keys     what encrypts stored secrets, made once; without it they are lost
postgres/ redis/  their data
env             DATABASE_URL, REDIS_URL and UPBEAT_SECRET_KEYS of what runs, read by app.settings
run/            the supervisor's configuration and socket and where that is, which services are wanted, process ids
"""

import fcntl
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from app.cli.embedded import Postgres, Redis, free_port, new_password, port_is_free
from app.errors import ConfigurationError
from app.sealing import new_key
from app.settings import RUNTIME_ENV, STATE_FOLDER

PROBING = 0.3  # seconds for which somebody who only looks may hold the lock
CONTROL = "control"
WANTED = "wanted"
LONGEST_SOCKET_PATH = 90  # sockaddr_un holds 108 bytes, and supervisor appends a process id


class AlreadyRunning(ConfigurationError):
    """Another `upbeat up` or `upbeat start` holds the folder."""


@dataclass(frozen=True, slots=True)
class State:
    """The opened folder; the lock lasts as long as this process."""

    folder: Path
    lock: int

    @classmethod
    def open(cls) -> "State":
        """Make the folder if needed and take its lock.

        Raises:
            AlreadyRunning: another process has it.
            ConfigurationError: the folder cannot be written, or has characters that the
                supervisor's configuration cannot hold.
        """
        folder = STATE_FOLDER.resolve()
        if any(mark in str(folder) for mark in (" ;", " #", "\n")):
            raise ConfigurationError(
                f"The path {folder.parent} has ' ;' or ' #' in it. Use a folder without them."
            )
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            (folder / "run").mkdir(exist_ok=True)
            lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigurationError(
                f"{folder} cannot be written ({error.strerror}). Start in a folder that belongs to you."
            ) from error
        if not _locked(lock):
            owner = os.pread(lock, 32, 0).decode() or "unknown"
            os.close(lock)
            raise AlreadyRunning(
                f"Upbeat is already running in this folder (process {owner}). Stop it with Ctrl-C in its"
                " terminal, or with `upbeat stop all` (`.venv/bin/python -m app.cli stop all` without an"
                " installation), or use another checkout."
            )
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
        return cls(folder, lock)

    @property
    def run(self) -> Path:
        return self.folder / "run"

    def servers(self) -> tuple[Postgres, Redis]:
        """The embedded servers with their remembered ports; a port that was taken is chosen anew."""
        file = self.folder / "servers.json"
        kept: dict[str, dict[str, str | int]] = json.loads(file.read_text()) if file.exists() else {}
        for name in ("postgres", "redis"):
            server = kept.setdefault(name, {"port": free_port(), "password": new_password()})
            if not port_is_free(int(server["port"])):
                server["port"] = free_port()
        write_private(file, json.dumps(kept, indent=2) + "\n")
        return (
            Postgres(
                self.folder / "postgres", int(kept["postgres"]["port"]), str(kept["postgres"]["password"])
            ),
            Redis(self.folder / "redis", int(kept["redis"]["port"]), str(kept["redis"]["password"])),
        )

    def secret_keys(self) -> str:
        """The remembered keys; one is made at the first start."""
        file = self.folder / "secret_keys"
        if not file.exists():
            write_private(file, new_key() + "\n")
        return file.read_text().strip()

    def socket(self) -> Path:
        """A path for the supervisor's socket that is short enough, in a folder closed to others."""
        if (former := self.run / CONTROL).exists():
            # Whoever was to discard it was killed.
            self.discard_socket(Path(former.read_text()))
        socket = self.run / "supervisor.sock"
        if len(os.fsencode(socket)) > LONGEST_SOCKET_PATH:
            socket = Path(tempfile.mkdtemp(prefix="upbeat-")) / "supervisor.sock"
        (self.run / CONTROL).write_text(str(socket))
        return socket

    def discard_socket(self, socket: Path) -> None:
        socket.unlink(missing_ok=True)
        (self.run / CONTROL).unlink(missing_ok=True)
        if socket.parent != self.run:
            shutil.rmtree(socket.parent, ignore_errors=True)

    def publish_addresses(self, addresses: Mapping[str, str]) -> None:
        write_private(RUNTIME_ENV, "".join(f"{name}={value}\n" for name, value in addresses.items()))

    def withdraw_addresses(self) -> None:
        RUNTIME_ENV.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Holder:
    """Who runs a stack in this folder now; ``control`` is its supervisor's socket, None before there is one."""

    pid: int
    control: Path | None


def holder() -> Holder | None:
    """Who has this folder's lock, or None."""
    folder = STATE_FOLDER.resolve()
    try:
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        found = os.pread(lock, 32, 0).decode()
        where = folder / "run" / CONTROL
        control = Path(where.read_text()) if where.exists() else None
        return Holder(int(found) if found.isdecimal() else 0, control)
    else:
        return None
    finally:
        os.close(lock)


def wanted() -> set[str]:
    """The services that are to run: those that were started, and not stopped."""
    try:
        return set((STATE_FOLDER / "run" / WANTED).read_text().split())
    except OSError:
        return set()


def want(names: Iterable[str]) -> None:
    """Remember which services are to run."""
    write_private(STATE_FOLDER / "run" / WANTED, "\n".join(sorted(names)) + "\n")


def _locked(lock: int) -> bool:
    end = time.monotonic() + PROBING
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                return False
            time.sleep(PROBING / 10)
        else:
            return True


def write_private(file: Path, text: str) -> None:
    """Replace a file at once, readable by its owner only."""
    draft = file.with_name(file.name + ".new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as output:
        output.write(text)
    draft.replace(file)
