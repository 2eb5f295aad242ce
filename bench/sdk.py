"""The SDK beside bare httpx: what a call costs more, what importing it costs, and both forms of one program.

The peer sends the same request and reads the JSON of the answer. Both take turns, so that a noisy minute
falls on both. The server answers from memory, in a process of its own.
"""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import httpx

from app.cli.embedded import LOOPBACK, free_port
from bench.report import report
from support.polling import eventually
from upbeat_sdk import AsyncUpbeat, Upbeat

SOURCE = Path(__file__).resolve().parents[1] / "sdk" / "src"
TOKEN = "bench"
RUN = "0199d0c2-f2f0-7a51-9c66-3f0c5f3ad4b1"
PATH = f"/api/v1/runs/{RUN}"
PAGE = 50
SERVER = """
import asyncio, sys, uvicorn
from json import dumps
from upbeat_sdk import models
from upbeat_sdk.testing import blank

run = blank(models.Run) | {"state": "succeeded", "kwargs": {"month": "2026-03"}, "result": {"rows": 12}}
one = dumps(run).encode()
page = dumps({"items": [run] * 50, "next_cursor": None}).encode()


async def app(scope, receive, send):
    if scope["type"] == "http":
        body = page if scope["path"] == "/api/v1/runs" else one
        head = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        if scope["path"].endswith("SLOW"):
            await asyncio.sleep(0.01)
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": body})


uvicorn.run(app, host=sys.argv[1], port=int(sys.argv[2]), log_level="warning", lifespan="off")
"""


def calls(url: str, size: int) -> None:
    """Microseconds of one call, and of a page of 50 items, sync."""
    with httpx.Client(base_url=url) as bare, Upbeat(url, token=TOKEN) as client:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        ours, peer = _turns(
            lambda: client.runs.get(RUN),
            lambda: bare.get(PATH, headers=headers).raise_for_status().json(),
            size,
        )
        _compare("call-sync", size, ours, peer)
        ours, peer = _turns(
            lambda: client.runs.list(limit=PAGE),
            lambda: (
                bare.get("/api/v1/runs", params={"limit": PAGE}, headers=headers).raise_for_status().json()
            ),
            size,
        )
        _compare("page-sync", size, ours, peer, items=PAGE)


def async_calls(url: str, size: int) -> None:
    """Microseconds of one call, async, one after another."""

    async def measured() -> tuple[Taken, Taken]:
        async with httpx.AsyncClient(base_url=url) as bare, AsyncUpbeat(url, token=TOKEN) as client:

            async def plain() -> None:
                answer = await bare.get(PATH, headers={"Authorization": f"Bearer {TOKEN}"})
                answer.raise_for_status().json()

            return await _async_turns(lambda: client.runs.get(RUN), plain, size)

    _compare("call-async", size, *asyncio.run(measured()))


def forms(url: str, size: int) -> None:
    """Calls per second of one program: read many runs, each of which takes the service 10 ms.

    The async form has 20 calls on their way at a time.
    """

    def sync() -> float:
        with Upbeat(url, token=TOKEN) as client:
            started = time.perf_counter()
            found = [client.runs.get("SLOW") for _ in range(size)]
            return len(found) / (time.perf_counter() - started)

    async def other() -> float:
        async with AsyncUpbeat(url, token=TOKEN) as client:
            gate = asyncio.Semaphore(20)

            async def one() -> Any:
                async with gate:
                    return await client.runs.get("SLOW")

            started = time.perf_counter()
            found = await asyncio.gather(*(one() for _ in range(size)))
            return len(found) / (time.perf_counter() - started)

    rounds = [(sync(), asyncio.run(other())) for _ in range(3)]
    report(
        *("sdk", "forms", size, median(each[1] for each in rounds), "calls/s"),
        peer="the sync form",
        peer_value=median(each[0] for each in rounds),
    )


def imports(_: str, size: int) -> None:
    """Milliseconds of the processor to import it, beside what it stands on."""
    ground = "import asyncio, httpx; from pydantic import BaseModel"
    found = [(_imported("import upbeat_sdk"), _imported(ground)) for _ in range(size)]
    ours, peer = (median(each[side] for each in found) for side in (0, 1))
    report("sdk", "import", size, ours, "ms", peer="asyncio, httpx, pydantic", peer_value=peer)


MEASURES: dict[str, tuple[Callable[[str, int], None], int]] = {
    "call-sync": (calls, 1500),
    "call-async": (async_calls, 1500),
    "forms": (forms, 400),
    "import": (imports, 9),
}


def run(*, quick: bool, measures: Sequence[str] | None = None, **_: object) -> None:
    """Measure what was chosen, by default everything."""
    with _server() as url:
        for name in [each for each in measures or MEASURES if each in MEASURES]:
            measure, size = MEASURES[name]
            print(name, file=sys.stderr)
            measure(url, max(5, size // 10) if quick else size)


@contextmanager
def _server() -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-c", SERVER, LOOPBACK, str(port)]
    with subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(SOURCE)}) as process:
        url = f"http://{LOOPBACK}:{port}"
        try:
            eventually(lambda: _answers(url), 20, "the server of the benchmark")
            yield url
        finally:
            process.terminate()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url + PATH).is_success
    except httpx.TransportError:
        return False


class Taken:
    """What calls took: processor time of this process, and time on the wall, in seconds."""

    def __init__(self) -> None:
        self.processor: list[float] = []
        self.wall: list[float] = []
        self._begun = (0.0, 0.0)

    def __enter__(self) -> None:
        self._begun = (time.process_time(), time.perf_counter())

    def __exit__(self, *error: object) -> None:
        processor, wall = self._begun
        self.processor.append(time.process_time() - processor)
        self.wall.append(time.perf_counter() - wall)


def _compare(measure: str, size: int, ours: Taken, peer: Taken, **more: Any) -> None:
    """Processor time, since other work on the machine does not blur it; the first calls warmed up."""
    value, other, wall, peer_wall = (
        median(taken[len(taken) // 10 :]) * 1e6
        for taken in (ours.processor, peer.processor, ours.wall, peer.wall)
    )
    report(
        *("sdk", measure, size, value, "us/call"),
        peer="httpx",
        peer_value=other,
        overhead_us=round(value - other, 1),
        wall_us=round(wall, 1),
        peer_wall_us=round(peer_wall, 1),
        **more,
    )


def _turns(ours: Callable[[], object], peer: Callable[[], object], size: int) -> tuple[Taken, Taken]:
    """Both take turns, call by call."""
    sides = (Taken(), Taken())
    for _ in range(size):
        for taken, call in zip(sides, (ours, peer), strict=True):
            with taken:
                call()
    return sides


async def _async_turns(
    ours: Callable[[], Awaitable[object]], peer: Callable[[], Awaitable[object]], size: int
) -> tuple[Taken, Taken]:
    """As `_turns`."""
    sides = (Taken(), Taken())
    for _ in range(size):
        for taken, call in zip(sides, (ours, peer), strict=True):
            with taken:
                await call()
    return sides


def _imported(statement: str) -> float:
    code = f"import time; t = time.process_time(); {statement}; print((time.process_time() - t) * 1e3)"
    environment = os.environ | {"PYTHONPATH": str(SOURCE)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    return float(done.stdout)
