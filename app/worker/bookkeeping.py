"""Short transactions of our own around a run, on connections that no task body ever sees."""

import logging
import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import Engine, TextClause
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session, sessionmaker

from app.db import execute_alone, sync_engine, sync_sessions
from app.db.outages import is_away
from app.settings import get_settings

logger = logging.getLogger(__name__)

T = TypeVar("T")

POOL_SIZE = 5
LONGEST_PAUSE = 1.0


class _Engine:
    def __init__(self) -> None:
        self.engine: Engine | None = None
        self.sessions: sessionmaker[Session] | None = None
        self.spare: list[Any] = []

    def get(self) -> Engine:
        if self.engine is None:
            self.engine = sync_engine(get_settings().database, name="upbeat-worker", pool_size=POOL_SIZE)
        return self.engine

    def session(self) -> Session:
        if self.sessions is None:
            self.sessions = sync_sessions(self.get())
        return self.sessions()

    def forget(self) -> None:
        """In a child: leave the parent's connections alone, they are still the parent's."""
        if self.engine is not None:
            self.engine.dispose(close=False)
        _inherited.append(self.spare)
        self.engine, self.sessions, self.spare = None, None, []

    def close(self) -> None:
        while self.spare:
            self.spare.pop().close()
        if self.engine is not None:
            self.engine.dispose()
        self.engine = self.sessions = None


_inherited: list[object] = []
_engine = _Engine()
os.register_at_fork(after_in_child=_engine.forget)


def transact(work: Callable[[Session], T], *, patience: float = 0.0) -> T:
    """Run ``work`` in a transaction of its own and commit it.

    A connection that broke is replaced once at once; after that, while the database is away, the work
    is tried again for ``patience`` seconds, so it must stand being repeated after a commit whose reply
    was lost.

    Raises:
        DBAPIError: the database is away, or refused the work.
    """
    return _patiently(partial(_once, work), patience)


def single(
    statement: TextClause,
    values: Mapping[str, Any],
    *,
    patience: float = 0.0,
    committed: Callable[[int], object] | None = None,
) -> tuple[Any, ...] | None:
    """As `transact`, of one statement in one round trip; answers its first row, or None.

    ``committed`` is told the connection that answered one.
    """
    return _patiently(
        lambda: execute_alone(_engine.get(), statement, values, committed=committed, spare=_engine.spare),
        patience,
    )


def _patiently(once: Callable[[], T], patience: float) -> T:
    end = time.monotonic() + patience
    pause = 0.0
    while True:
        try:
            return once()
        except (DBAPIError, PoolTimeout) as error:
            if not is_away(error) or (pause > 0 and time.monotonic() >= end):
                raise
            if pause > 0:
                logger.warning(
                    "the database is away: %s", first_line(error), extra={"action": "database_away"}
                )
            time.sleep(pause)
            pause = min(LONGEST_PAUSE, max(0.05, pause * 2))


def first_line(error: BaseException) -> str:
    """An error in one line, without the statement and its parameters."""
    original = getattr(error, "orig", None) or error
    return (str(original).splitlines() or [type(original).__name__])[0]


def close() -> None:
    """Close the connections of this process."""
    _engine.close()


def _once(work: Callable[[Session], T]) -> T:
    session = _engine.session()
    try:
        result = work(session)
        session.commit()
    except BaseException:
        # A signal may have left the connection in the middle of a statement: never reuse it.
        session.invalidate()
        raise
    finally:
        session.close()
    return result
