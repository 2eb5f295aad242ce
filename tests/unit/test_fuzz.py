"""Cron expressions, schedules, schedule files and messages of strangers: read, or refused with a reason."""

import json
import time
from datetime import UTC, datetime
from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st

from app.errors import InvalidInput
from app.scheduling import schedule_file
from app.scheduling.timing import TimingError, parse
from app.worker.transport import Refused, read_envelope
from support.fuzz import ANYTHING, CRON, encoded, examples, spoilt
from support.rubbish import wake_up

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SCHEDULES: list[dict[str, Any]] = [
    {"type": "crontab", "expression": "*/5 9-17 * * MON-FRI", "timezone": "Europe/Berlin", "dst_gap": "skip"},
    {
        "type": "interval",
        "every": 3,
        "unit": "days",
        "anchor": "2026-01-01T00:00:00Z",
        "timezone": "Asia/Tokyo",
    },
    {"type": "one_off", "at": "2027-03-01T09:00:00", "timezone": "America/New_York", "run_if_past": True},
]
FILE = {
    "schedules": {
        "nightly": {
            "task_path": "auth.cleanup_old_sessions",
            "schedule": {"type": "crontab", "expression": "20 3 * * *", "timezone": "Europe/Berlin"},
            "task_kwargs": {"days": 30},
            "task_extra_config": {"overlap": "skip", "max_attempts": 3},
        }
    }
}
QUICKLY = 2.0


@given(CRON)
@examples(300)
def test_cron_expressions(expression: str) -> None:
    _read_or_refused({"type": "crontab", "expression": expression})


@given(st.sampled_from(SCHEDULES).flatmap(spoilt) | ANYTHING)
@examples(300)
def test_schedules(document: Any) -> None:
    _read_or_refused(document)


def _read_or_refused(document: Any) -> None:
    """What is read has a next tick that is later, or none; what is refused says where and why."""
    # Of the processor: whoever else uses it does not count.
    began = time.process_time()
    try:
        timing = parse(document)
    except TimingError as error:
        assert str(error).strip()
        assert len(str(error)) < 2000
    else:
        following = timing.next_after(NOW)
        assert following is None or following > NOW
    assert time.process_time() - began < QUICKLY


@given(spoilt(FILE) | ANYTHING)
@examples(100)
def test_schedule_files_of_any_content(document: Any) -> None:
    _file(yaml.safe_dump(document, allow_unicode=True))


@given(st.text(max_size=200) | st.text(alphabet="{}[]:,&*!|>-'\"%@` \n\tabs<=", max_size=80))
@examples(200)
def test_schedule_files_of_any_text(text: str) -> None:
    _file(text)


def _file(text: str) -> None:
    try:
        found = schedule_file.parse(text, "schedules.yaml")
    except InvalidInput as error:
        assert error.errors
        assert all(each.message for each in error.errors)
    else:
        assert isinstance(found, list)


@given(st.binary(max_size=300) | ANYTHING.map(encoded) | spoilt(wake_up()).map(encoded))
@examples(300)
def test_messages(content: bytes) -> None:
    try:
        envelope = read_envelope(content)
    except Refused as error:
        assert str(error)
        return
    assert envelope == json.loads(content)
    assert envelope["headers"]["id"]
    assert envelope["headers"]["task"]
