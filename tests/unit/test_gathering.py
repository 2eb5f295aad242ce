"""Group commit: who comes together is served together, and nobody alone waits."""

import asyncio
from collections.abc import Sequence
from contextvars import ContextVar

import pytest

from app.scheduling.gathering import Call, Gathering

Calls = Sequence[Call[int, int]]
place: ContextVar[str] = ContextVar("place", default="nowhere")


class Desk:
    """Doubles numbers, once it may; remembers what came together."""

    def __init__(self, *, open_: bool = True, largest: int = 500) -> None:
        self.open = asyncio.Event()
        if open_:
            self.open.set()
        self.begun = asyncio.Event()
        self.batches: list[list[int]] = []
        self.places: list[str] = []
        self.gathering: Gathering[int, int] = Gathering(self.serve, largest=largest)

    async def serve(self, calls: Calls) -> None:
        self.batches.append([call.wish for call in calls])
        self.begun.set()
        self.places.append(place.get())
        await self.open.wait()
        for call in calls:
            if call.wish < 0:
                raise ValueError("negative")
            call.give(call.wish * 2)

    async def ask(self, wish: int) -> int:
        return await self.gathering.ask(wish)


async def test_who_comes_together_is_served_together() -> None:
    desk = Desk()
    assert await asyncio.gather(*(desk.ask(number) for number in range(5))) == [0, 2, 4, 6, 8]
    assert desk.batches == [[0, 1, 2, 3, 4]]
    assert await desk.ask(7) == 14
    assert desk.batches[1:] == [[7]]


async def test_a_batch_under_way_gathers_the_next_one() -> None:
    desk = Desk(open_=False, largest=3)
    asked = [asyncio.create_task(desk.ask(1))]
    await desk.begun.wait()
    asked += [asyncio.create_task(desk.ask(number)) for number in range(2, 7)]
    await asyncio.sleep(0)
    desk.open.set()
    assert await asyncio.gather(*asked) == [2, 4, 6, 8, 10, 12]
    assert desk.batches == [[1], [2, 3, 4], [5, 6]]


async def test_an_error_is_for_those_who_have_no_answer_yet() -> None:
    desk = Desk()
    found = await asyncio.gather(*(desk.ask(number) for number in (1, -1, 2)), return_exceptions=True)
    assert found[0] == 2
    assert [type(each) for each in found[1:]] == [ValueError, ValueError]
    assert await desk.ask(3) == 6


async def test_who_leaves_before_the_batch_asked_for_nothing_and_disturbs_nobody() -> None:
    desk = Desk(open_=False)
    first = asyncio.create_task(desk.ask(1))
    await desk.begun.wait()
    second, third = asyncio.create_task(desk.ask(2)), asyncio.create_task(desk.ask(3))
    await asyncio.sleep(0)
    first.cancel()
    second.cancel()
    await asyncio.sleep(0)
    desk.open.set()
    assert await third == 6
    assert desk.batches == [[1], [3]]
    assert first.cancelled()


async def test_it_runs_in_nobodys_context() -> None:
    place.set("somewhere")
    desk = Desk()
    await desk.ask(1)
    assert desk.places == ["nowhere"]


async def test_a_gathering_serves_the_next_loop_too() -> None:
    desk = Desk()
    await desk.ask(1)

    def apart() -> int:
        return asyncio.run(desk.ask(2))

    assert await asyncio.to_thread(apart) == 4


@pytest.mark.parametrize("count", [1, 500, 1001])
async def test_each_gets_its_own_answer(count: int) -> None:
    desk = Desk()
    assert await asyncio.gather(*(desk.ask(n) for n in range(count))) == [n * 2 for n in range(count)]
    assert sum(map(len, desk.batches)) == count
