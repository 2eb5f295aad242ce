"""What a check says."""

import time
from dataclasses import dataclass, replace
from enum import StrEnum


class Verdict(StrEnum):
    """`skipped`: it needs something that another check found missing."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """``found`` is what there is, ``remedy`` what to do about it; ``seconds`` is what looking took."""

    check: str
    verdict: Verdict
    found: str
    remedy: str | None = None
    seconds: float = 0.0


def ok(check: str, found: str) -> Finding:
    """All is well."""
    return Finding(check, Verdict.OK, found)


def warn(check: str, found: str, remedy: str) -> Finding:
    """It works, but not as it should."""
    return Finding(check, Verdict.WARN, found, remedy)


def fail(check: str, found: str, remedy: str) -> Finding:
    """It does not work."""
    return Finding(check, Verdict.FAIL, found, remedy)


def skipped(check: str, found: str) -> Finding:
    """It could not be looked at."""
    return Finding(check, Verdict.SKIPPED, found)


class Stopwatch:
    """Says how long each finding took, from the one before it."""

    def __init__(self) -> None:
        self._since = time.monotonic()

    def timed(self, finding: Finding) -> Finding:
        """The finding, with its time."""
        now = time.monotonic()
        took, self._since = now - self._since, now
        return replace(finding, seconds=round(took, 3))
