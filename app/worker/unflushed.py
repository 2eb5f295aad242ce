"""Ends whose commit was not waited for, kept until they are known to be on the disk.

An end that nothing follows is committed with `synchronous_commit = off`: at once visible to everybody, and on the
disk a little later (PostgreSQL's WAL writer takes at most three times `wal_writer_delay`, 0.6 s). That is as
good as a commit that was waited for, because

- the log is written in its order: whatever is durable and came after an end, whoever committed it, implies that the
  end is. Nothing that was decided because of an end can outlive it;
- the start is always waited for. On the connection of the end it proves that end durable, since a server that had
  crashed between the two would have broken the connection. A busy worker therefore keeps one end in memory;
- an end of which no such start tells is asserted again after `DELAY`, in a transaction that is waited for. Mostly it
  finds nothing to do. After a crash of PostgreSQL, or a change to a stand-by server, it ends the run as before: the
  guard (run, attempt, worker) is the one of every end. So does a process that is asked to stop, before it goes.

An end is lost only if PostgreSQL crashes and, before it has answered again, the process that holds the end dies too,
within those 0.6 s. Then the run is as if that process had died just before the end: it is lost with its worker, or, if
only a child died, as soon as the worker misses that (`app.worker.orphans`).

This holds for a connection to the server itself; behind a pooler that hides a crash from its clients it would not.
"""

import logging
import os
import threading
import time
from collections.abc import Iterable
from functools import partial

from sqlalchemy.exc import SQLAlchemyError

from app import failpoints
from app.scheduling.ends import End, assert_again, undone
from app.worker import bookkeeping

logger = logging.getLogger(__name__)

DELAY = 0.3
PAUSE = 1.0
# More than a crowded worker ends within the delay; what is beyond is waited for.
MOST = 5_000
CLOSE_PATIENCE = 5.0


class Unflushed:
    """The ends of this process that may not be on the disk, by connection; a forked child starts with none."""

    def __init__(self) -> None:
        self._forget()
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._ends: dict[int, list[tuple[float, End]]] = {}
        self._wanted = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def full(self) -> bool:
        """Whether the next end should be waited for."""
        with self._lock:
            return sum(map(len, self._ends.values())) >= MOST

    def keep(self, end: End, connection: int) -> None:
        """This end was committed on that connection, and not waited for."""
        with self._lock:
            self._ends.setdefault(connection, []).append((time.monotonic(), end))
            if self._thread is None:
                self._thread = threading.Thread(target=self._keep, name="upbeat-ends", daemon=True)
                self._thread.start()
        if not self._wanted.is_set():
            self._wanted.set()

    def flushed(self, connection: int) -> None:
        """That connection has committed something else, and waited for it."""
        with self._lock:
            self._ends.pop(connection, None)

    def confirm(self, *, older: float = 0.0, patience: float = 0.0) -> None:
        """Make durable the ends that were kept for longer than ``older`` seconds.

        Raises:
            SQLAlchemyError: the database is away; they are kept.
        """
        until = time.monotonic() - older
        with self._lock:
            due = [end for kept in self._ends.values() for at, end in kept if at <= until]
        if due:
            failpoints.reach("ends.unconfirmed")
            again = undone(partial(bookkeeping.single, patience=patience), due)
            if again:
                bookkeeping.transact(partial(assert_again, ends=again), patience=patience)
            self._remove(due)

    def close(self) -> None:
        """Before this process ends: make all of them durable, or give up after a while."""
        try:
            self.confirm(patience=CLOSE_PATIENCE)
        except SQLAlchemyError as error:
            logger.warning(
                "the last ends may be lost: %s", bookkeeping.first_line(error), extra={"action": "ends_lost"}
            )

    def _remove(self, ends: Iterable[End]) -> None:
        gone = set(ends)
        with self._lock:
            left = {
                connection: [each for each in kept if each[1] not in gone]
                for connection, kept in self._ends.items()
            }
            self._ends = {connection: kept for connection, kept in left.items() if kept}

    def _keep(self) -> None:
        while self._wanted.wait():
            self._wanted.clear()
            pause = DELAY
            while self._ends:
                time.sleep(pause)
                try:
                    self.confirm(older=DELAY)
                    pause = DELAY
                except Exception as error:  # noqa: BLE001 - the thread must outlive every outage
                    pause = PAUSE
                    logger.warning(
                        "ends are not confirmed: %s",
                        bookkeeping.first_line(error),
                        extra={"action": "ends_unconfirmed"},
                    )


unflushed = Unflushed()
