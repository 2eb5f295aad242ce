"""Which exceptions mean that the database is away, as opposed to a mistake of ours."""

import socket

import asyncpg  # type: ignore[import-untyped]
from sqlalchemy import exc

OUTAGES: tuple[type[Exception], ...] = (
    exc.DBAPIError,
    exc.TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    ConnectionError,
    TimeoutError,
    socket.gaierror,
)
_AWAY: tuple[type[BaseException], ...] = (
    exc.OperationalError,
    exc.InterfaceError,
    exc.TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.LockNotAvailableError,
    asyncpg.TransactionRollbackError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.InterfaceError,
    ConnectionError,
    TimeoutError,
    socket.gaierror,
)


def is_outage(error: BaseException) -> bool:
    """Whether trying again later may help.

    SQLAlchemy wraps what the driver raised, and asyncpg's own error is that one's cause; a lost
    connection is marked, whatever its class.
    """
    if isinstance(error, _AWAY):
        return True
    if isinstance(error, exc.DBAPIError):
        cause = error.orig.__cause__ if error.orig is not None else None
        return error.connection_invalidated or isinstance(cause, _AWAY)
    return False
