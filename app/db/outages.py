"""Which exceptions mean that the database is away, as opposed to a mistake of ours; those of both drivers."""

import errno
import socket
from typing import Final

import asyncpg  # type: ignore[import-untyped]
from sqlalchemy import exc

# What may be one: `is_away` says of each whether it is.
SUSPECTS: Final[tuple[type[Exception], ...]] = (
    exc.DBAPIError,
    exc.TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    OSError,
)
# Classes of SQLSTATE: connection, transaction state (a server that is read-only, as in a failover), login and database
# (a server that is being set up), rollback, resources (a full disk, no connection left), state of objects (a lock not
# to be had), operator intervention (shutdown, time-outs), system error.
_PASSING: Final = frozenset({"08", "25", "28", "3D", "40", "53", "55", "57", "58"})
_UNREACHED: Final = (exc.TimeoutError, asyncpg.InterfaceError, ConnectionError, TimeoutError, socket.gaierror)
# Networks' errors that have no class of their own; without a number it is several, one for each address of a host.
_UNROUTED: Final = frozenset({errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ENETUNREACH, errno.ENETDOWN, None})


def is_away(error: BaseException) -> bool:
    """Whether a later try may succeed, because the database cannot be reached, ended our session or has no room now.

    A lost connection is marked, whatever its class; else the SQLSTATE decides, which a driver's own errors do not have.
    """
    if isinstance(error, _UNREACHED):
        return True
    if isinstance(error, OSError):
        return error.errno in _UNROUTED and error.filename is None
    if isinstance(error, exc.DBAPIError) and error.connection_invalidated:
        return True
    state = getattr(error.orig if isinstance(error, exc.DBAPIError) else error, "sqlstate", None)
    if state is None:
        return isinstance(error, exc.OperationalError | exc.InterfaceError)
    return state[:2] in _PASSING
