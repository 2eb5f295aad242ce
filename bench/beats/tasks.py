"""The task that our schedules name; nobody runs it."""

from app.worker import app
from bench.beats import places


@app.task(name=places.TASK)
def task(n: int) -> int:
    """Give back the argument."""
    return n
