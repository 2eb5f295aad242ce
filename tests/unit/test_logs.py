"""The form of a line: the same for the standard library's and structlog's, with what it is about."""

import io
import json
import logging
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import Any

import pytest
import structlog

from app import logs
from app.settings import LogSettings

Written = Callable[[], str]
logger = logging.getLogger("app.test")


@pytest.fixture
def as_json(kept_logging: None, monkeypatch: pytest.MonkeyPatch) -> Written:
    return started("json", monkeypatch)


@pytest.fixture
def for_people(kept_logging: None, monkeypatch: pytest.MonkeyPatch) -> Written:
    return started("console", monkeypatch)


@pytest.fixture
def kept_logging() -> Iterator[None]:
    """What this process logs with is as before, afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    logs.leave()
    for handler in root.handlers:
        if isinstance(handler, WatchedFileHandler):
            handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


def started(form: str, monkeypatch: pytest.MonkeyPatch) -> Written:
    written = io.StringIO()
    monkeypatch.setattr("sys.stderr", written)
    logs.configure(LogSettings(format=form, level="INFO"))
    return written.getvalue


def lines(written: Written) -> list[dict[str, Any]]:
    return [json.loads(line) for line in written().splitlines()]


def test_both_ways_of_logging_give_one_form(as_json: Written) -> None:
    logs.enter(run_id="r1", attempt=2, schedule_id=None)
    logger.warning("%d left", 3, extra={"action": "counted", "missing": None, "data": "Celery's own"})
    structlog.get_logger("app.test").warning("3 left", action="counted")
    first, second = lines(as_json)
    times = [datetime.fromisoformat(line.pop("time")) for line in (first, second)]
    assert abs(times[0] - times[1]) < timedelta(seconds=5)
    expected = {
        "level": "warning", "logger": "app.test", "message": "3 left", "action": "counted",
        "run_id": "r1", "attempt": 2,
    }  # fmt: skip
    assert first.pop("pid") == second.pop("pid")
    assert first == second == expected


def test_what_is_nobody_s_is_about_nothing(as_json: Written) -> None:
    logs.enter(request_id="q1")
    logs.also(user="ada")
    logger.info("inside")
    logs.leave()
    logger.info("outside")
    inside, outside = lines(as_json)
    assert (inside["request_id"], inside["user"]) == ("q1", "ada")
    assert not {"request_id", "user"} & set(outside)


def test_another_thread_is_told(as_json: Written) -> None:
    logs.enter(run_id="r1")
    about = logs.about()

    def work() -> None:
        logger.info("untold")
        logs.enter(**about)
        logger.info("told")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert [line.get("run_id") for line in lines(as_json)] == [None, "r1"]


def test_an_exception_has_its_trace_and_no_local_variables(as_json: Written) -> None:
    fail(secret="hunter2")
    (line,) = lines(as_json)
    assert list(line)[-1] == "traceback"
    assert line["traceback"].endswith("ValueError: invalid literal for int() with base 10: 'no'")
    assert "hunter2" not in as_json()


def test_for_people_a_line_begins_with_time_and_level(for_people: Written) -> None:
    logs.enter(run_id="r1")
    logger.info("started", extra={"action": "start"})
    fail(secret="hunter2")
    text = for_people()
    first, second, *trace = text.splitlines()
    assert first.split(" ", 1)[1] == "INFO    app.test: started run_id=r1 action=start"
    assert second.split(" ", 1)[1] == "ERROR   app.test: it failed run_id=r1"
    assert trace[0].startswith("Traceback")
    assert "hunter2" not in text
    assert "\x1b" not in text


def fail(secret: str) -> None:
    try:
        int("no")
    except ValueError:
        logger.exception("it failed")


def test_a_level_that_is_too_low_is_left_out(as_json: Written) -> None:
    logger.debug("no")
    structlog.get_logger("app.test").debug("no")
    assert as_json() == ""


def test_setting_up_again_doubles_nothing_and_leaves_others(as_json: Written) -> None:
    others = logging.NullHandler()
    logging.getLogger().addHandler(others)
    logs.configure(LogSettings(format="json"))
    handlers = logging.getLogger().handlers
    assert [each.get_name() for each in handlers].count("upbeat") == 1
    assert others in handlers


def test_a_file_that_others_rotate_is_opened_anew(kept_logging: None, tmp_path: Path) -> None:
    file = tmp_path / "worker.log"
    logs.configure(LogSettings(), file=str(file))
    logger.info("one")
    file.rename(tmp_path / "worker.log.1")
    logger.info("two")
    assert "one" in (tmp_path / "worker.log.1").read_text()
    assert [line.rpartition(" ")[2] for line in file.read_text().splitlines()] == ["two"]


def test_what_a_run_keeps_of_structlog_s_lines_is_readable() -> None:
    record = logging.makeLogRecord({"msg": {"event": "sent", "to": "ada", "exc_info": True}})
    assert logs.said(record) == "sent to=ada"
    assert logs.said(logging.makeLogRecord({"msg": "%s!", "args": ("sent",)})) == "sent!"
