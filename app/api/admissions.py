"""Who may still read the streams that are open here: one look at the database every few seconds for all of them.

A stream lasts longer than what opened it may: a session is revoked, a key expires, a user is demoted. Each stream is
admitted when it begins and told when that is over, at most `LOOK_EVERY` seconds and a look later, whichever process
made the change. The statement is one, and there is none while nobody reads.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import Context
from dataclasses import dataclass, replace
from typing import Final

import structlog
from fastapi import Request
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app.api.guards import Guard, guard_of_request, resource_of
from app.db.outages import is_away
from app.errors import Forbidden
from app.modules.auth import service as auth
from app.modules.auth.service import Principal, Role
from app.settings import AuthSettings

LOOK_EVERY: Final = 2.0

log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class Admission:
    """One caller's leave to read one stream; ``over`` when it is withdrawn, which ``tell`` wakes the stream for."""

    caller: Principal
    guard: Guard
    resource: str
    tell: Callable[[], None]
    over: bool = False

    def judge(self, role: Role | None) -> None:
        """Withdraw the leave unless the guard lets the caller through with ``role``; None: the credential has ended."""
        if role is not None:
            try:
                self.guard.check(replace(self.caller, role=role), self.resource)
            except Forbidden:
                role = None
        if role is None:
            self.over = True
            self.tell()


class Admissions:
    """All open streams of this process. Its task exists only while there are some."""

    def __init__(self, sessions: async_sessionmaker[AsyncSession], rules: AuthSettings) -> None:
        self._sessions = sessions
        self._rules = rules
        self._open: set[Admission] = set()
        self._task: asyncio.Task[None] | None = None
        self.looks = 0

    @contextmanager
    def admitted(self, request: Request, tell: Callable[[], None]) -> Iterator[Admission]:
        """For the time of the context the caller of an authorized ``request`` is looked after."""
        admission = Admission(request.state.caller, guard_of_request(request), resource_of(request), tell)
        self._open.add(admission)
        if self._task is None or self._task.done():
            # Not a part of the request that happens to be the first.
            self._task = asyncio.get_running_loop().create_task(self._keep(), context=Context())
        try:
            yield admission
        finally:
            self._open.discard(admission)

    async def close(self) -> None:
        """Stop looking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _keep(self) -> None:
        while self._open:
            try:
                await self._look()
            except Exception as error:
                # An outage is no answer: streams tell nothing meanwhile, for they read the same database.
                if not is_away(error):
                    log.exception("streams' callers cannot be checked", action="admissions")
            await asyncio.sleep(LOOK_EVERY)

    async def _look(self) -> None:
        looked = list(self._open)
        if not looked:
            return
        roles = await auth.still_valid(
            self._sessions, self._rules, {each.caller.credential_id for each in looked}
        )
        self.looks += 1
        for admission in looked:
            admission.judge(roles.get(admission.caller.credential_id))
