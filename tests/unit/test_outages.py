"""Which errors are the database's absence, of both drivers and of the network."""

import errno

import asyncpg  # type: ignore[import-untyped]
import psycopg
import pytest
from sqlalchemy import exc

from app.db.outages import SUSPECTS, is_away


def wrapped(kind: type[exc.DBAPIError], error: Exception, *, lost: bool = False) -> exc.DBAPIError:
    return kind("SELECT 1", {}, error, connection_invalidated=lost)


@pytest.mark.parametrize(
    "error",
    [
        wrapped(exc.OperationalError, psycopg.OperationalError("no answer")),
        wrapped(exc.OperationalError, psycopg.errors.AdminShutdown("bye")),
        wrapped(exc.DBAPIError, psycopg.errors.DiskFull("full")),
        wrapped(exc.ProgrammingError, psycopg.errors.SyntaxError("but gone"), lost=True),
        exc.TimeoutError("no connection is free"),
        asyncpg.TooManyConnectionsError("full"),
        asyncpg.InvalidCatalogNameError("not made yet"),
        asyncpg.InterfaceError("connection is closed"),
        ConnectionRefusedError(errno.ECONNREFUSED, "refused"),
        OSError(errno.EHOSTUNREACH, "No route to host"),
        OSError("Multiple exceptions: [Errno 111] refused at ::1, [Errno 111] refused at 127.0.0.1"),
        TimeoutError(),
    ],
    ids=str,
)
def test_away(error: Exception) -> None:
    assert isinstance(error, SUSPECTS)
    assert is_away(error)


@pytest.mark.parametrize(
    "error",
    [
        wrapped(exc.DataError, psycopg.errors.DivisionByZero("a mistake")),
        wrapped(exc.ProgrammingError, psycopg.ProgrammingError("too few parameters")),
        asyncpg.UniqueViolationError("there already"),
        FileNotFoundError(errno.ENOENT, "not there", "a.yaml"),
        OSError(errno.ENOSPC, "No space left"),
        ValueError("x"),
    ],
    ids=str,
)
def test_a_mistake(error: Exception) -> None:
    assert not is_away(error)
