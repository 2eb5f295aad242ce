"""Points at which a fault test kills or freezes this process; inert unless ``UPBEAT_FAILPOINTS`` arms one.

``UPBEAT_FAILPOINTS=beat.fired=kill@3,publish.pushed=freeze`` kills the process when it comes to the first point for
the third time, and freezes it (SIGSTOP) when it comes to the second for the first time. ``UPBEAT_FAILPOINTS=@FILE``
takes the same words from a file that may come at any time, and goes when it has been obeyed, once.
"""

import os
import signal
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from app.errors import ConfigurationError
from app.settings import get_settings

POINTS = frozenset(
    {
        "beat.fired",  # inside the transaction of a firing, everything written
        "beat.committed",  # after it, nothing published
        "enqueue.committed",  # runs on demand are stored, and not published
        "publish.pushed",  # between two batches of wake-ups
        "start.committed",  # the attempt is running, the worker does not know it yet
        "finish.written",  # inside the transaction that ends an attempt
        "finish.committed",  # after it, successors not published
        "ends.unconfirmed",  # ends were told to everybody, and may not be on the disk yet
    }
)
SIGNALS = {"kill": signal.SIGKILL, "freeze": signal.SIGSTOP}
FROM_FILE = "@"


@dataclass(slots=True)
class Armed:
    """``left`` counts down to the time at which the signal is sent."""

    number: signal.Signals
    left: int


def parse(text: str) -> dict[str, Armed]:
    """What the variable arms.

    Raises:
        ConfigurationError: it names no point or no action.
    """
    armed = {}
    for item in filter(None, text.split(",")):
        point, _, what = item.strip().partition("=")
        action, _, times = what.partition("@")
        if point not in POINTS or action not in SIGNALS or not (times or "1").isdecimal():
            raise ConfigurationError(
                f"UPBEAT_FAILPOINTS arms POINT=kill|freeze[@TIMES], of {', '.join(sorted(POINTS))}."
            )
        armed[point] = Armed(SIGNALS[action], int(times or "1"))
    return armed


@lru_cache(maxsize=1)
def _armed() -> dict[str, Armed] | Path:
    stated = get_settings().failpoints.armed
    return Path(stated.removeprefix(FROM_FILE)) if stated.startswith(FROM_FILE) else parse(stated)


def reach(point: str) -> None:
    """Say that this process is at ``point``."""
    armed = _armed()
    if not armed:
        return
    if isinstance(armed, Path):
        _obey(armed, point)
    elif (found := armed.get(point)) is not None:
        found.left -= 1
        if found.left == 0:
            os.kill(os.getpid(), found.number)


def _obey(file: Path, point: str) -> None:
    """Of several processes that share the file, the one that removes it is meant."""
    try:
        found = parse(file.read_text()).get(point)
        if found is None:
            return
        file.unlink()
    except FileNotFoundError:
        return
    os.kill(os.getpid(), found.number)
