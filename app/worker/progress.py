"""How far a run is, said by its own body."""

import math
from typing import Any

from app.worker import capture

LONGEST_MESSAGE = 500


def progress(done: float, total: float | None = None, message: str | None = None) -> None:
    """Say how far the current run is; `GET /runs/{id}` and its stream show the latest.

    May be called as often as one likes: it is stored twice a second at most. Outside of a run it does
    nothing, so that a body can be called as a plain function.

    Raises:
        ValueError: a negative number, or one that is not finite.
    """
    for name, number in (("done", done), ("total", total)):
        if number is not None and not (math.isfinite(number) and number >= 0):
            raise ValueError(f"{name} must be a finite number that is not negative")
    log = capture.current.get()
    if log is not None:
        document: dict[str, Any] = {"done": done, "total": total}
        document["message"] = None if message is None else capture.storable(str(message))[:LONGEST_MESSAGE]
        log.progress(document)
