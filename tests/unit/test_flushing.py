"""What waits to be stored while the database is away: bounded, in order, and told about."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from app.cli.embedded import free_port
from app.scheduling.ids import new_id
from app.scheduling.run_logs import Line
from app.settings import get_settings
from app.worker import capture, flushing, progress
from app.worker.capture import RunLog
from app.worker.flushing import Flusher

RUN, OTHER = new_id(), new_id()


@pytest.fixture
def flusher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Flusher]:
    """One whose database nobody answers for."""
    monkeypatch.setenv("DATABASE_URL", f"postgresql://nobody@127.0.0.1:{free_port()}/nothing")
    monkeypatch.setattr(flushing, "WAITING_LINES", 10)
    monkeypatch.setattr(flushing, "CLOSE_PATIENCE", 0.2)
    get_settings.cache_clear()
    made = Flusher()
    monkeypatch.setattr(capture, "flusher", made)
    yield made
    made.close()
    get_settings.cache_clear()


def line(number: int, run: object = RUN) -> Line:
    return Line(run, 1, number, datetime.now(UTC), "info", "test", f"line {number}")  # type: ignore[arg-type]


def test_no_more_waits_than_there_is_room_for(flusher: Flusher) -> None:
    assert [flusher.add(line(number)) for number in range(12)] == [True] * 10 + [False] * 2


def test_the_end_of_a_run_takes_its_own_lines_in_order(flusher: Flusher) -> None:
    for number in range(4):
        flusher.add(line(number, RUN if number % 2 else OTHER))
    assert not flusher.flush(0.5), "nobody is there to store them"
    assert [each.number for each in flusher.take(RUN, 1, 0.5)] == [1, 3]
    assert flusher.take(RUN, 1, 0.5) == []
    assert [each.number for each in flusher.take(OTHER, 1, 0.5)] == [0, 2]
    assert flusher.flush(0.5), "nothing is left to store"


def test_a_run_says_which_of_its_lines_are_missing(flusher: Flusher) -> None:
    log = RunLog(RUN, 1)
    for number in range(15):
        log.add("info", "test", f"line {number}")
    taken = flusher.take(RUN, 1, 0.5)
    assert [each.message for each in taken] == [f"line {number}" for number in range(10)]
    log.add("info", "test", "room again")
    log.end()
    assert [each.message for each in flusher.take(RUN, 1, 0.5)] == [
        "5 lines are missing here: the database was away for too long.",
        "room again",
    ]


def test_lines_after_the_end_are_dropped(flusher: Flusher) -> None:
    log = RunLog(RUN, 1)
    log.write("stdout", "info", "one\ntwo")
    log.end()
    log.add("info", "test", "too late")
    log.write("stdout", "info", "too late\n")
    assert [each.message for each in flusher.take(RUN, 1, 0.5)] == ["one", "two"]


def test_without_stored_logs_there_is_still_progress(
    flusher: Flusher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UPBEAT_LOG_RUNS", "false")
    get_settings.cache_clear()
    with capture.recording(RUN, 1):
        log = capture.current.get()
        assert log is not None
        log.add("info", "test", "not stored")
        progress(1, 2)
    assert flusher.take(RUN, 1, 0.1) == []
    assert flusher._progress[RUN, 1]["done"] == 1


@pytest.mark.parametrize("bad", [-1, float("nan"), float("inf")])
def test_progress_is_a_number_that_can_be_shown(bad: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        progress(bad)
    with pytest.raises(ValueError, match="finite"):
        progress(0, bad)
    progress(1, 2, "outside of a run nothing happens")
