"""Monthly partitions by id: made ahead of time, while everything else goes on.

There is no DEFAULT partition (it would forbid DETACH CONCURRENTLY), so an id whose month has no
partition cannot be stored; beats keep the coming months in place.
"""

from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import Connection, text

MONTHS_BEHIND = 1
MONTHS_AHEAD = 2


def month_start(instant: datetime, offset: int = 0) -> datetime:
    """The first instant (UTC) of the month that lies ``offset`` months from ``instant``'s."""
    months = instant.year * 12 + instant.month - 1 + offset
    return datetime(months // 12, months % 12 + 1, 1, tzinfo=UTC)


def _bound(instant: datetime) -> UUID:
    return UUID(int=int(instant.timestamp() * 1000) << 80)


def existing(connection: Connection, parent: str) -> set[str]:
    """Names of the partitions of ``parent``."""
    rows = connection.execute(
        text(
            "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
            " WHERE i.inhparent = CAST(:parent AS regclass)"
        ),
        {"parent": parent},
    )
    return set(rows.scalars())


def ensure_partitions(
    connection: Connection, parents: tuple[str, ...], now: datetime, *, behind: int = MONTHS_BEHIND
) -> list[str]:
    """Make the missing partitions around ``now``; answers the names of those made.

    The table is made first and attached afterwards, so that the parent is locked only for the
    moment of attaching, in a mode that lets reads and writes go on.
    """
    made = []
    for parent in parents:
        present = existing(connection, parent)
        for offset in range(-behind, MONTHS_AHEAD + 1):
            start, end = month_start(now, offset), month_start(now, offset + 1)
            name = f"{parent}_{start:%Y_%m}"
            if name in present:
                continue
            connection.execute(text(f"CREATE TABLE IF NOT EXISTS {name} (LIKE {parent} INCLUDING ALL)"))
            connection.execute(
                text(
                    f"ALTER TABLE {parent} ATTACH PARTITION {name}"
                    f" FOR VALUES FROM ('{_bound(start)}') TO ('{_bound(end)}')"
                )
            )
            made.append(name)
    return made
