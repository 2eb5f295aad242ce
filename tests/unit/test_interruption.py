"""A soft limit of a plain function reaches it in its own thread, while it runs, or not at all."""

import gc
import random
import threading
import time
import weakref
from collections.abc import Callable

import pytest
from billiard.exceptions import SoftTimeLimitExceeded

from app.worker import limits
from app.worker.limits import interrupted

ROUNDS = 150


def _in_a_thread(work: Callable[[], object]) -> None:
    failures: list[BaseException] = []

    def body() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - it is raised again
            failures.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    if failures:
        raise failures[0]


def _compute(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def _interrupt_at_random() -> None:
    generator = random.Random(1)
    interruptions = 0
    for _ in range(ROUNDS):
        try:
            with interrupted(generator.uniform(0.0005, 0.004)):
                _compute(0.002)
        except SoftTimeLimitExceeded:
            interruptions += 1
        # Whatever comes too late would be raised here, outside of the body.
        _compute(0.001)
    assert 0 < interruptions < ROUNDS


def test_it_is_raised_inside_or_never() -> None:
    """In the main thread. In others the interpreter starves its threads under many of these: see CPython's async_exc."""
    _interrupt_at_random()


def test_in_a_thread_it_is_raised_inside() -> None:
    def body() -> None:
        with pytest.raises(SoftTimeLimitExceeded), interrupted(0.02):
            _compute(20)

    _in_a_thread(body)


def test_in_the_main_thread_a_blocking_call_is_interrupted() -> None:
    began = time.monotonic()
    with pytest.raises(SoftTimeLimitExceeded), interrupted(0.05):
        time.sleep(30)
    assert time.monotonic() - began < 10


def test_another_thread_is_left_alone() -> None:
    ended = threading.Event()

    def undisturbed() -> None:
        _compute(0.1)
        ended.set()

    other = threading.Thread(target=undisturbed)
    other.start()
    with pytest.raises(SoftTimeLimitExceeded), interrupted(0.02):
        _compute(30)
    assert ended.wait(10)


def test_what_has_ended_is_not_kept_until_its_limit() -> None:
    class Run:
        pass

    watch, run = limits._Watch(), Run()
    ended = weakref.ref(run)
    with watch.until(time.monotonic() + 3600, lambda run=run: None):  # type: ignore[misc]
        pass
    del run
    gc.collect()
    assert ended() is None
    with watch.until(time.monotonic() + 3600, lambda: None):
        for _ in range(10 * limits.CLEAR_FROM):
            with watch.until(time.monotonic() + 3600, lambda: None):
                pass
        assert len(watch._deadlines) <= limits.CLEAR_FROM
        assert sum(alarm.act is not None for *_, alarm in watch._deadlines) == 1


def test_a_deadline_is_kept_when_others_are_cleared() -> None:
    watch, passed = limits._Watch(), threading.Event()
    with watch.until(time.monotonic() + 0.2, passed.set):
        for _ in range(2 * limits.CLEAR_FROM):
            with watch.until(time.monotonic() + 3600, lambda: None):
                pass
        assert passed.wait(10)
