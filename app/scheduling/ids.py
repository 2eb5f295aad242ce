"""Ids of runs, schedules and the rest: sortable by time, and for ticks, derived.

A random id is a UUIDv7 of its creation. The id of a scheduled run is a UUIDv8 whose first 48 bits
are the milliseconds of its nominal time and whose other bits are a hash of schedule and nominal
time: whoever decides the tick computes the same id, so the primary key itself forbids a second run.
Both sort by time, so ranges of ids are ranges of time, and partitions by id are partitions by time.

The token of a start is a UUIDv8 too: its first 32 bits are the number of the process that made it.
"""

import os
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import blake2b
from uuid import UUID

from uuid_utils.compat import uuid7

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_VERSION_8 = 0x8 << 76
_VARIANT = 0b10 << 62
_BITS_12 = (1 << 12) - 1
_BITS_62 = (1 << 62) - 1


def new_id() -> UUID:
    """A fresh UUIDv7."""
    return uuid7()


def start_token(process: int) -> UUID:
    """A fresh token for a start that this process of its host makes."""
    rest = int.from_bytes(os.urandom(12), "big") & ~(0xF << 76 | 0b11 << 62)
    return UUID(int=process << 96 | rest | _VERSION_8 | _VARIANT)


def process_of(token: UUID) -> int:
    """Which process made a start's token."""
    return token.int >> 96


def tick_id(schedule_id: UUID, scheduled_for: datetime) -> UUID:
    """The id of the one run of this tick."""
    prefix, stamp = _stamp(scheduled_for)
    digest = int.from_bytes(blake2b(schedule_id.bytes + stamp, digest_size=10).digest(), "big")
    return UUID(int=prefix | ((digest >> 64) & _BITS_12) << 64 | (digest & _BITS_62))


@lru_cache(maxsize=1024)
def _stamp(scheduled_for: datetime) -> tuple[int, bytes]:
    """The bits that all ticks of an instant share, and the instant in microseconds as it is hashed."""
    instant = (scheduled_for - EPOCH) // timedelta(microseconds=1)
    prefix = _milliseconds(scheduled_for) << 80 | _VERSION_8 | _VARIANT
    return prefix, instant.to_bytes(8, "big", signed=True)


def id_at(instant: datetime) -> UUID:
    """The smallest id of an instant: ``id >= id_at(t)`` selects rows from ``t`` on, and prunes."""
    return UUID(int=_milliseconds(instant) << 80)


def instant_of(identifier: UUID) -> datetime:
    """The time that an id carries, in whole milliseconds."""
    return EPOCH + (identifier.int >> 80) * _MILLISECOND


def _milliseconds(instant: datetime) -> int:
    return (instant - EPOCH) // _MILLISECOND
