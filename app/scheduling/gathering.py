"""Group commit: what is asked for at once, or while the last batch is under way, is done as one batch.

A lone caller waits for nobody: the batch begins with the event loop's next turn, and takes along who came by then.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")
LARGEST = 500


@dataclass(slots=True, eq=False)
class Call(Generic[T, R]):
    """One caller's wish, and where its answer goes."""

    wish: T
    answer: asyncio.Future[R]

    def give(self, result: R) -> None:
        """Answer, unless the caller has left."""
        if not self.answer.done():
            self.answer.set_result(result)

    def refuse(self, error: BaseException) -> None:
        """Raise it where the caller waits, unless it has left."""
        if not self.answer.done():
            self.answer.set_exception(error)


class Gathering(Generic[T, R]):
    """Hands batches to ``serve``, one after the other, which answers each call then or later.

    What ``serve`` raises is raised to all callers of the batch that have no answer. It runs without the context of any
    caller. All callers must be on one event loop at a time.
    """

    def __init__(
        self, serve: Callable[[Sequence[Call[T, R]]], Awaitable[None]], *, largest: int = LARGEST
    ) -> None:
        self._serve = serve
        self._largest = largest
        self._waiting: list[Call[T, R]] = []
        self._serving: asyncio.Task[None] | None = None

    def ask(self, wish: T) -> asyncio.Future[R]:
        """The answer, to be awaited; a caller that is cancelled before its batch begins has asked for nothing."""
        loop = asyncio.get_running_loop()
        call: Call[T, R] = Call(wish, loop.create_future())
        self._waiting.append(call)
        if self._serving is None or self._serving.done():
            self._serving = loop.create_task(self._keep_serving(), context=Context())
        return call.answer

    async def _keep_serving(self) -> None:
        while self._waiting:
            taken, self._waiting = self._waiting[: self._largest], self._waiting[self._largest :]
            batch = [call for call in taken if not call.answer.done()]
            if not batch:
                continue
            try:
                await self._serve(batch)
            except Exception as error:  # noqa: BLE001 - it is the callers' to handle
                for call in batch:
                    call.refuse(error)
            except asyncio.CancelledError:
                for call in (*batch, *self._waiting):
                    call.answer.cancel()
                raise
