"""Public holidays by code."""

from datetime import date

import pytest

from app.errors import InvalidInput
from app.scheduling.public_holidays import check, holidays_of


@pytest.mark.parametrize(
    ("country", "subdivision", "day", "name"),
    [
        ("DE", None, date(2027, 10, 3), "German Unity Day"),
        ("DE", "BY", date(2027, 1, 6), "Epiphany"),
        ("US", None, date(2027, 11, 25), "Thanksgiving Day"),
        ("CN", None, date(2026, 2, 17), "Chinese New Year (Spring Festival)"),
        ("GB", "SCT", date(2027, 11, 30), "Saint Andrew's Day"),
    ],
)
def test_a_holiday(country: str, subdivision: str | None, day: date, name: str) -> None:
    check(country, subdivision, "holidays")
    assert holidays_of(country, subdivision, day.year)[day] == name


def test_subdivisions_differ() -> None:
    assert date(2027, 1, 6) not in holidays_of("DE", None, 2027)


def test_years_that_are_not_announced_yet_are_estimated_in_silence() -> None:
    assert date(2099, 1, 26) in holidays_of("IN", None, 2099)


@pytest.mark.parametrize(
    ("country", "subdivision", "field", "remedy"),
    [
        ("de", None, "holidays.country", "Did you mean DE"),
        ("Germany", None, "holidays.country", "Use DE or CN"),
        ("DE", "by", "holidays.subdivision", "Did you mean BY"),
        ("GB", "XX", "holidays.subdivision", "Use one of ENG, NIR, SCT, WLS."),
    ],
)
def test_codes_that_are_not_known(country: str, subdivision: str | None, field: str, remedy: str) -> None:
    with pytest.raises(InvalidInput, match=remedy) as caught:
        check(country, subdivision, "holidays")
    assert [error.field for error in caught.value.errors] == [field]
