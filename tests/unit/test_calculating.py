"""Long calculations: elsewhere, few at a time, and not for nobody."""

import asyncio
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from itertools import count

import pytest

from app.scheduling.calculating import AT_ONCE, calculated, interruptible

WHO: ContextVar[str] = ContextVar("who", default="nobody")


async def test_it_answers_and_raises_for_its_caller() -> None:
    WHO.set("me")
    assert await calculated(lambda: (WHO.get(), threading.current_thread() is threading.main_thread())) == (
        "me",
        False,
    )
    with pytest.raises(ZeroDivisionError):
        await calculated(lambda: 1 // 0)
    assert await calculated(lambda: list(interruptible("abc"))) == ["a", "b", "c"]
    assert list(interruptible("abc")) == ["a", "b", "c"], "outside nobody interrupts"


async def test_who_leaves_takes_the_calculation_along() -> None:
    begun = [threading.Event() for _ in range(AT_ONCE)]
    never: list[str] = []

    def endless(number: int) -> None:
        for _ in interruptible(count()):
            begun[number].set()

    running = [asyncio.create_task(calculated(endless, number)) for number in range(AT_ONCE)]
    waiting = asyncio.create_task(calculated(never.append, "waiting"))
    for each in begun:
        assert await asyncio.to_thread(each.wait, 10)
    assert not waiting.done(), "no more at a time"
    for task in (waiting, *running):
        task.cancel()
    assert await asyncio.wait_for(calculated(lambda: "next"), 10) == "next"
    assert never == []


def test_items_are_looked_at_one_by_one() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise LookupError

    found = interruptible(items())
    assert next(found) == 1
    with pytest.raises(LookupError):
        next(found)
