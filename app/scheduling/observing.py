"""What can be seen from outside: lines and progress of runs, workers and beats, the work that waits.

`Observer` is a facade as `app.scheduling.facade.Scheduler` is, for those who only look.
"""

from collections.abc import Callable, Collection
from typing import TypeVar
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session

from app.errors import NotFound
from app.scheduling import run_logs, runs
from app.scheduling.models import LogRow
from app.scheduling.run_logs import Place, Standing

T = TypeVar("T")


class Observer:
    """Reads, and says that it follows runs; changes nothing else."""

    def __init__(self, sessions: async_sessionmaker[AsyncSession]) -> None:
        self._sessions = sessions

    async def log(
        self, run_id: UUID, *, after: Place | None, limit: int, at_least: str = "debug"
    ) -> list[LogRow]:
        """Lines of a run in order, of this level or a graver one.

        Raises:
            NotFound: there is no run with this id.
        """

        def work(session: Session) -> list[LogRow]:
            found = run_logs.read(session, run_id, after=after, limit=limit, at_least=at_least)
            if not found and runs.read(session, run_id) is None:
                raise NotFound("There is no run with this id. GET /api/v1/runs lists them.")
            return found

        return await self._read(work)

    async def follow(self, ids: Collection[UUID], seconds: float) -> dict[UUID, Standing]:
        """Have these runs notify for so long; answers how far each that exists is."""
        async with self._sessions() as session, session.begin():
            return await session.run_sync(run_logs.follow, ids, seconds)

    async def _read(self, work: Callable[[Session], T]) -> T:
        async with self._sessions() as session:
            return await session.run_sync(work)
