"""Failed logins cost time: counted in the database, so that all processes and restarts share the count.

An attempt is counted before its password is looked at, and taken back when it was right, so that a thousand attempts
at once are no way around. An address that has to wait adds no names to the count; of IPv6 the network (/64) counts, of
which everybody has as many addresses as they like. The first few failures of a user name or an address are free; after
that each one doubles the wait, up to a cap. A quarter of an hour without failures clears the count.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from ipaddress import IPv4Address, IPv6Network, ip_address
from typing import Final

from sqlalchemy import Interval, and_, delete, func, or_, select, type_coerce, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app.db.clearing import BATCH, delete_all
from app.db.companions import accompanied
from app.errors import TooManyRequests
from app.modules.auth.models import LoginThrottle
from app.settings import AuthSettings

FORGET: Final = timedelta(minutes=15)
SITE: Final = 64
_DOUBLINGS: Final = 30
_NOW = func.clock_timestamp()


@dataclass(frozen=True, slots=True)
class Throttle:
    """One attempt to log in as ``username`` from ``address``."""

    settings: AuthSettings
    username: str
    address: str

    async def count(self, sessions: async_sessionmaker[AsyncSession]) -> None:
        """Count the attempt as a failure, for now.

        Raises:
            TooManyRequests: the user or the address has to wait; the password was not looked at.
        """
        rules = self.settings
        # Always the user first, so that two attempts never wait for each other.
        subjects = ((self._user, rules.login_attempts), (self._address, rules.login_attempts_per_address))
        # Whatever is counted stays counted: it is not part of the change that the caller wants.
        with accompanied(None):
            waits = await self._count_all(sessions, subjects)
        if any(waits):
            raise TooManyRequests(
                "Too many failed logins. Wait as long as the Retry-After header says, then try again.",
                retry_after=int(max(waits).total_seconds()) + 1,
            )

    async def _count_all(
        self, sessions: async_sessionmaker[AsyncSession], subjects: Sequence[tuple[bytes, int]]
    ) -> list[timedelta]:
        async with sessions.begin() as session:
            waits: timedelta | None = await session.scalar(
                select(type_coerce(LoginThrottle.blocked_until - _NOW, Interval)).where(
                    LoginThrottle.subject == self._address, LoginThrottle.blocked_until > _NOW
                )
            )
            if waits is not None:
                return [waits]
            return [await self._count(session, subject, free) for subject, free in subjects]

    async def forgive(self, session: AsyncSession) -> None:
        """The password was right: the user starts anew, and the address gets this attempt back."""
        await session.execute(delete(LoginThrottle).where(LoginThrottle.subject == self._user))
        await session.execute(
            update(LoginThrottle)
            .where(LoginThrottle.subject == self._address, LoginThrottle.failures > 0)
            .values(failures=LoginThrottle.failures - 1, blocked_until=None)
        )

    async def _count(self, session: AsyncSession, subject: bytes, free: int) -> timedelta:
        """How long the subject still has to wait; if not at all, this attempt is counted."""
        await session.execute(
            insert(LoginThrottle)
            .values(subject=subject, failures=0, last_failure_at=_NOW)
            .on_conflict_do_nothing()
        )
        row, now = (
            await session.execute(
                select(LoginThrottle, _NOW).where(LoginThrottle.subject == subject).with_for_update()
            )
        ).one()
        # Read again: the clock went on while this attempt waited for others.
        now = await session.scalar(select(_NOW)) or now
        if row.blocked_until is not None and row.blocked_until > now:
            return row.blocked_until - now  # type: ignore[no-any-return]
        row.failures = 1 if now - row.last_failure_at > FORGET else row.failures + 1
        row.last_failure_at = now
        row.blocked_until = self._blocked_until(row.failures, free, now)
        return timedelta(0)

    def _blocked_until(self, failures: int, free: int, now: datetime) -> datetime | None:
        if failures < free:
            return None
        wait = self.settings.login_wait * 2 ** min(failures - free, _DOUBLINGS)
        return now + timedelta(seconds=min(wait, self.settings.login_wait_cap))

    @property
    def _user(self) -> bytes:
        return sha256(b"user:" + self.username.encode(errors="replace")).digest()

    @property
    def _address(self) -> bytes:
        return sha256(b"address:" + network(self.address).encode(errors="replace")).digest()


def network(address: str) -> str:
    """What the owner of an address cannot easily change: of IPv6 the network (/64)."""
    try:
        found = ip_address(address)
    except ValueError:
        return address
    if isinstance(found, IPv4Address):
        return str(found)
    return str(found.ipv4_mapped or IPv6Network((found, SITE), strict=False))


async def forget_old(sessions: async_sessionmaker[AsyncSession], *, batch: int = BATCH) -> int:
    """Delete counts that no longer count, a batch in each transaction; answers how many."""
    old = and_(
        LoginThrottle.last_failure_at < select(_NOW - FORGET).scalar_subquery(),
        or_(LoginThrottle.blocked_until.is_(None), LoginThrottle.blocked_until < _NOW),
    )
    return await delete_all(sessions, LoginThrottle, old, batch=batch)
