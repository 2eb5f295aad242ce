"""Refused logins: each is counted and logged, and the audit tells of them without growing as somebody wishes.

The audit is for ever, and anybody can fail to log in. So each user, and all unknown names together, have so many entries
at once (`AT_ONCE`) and one in five minutes (`EVERY`) after that, which says how many there were besides. Entries are
written in batches a moment later, so that the time of an answer does not tell which users exist.
"""

import asyncio
import hmac
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session

from app.modules.audit import service as audit
from app.modules.auth.roles import Means
from app.scheduling import tally

AT_ONCE: Final = 20
EVERY: Final = 300.0
WRITE_AFTER: Final = 0.1
PAUSE: Final = 1.0
LAST_WORDS: Final = 2.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a login comes from."""

    address: str
    user_agent: str | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """A wrong password (``refused``), or none that was looked at (``throttled``). ``user_id`` is None for unknown names."""

    username: str
    user_id: UUID | None
    place: Place
    outcome: str
    action: str = "login"

    def entry(self, further: int = 0) -> audit.Entry:
        """The audit's entry; ``further`` ones like it have none."""
        changes = {"logins": {"further": {"before": None, "after": further}}} if further else {}
        return entry_of(self.user_id, self.username, self.place, self.outcome, self.action, changes=changes)


@dataclass(slots=True)
class _Account:
    """What one user, or the unknown ones, may still have written."""

    left: float
    at: float
    told: float
    untold: int = 0
    last: Refusal | None = None


class Refusals:
    """Those of this process."""

    def __init__(
        self, sessions: async_sessionmaker[AsyncSession], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._sessions = sessions
        self._clock = clock
        self._accounts: dict[UUID | None, _Account] = {}
        self._pending: list[audit.Entry] = []
        self._news = asyncio.Event()
        # For this process's life only: a name may be a password, whose plain hash could be guessed back.
        self._key = secrets.token_bytes(32)

    def note(self, refusal: Refusal) -> None:
        """One more; costs no statement."""
        known = refusal.user_id is not None
        mark = hmac.digest(self._key, refusal.username.encode(errors="replace"), "sha256").hex()[:12]
        named = {"user": refusal.username} if known else {"unknown_user": mark}
        log.warning(
            "login refused",
            action="login_refused",
            outcome=refusal.outcome,
            attempted=refusal.action,
            address=refusal.place.address,
            **named,
        )
        tally.count("login", label=refusal.outcome)
        now = self._clock()
        account = self._accounts.setdefault(refusal.user_id, _Account(AT_ONCE, now, now))
        account.left = min(AT_ONCE, account.left + (now - account.at) / EVERY)
        account.at = now
        if account.left < 1:
            account.untold += 1
            account.last = refusal
            return
        account.left -= 1
        self._add(account, refusal, now)
        self._news.set()

    async def keep(self) -> None:
        """Write entries until cancelled, and what is left then."""
        try:
            while True:
                # Not wait_for, which drops a cancellation that comes with the news.
                with suppress(TimeoutError):
                    async with asyncio.timeout(EVERY):
                        await self._news.wait()
                await asyncio.sleep(WRITE_AFTER)
                self._news.clear()
                self._sum_up(self._clock() - EVERY)
                await self._write()
        finally:
            self._sum_up(self._clock())
            with suppress(TimeoutError):
                async with asyncio.timeout(LAST_WORDS):
                    await self._write(once=True)

    def _sum_up(self, until: float) -> None:
        """Entries for what was left out of accounts that have told nothing since ``until``; idle ones are forgotten."""
        now = self._clock()
        for key, account in list(self._accounts.items()):
            if account.untold and account.last is not None and account.told <= until:
                account.untold -= 1
                self._add(account, account.last, now)
            elif not account.untold and now - account.at > AT_ONCE * EVERY:
                del self._accounts[key]

    def _add(self, account: _Account, refusal: Refusal, now: float) -> None:
        self._pending.append(refusal.entry(account.untold))
        account.untold, account.last, account.told = 0, None, now

    async def _write(self, *, once: bool = False) -> None:
        while self._pending:
            taken = list(self._pending)
            try:
                async with self._sessions.begin() as session:
                    await session.run_sync(_record, taken)
            except Exception as error:  # noqa: BLE001 - tried again in a while
                log.warning("refused logins are not recorded", action="refusals", cause=type(error).__name__)
                if once:
                    return
                await asyncio.sleep(PAUSE)
            else:
                del self._pending[: len(taken)]


def _record(session: Session, entries: list[audit.Entry]) -> None:
    audit.record_many(session, entries)


def entry_of(
    user_id: UUID | None,
    username: str,
    place: Place,
    outcome: str,
    action: str = "login",
    *,
    credential_id: UUID | None = None,
    changes: Mapping[str, Any] | None = None,
) -> audit.Entry:
    """What the audit tells of a login."""
    # An unknown name is not kept: it may be a password that was typed into the wrong field.
    return audit.Entry(
        actor="(unknown)" if user_id is None else username,
        actor_id=user_id,
        means=Means.SESSION,
        credential_id=credential_id,
        action=action,
        outcome=outcome,
        object_type="users",
        object_id=None if user_id is None else str(user_id),
        changes=changes or {},
        request_id=place.request_id,
        address=place.address,
    )
