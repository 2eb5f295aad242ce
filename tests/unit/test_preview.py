"""The DST cases of semantics.md as a table that people can read, through the preview that they will be shown."""

from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from app.scheduling.plan import Jitter, Plan
from app.scheduling.preview import DstMark, PreviewTick, preview
from app.scheduling.timing import parse

SCHEDULE = UUID("0199d0c2-f2f0-7a51-9c66-3f0c5f3ad4b1")
BERLIN = {"type": "crontab", "timezone": "Europe/Berlin"}

# What is written, from which local noon on, and what the wall shows at the next ticks. `skipped 02:30` is a tick at
# the end of a gap, for the absent time named; `1st` and `2nd` are the two occurrences of a repeated time.
TABLE = """
expression     | zone                | dst_gap | from       | ticks
30 2 * * *     | Europe/Berlin       | run     | 2026-03-28 | 29 03:00+02 skipped 02:30, 30 02:30+02, 31 02:30+02
30 2 * * *     | Europe/Berlin       | skip    | 2026-03-28 | 30 02:30+02, 31 02:30+02
0,30 2 * * *   | Europe/Berlin       | run     | 2026-03-28 | 29 03:00+02 skipped 02:30, 30 02:00+02, 30 02:30+02
0 2,3 * * *    | Europe/Berlin       | run     | 2026-03-28 | 29 03:00+02 skipped 02:00, 30 02:00+02, 30 03:00+02
*/30 2 * * *   | Europe/Berlin       | run     | 2026-03-28 | 30 02:00+02, 30 02:30+02, 31 02:00+02
0 */2 29 * *   | Europe/Berlin       | run     | 2026-03-28 | 29 00:00+01, 29 04:00+02, 29 06:00+02
30 2 * * *     | Europe/Berlin       | run     | 2026-10-24 | 25 02:30+02 1st, 26 02:30+01, 27 02:30+01
30 2 * * *     | Europe/Berlin       | skip    | 2026-10-24 | 25 02:30+02 1st, 26 02:30+01, 27 02:30+01
*/30 2 * * *   | Europe/Berlin       | run     | 2026-10-24 | 25 02:00+02 1st, 25 02:30+02 1st, 25 02:00+01 2nd, 25 02:30+01 2nd
15 * 25 10 *   | Europe/Berlin       | run     | 2026-10-24 | 25 00:15+02, 25 01:15+02, 25 02:15+02 1st, 25 02:15+01 2nd
30 2 * * *     | America/New_York    | run     | 2026-03-07 | 08 03:00-04 skipped 02:30, 09 02:30-04
30 1 * * *     | America/New_York    | run     | 2026-10-31 | 01 01:30-04 1st, 02 01:30-05
15 2 * * *     | Australia/Lord_Howe | run     | 2026-10-03 | 04 02:30+11 skipped 02:15, 05 02:15+11
*/15 1 * * *   | Australia/Lord_Howe | run     | 2026-04-04 | 05 01:00+11, 05 01:15+11, 05 01:30+11 1st, 05 01:45+11 1st, 05 01:30+1030 2nd
0 12 30 12 *   | Pacific/Apia        | run     | 2011-12-28 | 31 00:00+14 skipped 12:00, 30 12:00+14
0 0 * * *      | America/Sao_Paulo   | run     | 2018-11-03 | 04 01:00-02 skipped 00:00, 05 00:00-02
0 0 * * *      | Asia/Kolkata        | run     | 2026-03-28 | 29 00:00+0530, 30 00:00+0530
30 2 * * *     | UTC                 | run     | 2026-03-28 | 29 02:30+00, 30 02:30+00
"""  # fmt: skip
CASES = [[cell.strip() for cell in line.split("|")] for line in TABLE.strip().splitlines()[1:]]


def ask(schedule: dict[str, Any], after: datetime, n: int, **more: Any) -> list[PreviewTick]:
    return preview(Plan(timing=parse(schedule), **more), SCHEDULE, after, n)


def shown(tick: PreviewTick) -> str:
    offset = f"{tick.local:%z}".removesuffix("00")
    text = f"{tick.local:%d %H:%M}{offset}"
    if tick.dst is DstMark.GAP:
        return f"{text} skipped {tick.asked_for:%H:%M}"
    return text + {None: "", DstMark.REPEATED_FIRST: " 1st", DstMark.REPEATED_SECOND: " 2nd"}[tick.dst]


@pytest.mark.parametrize("case", CASES, ids=[" ".join(case[:4]) for case in CASES])
def test_dst(case: list[str]) -> None:
    expression, zone, dst_gap, day, expected = case
    ticks = expected.split(", ")
    plan = Plan(
        timing=parse({"type": "crontab", "expression": expression, "timezone": zone, "dst_gap": dst_gap})
    )
    after = datetime.fromisoformat(f"{day}T12:00").replace(tzinfo=plan.zone)
    assert [shown(tick) for tick in preview(plan, SCHEDULE, after, len(ticks))] == ticks


def test_a_tick_in_full() -> None:
    saturday = datetime(2026, 3, 28, 12, tzinfo=UTC)
    spread = {"jitter": Jitter(window=timedelta(hours=1))}
    sunday, monday = ask({**BERLIN, "expression": "30 2 * * *"}, saturday, 2, **spread)
    assert sunday == PreviewTick(
        nominal=datetime(2026, 3, 29, 1, tzinfo=UTC),
        due_at=sunday.due_at,
        local=datetime.fromisoformat("2026-03-29T03:00+02:00"),
        dst=DstMark.GAP,
        asked_for=datetime(2026, 3, 29, 2, 30),
        offset_change=timedelta(hours=1),
        excluded_by=None,
        estimated=False,
    )
    assert sunday.nominal < sunday.due_at < sunday.nominal + timedelta(hours=1)
    assert monday.offset_change is None


def test_the_change_since_the_tick_before_is_shown_also_where_no_tick_is_moved() -> None:
    noon = ask({**BERLIN, "expression": "0 12 * * 6"}, datetime(2026, 10, 18, tzinfo=UTC), 3)
    assert [tick.offset_change for tick in noon] == [None, -timedelta(hours=1), None]
    assert {tick.dst for tick in noon} == {None}


@pytest.mark.parametrize("zone", ["Europe/Berlin", "UTC"])
def test_intervals_are_marked_too(zone: str) -> None:
    daily = {"type": "interval", "every": 1, "unit": "days", "timezone": "Europe/Berlin"}
    daily["anchor"] = "2026-01-01T02:30+01:00"
    first, second = ask(daily, datetime(2026, 3, 28, 12, tzinfo=UTC), 2)
    assert (shown(first), shown(second)) == ("29 03:00+02 skipped 02:30", "30 02:30+02")
    hourly = {"type": "interval", "every": 1, "unit": "hours", "timezone": zone}
    marks = [tick.dst for tick in ask(hourly, datetime(2026, 10, 24, 23, 30, tzinfo=UTC), 3)]
    repeated = [DstMark.REPEATED_FIRST, DstMark.REPEATED_SECOND, None]
    assert marks == (repeated if zone == "Europe/Berlin" else [None] * 3)


def test_the_schedules_clock_begins_it() -> None:
    edited = datetime(2026, 3, 28, 12, 17, tzinfo=UTC)
    plan = Plan(timing=parse({"type": "interval", "every": 1, "unit": "hours"}))
    found = preview(plan, SCHEDULE, edited, 3, first=edited)
    assert [f"{tick.nominal:%H:%M}" for tick in found] == ["12:17", "13:00", "14:00"]
    delay = Plan(timing=parse({"type": "interval", "every": 1, "unit": "hours", "fixed_delay": True}))
    assert [tick.estimated for tick in preview(delay, SCHEDULE, edited, 2, first=edited)] == [False, True]


class FirstOfApril:
    name = "fools"

    def excludes(self, day: date) -> bool:
        return (day.month, day.day) == (4, 1)


def test_what_is_left_of_max_runs_ends_it_and_excluded_ticks_use_up_nothing() -> None:
    plan = Plan(timing=parse({**BERLIN, "expression": "0 9 * * *"}), calendars=(FirstOfApril(),))
    found = preview(plan, SCHEDULE, datetime(2027, 3, 30, 12, tzinfo=UTC), 10, remaining=2)
    assert [(tick.local.day, tick.excluded_by) for tick in found] == [(31, None), (1, "fools"), (2, None)]
    assert preview(plan, SCHEDULE, datetime(2027, 3, 30, 12, tzinfo=UTC), 10, remaining=0) == []


def test_a_fixed_delay_is_an_estimate() -> None:
    delay = {"type": "interval", "every": 1, "unit": "hours", "fixed_delay": True}
    now = datetime(2026, 3, 28, 12, 0, 1, 5, tzinfo=UTC)
    found = ask(delay, now, 2)
    assert [tick.nominal - now for tick in found] == [timedelta(hours=1), timedelta(hours=2)]
    assert all(tick.estimated for tick in found)


def test_no_more_than_there_are() -> None:
    once = {"type": "one_off", "at": "2027-03-01T09:00:00+09:00", "timezone": "Asia/Tokyo"}
    (tick,) = ask(once, datetime(2026, 1, 1, tzinfo=UTC), 5)
    assert tick.local.isoformat() == "2027-03-01T09:00:00+09:00"
    assert ask(once, tick.nominal, 5) == []
