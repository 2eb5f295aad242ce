"""The processes of a soak: each behind cables of its own, replaced when it has ended, on a host whose clock may be wrong."""

import random
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from support.processes import Process, group_members
from support.proxy import Proxy
from support.stack import Api, Stack

MOST_SKEW = 7200
SKEWED = 0.3
# Veterans leave it alone: it is for runs that take their worker with them.
MORTAL_QUEUE = "priority_low"
VETERAN_QUEUES = "system,priority_high,celery"


@dataclass(eq=False)
class Member:
    """One place in the stack. A ``veteran`` is never ended, so that its memory can be followed for long."""

    name: str
    role: str
    veteran: bool
    start: Callable[[dict[str, str]], Process | Api]
    environment: dict[str, str]
    cables: dict[str, Proxy]
    failpoints: Path
    process: Process = field(init=False)
    url: str = ""
    skew: int = 0
    expected_to_end: bool = False

    @property
    def alive(self) -> bool:
        return self.process.alive

    def launch(self, chance: random.Random, *, skewed: float = SKEWED) -> None:
        """Start its process, on a host whose clock is wrong now and then."""
        self.skew = chance.randint(-MOST_SKEW, MOST_SKEW) if chance.random() < skewed else 0
        self.failpoints.unlink(missing_ok=True)
        self.expected_to_end = False
        started = self.start(self.environment | (skewed_by(self.skew) if self.skew else {}))
        self.process = started.process if isinstance(started, Api) else started
        self.url = started.url if isinstance(started, Api) else ""

    def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Kill the group, or ask the main process to end."""
        self.expected_to_end = True
        if number is signal.SIGKILL:
            self.process.signal_group(number)
        else:
            self.process.signal_main(number)

    def children(self) -> list[int]:
        """The processes of its pool."""
        return [pid for pid in group_members(self.process.pid) if pid != self.process.pid]

    def bury(self) -> None:
        """Of a leader that has ended, the rest of its group ends too."""
        self.process.signal_group(signal.SIGKILL)


def skewed_by(seconds: int) -> dict[str, str]:
    """The environment of a process that takes the time to be another one; what measures durations is right."""
    spec = find_spec("libfaketime")
    assert spec is not None
    assert spec.submodule_search_locations
    library = Path(spec.submodule_search_locations[0]) / "vendor/libfaketime/src/libfaketime.so.1"
    return {"LD_PRELOAD": str(library), "FAKETIME": f"{seconds:+d}s", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


def cabled(stack: Stack, ports: dict[str, int], cables: dict[str, Proxy]) -> dict[str, str]:
    """The addresses of the two servers through ``cables``; ``ports`` are the real ones."""
    names = {"DATABASE_URL": "postgres", "REDIS_URL": "redis"}
    return {
        name: stack.environment[name].replace(f":{ports[end]}/", f":{cables[end].port}/")
        for name, end in names.items()
    }
