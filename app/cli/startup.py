"""`logs/celery/worker_startup.log`: what the worker wrote at its newest start, apart from its long log."""

from pathlib import Path

from app.cli.supervision import SERVICE_LOGS

STARTUP_LOG = SERVICE_LOGS["worker"].with_name("worker_startup.log")
MARK = "worker starts: pid "
LONGEST = 65_536


def keep_startup() -> None:
    """Copy the part of the worker's log that begins with its newest start, 64 KB at most; nothing without one."""
    part = newest_start(_end_of(SERVICE_LOGS["worker"], 16 * LONGEST))
    if part:
        STARTUP_LOG.write_text(part[:LONGEST])


def newest_start(log: str) -> str:
    """From the line that announces the last start on; empty without one."""
    at = log.rfind(MARK)
    return "" if at < 0 else log[log.rfind("\n", 0, at) + 1 :]


def _end_of(file: Path, size: int) -> str:
    try:
        with file.open("rb") as opened:
            opened.seek(0, 2)
            opened.seek(max(0, opened.tell() - size))
            return opened.read().decode(errors="replace")
    except OSError:
        return ""
