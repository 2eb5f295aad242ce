"""A TCP proxy between two parts, which a test makes fail in the ways in which networks do.

It runs in a thread of its own. A mode is in force for connections that are open and for those that come.
"""

import asyncio
import random
import socket
import struct
import threading
from collections.abc import Coroutine
from contextlib import suppress
from enum import StrEnum
from types import TracebackType
from typing import Any, Self

from app.cli.embedded import LOOPBACK

CHUNK = 65536
RESET = struct.pack("ii", 1, 0)
# What a process sends when it commits: a worker mostly does so with one prepared statement (`app.db.single`).
COMMITS = {"beat": b"COMMIT", "worker": b"alone_", "api": b"COMMIT"}


class Mode(StrEnum):
    """``refuse`` resets every connection; ``blackhole`` holds all bytes until the mode changes, as a cut cable does;
    ``half_open`` ends the server's side and leaves the client's open and silent until then; ``slow`` delays each piece.
    """

    PASS = "pass"
    REFUSE = "refuse"
    BLACKHOLE = "blackhole"
    HALF_OPEN = "half_open"
    SLOW = "slow"


class _Link:
    """One connection through the proxy."""

    def __init__(self, client: asyncio.StreamWriter) -> None:
        self.client = client
        self.server: asyncio.StreamWriter | None = None
        self.reply_is_lost = False

    def reset(self) -> None:
        for writer in (self.client, self.server):
            if writer is not None:
                _reset(writer)


class Proxy:
    """Listens on ``port`` of loopback for as long as the context lasts."""

    def __init__(self, target: int, *, delay: float = 0.05) -> None:
        """``target`` is a port of loopback, ``delay`` what ``slow`` adds to each piece in seconds."""
        self.port = 0
        self.lost_replies = 0
        self._target = target
        self._delay = delay
        self._mode = Mode.PASS
        self._links: set[_Link] = set()
        self._lose: tuple[bytes, float, random.Random] | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._listen())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._do(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def set(self, mode: Mode) -> None:
        """Be in this mode from now on."""
        self._do(self._change(mode))

    def lose_replies(self, to: bytes, chance: float, seed: int) -> None:
        """From now on: what the client sends and contains ``to`` arrives, and with this chance the connection is reset
        when it is answered. A chance of 0 ends it."""
        self._lose = (to, chance, random.Random(seed)) if chance else None

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self) -> None:
        self._open = asyncio.Event()
        self._open.set()
        self._server = await asyncio.start_server(self._serve, LOOPBACK, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        self._server.close()
        self._open.set()
        for link in list(self._links):
            link.reset()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _change(self, mode: Mode) -> None:
        self._mode = mode
        if mode is Mode.REFUSE:
            for link in list(self._links):
                link.reset()
        if mode is Mode.HALF_OPEN:
            for link in self._links:
                if link.server is not None:
                    _reset(link.server)
        if mode in (Mode.BLACKHOLE, Mode.HALF_OPEN):
            self._open.clear()
        else:
            self._open.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = _Link(writer)
        self._links.add(link)
        try:
            if self._mode is Mode.REFUSE:
                return
            await self._open.wait()
            answers, link.server = await asyncio.open_connection(LOOPBACK, self._target)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(link, reader, link.server, to_server=True))
                both.create_task(self._pump(link, answers, writer, to_server=False))
        except (OSError, ExceptionGroup, asyncio.CancelledError):
            # A connection that ended, one way or another, also with the proxy.
            pass
        finally:
            self._links.discard(link)
            link.reset()

    async def _pump(
        self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, to_server: bool
    ) -> None:
        try:
            await self._forward(link, reader, writer, to_server=to_server)
        finally:
            # While the cable is cut, an end is not heard either.
            await self._open.wait()
            link.reset()
        raise ConnectionAbortedError("over")

    async def _forward(
        self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, to_server: bool
    ) -> None:
        while data := await reader.read(CHUNK):
            await self._open.wait()
            if self._mode is Mode.SLOW:
                await asyncio.sleep(self._delay)
            if to_server:
                link.reply_is_lost = self._is_to_be_lost(data)
            elif link.reply_is_lost:
                self.lost_replies += 1
                return
            writer.write(data)
            await writer.drain()

    def _is_to_be_lost(self, data: bytes) -> bool:
        if self._lose is None:
            return False
        to, chance, generator = self._lose
        return to in data and generator.random() < chance


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with an RST, whatever was still to be sent."""
    raw = writer.get_extra_info("socket")
    if raw is not None and raw.fileno() >= 0:
        with suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()
