"""Monthly partitions by id: made ahead of time and dropped when old, while everything else goes on.

There is no DEFAULT partition (it would forbid DETACH CONCURRENTLY), so an id whose month has no
partition cannot be stored; beats keep the coming months in place.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from app.db import locks

# The longest catch-up window, and a day: until then a tick may yet be decided, and the key of its partition is what
# forbids that a second time.
UNDECIDED: Final = timedelta(days=31)
MONTHS_AHEAD: Final = 2

# Lock not available, and a statement that took too long.
_BUSY = ("55P03", "57014")


class PartitionBusy(Exception):
    """A transaction that looks at a partition lasts longer than was waited."""


@dataclass(frozen=True, slots=True)
class Partition:
    """The table of one month; its ids are those from ``start`` until before ``end``.

    ``attached`` is False for one that was detached and whose dropping was interrupted; ``pending``
    means that even the detaching was.
    """

    parent: str
    name: str
    start: datetime
    end: datetime
    attached: bool
    pending: bool

    @property
    def month(self) -> str:
        """The part of the name that tells the month, equal for all parents."""
        return self.name.removeprefix(self.parent)


def month_start(instant: datetime, offset: int = 0) -> datetime:
    """The first instant (UTC) of the month that lies ``offset`` months from ``instant``'s."""
    months = instant.year * 12 + instant.month - 1 + offset
    return datetime(months // 12, months % 12 + 1, 1, tzinfo=UTC)


def months_behind(now: datetime) -> int:
    """How many months before ``now``'s may have ticks that are yet to be decided: two at the beginning of March."""
    oldest = now - UNDECIDED
    return (now.year - oldest.year) * 12 + now.month - oldest.month


def _bound(instant: datetime) -> UUID:
    return UUID(int=int(instant.timestamp() * 1000) << 80)


def existing(connection: Connection, parent: str) -> set[str]:
    """Names of the partitions of ``parent``."""
    return {each.name for each in partitions(connection, parent) if each.attached or each.pending}


def partitions(connection: Connection, parent: str) -> list[Partition]:
    """The months of ``parent``, oldest first, with those that were left behind by a dropping."""
    rows = connection.execute(
        text(
            "SELECT c.relname, i.inhrelid IS NOT NULL, COALESCE(i.inhdetachpending, false)"
            " FROM pg_class c LEFT JOIN pg_inherits i ON i.inhrelid = c.oid"
            " WHERE c.relkind = 'r' AND c.relname ~ :pattern AND c.relnamespace ="
            " (SELECT relnamespace FROM pg_class WHERE oid = CAST(:parent AS regclass))"
            " ORDER BY c.relname"
        ),
        {"parent": parent, "pattern": rf"^{parent}_\d{{4}}_(0[1-9]|1[0-2])$"},
    )
    found = []
    for name, attached, pending in rows:
        start = datetime.strptime(name.removeprefix(f"{parent}_"), "%Y_%m").replace(tzinfo=UTC)
        found.append(Partition(parent, name, start, month_start(start, 1), attached and not pending, pending))
    return found


def ensure_partitions(
    connection: Connection, parents: tuple[str, ...], now: datetime, *, behind: int | None = None
) -> list[str]:
    """Make the missing partitions around ``now``; answers the names of those made.

    ``behind``: of so many months before this one; unless it is given, of all whose ticks may yet be decided.

    The table is made first and attached afterwards, so that the parent is locked only for the
    moment of attaching, in a mode that lets reads and writes go on. Of two who miss a month at once one makes it.
    """
    first = months_behind(now) if behind is None else behind
    starts = [month_start(now, offset) for offset in range(-first, MONTHS_AHEAD + 1)]
    missing = _missing(connection, parents, starts)
    if missing:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": locks.PARTITIONS})
        # Who had it before has committed: what is missing still nobody else is making.
        missing = _missing(connection, parents, starts)
    made = []
    for parent, start in missing:
        name = _name(parent, start)
        connection.execute(text(f"CREATE TABLE IF NOT EXISTS {name} (LIKE {parent} INCLUDING ALL)"))
        _give_to_owner(connection, parent, name)
        _attach(connection, parent, name, start, month_start(start, 1))
        made.append(name)
    return made


def _missing(
    connection: Connection, parents: Sequence[str], starts: Sequence[datetime]
) -> list[tuple[str, datetime]]:
    missing = []
    for parent in parents:
        present = existing(connection, parent)
        missing += [(parent, start) for start in starts if _name(parent, start) not in present]
    return missing


def _name(parent: str, start: datetime) -> str:
    return f"{parent}_{start:%Y_%m}"


def drop_partition(
    connection: Connection,
    partition: Partition,
    *,
    needed: Callable[[Connection, str], bool],
    patience: float = 5.0,
) -> bool:
    """Detach a month while reads and writes of the others go on, and drop it; True if it is gone.

    ``connection`` commits each statement (AUTOCOMMIT), because detaching concurrently refuses a
    transaction. ``needed`` is asked about the table before and after, since only after the
    detaching nothing can be stored in it any more; a table that is needed is (or remains) attached.

    A transaction that has looked at the parent is waited for, at most ``patience`` seconds; after
    that the month is left half detached, in which state it hides its rows and hinders nobody. It
    must be dropped first the next time: PostgreSQL detaches one at a time.

    Raises:
        PartitionBusy: the patience was at an end.
    """
    if partition.attached and needed(connection, partition.name):
        return False
    connection.execute(text(f"SET lock_timeout = {int(patience * 1000)}"))
    try:
        if partition.pending:
            _alter(connection, partition, "FINALIZE")
        elif partition.attached:
            _alter(connection, partition, "CONCURRENTLY")
        if needed(connection, partition.name):
            _attach(connection, partition.parent, partition.name, partition.start, partition.end)
            return False
        connection.execute(text(f"DROP TABLE {partition.name}"))
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) not in _BUSY:
            raise
        raise PartitionBusy(partition.name) from error
    finally:
        connection.execute(text("RESET lock_timeout"))
    return True


def _alter(connection: Connection, partition: Partition, how: str) -> None:
    connection.execute(text(f"ALTER TABLE {partition.parent} DETACH PARTITION {partition.name} {how}"))


def _give_to_owner(connection: Connection, parent: str, name: str) -> None:
    """Whoever makes a month, another process may have to drop it: it belongs to whom its parent belongs."""
    owner = connection.scalar(
        text(
            "SELECT quote_ident(pg_get_userbyid(relowner)) FROM pg_class WHERE oid = CAST(:parent AS regclass)"
            " AND pg_get_userbyid(relowner) <> current_user"
        ),
        {"parent": parent},
    )
    if owner is not None:
        connection.execute(text(f"ALTER TABLE {name} OWNER TO {owner}"))


def _attach(connection: Connection, parent: str, name: str, start: datetime, end: datetime) -> None:
    connection.execute(
        text(
            f"ALTER TABLE {parent} ATTACH PARTITION {name}"
            f" FOR VALUES FROM ('{_bound(start)}') TO ('{_bound(end)}')"
        )
    )
