"""What a deployment does once the database is up to date: declared schedules, and the check of all schedules."""

import logging
import time
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app.scheduling import declared, drift
from app.scheduling.catalogue import Catalogue
from app.scheduling.declarations import Declared
from app.scheduling.declared import Action, Prune, Step, Told, untold
from app.scheduling.drift import Drift

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Deployed:
    """What `Deployment.deploy` did."""

    steps: list[Step]
    drift: Drift


class Deployment:
    """Plan, apply and check, as methods; each commits before it returns. ``told`` hears how far it is."""

    def __init__(
        self, sessions: async_sessionmaker[AsyncSession], catalogue: Catalogue, told: Told = untold
    ) -> None:
        self._sessions = sessions
        self._catalogue = catalogue
        self._told = told

    async def plan(self, given: Declared, *, prune: Prune | None = None) -> list[Step]:
        """What `apply` would do, done and taken back; see `declared.synchronise` for what it raises."""
        async with self._sessions() as session:
            steps = await session.run_sync(
                declared.synchronise, self._catalogue, given, actor="plan", prune=prune, told=self._told
            )
            await session.rollback()
        return [_as_planned(step) for step in steps]

    async def apply(self, given: Declared, *, actor: str, prune: Prune | None = None) -> list[Step]:
        """Bring the stored schedules to what is declared; see `declared.synchronise`."""
        async with self._sessions() as session, session.begin():
            steps = await session.run_sync(
                declared.synchronise, self._catalogue, given, actor=actor, prune=prune, told=self._told
            )
        for step in steps:
            if step.changing:
                logger.info(
                    "declared schedule %s: %s",
                    *(step.key, step.action),
                    extra={"action": f"declared_{step.action}", "schedule_id": str(step.schedule_id)},
                )
        return steps

    async def check(self, *, after: UUID | None = None, seconds: float | None = None) -> Drift:
        """Check the stored schedules against the tasks of this code, for about so many seconds.

        ``after`` is the `next` of the check that is continued.
        """
        found, end = Drift(), None if seconds is None else time.monotonic() + seconds
        upcoming: UUID | None = after or drift.FIRST
        while upcoming is not None and (end is None or time.monotonic() < end):
            async with self._sessions() as session, session.begin():
                page = await session.run_sync(drift.check_page, self._catalogue, upcoming)
            found.add(page)
            self._told(found.checked, None)
            upcoming = found.next
        if after is None and found.next is None:
            async with self._sessions() as session, session.begin():
                await session.run_sync(drift.remember, self._catalogue)
        return found

    async def deploy(self, given: Declared, *, actor: str) -> Deployed:
        """Apply what is declared, then check all schedules. Nothing is pruned."""
        steps = await self.apply(given, actor=actor)
        return Deployed(steps, await self.check())


def _as_planned(step: Step) -> Step:
    created = step.action is Action.CREATE
    return Step(step.owner, step.key, step.action, None) if created else step
