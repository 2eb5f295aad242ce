"""What the facade does with runs that exist: cancel, replay, one or many, and their attempts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.companions import changed
from app.errors import Conflict, NotFound
from app.scheduling import cancelling, explaining_runs, replaying, runs, wishes
from app.scheduling.catalogue import Catalogue
from app.scheduling.explaining_runs import RunExplanation
from app.scheduling.ids import new_id
from app.scheduling.messages import RunMessage
from app.scheduling.models import RUNS, AttemptRow, LateOutcomeRow, RunRow, WorkerRow
from app.scheduling.selecting import RunFilter
from app.settings import Settings

T = TypeVar("T")
BATCH = 100


@dataclass(frozen=True, slots=True)
class Bulk:
    """What a bulk operation did, or would do: how many runs it concerned (at most its limit), in how many it
    changed something, and whether there are more."""

    matched: int
    changed: int
    more: bool


@dataclass(frozen=True, slots=True)
class Attempts:
    """The attempts of a run that ended and were followed by another, the run itself with the newest one, and
    what fenced workers reported too late."""

    run: RunRow
    ended: list[AttemptRow]
    late: list[LateOutcomeRow]


class RunOperations:
    """A part of the facade."""

    _catalogue: Catalogue
    _settings: Settings

    async def cancel_run(
        self, run_id: UUID, *, actor: str, force: bool = False, note: str | None = None
    ) -> RunRow:
        """Cancel a run: a queued one never starts, a running one is asked to stop, with ``force`` made to.

        Raises:
            NotFound: there is none with this id.
            Conflict: it has ended already, in another way.
        """

        def work(session: Session) -> RunRow:
            state = cancelling.cancel(session, run_id, force=force, note=note, by=actor)
            row = runs.require(session, run_id)
            if state is None and row.state != runs.RunState.CANCELLED:
                raise Conflict(f"The run has ended already: it is {row.state}.")
            return row

        return await self._unit(work)

    async def replay_run(
        self,
        run_id: UUID,
        *,
        actor: str,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
    ) -> RunRow:
        """A new run with the task and options of one that ended; see `replaying.replay` for what it raises."""
        made = new_id()

        def work(session: Session) -> tuple[RunRow, RunMessage | None]:
            message = self._replay(session, run_id, made=made, actor=actor, args=args, kwargs=kwargs)
            return runs.require(session, made), message

        return await self._publishing(work)

    async def drain_worker(self, worker_id: UUID) -> WorkerRow:
        """Ask a worker to end when its runs have ended; see `wishes.drain` for what it raises."""
        return await self._unit(lambda session: wishes.drain(session, worker_id))

    async def resize_worker(self, worker_id: UUID, change: int) -> WorkerRow:
        """Ask a worker to have more or fewer slots; see `wishes.resize` for what it raises."""
        return await self._unit(lambda session: wishes.resize(session, worker_id, change))

    async def cancel_run_at(
        self, worker_id: UUID, run_id: UUID, *, actor: str, force: bool, note: str | None
    ) -> RunRow:
        """Cancel a run that this worker executes; see `cancel_run`.

        Raises:
            NotFound: there is no such worker or run.
            Conflict: it does not execute this run.
        """

        def check(session: Session) -> None:
            if session.get(WorkerRow, worker_id) is None:
                raise NotFound("There is no worker with this id. GET /api/v1/workers lists them.")
            row = runs.require(session, run_id)
            if row.state != runs.RunState.RUNNING or row.worker_id != worker_id:
                where = f" at {row.worker}" if row.worker else ""
                raise Conflict(f"This worker does not execute the run: it is {row.state}{where}.")

        await self._unit(check)
        return await self.cancel_run(run_id, actor=actor, force=force, note=note)

    async def cancel_runs(
        self, which: RunFilter, *, actor: str, limit: int, dry_run: bool, note: str | None = None
    ) -> Bulk:
        """Cancel up to ``limit`` runs, the oldest first, a batch in each transaction."""

        def one(session: Session, run_id: UUID) -> RunMessage | bool:
            state = cancelling.cancel(session, run_id, note=note, by=actor)
            if state is not None:
                changed(session, f"{RUNS}/{run_id}", {"cancelled": {"before": None, "after": state}})
            return state is not None

        return await self._many(which, one, limit=limit, dry_run=dry_run)

    async def replay_runs(self, which: RunFilter, *, actor: str, limit: int, dry_run: bool) -> Bulk:
        """Replay up to ``limit`` ended runs that were not replayed yet, the oldest first."""

        def one(session: Session, run_id: UUID) -> RunMessage | bool:
            made = new_id()
            try:
                message = self._replay(session, run_id, made=made, actor=actor)
            except (Conflict, NotFound):
                return False
            changed(session, f"{RUNS}/{made}", {"replay_of": {"before": None, "after": run_id}})
            return message or True

        return await self._many(which, one, limit=limit, dry_run=dry_run, replayed=False)

    async def attempts(self, run_id: UUID) -> Attempts:
        """All that is known of a run's attempts.

        Raises:
            NotFound: there is none with this id.
        """

        def work(session: Session) -> Attempts:
            row = runs.require(session, run_id)
            ended = select(AttemptRow).where(AttemptRow.run_id == run_id).order_by(AttemptRow.attempt)
            late = select(LateOutcomeRow).where(LateOutcomeRow.run_id == run_id).order_by(LateOutcomeRow.id)
            return Attempts(row, list(session.scalars(ended)), list(session.scalars(late)))

        return await self._unit(work)

    async def explain_run(self, run_id: UUID) -> RunExplanation:
        """What became of a run, or what it waits for; see `explaining_runs.explain`."""
        return await self._unit(lambda session: explaining_runs.explain(session, run_id))

    def _replay(
        self,
        session: Session,
        run_id: UUID,
        *,
        made: UUID,
        actor: str,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
    ) -> RunMessage | None:
        return replaying.replay(
            session,
            self._catalogue,
            run_id,
            new_id=made,
            actor=actor,
            redispatch_delay=self._settings.beat.redispatch_delay,
            args=args,
            kwargs=kwargs,
        )

    async def _many(
        self,
        which: RunFilter,
        one: Callable[[Session, UUID], RunMessage | bool],
        *,
        limit: int,
        dry_run: bool,
        replayed: bool = True,
    ) -> Bulk:
        matched = changed = 0
        after: UUID | None = None
        while matched < limit:
            size = min(BATCH, limit - matched)

            def find(session: Session, after: UUID | None = after, size: int = size) -> list[UUID]:
                return list(session.scalars(which.ids(after=after, limit=size, replayed=replayed)))

            # A transaction for each: the end of a run locks its schedule and its key, and never two of them.
            ids = await self._unit(find)
            done = [
                (run_id, False if dry_run else await self._unit(partial(_one, one, run_id))) for run_id in ids
            ]
            await self._publish([each for _, each in done if isinstance(each, RunMessage)])
            matched += len(done)
            changed += sum(1 for _, each in done if each)
            if len(done) < size:
                return Bulk(matched, changed, more=False)
            after = done[-1][0]
        more = await self._unit(
            lambda session: session.scalar(which.ids(after=after, limit=1, replayed=replayed)) is not None
        )
        return Bulk(matched, changed, more)

    async def _unit(self, work: Callable[[Session], T]) -> T:
        raise NotImplementedError

    async def _publishing(self, work: Callable[[Session], tuple[RunRow, RunMessage | None]]) -> RunRow:
        raise NotImplementedError

    async def _publish(self, messages: Sequence[RunMessage]) -> None:
        raise NotImplementedError


def _one(one: Callable[[Session, UUID], T], run_id: UUID, session: Session) -> T:
    return one(session, run_id)
