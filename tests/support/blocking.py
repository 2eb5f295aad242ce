"""The sync client in async tests: the same program, written once, for both clients."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Self

import httpx

from upbeat_sdk import Page, Run, Upbeat


class Awaited:
    """A sync object whose calls run in a thread and are awaited, as if it were the async one."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if callable(found):
            return lambda *args, **options: _Pending(lambda: found(*args, **options))
        return _wrapped(found)

    def __repr__(self) -> str:
        return repr(self._inner)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await asyncio.to_thread(self._inner.close)

    async def __aiter__(self) -> AsyncIterator[Any]:
        async for item in _walked(lambda: iter(self._inner)):
            yield item


class _Pending:
    """A call that was not made yet: it can be awaited, or walked."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call

    def __await__(self) -> Any:
        return self._made().__await__()

    async def _made(self) -> Any:
        return _wrapped(await asyncio.to_thread(self._call))

    async def __aiter__(self) -> AsyncIterator[Any]:
        async for item in _walked(lambda: iter(self._call())):
            yield item


async def _walked(begin: Callable[[], Iterator[Any]]) -> AsyncIterator[Any]:
    items = await asyncio.to_thread(begin)
    end = object()
    while (item := await asyncio.to_thread(next, items, end)) is not end:
        yield _wrapped(item)


def _wrapped(value: Any) -> Any:
    ours = isinstance(value, Upbeat | Run | Page) or type(value).__name__.endswith("Resource")
    return Awaited(value) if ours else value


class BlockingTransport(httpx.BaseTransport):
    """For a sync client in a thread: its requests are served by an async transport in this loop."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner
        self._loop = asyncio.get_running_loop()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return asyncio.run_coroutine_threadsafe(self._served(request), self._loop).result(60)

    async def _served(self, request: httpx.Request) -> httpx.Response:
        answer = await self._inner.handle_async_request(
            httpx.Request(request.method, request.url, headers=request.headers, content=request.read())
        )
        return httpx.Response(answer.status_code, headers=answer.headers, content=await answer.aread())
