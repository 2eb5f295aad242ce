"""`upbeat start|stop|restart|status`: worker, beat and API of this folder, in the background or under `upbeat up`."""

import os
import signal
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from app.cli.banner import say
from app.cli.choices import Service
from app.cli.foreground import BROKEN, SERVICES_DEADLINE, StartFailed, log_tail
from app.cli.keeper import spawn
from app.cli.startup import STARTUP_LOG
from app.cli.state import Holder, holder, want, wanted
from app.cli.supervision import SERVICE_LOGS, SERVICES, Control, Status
from app.cli.up import require_free_port
from app.db.engines import sync_engine, sync_sessions
from app.errors import ConfigurationError
from app.scheduling.inspecting import living_processes
from app.settings import get_settings

STOPPED = ("STOPPED", "EXITED", "FATAL", "UNKNOWN")
STOP_DEADLINE = 120.0
PAUSE = 0.1
PATIENCE = 2.0  # seconds in which a crashed service may be between two starts


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """``state`` is running, starting, restarting, stopping, stopped or failed; ``seconds`` since its start."""

    service: str
    state: str
    pid: int | None
    seconds: int | None
    log: str


_STATES = {
    "RUNNING": "running",
    "STARTING": "starting",
    "BACKOFF": "restarting",
    "STOPPING": "stopping",
    "FATAL": "failed",
}


def chosen(given: Collection[Service], default: Iterable[Service]) -> tuple[str, ...]:
    """The names in the order of their start."""
    asked = set(given or default)
    return tuple(name for name in SERVICES if Service.ALL in asked or name in asked)


def start(names: Sequence[str]) -> None:
    """Start what does not run yet, and wait until it works.

    Raises:
        ConfigurationError: something does not start; the message says why.
    """
    running, asked = holder(), list(names)
    if running is None:
        spawn(names)
    else:
        control = _control(running)
        want(wanted() | set(names))
        before = control.statuses()
        for name in names:
            if before[name].state in ("RUNNING", "STARTING"):
                say(f"{name} is running already (pid {before[name].pid}).")
                asked.remove(name)
            else:
                if name == "api":
                    require_free_port(get_settings())
                control.start(name)
    get_settings.cache_clear()
    _await_start(asked)


def stop(names: Sequence[str]) -> None:
    """Stop politely what runs; with the last service, the servers and the supervisor end as well.

    Raises:
        ConfigurationError: something does not stop.
    """
    running = holder()
    if running is None:
        say("Nothing is running in this folder.")
        return
    control = _control(running)
    want(wanted() - set(names))
    _stop(control, names)
    left = control.statuses()
    if all(left[name].state in STOPPED for name in SERVICES if name in left):
        _end(running)


def restart(names: Sequence[str]) -> None:
    """Stop, then start; servers and what is not named go on.

    Raises:
        ConfigurationError: something does not stop, or does not start again.
    """
    running = holder()
    if running is not None:
        _stop(_control(running), names)
    start(names)


def status() -> list[ServiceStatus]:
    """How the three services stand."""
    running = holder()
    found = {} if running is None or running.control is None else Control(running.control).statuses()
    return [_described(name, found.get(name)) for name in SERVICES]


def _described(name: str, found: Status | None) -> ServiceStatus:
    state = "stopped" if found is None else _STATES.get(found.state, "stopped")
    alive = found is not None and found.pid > 0
    log = SERVICE_LOGS[name]
    return ServiceStatus(
        name,
        state,
        found.pid if alive and found else None,
        found.seconds if alive and found else None,
        str(log) if log.exists() else "",
    )


def _control(running: Holder) -> Control:
    if running.control is not None:
        control = Control(running.control)
        if control.answers():
            return control
    raise ConfigurationError(
        f"A start or stop is under way in this folder (process {running.pid}). Try again in a moment."
    )


def _stop(control: Control, names: Sequence[str]) -> None:
    before = control.statuses()
    asked = [name for name in reversed(names) if before[name].state not in STOPPED]
    for name in names:
        if name not in asked:
            say(f"{name} is not running.")
    for name in asked:
        say(f"Stopping {name} …" + (" (runs may end first)" if name == "worker" else ""))
        control.stop(name)
    end = time.monotonic() + STOP_DEADLINE
    waiting = set(asked)
    while waiting:
        control.nudge()
        now = control.statuses()
        for name in sorted(waiting):
            if name in now and now[name].state in STOPPED:
                waiting.discard(name)
                say(f"{name} is stopped.")
        if waiting and time.monotonic() > end:
            raise ConfigurationError(
                f"{' and '.join(sorted(waiting))} did not stop. See logs/supervisord.log."
            )
        time.sleep(PAUSE)


def _end(running: Holder) -> None:
    os.kill(running.pid, signal.SIGTERM)
    end = time.monotonic() + STOP_DEADLINE
    while holder() is not None:
        if time.monotonic() > end:
            raise ConfigurationError(f"Process {running.pid} did not end. See logs/upbeat.log.")
        time.sleep(PAUSE)


def _await_start(names: Sequence[str]) -> None:
    engine = sync_engine(get_settings().database, name="upbeat-start")
    try:
        _await_all(list(names), sync_sessions(engine))
    finally:
        engine.dispose()


def _await_all(waiting: list[str], sessions: sessionmaker[Session]) -> None:
    end = time.monotonic() + SERVICES_DEADLINE
    spent = dict.fromkeys(waiting, 0.0)
    while True:
        alive = _alive(sessions)
        found = {each.service: each for each in status()}
        while waiting and _works(found[waiting[0]], alive):
            say(f"{waiting[0]} is running (pid {found[waiting.pop(0)].pid}).")
        if not waiting:
            return
        states = Control(control).statuses() if (control := _socket()) else {}
        for name in waiting:
            spent[name] += PAUSE if name in states and states[name].state in BROKEN else 0.0
        broken = [name for name in waiting if spent[name] > PATIENCE]
        if broken or time.monotonic() > end:
            name = broken[0] if broken else waiting[0]
            log = STARTUP_LOG if name == "worker" and STARTUP_LOG.exists() else SERVICE_LOGS[name]
            raise StartFailed(f"{name} did not start. The end of {log}:\n{log_tail(log)}")
        time.sleep(PAUSE)


def _works(each: ServiceStatus, alive: set[int]) -> bool:
    return each.state == "running" and (each.service == "api" or each.pid in alive)


def _socket() -> Path | None:
    running = holder()
    return None if running is None else running.control


def _alive(sessions: sessionmaker[Session]) -> set[int]:
    """Process ids of the workers that hold a lease and of the beats that have passed, as the database knows."""
    try:
        with sessions() as session:
            return living_processes(session)
    except SQLAlchemyError:
        return set()
