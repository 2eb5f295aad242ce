"""The loop of a process outlives what its coroutines do, and lets them clean up."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest
from billiard.exceptions import TimeLimitExceeded

from app.scheduling.ids import new_id
from app.worker.app import _close
from app.worker.bridge import Bridge, RunCancelled
from support.polling import eventually

KEY = (new_id(), 1)


@pytest.fixture
def bridge() -> Iterator[Bridge]:
    made = Bridge()
    yield made
    made.close()


def _in_a_thread(work: Callable[[], Any]) -> "Future[Any]":
    future: Future[Any] = Future()

    def body() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - it is raised again
            future.set_exception(error)

    threading.Thread(target=body, daemon=True).start()
    return future


def test_a_shared_loop_outlives_a_subtask_that_exits(bridge: Bridge) -> None:
    async def leave() -> None:
        raise SystemExit(3)

    async def gather() -> None:
        await asyncio.gather(leave(), asyncio.sleep(30))

    with pytest.raises(RuntimeError, match="SystemExit"):
        _in_a_thread(lambda: bridge.run(gather())).result(10)
    assert _in_a_thread(lambda: bridge.run(asyncio.sleep(0, "on"))).result(10) == "on"


def test_who_is_asked_again_to_stop_cleans_up_undisturbed(bridge: Bridge) -> None:
    said: list[str] = []
    asked = asyncio.Event()

    async def clean_up() -> None:
        try:
            said.append("started")
            await asyncio.sleep(30)
        finally:
            said.append("cancelled")
            await asked.wait()
            said.append("cleaned")

    running = _in_a_thread(lambda: bridge.run(clean_up(), key=KEY))
    eventually(lambda: said == ["started"], 10)
    bridge.cancel(KEY, RunCancelled("cancelled_by_user"))
    eventually(lambda: said == ["started", "cancelled"], 10)
    bridge.cancel(KEY, RunCancelled("cancelled_by_user"))
    bridge._shared_loop().call_soon_threadsafe(asked.set)
    with pytest.raises(RunCancelled):
        running.result(10)
    assert said == ["started", "cancelled", "cleaned"]


def test_a_hard_limit_ends_a_clean_up_that_does_not_end(bridge: Bridge) -> None:
    async def hang() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(30)

    with pytest.raises(TimeLimitExceeded):
        bridge.run(hang(), soft_time_limit=0.05, time_limit=0.1)


def test_a_thread_that_nobody_can_stop_does_not_keep_the_process(bridge: Bridge) -> None:
    over = threading.Event()

    async def block() -> None:
        asyncio.get_running_loop().run_in_executor(None, over.wait, 30)

    bridge.run(block())
    bridge.close()
    assert not over.is_set()
    over.set()


def test_all_is_closed_although_something_cannot_be() -> None:
    closed: list[str] = []

    def fail() -> None:
        raise OSError("the database is away")

    _close(fail, lambda: closed.append("rest"))
    assert closed == ["rest"]
