"""What a run writes while it runs: log records and printed lines, from its threads and coroutines too.

The run is a context variable. Coroutines carry it anyway; threads, and what is given to a thread
pool, are made to inherit it here, as newer versions of Python can do by themselves. Output of child
processes is not seen.
"""

import logging
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import cache
from typing import Any, TextIO
from uuid import UUID

from celery.exceptions import TaskPredicate

from app import logs
from app.scheduling.run_logs import Line
from app.settings import get_settings
from app.worker.flushing import flusher
from app.worker.interruption import heed
from app.worker.logs import in_json
from app.worker.redaction import Redactor

LONGEST_LINE = 8192
# Redacted as a whole before it is cut, so that no half of a secret is left over.
LONGEST_READ = 65_536
LAST_FLUSH = 1.0
SOURCE = "upbeat"
_PRINTED = {"printed": True}

_redactor = cache(lambda: Redactor.of(get_settings()))


class RunLog:
    """The lines of one attempt: numbered, redacted and bounded."""

    def __init__(self, run_id: UUID, attempt: int) -> None:
        self.run_id = run_id
        self.attempt = attempt
        settings = get_settings().log
        # Without lines left it still takes progress.
        self._lines_left = settings.run_lines if settings.runs else 0
        self._bytes_left = settings.run_bytes
        self._number = 0
        self._missed = 0
        self._partial: dict[str, str] = {}
        self._lock = threading.RLock()
        self._over = False

    def add(self, level: str, logger: str, message: str, at: datetime | None = None) -> None:
        """Keep one line; one that comes after the end is dropped."""
        with self._lock:
            if self._over or self._lines_left <= 0:
                return
            message = storable(message)
            self._lines_left -= 1
            self._bytes_left -= len(message.encode())
            if self._lines_left <= 0 or self._bytes_left < 0:
                self._lines_left = 0
                level, logger = "warning", SOURCE
                message = (
                    "The rest of this attempt's log is left out: it exceeds UPBEAT_LOG_RUN_LINES or _BYTES."
                )
            self._tell_missed()
            self._put(level, logger, message, at)

    def write(self, stream: str, level: str, text: str) -> None:
        """Keep what was printed, line by line."""
        with self._lock:
            *whole, rest = (self._partial.pop(stream, "") + text).split("\n")
            for line in whole:
                self._printed(level, stream, line)
            if len(rest) >= LONGEST_READ:
                self._printed(level, stream, rest)
            elif rest:
                self._partial[stream] = rest

    def progress(self, document: dict[str, Any]) -> None:
        """Keep the latest progress."""
        if not self._over:
            flusher.progress(self.run_id, self.attempt, {"attempt": self.attempt, **document})

    def end(self) -> None:
        """Keep what was not ended by a newline; `rest` has what is not stored yet."""
        with self._lock:
            for stream, rest in self._partial.items():
                self._printed("info" if stream == "stdout" else "warning", stream, rest)
            self._over = True
            self._tell_missed()

    def _printed(self, level: str, stream: str, line: str) -> None:
        self.add(level, stream, line)
        if in_json():
            logging.getLogger(stream).log(
                logging.getLevelNamesMapping()[level.upper()], "%s", line, extra=_PRINTED
            )

    def _tell_missed(self) -> None:
        if self._missed:
            lost = f"{self._missed} lines are missing here: the database was away for too long."
            if flusher.add(self._line("warning", SOURCE, lost)):
                self._missed = 0

    def _put(self, level: str, logger: str, message: str, at: datetime | None = None) -> None:
        self._missed += not flusher.add(self._line(level, logger, message, at))

    def _line(self, level: str, logger: str, message: str, at: datetime | None = None) -> Line:
        self._number += 1
        return Line(self.run_id, self.attempt, self._number, at or datetime.now(UTC), level, logger, message)


def rest(run_id: UUID, attempt: int) -> list[Line]:
    """The lines that the transaction which ends this attempt has to store; waits for a second at most."""
    return flusher.take(run_id, attempt, LAST_FLUSH)


current: ContextVar[RunLog | None] = ContextVar("run_log", default=None)


@contextmanager
def recording(run_id: UUID, attempt: int) -> Iterator[None]:
    """Store with this attempt what is written inside."""
    if get_settings().log.runs:
        _install()
    log = RunLog(run_id, attempt)
    token = current.set(log)
    try:
        yield
    except TaskPredicate:
        # Retry and its kin: the body's way to say how it goes on.
        raise
    except Exception as error:
        log.add("error", SOURCE, "".join(traceback.format_exception_only(error)).strip())
        raise
    finally:
        current.reset(token)
        log.end()


class _Handler(logging.Handler):
    """Gives records to the run that emitted them."""

    def emit(self, record: logging.LogRecord) -> None:
        self._keep(record)
        heed()

    @staticmethod
    def _keep(record: logging.LogRecord) -> None:
        log = current.get()
        if log is None or getattr(record, "printed", False):
            return
        try:
            message = logs.said(record)
            if record.exc_info:
                message += "\n" + "".join(traceback.format_exception(*record.exc_info)).rstrip()
        except Exception:  # noqa: BLE001 - a user's own __str__
            message = f"(a record of {record.name} that cannot be written)"
        log.add(_level(record.levelno), record.name, message, datetime.fromtimestamp(record.created, UTC))


class _Printed:
    """A standard stream that also gives what is written to the run."""

    def __init__(self, stream: TextIO, name: str, level: str) -> None:
        self._stream = stream
        self._name = name
        self._level = level

    def write(self, text: str) -> int:
        """As the stream's own."""
        log = current.get()
        if log is None:
            return self._stream.write(text)
        log.write(self._name, self._level, text)
        heed()
        # In JSON the log's lines have it, one by one.
        return len(text) if in_json() else self._stream.write(text)

    def writelines(self, lines: Any) -> None:
        """As the stream's own."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


_installing = threading.Lock()


def _install() -> None:
    """Once a process: the handler, the streams, and threads that inherit their run."""
    root = logging.getLogger()
    if any(isinstance(handler, _Handler) for handler in root.handlers):
        return
    with _installing:
        if any(isinstance(handler, _Handler) for handler in root.handlers):
            return
        if not isinstance(sys.stdout, _Printed):
            sys.stdout = _Printed(sys.stdout, "stdout", "info")
            sys.stderr = _Printed(sys.stderr, "stderr", "warning")
            _let_threads_inherit()
        root.addHandler(_Handler())


def _let_threads_inherit() -> None:
    start, submit = threading.Thread.start, ThreadPoolExecutor.submit

    def started(self: threading.Thread) -> None:
        if current.get() is not None and not self.name.startswith("upbeat-"):
            self.run = _inheriting(self.run)  # type: ignore[method-assign]
        start(self)

    def submitted(self: ThreadPoolExecutor, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        return submit(self, fn if current.get() is None else _inheriting(fn), *args, **kwargs)

    threading.Thread.start = started  # type: ignore[method-assign]
    ThreadPoolExecutor.submit = submitted  # type: ignore[method-assign, assignment]


def _inheriting(function: Callable[..., Any]) -> Callable[..., Any]:
    # No more than the run: what else the context holds belongs to the body's own thread.
    log, about = current.get(), logs.about()

    def inherited(*args: Any, **kwargs: Any) -> Any:
        token, before = current.set(log), logs.about()
        logs.enter(**about)
        try:
            return function(*args, **kwargs)
        finally:
            current.reset(token)
            logs.enter(**before)

    return inherited


def _level(number: int) -> str:
    if number >= logging.ERROR:
        return "critical" if number >= logging.CRITICAL else "error"
    if number >= logging.INFO:
        return "warning" if number >= logging.WARNING else "info"
    return "debug"


def storable(message: str) -> str:
    """A text as it may be stored: without secrets and NUL, and not too long."""
    text = _redactor()(message[:LONGEST_READ]).replace("\0", "\\0")
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= LONGEST_LINE else f"{text[:LONGEST_LINE]}… ({len(message)} characters)"
