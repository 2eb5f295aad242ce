"""`task_extra_config`: what it takes, and the plan that it makes of a timing."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from app.scheduling.config import ExtraConfig
from app.scheduling.plan import Jitter, Plan
from app.scheduling.timing import TimingError, parse

HOURLY = parse({"type": "interval", "every": 1, "unit": "hours"})
ONCE = parse({"type": "one_off", "at": "2027-03-01T09:00:00Z"})


@pytest.mark.parametrize(
    ("given", "jitter"),
    [
        (None, None),
        (30, Jitter(window=timedelta(seconds=30))),
        (0.25, Jitter(window=timedelta(milliseconds=250))),
        ("10%", Jitter(share=0.1)),
        ("0.5 %", Jitter(share=0.005)),
        ("99.99%", Jitter(share=0.9999)),
    ],
)
def test_jitter_is_seconds_or_a_share(given: Any, jitter: Jitter | None) -> None:
    config = ExtraConfig.model_validate({"jitter": given})
    assert config.plan(HOURLY).jitter == jitter
    stored = config.model_dump(mode="json", exclude_unset=True)
    assert ExtraConfig.model_validate(stored) == config


@pytest.mark.parametrize(
    "given", [0, -1, True, 86_401, float("nan"), "0%", "100%", "10", "-5%", "٣%", "1e1%", [], {}]
)
def test_what_is_no_jitter(given: Any) -> None:
    with pytest.raises(ValidationError, match=r"seconds, above 0 .* a share of the period") as caught:
        ExtraConfig.model_validate({"jitter": given})
    assert [error["loc"] for error in caught.value.errors()] == [("jitter",)]


def test_limits_reach_the_plan() -> None:
    config = ExtraConfig.model_validate(
        {"starts_at": "2027-01-01T00:00:00+01:00", "ends_at": "2027-12-31T23:59:59Z"}
    )
    assert config.plan(HOURLY) == Plan(
        timing=HOURLY,
        starts_at=datetime(2026, 12, 31, 23, tzinfo=UTC),
        ends_at=datetime(2027, 12, 31, 23, 59, 59, tzinfo=UTC),
    )


@pytest.mark.parametrize(
    "given",
    [
        {"starts_at": "2027-01-01T00:00:00"},
        {"ends_at": "tomorrow"},
        {"max_runs": 0},
        {"calendars": ["a"] * 21},
        {"calendars": [""]},
        {"calendars": "a"},
    ],
)
def test_what_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ExtraConfig.model_validate(given)


@pytest.mark.parametrize(
    ("timing", "given", "field"),
    [
        (HOURLY, {"starts_at": "2027-01-02T00:00:00Z", "ends_at": "2027-01-01T00:00:00Z"}, "ends_at"),
        (ONCE, {"jitter": "10%"}, "jitter"),
    ],
)
def test_what_makes_no_sense_together_names_its_field(timing: Any, given: dict[str, Any], field: str) -> None:
    with pytest.raises(TimingError) as caught:
        ExtraConfig.model_validate(given).plan(timing)
    assert caught.value.field == field


@pytest.mark.parametrize(
    "given",
    [
        {"grace": 0},
        {"grace": 31 * 86_400},
        {"grace": "soon"},
        {"tags": ["two words"]},
        {"tags": [""]},
        {"tags": "a"},
    ],
)
def test_what_is_no_grace_and_no_tag(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ExtraConfig.model_validate(given)


def test_grace_and_tags_do_not_change_when_a_schedule_fires() -> None:
    config = ExtraConfig.model_validate({"grace": 600, "tags": ["team:a", "nightly"]})
    assert config.plan(HOURLY) == ExtraConfig().plan(HOURLY)
    assert config.policies() == ExtraConfig().policies()
    assert config.model_dump(exclude_unset=True) == {"grace": 600, "tags": ["team:a", "nightly"]}
