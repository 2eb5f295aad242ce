"""A soft limit of a plain function reaches it in its own thread, while it runs, or not at all."""

import gc
import logging
import random
import threading
import time
import weakref
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from billiard.exceptions import SoftTimeLimitExceeded

from app.worker import capture, deadlines, limits
from app.worker.deadlines import Deadlines
from app.worker.interruption import interrupted

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

    watch, run = Deadlines(), Run()
    ended = weakref.ref(run)
    with watch.until(time.monotonic() + 3600, lambda run=run: None):  # type: ignore[misc]
        pass
    del run
    gc.collect()
    assert ended() is None
    with watch.until(time.monotonic() + 3600, lambda: None):
        for _ in range(10 * deadlines.CLEAR_FROM):
            with watch.until(time.monotonic() + 3600, lambda: None):
                pass
        assert len(watch._deadlines) <= deadlines.CLEAR_FROM
        assert sum(alarm.act is not None for *_, alarm in watch._deadlines) == 1


def test_a_deadline_is_kept_when_others_are_cleared() -> None:
    watch, passed = Deadlines(), threading.Event()
    with watch.until(time.monotonic() + 0.2, passed.set):
        for _ in range(2 * deadlines.CLEAR_FROM):
            with watch.until(time.monotonic() + 3600, lambda: None):
                pass
        assert passed.wait(10)


@pytest.mark.parametrize("here", [True, False])
def test_it_is_not_raised_where_it_would_be_swallowed(here: bool) -> None:  # noqa: FBT001
    """As by the handlers of a log."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            try:
                _compute(0.0005)
            except SoftTimeLimitExceeded:
                self.handleError(record)
                swallowed.append(record)

    def record() -> None:
        end = time.monotonic() + 2
        while time.monotonic() < end:
            log.warning("again")

    def body() -> None:
        for _ in range(5):
            with pytest.raises(SoftTimeLimitExceeded), interrupted(0.01):
                record()

    swallowed: list[logging.LogRecord] = []
    log = logging.getLogger("swallowing")
    log.propagate, log.handlers = False, [Handler(), capture._Handler()]
    if here:
        body()
    else:
        _in_a_thread(body)
    assert swallowed == []


def test_what_failed_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """As at a hard limit, while the database is away."""
    monkeypatch.setattr(deadlines, "AFTER_ERROR", 0.01)
    watch, passed, failures = Deadlines(), threading.Event(), iter([OSError("one"), OSError("two")])

    def act() -> None:
        if error := next(failures, None):
            raise error
        passed.set()

    with watch.until(time.monotonic(), act):
        assert passed.wait(10)


def test_a_run_without_limits_has_those_of_its_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_worker", limits._Worker())
    limits._take_defaults(SimpleNamespace(time_limit=5.0, soft_time_limit=3.0))
    task = SimpleNamespace(time_limit=None, soft_time_limit=2.0)
    assert limits.of(SimpleNamespace(timelimit=None), task) == (5.0, 2.0)
    assert limits.of(SimpleNamespace(timelimit=[4.0, 1.0]), task) == (4.0, 1.0)
