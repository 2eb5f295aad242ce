"""What a verb found: a table for people, or JSON for programs. Both from the same rows."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from datetime import datetime, timedelta
from typing import Any, TextIO
from uuid import UUID

from rich.console import Console
from rich.table import Table

UNBOUNDED = 10_000  # columns of a line that no terminal breaks
LONGEST_CELL = 60


def show(
    rows: Sequence[Any], columns: Mapping[str, str], *, as_json: bool, empty: str, file: TextIO | None = None
) -> None:
    """Print rows (dataclasses or mappings). ``columns`` maps fields to headings; JSON has all fields."""
    items = [asdict(row) if is_dataclass(row) and not isinstance(row, type) else dict(row) for row in rows]
    if as_json:
        print_json(items, file=file)
    elif not items:
        print(empty, file=file or sys.stdout)
    else:
        console(file).print(_table(items, columns))


def print_json(value: Any, file: TextIO | None = None) -> None:
    """As it is, with instants in ISO 8601."""
    print(json.dumps(value, ensure_ascii=False, indent=2, default=_plain), file=file or sys.stdout)


def console(file: TextIO | None = None) -> Console:
    """Breaks lines at the width of a terminal, and not at all where there is none."""
    # Asked of the file: variables such as FORCE_COLOR let rich take a pipe for a terminal of 80 columns.
    width = None if (file or sys.stdout).isatty() else UNBOUNDED
    return Console(file=file, highlight=False, width=width)


def cell(value: Any) -> str:
    """A value as one short line."""
    if value is None or value in ("", [], {}):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.1f}"
    if isinstance(value, datetime):
        return value.astimezone().isoformat(sep=" ", timespec="seconds")
    text = value if isinstance(value, str) else _compact(value)
    text = " ".join(text.split())
    return text if len(text) <= LONGEST_CELL else text[: LONGEST_CELL - 1] + "…"


def span(seconds: float | None) -> str:
    """A length of time as people say it: 4 s, 3 min, 2 h 5 min, 3 d 4 h."""
    if seconds is None:
        return "-"
    whole = timedelta(seconds=round(seconds))
    hours, minutes = whole.seconds // 3600, whole.seconds // 60 % 60
    if whole.days:
        return f"{whole.days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min" if minutes else f"{whole.seconds} s"


def _table(items: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for field, heading in columns.items():
        number = all(isinstance(item[field], int | float) for item in items)
        table.add_column(heading, justify="right" if number else "left", overflow="fold")
    for item in items:
        table.add_row(*(_escaped(cell(item[field])) for field in columns))
    return table


def _escaped(text: str) -> str:
    return text.replace("[", r"\[")


def _compact(value: Any) -> str:
    return (
        json.dumps(value, ensure_ascii=False, default=_plain)
        if isinstance(value, list | dict)
        else str(value)
    )


def _plain(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    raise TypeError(f"{type(value).__name__} is not JSON")
