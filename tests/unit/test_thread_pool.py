"""The threads pool gives each task that has a slot a thread."""

from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from kombu.asynchronous import Hub

from app.worker.pools import Threads


@pytest.fixture
def pool() -> Iterator[Threads]:
    made = Threads(1, app=None)
    yield made
    made.on_stop()


def start(pool: Threads, body: Callable[[], object]) -> Any:
    """Have the pool execute this, without Celery's bookkeeping."""

    def target() -> tuple[int, object, float]:
        return 0, body(), 0.0

    return pool.on_apply(target, (), {}, lambda _: None, lambda *_: None)


def test_tasks_that_came_while_the_only_thread_was_busy_do_not_count_as_idle_threads(pool: Threads) -> None:
    gate = Barrier(2)
    queued = [start(pool, gate.wait), *(start(pool, int) for _ in range(3))]
    gate.wait(10)
    for each in queued:
        each.wait(10)
    pool.grow(2)
    together = Barrier(3, timeout=10)
    for each in [start(pool, together.wait) for _ in range(3)]:
        each.get(10)


def test_what_escapes_from_a_task_is_told(pool: Threads) -> None:
    """Otherwise nobody gives its slot back."""
    ended: list[object] = []

    def escape(error: BaseException) -> None:
        raise error

    for error in (ValueError("one"), KeyboardInterrupt("two")):
        pool.on_apply(escape, (error,), {}, None, lambda *_: None, error_callback=ended.append).wait(10)
    assert "one" in str(ended[0])
    assert "two" in str(ended[1])


def test_a_pool_whose_worker_is_reconnected_keeps_its_pipe(pool: Threads) -> None:
    hub = Hub()
    pool.register_with_event_loop(hub)
    opened = _open_files()
    for _ in range(3):
        hub.reset()
        pool.register_with_event_loop(hub)
    assert len(hub.readers) == 1
    assert _open_files() == opened
    start(pool, int).get(10)
    assert hub.poller.poll(10)
    hub.close()


def _open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())
