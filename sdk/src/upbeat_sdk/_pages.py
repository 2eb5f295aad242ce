"""Pages that are walked as if they were one list."""

from collections.abc import AsyncIterator, Generator, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Generic, TypeVar

from upbeat_sdk._call import Call
from upbeat_sdk._model import Model

if TYPE_CHECKING:
    from upbeat_sdk._shell import AsyncShell, SyncShell

M = TypeVar("M", bound=Model)


def next_call(call: Call, cursor: str) -> Call:
    """The call that asks for the page after this cursor."""
    return replace(call, query={**call.query, "cursor": cursor})


@dataclass(frozen=True, slots=True)
class Page(Generic[M]):
    """One page; iterating it goes on with the following pages, which are asked for when they are needed.

    ``items`` are those of this page; ``next_cursor`` is None on the last one.
    """

    items: list[M]
    next_cursor: str | None
    _call: Call = field(repr=False)
    _model: type[M] = field(repr=False)
    _shell: "SyncShell" = field(repr=False)

    def next_page(self) -> "Page[M] | None":
        """The page after this one, if there is one."""
        if self.next_cursor is None:
            return None
        return self._shell.page(next_call(self._call, self.next_cursor), self._model)

    def __iter__(self) -> Iterator[M]:
        page: Page[M] | None = self
        while page is not None:
            yield from page.items
            page = page.next_page()


@dataclass(frozen=True, slots=True)
class AsyncPage(Generic[M]):
    """As `Page`, with `async for`."""

    items: list[M]
    next_cursor: str | None
    _call: Call = field(repr=False)
    _model: type[M] = field(repr=False)
    _shell: "AsyncShell" = field(repr=False)

    async def next_page(self) -> "AsyncPage[M] | None":
        """The page after this one, if there is one."""
        if self.next_cursor is None:
            return None
        return await self._shell.read_page(next_call(self._call, self.next_cursor), self._model)

    async def __aiter__(self) -> AsyncIterator[M]:
        page: AsyncPage[M] | None = self
        while page is not None:
            for item in page.items:
                yield item
            page = await page.next_page()


@dataclass(frozen=True, slots=True)
class AsyncPages(Generic[M]):
    """A listing that was not asked for yet: `async for` walks all items, `await` gives the first page."""

    _call: Call = field(repr=False)
    _model: type[M] = field(repr=False)
    _shell: "AsyncShell" = field(repr=False)

    def __await__(self) -> Generator[object, None, AsyncPage[M]]:
        return self._first().__await__()

    async def __aiter__(self) -> AsyncIterator[M]:
        async for item in await self._first():
            yield item

    async def _first(self) -> AsyncPage[M]:
        return await self._shell.read_page(self._call, self._model)
