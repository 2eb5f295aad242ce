"""The last errors in the logs of this folder."""

import json
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from app.cli.doctor.findings import Finding, ok, skipped, warn
from app.cli.logfiles import last_lines
from app.cli.supervision import SERVICE_LOGS

LINES = 2000
RECENT = timedelta(hours=24)
SHOWN = 3
LONGEST = 160
_LINE = re.compile(r"^(\d{4}-\d\d-\d\dT\S+) +\[?(ERROR|CRITICAL|error|critical)\b\s*\]?\s*(.*)$")

_CAUSE = re.compile(r"^[A-Za-z_][\w.]*\.?[A-Za-z_]\w*: ")


def errors(now: datetime | None = None) -> Finding:
    """Errors within a day in the ends of the three logs."""
    now = now or datetime.now(UTC)
    logs = {name: file for name, file in SERVICE_LOGS.items() if file.exists()}
    if not logs:
        return skipped(
            "errors in logs", f"no logs in {Path.cwd()}: run the doctor in the folder of the services"
        )
    found = sorted(
        (at, f"{name}: {words}")
        for name, file in logs.items()
        for at, words in recent_errors(last_lines(file, LINES), now - RECENT)
    )
    if not found:
        return ok("errors in logs", f"none within a day ({', '.join(str(file) for file in logs.values())})")
    shown = "; ".join(f"{at.isoformat(timespec='seconds')} {words}" for at, words in found[-SHOWN:])
    return warn(
        "errors in logs",
        f"{len(found)} within a day, the last: {shown}",
        "`upbeat logs worker 100`, `upbeat logs beat 100` and `upbeat logs api 100` show them with their traces.",
    )


def recent_errors(lines: Iterable[str], since: datetime) -> list[tuple[datetime, str]]:
    """Lines of level error or higher, in either format of logs."""
    found: list[tuple[datetime, str]] = []
    open_trace = False  # the last error has no cause yet
    for line in lines:
        read = _json(line) if line.startswith("{") else _console(line)
        if read is not None:
            open_trace = read[0] >= since
            if open_trace:
                found.append((read[0], read[1][:LONGEST]))
        elif open_trace and _CAUSE.match(line):
            at, words = found.pop()
            found.append((at, f"{words} ({line[:LONGEST]})"))
            open_trace = False
        elif line[:2] == "20":
            open_trace = False
    return found


def _console(line: str) -> tuple[datetime, str] | None:
    match = _LINE.match(line)
    if match is None or (at := _instant(match[1])) is None:
        return None
    return at, match[3]


def _json(line: str) -> tuple[datetime, str] | None:
    try:
        read = json.loads(line)
        if read.get("level") not in ("error", "critical"):
            return None
        at = _instant(str(read.get("time")))
        return None if at is None else (at, str(read.get("message")))
    except (ValueError, AttributeError):
        return None


def _instant(text: str) -> datetime | None:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)
