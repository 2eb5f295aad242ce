"""Arguments stay small and flat, whoever gives them."""

from typing import Any

import pytest
from pydantic import ValidationError

from app.scheduling.bounds import MAX_ARGUMENTS, MAX_DEPTH
from app.scheduling.config import RunRequest, ScheduleCreate, ScheduleUpdate


def nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels - 1):
        value = [value]
    return value


@pytest.mark.parametrize("name", ["args", "kwargs"])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("x" * MAX_ARGUMENTS, "256 KiB"),
        ("é" * (MAX_ARGUMENTS // 2), "256 KiB"),
        (nested(MAX_DEPTH), "64 levels"),
        (nested(100_000), "64 levels"),
    ],
)
def test_what_is_too_large_is_refused(name: str, value: object, message: str) -> None:
    given: Any = [value] if name == "args" else {"value": value}
    schedule: dict[str, Any] = {"task_name": "x", "task_path": "x", f"task_{name}": given}
    with pytest.raises(ValidationError, match=message):
        RunRequest.model_validate({name: given})
    for model in (ScheduleCreate, ScheduleUpdate):
        with pytest.raises(ValidationError, match=message):
            model.model_validate(schedule)


def test_what_just_fits_is_taken() -> None:
    text = "x" * (MAX_ARGUMENTS - len('[""]'))
    assert RunRequest(args=[text]).args == [text]
    assert RunRequest(args=nested(MAX_DEPTH)).args
