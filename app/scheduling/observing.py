"""What can be seen from outside: lines and progress of runs, workers and beats, the work that waits.

`Observer` is a facade as `app.scheduling.facade.Scheduler` is, for those who only look.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import Float, Select, cast, extract, func, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session

from app.errors import NotFound
from app.scheduling import backlog, run_logs, runs
from app.scheduling.backlog import Backlog
from app.scheduling.facade import Page
from app.scheduling.inspecting import BEAT_AGE
from app.scheduling.models import BeatRow, LogRow, RunRow, WorkerRow
from app.scheduling.run_logs import Place, Standing

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class WorkerView:
    """A worker; ``lease_left`` is in seconds, and negative when the lease has ended."""

    row: WorkerRow
    alive: bool
    lease_left: float
    active_runs: int


@dataclass(frozen=True, slots=True)
class BeatView:
    """A beat; ``age`` is in seconds since its last good pass."""

    row: BeatRow
    age: float


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
            if not found:
                runs.require(session, run_id)
            return found

        return await self._read(work)

    async def follow(self, ids: Collection[UUID], seconds: float) -> dict[UUID, Standing]:
        """Have these runs notify for so long; answers how far each that exists is."""
        async with self._sessions() as session, session.begin():
            return await session.run_sync(run_logs.follow, ids, seconds)

    async def workers(
        self,
        *,
        limit: int,
        before: UUID | None = None,
        alive: bool | None = None,
        state: str | None = None,
        queue: str | None = None,
        search: str | None = None,
    ) -> Page[WorkerView]:
        """Workers, the youngest first; ``search`` is part of a name, ``queue`` one that it takes from."""
        query = _WORKERS.order_by(WorkerRow.id.desc()).limit(limit + 1)
        if before is not None:
            query = query.where(WorkerRow.id < before)
        if state is not None:
            query = query.where(WorkerRow.state == state)
        if queue is not None:
            query = query.where(WorkerRow.queues.contains([queue]))
        if search is not None:
            query = query.where(WorkerRow.name.icontains(search, autoescape=True))
        if alive is not None:
            query = query.where((WorkerRow.lease_expires_at > func.clock_timestamp()).is_(alive))
        async with self._sessions() as session:
            found = [_worker(*row) for row in await session.execute(query)]
        return Page(found[:limit], found[limit - 1].row.id if len(found) > limit else None)

    async def worker(self, worker_id: UUID) -> WorkerView:
        """One worker.

        Raises:
            NotFound: there is none with this id.
        """
        async with self._sessions() as session:
            row = (await session.execute(_WORKERS.where(WorkerRow.id == worker_id))).one_or_none()
        if row is None:
            raise NotFound("There is no worker with this id. GET /api/v1/workers lists them.")
        return _worker(*row)

    async def active_runs(self, worker_id: UUID, *, limit: int) -> list[RunRow]:
        """The runs that a worker executes now, the longest first."""
        query = select(RunRow).where(RunRow.worker_id == worker_id, RunRow.state == "running")
        async with self._sessions() as session:
            return list(await session.scalars(query.order_by(RunRow.started_at).limit(limit)))

    async def beats(
        self,
        *,
        limit: int,
        before: UUID | None = None,
        alive: bool | None = None,
        search: str | None = None,
    ) -> Page[BeatView]:
        """Beats, the youngest first; an ``alive`` one has passed within `BEAT_AGE` seconds."""
        query = _BEATS.order_by(BeatRow.id.desc()).limit(limit + 1)
        if before is not None:
            query = query.where(BeatRow.id < before)
        if alive is not None:
            recent = func.clock_timestamp() - timedelta(seconds=BEAT_AGE)
            query = query.where((BeatRow.last_pass_at > recent).is_(alive))
        if search is not None:
            query = query.where(BeatRow.name.icontains(search, autoescape=True))
        async with self._sessions() as session:
            found = [BeatView(*row) for row in await session.execute(query)]
        return Page(found[:limit], found[limit - 1].row.id if len(found) > limit else None)

    async def beat(self, beat_id: UUID) -> BeatView:
        """One beat.

        Raises:
            NotFound: there is none with this id.
        """
        async with self._sessions() as session:
            row = (await session.execute(_BEATS.where(BeatRow.id == beat_id))).one_or_none()
        if row is None:
            raise NotFound("There is no beat with this id. GET /api/v1/beats lists them.")
        return BeatView(*row)

    async def backlog(self) -> Backlog:
        """What waits and runs now; raises as the driver does when the database is away."""
        return await self._read(backlog.read)

    async def _read(self, work: Callable[[Session], T]) -> T:
        async with self._sessions() as session:
            return await session.run_sync(work)


def _seconds(interval: Any) -> Any:
    return cast(extract("epoch", interval), Float)


_ACTIVE = (
    select(func.count())
    .where(RunRow.worker_id == WorkerRow.id, RunRow.state == "running")
    .correlate(WorkerRow)
    .scalar_subquery()
)
_WORKERS: Select[Any] = select(
    WorkerRow, _seconds(WorkerRow.lease_expires_at - func.clock_timestamp()), _ACTIVE
)
_BEATS: Select[Any] = select(BeatRow, _seconds(func.clock_timestamp() - BeatRow.last_pass_at))


def _worker(row: WorkerRow, lease_left: float, active_runs: int) -> WorkerView:
    return WorkerView(row, lease_left > 0, lease_left, active_runs)
