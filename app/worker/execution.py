"""The run that this thread executes, and where the calls go that are made meanwhile.

A call (`delay`, `apply_async`, a chord's preparations) is a `Write`: something to do in a transaction.
While the body runs it is done at once. When the body has returned, Celery's tracer starts callbacks and
the rest of a chain before it reports the result: those are kept, and written by the transaction that
ends the run, so that a worker that lost its run starts nothing.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from celery import signals
from sqlalchemy.orm import Session

from app.scheduling.messages import RunMessage

Write = Callable[[Session], RunMessage | None]


@dataclass(eq=False, slots=True)
class Execution:
    """One attempt on its way. ``request`` is Celery's context of it, ``canvas`` that of the run row.

    ``alone``: nothing but its own end is expected to follow from it.
    """

    run_id: UUID
    attempt: int
    request: Any
    canvas: dict[str, Any]
    alone: bool = False
    depth: int = 0
    returned: bool = False
    settled: bool = False
    retry_error: BaseException | None = None
    successors: list[Write] = field(default_factory=list)

    @contextmanager
    def body(self) -> Iterator[None]:
        """Around each body that runs for this attempt; the outermost one is the task's own."""
        self.depth += 1
        try:
            yield
        finally:
            self.depth -= 1
            self.returned = self.returned or self.depth == 0

    @property
    def keeps_calls(self) -> bool:
        """Whether a call made now belongs to the transaction that ends the run."""
        return self.returned and not self.settled


current: ContextVar[Execution | None] = ContextVar("execution", default=None)
_collected: ContextVar[list[Write] | None] = ContextVar("collected", default=None)


@contextmanager
def collecting() -> Iterator[list[Write]]:
    """Collect the writes of all calls made inside, instead of doing them."""
    writes: list[Write] = []
    token = _collected.set(writes)
    try:
        yield writes
    finally:
        _collected.reset(token)


def kept(write: Write) -> bool:
    """Leave ``write`` to a transaction that comes; False when it must be done now."""
    collected = _collected.get()
    if collected is not None:
        collected.append(write)
        return True
    execution = current.get()
    if execution is not None and execution.keeps_calls:
        execution.successors.append(write)
        return True
    return False


def of_request(request: Any) -> Execution | None:
    """The execution that a request belongs to, if it is that of this thread."""
    execution = current.get()
    return execution if execution is not None and execution.request is request else None


@signals.task_postrun.connect(weak=False)
def _leave(task_id: str | None = None, **_: Any) -> None:
    execution = current.get()
    if execution is not None and str(execution.run_id) == task_id:
        current.set(None)
