"""The stack under supervisord: which programs there are, its configuration, and how it is spoken to.

One file describes the stack for every command: `upbeat up` runs it in the foreground, `upbeat start` in the
background, and all verbs that concern it speak to the supervisor over its socket. Programs start
in the order of their priority and stop in the reverse: API, beat, worker, Redis, PostgreSQL.
"""

import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from xmlrpc.client import Error, Fault, ServerProxy

from supervisor.xmlrpc import SupervisorTransport

from app.cli.embedded import LOOPBACK, Postgres, Redis, launcher
from app.settings import LogSettings, Settings

LOGS = Path("logs")
SERVICES = ("worker", "beat", "api")
SERVICE_LOGS = {
    "worker": LOGS / "celery" / "worker.log",
    "beat": LOGS / "celery" / "beat.log",
    "api": LOGS / "api.log",
}
# After a worker has drained, it accounts for what it gave up.
ACCOUNTING = 15


@dataclass(frozen=True, slots=True)
class Program:
    """One supervised process; ``stop_seconds`` is how long its polite stop may take."""

    name: str
    priority: int
    command: tuple[str, ...]
    log: Path
    stop_signal: str = "TERM"
    stop_seconds: int = 10
    start_seconds: int = 1


@dataclass(frozen=True, slots=True)
class Status:
    """What the supervisor says of a program; ``state`` is its word (RUNNING, BACKOFF, FATAL, …).

    ``seconds`` is how long it has been running, 0 when it is not.
    """

    name: str
    state: str
    pid: int
    detail: str
    seconds: int = 0


def pid_file(run: Path, name: str) -> str:
    return f"--pid-file={run / name}.pid"


def server_programs(run: Path, postgres: Postgres | None, redis: Redis | None) -> list[Program]:
    """The embedded servers that are wanted."""
    programs = []
    if postgres is not None:
        command = postgres.command(pid_file(run, "postgres"))
        programs.append(Program("postgres", 10, tuple(command), LOGS / "postgres.log", "INT", 30))
    if redis is not None:
        command = redis.command(pid_file(run, "redis"))
        programs.append(Program("redis", 20, tuple(command), LOGS / "redis.log"))
    return programs


def service_programs(run: Path, settings: Settings) -> list[Program]:
    """Worker, beat and API, as they would be started by hand."""

    def python(name: str, *arguments: str) -> tuple[str, ...]:
        return (*launcher(pid_file(run, name), f"--announce={name}"), sys.executable, "-m", *arguments)

    grace = settings.api.graceful_shutdown
    celery = ("celery", "-A", "app.worker")
    return [
        Program(
            "worker", 30, python("worker", *celery, "worker"), SERVICE_LOGS["worker"],
            stop_seconds=int(settings.worker.drain_timeout) + ACCOUNTING, start_seconds=2,
        ),
        Program("beat", 40, python("beat", *celery, "beat"), SERVICE_LOGS["beat"], start_seconds=2),
        Program(
            "api",
            50,
            python(
                "api",
                *("uvicorn", "app.main:app", "--host", LOOPBACK, "--port", str(settings.api.port)),
                *("--timeout-graceful-shutdown", str(grace)),
            ),
            SERVICE_LOGS["api"],
            stop_seconds=grace + 5,
            start_seconds=2,
        ),
    ]  # fmt: skip


def render(programs: list[Program], run: Path, control: Path, log: LogSettings) -> str:
    """supervisord's configuration. Addresses and passwords are not in it: they are inherited."""
    here = Path.cwd()
    sections: dict[str, dict[str, object]] = {
        "unix_http_server": {"file": control, "chmod": "0700"},
        "rpcinterface:supervisor": {
            "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
        },
        "supervisord": {
            "identifier": "upbeat",
            "directory": here,
            "logfile": here / LOGS / "supervisord.log",
            "logfile_maxbytes": "1MB",
            "logfile_backups": 2,
            "pidfile": run / "supervisord.number",
            "nodaemon": "true",
            "silent": "true",
            **({"user": "root"} if os.geteuid() == 0 else {}),
        },
    }
    for program in programs:
        sections[f"program:{program.name}"] = {
            "command": shlex.join(program.command),
            "directory": here,
            "priority": program.priority,
            "autostart": "false",
            "autorestart": "true",
            "startsecs": program.start_seconds,
            "startretries": 5,
            "stopsignal": program.stop_signal,
            "stopwaitsecs": program.stop_seconds,
            "killasgroup": "true",
            "redirect_stderr": "true",
            "stdout_logfile": here / program.log,
            "stdout_logfile_maxbytes": log.file_bytes,
            "stdout_logfile_backups": log.file_backups,
        }
    lines = []
    for name, options in sections.items():
        lines.append(f"[{name}]")
        lines += [f"{key} = {str(value).replace('%', '%%')}" for key, value in options.items()]
        lines.append("")
    return "\n".join(lines)


def start_supervisor(config: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """supervisord in a session of its own, so that a Ctrl-C reaches the front process alone.

    It is asked to stop, in order, when the front process ends for whatever reason.
    """
    with (LOGS / "supervisord.log").open("ab") as output:
        return subprocess.Popen(
            [*launcher(), sys.executable, "-m", "supervisor.supervisord", "--nodaemon", "-c", str(config)],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


class Control:
    """A running supervisor, over its socket."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def _call(self, method: str, *arguments: object) -> Any:
        # A transport of its own for each call: one that failed to connect never recovers.
        transport = SupervisorTransport(serverurl=f"unix://{self._path}")
        with ServerProxy("http://localhost/RPC2", transport) as proxy:
            return getattr(proxy.supervisor, method)(*arguments)

    def answers(self) -> bool:
        try:
            return bool(self._call("getState")["statename"] == "RUNNING")
        except (OSError, HTTPException, Error):
            return False

    def nudge(self) -> None:
        """Have it look at its programs now: by itself it does so once a second, one group after another."""
        with suppress(OSError), socket.socket(socket.AF_UNIX) as caller:
            caller.settimeout(0.2)
            caller.connect(str(self._path))

    def start(self, name: str) -> None:
        """Start without waiting; a program that is already up stays as it is."""
        try:
            self._call("startProcess", name, False)
        except Fault as fault:
            if not fault.faultString.startswith("ALREADY_STARTED"):
                raise

    def stop(self, name: str) -> None:
        """Ask it to stop, without waiting; one that does not run stays as it is."""
        try:
            self._call("stopProcess", name, False)
        except Fault as fault:
            if not fault.faultString.startswith("NOT_RUNNING"):
                raise

    def statuses(self) -> dict[str, Status]:
        """Empty when the supervisor does not answer."""
        try:
            answer = self._call("getAllProcessInfo")
        except (OSError, HTTPException, Error):
            return {}
        return {
            item["name"]: Status(
                item["name"],
                item["statename"],
                item["pid"],
                item["spawnerr"],
                item["now"] - item["start"] if item["pid"] else 0,
            )
            for item in answer
        }
