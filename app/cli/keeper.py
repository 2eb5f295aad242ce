"""The background process behind `upbeat start`: it owns the supervisor as `upbeat up` does, without a terminal.

What it says during the start goes to the pipe that it was given as its output, for the starting command to show;
from then on to `logs/upbeat.log`.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable

from app.cli.banner import event, say
from app.cli.foreground import ForegroundStack
from app.cli.reach import names_database, require_migrated
from app.cli.supervision import LOGS
from app.cli.up import Interruption, StopRequested, begin
from app.errors import ConfigurationError

READY = "\N{END OF TRANSMISSION}"
KEEPER_LOG = LOGS / "upbeat.log"
LARGE = 1_048_576  # bytes at which it is set aside; it gets a line when something happens to a service


class NotStarted(ConfigurationError):
    """The background process ended during the start, and has said why."""


def spawn(names: Iterable[str]) -> None:
    """Start services in the background, showing what that says; returns when they are up.

    Raises:
        NotStarted: they are not; the reason was shown.
    """
    command = [sys.executable, "-m", "app.cli", "keep", *names]
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
    ) as keeper:
        try:
            for line in keeper.stdout or ():
                if line.strip() == READY:
                    # Left to itself: leaving the context would wait for its end.
                    keeper.returncode = 0
                    return
                print(line, end="", flush=True)
        except KeyboardInterrupt:
            keeper.send_signal(signal.SIGTERM)
            keeper.wait()
            raise
    raise NotStarted("Nothing was started.")


def keep(names: Iterable[str]) -> None:
    """Run services until a signal ends it.

    Raises:
        ConfigurationError: something that the user can mend; nothing is left running.
    """
    interruption = Interruption()
    with interruption.installed():
        try:
            _run(interruption, tuple(names))
        except StopRequested:
            say("Stopped.")


def _run(interruption: Interruption, names: tuple[str, ...]) -> None:
    from app.cli.prepare import prepare

    state, settings = begin(with_api="api" in names)
    own_database = not names_database(settings)
    stack = ForegroundStack(state)
    try:
        settings = stack.start_servers(settings)
        if own_database:
            say("Preparing the database …")
            administrator = prepare(settings, say)
            if administrator.password is not None and administrator.generated:
                say(f"Login: {administrator.username} / {administrator.password}   (shown only now; keep it)")
        else:
            require_migrated(settings)
        say(f"Starting {', '.join(names)} …")
        stack.start_services(settings, names)
        _detach()
        event(f"started: {', '.join(names)}")
        while not interruption.stopping:
            stack.report_changes()
            time.sleep(0.5)
    finally:
        interruption.stopping = True
        stack.stop(lambda: interruption.hurried)


def _detach() -> None:
    print(READY, flush=True)
    if KEEPER_LOG.exists() and KEEPER_LOG.stat().st_size > LARGE:
        KEEPER_LOG.replace(KEEPER_LOG.with_name(f"{KEEPER_LOG.name}.1"))
    with KEEPER_LOG.open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
