"""What a verb found: a table for people, or JSON for programs. Both from the same rows."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from datetime import date, datetime, timedelta
from textwrap import indent
from typing import Any, TextIO
from uuid import UUID

from rich.cells import cell_len
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

UNBOUNDED = 10_000  # columns of a line that no terminal breaks
LONGEST_CELL = 60
NARROWEST = 14  # columns into which a cell may be folded
GAP = 2


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
        _print_rows(
            [{heading: cell(item[field]) for field, heading in columns.items()} for item in items],
            _numbers(items, columns),
            file,
        )


def print_json(value: Any, file: TextIO | None = None) -> None:
    """As it is, with instants in ISO 8601; in ASCII where another encoding than UTF-8 is expected."""
    out = file or sys.stdout
    escaped = (out.encoding or "utf-8").lower().replace("-", "") != "utf8"
    print(json.dumps(value, ensure_ascii=escaped, indent=2, default=_plain), file=out)


def console(file: TextIO | None = None) -> Console:
    """Breaks lines at the width of a terminal, and not at all where there is none."""
    # Asked of the file: variables such as FORCE_COLOR let rich take a pipe for a terminal of 80 columns.
    width = None if (file or sys.stdout).isatty() else UNBOUNDED
    return Console(file=file, highlight=False, width=width)


def show_fields(item: Mapping[str, Any], file: TextIO | None = None) -> None:
    """Print one object, a line for each field. Nothing is cut off: what is long stands below its name."""
    lines = [each for name, value in item.items() for each in _whole(name, value)]
    width = max(len(name) for name, _ in lines) + GAP
    out = console(file)
    for name, text in lines:
        label = name if text.startswith("\n") else f"{name:<{width}}"
        out.print(Text.assemble((label, "bold"), text), soft_wrap=True)


def _whole(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and any(isinstance(each, str) and "\n" in each for each in value.values()):
        for key, each in value.items():
            yield from _whole(f"{name}.{key}", each)
    elif isinstance(value, str) and "\n" in value:
        yield name, "\n" + indent(value.rstrip(), "  ")
    elif isinstance(value, list | dict) and len(compact(value)) > LONGEST_CELL:
        written = json.dumps(value, ensure_ascii=False, indent=2, default=_plain)
        yield name, "\n" + indent(written, "  ")
    else:
        yield name, _line(value)


def cell(value: Any) -> str:
    """A value as one short line."""
    text = _line(value)
    return text if len(text) <= LONGEST_CELL else text[: LONGEST_CELL - 1] + "…"


def _line(value: Any) -> str:
    if value is None or value in ("", [], {}):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.1f}"
    if isinstance(value, datetime):
        return value.astimezone().isoformat(sep=" ", timespec="seconds")
    return " ".join((value if isinstance(value, str) else compact(value)).split())


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


def _numbers(items: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> set[str]:
    """The headings of columns that hold numbers only."""
    return {
        heading
        for field, heading in columns.items()
        if all(isinstance(item[field], int | float) for item in items)
    }


def _print_rows(rows: Sequence[Mapping[str, str]], numbers: set[str], file: TextIO | None) -> None:
    """A table, whose first column is never broken; on a terminal that is too narrow for it, row below row."""
    out = console(file)
    widths = {
        heading: max(cell_len(heading), *(cell_len(row[heading]) for row in rows)) for heading in rows[0]
    }
    first = next(iter(widths))
    least = sum(width if name == first else min(width, NARROWEST) for name, width in widths.items())
    if least + GAP * (len(widths) - 1) > out.width:
        for row in rows:
            for heading, value in row.items():
                out.print(
                    Text.assemble((f"{heading:<{max(map(len, widths))}}  ", "bold"), value), soft_wrap=True
                )
            out.print()
        return
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    for heading in widths:
        side: JustifyMethod = "right" if heading in numbers else "left"
        table.add_column(heading, justify=side, overflow="fold", no_wrap=heading == first)
    for row in rows:
        table.add_row(*map(_escaped, row.values()))
    if out.is_terminal:
        out.print(table)
        return
    with out.capture() as lines:
        out.print(table)
    print("\n".join(line.rstrip() for line in lines.get().splitlines()), file=file or sys.stdout)


def _escaped(text: str) -> str:
    return text.replace("[", r"\[")


def compact(value: Any) -> str:
    """JSON of a list or an object in one line; anything else as its text."""
    return (
        json.dumps(value, ensure_ascii=False, default=_plain)
        if isinstance(value, list | dict)
        else str(value)
    )


def _plain(value: Any) -> str:
    if isinstance(value, date):  # or an instant, which is one too
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    raise TypeError(f"{type(value).__name__} is not JSON")
