"""`upbeat logs`: the last lines of a service's log, and what is added to it."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from app.cli.supervision import SERVICE_LOGS
from app.errors import NotFound

BLOCK = 65_536
PAUSE = 0.2
BEFORE_FOLLOWING = 10


def log_of(service: str) -> Path:
    """The log of a service.

    Raises:
        NotFound: there is none in this folder.
    """
    file = SERVICE_LOGS[service]
    if not file.exists():
        raise NotFound(
            f"There is no {file} here: {service} was never started in this folder."
            f" `upbeat start {service}` starts it; one that runs elsewhere logs there."
        )
    return file


def last_lines(file: Path, number: int) -> list[str]:
    """Up to ``number`` lines, read from the end, going back into the file that was rotated last."""
    lines = _end_of(file, number)
    older = file.with_name(f"{file.name}.1")
    if len(lines) < number and older.exists():
        return _end_of(older, number - len(lines)) + lines
    return lines


def _end_of(file: Path, number: int) -> list[str]:
    with file.open("rb") as opened:
        at = opened.seek(0, 2)
        found = b""
        while at > 0 and found.count(b"\n") <= number:
            step = min(BLOCK, at)
            at -= step
            opened.seek(at)
            found = opened.read(step) + found
    return found.decode(errors="replace").splitlines()[-number:] if number else []


def follow(file: Path, until: Callable[[], bool] = lambda: False) -> Iterator[str]:
    """Whole lines as they are added, also after the file was rotated or cut off."""
    opened = file.open("rb")
    try:
        opened.seek(0, 2)
        part = b""
        while not until():
            if more := opened.read(BLOCK):
                *lines, part = (part + more).split(b"\n")
                yield from (line.decode(errors="replace") for line in lines)
            elif _replaced(file, opened.fileno(), opened.tell()):
                opened.close()
                opened = file.open("rb")
                part = b""
            else:
                time.sleep(PAUSE)
    finally:
        opened.close()


def _replaced(file: Path, descriptor: int, at: int) -> bool:
    try:
        now = file.stat()
    except OSError:
        return False  # between a rotation's two steps
    return now.st_size < at or not Path(f"/dev/fd/{descriptor}").samefile(file)
