"""The stack of one `upbeat up` or `upbeat start`: started in order, watched, stopped in the reverse order."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path

import httpx

from app.cli.banner import event, say
from app.cli.embedded import LOOPBACK, Postgres, Redis, wait_until
from app.cli.leftovers import MARKER, end_leftovers
from app.cli.reach import names_broker, names_database
from app.cli.startup import keep_startup
from app.cli.state import State, want, wanted, write_private
from app.cli.supervision import (
    LOGS,
    SERVICES,
    Control,
    Program,
    Status,
    render,
    server_programs,
    service_programs,
    start_supervisor,
)
from app.errors import ConfigurationError
from app.settings import LogSettings, Settings, get_settings

SERVERS_DEADLINE = 60.0
SERVICES_DEADLINE = 90.0
STARTUP_SECONDS = 20.0  # for which what the worker writes counts as its start
FATAL_PAUSE = 30.0  # before a program that failed over and over is tried again
BROKEN = ("BACKOFF", "EXITED", "FATAL", "UNKNOWN")
IN_A_HURRY = ("api", "beat", "worker")


class StartFailed(ConfigurationError):
    """A part of the stack did not start."""


class ForegroundStack:
    """Owns the supervisor and everything that it runs."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._socket = state.socket()
        self._control = Control(self._socket)
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._programs: dict[str, Program] = {}
        self._seen: dict[str, Status] = {}
        self._startup_until = 0.0
        self._try_again: dict[str, float] = {}

    def start_servers(self, settings: Settings) -> Settings:
        """Start the supervisor, and under it the servers that the settings do not name.

        Returns the settings with the addresses of the servers that now run.

        Raises:
            ConfigurationError: a server's program is missing or does not start.
        """
        postgres, redis = self._wanted(settings)
        say(f"Starting {' and '.join(s.title for s in (postgres, redis) if s) or 'the supervisor'} …")
        addresses = {}
        if postgres is not None:
            postgres.initialise()
            addresses["DATABASE_URL"] = postgres.url
        if redis is not None:
            redis.initialise()
            addresses["REDIS_URL"] = redis.url
        if not settings.secret.each():
            addresses["UPBEAT_SECRET_KEYS"] = self._state.secret_keys()
        os.environ.update(addresses)
        get_settings.cache_clear()
        settings = get_settings()

        run = self._state.run
        programs = [*server_programs(run, postgres, redis), *service_programs(run, settings)]
        self._programs = {program.name: program for program in programs}
        self._start_supervisor(programs, settings.log)
        wanted = {name: s for name, s in (("postgres", postgres), ("redis", redis)) if s is not None}
        for name in wanted:
            self._control.start(name)
        for name, server in wanted.items():
            if not wait_until(server.answers, partial(self._is_well, name), SERVERS_DEADLINE):
                raise self._failure(name)
        self._state.publish_addresses(addresses)
        return settings

    def start_services(self, settings: Settings, names: Iterable[str] = SERVICES) -> None:
        """Start these, and wait until they are up, and the API ready (alive, when no beat is started with it).

        Raises:
            StartFailed: one of them did not start; the message ends with its log.
        """
        names = tuple(names)
        want(names)
        try:
            self._await_services(settings, names)
        finally:
            keep_startup()
        self._startup_until = time.monotonic() + STARTUP_SECONDS
        self._seen = self._control.statuses()

    def _await_services(self, settings: Settings, names: tuple[str, ...]) -> None:
        for name in names:
            self._control.start(name)
        path = "readyz" if "beat" in names else "livez"
        ready = f"http://{LOOPBACK}:{settings.api.port}/{path}" if "api" in names else None
        end = time.monotonic() + SERVICES_DEADLINE
        while True:
            states = self._control.statuses()
            for name in names:
                if name in states and states[name].state in BROKEN:
                    raise self._failure(name)
            running = all(name in states and states[name].state == "RUNNING" for name in names)
            if running and (ready is None or _answers_ok(ready)):
                return
            if time.monotonic() > end:
                raise self._failure("api" if ready else names[0])
            time.sleep(0.1)

    def report_changes(self) -> None:
        """Say what happened to the programs since the last call; try failed ones again after a while.

        Raises:
            StartFailed: the supervisor itself is gone.
        """
        if self._supervisor is None or self._supervisor.poll() is not None:
            raise StartFailed("The supervisor ended; see logs/supervisord.log. Start again.")
        now = self._control.statuses()
        for name, status in now.items():
            before = self._seen.get(name)
            if before is None or (status.state, status.pid) == (before.state, before.pid):
                continue
            log = self._programs[name].log
            if name == "worker":
                self._startup_until = time.monotonic() + STARTUP_SECONDS
            if status.state == "FATAL":
                self._try_again[name] = time.monotonic() + FATAL_PAUSE
                event(f"{name} keeps ending; next try in {FATAL_PAUSE:g} s. See {log}")
            elif status.state == "BACKOFF":
                event(f"{name} ended during its start ({status.detail}); trying again. See {log}")
            elif status.pid and status.pid != before.pid:
                event(f"{name} was restarted (pid {status.pid}){_cause(before)}. See {log}")
        self._seen |= now
        if time.monotonic() < self._startup_until:
            keep_startup()
        self._try_failed_again()

    def _try_failed_again(self) -> None:
        for name, at in list(self._try_again.items()):
            if time.monotonic() >= at:
                del self._try_again[name]
                if name in wanted():
                    self._control.start(name)

    def stop(self, hurried: Callable[[], bool]) -> None:
        """Stop everything in order; what outlasts its time, or is hurried, is killed."""
        if self._supervisor is not None:
            say("Stopping … (Ctrl-C again: at once)")
            patience = sum(program.stop_seconds for program in self._programs.values()) + 10
            end = time.monotonic() + patience
            self._supervisor.terminate()
            while self._supervisor.poll() is None:
                if hurried():
                    self._kill(IN_A_HURRY)
                if time.monotonic() > end:
                    self._supervisor.kill()
                self._control.nudge()
                time.sleep(0.05)
        end_leftovers(self._state.folder)
        self._state.withdraw_addresses()
        self._state.discard_socket(self._socket)

    def _wanted(self, settings: Settings) -> tuple[Postgres | None, Redis | None]:
        postgres, redis = self._state.servers()
        return None if names_database(settings) else postgres, None if names_broker(settings) else redis

    def _start_supervisor(self, programs: list[Program], log: LogSettings) -> None:
        for program in programs:
            program.log.parent.mkdir(parents=True, exist_ok=True)
        config = self._state.run / "supervisord.conf"
        write_private(config, render(programs, self._state.run, self._socket, log))
        environment = os.environ | {MARKER: str(self._state.folder), "PYTHONUNBUFFERED": "1"}
        self._supervisor = start_supervisor(config, environment)
        supervisor = self._supervisor
        if not wait_until(self._control.answers, lambda: supervisor.poll() is None, 20.0):
            raise StartFailed("The supervisor did not start:\n" + log_tail(LOGS / "supervisord.log"))

    def _is_well(self, name: str) -> bool:
        states = self._control.statuses()
        return name in states and states[name].state not in BROKEN

    def _failure(self, name: str) -> StartFailed:
        log = self._programs[name].log
        return StartFailed(f"{name} did not start. The end of {log}:\n{log_tail(log)}")

    def _kill(self, names: tuple[str, ...]) -> None:
        for name in names:
            if status := self._control.statuses().get(name):
                with suppress(ProcessLookupError):
                    if status.pid:
                        os.killpg(status.pid, signal.SIGKILL)


def _cause(before: Status) -> str:
    return "" if before.state == "RUNNING" else f" after {before.state.lower()}"


def _answers_ok(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5, trust_env=False).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def log_tail(file: Path, lines: int = 15) -> str:
    """The end of a log, indented, for a message."""
    try:
        return "\n".join(f"  {line}" for line in file.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return "  (nothing was written)"
