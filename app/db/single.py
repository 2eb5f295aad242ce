"""One statement as a transaction of its own, in one round trip, at a fifth of what it costs in a session.

It is prepared once for each connection and executed by libpq itself; psycopg only converts values. Outside of a
transaction block the server commits it before it answers.
"""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from itertools import count
from typing import Any

import psycopg
from psycopg.adapt import PyFormat, Transformer
from psycopg.pq import ExecStatus
from sqlalchemy import Engine, TextClause
from sqlalchemy.dialects.postgresql import psycopg as dialects
from sqlalchemy.exc import DBAPIError

_DIALECT = dialects.dialect()  # type: ignore[no-untyped-call]
_PLACE = re.compile(r"%\((\w+)\)s")
_PREPARED, _NUMBER = "upbeat_prepared", "upbeat_number"
_numbers = count(1)


def execute_alone(
    engine: Engine,
    statement: TextClause,
    values: Mapping[str, Any],
    *,
    committed: Callable[[int], object] | None = None,
    spare: list[Any] | None = None,
) -> tuple[Any, ...] | None:
    """Execute and commit; answers the first row, or None.

    If there is a row, ``committed`` is given the number of the connection, which is no other's in this process,
    before anybody else has that connection. ``spare`` holds a connection between one call and the next: to take one
    from the pool and give it back costs a process as much as the statement does.

    Raises:
        DBAPIError: the database is away, or refused it.
    """
    try:
        pooled = spare.pop() if spare else engine.raw_connection()
    except psycopg.Error as error:
        raise _wrapped(error, broken=True) from error
    connection: Any = pooled.driver_connection
    try:
        row = _execute(connection, pooled.info.setdefault(_PREPARED, {}), statement, values)
        if row is not None and committed is not None:
            committed(pooled.info.setdefault(_NUMBER, next(_numbers)))
    except psycopg.Error as error:
        broken = bool(connection.closed)
        pooled.invalidate()
        raise _wrapped(error, broken=broken) from error
    except BaseException:
        # A signal may have left the connection in the middle of a statement: never reuse it.
        pooled.invalidate()
        raise
    finally:
        if spare is None or spare or not pooled.is_valid:
            pooled.close()
        else:
            spare.append(pooled)
    return row


def _execute(
    connection: Any, prepared: dict[TextClause, bytes], statement: TextClause, values: Mapping[str, Any]
) -> tuple[Any, ...] | None:
    text, names = _numbered(statement)
    transformer = Transformer(connection)
    given = transformer.dump_sequence([values[name] for name in names], [PyFormat.TEXT] * len(names))
    name = prepared.get(statement)
    if name is None:
        name = b"alone_%d" % len(prepared)
        _check(connection, connection.pgconn.prepare(name, text))
        prepared[statement] = name
    result = _check(connection, connection.pgconn.exec_prepared(name, given))
    transformer.set_pgresult(result)
    return transformer.load_row(0, tuple) if result.ntuples else None


def _check(connection: Any, result: Any) -> Any:
    if result.status not in (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK):
        raise psycopg.errors.error_from_result(result, encoding=connection.info.encoding)
    return result


@lru_cache(maxsize=64)
def _numbered(statement: TextClause) -> tuple[bytes, tuple[str, ...]]:
    """The statement as the server takes it, and the names of its parameters in their order."""
    names: list[str] = []

    def place(found: re.Match[str]) -> str:
        if found[1] not in names:
            names.append(found[1])
        return f"${names.index(found[1]) + 1}"

    text = _PLACE.sub(place, str(statement.compile(dialect=_DIALECT))).replace("%%", "%")
    return text.encode(), tuple(names)


def _wrapped(error: psycopg.Error, *, broken: bool) -> DBAPIError:
    return DBAPIError(None, None, error, hide_parameters=True, connection_invalidated=broken)
