"""Calculations that keep a processor busy for long: in few threads of their own, so that nobody else waits for them.

Not in the loop, where they would hold up every request and stream; not in the threads that publish runs, which they would
fill. A request that is given up (`app.api.middleware.Deadline`, a client that leaves) takes its calculation out of the
line, or makes one that is `interruptible` stop.
"""

import asyncio
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from typing import Final, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

AT_ONCE: Final = 2

_threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="calculations")
_unwanted: ContextVar[threading.Event | None] = ContextVar("unwanted", default=None)


class GivenUp(Exception):
    """Nobody waits for the result any more."""


async def calculated(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What ``work`` returns or raises, with the context of its caller."""
    unwanted, context = threading.Event(), copy_context()

    def run() -> T:
        _unwanted.set(unwanted)
        return work(*args, **kwargs)

    try:
        return await asyncio.get_running_loop().run_in_executor(_threads, context.run, run)
    finally:
        unwanted.set()


def interruptible(items: Iterable[T]) -> Iterator[T]:
    """The same items, until nobody waits for what is made of them.

    Raises:
        GivenUp: the caller of `calculated` has left.
    """
    unwanted = _unwanted.get()
    for item in items:
        if unwanted is not None and unwanted.is_set():
            raise GivenUp
        yield item
