"""Server-sent events, however they are cut into pieces."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from upbeat_sdk import Event
from upbeat_sdk._events import EventParser

TEXT = (
    "\ufeffretry: 2000\r\n\r\n"
    ": still here\n\n"
    'id: 1-1\nevent: log\ndata: {"message": "one\u2028line"}\n\n'
    "data: two\rdata:  lines\r\r"
    "event: nothing\n\n"
    "id: 1-2\r\nevent: end\r\ndata\r\n\r\n"
    "data: cut"
).encode()
EVENTS = [
    Event("log", '{"message": "one\u2028line"}', "1-1"),
    Event("message", "two\n lines", "1-1"),
    Event("end", "", "1-2"),
]


def test_events_are_read() -> None:
    assert EventParser().feed(TEXT) == EVENTS


@given(st.lists(st.integers(0, len(TEXT))))
def test_however_they_are_cut(cuts: list[int]) -> None:
    places = sorted({0, *cuts, len(TEXT)})
    parser = EventParser()
    found = [event for start, end in pairwise(places) for event in parser.feed(TEXT[start:end])]
    assert found == EVENTS


@given(st.binary())
def test_rubbish_is_survived(rubbish: bytes) -> None:
    EventParser().feed(rubbish)


def test_data_that_is_json() -> None:
    assert Event("state", '{"state": "running"}').json() == {"state": "running"}
