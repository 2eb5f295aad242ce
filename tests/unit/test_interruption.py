"""A soft limit of a plain function reaches it in its own thread, while it runs, or not at all."""

import random
import threading
import time
import weakref
from collections.abc import Callable

import pytest
from billiard.exceptions import SoftTimeLimitExceeded

from app.worker.limits import _Watch, interrupted

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


class _Run:
    def stop(self) -> None:
        raise AssertionError("its limit has not passed")


def test_runs_that_are_over_are_not_held_until_their_limits() -> None:
    watch, living = _Watch(), _Run()
    with watch.until(time.monotonic() + 3600, living.stop):
        for _ in range(5_000):
            run = _Run()
            with watch.until(time.monotonic() + 1800, run.stop):
                pass
        gone = weakref.ref(run)
        del run
        assert gone() is None
        assert len(watch._deadlines) < 1_000
        assert living.stop in [alarm.act for *_, alarm in watch._deadlines]


def test_the_earliest_limit_is_kept_though_later_ones_came_first() -> None:
    watch, passed = _Watch(), threading.Event()
    now = time.monotonic()
    with watch.until(now + 3600, _Run().stop), watch.until(now + 0.02, passed.set):
        assert passed.wait(10)
