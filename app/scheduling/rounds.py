"""What a process does now and then, each thing at its own pace."""

import time


class Rounds:
    """When each was done last. Not safe for use by two threads at once."""

    def __init__(self, **first: float) -> None:
        """``first``: in how many seconds each is done for the first time."""
        now = time.monotonic()
        self._next = {what: now + seconds for what, seconds in first.items()}

    def is_time(self, what: str, every: float) -> bool:
        """Whether it is to be done now, and then not again for ``every`` seconds."""
        now = time.monotonic()
        if now < self._next[what]:
            return False
        self._next[what] = now + every
        return True

    def hasten(self, what: str) -> None:
        """Let it be done the next time that somebody asks."""
        self._next[what] = 0.0
