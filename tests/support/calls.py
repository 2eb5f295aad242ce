"""Ordinary Celery code, for the tests of retries and canvas: nothing here knows Upbeat."""

import asyncio
import logging
import os
import time
from pathlib import Path
from typing import Any

from app.worker import app
from support.ledger import write


class Flaky(Exception):
    """Raised until the attempt that is to succeed."""


@app.task(name="calls.add")
def add(x: float, y: float) -> float:
    return x + y


@app.task(name="calls.total")
def total(numbers: list[float]) -> float:
    return sum(numbers)


@app.task(name="calls.identity")
def identity(value: object) -> object:
    return value


@app.task(name="calls.break_down")
def break_down(*args: object, message: str = "broken") -> None:
    raise ValueError(message)


@app.task(name="calls.opaque")
def opaque() -> object:
    """What it returns cannot be given to anybody."""
    return object()


@app.task(name="calls.nap")
async def nap(seconds: float, *args: object) -> float:
    await asyncio.sleep(seconds)
    return seconds


@app.task(name="calls.retry_until", bind=True, max_retries=5)
def retry_until(self: Any, attempt: int, countdown: float = 0.1) -> list[int]:
    write("start", self.request)
    if self.request.retries + 1 < attempt:
        raise self.retry(countdown=countdown, exc=Flaky("not yet", self.request.retries))
    return [self.request.retries, attempt]


@app.task(name="calls.retry_with", bind=True)
def retry_with(self: Any, value: int, *, extra: str = "") -> list[object]:
    if not extra:
        raise self.retry(args=(value + 1,), kwargs={"extra": "given"}, countdown=0)
    return [value, extra]


@app.task(name="calls.retry_never_ending", bind=True, max_retries=2, default_retry_delay=0.05)
def retry_never_ending(self: Any) -> None:
    write("start", self.request)
    raise self.retry()


@app.task(
    name="calls.auto", bind=True, autoretry_for=(Flaky,), retry_backoff=1, retry_jitter=True, max_retries=3
)
def auto(self: Any, attempt: int) -> int:
    if self.request.retries + 1 < attempt:
        raise Flaky("not yet")
    return int(self.request.retries)


@app.task(
    name="calls.auto_async",
    bind=True,
    autoretry_for=(Flaky,),
    retry_kwargs={"max_retries": 1, "countdown": 0.1},
)
async def auto_async(self: Any, attempt: int) -> int:
    await asyncio.sleep(0)
    write("start", self.request)
    if self.request.retries + 1 < attempt:
        raise Flaky("not yet")
    return int(self.request.retries)


@app.task(name="calls.ignored", ignore_result=True)
def ignored(path: str) -> str:
    Path(path).touch()
    return "not kept"


@app.task(name="calls.note")
def note(path: str, text: str) -> None:
    """Append a line, as a callback that leaves a trace."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(file, f"{text}\n".encode())
    os.close(file)


@app.task(name="calls.on_error")
def on_error(task_id: str, path: str = "") -> str:
    """An errback that takes the task id."""
    note(path, f"id {task_id}")
    return task_id


@app.task(name="calls.on_exception")
def on_exception(request: Any, exc: BaseException, traceback: object, path: str = "") -> None:
    """An errback that takes the exception."""
    note(path, f"exception {request.id} {type(exc).__name__} {exc}")


@app.task(name="calls.replaced", bind=True)
def replaced(self: Any, x: float) -> None:
    raise self.replace(add.s(x, 10))


@app.task(name="calls.replaced_by_group", bind=True)
def replaced_by_group(self: Any, x: float) -> None:
    raise self.replace(add.s(x, 1) | add.s(2))


@app.task(name="calls.parent", bind=True)
def parent(self: Any, x: float) -> str:
    return str(add.delay(x, 1).id)


@app.task(name="calls.who", bind=True)
def who(self: Any) -> list[object]:
    request = self.request
    return [request.id, request.root_id, request.parent_id, request.retries]


@app.task(name="calls.stamped", bind=True, max_retries=3)
def stamped(self: Any, seen: list[object] | None = None, *, attempts: int = 1) -> list[object]:
    """What the runs before and this one know of their stamps, in the last of its attempts."""
    if self.request.retries + 1 < attempts:
        raise self.retry(countdown=0)
    request = self.request
    return [*(seen or []), [sorted(request.stamped_headers or []), request.stamps or {}]]


class Classy(app.Task):  # type: ignore[misc,name-defined]
    """A task written as a class."""

    name = "calls.classy"

    def run(self, x: float) -> float:
        return 2 * x


classy = app.register_task(Classy())


@app.task(name="calls.late", bind=True)
def late(self: Any, seconds: float) -> str:
    """Blocks, and returns something that a fenced worker must not get recorded."""
    write("start", self.request)
    time.sleep(seconds)
    return "late"


@app.task(name="calls.restartable", bind=True, on_worker_lost="retry")
def restartable(self: Any, seconds: float, *, aloud: bool = False) -> int:
    """Takes that long in its first attempt only; another worker may start it again."""
    write("start", self.request)
    if aloud:
        logging.getLogger(__name__).warning("stored by the transaction that ends the run")
    if not self.request.retries:
        time.sleep(seconds)
    write("end", self.request)
    return int(self.request.retries)


@app.task(name="calls.own_state", bind=True)
def own_state(self: Any, path: str) -> str:
    """Says how far it is, and waits until somebody has seen it."""
    self.update_state(state="HALFWAY", meta={"done": 1, "total": 2})
    while not Path(path).exists():
        time.sleep(0.02)
    return "done"


@app.task(name="calls.large")
def large(size: int) -> str:
    return "x" * size


@app.task(name="calls.adds_a_part", bind=True)
def adds_a_part(self: Any, x: float) -> float:
    """A part of a chord that makes another one."""
    self.add_to_chord(add.s(x, 100))
    return x


@app.task(name="calls.without_arguments")
def without_arguments() -> None:
    """Not what an errback looks like, which gets a task id."""
