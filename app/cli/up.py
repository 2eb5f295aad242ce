"""`upbeat up`: everything that Upbeat needs, in the foreground, until Ctrl-C."""

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from app.cli.banner import banner, say
from app.cli.embedded import free_port, port_is_free
from app.cli.foreground import ForegroundStack
from app.cli.launch import die_with_parent
from app.cli.leftovers import end_leftovers, leftovers
from app.cli.progress import working
from app.cli.reach import names_broker, names_database, reach_database, reach_redis
from app.cli.state import State
from app.errors import ConfigurationError
from app.settings import Settings, get_settings

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequested(BaseException):
    """A signal asked us to stop; raised wherever the set-up is, as KeyboardInterrupt would be."""


class Interruption:
    """The first signal raises StopRequested, unless the stop has begun; a later one means hurry."""

    def __init__(self) -> None:
        self.stopping = False
        self.hurried = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.stopping:
            self.hurried = True
            return
        self.stopping = True
        raise StopRequested

    @contextmanager
    def installed(self) -> Iterator[None]:
        before = {each: signal.signal(each, self) for each in SIGNALS}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)


def up(*, attached: bool = False) -> None:
    """Run the stack until a signal ends it; ``attached``: or until the starting process ends.

    Raises:
        ConfigurationError: something that the user can mend; nothing is left running.
    """
    if attached:
        die_with_parent(signal.SIGTERM)
    interruption = Interruption()
    with interruption.installed():
        try:
            _run(interruption)
        except StopRequested:
            say("Stopped.")


def _run(interruption: Interruption) -> None:
    from app.cli.prepare import prepare

    state, settings = begin(with_api=True)
    stack = ForegroundStack(state)
    try:
        settings = stack.start_servers(settings)
        say("Preparing the database …")
        administrator = prepare(settings, say)
        say("Starting API, worker and beat …")
        with working("Waiting until they answer"):
            stack.start_services(settings)
        say(banner(settings, administrator))
        while not interruption.stopping:
            stack.report_changes()
            time.sleep(0.5)
    finally:
        interruption.stopping = True
        stack.stop(lambda: interruption.hurried)


def begin(*, with_api: bool) -> tuple[State, Settings]:
    """The folder, with nothing in it left of an earlier start, and settings that can be used.

    Raises:
        ConfigurationError: the folder is in use, the API's port is taken, or a server that is named cannot be reached.
    """
    state = State.open()
    end_earlier(state)
    state.withdraw_addresses()
    settings = get_settings()
    if with_api:
        require_free_port(settings)
    if names_database(settings):
        reach_database(settings)
    if names_broker(settings):
        reach_redis(settings)
    return state, settings


def end_earlier(state: State) -> None:
    """End what a killed start left.

    Raises:
        ConfigurationError: that was not possible.
    """
    if leftovers(state.folder):
        say("Ending what an earlier start left behind …")
        end_leftovers(state.folder, patience=60.0)
        if remaining := leftovers(state.folder):
            raise ConfigurationError(
                "Processes of an earlier start could not be ended. Try:"
                f" kill -9 {' '.join(str(pid) for pid in remaining)}"
            )


def require_free_port(settings: Settings) -> None:
    """Raises ConfigurationError, with a port to use instead, when the API's is taken."""
    port, again = settings.api.port, "make up" if "up" in sys.argv else "upbeat start api"
    if not port_is_free(port):
        raise ConfigurationError(
            f"Port {port} is taken by another program. End that one, or choose another:"
            f" UPBEAT_PORT={free_port()} {again}"
        )
