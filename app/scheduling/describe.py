"""A plan in plain English, for people who check what they have written.

cron-descriptor puts each field into words; they are joined here, because which of two day fields must match, and
what a change of clocks does, are rules of ours.
"""

from datetime import UTC, datetime, timedelta, tzinfo

from cron_descriptor import CasingTypeEnum, ExpressionDescriptor, Options

from app.scheduling.crontab import spelled_out
from app.scheduling.plan import Plan
from app.scheduling.timing import Crontab, Interval, OneOff, Timing

_MIDNIGHT = "At 00:00"
_MONTH = timedelta(days=30)


def describe(plan: Plan, at: datetime) -> str:
    """One line. `at` is the instant near which clocks are looked at: zones without DST go without its rule."""
    parts = [_timing(plan.timing, plan.zone)]
    if rule := _clock_rule(plan.timing, plan.zone, at):
        parts.append(rule)
    if plan.starts_at is not None:
        parts.append(f"from {_shown(plan.starts_at, plan.zone)}")
    if plan.ends_at is not None:
        parts.append(f"until {_shown(plan.ends_at, plan.zone)}")
    if plan.jitter is not None:
        share, window = plan.jitter.share, plan.jitter.window
        span = f"{share * 100:.4g} % of the period" if share is not None else _span(window or timedelta(0))
        parts.append(f"each run is put off by up to {span}")
    if plan.calendars:
        parts.append(f"not on dates of {' or '.join(calendar.name for calendar in plan.calendars)}")
    return "; ".join(parts)


def _timing(timing: Timing, zone: tzinfo) -> str:
    if isinstance(timing, Crontab):
        return f"{_crontab(timing)}, {timing.timezone}"
    if isinstance(timing, OneOff):
        return f"Once, at {_shown(timing.at, zone)}"
    every = _counted(timing.every, timing.unit)
    if timing.fixed_delay:
        return f"{every[0].upper()}{every[1:]} after each run has ended"
    return f"Every {every.removeprefix('1 ')}, counted from {_shown(timing.anchor, zone)}"


def _crontab(timing: Crontab) -> str:
    fields = timing.expression.split()
    minute, hour, day, month, weekday = (_terms(text, index) for index, text in enumerate(fields))
    time = _in_words(f"{minute[0]} {hour[0]} * * *")
    days = _days([f"0 0 {term} * *" for term in day])
    weekdays = _days([f"0 0 * * {term}" for term in weekday])
    either = timing.day_match == "or" and not fields[2].startswith("*") and not fields[4].startswith("*")
    if days and weekdays:
        text = f"{time} {days} {'or' if either else 'and only'} {weekdays}"
    else:
        text = f"{time} {days or weekdays}".rstrip()
    months = _days([f"0 0 * {month[0]} *"])
    return f"{text}, {months}" if months else text


def _terms(field: str, index: int) -> list[str]:
    """The field's plain terms together, and each special one alone.

    The library mixes up lists that hold special terms or steps; the latter are spelled out.
    """
    terms = field.split(",")
    special = [term for term in terms if term[-1] in "LW" or "#" in term] if index in (2, 4) else []
    plain = ",".join(term for term in terms if term not in special)
    if "," in plain and "/" in plain:
        plain = spelled_out(plain, index)
    return [plain, *special] if plain else special


def _days(expressions: list[str]) -> str:
    texts = [_in_words(each).removeprefix(_MIDNIGHT).removeprefix(", ") for each in expressions]
    return " or ".join(text.removeprefix("only ") for text in texts)


def _in_words(expression: str) -> str:
    options = Options(CasingTypeEnum.Sentence, use_24hour_time_format=True, locale_code="en_US")
    return str(ExpressionDescriptor(expression, options).get_full_description())


def _clock_rule(timing: Timing, zone: tzinfo, at: datetime) -> str | None:
    months = [(at + number * _MONTH).astimezone(zone).utcoffset() for number in range(14)]
    if zone is UTC or len(set(months)) == 1:
        return None
    if isinstance(timing, Crontab):
        if timing.follows_real_time:
            return "a time that the clock skips does not run, one that it repeats runs twice"
        if timing.dst_gap == "skip":
            return "a time that the clock skips does not run"
        return "a time that the clock skips runs at the end of the gap"
    if isinstance(timing, Interval) and not timing.fixed_delay and timing.unit in ("days", "weeks"):
        return "local time is kept when clocks change"
    return None


def _shown(instant: datetime, zone: tzinfo) -> str:
    local = instant.astimezone(zone)
    return f"{local:%Y-%m-%d %H:%M}{'' if not local.second else f':{local:%S}'} {zone if zone is not UTC else 'UTC'}"


def _span(span: timedelta) -> str:
    seconds = span.total_seconds()
    for size, unit in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= size and seconds % size == 0:
            return _counted(int(seconds // size), unit)
    return _counted(seconds, "seconds")


def _counted(number: float, unit: str) -> str:
    return f"{number:g} {unit.removesuffix('s') if number == 1 else unit}"
